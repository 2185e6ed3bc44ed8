"""The cost of the calls that the dashboard's pages make, in the read units that each store states: below a table."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import pytest

from clockwork.clock import SystemClock
from clockwork.domain.ownership import ProcessId, ShardClaim
from clockwork.domain.registry import DAY_MS, ProcessReport
from clockwork.domain.rights import names_of
from clockwork.domain.schedule import ClientId, Row, ScheduleKey
from clockwork.domain.sharding import ShardId, shard_of
from clockwork.kafka.memory.wakeups import DirectWaker
from clockwork.operations.forecast import Forecaster, ForecastQuery
from clockwork.operations.shards import ShardAdmin
from clockwork.ports.read_units import metered
from clockwork.ports.store import Stores
from clockwork.ports.telemetry import NoTelemetry
from clockwork.requests.context import RequestContext
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.find_many import find_many
from clockwork.requests.listing import ListQuery, list_page
from clockwork.requests.search import KeySearch
from clockwork.requests.upcoming import UpcomingQuery, UpcomingReader
from clockwork.requests.why import WhyReader
from clockwork.settings.model import IntakeSettings
from tests.contract.page_costs import COSTS
from tests.contract.store_fixtures import SHARDS, new_incarnation
from tests.support.builders import CLIENT, pointer, row, schedule
from tests.support.clocks import TrustedClock
from tests.support.waiting import until

ROWS: Final = 240


@dataclass
class World:
    context: RequestContext
    stores: Stores
    rows: list[Row]

    async def cost(self, read: Callable[[RequestDeadline], Awaitable[object]]) -> float:
        async with self.context.deadline() as deadline:
            with metered() as meter:
                await read(deadline)
        return meter.units


async def _topic_exists(_: str) -> bool:
    return True


@pytest.fixture
async def world(stores: Stores) -> World:
    """Due and coming rows of 1 KB, of twenty clients."""
    clock = SystemClock()
    context = RequestContext(
        store=stores.schedules,
        search=stores.search,
        jobs=stores.jobs,
        clock=clock,
        trust=TrustedClock(),
        rng=random.Random(1),
        settings=IntakeSettings(shards=SHARDS, request_timeout_ms=60_000),
        waker=DirectWaker(lambda *_: None),
        topic_exists=_topic_exists,
        telemetry=NoTelemetry(),
    )
    now_ms = clock.now_ms()
    rows = []
    for number in range(ROWS):
        key = f"k-{number}"
        wanted = schedule(
            client_id=f"client-{number % 20}" if number % 2 else CLIENT,
            schedule_key=key,
            ordering_key=key,
            due_ms=now_ms - 100_000 + number * 1_000,
            task_data=b'"' + b"x" * 700 + b'"',
        )
        rows.append(row(wanted, shard=shard_of(key, SHARDS)))
    for each in rows:
        await stores.schedules.create(each, pointer(each), replaces=None)

    async def all_are_shown() -> bool:
        pages = [
            await stores.search.peek_rows(shard, after=None, rows_max=1_000) for shard in {row.shard for row in rows}
        ]
        return sum(len(page.rows) for page in pages) == ROWS

    await until(all_are_shown, "the rows are shown")
    return World(context, stores, rows)


async def test_no_page_costs_more_than_the_table_says(world: World) -> None:
    context, stores = world.context, world.stores
    now_ms = context.clock.now_ms()
    names = [(each.schedule.client_id, each.schedule.schedule_key) for each in world.rows[:100]]
    due = [each for each in world.rows if each.due_ms < now_ms]
    own = new_incarnation()
    await stores.schedules.start_incarnation(own, node="host:1")
    claims = [ShardClaim(shard=ShardId(number), epoch=0, floor_ms=0) for number in range(SHARDS)]
    await stores.schedules.take_shards(claims, taker=own)
    await stores.schedules.raise_frontier(own, frontier_ms=now_ms, hints={})
    clients = names_of([f"client-{number}" for number in range(20)])
    why = WhyReader(context=context, pauses=stores.pauses, waits=lambda _: {}, refusing_topics=lambda _: {})
    shards = ShardAdmin(
        stores.schedules, stores.search, stores.pauses, context.waker, context.clock, context.rng, context.settings
    )
    await stores.registry.put_report(
        ProcessReport(
            process=ProcessId("0123456789abcdef"),
            seen_at_ms=now_ms,
            node="host:1",
            role="all",
            version="1.0.0",
            since_ms=now_ms,
        )
    )
    for number in range(20):
        await stores.registry.put_client(ClientId(f"client-{number}"), day=now_ms // DAY_MS)
    window = ForecastQuery(from_ms=now_ms, to_ms=now_ms + 7 * 86_400_000, bucket_ms=3_600_000)

    costs = {
        "list": await world.cost(
            lambda deadline: list_page(context, ListQuery(client_id=CLIENT), deadline, after=None, limit=100)
        ),
        "get": await world.cost(lambda deadline: find_many(context, names, deadline)),
        "why": await world.cost(
            lambda deadline: why.explain(due[-1].schedule.client_id, due[-1].schedule.schedule_key, deadline)
        ),
        "upcoming": await world.cost(
            lambda deadline: UpcomingReader(context=context).page(
                UpcomingQuery(), lambda _: True, deadline, after=None, limit=100
            )
        ),
        "forecast": await world.cost(lambda _: Forecaster(context=context).forecast(window, lambda _: True)),
        "search": await world.cost(
            lambda deadline: KeySearch(context=context).search(
                f"{ClientId('client-7')}/{ScheduleKey('k-7')}", clients, deadline
            )
        ),
        "shards": await world.cost(lambda _: shards.shards()),
        "nodes": await world.cost(lambda _: stores.registry.list_reports()),
        "clients": await world.cost(lambda _: stores.registry.list_clients(clients_max=1_000)),
    }

    assert costs.keys() == COSTS.keys()
    assert {call: units for call, units in costs.items() if units > COSTS[call].units_max} == {}
    in_memory = type(stores.schedules).__module__.startswith("clockwork.stores.memory")
    assert all(units == 0 for units in costs.values()) if in_memory else all(units > 0 for units in costs.values())
