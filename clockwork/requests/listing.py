"""The schedules of a client, page by page.

The index says which keys there are, in the order of due times, and may lag; what is shown of each is read strongly, as a
read of that key alone would show it. A page ends at its limit, and also when enough was looked at for one request: a
filter that leaves most things out then gives short pages, even empty ones, and a cursor to go on with.

Every schedule that nobody touches meanwhile is shown once: it has one position, the pages are consecutive ranges of
positions, and the cursor is the last position that was looked at. One that is moved meanwhile may be shown twice, or not
at all, as in any list of moving things; within a page it is shown once.

What is read of a key, in the order that makes it true (requests/state):

    due already      outcome, then row: it may end between the two, and then neither is there: asked again, alone
    not yet due      row, then outcome: mostly the row is there, and a row that is not due can only have ended by a cancel
                     or a move that is being applied at this moment
    ended            the pointer as well: an index that lags may still show what stood under the key before
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from clockwork.clock import Clock
from clockwork.concurrency import gather_bounded
from clockwork.domain.destination import Topic
from clockwork.domain.position import LAST, Position, due_ms_of, first_at
from clockwork.domain.schedule import BrokenRow, ClientId, EndState, OrderingKey, Outcome, Pointer, Row
from clockwork.domain.sharding import shard_of
from clockwork.errors import Unreadable
from clockwork.ports.store import KeyName, OutcomePlace, ScheduleSearch, ScheduleStore
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.results import ScheduleView, Status
from clockwork.requests.state import Reading, ended_view, pending_view
from clockwork.settings.model import IntakeSettings

POINTERS_PER_QUERY: Final = 1_000
LOOKED_AT_MAX: Final = 5_000
"""Schedules read for one page: what a filter leaves out costs as much as what it shows."""
QUERIES_MAX: Final = 20
"""Of the index, for one page."""
PAGE_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of content. A thousand schedules of 256 KiB would be a quarter of a gigabyte."""
CHUNK_KEYS: Final = 100
"""Read together before anything is known of their size; a batch read of DynamoDB."""
CHUNK_KEYS_MAX: Final = 500
ALONE_AT_ONCE: Final = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ListQuery:
    """Which schedules are wanted; None: any."""

    client_id: ClientId
    status: Status | None = None
    topic: Topic | None = None
    ordering_key: OrderingKey | None = None
    due_from_ms: int | None = None
    """Inclusive."""
    due_to_ms: int | None = None
    """Exclusive."""

    @property
    def first(self) -> Position:
        return first_at(self.due_from_ms or 0)

    @property
    def last(self) -> Position:
        return LAST if self.due_to_ms is None else Position(first_at(self.due_to_ms) - 1)

    @property
    def filters(self) -> bool:
        """Whether it leaves out what only a look at a schedule can tell."""
        return (self.status, self.topic, self.ordering_key) != (None, None, None)

    def wants(self, view: ScheduleView) -> bool:
        """Whether a schedule, as it was read, is one of them."""
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
    """Some schedules, in the order of their due times."""

    views: tuple[ScheduleView, ...]
    next_after: Position | None
    """Go on behind this position; None: there are no more."""


class Lists(Protocol):
    """Lists the schedules of a client."""

    async def page(self, query: ListQuery, *, after: Position | None, limit: int) -> ListPage:
        """Those behind `after`, at most `limit`; fewer, even none, does not mean that there are no more.

        Raises: Unavailable.
        """
        ...


async def count_ahead(search: ScheduleSearch, clock: Clock, client_id: ClientId, *, at_most: int) -> int:
    """How many schedules of a client are for a time ahead, those that were cancelled included: their end does not touch the
    index. Looks no further than `at_most`. Raises: Unavailable."""
    return await search.count_pointers(client_id, first=first_at(clock.now_ms()), at_most=at_most)


