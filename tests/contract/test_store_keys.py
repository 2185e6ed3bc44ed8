"""`ScheduleStore`: pointers, creates and outcomes."""

import asyncio
from dataclasses import replace

import pytest

from clockwork.domain.position import position_of
from clockwork.domain.schedule import DataForm, EndState, Failure, Guarantee, Outcome, Row
from clockwork.errors import ConditionFailed, Contested
from clockwork.ports.store import KeyState, ScheduleStore
from tests.support.builders import end, gone, outcome, pointer, row, schedule

CREATORS = 200
"""Creates of one key at the same moment."""


async def test_a_created_schedule_is_read_back_whole(store: ScheduleStore) -> None:
    wanted = schedule(
        schedule_key="ключ/with every % thing",
        ordering_key="customer-7",
        guarantee=Guarantee.AT_LEAST_ONCE,
        task_data=bytes(range(256)),
        data_form=DataForm.BASE64,
        headers=(("a", ""), ("b", "ß")),
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )
    created = row(wanted)

    await store.create(created, pointer(created), replaces=None)

    assert await store.read_row(created.name) == created
    assert await store.read_pointer(wanted.client_id, wanted.schedule_key) == pointer(created)


async def test_empty_task_data_is_kept(store: ScheduleStore) -> None:
    created = row(schedule(task_data=b"", data_form=DataForm.TEXT))

    await store.create(created, pointer(created), replaces=None)

    assert await store.read_row(created.name) == created


async def test_what_was_never_there_is_absent(store: ScheduleStore) -> None:
    unknown = row()
    names = unknown.schedule.client_id, unknown.schedule.schedule_key

    assert await store.read_pointer(*names) is None
    assert await store.read_outcome(*names, unknown.position) is None
    assert await store.read_row(unknown.name) is None


async def test_keys_that_look_alike_when_joined_are_different_keys(store: ScheduleStore) -> None:
    one, other = row(schedule(client_id="a", schedule_key="b/c")), row(schedule(client_id="a", schedule_key="b"))

    await store.create(one, pointer(one), replaces=None)
    await store.create(other, pointer(other), replaces=None)

    assert await store.read_pointer(one.schedule.client_id, one.schedule.schedule_key) == pointer(one)


async def test_the_same_create_again_is_the_same_create(store: ScheduleStore) -> None:
    created = row()
    await store.create(created, pointer(created), replaces=None)

    await store.create(created, pointer(created), replaces=None)
    # Also if so much time has passed that no token is remembered: here, played by another expiry, hence another token.
    await store.create(created, pointer(created, expires_at_s=2_000_000_001), replaces=None)

    assert await store.read_row(created.name) == created


async def test_a_create_does_not_take_a_key_that_has_a_pointer(store: ScheduleStore) -> None:
    first = row()
    second = row(replace(first.schedule, delivery_id="another"))
    await store.create(first, pointer(first), replaces=None)

    with pytest.raises(ConditionFailed):
        await store.create(second, pointer(second), replaces=None)

    assert await store.read_row(second.name) is None
    assert await store.read_pointer(first.schedule.client_id, first.schedule.schedule_key) == pointer(first)


async def test_a_create_takes_over_exactly_the_pointer_that_it_names(store: ScheduleStore) -> None:
    first = row()
    await store.create(first, pointer(first), replaces=None)
    second = row(replace(first.schedule, version=2))
    third = row(replace(first.schedule, version=3))

    await store.create(second, pointer(second), replaces=pointer(first))
    # Of an earlier version; and of this version, elsewhere: versions restart when TTL deletes a pointer.
    for other in (pointer(first), replace(pointer(first), version=2), replace(pointer(second), version=1)):
        with pytest.raises(ConditionFailed):
            await store.create(third, pointer(third), replaces=other)

    assert await store.read_pointer(first.schedule.client_id, first.schedule.schedule_key) == pointer(second)
    assert await store.read_row(third.name) is None


