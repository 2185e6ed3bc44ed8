"""The steps of a job: the state and the row that follow, as pure functions.

    create ──► armed ──► its row has ended ──► armed ──► …                 `create`, `after_end`
                 │
                 ├─ PUT, pause, resume, delete, restore                    the row is taken, another one put, or none
                 ├─ run by hand, backfill                                  chains of their own, beside it
                 └─ row or state lost                                      `repair`, `arm_again`

Each step takes the state as it was read and returns a `JobChange`: one transaction on condition of that state's revision.
So of two steps from one state one is made, and the other begins again from what it finds. A job has at most one row of its
main chain: a step that puts one takes the one before it, or follows its end.

A request takes the armed row by hold and look, as a reschedule does. If it comes too late for that, the row is *in flight*:
the step is made all the same, the state goes on naming the row, and what follows its end is computed from the state as it
is by then. The request tells its client which rows are in flight (`in_flight`).

Exclusive jobs (`Job.exclusive`) have a run open between the delivery and the completion. Meanwhile the armed row is the
*watchdog*, due at the time-out; completion and time-out take the same row, so one of them wins.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import blake2b
from typing import Final, TypedDict

from clockwork.domain.jobs.calendar import CalendarDigests, digests_of
from clockwork.domain.jobs.interpolation import RunValues, interpolated
from clockwork.domain.jobs.job import (
    ArmedRow,
    Backfill,
    CompletionResult,
    ImportedJob,
    Job,
    JobChange,
    JobState,
    JobStatus,
    LogEntry,
    NewJob,
    OpenRun,
    RetryOn,
    RunCompletion,
    RunCounts,
    RunEnd,
    RunRequest,
    SkippedRuns,
    SkipReason,
    TakenRow,
    armed_row,
    job_name_of,
    job_of,
)
from clockwork.domain.jobs.misfire import (
    Armed,
    ArmedKind,
    Decision,
    Ended,
    MisfirePolicy,
    Overlap,
    Skipped,
    after_exclusive_run,
    after_run,
    excluded_before,
    first_not_due,
)
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.position import RANDOM_DIGITS, Position, accepted_ms_of, new_position
from clockwork.domain.run import (
    REQUEST_DIGITS,
    Chain,
    JobOfRow,
    RunData,
    RunId,
    RunKind,
    backfill_run,
    is_by_hand,
    manual_run,
    scheduled_run,
)
from clockwork.domain.schedule import DataForm, Failure, OnLate, RequestId, Row, Schedule, ScheduleKey, outcome_expiry_s
from clockwork.domain.sharding import shard_of
from clockwork.domain.triggers.trigger import FixedDelay, Trigger
from clockwork.domain.triggers.zones import RULES_VERSION

ROW_LOST: Final = "row_lost"
"""Reason of a run by hand that has failed because its row, and with it the data that were given for it, was deleted by
hand."""
CLOCKS_MS: Final = 10_000
"""More than the clocks of two nodes may differ by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """The circumstances of one step. A step that is computed again, from another state, has a moment of its own."""

    now_ms: int
    accepted_us: int
    random: int
    """In [0, 10^8). Position and skipped entry are unique by it and the time of acceptance."""
    by: RequestId
    """The new state's `by`, and the delivery id of a new row."""
    shards: int
    """Number of shards in the cluster."""
    retention_ms: int
    arms: bool = True
    """False: nothing is armed by triggers (`CLOCKWORK_JOBS=manual`)."""
    tz: str = RULES_VERSION


# --- creation


def create(new: NewJob, before: JobState | None, at: Moment, *, principal: str | None = None) -> JobChange:
    """A job that is made. `before`: the state that a deleted job has left, or one whose retention is over: versions and
    revisions go on, and no fire time up to that of a row in flight is fired again. Such a row stays named, beside the runs
    by hand: without that, a later delete would say that nothing is delivered any more, and this row would be."""
    job = Job(
        **new.fields(),
        version=before.version + 1 if before is not None else 1,
        created_at_ms=new.created_at_ms,
        changed_at_ms=at.now_ms,
        changed_by=principal,
    )
    pending = tuple(before.pending()) if before is not None else ()
    decided_ms = max((before.cursor_ms, *(each.scheduled_at_ms for each in pending))) if before is not None else 0
    state = JobState(
        client_id=job.client_id,
        job_id=job.job_id,
        rev=max(at.accepted_us, before.rev + 1 if before is not None else 0),
        version=job.version,
        status=JobStatus.ACTIVE,
        digest=new.digest,
        created_at_ms=new.created_at_ms,
        updated_at_ms=new.created_at_ms,
        by=at.by,
        cursor_ms=max(at.now_ms, decided_ms),
        single=tuple(each for each in pending if each.kind is not RunKind.WATCHDOG),
        tz=at.tz,
        calendars=digests_of(job.trigger),
    )
    change = JobChange(
        before_rev=before.rev if before is not None else None,
        state=state,
        definition=job,
        calendars=state.calendars,
        **_names(before, state),
    )
    return _armed(change, job, _first(job, state, at), at)


def _first(job: Job, state: JobState, at: Moment) -> Armed | None:
    trigger, name = job.trigger, str(job.name)
    if trigger is None:
        return None
    if not isinstance(trigger.rule, FixedDelay):
        return first_not_due(trigger, job=name, cursor_ms=state.cursor_ms, now_ms=at.now_ms)
    first_ms = trigger.first_after(at.now_ms)
    if first_ms is None:
        return None
    due_ms = trigger.due_ms(first_ms, name)
    return Armed(scheduled_at_ms=first_ms, due_ms=due_ms, kind=ArmedKind.SCHEDULED, cursor_ms=first_ms)


