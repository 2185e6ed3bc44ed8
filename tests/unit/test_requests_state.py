"""The state of a key whose schedule shows neither row nor outcome: what one read of all three decides."""

import asyncio

import pytest

from clockwork.domain.command_notes import NoteChange
from clockwork.domain.rights import ANYONE
from clockwork.domain.schedule import (
    POINTER_MARGIN_MS,
    UNREADABLE,
    EndState,
    Failure,
    Pointer,
    Row,
    ScheduleKey,
)
from clockwork.errors import ClockUntrusted, Unavailable
from clockwork.operations.dead_letters import NotOpen
from clockwork.requests.history import HistoryPage
from clockwork.requests.results import (
    AlreadyCreated,
    Created,
    KeyTaken,
    NotFound,
    Reason,
    Refused,
    ScheduleView,
    Status,
)
from tests.support import builders
from tests.support.builders import CLIENT, DUE_MS, SHARD, outcome, pointer, row, schedule
from tests.support.clocks import LoopClock
from tests.support.engine import Engine
from tests.support.virtual_time import in_virtual_time
from tests.unit.test_requests_cancel import new
from tests.unit.test_requests_look import before
from tests.unit.test_requests_reschedule import to

KEY = ScheduleKey("a")
DAY_MS = 86_400_000
RETENTION_MS = 7 * DAY_MS


async def stored(engine: Engine) -> Row:
    """A schedule under `KEY`."""
    wanted = row(schedule(schedule_key=KEY))
    await engine.put(wanted)
    return wanted


async def damaged(engine: Engine) -> Row:
    """A schedule whose owner could read neither its row nor its key: the row is deleted, and has no outcome."""
    lost = await stored(engine)
    await engine.store.finish(SHARD, [builders.gone(lost)])
    return lost


async def find(engine: Engine) -> ScheduleView | None:
    return await engine.find(CLIENT, KEY)


# --- a transaction that is being applied


class HalfCancelled:
    """A cancel of a schedule, decided; its row is deleted, and the outcome is not there yet."""

    def __init__(self, engine: Engine, of: Row) -> None:
        self._store, self._of = engine.store, of
        self._store.busy |= {(SHARD, of.position), (CLIENT, KEY, of.position)}
        del self._store.rows[SHARD, of.position]

    def ends(self) -> None:
        self._store.outcomes[CLIENT, KEY, self._of.position] = outcome(self._of, EndState.CANCELLED)
        self._store.busy.clear()


@in_virtual_time
async def test_a_schedule_whose_cancel_is_being_applied_is_never_unknown() -> None:
    engine = Engine(clock=LoopClock(DUE_MS - 60_000))
    cancelled = HalfCancelled(engine, await stored(engine))
    async with asyncio.TaskGroup() as group:
        finding = group.create_task(find(engine), name="find")
        await asyncio.sleep(1)
        assert not finding.done()
        cancelled.ends()
    found = finding.result()
    assert found is not None
    assert found.status is Status.CANCELLED


@in_virtual_time
async def test_what_is_still_being_applied_at_the_deadline_is_asked_for_again_later() -> None:
    # An older version looked three times within 200 ms, and then answered that the key is unknown.
    engine = Engine(clock=LoopClock(DUE_MS + 30 * DAY_MS), request_timeout_ms=5_000)
    HalfCancelled(engine, await stored(engine))
    for asking in (find(engine), engine.cancel(CLIENT, KEY), engine.change(CLIENT, KEY, to(due_ms=1))):
        with pytest.raises(Unavailable):
            await asking


@in_virtual_time
async def test_a_create_that_is_being_applied_is_not_taken_for_a_lost_row() -> None:
    # The pointer is there, and the row not yet.
    engine = Engine(clock=LoopClock(DUE_MS - 60_000))
    created = await stored(engine)
    place = (SHARD, created.position)
    del engine.store.rows[place]
    engine.store.busy.add(place)
    async with asyncio.TaskGroup() as group:
        finding = group.create_task(find(engine), name="find")
        await asyncio.sleep(1)
        engine.store.rows[place] = created
        engine.store.busy.clear()
    found = finding.result()
    assert found is not None
    assert found.status is Status.PENDING
    assert engine.store.outcomes == {}


