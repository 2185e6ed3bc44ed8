"""Reports of consumers about runs: a run has ended, well or not, or it goes on (heartbeat).

Of a job whose runs may overlap (`overlap: allow`) a completion is an item of the log and no more: the next run was armed at
the delivery, and a late completion still counts. There is no time-out to be moved, so a heartbeat is refused (`not_open`): a
`200` would promise time that nothing gives.

Of an exclusive job (`JobContent.exclusive`) the run is open, and its watchdog is the armed row. The request takes it by hold
and look, and one transaction ends the run and arms what follows; the time-out ends the same row. So exactly one of both
wins. A watchdog that an owner may be ending already is `in_flight`: nothing is promised, and its consumer asks again.

    read      state and definition
    open      this attempt is open: take the watchdog, change
    armed     the state still names its row: its cleanup, which opens the run, is under way. Wait, `503` in the end. A row
              that is due for long may as well wait for its lane: if it can be taken, it is not delivered
    ended     its entry of the log says how: the same report again is `200`, another one a conflict

A run that is neither is unknown only if no transaction is being applied to the state: its row can be seen, and its record
read, before the state that was written with it. For the same reason a completion is put beside an exclusive job's run only
when that is certain to be closed: else its cleanup would open a run that is completed already.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from clockwork.domain.jobs import steps
from clockwork.domain.jobs.job import (
    ArmedRow,
    CompletionReport,
    CompletionResult,
    Heartbeat,
    Job,
    JobName,
    JobState,
    JobStatus,
    JobTransaction,
    OpenRun,
    RunCompletion,
    TakenRow,
)
from clockwork.domain.run import RunId, RunKind
from clockwork.domain.schedule import RequestId, outcome_expiry_s
from clockwork.errors import Contested, StoreUnavailable
from clockwork.ports.jobs import StaleRevision
from clockwork.requests.context import RequestContext
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.dedup import CommandDedup
from clockwork.requests.hold import LONG_DUE_MS
from clockwork.requests.jobs import job_state
from clockwork.requests.jobs import log as logs
from clockwork.requests.jobs.job_state import StoredJob
from clockwork.requests.jobs.results import (
    JobNotFound,
    JobReason,
    JobRefused,
    ReportResult,
    RunAlreadyClosed,
    RunClosed,
    RunExtended,
    RunNotFound,
    RunReason,
    RunRefused,
    RunStatus,
    RunView,
)
from clockwork.requests.jobs.take import RowTaker

log = logging.getLogger(__name__)

NOT_OPEN_YET: Final = "the run was delivered just now, and is not open yet"
_REASONS: Final = {
    CompletionResult.COMPLETED: RunReason.COMPLETED,
    CompletionResult.FAILED: RunReason.FAILED,
    CompletionResult.TIMED_OUT: RunReason.TIMED_OUT,
}


async def report_run(
    context: RequestContext,
    name: JobName,
    run_id: RunId,
    report: CompletionReport | Heartbeat,
    deadline: RequestDeadline,
    *,
    command: CommandDedup | None = None,
) -> ReportResult:
    """Carries out what a consumer reports of one attempt of a run.

    Raises: Unavailable (it may have been done: the same request again settles it), Unreadable, CommandAlreadyProcessed.
    """
    request = _Request(context, name, run_id, report, deadline, command)
    while True:
        try:
            result = await request.tried()
        except StaleRevision:
            continue
        except Contested as contested:
            request.count_lost_holds()
            why = f"{job_state.BEING_CHANGED}: {contested}"
        except StoreUnavailable as error:
            why = f"the run could not be changed in time: {error}"
        else:
            if result is not None:
                return result
            why = NOT_OPEN_YET
        await deadline.pause(why)


@dataclass(slots=True)
class _Try:
    """Parts of the last try: it may have been made without an answer."""

    completion: RunCompletion | None = None
    taken: Sequence[TakenRow] = ()


class _Request:
    """One request and its tries."""

    def __init__(
        self,
        context: RequestContext,
        name: JobName,
        run_id: RunId,
        report: CompletionReport | Heartbeat,
        deadline: RequestDeadline,
        command: CommandDedup | None,
    ) -> None:
        self._context = context
        self._name = name
        self._run_id = run_id
        self._report = report
        self._deadline = deadline
        self._command = command
        self._write_id: RequestId = job_state.new_request_id(context)
        self._taker = RowTaker(context, deadline)
        self._last = _Try()
        # One time for all tries: one whose answer was lost finds its work done.
        self._until_ms = context.clock.now_ms() + (report.extend_ms if isinstance(report, Heartbeat) else 0)

    def count_lost_holds(self) -> None:
        """Counts a try after which the hold was gone: an owner took it off, or a transaction is being applied."""
        self._taker.count_lost_holds(self._last.taken)
        self._last.taken = ()

    async def tried(self) -> ReportResult | None:
        """The result of one try; None: it is too early, and to be tried again.

        Raises: Contested, StoreUnavailable: likewise. Unavailable, Unreadable, CommandAlreadyProcessed.
        """
        stored = await job_state.read_job(self._context, self._name, self._deadline)
        if stored is None:
            return JobNotFound()
        state, attempt = stored.state, self._report.attempt
        if state.status is JobStatus.DELETED:
            return JobRefused(JobReason.DELETED, stored.view)
        run = state.open_run
        if run is not None and (run.run_id, run.attempt) == (self._run_id, attempt):
            return await self._of_open_run(stored, run)
        armed = _row_of(state, self._run_id, attempt)
        if armed is not None:
            return await self._of_armed_run(stored, armed)
        found = await logs.find_attempt(self._context, stored, self._run_id, attempt, self._deadline)
        if found is None:
            await job_state.check_current(self._context, state)
            return RunNotFound()
        return await self._of_logged_run(stored, found)

    async def _of_armed_run(self, stored: StoredJob, armed: ArmedRow) -> RunRefused | None:
        view = RunView(status=RunStatus.ARMED, position=armed.position, armed=armed)
        job: Job | None = stored.job
        if armed.version != stored.state.version:
            job = await self._context.jobs.read_definition(self._name, armed.version)
        if job is not None and job.completion is None:
            return RunRefused(RunReason.NOT_ASKED, view)
        # A consumer that has read the record takes "not delivered" for good: never by a clock that is far behind.
        self._context.check_clock()
        late_ms = self._context.clock.now_ms() - armed.due_ms
        if late_ms < -steps.CLOCKS_MS:
            return RunRefused(RunReason.NOT_DELIVERED, view)
        # One that waits for its lane, or its topic, may do so for days, and a command that reports it would hold up all
        # commands behind it. The hold stays, and harms nothing: the owner takes it off before it fires the row. One of
        # at_least_once may have been sent before, and is waited for.
        if late_ms > LONG_DUE_MS and await self._taker.take(stored, [armed]):
            return RunRefused(RunReason.NOT_DELIVERED, view)
        return None

    # --- an open run

    async def _of_open_run(self, stored: StoredJob, run: OpenRun) -> ReportResult | None:
        state, job = stored.state, stored.job
        view = await logs.view_of_open(self._context, state, run)
        watchdog = state.armed
        if watchdog is None or watchdog.kind is not RunKind.WATCHDOG:
            return None  # no step leaves it so
        report = self._report
        recorded = view.completion
        if recorded is None and isinstance(report, Heartbeat) and run.until_ms >= self._until_ms:
            if self._command is not None and state.write_id == self._write_id:
                self._command.had_effect = True
            return RunExtended(view, run.until_ms)
        self._last.taken = taken = await self._taker.take(stored, [watchdog])
        if not taken:
            return RunRefused(RunReason.IN_FLIGHT, view)
        if self._command is not None:
            await self._command.check()
        step, content = job_state.step_context(self._context, self._write_id), self._taker.content_of(taken[0])
        if recorded is not None:
            # The state is that of a table that was restored to an earlier time, say.
            change = steps.close_completed(state, job, recorded, step, taken=taken, content=content)
            await self._apply(state, change)
            return self._of_closed_run(change.state, view, recorded)
        if isinstance(report, Heartbeat):
            change = steps.extend_run(state, job, self._until_ms, step, taken=taken, content=content)
            await self._apply(state, change)
            return RunExtended(view, self._until_ms)
        change = steps.close_run(
            state,
            job,
            report.result,
            step,
            taken=taken,
            started_at_ms=report.started_at_ms,
            document=report.document,
            may_retry=report.may_retry,
            content=content,
        )
        completion = next(each for each in change.entries if isinstance(each, RunCompletion))
        self._last.completion = completion
        await self._apply(state, change)
        return self._closed(change.state, view, completion)

    async def _apply(self, before: JobState, change: JobTransaction) -> None:
        if self._command is not None:
            change = replace(change, command=self._command.change(due_ms=0))
        await job_state.apply(self._context, change)
        if self._command is not None:
            self._command.had_effect = True
        job_state.announce_armed(self._context, change.state)
        if before.status is not JobStatus.PAUSED and change.state.status is JobStatus.PAUSED:
            log.warning(
                "Job paused: its runs failed in a row",
                extra={
                    "event": "job.paused_by_failures",
                    "client": self._name.client_id,
                    "failures": change.state.failures,
                },
            )

    # --- a run that is not open

    async def _of_logged_run(self, stored: StoredJob, run: RunView) -> ReportResult:
        state, end, completion = stored.state, run.delivery, run.completion
        assert end is not None, "its delivery has ended"
        if end.failure is not None:
            return RunRefused(RunReason.FAILED, run)
        if completion is not None:
            return self._of_closed_run(state, run, completion)
        if end.timeout_ms is None:
            return RunRefused(RunReason.NOT_ASKED, run)
        report = self._report
        await job_state.check_current(self._context, state)
        if isinstance(report, Heartbeat):
            return RunRefused(RunReason.NOT_OPEN, run)
        now_ms = self._context.clock.now_ms()
        self._last.completion = completion = RunCompletion(
            client_id=state.client_id,
            job_id=state.job_id,
            position=run.position,
            run_id=end.run_id,
            attempt=end.attempt,
            result=report.result,
            finished_at_ms=now_ms,
            started_at_ms=report.started_at_ms,
            document=report.document,
            expires_at_s=outcome_expiry_s(
                due_ms=now_ms, end_ms=now_ms, retention_ms=self._context.settings.retention_ms
            ),
        )
        note = None
        if self._command is not None:
            await self._command.check()
            note = self._command.change(due_ms=0)
        await self._context.jobs.put_completion(completion, command=note)
        if self._command is not None:
            self._command.had_effect = True
        return self._closed(state, run, completion)

    def _of_closed_run(self, state: JobState, run: RunView, completion: RunCompletion) -> ReportResult:
        if isinstance(self._report, CompletionReport) and completion.result is self._report.result:
            if completion == self._last.completion:
                if self._command is not None:
                    self._command.had_effect = True
                return self._closed(state, run, completion)  # by a try whose answer was lost
            return RunAlreadyClosed(run)
        if completion.result is not CompletionResult.COMPLETED and _has_later_attempt(
            state, self._run_id, self._report.attempt
        ):
            return RunRefused(RunReason.SUPERSEDED, run)
        return RunRefused(_REASONS[completion.result], run)

    def _closed(self, state: JobState, run: RunView, completion: RunCompletion) -> RunClosed:
        return RunClosed(logs.closed_run(self._context, state, run, completion))


def _row_of(state: JobState, run_id: RunId, attempt: int) -> ArmedRow | None:
    """The row of this attempt, if the state names it: it is not delivered, or not cleaned up."""
    return next((each for each in state.pending_runs() if (each.run_id, each.attempt) == (run_id, attempt)), None)


def _has_later_attempt(state: JobState, run_id: RunId, attempt: int) -> bool:
    """True if a later attempt of this run is armed or open."""
    run = state.open_run
    named = [(each.run_id, each.attempt) for each in state.pending()]
    opened = [] if run is None else [(run.run_id, run.attempt)]
    return any(each == run_id and number > attempt for each, number in (*named, *opened))
