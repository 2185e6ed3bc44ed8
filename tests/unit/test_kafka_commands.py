"""The command log on Kafka: the part that needs no broker. The rest is in tests/contract/test_command_log.py."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, KafkaConnectionError, KafkaError, UnknownMemberIdError
from aiokafka.structs import OffsetAndMetadata

from clockwork.kafka.client import KafkaContext
from clockwork.kafka.commands import KafkaCommandLog, commit
from clockwork.ports.commands import CommandBatch
from clockwork.ports.telemetry import NoTelemetry
from tests.support.virtual_time import in_virtual_time

WHERE = TopicPartition("commands", 0)
MEMBERSHIP = (7, "me")


class Coordinator:
    """aiokafka's, as far as a commit needs it; its requests fail as the test says, and then succeed."""

    def __init__(self, *errors: KafkaError) -> None:
        self.generation, self.member_id = MEMBERSHIP
        self.asked_in: list[int] = []
        """Generations of the requests."""
        self._errors = list(errors)

    async def ensure_coordinator_known(self) -> None: ...

    async def _do_commit_offsets(self, _assignment: Any, _offsets: Any) -> None:
        self.asked_in.append(self.generation)
        if self._errors:
            raise self._errors.pop(0)

    async def commit(self) -> None:
        await commit(SimpleNamespace(_coordinator=self), MEMBERSHIP, WHERE, 7)


@in_virtual_time
async def test_a_commit_without_an_answer_is_repeated() -> None:
    coordinator = Coordinator(KafkaConnectionError(), KafkaConnectionError())
    await coordinator.commit()
    assert coordinator.asked_in == [7, 7, 7]


@in_virtual_time
async def test_a_commit_without_an_answer_is_not_repeated_after_a_rebalance() -> None:
    # Another member may have read on meanwhile. Kafka would take the older offset from any member of the new generation.
    coordinator = Coordinator(KafkaConnectionError())
    task = asyncio.get_running_loop().create_task(coordinator.commit())
    await asyncio.sleep(0)
    assert coordinator.asked_in == [7]
    coordinator.generation = 9
    with pytest.raises(CommitFailedError):
        await task
    assert coordinator.asked_in == [7]


async def test_a_refused_commit_is_an_error() -> None:
    with pytest.raises(UnknownMemberIdError):
        await Coordinator(UnknownMemberIdError()).commit()


class Log:
    """A consumer of one Kafka partition without an end."""

    def __init__(self, metadata: str = "") -> None:
        self._coordinator = SimpleNamespace(
            generation=MEMBERSHIP[0],
            member_id=MEMBERSHIP[1],
            ensure_coordinator_known=self._nothing,
            fetch_committed_offsets=self._committed_offsets,
            _do_commit_offsets=self._commit,
        )
        self._metadata = metadata
        self._at = 0
        self.batches: list[int] = []
        self.committed: list[tuple[int, str]] = []

    async def _nothing(self) -> None: ...

    async def _committed_offsets(self, _where: Any) -> Any:
        return {WHERE: OffsetAndMetadata(0, self._metadata)}

    async def _commit(self, _assignment: Any, offsets: Any) -> None:
        self.committed.append(tuple(offsets[WHERE]))

    def seek(self, _where: Any, offset: int) -> None:
        self._at = offset

    async def getmany(self, where: Any, *, timeout_ms: int, max_records: int) -> Any:
        records = [
            SimpleNamespace(partition=0, offset=self._at + n, timestamp=0, key=None, value=b"", headers=())
            for n in range(max_records)
        ]
        self._at += max_records
        self.batches.append(max_records)
        return {where: records}

    def assignment(self) -> set[TopicPartition]:
        return set()


async def read_batches(log: Log, count: int, *, record_s: float) -> list[int]:
    """The records of each batch, of commands that take so long each. The last one is cancelled in the middle."""

    async def work(batch: CommandBatch, _note: Any) -> None:
        if len(log.batches) == count:
            task.cancel()
        await asyncio.sleep(record_s * len(batch.records))

    commands = KafkaCommandLog(KafkaContext(), NoTelemetry())
    listener = SimpleNamespace(generation=1)
    reading = commands._one_partition(log, MEMBERSHIP, listener, 1, WHERE, work)  # type: ignore[arg-type]
    task = asyncio.get_running_loop().create_task(reading)
    await asyncio.wait([task])
    return log.batches


@in_virtual_time
async def test_batches_are_as_large_as_can_be_committed_within_a_second() -> None:
    # An assignment may last a few seconds only, and what is not committed in it is read again.
    assert await read_batches(Log(), 7, record_s=0.001) == [10, 20, 40, 80, 160, 200, 200]
    slow = await read_batches(Log(), 7, record_s=0.15)
    assert slow == [10, 5, 5, 5, 5, 5, 5]
    assert await read_batches(Log(), 6, record_s=5.0) == [10, 5, 2, 1, 1, 1]


@in_virtual_time
async def test_what_a_larger_batch_has_noted_is_kept_until_its_end() -> None:
    log = Log("effects before 25")
    await read_batches(log, 4, record_s=0.06)
    assert log.committed == [(10, "effects before 25"), (20, "effects before 25"), (30, "")]


class TwoPartitions(KafkaCommandLog):
    """A membership with two Kafka partitions, which is over as soon as they are assigned. The task of the first has lost its
    broker; that of the second takes a while to end."""

    def __init__(self) -> None:
        super().__init__(KafkaContext(), NoTelemetry())
        self.ending = asyncio.Event()
        self.memberships: list[tuple[int, str]] = []

    def _consumer(self) -> Any:
        coordinator = Coordinator()

        async def nothing() -> None: ...

        def subscribe(topics: list[str], *, listener: Any) -> None:
            listener.on_partitions_assigned([TopicPartition(topics[0], 0), TopicPartition(topics[0], 1)])
            coordinator.generation, coordinator.member_id = -1, ""

        return SimpleNamespace(start=nothing, stop=nothing, subscribe=subscribe, _coordinator=coordinator)

    async def _one_partition(self, *args: Any) -> None:
        membership, where = args[1], args[4]
        self.memberships.append(membership)
        if where.partition == 0:
            await asyncio.sleep(0)  # the other one has begun
            raise KafkaConnectionError
        try:
            await asyncio.Event().wait()
        finally:
            self.ending.set()
            await asyncio.sleep(1)

    @staticmethod
    async def work(*_: Any) -> None: ...


@in_virtual_time
async def test_an_assignment_is_committed_in_the_membership_that_it_belongs_to_though_that_is_over() -> None:
    # A request without a generation would be taken while the group has no members.
    commands = TwoPartitions()
    task = asyncio.get_running_loop().create_task(commands.run(commands.work))
    await commands.ending.wait()
    assert commands.memberships == [MEMBERSHIP, MEMBERSHIP]
    task.cancel()
    await asyncio.wait([task])


@in_virtual_time
async def test_a_log_that_is_stopped_while_its_membership_is_ending_stops() -> None:
    commands = TwoPartitions()
    task = asyncio.get_running_loop().create_task(commands.run(commands.work))
    await commands.ending.wait()
    task.cancel()
    await asyncio.wait([task], timeout=60)
    stopped = task.cancelled()
    task.cancel()
    await asyncio.wait([task])
    assert stopped
