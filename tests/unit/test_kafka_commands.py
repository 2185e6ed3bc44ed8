"""The log of commands on Kafka: what can be told without one. The rest is in tests/contract/test_command_log.py."""

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import CommitFailedError, UnknownMemberIdError

from clockwork.kafka.commands import let_commits_end_alone

OFFSETS = {TopicPartition("commands", 0): 7}


class Coordinator(SimpleNamespace):
    """aiokafka's, as far as a commit needs it; its request fails when the test says so."""

    def __init__(self) -> None:
        super().__init__(_commit_lock=asyncio.Lock(), asked=asyncio.Event(), answered=asyncio.Event())

    async def ensure_coordinator_known(self) -> None: ...

    async def _do_commit_offsets(self, _assignment: Any, _offsets: Any) -> None:
        self.asked.set()
        await self.answered.wait()
        raise UnknownMemberIdError


@pytest.fixture
def coordinator() -> Coordinator:
    made = Coordinator()
    let_commits_end_alone(SimpleNamespace(_coordinator=made))
    return made


async def test_a_commit_that_fails_after_its_task_was_cancelled_is_not_reported_as_a_defect(
    coordinator: Coordinator,
) -> None:
    # A revocation cancels the task, and the member has lost its place: the request that is still on its way is refused.
    reported: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    try:
        task = loop.create_task(GroupCoordinator.commit_offsets(coordinator, None, OFFSETS))
        await coordinator.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        coordinator.answered.set()
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()
    finally:
        loop.set_exception_handler(None)
    assert reported == []


async def test_whoever_waits_for_a_commit_is_told_that_it_failed(coordinator: Coordinator) -> None:
    coordinator.answered.set()
    with pytest.raises(CommitFailedError):
        await GroupCoordinator.commit_offsets(coordinator, None, OFFSETS)
