"""The steps of a job: the state and the row that follow, as pure functions.

    create ──► armed ──► its row has ended ──► armed ──► …                 `create`, `after_end`
                 │
                 ├─ PUT, pause, resume, delete, restore                    the row is taken, another one put, or none
                 ├─ run by hand, backfill                                  chains of their own, beside it
                 └─ row missing, or nothing armed                          `repair`, `arm_missing`

Each step takes the state as it was read and returns a `JobTransaction`: one transaction on condition of that state's
revision. So of two steps from one state one is made, and the other begins again from what it finds. A job has at most
one row of its main chain: a step that puts one takes the one before it, or follows its end.

A request takes the armed row by hold and look, as a reschedule does. If it comes too late for that, the row is *in flight*:
the step is made all the same, the state goes on naming the row, and what follows its end is computed from the state as it
is by then. The request tells its client which rows are in flight.

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
    JobState,
    JobStatus,
    JobTransaction,
    LogEntry,
    NewJob,
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
    job_name_of,
    run_of_row,
)
from clockwork.domain.jobs.next_occurrence import (
    Decision,
    EndedOccurrence,
    MisfirePolicy,
    NextOccurrence,
    OccurrenceKind,
    OverlapPolicy,
    excluded_before,
    next_after_delivery,
    next_after_exclusive_run,
    next_not_due,
)
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.position import RANDOM_DIGITS, Position, accepted_ms_of, new_position
from clockwork.domain.run import (
    REQUEST_DIGITS,
    Chain,
    RunData,
    RunId,
    RunKind,
    RunOfRow,
    backfill_run,
    is_manual,
    manual_run,
    scheduled_run,
)
from clockwork.domain.schedule import (
    DataForm,
    Failure,
    OnLate,
    RequestId,
    Row,
    Schedule,
    ScheduleKey,
    outcome_expiry_s,
    with_last_refusal,
)
from clockwork.domain.sharding import shard_of
from clockwork.domain.triggers.trigger import FixedDelay, TimeStretch, Trigger
from clockwork.domain.triggers.zones import RULES_VERSION

ROW_LOST: Final = "row_lost"
"""Reason of a run by hand that has failed because its row, and with it the data that were given for it, was deleted by
hand."""
CLOCKS_MS: Final = 10_000
"""More than the clocks of two nodes may differ by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepContext:
    """The time and the ids of one step. A step that is computed again, from another state, has a context of its own."""

    now_ms: int
    accepted_us: int
    random: int
    """In [0, 10^8). Position and skipped entry are unique by it and the time of acceptance."""
    write_id: RequestId
    """The new state's `write_id`, and the delivery id of a new row."""
    shards: int
    """Number of shards in the cluster."""
    retention_ms: int
    triggers_on: bool = True
    """False: nothing is armed by triggers (`CLOCKWORK_JOBS=manual`)."""
    tz_release: str = RULES_VERSION


# --- creation


def create(
    new: NewJob, before: JobState | None, context: StepContext, *, principal: str | None = None
) -> JobTransaction:
    """A job that is made. `before`: the state that a deleted job has left, or one whose retention is over: versions and
    revisions go on, and no fire time up to that of a row in flight is fired again. Such a row stays named, beside the runs
    by hand: without that, a later delete would say that nothing is delivered any more, and this row would be."""
    job = Job(
        **new.fields(),
        version=before.version + 1 if before is not None else 1,
        created_at_ms=new.created_at_ms,
        changed_at_ms=context.now_ms,
        changed_by=principal,
    )
    pending = tuple(before.pending()) if before is not None else ()
    decided_ms = max((before.cursor_ms, *(each.scheduled_at_ms for each in pending))) if before is not None else 0
    state = JobState(
        client_id=job.client_id,
        job_id=job.job_id,
        rev=max(context.accepted_us, before.rev + 1 if before is not None else 0),
        version=job.version,
        status=JobStatus.ACTIVE,
        digest=new.digest,
        created_at_ms=new.created_at_ms,
        updated_at_ms=new.created_at_ms,
        write_id=context.write_id,
        cursor_ms=max(context.now_ms, decided_ms),
        side_rows=tuple(each for each in pending if each.kind is not RunKind.WATCHDOG),
        tz_release=context.tz_release,
        calendars=digests_of(job.trigger),
    )
    change = JobTransaction(
        before_rev=before.rev if before is not None else None,
        state=state,
        definition=job,
        calendars=state.calendars,
        **_references(before, state),
    )
    return _armed(change, job, _first(job, state, context), context)


def _first(job: Job, state: JobState, context: StepContext) -> NextOccurrence | None:
    trigger, name = job.trigger, str(job.name)
    if trigger is None:
        return None
    if not isinstance(trigger.rule, FixedDelay):
        return next_not_due(trigger, jitter_seed=name, cursor_ms=state.cursor_ms, now_ms=context.now_ms)
    first_ms = trigger.first_after(context.now_ms)
    if first_ms is None:
        return None
    due_ms = trigger.due_ms(first_ms, name)
    return NextOccurrence(scheduled_at_ms=first_ms, due_ms=due_ms, kind=OccurrenceKind.SCHEDULED, cursor_ms=first_ms)


