"""Endings: what a test's objects leave running, to be ended after the test, whether it passed or failed."""

from collections.abc import Awaitable, Callable

ENDINGS: list[Callable[[], Awaitable[None]]] = []
"""Called by the fixture that looks for tasks which outlive their test."""


async def end_all() -> None:
    """Calls each ending once, the latest first."""
    while ENDINGS:
        await ENDINGS.pop()()
