"""The view of a consumer: an independent `read_committed` reader.

On librdkafka (confluent-kafka), not on the client library that the service itself uses: if both sides misread the same
rule of Kafka's transactions, a test between them would not notice.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from clockwork.domain import record as names
from tests.support.waiting import WITHIN_S

POLL_S: Final = 0.1
RECORDS_MAX: Final = 1_000
METADATA_S: Final = 60.0
TIME_OF_BROKER: Final = 2
"""librdkafka's name for a record's timestamp that the broker set (LogAppendTime)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrived:
    """One record, as a consumer gets it."""

    topic: str
    kafka_partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int
    timestamp_of_broker: bool

    @property
    def place(self) -> tuple[str, int, int]:
        return (self.topic, self.kafka_partition, self.offset)

    @property
    def client_id(self) -> str:
        return self.text(names.CLIENT_ID)

    @property
    def schedule_key(self) -> str:
        return self.text(names.SCHEDULE_KEY)

    def text(self, header: str) -> str:
        """A header's value; empty if it is not there."""
        return dict(self.headers).get(header, b"").decode()


class CommittedReader:
    """Reads some topics from their beginning. Opened by `reading`."""

    def __init__(self, consumer: Any, where: Collection[tuple[str, int]]) -> None:
        self._consumer = consumer
        self._not_at_end = set(where)
        self.records: list[Arrived] = []
        """Everything so far; per Kafka partition in the order of offsets."""

    async def read(self) -> None:
        """Reads what is there, or waits a moment for more."""
        for message in await asyncio.to_thread(self._consumer.consume, RECORDS_MAX, POLL_S):
            self._take(message)

    async def until_arrived(self, schedule_keys: Iterable[str], *, within_s: float = WITHIN_S) -> list[Arrived]:
        """Reads until there is a record of each of these keys; all their records."""
        wanted = set(schedule_keys)
        loop = asyncio.get_running_loop()
        ends_at_s = loop.time() + within_s
        while missing := wanted - {record.schedule_key for record in self.records}:
            if loop.time() >= ends_at_s:
                named = sorted(missing)[:10]
                raise AssertionError(f"not within {within_s:.0f} s: records of {len(missing)} schedules: {named}")
            await self.read()
        return [record for record in self.records if record.schedule_key in wanted]

    async def to_end(self) -> list[Arrived]:
        """Reads up to where each Kafka partition ended, at the earliest, when the reader was opened."""
        async with asyncio.timeout(WITHIN_S):
            while self._not_at_end:
                await self.read()
        return self.records

    def _take(self, message: Any) -> None:
        error = message.error()
        where = (message.topic(), message.partition())
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                self._not_at_end.discard(where)
            elif not error.retriable():
                raise AssertionError(f"reading {where}: {error}")
            return
        kind, timestamp_ms = message.timestamp()
        self.records.append(
            Arrived(
                topic=where[0],
                kafka_partition=where[1],
                offset=message.offset(),
                key=message.key(),
                value=message.value() or b"",
                headers=tuple((name, value or b"") for name, value in message.headers() or ()),
                timestamp_ms=timestamp_ms,
                timestamp_of_broker=kind == TIME_OF_BROKER,
            )
        )


@asynccontextmanager
async def reading(brokers: str, *topics: str) -> AsyncIterator[CommittedReader]:
    """A reader of these topics, from their beginning."""
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": "never-used",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 50,
            "reconnect.backoff.max.ms": 500,
            # Brokers go away on purpose here, which it would report on standard error.
            "log_level": 0,
        }
    )
    try:
        where = [part for topic in topics for part in await asyncio.to_thread(_kafka_partitions, consumer, topic)]
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for topic, number in where])
        yield CommittedReader(consumer, where)
    finally:
        await asyncio.to_thread(consumer.close)


async def read_all(brokers: str, *topics: str) -> list[Arrived]:
    """Every committed record of these topics."""
    async with reading(brokers, *topics) as reader:
        return await reader.to_end()


def _kafka_partitions(consumer: Any, topic: str) -> list[tuple[str, int]]:
    found = consumer.list_topics(topic, METADATA_S).topics[topic]
    if found.error is not None:
        raise AssertionError(f"{topic}: {found.error}")
    return [(topic, number) for number in sorted(found.partitions)]


async def count_written(brokers: str, topic: str) -> int:
    """The number of offsets of a topic that are taken: by records, committed or not, and by ends of transactions."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "never-used", "isolation.level": "read_uncommitted"})
    try:
        parts = await asyncio.to_thread(_kafka_partitions, consumer, topic)
        ends = [
            await asyncio.to_thread(consumer.get_watermark_offsets, TopicPartition(*part), METADATA_S, cached=False)
            for part in parts
        ]
    finally:
        await asyncio.to_thread(consumer.close)
    count: int = sum(high for _, high in ends)
    return count
