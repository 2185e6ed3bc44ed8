"""Records outside any transaction: `at_least_once` deliveries, wake-ups.

One idempotent producer for all. Records for one Kafka partition go in order, one batch at a time; the records that come
while a batch is on its way go together with the next. Each Kafka partition has a task that sends, as long as there is
something to send.

A Kafka partition that would not take a record is refused before anything is sent: a leader that is away would keep the
record, and so its lane, until time runs out. Metadata of the last second decide, and a refusal only ever follows from
metadata that are asked for on its account: what is put right takes the next record.

Each send fails alone. What is not acknowledged in time ends no other send, and the connections are made anew only if nothing
at all was answered on them meanwhile.

A batch whose fate is unknown when time runs out leaves its sequence numbers unknown too. Then the next batch to that
Kafka partition begins with a new producer id, from zero; other Kafka partitions do not notice.
"""

import asyncio
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from aiokafka.protocol.transaction import InitProducerIdRequest

from clockwork.concurrency import Backoff
from clockwork.domain.record import OutRecord
from clockwork.domain.retry import BackoffPolicy
from clockwork.domain.schedule import Receipt
from clockwork.errors import BrokerUnavailable, DeliveryRefused, Refusal
from clockwork.kafka import codes
from clockwork.kafka.client import RNG, KafkaContext, Wire
from clockwork.kafka.send import (
    NO_ANSWER,
    NOT_SENT_YET,
    BatchSender,
    PartitionQueue,
    ProduceFailed,
    ProducerIdentity,
    TopicPartition,
    Transfer,
    not_writable_reason,
    partition_for,
    record_refusal,
    refusal_by_layout,
    too_large,
)
from clockwork.kafka.topics import TopicDirectory

BATCH_RECORDS_MAX: Final = 1_000
"""Records that one task takes from the queue at once."""
METADATA_AGE_S_MAX: Final = 1.0
"""The oldest metadata about leaders and replicas that a send believes."""
WAITING_MAX: Final = 20_000
"""Records that may wait for one Kafka partition; more are turned away, as memory must be bounded."""
BACKOFF: Final = BackoffPolicy(initial_ms=10, max_ms=200)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Waiting:
    record: OutRecord
    done: asyncio.Future[Receipt]
    deadline_s: float
    """Loop time at which its caller stops waiting."""


