"""Records the clients that create in the registry: one write for each client, process and day, after the answers.

A lost write costs nothing: the client's next create is recorded. So a store that is away is not asked again before the next
interval, and a process that stops leaves its last ones out.
"""

import asyncio
import logging
from typing import Final

from clockwork.clock import Clock
from clockwork.concurrency import gather_bounded
from clockwork.domain.registry import DAY_MS
from clockwork.domain.schedule import ClientId
from clockwork.errors import ClockworkError
from clockwork.ports.registry import Registry

log = logging.getLogger(__name__)

INTERVAL_S: Final = 1.0
AT_ONCE: Final = 4
"""Writes side by side."""
REMEMBERED_MAX: Final = 100_000
"""Clients of a day that are remembered; more are not recorded."""


class ClientRecorder:
    """The clients that this process has seen today. `run` must be running for them to be recorded."""

    def __init__(self, store: Registry, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._today: set[ClientId] = set()
        self._day = 0
        self._to_note: list[ClientId] = []

    def created(self, client_id: ClientId) -> None:
        """Takes note of a create. On the hot path: neither waits nor looks at the time."""
        if client_id not in self._today and len(self._today) < REMEMBERED_MAX:
            self._today.add(client_id)
            self._to_note.append(client_id)

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self.write()

    async def write(self) -> None:
        """Writes what is to be recorded."""
        day = self._clock.now_ms() // DAY_MS
        if day != self._day:
            # The creates of the last second before midnight count for the day after it.
            self._day, self._today = day, set(self._to_note)
        names, self._to_note = self._to_note, []
        await gather_bounded(lambda name: self._note(name, day), names, at_once=AT_ONCE)

    async def _note(self, client_id: ClientId, day: int) -> None:
        try:
            await self._store.put_client(client_id, day=day)
        except ClockworkError as error:
            self._today.discard(client_id)
            extra = {"event": "client.not_noted", "once_per": "client", "error": str(error)}
            log.warning("A client is not noted; its next create will be", extra=extra)
