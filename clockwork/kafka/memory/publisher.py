"""The twin of Publisher: the same steps as the real one, on the broker in memory."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from clockwork.clock import Clock
from clockwork.concurrency import gather_bounded
from clockwork.domain import marker as marker_value
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.ownership import IncarnationId
from clockwork.domain.record import OutRecord
from clockwork.domain.schedule import Receipt
from clockwork.domain.sharding import ShardId, kafka_partition_of
from clockwork.errors import (
    BrokerUnavailable,
    DeliveryAborted,
    DeliveryRefused,
    DeliveryUnknown,
    Refusal,
    RefusalCause,
)
from clockwork.kafka.memory.broker import MemoryKafka, Step
from clockwork.ports.delivery import Committed, SlotName


class MemorySlotProducer:
    """See `ports.SlotProducer`."""

    def __init__(self, kafka: MemoryKafka, clock: Clock, name: SlotName) -> None:
        self._kafka = kafka
        self._clock = clock
        self._key = marker_value.marker_key(name.incarnation, name.slot)
        self._id = kafka.settings.transactional_id(name.incarnation, name.slot)
        self._epoch = -1
        self._usable = False
        self._closed = False

    async def init(self) -> None:
        if self._closed:
            raise BrokerUnavailable(f"{self._id}: closed")
        self._usable = False
        self._epoch = await _init(self._kafka, self._id)
        self._usable = True

    async def deliver(
        self, records: Sequence[OutRecord], marker: Callable[[Sequence[Receipt]], bytes], *, sends_ms: int
    ) -> Committed:
        if not self._usable:
            raise DeliveryAborted(f"{self._id} must be initialised first")
        await self._preflight(records)
        # Spent until the outcome is known, so that a delivery that is cancelled leaves the producer spent.
        self._usable = False
        deadline_s = asyncio.get_running_loop().time() + sends_ms / 1_000
        receipts, sends_ms_of = await self._send_all(records, deadline_s)
        marker_receipt = await self._send_marker(marker(receipts), deadline_s)
        self._usable = await self._commit()
        return Committed(
            receipts=receipts,
            marker_offset=marker_receipt.offset,
            sends_ms=sends_ms_of,
            marker_ms=0,
            settled=self._usable,
        )

    async def close(self) -> None:
        self._usable = False
        self._closed = True

    async def _preflight(self, records: Sequence[OutRecord]) -> None:
        await self._kafka.step(Step.LOOKUP, self._id, done=False)
        if self._marker_place() in self._kafka.leaderless:
            raise BrokerUnavailable(f"{self._id}: the leader of its markers is away")
        found = [self._kafka.known_refusal(record, partition_of(self._kafka, record)) for record in records]
        refusals = [_of_batch(refusal, index) for index, refusal in enumerate(found) if refusal is not None]
        if refusals:
            raise DeliveryRefused(_distinct(refusals), begun=False)

    async def _send_all(
        self, records: Sequence[OutRecord], deadline_s: float
    ) -> tuple[Sequence[Receipt], Mapping[str, int]]:
        """Begins the transaction and sends the records, those of slow topics last."""
        kafka, loop = self._kafka, asyncio.get_running_loop()
        begun_at_s = loop.time()
        sending: str | None = None
        receipts: dict[int, Receipt] = {}
        refusals: list[Refusal] = []
        sends_ms_of: dict[str, int] = {}
        try:
            async with asyncio.timeout_at(deadline_s):
                await self._begin()
                for index, record in sorted(enumerate(records), key=lambda each: self._delay_s(each[1].topic)):
                    sending = record.topic
                    await asyncio.sleep(max(0.0, begun_at_s + self._delay_s(sending) - loop.time()))
                    try:
                        receipts[index] = await self._append(Step.APPEND, record, partition_of(kafka, record))
                    except DeliveryRefused as refused:
                        refusals += [_of_batch(refusal, index) for refusal in refused.refusals]
                    sends_ms_of[sending] = round((loop.time() - begun_at_s) * 1_000)
        except TimeoutError as error:
            if sending is None:
                raise DeliveryAborted("time ran out before the commit", timed_out=True) from error
            refusals.append(Refusal(cause=RefusalCause.TRANSIENT, reason="timed_out", destination=sending))
        if refusals:
            raise DeliveryRefused(_distinct(refusals), begun=True)
        return [receipts[index] for index in range(len(records))], sends_ms_of

    async def _begin(self) -> None:
        try:
            await self._kafka.step(Step.BEGIN, self._id, done=False)
            self._kafka.begin(self._id, self._epoch)
            await self._kafka.step(Step.BEGIN, self._id, done=True)
        except BrokerUnavailable as error:
            raise DeliveryAborted(f"{self._id}: {error}") from error

    async def _append(self, step: Step, record: OutRecord, kafka_partition: int) -> Receipt:
        try:
            await self._kafka.step(step, self._id, done=False)
            receipt = self._kafka.append(record, kafka_partition, transactional_id=self._id, epoch=self._epoch)
            await self._kafka.step(step, self._id, done=True)
        except BrokerUnavailable as error:
            raise DeliveryAborted(f"{self._id}: {error}") from error
        return receipt

    async def _send_marker(self, value: bytes, deadline_s: float) -> Receipt:
        topic, kafka_partition = self._marker_place()
        record = OutRecord(topic=topic, key=self._key, value=value, headers=(), timestamp_ms=self._clock.now_ms())
        try:
            async with asyncio.timeout_at(deadline_s):
                return await self._append(Step.APPEND_MARKER, record, kafka_partition)
        except DeliveryRefused as refused:
            raise DeliveryAborted(f"the marker was refused: {refused}") from refused
        except TimeoutError as error:
            raise DeliveryAborted("time ran out before the commit", timed_out=True) from error

    async def _commit(self) -> bool:
        """True if its only request was answered."""
        kafka = self._kafka
        unanswered = min(kafka.unanswered_commits, 1)
        kafka.unanswered_commits -= unanswered
        try:
            await kafka.step(Step.COMMIT, self._id, done=False)
            kafka.commit(self._id, self._epoch)
            await kafka.step(Step.COMMIT, self._id, done=True)
        except BrokerUnavailable as error:
            raise DeliveryUnknown(f"{self._id}: {error}") from error
        return not unanswered

    def _marker_place(self) -> tuple[str, int]:
        return _marker_place(self._kafka, self._key)

    def _delay_s(self, topic: str) -> float:
        return self._kafka.answers_after_s.get(topic, 0.0)


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
        """Does nothing: a producer in memory holds no connection."""

    def open_slot(self, name: SlotName) -> MemorySlotProducer:
        return MemorySlotProducer(self._kafka, self._clock, name)

    async def settle(self, incarnation: IncarnationId, *, slots: int) -> None:
        ids = [self._kafka.settings.transactional_id(incarnation, slot) for slot in range(slots)]
        await gather_bounded(partial(_init, self._kafka), ids, at_once=max(1, slots))

    async def read_markers(
        self, reader: IncarnationId, slots: Mapping[SlotName, int | None]
    ) -> Mapping[SlotName, tuple[MarkerEntry, ...]]:
        keys = {name: marker_value.marker_key(name.incarnation, name.slot) for name in slots}
        places = {name: _marker_place(self._kafka, key) for name, key in keys.items()}
        barriers = {place: await self._barrier(reader, place) for place in sorted(set(places.values()))}
        await self._kafka.step(Step.READ_MARKERS, reader, done=False)
        found: dict[SlotName, tuple[MarkerEntry, ...]] = {}
        for name, hint in slots.items():
            (topic, number), end = places[name], barriers[places[name]]
            await self._kafka.until_stable(topic, number, end)
            values = [
                record.value
                for record in self._kafka.read_committed(topic)
                if record.kafka_partition == number and (hint or 0) <= record.offset <= end and record.key == keys[name]
            ]
            found[name] = marker_value.decode(values[-1]) if values and values[-1] is not None else ()
        await self._kafka.step(Step.READ_MARKERS, reader, done=True)
        return found

    async def forget_markers(self, incarnation: IncarnationId, *, slots: int) -> None:
        for slot in range(slots):
            key = marker_value.marker_key(incarnation, slot)
            topic, number = _marker_place(self._kafka, key)
            await self._kafka.step(Step.FORGET_MARKER, incarnation, done=False)
            self._append_plain(topic, number, key=key)
            await self._kafka.step(Step.FORGET_MARKER, incarnation, done=True)

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

    async def topic_missing(self, topic: str) -> bool:
        return not await self.topic_exists(topic)

    def connected(self) -> bool:
        return not self._kafka.down

    async def _barrier(self, reader: IncarnationId, place: tuple[str, int]) -> int:
        """Writes a barrier there. Returns its offset."""
        await self._kafka.step(Step.BARRIER, reader, done=False)
        receipt = self._append_plain(*place, key=marker_value.barrier_key(reader))
        await self._kafka.step(Step.BARRIER, reader, done=True)
        return receipt.offset

    def _append_plain(self, topic: str, kafka_partition: int, *, key: bytes) -> Receipt:
        """Appends a record without a value. Raises: BrokerUnavailable."""
        record = OutRecord(topic=topic, key=key, value=None, headers=(), timestamp_ms=self._clock.now_ms())
        try:
            return self._kafka.append(record, kafka_partition)
        except DeliveryRefused as refused:
            raise BrokerUnavailable(str(refused)) from refused

    async def _send(self, record: OutRecord, kafka_partition: int | None) -> Receipt:
        await self._kafka.step(Step.SEND, record.topic, done=False)
        number = partition_of(self._kafka, record) if kafka_partition is None else kafka_partition
        if refusal := self._kafka.known_refusal(record, number):
            raise DeliveryRefused([refusal], begun=False)
        receipt = self._kafka.append(record, number)
        await self._kafka.step(Step.SEND, record.topic, done=True)
        return receipt


async def _init(kafka: MemoryKafka, transactional_id: str) -> int:
    """Fences the id's producers and settles their transaction. Returns the new epoch."""
    await kafka.step(Step.INIT, transactional_id, done=False)
    epoch = kafka.init(transactional_id)
    await kafka.step(Step.INIT, transactional_id, done=True)
    return epoch


def _marker_place(kafka: MemoryKafka, key: bytes) -> tuple[str, int]:
    topic = kafka.deliveries_topic
    return topic, kafka_partition_of(key, kafka.kafka_partitions(topic))


def partition_of(kafka: MemoryKafka, record: OutRecord) -> int:
    """Kafka's default partitioner; without a key the first Kafka partition."""
    # The topic is gone by now. Any number will do: the broker refuses the record.
    count = kafka.kafka_partitions(record.topic) if kafka.has_topic(record.topic) else 1
    return kafka_partition_of(record.key, count) if record.key is not None else 0


def _of_batch(refusal: Refusal, index: int) -> Refusal:
    named = index if refusal.cause is RefusalCause.RECORD else None
    return Refusal(cause=refusal.cause, reason=refusal.reason, destination=refusal.destination, index=named)


def _distinct(refusals: Sequence[Refusal]) -> list[Refusal]:
    """Refusals without repetitions: a topic is named once, however many of its records are refused."""
    return list(dict.fromkeys(refusals))
