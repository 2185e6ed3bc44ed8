"""Pending rows of all clients in the order of their due times, page by page: what is due next.

A position is unique in the cluster, so one cursor serves all shards. Each shard is asked for a few rows behind it; the
answers are merged, and cut at the lowest of their ends: up to there every shard is known.

The rows are read eventually consistently, and their outcomes are not asked for: a row of a moment ago may be missing, and
one that was just delivered, cancelled or moved may be shown. A page of 64 shards costs 32 read units for rows of 1 KB. Where
the rows of a shard are large, fewer are asked for: their price is remembered from the last answer, and that of
a shard that was not asked yet is taken to be the others'.

Rows that the reader's rights or filters leave out cost as much as those that are shown, so a page may be short, even empty,
with a cursor to go on. With a filter by client the index is read in place of the shards, from now on: it knows schedules,
and no runs of jobs.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from clockwork.concurrency import gather_bounded
from clockwork.domain.destination import Topic
from clockwork.domain.position import LAST, Position, first_at
from clockwork.domain.run import RunOfRow
from clockwork.domain.schedule import ClientId, Row
from clockwork.domain.sharding import ShardId
from clockwork.ports.read_units import current_meter, metered
from clockwork.ports.store import Page
from clockwork.requests import state
from clockwork.requests.context import RequestContext
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.listing import ListQuery, list_page
from clockwork.requests.results import ScheduleView, Status

ROWS_MIN: Final = 4
"""Rows asked of a shard at least: they cost no more than one, if they are small."""
SHARD_UNITS_MAX: Final = 2.0
"""Read units that the answer of one shard is to cost, as far as the price of its rows is known."""
PAGE_UNITS_MAX: Final = 100.0
"""Read units after which no further round is made."""
ROUNDS_MAX: Final = 10
"""Rounds over all shards for one page."""
SHARDS_AT_ONCE: Final = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class UpcomingQuery:
    """The wanted rows; None: any."""

    client_id: ClientId | None = None
    topic: Topic | None = None
    due_from_ms: int | None = None
    """Inclusive."""
    due_to_ms: int | None = None
    """Exclusive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UpcomingItem:
    """A pending schedule, or the next run of a job."""

    view: ScheduleView
    job: RunOfRow | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class UpcomingPage:
    """Some pending rows, in the order of their due times."""

    items: tuple[UpcomingItem, ...]
    next_after: Position | None
    """Go on after this position; None: there are no more."""
    looked_at: int
    """Rows that were read for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UpcomingReader:
    """Reads the next rows of all shards."""

    context: RequestContext
    _units_of_row: dict[ShardId, float] = field(default_factory=dict)
    """Read units of a row of each shard, by its last answer."""

    async def page(
        self,
        query: UpcomingQuery,
        covers: Callable[[ClientId], bool],
        deadline: RequestDeadline,
        *,
        after: Position | None,
        limit: int,
    ) -> UpcomingPage:
        """Rows after `after`, of clients that `covers` is true for, at most `limit`. Raises: Unavailable."""
        if query.client_id is not None and self.context.lists:
            return await self._of_client(query, query.client_id, deadline, after=after, limit=limit)
        found: list[Row] = []
        looked_at = 0
        start = max(after or Position(0), first_at(query.due_from_ms or 0))
        end = LAST if query.due_to_ms is None else first_at(query.due_to_ms)
        meter = current_meter()
        units = meter.units if meter is not None else 0.0
        for _ in range(ROUNDS_MAX):
            pages = await self._round(start, limit)
            horizon = min((page.next_after for page in pages if page.next_after is not None), default=end)
            rows = sorted((row for page in pages for row in page.rows), key=lambda row: row.position)
            looked_at += len(rows)
            found += [
                row
                for row in rows
                if isinstance(row, Row)
                and row.position <= horizon
                and row.position < end
                and _is_wanted(row, query)
                and covers(row.schedule.client_id)
            ]
            if len(found) > limit or (len(found) == limit and horizon < end):
                found = found[:limit]
                return _page(found, found[-1].position, looked_at)
            if horizon >= end:
                return _page(found, None, looked_at)
            start = horizon
            if meter is not None and meter.units - units >= PAGE_UNITS_MAX:
                break
        return _page(found, start, looked_at)

    async def _round(self, after: Position, limit: int) -> list[Page]:
        """A page of each shard."""
        shards = self.context.settings.shards
        wanted = max(ROWS_MIN, -(-2 * limit // shards))

        async def peek(number: int) -> Page:
            shard = ShardId(number)
            price = self._units_of_row.get(shard, self._usual_price())
            rows_max = max(1, min(wanted, int(SHARD_UNITS_MAX / price))) if price else wanted
            outer = current_meter()
            with metered() as meter:
                page = await self.context.search.peek_rows(shard, after=after, rows_max=rows_max)
            if outer is not None:
                outer.charge(meter.units)
            if page.rows:
                self._units_of_row[shard] = meter.units / len(page.rows)
            return page

        # As long as no price is known, one shard is asked before the others.
        first = [] if self._units_of_row else [await peek(0)]
        return first + await gather_bounded(peek, range(shards)[len(first) :], at_once=SHARDS_AT_ONCE)

    def _usual_price(self) -> float:
        """The price of a row of a shard that was not asked yet; 0: not known."""
        known = self._units_of_row.values()
        return sum(known) / len(known) if known else 0.0

    async def _of_client(
        self,
        query: UpcomingQuery,
        client_id: ClientId,
        deadline: RequestDeadline,
        *,
        after: Position | None,
        limit: int,
    ) -> UpcomingPage:
        from_ms = self.context.clock.now_ms() if query.due_from_ms is None else query.due_from_ms
        wanted = ListQuery(
            client_id=client_id,
            status=Status.PENDING,
            topic=query.topic,
            due_from_ms=from_ms,
            due_to_ms=query.due_to_ms,
        )
        page = await list_page(self.context, wanted, deadline, after=after, limit=limit)
        items = tuple(UpcomingItem(view=view) for view in page.views)
        return UpcomingPage(items=items, next_after=page.next_after, looked_at=page.looked_at)


def _is_wanted(row: Row, query: UpcomingQuery) -> bool:
    if row.is_watchdog:
        return False
    if query.client_id is not None and row.schedule.client_id != query.client_id:
        return False
    return query.topic is None or row.schedule.topic == query.topic


def _page(rows: list[Row], next_after: Position | None, looked_at: int) -> UpcomingPage:
    items = tuple(UpcomingItem(view=state.row_view(row), job=row.run) for row in rows)
    return UpcomingPage(items=items, next_after=next_after, looked_at=looked_at)
