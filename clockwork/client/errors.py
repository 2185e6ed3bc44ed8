"""Errors of calls, split by what the caller should do.

CallFailed
├── Refused               final: the same request again is answered the same
│   ├── InvalidSchedule   the request must be changed; `errors` names every wrong field
│   ├── Unauthorized      no API key, or a wrong one
│   ├── Forbidden         the key does not cover the client or the topic
│   ├── NotFound          nothing is known under this key
│   ├── NotSupported      this service does not know the call: it is older, or the feature is off
│   ├── VersionMismatch   the schedule was changed since the version that was named
│   └── Conflict          the schedule's state does not allow it; `schedule` is that state
│       ├── KeyTaken          a schedule is pending under this key
│       ├── AlreadyDelivered
│       ├── AlreadyFailed
│       └── AlreadyCancelled
├── InFlight              too close to its time to say: nothing is promised, ask again
├── TooMany               over a quota: nothing was done, try later
└── Unavailable           the outcome is unknown: the same request again settles it
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from clockwork.schema.schedule import ScheduleDocument


@dataclass(frozen=True, slots=True)
class WrongField:
    """One wrong field of a request: where it is and what to do."""

    field: str
    message: str


class CallFailed(Exception):
    """A call did not do what it should."""

    def __init__(self, message: str, *, status: int | None = None, schedule: ScheduleDocument | None = None) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status of the answer; None if there was none."""
        self.schedule = schedule
        """The present state, where the answer tells it."""


class Refused(CallFailed):
    """The same request again would be answered the same."""


class InvalidSchedule(Refused):
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
    """Nothing was accepted under this key, or its retention has ended."""


class NotSupported(Refused):
    """The service does not know this call."""


class VersionMismatch(Refused):
    """The schedule's version is another one now."""


class Conflict(Refused):
    """The schedule's state does not allow it."""


class KeyTaken(Conflict):
    """A schedule is pending under this key."""


class AlreadyDelivered(Conflict):
    """It was delivered; `schedule.delivered` says where and when."""


class AlreadyFailed(Conflict):
    """It was given up; `schedule.failed` says why."""


class AlreadyCancelled(Conflict):
    """It was cancelled."""


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
}
_INVALID: Final = frozenset({400, 413, 414, 415, 422, 431})
_NO_SCHEDULE: Final = ":schedule-not-found"
"""End of the problem's type; an unknown path has another one."""


def failure_of(status: int, document: Any) -> CallFailed:
    """The error for an answer with a status of 300 or above. `document`: its JSON, of any form; None if it had none."""
    problem = document if isinstance(document, dict) else {}
    message = str(problem.get("detail") or problem.get("title") or f"HTTP status {status}")
    if status in _INVALID:
        found = problem.get("errors")
        wrong = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
        errors = [WrongField(str(each.get("field")), str(each.get("message"))) for each in wrong]
        return InvalidSchedule(message, status=status, errors=errors)
    if status == 404:
        is_schedule = str(problem.get("type", "")).endswith(_NO_SCHEDULE)
        return (NotFound if is_schedule else NotSupported)(message, status=status)
    if status == 409:
        kind = _BY_REASON.get(str(problem.get("reason")), Conflict)
        return kind(message, status=status, schedule=_schedule(problem.get("schedule")))
    if status == 412:
        return VersionMismatch(message, status=status, schedule=_schedule(problem.get("schedule")))
    # All others (408, 5xx, a proxy's redirect) do not tell how far the request went.
    return _BY_STATUS.get(status, Unavailable)(message, status=status)


def _schedule(document: Any) -> ScheduleDocument | None:
    try:
        return ScheduleDocument.model_validate(document)
    except ValidationError:
        # A newer service may tell a state that this client has no word for; the error itself stays true without it.
        return None
