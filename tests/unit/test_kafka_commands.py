"""The command log on Kafka: the part that needs no broker. The rest is in tests/contract/test_command_log.py."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, KafkaConnectionError, KafkaError, UnknownMemberIdError

from clockwork.kafka.client import KafkaContext
from clockwork.kafka.commands import KafkaCommandLog, commit
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
