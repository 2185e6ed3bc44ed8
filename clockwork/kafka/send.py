"""Produce requests: records in queues and batches, the judgement of a broker's answer, and the refusals that follow.

A broker judges whole batches: its limit holds for a batch's bytes, and a refusal names no record. So batches are built
here, never larger than the topic's limit where that is known; and a batch of several records that was refused for
one of them is sent again record by record. A refused batch was not appended and its sequence number not used, so
this disturbs neither order nor idempotence, and the verdict on each record is exact.

There is one batch at a time on the way to each Kafka partition: order is then kept without a word about retries.

    send_round ──► answer ──► judge ──► APPENDED         receipts; the next batch
                                        RETRY            after a back-off, unless the topic turns out to be missing
                                        SPLIT            its records one by one
                                        RECORD_REFUSED   a refusal; the next batch
                                        TOPIC_REFUSED    a refusal; nothing more for this topic
                                        FAILED           ProduceFailed ends the transfer
"""

import asyncio
import random
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from clockwork.concurrency import Backoff
from clockwork.domain.record import OutRecord
from clockwork.domain.retry import BackoffPolicy
from clockwork.domain.schedule import Receipt
from clockwork.domain.sharding import kafka_partition_of
from clockwork.errors import BrokerUnavailable, Refusal, RefusalCause
from clockwork.kafka import codes
from clockwork.kafka.client import RNG, KafkaContext, Wire
from clockwork.kafka.topics import (
    TopicDirectory,
    TopicLayout,
    TopicState,
)

TopicPartition = tuple[str, int]
"""A topic's name and the number of one of its Kafka partitions."""

RECORD_BYTES_MAX: Final = 1_048_576
"""A larger record is refused before it is sent, whatever its topic would allow."""
BATCH_BYTES_MAX: Final = 900_000
"""Below the brokers' default limit of 1,048,588 bytes for a batch."""
REQUEST_BYTES_MAX: Final = 8_000_000
"""Bytes of all batches in one request; the rest goes with the next. Brokers take 100 MB."""
APPEND_SHARE: Final = 2 / 3
ANSWER_S_MAX: Final = 0.5
"""Longest wait for an answer that only helps to judge: whether Kafka answers at all, or what a leader asks for."""
BATCH_OVERHEAD_BYTES: Final = 61
"""The header of a batch in Kafka's format 2."""
ESTIMATE_SLACK_BYTES: Final = 32
"""Upper limit of the error by which aiokafka overestimates a record's size."""
_SEQUENCE_END: Final = 2**31

RECORD_REASONS: Final = {
    codes.MESSAGE_TOO_LARGE: "record_too_large",
    codes.RECORD_LIST_TOO_LARGE: "record_too_large",
    codes.CORRUPT_MESSAGE: "record_invalid",
    codes.INVALID_TIMESTAMP: "record_invalid",
    codes.UNSUPPORTED_FOR_MESSAGE_FORMAT: "record_invalid",
    codes.POLICY_VIOLATION: "record_invalid",
    codes.INVALID_RECORD: "record_invalid",
}
TOPIC_REASONS: Final = {codes.TOPIC_FORBIDDEN: "topic_forbidden", codes.INVALID_TOPIC: "topic_missing"}
TRANSIENT_REASONS: Final = {
    codes.UNKNOWN_TOPIC_OR_PARTITION: "leader_unavailable",
    codes.LEADER_NOT_AVAILABLE: "leader_unavailable",
    codes.NOT_LEADER: "leader_unavailable",
    codes.REPLICA_NOT_AVAILABLE: "leader_unavailable",
    codes.FENCED_LEADER_EPOCH: "leader_unavailable",
    codes.UNKNOWN_LEADER_EPOCH: "leader_unavailable",
    codes.STORAGE_ERROR: "leader_unavailable",
    codes.NOT_ENOUGH_REPLICAS: "not_enough_replicas",
    codes.NOT_ENOUGH_REPLICAS_AFTER_APPEND: "not_enough_replicas",
    codes.REQUEST_TIMED_OUT: "timed_out",
}
NO_ANSWER: Final = -2
"""Stands for an error code where the broker did not answer: the batch may have been appended."""
NOT_SENT_YET: Final = -3


# --- batches


@dataclass(kw_only=True, slots=True)
class ProducerIdentity:
    """A producer as brokers know it, and the next sequence number for each Kafka partition."""

    producer_id: int
    producer_epoch: int
    transactional_id: str | None = None
    sequences: dict[TopicPartition, int] = field(default_factory=lambda: defaultdict(int))

    def advance(self, where: TopicPartition, records: int) -> None:
        """Counts the records of an appended batch."""
        self.sequences[where] = (self.sequences[where] + records) % _SEQUENCE_END


