"""Micro-batching: concurrent requests are coalesced into one call. The first caller sends it; later callers join until it is
sent.

A call for many items costs little more than a call for one, on both sides, so this is the source of throughput; and a lone
request waits only for the callers of its own turn of the event loop. Others gather only while `at_once` calls run, and the
longer they wait, the more they are: the load sizes the batches, and no delay has to be tuned.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Generic, TypeVar

_Member = TypeVar("_Member")
_Result = TypeVar("_Result")


@dataclass(slots=True, eq=False)
class _Batch(Generic[_Member, _Result]):
    members: list[_Member] = field(default_factory=list)
    keys: set[Hashable] = field(default_factory=set)
    size: int = 0
    size_bytes: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    result: _Result | None = None


class MicroBatcher(Generic[_Member, _Result]):
    """Coalesces concurrent requests of one kind into calls."""

    def __init__(
        self,
        send: Callable[[Sequence[_Member]], Awaitable[_Result]],
        *,
        size_max: int,
        bytes_max: int | None = None,
        at_once: int | None = None,
    ) -> None:
        """`send` makes one call. A batch stays within `size_max` and `bytes_max`; a member that is larger goes alone.
        `at_once`: bound of concurrent calls; None: unbounded, so that no request waits longer than one turn."""
        self._send = send
        self._size_max = size_max
        self._bytes_max = bytes_max
        self._permits: AbstractAsyncContextManager[object] = (
            asyncio.Semaphore(at_once) if at_once is not None else nullcontext()
        )
        self._open: _Batch[_Member, _Result] | None = None

    async def submit(
        self, member: _Member, *, size: int = 1, size_bytes: int = 0, key: Hashable = None
    ) -> _Result | None:
        """Joins the open batch, or opens one and sends it. Returns the result of the call; None if its sender was
        cancelled or failed: the call was not made, or nothing is known of it. No two members with one `key` are in a
        batch.

        Raises: the errors of `send`, for the sender alone.
        """
        batch = self._open
        if batch is not None and self._fits(batch, size, size_bytes, key):
            _add(batch, member, size, size_bytes, key)
            await batch.over.wait()
            return batch.result
        batch = self._open = _Batch()
        _add(batch, member, size, size_bytes, key)
        try:
            await asyncio.sleep(0)  # the other callers of this turn join
            async with self._permits:
                self._close(batch)
                batch.result = await self._send(batch.members)
        finally:
            self._close(batch)
            batch.over.set()
        return batch.result

    def _fits(self, batch: _Batch[_Member, _Result], size: int, size_bytes: int, key: Hashable) -> bool:
        if batch.size + size > self._size_max or key in batch.keys:
            return False
        return self._bytes_max is None or batch.size_bytes + size_bytes <= self._bytes_max

    def _close(self, batch: _Batch[_Member, _Result]) -> None:
        if self._open is batch:
            self._open = None


def _add(batch: _Batch[_Member, _Result], member: _Member, size: int, size_bytes: int, key: Hashable) -> None:
    batch.members.append(member)
    batch.size += size
    batch.size_bytes += size_bytes
    if key is not None:
        batch.keys.add(key)
