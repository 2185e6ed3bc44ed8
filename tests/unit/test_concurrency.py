"""Calls side by side, a bounded number at a time."""

import asyncio

import pytest

from clockwork.concurrency import Turns, gather_bounded
from clockwork.errors import StoreThrottled, TooManyRequests
from tests.support.virtual_time import in_virtual_time


async def test_results_come_in_the_order_of_what_was_asked_for() -> None:
    gates = [asyncio.Event() for _ in range(3)]

    async def one(number: int) -> int:
        if number < 2:
            await gates[number + 1].wait()
        gates[number].set()
        return number * 10

    assert await gather_bounded(one, range(3), at_once=3) == [0, 10, 20]


async def test_the_first_failure_is_raised_as_itself_and_ends_the_rest() -> None:
    ended = []

    async def one(number: int) -> None:
        if number == 0:
            await asyncio.sleep(0)  # the others have begun
            raise StoreThrottled
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    with pytest.raises(StoreThrottled):
        await gather_bounded(one, range(3), at_once=3)
    assert sorted(ended) == [1, 2]


async def test_no_more_than_the_bound_run_at_once() -> None:
    running, most = 0, 0

    async def one(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    await gather_bounded(one, range(20), at_once=4)
    assert most == 4


@in_virtual_time
async def test_a_caller_that_is_cancelled_while_a_failure_ends_the_rest_is_cancelled() -> None:
    ending = asyncio.Event()

    async def one(number: int) -> None:
        if number == 0:
            await asyncio.sleep(0)  # the others have begun
            raise StoreThrottled
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await asyncio.sleep(1)

    caller = asyncio.get_running_loop().create_task(gather_bounded(one, range(2), at_once=2), name="caller")
    await ending.wait()
    caller.cancel()
    await asyncio.wait([caller])
    assert caller.cancelled()


async def test_some_have_their_turn_at_once_some_wait_and_the_others_are_refused() -> None:
    turns = Turns("walks", at_once=2, waiting_max=3, retry_after_s=7)
    running, most, go = 0, 0, asyncio.Event()

    async def walk() -> None:
        nonlocal running, most
        async with turns.one():
            running += 1
            most = max(most, running)
            await go.wait()
            running -= 1

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(walk(), name="walk") for _ in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyRequests, match="walks") as refused:
            await walk()
        # One that waits and is cancelled leaves its place to another.
        tasks[4].cancel()
        await asyncio.wait([tasks[4]])
        group.create_task(walk(), name="walk")
        go.set()
    assert (most, refused.value.retry_after_s) == (2, 7)
    await walk()
