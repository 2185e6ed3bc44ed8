"""The next rows, over all shards: once each, in order, at a known cost."""

from dataclasses import replace
from typing import Any

import pytest

from clockwork.domain.position import Position
from clockwork.domain.run import Chain, RunKind, RunOfRow, scheduled_run
from clockwork.domain.schedule import ClientId, Row, ScheduleKey
from clockwork.domain.sharding import ShardId
from clockwork.ports.read_units import current_meter, metered
from clockwork.ports.store import Page
from clockwork.requests import upcoming
from clockwork.requests.upcoming import UpcomingItem, UpcomingQuery, UpcomingReader
from tests.support.builders import CLIENT, DUE_MS, broken_row, row, schedule
from tests.support.engine import SHARDS, Engine

ALL = UpcomingQuery()


class Rows(Engine):
    """An engine whose shards the test fills."""

    def __init__(self, *, lists: bool = True) -> None:
        super().__init__()
        self.upcoming = UpcomingReader(context=replace(self.context, lists=lists))

    async def fill(self, count: int, *, of: int = SHARDS, **fields: Any) -> list[Row]:
        """Rows of `of` shards in turn, each a second after the one before."""
        rows = [row(schedule(due_ms=DUE_MS + 1_000 * n, **fields), shard=n % of) for n in range(count)]
        await self.put(*rows)
        return rows

    async def page(
        self, query: UpcomingQuery = ALL, *, after: Position | None = None, limit: int = 100, only: str | None = None
    ) -> upcoming.UpcomingPage:
        def covers(client_id: ClientId) -> bool:
            return only in (None, client_id)

        async with self.context.deadline() as deadline:
            return await self.upcoming.page(query, covers, deadline, after=after, limit=limit)

    async def all(self, query: UpcomingQuery = ALL, **more: Any) -> list[Position]:
        """The positions of all pages."""
        found: list[Position] = []
        after: Position | None = None
        while True:
            page = await self.page(query, after=after, **more)
            found += [item.view.position for item in page.items]
            if page.next_after is None:
                return found
            assert after is None or page.next_after > after
            after = page.next_after


@pytest.mark.parametrize("limit", [1, 3, 17, 200])
@pytest.mark.parametrize("shards", [1, 3, SHARDS])
async def test_every_row_is_shown_once_in_the_order_of_due_times(limit: int, shards: int) -> None:
    engine = Rows()
    rows = await engine.fill(60, of=shards)

    assert await engine.all(limit=limit) == [each.position for each in rows]


@pytest.mark.parametrize("limit", [1, 7, 100])
async def test_a_shard_that_is_denser_than_the_others_hides_none_of_its_rows(limit: int) -> None:
    engine = Rows()
    dense = [row(schedule(due_ms=DUE_MS + n), shard=0) for n in range(60)]
    sparse = [row(schedule(due_ms=DUE_MS + n * 7_000 + 1), shard=1 + n % (SHARDS - 1)) for n in range(60)]
    await engine.put(*dense, *sparse)

    assert await engine.all(limit=limit) == sorted(each.position for each in (*dense, *sparse))


async def test_what_is_overdue_comes_first() -> None:
    engine = Rows()
    rows = await engine.fill(5)
    engine.clock.set_ms(DUE_MS + 2_500)

    page = await engine.page(limit=4)

    assert [item.view.position for item in page.items] == [each.position for each in rows[:4]]


async def test_filters_and_rights_leave_rows_out_and_the_cursor_goes_on() -> None:
    engine = Rows(lists=False)
    mine = await engine.fill(40)
    await engine.fill(40, client_id="client-2")
    mails = await engine.fill(40, topic="mails")
    positions = sorted(each.position for each in (*mine, *mails))

    assert await engine.all(UpcomingQuery(client_id=CLIENT), limit=7) == positions
    assert await engine.all(only=CLIENT, limit=7) == positions
    assert await engine.all(UpcomingQuery(topic=mails[0].schedule.topic), limit=7) == [r.position for r in mails]
    bounds = UpcomingQuery(client_id=CLIENT, due_from_ms=DUE_MS + 3_000, due_to_ms=DUE_MS + 5_000)
    assert await engine.all(bounds, limit=7) == positions[6:10]
    assert await engine.all(only="nobody") == []