class Listing:
    """Implements `Lists`."""

    def __init__(
        self, search: ScheduleSearch, store: ScheduleStore, clock: Clock, rng: random.Random, settings: IntakeSettings
    ) -> None:
        self._search = search
        self._clock = clock
        self._rng = rng
        self._settings = settings
        self._reading = Reading(store, clock, retention_ms=settings.retention_ms)

    async def page(self, query: ListQuery, *, after: Position | None, limit: int) -> ListPage:
        """See `Lists`."""
        patience = RequestDeadline(self._settings.request_timeout_ms, self._rng)
        async with patience.kept():
            first = query.first if after is None else max(query.first, Position(after + 1))
            return await self._page(query, first, limit, patience)

    async def _page(self, query: ListQuery, first: Position, limit: int, patience: RequestDeadline) -> ListPage:
        found = _Found(query, limit)
        start: Position | None = first
        for _ in range(QUERIES_MAX):
            if start is None or start > query.last:
                return found.page(None)
            page = await self._search.list_pointers(
                query.client_id, first=start, last=query.last, pointers_max=found.pointers_wanted
            )
            pointers = [pointer for pointer in page.pointers if self._may_be(query, pointer)]
            while pointers:
                chunk, pointers = pointers[: found.chunk_keys], pointers[found.chunk_keys :]
                full_at = found.add(chunk, await self._look(chunk, query.status, patience))
                if full_at is not None:
                    nothing_behind = not pointers and full_at == chunk[-1].position and page.next_first is None
                    return found.page(None if nothing_behind else full_at)
                if found.looked_at >= LOOKED_AT_MAX or patience.spent_s > self._settings.request_timeout_ms / 2_000:
                    return found.page(chunk[-1].position)
            start = page.next_first
        return found.page(Position(start - 1) if start is not None else None)

    def _may_be(self, query: ListQuery, pointer: Pointer) -> bool:
        """An ordering key has one shard, so most of the others need not be read."""
        return query.ordering_key is None or pointer.shard == shard_of(query.ordering_key, self._settings.shards)

    async def _look(
        self, listed: Sequence[Pointer], status: Status | None, patience: RequestDeadline
    ) -> list[ScheduleView | None]:
        """The present state of each; None: it is not there any more, or certainly not in this state."""
        now_ms = self._clock.now_ms()
        due = {pointer for pointer in listed if due_ms_of(pointer.position) <= now_ms}
        rows: dict[Pointer, Row | BrokenRow] = {}
        match status:
            case None:
                rows = await self._rows([p for p in listed if p not in due])
                outcomes = await self._outcomes([p for p in listed if p not in rows], now_ms)
                rows |= await self._rows([p for p in listed if p in due and p not in outcomes])
            case Status.PENDING:
                rows = await self._rows(listed)
                outcomes = await self._outcomes([p for p in listed if p in rows and p in due], now_ms)
            case _:
                outcomes = await self._outcomes(listed, now_ms)
        moved = {p for p in listed if status is Status.PENDING and p not in rows and p not in due}
        present = await self._search.read_pointers([_name(p) for p in listed if p in outcomes or p in moved])
        views: dict[Pointer, ScheduleView] = {}
        alone: list[Pointer] = []
        for pointer in listed:
            now, outcome = present.get(_name(pointer)), outcomes.get(pointer)
            if (now is not None and now.position != pointer.position) or _superseded(outcome):
                alone.append(pointer)
            elif outcome is not None and now is not None:
                views[pointer] = ended_view(pointer, outcome)
            elif outcome is None and pointer in rows:
                views[pointer] = pending_view(pointer, rows[pointer])
            elif outcome is None and status is None and not self._reading.is_processed(pointer):
                alone.append(pointer)
        seen = await gather_bounded(lambda pointer: self._alone(pointer, patience), alone, at_once=ALONE_AT_ONCE)
        again = dict(zip(alone, seen, strict=True))
        return [views.get(pointer) or again.get(pointer) for pointer in listed]

    async def _alone(self, pointer: Pointer, patience: RequestDeadline) -> ScheduleView | None:
        """What a read of this key alone shows."""
        try:
            return await self._reading.view(pointer.client_id, pointer.schedule_key, patience)
        except Unreadable:
            # Whoever asks for it by its key is told so; here it would hide all others.
            return None

    async def _rows(self, pointers: Sequence[Pointer]) -> dict[Pointer, Row | BrokenRow]:
        found = await self._search.read_rows_at([(p.shard, p.position) for p in pointers])
        return {p: row for p in pointers if (row := found.get((p.shard, p.position))) is not None}

    async def _outcomes(self, pointers: Sequence[Pointer], now_ms: int) -> dict[Pointer, Outcome]:
        """Those that are not expired: TTL deletes late."""
        found = await self._search.read_outcomes([_place(p) for p in pointers])
        outcomes = ((p, found.get(_place(p))) for p in pointers)
        return {p: o for p, o in outcomes if o is not None and o.expires_at_s * 1_000 > now_ms}


class _Found:
    """A page while it is being filled."""

    def __init__(self, query: ListQuery, limit: int) -> None:
        self._query = query
        self._limit = limit
        self._views: dict[KeyName, ScheduleView] = {}
        """Each key once: an index that lags may show one where it was and where it is."""
        self._shown_bytes = 0
        self._read_bytes = 0
        self.looked_at = 0

    @property
    def pointers_wanted(self) -> int:
        return POINTERS_PER_QUERY if self._query.filters else max(self._limit - len(self._views), CHUNK_KEYS)

    @property
    def chunk_keys(self) -> int:
        """How many to read together: what is missing if all of them are shown, more if many are not, and not more than a
        few megabytes."""
        if self.looked_at == 0:
            return CHUNK_KEYS if self._query.filters else min(CHUNK_KEYS, self._limit)
        each_bytes = self._read_bytes // self.looked_at + 1
        missing = max(self._limit - len(self._views), self.looked_at)
        return min(CHUNK_KEYS_MAX, missing, max(PAGE_BYTES_MAX // 2 // each_bytes, 1))

    def add(self, chunk: Sequence[Pointer], views: Sequence[ScheduleView | None]) -> Position | None:
        """Returns the last position that found a place if the page is full now."""
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
        return ListPage(views=tuple(self._views.values()), next_after=next_after)


def _name(pointer: Pointer) -> KeyName:
    return (pointer.client_id, pointer.schedule_key)


def _place(pointer: Pointer) -> OutcomePlace:
    return (pointer.client_id, pointer.schedule_key, pointer.position)


def _superseded(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.state is EndState.SUPERSEDED
