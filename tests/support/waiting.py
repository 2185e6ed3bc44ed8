"""Waiting for a condition, with a limit: what tests do in place of naps."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

T = TypeVar("T")

WITHIN_S: Final = 60.0
"""A busy machine must not fail a test; what takes this long never comes."""
LOOK_S: Final = 0.03
LOOK_S_MAX: Final = 0.3
LOOK_SHARE: Final = 0.1
"""Share of the time waited so far: one that looks at a node's metrics 30 times a second, while a session runs out, takes the
processor from what it waits for."""


async def until(look: Callable[[], Awaitable[T | None]], what: str, *, within_s: float = WITHIN_S) -> T:
    """Looks again and again until the answer is true; returns it.

    Raises: AssertionError with `what` was waited for, and the last answer.
    """
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    ends_at_s = began_s + within_s
    while True:
        found = await look()
        if found:
            return found
        if loop.time() >= ends_at_s:
            raise AssertionError(f"not within {within_s:.0f} s: {what} (last: {found!r})")
        await asyncio.sleep(min(LOOK_S_MAX, max(LOOK_S, LOOK_SHARE * (loop.time() - began_s))))
