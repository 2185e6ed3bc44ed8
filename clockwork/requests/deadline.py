"""The time limit of one request, and the pauses between its tries."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from clockwork.domain.retry import BackoffPolicy
from clockwork.errors import Unavailable

REQUEST_BACKOFF: Final = BackoffPolicy(initial_ms=20, max_ms=400)
"""Between the tries of one request, while its caller waits."""


class RequestDeadline:
    """One request's time limit, counted from the construction, and the jittered pauses between its tries."""

    def __init__(self, timeout_ms: int, rng: random.Random) -> None:
        self._loop = asyncio.get_running_loop()
        self._began_at_s = self._loop.time()
        self._timeout_s = timeout_ms / 1_000
        self._rng = rng
        self._tries = 0

    @property
    def spent_s(self) -> float:
        """Seconds since the request began."""
        return self._loop.time() - self._began_at_s

    @property
    def left_s(self) -> float:
        """Seconds until its time is over."""
        return self._timeout_s - self.spent_s

    @asynccontextmanager
    async def enforced(self) -> AsyncIterator[None]:
        """Ends the block at the deadline, even in the middle of a call. Otherwise a store that does not answer would be
        called again and again after the caller has given up.

        Raises: Unavailable; a write under way may have happened.
        """
        try:
            async with asyncio.timeout(self.left_s) as limit:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise Unavailable("the request could not be answered in time") from error

    async def pause(self, why: str) -> None:
        """Waits a little before the next try.

        Raises: Unavailable(`why`) if the deadline would pass meanwhile.
        """
        self._tries += 1
        wait_s = REQUEST_BACKOFF.wait_ms(self._tries, scale=self._rng.uniform(0.5, 1.0)) / 1_000
        if self.spent_s + wait_s >= self._timeout_s:
            raise Unavailable(why)
        await asyncio.sleep(wait_s)
