"""`JobStore`, and the rows of jobs among all others."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from clockwork.domain.command_notes import CommandNote, CommandOffset, NoteChange
from clockwork.domain.jobs.job import (
    ArmedRow,
    Backfill,
    CompletionPolicy,
    CompletionResult,
    JobName,
    JobState,
    JobStatus,
    JobTransaction,
    OpenRun,
    RetryOn,
    RunCompletion,
    RunCounts,
    RunDelivery,
    RunRequest,
    SkippedTimes,
    SkipReason,
    TakenRow,
    armed_row,
)
from clockwork.domain.jobs.next_occurrence import Misfire, MisfirePolicy, OverlapPolicy
from clockwork.domain.jobs.steps import after_end, delete, ended_row, run_delivery_of, run_now
from clockwork.domain.position import LAST, Position
from clockwork.domain.retry import BackoffPolicy, RetryPolicy
from clockwork.domain.run import Chain, JobId, RunId, RunKind, RunOfRow
from clockwork.domain.schedule import ClientId, OnLate, RequestId, Retry, Row
from clockwork.domain.triggers.cron import Days, Dialect
from clockwork.domain.triggers.dst import GapRule, OverlapRule
from clockwork.domain.triggers.trigger import AnyOf, FixedDelay, FixedRate, Jitter, JitterPer, Rule, Trigger, cron
from clockwork.errors import ConditionFailed, TransactionConflict
from clockwork.ports.jobs import JobStore, StaleRevision
from clockwork.ports.store import ScheduleStore
from tests.support import builders
from tests.support.builders import CLIENT, gone
from tests.support.jobs import NOW_MS, SHARDS, created, definition, delivered, failed, new_job, step_context, the_row

MINUTE = 60_000
HOLD = RequestId("hold")
FIRST = Position(1)


async def _made(jobs: JobStore, **fields: Any) -> JobTransaction:
    change = created(new_job(**fields))
    await jobs.change(change)
    return change


async def _next(jobs: JobStore, before: JobTransaction, now_ms: int | None = None) -> JobTransaction:
    """The row of a change has ended, and the next one is armed."""
    row = the_row(before)
    end = delivered(row, now_ms)
    job = await jobs.read_definition(before.name, before.state.version)
    assert job is not None
    change = after_end(before.state, job, ended_row(row, end), step_context(end.at_ms))
    await jobs.change(change)
    return change


def _after(state: JobState, **fields: Any) -> JobTransaction:
    """A change of the state alone."""
    at = step_context()
    return JobTransaction(before_rev=state.rev, state=replace(state, rev=state.rev + 1, write_id=at.write_id, **fields))


async def _rows(store: ScheduleStore, of: Row) -> Sequence[Any]:
    return (await store.read_page(of.shard, after=None, rows_max=100)).rows


# --- one transaction


async def test_a_created_job_has_its_state_its_definition_and_its_row(jobs: JobStore, store: ScheduleStore) -> None:
    change = await _made(jobs)
    row = the_row(change)

    assert await jobs.read_state(change.name) == change.state
    assert await jobs.read_state(change.name, committed=True) == change.state
    assert await jobs.read_definition(change.name, 1) == change.definition
    assert await _rows(store, row) == (row,)
    assert await store.read_row(row.name) == row
    assert await store.read_pointer(CLIENT, row.schedule.schedule_key) is None


async def test_a_job_that_was_never_made_has_nothing(jobs: JobStore) -> None:
    name = JobName(CLIENT, JobId("none"))

    assert await jobs.read_state(name) is None
    assert await jobs.read_state(name, committed=True) is None
    assert await jobs.read_definition(name, 1) is None
    assert await jobs.read_run_delivery(name, FIRST) is None
    assert await jobs.read_completion(name, FIRST) is None
    assert await jobs.read_request(name, "r") is None
    assert await jobs.read_command_note(name) is None
    assert await jobs.read_states([name]) == {}


async def test_the_same_change_again_is_the_same_change(jobs: JobStore, store: ScheduleStore) -> None:
    change = await _made(jobs)
    await jobs.change(change)

    assert await jobs.read_state(change.name) == change.state
    assert len(await _rows(store, the_row(change))) == 1


async def test_another_create_fails_and_is_told_the_state(jobs: JobStore, store: ScheduleStore) -> None:
    change = await _made(jobs)
    with pytest.raises(StaleRevision) as changed:
        await jobs.change(created(new_job(task_data=b"other")))

    assert changed.value.state == change.state
    assert len(await _rows(store, the_row(change))) == 1


async def test_a_change_at_another_revision_writes_nothing_and_is_told_the_state(
    jobs: JobStore, store: ScheduleStore
) -> None:
    first = await _made(jobs)
    second = await _next(jobs, first)
    late = run_now(first.state, definition(first), step_context(), request_id="r")
    with pytest.raises(StaleRevision) as changed:
        await jobs.change(late)

    assert changed.value.state == second.state
    assert await jobs.read_request(first.name, "r") is None
    assert the_row(late) not in await _rows(store, the_row(late))


async def test_two_changes_of_one_revision_with_one_id_are_not_the_same(jobs: JobStore) -> None:
    # A request that tries again from the same state: its first copy may be applied late.
    first = await _made(jobs)
    one = _after(first.state, pause_reason="one")
    other = replace(one, state=replace(one.state, pause_reason="other"))
    await jobs.change(one)
    with pytest.raises(StaleRevision) as changed:
        await jobs.change(other)

    assert changed.value.state == one.state


async def test_a_change_of_a_job_that_is_not_there_fails(jobs: JobStore) -> None:
    change = created()
    with pytest.raises(StaleRevision) as changed:
        await jobs.change(_after(change.state))

    assert changed.value.state is None


async def test_a_taken_row_is_deleted_with_the_change(jobs: JobStore, store: ScheduleStore) -> None:
    first = await _made(jobs)
    row = the_row(first)
    await store.hold(row.name, HOLD)
    await jobs.change(delete(first.state, [TakenRow(name=row.name, hold=HOLD)], step_context()))

    assert await _rows(store, row) == ()
    state = await jobs.read_state(first.name)
    assert state is not None
    assert (state.status, state.armed) == (JobStatus.DELETED, None)


@pytest.mark.parametrize("lost", ["hold", "row"])
async def test_a_row_that_its_owner_took_is_not_taken(jobs: JobStore, store: ScheduleStore, lost: str) -> None:
    first = await _made(jobs)
    row = the_row(first)
    await store.hold(row.name, HOLD)
    if lost == "hold":
        await store.drop_hold(row.name)
    else:
        await store.finish(row.shard, [gone(row)])
    with pytest.raises(ConditionFailed) as failure:
        await jobs.change(delete(first.state, [TakenRow(name=row.name, hold=HOLD)], step_context()))

    assert not isinstance(failure.value, StaleRevision)
    assert await jobs.read_state(first.name) == first.state


async def test_a_repair_is_made_only_if_the_row_is_not_there(jobs: JobStore, store: ScheduleStore) -> None:
    first = await _made(jobs)
    row = the_row(first)
    repair = replace(_after(first.state), absent=row.name)
    with pytest.raises(ConditionFailed) as failure:
        await jobs.change(repair)
    assert not isinstance(failure.value, StaleRevision)

    await store.finish(row.shard, [gone(row)])
    await jobs.change(repair)

    assert await jobs.read_state(first.name) == repair.state


async def test_changes_of_several_jobs_at_once_fail_each_alone(jobs: JobStore) -> None:
    made = [await _made(jobs, job_id=JobId(f"job-{number}")) for number in range(8)]
    stale = replace(_after(made[3].state), before_rev=made[3].state.rev - 1)
    changes = [stale if number == 3 else _after(each.state, pause_reason="new") for number, each in enumerate(made)]
    results = await asyncio.gather(*map(jobs.change, changes), return_exceptions=True)

    assert [type(result) for result in results] == [StaleRevision if n == 3 else type(None) for n in range(8)]
    states = await jobs.read_states([each.name for each in made])
    assert [states[each.name].pause_reason for each in made] == [None if n == 3 else "new" for n in range(8)]


async def test_of_two_changes_at_once_from_one_state_one_is_made(jobs: JobStore) -> None:
    first = await _made(jobs)
    changes = [_after(first.state, pause_reason=str(number)) for number in range(5)]

    async def repeated(change: JobTransaction) -> bool:
        while True:
            try:
                await jobs.change(change)
            except StaleRevision:
                return False
            except TransactionConflict:
                continue
            else:
                return True

    results = await asyncio.gather(*map(repeated, changes))

    assert sorted(results) == [False] * 4 + [True]
    state = await jobs.read_state(first.name)
    assert state is not None
    assert state.pause_reason == str(results.index(True))


# --- what is stored


def _armed(kind: RunKind, number: int) -> ArmedRow:
    row = builders.row(shard=number % SHARDS)
    job = RunOfRow(
        rev=1,
        version=number,
        kind=kind,
        chain=Chain.MAIN,
        scheduled_at_ms=NOW_MS + number,
        cursor_ms=NOW_MS + 2 * number,
        run_id=RunId(f"run-{number}"),
        attempt=number,
    )
    return armed_row(replace(row, run=job))


FULL = {
    "status": JobStatus.PAUSED,
    "armed": _armed(RunKind.WATCHDOG, 1),
    "cursor_ms": NOW_MS + 1,
    "open_run": OpenRun(
        run_id=RunId("s1"),
        kind=RunKind.RETRY,
        attempt=3,
        scheduled_at_ms=NOW_MS,
        position=builders.position(),
        delivered_at_ms=NOW_MS + 3,
        until_ms=NOW_MS + 4,
    ),
    "side_rows": tuple(_armed(RunKind.MANUAL, number) for number in range(2, 12)),
    "backfill": Backfill(request_digits="0a1b2c3d", armed=_armed(RunKind.BACKFILL, 12), to_ms=NOW_MS, left=7),
    "failures": 2,
    "counts": RunCounts(delivered=1, failed=2, skipped=2**40, of_trigger=3),
    "tz_release": "2026f",
    "pause_reason": 'why "so" — ü',
    "paused_since_ms": NOW_MS + 5,
    "expires_at_s": 2_000_000_000,
}


async def test_every_field_of_a_state_is_read_as_it_was_written(jobs: JobStore) -> None:
    first = await _made(jobs)
    change = _after(first.state, **FULL)
    await jobs.change(change)

    assert await jobs.read_state(first.name) == change.state
    assert await jobs.read_states([first.name]) == {first.name: change.state}


RULES: list[Rule] = [
    cron("0 9 * * MON-FRI", time_zone="Europe/Berlin"),
    cron("30 2 * * 1", dialect=Dialect.UNIX, days=Days.OR, gap=GapRule.SKIP, overlap=OverlapRule.BOTH),
    FixedRate(every_ms=90_000, anchor_ms=NOW_MS + 1),
    FixedDelay(delay_ms=1_500),
    AnyOf(of=(cron("0 9 * * *"), FixedRate(every_ms=60_000, anchor_ms=NOW_MS))),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
async def test_every_trigger_is_read_as_it_was_written(jobs: JobStore, rule: Rule) -> None:
    trigger = Trigger(
        rule=rule,
        start_ms=NOW_MS - 1,
        end_ms=NOW_MS + 10**10,
        runs_max=7,
        jitter=Jitter(most_ms=500, per=JitterPer.RUN),
    )
    change = await _made(jobs, trigger=trigger)
    job = await jobs.read_definition(change.name, 1)

    assert job == change.definition
    assert job is not None
    assert job.trigger is not None
    assert job.trigger.next_after(NOW_MS) == trigger.next_after(NOW_MS)


async def test_every_field_of_a_definition_is_read_as_it_was_written(jobs: JobStore, store: ScheduleStore) -> None:
    retry = RetryPolicy(attempts_max=3, backoff=BackoffPolicy(initial_ms=1, max_ms=5, factor_percent=150))
    change = await _made(
        jobs,
        job_id=JobId("größer / 1"),
        headers=(("a", "1"), ("b", "ü")),
        traceparent="00-x",
        deadline_ms=5,
        on_late=OnLate.DEAD_LETTER,
        retry=replace(retry, jitter_percent=10),
        misfire=Misfire(policy=MisfirePolicy.FIRE_ALL, grace_ms=2_000, catch_up_max=7, window_ms=5_000),
        overlap=OverlapPolicy.WAIT,
        completion=CompletionPolicy(timeout_ms=9_000, retry=retry, retry_on=frozenset(RetryOn)),
        pause_after_failures=4,
        durable=True,
        interpolate=True,
        payload_schema=b'{"type":"object"}',
        description="what it does",
        labels=(("env", "test"), ("team", "x")),
        priority=3,
        task_data=bytes(range(256)),
    )
    job = definition(change)

    assert await jobs.read_definition(change.name, 1) == job
    assert await store.read_row(the_row(change).name) == the_row(change)


async def test_a_job_without_a_trigger_is_stored_too(jobs: JobStore) -> None:
    change = await _made(jobs, trigger=None, durable=True)

    assert await jobs.read_definition(change.name, 1) == change.definition
    assert await jobs.read_state(change.name) == change.state


# --- rows of jobs


async def test_the_end_of_a_jobs_row_leaves_no_outcome_under_a_key(jobs: JobStore, store: ScheduleStore) -> None:
    change = await _made(jobs)
    row = the_row(change)
    await store.finish(row.shard, [gone(row)])

    assert await _rows(store, row) == ()
    assert await store.read_outcome(CLIENT, row.schedule.schedule_key, row.position) is None


async def test_a_job_and_a_schedule_of_one_name_know_nothing_of_each_other(
    jobs: JobStore, store: ScheduleStore
) -> None:
    change = await _made(jobs)
    row = the_row(change)
    schedule = builders.row(builders.schedule(schedule_key=row.schedule.schedule_key), shard=row.shard)
    await store.create(schedule, builders.pointer(schedule), replaces=None)
    await jobs.change(_after(change.state, pause_reason="n"))
    await store.finish(row.shard, [gone(row)])

    assert await _rows(store, row) == (schedule,)
    assert await store.read_pointer(CLIENT, row.schedule.schedule_key) == builders.pointer(schedule)


async def test_holds_and_retries_of_a_jobs_row_are_those_of_any_row(jobs: JobStore, store: ScheduleStore) -> None:
    row = the_row(await _made(jobs))
    retry = Retry(at_ms=NOW_MS + 1, epoch=3, attempts=1)

    assert await store.hold(row.name, HOLD) == replace(row, hold=HOLD)
    assert await store.set_retry(row.name, retry, drop_hold=True)
    assert await store.read_rows(row.shard, [row.position]) == {row.position: replace(row, retry=retry)}


# --- completions


def _moved(by: str, before: tuple[CommandOffset, ...] = ()) -> NoteChange:
    place = CommandOffset(kafka_partition=0, offset=len(before) + 1, at_ms=NOW_MS)
    return NoteChange(before=before, after=CommandNote(offsets=(place,), by=by, expires_at_s=NOW_MS // 1_000 + 60))


@pytest.mark.parametrize("noted", [False, True])
async def test_the_first_completion_of_a_run_stands(jobs: JobStore, noted: bool) -> None:
    change = await _made(jobs, completion=CompletionPolicy(timeout_ms=5_000))
    first, note = _completion(change.name, the_row(change).position), _moved("a") if noted else None
    await jobs.put_completion(first, command=note)
    await jobs.put_completion(first, command=note)  # the same again
    late = replace(first, result=CompletionResult.TIMED_OUT)
    with pytest.raises(ConditionFailed):
        await jobs.put_completion(late, command=_moved("b", note.after.offsets if note is not None else ()))

    assert await jobs.read_completion(change.name, first.position) == first
    found = await jobs.read_command_note(change.name)
    assert found == (note.after if note is not None else None)
    assert await jobs.read_state(change.name) == change.state


async def test_a_completion_by_a_command_that_is_over_is_not_put(jobs: JobStore) -> None:
    change = await _made(jobs, completion=CompletionPolicy(timeout_ms=5_000))
    note = _moved("a")
    await jobs.note_command(change.name, note)
    with pytest.raises(ConditionFailed):
        await jobs.put_completion(_completion(change.name, the_row(change).position), command=_moved("b"))
    assert await jobs.read_completion(change.name, the_row(change).position) is None

    after = _moved("b", note.after.offsets)
    await jobs.put_completion(_completion(change.name, the_row(change).position), command=after)
    assert await jobs.read_command_note(change.name) == after.after


# --- runs


def _run_delivery(change: JobTransaction, **fields: Any) -> RunDelivery:
    row = the_row(change)
    end = run_delivery_of(row, delivered(row), retention_ms=60_000)
    assert end is not None
    return replace(end, **fields)


async def test_the_end_of_a_run_is_read_as_it_was_written(jobs: JobStore) -> None:
    change = await _made(jobs, completion=CompletionPolicy(timeout_ms=5_000))
    row = the_row(change)
    dead = run_delivery_of(row, failed(row), retention_ms=60_000)
    assert dead is not None
    await jobs.put_run_deliveries([dead], keep_existing=False)

    assert await jobs.read_run_delivery(change.name, row.position) == dead


async def test_ends_of_runs_are_put_again_freely_and_the_last_stands(jobs: JobStore) -> None:
    change = await _made(jobs)
    await jobs.put_run_deliveries([_run_delivery(change)], keep_existing=False)
    again = _run_delivery(change, at_ms=NOW_MS + 9)
    await jobs.put_run_deliveries([again], keep_existing=False)

    assert await jobs.read_run_delivery(change.name, again.position) == again


async def test_under_at_least_once_the_first_end_of_a_run_stands(jobs: JobStore) -> None:
    change = await _made(jobs)
    first = _run_delivery(change)
    await jobs.put_run_deliveries([first], keep_existing=True)
    await jobs.put_run_deliveries([_run_delivery(change, at_ms=NOW_MS + 9)], keep_existing=True)

    assert await jobs.read_run_delivery(change.name, first.position) == first


@pytest.mark.parametrize("keep_existing", [False, True])
async def test_many_ends_of_many_jobs_are_put_in_one_call(jobs: JobStore, keep_existing: bool) -> None:
    ends = [_run_delivery(created(new_job(job_id=JobId(f"job-{number}")))) for number in range(60)]
    await jobs.put_run_deliveries(ends, keep_existing=keep_existing)

    assert [await jobs.read_run_delivery(end.name, end.position) for end in ends] == ends


def _skipped(name: JobName, at: Position) -> SkippedTimes:
    return SkippedTimes(
        client_id=name.client_id,
        job_id=name.job_id,
        position=at,
        reason=SkipReason.OVERLAP,
        first_ms=NOW_MS,
        last_ms=NOW_MS + MINUTE,
        count=10**6,
        at_ms=NOW_MS + 2 * MINUTE,
        expires_at_s=2_000_000_000,
    )


def _completion(name: JobName, at: Position, **fields: Any) -> RunCompletion:
    defaults: dict[str, Any] = {
        "run_id": RunId("s1"),
        "attempt": 2,
        "result": CompletionResult.FAILED,
        "finished_at_ms": NOW_MS + 9,
        "started_at_ms": NOW_MS + 1,
        "document": b'{"why":"x"}',
        "expires_at_s": 2_000_000_000,
    }
    return RunCompletion(client_id=name.client_id, job_id=name.job_id, position=at, **{**defaults, **fields})


async def test_the_log_is_read_newest_first_page_by_page_with_completions(jobs: JobStore) -> None:
    change = await _made(jobs)
    other = await _made(jobs, job_id=JobId("nightly-2"))
    name = change.name
    places = [builders.position(NOW_MS + number * MINUTE) for number in range(6)]
    runs = [_run_delivery(change, position=at) for at in places[:5]]
    skipped = _skipped(name, places[5])
    completion = _completion(name, places[4])
    await jobs.put_run_deliveries([*runs, _run_delivery(other)], keep_existing=False)
    await jobs.change(replace(_after(change.state), entries=(skipped, completion)))

    page = await jobs.read_log(name, first=FIRST, last=LAST, entries_max=3)
    assert page.entries == (skipped, runs[4], runs[3])
    assert dict(page.completions) == {places[4]: completion}
    assert page.next_from is not None
    rest = await jobs.read_log(name, first=places[1], last=page.next_from, entries_max=10)
    assert rest.entries == (runs[2], runs[1])
    assert (dict(rest.completions), rest.next_from) == ({}, None)
    assert await jobs.read_completion(name, places[4]) == completion


async def test_a_run_is_completed_once(jobs: JobStore) -> None:
    change = await _made(jobs)
    at = the_row(change).position
    first = replace(_after(change.state), entries=(_completion(change.name, at),))
    await jobs.change(first)
    again = _completion(change.name, at, result=CompletionResult.COMPLETED, started_at_ms=None, document=None)
    with pytest.raises(ConditionFailed):
        await jobs.change(replace(_after(first.state), entries=(again,)))

    assert await jobs.read_completion(change.name, at) == _completion(change.name, at)
    assert await jobs.read_state(change.name) == first.state


async def test_a_request_for_runs_is_known_by_its_id_and_accepted_once(jobs: JobStore, store: ScheduleStore) -> None:
    first = await _made(jobs)
    change = run_now(first.state, definition(first), step_context(), request_id="über/1", digest="d")
    await jobs.change(change)
    assert isinstance(change.request, RunRequest)
    assert await jobs.read_request(first.name, "über/1") == change.request

    again = run_now(change.state, definition(first), step_context(), request_id="über/1", digest="d")
    with pytest.raises(ConditionFailed):
        await jobs.change(again)

    assert await jobs.read_state(first.name) == change.state
    assert await store.read_row(the_row(again).name) is None


# --- commands


def _note(offset: int, by: str) -> CommandNote:
    place = CommandOffset(kafka_partition=1, offset=offset, at_ms=NOW_MS)
    return CommandNote(offsets=(place,), by=by, expires_at_s=2_000_000_000)


async def test_a_command_moves_its_note_with_the_change_or_alone(jobs: JobStore) -> None:
    first = await _made(jobs)
    note = NoteChange(before=(), after=_note(5, "one"))
    await jobs.change(replace(_after(first.state), command=note))
    assert await jobs.read_command_note(first.name) == note.after

    further = NoteChange(before=note.after.offsets, after=_note(6, "two"))
    await jobs.note_command(first.name, further)
    await jobs.note_command(first.name, further)

    assert await jobs.read_command_note(first.name) == further.after


async def test_a_command_that_was_processed_changes_nothing(jobs: JobStore) -> None:
    first = await _made(jobs)
    await jobs.note_command(first.name, NoteChange(before=(), after=_note(5, "one")))
    stale = NoteChange(before=(), after=_note(4, "two"))
    with pytest.raises(ConditionFailed):
        await jobs.change(replace(_after(first.state), command=stale))
    with pytest.raises(ConditionFailed):
        await jobs.note_command(first.name, stale)

    assert await jobs.read_state(first.name) == first.state


# --- versions


async def _versions(jobs: JobStore, count: int) -> JobTransaction:
    change = await _made(jobs)
    job = definition(change)
    for version in range(2, count + 1):
        before = change.state
        after = _after(before, version=version)
        change = replace(after, definition=replace(job, version=version, description=f"v{version}"))
        await jobs.change(change)
    return change


async def test_versions_are_read_newest_first_and_pruned(jobs: JobStore) -> None:
    change = await _versions(jobs, 12)
    await _made(jobs, job_id=JobId("nightly-2"))

    async def numbers(below: int | None = None, versions_max: int = 100) -> list[int]:
        found = await jobs.read_versions(change.name, below=below, versions_max=versions_max)
        return [job.version for job in found]

    assert await numbers(versions_max=3) == [12, 11, 10]
    assert await numbers(below=10, versions_max=3) == [9, 8, 7]
    await jobs.prune_versions(change.state, below=11)
    await jobs.prune_versions(change.state, below=11)

    assert await numbers() == [12, 11]
    assert await jobs.read_definition(change.name, 12) == change.definition


async def test_a_job_that_is_forgotten_leaves_neither_state_nor_definitions(jobs: JobStore) -> None:
    change = await _versions(jobs, 3)
    other = await _made(jobs, job_id=JobId("nightly-2"))
    with pytest.raises(ConditionFailed):
        await jobs.forget(replace(change.state, rev=change.state.rev - 1))
    assert await jobs.read_definition(change.name, 3) == change.definition

    await jobs.forget(change.state)
    await jobs.forget(change.state)

    assert await jobs.read_state(change.name) is None
    assert await jobs.read_versions(change.name, below=None, versions_max=10) == []
    assert await jobs.read_state(other.name) == other.state


async def test_definitions_are_pruned_by_their_number_and_never_those_of_a_job_that_was_made_anew(
    jobs: JobStore,
) -> None:
    # An audit that was paused: meanwhile its job was forgotten, and made anew with version 1 under the same name.
    change = await _versions(jobs, 3)
    await jobs.forget(change.state)
    anew = created(new_job(), NOW_MS + MINUTE)
    await jobs.change(anew)

    await jobs.prune_versions(change.state, below=3)

    assert await jobs.read_definition(anew.name, 1) == anew.definition
    with pytest.raises(ConditionFailed):
        await jobs.forget(change.state)
    assert await jobs.read_definition(anew.name, 1) == anew.definition


# --- many jobs


async def test_a_clients_jobs_are_listed_by_their_ids_page_by_page(jobs: JobStore) -> None:
    ids = ["a", "Z", "ä", "b/2", "b-1"]
    for job_id in ids:
        await _made(jobs, job_id=JobId(job_id))
    await _made(jobs, job_id=JobId("other"), client_id=ClientId("client-2"))
    seen: list[str] = []
    after: JobId | None = None
    while True:
        page = await jobs.list_jobs(CLIENT, after=after, jobs_max=2)
        seen += [name.job_id for name in page.names]
        if page.next_after is None:
            break
        after = page.next_after.job_id

    assert seen == sorted(ids, key=lambda job_id: job_id.encode())
    assert await jobs.count_jobs(CLIENT, at_most=100) == 5
    assert await jobs.count_jobs(CLIENT, at_most=3) == 3
    assert await jobs.count_jobs(ClientId("client-3"), at_most=3) == 0


async def test_each_job_is_in_one_segment_of_a_scan(jobs: JobStore) -> None:
    names = {(await _made(jobs, job_id=JobId(f"job-{number}"))).name for number in range(20)}
    seen: list[JobName] = []
    for segment in range(4):
        after: JobName | None = None
        while True:
            page = await jobs.scan_jobs(segment, 4, after=after, jobs_max=2)
            seen += page.names
            after = page.next_after
            if after is None:
                break

    assert len(seen) == len(names)
    assert set(seen) == names


async def test_states_of_many_jobs_are_read_in_one_call(jobs: JobStore) -> None:
    made = [await _made(jobs, job_id=JobId(f"job-{number}")) for number in range(120)]
    states = await jobs.read_states([each.name for each in made] + [JobName(CLIENT, JobId("none"))])

    assert states == {each.name: each.state for each in made}
