"""Records outside any transaction: `at_least_once` deliveries, wake-ups.

One idempotent producer for all. Records for one Kafka partition go in order, one batch at a time; what comes while a
batch is on its way goes together with the next. A pump per Kafka partition lives as long as there is something to send.

A batch whose fate is unknown when time runs out leaves its sequence numbers unknown too. Then the next batch to that
Kafka partition begins with a new producer id, from zero; other Kafka partitions do not notice.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from aiokafka.protocol.transaction import InitProducerIdRequest

from clockwork.domain.record import OutRecord
from clockwork.domain.schedule import Receipt
from clockwork.errors import BrokerUnavailable, DeliveryRefused, Refusal
from clockwork.kafka import client as codes
from clockwork.kafka.client import KafkaSettings, Wire
from clockwork.kafka.produce import (
    NO_ANSWER,
    RECORD_REASONS,
    TOPIC_REASONS,
    TRANSIENT_REASONS,
    Line,
    ProducerIdentity,
    Producing,
    TopicPartition,
    missing_among,
    partition_for,
    receipt_of,
    refused_record,
    refused_topic,
    too_large,
    topic_refusal,
)
from clockwork.kafka.topics import TopicDirectory

BATCH_RECORDS_MAX: Final = 1_000
WAITING_MAX: Final = 20_000
"""Records of one Kafka partition that wait; more are turned away, as memory must end somewhere."""
BACKOFF_S_INITIAL: Final = 0.01
BACKOFF_S_MAX: Final = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class _Waiting:
    record: OutRecord
    done: asyncio.Future[Receipt]
    deadline_s: float
    """Loop time at which its sender stops waiting."""


class PlainSender:
    """The producer without transactions. `run` must be running for anything to be sent."""

    def __init__(self, settings: KafkaSettings, directory: TopicDirectory, wire: Wire) -> None:
        self._settings = settings
        self._directory = directory
        self._wire = wire
        self._producing = Producing(settings, wire, directory)
        self._queues: dict[TopicPartition, deque[_Waiting]] = {}
        self._identities: dict[TopicPartition, ProducerIdentity] = {}
        self._identity: ProducerIdentity | None = None
        self._identifying = asyncio.Lock()
        self._pumps: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Until cancelled; then what is under way is dropped, and its senders are told."""
        try:
            async with asyncio.TaskGroup() as self._pumps:
                await asyncio.Event().wait()
        finally:
            self._pumps = None
            for queue in self._queues.values():
                _fail(queue, BrokerUnavailable("the sender was closed"))
            self._queues.clear()

    async def close(self) -> None:
        await self._wire.close()

    async def send(self, record: OutRecord, *, kafka_partition: int | None = None) -> Receipt:
        """See `ports.Publisher.send`; the default partitioner chooses, if `kafka_partition` is None."""
        layout = await self._directory.layout(record.topic)
        if refusal := topic_refusal(record.topic, layout):
            raise DeliveryRefused([refusal], begun=False)
        if await too_large(self._settings, self._directory, record):
            raise DeliveryRefused([refused_record(0, record.topic, codes.MESSAGE_TOO_LARGE)], begun=False)
        number = partition_for(record, layout) if kafka_partition is None else kafka_partition
        done = self._enqueue((record.topic, number), record)
        try:
            async with asyncio.timeout(self._settings.sends_timeout_ms / 1_000):
                return await done
        except TimeoutError as error:
            raise BrokerUnavailable(f"a record for {record.topic} was not acknowledged in time") from error

    def _enqueue(self, where: TopicPartition, record: OutRecord) -> asyncio.Future[Receipt]:
        if self._pumps is None:
            raise BrokerUnavailable("the sender is closed")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(
            record=record,
            done=loop.create_future(),
            deadline_s=loop.time() + self._settings.sends_timeout_ms / 1_000,
        )
        queue = self._queues.get(where)
        if queue is None:
            queue = self._queues[where] = deque()
            self._pumps.create_task(self._pump(where, queue), name=f"send to {where[0]}/{where[1]}")
        if len(queue) >= WAITING_MAX:
            raise BrokerUnavailable(f"{len(queue)} records wait for {where[0]} already")
        queue.append(waiting)
        return waiting.done

    async def _pump(self, where: TopicPartition, queue: deque[_Waiting]) -> None:
        # Whoever waits has been queued before this task first runs, so it does not end at once.
        while queue:
            batch = [queue.popleft() for _ in range(min(len(queue), BATCH_RECORDS_MAX))]
            batch = [waiting for waiting in batch if not waiting.done.done()]
            if not batch:
                continue
            try:
                await self._send(where, batch)
            finally:
                # Only if it was cancelled is anybody of the batch still waiting.
                _fail(batch, BrokerUnavailable("the sender was closed"))
        # No await since the queue was seen empty: nobody can have been queued in between.
        del self._queues[where]

    async def _send(self, where: TopicPartition, batch: list[_Waiting]) -> None:
        """Settles every one of the batch."""
        deadline_s = max(waiting.deadline_s for waiting in batch)
        try:
            async with asyncio.timeout_at(deadline_s):
                identity = await self._identity_for(where)
                limits = await self._directory.limits(where[0])
                line = Line(where, limit_bytes=limits.record_bytes_max)
                for index, waiting in enumerate(batch):
                    line.append(index, waiting.record)
                await self._send_line(line, identity, batch)
        except (TimeoutError, BrokerUnavailable) as error:
            self._forget(where)
            # The connections may lead to brokers that have moved.
            await self._wire.reset()
            _fail(batch, BrokerUnavailable(f"records for {where[0]} were not acknowledged: {error!r}"))

    async def _send_line(self, line: Line, identity: ProducerIdentity, batch: list[_Waiting]) -> None:
        """Raises: BrokerUnavailable."""
        loop = asyncio.get_running_loop()
        backoff_s = BACKOFF_S_INITIAL
        while line:
            asked_at_s = loop.time()
            head = line.head()
            answer = (await self._producing.once([line], identity))[line.where]
            if answer.code == codes.NONE:
                identity.advance(line.where, len(head))
                for nth, (index, record) in enumerate(line.take(len(head))):
                    _succeed(batch[index], receipt_of(line.where, record, answer, nth))
            elif answer.code in RECORD_REASONS and len(head) > 1:
                self._directory.forget_limits(line.where[0])
                line.split(len(head))
            elif answer.code in RECORD_REASONS:
                index, record = line.take(1)[0]
                _refuse([batch[index]], refused_record(0, record.topic, answer.code))
            elif answer.code in TOPIC_REASONS:
                line.clear()
                _refuse(batch, refused_topic(line.where[0], answer.code))
            elif answer.code in TRANSIENT_REASONS or answer.code == NO_ANSWER:
                for refusal in await missing_among(self._directory, [line.where[0]], since_s=asked_at_s):
                    # Whatever was appended and not acknowledged is lost with its topic; its numbers with it.
                    self._forget(line.where)
                    line.clear()
                    _refuse(batch, refusal)
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, BACKOFF_S_MAX)
            else:
                raise BrokerUnavailable(f"produce to {line.where[0]}: error code {answer.code}")

    def _forget(self, where: TopicPartition) -> None:
        """The next batch there begins with a new producer id. The old one goes on elsewhere until it is needed."""
        lost = self._identities.pop(where, None)
        if lost is self._identity:
            self._identity = None

    async def _identity_for(self, where: TopicPartition) -> ProducerIdentity:
        if where not in self._identities:
            async with self._identifying:
                if self._identity is None:
                    self._identity = await self._new_identity()
            self._identities[where] = self._identity
        return self._identities[where]

    async def _new_identity(self) -> ProducerIdentity:
        backoff_s = BACKOFF_S_INITIAL
        while True:
            try:
                # Without a transactional id any broker gives out a producer id; the time limit must be positive.
                answer = await self._wire.request(InitProducerIdRequest(None, 2**31 - 1))
                if answer.error_code == codes.NONE:
                    return ProducerIdentity(producer_id=answer.producer_id, producer_epoch=answer.producer_epoch)
            except BrokerUnavailable:
                # The caller's time limit ends this; until then brokers may have moved.
                await self._wire.reset()
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, BACKOFF_S_MAX)


def _succeed(waiting: _Waiting, receipt: Receipt) -> None:
    if not waiting.done.done():
        waiting.done.set_result(receipt)


def _refuse(batch: Iterable[_Waiting], refusal: Refusal) -> None:
    for waiting in batch:
        if not waiting.done.done():
            waiting.done.set_exception(DeliveryRefused([refusal], begun=False))


def _fail(batch: Iterable[_Waiting], error: BrokerUnavailable) -> None:
    for waiting in batch:
        if not waiting.done.done():
            waiting.done.set_exception(BrokerUnavailable(str(error)))
