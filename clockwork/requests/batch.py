"""Many requests in one: each succeeds or fails alone, and all of them within one deadline.

Requests of different keys go side by side, so that what they write shares transactions; those of one key go one after
the other, in the order given, and see each other's effects as if they had come alone.

They go in waves, each begun at once and ended before the next: what reads, holds or writes in the same moments fills a few
calls and transactions, where a window of 200 that moved on one by one needed six times as many. A wave bounds what is in
memory (a cancel reads its whole row, of up to 256 KiB, and writes it as an outcome), and what others have to wait behind.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Final, TypeVar

from clockwork.errors import Unavailable

WAVE: Final = 250
BEGUN_PER_TURN: Final = 50
"""Of the event loop, which heartbeats share: the first steps of so many take a few milliseconds."""

A = TypeVar("A")
B = TypeVar("B")


async def run_batch_by_key(
    do: Callable[[A], Awaitable[B]],
    items: Sequence[A],
    *,
    key: Callable[[A], Hashable],
    timeout_s: float,
) -> list[B | Exception]:
    """What `do` returned or raised for each item, in their order. At the deadline whatever is still under way is
    cancelled: it may have happened, and its result is `Unavailable`, as is that of what was never begun."""
    results: list[B | Exception] = [Unavailable("the batch could not be answered in time")] * len(items)
    places: dict[Hashable, list[int]] = {}
    for place, item in enumerate(items):
        places.setdefault(key(item), []).append(place)

    async def in_order(of_one_key: Sequence[int]) -> None:
        for place in of_one_key:
            try:
                results[place] = await do(items[place])
            except Exception as error:
                # Nothing is swallowed: it is this item's answer, and must not be another one's.
                results[place] = error

    try:
        async with asyncio.timeout(timeout_s) as limit:
            keys = list(places.values())
            for start in range(0, len(keys), WAVE):
                async with asyncio.TaskGroup() as group:
                    for nth, of_one_key in enumerate(keys[start : start + WAVE], start=1):
                        group.create_task(in_order(of_one_key), name="batch-item")
                        if nth % BEGUN_PER_TURN == 0:
                            await asyncio.sleep(0)
    except TimeoutError:
        if not limit.expired():
            raise
    return results
