"""The contract of CommandLog, on the twin and on a real Kafka."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol
from uuid import uuid4

import pytest
from confluent_kafka import Producer

from clockwork.domain.sharding import murmur2
from clockwork.kafka.client import KafkaContext
from clockwork.kafka.commands import KafkaCommandLog
from clockwork.kafka.memory.commands import MemoryCommandLog
from clockwork.kafka.topics import COMMANDS_KAFKA_PARTITIONS, create_topics, internal_topics
from clockwork.ports.commands import CommandBatch, CommandLog, CommandRecord, RecordEffects
from clockwork.ports.telemetry import NoTelemetry
from tests.contract.kafka_fixtures import WAIT_S_MAX, RealUnderTest, until

if TYPE_CHECKING:
    from tests.contract.kafka_fixtures import MemoryUnderTest

KEY: Final = b"shop"
HEADERS: Final = (("mine", b"1"), ("mine", b"2"))


def number_of(key: bytes) -> int:
    """The Kafka partition that a key stands in."""
    return (murmur2(key) & 0x7FFFFFFF) % COMMANDS_KAFKA_PARTITIONS


class CommandsUnderTest(Protocol):
    """The commands topic as a contract test uses it besides calling the port."""

    def member(self) -> CommandLog:
        """A member of the group; one at a time."""
        ...

    async def send(self, values: Sequence[bytes], *, key: bytes = KEY, abort: bool = False) -> None:
        """Sends the values in one transaction of a producer."""
        ...


class MemoryCommands:
    def __init__(self) -> None:
        self._log = MemoryCommandLog(kafka_partitions=COMMANDS_KAFKA_PARTITIONS)

    def member(self) -> CommandLog:
        return self._log

    async def send(self, values: Sequence[bytes], *, key: bytes = KEY, abort: bool = False) -> None:
        if not abort:
            for value in values:
                self._log.append(key, value, kafka_partition=number_of(key), headers=HEADERS)


class RealCommands:
    def __init__(self, kafka: KafkaContext) -> None:
        self._kafka = kafka

    def member(self) -> CommandLog:
        return KafkaCommandLog(self._kafka, NoTelemetry())

    async def send(self, values: Sequence[bytes], *, key: bytes = KEY, abort: bool = False) -> None:
        await asyncio.to_thread(self._send, values, key, abort)

    def _send(self, values: Sequence[bytes], key: bytes, abort: bool) -> None:
        # librdkafka's producer, so that the writer shares no bug with the reader.
        settings = self._kafka.settings
        producer = Producer(
            {
                "bootstrap.servers": settings.brokers[0],
                "transactional.id": f"{settings.cluster}-{uuid4().hex[:6]}",
                "partitioner": "murmur2_random",
            }
        )
        producer.init_transactions(WAIT_S_MAX)
        producer.begin_transaction()
        for value in values:
            producer.produce(settings.commands_topic, key=key, value=value, headers=list(HEADERS))
        # Written for certain, so that there are aborted records to leave out.
        assert producer.flush(WAIT_S_MAX) == 0
        (producer.abort_transaction if abort else producer.commit_transaction)(WAIT_S_MAX)


@pytest.fixture
def memory_commands(memory_kafka: "MemoryUnderTest") -> MemoryCommands:
    return MemoryCommands()


@pytest.fixture
async def real_commands(real_kafka: RealUnderTest) -> RealCommands:
    # A topic for each test: all of it is read.
    kafka = real_kafka.with_settings(cluster=f"cw{uuid4().hex[:8]}", commands=True).kafka
    [plan] = [plan for plan in internal_topics(kafka.settings) if plan.name == kafka.settings.commands_topic]
    await create_topics(kafka, [plan.name], kafka_partitions=plan.kafka_partitions, config=plan.config)
    return RealCommands(kafka)


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.real)])
def commands(request: pytest.FixtureRequest) -> CommandsUnderTest:
    """Each contract test runs on both."""
    under_test: CommandsUnderTest = request.getfixturevalue(f"{request.param}_commands")
    return under_test


@dataclass(kw_only=True)
class Worker:
    """Takes batches, and goes as far with them as the test says."""

    notes: bool = False
    stops_at: bytes | None = None
    """It never returns from a batch that has this value."""
    batches: list[CommandBatch] = field(default_factory=list)
    noted: int = 0

    async def work(self, batch: CommandBatch, note: RecordEffects) -> None:
        self.batches.append(batch)
        if self.notes:
            await note()
            self.noted += len(batch.records)
        if any(record.value == self.stops_at for record in batch.records):
            await asyncio.Event().wait()

    @property
    def records(self) -> list[CommandRecord]:
        return [record for batch in self.batches for record in batch.records]

    @property
    def values(self) -> list[bytes]:
        return [record.value for record in self.records]

    @property
    def over(self) -> list[bytes]:
        return [record.value for batch in self.batches for record in batch.records[: batch.over]]


@asynccontextmanager
async def working(commands: CommandsUnderTest, worker: Worker) -> AsyncIterator[Worker]:
    """A member for the length of the block; then it is cancelled, wherever it is."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(commands.member().run(worker.work), name="commands")
        try:
            yield worker
        finally:
            task.cancel()


