"""What became of every schedule that stood under a key, until retention ends.

Outcomes are sorted by position in the store, that is by due time, which says nothing about what came after what: a
schedule for next year may have been cancelled before one for tomorrow was accepted. So all their positions are read
(one Query, of small answers), put into the order of acceptance, and only then is a page of them read.
"""

import random
from dataclasses import dataclass
from typing import Final, Protocol

from clockwork.clock import Clock
from clockwork.domain.position import Position, acceptance_of
from clockwork.domain.schedule import ClientId, Outcome, ScheduleKey
from clockwork.ports.store import ScheduleSearch, ScheduleStore
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.state import Reading
from clockwork.settings.model import IntakeSettings

CHUNK_OUTCOMES: Final = 50
"""Read together: at most 13 MB."""
PAGE_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of content."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryPage:
    """Some outcomes under a key, the schedule accepted last first."""

    outcomes: tuple[Outcome, ...]
    next_after: Position | None
    """Go on behind this position; None: there are no more."""


class Remembers(Protocol):
    """Tells what became of schedules."""

    async def page(
        self, client_id: ClientId, schedule_key: ScheduleKey, *, after: Position | None, limit: int
    ) -> HistoryPage | None:
        """Those behind `after`, at most `limit`. None: nothing was ever accepted under the key, or it is forgotten.

        Raises: Unavailable, Unreadable.
        """
        ...


class History:
    """Implements `Remembers`."""

    def __init__(
        self, search: ScheduleSearch, store: ScheduleStore, clock: Clock, rng: random.Random, settings: IntakeSettings
    ) -> None:
        self._search = search
        self._store = store
        self._clock = clock
        self._rng = rng
        self._settings = settings
        self._reading = Reading(store, clock, retention_ms=settings.retention_ms)

    async def page(
        self, client_id: ClientId, schedule_key: ScheduleKey, *, after: Position | None, limit: int
    ) -> HistoryPage | None:
        """See `Remembers`."""
        patience = RequestDeadline(self._settings.request_timeout_ms, self._rng)
        async with patience.kept():
            newest_first = sorted(
                await self._search.read_ended(client_id, schedule_key), key=acceptance_of, reverse=True
            )
            behind = [p for p in newest_first if after is None or acceptance_of(p) < acceptance_of(after)]
            page = await self._page(client_id, schedule_key, behind, limit)
            if not page.outcomes and after is None and await self._unheard_of(client_id, schedule_key):
                return None
            return page

    async def _page(
        self, client_id: ClientId, schedule_key: ScheduleKey, positions: list[Position], limit: int
    ) -> HistoryPage:
        found: list[Outcome] = []
        found_bytes = 0
        for start in range(0, len(positions), CHUNK_OUTCOMES):
            places = [(client_id, schedule_key, p) for p in positions[start : start + CHUNK_OUTCOMES]]
            outcomes = await self._search.read_outcomes(places)
            for place in places:
                outcome = outcomes.get(place)
                if outcome is None or outcome.expires_at_s * 1_000 <= self._clock.now_ms():
                    continue
                found.append(outcome)
                found_bytes += outcome.schedule.size_bytes if outcome.schedule is not None else 0
                if len(found) == limit or found_bytes >= PAGE_BYTES_MAX:
                    last = outcome.position == positions[-1]
                    return HistoryPage(outcomes=tuple(found), next_after=None if last else outcome.position)
        return HistoryPage(outcomes=tuple(found), next_after=None)

    async def _unheard_of(self, client_id: ClientId, schedule_key: ScheduleKey) -> bool:
        pointer = await self._store.read_pointer(client_id, schedule_key)
        return pointer is None or await self._reading.forgotten(pointer)
