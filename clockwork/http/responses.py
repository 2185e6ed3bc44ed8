"""Answers as HTTP responses: JSON documents and problems.

Everything that shows a schedule, a job or a dead letter leaves through here, where the content is taken out for a redacted
principal.
"""

import asyncio
import logging
import secrets
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from clockwork.access.gate import REDACTED
from clockwork.errors import (
    ClockworkError,
    EventsOff,
    Forbidden,
    InvalidInput,
    JobsOff,
    SearchOff,
    TooManyRequests,
    Unauthenticated,
)
from clockwork.http.body import Refusal
from clockwork.schema import json as json_body
from clockwork.schema import problems
from clockwork.schema.problems import Problem
from clockwork.schema.redaction import redact

PIECE_BYTES: Final = 64 * 1024
"""Size of the JSON that is encoded without a pause: a fraction of a millisecond."""
PIECE_DOCUMENTS: Final = 25
"""The same limit for small documents."""

log = logging.getLogger(__name__)

_CALLERS_MISTAKES = (InvalidInput, Unauthenticated, Forbidden, TooManyRequests, SearchOff, JobsOff, EventsOff)


def json_response(
    document: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    body = json_body.compact(_with_time_last(_shown(document)))
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


async def json_list_response(name: str, documents: Iterable[Mapping[str, Any]], **more: Any) -> web.Response:
    """`200` with `{name: [documents], **more}`, made piece by piece: a thousand schedules are megabytes of JSON, and while
    they are encoded, no heartbeat is sent and nothing is delivered. The documents are taken one by one."""
    parts: list[bytes] = []
    piece_bytes = piece_documents = 0
    for document in documents:
        parts.append(json_body.compact(_shown(document)))
        piece_bytes += len(parts[-1])
        piece_documents += 1
        if piece_bytes >= PIECE_BYTES or piece_documents >= PIECE_DOCUMENTS:
            piece_bytes = piece_documents = 0
            await asyncio.sleep(0)
    head = json_body.compact({name: []})[:-2]
    tail = json_body.compact(_with_time_last(more))[1:]
    body = head + b",".join(parts) + (b"]," + tail if more else b"]}")
    return web.Response(body=body, content_type="application/json")


def problem_response(problem: Problem) -> web.Response:
    return web.Response(
        status=problem.status.value,
        body=json_body.compact(_shown(problem.document())),
        content_type=problems.MEDIA_TYPE,
        headers=problem.headers,
    )


def _with_time_last(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The document with `asOf` as its last member: an answer that differs in it alone is no news (`http.polls`)."""
    if "asOf" not in document:
        return document
    return {**{name: value for name, value in document.items() if name != "asOf"}, "asOf": document["asOf"]}


def _shown(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The document, as the caller of the present request may see it."""
    if not REDACTED.get():
        return document
    shown: Mapping[str, Any] = redact(document)
    return shown


def problem_of(error: Exception, *, reads: bool = False) -> Problem:
    """The problem of the error that ended a request; logged, unless it is the caller's to mend. `reads`: the request
    changes nothing."""
    match error:
        case Refusal():
            return error.problem
        case web.HTTPMethodNotAllowed():
            return problems.of_http(HTTPStatus(error.status), allow=sorted(error.allowed_methods))
        case web.HTTPException() if error.status >= 400:
            return problems.of_http(HTTPStatus(error.status))
        case ClockworkError():
            if not isinstance(error, _CALLERS_MISTAKES):
                kind = type(error).__name__
                extra = {"event": "request.unavailable", "kind": kind, "error": str(error), "once_per": kind}
                log.warning("Request answered 503", extra=extra)
            return problems.of_error(error, reads=reads)
        case _:
            error_id = secrets.token_hex(8)
            log.error("Request failed", exc_info=error, extra={"event": "request.failed", "error_id": error_id})
            return problems.internal(error_id)
