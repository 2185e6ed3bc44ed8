"""Errors as clients see them: one problem document (RFC 9457) each, whatever went wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from aiohttp import web

from clockwork.errors import FieldError
from clockwork.schema import json as json_body

TYPE_PREFIX = "urn:clockwork:problem:"
MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One error, before it is an answer: a batch puts many of them into one."""

    status: HTTPStatus
    kind: str
    """Last part of `type`; stable, for programs."""
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

    def response(self) -> web.Response:
        return web.Response(
            status=self.status.value,
            body=json_body.compact(self.document()),
            content_type=MEDIA_TYPE,
            headers=self.headers,
        )


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


def schedule_not_found() -> Problem:
    return Problem(
        status=HTTPStatus.NOT_FOUND,
        kind="schedule-not-found",
        title="There is no such schedule",
        detail="No schedule was accepted under this clientId and scheduleKey, or its retention has ended.",
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
        detail=f"Its version is {version}, which If-Match does not name.",
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
    """Without a detail of what happened: that is in the log, under this id."""
    return Problem(
        status=HTTPStatus.INTERNAL_SERVER_ERROR,
        kind="internal",
        title="Something went wrong in the service",
        detail="The outcome is unknown; the same request again settles it. The log tells more under errorId.",
        more={"errorId": error_id},
    )


def of_http(status: HTTPStatus, *, allow: Sequence[str] = ()) -> Problem:
    """What the HTTP server itself refuses: unknown paths, methods, and the like."""
    return Problem(
        status=status,
        kind=status.phrase.lower().replace(" ", "-").replace("'", ""),
        title=status.phrase,
        detail=status.description or status.phrase,
        headers={"Allow": ", ".join(sorted(allow))} if allow else {},
    )
