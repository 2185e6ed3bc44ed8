"""Answers as HTTP responses: JSON documents and problems."""

import logging
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

from clockwork.errors import (
    ClockworkError,
    Forbidden,
    InvalidInput,
    SearchOff,
    TooManyRequests,
    Unauthenticated,
)
from clockwork.http.body import Refusal
from clockwork.schema import json as json_body
from clockwork.schema import problems
from clockwork.schema.problems import Problem

log = logging.getLogger(__name__)

_CALLERS_MISTAKES = (InvalidInput, Unauthenticated, Forbidden, TooManyRequests, SearchOff)


def json_response(
    document: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    body = json_body.compact(document)
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


def problem_response(problem: Problem) -> web.Response:
    return web.Response(
        status=problem.status.value,
        body=json_body.compact(problem.document()),
        content_type=problems.MEDIA_TYPE,
        headers=problem.headers,
    )


def problem_of(error: Exception) -> Problem:
    """The problem of the error that ended a request; logged, unless it is the caller's to mend."""
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
            return problems.of_error(error)
        case _:
            error_id = secrets.token_hex(8)
            log.error("Request failed", exc_info=error, extra={"event": "request.failed", "error_id": error_id})
            return problems.internal(error_id)
