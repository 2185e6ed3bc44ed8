"""Changes of a job: PUT, pause, resume, delete, restore. Each is one step of `domain.jobs.steps`, made like this:

    1 read      state and definition; the request may find that nothing is to be done, or that it is refused
    2 take      hold and look, for each armed row that the step wants (`take`); a row that comes too late is in flight
    3 change    one transaction: delete the taken rows IF they bear the holds, put the state IF its revision is as read, the
                next row, the new definition. Only its success answers `200`

A failed condition means that another step was made meanwhile, by a request or by the end of a run: again from 1, within the
request's patience. So the answer is about the state that the change was made from, and `in_flight` names exactly the rows
that this state named and the request did not take: those that the state after the change still names. It is read off that
state, and not remembered by the try that was sent: of two tries whose answers are lost, which may have taken different
rows, either may be the one that was made.

**A lost answer.** The state's `by` tells a request its own write, as long as no other step has followed. A PUT recognises
its work after that too, by the definition that it has put. A pause, resume, delete or restore whose answer was lost, and
which another step has followed, is made again if the job does not stand as it wants: as if the request had come later.

**The same request again** states the wanted job, not a step: it finds the job so and answers `200`, with the runs that are
in flight since.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from clockwork.domain.jobs import steps
from clockwork.domain.jobs.calendar import CalendarDigests, digests_of
from clockwork.domain.jobs.job import ArmedRow, Job, JobChange, JobContent, JobName, JobState, JobStatus, TakenRow
from clockwork.domain.jobs.steps import Moment
from clockwork.domain.run import RunKind
from clockwork.errors import Contested, StoreUnavailable
from clockwork.ports.jobs import JobChanged
from clockwork.requests.context import RequestContext
from clockwork.requests.create import check_topic
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.dedup import CommandDedup
from clockwork.requests.jobs import state as states
from clockwork.requests.jobs.resolve import exclusions_of, read_calendars, resolved
from clockwork.requests.jobs.results import (
    JobChangeResult,
    JobDone,
    JobEdit,
    JobNotFound,
    JobReason,
    JobRefused,
    JobVersionDiffers,
    JobView,
)
from clockwork.requests.jobs.state import JobReading
from clockwork.requests.jobs.take import RowTaker
from clockwork.requests.results import ANY_VERSION, VersionCondition


class Step:
    """One kind of change. Pure, but for `wanted` and `check`."""

    changes_definition = False

    def refusal(self, state: JobState) -> JobReason | None:
        """The reason why it cannot be made from this state; None: it can."""
        return JobReason.DELETED if state.status is JobStatus.DELETED else None

    async def wanted(self, context: RequestContext, reading: JobReading) -> Job | None:
        """The definition from then on, which may be the present one; None: the job stands as the request wants it.
        Raises: InvalidInput, StoreUnavailable, Unreadable."""
        raise NotImplementedError

    async def check(self, context: RequestContext, present: Job, wanted: Job) -> None:
        """Raises: InvalidInput, Unavailable."""

    def takes(self, state: JobState) -> Sequence[ArmedRow]:
        """The rows that it wants to take."""
        return ()

    def make(self, reading: JobReading, wanted: Job, taken: Sequence[TakenRow], at: Moment) -> JobChange:
        """The change."""
        raise NotImplementedError

    def of_before(self, state: JobState) -> Iterable[ArmedRow]:
        """The rows of this state that may be delivered as they were before, unless they are taken. Runs by hand and those of
        a backfill are among them: only a delete takes them."""
        return ()


@dataclass(frozen=True, slots=True)
class Put(Step):
    """Another definition."""

    edit: JobEdit
    authorized: Callable[[JobContent], None]
    """Raises: Forbidden. Also where the topic stays as it is: the records would be this principal's."""
    principal: str | None
    changes_definition = True

    async def wanted(self, context: RequestContext, reading: JobReading) -> Job | None:
        present = reading.job
        content = self.edit(present, created_ms=present.created_at_ms)
        self.authorized(content)
        trigger = await resolved(context, content.client_id, content.trigger)
        wanted = replace(present, **{**content.fields(), "trigger": trigger})
        return None if wanted == present else replace(wanted, changed_by=self.principal)

    async def check(self, context: RequestContext, present: Job, wanted: Job) -> None:
        if wanted.topic != present.topic:
            await check_topic(context, wanted.topic)

    def takes(self, state: JobState) -> Sequence[ArmedRow]:
        return steps.to_be_taken(state)

    def make(self, reading: JobReading, wanted: Job, taken: Sequence[TakenRow], at: Moment) -> JobChange:
        return steps.update(reading.state, reading.job, wanted, taken, at)

    def of_before(self, state: JobState) -> Iterable[ArmedRow]:
        return _deliveries(state)


