"""Races on the real PostgreSQL: two writers at one moment, some hundred rounds each."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Final

import pytest

from clockwork.domain.ownership import IncarnationId, ShardClaim, ShardState
from clockwork.domain.schedule import EndState, Guarantee, Outcome, RequestId, Row
from clockwork.domain.sharding import ShardId
from clockwork.errors import ConditionFailed, Fenced, ShardsContested
from clockwork.ports.telemetry import NoTelemetry, StoreResult
from clockwork.settings.model import PostgresSettings
from clockwork.stores.postgres.maintenance import Maintenance
from clockwork.stores.postgres.store import PostgresScheduleStore
from tests.contract.racing import Race
from tests.contract.store_fixtures import SHARDS, execute, locked, new_incarnation, postgres_store_on
from tests.support.builders import DUE_MS, SHARD, end, outcome, pointer, row, schedule
from tests.support.waiting import until

ROUNDS: Final = 300
AT_ONCE: Final = 6
"""Rounds side by side, so that several statements are at the server at one moment."""
MINE = RequestId("mine")


@pytest.fixture
async def other_store(postgres_settings: PostgresSettings) -> AsyncIterator[PostgresScheduleStore]:
    """Another process's store on the same tables."""
    async with postgres_store_on(postgres_settings) as store:
        yield store


