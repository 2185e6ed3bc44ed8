"""Requests of one moment share a call: the first carries it, and whoever comes until it leaves goes with it.

A call for many items costs little more than a call for one, on both sides, so this is where throughput comes from; and
one request alone waits for nobody but those who are awake in its own turn of the event loop. Only when all places are
taken do the next ones gather, and the longer they wait, the more they are: the load makes its own groups, and there is
no time to tune.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Generic, Protocol, TypeVar

M_contra = TypeVar("M_contra", contravariant=True)


class Group(Protocol[M_contra]):
    """Those who go together, and what became of it."""

    over: asyncio.Event

    def takes(self, member: M_contra) -> bool:
        """Whether there is room for this one too."""
        ...

    def add(self, member: M_contra) -> None:
        """Whoever is alone is never refused."""
        ...


G = TypeVar("G", bound=Group)  # type: ignore[type-arg]  # of whatever its members are
M = TypeVar("M")


class SharedCalls(Generic[G, M]):
    """Calls of one kind."""

    def __init__(
        self, new: Callable[[], G], carry: Callable[[G], Awaitable[None]], *, at_once: int | None = None
    ) -> None:
        """`carry` makes a group's call and writes into the group what became of it. `at_once`: how many may be under way;
        None: any number, so that nobody waits longer than one turn."""
        self._new = new
        self._carry = carry
        self._places: AbstractAsyncContextManager[object] = (
            asyncio.Semaphore(at_once) if at_once is not None else nullcontext()
        )
        self._open: G | None = None

    async def go(self, member: M) -> G:
        """Goes with the group that is open, or carries a new one; returns it when it is over. Nothing is written in it if
        its carrier was cancelled. Raises: whatever `carry` raises, if this one carried."""
        group = self._open
        if group is not None and group.takes(member):
            group.add(member)
            await group.over.wait()
            return group
        group = self._open = self._new()
        group.add(member)
        try:
            await asyncio.sleep(0)  # everybody else who is awake
            async with self._places:
                self._close(group)
                await self._carry(group)
        finally:
            self._close(group)
            group.over.set()
        return group

    def _close(self, group: G) -> None:
        if self._open is group:
            self._open = None
