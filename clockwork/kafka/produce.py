"""Batches of records, what a broker says to each, and which record is at fault.

A broker judges whole batches: its limit holds for a batch's bytes, and a refusal names no record. So batches are built
here, never larger than the topic's limit where that is known; and a batch of several records that was refused for
what is in it is sent again record by record. A refused batch was not appended and its sequence number not used, so
this disturbs neither order nor idempotence, and the verdict on each record is exact.

There is one batch at a time on the way to each Kafka partition: order is then kept without a word about retries.
"""

import asyncio
import random
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from clockwork.domain.record import OutRecord
from clockwork.domain.schedule import Receipt
from clockwork.domain.sharding import murmur2
from clockwork.errors import BrokerUnavailable, Refusal, RefusalCause
from clockwork.kafka import client as codes
from clockwork.kafka.client import KafkaSettings, Wire
from clockwork.kafka.topics import LIMIT_AGE_S_MAX, REFUSING_LIMIT_AGE_S_MAX, TopicDirectory, TopicLayout, TopicState

TopicPartition = tuple[str, int]
"""A topic's name and the number of one of its Kafka partitions."""

BATCH_BYTES_MAX: Final = 900_000
"""Below the brokers' default limit of 1,048,588 bytes for a batch."""
REQUEST_BYTES_MAX: Final = 8_000_000
"""Batches of one request together; the rest goes with the next. Brokers take 100 MB."""
BATCH_OVERHEAD_BYTES: Final = 61
"""The header of a batch in Kafka's format 2."""
ESTIMATE_SLACK_BYTES: Final = 32
"""By so much, at most, aiokafka's estimate of a record's size is too high."""
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


@dataclass(kw_only=True, slots=True)
class ProducerIdentity:
    """What a broker knows a producer by, and the next sequence number for each Kafka partition."""

    producer_id: int
    producer_epoch: int
    transactional_id: str | None = None
    sequences: dict[TopicPartition, int] = field(default_factory=lambda: defaultdict(int))

    def advance(self, where: TopicPartition, records: int) -> None:
        self.sequences[where] = (self.sequences[where] + records) % _SEQUENCE_END


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a broker said to one batch."""

    code: int
    """`NO_ANSWER`: nothing; it may have been appended."""
    base_offset: int = -1
    append_time_ms: int = -1
    """The time the broker put on the records; -1: it left ours."""


NO_ANSWER: Final = -2
NONE_YET: Final = -3


class Line:
    """Records on their way to one Kafka partition, in order. Each has an index by which its fate is reported."""

    def __init__(self, where: TopicPartition, *, limit_bytes: int | None) -> None:
        self.where = where
        self.last_code = NONE_YET
        """The last answer that was not a success; `NONE_YET` if there was none."""
        self._limit_bytes = min(BATCH_BYTES_MAX, limit_bytes or BATCH_BYTES_MAX)
        self._waiting: deque[tuple[int, OutRecord]] = deque()
        self._head: list[tuple[int, OutRecord]] = []
        self._alone = 0
        """So many of the next records are sent one by one: the batch they were in was refused."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def append(self, index: int, record: OutRecord) -> None:
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
            if batch and (self._alone or size_bytes > self._limit_bytes):
                break
            batch.append((index, record))
        return batch

    def take(self, count: int) -> list[tuple[int, OutRecord]]:
        """Removes the records of the batch that was answered."""
        self._alone = max(0, self._alone - count)
        self._head = []
        return [self._waiting.popleft() for _ in range(count)]

    def split(self, count: int) -> None:
        """The next `count` records go one by one."""
        self._alone = count
        self._head = []

    def clear(self) -> None:
        """Sends none of them."""
        self._waiting.clear()
        self._head = []


def wire_bytes(record: OutRecord) -> int:
    """The size of a batch of this record alone, at most: what a broker compares with the topic's limit."""
    return int(DefaultRecordBatchBuilder.estimate_size_in_bytes(record.key, record.value, list(record.headers)))


def partition_for(record: OutRecord, layout: TopicLayout) -> int:
    """Kafka's default partitioner; without a key any Kafka partition that has a leader."""
    if record.key is not None:
        return (murmur2(record.key) & 0x7FFFFFFF) % len(layout.leaders)
    return random.choice(layout.available or range(len(layout.leaders)))


def receipt_of(where: TopicPartition, record: OutRecord, answer: Answer, nth: int) -> Receipt:
    """Where the `nth` record of an appended batch is."""
    at_ms = record.timestamp_ms if answer.append_time_ms < 0 else answer.append_time_ms
    return Receipt(kafka_partition=where[1], offset=answer.base_offset + nth, at_ms=at_ms)


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