class PartitionQueue:
    """Records on their way to one Kafka partition, in order. Each has an index by which its fate is reported."""

    def __init__(self, where: TopicPartition, *, limit_bytes: int | None) -> None:
        self.where = where
        self.last_code = NOT_SENT_YET
        """The code of the last answer to the batch at the head, after which it is repeated; `NO_ANSWER`: it was sent
        and not answered."""
        self.appended = 0
        """Number of its records that were appended."""
        self._limit_bytes = min(BATCH_BYTES_MAX, limit_bytes or BATCH_BYTES_MAX)
        self._waiting: deque[tuple[int, OutRecord]] = deque()
        self._head: list[tuple[int, OutRecord]] = []
        self._one_by_one = 0
        """Number of the next records that are sent one by one, because their batch was refused."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def append(self, index: int, record: OutRecord) -> None:
        """Puts a record at the end."""
        self._waiting.append((index, record))

    def head(self) -> list[tuple[int, OutRecord]]:
        """The records of the next batch; the same ones until `take` or `split`: a repeat must be byte for byte equal."""
        if not self._head:
            self._head = self._cut()
        return self._head

    def _cut(self) -> list[tuple[int, OutRecord]]:
        batch: list[tuple[int, OutRecord]] = []
        size_bytes = BATCH_OVERHEAD_BYTES
        for index, record in self._waiting:
            size_bytes += wire_bytes(record) - BATCH_OVERHEAD_BYTES
            if batch and (self._one_by_one or size_bytes > self._limit_bytes):
                break
            batch.append((index, record))
        return batch

    def mark_sent(self) -> None:
        """Records that the batch at the head was sent."""
        if self.last_code == NOT_SENT_YET:
            self.last_code = NO_ANSWER

    def take(self, count: int) -> list[tuple[int, OutRecord]]:
        """Removes the records of the batch that was answered, and returns them."""
        self._one_by_one = max(0, self._one_by_one - count)
        self._head = []
        self.last_code = NOT_SENT_YET
        return [self._waiting.popleft() for _ in range(count)]

    def split(self, count: int) -> None:
        """Has the next `count` records sent one by one."""
        self._one_by_one = count
        self._head = []
        self.last_code = NOT_SENT_YET

    def clear(self) -> None:
        """Removes all records: none of them is sent."""
        self._waiting.clear()
        self._head = []


def wire_bytes(record: OutRecord) -> int:
    """The size of a batch of this record alone, at most: brokers compare it with the topic's limit."""
    return int(DefaultRecordBatchBuilder.estimate_size_in_bytes(record.key, record.value, list(record.headers)))


def partition_for(record: OutRecord, layout: TopicLayout) -> int:
    """Kafka's default partitioner; without a key any Kafka partition that has a leader."""
    if record.key is not None:
        return kafka_partition_of(record.key, len(layout.leaders))
    return random.choice(layout.available or range(len(layout.leaders)))


def encode_batch(records: Sequence[OutRecord], identity: ProducerIdentity, where: TopicPartition) -> bytes:
    """A batch as it is stored; the same bytes every time, so that a repeat is recognised by its sequence number."""
    builder = DefaultRecordBatchBuilder(
        2,
        0,
        is_transactional=int(identity.transactional_id is not None),
        producer_id=identity.producer_id,
        producer_epoch=identity.producer_epoch,
        base_sequence=identity.sequences[where],
        batch_size=2**31 - 1,
    )
    for nth, record in enumerate(records):
        builder.append(nth, record.timestamp_ms, record.key, record.value, list(record.headers))
    return bytes(builder.build())


# --- answers


@dataclass(frozen=True, kw_only=True, slots=True)
class ProduceAnswer:
    """A broker's answer to one batch."""

    code: int
    """Kafka's error code, or `NO_ANSWER`."""
    base_offset: int = -1
    append_time_ms: int = -1
    """The timestamp that the broker gave the records; -1: it kept ours."""


class Verdict(Enum):
    """The consequence of an answer for the batch that it is about."""

    APPENDED = auto()
    RETRY = auto()
    """A repeat of the batch is due: nothing is wrong with it or its topic, or there was no answer."""
    SPLIT = auto()
    """At least one of its records is refused for its content: each is sent again alone."""
    RECORD_REFUSED = auto()
    TOPIC_REFUSED = auto()
    FAILED = auto()
    """The producer is fenced, or the code is one that no retry helps against."""