@dataclass(frozen=True, slots=True)
class Pause(Step):
    """No run is armed any more until a resume."""

    note: str | None

    def refusal(self, state: JobState) -> JobReason | None:
        return _ENDS.get(state.status)

    async def wanted(self, context: RequestContext, reading: JobReading) -> Job | None:
        return None if reading.state.status is JobStatus.PAUSED else reading.job

    def takes(self, state: JobState) -> Sequence[ArmedRow]:
        return steps.to_be_taken(state)

    def make(self, reading: JobReading, wanted: Job, taken: Sequence[TakenRow], at: Moment) -> JobChange:
        return steps.pause(reading.state, taken, at, note=self.note)

    def of_before(self, state: JobState) -> Iterable[ArmedRow]:
        return _deliveries(state)


@dataclass(frozen=True, slots=True)
class Resume(Step):
    """The end of a pause."""

    authorized: Callable[[JobContent], None]

    def refusal(self, state: JobState) -> JobReason | None:
        return _ENDS.get(state.status)

    async def wanted(self, context: RequestContext, reading: JobReading) -> Job | None:
        self.authorized(reading.job)
        return None if reading.state.status is JobStatus.ACTIVE else reading.job

    def make(self, reading: JobReading, wanted: Job, taken: Sequence[TakenRow], at: Moment) -> JobChange:
        return steps.resume(reading.state, reading.job, at)


class Delete(Step):
    """A soft delete."""

    def refusal(self, state: JobState) -> JobReason | None:
        return None

    async def wanted(self, context: RequestContext, reading: JobReading) -> Job | None:
        return None if reading.state.status is JobStatus.DELETED else reading.job

    def takes(self, state: JobState) -> Sequence[ArmedRow]:
        return steps.to_be_taken(state, deletes=True)

    def make(self, reading: JobReading, wanted: Job, taken: Sequence[TakenRow], at: Moment) -> JobChange:
        return steps.delete(reading.state, taken, at)

    def of_before(self, state: JobState) -> Iterable[ArmedRow]:
        return _deliveries(state)


@dataclass(slots=True)
class Restore(Step):
    """A deleted job comes back, by the named calendars as they are now."""

    authorized: Callable[[JobContent], None]
    _calendars: CalendarDigests = ()

    def refusal(self, state: JobState) -> JobReason | None:
        return None if state.status is JobStatus.DELETED else JobReason.NOT_DELETED

    async def wanted(self, context: RequestContext, reading: JobReading) -> Job | None:
        self.authorized(reading.job)
        state, trigger = reading.state, reading.job.trigger
        calendars = exclusions_of(await read_calendars(context, state.client_id, dict(state.calendars)))
        self._calendars = tuple((name, each.digest) for name, each in calendars.items())
        return reading.job if trigger is None else replace(reading.job, trigger=trigger.resolved(calendars))

    def make(self, reading: JobReading, wanted: Job, taken: Sequence[TakenRow], at: Moment) -> JobChange:
        return steps.restore(reading.state, wanted, at, calendars=self._calendars)


@dataclass(slots=True)
class FollowCalendars(Step):
    """The definition with the named calendars as they are now; one that is gone stays as it was. Of a job that is active or
    paused: one that has ended does not come back by it, and one that is restored is resolved then."""

    changes_definition = True
    _outdated: bool = False
    """True if the armed row is one of the calendars before. Also where nothing is to be changed any more: a row that was in
    flight while another request, or the audit, made this step is still delivered."""

    def refusal(self, state: JobState) -> JobReason | None:
        return _ENDS.get(state.status)

    async def wanted(self, context: RequestContext, reading: JobReading) -> Job | None:
        state, trigger = reading.state, reading.job.trigger
        calendars = await read_calendars(context, state.client_id, dict(state.calendars))
        if trigger is not None:
            trigger = trigger.resolved(exclusions_of(calendars))
        wanted = replace(reading.job, trigger=trigger)
        self._outdated = steps.outdated(state, wanted, context.clock.now_ms())
        before, now = dict(state.calendars), dict(digests_of(trigger))
        changed = [calendar for name, calendar in calendars.items() if before[name] != now.get(name)]
        return replace(wanted, changed_by=changed[0].changed_by) if changed else None

    def takes(self, state: JobState) -> Sequence[ArmedRow]:
        return steps.to_be_taken(state) if self._outdated else ()

    def make(self, reading: JobReading, wanted: Job, taken: Sequence[TakenRow], at: Moment) -> JobChange:
        return steps.follow_calendars(reading.state, wanted, taken, at)

    def of_before(self, state: JobState) -> Iterable[ArmedRow]:
        return (state.armed,) if self._outdated and state.armed is not None else ()