async def test_with_a_client_the_index_is_read_from_now_on_in_place_of_the_shards() -> None:
    engine = Rows()
    rows = await engine.fill(6)
    await engine.fill(6, client_id="client-2")
    engine.clock.set_ms(DUE_MS + 2_500)
    engine.store.calls.clear()

    assert await engine.all(UpcomingQuery(client_id=CLIENT), limit=2) == [each.position for each in rows[3:]]
    assert not engine.store.calls["read_page"]
    overdue = UpcomingQuery(client_id=CLIENT, due_from_ms=DUE_MS)
    assert await engine.all(overdue) == [each.position for each in rows]


async def test_the_next_run_of_a_job_is_shown_and_a_watchdog_and_what_cannot_be_read_are_not() -> None:
    engine = Rows()
    of = RunOfRow(
        rev=1,
        version=1,
        kind=RunKind.SCHEDULED,
        chain=Chain.MAIN,
        scheduled_at_ms=DUE_MS,
        cursor_ms=DUE_MS,
        run_id=scheduled_run(DUE_MS),
    )
    run = replace(row(schedule(schedule_key="report")), run=of)
    watchdog = replace(row(schedule(schedule_key="report")), run=replace(of, kind=RunKind.WATCHDOG))
    for each in (run, watchdog, broken_row()):
        engine.store.put_by_hand(each)

    (item,) = (await engine.page()).items

    assert isinstance(item, UpcomingItem)
    assert (item.job, item.view.schedule_key) == (of, ScheduleKey("report"))


class Priced(Rows):
    """The rows of each shard have a price."""

    def __init__(self, units: dict[int, float]) -> None:
        super().__init__()
        self.asked: list[tuple[int, int]] = []
        search = self.context.search
        found = search.peek_rows

        async def peek_rows(shard: ShardId, *, after: Position | None, rows_max: int) -> Page:
            self.asked.append((shard, rows_max))
            page = await found(shard, after=after, rows_max=rows_max)
            meter = current_meter()
            assert meter is not None
            meter.charge(max(0.5, units.get(shard, 0.125) * len(page.rows)))
            return page

        search.peek_rows = peek_rows  # type: ignore[method-assign]


async def test_a_page_of_small_rows_costs_half_a_unit_a_shard() -> None:
    engine = Priced({})
    await engine.fill(400)

    with metered() as meter:
        page = await engine.page(limit=10)

    assert (len(page.items), meter.units) == (10, 0.5 * SHARDS)
    assert set(engine.asked) == {(shard, upcoming.ROWS_MIN) for shard in range(SHARDS)}


async def test_fewer_rows_are_asked_of_a_shard_whose_rows_are_large() -> None:
    engine = Priced({3: 12.5, 5: 1.0})
    rows = await engine.fill(80)
    await engine.page(limit=8)
    engine.asked.clear()

    page = await engine.page(limit=8)

    asked = dict(engine.asked)
    assert (asked[3], asked[5], asked[0]) == (1, 2, upcoming.ROWS_MIN)
    assert [item.view.position for item in page.items] == [each.position for each in rows[: len(page.items)]]


async def test_a_look_that_finds_nothing_ends_at_its_bound_with_a_cursor() -> None:
    engine = Priced(dict.fromkeys(range(SHARDS), 5.0))
    await engine.fill(800)

    with metered() as meter:
        page = await engine.page(only="nobody")

    assert page.items == ()
    assert page.next_after is not None
    assert page.looked_at > 0
    first_look = 25 * 5.0  # one shard, as long as no price is known
    assert meter.units == first_look + (SHARDS - 1) * 5.0