def import_job(
    imported: ImportedJob, before: JobState | None, context: StepContext, *, principal: str | None = None
) -> JobTransaction:
    """The import of a job from another store. Its fire times go on from the cursor that it had there, so what was missed
    on the way is caught up or skipped by its misfire policy. `before`: as of `create`; then it counts from now on."""
    made = create(imported.new, before, context, principal=principal)
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
        pause_reason=imported.pause_reason,
        expires_at_s=None,
    )
    change = replace(made, state=state, definition=job, rows=())
    return change if state.status is JobStatus.PAUSED else _decided_again(change, job, context)


# --- the end of a row


class RowRelation(StrEnum):
    """The relation of a row that has ended to the state of its job."""

    CURRENT = "current"
    """The state names it: what follows is to be armed."""
    SUPERSEDED = "superseded"
    """Another step went on from it, or the job was made anew: nothing is to be armed."""
    STATE_NOT_APPLIED = "state_not_applied"
    """It was seen before the state that was written with it. That is about to be applied."""


def relation_of(row: Row, state: JobState | None, *, committed: bool = False) -> RowRelation:
    """`committed`: the state was read while no transaction was being applied to it. Then a state older than the row, or
    none, is not about to be applied: it has expired, or is that of a restored table, and the row is none of its."""
    if state is None or state.rev < run_of_row(row).rev:
        return RowRelation.SUPERSEDED if committed else RowRelation.STATE_NOT_APPLIED
    return RowRelation.CURRENT if state.has_row_at(row.position) else RowRelation.SUPERSEDED


@dataclass(frozen=True, kw_only=True, slots=True)
class EndedRow:
    """A row of a job that has ended, whichever way."""

    position: Position
    run: RunOfRow
    at_ms: int
    failed: bool = False
    dropped: bool = False
    """Its fire time was dropped for lateness, and is a part of a skipped stretch."""
    content: Schedule | None = None
    """The schedule in the row. None: the row is known by its name alone."""


def ended_row(row: Row, entry: MarkerEntry) -> EndedRow:
    """A row and how it ended by its marker."""
    run = run_of_row(row)
    dropped = entry.receipt is None and _is_of_trigger(run)
    return EndedRow(
        position=row.position,
        run=run,
        at_ms=entry.at_ms,
        failed=entry.failure is not None and not dropped,
        dropped=dropped,
        content=row.schedule,
    )


def run_delivery_of(row: Row, entry: MarkerEntry, *, retention_ms: int) -> RunDelivery | None:
    """The entry of a run in the log, by its row and marker entry alone, so that every owner writes the same. None for a
    watchdog, which is no run, and for a fire time that was dropped: it is part of a skipped stretch, which is put with what
    follows."""
    run = run_of_row(row)
    if run.is_watchdog or (entry.receipt is None and _is_of_trigger(run)):
        return None
    return RunDelivery(
        client_id=row.schedule.client_id,
        job_id=job_name_of(row).job_id,
        position=row.position,
        run_id=run.run_id,
        kind=run.kind,
        attempt=run.attempt,
        version=run.version,
        scheduled_at_ms=run.scheduled_at_ms,
        at_ms=entry.at_ms,
        receipt=entry.receipt,
        failure=with_last_refusal(entry.failure, row),
        timeout_ms=run.timeout_ms,
        expires_at_s=outcome_expiry_s(due_ms=row.due_ms, end_ms=entry.at_ms, retention_ms=retention_ms),
    )


def after_end(state: JobState, job: Job, ended: EndedRow, context: StepContext) -> JobTransaction:
    """The step that follows the end of a row which the state names. `job`: the definition of the state's version."""
    match _chain_of(state, ended.position):
        case Chain.SIDE:
            left = tuple(each for each in state.side_rows if each.position != ended.position)
            # One that the row itself says to be of another chain is that of a job which had the name before, see `create`.
            counts = _counted(state.counts, ended) if ended.run.chain is Chain.SIDE else state.counts
            return _change(state, context, side_rows=left, counts=counts)
        case Chain.BACKFILL:
            return _after_backfilled(state, job, ended, context)
        case Chain.MAIN:
            return (
                _after_watchdog(state, job, ended, context)
                if ended.run.is_watchdog
                else _after_main(state, job, ended, context)
            )


def _after_main(state: JobState, job: Job, ended: EndedRow, context: StepContext) -> JobTransaction:
    failures = state.failures
    if not ended.dropped:
        failures = failures + 1 if ended.failed else (failures if job.exclusive else 0)
    change = _change(
        state,
        context,
        armed=None,
        cursor_ms=max(state.cursor_ms, ended.run.cursor_ms),
        counts=_counted(state.counts, ended),
        failures=failures,
    )
    if job.trigger is not None and _is_of_trigger(ended.run):
        since_ms = max(state.cursor_ms + 1, state.created_at_ms)
        excluded = excluded_before(job.trigger, ended.run.scheduled_at_ms, since_ms=since_ms)
        change = _skip(change, excluded, context, reason=SkipReason.EXCLUDED)
    delivered = not ended.failed and not ended.dropped
    if delivered and job.exclusive and ended.run.timeout_ms is not None and state.status is not JobStatus.DELETED:
        return _watched(change, job, ended, ended.run.timeout_ms, context)
    change = _paused_by_failures(change, job, context)
    if ended.run.kind in (RunKind.RETRY, RunKind.MANUAL):
        # The row of an exclusive job ended without a delivery: the job goes on as after a run.
        return _after_exclusive(change, job, context)
    trigger = job.trigger
    if trigger is None or not _arms(change.state, context):
        dropped = _stretch(ended) if ended.dropped else None
        return _over(_skip(change, dropped, context), job, context)
    decision = next_after_delivery(
        trigger,
        job.misfire,
        EndedOccurrence(
            scheduled_at_ms=ended.run.scheduled_at_ms,
            cursor_ms=change.state.cursor_ms,
            ended_ms=ended.at_ms,
            dropped=ended.dropped,
        ),
        jitter_seed=str(job.name),
        runs=change.state.counts.of_trigger,
        now_ms=context.now_ms,
    )
    return _decided(change, job, decision, context)


