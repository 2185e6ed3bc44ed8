"""All pending schedules of a cluster, page by page: shard after shard, in the order of their positions.

Each schedule is read at its own moment; the whole is no snapshot. A schedule that does not change meanwhile is listed
once. One that is created, moved, cancelled or delivered meanwhile may be listed or not, a moved one twice or not at
all. A due row may be delivered and not yet deleted, so its outcome is read; between the commit and the outcome it is
still listed as pending, as every read of it would show it.
"""

import random
from dataclasses import dataclass
from typing import Final

from clockwork.clock import Clock
from clockwork.domain.position import Position
from clockwork.domain.schedule import Row
from clockwork.domain.sharding import ShardId
from clockwork.ports.store import OutcomePlace, Page, ScheduleSearch, ScheduleStore
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.results import ScheduleView, Status
from clockwork.settings.model import IntakeSettings

PAGE_BYTES_MAX: Final = 8 * 1024 * 1024
"""Content of one page; the page ends with the read that passes this."""
PAGES_MAX: Final = 32
"""Reads of one request; after these the page is short, with a cursor to go on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanCursor:
    """The beginning of a page: behind this position of this shard; None: at its first row."""

    shard: ShardId
    after: Position | None


SCAN_START: Final = ScanCursor(shard=ShardId(0), after=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanPage:
    """Some pending schedules."""

    views: tuple[ScheduleView, ...]
    unreadable: int
    """Number of rows that this version cannot read; they are in no page."""
    next_from: ScanCursor | None


class PendingScan:
    """Reads the pending schedules of all shards."""

    def __init__(
        self,
        store: ScheduleStore,
        search: ScheduleSearch,
        clock: Clock,
        rng: random.Random,
        settings: IntakeSettings,
    ) -> None:
        self._store = store
        self._search = search
        self._clock = clock
        self._rng = rng
        self._settings = settings

    async def page(self, start: ScanCursor, *, limit: int) -> ScanPage:
        """Raises: Unavailable."""
        patience = RequestDeadline(self._settings.request_timeout_ms, self._rng)
        async with patience.enforced():
            views: list[ScheduleView] = []
            unreadable = size_bytes = 0
            place: ScanCursor | None = start
            for _ in range(PAGES_MAX):
                if place is None or len(views) >= limit or size_bytes > PAGE_BYTES_MAX:
                    break
                page = await self._store.read_page(place.shard, after=place.after, rows_max=limit - len(views))
                rows = [row for row in page.rows if isinstance(row, Row)]
                unreadable += len(page.rows) - len(rows)
                size_bytes += sum(row.schedule.size_bytes for row in rows)
                views += await self._pending(rows)
                place = self._behind(place, page)
            return ScanPage(views=tuple(views), unreadable=unreadable, next_from=place)

    async def _pending(self, rows: list[Row]) -> list[ScheduleView]:
        due = [_place_of(row) for row in rows if row.due_ms <= self._clock.now_ms()]
        ended = await self._search.read_outcomes(due) if due else {}
        return [_view(row) for row in rows if _place_of(row) not in ended]

    def _behind(self, place: ScanCursor, page: Page) -> ScanCursor | None:
        if page.next_after is not None:
            return ScanCursor(shard=place.shard, after=page.next_after)
        last = place.shard + 1 >= self._settings.shards
        return None if last else ScanCursor(shard=ShardId(place.shard + 1), after=None)


def _place_of(row: Row) -> OutcomePlace:
    return (row.schedule.client_id, row.schedule.schedule_key, row.position)


def _view(row: Row) -> ScheduleView:
    return ScheduleView(
        client_id=row.schedule.client_id,
        schedule_key=row.schedule.schedule_key,
        position=row.position,
        shard=row.shard,
        schedule=row.schedule,
        status=Status.PENDING,
        version=row.schedule.version,
        outcome=None,
    )
