"""Micro-batching: concurrent requests are coalesced into one call."""

import asyncio
from collections.abc import Sequence

from clockwork.stores.micro_batching import MicroBatcher


class Calls:
    """Calls with room for three, which end when they may."""

    def __init__(self, *, at_once: int | None = None) -> None:
        self.made: list[list[str]] = []
        self.may_end = asyncio.Event()
        self.error: Exception | None = None
        self.batches = MicroBatcher[str, str](self._send, size_max=3, bytes_max=100, at_once=at_once)

    async def _send(self, members: Sequence[str]) -> str:
        self.made.append(list(members))
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return "".join(members)


async def _a_few_turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_requests_of_one_turn_share_a_call_and_those_without_room_the_next() -> None:
    calls = Calls()
    calls.may_end.set()
    results = await asyncio.gather(*(calls.batches.submit(name) for name in "abcde"))
    assert calls.made == [["a", "b", "c"], ["d", "e"]]
    assert results == ["abc"] * 3 + ["de"] * 2


async def test_sizes_and_bytes_are_bounded_and_a_request_above_the_bound_goes_alone() -> None:
    calls = Calls()
    calls.may_end.set()
    sizes = {"a": (2, 0), "b": (2, 0), "c": (1, 60), "d": (1, 60), "e": (9, 900)}
    await asyncio.gather(*(calls.batches.submit(n, size=s, size_bytes=b) for n, (s, b) in sizes.items()))
    assert calls.made == [["a"], ["b", "c"], ["d"], ["e"]]


async def test_no_two_requests_of_one_key_share_a_call() -> None:
    calls = Calls()
    calls.may_end.set()
    await asyncio.gather(*(calls.batches.submit(name, key=name[0]) for name in ("a1", "b1", "a2", "c1")))
    assert calls.made == [["a1", "b1"], ["a2", "c1"]]


async def test_only_while_all_slots_are_taken_do_the_next_requests_gather() -> None:
    calls = Calls(at_once=2)
    async with asyncio.TaskGroup() as group:
        for name in "abcde":
            group.create_task(calls.batches.submit(name), name=name)
            await _a_few_turns()
        assert calls.made == [["a"], ["b"]]
        calls.may_end.set()
    assert calls.made == [["a"], ["b"], ["c", "d", "e"]]


async def test_a_sender_that_is_cancelled_lets_the_others_go_on() -> None:
    calls = Calls()
    async with asyncio.TaskGroup() as group:
        sender = group.create_task(calls.batches.submit("a"), name="sender")
        other = group.create_task(calls.batches.submit("b"), name="other")
        await _a_few_turns()
        sender.cancel()
    assert sender.cancelled()
    assert other.result() is None, "nothing is known of the call"
    calls.may_end.set()
    assert await calls.batches.submit("c") == "c"


async def test_a_sender_that_is_cancelled_before_it_has_a_slot_leaves_no_batch_behind() -> None:
    calls = Calls(at_once=1)
    async with asyncio.TaskGroup() as group:
        group.create_task(calls.batches.submit("a"), name="first")
        await _a_few_turns()
        waiting = group.create_task(calls.batches.submit("b"), name="waiting")
        await _a_few_turns()
        waiting.cancel()
        await _a_few_turns()
        calls.may_end.set()
        assert await calls.batches.submit("c") == "c"
    assert calls.made == [["a"], ["c"]]


async def test_an_error_of_the_call_is_its_senders() -> None:
    calls = Calls()
    calls.may_end.set()
    calls.error = ValueError("a defect")
    results = await asyncio.gather(*(calls.batches.submit(name) for name in "ab"), return_exceptions=True)
    assert isinstance(results[0], ValueError)
    assert results[1] is None