class Producing:
    """Sends the next batch of each line, once."""

    def __init__(self, settings: KafkaSettings, wire: Wire, directory: TopicDirectory) -> None:
        self._wire = wire
        self._directory = directory
        self._append_timeout_ms = settings.request_timeout_ms * 2 // 3
        """How long a leader waits for its replicas: less than we wait for the leader."""

    async def once(self, lines: Iterable[Line], identity: ProducerIdentity) -> Mapping[TopicPartition, Answer]:
        """One request to each leader, with the head of as many lines as fit. Lines that did not fit are not in the
        result. Never raises BrokerUnavailable: silence is an answer, too."""
        lines = list(lines)
        try:
            layouts = await self._directory.layouts({line.where[0] for line in lines})
        except BrokerUnavailable:
            return {line.where: Answer(code=NO_ANSWER) for line in lines}
        answers: dict[TopicPartition, Answer] = {}
        by_leader: dict[int, dict[TopicPartition, bytes]] = defaultdict(dict)
        size_bytes: dict[int, int] = defaultdict(int)
        for line in lines:
            topic, number = line.where
            leaders = layouts[topic].leaders
            leader = leaders[number] if number < len(leaders) else -1
            if leader < 0:
                answers[line.where] = Answer(code=codes.LEADER_NOT_AVAILABLE)
            elif size_bytes[leader] < REQUEST_BYTES_MAX:
                batch = encode_batch([record for _, record in line.head()], identity, line.where)
                by_leader[leader][line.where] = batch
                size_bytes[leader] += len(batch)
        async with asyncio.TaskGroup() as requests:
            tasks = [
                requests.create_task(self._to_leader(leader, batches, identity), name=f"produce to {leader}")
                for leader, batches in by_leader.items()
            ]
        for task in tasks:
            answers |= task.result()
        return answers

    async def _to_leader(
        self, leader: int, batches: Mapping[TopicPartition, bytes], identity: ProducerIdentity
    ) -> dict[TopicPartition, Answer]:
        topics: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
        for (topic, number), batch in batches.items():
            topics[topic].append((number, batch))
        request = ProduceRequest(
            transactional_id=identity.transactional_id,
            required_acks=-1,
            timeout=self._append_timeout_ms,
            topics=list(topics.items()),
        )
        answers = {where: Answer(code=NO_ANSWER) for where in batches}
        try:
            response = await self._wire.request(request, node_id=leader)
        except BrokerUnavailable:
            return answers
        for topic, kafka_partitions in response.topics:
            for number, code, base_offset, append_time_ms, *_ in kafka_partitions:
                answers[(topic, number)] = Answer(code=code, base_offset=base_offset, append_time_ms=append_time_ms)
        return answers


def refused_record(index: int, topic: str, code: int) -> Refusal:
    return Refusal(cause=RefusalCause.RECORD, reason=RECORD_REASONS[code], destination=topic, index=index)


def refused_topic(topic: str, code: int) -> Refusal:
    return Refusal(cause=RefusalCause.DESTINATION, reason=TOPIC_REASONS[code], destination=topic)


def refused_for_now(topic: str, code: int) -> Refusal:
    return Refusal(cause=RefusalCause.TRANSIENT, reason=TRANSIENT_REASONS.get(code, "timed_out"), destination=topic)


async def missing_among(directory: TopicDirectory, topics: Iterable[str], *, since_s: float) -> list[Refusal]:
    """Those of the topics that are gone or forbidden by metadata read at `since_s` or later; none if Kafka is silent."""
    try:
        layouts = await directory.layouts(set(topics), since_s=since_s)
    except BrokerUnavailable:
        return []
    return [refusal for topic, layout in layouts.items() if (refusal := topic_refusal(topic, layout))]


def topic_refusal(topic: str, layout: TopicLayout) -> Refusal | None:
    """None if records could be sent there."""
    if layout.state is TopicState.PRESENT:
        return None
    if layout.state is TopicState.UNSETTLED:
        return Refusal(cause=RefusalCause.TRANSIENT, reason="leader_unavailable", destination=topic)
    return Refusal(cause=RefusalCause.DESTINATION, reason=f"topic_{layout.state}", destination=topic)


async def unable(directory: TopicDirectory, where: TopicPartition, layout: TopicLayout) -> Refusal | None:
    """Why this Kafka partition would not take a record now; None if it would.

    Asked before a transaction touches it, and never left to the broker: a transaction ends only when every Kafka
    partition in it has written that it ended, aborted or not. One without a leader or without enough replicas would
    keep the shard's transactional id busy, and with it every other topic of the shard.
    """
    topic, number = where
    if layout.leaders[number] < 0:
        return refused_for_now(topic, codes.LEADER_NOT_AVAILABLE)
    if layout.in_sync[number] < ((await directory.limits(topic)).in_sync_min or 1):
        return refused_for_now(topic, codes.NOT_ENOUGH_REPLICAS)
    return None


async def too_large(settings: KafkaSettings, directory: TopicDirectory, record: OutRecord) -> bool:
    """True if the record alone is certainly over its topic's limit or ours; the broker judges what is close to it."""
    least_bytes = wire_bytes(record) - ESTIMATE_SLACK_BYTES
    for age_s_max in (LIMIT_AGE_S_MAX, REFUSING_LIMIT_AGE_S_MAX):
        limits = await directory.limits(record.topic, age_s_max=age_s_max)
        if least_bytes <= min(settings.record_bytes_max, limits.record_bytes_max or settings.record_bytes_max):
            return False
    return True