def take_over(imported: ImportedJob, before: JobState | None, at: Moment, *, principal: str | None = None) -> JobChange:
    """A job that comes from another store. Its fire times are decided from where they were decided there, so what was missed
    on the way is caught up or skipped by its misfire policy. `before`: as of `create`; then it counts from now on."""
    made = create(imported.new, before, at, principal=principal)
    assert isinstance(made.definition, Job), "a create puts a definition"
    version = max(imported.version, made.definition.version)
    job = replace(made.definition, version=version, changed_at_ms=imported.updated_at_ms)
    state = replace(
        made.state,
        version=version,
        updated_at_ms=imported.updated_at_ms,
        armed=None,
        cursor_ms=imported.cursor_ms if before is None else max(made.state.cursor_ms, imported.cursor_ms),
        counts=imported.counts,
        failures=imported.failures,
        status=JobStatus.ACTIVE if imported.paused_since_ms is None else JobStatus.PAUSED,
        paused_since_ms=imported.paused_since_ms,
        note=imported.note,
        expires_at_s=None,
    )
    change = replace(made, state=state, definition=job, rows=())
    return change if state.status is JobStatus.PAUSED else _decided_again(change, job, at)


# --- the end of a row


class Standing(StrEnum):
    """The relation of a row that has ended to the state of its job."""

    NAMED = "named"
    """The state names it: what follows is to be armed."""
    PASSED = "passed"
    """Another step went on from it, or took the job over: nothing is to be armed."""
    AHEAD = "ahead"
    """It was seen before the state that was written with it. That is about to be applied."""


def standing(row: Row, state: JobState | None, *, settled: bool = False) -> Standing:
    """`settled`: the state was read while no transaction was being applied to it. Then a state behind the row, or none, is
    not about to be applied: it has expired, or is that of a restored table, and the row is none of its."""
    if state is None or state.rev < job_of(row).rev:
        return Standing.PASSED if settled else Standing.AHEAD
    return Standing.NAMED if state.names(row.position) else Standing.PASSED


@dataclass(frozen=True, kw_only=True, slots=True)
class EndedRow:
    """A row of a job that has ended, whichever way."""

    position: Position
    job: JobOfRow
    at_ms: int
    failed: bool = False
    dropped: bool = False
    """Its fire time was dropped for lateness, and is a part of a skipped stretch."""
    content: Schedule | None = None
    """The schedule in the row. None: the row is known by its name alone."""


def ended_row(row: Row, entry: MarkerEntry) -> EndedRow:
    """A row and how it ended by its marker."""
    job = job_of(row)
    dropped = entry.receipt is None and _is_of_trigger(job)
    return EndedRow(
        position=row.position,
        job=job,
        at_ms=entry.at_ms,
        failed=entry.failure is not None and not dropped,
        dropped=dropped,
        content=row.schedule,
    )


def run_end_of(row: Row, entry: MarkerEntry, *, retention_ms: int) -> RunEnd | None:
    """The entry of a run in the log, by its row and marker entry alone, so that every owner writes the same. None for a
    watchdog, which is no run, and for a fire time that was dropped: it is part of a skipped stretch, which is put with what
    follows."""
    job = job_of(row)
    if job.is_watchdog or (entry.receipt is None and _is_of_trigger(job)):
        return None
    return RunEnd(
        client_id=row.schedule.client_id,
        job_id=job_name_of(row).job_id,
        position=row.position,
        run_id=job.run_id,
        kind=job.kind,
        attempt=job.attempt,
        version=job.version,
        scheduled_at_ms=job.scheduled_at_ms,
        at_ms=entry.at_ms,
        receipt=entry.receipt,
        failure=entry.failure,
        timeout_ms=job.timeout_ms,
        expires_at_s=outcome_expiry_s(due_ms=row.due_ms, end_ms=entry.at_ms, retention_ms=retention_ms),
    )


def after_end(state: JobState, job: Job, ended: EndedRow, at: Moment) -> JobChange:
    """The step that follows the end of a row which the state names. `job`: the definition of the state's version."""
    match _chain_of(state, ended.position):
        case Chain.SINGLE:
            left = tuple(each for each in state.single if each.position != ended.position)
            # One that the row itself says to be of another chain is that of a job which had the name before, see `create`.
            counts = _counted(state.counts, ended) if ended.job.chain is Chain.SINGLE else state.counts
            return _change(state, at, single=left, counts=counts)
        case Chain.BACKFILL:
            return _after_backfilled(state, job, ended, at)
        case Chain.MAIN:
            return (
                _after_watchdog(state, job, ended, at) if ended.job.is_watchdog else _after_main(state, job, ended, at)
            )


def _after_main(state: JobState, job: Job, ended: EndedRow, at: Moment) -> JobChange:
    failures = state.failures
    if not ended.dropped:
        failures = failures + 1 if ended.failed else (failures if job.exclusive else 0)
    change = _change(
        state,
        at,
        armed=None,
        cursor_ms=max(state.cursor_ms, ended.job.cursor_ms),
        counts=_counted(state.counts, ended),
        failures=failures,
    )
    if job.trigger is not None and _is_of_trigger(ended.job):
        since_ms = max(state.cursor_ms + 1, state.created_at_ms)
        excluded = excluded_before(job.trigger, ended.job.scheduled_at_ms, since_ms=since_ms)
        change = _skip(change, excluded, at, reason=SkipReason.EXCLUDED)
    delivered = not ended.failed and not ended.dropped
    if delivered and job.exclusive and ended.job.timeout_ms is not None and state.status is not JobStatus.DELETED:
        return _watched(change, job, ended, ended.job.timeout_ms, at)
    change = _paused_by_failures(change, job, at)
    if ended.job.kind in (RunKind.RETRY, RunKind.MANUAL):
        # The row of an exclusive job ended without a delivery: the job goes on as after a run.
        return _after_exclusive(change, job, at)
    trigger = job.trigger
    if trigger is None or not _arms(change.state, at):
        dropped = _stretch(ended) if ended.dropped else None
        return _over(_skip(change, dropped, at), job, at)
    decision = after_run(
        trigger,
        job.misfire,
        Ended(
            scheduled_at_ms=ended.job.scheduled_at_ms,
            cursor_ms=change.state.cursor_ms,
            ended_ms=ended.at_ms,
            dropped=ended.dropped,
        ),
        job=str(job.name),
        runs=change.state.counts.of_trigger,
        now_ms=at.now_ms,
    )
    return _decided(change, job, decision, at)