async def rounds(one: Callable[[], Awaitable[None]], count: int = ROUNDS) -> None:
    """Does a round again and again, `AT_ONCE` side by side."""

    async def some() -> None:
        for _ in range(count // AT_ONCE):
            await one()

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(some())


async def held(store: PostgresScheduleStore, wanted: Row | None = None) -> Row:
    created = wanted if wanted is not None else row()
    await store.create(created, pointer(created), replaces=None)
    await store.hold(created.name, MINE)
    return created


async def won(write: Awaitable[object]) -> bool:
    """True if a write was done, False if its condition failed."""
    try:
        return (await write) is not False
    except ConditionFailed:
        return False


async def outcome_of(store: PostgresScheduleStore, of: Row) -> Outcome | None:
    return await store.read_outcome(of.schedule.client_id, of.schedule.schedule_key, of.position)


async def test_of_a_cancel_and_the_owners_drop_of_its_hold_one_wins(
    postgres_store: PostgresScheduleStore, other_store: PostgresScheduleStore
) -> None:
    winners = set()
    race = Race()

    async def one() -> None:
        created = await held(postgres_store)
        dropped, cancelled = await race.between(
            won(other_store.drop_hold(created.name)),
            won(postgres_store.cancel(created.name, outcome(created, EndState.CANCELLED), hold=MINE)),
        )
        assert dropped is not cancelled
        assert (await postgres_store.read_row(created.name) is None) is cancelled
        assert (await outcome_of(postgres_store, created) is not None) is cancelled
        winners.add(cancelled)

    await rounds(one)

    assert winners == {True, False}, "one of them never won"


async def test_of_a_reschedule_and_the_owners_drop_of_its_hold_one_wins(
    postgres_store: PostgresScheduleStore, other_store: PostgresScheduleStore
) -> None:
    winners = set()
    race = Race()

    async def one() -> None:
        old = await held(postgres_store)
        new = row(replace(old.schedule, due_ms=DUE_MS + 1, version=2), shard=SHARD - 1)
        superseded = replace(outcome(old, EndState.SUPERSEDED), moved_to=new.position)
        change = postgres_store.reschedule(
            old.name, superseded, hold=MINE, row=new, pointer=pointer(new), replaces=pointer(old)
        )
        dropped, moved = await race.between(won(other_store.drop_hold(old.name)), won(change))
        assert dropped is not moved
        there = await postgres_store.read_pointer(old.schedule.client_id, old.schedule.schedule_key)
        assert there == pointer(new if moved else old)
        assert await postgres_store.read_row(new.name) == (new if moved else None)
        assert (await postgres_store.read_row(old.name) is None) is moved
        winners.add(moved)

    await rounds(one)

    assert winners == {True, False}, "one of them never won"


async def test_of_two_changes_of_one_row_the_one_with_the_last_hold_wins(
    postgres_store: PostgresScheduleStore, other_store: PostgresScheduleStore
) -> None:
    async def one() -> None:
        old = await held(postgres_store)
        new = row(replace(old.schedule, due_ms=DUE_MS + 1, version=2))
        superseded = replace(outcome(old, EndState.SUPERSEDED), moved_to=new.position)

        async def cancel() -> bool:
            if not await won(other_store.hold(old.name, RequestId("theirs"))):
                return False
            return await won(other_store.cancel(old.name, outcome(old, EndState.CANCELLED), hold=RequestId("theirs")))

        change = postgres_store.reschedule(
            old.name, superseded, hold=MINE, row=new, pointer=pointer(new), replaces=pointer(old)
        )
        cancelled, moved = await asyncio.gather(cancel(), won(change))
        assert cancelled is not moved
        ended = await outcome_of(postgres_store, old)
        assert ended is not None
        assert ended.state is (EndState.CANCELLED if cancelled else EndState.SUPERSEDED)

    await rounds(one)


async def test_a_cancel_that_saw_a_low_frontier_and_a_pass_that_raised_it_never_both_have_the_row(
    postgres_store: PostgresScheduleStore, other_store: PostgresScheduleStore
) -> None:
    # Hold, look, decide against frontier, page, drop of the hold: docs/design.md, 4 and 5.
    fired_and_cancelled = []
    shards = iter(range(SHARDS))

    async def worker() -> None:
        shard = ShardId(next(shards))
        for _ in range(ROUNDS // SHARDS):
            me = new_incarnation()
            await other_store.start_incarnation(me, node="n")
            epoch = (await other_store.read_shard(shard)).epoch
            await other_store.take_shards([ShardClaim(shard=shard, epoch=epoch, floor_ms=0)], taker=me)
            created = row(shard=shard)
            await postgres_store.create(created, pointer(created), replaces=None)
            fired, cancelled = await asyncio.gather(
                _fires(other_store, created, me), _is_cancelled(postgres_store, created)
            )
            fired_and_cancelled.append((fired, cancelled))
            assert not (fired and cancelled)
            await other_store.finish(shard, [end(created, keep_existing=True)])

    async with asyncio.TaskGroup() as group:
        for _ in range(SHARDS):
            group.create_task(worker())

    assert {(True, False), (False, True)} <= set(fired_and_cancelled), "this was no race"


async def _fires(store: PostgresScheduleStore, created: Row, me: IncarnationId) -> bool:
    await asyncio.sleep(random.random() * 0.006)
    await store.raise_frontier(me, frontier_ms=DUE_MS, hints={})
    found = (await store.read_page(created.shard, after=None, rows_max=10)).rows
    if not found:
        return False
    (there,) = found
    assert isinstance(there, Row)
    return await store.drop_hold(there.name) if there.hold is not None else True


async def _is_cancelled(store: PostgresScheduleStore, created: Row) -> bool:
    if not await won(store.hold(created.name, MINE)):
        return False
    state = await store.read_shard(created.shard)
    state, node = await store.read_shard_and_node(created.shard, state.owner)
    assert node is not None
    if max(state.floor_ms, node.frontier_ms) >= DUE_MS:
        return False
    return await won(store.cancel(created.name, outcome(created, EndState.CANCELLED), hold=MINE))


class Results(NoTelemetry):
    """The results of calls to the store."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def store_call(self, *, store: str, operation: str, result: StoreResult, seconds: float) -> None:
        self.seen.add(result)


async def test_creates_of_the_same_keys_in_opposite_order_never_wait_for_each_other(
    postgres_settings: PostgresSettings,
) -> None:
    # Two processes, each with all keys in one group. In another order than by key the two groups would be a deadlock.
    results = Results()
    async with (
        postgres_store_on(postgres_settings, telemetry=results) as one,
        postgres_store_on(postgres_settings, telemetry=results) as two,
    ):
        await _create_in_opposite_order(one, two)

    assert results.seen == {"ok"}


async def _create_in_opposite_order(postgres_store: PostgresScheduleStore, other_store: PostgresScheduleStore) -> None:
    for _ in range(ROUNDS // 3):
        # As many as make the statements last, so that they overlap.
        first = [row() for _ in range(100)]
        second = [row(each.schedule, shard=SHARD - 1) for each in reversed(first)]

        async def creates(store: PostgresScheduleStore, rows: list[Row]) -> list[bool]:
            return list(await asyncio.gather(*(won(store.create(each, pointer(each), replaces=None)) for each in rows)))

        done, done_too = await asyncio.gather(creates(postgres_store, first), creates(other_store, second))

        assert all(one is not other for one, other in zip(done, reversed(done_too), strict=True))
        rows = await postgres_store.read_rows(SHARD, [each.position for each in first])
        assert [each.position in rows for each in first] == done


async def test_keys_taken_over_by_two_processes_at_once_are_taken_once(
    postgres_store: PostgresScheduleStore, other_store: PostgresScheduleStore
) -> None:
    for _ in range(ROUNDS // 10):
        old = [row() for _ in range(20)]
        await asyncio.gather(*(postgres_store.create(each, pointer(each), replaces=None) for each in old))
        await postgres_store.finish(SHARD, [end(each) for each in old])

        async def takes(store: PostgresScheduleStore, rows: list[Row]) -> list[bool]:
            new = [(each, row(replace(each.schedule, version=2))) for each in rows]
            return list(
                await asyncio.gather(*(won(store.create(to, pointer(to), replaces=pointer(was))) for was, to in new))
            )

        done, done_too = await asyncio.gather(takes(postgres_store, old), takes(other_store, old[::-1]))

        assert [one is not other for one, other in zip(done, reversed(done_too), strict=True)] == [True] * 20
        assert len((await postgres_store.read_page(SHARD, after=None, rows_max=100)).rows) == 20
        await execute(postgres_store.client.settings, "DELETE FROM rows")


async def test_rows_that_two_owners_finish_at_once_have_one_outcome_and_are_gone(
    postgres_store: PostgresScheduleStore, other_store: PostgresScheduleStore
) -> None:
    async def one() -> None:
        rows = [row(shard=SHARD) for _ in range(5)]
        await asyncio.gather(*(postgres_store.create(each, pointer(each), replaces=None) for each in rows))
        await asyncio.gather(
            postgres_store.finish(SHARD, [end(each) for each in rows]),
            other_store.finish(SHARD, [end(each) for each in reversed(rows)]),
        )
        assert await postgres_store.read_rows(SHARD, [each.position for each in rows]) == {}
        for each in rows:
            assert await outcome_of(postgres_store, each) == outcome(each)

    await rounds(one)


async def test_of_a_cancel_and_a_finish_the_first_outcome_stands(
    postgres_store: PostgresScheduleStore, other_store: PostgresScheduleStore
) -> None:
    winners = set()
    race = Race()

    async def one() -> None:
        created = await held(postgres_store, row(schedule(guarantee=Guarantee.AT_LEAST_ONCE)))
        cancelled, _ = await race.between(
            won(postgres_store.cancel(created.name, outcome(created, EndState.CANCELLED), hold=MINE)),
            other_store.finish(created.shard, [end(created, keep_existing=True)]),
        )
        ended = await outcome_of(postgres_store, created)
        assert ended == outcome(created, EndState.CANCELLED if cancelled else EndState.DELIVERED)
        assert await postgres_store.read_row(created.name) is None
        winners.add(cancelled)

    await rounds(one)

    assert winners == {True, False}, "one of them never won"


async def test_of_a_reschedule_and_a_finish_the_first_one_has_the_row(
    postgres_store: PostgresScheduleStore, other_store: PostgresScheduleStore
) -> None:
    winners = set()
    race = Race()

    async def one() -> None:
        old = await held(postgres_store, row(schedule(guarantee=Guarantee.AT_LEAST_ONCE)))
        new = row(replace(old.schedule, due_ms=DUE_MS + 1, version=2))
        superseded = replace(outcome(old, EndState.SUPERSEDED), moved_to=new.position)
        change = postgres_store.reschedule(
            old.name, superseded, hold=MINE, row=new, pointer=pointer(new), replaces=pointer(old)
        )
        moved, _ = await race.between(won(change), other_store.finish(old.shard, [end(old, keep_existing=True)]))
        assert await outcome_of(postgres_store, old) == (superseded if moved else outcome(old))
        assert await postgres_store.read_row(old.name) is None
        assert await postgres_store.read_row(new.name) == (new if moved else None)
        there = await postgres_store.read_pointer(old.schedule.client_id, old.schedule.schedule_key)
        assert there == pointer(new if moved else old)
        winners.add(moved)

    await rounds(one)

    assert winners == {True, False}, "one of them never won"


async def test_a_frontier_is_raised_before_a_fence_and_in_what_it_returns_or_not_at_all(
    postgres_store: PostgresScheduleStore, other_store: PostgresScheduleStore
) -> None:
    winners = set()
    race = Race()

    async def one() -> None:
        me = new_incarnation()
        await postgres_store.start_incarnation(me, node="n")
        fence, frontier_ms = await race.between(
            other_store.fence(me, at_ms=7),
            raised(postgres_store.raise_frontier(me, frontier_ms=9, hints={0: 3})),
        )
        assert fence.frontier_ms == frontier_ms
        assert (await postgres_store.read_nodes([me]))[me] == fence
        winners.add(frontier_ms)

    await rounds(one)

    assert winners == {0, 9}, "one of them never won"


async def raised(frontier: Awaitable[int]) -> int:
    """The frontier; 0 if its incarnation was fenced."""
    try:
        return await frontier
    except Fenced:
        return 0


async def test_once_a_fence_is_answered_the_fenced_incarnation_takes_no_shard(
    postgres_store: PostgresScheduleStore, other_store: PostgresScheduleStore
) -> None:
    took = set()
    race = Race()
    shards = iter(range(SHARDS))

    async def worker() -> None:
        shard = ShardId(next(shards))
        for _ in range(ROUNDS // SHARDS):
            me = new_incarnation()
            await postgres_store.start_incarnation(me, node="n")
            epoch = (await postgres_store.read_shard(shard)).epoch

            async def fence(me: IncarnationId = me) -> ShardState:
                await other_store.fence(me, at_ms=7)
                return await other_store.read_shard(shard)

            claims = [ShardClaim(shard=shard, epoch=epoch, floor_ms=0)]
            taken, then = await race.between(is_taken(postgres_store.take_shards(claims, taker=me)), fence())

            assert (then.epoch, then.owner == me) == (epoch + taken, taken)
            assert await postgres_store.read_shard(shard) == then
            took.add(taken)

    async with asyncio.TaskGroup() as group:
        for _ in range(SHARDS):
            group.create_task(worker())

    assert took == {True, False}, "one of them never won"


async def is_taken(take: Awaitable[None]) -> bool:
    """False if the taker was fenced."""
    try:
        await take
    except Fenced:
        return False
    return True


async def test_shards_that_two_take_in_opposite_order_have_one_owner(
    postgres_store: PostgresScheduleStore, other_store: PostgresScheduleStore
) -> None:
    for number in range(ROUNDS // 3):
        a, b = new_incarnation(), new_incarnation()
        claims = [ShardClaim(shard=ShardId(shard), epoch=number, floor_ms=0) for shard in range(SHARDS)]
        for store, taker in ((postgres_store, a), (other_store, b)):
            await store.start_incarnation(taker, node="n")

        took = await asyncio.gather(_takes(postgres_store, claims, a), _takes(other_store, claims[::-1], b))

        assert sorted(took) == [False, True]
        states = await postgres_store.read_shards([claim.shard for claim in claims])
        assert {(state.epoch, state.owner) for state in states.values()} == {(number + 1, a if took[0] else b)}


async def test_a_fence_waits_for_a_take_over_that_has_found_its_taker_unfenced(
    postgres_store: PostgresScheduleStore, postgres_settings: PostgresSettings
) -> None:
    # Else the fence would be answered first, and the fenced incarnation would get a shard after it.
    taker = new_incarnation()
    await postgres_store.start_incarnation(taker, node="n")
    claims = [ShardClaim(shard=SHARD, epoch=0, floor_ms=0)]

    async def waiting(sessions: int) -> None:
        found = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'clockwork'"

        async def look() -> bool:
            return len(await execute(postgres_settings, found)) == sessions

        await until(look, f"{sessions} sessions to wait for a lock")

    async with asyncio.TaskGroup() as group:
        async with locked(postgres_settings, f"UPDATE shards SET floor_ms = 0 WHERE shard = {SHARD}"):
            take = group.create_task(postgres_store.take_shards(claims, taker=taker))
            await waiting(1)
            fence = group.create_task(postgres_store.fence(taker, at_ms=7))
            await waiting(2)
        await take
        assert (await fence).fenced_at_ms == 7

    assert (await postgres_store.read_shard(SHARD)).owner == taker


async def _takes(store: PostgresScheduleStore, claims: list[ShardClaim], taker: IncarnationId) -> bool:
    try:
        await store.take_shards(claims, taker=taker)
    except ShardsContested:
        return False
    return True


async def test_retention_never_takes_the_pointer_of_a_key_that_is_used_again(
    postgres_store: PostgresScheduleStore, postgres_settings: PostgresSettings
) -> None:
    maintenance = Maintenance(postgres_settings, None, NoTelemetry())
    kept = []
    for _ in range(ROUNDS // 10):
        old = [row() for _ in range(10)]
        await asyncio.gather(
            *(postgres_store.create(each, pointer(each, expires_at_s=1), replaces=None) for each in old)
        )
        await postgres_store.finish(SHARD, [end(each, outcome(each, expires_at_s=1)) for each in old])
        new = [row(replace(each.schedule, version=2)) for each in old]

        results = await asyncio.gather(
            maintenance.once(),
            *(
                won(postgres_store.create(to, pointer(to, expires_at_s=1), replaces=pointer(was)))
                for was, to in zip(old, new, strict=True)
            ),
        )

        for to, taken in zip(new, results[1:], strict=True):
            there = await postgres_store.read_pointer(to.schedule.client_id, to.schedule.schedule_key)
            row_there = await postgres_store.read_row(to.name) is not None
            assert row_there is taken
            assert (there is not None and there.position == to.position) is taken
            kept.append(taken)
    assert kept.count(True) > 0


async def test_retention_and_a_create_of_its_key_leave_all_of_the_create_or_nothing(
    postgres_store: PostgresScheduleStore, postgres_settings: PostgresSettings
) -> None:
    maintenance = Maintenance(postgres_settings, None, NoTelemetry())
    created = set()
    for number in range(ROUNDS // 10):
        old = [row() for _ in range(10)]
        await asyncio.gather(
            *(postgres_store.create(each, pointer(each, expires_at_s=1), replaces=None) for each in old)
        )
        await execute(postgres_settings, "DELETE FROM rows")  # of unreadable rows: no outcome
        new = [row(replace(each.schedule, version=2)) for each in old]

        async def create(to: Row, after_s: float) -> bool:
            await asyncio.sleep(after_s)
            return await won(postgres_store.create(to, pointer(to, expires_at_s=1), replaces=None))

        results = await asyncio.gather(maintenance.once(), *(create(each, 0.002 * (number % 10)) for each in new))

        for was, to, done in zip(old, new, results[1:], strict=True):
            there = await postgres_store.read_pointer(to.schedule.client_id, to.schedule.schedule_key)
            assert await postgres_store.read_row(to.name) == (to if done else None)
            # One that the create looked at in this moment is left for the next time.
            assert there == pointer(to, expires_at_s=1) if done else there in (None, pointer(was, expires_at_s=1))
            created.add(done)
    assert created == {True, False}, "one of them never won: this was no race"
