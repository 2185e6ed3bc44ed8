"""The command log on Kafka: the part that needs no broker. The rest is in tests/contract/test_command_log.py."""

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import CommitFailedError, KafkaConnectionError, UnknownMemberIdError

from clockwork.kafka.client import KafkaContext
from clockwork.kafka.commands import Commits, KafkaCommandLog
from clockwork.ports.telemetry import NoTelemetry
from tests.support.virtual_time import in_virtual_time

OFFSETS = {TopicPartition("commands", 0): 7}


class Coordinator(SimpleNamespace):
    """aiokafka's, as far as a commit needs it; its request fails when the test says so."""

    def __init__(self) -> None:
        super().__init__(_commit_lock=asyncio.Lock(), asked=asyncio.Event(), answered=asyncio.Event())
        self._retry_backoff_ms = 100
        self.error: Exception = UnknownMemberIdError()

    async def ensure_coordinator_known(self) -> None: ...

    async def _do_commit_offsets(self, _assignment: Any, _offsets: Any) -> None:
        self.asked.set()
        await self.answered.wait()
        raise self.error

    def commit(self) -> Any:
        return GroupCoordinator.commit_offsets(self, None, OFFSETS)


async def cancelled_commit(commits: Commits, coordinator: Coordinator) -> asyncio.Task[None]:
    """The task of a commit whose request is on its way, and which was told to end."""
    task = asyncio.get_running_loop().create_task(commits.run(coordinator.commit()))
    await coordinator.asked.wait()
    task.cancel()
    return task


@in_virtual_time
async def test_a_commit_that_fails_after_its_task_was_cancelled_is_not_reported_as_a_defect() -> None:
    # A revocation cancels the task, and the member has lost its place: the request that is still on its way is refused.
    commits, coordinator = Commits(), Coordinator()
    task = await cancelled_commit(commits, coordinator)
    coordinator.answered.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await commits.close()
    # An exception that is never retrieved is an error of the loop, and fails the test.
    gc.collect()


@in_virtual_time
async def test_a_commit_that_gets_no_answer_holds_its_task_up_for_a_bounded_time_and_ends_with_the_consumer() -> None:
    commits, coordinator = Commits(), Coordinator()
    with pytest.raises(asyncio.CancelledError):
        await (await cancelled_commit(commits, coordinator))
    # The consumer is closed: the request on its way fails, and aiokafka would try it again for ever.
    coordinator.error = KafkaConnectionError()
    coordinator.answered.set()
    await asyncio.sleep(0.05)
    await commits.close()
    # An exception that is never retrieved is an error of the loop, and fails the test.
    gc.collect()


async def test_a_caller_that_waits_for_a_commit_is_told_that_it_failed() -> None:
    coordinator = Coordinator()
    coordinator.answered.set()
    with pytest.raises(CommitFailedError):
        await Commits().run(coordinator.commit())


class TwoPartitions(KafkaCommandLog):
    """A membership with two Kafka partitions. The task of the first has lost its broker; that of the second waits for the
    answer to its commit before it ends."""

    def __init__(self) -> None:
        super().__init__(KafkaContext(), NoTelemetry())
        self.ending = asyncio.Event()

    def _consumer(self) -> Any:
        async def nothing() -> None: ...

        def subscribe(topics: list[str], *, listener: Any) -> None:
            listener.on_partitions_assigned([TopicPartition(topics[0], 0), TopicPartition(topics[0], 1)])

        return SimpleNamespace(start=nothing, stop=nothing, subscribe=subscribe)

    async def _one_partition(self, *args: Any) -> None:
        where = args[4]
        if where.partition == 0:
            await asyncio.sleep(0)  # the other one has begun
            raise KafkaConnectionError
        try:
            await asyncio.Event().wait()
        finally:
            self.ending.set()
            await asyncio.sleep(1)


@in_virtual_time
async def test_a_log_that_is_stopped_while_its_membership_is_ending_stops() -> None:
    commands = TwoPartitions()

    async def work(*_: Any) -> None: ...

    task = asyncio.get_running_loop().create_task(commands.run(work))
    await commands.ending.wait()
    task.cancel()
    await asyncio.wait([task], timeout=60)
    stopped = task.cancelled()
    task.cancel()
    await asyncio.wait([task])
    assert stopped