def judge(answer: ProduceAnswer, head: Sequence[object]) -> Verdict:
    """Judges the answer to the batch `head`, whether it was sent in a transaction or not."""
    if answer.code == codes.NONE:
        return Verdict.APPENDED
    if answer.code in RECORD_REASONS:
        return Verdict.SPLIT if len(head) > 1 else Verdict.RECORD_REFUSED
    if answer.code in TOPIC_REASONS:
        return Verdict.TOPIC_REFUSED
    if answer.code == NO_ANSWER or answer.code in TRANSIENT_REASONS:
        return Verdict.RETRY
    return Verdict.FAILED


class ProduceFailed(Exception):
    """A batch got an answer that ends its producer."""

    def __init__(self, where: TopicPartition, code: int) -> None:
        super().__init__(f"produce to {where[0]}/{where[1]}: error code {code}")
        self.code = code


class BatchSender:
    """Sends the next batch of each queue, once. A leader waits for its replicas no longer than for `APPEND_SHARE` of the
    caller's time: its answer then names the Kafka partitions that were too slow, and clears the others of the request."""

    def __init__(self, kafka: KafkaContext, wire: Wire, directory: TopicDirectory) -> None:
        self._wire = wire
        self._directory = directory
        self._request_ms = kafka.timeouts.request_ms

    async def send_round(
        self,
        queues: Iterable[PartitionQueue],
        identity: ProducerIdentity,
        on_answer: Callable[[TopicPartition, ProduceAnswer], None],
        *,
        patience_ms: int | None = None,
    ) -> None:
        """Sends one request to each leader, with the heads of as many queues as fit, and calls `on_answer` for each queue
        that did, as soon as its leader answers. Never raises BrokerUnavailable: silence is the answer `NO_ANSWER`.
        `patience_ms`: the caller's own time limit; None: none below that of a request."""
        queues = list(queues)
        try:
            layouts = await self._directory.layouts({queue.where[0] for queue in queues})
        except BrokerUnavailable:
            for queue in queues:
                on_answer(queue.where, ProduceAnswer(code=NO_ANSWER))
            return
        append_timeout_ms = round(min(self._request_ms, patience_ms or self._request_ms) * APPEND_SHARE)
        by_leader: dict[int, dict[TopicPartition, bytes]] = defaultdict(dict)
        size_bytes: dict[int, int] = defaultdict(int)
        for queue in queues:
            leader = layouts[queue.where[0]].leader_of(queue.where[1])
            if leader < 0:
                on_answer(queue.where, ProduceAnswer(code=codes.LEADER_NOT_AVAILABLE))
            elif size_bytes[leader] < REQUEST_BYTES_MAX:
                batch = encode_batch([record for _, record in queue.head()], identity, queue.where)
                by_leader[leader][queue.where] = batch
                size_bytes[leader] += len(batch)
                queue.mark_sent()

        async def send(leader: int, batches: Mapping[TopicPartition, bytes]) -> None:
            for where, answer in (await self._to_leader(leader, batches, identity, append_timeout_ms)).items():
                on_answer(where, answer)

        if len(by_leader) == 1:
            # No task for a single request: a marker always is one, and small transactions mostly are. A task costs as
            # much as encoding a small batch.
            await send(*by_leader.popitem())
            return
        async with asyncio.TaskGroup() as requests:
            for leader, batches in by_leader.items():
                requests.create_task(send(leader, batches), name=f"produce to {leader}")

    async def _to_leader(
        self,
        leader: int,
        batches: Mapping[TopicPartition, bytes],
        identity: ProducerIdentity,
        append_timeout_ms: int,
    ) -> dict[TopicPartition, ProduceAnswer]:
        topics: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
        for (topic, number), batch in batches.items():
            topics[topic].append((number, batch))
        request = ProduceRequest(
            transactional_id=identity.transactional_id,
            required_acks=-1,
            timeout=append_timeout_ms,
            topics=list(topics.items()),
        )
        answers = {where: ProduceAnswer(code=NO_ANSWER) for where in batches}
        try:
            response = await self._wire.request(request, node_id=leader)
        except BrokerUnavailable:
            return answers
        for topic, kafka_partitions in response.topics:
            for number, code, base_offset, append_time_ms, *_ in kafka_partitions:
                answers[(topic, number)] = ProduceAnswer(
                    code=code, base_offset=base_offset, append_time_ms=append_time_ms
                )
        return answers


