"""`ScheduleStore`: holds, cancels, reschedules, retries, deletes."""

import asyncio
from dataclasses import replace

import pytest

from clockwork.domain.position import Position
from clockwork.domain.schedule import EndState, Outcome, Pointer, RequestId, Retry, Row
from clockwork.errors import ConditionFailed, Contested
from clockwork.ports.store import End, ScheduleStore
from clockwork.stores.dynamodb import codec
from clockwork.stores.dynamodb.store import DynamoScheduleStore
from clockwork.stores.memory.store import MemoryScheduleStore, outcome_key
from clockwork.stores.postgres.store import PostgresScheduleStore
from tests.support.builders import DUE_MS, SHARD, broken_row, end, gone, outcome, pointer, row, schedule

MINE = RequestId("mine")
THEIRS = RequestId("theirs")
RETRY = Retry(at_ms=DUE_MS + 1_000, epoch=7, attempts=2, last_refusal="record_too_large")


async def _created(store: ScheduleStore, wanted: Row | None = None) -> Row:
    created = wanted if wanted is not None else row()
    await store.create(created, pointer(created), replaces=None)
    return created


async def _pointer_of(store: ScheduleStore, of: Row) -> Pointer | None:
    return await store.read_pointer(of.schedule.client_id, of.schedule.schedule_key)


async def _outcome_of(store: ScheduleStore, of: Row) -> Outcome | None:
    return await store.read_outcome(of.schedule.client_id, of.schedule.schedule_key, of.position)


async def _put_outcome_alone(store: ScheduleStore, ended: Outcome) -> None:
    """As a `finish` that was interrupted leaves it, where a store finishes in more than one step."""
    if isinstance(store, MemoryScheduleStore):
        store.outcomes[outcome_key(ended)] = ended
        return
    if isinstance(store, PostgresScheduleStore):
        # Elsewhere, where it has no row to delete.
        nowhere = broken_row(shard=SHARD + 1, at=ended.position)
        await store.finish(nowhere.shard, [End(row=nowhere, outcome=ended, keep_existing=False)])
        return
    assert isinstance(store, DynamoScheduleStore)
    table = store.client.settings.keys_table
    await store.client.call("put_item", TableName=table, Item=codec.outcome_item(ended))


# --- hold


async def test_a_hold_is_seen_by_every_reader_of_the_row(store: ScheduleStore) -> None:
    created = await _created(store)

    held = replace(created, hold=MINE)
    assert await store.hold(created.name, MINE) == held

    assert await store.read_row(created.name) == held
    assert (await store.read_page(created.shard, after=None, rows_max=10)).rows == (held,)
    assert await store.read_rows(created.shard, [created.position]) == {created.position: held}


async def test_a_hold_overwrites_anothers(store: ScheduleStore) -> None:
    created = await _created(store)
    await store.hold(created.name, THEIRS)

    await store.hold(created.name, MINE)

    assert await store.read_row(created.name) == replace(created, hold=MINE)


async def test_a_hold_tells_the_row_as_it_is_with_its_retry(store: ScheduleStore) -> None:
    created = await _created(store)
    await store.set_retry(created.name, RETRY, drop_hold=False)

    assert await store.hold(created.name, MINE) == replace(created, hold=MINE, retry=RETRY)


async def test_what_is_gone_cannot_be_held(store: ScheduleStore) -> None:
    created = await _created(store)
    await store.finish(created.shard, [end(created)])

    with pytest.raises(ConditionFailed):
        await store.hold(created.name, MINE)

    assert await store.read_row(created.name) is None


# --- cancel


async def test_a_cancel_with_its_hold_leaves_an_outcome_and_no_row(store: ScheduleStore) -> None:
    created = await _created(store)
    await store.hold(created.name, MINE)
    cancelled = outcome(created, EndState.CANCELLED)

    await store.cancel(created.name, cancelled, hold=MINE)
    await store.cancel(created.name, cancelled, hold=MINE)  # the same again is the same cancel

    assert await store.read_row(created.name) is None
    assert await _outcome_of(store, created) == cancelled
    assert await _pointer_of(store, created) == pointer(created)


@pytest.mark.parametrize("taken_by", ["the owner", "another request"])
async def test_a_cancel_whose_hold_was_taken_off_changes_nothing(store: ScheduleStore, taken_by: str) -> None:
    created = await _created(store)
    await store.hold(created.name, MINE)
    if taken_by == "the owner":
        assert await store.drop_hold(created.name)
    else:
        await store.hold(created.name, THEIRS)

    with pytest.raises(ConditionFailed):
        await store.cancel(created.name, outcome(created, EndState.CANCELLED), hold=MINE)

    assert await store.read_row(created.name) is not None
    assert await _outcome_of(store, created) is None


async def test_a_cancel_never_overwrites_an_outcome(store: ScheduleStore) -> None:
    created = await _created(store)
    await store.hold(created.name, MINE)
    delivered = outcome(created)
    await _put_outcome_alone(store, delivered)

    with pytest.raises(ConditionFailed):
        await store.cancel(created.name, outcome(created, EndState.CANCELLED), hold=MINE)

    assert await _outcome_of(store, created) == delivered


async def test_of_a_cancel_and_its_owners_drop_of_the_hold_exactly_one_wins(store: ScheduleStore) -> None:
    for _ in range(20):
        created = await _created(store)
        await store.hold(created.name, MINE)

        dropped, cancelled = await asyncio.gather(
            _until_decided_drop(store, created), _until_decided_cancel(store, created)
        )

        assert dropped is not cancelled
        assert (await store.read_row(created.name) is None) is cancelled
        assert (await _outcome_of(store, created) is not None) is cancelled


