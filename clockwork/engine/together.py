"""The same thing for many, side by side, a bounded number at once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


async def together(do: Callable[[A], Awaitable[B]], what: Iterable[A], *, at_once: int) -> list[B]:
    """Results in the order of `what`. The first failure cancels the rest and is raised as it is, not as a group:
    callers decide by the class of one error."""
    gate = asyncio.Semaphore(at_once)

    async def one(item: A) -> B:
        async with gate:
            return await do(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item), name=f"together-{getattr(do, '__name__', 'call')}") for item in what]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
