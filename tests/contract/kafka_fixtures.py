"""One Kafka for the contract tests: the twin in memory, or the real one, behind the same few verbs."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import uuid4

import confluent_kafka
import pytest

from clockwork.clock import SystemClock
from clockwork.domain.marker import MarkerEntry, encode, marker_key
from clockwork.domain.ownership import IncarnationId, ProcessId, incarnation_id, process_id
from clockwork.domain.position import Position
from clockwork.domain.record import OutRecord
from clockwork.domain.schedule import Receipt
from clockwork.domain.sharding import ShardId, kafka_partition_of
from clockwork.domain.wakeup import WakeUp
from clockwork.errors import BrokerUnavailable, DeliveryUnknown
from clockwork.kafka.client import RNG, KafkaContext, KafkaTimeouts
from clockwork.kafka.memory.broker import RECORD_BYTES_MAX, MemoryKafka, Step, StoredRecord
from clockwork.kafka.memory.group import MemoryGroup, MemoryOwnership
from clockwork.kafka.memory.publisher import MemoryPublisher
from clockwork.kafka.ownership import KafkaOwnership
from clockwork.kafka.publisher import KafkaPublisher
from clockwork.kafka.topics import create_internal_topics, create_topics
from clockwork.ports.delivery import Committed, Publisher, SlotName, SlotProducer
from clockwork.ports.ownership import ShardOwnership
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import KafkaSettings
from tests.support.kafka_partitions import few_kafka_partitions

if TYPE_CHECKING:
    from infra.local import LocalServices

SHARDS: Final = 4
"""Shards that a group's members share."""
SENDS_MS: Final = 50_000
"""Longest time for what comes before a commit; no test waits for it."""
WAIT_S_MAX: Final = 60.0
"""Longest wait of a test."""
SHORT_MS: Final = 1_000
"""A short limit for a transaction."""
SETTLED_WITHIN_S: Final = 2.0
"""Longest time from a commit to its visibility; a reader waits so long behind an open transaction."""
SMALL_BYTES_MAX: Final = 2_000


class PublisherWithWakeups(Publisher, Protocol):
    async def send_wakeup(self, shard: ShardId, value: bytes) -> None: ...


class KafkaUnderTest(Protocol):
    """Kafka as a contract test uses it besides calling the ports."""

    def node(self, *, short_transactions: bool = False) -> AbstractAsyncContextManager[PublisherWithWakeups]:
        """A node's publisher; the broker gives its transactions a second if they are to be short."""
        ...

    def ownership(
        self, node: PublisherWithWakeups, telemetry: "CountingTelemetry", process: ProcessId
    ) -> ShardOwnership: ...

    async def create_topic(self, *, kafka_partitions: int = 1, record_bytes_max: int | None = None) -> str:
        """A new topic with a name of its own."""
        ...

    async def read_committed(self, topic: str) -> list[StoredRecord]: ...

    def lose_commits(self, producer: Any) -> None:
        """From now on this producer's commits do not reach the broker."""
        ...

    def commit_late(self, node: PublisherWithWakeups, producer: Any, name: SlotName) -> None:
        """From now on this producer's commits are asked for only after the broker gave the transaction up by itself."""
        ...


class CountingTelemetry(NoTelemetry):
    """Counts rebalances and malformed wake-ups."""

    def __init__(self) -> None:
        self.rebalances = 0
        self.malformed_wakeups = 0

    def rebalance(self) -> None:
        self.rebalances += 1

    def malformed(self, what: str) -> None:
        self.malformed_wakeups += what == "wakeup"


class MemoryUnderTest:
    def __init__(self) -> None:
        self.kafka = MemoryKafka(cluster="twin", shards=SHARDS)
        self.group = MemoryGroup(SHARDS)
        self._losing: set[str] = set()
        self._clock = SystemClock()

    def node(self, *, short_transactions: bool = False) -> MemoryPublisher:
        return MemoryPublisher(self.kafka, self._clock)

    def ownership(self, node: Any, telemetry: CountingTelemetry, process: ProcessId) -> MemoryOwnership:
        return MemoryOwnership(self.kafka, self.group, node, telemetry, process=process)

    async def create_topic(self, *, kafka_partitions: int = 1, record_bytes_max: int | None = None) -> str:
        name = f"topic-{uuid4().hex[:8]}"
        self.kafka.create_topic(
            name, kafka_partitions=kafka_partitions, record_bytes_max=record_bytes_max or RECORD_BYTES_MAX
        )
        return name

    async def read_committed(self, topic: str) -> list[StoredRecord]:
        return self.kafka.read_committed(topic)

    def lose_commits(self, producer: Any) -> None:
        async def lose(step: Step, who: str, done: bool) -> None:
            if step is Step.COMMIT and not done and who in self._losing:
                raise BrokerUnavailable("the commit was lost")

        self._losing.add(producer._id)
        self.kafka.on_step = lose

    def commit_late(self, node: PublisherWithWakeups, producer: Any, name: SlotName) -> None:
        async def expire(step: Step, who: str, done: bool) -> None:
            if step is Step.COMMIT and not done:
                self.kafka.expire_transaction(who)

        self.kafka.on_step = expire


