"""The pause watch: one node's knowledge of the pauses, read from the store again and again.

A node that delivers reads the pauses at its start, before it fires a row, and then every `POLL_S`. While they cannot
be read the node keeps to what it knows: a pause must neither end nor begin because the store is away for a moment.

A pause is therefore in force within some seconds, including a pass that is under way. It is no fence: a node whose
requests to the store hang may go on with what it knew. No other rule depends on it: a row that fires although its
topic has just been paused is delivered like any other, once and in order.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from clockwork.domain.pauses import NOTHING_PAUSED, Pauses
from clockwork.errors import Unavailable, Unreadable
from clockwork.ports.operations import PauseStore
from clockwork.ports.telemetry import Telemetry

log = logging.getLogger(__name__)

POLL_S: Final = 2.0
"""Interval of reads: a pause is in force within seconds, and the reads cost half a read unit a second on DynamoDB."""


class PauseWatch:
    """Polls the pauses for one node."""

    def __init__(
        self, store: PauseStore, telemetry: Telemetry, on_change: Callable[[], None], *, poll_s: float = POLL_S
    ) -> None:
        """`on_change` is called after each change, so that paused rows are planned again now."""
        self._store = store
        self._telemetry = telemetry
        self._on_change = on_change
        self._poll_s = poll_s
        self._known: Pauses | None = None

    def current(self) -> Pauses:
        """The pauses as last read."""
        return NOTHING_PAUSED if self._known is None else self._known

    async def begin(self) -> None:
        """Reads the pauses for the first time; before that no row may fire. Raises: Unavailable."""
        try:
            self._take(await self._store.read_pauses())
        except Unreadable as error:
            raise Unavailable(f"the pauses cannot be read: {error}") from error

    async def run(self) -> None:
        """Polls until cancelled. Only after `begin`."""
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                pauses = await self._store.read_pauses()
            except (Unavailable, Unreadable) as error:
                extra = {"event": "pauses.unknown", "error": str(error), "once_per": "pauses"}
                log.warning("Pauses cannot be read; the last known ones stay", extra=extra)
            else:
                self._take(pauses)

    def _take(self, pauses: Pauses) -> None:
        before, self._known = self._known, pauses
        self._telemetry.paused(clients=len(pauses.clients), topics=len(pauses.topics))
        if before == pauses or (before is None and not len(pauses)):
            return
        extra = {"event": "pauses.changed", "clients": sorted(pauses.clients), "topics": sorted(pauses.topics)}
        log.info("Pauses changed", extra=extra)
        self._on_change()