async def test_a_create_that_takes_over_needs_a_pointer_to_take(store: ScheduleStore) -> None:
    created = row()

    with pytest.raises(ConditionFailed):
        await store.create(created, pointer(created), replaces=pointer(created))

    assert await store.read_row(created.name) is None


async def test_of_many_creates_of_one_key_at_once_one_wins(store: ScheduleStore) -> None:
    rows = [row(schedule(schedule_key="wanted", delivery_id=f"d{n}")) for n in range(CREATORS)]

    async def create(candidate: Row) -> bool:
        while True:
            try:
                await store.create(candidate, pointer(candidate), replaces=None)
            except ConditionFailed:
                return False
            except Contested:
                # Nothing was decided: another transaction stood in the way.
                await asyncio.sleep(0.01)
            else:
                return True

    won = await asyncio.gather(*(create(candidate) for candidate in rows))

    winners = [candidate for candidate, winner in zip(rows, won, strict=True) if winner]
    there = [r for r in rows if await store.read_row(r.name) is not None]
    assert len(winners) == 1
    assert there == winners
    assert await store.read_pointer(rows[0].schedule.client_id, rows[0].schedule.schedule_key) == pointer(winners[0])


async def test_a_pointers_life_is_only_ever_made_longer(store: ScheduleStore) -> None:
    created = row()
    names = created.schedule.client_id, created.schedule.schedule_key
    await store.create(created, pointer(created, expires_at_s=1_000), replaces=None)

    await store.push_pointer_expiry(created.name, expires_at_s=2_000)
    await store.push_pointer_expiry(created.name, expires_at_s=1_500)

    assert await store.read_pointer(*names) == pointer(created, expires_at_s=2_000)


async def test_a_pointer_that_points_elsewhere_is_not_made_to_live_longer(store: ScheduleStore) -> None:
    stale = row()
    current = row(replace(stale.schedule, version=2))
    names = stale.schedule.client_id, stale.schedule.schedule_key
    await store.push_pointer_expiry(stale.name, expires_at_s=3_000)
    assert await store.read_pointer(*names) is None, "an update brought a pointer into being"
    await store.create(current, pointer(current, expires_at_s=1_000), replaces=None)

    await store.push_pointer_expiry(stale.name, expires_at_s=3_000)

    assert await store.read_pointer(*names) == pointer(current, expires_at_s=1_000)


async def test_what_is_discarded_is_so_since_the_first_time_and_lives_no_longer_and_no_shorter(
    store: ScheduleStore,
) -> None:
    created = row()
    names = created.schedule.client_id, created.schedule.schedule_key
    there = replace(pointer(created, expires_at_s=1_000), rearmed=True)
    await store.create(created, there, replaces=None)

    assert await store.discard(there, at_ms=7) == 7
    assert await store.discard(there, at_ms=9) == 7

    assert await store.read_pointer(*names) == replace(there, discarded_at_ms=7)
    await store.push_pointer_expiry(created.name, expires_at_s=2_000)
    assert await store.read_pointer(*names) == replace(there, discarded_at_ms=7, expires_at_s=2_000)
    # Nor does an outcome that is put once more take it off.
    await store.finish(created.shard, [end(created, outcome(created, EndState.FAILED))])
    assert await store.discard(there, at_ms=9) == 7


async def test_nothing_is_discarded_where_another_pointer_stands_or_none(store: ScheduleStore) -> None:
    failed = row()
    with pytest.raises(ConditionFailed):
        await store.discard(pointer(failed), at_ms=7)
    names = failed.schedule.client_id, failed.schedule.schedule_key
    assert await store.read_pointer(*names) is None, "an update brought a pointer into being"
    await store.create(failed, pointer(failed), replaces=None)
    await store.discard(pointer(failed), at_ms=7)
    armed = row(replace(failed.schedule, version=2))
    await store.create(armed, pointer(armed), replaces=pointer(failed))

    # Of an earlier version; and of this version, elsewhere.
    for other in (pointer(failed), replace(pointer(failed), version=2), replace(pointer(armed), version=1)):
        with pytest.raises(ConditionFailed):
            await store.discard(other, at_ms=8)

    assert await store.read_pointer(*names) == pointer(armed)


