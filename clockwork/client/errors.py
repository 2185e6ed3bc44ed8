"""Errors of calls, split by what the caller should do.

CallFailed
├── Refused               final: the same request again is answered the same
│   ├── InvalidRequest    the request must be changed; `errors` names every wrong field
│   ├── Unauthorized      no API key, or a wrong one
│   ├── Forbidden         the key does not cover the client or the topic
│   ├── NotFound          nothing is known under this key or id
│   ├── NotSupported      this service does not know the call: it is older, or the feature is off
│   ├── VersionMismatch   the schedule or job was changed since the version that was named
│   └── Conflict          its state does not allow it; `schedule` or `job` is that state
│       ├── KeyTaken          a schedule is pending under this key, or there is another job of this id
│       ├── AlreadyDelivered
│       ├── AlreadyFailed
│       ├── AlreadyCancelled
│       ├── JobDeleted
│       ├── JobEnded
│       ├── JobNotDeleted
│       ├── AlreadyCompleted
│       ├── RunTimedOut
│       ├── RunSuperseded     another attempt of the run is under way
│       ├── RunNotOpen        the run has no time-out that a heartbeat could move; it may be completed all the same
│       ├── JobRunning        a run of the job is open, or about to be delivered: try again when it has ended
│       ├── TooManyRuns       too many runs by hand are pending: try again when some have ended
│       └── NoFireTimes
├── InFlight              too close to its time to say: nothing is promised, ask again
├── TooMany               over a quota: nothing was done, try later
└── Unavailable           the outcome is unknown: the same request again settles it
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from clockwork.schema.job import JobDocument
from clockwork.schema.schedule import ScheduleDocument


@dataclass(frozen=True, slots=True)
class WrongField:
    """One wrong field of a request: where it is and what to do."""

    field: str
    message: str


class CallFailed(Exception):
    """A call did not do what it should."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        schedule: ScheduleDocument | None = None,
        job: JobDocument | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status of the answer; None if there was none."""
        self.schedule = schedule
        """The present state of the schedule that the call was about, where the answer tells it."""
        self.job = job
        """The present state of the job that the call was about, where the answer tells it."""
        self.after_lost_answer = False
        """True if an earlier attempt of this call got no answer, and so may have been carried out."""


class Refused(CallFailed):
    """The same request again would be answered the same."""


class InvalidRequest(Refused):
    """The request must be changed."""

    def __init__(self, message: str, *, status: int | None = None, errors: Sequence[WrongField] = ()) -> None:
        super().__init__(message, status=status)
        self.errors = tuple(errors)
        """Every wrong field; empty if the request as a whole is wrong."""


class Unauthorized(Refused):
    """No API key, or a wrong one."""


class Forbidden(Refused):
    """The API key does not cover the client or the topic."""


class NotFound(Refused):
    """Nothing was accepted under this key or id, or its retention has ended."""


class NotSupported(Refused):
    """The service does not know this call, or the feature is off."""


class VersionMismatch(Refused):
    """The version of the schedule or job is another one now."""


class Conflict(Refused):
    """The state of the schedule or job does not allow it."""


class KeyTaken(Conflict):
    """A schedule is pending under this key; or another job has this id, or another request this request id."""


class AlreadyDelivered(Conflict):
    """It was delivered; `schedule.delivered` says where and when."""


class AlreadyFailed(Conflict):
    """It was given up; `schedule.failed` says why. Or a run has failed."""


class AlreadyCancelled(Conflict):
    """It was cancelled."""


class JobDeleted(Conflict):
    """The job is deleted: restore it first."""


class JobEnded(Conflict):
    """The job's trigger is over: give it another one first."""


class JobNotDeleted(Conflict):
    """There is nothing to restore."""


class AlreadyCompleted(Conflict):
    """The run was completed; it cannot fail any more."""


class RunTimedOut(Conflict):
    """The time of the run was over first."""


class RunSuperseded(Conflict):
    """Another attempt of the run is under way."""


class RunNotOpen(Conflict):
    """The run has no time-out that could be moved: runs of its job may overlap, or the job was deleted and restored
    meanwhile. It may be completed all the same."""


class JobRunning(Conflict):
    """The job cannot take another run now: one is open, about to be delivered, or waits; or a backfill is under way.
    The same call may be made again when it has ended."""


class TooManyRuns(Conflict):
    """As many runs by hand are pending as are allowed. The same call may be made again when some of them have ended."""


class NoFireTimes(Conflict):
    """The job's trigger has no fire time in the range."""


class InFlight(CallFailed):
    """Too close to its time to say whether it will be delivered."""


class TooMany(CallFailed):
    """Over a quota; nothing was done."""


class Unavailable(CallFailed):
    """The outcome is unknown; the same request again settles it."""


_BY_STATUS: Final[Mapping[int, type[CallFailed]]] = {
    401: Unauthorized,
    403: Forbidden,
    405: NotSupported,
    429: TooMany,
    501: NotSupported,
}
_BY_REASON: Final[Mapping[str, type[CallFailed]]] = {
    "pending": KeyTaken,
    "delivered": AlreadyDelivered,
    "failed": AlreadyFailed,
    "cancelled": AlreadyCancelled,
    "in_flight": InFlight,
    "completed": AlreadyCompleted,
    "timed_out": RunTimedOut,
    "superseded": RunSuperseded,
    "not_open": RunNotOpen,
    "exists": KeyTaken,
    "deleted": JobDeleted,
    "ended": JobEnded,
    "not_deleted": JobNotDeleted,
    "running": JobRunning,
    "too_many_runs": TooManyRuns,
    "no_fire_times": NoFireTimes,
}
_INVALID: Final = frozenset({400, 413, 414, 415, 422, 431})
_NOT_FOUND: Final = (
    ":schedule-not-found",
    ":job-not-found",
    ":run-not-found",
    ":version-not-found",
    ":calendar-not-found",
)
"""Ends of the problem's type; an unknown path has another one."""
_Document = TypeVar("_Document", bound=BaseModel)


def failure_of(status: int, document: Any) -> CallFailed:
    """The error for an answer with a status of 300 or above. `document`: its JSON, of any form; None if it had none."""
    problem = document if isinstance(document, dict) else {}
    message = str(problem.get("detail") or problem.get("title") or f"HTTP status {status}")
    if status in _INVALID:
        found = problem.get("errors")
        wrong = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
        errors = [WrongField(str(each.get("field")), str(each.get("message"))) for each in wrong]
        return InvalidRequest(message, status=status, errors=errors)
    if status == 404:
        is_known = str(problem.get("type", "")).endswith(_NOT_FOUND)
        return (NotFound if is_known else NotSupported)(message, status=status)
    if status in {409, 412}:
        kind = VersionMismatch if status == 412 else _BY_REASON.get(str(problem.get("reason")), Conflict)
        return kind(
            message,
            status=status,
            schedule=_state(ScheduleDocument, problem.get("schedule")),
            job=_state(JobDocument, problem.get("job")),
        )
    # All others (408, 5xx, a proxy's redirect) do not tell how far the request went.
    return _BY_STATUS.get(status, Unavailable)(message, status=status)


def _state(model: type[_Document], document: Any) -> _Document | None:
    if document is None:
        return None
    try:
        return model.model_validate(document)
    except ValidationError:
        # A newer service may tell a state that this client has no word for; the error itself stays true without it.
        return None
