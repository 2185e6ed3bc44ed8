"""`ScheduleStore`: shards and their owners, and pages."""

import asyncio
import random
from typing import Final

import pytest

from clockwork.domain.ownership import IncarnationId, ShardClaim, ShardState
from clockwork.domain.position import Position, position_of
from clockwork.domain.schedule import BrokenRow, Row
from clockwork.domain.sharding import ShardId
from clockwork.errors import ConditionFailed, Fenced, ShardsContested, TransactionConflict, Unreadable
from clockwork.ports.store import CLAIMS_MAX, ScheduleStore
from tests.contract.store_fixtures import SHARDS, new_incarnation
from tests.support.builders import DUE_MS, end, pointer, row, schedule

SHARD: Final = ShardId(1)
TAKERS: Final = 30
"""Take-overs of one shard at the same moment."""
NEW: Final = ShardState(epoch=0, owner=None, floor_ms=0)


def claim(shard: int = SHARD, *, epoch: int = 0, floor_ms: int = 0) -> ShardClaim:
    return ShardClaim(shard=ShardId(shard), epoch=epoch, floor_ms=floor_ms)


async def started(store: ScheduleStore, *incarnations: IncarnationId) -> None:
    for each in incarnations:
        await store.start_incarnation(each, node="host:1")


async def test_a_new_shard_was_never_owned(store: ScheduleStore) -> None:
    everything = [ShardId(number) for number in range(SHARDS)]

    assert await store.read_shards(everything) == dict.fromkeys(everything, NEW)
    for shard in everything:
        assert await store.read_shard(shard) == NEW


async def test_a_shard_without_item_is_an_error_and_is_never_made(store: ScheduleStore, a: IncarnationId) -> None:
    lost = ShardId(SHARDS)
    await started(store, a)

    for _ in range(2):
        with pytest.raises(Unreadable):
            await store.read_shard(lost)
        with pytest.raises(Unreadable):
            await store.read_shard_and_node(lost, a)
        with pytest.raises(ShardsContested) as refused:
            await store.take_shards([claim(lost)], taker=a)
        assert refused.value.shards == {lost}
        with pytest.raises(Unreadable):
            await store.release_shard(lost, epoch=0, owner=a, floor_ms=1)
        assert await store.read_shards([SHARD, lost]) == {SHARD: NEW}


async def test_a_taker_gets_the_epochs_that_it_read_and_sets_the_floors(
    store: ScheduleStore, a: IncarnationId, b: IncarnationId
) -> None:
    await started(store, a, b)
    await store.take_shards([claim(0, floor_ms=5), claim(1, floor_ms=7)], taker=a)
    assert await store.read_shards([ShardId(0), ShardId(1)]) == {
        0: ShardState(epoch=1, owner=a, floor_ms=5),
        1: ShardState(epoch=1, owner=a, floor_ms=7),
    }

    await store.take_shards([claim(1, epoch=1, floor_ms=500)], taker=b)

    assert await store.read_shard(ShardId(1)) == ShardState(epoch=2, owner=b, floor_ms=500)
    assert await store.read_shard(ShardId(0)) == ShardState(epoch=1, owner=a, floor_ms=5)


async def test_as_many_shards_as_one_transaction_holds_are_taken_at_once(
    store: ScheduleStore, a: IncarnationId
) -> None:
    await started(store, a)

    # The claims of shards that are not there are refused one by one; the transaction itself is not too large.
    with pytest.raises(ShardsContested) as refused:
        await store.take_shards([claim(number) for number in range(CLAIMS_MAX)], taker=a)
    assert refused.value.shards == set(range(SHARDS, CLAIMS_MAX))
    for claims in ([], [claim(number) for number in range(CLAIMS_MAX + 1)]):
        with pytest.raises(ValueError, match="claims"):
            await store.take_shards(claims, taker=a)


async def test_contested_shards_are_named_and_nothing_is_written(
    store: ScheduleStore, a: IncarnationId, b: IncarnationId
) -> None:
    await started(store, a, b)
    await store.take_shards([claim(1), claim(3)], taker=a)

    with pytest.raises(ShardsContested) as refused:
        await store.take_shards([claim(n, floor_ms=9) for n in range(SHARDS)], taker=b)

    assert refused.value.shards == {1, 3}
    assert await store.read_shards([ShardId(0), ShardId(1), ShardId(2)]) == {
        0: NEW,
        1: ShardState(epoch=1, owner=a, floor_ms=0),
        2: NEW,
    }


async def test_the_same_take_over_again_is_the_same_take_over(
    store: ScheduleStore, a: IncarnationId, b: IncarnationId
) -> None:
    await started(store, a, b)
    claims = [claim(0, floor_ms=4), claim(1)]
    await store.take_shards(claims, taker=a)
    taken = await store.read_shards([ShardId(0), ShardId(1)])

    await store.take_shards(claims, taker=a)
    assert await store.read_shards([ShardId(0), ShardId(1)]) == taken

    # Another taker that had read the same is not taken for it, nor is a take-over of more than that.
    with pytest.raises(ShardsContested):
        await store.take_shards(claims, taker=b)
    with pytest.raises(ShardsContested) as refused:
        await store.take_shards([*claims, claim(2)], taker=a)
    assert refused.value.shards == {0, 1}
    assert await store.read_shard(ShardId(2)) == NEW


