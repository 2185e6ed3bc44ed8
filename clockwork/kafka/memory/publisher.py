"""The twin of Publisher: the same steps as the real one, on the broker in memory."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from clockwork.clock import Clock
from clockwork.domain import marker as marker_value
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.record import OutRecord
from clockwork.domain.schedule import Receipt
from clockwork.domain.sharding import ShardId, murmur2
from clockwork.errors import BrokerUnavailable, DeliveryRefused, DeliveryUnknown, Refusal, RefusalCause
from clockwork.kafka.memory.broker import MemoryKafka, Step


class MemoryShardPublisher:
    """See `ports.ShardPublisher`."""

    def __init__(self, kafka: MemoryKafka, clock: Clock, shard: ShardId) -> None:
        self._kafka = kafka
        self._clock = clock
        self._shard = shard
        self._id = kafka.settings.transactional_id(shard)
        self._epoch = -1
        self._usable = False

    async def init(self) -> None:
        await self._kafka.step(Step.INIT, self._id, done=False)
        self._epoch = self._kafka.init(self._id)
        await self._kafka.step(Step.INIT, self._id, done=True)
        self._usable = True

    async def read_marker(self) -> tuple[MarkerEntry, ...]:
        await self._kafka.step(Step.READ_MARKER, self._id, done=False)
        record = self._kafka.last_committed(self._kafka.deliveries_topic, self._shard)
        await self._kafka.step(Step.READ_MARKER, self._id, done=True)
        return () if record is None else marker_value.decode(record.value)

    async def deliver(
        self, records: Sequence[OutRecord], marker: Callable[[Sequence[Receipt]], bytes]
    ) -> Sequence[Receipt]:
        if not self._usable:
            raise DeliveryUnknown("this shard's producer is spent or closed")
        await self._preflight(records)
        self._usable = False
        try:
            receipt = await self._in_transaction(records, marker)
        except BrokerUnavailable as error:
            raise DeliveryUnknown(f"{self._id}: {error}") from error
        self._usable = True
        return receipt

    async def close(self) -> None:
        self._usable = False

    async def _preflight(self, records: Sequence[OutRecord]) -> None:
        await self._kafka.step(Step.LOOKUP, self._id, done=False)
        refusals = _refusals(records, self._kafka.known_refusal)
        if refusals:
            raise DeliveryRefused(refusals, begun=False)

    async def _in_transaction(
        self, records: Sequence[OutRecord], marker: Callable[[Sequence[Receipt]], bytes]
    ) -> Sequence[Receipt]:
        kafka = self._kafka
        await kafka.step(Step.BEGIN, self._id, done=False)
        kafka.begin(self._id, self._epoch)
        await kafka.step(Step.BEGIN, self._id, done=True)
        receipt: list[Receipt] = []
        refusals: list[Refusal] = []
        for index, record in enumerate(records):
            await kafka.step(Step.APPEND, self._id, done=False)
            try:
                receipt.append(self._append(record, partition_of(kafka, record)))
            except DeliveryRefused as refused:
                refusals += [_of_batch(refusal, index) for refusal in refused.refusals]
            await kafka.step(Step.APPEND, self._id, done=True)
        if refusals:
            await kafka.step(Step.ABORT, self._id, done=False)
            kafka.abort(self._id, self._epoch)
            await kafka.step(Step.ABORT, self._id, done=True)
            raise DeliveryRefused(_distinct(refusals), begun=True)
        await self._append_marker(marker(receipt))
        await kafka.step(Step.COMMIT, self._id, done=False)
        kafka.commit(self._id, self._epoch)
        await kafka.step(Step.COMMIT, self._id, done=True)
        return receipt

    async def _append_marker(self, value: bytes) -> None:
        record = OutRecord(
            topic=self._kafka.deliveries_topic,
            key=marker_value.KEY,
            value=value,
            headers=(),
            timestamp_ms=self._clock.now_ms(),
        )
        await self._kafka.step(Step.APPEND_MARKER, self._id, done=False)
        try:
            self._append(record, self._shard)
        except DeliveryRefused as refused:
            raise DeliveryUnknown(f"the marker was refused: {refused}") from refused
        await self._kafka.step(Step.APPEND_MARKER, self._id, done=True)

    def _append(self, record: OutRecord, kafka_partition: int) -> Receipt:
        return self._kafka.append(record, kafka_partition, transactional_id=self._id, epoch=self._epoch)


class MemoryPublisher:
    """See `ports.Publisher`. One per node."""

    def __init__(self, kafka: MemoryKafka, clock: Clock) -> None:
        self._kafka = kafka
        self._clock = clock

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held."""

    async def open_shard(self, shard: ShardId) -> MemoryShardPublisher:
        publisher = MemoryShardPublisher(self._kafka, self._clock, shard)
        await publisher.init()
        return publisher

    async def send(self, record: OutRecord) -> Receipt:
        return await self._send(record, None)

    async def send_wakeup(self, shard: ShardId, value: bytes) -> None:
        record = OutRecord(
            topic=self._kafka.shards_topic, key=None, value=value, headers=(), timestamp_ms=self._clock.now_ms()
        )
        await self._send(record, shard)

    async def topic_exists(self, topic: str) -> bool:
        await self._kafka.step(Step.LOOKUP, topic, done=False)
        return self._kafka.has_topic(topic)

    def connected(self) -> bool:
        return not self._kafka.down

    async def _send(self, record: OutRecord, kafka_partition: int | None) -> Receipt:
        await self._kafka.step(Step.SEND, record.topic, done=False)
        if refusal := self._kafka.known_refusal(record):
            raise DeliveryRefused([refusal], begun=False)
        number = partition_of(self._kafka, record) if kafka_partition is None else kafka_partition
        receipt = self._kafka.append(record, number)
        await self._kafka.step(Step.SEND, record.topic, done=True)
        return receipt


def partition_of(kafka: MemoryKafka, record: OutRecord) -> int:
    """Kafka's default partitioner; without a key the first Kafka partition."""
    # A topic that is gone by now: any number will do, the broker refuses.
    count = kafka.kafka_partitions(record.topic) if kafka.has_topic(record.topic) else 1
    return (murmur2(record.key) & 0x7FFFFFFF) % count if record.key is not None else 0


def _refusals(records: Sequence[OutRecord], judge: Callable[[OutRecord], Refusal | None]) -> list[Refusal]:
    found = [(index, judge(record)) for index, record in enumerate(records)]
    return _distinct([_of_batch(refusal, index) for index, refusal in found if refusal is not None])


def _of_batch(refusal: Refusal, index: int) -> Refusal:
    named = index if refusal.cause is RefusalCause.RECORD else None
    return Refusal(cause=refusal.cause, reason=refusal.reason, destination=refusal.destination, index=named)


def _distinct(refusals: Sequence[Refusal]) -> list[Refusal]:
    """A topic is named once, however many of the records are its."""
    return list(dict.fromkeys(refusals))