@pytest.mark.parametrize("late_ms", [0, 30 * DAY_MS], ids=["within retention", "after retention"])
async def test_a_key_that_moves_between_the_reads_is_read_again_from_its_pointer(late_ms: int) -> None:
    engine = Engine()
    engine.at_due(late_ms)
    ended = await stored(engine)
    await engine.store.finish(SHARD, [builders.end(ended, outcome(ended))])
    engine.store.outcomes.clear()
    moved = row(schedule(schedule_key=KEY, version=2))

    async def taken_over() -> None:
        await engine.store.create(moved, pointer(moved), replaces=engine.store.pointers[CLIENT, KEY])

    before(engine, "read_key_state", taken_over)
    found = await find(engine)
    assert found is not None
    assert (found.position, found.status) == (moved.position, Status.PENDING)
    assert engine.store.outcomes == {}


async def test_an_end_between_the_reads_is_found_by_the_read_of_all_three() -> None:
    engine = Engine()
    ended = await damaged(engine)

    async def its_outcome() -> None:
        engine.store.outcomes[CLIENT, KEY, ended.position] = outcome(ended)

    before(engine, "read_key_state", its_outcome)
    found = await find(engine)
    assert found is not None
    assert found.status is Status.DELIVERED


# --- a row that could not be read


async def test_a_schedule_whose_row_was_unreadable_is_answered_as_failed_and_its_key_is_free() -> None:
    # An older version answered 503 for as long as the retention.
    engine = Engine()
    lost = await damaged(engine)
    engine.at_due(late_ms=1_000)
    found = await find(engine)
    assert found is not None
    assert found.outcome is not None
    assert (found.status, found.outcome.failure) == (Status.FAILED, Failure(reason=UNREADABLE, attempts=0))
    assert found.outcome.expires_at_s == (DUE_MS + 1_000 + RETENTION_MS) // 1_000
    assert await find(engine) == found
    assert list(engine.store.outcomes) == [(CLIENT, KEY, lost.position)]
    again = await engine.create(new(digest="d2"))
    assert isinstance(again, Created)
    assert again.view.version == 2


async def test_every_request_about_such_a_key_is_answered_by_its_failure() -> None:
    async def engine_of() -> Engine:
        engine = Engine()
        await damaged(engine)
        return engine

    for answer in (
        await (await engine_of()).cancel(CLIENT, KEY),
        await (await engine_of()).change(CLIENT, KEY, to(due_ms=DUE_MS + 1)),
        await (await engine_of()).retry(CLIENT, KEY),
    ):
        assert isinstance(answer, Refused)
        assert answer.reason is Reason.FAILED
    assert isinstance(await (await engine_of()).create(new(digest="digest")), AlreadyCreated)
    assert isinstance(await (await engine_of()).create(new(digest="another")), Created)
    assert await (await engine_of()).discarder.discard(CLIENT, KEY, "any") == NotOpen(Status.FAILED, readable=False)
    history = await (await engine_of()).requests.history(ANYONE, CLIENT, KEY, after=None, limit=1)
    assert isinstance(history, HistoryPage)
    assert [each.state for each in history.outcomes] == [EndState.FAILED]


async def test_of_two_readers_that_find_it_unreadable_the_first_decides() -> None:
    engine = Engine()
    lost = await damaged(engine)
    first = outcome(lost, EndState.FAILED, at_ms=5)

    async def is_faster() -> None:
        engine.store.outcomes[CLIENT, KEY, lost.position] = first

    before(engine, "put_unreadable_outcome", is_faster)
    found = await find(engine)
    assert found is not None
    assert found.outcome == first


async def test_no_outcome_is_written_by_a_clock_that_is_not_trusted() -> None:
    # Days ahead, it would call the retention over; days behind, it would call an expired outcome an unreadable row.
    engine = Engine()
    await damaged(engine)
    engine.trust.is_trusted = False
    with pytest.raises(ClockUntrusted):
        await find(engine)
    assert engine.store.outcomes == {}


# --- retention


@pytest.mark.parametrize("due_ms", [DUE_MS, DUE_MS - 400 * DAY_MS], ids=["due after acceptance", "due long before"])
async def test_a_pointer_alone_is_unknown_after_retention_and_not_before(due_ms: int) -> None:
    # Retention counts from the later of due time and end, and a schedule ends after it was accepted.
    engine = Engine()
    engine.at_due()
    created = await engine.create(new(due_ms=due_ms))
    assert isinstance(created, Created)
    engine.store.rows.clear()
    engine.clock.advance_ms(RETENTION_MS - 3_600_000)
    found = await find(engine)
    assert found is not None
    assert found.status is Status.FAILED
    engine.store.outcomes.clear()
    engine.clock.advance_ms(3_600_000)
    for answer in (await engine.cancel(CLIENT, KEY), await engine.change(CLIENT, KEY, to(due_ms=1))):
        assert isinstance(answer, NotFound)
    assert await find(engine) is None
    assert isinstance(await engine.retry(CLIENT, KEY), NotFound)
    assert await engine.requests.history(ANYONE, CLIENT, KEY, after=None, limit=1) == NotFound()


