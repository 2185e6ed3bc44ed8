"""Questions and answers about jobs, without HTTP. Their names are built as those of `requests.results`."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from clockwork.domain.jobs.calendar import Calendar
from clockwork.domain.jobs.job import ArmedRow, Job, JobContent, JobState, RunCompletion, RunDelivery, SkippedTimes
from clockwork.domain.position import Position
from clockwork.domain.run import JobId, RunId, RunKind
from clockwork.errors import LimitState


class JobReason(StrEnum):
    """Why a request conflicts with the stored job."""

    EXISTS = "exists"
    """Another job has this name; or the request id was used for another request, or its run's entry has expired."""
    DELETED = "deleted"
    ENDED = "ended"
    NOT_DELETED = "not_deleted"
    RUNNING = "running"
    """The job cannot take another run now: one is open, about to be delivered, or waits; or a backfill is under way. Ask
    again when it has ended."""
    TOO_MANY_RUNS = "too_many_runs"
    """As many runs by hand are pending as are allowed."""
    NO_FIRE_TIMES = "no_fire_times"
    """The trigger has no fire time in the range that a backfill asks for."""


class RunReason(StrEnum):
    """Why a completion or a heartbeat conflicts with the stored run."""

    TIMED_OUT = "timed_out"
    SUPERSEDED = "superseded"
    """Another attempt of the run is under way."""
    COMPLETED = "completed"
    FAILED = "failed"
    """Its consumer reported so, or it could not be delivered."""
    IN_FLIGHT = "in_flight"
    """Too close to its time-out to say whether that comes first."""
    NOT_DELIVERED = "not_delivered"
    NOT_ASKED = "not_asked"
    """The run was delivered by a definition without `completion`."""
    NOT_OPEN = "not_open"
    """No time-out is watched that a heartbeat could move: runs of the job may overlap, or it was deleted and restored
    meanwhile. A completion counts all the same."""


class RunStatus(StrEnum):
    """The state of a run, as a client sees it."""

    ARMED = "armed"
    DELIVERED = "delivered"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunView:
    """A run and its state, or a stretch of skipped fire times."""

    status: RunStatus
    position: Position
    """Its place in the log."""
    armed: ArmedRow | None = None
    """While it is armed. Otherwise one of the two entries is given."""
    delivery: RunDelivery | None = None
    skipped: SkippedTimes | None = None
    completion: RunCompletion | None = None
    topic: str | None = None
    """The topic of its definition; None if that is not kept any more."""

    @property
    def run_id(self) -> RunId | None:
        run = self.armed or self.delivery
        return None if run is None else run.run_id


@dataclass(frozen=True, kw_only=True, slots=True)
class JobView:
    """A job and its state, as last read."""

    state: JobState
    job: Job
    """The definition of the state's version."""
    in_flight: tuple[ArmedRow, ...] = ()
    """The runs that may still be delivered as they were before the change that this view answers."""
    last_run: RunView | None = None
    open_runs: tuple[RunView, ...] | None = None
    """None: not asked for."""

    @property
    def version(self) -> int:
        return self.state.version

    @property
    def next_run(self) -> ArmedRow | None:
        """The armed run; None: none is armed."""
        armed = self.state.armed
        return None if armed is None or armed.kind is RunKind.WATCHDOG else armed


@dataclass(frozen=True, slots=True)
class JobCreated:
    """The job is durable."""

    view: JobView
    limits: tuple[LimitState, ...] = ()


@dataclass(frozen=True, slots=True)
class JobAlreadyCreated:
    """The same request was accepted before; the view is the job's present state."""

    view: JobView
    limits: tuple[LimitState, ...] = ()


@dataclass(frozen=True, slots=True)
class JobNotFound:
    """No job was ever accepted under this name, or its retention is over."""


@dataclass(frozen=True, slots=True)
class JobRefused:
    """The job is in a state in which the request cannot be carried out."""

    reason: JobReason
    view: JobView


@dataclass(frozen=True, slots=True)
class JobVersionDiffers:
    """The request's version condition does not hold."""

    view: JobView


@dataclass(frozen=True, slots=True)
class JobChanged:
    """The job is as the request wants it; it was written by this request."""

    view: JobView


