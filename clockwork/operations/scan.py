"""All pending schedules of a cluster, page by page: shard after shard, in the order of their positions.

Each schedule is read at its own moment; the whole is no snapshot. A schedule that does not change meanwhile is listed
once. One that is created, moved, cancelled or delivered meanwhile may be listed or not, a moved one twice or not at
all. A due row may be delivered and not yet deleted, so its outcome is read; between the commit and the outcome it is
still listed as pending, as every read of it would show it.

With each schedule comes its pointer, which has the digest of the create: an import elsewhere (`requests.imports`) gives both
to another store.
"""

import random
from dataclasses import dataclass
from typing import Final

from clockwork.clock import Clock
from clockwork.domain.position import Position, due_ms_of, first_at
from clockwork.domain.schedule import BrokenRow, ClientId, Pointer, Row
from clockwork.domain.sharding import ShardId
from clockwork.ports.store import KeyName, OutcomeKey, ScheduleSearch, ScheduleStore
from clockwork.requests import state
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.results import ScheduleView
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
class ScanFilter:
    """The schedules that a scan is about: by default all."""

    client_id: ClientId | None = None
    due_from_ms: int | None = None
    """Due at or after this, in epoch milliseconds."""
    due_to_ms: int | None = None
    """Due before this."""

    def is_about(self, row: Row | BrokenRow) -> bool:
        """True if the row is this client's, or may be: its client cannot be read."""
        client_id = row.schedule.client_id if isinstance(row, Row) else row.client_id
        return self.client_id is None or client_id in (None, self.client_id)

    def is_behind(self, position: Position) -> bool:
        """True if this position and all above are out of the filter."""
        return self.due_to_ms is not None and due_ms_of(position) >= self.due_to_ms


EVERYTHING: Final = ScanFilter()


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingSchedule:
    """A pending schedule, as its row shows it."""

    view: ScheduleView
    row: Row
    pointer: Pointer | None
    """Its key's pointer. None: it is lost, or points elsewhere, and the row is still there, and fires."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanPage:
    """Some pending schedules."""

    found: tuple[PendingSchedule, ...]
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

    @property
    def shards(self) -> int:
        """Number of shards of the cluster."""
        return self._settings.shards

    async def page(self, start: ScanCursor, *, limit: int, only: ScanFilter = EVERYTHING) -> ScanPage:
        """Raises: Unavailable."""
        patience = RequestDeadline(self._settings.request_timeout_ms, self._rng)
        async with patience.enforced():
            found: list[PendingSchedule] = []
            unreadable = size_bytes = 0
            cursor: ScanCursor | None = start
            for _ in range(PAGES_MAX):
                if cursor is None or len(found) >= limit or size_bytes > PAGE_BYTES_MAX:
                    break
                after = _later(cursor.after, only.due_from_ms)
                page = await self._store.read_page(cursor.shard, after=after, rows_max=limit - len(found))
                inside = [each for each in page.rows if not only.is_behind(each.position)]
                mine = [each for each in inside if only.is_about(each) and not each.of_job]
                rows = [row for row in mine if isinstance(row, Row)]
                unreadable += len(mine) - len(rows)
                size_bytes += sum(row.schedule.size_bytes for row in rows)
                found += await self._pending(rows)
                ends_here = len(inside) < len(page.rows)
                cursor = self._next_cursor(cursor, None if ends_here else page.next_after)
            return ScanPage(found=tuple(found), unreadable=unreadable, next_from=cursor)

    async def _pending(self, rows: list[Row]) -> list[PendingSchedule]:
        """The rows that have not ended, each with its pointer."""
        due = [_outcome_key(row) for row in rows if row.due_ms <= self._clock.now_ms()]
        ended = await self._search.read_outcomes(due) if due else {}
        rows = [row for row in rows if _outcome_key(row) not in ended]
        pointers = await self._search.read_pointers([_key_of(row) for row in rows]) if rows else {}
        pointed = {row.position for row in rows if (p := pointers.get(_key_of(row))) and p.position == row.position}
        # A row that has moved or ended since the page was read is left out; a row whose pointer is lost is kept.
        doubted = [(row.shard, row.position) for row in rows if row.position not in pointed]
        still_there = await self._search.read_rows_at(doubted) if doubted else {}
        return [
            PendingSchedule(
                view=state.row_view(row), row=row, pointer=pointers[_key_of(row)] if row.position in pointed else None
            )
            for row in rows
            if row.position in pointed or (row.shard, row.position) in still_there
        ]

    def _next_cursor(self, cursor: ScanCursor, next_after: Position | None) -> ScanCursor | None:
        if next_after is not None:
            return ScanCursor(shard=cursor.shard, after=next_after)
        last = cursor.shard + 1 >= self._settings.shards
        return None if last else ScanCursor(shard=ShardId(cursor.shard + 1), after=None)


def _later(after: Position | None, due_from_ms: int | None) -> Position | None:
    """The later of two positions to begin behind. No schedule has the position `first_at` itself, since acceptance is
    never at 0 µs."""
    if due_from_ms is None:
        return after
    return max(first_at(due_from_ms), after or Position(0))


def _key_of(row: Row) -> KeyName:
    return (row.schedule.client_id, row.schedule.schedule_key)


def _outcome_key(row: Row) -> OutcomeKey:
    return (*_key_of(row), row.position)
