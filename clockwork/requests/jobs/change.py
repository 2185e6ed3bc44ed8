"""Changes of a job: PUT, pause, resume, delete, restore. Each is one step of `domain.jobs.steps`, applied like this:

    1 read      state and definition; the request may find that nothing is to be done, or that it is refused
    2 take      hold and look, for each armed row that the step wants (`take`); a row that comes too late is in flight
    3 apply     one transaction: delete the taken rows IF they bear the holds, put the state IF its revision is as read, the
                next row, the new definition. Only its success answers `200`

A failed condition means that another step was made meanwhile, by a request or by the end of a run: again from 1, within the
request's patience. So the answer is about the state that the change was made from, and `in_flight` names exactly the rows
that this state named and the request did not take: those that the state after the change still names. It is read off that
state, and not remembered by the try that was sent: of two tries whose answers are lost, which may have taken different
rows, either may be the one that was made.

**A lost answer.** The state's `write_id` tells a request its own write, as long as no other step has followed. A PUT
recognises its work after that too, by the definition that it has put. A pause, resume, delete or restore whose answer
was lost, and which another step has followed, is made again if the job does not stand as it wants: as if the request
had come later.

**The same request again** states the wanted job, not a step: it finds the job so and answers `200`, with the runs that are
in flight since.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from clockwork.domain.jobs import steps
from clockwork.domain.jobs.calendar import CalendarDigests, digests_of
from clockwork.domain.jobs.job import ArmedRow, Job, JobContent, JobName, JobState, JobStatus, JobTransaction, TakenRow
from clockwork.domain.jobs.steps import StepContext
from clockwork.errors import Contested, StoreUnavailable
from clockwork.ports.jobs import StaleRevision
from clockwork.requests.context import RequestContext
from clockwork.requests.create import check_topic
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.dedup import CommandDedup
from clockwork.requests.jobs import job_state
from clockwork.requests.jobs.job_state import StoredJob
from clockwork.requests.jobs.resolve import exclusions_of, read_calendars, resolved
from clockwork.requests.jobs.results import (
    JobChanged,
    JobChangeResult,
    JobEdit,
    JobNotFound,
    JobReason,
    JobRefused,
    JobUnchanged,
    JobVersionDiffers,
    JobView,
)
from clockwork.requests.jobs.take import RowTaker
from clockwork.requests.results import ANY_VERSION, VersionCondition


class ChangeRequest:
    """A request for one kind of change. Pure, but for `wanted` and `check`."""

    changes_definition = False

    def refusal(self, state: JobState) -> JobReason | None:
        """The reason why it cannot be made from this state; None: it can."""
        return JobReason.DELETED if state.status is JobStatus.DELETED else None

    async def wanted(self, context: RequestContext, stored: StoredJob) -> Job | None:
        """The definition from then on, which may be the present one; None: the job is as the request wants it.
        Raises: InvalidInput, StoreUnavailable, Unreadable."""
        raise NotImplementedError

    async def check(self, context: RequestContext, present: Job, wanted: Job) -> None:
        """Raises: InvalidInput, Unavailable."""

    def takes(self, state: JobState) -> Sequence[ArmedRow]:
        """The rows that it wants to take."""
        return ()

    def compute(self, stored: StoredJob, wanted: Job, taken: Sequence[TakenRow], step: StepContext) -> JobTransaction:
        """The transaction, which is not applied here."""
        raise NotImplementedError

    def may_still_deliver(self, state: JobState) -> Iterable[ArmedRow]:
        """The rows of this state that may still be delivered as they were before the request, unless it takes them. Runs by
        hand and those of a backfill are among them: only a delete takes them."""
        return ()


@dataclass(frozen=True, slots=True)
class Put(ChangeRequest):
    """Another definition."""

    edit: JobEdit
    authorized: Callable[[JobContent], None]
    """Raises: Forbidden. Also where the topic stays as it is: the records would be this principal's."""
    principal: str | None
    changes_definition = True

    async def wanted(self, context: RequestContext, stored: StoredJob) -> Job | None:
        present = stored.job
        content = self.edit(present, created_ms=present.created_at_ms)
        self.authorized(content)
        trigger = await resolved(context, content.client_id, content.trigger)
        wanted = replace(present, **{**content.fields(), "trigger": trigger})
        return None if wanted == present else replace(wanted, changed_by=self.principal)

    async def check(self, context: RequestContext, present: Job, wanted: Job) -> None:
        if wanted.topic != present.topic:
            await check_topic(context, wanted.topic)

    def takes(self, state: JobState) -> Sequence[ArmedRow]:
        return steps.rows_to_take(state)

    def compute(self, stored: StoredJob, wanted: Job, taken: Sequence[TakenRow], step: StepContext) -> JobTransaction:
        return steps.update(stored.state, stored.job, wanted, taken, step)

    def may_still_deliver(self, state: JobState) -> Iterable[ArmedRow]:
        return state.pending_runs()


