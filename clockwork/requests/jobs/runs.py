"""Runs that are asked for: one by hand, or a backfill of past fire times.

The request's id is an item of its own, put in the transaction that arms the run: the same request again finds it, and is
answered with the run as it is by then.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from clockwork.domain.jobs import steps
from clockwork.domain.jobs.job import (
    SINGLE_MAX,
    ArmedRow,
    BackfillRequest,
    Job,
    JobChange,
    JobContent,
    JobName,
    JobState,
    JobStatus,
    RunNow,
    RunRequest,
    TakenRow,
)
from clockwork.domain.jobs.steps import Moment
from clockwork.domain.run import RunKind
from clockwork.domain.schedule import RequestId
from clockwork.errors import Contested, StoreUnavailable
from clockwork.ports.jobs import JobChanged
from clockwork.requests.context import RequestContext
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.dedup import CommandDedup
from clockwork.requests.jobs import log
from clockwork.requests.jobs import state as states
from clockwork.requests.jobs.results import (
    JobNotFound,
    JobReason,
    JobRefused,
    RunAccepted,
    RunRepeated,
    RunResult,
    RunStatus,
    RunView,
)
from clockwork.requests.jobs.state import JobReading
from clockwork.requests.jobs.take import RowTaker


@dataclass(frozen=True, slots=True)
class Runs:
    """A request for runs."""

    request: RunNow | BackfillRequest
    authorized: Callable[[JobContent], None]
    """Raises: Forbidden."""

    def refusal(self, reading: JobReading) -> JobReason | None:
        """The reason why it cannot be accepted in this state; None: it can."""
        state, job = reading.state, reading.job
        if state.status is JobStatus.DELETED:
            return JobReason.DELETED
        if isinstance(self.request, BackfillRequest):
            return JobReason.RUNNING if state.backfill is not None else None
        if job.exclusive:
            armed = state.armed
            # One that has waited for another run stands for fire times behind it, which are skipped already: it is about to
            # be delivered, and after another run in its place they would be skipped again.
            waits = armed is not None and (
                armed.kind in (RunKind.MANUAL, RunKind.RETRY) or armed.cursor_ms > armed.scheduled_at_ms
            )
            return JobReason.RUNNING if state.open_run is not None or waits else None
        return JobReason.TOO_MANY_RUNS if len(state.single) >= SINGLE_MAX else None

    def check(self, job: JobContent) -> None:
        """Raises: InvalidInput."""
        if isinstance(self.request, RunNow) and self.request.check is not None:
            self.request.check(job)

    def takes(self, reading: JobReading) -> Sequence[ArmedRow]:
        """The rows that it wants to take: of an exclusive job, the next occurrence, which the run goes before."""
        by_hand = isinstance(self.request, RunNow)
        return steps.to_be_taken(reading.state) if by_hand and reading.job.exclusive else ()

    def make(self, reading: JobReading, taken: Sequence[TakenRow], at: Moment) -> JobChange | None:
        """The change; None: there is no fire time in the range."""
        request = self.request
        if isinstance(request, BackfillRequest):
            return steps.start_backfill(
                reading.state,
                reading.job,
                at,
                request_id=request.request_id,
                digest=request.digest,
                from_ms=request.from_ms,
                to_ms=request.to_ms,
                runs_max=request.runs_max,
            )
        return steps.run_now(
            reading.state,
            reading.job,
            at,
            request_id=request.request_id,
            digest=request.digest,
            task_data=request.task_data,
            data_form=request.data_form,
            taken=taken,
        )


async def start_runs(
    context: RequestContext,
    name: JobName,
    deadline: RequestDeadline,
    runs: Runs,
    *,
    command: CommandDedup | None = None,
) -> RunResult:
    """Arms the run, or the first one of the backfill.

    Raises: InvalidInput, Unavailable (it may be armed: the same request again settles it), Unreadable,
    CommandAlreadyProcessed.
    """
    by = states.new_request_id(context)
    taker = RowTaker(context, deadline)
    while True:
        taken: Sequence[TakenRow] = ()
        try:
            reading = await states.read_job(context, name, deadline)
            if reading is None:
                return JobNotFound()
            runs.authorized(reading.job)
            # After the state: the item of a request that this state knows is there.
            known = await context.jobs.read_request(name, runs.request.request_id)
            if known is not None:
                return await _known(context, known, runs, deadline, by, command)
            reason = runs.refusal(reading)
            if reason is not None:
                return JobRefused(reason, reading.view)
            runs.check(reading.job)
            rows = runs.takes(reading)
            taken = await taker.take(reading, rows)
            if len(taken) < len(rows):
                return JobRefused(JobReason.RUNNING, reading.view)
            if command is not None:
                await command.check()
            change = runs.make(reading, taken, states.moment(context, by))
            if change is None:
                return JobRefused(JobReason.NO_FIRE_TIMES, reading.view)
            if command is not None:
                change = replace(change, command=command.change(due_ms=0))
            await states.make(context, change)
        except JobChanged:
            continue
        except Contested as contested:
            taker.lost(taken)
            why = f"{states.BEING_CHANGED}: {contested}"
        except StoreUnavailable as error:
            why = f"the run could not be armed in time: {error}"
        else:
            return _accepted(context, change.state, reading.job, _named(change), command)
        await deadline.pause(why)


async def _known(
    context: RequestContext,
    known: RunRequest,
    runs: Runs,
    deadline: RequestDeadline,
    by: RequestId,
    command: CommandDedup | None,
) -> RunResult:
    """The result of a request whose id is known."""
    # Again: the request may be younger than the state that was read before it.
    reading = await states.read_job(context, known.name, deadline)
    if reading is None:
        return JobNotFound()
    states.announce_armed(context, reading.state)
    run = await log.run_at(context, reading.state, known.position)
    of_job_before = steps.precedes(known.position, reading.state)
    if known.digest != runs.request.digest or run is None or of_job_before:
        # Without a run: it was taken away with the job that was deleted, or its entry has expired. And one of a job that had
        # the name before is no run of this one: a `200` would say that this one runs.
        deleted = reading.state.status is JobStatus.DELETED
        return JobRefused(JobReason.DELETED if deleted else JobReason.EXISTS, reading.view)
    if reading.state.by != by:
        return RunRepeated(run)
    # Written by a try whose answer was lost.
    if command is not None:
        command.had_effect = True
    return RunAccepted(run)


def _named(change: JobChange) -> ArmedRow:
    """The run that a change arms."""
    (row,) = change.rows
    return next(each for each in change.state.pending() if each.position == row.position)


def _accepted(
    context: RequestContext, state: JobState, job: Job, armed: ArmedRow, command: CommandDedup | None
) -> RunAccepted:
    if command is not None:
        command.had_effect = True
    states.announce_armed(context, state)
    return RunAccepted(RunView(status=RunStatus.ARMED, position=armed.position, armed=armed, topic=job.topic))