def _after_backfilled(state: JobState, job: Job, ended: EndedRow, context: StepContext) -> JobTransaction:
    before = state.backfill
    assert before is not None, "the state names the row"
    counts = _counted(state.counts, ended)
    trigger = job.trigger
    timetable = None if trigger is None or isinstance(trigger.rule, FixedDelay) else trigger
    next_ms = timetable.next_after(ended.run.cursor_ms) if timetable is not None else None
    if state.status is JobStatus.DELETED or before.left < 1 or next_ms is None or next_ms > before.to_ms:
        return _change(state, context, backfill=None, counts=counts)
    change = _change(state, context, counts=counts)
    row = _backfill_row(change.state, job, next_ms, before.request_digits, context)
    backfill = replace(before, armed=armed_row(row), left=before.left - 1)
    return replace(change, state=replace(change.state, backfill=backfill), rows=(row,))


# --- requests. The armed row is taken by hold and look before these steps, or is in flight.


def rows_to_take(state: JobState, *, deletes: bool = False) -> Sequence[ArmedRow]:
    """The rows that a request takes for a PUT or a pause; `deletes`: for a delete. A watchdog stays but for a delete: the
    run that it watches was delivered. So does a run by hand, of an exclusive job as of any other, and another attempt of
    it: its client was told that it runs, and only its row has the data that may have been given for it."""
    if deletes:
        return tuple(state.pending())
    armed = state.armed
    return () if armed is None or armed.kind is RunKind.WATCHDOG or is_manual(armed.run_id) else (armed,)


def update(state: JobState, job: Job, wanted: Job, taken: Sequence[TakenRow], context: StepContext) -> JobTransaction:
    """A PUT: `wanted` is the definition from now on, `job` the one before. Another trigger counts from now on, and never
    fires at once; with the same one the armed time stays."""
    version = state.version + 1
    wanted = replace(wanted, version=version, created_at_ms=state.created_at_ms, changed_at_ms=context.now_ms)
    change = _redefined(_change(state, context, updated_at_ms=context.now_ms), state, wanted)
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
            change = _from_now_on(change, wanted, context)
        return _put_again(change, wanted, armed, context)
    return _from_now_on(_without(change, armed, context), wanted, context)


def pause(state: JobState, taken: Sequence[TakenRow], context: StepContext, *, note: str | None) -> JobTransaction:
    """A pause: nothing is armed any more. An open run stays open."""
    change = _change(
        state,
        context,
        status=JobStatus.PAUSED,
        pause_reason=note,
        paused_since_ms=context.now_ms,
        updated_at_ms=context.now_ms,
    )
    return replace(_without(change, _taken_of(state, taken), context), taken=tuple(taken))


def resume(state: JobState, job: Job, context: StepContext) -> JobTransaction:
    """The end of a pause. Nothing that was missed is caught up."""
    change = _change(
        state,
        context,
        status=JobStatus.ACTIVE,
        pause_reason=None,
        paused_since_ms=None,
        failures=0,
        updated_at_ms=context.now_ms,
    )
    return _from_now_on(change, job, context)


def delete(state: JobState, taken: Sequence[TakenRow], context: StepContext) -> JobTransaction:
    """A soft delete. Rows that are in flight stay named until they have ended; nothing follows them."""
    positions = {each.name.position for each in taken}
    armed, backfill = state.armed, state.backfill
    keeps_armed = armed is not None and armed.position not in positions
    change = _change(
        state,
        context,
        status=JobStatus.DELETED,
        armed=armed if keeps_armed else None,
        open_run=state.open_run if keeps_armed else None,
        side_rows=tuple(each for each in state.side_rows if each.position not in positions),
        backfill=backfill if backfill is not None and backfill.armed.position not in positions else None,
        updated_at_ms=context.now_ms,
        expires_at_s=_expiry_s(context),
    )
    return replace(_without(change, _taken_of(state, taken), context), taken=tuple(taken))


def restore(state: JobState, job: Job, context: StepContext, *, calendars: CalendarDigests = ()) -> JobTransaction:
    """A deleted job comes back as it was, active or paused. Nothing that was missed is caught up. `job` is its definition,
    resolved with the calendars as they are now, of which `calendars` are there: a deleted job does not follow them."""
    paused = state.paused_since_ms is not None
    change = _change(
        state,
        context,
        status=JobStatus.PAUSED if paused else JobStatus.ACTIVE,
        expires_at_s=None,
        updated_at_ms=context.now_ms,
    )
    if digests_of(job.trigger) != state.calendars:
        job = replace(job, version=state.version + 1, changed_at_ms=context.now_ms)
        change = _redefined(change, state, job)
    return _from_now_on(replace(change, calendars=calendars), job, context)