async def test_of_many_take_overs_at_once_one_wins(store: ScheduleStore) -> None:
    takers = [new_incarnation() for _ in range(TAKERS)]
    await started(store, *takers)

    async def take(taker: IncarnationId) -> IncarnationId | None:
        try:
            await take_until_decided(store, [claim(0), claim(1)], taker)
        except ShardsContested:
            return None
        return taker

    results = await asyncio.gather(*map(take, takers))

    winner = ShardState(epoch=1, owner=next(r for r in results if r is not None), floor_ms=0)
    assert [r for r in results if r is not None] == [winner.owner]
    assert await store.read_shards([ShardId(0), ShardId(1)]) == {0: winner, 1: winner}


async def take_until_decided(store: ScheduleStore, claims: list[ShardClaim], taker: IncarnationId) -> None:
    """Takes the shards, however often a transaction of another taker is in the way."""
    while True:
        try:
            return await store.take_shards(claims, taker=taker)
        except TransactionConflict:
            await asyncio.sleep(0)


async def test_a_taker_that_is_fenced_or_was_never_there_takes_nothing(
    store: ScheduleStore, a: IncarnationId, b: IncarnationId
) -> None:
    await started(store, a)
    await store.fence(a, at_ms=1)

    for taker in (a, b):
        with pytest.raises(Fenced):
            await store.take_shards([claim()], taker=taker)
    # It is over for the taker, whatever the shards are.
    with pytest.raises(Fenced):
        await store.take_shards([claim(), claim(0, epoch=7)], taker=a)

    assert await store.read_shards([SHARD, ShardId(0)]) == {SHARD: NEW, 0: NEW}


async def test_a_take_over_that_was_done_before_its_taker_was_fenced_is_known_as_done(
    store: ScheduleStore, a: IncarnationId
) -> None:
    await started(store, a)
    await store.take_shards([claim()], taker=a)
    await store.fence(a, at_ms=1)

    await store.take_shards([claim()], taker=a)

    assert await store.read_shard(SHARD) == ShardState(epoch=1, owner=a, floor_ms=0)


async def test_a_taker_that_is_fenced_between_its_own_fence_and_its_take_over_takes_nothing(
    store: ScheduleStore, a: IncarnationId, b: IncarnationId
) -> None:
    c = new_incarnation()
    await started(store, a, b, c)
    await store.take_shards([claim(), claim(2)], taker=a)
    await store.raise_frontier(a, frontier_ms=70, hints={})

    fenced = await store.fence(a, at_ms=1)
    await store.fence(b, at_ms=2)
    with pytest.raises(Fenced):
        await store.take_shards([claim(epoch=1, floor_ms=fenced.frontier_ms)], taker=b)

    # The next taker begins anew, with the same frontier, and takes it all.
    floor_ms = (await store.fence(a, at_ms=3)).frontier_ms
    await store.take_shards([claim(n, epoch=1, floor_ms=floor_ms) for n in (1, 2)], taker=c)
    assert await store.read_shard(SHARD) == ShardState(epoch=2, owner=c, floor_ms=70)


async def test_a_take_over_and_the_fence_of_its_taker_at_one_moment_agree(store: ScheduleStore) -> None:
    for epoch in range(10):
        taker = new_incarnation()
        await started(store, taker)

        async def take(taker: IncarnationId = taker, epoch: int = epoch) -> bool:
            try:
                await take_until_decided(store, [claim(epoch=epoch), claim(2, epoch=epoch)], taker)
            except Fenced:
                return False
            return True

        taken, fenced = await asyncio.gather(take(), store.fence(taker, at_ms=1))

        assert fenced.fenced_at_ms == 1
        states = await store.read_shards([SHARD, ShardId(2)])
        assert [state.owner == taker for state in states.values()] == [taken, taken]
        if not taken:
            other = new_incarnation()
            await started(store, other)
            await take_until_decided(store, [claim(epoch=epoch), claim(2, epoch=epoch)], other)


async def test_an_incarnation_takes_shards_and_goes_on_raising_its_frontier(
    store: ScheduleStore, a: IncarnationId
) -> None:
    # Both touch its item: a take-over only checks it, and must not make the frontier fail.
    await started(store, a)

    async def take() -> None:
        for epoch in range(10):
            await take_until_decided(store, [claim(epoch=epoch), claim(2, epoch=epoch)], a)

    async def raise_on() -> None:
        for frontier_ms in range(1, 50):
            assert await store.raise_frontier(a, frontier_ms=frontier_ms, hints={}) == frontier_ms

    await asyncio.gather(take(), raise_on())

    assert (await store.read_shard(SHARD)).epoch == 10