@dataclass(frozen=True, slots=True)
class Pause(ChangeRequest):
    """No run is armed any more until a resume."""

    note: str | None

    def refusal(self, state: JobState) -> JobReason | None:
        return _ENDS.get(state.status)

    async def wanted(self, context: RequestContext, stored: StoredJob) -> Job | None:
        return None if stored.state.status is JobStatus.PAUSED else stored.job

    def takes(self, state: JobState) -> Sequence[ArmedRow]:
        return steps.rows_to_take(state)

    def compute(self, stored: StoredJob, wanted: Job, taken: Sequence[TakenRow], step: StepContext) -> JobTransaction:
        return steps.pause(stored.state, taken, step, note=self.note)

    def may_still_deliver(self, state: JobState) -> Iterable[ArmedRow]:
        return state.pending_runs()


@dataclass(frozen=True, slots=True)
class Resume(ChangeRequest):
    """The end of a pause."""

    authorized: Callable[[JobContent], None]

    def refusal(self, state: JobState) -> JobReason | None:
        return _ENDS.get(state.status)

    async def wanted(self, context: RequestContext, stored: StoredJob) -> Job | None:
        self.authorized(stored.job)
        return None if stored.state.status is JobStatus.ACTIVE else stored.job

    def compute(self, stored: StoredJob, wanted: Job, taken: Sequence[TakenRow], step: StepContext) -> JobTransaction:
        return steps.resume(stored.state, stored.job, step)


class Delete(ChangeRequest):
    """A soft delete."""

    def refusal(self, state: JobState) -> JobReason | None:
        return None

    async def wanted(self, context: RequestContext, stored: StoredJob) -> Job | None:
        return None if stored.state.status is JobStatus.DELETED else stored.job

    def takes(self, state: JobState) -> Sequence[ArmedRow]:
        return steps.rows_to_take(state, deletes=True)

    def compute(self, stored: StoredJob, wanted: Job, taken: Sequence[TakenRow], step: StepContext) -> JobTransaction:
        return steps.delete(stored.state, taken, step)

    def may_still_deliver(self, state: JobState) -> Iterable[ArmedRow]:
        return state.pending_runs()


@dataclass(slots=True)
class Restore(ChangeRequest):
    """A deleted job comes back, by the named calendars as they are now."""

    authorized: Callable[[JobContent], None]
    _calendars: CalendarDigests = ()

    def refusal(self, state: JobState) -> JobReason | None:
        return None if state.status is JobStatus.DELETED else JobReason.NOT_DELETED

    async def wanted(self, context: RequestContext, stored: StoredJob) -> Job | None:
        self.authorized(stored.job)
        state, trigger = stored.state, stored.job.trigger
        calendars = exclusions_of(await read_calendars(context, state.client_id, dict(state.calendars)))
        self._calendars = tuple((name, each.digest) for name, each in calendars.items())
        return stored.job if trigger is None else replace(stored.job, trigger=trigger.resolved(calendars))

    def compute(self, stored: StoredJob, wanted: Job, taken: Sequence[TakenRow], step: StepContext) -> JobTransaction:
        return steps.restore(stored.state, wanted, step, calendars=self._calendars)


@dataclass(slots=True)
class FollowCalendars(ChangeRequest):
    """The definition with the named calendars as they are now; one that is gone stays as it was. Of a job that is active or
    paused: one that has ended does not come back by it, and one that is restored is resolved then."""

    changes_definition = True
    _outdated: bool = False
    """True if the armed row is one of the calendars before. Also where nothing is to be changed any more: a row that was in
    flight while another request, or the audit, made this step is still delivered."""

    def refusal(self, state: JobState) -> JobReason | None:
        return _ENDS.get(state.status)

    async def wanted(self, context: RequestContext, stored: StoredJob) -> Job | None:
        state, trigger = stored.state, stored.job.trigger
        calendars = await read_calendars(context, state.client_id, dict(state.calendars))
        if trigger is not None:
            trigger = trigger.resolved(exclusions_of(calendars))
        wanted = replace(stored.job, trigger=trigger)
        self._outdated = steps.row_is_outdated(state, wanted, context.clock.now_ms())
        before, now = dict(state.calendars), dict(digests_of(trigger))
        changed = [calendar for name, calendar in calendars.items() if before[name] != now.get(name)]
        return replace(wanted, changed_by=changed[0].changed_by) if changed else None

    def takes(self, state: JobState) -> Sequence[ArmedRow]:
        return steps.rows_to_take(state) if self._outdated else ()

    def compute(self, stored: StoredJob, wanted: Job, taken: Sequence[TakenRow], step: StepContext) -> JobTransaction:
        return steps.follow_calendars(stored.state, wanted, taken, step)

    def may_still_deliver(self, state: JobState) -> Iterable[ArmedRow]:
        return (state.armed,) if self._outdated and state.armed is not None else ()