def run_now(
    state: JobState,
    job: Job,
    context: StepContext,
    *,
    request_id: str,
    digest: str = "",
    task_data: bytes | None = None,
    data_form: DataForm = DataForm.JSON,
    taken: Sequence[TakenRow] = (),
) -> JobTransaction:
    """A run by hand, due now. Of an exclusive job it takes the place of the armed row, which is `taken`: the next
    occurrence follows it. Only if no run is open."""
    data = RunData.JOB
    if task_data is not None:
        job, data = replace(job, task_data=task_data, data_form=data_form), RunData.GIVEN
    chain = Chain.MAIN if job.exclusive else Chain.SIDE
    change = _change(state, context)
    row = _row(
        change.state,
        job,
        context,
        kind=RunKind.MANUAL,
        chain=chain,
        run_id=manual_run(context.now_ms, request_digits(request_id)),
        scheduled_at_ms=context.now_ms,
        cursor_ms=state.cursor_ms,
        due_ms=context.now_ms,
        data=data,
    )
    named = armed_row(row)
    new = (
        replace(change.state, armed=named)
        if job.exclusive
        else replace(change.state, side_rows=(*state.side_rows, named))
    )
    return replace(
        change, state=new, rows=(row,), taken=tuple(taken), request=_request(new, named, request_id, digest, context)
    )


def start_backfill(
    state: JobState,
    job: Job,
    context: StepContext,
    *,
    request_id: str,
    digest: str = "",
    from_ms: int,
    to_ms: int,
    runs_max: int,
) -> JobTransaction | None:
    """Runs of the fire times from one time to another, both included, at most so many. None: there is no fire time, or the
    trigger has none that are known beforehand."""
    trigger = job.trigger
    if trigger is None or isinstance(trigger.rule, FixedDelay):
        return None
    first_ms = trigger.next_after(from_ms - 1)
    if first_ms is None or first_ms > to_ms:
        return None
    change = _change(state, context)
    digits = request_digits(request_id)
    row = _backfill_row(change.state, job, first_ms, digits, context)
    named = armed_row(row)
    backfill = Backfill(request_digits=digits, armed=named, to_ms=to_ms, left=runs_max - 1)
    new = replace(change.state, backfill=backfill)
    return replace(change, state=new, rows=(row,), request=_request(new, named, request_id, digest, context))


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
    context: StepContext,
    *,
    taken: Sequence[TakenRow] = (),
    started_at_ms: int | None = None,
    document: bytes | None = None,
    may_retry: bool = True,
    content: Schedule | None = None,
) -> JobTransaction:
    """The end of the open run: by its consumer, with the watchdog `taken`, or by the time-out. Another attempt follows, or
    the next occurrence. `content`: that of the watchdog, which has the data that were given for its run; None: it is not
    known."""
    run = state.open_run
    assert run is not None, "a run is open"
    # No run ends before its delivery. Two nodes have noted the two times, and their clocks may differ by more than the run
    # has taken: a delay that counts from its end would begin before it.
    context = replace(context, now_ms=max(context.now_ms, run.delivered_at_ms))
    failed = result is not CompletionResult.COMPLETED
    entry = RunCompletion(
        client_id=state.client_id,
        job_id=state.job_id,
        position=run.position,
        run_id=run.run_id,
        attempt=run.attempt,
        result=result,
        finished_at_ms=context.now_ms,
        started_at_ms=started_at_ms,
        document=document,
        expires_at_s=_expiry_s(context),
    )
    change = replace(_change(state, context, armed=None, open_run=None), taken=tuple(taken), entries=(entry,))
    if state.status is JobStatus.DELETED:
        return change
    if failed and may_retry and _may_go_on(change.state, run.run_id, context):
        row = _retry_row(change.state, job, run, result, _data_of_watchdog(state), content, context)
        if row is not None:
            return replace(change, state=replace(change.state, armed=armed_row(row)), rows=(row,))
    # A run that has failed, and not an attempt: one that succeeds in the end ends the failures in a row.
    failures = state.failures + 1 if failed else 0
    change = replace(change, state=replace(change.state, failures=failures))
    return _after_exclusive(_paused_by_failures(change, job, context), job, context)


def close_completed(
    state: JobState,
    job: Job,
    recorded: RunCompletion,
    context: StepContext,
    *,
    taken: Sequence[TakenRow] = (),
    content: Schedule | None = None,
) -> JobTransaction:
    """The end of the open run whose completion is in the log already: put before the run was opened, or the state is that of
    a table that was restored to an earlier time. What is recorded counts, and is not put again. Without this no step
    would end the run: each puts a completion, on condition that none is there."""
    may_retry = recorded.result is not CompletionResult.COMPLETED
    closed = close_run(state, job, recorded.result, context, taken=taken, may_retry=may_retry, content=content)
    return replace(closed, entries=tuple(each for each in closed.entries if not isinstance(each, RunCompletion)))


def extend_run(
    state: JobState,
    job: Job,
    until_ms: int,
    context: StepContext,
    *,
    taken: Sequence[TakenRow],
    content: Schedule | None,
) -> JobTransaction:
    """A later time-out of the open run: another watchdog in the place of the `taken` one, with the data that it had."""
    run, armed = state.open_run, state.armed
    assert run is not None, "a run is open"
    assert armed is not None, "an open run has a watchdog"
    change = replace(_change(state, context), taken=tuple(taken))
    row = _watchdog_row(change.state, job, run, until_ms, _data_of_watchdog(state), content, context)
    open_run = replace(run, until_ms=until_ms)
    return replace(change, state=replace(change.state, armed=armed_row(row), open_run=open_run), rows=(row,))


