"""Lists on the twins: every schedule once, in its present state, whatever the index shows."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from clockwork.domain.destination import Topic
from clockwork.domain.position import Position
from clockwork.domain.rights import ANYONE
from clockwork.domain.schedule import ClientId, EndState, OrderingKey, Outcome, Pointer, Row
from clockwork.domain.sharding import shard_of
from clockwork.errors import Unavailable
from clockwork.ports.store import KeyName, PointerPage
from clockwork.requests import listing
from clockwork.requests.listing import ListPage, ListQuery, count_ahead
from clockwork.requests.results import ScheduleView, Status
from clockwork.requests.service import RequestService
from clockwork.settings.model import IntakeSettings
from clockwork.stores.memory.store import MemoryScheduleSearch
from tests.support import builders
from tests.support.builders import CLIENT, DUE_MS, outcome, pointer, schedule
from tests.support.engine import SHARDS, Engine
from tests.support.virtual_time import in_virtual_time

ALL = ListQuery(client_id=CLIENT)
RETENTION_MS = IntakeSettings().retention_ms


class LaggingSearch(MemoryScheduleSearch):
    """Shows what was there when `freeze` was called."""

    frozen: list[Pointer] | None = None

    def freeze(self) -> None:
        self.frozen = sorted(self._store.pointers.values(), key=lambda p: p.position)

    async def list_pointers(
        self, client_id: ClientId, *, first: Position, last: Position, pointers_max: int, descending: bool = False
    ) -> PointerPage:
        if self.frozen is None:
            return await super().list_pointers(
                client_id, first=first, last=last, pointers_max=pointers_max, descending=descending
            )
        inside = tuple(p for p in self.frozen if p.client_id == client_id and first <= p.position <= last)
        return PointerPage(pointers=inside, next_from=None)


class Lists:
    """The engine's lists over a store that the test fills."""

    def __init__(self, *, request_timeout_ms: int = 60_000) -> None:
        engine = Engine(request_timeout_ms=request_timeout_ms)
        self.clock, self.store = engine.clock, engine.store
        self.search = LaggingSearch(self.store)
        context = replace(engine.context, search=self.search)
        self.requests = RequestService(context=context)

    async def page(self, query: ListQuery, *, after: Position | None, limit: int) -> ListPage:
        return await self.requests.list_schedules(ANYONE, query, after=after, limit=limit)

    async def put(self, key: str, *, due_ms: int = DUE_MS, version: int = 1, **fields: object) -> Row:
        wanted = replace(schedule(schedule_key=key, due_ms=due_ms, version=version), **fields)  # type: ignore[arg-type]
        row = builders.row(wanted, shard=shard_of(wanted.ordering_key, SHARDS))
        self.store.put_by_hand(row)
        self.store.pointers[wanted.client_id, wanted.schedule_key] = pointer(row)
        return row

    def end(self, row: Row, state: EndState, *, row_stays: bool = False, expires_at_s: int = 2_000_000_000) -> Outcome:
        ended = outcome(row, state, expires_at_s=expires_at_s)
        self.store.outcomes[ended.client_id, ended.schedule_key, ended.position] = ended
        if not row_stays:
            self.store._remove(row.shard, row.position)
        return ended

    async def all(self, query: ListQuery = ALL, *, limit: int = 100) -> list[ScheduleView]:
        """All pages, one after the other."""
        views: list[ScheduleView] = []
        after: Position | None = None
        while True:
            page = await self.page(query, after=after, limit=limit)
            assert len(page.views) <= limit
            views += page.views
            if page.next_after is None:
                return views
            assert after is None or (page.next_after < after if query.descending else page.next_after > after)
            after = page.next_after

    async def states(self, query: ListQuery = ALL) -> dict[str, str]:
        views = await self.all(query)
        assert len({view.schedule_key for view in views}) == len(views)
        return {view.schedule_key: view.status.value for view in views}


@pytest.fixture
def lists() -> Lists:
    return Lists()


async def one_of_each(lists: Lists) -> None:
    await lists.put("pending")
    await lists.put("overdue", due_ms=DUE_MS - 120_000)
    for state in (EndState.DELIVERED, EndState.CANCELLED, EndState.FAILED):
        lists.end(await lists.put(state.value, due_ms=DUE_MS - 90_000), state)
    lists.end(await lists.put("tidied-up-now", due_ms=DUE_MS - 90_000), EndState.DELIVERED, row_stays=True)
    lists.end(await lists.put("cancelled-early"), EndState.CANCELLED)


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
async def test_every_schedule_is_listed_once_in_the_order_of_due_times(lists: Lists, limit: int) -> None:
    rows = [await lists.put(f"k-{n}", due_ms=DUE_MS + n * 7 % 10) for n in range(21)]
    await lists.put("another client's", client_id=ClientId("client-2"))

    views = await lists.all(limit=limit)

    assert [view.position for view in views] == sorted(row.position for row in rows)


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_a_list_may_begin_with_the_latest(lists: Lists, limit: int) -> None:
    rows = [await lists.put(f"k-{n}", due_ms=DUE_MS + n * 7 % 10) for n in range(21)]

    views = await lists.all(replace(ALL, descending=True), limit=limit)

    assert [view.position for view in views] == sorted((row.position for row in rows), reverse=True)