class RealUnderTest:
    def __init__(self, kafka: KafkaContext) -> None:
        self.kafka = kafka
        self._clock = SystemClock()

    def with_settings(self, **changes: Any) -> "RealUnderTest":
        """This Kafka with other settings."""
        return RealUnderTest(replace(self.kafka, settings=replace(self.kafka.settings, **changes)))

    def with_timeouts(self, **changes: int) -> "RealUnderTest":
        """This Kafka with other time limits."""
        return RealUnderTest(replace(self.kafka, timeouts=replace(self.kafka.timeouts, **changes)))

    def node(self, *, short_transactions: bool = False) -> KafkaPublisher:
        if short_transactions:
            return self.with_timeouts(transaction_ms=SHORT_MS).node()
        return KafkaPublisher(self.kafka, self._clock)

    def ownership(self, node: Any, telemetry: CountingTelemetry, process: ProcessId) -> KafkaOwnership:
        return KafkaOwnership(self.kafka, telemetry, process=process, send_wakeup=node.send_wakeup)

    async def create_topic(
        self, *, kafka_partitions: int = 1, record_bytes_max: int | None = None, config: Mapping[str, str] | None = None
    ) -> str:
        name = f"topic-{uuid4().hex[:8]}"
        limit = {} if record_bytes_max is None else {"max.message.bytes": str(record_bytes_max)}
        # The records of these tests bear a time of long ago: with the default retention the broker deletes them when it
        # next cleans up, which is half a minute after its start and then every five minutes.
        own = {"retention.ms": "-1"} | limit | dict(config or {})
        await create_topics(self.kafka, [name], kafka_partitions=kafka_partitions, config=own)
        return name

    async def read_committed(self, topic: str) -> list[StoredRecord]:
        return await asyncio.to_thread(_read_with_another_client, self.kafka.settings.brokers[0], topic)

    def lose_commits(self, producer: Any) -> None:
        async def lose(*_: object) -> bool:
            raise DeliveryUnknown("the commit was lost")

        producer._commit = lose

    def commit_late(self, node: PublisherWithWakeups, producer: Any, name: SlotName) -> None:
        commit = producer._commit

        async def late(*arguments: Any) -> bool:
            # Waits until the broker has ended the open transaction: its marker stands before the barrier.
            await node.read_markers(new_incarnation(), {name: None})
            return bool(await commit(*arguments))

        producer._commit = late