async def test_the_state_of_a_key_is_its_pointer_and_what_stands_at_its_position(store: ScheduleStore) -> None:
    created, other = row(), row()
    there = pointer(created)
    assert await store.read_key_state(there) == KeyState(pointer=None, outcome=None, row_there=False)

    await store.create(created, there, replaces=None)
    assert await store.read_key_state(there) == KeyState(pointer=there, outcome=None, row_there=True)
    # The outcome at the position that was asked for, wherever the pointer points by now.
    await store.finish(created.shard, [end(created)])
    assert await store.read_key_state(there) == KeyState(pointer=there, outcome=outcome(created), row_there=False)
    elsewhere = replace(there, position=other.position)
    assert await store.read_key_state(elsewhere) == KeyState(pointer=there, outcome=None, row_there=False)


def unreadable(of: Row, *, at_ms: int = 8) -> Outcome:
    """The end of a row that could not be read."""
    failure = Failure(reason="unreadable", attempts=0)
    return replace(outcome(of, EndState.FAILED, at_ms=at_ms, failure=failure), schedule=None, receipt=None)


async def test_a_key_with_neither_row_nor_outcome_gets_an_outcome(store: ScheduleStore) -> None:
    lost = row()
    await store.create(lost, pointer(lost), replaces=None)
    await store.finish(lost.shard, [gone(lost)])

    for _ in range(2):  # the same call again
        await store.put_unreadable_outcome(pointer(lost), unreadable(lost))

    assert await store.read_key_state(pointer(lost)) == KeyState(
        pointer=pointer(lost), outcome=unreadable(lost), row_there=False
    )


@pytest.mark.parametrize("obstacle", ["row", "outcome", "pointer of another version", "pointer elsewhere", "none"])
async def test_no_outcome_is_put_for_a_key_that_is_not_as_it_was_read(store: ScheduleStore, obstacle: str) -> None:
    lost = row()
    read = pointer(lost)
    if obstacle != "none":
        await store.create(lost, read, replaces=None)
    if obstacle == "pointer of another version":
        read = replace(read, version=2)
    elif obstacle == "pointer elsewhere":
        read = replace(read, position=row().position)
    if obstacle != "row":
        await store.finish(lost.shard, [gone(lost) if obstacle != "outcome" else end(lost)])
    before = await store.read_key_state(read)

    with pytest.raises(ConditionFailed):
        await store.put_unreadable_outcome(read, replace(unreadable(lost), position=read.position))

    assert await store.read_key_state(read) == before


@pytest.mark.parametrize("state", list(EndState))
async def test_an_outcome_is_read_back_whole(store: ScheduleStore, state: EndState) -> None:
    of = row(schedule(headers=(("h", "v"),), task_data=b"\x00\xff"))
    ended = outcome(of, state)

    await store.finish(of.shard, [end(of, ended)])

    assert await store.read_outcome(ended.client_id, ended.schedule_key, ended.position) == ended


async def test_outcomes_of_one_key_stand_side_by_side(store: ScheduleStore) -> None:
    of = schedule()
    rows = row(of), row(of)
    earlier, later = outcome(rows[0]), outcome(rows[1], EndState.CANCELLED)

    await store.finish(rows[0].shard, [end(rows[0], earlier), end(rows[1], later)])

    assert await store.read_outcome(of.client_id, of.schedule_key, earlier.position) == earlier
    assert await store.read_outcome(of.client_id, of.schedule_key, later.position) == later
    assert await store.read_pointer(of.client_id, of.schedule_key) is None