async def test_committed_commands_come_in_order_as_they_were_sent(commands: CommandsUnderTest) -> None:
    await commands.send([b"1", b"2"])
    async with working(commands, Worker()) as worker:
        await until(lambda: len(worker.values) == 2)
        await commands.send([b"3"])
        await until(lambda: len(worker.values) == 3)
    assert worker.values == [b"1", b"2", b"3"]
    assert {(r.key, r.headers, r.place.kafka_partition) for r in worker.records} == {(KEY, HEADERS, number_of(KEY))}
    offsets = [record.place.offset for record in worker.records]
    assert offsets == sorted(set(offsets))
    assert worker.over == []


async def test_of_an_aborted_transaction_nothing_comes(commands: CommandsUnderTest) -> None:
    await commands.send([b"1"])
    await commands.send([b"aborted", b"aborted too"], abort=True)
    await commands.send([b"2"])
    async with working(commands, Worker()) as worker:
        await until(lambda: b"2" in worker.values)
    assert worker.values == [b"1", b"2"]


async def test_what_was_not_worked_off_is_given_again(commands: CommandsUnderTest) -> None:
    await commands.send([b"1", b"2"])
    async with working(commands, Worker(stops_at=b"2")) as first:
        await until(lambda: b"2" in first.values)
    async with working(commands, Worker()) as second:
        await until(lambda: b"2" in second.values)
    assert [r.place for r in second.records] == [r.place for r in first.records][-len(second.records) :]
    assert second.over == []


async def test_what_was_worked_off_is_not_given_again(commands: CommandsUnderTest) -> None:
    await commands.send([b"1"])
    # The second is only given once the first is worked off, and its offset committed.
    async with working(commands, Worker(stops_at=b"2")) as first:
        await until(lambda: b"1" in first.values)
        await commands.send([b"2"])
        await until(lambda: b"2" in first.values)
    async with working(commands, Worker()) as second:
        await until(lambda: b"2" in second.values)
    assert second.values == [b"2"]


async def test_what_was_noted_comes_again_as_over_and_nothing_behind_it(commands: CommandsUnderTest) -> None:
    # Its effects are over, its answers may not be out.
    await commands.send([b"1", b"2"])
    async with working(commands, Worker(notes=True, stops_at=b"2")) as first:
        await until(lambda: first.noted == 2)
    await commands.send([b"3"])
    async with working(commands, Worker()) as second:
        await until(lambda: b"3" in second.values)
    assert second.values[-2:] == [b"2", b"3"]
    assert second.over == second.values[:-1]


async def test_a_batch_that_takes_its_time_holds_up_no_other_kafka_partition(commands: CommandsUnderTest) -> None:
    other = next(key for key in (f"shop-{n}".encode() for n in range(100)) if number_of(key) != number_of(KEY))
    await commands.send([b"slow"])
    async with working(commands, Worker(stops_at=b"slow")) as worker:
        await until(lambda: b"slow" in worker.values)
        await commands.send([b"another"], key=other)
        await until(lambda: b"another" in worker.values)
