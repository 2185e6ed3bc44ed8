"""Requests to the group's coordinator, on a scripted one."""

import asyncio
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from aiokafka import TopicPartition
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest

from clockwork.domain.ownership import ProcessId
from clockwork.domain.sharding import ShardId
from clockwork.errors import BrokerUnavailable
from clockwork.kafka import codes
from clockwork.kafka import ownership as kafka_ownership
from clockwork.kafka.group import (
    GroupCoordinator,
    GroupMembership,
    HeartbeatRequest,
    LeaveGroupRequest,
    assignor_of,
    process_of_member,
)
from clockwork.kafka.ownership import KafkaOwnership
from clockwork.ports.telemetry import NoTelemetry
from tests.support.virtual_time import in_virtual_time
from tests.unit.kafka_script import kafka_for_script

COORDINATOR = 3
ONE, OTHER = ProcessId("00000000000000a1"), ProcessId("00000000000000b2")
MEMBERSHIP = GroupMembership(generation=7, member_id="me")


class ScriptedCoordinator:
    """A wire to brokers of which one coordinates the group. Everything that is not scripted succeeds."""

    def __init__(self) -> None:
        self.finds: deque[int] = deque()
        """Error codes of the next lookups of the coordinator."""
        self.answers: deque[int] = deque()
        """Error codes of the next answers of the coordinator."""
        self.members: list[tuple[Any, ...]] = []
        self.silent = False
        self.on_answer: Callable[[], None] | None = None
        """Called once, before the next answer of the coordinator."""
        self.asked: list[Any] = []
        self.resets = 0

    async def request(self, request: Any, *, node_id: int | None = None, coordinator: bool = False) -> Any:
        await asyncio.sleep(0)
        if self.silent:
            raise BrokerUnavailable("no answer")
        if isinstance(request, FindCoordinatorRequest):
            code = self.finds.popleft() if self.finds else codes.NONE
            return SimpleNamespace(error_code=code, coordinator_id=COORDINATOR)
        assert (node_id, coordinator) == (COORDINATOR, True)
        self.asked.append(request)
        if self.on_answer is not None:
            called, self.on_answer = self.on_answer, None
            called()
        code = self.answers.popleft() if self.answers else codes.NONE
        match request:
            case HeartbeatRequest():
                return SimpleNamespace(error_code=code)
            case DescribeGroupsRequest():
                return SimpleNamespace(groups=[(code, "cw", "Stable", "consumer", "range", self.members)])
            case LeaveGroupRequest():
                return SimpleNamespace(error_code=codes.NONE, members=[("", "a", code)])
        raise AssertionError(request)

    async def find_coordinator(self, transactional_id: str) -> int | None:
        raise AssertionError(transactional_id)

    async def reset(self) -> None:
        self.resets += 1

    async def close(self) -> None: ...


def coordinator_on(wire: ScriptedCoordinator) -> GroupCoordinator:
    return GroupCoordinator(kafka_for_script(lookup_ms=2_500), wire)


class ScriptedConsumer:
    """A consumer that gets its assignments from the test."""

    def __init__(self) -> None:
        self._coordinator = SimpleNamespace(generation=-1, member_id="")
        self.subscribed = asyncio.Event()

    def assign(self, generation: int, *shards: int) -> None:
        self._coordinator.generation, self._coordinator.member_id = generation, "me"
        self._listener.on_partitions_assigned([TopicPartition("cw-shards", shard) for shard in shards])

    def subscribe(self, topics: list[str], listener: Any) -> None:
        self._listener = listener
        self.subscribed.set()

    async def getmany(self, **_: Any) -> Any:
        await asyncio.Event().wait()

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