async def test_each_is_in_the_state_that_a_read_of_it_alone_shows(lists: Lists) -> None:
    await one_of_each(lists)

    assert await lists.states() == {
        "pending": "pending",
        "overdue": "pending",
        "delivered": "delivered",
        "cancelled": "cancelled",
        "failed": "failed",
        "tidied-up-now": "delivered",
        "cancelled-early": "cancelled",
    }


async def test_counted_is_what_is_for_a_time_ahead_and_what_was_cancelled_of_it(lists: Lists) -> None:
    await one_of_each(lists)
    assert await count_ahead(lists.search, lists.clock, CLIENT, at_most=10) == 2
    assert await count_ahead(lists.search, lists.clock, CLIENT, at_most=1) == 1
    lists.clock.set_ms(DUE_MS)
    assert await count_ahead(lists.search, lists.clock, CLIENT, at_most=10) == 2
    lists.clock.set_ms(DUE_MS + 1)
    assert await count_ahead(lists.search, lists.clock, CLIENT, at_most=10) == 0


@pytest.mark.parametrize(
    ("status", "keys"),
    [
        (Status.PENDING, {"pending", "overdue"}),
        (Status.DELIVERED, {"delivered", "tidied-up-now"}),
        (Status.CANCELLED, {"cancelled", "cancelled-early"}),
        (Status.FAILED, {"failed"}),
    ],
)
async def test_a_filter_by_status_shows_those_and_no_others(lists: Lists, status: Status, keys: set[str]) -> None:
    await one_of_each(lists)

    assert (await lists.states(replace(ALL, status=status))).keys() == keys


async def test_filters_by_topic_ordering_key_and_due_time_hold_together(lists: Lists) -> None:
    await lists.put("mine", ordering_key=OrderingKey("o"), topic=Topic("t"))
    await lists.put("other topic", ordering_key=OrderingKey("o"))
    await lists.put("other lane", topic=Topic("t"))
    await lists.put("too early", ordering_key=OrderingKey("o"), topic=Topic("t"), due_ms=DUE_MS - 1)
    await lists.put("too late", ordering_key=OrderingKey("o"), topic=Topic("t"), due_ms=DUE_MS + 1)
    query = replace(ALL, topic=Topic("t"), ordering_key=OrderingKey("o"), due_from_ms=DUE_MS, due_to_ms=DUE_MS + 1)

    assert (await lists.states(query)).keys() == {"mine"}
    assert (await lists.states(replace(query, due_to_ms=DUE_MS))).keys() == set()
    assert (await lists.states(replace(query, due_to_ms=10**17))).keys() == {"mine", "too late"}


async def test_a_key_that_is_used_again_is_listed_once_as_it_is_now(lists: Lists) -> None:
    lists.end(await lists.put("again", due_ms=DUE_MS - 90_000), EndState.DELIVERED)
    await lists.put("again", version=2)

    assert await lists.states() == {"again": "pending"}
    assert await lists.states(replace(ALL, status=Status.DELIVERED)) == {}


@pytest.mark.parametrize("status", [None, Status.PENDING])
@pytest.mark.parametrize("ended_as", [EndState.SUPERSEDED, EndState.DELIVERED])
async def test_an_index_that_lags_behind_a_move_or_a_new_use_of_the_key_shows_what_is_there_now(
    lists: Lists, status: Status | None, ended_as: EndState
) -> None:
    old = await lists.put("moved", due_ms=DUE_MS + 500)
    await lists.put("still")
    lists.search.freeze()
    lists.end(old, ended_as)
    new = await lists.put("moved", due_ms=DUE_MS + 900, version=2)

    views = {str(view.schedule_key): view for view in await lists.all(replace(ALL, status=status))}

    assert views.keys() == {"moved", "still"}
    assert views["moved"].position == new.position
    assert views["moved"].status is Status.PENDING


async def test_a_move_that_is_being_applied_is_waited_for(lists: Lists) -> None:
    # The race: the transaction is applied item by item; its outcome is there already and its pointer is not.
    old = await lists.put("moved")
    lists.end(old, EndState.SUPERSEDED)
    plain = lists.search.read_pointers

    async def then_applied(names: Sequence[KeyName]) -> Mapping[KeyName, Pointer]:
        found = await plain(names)
        await lists.put("moved", due_ms=DUE_MS + 1, version=2)
        return found

    lists.search.read_pointers = then_applied  # type: ignore[method-assign]

    (view,) = await lists.all()

    assert (view.status, view.version) == (Status.PENDING, 2)


