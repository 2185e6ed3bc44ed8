"""Forecasts: exact where rows can be read, estimated behind that, at a bounded cost."""

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from clockwork.domain.activity import FORECAST_NAMES, ShardsForecast
from clockwork.domain.position import Position
from clockwork.domain.schedule import ClientId, Row
from clockwork.domain.sharding import ShardId
from clockwork.errors import StoreUnavailable
from clockwork.operations import forecast
from clockwork.operations.forecast import Forecast, Forecaster, ForecastQuery, ShardForecasts, put_together
from clockwork.ports.read_units import current_meter, metered
from clockwork.ports.store import Page
from clockwork.ports.telemetry import NoTelemetry
from tests.support.builders import CLIENT, DUE_MS, TOPIC, broken_row, row, schedule
from tests.support.clocks import LoopClock
from tests.support.engine import SHARDS, Engine
from tests.support.virtual_time import in_virtual_time

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
HOUR = ForecastQuery(from_ms=DUE_MS, to_ms=DUE_MS + HOUR_MS, bucket_ms=MINUTE_MS)


class Rows(Engine):
    """An engine whose shards the test fills; each row costs an eighth of a read unit, if it says so."""

    def __init__(self, *, units: float = 0.0) -> None:
        super().__init__()
        self.clock.set_ms(DUE_MS)
        search = self.context.search
        found = search.peek_rows

        async def peek_rows(shard: ShardId, *, after: Position | None, rows_max: int) -> Page:
            page = await found(shard, after=after, rows_max=rows_max)
            if units and (meter := current_meter()) is not None:
                meter.charge(max(0.5, units * len(page.rows)))
            return page

        search.peek_rows = peek_rows  # type: ignore[method-assign]

    async def fill(self, due_at: list[int], **fields: Any) -> list[Row]:
        rows = [row(schedule(due_ms=due_ms, **fields), shard=n % SHARDS) for n, due_ms in enumerate(due_at)]
        for each in rows:
            self.store.put_by_hand(each)
        return rows

    async def recorded(self, *shards: int) -> ShardsForecast:
        """The forecast of a process that owns these shards."""
        made: list[ShardsForecast] = []
        forecasts = ShardForecasts(
            forecaster=Forecaster(context=self.context),
            clock=self.clock,
            telemetry=NoTelemetry(),
            shards=lambda: frozenset(map(ShardId, shards)),
            record=made.append,
        )
        await forecasts.make()
        (found,) = made
        return found

    async def forecast(self, query: ForecastQuery = HOUR, *, only: str | None = None) -> Forecast:
        def covers(client_id: ClientId) -> bool:
            return only in (None, client_id)

        with metered() as meter:
            found = await Forecaster(context=self.context).forecast(query, covers)
        assert found.units == meter.units
        return found