async def test_any_number_of_rows_is_finished_and_each_outcome_put_over_a_stored_one(store: ScheduleStore) -> None:
    rows = [row() for _ in range(130)]
    await store.finish(rows[0].shard, [end(r, outcome(r, at_ms=1)) for r in rows[:3]])
    for created in rows:
        await store.create(created, pointer(created), replaces=None)

    # Overlapping, as when a zombie's cleanup runs beside the present owner's.
    await store.finish(rows[0].shard, [end(r) for r in rows])
    await store.finish(rows[0].shard, [end(r) for r in rows[:40]])
    await store.finish(rows[0].shard, [])

    for one in map(outcome, rows):
        assert await store.read_outcome(one.client_id, one.schedule_key, one.position) == one
    assert await store.read_rows(rows[0].shard, [r.position for r in rows]) == {}


async def test_large_outcomes_are_put_as_well(store: ScheduleStore) -> None:
    rows = [row(schedule(task_data=bytes([n]) * 256 * 1024)) for n in range(30)]

    await store.finish(rows[0].shard, [end(each) for each in rows])

    for one in map(outcome, rows):
        assert await store.read_outcome(one.client_id, one.schedule_key, one.position) == one


async def test_the_first_outcome_stands_where_it_is_to_stand(store: ScheduleStore) -> None:
    of, other = row(), row()
    failure = Failure(reason="attempts_exhausted", attempts=8, last_refusal="record_too_large")
    first, second = outcome(of, EndState.FAILED, at_ms=1, failure=failure), outcome(of)

    await store.finish(of.shard, [end(of, first, keep_existing=True)])
    # Beside one that is overwritten, so that each end is judged by itself.
    await store.finish(of.shard, [end(other, outcome(other, at_ms=1))])
    await store.finish(of.shard, [end(other), end(of, second, keep_existing=True)])

    assert await store.read_outcome(first.client_id, first.schedule_key, first.position) == first
    assert await store.read_outcome(other.schedule.client_id, other.schedule.schedule_key, other.position) == outcome(
        other
    )


async def test_an_outcome_without_content_never_overwrites_one_with_it(store: ScheduleStore) -> None:
    # An older node cannot read a row of a newer format's content; the newer node's outcome of it is the whole one.
    of, other = row(), row()
    full, empty = outcome(of), unreadable(of)

    await store.finish(of.shard, [end(of, full)])
    await store.finish(of.shard, [end(of, empty), end(other)])
    assert await store.read_outcome(full.client_id, full.schedule_key, full.position) == full

    # The other way round the whole one replaces it; and where nothing stands, an empty one is put.
    late = outcome(other, at_ms=9)
    await store.finish(of.shard, [end(other, unreadable(other)), end(of, full)])
    assert await store.read_outcome(late.client_id, late.schedule_key, late.position) == outcome(other)
    third = row()
    await store.finish(of.shard, [end(third, unreadable(third))])
    found = await store.read_outcome(third.schedule.client_id, third.schedule.schedule_key, third.position)
    assert found == unreadable(third)
    await store.finish(of.shard, [end(third)])
    found = await store.read_outcome(third.schedule.client_id, third.schedule.schedule_key, third.position)
    assert found == outcome(third)


async def test_positions_of_38_digits_with_trailing_zeros_are_found_again(store: ScheduleStore) -> None:
    for text in (
        "1700000000000.169999999999999900000000",
        "1700000000000.169999999999999999999999",
        "99999999999999.100000000000000000000000",
        "1.000000000000000100000001",
        "0.000000000000000100000000",
    ):
        at = position_of(text)
        created = row(schedule(due_ms=int(text.partition(".")[0])), at=at)
        ended = outcome(created)

        await store.create(created, pointer(created), replaces=None)

        assert await store.read_row(created.name) == created, text
        assert (await store.read_page(created.shard, after=None, rows_max=1)).rows == (created,), text
        await store.finish(created.shard, [end(created)])
        assert await store.read_outcome(ended.client_id, ended.schedule_key, at) == ended, text
        assert await store.read_row(created.name) is None, text
