"""Runs that are asked for: one by hand, or a backfill of past fire times.

The request's id is an item of its own, put in the transaction that arms the run: the same request again finds it, and is
answered with the run as it is by then.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from clockwork.domain.jobs import steps
from clockwork.domain.jobs.job import (
    MANUAL_RUNS_MAX,
    ArmedRow,
    BackfillRequest,
    Job,
    JobContent,
    JobName,
    JobState,
    JobStatus,
    JobTransaction,
    RunNow,
    RunRequest,
    TakenRow,
)
from clockwork.domain.jobs.steps import StepContext
from clockwork.domain.run import RunKind
from clockwork.domain.schedule import RequestId
from clockwork.errors import Contested, StoreUnavailable
from clockwork.ports.jobs import StaleRevision
from clockwork.requests.context import RequestContext
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.dedup import CommandDedup
from clockwork.requests.jobs import job_state, log
from clockwork.requests.jobs.job_state import StoredJob
from clockwork.requests.jobs.results import (
    JobNotFound,
    JobReason,
    JobRefused,
    RunAccepted,
    RunAlreadyAccepted,
    RunResult,
    RunStatus,
    RunView,
)
from clockwork.requests.jobs.take import RowTaker


@dataclass(frozen=True, slots=True)
class RunsRequest:
    """A request for a run by hand, or for a backfill."""

    request: RunNow | BackfillRequest
    authorized: Callable[[JobContent], None]
    """Raises: Forbidden."""

    def refusal(self, stored: StoredJob) -> JobReason | None:
        """The reason why it cannot be accepted in this state; None: it can."""
        state, job = stored.state, stored.job
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
        return JobReason.TOO_MANY_RUNS if len(state.side_rows) >= MANUAL_RUNS_MAX else None

    def check(self, job: JobContent) -> None:
        """Raises: InvalidInput."""
        if isinstance(self.request, RunNow) and self.request.check is not None:
            self.request.check(job)

    def takes(self, stored: StoredJob) -> Sequence[ArmedRow]:
        """The rows that it wants to take: of an exclusive job, the next occurrence, which the run goes before."""
        by_hand = isinstance(self.request, RunNow)
        return steps.rows_to_take(stored.state) if by_hand and stored.job.exclusive else ()

    def compute(self, stored: StoredJob, taken: Sequence[TakenRow], step: StepContext) -> JobTransaction | None:
        """The transaction, which is not applied here; None: there is no fire time in the range."""
        request = self.request
        if isinstance(request, BackfillRequest):
            return steps.start_backfill(
                stored.state,
                stored.job,
                step,
                request_id=request.request_id,
                digest=request.digest,
                from_ms=request.from_ms,
                to_ms=request.to_ms,
                runs_max=request.runs_max,
            )
        return steps.run_now(
            stored.state,
            stored.job,
            step,
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
    runs: RunsRequest,
    *,
    command: CommandDedup | None = None,
) -> RunResult:
    """Arms the run, or the first one of the backfill.

    Raises: InvalidInput, Unavailable (it may be armed: the same request again settles it), Unreadable,
    CommandAlreadyProcessed.
    """
    write_id = job_state.new_request_id(context)
    taker = RowTaker(context, deadline)
    while True:
        taken: Sequence[TakenRow] = ()
        try:
            stored = await job_state.read_job(context, name, deadline)
            if stored is None:
                return JobNotFound()
            runs.authorized(stored.job)
            # After the state: the item of a request that this state knows is there.
            known = await context.jobs.read_request(name, runs.request.request_id)
            if known is not None:
                return await _known(context, known, runs, deadline, write_id, command)
            reason = runs.refusal(stored)
            if reason is not None:
                return JobRefused(reason, stored.view)
            runs.check(stored.job)
            rows = runs.takes(stored)
            taken = await taker.take(stored, rows)
            if len(taken) < len(rows):
                return JobRefused(JobReason.RUNNING, stored.view)
            if command is not None:
                await command.check()
            change = runs.compute(stored, taken, job_state.step_context(context, write_id))
            if change is None:
                return JobRefused(JobReason.NO_FIRE_TIMES, stored.view)
            if command is not None:
                change = replace(change, command=command.change(due_ms=0))
            await job_state.apply(context, change)
        except StaleRevision:
            continue
        except Contested as contested:
            taker.count_lost_holds(taken)
            why = f"{job_state.BEING_CHANGED}: {contested}"
        except StoreUnavailable as error:
            why = f"the run could not be armed in time: {error}"
        else:
            return _accepted(context, change.state, stored.job, _named(change), command)
        await deadline.pause(why)


async def _known(
    context: RequestContext,
    known: RunRequest,
    runs: RunsRequest,
    deadline: RequestDeadline,
    write_id: RequestId,
    command: CommandDedup | None,
) -> RunResult:
    """The result of a request whose id is known."""
    # Again: the request may be younger than the state that was read before it.
    stored = await job_state.read_job(context, known.name, deadline)
    if stored is None:
        return JobNotFound()
    job_state.announce_armed(context, stored.state)
    run = await log.run_at(context, stored.state, known.position)
    of_job_before = steps.precedes(known.position, stored.state)
    if known.digest != runs.request.digest or run is None or of_job_before:
        # Without a run: it was taken away with the job that was deleted, or its entry has expired. And one of a job that had
        # the name before is no run of this one: a `200` would say that this one runs.
        deleted = stored.state.status is JobStatus.DELETED
        return JobRefused(JobReason.DELETED if deleted else JobReason.EXISTS, stored.view)
    if stored.state.write_id != write_id:
        return RunAlreadyAccepted(run)
    # Written by a try whose answer was lost.
    if command is not None:
        command.had_effect = True
    return RunAccepted(run)


def _named(change: JobTransaction) -> ArmedRow:
    """The run that a change arms."""
    (row,) = change.rows
    return next(each for each in change.state.pending() if each.position == row.position)


def _accepted(
    context: RequestContext, state: JobState, job: Job, armed: ArmedRow, command: CommandDedup | None
) -> RunAccepted:
    if command is not None:
        command.had_effect = True
    job_state.announce_armed(context, state)
    return RunAccepted(RunView(status=RunStatus.ARMED, position=armed.position, armed=armed, topic=job.topic))
