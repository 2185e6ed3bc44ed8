"""Named calendars: put, read, listed, deleted; resolved for jobs; and what becomes of jobs when one of them changes.

**A put** stores the calendar, and then has each job follow that names it and is active or paused: a new version of the
definition, resolved with the calendars as they are now, and the armed row moved if it stands elsewhere by them. It goes on
as long as the request may take. The jobs that it has not reached are named in the answer (`behind`), and so are those whose
armed row was in flight: these, and no others, may still be delivered by the calendar of before. The audit reaches them.

Why no others: a reference to a job is put beside the calendars that it names before the transaction that puts its
definition, and that one is made only if each calendar still has the content that the job was resolved with
(`domain.jobs.calendar`). A job that was stored before the put is among the references, which are read after it; its
state is read while no transaction is being applied to it. A later one has the calendar as it was put.

**A delete** is refused while such a job names the calendar. A job may be made between the read of the references and the
delete; so they are read once more after it, and the calendar is put back if there is one. A request that dies in between
leaves a job whose calendar is gone: it keeps the content that it has, and the audit logs it.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Final

from clockwork.concurrency import gather_bounded
from clockwork.domain.jobs.calendar import (
    CALENDARS_OF_CLIENT_MAX,
    Calendar,
    CalendarName,
    NewCalendar,
    check_leaves_open_days,
)
from clockwork.domain.jobs.job import JobName, JobState, JobStatus
from clockwork.domain.run import JobId
from clockwork.domain.schedule import ClientId
from clockwork.domain.triggers.zones import DAY_S
from clockwork.errors import (
    ConditionFailed,
    Contested,
    StoreUnavailable,
    TransactionConflict,
    Unavailable,
    Unreadable,
)
from clockwork.requests.context import RequestContext
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.jobs.change import FollowCalendars, change_job
from clockwork.requests.jobs.job_state import new_request_id
from clockwork.requests.jobs.results import (
    CalendarDeleted,
    CalendarDeleteResult,
    CalendarInUse,
    CalendarNotFound,
    CalendarPut,
    CalendarPutResult,
    CalendarsPage,
    CalendarVersionDiffers,
    JobChanged,
    JobRefused,
    JobUnchanged,
    TooManyCalendars,
)
from clockwork.requests.results import VersionCondition

REFERENCES_PAGE: Final = 100
FOLLOWED_AT_ONCE: Final = 8
JOBS_NAMED_MAX: Final = 100
"""Jobs that an answer names."""
_CONTESTED: Final = "the calendar is being changed by another request"


# --- put


async def put_calendar(
    context: RequestContext,
    client_id: ClientId,
    new: NewCalendar,
    deadline: RequestDeadline,
    *,
    condition: VersionCondition,
    must_exist: bool,
    principal: str | None,
) -> CalendarPutResult:
    """Stores a calendar, whether it was there or not. `must_exist`: it may only be changed.

    Raises: InvalidInput (it leaves no day open), Unavailable (it may have been stored: the same request again settles it),
    Unreadable.
    """
    key, write_id = CalendarName(client_id, new.name), new_request_id(context)
    while True:
        try:
            now_ms = context.clock.now_ms()
            present = await context.jobs.read_calendar(key)
            if present is not None and present.write_id == write_id:
                return CalendarPut(present, created=present.version == 1)  # written by a try whose answer was lost
            found = _without_put(present, new, condition, must_exist=must_exist)
            if found is not None:
                return found
            check_leaves_open_days(new.exclusion, today_day=now_ms // 1_000 // DAY_S)
            if present is None and await _is_full(context, client_id):
                return TooManyCalendars(CALENDARS_OF_CLIENT_MAX)
            calendar = Calendar(
                client_id=client_id,
                name=new.name,
                version=1 if present is None else present.version + 1,
                exclusion=new.exclusion,
                description=new.description,
                created_at_ms=now_ms if present is None else present.created_at_ms,
                updated_at_ms=now_ms,
                changed_by=principal,
                write_id=write_id,
            )
            await context.jobs.put_calendar(calendar, before=present)
        except (Contested, StoreUnavailable) as error:
            await deadline.pause(f"{_CONTESTED}, or could not be stored in time: {error}")
        else:
            return CalendarPut(calendar, created=present is None)


def _without_put(
    present: Calendar | None, new: NewCalendar, condition: VersionCondition, *, must_exist: bool
) -> CalendarPutResult | None:
    """The result of a put that stores nothing; None: it stores."""
    if present is None:
        return CalendarVersionDiffers(None) if must_exist or condition.any_of is not None else None
    as_wanted = present.exclusion.digest == new.exclusion.digest and present.description == new.description
    # Taken for the work of this same request only if no other request can have come in between.
    if not condition.holds(present.version) and not (as_wanted and condition.held_before(present.version)):
        return CalendarVersionDiffers(present)
    return CalendarPut(present, created=False) if as_wanted else None


async def _is_full(context: RequestContext, client_id: ClientId) -> bool:
    """True if a client has as many calendars as it may have: a soft limit, since others may be made at this moment."""
    there = await context.jobs.list_calendars(client_id, after=None, calendars_max=CALENDARS_OF_CLIENT_MAX)
    return len(there) >= CALENDARS_OF_CLIENT_MAX


# --- jobs that name a calendar


class OutdatedJobs:
    """The jobs that may still be delivered by the calendar as it was before. Grows, and shrinks, while jobs follow."""

    def __init__(self) -> None:
        self._jobs: dict[JobId, None] = {}
        self.all_read = False
        """True once all references were read."""

    def add(self, jobs: Sequence[JobName]) -> None:
        self._jobs.update((each.job_id, None) for each in jobs)

    def followed(self, job: JobName) -> None:
        self._jobs.pop(job.job_id, None)

    def added_to(self, result: CalendarPut) -> CalendarPut:
        """The result with these jobs."""
        jobs = sorted(self._jobs)
        more = not self.all_read or len(jobs) > JOBS_NAMED_MAX
        return replace(result, behind=tuple(jobs[:JOBS_NAMED_MAX]), more_behind=more)


async def have_jobs_follow(
    context: RequestContext, key: CalendarName, deadline: RequestDeadline, outdated: OutdatedJobs
) -> None:
    """Has each job follow that names a calendar. `outdated` is true at every moment, also when this is cancelled.

    Raises: Unavailable, with some of them outdated.
    """

    async def follow(job: JobName) -> None:
        try:
            await _committed_state(context, job, deadline)
            result = await change_job(context, job, deadline, FollowCalendars())
        except (Unavailable, Contested, Unreadable):
            return  # the audit comes to it
        # Refused: it is deleted, or has ended. A row of it that is in flight is still delivered.
        in_flight = result.view.in_flight if isinstance(result, JobChanged | JobUnchanged) else ()
        refused = isinstance(result, JobRefused) and result.view.state.armed is not None
        if not in_flight and not refused:
            outdated.followed(job)

    async for names in _referring_jobs(context, key):
        outdated.add(names)
        await gather_bounded(follow, names, at_once=FOLLOWED_AT_ONCE)
    outdated.all_read = True


async def _committed_state(context: RequestContext, job: JobName, deadline: RequestDeadline) -> JobState | None:
    """The state of a job while no transaction is being applied to it: of one that was decided before it is there. Raises:
    Unavailable, Unreadable."""
    while True:
        try:
            return await context.jobs.read_state(job, committed=True)
        except (TransactionConflict, StoreUnavailable) as error:
            await deadline.pause(f"the job could not be read in time: {error}")


async def follow_calendars_of(context: RequestContext, job: JobName) -> bool:
    """Has one job follow its calendars, for the audit. Returns True if it was changed. Raises: Unavailable, Unreadable."""
    async with context.deadline() as deadline:
        result = await change_job(context, job, deadline, FollowCalendars())
    return isinstance(result, JobChanged)


async def _referring_jobs(context: RequestContext, key: CalendarName) -> AsyncIterator[Sequence[JobName]]:
    """Pages of the jobs that have a reference beside a calendar, of any status."""
    after: JobId | None = None
    while True:
        page = await context.jobs.list_jobs_of_calendar(key, after=after, jobs_max=REFERENCES_PAGE)
        yield page.names
        if page.next_after is None:
            return
        after = page.next_after.job_id


# --- read


async def find_calendar(context: RequestContext, key: CalendarName, deadline: RequestDeadline) -> Calendar | None:
    """Raises: Unavailable, Unreadable."""
    while True:
        try:
            return await context.jobs.read_calendar(key)
        except StoreUnavailable as error:
            await deadline.pause(f"the calendar could not be read in time: {error}")


async def calendars_page(
    context: RequestContext, client_id: ClientId, deadline: RequestDeadline, *, after: str | None, limit: int
) -> CalendarsPage:
    """The calendars after `after`, at most `limit`. Raises: Unavailable."""
    while True:
        try:
            found = await context.jobs.list_calendars(client_id, after=after, calendars_max=limit + 1)
        except StoreUnavailable as error:
            await deadline.pause(f"the calendars could not be read in time: {error}")
        else:
            page = tuple(found[:limit])
            return CalendarsPage(calendars=page, next_after=page[-1].name if len(found) > limit else None)


# --- delete


async def delete_calendar(
    context: RequestContext, key: CalendarName, deadline: RequestDeadline, *, condition: VersionCondition
) -> CalendarDeleteResult:
    """Deletes a calendar that no job uses.

    Raises: Unavailable (it may have been deleted: the same request again settles it), Unreadable.
    """
    deleted: Calendar | None = None
    while True:
        try:
            present = await context.jobs.read_calendar(key)
            if present is not None:
                if not condition.holds(present.version):
                    return CalendarVersionDiffers(present)
                if users := await _users(context, key, deadline):
                    return CalendarInUse(present, users)
                deleted = present
                await context.jobs.delete_calendar(present)
            if deleted is None:
                return CalendarNotFound()
            users = await _users(context, key, deadline)
            if not users:
                return CalendarDeleted(deleted)
            await _put_back(context, deleted)
            return CalendarInUse(deleted, users)
        except (Contested, StoreUnavailable) as error:
            await deadline.pause(f"{_CONTESTED}, or could not be deleted in time: {error}")


async def _users(context: RequestContext, key: CalendarName, deadline: RequestDeadline) -> tuple[JobId, ...]:
    """The first jobs that use a calendar. Raises: Unavailable, Unreadable."""
    users: list[JobId] = []
    async for names in _referring_jobs(context, key):
        states = await gather_bounded(
            lambda name: _committed_state(context, name, deadline), names, at_once=FOLLOWED_AT_ONCE
        )
        users += (state.job_id for state in states if state is not None and _uses(state, key.name))
        if len(users) >= JOBS_NAMED_MAX:
            break
    return tuple(sorted(users)[:JOBS_NAMED_MAX])


def _uses(state: JobState, calendar: str) -> bool:
    """True for an active or paused job that names the calendar. A deleted or ended job uses none: when it is restored it is
    resolved with the calendars that there are then, and keeps its own content of those that are gone."""
    return state.status in (JobStatus.ACTIVE, JobStatus.PAUSED) and calendar in dict(state.calendars)


async def _put_back(context: RequestContext, calendar: Calendar) -> None:
    try:
        # With an id of its own: a late copy of the delete is about the one before.
        await context.jobs.put_calendar(replace(calendar, write_id=new_request_id(context)), before=None)
    except ConditionFailed:
        return  # made anew by another request
