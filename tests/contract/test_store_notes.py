"""`ScheduleStore`: what a key remembers of commands moves with their effects, or not at all."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from clockwork.domain.command_notes import CommandNote, CommandOffset, NoteChange
from clockwork.domain.position import Position
from clockwork.domain.schedule import EndState, RequestId, Row
from clockwork.errors import ConditionFailed
from clockwork.ports.store import ScheduleStore
from tests.support.builders import DUE_MS, outcome, pointer, row, schedule

MINE = RequestId("mine")
PLACE = CommandOffset(kafka_partition=3, offset=17, at_ms=DUE_MS)
LATER = replace(PLACE, offset=18)
FIRST = NoteChange(before=(), after=CommandNote(offsets=(PLACE,), by="a", expires_at_s=2_000_000_000))
SECOND = NoteChange(before=(PLACE,), after=CommandNote(offsets=(LATER,), by="b", expires_at_s=2_000_000_001))

Effect = Callable[[ScheduleStore, Row, NoteChange], Awaitable[None]]


async def _create(store: ScheduleStore, at: Row, note: NoteChange) -> None:
    await store.create(at, pointer(at), replaces=None, note=note)


async def _cancel(store: ScheduleStore, at: Row, note: NoteChange) -> None:
    await store.cancel(at.name, outcome(at, EndState.CANCELLED), hold=MINE, note=note)


async def _reschedule(store: ScheduleStore, at: Row, note: NoteChange) -> None:
    new = replace(at, position=Position(at.position + 1))
    await store.reschedule(
        at.name,
        replace(outcome(at, EndState.SUPERSEDED), moved_to=new.position),
        hold=MINE,
        row=new,
        pointer=pointer(new, version=2),
        replaces=pointer(at),
        note=note,
    )


EFFECTS: list[Effect] = [_create, _cancel, _reschedule]


async def _ready(store: ScheduleStore, effect: Effect) -> Row:
    """A row that `effect` can be done to."""
    at = row()
    if effect is not _create:
        await store.create(at, pointer(at), replaces=None)
        await store.hold(at.name, MINE)
    return at


async def _note(store: ScheduleStore, at: Row) -> CommandNote | None:
    return await store.read_command_note(at.schedule.client_id, at.schedule.schedule_key)


async def _stands(store: ScheduleStore, at: Row) -> tuple[object, ...]:
    names = (at.schedule.client_id, at.schedule.schedule_key)
    return (
        await store.read_pointer(*names),
        await store.read_row(at.name),
        await store.read_outcome(*names, at.position),
    )


@pytest.mark.parametrize("effect", EFFECTS)
async def test_an_effect_by_command_moves_the_note_in_its_transaction(store: ScheduleStore, effect: Effect) -> None:
    at = await _ready(store, effect)
    before = await _stands(store, at)
    assert await _note(store, at) is None

    await effect(store, at, FIRST)
    await effect(store, at, FIRST)  # the same again is the same

    assert await _note(store, at) == FIRST.after
    assert await _stands(store, at) != before


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("read", [FIRST, replace(SECOND, before=(replace(PLACE, offset=16),))])
async def test_a_command_that_has_read_another_note_has_no_effect_at_all(
    store: ScheduleStore, effect: Effect, read: NoteChange
) -> None:
    # The command was answered as one without an effect, while this node was frozen.
    at = await _ready(store, effect)
    await store.note_command(at.schedule.client_id, at.schedule.schedule_key, FIRST)
    before = await _stands(store, at)

    with pytest.raises(ConditionFailed):
        await effect(store, at, read)

    assert await _stands(store, at) == before
    assert await _note(store, at) == FIRST.after

    await effect(store, at, SECOND)
    assert await _note(store, at) == SECOND.after


@pytest.mark.parametrize("effect", EFFECTS)
async def test_a_note_stays_as_it_is_where_the_effect_is_refused(store: ScheduleStore, effect: Effect) -> None:
    at = await _ready(store, effect)
    if effect is _create:
        other = row(replace(at.schedule, delivery_id="other"))
        await store.create(other, pointer(other), replaces=None)
    else:
        await store.drop_hold(at.name)
    with pytest.raises(ConditionFailed):
        await effect(store, at, FIRST)
    assert await _note(store, at) is None


async def test_a_note_moves_alone_and_only_from_where_it_was_read(store: ScheduleStore) -> None:
    at = row()
    names = (at.schedule.client_id, at.schedule.schedule_key)
    with pytest.raises(ConditionFailed):
        await store.note_command(*names, SECOND)
    await store.note_command(*names, FIRST)
    await store.note_command(*names, FIRST)  # the same again is the same
    with pytest.raises(ConditionFailed):
        await store.note_command(*names, replace(FIRST, after=replace(FIRST.after, by="another")))
    await store.note_command(*names, SECOND)
    assert await _note(store, at) == SECOND.after


async def test_a_note_is_its_keys_own_and_no_pointer_and_stays_when_that_is_written_over_http(
    store: ScheduleStore,
) -> None:
    at, other = row(), row(schedule(schedule_key="other"))
    await store.note_command(at.schedule.client_id, at.schedule.schedule_key, FIRST)
    assert await _stands(store, at) == (None, None, None)

    await store.create(at, pointer(at), replaces=None)
    await store.create(other, pointer(other), replaces=None)

    assert await _note(store, at) == FIRST.after
    assert await _note(store, other) is None


async def test_a_cancel_of_another_that_wrote_the_same_outcome_is_not_taken_for_its_own(store: ScheduleStore) -> None:
    # Two cancels of one millisecond write the same; the other one, over HTTP, has moved no note.
    at = await _ready(store, _cancel)
    theirs = RequestId("theirs")
    await store.hold(at.name, theirs)
    await store.cancel(at.name, outcome(at, EndState.CANCELLED), hold=theirs)

    with pytest.raises(ConditionFailed):
        await _cancel(store, at, FIRST)

    assert await _note(store, at) is None
