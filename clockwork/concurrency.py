"""The same thing for many, side by side, a bounded number at once."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from clockwork.domain.retry import BackoffPolicy

A = TypeVar("A")
B = TypeVar("B")


async def gather_bounded(do: Callable[[A], Awaitable[B]], what: Iterable[A], *, at_once: int) -> list[B]:
    """Results in the order of `what`. The first failure cancels the rest and is raised as it is, not as a group:
    callers decide by the class of one error."""
    items = list(what)
    if len(items) == 1:
        return [await do(items[0])]
    results: dict[int, B] = {}
    waiting = iter(enumerate(items))

    async def one_after_another() -> None:
        for number, item in waiting:
            results[number] = await do(item)

    # As many tasks as run at once, not as there are items: to start one costs as much as a small item's work.
    name = f"together-{getattr(do, '__name__', 'call')}"
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(items))):
                group.create_task(one_after_another(), name=name)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [results[number] for number in range(len(items))]


class Backoff:
    """A runner's failures in a row, and how long to wait after the latest."""

    def __init__(self, rng: random.Random, backoff: BackoffPolicy) -> None:
        self._rng = rng
        self._backoff = backoff
        self.failures_in_row = 0

    def reset(self) -> None:
        self.failures_in_row = 0

    def next_wait_s(self) -> float:
        self.failures_in_row += 1
        return self._backoff.wait_ms(self.failures_in_row, jitter=self._rng.uniform(0.5, 1.0)) / 1_000

    async def wait(self) -> None:
        """Counts one more failure and sleeps for its wait."""
        await asyncio.sleep(self.next_wait_s())
