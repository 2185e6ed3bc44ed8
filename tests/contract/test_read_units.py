"""The cost of reads, as each store states it, and the reads that may lag for half of it."""

import asyncio

import pytest

from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.domain.sharding import ShardId
from clockwork.ports.read_units import metered
from clockwork.ports.store import Stores
from tests.support.builders import pointer, row, schedule
from tests.support.waiting import until

ROWS = 10
SHARD = ShardId(1)


@pytest.fixture
async def filled(stores: Stores) -> Stores:
    """Ten small rows of one shard."""
    rows = [row(schedule(), shard=SHARD) for _ in range(ROWS)]
    for each in rows:
        await stores.schedules.create(each, pointer(each), replaces=None)
    return stores


def kind(stores: Stores) -> str:
    return type(stores.schedules).__module__.split(".")[2]


def expected(stores: Stores, *, dynamo: float, rows: int) -> float:
    return {"memory": 0.0, "dynamodb": dynamo, "postgres": rows / 4}[kind(stores)]


async def test_a_peek_shows_what_the_owner_reads_for_half_of_its_cost(filled: Stores) -> None:
    async def look() -> bool:  # a peek may lag
        return len((await filled.search.peek_rows(SHARD, after=None, rows_max=100)).rows) == ROWS

    await until(look, "the rows are shown")
    with metered() as peeked:
        page = await filled.search.peek_rows(SHARD, after=None, rows_max=4)
    with metered() as strongly:
        same = await filled.schedules.read_page(SHARD, after=None, rows_max=4)

    assert page == same
    assert page.next_after is not None
    behind = await filled.search.peek_rows(SHARD, after=page.next_after, rows_max=100)
    assert (len(page.rows), len(behind.rows), behind.next_after) == (4, ROWS - 4, None)
    assert peeked.units == expected(filled, dynamo=0.5, rows=4)
    assert strongly.units == expected(filled, dynamo=1.0, rows=4)


async def test_keys_may_be_looked_for_at_half_a_unit_each(filled: Stores) -> None:
    page = await filled.schedules.read_page(SHARD, after=None, rows_max=3)
    names = [(each.schedule.client_id, each.schedule.schedule_key) for each in page.rows]  # type: ignore[union-attr]
    absent = (ClientId("nobody"), ScheduleKey("x"))  # costs nothing at DynamoDB Local, half a unit at DynamoDB

    with metered() as meter:
        found = await filled.search.peek_pointers([*names, absent, names[0]])

    assert found == await filled.search.read_pointers(names)
    assert meter.units == expected(filled, dynamo=1.5, rows=3)


async def test_a_meter_is_charged_for_its_own_reads_alone(filled: Stores) -> None:
    # Reads of one moment share a call to the store; one that counts its cost must not pay for the others.
    page = await filled.schedules.read_page(SHARD, after=None, rows_max=ROWS)
    rows = page.rows

    async def read(number: int) -> float:
        with metered() as meter:
            assert await filled.schedules.read_row(rows[number].name) == rows[number]
        return meter.units

    async def read_unmetered(number: int) -> None:
        assert await filled.schedules.read_row(rows[number].name) == rows[number]

    async with asyncio.TaskGroup() as group:
        others = [group.create_task(read_unmetered(number)) for number in range(2, ROWS)]
        mine = [group.create_task(read(number)) for number in (0, 1)]

    assert len(others) == ROWS - 2
    assert [task.result() for task in mine] == [expected(filled, dynamo=1.0, rows=1)] * 2


async def test_a_meter_counts_what_is_read_in_tasks_of_its_block(filled: Stores) -> None:
    with metered() as meter:
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(filled.search.peek_rows(SHARD, after=None, rows_max=2))
    with metered() as later:
        pass

    assert meter.units == expected(filled, dynamo=1.5, rows=6)
    assert later.units == 0