_ENDS: Final = {JobStatus.DELETED: JobReason.DELETED, JobStatus.ENDED: JobReason.ENDED}


async def change_job(
    context: RequestContext,
    name: JobName,
    deadline: RequestDeadline,
    request: ChangeRequest,
    *,
    condition: VersionCondition = ANY_VERSION,
    command: CommandDedup | None = None,
) -> JobChangeResult:
    """Makes one step.

    Raises: InvalidInput, Unavailable (it may have been made: the same request again settles it), Unreadable,
    CommandAlreadyProcessed.
    """
    write_id = job_state.new_request_id(context)
    taker = RowTaker(context, deadline)
    tried: JobTransaction | None = None
    while True:
        taken: Sequence[TakenRow] = ()
        try:
            stored = await job_state.read_job(context, name, deadline)
            if stored is None:
                return JobNotFound()
            if tried is not None and await _was_applied(context, tried, stored.state):
                of = tried.definition.version if tried.definition is not None else stored.state.version
                return _result_of(context, stored.view, request, command, version=of)
            found = await _without_change(context, stored, request, condition)
            if not isinstance(found, Job):
                if isinstance(found, JobUnchanged):
                    job_state.announce_armed(context, stored.state)
                return found
            await request.check(context, stored.job, found)
            taken = await taker.take(stored, request.takes(stored.state))
            if command is not None:
                await command.check()
            change = request.compute(stored, found, taken, job_state.step_context(context, write_id))
            if command is not None:
                change = replace(change, command=command.change(due_ms=0))
            tried = change
            await job_state.apply(context, change)
        except StaleRevision:
            continue
        except Contested as contested:
            # An owner has taken a hold off to fire the row, or a transaction is being applied.
            taker.count_lost_holds(taken)
            why = f"{job_state.BEING_CHANGED}: {contested}"
        except StoreUnavailable as error:
            why = f"the job could not be changed in time: {error}"
        else:
            job = change.definition or stored.job
            return _result_of(
                context, JobView(state=change.state, job=job), request, command, version=change.state.version
            )
        await deadline.pause(why)


async def _without_change(
    context: RequestContext, stored: StoredJob, request: ChangeRequest, condition: VersionCondition
) -> JobChangeResult | Job:
    """The result of a request that changes nothing; else the wanted definition."""
    view = stored.view
    reason = request.refusal(stored.state)
    if reason is not None:
        return JobRefused(reason, view)
    wanted = await request.wanted(context, stored)
    version = stored.state.version
    if not condition.holds(version):
        # Taken for the work of this same request only if no other request can have come in between.
        done_before = request.changes_definition and wanted is None and condition.held_before(version)
        if not done_before:
            return JobVersionDiffers(view)
    if wanted is None:
        return JobUnchanged(_with_in_flight(view, request, version=version))
    return wanted


def _with_in_flight(view: JobView, request: ChangeRequest, *, version: int) -> JobView:
    """The view of a job that is as a request wants it, with the runs that may still be delivered as they were before.
    `version`: that of the definition which a PUT has put, or found; runs of earlier ones are of before."""
    rows = (
        each
        for each in request.may_still_deliver(view.state)
        if not request.changes_definition or each.version < version
    )
    return replace(view, in_flight=tuple(rows))


def view_after_lost_answer(view: JobView, request: type[ChangeRequest]) -> JobView:
    """The view of a job some time after a step of this kind, for a caller that has not heard of its result. If the job still
    stands so, a view without the runs of before would promise that there are none."""
    state = view.state
    as_wanted = (
        request is Put or state.status is JobStatus.DELETED or (request is Pause and state.status is JobStatus.PAUSED)
    )
    rows = (each for each in state.pending_runs() if request is not Put or each.version < state.version)
    return replace(view, in_flight=tuple(rows)) if as_wanted else view


async def _was_applied(context: RequestContext, tried: JobTransaction, state: JobState) -> bool:
    """True if an earlier try, whose answer was lost, was applied."""
    if state.write_id == tried.state.write_id:
        return True
    if tried.definition is None or state.version < tried.definition.version:
        return False
    return await context.jobs.read_definition(state.name, tried.definition.version) == tried.definition


def _result_of(
    context: RequestContext, view: JobView, request: ChangeRequest, command: CommandDedup | None, *, version: int
) -> JobChanged:
    if command is not None:
        command.had_effect = True
    job_state.announce_armed(context, view.state)
    return JobChanged(_with_in_flight(view, request, version=version))
