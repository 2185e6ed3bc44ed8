"""Bounded concurrency, turns of long work, and back-off between failures."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar

from clockwork.domain.retry import BackoffPolicy
from clockwork.errors import TooManyRequests

A = TypeVar("A")
B = TypeVar("B")


async def gather_bounded(do: Callable[[A], Awaitable[B]], items: Iterable[A], *, at_once: int) -> list[B]:
    """Calls `do` for each of `items`, at most `at_once` side by side. Returns the results in the order of `items`.

    The first failure cancels the rest and is raised as it is, not as a group: callers decide by the class of one error.
    """
    each = list(items)
    if not each:
        return []  # most passes have no hold and no retry mark: a task group for nothing is two dozen calls
    if len(each) == 1:
        return [await do(each[0])]
    results: dict[int, B] = {}
    waiting = iter(enumerate(each))
    tasks: list[asyncio.Task[None]] = []
    failures: list[Exception] = []

    async def one_after_another() -> None:
        try:
            for number, item in waiting:
                results[number] = await do(item)
        except Exception as error:
            # Not raised into the group: before Python 3.13 a group that ends with an error swallows a cancellation of
            # its caller. The caller would handle the error and never learn that it was cancelled.
            failures.append(error)
            for task in tasks:
                task.cancel()

    # As many tasks as run at once, not one for each item: to start a task costs as much as a small item's work.
    name = f"gather-{getattr(do, '__name__', 'call')}"
    async with asyncio.TaskGroup() as group:
        tasks += [group.create_task(one_after_another(), name=name) for _ in range(min(at_once, len(each)))]
    if failures:
        raise failures[0]
    return [results[number] for number in range(len(each))]


class Turns:
    """Turns of work that takes long and that any caller may ask for: some at once, some wait, the others are refused.

    Without the last, a thousand requests of one caller keep those of all others waiting for as long as they take.
    """

    def __init__(self, what: str, *, at_once: int, waiting_max: int, retry_after_s: int) -> None:
        """`what`: for the refusal, such as "previews". `retry_after_s`: about the time of one turn."""
        self._what = what
        self._places = at_once + waiting_max
        self._taken = 0
        self._turns = asyncio.Semaphore(at_once)
        self._retry_after_s = retry_after_s

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Waits for a turn, which ends with the block. Raises: TooManyRequests (as many wait as may)."""
        if self._taken >= self._places:
            raise TooManyRequests(
                f"Too many {self._what} are asked for at this moment.", retry_after_s=self._retry_after_s
            )
        self._taken += 1
        try:
            async with self._turns:
                yield
        finally:
            self._taken -= 1


class Backoff:
    """Counts failures in a row; gives the wait after the latest, with jitter."""

    def __init__(self, rng: random.Random, backoff: BackoffPolicy) -> None:
        self._rng = rng
        self._backoff = backoff
        self.failures_in_row = 0

    def reset(self) -> None:
        self.failures_in_row = 0

    def next_wait_s(self) -> float:
        self.failures_in_row += 1
        return self._backoff.wait_ms(self.failures_in_row, scale=self._rng.uniform(0.5, 1.0)) / 1_000

    async def wait(self) -> None:
        """Counts one more failure and sleeps for its wait."""
        await asyncio.sleep(self.next_wait_s())