class Transfer:
    """The records of some queues on their way: goes on until each is appended or refused.

    It goes on after a refusal, also inside a transaction, which cannot be committed any more then: the next one should
    leave out all the culprits at once.
    """

    def __init__(
        self,
        sender: BatchSender,
        directory: TopicDirectory,
        identity: ProducerIdentity,
        queues: Mapping[TopicPartition, PartitionQueue],
        *,
        backoff: BackoffPolicy,
        on_receipt: Callable[[int, Receipt], None],
        on_refusal: Callable[[Refusal], None],
        patience_ms: int | None = None,
    ) -> None:
        """Both callbacks only take note. `on_receipt` gets the record's index; `on_refusal` one refusal of a record, or of
        a topic, whose records left in the queues are not sent then. A topic may be refused twice. `patience_ms`: the time
        after which the caller ends `run`."""
        self.queues = queues
        self.acknowledged_ms: dict[str, int] = {}
        """By topic, the time from the start of `run` to the last acknowledgement."""
        self._sender = sender
        self._directory = directory
        self._identity = identity
        self._backoff = Backoff(RNG, backoff)
        self._on_receipt = on_receipt
        self._on_refusal = on_refusal
        self._patience_ms = patience_ms
        self._started_s = 0.0
        self._answered = False
        self._again: set[str] = set()
        self._failed: ProduceFailed | None = None

    async def run(self) -> None:
        """Has no time limit of its own. Raises: ProduceFailed."""
        loop = asyncio.get_running_loop()
        self._started_s = loop.time()
        while waiting := [queue for queue in self.queues.values() if queue]:
            asked_at_s = loop.time()
            self._again.clear()
            await self._sender.send_round(waiting, self._identity, self._apply, patience_ms=self._patience_ms)
            if self._failed is not None:
                raise self._failed
            if again := frozenset(self._again):
                for refusal in await find_missing(self._directory, again, since_s=asked_at_s):
                    self._refuse_topic(refusal)
                await self._backoff.wait()

    async def attribute_timeout(self) -> list[Refusal]:
        """The topics that are to blame for a time-out, by the brokers' answers or by the silence of single leaders.
        Empty if no topic is known to be: there were too many records, or Kafka is away."""
        blamed = {
            queue.where[0]: queue.last_code
            for queue in self.queues.values()
            # A leader that took some of the records is not silent: there were too many records for the time.
            if queue and not (queue.last_code == NO_ANSWER and queue.appended) and queue.last_code != NOT_SENT_YET
        }
        if NO_ANSWER in blamed.values() and not await self._kafka_answers(blamed):
            # Then all of Kafka is away, and no topic is to blame.
            blamed = {topic: code for topic, code in blamed.items() if code != NO_ANSWER}
        return [transient_refusal(topic, code) for topic, code in blamed.items()]

    async def _kafka_answers(self, topics: Collection[str]) -> bool:
        """True if a leader has answered, or any broker does now."""
        if self._answered:
            return True
        now_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                await self._directory.layouts(topics, since_s=now_s)
        except (BrokerUnavailable, TimeoutError):
            return False
        return True

    def _apply(self, where: TopicPartition, answer: ProduceAnswer) -> None:
        queue = self.queues[where]
        if not queue:
            return  # its topic was refused meanwhile, by another leader
        batch = queue.head()
        topic = where[0]
        self._answered |= answer.code != NO_ANSWER
        match judge(answer, batch):
            case Verdict.APPENDED:
                queue.appended += len(batch)
                self.acknowledged_ms[topic] = round((asyncio.get_running_loop().time() - self._started_s) * 1_000)
                self._identity.advance(queue.where, len(batch))
                for nth, (index, record) in enumerate(queue.take(len(batch))):
                    self._on_receipt(index, _receipt(queue.where, record, answer, nth))
            case Verdict.RETRY:
                queue.last_code = answer.code
                self._again.add(topic)
            case Verdict.SPLIT:
                self._directory.forget_limits(topic)
                queue.split(len(batch))
            case Verdict.RECORD_REFUSED:
                [(index, _record)] = queue.take(1)
                self._on_refusal(record_refusal(index, topic, answer.code))
            case Verdict.TOPIC_REFUSED:
                self._refuse_topic(refusal_by_code(topic, answer.code))
            case Verdict.FAILED:
                self._failed = self._failed or ProduceFailed(where, answer.code)

    def _refuse_topic(self, refusal: Refusal) -> None:
        for queue in self.queues.values():
            if queue.where[0] == refusal.destination:
                queue.clear()
        self._on_refusal(refusal)