async def test_an_outcome_that_expires_is_over_at_once_for_every_clock() -> None:
    # A clock that is some seconds behind reads the key when its outcome has just been deleted.
    engine = Engine()
    delivered = await stored(engine)
    end = outcome(delivered, at_ms=DUE_MS + 5, expires_at_s=(DUE_MS + RETENTION_MS) // 1_000)
    await engine.store.finish(SHARD, [builders.end(delivered, end)])
    engine.clock.set_ms(end.expires_at_s * 1_000 - 4_000)
    assert await find(engine) is not None
    engine.store.outcomes.clear()
    assert await find(engine) is None


async def test_an_expired_outcome_counts_as_absent_and_as_the_end_of_retention_though_it_is_still_stored() -> None:
    engine = Engine()
    ended = await stored(engine)
    await engine.store.finish(SHARD, [builders.end(ended, outcome(ended, expires_at_s=DUE_MS // 1_000))])
    engine.at_due()
    assert await find(engine) is None
    assert isinstance(await engine.create(new(digest="d2")), Created)


async def test_what_ended_under_a_shorter_retention_is_unknown_and_not_failed_after_that_was_raised() -> None:
    # Its outcome has expired by the old retention, of one day. By the new one it could not have, so its row would seem to
    # have been unreadable; its pointer's date tells.
    engine = Engine()
    ended = row(schedule(schedule_key=KEY))
    old = pointer(ended, expires_at_s=(DUE_MS + DAY_MS + POINTER_MARGIN_MS) // 1_000)
    engine.store.pointers[CLIENT, KEY] = old
    engine.clock.set_ms(DUE_MS + DAY_MS)
    assert await find(engine) is None
    assert engine.store.outcomes == {}


# --- taking a key over


async def test_a_pending_key_is_not_taken_over_whatever_its_pointers_date_says() -> None:
    # Its client has been paused for months.
    engine = Engine()
    waiting = row(schedule(schedule_key=KEY))
    await engine.store.create(waiting, pointer(waiting, expires_at_s=1), replaces=None)
    engine.clock.advance_ms(100 * DAY_MS)
    assert isinstance(await engine.create(new(digest="d2")), KeyTaken)
    assert list(engine.store.rows) == [(SHARD, waiting.position)]


async def test_a_key_is_taken_over_only_from_the_very_pointer_whose_end_was_read() -> None:
    # Between the read and the write the pointer is deleted, and another schedule accepted under the key: its version is the
    # same, because versions begin anew.
    engine = Engine()
    ended = await stored(engine)
    await engine.store.finish(SHARD, [builders.end(ended, outcome(ended))])
    other = row(schedule(schedule_key=KEY))
    assert other.schedule.version == ended.schedule.version
    create = engine.store.create

    async def begins_anew(
        row: Row, pointer: Pointer, *, replaces: Pointer | None, note: NoteChange | None = None
    ) -> None:
        if replaces is not None:
            del engine.store.pointers[CLIENT, KEY]
            await create(other, builders.pointer(other, digest="other"), replaces=None)
        await create(row, pointer, replaces=replaces, note=note)

    engine.store.create = begins_anew  # type: ignore[method-assign]
    answer = await engine.create(new(digest="d2"))
    assert isinstance(answer, KeyTaken)
    assert list(engine.store.rows) == [(SHARD, other.position)]


async def test_a_pointer_outlives_the_retention_of_its_schedule_by_sixty_days() -> None:
    engine = Engine()
    await engine.create(new())
    assert engine.store.pointers[CLIENT, KEY].expires_at_s == (DUE_MS + RETENTION_MS + 60 * DAY_MS) // 1_000
    moved = await engine.change(CLIENT, KEY, to(due_ms=DUE_MS + DAY_MS))
    assert moved is not None
    assert engine.store.pointers[CLIENT, KEY].expires_at_s == (DUE_MS + RETENTION_MS + 61 * DAY_MS) // 1_000
