"""Jobs on their way from one store to another: a scan of all of them, and the import of one.

A job travels as the create that makes it, with what that create alone would not bring back: creation, version, digest,
counts, the pause, and the cursor, up to which its fire times were decided. From there they go on in the new store, so none
is fired twice and none is left out, whatever time the way has taken. What is missed meanwhile is caught up or skipped by
the job's misfire policy. Not carried are rows that are no occurrence of the trigger: runs by hand and backfills that are
pending, retries, and the run that is open; the scan counts them. Nor are logs, versions before the last, and jobs that are
deleted or have ended.

The named calendars of a job come with it, and are made where they are not there. One that is there counts as it is: it is
this cluster's, and other jobs use it.

An import that is repeated finds the job by creation and digest, whatever has become of it here.
"""

from dataclasses import dataclass, replace

from clockwork.domain.jobs import steps
from clockwork.domain.jobs.calendar import Calendar, CalendarName
from clockwork.domain.jobs.job import ImportedJob, Job, JobName, JobState, JobStatus
from clockwork.domain.run import RunKind
from clockwork.domain.schedule import ClientId
from clockwork.errors import ConditionFailed, Contested, StoreUnavailable, Unreadable
from clockwork.ports.jobs import StaleRevision
from clockwork.requests.context import RequestContext
from clockwork.requests.create import check_topic
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.jobs import job_state
from clockwork.requests.jobs.resolve import resolved
from clockwork.requests.jobs.results import (
    JobAlreadyCreated,
    JobCreated,
    JobCreateResult,
    JobReason,
    JobRefused,
    JobView,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobScanPage:
    """Some jobs of all clients."""

    views: tuple[JobView, ...]
    unreadable: int
    """Jobs of this page that this version cannot read."""
    next_after: JobName | None
    """Read on after this one; None: there is nothing more."""


async def scan_page(
    context: RequestContext, deadline: RequestDeadline, *, client_id: ClientId | None, after: JobName | None, limit: int
) -> JobScanPage:
    """Active and paused jobs, in any order, about `limit`; fewer, even none, does not mean that there are no more.

    Raises: Unavailable.
    """
    page = await context.jobs.scan_jobs(0, 1, after=after, jobs_max=limit)
    views: list[JobView] = []
    unreadable = 0
    for name in page.names:
        if client_id not in (None, name.client_id):
            continue
        try:
            stored = await job_state.read_job(context, name, deadline)
        except Unreadable:
            unreadable += 1
            continue
        if stored is not None and stored.state.status in (JobStatus.ACTIVE, JobStatus.PAUSED):
            views.append(stored.view)
    return JobScanPage(views=tuple(views), unreadable=unreadable, next_after=page.next_after)


def left_behind(state: JobState) -> int:
    """The number of runs that an export of this job does not carry."""
    of_trigger = (RunKind.SCHEDULED, RunKind.CATCH_UP)
    rows = [each for each in state.pending() if each.kind not in (*of_trigger, RunKind.WATCHDOG)]
    return len(rows) + (state.open_run is not None)


async def import_job(
    context: RequestContext, imported: ImportedJob, deadline: RequestDeadline, *, principal: str | None
) -> JobCreateResult:
    """Imports a job.

    Raises: InvalidInput (its topic, or a calendar that it does not bring, does not exist), Unavailable (it may have
    been imported: the same request again settles it), Unreadable.
    """
    new, write_id = imported.new, job_state.new_request_id(context)
    await check_topic(context, new.topic)
    while True:
        try:
            present = await context.jobs.read_state(new.name)
            if present is not None and not job_state.expired(context, present):
                is_this = present.digest == new.digest and present.created_at_ms == new.created_at_ms
                if is_this or present.status is not JobStatus.DELETED:
                    stored = await job_state.read_job(context, new.name, deadline)
                    if stored is None or stored.state.rev != present.rev:
                        continue
                    job_state.announce_armed(context, stored.state)
                    if not is_this:
                        return JobRefused(JobReason.EXISTS, stored.view)
                    return JobCreated(stored.view) if present.write_id == write_id else JobAlreadyCreated(stored.view)
            await _bring_calendars(context, imported, principal=principal)
            trigger = await resolved(context, new.client_id, new.trigger, now_ms=imported.updated_at_ms)
            resolved_job = replace(imported, new=replace(new, trigger=trigger))
            change = steps.import_job(
                resolved_job, present, job_state.step_context(context, write_id), principal=principal
            )
            await job_state.apply(context, change)
        except StaleRevision:
            continue
        except (Contested, StoreUnavailable) as error:
            await deadline.pause(f"the job could not be stored in time: {error}")
        else:
            assert isinstance(change.definition, Job), "an import puts a definition"
            job_state.announce_armed(context, change.state)
            return JobCreated(JobView(state=change.state, job=change.definition))


async def _bring_calendars(context: RequestContext, imported: ImportedJob, *, principal: str | None) -> None:
    """Makes the calendars of a job that are not there. Raises: StoreUnavailable, Unreadable."""
    client_id, now_ms = imported.new.client_id, context.clock.now_ms()
    for named in imported.calendars:
        if await context.jobs.read_calendar(CalendarName(client_id, named.name)) is not None:
            continue
        calendar = Calendar(
            client_id=client_id,
            name=named.name,
            version=1,
            exclusion=named.exclusion,
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
            changed_by=principal,
            write_id=job_state.new_request_id(context),
        )
        try:
            await context.jobs.put_calendar(calendar, before=None)
        except ConditionFailed:
            continue  # made by another import meanwhile