_ENDS: Final = {JobStatus.DELETED: JobReason.DELETED, JobStatus.ENDED: JobReason.ENDED}


def _deliveries(state: JobState) -> Iterable[ArmedRow]:
    """The rows that a state names, but for a watchdog, which sends nothing."""
    return (each for each in state.pending() if each.kind is not RunKind.WATCHDOG)


async def change_job(
    context: RequestContext,
    name: JobName,
    deadline: RequestDeadline,
    step: Step,
    *,
    condition: VersionCondition = ANY_VERSION,
    command: CommandDedup | None = None,
) -> JobChangeResult:
    """Makes one step.

    Raises: InvalidInput, Unavailable (it may have been made: the same request again settles it), Unreadable,
    CommandAlreadyProcessed.
    """
    by = states.new_request_id(context)
    taker = RowTaker(context, deadline)
    tried: JobChange | None = None
    while True:
        taken: Sequence[TakenRow] = ()
        try:
            reading = await states.read_job(context, name, deadline)
            if reading is None:
                return JobNotFound()
            if tried is not None and await _was_made(context, tried, reading.state):
                of = tried.definition.version if tried.definition is not None else reading.state.version
                return _made(context, reading.view, step, command, version=of)
            found = await _without_change(context, reading, step, condition)
            if not isinstance(found, Job):
                if isinstance(found, JobDone):
                    states.announce_armed(context, reading.state)
                return found
            await step.check(context, reading.job, found)
            taken = await taker.take(reading, step.takes(reading.state))
            if command is not None:
                await command.check()
            change = step.make(reading, found, taken, states.moment(context, by))
            if command is not None:
                change = replace(change, command=command.change(due_ms=0))
            tried = change
            await states.make(context, change)
        except JobChanged:
            continue
        except Contested as contested:
            # An owner has taken a hold off to fire the row, or a transaction is being applied.
            taker.lost(taken)
            why = f"{states.BEING_CHANGED}: {contested}"
        except StoreUnavailable as error:
            why = f"the job could not be changed in time: {error}"
        else:
            job = change.definition or reading.job
            return _made(context, JobView(state=change.state, job=job), step, command, version=change.state.version)
        await deadline.pause(why)


async def _without_change(
    context: RequestContext, reading: JobReading, step: Step, condition: VersionCondition
) -> JobChangeResult | Job:
    """The result of a request that changes nothing; else the wanted definition."""
    view = reading.view
    reason = step.refusal(reading.state)
    if reason is not None:
        return JobRefused(reason, view)
    wanted = await step.wanted(context, reading)
    version = reading.state.version
    if not condition.holds(version):
        # Taken for the work of this same request only if no other request can have come in between.
        done_before = step.changes_definition and wanted is None and condition.held_before(version)
        if not done_before:
            return JobVersionDiffers(view)
    if wanted is None:
        return JobDone(_with_in_flight(view, step, version=version), changed=False)
    return wanted


def _with_in_flight(view: JobView, step: Step, *, version: int) -> JobView:
    """The view of a job that stands as a step wants it, with the runs that may still be delivered as they were before.
    `version`: that of the definition which a PUT has put, or found; runs of earlier ones are of before."""
    rows = (each for each in step.of_before(view.state) if not step.changes_definition or each.version < version)
    return replace(view, in_flight=tuple(rows))


def repeated(view: JobView, step: type[Step]) -> JobView:
    """The view of a job some time after a step of this kind, for a caller that has not heard of its result. If the job still
    stands so, a view without the runs of before would promise that there are none."""
    state = view.state
    stands = step is Put or state.status is JobStatus.DELETED or (step is Pause and state.status is JobStatus.PAUSED)
    rows = (each for each in _deliveries(state) if step is not Put or each.version < state.version)
    return replace(view, in_flight=tuple(rows)) if stands else view


async def _was_made(context: RequestContext, tried: JobChange, state: JobState) -> bool:
    """True if an earlier try, whose answer was lost, was applied."""
    if state.by == tried.state.by:
        return True
    if tried.definition is None or state.version < tried.definition.version:
        return False
    return await context.jobs.read_definition(state.name, tried.definition.version) == tried.definition


def _made(context: RequestContext, view: JobView, step: Step, command: CommandDedup | None, *, version: int) -> JobDone:
    if command is not None:
        command.had_effect = True
    states.announce_armed(context, view.state)
    return JobDone(_with_in_flight(view, step, version=version), changed=True)