@dataclass(frozen=True, slots=True)
class JobUnchanged:
    """The job was as the request wants it, maybe by the same request before: nothing was written."""

    view: JobView


@dataclass(frozen=True, slots=True)
class RunAccepted:
    """A run is armed that was asked for, or the first one of a backfill."""

    run: RunView
    limits: tuple[LimitState, ...] = ()


@dataclass(frozen=True, slots=True)
class RunAlreadyAccepted:
    """The same request was accepted before; the run is shown in its present state."""

    run: RunView
    limits: tuple[LimitState, ...] = ()


@dataclass(frozen=True, slots=True)
class RunClosed:
    """The run has ended as its consumer reports; it was written by this request."""

    run: RunView


@dataclass(frozen=True, slots=True)
class RunAlreadyClosed:
    """The run had ended as its consumer reports, maybe by the same request before: nothing was written."""

    run: RunView


@dataclass(frozen=True, slots=True)
class RunExtended:
    """The run has more time: its time-out is `until_ms`."""

    run: RunView
    until_ms: int


@dataclass(frozen=True, slots=True)
class RunNotFound:
    """The job has no such run or attempt, or its entry has expired."""


@dataclass(frozen=True, slots=True)
class RunRefused:
    """The run is in a state in which the request cannot be carried out."""

    reason: RunReason
    run: RunView


@dataclass(frozen=True, slots=True)
class CalendarPut:
    """The calendar is as the request wants it."""

    calendar: Calendar
    created: bool
    behind: tuple[JobId, ...] = ()
    """Jobs that may still be delivered by the calendar as it was before."""
    more_behind: bool = False
    """True: and others, which are not named."""


@dataclass(frozen=True, slots=True)
class CalendarVersionDiffers:
    """The request's version condition does not hold."""

    calendar: Calendar | None
    """None: there is none."""


@dataclass(frozen=True, slots=True)
class TooManyCalendars:
    """The client has as many calendars as it may have."""

    calendars_max: int


@dataclass(frozen=True, slots=True)
class CalendarNotFound:
    """The client has no calendar of this name."""


@dataclass(frozen=True, slots=True)
class CalendarDeleted:
    """The calendar is gone."""

    calendar: Calendar


@dataclass(frozen=True, slots=True)
class CalendarInUse:
    """Jobs use the calendar."""

    calendar: Calendar
    jobs: tuple[JobId, ...]
    """The first of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CalendarsPage:
    """Some calendars of a client, in the order of their names."""

    calendars: tuple[Calendar, ...]
    next_after: str | None
    """Read on after this name; None: there are no more."""


CalendarPutResult = CalendarPut | CalendarVersionDiffers | TooManyCalendars
CalendarDeleteResult = CalendarDeleted | CalendarInUse | CalendarNotFound | CalendarVersionDiffers
JobDeclined = JobNotFound | JobRefused | JobVersionDiffers
"""Results of a request that was understood and could not be carried out."""
JobCreateResult = JobCreated | JobAlreadyCreated | JobRefused
JobChangeResult = JobChanged | JobUnchanged | JobDeclined
RunDeclined = JobNotFound | JobRefused | RunNotFound | RunRefused
"""Results of a report that was understood and does not count. Of a job only that it is deleted."""
ReportResult = RunClosed | RunAlreadyClosed | RunExtended | RunDeclined
RunResult = RunAccepted | RunAlreadyAccepted | JobDeclined


class JobEdit(Protocol):
    """From the content of a job to the wanted one; its name stays. Pure, so that it can be applied again after another
    request has changed the job."""

    def __call__(self, content: JobContent, *, created_ms: int) -> JobContent:
        """`created_ms`: the job's creation. Raises: InvalidInput."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class RunsPage:
    """Some runs of a job, newest first."""

    runs: tuple[RunView, ...]
    next_from: Position | None
    """Read on down from this position, inclusive; None: there are no more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobsPage:
    """Some jobs of a client, in the order of their ids."""

    views: tuple[JobView, ...]
    next_after: str | None
    """Read on after this id; None: there are no more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionsPage:
    """Some versions of a job, newest first."""

    versions: Sequence[Job]
    next_below: int | None
    """Read on below this version; None: there are no more."""
