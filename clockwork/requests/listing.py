"""The schedules of a client, page by page.

The index says which keys there are, in the order of due times, and may lag; the schedule of each key is read strongly
consistent, as a read of that key alone would show it. A page ends at its limit, and also when enough was read for one
request: a filter that leaves most schedules out then gives short pages, even empty ones, and a cursor to go on with.

Every schedule that does not change meanwhile is shown once: it has one position, the pages are consecutive ranges of
positions, and the cursor is the last position that was read. One that is moved meanwhile may be shown twice, or not at all,
as in any list of moving things; within a page it is shown once.

The reads of a key, in the order that makes the answer true (requests/state):

    due already      outcome, then row: it may end between the two, and then neither is there: read again, alone
    not yet due      row, then outcome: mostly the row is there, and a row that is not due can only have ended by a cancel
                     or a move that is being applied at this moment
    ended            the pointer as well: an index that lags may still show the key's schedule before this one
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from clockwork.clock import Clock
from clockwork.concurrency import gather_bounded
from clockwork.domain.destination import Topic
from clockwork.domain.position import LAST, Position, due_ms_of, first_at
from clockwork.domain.schedule import BrokenRow, ClientId, EndState, OrderingKey, Outcome, Pointer, Row
from clockwork.domain.sharding import shard_of
from clockwork.errors import Unreadable
from clockwork.ports.store import KeyName, OutcomeKey, ScheduleSearch
from clockwork.requests import state
from clockwork.requests.context import RequestContext
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.results import ScheduleView, Status

POINTERS_PER_QUERY: Final = 1_000
LOOKED_AT_MAX: Final = 5_000
"""Schedules read for one page: one that a filter leaves out costs as much as one that is shown."""
QUERIES_MAX: Final = 20
"""Queries of the index for one page."""
PAGE_BYTES_MAX: Final = 8 * 1024 * 1024
"""Content of one page. A thousand schedules of 256 KiB would be a quarter of a gigabyte."""
CHUNK_KEYS: Final = 100
"""Keys of one batch read, as long as their size is unknown; DynamoDB's limit for a batch."""
CHUNK_KEYS_MAX: Final = 500
ALONE_AT_ONCE: Final = 8
"""Keys that are read alone at the same time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListQuery:
    """The wanted schedules; None: any."""

    client_id: ClientId
    status: Status | None = None
    topic: Topic | None = None
    ordering_key: OrderingKey | None = None
    due_from_ms: int | None = None
    """Inclusive."""
    due_to_ms: int | None = None
    """Exclusive."""
    descending: bool = False
    """The latest due time first."""

    @property
    def first(self) -> Position:
        return first_at(self.due_from_ms or 0)

    @property
    def last(self) -> Position:
        return LAST if self.due_to_ms is None else Position(first_at(self.due_to_ms) - 1)

    @property
    def filters(self) -> bool:
        """True if a schedule must be read to know whether it is wanted."""
        return (self.status, self.topic, self.ordering_key) != (None, None, None)

    def wants(self, view: ScheduleView) -> bool:
        """True if a schedule, as it was read, is one of the wanted."""
        if self.status is not None and view.status is not self.status:
            return False
        if not self.first <= view.position <= self.last:
            return False
        schedule = view.schedule
        if self.topic is not None and (schedule is None or schedule.topic != self.topic):
            return False
        return self.ordering_key is None or (schedule is not None and schedule.ordering_key == self.ordering_key)


@dataclass(frozen=True, kw_only=True, slots=True)
class ListPage:
    """Some schedules, in the order of their due times, or in the reverse order."""

    views: tuple[ScheduleView, ...]
    next_after: Position | None
    """Go on after this position; None: there are no more."""
    looked_at: int = 0
    """Schedules that were read for it."""


async def count_ahead(search: ScheduleSearch, clock: Clock, client_id: ClientId, *, at_most: int) -> int:
    """Counts the schedules of a client whose time is ahead, cancelled ones included: their end does not touch the index.
    Counts no further than `at_most`. Raises: Unavailable."""
    return await search.count_pointers(client_id, first=first_at(clock.now_ms()), at_most=at_most)


async def list_page(
    context: RequestContext, query: ListQuery, deadline: RequestDeadline, *, after: Position | None, limit: int
) -> ListPage:
    """The schedules after `after`, at most `limit`; fewer, even none, does not mean that there are no more.

    Raises: Unavailable.
    """
    found = _Found(query, limit)
    first, last = query.first, query.last
    if after is not None:
        first, last = (
            (first, min(last, Position(after - 1))) if query.descending else (max(first, Position(after + 1)), last)
        )
    for _ in range(QUERIES_MAX):
        if first > last:
            return found.page(None)
        page = await context.search.list_pointers(
            query.client_id,
            first=first,
            last=last,
            pointers_max=found.pointers_wanted,
            descending=query.descending,
        )
        pointers = [pointer for pointer in page.pointers if _may_be(context, query, pointer)]
        while pointers:
            chunk, pointers = pointers[: found.chunk_keys], pointers[found.chunk_keys :]
            full_at = found.add(chunk, await present_views(context, chunk, query.status, deadline))
            if full_at is not None:
                nothing_behind = not pointers and full_at == chunk[-1].position and page.next_from is None
                return found.page(None if nothing_behind else full_at)
            if found.looked_at >= LOOKED_AT_MAX or deadline.spent_s > context.settings.request_timeout_ms / 2_000:
                return found.page(chunk[-1].position)
        if page.next_from is None:
            return found.page(None)
        first, last = (first, page.next_from) if query.descending else (page.next_from, last)
    return found.page(Position(last + 1 if query.descending else first - 1))


def _may_be(context: RequestContext, query: ListQuery, pointer: Pointer) -> bool:
    """An ordering key has one shard, so most of the others need not be read."""
    return query.ordering_key is None or pointer.shard == shard_of(query.ordering_key, context.settings.shards)


async def present_views(
    context: RequestContext, listed: Sequence[Pointer], status: Status | None, deadline: RequestDeadline
) -> list[ScheduleView | None]:
    """The present state of each; None: it is not there any more, cannot be read, or is certainly not in this state."""
    now_ms = context.clock.now_ms()
    due = {pointer for pointer in listed if due_ms_of(pointer.position) <= now_ms}
    rows: dict[Pointer, Row | BrokenRow] = {}
    match status:
        case None:
            rows = await _rows(context, [p for p in listed if p not in due])
            outcomes = await _outcomes(context, [p for p in listed if p not in rows], now_ms)
            rows |= await _rows(context, [p for p in listed if p in due and p not in outcomes])
        case Status.PENDING:
            rows = await _rows(context, listed)
            outcomes = await _outcomes(context, [p for p in listed if p in rows and p in due], now_ms)
        case _:
            outcomes = await _outcomes(context, listed, now_ms)
    moved = {p for p in listed if status is Status.PENDING and p not in rows and p not in due}
    present = await context.search.read_pointers([_name(p) for p in listed if p in outcomes or p in moved])
    views: dict[Pointer, ScheduleView] = {}
    alone: list[Pointer] = []
    for pointer in listed:
        now, outcome = present.get(_name(pointer)), outcomes.get(pointer)
        if (now is not None and now.position != pointer.position) or _superseded(outcome):
            alone.append(pointer)
        elif outcome is not None and now is not None:
            views[pointer] = state.ended_view(pointer, outcome)
        elif outcome is None and pointer in rows:
            views[pointer] = state.pending_view(pointer, rows[pointer])
        elif outcome is None and status is None and not state.retention_over(context, pointer):
            alone.append(pointer)

    async def read_alone(pointer: Pointer) -> ScheduleView | None:
        try:
            return await state.read_state(context, pointer.client_id, pointer.schedule_key, deadline)
        except Unreadable:
            # A read of this key alone would be answered with the error; in a list it would hide all other schedules.
            return None

    read = await gather_bounded(read_alone, alone, at_once=ALONE_AT_ONCE)
    again = dict(zip(alone, read, strict=True))
    return [views.get(pointer) or again.get(pointer) for pointer in listed]


async def _rows(context: RequestContext, pointers: Sequence[Pointer]) -> dict[Pointer, Row | BrokenRow]:
    found = await context.search.read_rows_at([(p.shard, p.position) for p in pointers])
    return {p: row for p in pointers if (row := found.get((p.shard, p.position))) is not None}


async def _outcomes(context: RequestContext, pointers: Sequence[Pointer], now_ms: int) -> dict[Pointer, Outcome]:
    """The outcomes that are not expired: TTL deletes late."""
    found = await context.search.read_outcomes([_outcome_key(p) for p in pointers])
    outcomes = ((p, found.get(_outcome_key(p))) for p in pointers)
    return {p: o for p, o in outcomes if o is not None and o.expires_at_s * 1_000 > now_ms}


class _Found:
    """A page while it is being filled."""

    def __init__(self, query: ListQuery, limit: int) -> None:
        self._query = query
        self._limit = limit
        self._views: dict[KeyName, ScheduleView] = {}
        """By key, so each is shown once: an index that lags may show it where it was and where it is."""
        self._shown_bytes = 0
        self._read_bytes = 0
        self.looked_at = 0

    @property
    def pointers_wanted(self) -> int:
        return POINTERS_PER_QUERY if self._query.filters else max(self._limit - len(self._views), CHUNK_KEYS)

    @property
    def chunk_keys(self) -> int:
        """Keys of the next batch read: the missing ones if all of them are shown, more if many are left out, and not more
        than a few megabytes."""
        if self.looked_at == 0:
            return CHUNK_KEYS if self._query.filters else min(CHUNK_KEYS, self._limit)
        each_bytes = self._read_bytes // self.looked_at + 1
        missing = max(self._limit - len(self._views), self.looked_at)
        return min(CHUNK_KEYS_MAX, missing, max(PAGE_BYTES_MAX // 2 // each_bytes, 1))

    def add(self, chunk: Sequence[Pointer], views: Sequence[ScheduleView | None]) -> Position | None:
        """Returns the last position of the page if it is full now."""
        for pointer, view in zip(chunk, views, strict=True):
            self.looked_at += 1
            size_bytes = view.schedule.size_bytes if view is not None and view.schedule is not None else 0
            self._read_bytes += size_bytes
            if view is None or not self._query.wants(view):
                continue
            self._views[_name(pointer)] = view
            self._shown_bytes += size_bytes
            if len(self._views) == self._limit or self._shown_bytes >= PAGE_BYTES_MAX:
                return pointer.position
        return None

    def page(self, next_after: Position | None) -> ListPage:
        return ListPage(views=tuple(self._views.values()), next_after=next_after, looked_at=self.looked_at)


def _name(pointer: Pointer) -> KeyName:
    return (pointer.client_id, pointer.schedule_key)


def _outcome_key(pointer: Pointer) -> OutcomeKey:
    return (pointer.client_id, pointer.schedule_key, pointer.position)


def _superseded(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.state is EndState.SUPERSEDED
