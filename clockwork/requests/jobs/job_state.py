"""The present state of a job: its state, and the definition of the state's version.

The state decides; it is read strongly. A definition never changes, and is put in the transaction that makes the state name
it: a state whose definition is not there, or is one of a job of this name that was forgotten, is being applied.
"""

from dataclasses import dataclass
from typing import Final

from clockwork.domain.jobs.job import Job, JobName, JobState, JobTransaction, SkippedTimes
from clockwork.domain.jobs.steps import StepContext
from clockwork.domain.position import RANDOM_DIGITS
from clockwork.domain.schedule import RequestId
from clockwork.ports.jobs import StaleRevision
from clockwork.requests.context import RequestContext
from clockwork.requests.create import announce
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.jobs.results import JobView

BEING_CHANGED: Final = "the job is being changed by another request, or by the end of a run"
"""Why a request waits that found parts of a change."""


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job as it is stored: its state, and the definition of the state's version."""

    state: JobState
    job: Job

    @property
    def view(self) -> JobView:
        return JobView(state=self.state, job=self.job)


def expired(context: RequestContext, state: JobState) -> bool:
    """True if the retention of a deleted or ended job is over: it counts as absent."""
    return state.expires_at_s is not None and state.expires_at_s * 1_000 <= context.clock.now_ms()


async def read_job(context: RequestContext, name: JobName, deadline: RequestDeadline) -> StoredJob | None:
    """Reads a job until both parts agree; None: there is none, or its retention is over.

    Raises: Unavailable, StoreUnavailable, Unreadable.
    """
    while True:
        state = await context.jobs.read_state(name)
        if state is None or expired(context, state):
            return None
        job = await definition_of(context, state)
        if job is not None:
            return StoredJob(state, job)
        await deadline.pause(BEING_CHANGED)


async def definition_of(context: RequestContext, state: JobState) -> Job | None:
    """The definition of a state's version; None while the change that puts it is being applied.

    Raises: StoreUnavailable, Unreadable.
    """
    job = await context.jobs.read_definition(state.name, state.version)
    return job if job is not None and job.created_at_ms == state.created_at_ms else None


async def check_current(context: RequestContext, state: JobState) -> None:
    """Checks that a state is the present one, and that no transaction is being applied to it.

    Raises: StaleRevision, TransactionConflict, StoreUnavailable, Unreadable.
    """
    present = await context.jobs.read_state(state.name, committed=True)
    if present is None or present.rev != state.rev:
        raise StaleRevision(present)


def new_request_id(context: RequestContext) -> RequestId:
    """The id by which a request recognises its own write."""
    return RequestId(f"{context.rng.getrandbits(128):032x}")


def step_context(context: RequestContext, write_id: RequestId) -> StepContext:
    """The context of one try of a request. Raises: ClockUntrusted: arming a row is accepting it."""
    context.check_clock()
    return StepContext(
        now_ms=context.clock.now_ms(),
        accepted_us=context.acceptance.next_us(),
        random=context.rng.randrange(10**RANDOM_DIGITS),
        write_id=write_id,
        shards=context.settings.shards,
        retention_ms=context.settings.retention_ms,
        triggers_on=context.settings.jobs == "on",
    )


async def apply(context: RequestContext, change: JobTransaction) -> None:
    """Applies a change, and counts the times that it skips. Raises: as `JobStore.change`."""
    await context.jobs.change(change)
    for entry in change.entries:
        if isinstance(entry, SkippedTimes):
            context.telemetry.job_skipped(entry.reason, entry.count)


def announce_armed(context: RequestContext, state: JobState) -> None:
    """Wakes the owners of a job's rows that are due soon: a repeated request does it too, since the first one's wake-up may
    be lost, as its answer was."""
    for armed in state.pending():
        announce(context, armed.shard, due_ms=armed.due_ms)
