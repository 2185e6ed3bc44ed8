"""Requests of one moment share a call."""

import asyncio
from dataclasses import dataclass, field

from clockwork.stores.dynamodb.sharing import SharedCalls


@dataclass(slots=True)
class Few:
    """A group with room for three."""

    members: list[str] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def takes(self, member: str) -> bool:
        return len(self.members) < 3

    def add(self, member: str) -> None:
        self.members.append(member)


class Calls:
    """Calls that end when they are let go."""

    def __init__(self, *, at_once: int | None = None) -> None:
        self.made: list[list[str]] = []
        self.may_end = asyncio.Event()
        self.error: Exception | None = None
        self.shared: SharedCalls[Few, str] = SharedCalls(Few, self._carry, at_once=at_once)

    async def _carry(self, group: Few) -> None:
        self.made.append(list(group.members))
        await self.may_end.wait()
        if self.error is not None:
            raise self.error


async def _a_few_turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_comes_in_one_turn_goes_together_and_what_has_no_room_in_the_next_call() -> None:
    calls = Calls()
    calls.may_end.set()
    groups = await asyncio.gather(*(calls.shared.go(name) for name in "abcde"))
    assert calls.made == [["a", "b", "c"], ["d", "e"]]
    assert [group.members for group in groups] == [["a", "b", "c"]] * 3 + [["d", "e"]] * 2


async def test_only_while_all_places_are_taken_do_the_next_ones_gather() -> None:
    calls = Calls(at_once=2)
    async with asyncio.TaskGroup() as group:
        for name in "abcde":
            group.create_task(calls.shared.go(name), name=name)
            await _a_few_turns()
        assert calls.made == [["a"], ["b"]]
        calls.may_end.set()
    assert calls.made == [["a"], ["b"], ["c", "d", "e"]]


async def test_a_carrier_that_is_cancelled_lets_the_others_go_on() -> None:
    calls = Calls()
    async with asyncio.TaskGroup() as group:
        carrier = group.create_task(calls.shared.go("a"), name="carrier")
        other = group.create_task(calls.shared.go("b"), name="other")
        await _a_few_turns()
        carrier.cancel()
    assert carrier.cancelled()
    assert other.result().members == ["a", "b"]
    calls.may_end.set()
    assert (await calls.shared.go("c")).members == ["c"]


async def test_a_carrier_that_is_cancelled_before_it_has_a_place_leaves_no_group_behind() -> None:
    calls = Calls(at_once=1)
    async with asyncio.TaskGroup() as group:
        group.create_task(calls.shared.go("a"), name="first")
        await _a_few_turns()
        waiting = group.create_task(calls.shared.go("b"), name="waiting")
        await _a_few_turns()
        waiting.cancel()
        await _a_few_turns()
        calls.may_end.set()
        assert (await calls.shared.go("c")).members == ["c"]
    assert calls.made == [["a"], ["c"]]


async def test_an_error_of_the_call_is_its_carriers() -> None:
    calls = Calls()
    calls.may_end.set()
    calls.error = ValueError("a defect")
    results = await asyncio.gather(*(calls.shared.go(name) for name in "ab"), return_exceptions=True)
    assert isinstance(results[0], ValueError)
    assert isinstance(results[1], Few)