class PlainSender:
    """The producer without transactions. `run` must be running for anything to be sent."""

    def __init__(self, kafka: KafkaContext, directory: TopicDirectory, wire: Wire) -> None:
        self._sends_timeout_s = kafka.timeouts.sends_ms / 1_000
        self._directory = directory
        self._wire = wire
        self._sender = BatchSender(kafka, wire, directory)
        self._queues: dict[TopicPartition, deque[_Waiting]] = {}
        self._identities: dict[TopicPartition, ProducerIdentity] = {}
        self._identity: ProducerIdentity | None = None
        self._identifying = asyncio.Lock()
        self._tasks: asyncio.TaskGroup | None = None
        self._answered_at_s = -math.inf
        """Loop time of the last receipt or refusal."""

    async def run(self) -> None:
        """Runs until cancelled; then drops the batches under way, and tells their callers."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                await asyncio.Event().wait()
        finally:
            self._tasks = None
            for queue in self._queues.values():
                _fail(queue, "the sender was closed")
            self._queues.clear()

    async def close(self) -> None:
        """Closes the connections."""
        await self._wire.close()

    async def send(self, record: OutRecord, *, kafka_partition: int | None = None) -> Receipt:
        """See `ports.Publisher.send`; the default partitioner chooses, if `kafka_partition` is None."""
        topic, now_s = record.topic, asyncio.get_running_loop().time()
        layout = await self._directory.layout(topic, since_s=now_s - METADATA_AGE_S_MAX)
        if refusal_by_layout(topic, layout):
            layout = await self._directory.layout(topic, since_s=now_s)
        if refusal := refusal_by_layout(topic, layout):
            raise DeliveryRefused([refusal], begun=False)
        if await too_large(self._directory, record, since_s=now_s):
            raise DeliveryRefused([record_refusal(0, topic, codes.MESSAGE_TOO_LARGE)], begun=False)
        where = (topic, partition_for(record, layout) if kafka_partition is None else kafka_partition)
        if refusal := await not_writable_reason(self._directory, where, layout):
            raise DeliveryRefused([refusal], begun=False)
        done = self._enqueue(where, record)
        try:
            async with asyncio.timeout(self._sends_timeout_s):
                return await done
        except TimeoutError as error:
            raise BrokerUnavailable(f"a record for {topic} was not acknowledged in time") from error

    def _enqueue(self, where: TopicPartition, record: OutRecord) -> asyncio.Future[Receipt]:
        if self._tasks is None:
            raise BrokerUnavailable("the sender is closed")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(record=record, done=loop.create_future(), deadline_s=loop.time() + self._sends_timeout_s)
        queue = self._queues.get(where)
        if queue is None:
            queue = self._queues[where] = deque()
            self._tasks.create_task(self._send_all(where, queue), name=f"send to {where[0]}/{where[1]}")
        if len(queue) >= WAITING_MAX:
            raise BrokerUnavailable(f"{len(queue)} records wait for {where[0]} already")
        queue.append(waiting)
        return waiting.done

    async def _send_all(self, where: TopicPartition, queue: deque[_Waiting]) -> None:
        # The first record was queued before this task first runs, so it does not end at once.
        while queue:
            batch = [queue.popleft() for _ in range(min(len(queue), BATCH_RECORDS_MAX))]
            batch = [waiting for waiting in batch if not waiting.done.done()]
            if not batch:
                continue
            try:
                await self._send_batch(where, batch)
            finally:
                # A caller of the batch still waits only if this task was cancelled.
                _fail(batch, "the sender was closed")
        # No await since the queue was seen empty: no record can have been queued in between.
        del self._queues[where]

    async def _send_batch(self, where: TopicPartition, batch: list[_Waiting]) -> None:
        """Settles every record of the batch."""

        begun_s = asyncio.get_running_loop().time()

        def succeed(index: int, receipt: Receipt) -> None:
            self._note_answer()
            _succeed(batch[index], receipt)

        def refuse(refusal: Refusal) -> None:
            self._note_answer()
            if refusal.index is None:
                # A batch that was appended and not acknowledged may be lost with its topic, its sequence numbers with it.
                self._forget_identity(where)
                _refuse(batch, refusal)
            else:
                # The caller gets it as the refusal of one record.
                _refuse([batch[refusal.index]], replace(refusal, index=0))

        queue: PartitionQueue | None = None
        try:
            async with asyncio.timeout_at(max(waiting.deadline_s for waiting in batch)):
                identity = await self._identity_for(where)
                limits = await self._directory.limits(where[0])
                queue = PartitionQueue(where, limit_bytes=limits.record_bytes_max)
                for index, waiting in enumerate(batch):
                    queue.append(index, waiting.record)
                transfer = Transfer(
                    self._sender,
                    self._directory,
                    identity,
                    {where: queue},
                    backoff=BACKOFF,
                    on_receipt=succeed,
                    on_refusal=refuse,
                )
                await transfer.run()
        except (TimeoutError, BrokerUnavailable, ProduceFailed) as error:
            self._forget_identity(where)
            if queue is None or queue.last_code in (NO_ANSWER, NOT_SENT_YET):
                await self._reset_unless_answered(begun_s)
            _fail(batch, f"records for {where[0]} were not acknowledged: {error!r}")

    def _note_answer(self) -> None:
        self._answered_at_s = asyncio.get_running_loop().time()

    async def _reset_unless_answered(self, since_s: float) -> None:
        """The connections may lead to brokers that have moved. They stay if a broker did answer since: records for other
        topics are on their way on them."""
        if self._answered_at_s < since_s:
            await self._wire.reset()

    def _forget_identity(self, where: TopicPartition) -> None:
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
        backoff = Backoff(RNG, BACKOFF)
        while True:
            asked_at_s = asyncio.get_running_loop().time()
            try:
                # Without a transactional id any broker gives out a producer id; the time limit must be positive.
                answer = await self._wire.request(InitProducerIdRequest(None, 2**31 - 1))
                if answer.error_code == codes.NONE:
                    return ProducerIdentity(producer_id=answer.producer_id, producer_epoch=answer.producer_epoch)
            except BrokerUnavailable:
                # The caller's time limit ends this.
                await self._reset_unless_answered(asked_at_s)
            await backoff.wait()


def _succeed(waiting: _Waiting, receipt: Receipt) -> None:
    if not waiting.done.done():
        waiting.done.set_result(receipt)


def _refuse(batch: Iterable[_Waiting], refusal: Refusal) -> None:
    for waiting in batch:
        if not waiting.done.done():
            waiting.done.set_exception(DeliveryRefused([refusal], begun=False))


def _fail(batch: Iterable[_Waiting], why: str) -> None:
    for waiting in batch:
        if not waiting.done.done():
            waiting.done.set_exception(BrokerUnavailable(why))
