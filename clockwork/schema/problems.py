"""Errors as clients see them: one problem document (RFC 9457) each, over HTTP and in the replies to commands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel

from clockwork.errors import (
    ClockworkError,
    EventsOff,
    FieldError,
    Forbidden,
    InvalidInput,
    JobsOff,
    LimitState,
    SearchOff,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from clockwork.requests.results import Declined, KeyTaken, NotFound, Reason, Refused, VersionDiffers
from clockwork.schema.render import render_schedule
from clockwork.schema.schedule import ScheduleDocument, TooLarge
from clockwork.schema.validation import DOCUMENT

TYPE_PREFIX = "urn:clockwork:problem:"
MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One error, before it is rendered: alone as a response, in a batch as one result of many, or as a reply."""

    status: HTTPStatus
    kind: str
    """The last part of `type`; stable, for programs."""
    title: str
    """The same for every problem of the kind."""
    detail: str
    errors: Sequence[FieldError] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further members of the document."""
    headers: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "type": TYPE_PREFIX + self.kind,
            "title": self.title,
            "status": self.status.value,
            "detail": self.detail,
        }
        if self.errors:
            document["errors"] = [{"field": e.field, "message": e.message} for e in self.errors]
        return document | dict(self.more)


def invalid_input(errors: Sequence[FieldError]) -> Problem:
    return Problem(
        status=HTTPStatus.BAD_REQUEST,
        kind="invalid-input",
        title="The request is not valid",
        detail="; ".join(f"{e.field}: {e.message}" for e in errors),
        errors=errors,
    )


def too_large(detail: str, errors: Sequence[FieldError] = ()) -> Problem:
    return Problem(
        status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        kind="too-large",
        title="The request is too large",
        detail=detail,
        errors=errors,
    )


def unsupported_media_type(detail: str) -> Problem:
    return Problem(
        status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        kind="unsupported-media-type",
        title="The body's type is not supported",
        detail=detail,
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},
    )


def unauthenticated(detail: str) -> Problem:
    return Problem(
        status=HTTPStatus.UNAUTHORIZED,
        kind="unauthenticated",
        title="A key is needed",
        detail=detail,
        headers={"WWW-Authenticate": "Bearer"},
    )


def forbidden(detail: str, errors: Sequence[FieldError]) -> Problem:
    return Problem(
        status=HTTPStatus.FORBIDDEN,
        kind="forbidden",
        title="The key does not cover this",
        detail=detail,
        errors=errors,
    )


def refused(kind: str, title: str, detail: str) -> Problem:
    """A `403` that no key would change."""
    return Problem(status=HTTPStatus.FORBIDDEN, kind=kind, title=title, detail=detail)


def too_many(detail: str, *, retry_after_s: int, headers: Mapping[str, str]) -> Problem:
    return Problem(
        status=HTTPStatus.TOO_MANY_REQUESTS,
        kind="too-many-requests",
        title="Over a limit",
        detail=detail,
        headers={"Retry-After": str(retry_after_s), **headers},
    )


def rate_limit_headers(limits: Sequence[LimitState]) -> dict[str, str]:
    """The headers of draft-ietf-httpapi-ratelimit-headers-10: `RateLimit-Policy` names each limit with its quota (`q`) for
    a window (`w`, seconds), `RateLimit` says what is left (`r`) and when the quota is whole again (`t`, seconds)."""
    policies, states = [], []
    for each in limits:
        window = f";w={each.window_s}" if each.window_s is not None else ""
        unit = f';qu="{each.unit}"' if each.unit is not None else ""
        policies.append(f'"{each.name}";q={each.quota}{window}{unit}')
        if each.left is not None:
            reset = f";t={each.reset_s}" if each.reset_s is not None else ""
            states.append(f'"{each.name}";r={each.left}{reset}')
    headers = {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(states)}
    return {name: value for name, value in headers.items() if value}


def schedule_not_found() -> Problem:
    return not_found(
        "schedule-not-found",
        "There is no such schedule",
        "No schedule was accepted under this clientId and scheduleKey, or its retention has ended.",
    )


def not_found(kind: str, title: str, detail: str) -> Problem:
    return Problem(status=HTTPStatus.NOT_FOUND, kind=kind, title=title, detail=detail)


def conflict(reason: str, detail: str, schedule: Mapping[str, Any]) -> Problem:
    return Problem(
        status=HTTPStatus.CONFLICT,
        kind="conflict",
        title="The schedule's state does not allow it",
        detail=detail,
        more={"reason": reason, "schedule": schedule},
    )


def version_differs(version: int, schedule: Mapping[str, Any]) -> Problem:
    return Problem(
        status=HTTPStatus.PRECONDITION_FAILED,
        kind="version-differs",
        title="The schedule has another version",
        detail=f"Its version is {version}, which the request's condition does not allow.",
        more={"schedule": schedule},
        headers={"ETag": f'"{version}"'},
    )


def unavailable(detail: str, *, retry_after_s: int = 1, more: Mapping[str, Any] | None = None) -> Problem:
    return Problem(
        status=HTTPStatus.SERVICE_UNAVAILABLE,
        kind="unavailable",
        title="The service cannot do this now",
        detail=detail,
        more=more or {},
        headers={"Retry-After": str(retry_after_s)},
    )


def internal(error_id: str) -> Problem:
    """The problem for a defect. It has no details of the mistake: those are in the log, under this id."""
    return Problem(
        status=HTTPStatus.INTERNAL_SERVER_ERROR,
        kind="internal",
        title="Something went wrong in the service",
        detail="The outcome is unknown; the same request again settles it. The log tells more under errorId.",
        more={"errorId": error_id},
    )


def of_http(status: HTTPStatus, *, allow: Sequence[str] = ()) -> Problem:
    """The refusals of the HTTP server itself: unknown paths, methods, and the like."""
    # Python's phrase for it changed with 3.13, to RFC 9110's.
    phrase = "URI Too Long" if status is HTTPStatus.REQUEST_URI_TOO_LONG else status.phrase
    return Problem(
        status=status,
        kind=phrase.lower().replace(" ", "-").replace("'", ""),
        title=phrase,
        detail=status.description or phrase,
        headers={"Allow": ", ".join(sorted(allow))} if allow else {},
    )


def events_off() -> Problem:
    return Problem(
        status=HTTPStatus.NOT_IMPLEMENTED,
        kind="events-off",
        title="This cluster records no events",
        detail="Events and minutes need CLOCKWORK_EVENTS=on, on every node. Metrics are there without them.",
    )


def jobs_off() -> Problem:
    return Problem(
        status=HTTPStatus.NOT_IMPLEMENTED,
        kind="jobs-off",
        title="This cluster keeps no recurring jobs",
        detail="It runs with CLOCKWORK_JOBS=off.",
    )


def search_off() -> Problem:
    return Problem(
        status=HTTPStatus.NOT_IMPLEMENTED,
        kind="search-off",
        title="This cluster does not list schedules",
        detail="It runs with CLOCKWORK_SEARCH=off, so there is no index to list from. Ask for each schedule by its key.",
    )


# --- from the results and errors of a request

_REFUSED: Mapping[Reason, str] = {
    Reason.PENDING: "Another schedule is pending under this key.",
    Reason.DELIVERED: "It was delivered already.",
    Reason.FAILED: "It failed already.",
    Reason.CANCELLED: "It was cancelled already.",
    Reason.IN_FLIGHT: "It is too close to its time to say whether it will be delivered. Ask again.",
}
_RETRY_REFUSED: Mapping[Reason, str] = {
    Reason.PENDING: "It is pending: only what failed can be armed again.",
    Reason.FAILED: "Its stored content cannot be read, so it cannot be armed again.",
}


def of_declined(result: Declined, *, retry: bool = False) -> Problem:
    """`404`, `409` or `412`. `retry`: the request was a retry of a failed schedule."""
    match result:
        case NotFound():
            return schedule_not_found()
        case VersionDiffers(view):
            return version_differs(view.version, render_schedule(view))
        case KeyTaken(view):
            return conflict(Reason.PENDING.value, _REFUSED[Reason.PENDING], render_schedule(view))
        case Refused(reason, view):
            texts = {**_REFUSED, **_RETRY_REFUSED} if retry else _REFUSED
            return conflict(reason.value, texts[reason], render_schedule(view))


def of_error(error: ClockworkError, *, reads: bool = False) -> Problem:
    """The problem of a request that raised. `reads`: it changes nothing, so there is no outcome to settle."""
    match error:
        case TooLarge():
            return too_large(str(error), error.errors)
        case InvalidInput():
            return invalid_input(error.errors)
        case Unauthenticated():
            return unauthenticated(str(error))
        case Forbidden():
            return forbidden(str(error), error.errors)
        case TooManyRequests():
            headers = rate_limit_headers(error.limits)
            return too_many(str(error), retry_after_s=error.retry_after_s, headers=headers)
        case SearchOff():
            return search_off()
        case JobsOff():
            return jobs_off()
        case EventsOff():
            return events_off()
        case Unavailable():
            # The class's sentence; the error's message may name hosts.
            why = (type(error).__doc__ or "The service is not available.").strip().splitlines()[0]
            return unavailable(why if reads else f"{why} The same request again settles it.")
        case _:
            # Contested, Unreadable, …: the stored state is one that this node cannot settle now.
            return unavailable("The stored state could not be read or settled. Try again.")


# --- the documents, as models


class FieldErrorDocument(BaseModel):
    """One wrong field of a request."""

    model_config = DOCUMENT

    field: str
    """Its place, such as `delivery.topic`; `body` for the body as a whole."""
    message: str
    """Advice: what to change."""


class ProblemDocument(BaseModel):
    """An error (RFC 9457)."""

    model_config = DOCUMENT

    type: str
    """A stable name of the kind of problem, for programs."""
    title: str
    """The same for every problem of the kind."""
    status: int
    """The HTTP status."""
    detail: str
    """Details of this one."""


class InvalidDocument(ProblemDocument):
    """A request with wrong fields: all of them at once."""

    errors: list[FieldErrorDocument] | None = None
    """Absent if the request could not be read as HTTP."""


class ConflictDocument(ProblemDocument):
    """The schedule's state does not allow the request."""

    reason: Literal["pending", "delivered", "failed", "cancelled", "in_flight"]
    """The state, or `in_flight`: too close to its time to say; ask again."""
    schedule: ScheduleDocument


class StaleDocument(ProblemDocument):
    """The schedule has another version."""

    schedule: ScheduleDocument
    """The present one."""


class InternalDocument(ProblemDocument):
    """An error in the service; the outcome is unknown, and the same request again settles it."""

    error_id: str | None = None
    """Finds the details in the service's log."""


class UnreadyDocument(ProblemDocument):
    """The node cannot do what its role does."""

    reasons: list[str] | None = None
    """Absent if no connection was free."""
    details: dict[str, Any] | None = None