def _read_with_another_client(brokers: str, topic: str) -> list[StoredRecord]:
    """librdkafka, so that the reader shares no bug with the writer."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": "reader",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        numbers = consumer.list_topics(topic, timeout=WAIT_S_MAX).topics[topic].partitions
        consumer.assign(
            [confluent_kafka.TopicPartition(topic, number, confluent_kafka.OFFSET_BEGINNING) for number in numbers]
        )
        return sorted(
            _read_to_the_end(consumer, topic, len(numbers)), key=lambda record: (record.kafka_partition, record.offset)
        )
    finally:
        consumer.close()


def _read_to_the_end(consumer: Any, topic: str, kafka_partitions: int) -> list[StoredRecord]:
    """Reads all that is committed. Where records stand behind the committed ones, waits a while for them: the partition may
    not know yet of a commit that was answered; an open transaction stays open."""
    records: list[StoredRecord] = []
    ended: dict[int, int] = {}
    settles_until_s: float | None = None
    while True:
        if len(ended) == kafka_partitions:
            settles_until_s = settles_until_s or time.monotonic() + SETTLED_WITHIN_S
            if time.monotonic() >= settles_until_s or all(
                offset >= consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, number), cached=True)[1]
                for number, offset in ended.items()
            ):
                return records
        message = consumer.poll(WAIT_S_MAX if settles_until_s is None else 0.05)
        if message is None:
            assert settles_until_s is not None, "Kafka did not answer a reader"
        elif message.error() is None:
            records.append(_stored(message))
        else:
            assert message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF, message.error()
            ended[message.partition()] = message.offset()


def _stored(message: Any) -> StoredRecord:
    return StoredRecord(
        topic=message.topic(),
        kafka_partition=message.partition(),
        offset=message.offset(),
        key=message.key(),
        value=message.value(),
        headers=tuple(message.headers() or ()),
        timestamp_ms=message.timestamp()[1],
    )


@pytest.fixture
def memory_kafka() -> MemoryUnderTest:
    return MemoryUnderTest()


@pytest.fixture(scope="module")
async def module_kafka(services: "LocalServices") -> KafkaContext:
    """The internal topics that a module's tests share. They keep apart by incarnations, groups and clients' topics."""
    cluster = f"cw{uuid4().hex[:8]}"
    kafka = KafkaContext(
        settings=KafkaSettings(
            brokers=(services.kafka_brokers,), cluster=cluster, shards=SHARDS, heartbeat_interval_ms=200
        ),
        # A busy machine stands still for seconds, and that is no answer of Kafka's. No test waits for these.
        timeouts=KafkaTimeouts(
            transaction_ms=60_000,
            sends_ms=SENDS_MS,
            commit_ms=50_000,
            init_ms=50_000,
            request_ms=20_000,
            lookup_ms=30_000,
        ),
    )
    with few_kafka_partitions():
        await create_internal_topics(kafka)
    return kafka


@pytest.fixture
def real_kafka(module_kafka: KafkaContext) -> RealUnderTest:
    """A Kafka with a consumer group of its own."""
    return RealUnderTest(module_kafka).with_settings(consumer_group=f"group-{uuid4().hex[:8]}")


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.real)])
def kafka(request: pytest.FixtureRequest) -> KafkaUnderTest:
    """Each contract test runs on both."""
    under_test: KafkaUnderTest = request.getfixturevalue(f"{request.param}_kafka")
    return under_test


@pytest.fixture
async def node(kafka: KafkaUnderTest) -> AsyncIterator[PublisherWithWakeups]:
    """The publisher of one node."""
    async with kafka.node() as publisher:
        yield publisher


# --- slots, records and markers


def new_incarnation() -> IncarnationId:
    """The first incarnation of a process of its own."""
    return incarnation_id(process_id(RNG.getrandbits(64)), 1)


def sharing(name: SlotName) -> SlotName:
    """A slot of another incarnation, whose markers stand in the same Kafka partition, if there are 64 or fewer of them in a
    power of two."""
    wanted = kafka_partition_of(marker_key(name.incarnation, name.slot), 64)
    while True:
        other = new_incarnation()
        if kafka_partition_of(marker_key(other, 0), 64) == wanted:
            return SlotName(other, 0)


async def open_slot(node: Publisher, name: SlotName) -> SlotProducer:
    """A producer that may deliver."""
    producer = node.open_slot(name)
    await producer.init()
    return producer


async def take_over(node: Publisher, name: SlotName, *, hint: int | None = None) -> tuple[MarkerEntry, ...]:
    """T2b and T2c of another incarnation with this slot alone."""
    await node.settle(name.incarnation, slots=name.slot + 1)
    return (await node.read_markers(new_incarnation(), {name: hint}))[name]


async def deliver(producer: SlotProducer, *records: OutRecord, sends_ms: int = SENDS_MS) -> Committed:
    """Delivers them with the marker of a slot without untidied rows."""
    return await producer.deliver(records, marker_of, sends_ms=sends_ms)


def record(topic: str, value: bytes = b"value", *, key: bytes | None = b"key", size: int = 0) -> OutRecord:
    return OutRecord(
        topic=topic,
        key=key,
        value=value.ljust(size, b"."),
        headers=(("clockwork-delivery-id", b"d1"),),
        timestamp_ms=1_700_000_000_123,
    )


def ended_at(receipt: Receipt, nth: int = 0) -> MarkerEntry:
    return MarkerEntry(
        shard=ShardId(nth % 3), position=Position((nth + 1) * 10**24 + 1), at_ms=receipt.at_ms, receipt=receipt
    )


def marker_of(receipt: Any) -> bytes:
    """The marker of a slot that has no earlier rows to name."""
    return encode([ended_at(where, nth) for nth, where in enumerate(receipt)])


async def until(condition: Callable[[], bool]) -> None:
    """Waits, in a bounded way, for something that another task or process does."""
    async with asyncio.timeout(WAIT_S_MAX):
        while not condition():  # noqa: ASYNC110 - the other side is a process that sets no event of ours
            await asyncio.sleep(0.01)


async def until_async(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        while not await condition():  # noqa: ASYNC110 - the same
            await asyncio.sleep(0.05)


class Member:
    """A node's view of the group: everything its ownership told it."""

    def __init__(self, ownership: Any, telemetry: CountingTelemetry, process: ProcessId) -> None:
        self.ownership = ownership
        """A ShardOwnership; those of the twin have switches besides."""
        self.process = process
        self.telemetry = telemetry
        self.assignments: list[frozenset[ShardId]] = []
        self.wakeups: list[tuple[ShardId, WakeUp]] = []

    @property
    def shards(self) -> frozenset[ShardId]:
        return self.assignments[-1] if self.assignments else frozenset()

    async def run(self) -> None:
        await self.ownership.run(self.assignments.append, lambda shard, wakeup: self.wakeups.append((shard, wakeup)))


@contextlib.asynccontextmanager
async def member(kafka: KafkaUnderTest, node: PublisherWithWakeups) -> AsyncIterator[Member]:
    """A node in the group for the length of the block; it leaves at the end."""
    telemetry, process = CountingTelemetry(), process_id(RNG.getrandbits(64))
    joined = Member(kafka.ownership(node, telemetry, process), telemetry, process)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(joined.run(), name="ownership")
        try:
            yield joined
        finally:
            task.cancel()