async def test_an_answer_about_a_generation_that_has_ended_meanwhile_confirms_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    consumer, wire = ScriptedConsumer(), ScriptedCoordinator()
    monkeypatch.setattr(kafka_ownership, "AIOKafkaConsumer", lambda **_: consumer)
    monkeypatch.setattr(kafka_ownership, "KafkaWire", lambda *_, **__: wire)
    ownership = KafkaOwnership(kafka_for_script(), NoTelemetry(), process=ONE, send_wakeup=AsyncMock())
    async with asyncio.TaskGroup() as group:
        run = group.create_task(ownership.run(lambda shards: None, lambda shard, wakeup: None), name="ownership")
        await consumer.subscribed.wait()
        consumer.assign(7, 0, 1)
        wire.on_answer = lambda: consumer.assign(8, 1, 2)
        assert await ownership.confirmed_assignment() == {ShardId(1), ShardId(2)}
        run.cancel()
    assert [request._membership.generation for request in wire.asked] == [7, 8]
    assert await ownership.confirmed_assignment() == frozenset()


def metadata_of(process: ProcessId, *, withdrawn: bool = False) -> bytes:
    """The metadata of a process's member, as they stand in the description of the group."""
    encoded: bytes = assignor_of(process, lambda: withdrawn).metadata(["cw-shards"]).encode()
    return encoded


@pytest.mark.parametrize(
    ("code", "current"),
    [
        (codes.NONE, True),
        (codes.REBALANCE_IN_PROGRESS, False),
        (codes.ILLEGAL_GENERATION, False),
        (codes.UNKNOWN_MEMBER, False),
        (codes.FENCED_INSTANCE, False),
    ],
)
async def test_a_generation_is_current_only_if_the_coordinator_says_so(code: int, current: bool) -> None:
    wire = ScriptedCoordinator()
    wire.answers.append(code)
    assert await coordinator_on(wire).is_current(MEMBERSHIP) is current


Ask = Callable[[GroupCoordinator], Any]
REQUESTS: list[Ask] = [
    lambda each: each.is_current(MEMBERSHIP),
    lambda each: each.processes(),
    lambda each: each.remove("a"),
]


@pytest.mark.parametrize("ask", REQUESTS)
@in_virtual_time
async def test_a_coordinator_that_moves_is_looked_up_again(ask: Ask) -> None:
    wire = ScriptedCoordinator()
    wire.finds.extend([codes.COORDINATOR_NOT_AVAILABLE, codes.NONE])
    wire.answers.append(codes.NOT_COORDINATOR)
    await ask(coordinator_on(wire))
    assert len(wire.asked) == 2


@pytest.mark.parametrize("ask", REQUESTS)
@in_virtual_time
async def test_without_an_answer_nothing_is_said_and_the_connections_are_made_anew(ask: Ask) -> None:
    wire = ScriptedCoordinator()
    coordinator = coordinator_on(wire)
    wire.silent = True
    with pytest.raises(BrokerUnavailable):
        await ask(coordinator)
    wire.silent = False
    wire.finds.extend([codes.COORDINATOR_NOT_AVAILABLE] * 1_000)
    with pytest.raises(BrokerUnavailable):
        await ask(coordinator)
    assert wire.resets == 2


@pytest.mark.parametrize("ask", REQUESTS)
@in_virtual_time
async def test_an_answer_that_says_something_else_is_none(ask: Ask) -> None:
    wire = ScriptedCoordinator()
    wire.answers.append(codes.GROUP_FORBIDDEN)
    with pytest.raises(BrokerUnavailable, match="error code 30"):
        await ask(coordinator_on(wire))


async def test_members_are_told_by_their_client_ids_and_foreign_ones_left_out() -> None:
    wire = ScriptedCoordinator()
    wire.members = [
        ("m1", f"clockwork-ownership-{ONE}", "/127.0.0.1", b"", b""),
        ("m2", f"clockwork-ownership-{OTHER}", "/127.0.0.1", metadata_of(OTHER), b""),
        ("m3", "rdkafka", "/127.0.0.1", ConsumerProtocolMemberMetadata(1, ["cw-shards"], b"").encode(), b""),
    ]
    assert await coordinator_on(wire).processes() == {ONE, OTHER}


def test_a_static_member_that_came_back_is_the_process_of_its_last_join() -> None:
    # The coordinator goes on showing the client id of the first one.
    assert process_of_member(f"clockwork-ownership-{ONE}", metadata_of(OTHER)) == OTHER
    assert process_of_member(f"clockwork-ownership-{ONE}", metadata_of(OTHER, withdrawn=True)) == OTHER
