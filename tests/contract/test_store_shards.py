"""`ScheduleStore`: epochs, frontiers and pages."""

import asyncio
import random
from typing import Final

import pytest

from clockwork.domain.ownership import ShardState
from clockwork.domain.position import Position, position_of
from clockwork.domain.schedule import BrokenRow, Row
from clockwork.domain.sharding import ShardId
from clockwork.errors import ConditionFailed, Fenced, Unreadable
from clockwork.ports.store import ScheduleStore
from tests.contract.store_fixtures import SHARDS
from tests.support.builders import DUE_MS, end, pointer, row, schedule

SHARD: Final = ShardId(1)
OWNERS: Final = 50
"""Take-overs of one shard at the same moment."""


async def test_a_new_shard_was_never_owned(store: ScheduleStore) -> None:
    for number in range(SHARDS):
        assert await store.read_shard(ShardId(number)) == ShardState(epoch=0, owner="", frontier_ms=0)


async def test_a_shard_without_item_is_an_error_and_is_never_made(store: ScheduleStore) -> None:
    lost = ShardId(SHARDS)

    for _ in range(2):
        with pytest.raises(Unreadable):
            await store.read_shard(lost)
        with pytest.raises(Unreadable):
            await store.raise_epoch(lost, expected=0, owner="a")
        with pytest.raises(Unreadable):
            await store.raise_frontier(lost, epoch=0, frontier_ms=1)


async def test_an_owner_raises_the_epoch_that_it_read(store: ScheduleStore) -> None:
    assert await store.raise_epoch(SHARD, expected=0, owner="a") == ShardState(epoch=1, owner="a", frontier_ms=0)
    await store.raise_frontier(SHARD, epoch=1, frontier_ms=500)

    taken = await store.raise_epoch(SHARD, expected=1, owner="b")

    assert taken == ShardState(epoch=2, owner="b", frontier_ms=500)
    assert await store.read_shard(SHARD) == taken


async def test_an_epoch_that_was_raised_meanwhile_is_not_raised(store: ScheduleStore) -> None:
    await store.raise_epoch(SHARD, expected=0, owner="a")

    with pytest.raises(ConditionFailed):
        await store.raise_epoch(SHARD, expected=0, owner="b")

    assert (await store.read_shard(SHARD)).owner == "a"


async def test_the_same_take_over_again_is_the_same_take_over(store: ScheduleStore) -> None:
    first = await store.raise_epoch(SHARD, expected=0, owner="a")

    assert await store.raise_epoch(SHARD, expected=0, owner="a") == first


async def test_of_many_take_overs_at_once_one_wins(store: ScheduleStore) -> None:
    async def takeover(owner: str) -> str | None:
        try:
            return (await store.raise_epoch(SHARD, expected=0, owner=owner)).owner
        except ConditionFailed:
            return None

    results = await asyncio.gather(*(takeover(f"owner-{n}") for n in range(OWNERS)))

    assert [r for r in results if r is not None] == [(await store.read_shard(SHARD)).owner]


async def test_a_frontier_rises_and_never_falls(store: ScheduleStore) -> None:
    await store.raise_epoch(SHARD, expected=0, owner="a")

    assert await store.raise_frontier(SHARD, epoch=1, frontier_ms=1_000) == 1_000
    assert await store.raise_frontier(SHARD, epoch=1, frontier_ms=900) == 1_000
    assert await store.raise_frontier(SHARD, epoch=1, frontier_ms=1_000) == 1_000
    # Nor for a new owner whose clock is behind.
    await store.raise_epoch(SHARD, expected=1, owner="b")
    assert await store.raise_frontier(SHARD, epoch=2, frontier_ms=800) == 1_000

    assert (await store.read_shard(SHARD)).frontier_ms == 1_000


async def test_an_owner_of_another_epoch_is_fenced(store: ScheduleStore) -> None:
    await store.raise_epoch(SHARD, expected=0, owner="zombie")
    await store.raise_epoch(SHARD, expected=1, owner="owner")

    for frontier_ms in (0, 1_000):
        with pytest.raises(Fenced):
            await store.raise_frontier(SHARD, epoch=1, frontier_ms=frontier_ms)

    assert (await store.read_shard(SHARD)).frontier_ms == 0


async def _read_all(store: ScheduleStore, shard: ShardId, *, rows_max: int) -> list[Row | BrokenRow]:
    rows: list[Row | BrokenRow] = []
    after: Position | None = None
    for _ in range(10_000):
        page = await store.read_page(shard, after=after, rows_max=rows_max)
        assert len(page.rows) <= rows_max
        rows += page.rows
        after = page.next_after
        if after is None:
            return rows
    raise AssertionError("the shard has no end")


async def test_pages_come_in_position_order_and_miss_nothing(store: ScheduleStore) -> None:
    rng = random.Random(7)
    rows = [row(schedule(due_ms=DUE_MS + rng.choice((0, 1, 10, 1_000))), shard=SHARD) for _ in range(40)]
    elsewhere = row(shard=SHARD + 1)
    for created in (*rng.sample(rows, len(rows)), elsewhere):
        await store.create(created, pointer(created), replaces_version=None)
    in_order = sorted(rows, key=lambda r: r.position)

    for rows_max in (1, 7, 40, 1_000):
        assert await _read_all(store, SHARD, rows_max=rows_max) == in_order


async def test_a_shard_larger_than_a_page_is_read_to_its_end(store: ScheduleStore) -> None:
    rows = [row(schedule(task_data=bytes(150 * 1024), due_ms=DUE_MS + n), shard=SHARD) for n in range(24)]
    for created in rows:
        await store.create(created, pointer(created), replaces_version=None)

    first = await store.read_page(SHARD, after=None, rows_max=1_000)

    assert 5 <= len(first.rows) <= 8, "about 1 MB"
    assert await _read_all(store, SHARD, rows_max=1_000) == rows


async def test_a_page_begins_behind_the_position_given(store: ScheduleStore) -> None:
    # Positions whose last digits DynamoDB gives back without their zeros, or that differ in the 37th digit only.
    texts = [
        "1700000000000.169999999999999900000000",
        "1700000000000.169999999999999900000001",
        "1700000000000.169999999999999900000010",
        "1700000000000.170000000000000000000000",
        "1700000000001.169999999999999900000000",
    ]
    rows = [row(schedule(due_ms=int(text[:13])), at=position_of(text), shard=SHARD) for text in texts]
    for created in reversed(rows):
        await store.create(created, pointer(created), replaces_version=None)

    for index, created in enumerate(rows):
        page = await store.read_page(SHARD, after=created.position, rows_max=10)
        assert list(page.rows) == rows[index + 1 :]


async def test_a_page_sees_every_write_that_was_answered_before(store: ScheduleStore) -> None:
    for _ in range(30):
        created = row(shard=SHARD)
        await store.create(created, pointer(created), replaces_version=None)
        assert (await store.read_page(SHARD, after=None, rows_max=5)).rows == (created,)
        await store.finish(SHARD, [end(created)])
        assert (await store.read_page(SHARD, after=None, rows_max=5)).rows == ()


async def test_an_empty_shard_has_one_empty_page(store: ScheduleStore) -> None:
    page = await store.read_page(SHARD, after=None, rows_max=1)

    assert page.rows == ()
    assert page.next_after is None


async def test_a_ping_raises_nothing_where_the_store_answers(store: ScheduleStore) -> None:
    await store.ping()