def _after_watchdog(state: JobState, job: Job, ended: EndedRow, context: StepContext) -> JobTransaction:
    if state.open_run is None:
        return _from_now_on(_change(state, context, armed=None), job, context)
    return close_run(state, job, CompletionResult.TIMED_OUT, context, content=ended.content)


def _may_go_on(state: JobState, run_id: RunId, context: StepContext) -> bool:
    """True if another attempt of a run may be armed. One by hand was asked for, and not armed by the trigger: its attempts
    need none, and so are made of a job that has ended, and while triggers are off. Of a paused job nothing is armed."""
    if is_manual(run_id):
        return state.status in (JobStatus.ACTIVE, JobStatus.ENDED)
    return _arms(state, context)


def _retry_row(
    state: JobState,
    job: Job,
    run: OpenRun,
    result: CompletionResult,
    data: RunData,
    content: Schedule | None,
    context: StepContext,
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
        context,
        kind=RunKind.RETRY,
        chain=Chain.MAIN,
        run_id=run.run_id,
        scheduled_at_ms=run.scheduled_at_ms,
        cursor_ms=state.cursor_ms,
        due_ms=completion.retry.next_at_ms(attempts=run.attempt, now_ms=context.now_ms),
        attempt=run.attempt + 1,
        data=data,
    )


def _watched(
    change: JobTransaction, job: Job, ended: EndedRow, timeout_ms: int, context: StepContext
) -> JobTransaction:
    """The watchdog of a run that was delivered now. Its lane and topic are those of the job, but nothing is sent. The time
    is what the run's own record has told its consumer; one that was in flight while the job became exclusive was not asked
    for a completion, and has no watchdog: it would time out, and be delivered again. It has the data that were given for
    its run, for another attempt."""
    run = ended.run
    open_run = OpenRun(
        run_id=run.run_id,
        kind=run.kind,
        attempt=run.attempt,
        scheduled_at_ms=run.scheduled_at_ms,
        position=ended.position,
        delivered_at_ms=ended.at_ms,
        until_ms=ended.at_ms + timeout_ms,
    )
    row = _watchdog_row(change.state, job, open_run, open_run.until_ms, run.data, ended.content, context)
    return replace(change, state=replace(change.state, armed=armed_row(row), open_run=open_run), rows=(row,))


