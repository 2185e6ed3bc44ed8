"""Counts of what is pending, for the tests of its limit."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import pytest

from clockwork.domain import quota
from clockwork.domain.schedule import ClientId
from clockwork.requests import pending_quota as pending
from clockwork.requests.pending_quota import PendingLimit


@dataclass
class FakeCount:
    """Counts what the test says there is, as often as it is asked."""

    found: int = 0
    """Pending schedules of each client."""
    stored: Counter[str] = field(default_factory=Counter)
    """Those of single clients besides."""
    error: Exception | None = None
    asked: list[tuple[str, int]] = field(default_factory=list)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    began: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_end.set()

    async def __call__(self, client_id: ClientId, *, at_most: int) -> int:
        self.asked.append((client_id, at_most))
        self.began.set()
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return self.found + self.stored[client_id]


@asynccontextmanager
async def counting(limit: PendingLimit) -> AsyncIterator[PendingLimit]:
    """A limit that counts as it would in a node."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(limit.run(), name="pending-limit")
        yield limit
        task.cancel()


@contextmanager
def no_patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No request waits for a count, so that a test need not."""
    with monkeypatch.context() as patched:
        patched.setattr(pending, "WAIT_S_MAX", 0.0)
        yield


def count_again_after(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Lets a client that seems to have no room be counted again after so long."""
    monkeypatch.setattr(quota, "AGAIN_S", seconds)
