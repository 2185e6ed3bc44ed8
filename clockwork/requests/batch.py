"""Batches: many requests in one, each of which succeeds or fails alone, all within one time limit.

Items run side by side, so that their writes share transactions, and in the order given where order matters:

- items of one key, so that each sees the effect of the one before, as if they had come alone;
- creates of one lane (topic and ordering key), because a batch is accepted in the order given. Those that are due after the
  batch's time limit are all stored before any of them is due, so it is enough that their times of acceptance, which their
  positions are made of, are reserved in order before the first one starts. Those that are due earlier can be delivered
  while the batch is under way, so each waits until the one before is stored. A shared transaction would not do for them: it
  is applied item by item, and the owner's Query may see the second row before the first. What stores nothing waits for no
  turn in its lane: it is looked up first, side by side. Otherwise a batch sent again would spend its time limit on the items
  that were stored before, at four store calls in series for each, and never come to the last ones.

They run in waves: all items of a wave start at once, and all end before the next wave. Reads, holds and writes of the same
moment fill a few calls and transactions; a window of 200 that moved on item by item needed six times as many. A wave also
bounds memory (a cancel reads its whole row, up to 256 KiB, and writes it as an outcome), and the wait of other requests.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from clockwork.errors import Unavailable

ITEM_MS: Final = 20
"""Milliseconds that each item adds to the time limit of a request."""
WAVE: Final = 250
STARTED_PER_TURN: Final = 50
"""Items started in one turn of the event loop, which heartbeats share: their first steps take a few milliseconds."""

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, kw_only=True, slots=True)
class Lanes(Generic[A, B]):
    """The lanes of a batch, in which an item waits only if it has to."""

    lane_of: Callable[[A], Hashable | None]
    """None: the item waits in no lane."""
    do_early: Callable[[A], Awaitable[B | None]]
    """The result of an item that needs no turn in its lane; None: nothing was done, and it waits for its turn."""


async def run_batch(
    do: Callable[[A], Awaitable[B]],
    items: Sequence[A],
    *,
    key_of: Callable[[A], Hashable | None],
    lanes: Lanes[A, B] | None = None,
    timeout_ms: int,
) -> list[B | Exception]:
    """The result of `do` (or of `do_early`), or its exception, for each item, in their order.

    An item starts when every item before it of its key has ended; `do` starts when every item before it of its lane has
    ended, too. At the time limit the items under way are cancelled: each may have happened, and its result is
    `Unavailable`, as is that of the items that were never started.
    """
    results: list[B | Exception] = [Unavailable("the batch could not be answered in time")] * len(items)
    last_of_key: dict[Hashable, asyncio.Event] = {}
    last_of_lane: dict[Hashable, asyncio.Event] = {}

    async def result_of(item: A, lane_before: asyncio.Event | None) -> B:
        if lanes is not None and lanes.lane_of(item) is not None:
            early = await lanes.do_early(item)
            if early is not None:
                return early
        if lane_before is not None:
            await lane_before.wait()
        return await do(item)

    async def run(
        number: int, key_before: asyncio.Event | None, lane_before: asyncio.Event | None, ended: asyncio.Event
    ) -> None:
        if key_before is not None:
            await key_before.wait()
        try:
            results[number] = await result_of(items[number], lane_before)
        except Exception as error:
            # The error is not lost: it is the result of this item, and must not end the others.
            results[number] = error
        # The turn is awaited after an early result too: the next item of the lane waits for all items before it.
        if lane_before is not None:
            await lane_before.wait()
        ended.set()

    try:
        async with asyncio.timeout(timeout_ms / 1_000) as limit:
            for start in range(0, len(items), WAVE):
                async with asyncio.TaskGroup() as group:
                    for nth, item in enumerate(items[start : start + WAVE]):
                        ended = asyncio.Event()
                        key_before = _follow(last_of_key, key_of(item), ended)
                        lane_before = _follow(last_of_lane, lanes.lane_of(item) if lanes is not None else None, ended)
                        group.create_task(run(start + nth, key_before, lane_before, ended), name="batch-item")
                        if (nth + 1) % STARTED_PER_TURN == 0:
                            await asyncio.sleep(0)
    except TimeoutError:
        if not limit.expired():
            raise
    return results


def _follow(
    last_of: dict[Hashable, asyncio.Event], name: Hashable | None, ended: asyncio.Event
) -> asyncio.Event | None:
    """The end of the latest item of this name, which is `ended` from now on."""
    if name is None:
        return None
    before = last_of.get(name)
    last_of[name] = ended
    return before