def _watchdog_row(
    state: JobState,
    job: Job,
    run: OpenRun,
    until_ms: int,
    data: RunData,
    content: Schedule | None,
    context: StepContext,
) -> Row:
    job, data = _given(job, data, content)
    return _row(
        state,
        job,
        context,
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


def _after_exclusive(change: JobTransaction, job: Job, context: StepContext) -> JobTransaction:
    trigger, state = job.trigger, change.state
    if trigger is None or not _arms(state, context):
        return _over(change, job, context)
    decision = next_after_exclusive_run(
        trigger,
        job.overlap or OverlapPolicy.SKIP,
        jitter_seed=str(job.name),
        runs=state.counts.of_trigger,
        cursor_ms=state.cursor_ms,
        now_ms=context.now_ms,
    )
    return _decided(change, job, decision, context, reason=SkipReason.OVERLAP)


def _paused_by_failures(change: JobTransaction, job: Job, context: StepContext) -> JobTransaction:
    state = change.state
    if not 0 < job.pause_after_failures <= state.failures or state.status is not JobStatus.ACTIVE:
        return change
    note = f"paused after {state.failures} failed runs in a row"
    return replace(
        change, state=replace(state, status=JobStatus.PAUSED, pause_reason=note, paused_since_ms=context.now_ms)
    )


# --- audit


def repair(
    state: JobState, job: Job, missing: ArmedRow, run_delivery: RunDelivery | None, context: StepContext
) -> JobTransaction:
    """The step for a row that the state names and that is not there: deleted by hand, broken and dead-lettered, or of
    tables that were restored to different times. `run_delivery`: the log's entry of it, if there is one: then its run
    is over, and what follows it was never armed. Else it was not delivered: a fire time is decided again, as one that
    was missed.

    The row must still not be there when the change is made (`JobTransaction.absent`): what looks lost may be about to be
    applied."""
    chain = _chain_of(state, missing.position)
    lost_end = _failed_run(state, missing, context) if run_delivery is None else None
    end = run_delivery or lost_end
    if end is not None:
        ended = EndedRow(
            position=missing.position,
            run=_run_of_armed(missing, chain, rev=state.rev, timeout_ms=end.timeout_ms),
            at_ms=end.at_ms,
            failed=end.failure is not None,
        )
        change = after_end(state, job, ended, context)
    elif chain is Chain.MAIN:
        change = _main_row_again(_change(state, context, armed=None), job, missing, context)
    else:
        change = _other_row_again(state, job, missing, chain, context)
    entries = change.entries if lost_end is None else (lost_end, *change.entries)
    return replace(change, absent=state.row_name(missing), entries=entries)


def arm_missing(state: JobState, job: Job, context: StepContext) -> JobTransaction | None:
    """The step for an active job for which nothing is armed although its trigger has a fire time: it was made, or went on,
    while nothing was armed by triggers. None: nothing is missing."""
    if state.armed is not None or state.open_run is not None or state.status is not JobStatus.ACTIVE:
        return None
    change = _from_now_on(_change(state, context), job, context)
    return change if change.rows else None


def move_for_time_zones(
    state: JobState, job: Job, taken: Sequence[TakenRow], context: StepContext
) -> JobTransaction | None:
    """The step for an armed row whose time would be another one by the present rules of time zones: as by a PUT of the
    trigger, with the row `taken`. None: it would be the same."""
    armed = state.armed
    if armed is None or not time_zones_would_move(state, job, context):
        return None
    change = replace(_change(state, context, tz_release=context.tz_release), taken=tuple(taken))
    return _from_now_on(_without(change, _taken_of(state, taken), context), job, context)


def time_zones_would_move(state: JobState, job: Job, context: StepContext) -> bool:
    """True if the armed row was computed by other rules of time zones, and would stand at another time by these."""
    return state.tz_release != context.tz_release and row_would_move(state, job, context.now_ms)


def follow_calendars(state: JobState, wanted: Job, taken: Sequence[TakenRow], context: StepContext) -> JobTransaction:
    """The step after a change of a named calendar: `wanted` is the definition resolved with the calendars as they are now.
    Fire times are decided from now on, as by a PUT of the trigger; `taken`: the armed row, if it is `row_is_outdated` and
    not in flight. A row that stays where it is stays as it is.

    Unlike a PUT it has no condition on the calendars. The calendars were read after the state, and a change of one of them
    is followed by a look at each job that names it: that look finds this step made, or makes it fail."""
    wanted = replace(wanted, version=state.version + 1, created_at_ms=state.created_at_ms, changed_at_ms=context.now_ms)
    change = replace(
        _redefined(_change(state, context, updated_at_ms=context.now_ms), state, wanted), taken=tuple(taken)
    )
    armed = _taken_of(state, taken)
    if state.armed is not None and armed is None:
        return change
    return _from_now_on(_without(change, armed, context), wanted, context)


def row_is_outdated(state: JobState, job: Job, now_ms: int) -> bool:
    """True if the armed row is one of a fire time that this definition does not have, or not as the next one. `job` is the
    definition after a change of a calendar; the row may be of the one before."""
    armed, trigger = state.armed, job.trigger
    if armed is None or trigger is None or not _of_fire_time(armed) or not _has_timetable(trigger):
        return False
    return trigger.last_at(armed.scheduled_at_ms) != armed.scheduled_at_ms or row_would_move(state, job, now_ms)


def row_would_move(state: JobState, job: Job, now_ms: int) -> bool:
    """True if the armed row is ahead, and would stand at another time by this definition and the present rules of time
    zones."""
    armed, trigger = state.armed, job.trigger
    if armed is None or trigger is None or not _of_fire_time(armed) or not _has_timetable(trigger):
        return False
    if armed.due_ms <= now_ms or state.status is not JobStatus.ACTIVE:
        return False
    wanted = next_not_due(
        trigger, jitter_seed=str(job.name), cursor_ms=state.cursor_ms, now_ms=now_ms, runs=state.counts.of_trigger
    )
    return wanted is None or wanted.due_ms != armed.due_ms


def _decided_again(change: JobTransaction, job: Job, context: StepContext) -> JobTransaction:
    """Decides the fire times after the cursor, as after a run that was on time."""
    trigger, state = job.trigger, change.state
    if trigger is None or not _arms(state, context):
        return _over(change, job, context)
    name, cursor_ms = str(job.name), state.cursor_ms
    on_time = EndedOccurrence(scheduled_at_ms=cursor_ms, cursor_ms=cursor_ms, ended_ms=trigger.due_ms(cursor_ms, name))
    decision = next_after_delivery(
        trigger, job.misfire, on_time, jitter_seed=name, runs=state.counts.of_trigger, now_ms=context.now_ms
    )
    return _decided(change, job, decision, context)


def _failed_run(state: JobState, missing: ArmedRow, context: StepContext) -> RunDelivery | None:
    """The end of a run by hand whose row is missing, and with it the data that were given for it: it has failed. With
    the job's own data it would be another run than the one that was asked for."""
    of_none = state.status is JobStatus.DELETED or precedes(missing.position, state)
    if missing.data is not RunData.GIVEN or missing.kind is RunKind.WATCHDOG or of_none:
        return None
    return RunDelivery(
        client_id=state.client_id,
        job_id=state.job_id,
        position=missing.position,
        run_id=missing.run_id,
        kind=missing.kind,
        attempt=missing.attempt,
        version=missing.version,
        scheduled_at_ms=missing.scheduled_at_ms,
        at_ms=context.now_ms,
        failure=Failure(reason=ROW_LOST, attempts=0),
        expires_at_s=_expiry_s(context),
    )


def _main_row_again(change: JobTransaction, job: Job, missing: ArmedRow, context: StepContext) -> JobTransaction:
    """A missing row of the main chain; the state does not name it any more."""
    state = change.state
    if missing.kind is RunKind.WATCHDOG:
        return change if state.open_run is None else _put_again(change, job, missing, context)
    if is_manual(missing.run_id) and state.status is not JobStatus.DELETED:
        return _put_again(change, job, missing, context)
    if not _arms(state, context):
        return change
    if _of_fire_time(missing) and _has_timetable(job.trigger) and missing.cursor_ms == missing.scheduled_at_ms:
        return _decided_again(change, job, context)
    # Also one that had waited for another run: the fire times behind it are skipped already.
    return _put_again(change, job, missing, context)


def _other_row_again(
    state: JobState, job: Job, missing: ArmedRow, chain: Chain, context: StepContext
) -> JobTransaction:
    """The missing row of a run by hand, or of a backfill: the same again, unless the job is deleted, or the run was
    that of a job before it."""
    change = _change(state, context)
    single = tuple(each for each in state.side_rows if each.position != missing.position)
    backfill = state.backfill
    of_job_before = chain is Chain.SIDE and (missing.kind is not RunKind.MANUAL or precedes(missing.position, state))
    if state.status is JobStatus.DELETED or of_job_before:
        return _change(state, context, side_rows=single, backfill=None if chain is Chain.BACKFILL else backfill)
    row = _row_of_armed(change.state, job, missing, chain, context)
    if chain is Chain.SIDE:
        new = replace(change.state, side_rows=(*single, armed_row(row)))
    else:
        assert backfill is not None, "the state names the row"
        new = replace(change.state, backfill=replace(backfill, armed=armed_row(row)))
    return replace(change, state=new, rows=(row,))


# --- parts


def _change(state: JobState, context: StepContext, **fields: object) -> JobTransaction:
    """The change of a state, one revision on."""
    new = replace(state, rev=state.rev + 1, write_id=context.write_id, **fields)  # type: ignore[arg-type]
    return JobTransaction(before_rev=state.rev, state=new)


def _redefined(change: JobTransaction, before: JobState, job: Job) -> JobTransaction:
    """The change with another definition."""
    state = replace(change.state, version=job.version, calendars=digests_of(job.trigger))
    return replace(change, state=state, definition=job, **_references(before, state))


class _References(TypedDict):
    references_put: tuple[str, ...]
    references_deleted: tuple[str, ...]


def _references(before: JobState | None, state: JobState) -> _References:
    """The references beside calendars that a change of the state puts, and deletes."""
    old = {name for name, _ in before.calendars} if before is not None else set()
    new = {name for name, _ in state.calendars}
    return _References(references_put=tuple(sorted(new - old)), references_deleted=tuple(sorted(old - new)))


def _arms(state: JobState, context: StepContext) -> bool:
    return context.triggers_on and state.status is JobStatus.ACTIVE


def _from_now_on(change: JobTransaction, job: Job, context: StepContext) -> JobTransaction:
    """Arms the first fire time that is not due yet, unless a row is in flight or a run open: then what follows it. What was
    missed up to now counts as decided."""
    state, trigger = change.state, job.trigger
    if trigger is not None and state.status is not JobStatus.PAUSED:
        due_ms = trigger.last_due_at(context.now_ms, str(job.name))
        state = replace(state, cursor_ms=max(state.cursor_ms, due_ms if due_ms is not None else 0))
        change = replace(change, state=state)
    if state.armed is not None or state.status is JobStatus.DELETED or state.status is JobStatus.PAUSED:
        return change
    if trigger is None:
        return _over(change, job, context)
    first = next_not_due(
        trigger,
        jitter_seed=str(job.name),
        cursor_ms=state.cursor_ms,
        now_ms=context.now_ms,
        runs=state.counts.of_trigger,
    )
    return _armed(change, job, first, context)


def _decided(
    change: JobTransaction,
    job: Job,
    decision: Decision,
    context: StepContext,
    *,
    reason: SkipReason = SkipReason.MISFIRE,
) -> JobTransaction:
    """Arms what was decided, and notes what was skipped: up to there all fire times are decided."""
    change = _skip(change, decision.excluded, context, reason=SkipReason.EXCLUDED)
    change = _skip(change, decision.dropped, context)
    change = _skip(change, decision.skipped, context, reason=reason)
    armed = decision.armed
    if decision.skipped is not None and (armed is None or decision.skipped.last_ms < armed.scheduled_at_ms):
        cursor_ms = max(change.state.cursor_ms, decision.skipped.last_ms)
        change = replace(change, state=replace(change.state, cursor_ms=cursor_ms))
    return _armed(change, job, armed, context)


def _armed(change: JobTransaction, job: Job, armed: NextOccurrence | None, context: StepContext) -> JobTransaction:
    """Puts the row of the occurrence, and names it. None: the trigger is over."""
    if armed is None:
        return _over(change, job, context)
    if not context.triggers_on:
        return change
    row = _row(
        change.state,
        job,
        context,
        kind=RunKind(armed.kind.value),
        chain=Chain.MAIN,
        run_id=scheduled_run(armed.scheduled_at_ms),
        scheduled_at_ms=armed.scheduled_at_ms,
        cursor_ms=armed.cursor_ms,
        due_ms=armed.due_ms,
    )
    return replace(
        change, state=replace(change.state, armed=armed_row(row), tz_release=context.tz_release), rows=(row,)
    )


def _over(change: JobTransaction, job: Job, context: StepContext) -> JobTransaction:
    """Nothing follows. An active job that is not durable has ended, unless only named calendars keep it from firing: they
    may change, and a job that has ended comes back by nothing but a PUT."""
    state = replace(change.state, armed=None)
    if _arms(state, context) and not job.durable and not _kept_by_calendars(job, state, context):
        state = replace(state, status=JobStatus.ENDED, expires_at_s=_expiry_s(context))
    elif state.status is JobStatus.ENDED and job.durable:
        state = replace(state, status=JobStatus.ACTIVE, expires_at_s=None)
    return replace(change, state=state)


def _kept_by_calendars(job: Job, state: JobState, context: StepContext) -> bool:
    trigger = job.trigger
    if trigger is None or not state.calendars:
        return False
    left = trigger.runs_max is None or state.counts.of_trigger < trigger.runs_max
    return left and trigger.kept_by_calendars(max(state.cursor_ms, context.now_ms))


def _put_again(change: JobTransaction, job: Job, armed: ArmedRow, context: StepContext) -> JobTransaction:
    """The same occurrence in a new row of the main chain."""
    row = _row_of_armed(change.state, job, armed, Chain.MAIN, context)
    return replace(change, state=replace(change.state, armed=armed_row(row)), rows=(row,))


def _without(change: JobTransaction, armed: ArmedRow | None, context: StepContext) -> JobTransaction:
    """The armed row is taken; None: it is not, and stays named. One that had waited for another run is noted as skipped: the
    fire times behind it are noted already."""
    if armed is None:
        return change
    change = replace(change, state=replace(change.state, armed=None))
    if not _of_fire_time(armed) or armed.cursor_ms == armed.scheduled_at_ms:
        return change
    waited = TimeStretch(first_ms=armed.scheduled_at_ms, last_ms=armed.scheduled_at_ms, count=1)
    return _skip(change, waited, context, reason=SkipReason.OVERLAP)


def _taken_of(state: JobState, taken: Sequence[TakenRow]) -> ArmedRow | None:
    armed = state.armed
    return armed if armed is not None and any(each.name.position == armed.position for each in taken) else None


def _row(
    state: JobState,
    job: Job,
    context: StepContext,
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
        created_at_ms=context.now_ms,
        version=job.version,
        delivery_id=context.write_id,
    )
    return Row(
        shard=shard_of(job.ordering_key, context.shards),
        position=new_position(due_ms=due_ms, accepted_us=context.accepted_us, random=context.random),
        schedule=schedule,
        run=RunOfRow(
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


def _row_of_armed(state: JobState, job: Job, armed: ArmedRow, chain: Chain, context: StepContext) -> Row:
    return _row(
        state,
        job,
        context,
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


def _backfill_row(state: JobState, job: Job, scheduled_at_ms: int, digits: str, context: StepContext) -> Row:
    return _row(
        state,
        job,
        context,
        kind=RunKind.BACKFILL,
        chain=Chain.BACKFILL,
        run_id=backfill_run(scheduled_at_ms, digits),
        scheduled_at_ms=scheduled_at_ms,
        cursor_ms=scheduled_at_ms,
        due_ms=context.now_ms,
    )


def _request(state: JobState, named: ArmedRow, request_id: str, digest: str, context: StepContext) -> RunRequest:
    return RunRequest(
        client_id=state.client_id,
        job_id=state.job_id,
        request_id=request_id,
        run_id=named.run_id,
        position=named.position,
        digest=digest,
        expires_at_s=_expiry_s(context),
    )


def _skip(
    change: JobTransaction,
    skipped: TimeStretch | None,
    context: StepContext,
    *,
    reason: SkipReason = SkipReason.MISFIRE,
) -> JobTransaction:
    if skipped is None:
        return change
    state = change.state
    entry: LogEntry = SkippedTimes(
        client_id=state.client_id,
        job_id=state.job_id,
        # Beside that of a row which this step puts, and that of another entry.
        position=new_position(
            due_ms=skipped.last_ms,
            accepted_us=context.accepted_us,
            random=(context.random + 1 + len(change.entries)) % 10**RANDOM_DIGITS,
        ),
        reason=reason,
        first_ms=skipped.first_ms,
        last_ms=skipped.last_ms,
        count=skipped.count,
        at_ms=context.now_ms,
        expires_at_s=_expiry_s(context),
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
        of_trigger=counts.of_trigger + _is_of_trigger(ended.run),
    )


def _stretch(ended: EndedRow) -> TimeStretch:
    return TimeStretch(first_ms=ended.run.scheduled_at_ms, last_ms=ended.run.scheduled_at_ms, count=1)


def _of_fire_time(armed: ArmedRow) -> bool:
    """False for retries, runs by hand and watchdogs."""
    return armed.kind in (RunKind.SCHEDULED, RunKind.CATCH_UP)


def _is_of_trigger(run: RunOfRow) -> bool:
    """True for the first attempt of a run of a fire time."""
    return run.kind in (RunKind.SCHEDULED, RunKind.CATCH_UP)


def _has_timetable(trigger: Trigger | None) -> bool:
    return trigger is not None and not isinstance(trigger.rule, FixedDelay)


def _previous_ms(trigger: Trigger | None, scheduled_at_ms: int) -> int | None:
    return trigger.last_at(scheduled_at_ms - 1) if trigger is not None else None


def _chain_of(state: JobState, position: Position) -> Chain:
    """The chain of a row by its state. The row itself says another one if a job that had the name before has left it."""
    if any(each.position == position for each in state.side_rows):
        return Chain.SIDE
    backfill = state.backfill
    return Chain.BACKFILL if backfill is not None and backfill.armed.position == position else Chain.MAIN


def _run_of_armed(armed: ArmedRow, chain: Chain, *, rev: int, timeout_ms: int | None) -> RunOfRow:
    return RunOfRow(
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


def _expiry_s(context: StepContext) -> int:
    return outcome_expiry_s(due_ms=context.now_ms, end_ms=context.now_ms, retention_ms=context.retention_ms)