def _receipt(where: TopicPartition, record: OutRecord, answer: ProduceAnswer, nth: int) -> Receipt:
    """The place of the `nth` record of an appended batch."""
    at_ms = record.timestamp_ms if answer.append_time_ms < 0 else answer.append_time_ms
    return Receipt(kafka_partition=where[1], offset=answer.base_offset + nth, at_ms=at_ms)


# --- refusals


def record_refusal(index: int, topic: str, code: int) -> Refusal:
    """The refusal of a record for its content or size."""
    return Refusal(cause=RefusalCause.RECORD, reason=RECORD_REASONS[code], destination=topic, index=index)


def refusal_by_code(topic: str, code: int) -> Refusal:
    """The refusal of a topic that takes nothing from us."""
    return Refusal(cause=RefusalCause.DESTINATION, reason=TOPIC_REASONS[code], destination=topic)


def transient_refusal(topic: str, code: int) -> Refusal:
    """The refusal of a topic that takes nothing at present, for reasons of its brokers or replicas."""
    return Refusal(cause=RefusalCause.TRANSIENT, reason=TRANSIENT_REASONS.get(code, "timed_out"), destination=topic)


def refusal_by_layout(topic: str, layout: TopicLayout) -> Refusal | None:
    """The refusal that the topic's metadata amount to; None if records could be sent there."""
    if layout.state is TopicState.PRESENT:
        return None
    if layout.state is TopicState.UNSETTLED:
        return Refusal(cause=RefusalCause.TRANSIENT, reason="leader_unavailable", destination=topic)
    return Refusal(cause=RefusalCause.DESTINATION, reason=f"topic_{layout.state}", destination=topic)


async def find_missing(directory: TopicDirectory, topics: Iterable[str], *, since_s: float) -> list[Refusal]:
    """Refusals of those topics that are gone or forbidden by metadata read at loop time `since_s` or later; none if Kafka
    is silent."""
    try:
        layouts = await directory.layouts(set(topics), since_s=since_s)
    except BrokerUnavailable:
        return []
    return [refusal for topic, layout in layouts.items() if (refusal := refusal_by_layout(topic, layout))]


async def not_writable_reason(directory: TopicDirectory, where: TopicPartition, layout: TopicLayout) -> Refusal | None:
    """The refusal of a Kafka partition that would not take a record now; None if it would. Raises: BrokerUnavailable.

    Asked before a transaction touches it, and never left to the broker: a transaction ends only when every Kafka
    partition in it has written that it ended, aborted or not. One without a leader or without enough replicas would
    keep the shard's transactional id busy, and with it every other topic of the shard.
    """
    if await _not_writable(directory, where, layout, since_s=None) is None:
        return None
    # No record is refused because of cached metadata alone: a topic that was mended takes records from the next attempt
    # on.
    now_s = asyncio.get_running_loop().time()
    layout = await directory.layout(where[0], since_s=now_s)
    if refusal := refusal_by_layout(where[0], layout):
        return refusal
    return await _not_writable(directory, where, layout, since_s=now_s)


async def _not_writable(
    directory: TopicDirectory, where: TopicPartition, layout: TopicLayout, *, since_s: float | None
) -> Refusal | None:
    topic, number = where
    leader = layout.leader_of(number)
    if leader < 0:
        return transient_refusal(topic, codes.LEADER_NOT_AVAILABLE)
    in_sync, replicas = layout.in_sync[number], layout.replicas[number]
    in_sync_min = (await directory.limits(topic, since_s=since_s)).in_sync_min or 1
    if in_sync >= in_sync_min:
        return None
    # All replicas are in sync, and `min.insync.replicas` is above their number. Most brokers then take a write that all
    # replicas have.
    if in_sync == replicas and await _caps_in_sync_min(directory, leader):
        return None
    return transient_refusal(topic, codes.NOT_ENOUGH_REPLICAS)


async def _caps_in_sync_min(directory: TopicDirectory, leader: int) -> bool:
    """True if the leader is known to take writes with all replicas in sync. One that does not answer holds up its own topics
    only."""
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            return await directory.leader_caps_in_sync_min(leader)
    except (BrokerUnavailable, TimeoutError):
        return False


async def too_large(directory: TopicDirectory, record: OutRecord, *, since_s: float) -> bool:
    """True if the record alone is certainly over ours or its topic's limit, as it was at loop time `since_s` or later; the
    broker judges records close to it."""
    least_bytes = wire_bytes(record) - ESTIMATE_SLACK_BYTES
    for limit_since_s in (None, since_s):
        limits = await directory.limits(record.topic, since_s=limit_since_s)
        if least_bytes <= min(RECORD_BYTES_MAX, limits.record_bytes_max or RECORD_BYTES_MAX):
            return False
    return True