def _after_backfilled(state: JobState, job: Job, ended: EndedRow, at: Moment) -> JobChange:
    before = state.backfill
    assert before is not None, "the state names the row"
    counts = _counted(state.counts, ended)
    trigger = job.trigger
    timetable = None if trigger is None or isinstance(trigger.rule, FixedDelay) else trigger
    next_ms = timetable.next_after(ended.job.cursor_ms) if timetable is not None else None
    if state.status is JobStatus.DELETED or before.left < 1 or next_ms is None or next_ms > before.to_ms:
        return _change(state, at, backfill=None, counts=counts)
    change = _change(state, at, counts=counts)
    row = _backfill_row(change.state, job, next_ms, before.request_digits, at)
    backfill = replace(before, armed=armed_row(row), left=before.left - 1)
    return replace(change, state=replace(change.state, backfill=backfill), rows=(row,))


# --- requests. The armed row is taken by hold and look before these steps, or is in flight.


def to_be_taken(state: JobState, *, deletes: bool = False) -> Sequence[ArmedRow]:
    """The rows that a request takes for a PUT or a pause; `deletes`: for a delete. A watchdog stays but for a delete: the
    run that it watches was delivered. So does a run by hand, of an exclusive job as of any other, and another attempt of
    it: its client was told that it runs, and only its row has the data that may have been given for it."""
    if deletes:
        return tuple(state.pending())
    armed = state.armed
    return () if armed is None or armed.kind is RunKind.WATCHDOG or is_by_hand(armed.run_id) else (armed,)


def in_flight(state: JobState, taken: Sequence[TakenRow], *, deletes: bool = False) -> Sequence[ArmedRow]:
    """The rows that are still delivered as they were before, although a request asked for something else."""
    positions = {each.name.position for each in taken}
    rows = state.pending() if deletes or state.armed is None else (state.armed,)
    return tuple(each for each in rows if each.position not in positions and each.kind is not RunKind.WATCHDOG)


def update(state: JobState, job: Job, wanted: Job, taken: Sequence[TakenRow], at: Moment) -> JobChange:
    """A PUT: `wanted` is the definition from now on, `job` the one before. Another trigger counts from now on, and never
    fires at once; with the same one the armed time stays."""
    version = state.version + 1
    wanted = replace(wanted, version=version, created_at_ms=state.created_at_ms, changed_at_ms=at.now_ms)
    change = _redefined(_change(state, at, updated_at_ms=at.now_ms), state, wanted)
    armed = _taken_of(state, taken)
    same = wanted.trigger == job.trigger
    change = replace(change, taken=tuple(taken), calendars=() if same else change.state.calendars)
    if state.status is JobStatus.ENDED and not same:
        # It goes on, also if a run by hand is armed or open: what follows that is armed by an active job only.
        change = replace(change, state=replace(change.state, status=JobStatus.ACTIVE, expires_at_s=None))
    if same and state.armed is not None and armed is None:
        return change  # in flight, or a watchdog: what follows is decided from the new definition
    if armed is not None and state.status is JobStatus.ACTIVE and (same or not _of_fire_time(armed)):
        if not same:
            # Another attempt of a run: behind it the new trigger counts from now on, too.
            change = _from_now_on(change, wanted, at)
        return _put_again(change, wanted, armed, at)
    return _from_now_on(_without(change, armed, at), wanted, at)


def pause(state: JobState, taken: Sequence[TakenRow], at: Moment, *, note: str | None) -> JobChange:
    """A pause: nothing is armed any more. An open run stays open."""
    change = _change(state, at, status=JobStatus.PAUSED, note=note, paused_since_ms=at.now_ms, updated_at_ms=at.now_ms)
    return replace(_without(change, _taken_of(state, taken), at), taken=tuple(taken))


def resume(state: JobState, job: Job, at: Moment) -> JobChange:
    """The end of a pause. Nothing that was missed is caught up."""
    change = _change(
        state, at, status=JobStatus.ACTIVE, note=None, paused_since_ms=None, failures=0, updated_at_ms=at.now_ms
    )
    return _from_now_on(change, job, at)


def delete(state: JobState, taken: Sequence[TakenRow], at: Moment) -> JobChange:
    """A soft delete. Rows that are in flight stay named until they have ended; nothing follows them."""
    positions = {each.name.position for each in taken}
    armed, backfill = state.armed, state.backfill
    keeps_armed = armed is not None and armed.position not in positions
    change = _change(
        state,
        at,
        status=JobStatus.DELETED,
        armed=armed if keeps_armed else None,
        open_run=state.open_run if keeps_armed else None,
        single=tuple(each for each in state.single if each.position not in positions),
        backfill=backfill if backfill is not None and backfill.armed.position not in positions else None,
        updated_at_ms=at.now_ms,
        expires_at_s=_expiry_s(at),
    )
    return replace(_without(change, _taken_of(state, taken), at), taken=tuple(taken))


def restore(state: JobState, job: Job, at: Moment, *, calendars: CalendarDigests = ()) -> JobChange:
    """A deleted job comes back as it was, active or paused. Nothing that was missed is caught up. `job` is its definition,
    resolved with the calendars as they are now, of which `calendars` are there: a deleted job does not follow them."""
    paused = state.paused_since_ms is not None
    change = _change(
        state,
        at,
        status=JobStatus.PAUSED if paused else JobStatus.ACTIVE,
        expires_at_s=None,
        updated_at_ms=at.now_ms,
    )
    if digests_of(job.trigger) != state.calendars:
        job = replace(job, version=state.version + 1, changed_at_ms=at.now_ms)
        change = _redefined(change, state, job)
    return _from_now_on(replace(change, calendars=calendars), job, at)


def run_now(
    state: JobState,
    job: Job,
    at: Moment,
    *,
    request_id: str,
    digest: str = "",
    task_data: bytes | None = None,
    data_form: DataForm = DataForm.JSON,
    taken: Sequence[TakenRow] = (),
) -> JobChange:
    """A run by hand, due now. Of an exclusive job it takes the place of the armed row, which is `taken`: the next
    occurrence follows it. Only if no run is open."""
    data = RunData.JOB
    if task_data is not None:
        job, data = replace(job, task_data=task_data, data_form=data_form), RunData.GIVEN
    chain = Chain.MAIN if job.exclusive else Chain.SINGLE
    change = _change(state, at)
    row = _row(
        change.state,
        job,
        at,
        kind=RunKind.MANUAL,
        chain=chain,
        run_id=manual_run(at.now_ms, request_digits(request_id)),
        scheduled_at_ms=at.now_ms,
        cursor_ms=state.cursor_ms,
        due_ms=at.now_ms,
        data=data,
    )
    named = armed_row(row)
    new = replace(change.state, armed=named) if job.exclusive else replace(change.state, single=(*state.single, named))
    return replace(
        change, state=new, rows=(row,), taken=tuple(taken), request=_request(new, named, request_id, digest, at)
    )


