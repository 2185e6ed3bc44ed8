"""The request service of jobs: all that a caller can ask about them, whichever way the request came in.

As for schedules (`requests.service`): rights, limits and time limits are applied here, and the use cases know none of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from clockwork.domain.activity import Action, JobKind
from clockwork.domain.jobs.calendar import Calendar, CalendarName, NewCalendar
from clockwork.domain.jobs.job import (
    BackfillRequest,
    CompletionReport,
    Heartbeat,
    ImportedJob,
    Job,
    JobContent,
    JobName,
    NewJob,
    RunNow,
)
from clockwork.domain.position import Position
from clockwork.domain.rights import ANYONE, Principal, Right, authorize
from clockwork.domain.run import JobId, RunId
from clockwork.domain.schedule import ClientId
from clockwork.domain.triggers.preview import Preview
from clockwork.errors import JobsOff, LimitState, TooManyRequests, Unavailable
from clockwork.requests.context import RequestContext
from clockwork.requests.dedup import CommandDedup
from clockwork.requests.imports import check_export
from clockwork.requests.jobs import calendars, completion, job_state, listing, log
from clockwork.requests.jobs.change import (
    ChangeRequest,
    Delete,
    Pause,
    Put,
    Restore,
    Resume,
    change_job,
    view_after_lost_answer,
)
from clockwork.requests.jobs.create import create_job, find_repeat
from clockwork.requests.jobs.limit import JobsLimit
from clockwork.requests.jobs.listing import JobQuery
from clockwork.requests.jobs.log import LogQuery
from clockwork.requests.jobs.resolve import resolve_preview
from clockwork.requests.jobs.results import (
    CalendarDeleteResult,
    CalendarPut,
    CalendarPutResult,
    CalendarsPage,
    JobChanged,
    JobChangeResult,
    JobCreated,
    JobCreateResult,
    JobEdit,
    JobNotFound,
    JobRefused,
    JobsPage,
    JobUnchanged,
    JobView,
    ReportResult,
    RunAccepted,
    RunAlreadyAccepted,
    RunClosed,
    RunResult,
    RunsPage,
    RunView,
    VersionsPage,
)
from clockwork.requests.jobs.start_runs import RunsRequest, start_runs
from clockwork.requests.jobs.transfer import JobScanPage, import_job, scan_page
from clockwork.requests.rate_limits import NO_LIMITS, CreateLimits
from clockwork.requests.results import ANY_VERSION, ExportRefused, VersionCondition


@dataclass(frozen=True, kw_only=True)
class JobService:
    """One node's. Every method raises: JobsOff, Forbidden, Unavailable (a write may have happened: the same request again
    settles it), Unreadable; and with a `command`: CommandAlreadyProcessed."""

    context: RequestContext
    rate_limits: CreateLimits = NO_LIMITS
    limit: JobsLimit = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "limit", JobsLimit(context=self.context))

    # --- one job

    async def create(
        self, principal: Principal, new: NewJob, *, command: CommandDedup | None = None
    ) -> JobCreateResult:
        """Accepts a job. Raises: InvalidInput (its topic does not exist), TooManyRequests."""
        self.context.tracer.create(new.client_id, new.topic)
        self.check_on()
        authorize(principal, Right.CREATE, new.client_id, new.topic)
        limits: tuple[LimitState, ...] = self.rate_limits.take(new.client_id, payload_bytes=len(new.task_data))
        async with self.context.deadline() as deadline:
            try:
                async with self.limit.room(new.client_id) as room:
                    result = await create_job(
                        self.context, new, deadline, principal=_name_of(principal), command=command
                    )
                    room.used = isinstance(result, JobCreated)
            except TooManyRequests:
                # A job that was accepted before stays accepted, and a repeat is answered so.
                known = await find_repeat(self.context, new, deadline, command=command)
                if known is None:
                    self.context.telemetry.limited("jobs")
                    raise
                result = known
        if isinstance(result, JobCreated):
            self._tell(principal, "job_created", JobName(new.client_id, new.job_id))
        return result if isinstance(result, JobRefused) else replace(result, limits=limits)

    async def find(self, principal: Principal, name: JobName) -> JobView | None:
        """The present state of a job, its last run and its open runs. None: no job was ever accepted under this name, or its
        retention is over."""
        self.check_on()
        authorize(principal, Right.READ, name.client_id)
        async with self.context.deadline() as deadline:
            stored = await job_state.read_job(self.context, name, deadline)
            if stored is None:
                return None
            return replace(
                stored.view,
                last_run=await log.last_run(self.context, stored.state),
                open_runs=await log.open_runs(self.context, stored.state, stored.job),
            )

    async def find_unchecked(self, name: JobName, *, after: type[ChangeRequest] | None = None) -> JobView | None:
        """The present state, for callers that check the rights themselves. `after`: the kind of step that the caller has
        asked for; the view names the runs that may still be delivered as they were before."""
        async with self.context.deadline() as deadline:
            stored = await job_state.read_job(self.context, name, deadline)
            if stored is None:
                return None
            return stored.view if after is None else view_after_lost_answer(stored.view, after)

    async def put(
        self,
        principal: Principal,
        name: JobName,
        edit: JobEdit,
        *,
        condition: VersionCondition = ANY_VERSION,
        command: CommandDedup | None = None,
    ) -> JobChangeResult:
        """Changes the definition. Raises: InvalidInput (by `edit`, or the new topic does not exist)."""
        self._check(principal, Right.CREATE, name)
        step = Put(edit, self._authorized(principal), _name_of(principal))
        return await self._change(principal, "job_changed", name, step, condition, command)

    async def pause(
        self,
        principal: Principal,
        name: JobName,
        note: str | None,
        *,
        condition: VersionCondition = ANY_VERSION,
        command: CommandDedup | None = None,
    ) -> JobChangeResult:
        """Arms no run any more until a resume. `note`: the reason, for people."""
        self._check(principal, Right.CANCEL, name)
        return await self._change(principal, "job_paused", name, Pause(note), condition, command)

    async def resume(
        self,
        principal: Principal,
        name: JobName,
        *,
        condition: VersionCondition = ANY_VERSION,
        command: CommandDedup | None = None,
    ) -> JobChangeResult:
        """Ends a pause. Nothing that was missed is caught up."""
        self._check(principal, Right.CREATE, name)
        return await self._change(
            principal, "job_resumed", name, Resume(self._authorized(principal)), condition, command
        )

    async def delete(
        self,
        principal: Principal,
        name: JobName,
        *,
        condition: VersionCondition = ANY_VERSION,
        command: CommandDedup | None = None,
    ) -> JobChangeResult:
        """Deletes the job; it is kept for the retention."""
        self._check(principal, Right.CANCEL, name)
        return await self._change(principal, "job_deleted", name, Delete(), condition, command)

    async def restore(
        self, principal: Principal, name: JobName, *, condition: VersionCondition = ANY_VERSION
    ) -> JobChangeResult:
        """Brings a deleted job back as it was, active or paused."""
        self._check(principal, Right.CREATE, name)
        return await self._change(
            principal, "job_restored", name, Restore(self._authorized(principal)), condition, None
        )

    # --- named calendars

    async def put_calendar(
        self,
        principal: Principal,
        client_id: ClientId,
        new: NewCalendar,
        *,
        condition: VersionCondition = ANY_VERSION,
        must_exist: bool = False,
    ) -> CalendarPutResult:
        """Stores a calendar, and has the jobs follow that name it. `must_exist`: it may only be changed. Raises:
        InvalidInput."""
        self.check_on()
        authorize(principal, Right.CREATE, client_id)
        async with self.context.deadline() as deadline:
            result = await calendars.put_calendar(
                self.context,
                client_id,
                new,
                deadline,
                condition=condition,
                must_exist=must_exist,
                principal=_name_of(principal),
            )
        if not isinstance(result, CalendarPut):
            return result
        behind = calendars.OutdatedJobs()
        try:
            async with deadline.enforced():
                await calendars.have_jobs_follow(self.context, result.calendar.key, deadline, behind)
        except Unavailable:
            # The calendar is stored: the answer names the jobs that are left, and the audit comes to them.
            return behind.added_to(result)
        return behind.added_to(result)

    async def find_calendar(self, principal: Principal, key: CalendarName) -> Calendar | None:
        """A calendar; None: there is none."""
        self.check_on()
        authorize(principal, Right.READ, key.client_id)
        async with self.context.deadline() as deadline:
            return await calendars.find_calendar(self.context, key, deadline)

    async def list_calendars(
        self, principal: Principal, client_id: ClientId, *, after: str | None, limit: int
    ) -> CalendarsPage:
        """The calendars of a client after `after`, at most `limit`."""
        self.check_on()
        authorize(principal, Right.READ, client_id)
        async with self.context.deadline() as deadline:
            return await calendars.calendars_page(self.context, client_id, deadline, after=after, limit=limit)

    async def delete_calendar(
        self, principal: Principal, key: CalendarName, *, condition: VersionCondition = ANY_VERSION
    ) -> CalendarDeleteResult:
        """Deletes a calendar that no job uses."""
        self.check_on()
        authorize(principal, Right.CREATE, key.client_id)
        async with self.context.deadline() as deadline:
            return await calendars.delete_calendar(self.context, key, deadline, condition=condition)

    async def resolve(self, principal: Principal, preview: Preview) -> Preview:
        """A question for fire times whose trigger has the calendars that it names. Raises: InvalidInput (there is no such
        calendar)."""
        self.check_on()
        if preview.client_id is None or not preview.trigger.unresolved:
            return preview
        authorize(principal, Right.READ, preview.client_id)
        async with self.context.deadline() as deadline:
            return await resolve_preview(self.context, preview, deadline)

    # --- all jobs, for operators

    async def scan(self, *, client_id: ClientId | None, after: JobName | None, limit: int) -> JobScanPage:
        """Active and paused jobs of all clients, for callers that check the rights themselves."""
        async with self.context.deadline() as deadline:
            return await scan_page(self.context, deadline, client_id=client_id, after=after, limit=limit)

    async def import_one(
        self, principal: Principal, imported: ImportedJob, *, exported_at_ms: int
    ) -> JobCreateResult | ExportRefused:
        """Imports a job of another store. Limits of clients are not applied. Raises: InvalidInput."""
        self.check_on()
        refused = check_export(self.context, exported_at_ms)
        if refused is not None:
            return refused
        authorize(principal, Right.CREATE, imported.new.client_id, imported.new.topic)
        async with self.context.deadline() as deadline:
            return await import_job(self.context, imported, deadline, principal=_name_of(principal))

    # --- runs

    async def start_runs(
        self,
        principal: Principal,
        name: JobName,
        request: RunNow | BackfillRequest,
        *,
        command: CommandDedup | None = None,
    ) -> RunResult:
        """Arms a run by hand, or the first run of a backfill. Raises: TooManyRequests."""
        self._check(principal, Right.CREATE, name)
        payload_bytes = len(request.task_data or b"") if isinstance(request, RunNow) else 0
        limits = self.rate_limits.take(name.client_id, payload_bytes=payload_bytes)
        async with self.context.deadline() as deadline:
            runs = RunsRequest(request, self._authorized(principal))
            result = await start_runs(self.context, name, deadline, runs, command=command)
        if isinstance(result, RunAccepted):
            self._tell(principal, "job_run" if isinstance(request, RunNow) else "job_backfilled", name)
        return replace(result, limits=limits) if isinstance(result, RunAccepted | RunAlreadyAccepted) else result

    async def find_run(self, principal: Principal, name: JobName, run_id: RunId) -> RunView | JobNotFound | None:
        """One run, at its latest attempt. None: there is none of this id, or its entry has expired."""
        self._check(principal, Right.READ, name)
        async with self.context.deadline() as deadline:
            return await log.find_run(self.context, name, run_id, deadline)

    async def find_run_unchecked(self, name: JobName, run_id: RunId) -> RunView | None:
        """The same, for callers that check the rights themselves; None also if there is no such job."""
        async with self.context.deadline() as deadline:
            found = await log.find_run(self.context, name, run_id, deadline)
        return None if isinstance(found, JobNotFound) else found

    async def list_runs(
        self, principal: Principal, name: JobName, query: LogQuery, *, newest_position: Position | None, limit: int
    ) -> RunsPage | JobNotFound:
        """The runs and skipped stretches, newest first, from `newest_position` down, at most `limit`."""
        self._check(principal, Right.READ, name)
        async with self.context.deadline() as deadline:
            return await log.log_page(self.context, name, query, deadline, newest_position=newest_position, limit=limit)

    async def report_run(
        self,
        principal: Principal,
        name: JobName,
        run_id: RunId,
        report: CompletionReport | Heartbeat,
        *,
        command: CommandDedup | None = None,
    ) -> ReportResult:
        """Ends an attempt of a run as its consumer reports, or gives it more time."""
        self._check(principal, Right.COMPLETE, name)
        async with self.context.deadline() as deadline:
            result = await completion.report_run(self.context, name, run_id, report, deadline, command=command)
        if isinstance(result, RunClosed):
            ended = result.run.completion
            if ended is not None and result.run.delivery is not None:
                began_ms = ended.started_at_ms if ended.started_at_ms is not None else result.run.delivery.at_ms
                self.context.telemetry.job_completion(ended.result, seconds=(ended.finished_at_ms - began_ms) / 1_000)
        return result

    # --- definitions, lists

    async def versions(
        self, principal: Principal, name: JobName, *, below: int | None, limit: int
    ) -> VersionsPage | JobNotFound:
        """The versions of the definition, newest first, below a version, at most `limit`."""
        self._check(principal, Right.READ, name)
        async with self.context.deadline() as deadline:
            return await log.versions_page(self.context, name, deadline, below=below, limit=limit)

    async def version(self, principal: Principal, name: JobName, version: int) -> Job | JobNotFound | None:
        """One version. None: there is none, or it is not kept any more."""
        found = await self.versions(principal, name, below=version + 1, limit=1)
        if isinstance(found, JobNotFound):
            return found
        return next((job for job in found.versions if job.version == version), None)

    async def list_jobs(self, principal: Principal, query: JobQuery, *, after: JobId | None, limit: int) -> JobsPage:
        """The jobs of a client after `after`, at most `limit`."""
        self.check_on()
        authorize(principal, Right.READ, query.client_id)
        async with self.context.deadline() as deadline:
            return await listing.list_page(self.context, query, deadline, after=after, limit=limit)

    # --- within

    def check_on(self) -> None:
        """Raises: JobsOff."""
        if self.context.settings.jobs == "off":
            raise JobsOff

    def _check(self, principal: Principal, right: Right, name: JobName) -> None:
        self.check_on()
        authorize(principal, right, name.client_id)

    def _authorized(self, principal: Principal) -> Callable[[JobContent], None]:
        """The check that a principal covers a job's topic: what a call with the right `create` lets it deliver is the
        principal's."""

        def check(content: JobContent) -> None:
            authorize(principal, Right.CREATE, content.client_id, content.topic)

        return check

    async def _change(
        self,
        principal: Principal,
        kind: JobKind,
        name: JobName,
        request: ChangeRequest,
        condition: VersionCondition,
        command: CommandDedup | None,
    ) -> JobChangeResult:
        async with self.context.deadline() as deadline:
            result = await change_job(self.context, name, deadline, request, condition=condition, command=command)
        if isinstance(result, JobChanged | JobUnchanged):
            self._tell(principal, kind, name, reason=request.note if isinstance(request, Pause) else None)
        return result

    def _tell(self, principal: Principal, kind: JobKind, name: JobName, *, reason: str | None = None) -> None:
        self.context.telemetry.action(
            Action(kind=kind, by=principal.name, client_id=name.client_id, job_id=name.job_id, reason=reason)
        )


def _name_of(principal: Principal) -> str | None:
    return None if principal is ANYONE else principal.name
