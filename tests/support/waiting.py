"""Waiting for a condition, with a limit: what tests do in place of naps."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

T = TypeVar("T")

WITHIN_S: Final = 60.0
"""A busy machine must not fail a test; what takes this long never comes."""
LOOK_S: Final = 0.03


async def until(look: Callable[[], Awaitable[T | None]], what: str, *, within_s: float = WITHIN_S) -> T:
    """Looks again and again until the answer is true; returns it.

    Raises: AssertionError with `what` was waited for, and the last answer.
    """
    loop = asyncio.get_running_loop()
    ends_at_s = loop.time() + within_s
    while True:
        found = await look()
        if found:
            return found
        if loop.time() >= ends_at_s:
            raise AssertionError(f"not within {within_s:.0f} s: {what} (last: {found!r})")
        await asyncio.sleep(LOOK_S)