def start_backfill(
    state: JobState,
    job: Job,
    at: Moment,
    *,
    request_id: str,
    digest: str = "",
    from_ms: int,
    to_ms: int,
    runs_max: int,
) -> JobChange | None:
    """Runs of the fire times from one time to another, both included, at most so many. None: there is no fire time, or the
    trigger has none that are known beforehand."""
    trigger = job.trigger
    if trigger is None or isinstance(trigger.rule, FixedDelay):
        return None
    first_ms = trigger.next_after(from_ms - 1)
    if first_ms is None or first_ms > to_ms:
        return None
    change = _change(state, at)
    digits = request_digits(request_id)
    row = _backfill_row(change.state, job, first_ms, digits, at)
    named = armed_row(row)
    backfill = Backfill(request_digits=digits, armed=named, to_ms=to_ms, left=runs_max - 1)
    new = replace(change.state, backfill=backfill)
    return replace(change, state=new, rows=(row,), request=_request(new, named, request_id, digest, at))


def precedes(position: Position, state: JobState) -> bool:
    """True for a row that was certainly accepted before the job was made: it is one of a job that had the name before."""
    return accepted_ms_of(position) + CLOCKS_MS < state.created_at_ms


def request_digits(request_id: str) -> str:
    """The part of a run's id that names its request."""
    return blake2b(request_id.encode(), digest_size=REQUEST_DIGITS // 2).hexdigest()


# --- completion of an exclusive job's run


def close_run(
    state: JobState,
    job: Job,
    result: CompletionResult,
    at: Moment,
    *,
    taken: Sequence[TakenRow] = (),
    started_at_ms: int | None = None,
    document: bytes | None = None,
    may_retry: bool = True,
    content: Schedule | None = None,
) -> JobChange:
    """The end of the open run: by its consumer, with the watchdog `taken`, or by the time-out. Another attempt follows, or
    the next occurrence. `content`: that of the watchdog, which has the data that were given for its run; None: it is not
    known."""
    run = state.open_run
    assert run is not None, "a run is open"
    # No run ends before its delivery. Two nodes have noted the two times, and their clocks may differ by more than the run
    # has taken: a delay that counts from its end would begin before it.
    at = replace(at, now_ms=max(at.now_ms, run.delivered_at_ms))
    failed = result is not CompletionResult.COMPLETED
    entry = RunCompletion(
        client_id=state.client_id,
        job_id=state.job_id,
        position=run.position,
        run_id=run.run_id,
        attempt=run.attempt,
        result=result,
        finished_at_ms=at.now_ms,
        started_at_ms=started_at_ms,
        document=document,
        expires_at_s=_expiry_s(at),
    )
    change = replace(_change(state, at, armed=None, open_run=None), taken=tuple(taken), entries=(entry,))
    if state.status is JobStatus.DELETED:
        return change
    if failed and may_retry and _may_go_on(change.state, run.run_id, at):
        row = _retry_row(change.state, job, run, result, _data_of_watchdog(state), content, at)
        if row is not None:
            return replace(change, state=replace(change.state, armed=armed_row(row)), rows=(row,))
    # A run that has failed, and not an attempt: one that succeeds in the end ends the failures in a row.
    failures = state.failures + 1 if failed else 0
    change = replace(change, state=replace(change.state, failures=failures))
    return _after_exclusive(_paused_by_failures(change, job, at), job, at)


def close_completed(
    state: JobState,
    job: Job,
    stands: RunCompletion,
    at: Moment,
    *,
    taken: Sequence[TakenRow] = (),
    content: Schedule | None = None,
) -> JobChange:
    """The end of the open run whose completion is in the log already: put before the run was opened, or the state is that of
    a table that was restored to an earlier time. What stands counts, and is not put again. Without this no step would end
    the run: each puts a completion, on condition that none is there."""
    may_retry = stands.result is not CompletionResult.COMPLETED
    closed = close_run(state, job, stands.result, at, taken=taken, may_retry=may_retry, content=content)
    return replace(closed, entries=tuple(each for each in closed.entries if not isinstance(each, RunCompletion)))


def extend_run(
    state: JobState, job: Job, until_ms: int, at: Moment, *, taken: Sequence[TakenRow], content: Schedule | None
) -> JobChange:
    """A later time-out of the open run: another watchdog in the place of the `taken` one, with the data that it had."""
    run, armed = state.open_run, state.armed
    assert run is not None, "a run is open"
    assert armed is not None, "an open run has a watchdog"
    change = replace(_change(state, at), taken=tuple(taken))
    row = _watchdog_row(change.state, job, run, until_ms, _data_of_watchdog(state), content, at)
    open_run = replace(run, until_ms=until_ms)
    return replace(change, state=replace(change.state, armed=armed_row(row), open_run=open_run), rows=(row,))


def _after_watchdog(state: JobState, job: Job, ended: EndedRow, at: Moment) -> JobChange:
    if state.open_run is None:
        return _from_now_on(_change(state, at, armed=None), job, at)
    return close_run(state, job, CompletionResult.TIMED_OUT, at, content=ended.content)


def _may_go_on(state: JobState, run_id: RunId, at: Moment) -> bool:
    """True if another attempt of a run may be armed. One by hand was asked for, and not armed by the trigger: its attempts
    need none, and so are made of a job that has ended, and while triggers are off. Of a paused job nothing is armed."""
    if is_by_hand(run_id):
        return state.status in (JobStatus.ACTIVE, JobStatus.ENDED)
    return _arms(state, at)


def _retry_row(
    state: JobState,
    job: Job,
    run: OpenRun,
    result: CompletionResult,
    data: RunData,
    content: Schedule | None,
    at: Moment,
) -> Row | None:
    """Another attempt, by the present definition: the answer to a PUT while the run was open promised that nothing of before
    will be delivered. Data that were given for a run by hand are none of the definition's, and stay."""
    completion = job.completion
    on = RetryOn.TIMEOUT if result is CompletionResult.TIMED_OUT else RetryOn.FAILURE
    if completion is None or completion.retry is None or on not in completion.retry_on:
        return None
    job, data = _given(job, data, content)
    if completion.retry.exhausted(run.attempt) or data is RunData.LOST:
        return None
    return _row(
        state,
        job,
        at,
        kind=RunKind.RETRY,
        chain=Chain.MAIN,
        run_id=run.run_id,
        scheduled_at_ms=run.scheduled_at_ms,
        cursor_ms=state.cursor_ms,
        due_ms=completion.retry.next_at_ms(attempts=run.attempt, now_ms=at.now_ms),
        attempt=run.attempt + 1,
        data=data,
    )


def _watched(change: JobChange, job: Job, ended: EndedRow, timeout_ms: int, at: Moment) -> JobChange:
    """The watchdog of a run that was delivered now. Its lane and topic are those of the job, but nothing is sent. The time
    is what the run's own record has told its consumer; one that was in flight while the job became exclusive was not asked
    for a completion, and has no watchdog: it would time out, and be delivered again. It has the data that were given for
    its run, for another attempt."""
    run = ended.job
    open_run = OpenRun(
        run_id=run.run_id,
        kind=run.kind,
        attempt=run.attempt,
        scheduled_at_ms=run.scheduled_at_ms,
        position=ended.position,
        delivered_at_ms=ended.at_ms,
        until_ms=ended.at_ms + timeout_ms,
    )
    row = _watchdog_row(change.state, job, open_run, open_run.until_ms, run.data, ended.content, at)
    return replace(change, state=replace(change.state, armed=armed_row(row), open_run=open_run), rows=(row,))


def _watchdog_row(
    state: JobState, job: Job, run: OpenRun, until_ms: int, data: RunData, content: Schedule | None, at: Moment
) -> Row:
    job, data = _given(job, data, content)
    return _row(
        state,
        job,
        at,
        kind=RunKind.WATCHDOG,
        chain=Chain.MAIN,
        run_id=run.run_id,
        scheduled_at_ms=run.scheduled_at_ms,
        cursor_ms=state.cursor_ms,
        due_ms=until_ms,
        attempt=run.attempt,
        data=data,
    )


def _given(job: Job, data: RunData, content: Schedule | None) -> tuple[Job, RunData]:
    """The job with the data that were given for one of its runs, into which its values were put already; or as it is.
    `content`: that of a row which has them; None: they are lost."""
    if data is not RunData.GIVEN:
        return job, data
    if content is None:
        return job, RunData.LOST
    return replace(job, task_data=content.task_data, data_form=content.data_form, interpolate=False), data


def _data_of_watchdog(state: JobState) -> RunData:
    watchdog = state.armed
    assert watchdog is not None, "an open run has a watchdog"
    return watchdog.data


def _after_exclusive(change: JobChange, job: Job, at: Moment) -> JobChange:
    trigger, state = job.trigger, change.state
    if trigger is None or not _arms(state, at):
        return _over(change, job, at)
    decision = after_exclusive_run(
        trigger,
        job.overlap or Overlap.SKIP,
        job=str(job.name),
        runs=state.counts.of_trigger,
        cursor_ms=state.cursor_ms,
        now_ms=at.now_ms,
    )
    return _decided(change, job, decision, at, reason=SkipReason.OVERLAP)


def _paused_by_failures(change: JobChange, job: Job, at: Moment) -> JobChange:
    state = change.state
    if not 0 < job.pause_after_failures <= state.failures or state.status is not JobStatus.ACTIVE:
        return change
    note = f"paused after {state.failures} failed runs in a row"
    return replace(change, state=replace(state, status=JobStatus.PAUSED, note=note, paused_since_ms=at.now_ms))


# --- audit


def repair(state: JobState, job: Job, lost: ArmedRow, run_end: RunEnd | None, at: Moment) -> JobChange:
    """The step for a row that the state names and that is not there: deleted by hand, broken and dead-lettered, or of
    tables that were restored to different times. `run_end`: the log's entry of it, if there is one: then its run is over,
    and what follows it was never armed. Else it was not delivered: a fire time is decided again, as one that was missed.

    The row must still not be there when the change is made (`JobChange.absent`): what looks lost may be about to be
    applied."""
    chain = _chain_of(state, lost.position)
    lost_end = _failed_run(state, lost, at) if run_end is None else None
    end = run_end or lost_end
    if end is not None:
        ended = EndedRow(
            position=lost.position,
            job=_job_of_armed(lost, chain, rev=state.rev, timeout_ms=end.timeout_ms),
            at_ms=end.at_ms,
            failed=end.failure is not None,
        )
        change = after_end(state, job, ended, at)
    elif chain is Chain.MAIN:
        change = _main_row_again(_change(state, at, armed=None), job, lost, at)
    else:
        change = _other_row_again(state, job, lost, chain, at)
    entries = change.entries if lost_end is None else (lost_end, *change.entries)
    return replace(change, absent=state.row_name(lost), entries=entries)


def arm_again(state: JobState, job: Job, at: Moment) -> JobChange | None:
    """The step for an active job for which nothing is armed although its trigger has a fire time: it was made, or went on,
    while nothing was armed by triggers. None: nothing is missing."""
    if state.armed is not None or state.open_run is not None or state.status is not JobStatus.ACTIVE:
        return None
    change = _from_now_on(_change(state, at), job, at)
    return change if change.rows else None


def rearm(state: JobState, job: Job, taken: Sequence[TakenRow], at: Moment) -> JobChange | None:
    """The step for an armed row whose time would be another one by the present rules of time zones: as by a PUT of the
    trigger, with the row `taken`. None: it would be the same."""
    armed = state.armed
    if armed is None or not may_differ(state, job, at):
        return None
    change = replace(_change(state, at, tz=at.tz), taken=tuple(taken))
    return _from_now_on(_without(change, _taken_of(state, taken), at), job, at)


def may_differ(state: JobState, job: Job, at: Moment) -> bool:
    """True if the armed row was computed by other rules of time zones, and would stand at another time by these."""
    return state.tz != at.tz and moves(state, job, at.now_ms)


def follow_calendars(state: JobState, wanted: Job, taken: Sequence[TakenRow], at: Moment) -> JobChange:
    """The step after a change of a named calendar: `wanted` is the definition resolved with the calendars as they are now.
    Fire times are decided from now on, as by a PUT of the trigger; `taken`: the armed row, if it is `outdated` and
    not in flight. A row that stays where it is stays as it is.

    Unlike a PUT it has no condition on the calendars. The calendars were read after the state, and a change of one of them
    is followed by a look at each job that names it: that look finds this step made, or makes it fail."""
    wanted = replace(wanted, version=state.version + 1, created_at_ms=state.created_at_ms, changed_at_ms=at.now_ms)
    change = replace(_redefined(_change(state, at, updated_at_ms=at.now_ms), state, wanted), taken=tuple(taken))
    armed = _taken_of(state, taken)
    if state.armed is not None and armed is None:
        return change
    return _from_now_on(_without(change, armed, at), wanted, at)


def outdated(state: JobState, job: Job, now_ms: int) -> bool:
    """True if the armed row is one of a fire time that this definition does not have, or not as the next one. `job` is the
    definition after a change of a calendar; the row may be of the one before."""
    armed, trigger = state.armed, job.trigger
    if armed is None or trigger is None or not _of_fire_time(armed) or not _has_timetable(trigger):
        return False
    return trigger.last_at(armed.scheduled_at_ms) != armed.scheduled_at_ms or moves(state, job, now_ms)


def moves(state: JobState, job: Job, now_ms: int) -> bool:
    """True if the armed row is ahead, and would stand at another time by this definition and the present rules of time
    zones."""
    armed, trigger = state.armed, job.trigger
    if armed is None or trigger is None or not _of_fire_time(armed) or not _has_timetable(trigger):
        return False
    if armed.due_ms <= now_ms or state.status is not JobStatus.ACTIVE:
        return False
    wanted = first_not_due(
        trigger, job=str(job.name), cursor_ms=state.cursor_ms, now_ms=now_ms, runs=state.counts.of_trigger
    )
    return wanted is None or wanted.due_ms != armed.due_ms


def _decided_again(change: JobChange, job: Job, at: Moment) -> JobChange:
    """Decides the fire times after the cursor, as after a run that was on time."""
    trigger, state = job.trigger, change.state
    if trigger is None or not _arms(state, at):
        return _over(change, job, at)
    name, cursor_ms = str(job.name), state.cursor_ms
    on_time = Ended(scheduled_at_ms=cursor_ms, cursor_ms=cursor_ms, ended_ms=trigger.due_ms(cursor_ms, name))
    decision = after_run(trigger, job.misfire, on_time, job=name, runs=state.counts.of_trigger, now_ms=at.now_ms)
    return _decided(change, job, decision, at)


def _failed_run(state: JobState, lost: ArmedRow, at: Moment) -> RunEnd | None:
    """The end of a run by hand whose row is lost, and with it the data that were given for it: it has failed. With the job's
    own data it would be another run than the one that was asked for."""
    of_none = state.status is JobStatus.DELETED or precedes(lost.position, state)
    if lost.data is not RunData.GIVEN or lost.kind is RunKind.WATCHDOG or of_none:
        return None
    return RunEnd(
        client_id=state.client_id,
        job_id=state.job_id,
        position=lost.position,
        run_id=lost.run_id,
        kind=lost.kind,
        attempt=lost.attempt,
        version=lost.version,
        scheduled_at_ms=lost.scheduled_at_ms,
        at_ms=at.now_ms,
        failure=Failure(reason=ROW_LOST, attempts=0),
        expires_at_s=_expiry_s(at),
    )


def _main_row_again(change: JobChange, job: Job, lost: ArmedRow, at: Moment) -> JobChange:
    """A lost row of the main chain; the state does not name it any more."""
    state = change.state
    if lost.kind is RunKind.WATCHDOG:
        return change if state.open_run is None else _put_again(change, job, lost, at)
    if is_by_hand(lost.run_id) and state.status is not JobStatus.DELETED:
        return _put_again(change, job, lost, at)
    if not _arms(state, at):
        return change
    if _of_fire_time(lost) and _has_timetable(job.trigger) and lost.cursor_ms == lost.scheduled_at_ms:
        return _decided_again(change, job, at)
    # Also one that had waited for another run: the fire times behind it are skipped already.
    return _put_again(change, job, lost, at)


def _other_row_again(state: JobState, job: Job, lost: ArmedRow, chain: Chain, at: Moment) -> JobChange:
    """A lost run by hand, or of a backfill: the same again, unless the job is deleted, or the run was that of a job before
    it."""
    change = _change(state, at)
    single = tuple(each for each in state.single if each.position != lost.position)
    backfill = state.backfill
    of_job_before = chain is Chain.SINGLE and (lost.kind is not RunKind.MANUAL or precedes(lost.position, state))
    if state.status is JobStatus.DELETED or of_job_before:
        return _change(state, at, single=single, backfill=None if chain is Chain.BACKFILL else backfill)
    row = _row_of_armed(change.state, job, lost, chain, at)
    if chain is Chain.SINGLE:
        new = replace(change.state, single=(*single, armed_row(row)))
    else:
        assert backfill is not None, "the state names the row"
        new = replace(change.state, backfill=replace(backfill, armed=armed_row(row)))
    return replace(change, state=new, rows=(row,))


# --- parts


def _change(state: JobState, at: Moment, **fields: object) -> JobChange:
    """The change of a state, one revision on."""
    new = replace(state, rev=state.rev + 1, by=at.by, **fields)  # type: ignore[arg-type]
    return JobChange(before_rev=state.rev, state=new)


def _redefined(change: JobChange, before: JobState, job: Job) -> JobChange:
    """The change with another definition."""
    state = replace(change.state, version=job.version, calendars=digests_of(job.trigger))
    return replace(change, state=state, definition=job, **_names(before, state))


class _Names(TypedDict):
    names: tuple[str, ...]
    names_no_more: tuple[str, ...]


def _names(before: JobState | None, state: JobState) -> _Names:
    """The notes beside calendars that a change of the state puts, and deletes."""
    old = {name for name, _ in before.calendars} if before is not None else set()
    new = {name for name, _ in state.calendars}
    return _Names(names=tuple(sorted(new - old)), names_no_more=tuple(sorted(old - new)))


def _arms(state: JobState, at: Moment) -> bool:
    return at.arms and state.status is JobStatus.ACTIVE


def _from_now_on(change: JobChange, job: Job, at: Moment) -> JobChange:
    """Arms the first fire time that is not due yet, unless a row is in flight or a run open: then what follows it. What was
    missed up to now counts as decided."""
    state, trigger = change.state, job.trigger
    if trigger is not None and state.status is not JobStatus.PAUSED:
        due_ms = trigger.last_due_at(at.now_ms, str(job.name))
        state = replace(state, cursor_ms=max(state.cursor_ms, due_ms if due_ms is not None else 0))
        change = replace(change, state=state)
    if state.armed is not None or state.status is JobStatus.DELETED or state.status is JobStatus.PAUSED:
        return change
    if trigger is None:
        return _over(change, job, at)
    first = first_not_due(
        trigger, job=str(job.name), cursor_ms=state.cursor_ms, now_ms=at.now_ms, runs=state.counts.of_trigger
    )
    return _armed(change, job, first, at)


def _decided(
    change: JobChange, job: Job, decision: Decision, at: Moment, *, reason: SkipReason = SkipReason.MISFIRE
) -> JobChange:
    """Arms what was decided, and notes what was skipped: up to there all fire times are decided."""
    change = _skip(change, decision.excluded, at, reason=SkipReason.EXCLUDED)
    change = _skip(change, decision.dropped, at)
    change = _skip(change, decision.skipped, at, reason=reason)
    armed = decision.armed
    if decision.skipped is not None and (armed is None or decision.skipped.last_ms < armed.scheduled_at_ms):
        cursor_ms = max(change.state.cursor_ms, decision.skipped.last_ms)
        change = replace(change, state=replace(change.state, cursor_ms=cursor_ms))
    return _armed(change, job, armed, at)


def _armed(change: JobChange, job: Job, armed: Armed | None, at: Moment) -> JobChange:
    """Puts the row of the occurrence, and names it. None: the trigger is over."""
    if armed is None:
        return _over(change, job, at)
    if not at.arms:
        return change
    row = _row(
        change.state,
        job,
        at,
        kind=RunKind(armed.kind.value),
        chain=Chain.MAIN,
        run_id=scheduled_run(armed.scheduled_at_ms),
        scheduled_at_ms=armed.scheduled_at_ms,
        cursor_ms=armed.cursor_ms,
        due_ms=armed.due_ms,
    )
    return replace(change, state=replace(change.state, armed=armed_row(row), tz=at.tz), rows=(row,))


def _over(change: JobChange, job: Job, at: Moment) -> JobChange:
    """Nothing follows. An active job that is not durable has ended, unless only named calendars keep it from firing: they
    may change, and a job that has ended comes back by nothing but a PUT."""
    state = replace(change.state, armed=None)
    if _arms(state, at) and not job.durable and not _kept_by_calendars(job, state, at):
        state = replace(state, status=JobStatus.ENDED, expires_at_s=_expiry_s(at))
    elif state.status is JobStatus.ENDED and job.durable:
        state = replace(state, status=JobStatus.ACTIVE, expires_at_s=None)
    return replace(change, state=state)


def _kept_by_calendars(job: Job, state: JobState, at: Moment) -> bool:
    trigger = job.trigger
    if trigger is None or not state.calendars:
        return False
    left = trigger.runs_max is None or state.counts.of_trigger < trigger.runs_max
    return left and trigger.kept_by_calendars(max(state.cursor_ms, at.now_ms))


def _put_again(change: JobChange, job: Job, armed: ArmedRow, at: Moment) -> JobChange:
    """The same occurrence in a new row of the main chain."""
    row = _row_of_armed(change.state, job, armed, Chain.MAIN, at)
    return replace(change, state=replace(change.state, armed=armed_row(row)), rows=(row,))


def _without(change: JobChange, armed: ArmedRow | None, at: Moment) -> JobChange:
    """The armed row is taken; None: it is not, and stays named. One that had waited for another run is noted as skipped: the
    fire times behind it are noted already."""
    if armed is None:
        return change
    change = replace(change, state=replace(change.state, armed=None))
    if not _of_fire_time(armed) or armed.cursor_ms == armed.scheduled_at_ms:
        return change
    waited = Skipped(first_ms=armed.scheduled_at_ms, last_ms=armed.scheduled_at_ms, count=1)
    return _skip(change, waited, at, reason=SkipReason.OVERLAP)


def _taken_of(state: JobState, taken: Sequence[TakenRow]) -> ArmedRow | None:
    armed = state.armed
    return armed if armed is not None and any(each.name.position == armed.position for each in taken) else None


def _row(
    state: JobState,
    job: Job,
    at: Moment,
    *,
    kind: RunKind,
    chain: Chain,
    run_id: RunId,
    scheduled_at_ms: int,
    cursor_ms: int,
    due_ms: int,
    attempt: int = 1,
    data: RunData = RunData.JOB,
) -> Row:
    """The row of an occurrence, for the state that is written with it."""
    deadline_ms, on_late = job.deadline_ms, job.on_late
    trigger = job.trigger
    if job.misfire.policy is MisfirePolicy.SKIP and kind is RunKind.SCHEDULED and trigger is not None:
        # Judged again when it fires: it may wait for longer than its grace by then.
        deadline_ms, on_late = job.misfire.grace_of(trigger, scheduled_at_ms), OnLate.DROP
    previous_at_ms = _previous_ms(trigger, scheduled_at_ms)
    task_data = job.task_data
    if job.interpolate:
        run = RunValues(
            scheduled_at_ms=scheduled_at_ms,
            previous_at_ms=previous_at_ms,
            run_id=run_id,
            job_id=job.job_id,
            version=job.version,
        )
        task_data = interpolated(task_data, job.data_form, run)
    schedule = Schedule(
        client_id=job.client_id,
        schedule_key=ScheduleKey(job.job_id),
        ordering_key=job.ordering_key,
        due_ms=due_ms,
        topic=job.topic,
        guarantee=job.guarantee,
        task_data=task_data,
        data_form=job.data_form,
        headers=job.headers,
        traceparent=job.traceparent,
        deadline_ms=deadline_ms,
        on_late=on_late,
        retry=job.retry,
        created_at_ms=at.now_ms,
        version=job.version,
        delivery_id=at.by,
    )
    return Row(
        shard=shard_of(job.ordering_key, at.shards),
        position=new_position(due_ms=due_ms, accepted_us=at.accepted_us, random=at.random),
        schedule=schedule,
        job=JobOfRow(
            rev=state.rev,
            version=job.version,
            kind=kind,
            chain=chain,
            scheduled_at_ms=scheduled_at_ms,
            cursor_ms=cursor_ms,
            run_id=run_id,
            attempt=attempt,
            data=data,
            previous_at_ms=previous_at_ms,
            timeout_ms=job.completion.timeout_ms if job.completion is not None else None,
            priority=job.priority,
        ),
    )


def _row_of_armed(state: JobState, job: Job, armed: ArmedRow, chain: Chain, at: Moment) -> Row:
    return _row(
        state,
        job,
        at,
        kind=armed.kind,
        chain=chain,
        run_id=armed.run_id,
        scheduled_at_ms=armed.scheduled_at_ms,
        cursor_ms=armed.cursor_ms,
        due_ms=armed.due_ms,
        attempt=armed.attempt,
        # A watchdog's are needed no more if they are lost: there is no other attempt then.
        data=RunData.LOST if armed.data is RunData.GIVEN else armed.data,
    )


def _backfill_row(state: JobState, job: Job, scheduled_at_ms: int, digits: str, at: Moment) -> Row:
    return _row(
        state,
        job,
        at,
        kind=RunKind.BACKFILL,
        chain=Chain.BACKFILL,
        run_id=backfill_run(scheduled_at_ms, digits),
        scheduled_at_ms=scheduled_at_ms,
        cursor_ms=scheduled_at_ms,
        due_ms=at.now_ms,
    )


def _request(state: JobState, named: ArmedRow, request_id: str, digest: str, at: Moment) -> RunRequest:
    return RunRequest(
        client_id=state.client_id,
        job_id=state.job_id,
        request_id=request_id,
        run_id=named.run_id,
        position=named.position,
        digest=digest,
        expires_at_s=_expiry_s(at),
    )


def _skip(
    change: JobChange, skipped: Skipped | None, at: Moment, *, reason: SkipReason = SkipReason.MISFIRE
) -> JobChange:
    if skipped is None:
        return change
    state = change.state
    entry: LogEntry = SkippedRuns(
        client_id=state.client_id,
        job_id=state.job_id,
        # Beside that of a row which this step puts, and that of another entry.
        position=new_position(
            due_ms=skipped.last_ms,
            accepted_us=at.accepted_us,
            random=(at.random + 1 + len(change.entries)) % 10**RANDOM_DIGITS,
        ),
        reason=reason,
        first_ms=skipped.first_ms,
        last_ms=skipped.last_ms,
        count=skipped.count,
        at_ms=at.now_ms,
        expires_at_s=_expiry_s(at),
    )
    change = replace(change, entries=(*change.entries, entry))
    if reason is SkipReason.EXCLUDED:
        return change  # no fire times, so none that were skipped
    counts = replace(state.counts, skipped=state.counts.skipped + skipped.count)
    return replace(change, state=replace(state, counts=counts))


def _counted(counts: RunCounts, ended: EndedRow) -> RunCounts:
    if ended.dropped:
        return counts  # a part of a skipped stretch, which is counted by itself
    return replace(
        counts,
        delivered=counts.delivered + (not ended.failed),
        failed=counts.failed + ended.failed,
        of_trigger=counts.of_trigger + _is_of_trigger(ended.job),
    )


def _stretch(ended: EndedRow) -> Skipped:
    return Skipped(first_ms=ended.job.scheduled_at_ms, last_ms=ended.job.scheduled_at_ms, count=1)


def _of_fire_time(armed: ArmedRow) -> bool:
    """False for retries, runs by hand and watchdogs."""
    return armed.kind in (RunKind.SCHEDULED, RunKind.CATCH_UP)


def _is_of_trigger(job: JobOfRow) -> bool:
    """True for the first attempt of a fire time."""
    return job.kind in (RunKind.SCHEDULED, RunKind.CATCH_UP)


def _has_timetable(trigger: Trigger | None) -> bool:
    return trigger is not None and not isinstance(trigger.rule, FixedDelay)


def _previous_ms(trigger: Trigger | None, scheduled_at_ms: int) -> int | None:
    return trigger.last_at(scheduled_at_ms - 1) if trigger is not None else None


def _chain_of(state: JobState, position: Position) -> Chain:
    """The chain of a row by its state. The row itself says another one if a job that had the name before has left it."""
    if any(each.position == position for each in state.single):
        return Chain.SINGLE
    backfill = state.backfill
    return Chain.BACKFILL if backfill is not None and backfill.armed.position == position else Chain.MAIN


def _job_of_armed(armed: ArmedRow, chain: Chain, *, rev: int, timeout_ms: int | None) -> JobOfRow:
    return JobOfRow(
        rev=rev,
        version=armed.version,
        kind=armed.kind,
        chain=chain,
        scheduled_at_ms=armed.scheduled_at_ms,
        cursor_ms=armed.cursor_ms,
        run_id=armed.run_id,
        attempt=armed.attempt,
        data=armed.data,
        timeout_ms=timeout_ms,
    )


def _expiry_s(at: Moment) -> int:
    return outcome_expiry_s(due_ms=at.now_ms, end_ms=at.now_ms, retention_ms=at.retention_ms)