async def _until_decided_drop(store: ScheduleStore, created: Row) -> bool:
    while True:
        try:
            return await store.drop_hold(created.name)
        except Contested:
            await asyncio.sleep(0.001)


async def _until_decided_cancel(store: ScheduleStore, created: Row) -> bool:
    while True:
        try:
            await store.cancel(created.name, outcome(created, EndState.CANCELLED), hold=MINE)
        except ConditionFailed:
            return False
        except Contested:
            await asyncio.sleep(0.001)
        else:
            return True


# --- reschedule


async def _reschedule(store: ScheduleStore, old: Row, new: Row, *, replaces: Pointer | None = None) -> None:
    await store.reschedule(
        old.name,
        _superseded(old, new),
        hold=MINE,
        row=new,
        pointer=pointer(new),
        replaces=replaces if replaces is not None else pointer(old),
    )


def _superseded(old: Row, new: Row) -> Outcome:
    return replace(outcome(old, EndState.SUPERSEDED), moved_to=new.position)


def _moved(old: Row) -> Row:
    """The same schedule an hour later, in another shard because its ordering key was changed too."""
    later = schedule(schedule_key=old.schedule.schedule_key, ordering_key="x", due_ms=old.due_ms + 3_600_000, version=2)
    return row(later, shard=old.shard - 1)


async def test_a_reschedule_moves_the_row_to_another_shard(store: ScheduleStore) -> None:
    old = await _created(store)
    await store.hold(old.name, MINE)
    new = _moved(old)

    await _reschedule(store, old, new)
    await _reschedule(store, old, new)  # the same again is the same reschedule

    assert await store.read_row(old.name) is None
    assert await store.read_row(new.name) == new
    assert await _pointer_of(store, old) == pointer(new)
    assert await _outcome_of(store, old) == _superseded(old, new)


async def test_what_was_armed_again_says_so_until_its_key_is_used_for_something_else(store: ScheduleStore) -> None:
    failed = await _created(store)
    armed = row(replace(failed.schedule, version=2))
    rearmed = replace(pointer(armed), rearmed=True)

    await store.create(armed, rearmed, replaces=pointer(failed))

    assert await _pointer_of(store, armed) == rearmed
    other = row(replace(failed.schedule, version=3))
    await store.create(other, pointer(other), replaces=rearmed)
    assert await _pointer_of(store, armed) == pointer(other)


async def test_a_reschedule_whose_hold_was_taken_off_changes_nothing(store: ScheduleStore) -> None:
    old = await _created(store)
    await store.hold(old.name, THEIRS)
    new = _moved(old)

    with pytest.raises(ConditionFailed):
        await _reschedule(store, old, new)

    assert await store.read_row(old.name) == replace(old, hold=THEIRS)
    assert await store.read_row(new.name) is None
    assert await _pointer_of(store, old) == pointer(old)
    assert await _outcome_of(store, old) is None


async def test_a_reschedule_of_another_pointer_changes_nothing(store: ScheduleStore) -> None:
    old = await _created(store)
    await store.hold(old.name, MINE)
    new = _moved(old)

    # Of another version; and of this version, elsewhere: versions restart when TTL deletes a pointer.
    for other in (replace(pointer(old), version=2), replace(pointer(old), position=new.position)):
        with pytest.raises(ConditionFailed):
            await _reschedule(store, old, new, replaces=other)

    assert await store.read_row(old.name) == replace(old, hold=MINE)
    assert await store.read_row(new.name) is None
    assert await _pointer_of(store, old) == pointer(old)


# --- what the owner writes


async def test_a_retry_is_kept_with_and_without_the_hold(store: ScheduleStore) -> None:
    created = await _created(store)
    await store.hold(created.name, MINE)

    assert await store.set_retry(created.name, RETRY, drop_hold=False)
    assert await store.read_row(created.name) == replace(created, hold=MINE, retry=RETRY)

    later = replace(RETRY, at_ms=RETRY.at_ms + 1, attempts=3)
    assert await store.set_retry(created.name, later, drop_hold=True)
    assert await store.read_row(created.name) == replace(created, retry=later)


async def test_a_hold_that_is_not_there_can_be_dropped(store: ScheduleStore) -> None:
    created = await _created(store)

    assert await store.drop_hold(created.name)

    assert await store.read_row(created.name) == created


async def test_no_late_write_of_an_owner_brings_a_deleted_row_back(store: ScheduleStore) -> None:
    # A zombie that wakes up after the row was cancelled or delivered.
    created = await _created(store)
    await store.finish(created.shard, [end(created)])

    assert not await store.drop_hold(created.name)
    assert not await store.set_retry(created.name, RETRY, drop_hold=False)
    assert not await store.set_retry(created.name, RETRY, drop_hold=True)

    assert await store.read_row(created.name) is None
    assert (await store.read_page(created.shard, after=None, rows_max=10)).rows == ()


async def test_rows_without_an_outcome_go_as_well_any_number_of_times(store: ScheduleStore) -> None:
    # A row whose key cannot be read leaves none.
    kept, *others = [await _created(store) for _ in range(60)]

    for _ in range(2):
        await store.finish(kept.shard, [gone(each) for each in others])

    assert (await store.read_page(kept.shard, after=None, rows_max=100)).rows == (kept,)
    assert [await _outcome_of(store, each) for each in others] == [None] * len(others)


async def test_those_rows_are_read_that_exist_whatever_their_number(store: ScheduleStore) -> None:
    rows = [await _created(store) for _ in range(130)]
    await store.finish(rows[0].shard, [end(r) for r in rows[::3]])
    asked: list[Position] = [r.position for r in rows]

    found = await store.read_rows(rows[0].shard, [*asked, *asked[:10]])

    assert found == {r.position: r for r in rows if r not in rows[::3]}
    assert await store.read_rows(rows[0].shard, []) == {}