async def test_what_was_moved_out_of_the_range_that_is_asked_for_is_not_listed(lists: Lists) -> None:
    old = await lists.put("moved")
    lists.search.freeze()
    lists.end(old, EndState.SUPERSEDED)
    await lists.put("moved", due_ms=DUE_MS + 900, version=2)

    assert await lists.states(replace(ALL, due_to_ms=DUE_MS + 900)) == {}


async def test_a_key_that_the_index_shows_twice_is_listed_once(lists: Lists) -> None:
    old = await lists.put("moved")
    lists.search.freeze()
    before = lists.search.frozen or []
    lists.end(old, EndState.SUPERSEDED)
    await lists.put("moved", due_ms=DUE_MS + 900, version=2)
    lists.search.freeze()
    lists.search.frozen = [*before, *(lists.search.frozen or [])]

    assert await lists.states() == {"moved": "pending"}


async def test_what_is_forgotten_is_not_listed_though_its_pointer_is_still_there(lists: Lists) -> None:
    lists.end(await lists.put("old"), EndState.DELIVERED, expires_at_s=DUE_MS // 1_000)
    lists.clock.set_ms(DUE_MS + RETENTION_MS + 1)

    assert await lists.states() == {}


async def test_what_waits_for_longer_than_retention_is_listed_as_pending(lists: Lists) -> None:
    await lists.put("waits")
    lists.clock.set_ms(DUE_MS + 3 * RETENTION_MS)

    assert await lists.states() == {"waits": "pending"}
    assert await lists.states(replace(ALL, status=Status.PENDING)) == {"waits": "pending"}


async def test_a_row_that_cannot_be_read_is_listed_without_its_content(lists: Lists) -> None:
    row = await lists.put("broken")
    lists.store.put_by_hand(builders.broken_row(shard=row.shard, at=row.position))

    (view,) = await lists.all()

    assert (view.schedule_key, view.status, view.schedule) == ("broken", Status.PENDING, None)


async def test_a_page_ends_when_enough_was_looked_at_and_the_next_one_goes_on(
    lists: Lists, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LOOKED_AT_MAX", 10)
    monkeypatch.setattr(listing, "CHUNK_KEYS", 5)
    monkeypatch.setattr(listing, "CHUNK_KEYS_MAX", 5)
    for n in range(34):
        await lists.put(f"k-{n}", topic=Topic("rare" if n == 33 else "t"))
    query = replace(ALL, topic=Topic("rare"))

    first = await lists.page(query, after=None, limit=100)

    assert (first.views, first.next_after is None) == ((), False)
    assert (await lists.states(query)).keys() == {"k-33"}


async def test_a_page_ends_when_it_has_many_bytes_and_the_next_one_goes_on(
    lists: Lists, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE_BYTES_MAX", 10_000)
    for n in range(12):
        await lists.put(f"k-{n}", task_data=b"x" * 4_000)

    page = await lists.page(ALL, after=None, limit=100)

    assert 1 <= len(page.views) < 12
    assert len(await lists.all()) == 12


async def test_the_last_page_says_that_it_is_the_last(lists: Lists) -> None:
    for n in range(4):
        await lists.put(f"k-{n}")

    page = await lists.page(ALL, after=None, limit=4)

    assert (len(page.views), page.next_after) == (4, None)


@in_virtual_time
async def test_a_search_that_is_silent_ends_at_the_deadline() -> None:
    lists = Lists()

    class Silent(MemoryScheduleSearch):
        async def list_pointers(self, *_: object, **__: object) -> PointerPage:
            await asyncio.Event().wait()
            raise AssertionError

    lists.requests = RequestService(context=replace(lists.requests.context, search=Silent(lists.store)))
    with pytest.raises(Unavailable):
        await lists.page(ALL, after=None, limit=1)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("status", [None, Status.PENDING])
async def test_what_nobody_touches_is_listed_once_while_all_else_changes(seed: int, status: Status | None) -> None:
    # Between any two pages: creates, cancels, moves and new uses of keys, before and behind the cursor.
    lists, chance = Lists(), random.Random(seed)
    still = {f"still-{n}": await lists.put(f"still-{n}", due_ms=DUE_MS + chance.randrange(1_000)) for n in range(60)}
    moving = [await lists.put(f"moving-{n}", due_ms=DUE_MS + chance.randrange(1_000)) for n in range(60)]
    seen: list[str] = []
    after: Position | None = None
    while True:
        page = await lists.page(replace(ALL, status=status), after=after, limit=chance.randrange(1, 15))
        seen += [view.schedule_key for view in page.views]
        after = page.next_after
        if after is None:
            break
        for _ in range(5):
            at = chance.randrange(len(moving))
            row = moving[at]
            lists.end(row, chance.choice([EndState.SUPERSEDED, EndState.CANCELLED]))
            key, due_ms = row.schedule.schedule_key, DUE_MS + chance.randrange(1_000)
            moving[at] = await lists.put(key, due_ms=due_ms, version=row.schedule.version + 1)

    assert sorted(key for key in seen if key in still) == sorted(still)