def counts(found: Forecast) -> dict[int, int]:
    """By minute, those with any."""
    return {(each.at_ms - DUE_MS) // MINUTE_MS: each.count for each in found.buckets if each.count}


async def test_what_can_be_read_is_counted_exactly() -> None:
    engine = Rows()
    await engine.fill(
        [DUE_MS, DUE_MS + 59_999, DUE_MS + MINUTE_MS, DUE_MS + 30 * MINUTE_MS, DUE_MS + HOUR_MS, DUE_MS - 1]
    )
    await engine.fill([DUE_MS + 5] * 7, client_id="client-2", topic="mails")
    engine.store.put_by_hand(broken_row(due_ms=DUE_MS + 5))

    found = await engine.forecast()

    assert counts(found) == {0: 9, 1: 1, 30: 1}
    assert len(found.buckets) == 60
    assert (found.exact_to_ms, found.overdue) == (HOUR.to_ms, None)
    assert found.by_topic == {TOPIC: 4, "mails": 7}
    assert found.by_client == {CLIENT: 4, "client-2": 7}
    assert found.by_shard.total() == 11


async def test_what_is_overdue_is_counted_apart_if_it_is_asked_for() -> None:
    engine = Rows()
    await engine.fill([DUE_MS - 5_000, DUE_MS - 1, DUE_MS])

    found = await engine.forecast(
        ForecastQuery(from_ms=DUE_MS, to_ms=DUE_MS + 1, bucket_ms=1_000, overdue_before_ms=DUE_MS)
    )

    assert (found.overdue, found.buckets[0].count, found.by_client.total()) == (2, 1, 1)


@pytest.mark.parametrize(
    ("query", "only", "count"),
    [({"client_id": CLIENT}, None, 3), ({"topic": "mails"}, None, 5), ({}, "client-2", 5), ({}, "nobody", 0)],
)
async def test_filters_and_rights_leave_rows_out(query: dict[str, Any], only: str | None, count: int) -> None:
    engine = Rows()
    await engine.fill([DUE_MS] * 3)
    await engine.fill([DUE_MS] * 5, client_id="client-2", topic="mails")
    window = ForecastQuery(from_ms=DUE_MS, to_ms=DUE_MS + 1_000, bucket_ms=1_000, **query)

    assert (await engine.forecast(window, only=only)).buckets[0].count == count


async def test_what_is_due_earlier_in_the_first_bucket_is_overdue_and_not_in_it() -> None:
    engine = Rows()
    await engine.fill([DUE_MS - 1, DUE_MS + 10, DUE_MS + 30_000, DUE_MS + 59_999])

    found = await engine.forecast(
        ForecastQuery(from_ms=DUE_MS, to_ms=DUE_MS + MINUTE_MS, bucket_ms=MINUTE_MS, overdue_before_ms=DUE_MS + 30_000)
    )

    assert (found.overdue, found.buckets[0].count) == (2, 2)


async def test_an_empty_cluster_has_an_exact_forecast_of_nothing() -> None:
    found = await Rows().forecast()

    assert (counts(found), found.exact_to_ms, found.looked_at) == ({}, HOUR.to_ms, 0)


@pytest.mark.parametrize("units", [0.5, 2.0, 12.5])
async def test_behind_its_budget_a_forecast_is_an_estimate_of_the_right_size(units: float) -> None:
    # Three times as dense in the second half of the hour.
    rng = random.Random(7)
    engine = Rows(units=units)
    early = [DUE_MS + rng.randrange(HOUR_MS // 2) for _ in range(600)]
    late = [DUE_MS + HOUR_MS // 2 + rng.randrange(HOUR_MS // 2) for _ in range(1_800)]
    await engine.fill(early + late)

    found = await engine.forecast()

    assert found.units <= 1.5 * (forecast.WALK_UNITS + forecast.SAMPLE_UNITS)
    assert found.exact_to_ms < HOUR.to_ms
    assert not found.buckets[-1].exact
    total = sum(each.count for each in found.buckets)
    assert 2_400 / 4 < total < 2_400 * 4
    assert abs(found.by_topic.total() - total) <= 1


async def test_samples_of_usual_rows_are_near_the_truth() -> None:
    rng = random.Random(3)
    engine = Rows(units=0.125)
    early = [DUE_MS + rng.randrange(HOUR_MS // 2) for _ in range(1_000)]
    late = [DUE_MS + HOUR_MS // 2 + rng.randrange(HOUR_MS // 2) for _ in range(3_000)]
    await engine.fill(early + late)

    found = await engine.forecast()

    assert not found.buckets[-1].exact
    first, second = (sum(each.count for each in half) for half in (found.buckets[:30], found.buckets[30:]))
    assert 0.6 * 1_000 < first < 1.4 * 1_000
    assert 0.6 * 3_000 < second < 1.4 * 3_000


async def test_exact_buckets_of_a_forecast_are_exact() -> None:
    rng = random.Random(5)
    engine = Rows(units=0.125)
    rows = await engine.fill([DUE_MS + rng.randrange(HOUR_MS) for _ in range(2_000)])

    found = await engine.forecast()

    exact = [each for each in found.buckets if each.exact]
    assert 0 < len(exact) < 60
    for bucket in exact:
        assert bucket.count == sum(bucket.at_ms <= each.due_ms < bucket.at_ms + MINUTE_MS for each in rows)


async def test_where_reads_cost_nothing_the_number_of_rows_is_bounded() -> None:
    engine = Rows()
    await engine.fill([DUE_MS + n * 400 for n in range(forecast.WALK_ROWS_MAX + 3_000)])

    found = await engine.forecast()

    assert found.looked_at < forecast.WALK_ROWS_MAX + 1_000
    assert not found.buckets[-1].exact or found.exact_to_ms == HOUR.to_ms


# --- recorded by the processes that deliver


async def test_the_forecasts_of_all_processes_are_together_that_of_the_cluster() -> None:
    engine = Rows()
    now_ms = DUE_MS // MINUTE_MS * MINUTE_MS + 50_000
    engine.clock.set_ms(now_ms)
    rng = random.Random(3)
    await engine.fill([now_ms - 1_000 + rng.randrange(HOUR_MS) for _ in range(300)])
    await engine.fill([now_ms + 1_000] * 5, client_id="client-2", topic="mails")
    parts = [await engine.recorded(0, 3, 5), await engine.recorded(1, 2, 4, 6, 7)]
    from_ms = now_ms // MINUTE_MS * MINUTE_MS
    query = ForecastQuery(from_ms=from_ms, to_ms=from_ms + HOUR_MS, bucket_ms=MINUTE_MS, overdue_before_ms=now_ms)

    together = put_together(parts, from_ms=from_ms)

    read = await engine.forecast(query)
    assert together is not None
    assert (together.buckets, together.overdue) == (read.buckets, read.overdue)
    assert together.exact_to_ms == query.to_ms
    assert together.by_client["client-2"] == 5
    assert set(together.by_shard) == set(range(SHARDS))
    # Two minutes later the hour is another one: its last minutes are recorded as well.
    later = put_together(parts, from_ms=from_ms + 2 * MINUTE_MS)
    assert later is not None
    assert later.buckets[:58] == read.buckets[2:]
    assert put_together(parts, from_ms=from_ms + 4 * MINUTE_MS) is None


async def test_a_process_spends_its_share_of_the_budget_and_its_estimate_is_of_the_right_size() -> None:
    rng = random.Random(7)
    engine = Rows(units=0.5)
    await engine.fill([DUE_MS + rng.randrange(HOUR_MS) for _ in range(2_400)])

    found = await engine.recorded(0, 1)

    assert found.units <= 1.5 * (forecast.WALK_UNITS + forecast.SAMPLE_UNITS) * 2 / SHARDS
    assert found.exact < 60
    assert 600 / 4 < sum(found.counts) < 600 * 4
    assert set(found.shards) == {0, 1}


async def test_a_recorded_forecast_names_the_largest_and_counts_the_rest() -> None:
    engine = Rows()
    for number in range(FORECAST_NAMES + 3):
        await engine.fill([DUE_MS + 1_000] * (20 - number), client_id=f"client-{number}", topic=f"topic-{number}")

    found = await engine.recorded(*range(SHARDS))
    together = put_together([found], from_ms=found.from_ms)

    assert (len(found.topics), len(found.clients)) == (FORECAST_NAMES + 1, FORECAST_NAMES + 1)
    assert together is not None
    assert together.by_topic.total() + together.unnamed_topics == sum(found.counts)
    assert together.unnamed_clients == 10 + 9 + 8


@in_virtual_time
async def test_one_is_made_toward_the_end_of_each_minute_and_one_that_fails_is_left_out() -> None:
    made: list[ShardsForecast] = []
    engine = Rows()
    begin_ms = DUE_MS // MINUTE_MS * MINUTE_MS
    clock = LoopClock(begin_ms)
    context = replace(engine.context, clock=clock)
    owned = iter([{0}, None, {1}])

    def shards() -> frozenset[ShardId]:
        now = next(owned)
        if now is None:
            raise StoreUnavailable("down")
        return frozenset(map(ShardId, now))

    forecasts = ShardForecasts(
        forecaster=Forecaster(context=context),
        clock=clock,
        telemetry=NoTelemetry(),
        shards=shards,
        record=made.append,
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(forecasts.run(), name="forecasts")
        await asyncio.sleep(179)
        task.cancel()

    assert [list(each.shards) for each in made] == [[0], [1]]
    assert [(each.as_of_ms - begin_ms) // 5_000 for each in made] == [10, 34]  # at 50 to 55 s of the first and third
    assert next(owned, None) is None


async def test_a_process_without_shards_records_none() -> None:
    made: list[ShardsForecast] = []
    engine = Rows()
    forecasts = ShardForecasts(
        forecaster=Forecaster(context=engine.context),
        clock=engine.clock,
        telemetry=NoTelemetry(),
        shards=frozenset,
        record=made.append,
    )
    await forecasts.make()
    assert made == []