async def test_a_released_shard_has_no_owner_and_keeps_its_epoch(
    store: ScheduleStore, a: IncarnationId, b: IncarnationId
) -> None:
    await started(store, a, b)
    await store.take_shards([claim()], taker=a)
    released = ShardState(epoch=1, owner=None, floor_ms=700)

    for _ in range(2):  # the same call again is the same release
        await store.release_shard(SHARD, epoch=1, owner=a, floor_ms=700)
        assert await store.read_shard(SHARD) == released

    await store.take_shards([claim(epoch=1, floor_ms=700)], taker=b)
    assert await store.read_shard(SHARD) == ShardState(epoch=2, owner=b, floor_ms=700)


async def test_a_shard_is_released_by_its_owner_at_its_epoch_only(
    store: ScheduleStore, a: IncarnationId, b: IncarnationId
) -> None:
    await started(store, a, b)
    with pytest.raises(ConditionFailed):
        await store.release_shard(SHARD, epoch=0, owner=a, floor_ms=9)
    await store.take_shards([claim()], taker=a)
    taken = await store.read_shard(SHARD)

    for epoch, owner in ((1, b), (0, a), (2, a)):
        with pytest.raises(ConditionFailed):
            await store.release_shard(SHARD, epoch=epoch, owner=owner, floor_ms=9)

    assert await store.read_shard(SHARD) == taken


async def test_a_late_release_does_not_touch_the_next_owner_s_shard(
    store: ScheduleStore, a: IncarnationId, b: IncarnationId
) -> None:
    await started(store, a, b)
    await store.take_shards([claim()], taker=a)
    await store.release_shard(SHARD, epoch=1, owner=a, floor_ms=5)
    await store.take_shards([claim(epoch=1, floor_ms=5)], taker=b)

    with pytest.raises(ConditionFailed):
        await store.release_shard(SHARD, epoch=1, owner=a, floor_ms=5)

    assert await store.read_shard(SHARD) == ShardState(epoch=2, owner=b, floor_ms=5)


async def test_a_shard_and_an_incarnation_are_read_side_by_side(
    store: ScheduleStore, a: IncarnationId, b: IncarnationId
) -> None:
    await started(store, a)
    await store.take_shards([claim(floor_ms=3)], taker=a)
    await store.raise_frontier(a, frontier_ms=9, hints={})
    taken = ShardState(epoch=1, owner=a, floor_ms=3)

    shard, node = await store.read_shard_and_node(SHARD, a)
    assert (shard, node) == (taken, (await store.read_nodes([a]))[a])
    assert await store.read_shard_and_node(SHARD, None) == (taken, None)
    assert await store.read_shard_and_node(SHARD, b) == (taken, None)


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
        await store.create(created, pointer(created), replaces=None)
    in_order = sorted(rows, key=lambda r: r.position)

    for rows_max in (1, 7, 40, 1_000):
        assert await _read_all(store, SHARD, rows_max=rows_max) == in_order


async def test_a_shard_larger_than_a_page_is_read_to_its_end(store: ScheduleStore) -> None:
    rows = [row(schedule(task_data=bytes(150 * 1024), due_ms=DUE_MS + n), shard=SHARD) for n in range(24)]
    for created in rows:
        await store.create(created, pointer(created), replaces=None)

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
        await store.create(created, pointer(created), replaces=None)

    for index, created in enumerate(rows):
        page = await store.read_page(SHARD, after=created.position, rows_max=10)
        assert list(page.rows) == rows[index + 1 :]


async def test_a_page_ends_with_the_first_row_that_is_due_later_than_asked_for(store: ScheduleStore) -> None:
    rows = [row(schedule(due_ms=DUE_MS + n // 2), shard=SHARD) for n in range(10)]
    for created in rows:
        await store.create(created, pointer(created), replaces=None)

    for due_ms_max, count in ((DUE_MS - 1, 1), (DUE_MS, 3), (DUE_MS + 3, 9)):
        page = await store.read_page(SHARD, after=None, rows_max=100, due_ms_max=due_ms_max)
        assert list(page.rows) == rows[:count]
        assert page.next_after == rows[count - 1].position
    page = await store.read_page(SHARD, after=rows[3].position, rows_max=3, due_ms_max=DUE_MS + 4)
    assert (list(page.rows), page.next_after) == (rows[4:7], rows[6].position)
    page = await store.read_page(SHARD, after=rows[6].position, rows_max=100, due_ms_max=DUE_MS + 4)
    assert (list(page.rows), page.next_after) == (rows[7:], None)


async def test_a_page_sees_every_write_that_was_answered_before(store: ScheduleStore) -> None:
    for _ in range(30):
        created = row(shard=SHARD)
        await store.create(created, pointer(created), replaces=None)
        assert (await store.read_page(SHARD, after=None, rows_max=5)).rows == (created,)
        await store.finish(SHARD, [end(created)])
        assert (await store.read_page(SHARD, after=None, rows_max=5)).rows == ()


async def test_an_empty_shard_has_one_empty_page(store: ScheduleStore) -> None:
    page = await store.read_page(SHARD, after=None, rows_max=1)

    assert page.rows == ()
    assert page.next_after is None


async def test_a_ping_raises_nothing_where_the_store_answers(store: ScheduleStore) -> None:
    await store.ping()
