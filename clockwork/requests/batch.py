"""Batches: many requests in one, each of which succeeds or fails alone, all within one time limit.

Items run side by side, so that their writes share transactions, and in the order given where order matters:

- items of one key, so that each sees the effect of the one before, as if they had come alone;
- creates of one lane (topic and ordering key), because a batch is accepted in the order given. Those that are due after the
  batch's time limit are all stored before any of them is due, so it is enough that their times of acceptance, which their
  positions are made of, are reserved in order before the first one starts. Those that are due earlier can be delivered
  while the batch is under way, so each waits until the one before is stored. A shared transaction would not do for them: it
  is applied item by item, and the owner's Query may see the second row before the first.

They run in waves: all items of a wave start at once, and all end before the next wave. Reads, holds and writes of the same
moment fill a few calls and transactions; a window of 200 that moved on item by item needed six times as many. A wave also
bounds memory (a cancel reads its whole row, up to 256 KiB, and writes it as an outcome), and the wait of other requests.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Final, TypeVar

from clockwork.errors import Unavailable

ITEM_MS: Final = 20
"""Milliseconds that each item adds to the time limit of a request."""
WAVE: Final = 250
STARTED_PER_TURN: Final = 50
"""Items started in one turn of the event loop, which heartbeats share: their first steps take a few milliseconds."""

A = TypeVar("A")
B = TypeVar("B")


async def run_batch(
    do: Callable[[A], Awaitable[B]],
    items: Sequence[A],
    *,
    queues: Callable[[A], Sequence[Hashable]],
    timeout_ms: int,
) -> list[B | Exception]:
    """The result of `do`, or its exception, for each item, in their order.

    `queues` names the queues that an item waits in: it starts when every item before it in any of them has ended. At the
    time limit the items under way are cancelled: each may have happened, and its result is `Unavailable`, as is that of
    the items that were never started.
    """
    results: list[B | Exception] = [Unavailable("the batch could not be answered in time")] * len(items)
    last_of: dict[Hashable, asyncio.Event] = {}

    async def run(number: int, before: Sequence[asyncio.Event], ended: asyncio.Event) -> None:
        for each in before:
            await each.wait()
        try:
            results[number] = await do(items[number])
        except Exception as error:
            # Not swallowed: it is this item's result, and must not end the others.
            results[number] = error
        finally:
            ended.set()

    try:
        async with asyncio.timeout(timeout_ms / 1_000) as limit:
            for start in range(0, len(items), WAVE):
                async with asyncio.TaskGroup() as group:
                    for nth, item in enumerate(items[start : start + WAVE]):
                        names, ended = queues(item), asyncio.Event()
                        before = [last_of[name] for name in names if name in last_of]
                        last_of.update(dict.fromkeys(names, ended))
                        group.create_task(run(start + nth, before, ended), name="batch-item")
                        if (nth + 1) % STARTED_PER_TURN == 0:
                            await asyncio.sleep(0)
    except TimeoutError:
        if not limit.expired():
            raise
    return results
