"""Accepting a job: one transaction puts its first definition, its state, and the row of its first run.

A repeat of the same create is recognised by its digest, which stays with the state through every change, the end and the
delete: it is answered with the present state, and brings nothing back. Another create takes the name over only from a job
that is deleted, or whose retention is over: on condition of that state's revision, from which revisions and versions go on.
"""

from dataclasses import replace

from clockwork.domain.jobs import steps
from clockwork.domain.jobs.job import Job, JobState, JobStatus, NewJob
from clockwork.errors import Contested, InvalidInput, StoreUnavailable, Unavailable
from clockwork.ports.jobs import StaleRevision
from clockwork.requests.context import RequestContext
from clockwork.requests.create import check_topic
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.dedup import CommandDedup
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


async def create_job(
    context: RequestContext,
    new: NewJob,
    deadline: RequestDeadline,
    *,
    principal: str | None,
    command: CommandDedup | None = None,
) -> JobCreateResult:
    """Accepts a job. `principal`: the name of its creator, for the version's history.

    Raises: InvalidInput (its topic or a calendar does not exist), Unavailable (it may have been accepted: the same request
    again settles it), Unreadable, CommandAlreadyProcessed.
    """
    try:
        await check_topic(context, new.topic)
        context.check_clock()
    except (InvalidInput, Unavailable):
        # A job that was accepted before stays accepted, even if its topic, Kafka or the clock is gone since.
        known = await find_repeat(context, new, deadline, command=command)
        if not isinstance(known, JobAlreadyCreated):
            raise
        return known
    write_id = job_state.new_request_id(context)
    while True:
        try:
            present = await context.jobs.read_state(new.name)
            result = await _result(context, new, present, deadline)
            if present is not None and present.write_id == write_id and isinstance(result, JobAlreadyCreated):
                return _accepted(context, result.view, command)  # written by a try whose answer was lost
            if result is not None:
                return result
            if command is not None:
                await command.check()
            trigger = await resolved(context, new.client_id, new.trigger)
            change = steps.create(
                replace(new, trigger=trigger), present, job_state.step_context(context, write_id), principal=principal
            )
            if command is not None:
                change = replace(change, command=command.change(due_ms=0))
            await job_state.apply(context, change)
        except StaleRevision:
            continue
        except (Contested, StoreUnavailable) as error:
            await deadline.pause(f"the job could not be stored in time: {error}")
        else:
            assert isinstance(change.definition, Job), "a create puts a definition"
            return _accepted(context, JobView(state=change.state, job=change.definition), command)


async def find_repeat(
    context: RequestContext, new: NewJob, deadline: RequestDeadline, *, command: CommandDedup | None = None
) -> JobAlreadyCreated | JobRefused | None:
    """The answer of `create_job` where it stores nothing; None: it would store.

    Raises: Unavailable, CommandAlreadyProcessed.
    """
    while True:
        try:
            if command is not None:
                await command.check()
            return await _result(context, new, await context.jobs.read_state(new.name), deadline)
        except StoreUnavailable as error:
            await deadline.pause(f"the job could not be read in time: {error}")


async def _result(
    context: RequestContext, new: NewJob, present: JobState | None, deadline: RequestDeadline
) -> JobAlreadyCreated | JobRefused | None:
    """None: the name is free."""
    if present is None or _replaceable(present, new):
        return None
    stored = await job_state.read_job(context, new.name, deadline)
    if stored is None or _replaceable(stored.state, new):
        return None
    if stored.state.digest == new.digest:
        job_state.announce_armed(context, stored.state)
        return JobAlreadyCreated(stored.view)
    return JobRefused(JobReason.EXISTS, stored.view)


def _replaceable(state: JobState, new: NewJob) -> bool:
    return state.status is JobStatus.DELETED and state.digest != new.digest


def _accepted(context: RequestContext, view: JobView, command: CommandDedup | None) -> JobCreated:
    if command is not None:
        command.had_effect = True
    job_state.announce_armed(context, view.state)
    return JobCreated(view)
