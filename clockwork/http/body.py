"""The parts of a request, checked: the parameters in its path, its headers, its body."""

import asyncio
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, TypeVar
from urllib.parse import unquote_to_bytes

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.errors import FieldError, InvalidInput
from clockwork.schema import problems
from clockwork.schema.problems import Problem
from clockwork.schema.schedule import read_key

BODY_SECONDS_MAX: Final = 30.0
"""Time for a client to send its body."""

_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_PATH_END: Final = re.compile(rb"[?#]")

_Value = TypeVar("_Value")


class Refusal(Exception):
    """Ends a request with a problem document."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def single_header(request: web.Request, header: str) -> str | None:
    """The value of a header that is there once; else None."""
    values = request.headers.getall(header, [])
    return values[0] if len(values) == 1 else None


def path_parameter(request: web.Request, name: str, parse: Callable[[str], _Value]) -> _Value:
    """The value of a parameter in the path. `parse` raises ValueError, with a message for the client.

    Raises: InvalidInput, naming the parameter.
    """
    try:
        return parse(request.match_info[name])
    except ValueError as error:
        raise InvalidInput([FieldError(name, str(error))]) from error


def key_in_path(request: web.Request) -> tuple[ClientId, ScheduleKey]:
    """The key of the schedule that the path names.

    Raises: InvalidInput.
    """
    return read_key(names_in_path(request, "clientId", "scheduleKey"))


def names_in_path(request: web.Request, *names: str) -> dict[str, str]:
    """The values of these parameters, which follow one another in the path. Raises: InvalidInput."""
    # Read from the path as it was sent: aiohttp's decoding leaves bytes that are not UTF-8 as they are, so that two
    # different paths would become one key.
    raw = request.raw_path.encode("utf-8", "surrogateescape")
    # Counted from the end, since a proxy may send the whole URL; an action may follow the key.
    resource = request.match_info.route.resource
    pattern = [f"{{{name}}}" for name in names] if resource is None else resource.canonical.split("/")
    begin = pattern.index(f"{{{names[0]}}}") - len(pattern)
    segments = _PATH_END.split(raw, maxsplit=1)[0].split(b"/")[begin:][: len(names)]
    document: dict[str, str] = {}
    for name, segment in zip(names, segments, strict=True):
        if _BAD_ESCAPE.search(segment):
            raise InvalidInput([FieldError(name, "has a % that is not followed by two hexadecimal digits")])
        try:
            document[name] = unquote_to_bytes(segment).decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput([FieldError(name, "is not UTF-8 when its percent-encoding is undone")]) from error
    return document


async def body_of(request: web.Request, *, bytes_max: int) -> bytes:
    """The body of a request that says it is JSON. Raises: Refusal, InvalidInput."""
    _check_media_type(request)
    if request.content_length is not None and request.content_length > bytes_max:
        raise Refusal(_body_too_large(bytes_max))
    body = bytearray()
    try:
        # A timer costs something; usually the body has come with its head.
        async with asyncio.timeout(None if request.content.is_eof() else BODY_SECONDS_MAX):
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > bytes_max:
                    raise Refusal(_body_too_large(bytes_max))
    except TimeoutError as error:
        raise Refusal(problems.of_http(HTTPStatus.REQUEST_TIMEOUT)) from error
    except (web.RequestPayloadError, HttpProcessingError, ConnectionError) as error:
        # The framing is broken, or the client has closed the connection: the request had no effect.
        raise InvalidInput([FieldError("body", "ended before it was complete")]) from error
    return bytes(body)


def _body_too_large(bytes_max: int) -> Problem:
    return problems.too_large(f"The body is longer than the {bytes_max} bytes that are taken.")


def _check_media_type(request: web.Request) -> None:
    if not request.can_read_body:
        raise InvalidInput([FieldError("body", "is required")])
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise Refusal(problems.unsupported_media_type("Content-Encoding should be absent or identity."))
    charset = (request.charset or "utf-8").lower()
    if request.content_type != "application/json" or charset not in {"utf-8", "utf8"}:
        raise Refusal(problems.unsupported_media_type("Content-Type should be application/json, in UTF-8."))
