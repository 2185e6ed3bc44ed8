"""HTTP verbs to the engine's words, and its answers to HTTP statuses."""

import asyncio
import logging
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote, unquote_to_bytes

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from clockwork.api import changes, json_body, problems, schemas
from clockwork.api.problems import Problem
from clockwork.clock import Clock
from clockwork.domain.record import TRACEPARENT
from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.engine.answers import (
    Accepts,
    Cancelled,
    Cancels,
    Changed,
    Created,
    KeyTaken,
    NewSchedule,
    NotFound,
    Rearms,
    Reason,
    Refused,
    Repeated,
    Reschedules,
    ScheduleView,
    Unchanged,
    VersionDiffers,
)
from clockwork.errors import ClockworkError, FieldError, InvalidInput, Unavailable
from clockwork.ports import Telemetry

ONE_SCHEDULE_BYTES_MAX: Final = 2 * 1024 * 1024
"""Of a body that holds one schedule: 256 KiB with every byte escaped as `\\u0000` is 1.5 MiB. Parsing costs memory and
time in proportion, so it is not left at the limit that a batch of a thousand needs."""
ON_LOOP_BYTES_MAX: Final = 32 * 1024
"""A body up to this is parsed on the event loop: 20 ms at worst, 1 ms usually."""
BODY_SECONDS_MAX: Final = 30.0
"""For a client to send its body."""

_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_PATH_END: Final = re.compile(rb"[?#]")
_REFUSED_BECAUSE: Final[Mapping[Reason, str]] = {
    Reason.PENDING: "Another schedule is pending under this key.",
    Reason.DELIVERED: "It was delivered already.",
    Reason.FAILED: "It failed already.",
    Reason.CANCELLED: "It was cancelled already.",
    Reason.IN_FLIGHT: "It is too close to its time to say whether it will be delivered. Ask again.",
}
_NOT_ARMED_BECAUSE: Final[Mapping[Reason, str]] = {
    Reason.PENDING: "It is pending: only what failed can be armed again.",
    Reason.FAILED: "Its stored content cannot be read, so it cannot be armed again.",
}

_Read = TypeVar("_Read")

log = logging.getLogger(__name__)


class Refusal(Exception):
    """Ends a request with a problem document."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class Readiness(Protocol):
    """Can this node do what its role does?"""

    def reasons(self) -> list[str]:
        """Why not; empty if it can."""
        ...

    def details(self) -> dict[str, object]:
        """More about the state of what it depends on; JSON values."""
        ...


class Metrics(Telemetry, Protocol):
    """Figures that can be shown."""

    def exposition(self) -> tuple[bytes, str]:
        """All of them in Prometheus' text format, and the content type."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleHandlers:
    """Everything under /schedule."""

    intake: Accepts
    canceller: Cancels
    rescheduler: Reschedules
    rearmer: Rearms
    telemetry: Telemetry
    clock: Clock
    cluster: str
    body_bytes_max: int

    async def create(self, request: web.Request) -> web.Response:
        try:
            new = await _parsed(await self._body(request), self.reader(request))
        except (Refusal, InvalidInput):
            self.telemetry.schedule("rejected")
            raise
        status, view = await self.accept(new)
        return _shown(view, status, {hdrs.LOCATION: _path_of(view)} if status is HTTPStatus.CREATED else None)

    def reader(self, request: web.Request) -> Callable[[Any], NewSchedule]:
        """Makes a create of a JSON value that came with this request. It raises: InvalidInput."""
        return partial(
            schemas.read_schedule,
            cluster=self.cluster,
            now_ms=self.clock.now_ms(),
            traceparent=_only(request, TRACEPARENT),
        )

    async def accept(self, new: NewSchedule) -> tuple[HTTPStatus, ScheduleView]:
        """One create, alone or of a batch. Raises: Refusal, InvalidInput, Unavailable."""
        try:
            result = await self.intake.create(new)
        except InvalidInput:
            self.telemetry.schedule("rejected")
            raise
        match result:
            case Created(view):
                self.telemetry.schedule("created")
                return HTTPStatus.CREATED, view
            case Repeated(view):
                self.telemetry.schedule("repeated")
                return HTTPStatus.OK, view
            case KeyTaken(view):
                self.telemetry.schedule("rejected")
                raise _conflict(Reason.PENDING, view)

    async def find(self, request: web.Request) -> web.Response:
        view = await self.intake.find(*key_in_path(request))
        if view is None:
            raise Refusal(problems.schedule_not_found())
        return _shown(view)

    async def cancel(self, request: web.Request) -> web.Response:
        return _shown(await self.cancel_one(*key_in_path(request)))

    async def cancel_named_in_body(self, request: web.Request) -> web.Response:
        return _shown(await self.cancel_one(*await _parsed(await self._body(request), schemas.read_key)))

    async def cancel_one(self, client_id: ClientId, schedule_key: ScheduleKey) -> ScheduleView:
        """One cancel, alone or of a batch. Raises: Refusal, Unavailable."""
        match await self.canceller.cancel(client_id, schedule_key):
            case Cancelled(view):
                self.telemetry.schedule("cancelled")
                return view
            case NotFound():
                raise Refusal(problems.schedule_not_found())
            case Refused(reason, view):
                raise _conflict(reason, view)

    async def read_many(self, request: web.Request, read: Callable[[Any], _Read]) -> _Read:
        """What `read` makes of the JSON of a body that may be as long as any. Raises: Refusal, InvalidInput."""
        return await _parsed(await _body(request, bytes_max=self.body_bytes_max), read)

    async def change(self, request: web.Request) -> web.Response:
        client_id, schedule_key = key_in_path(request)
        if_version = changes.if_version(request)
        read = partial(
            changes.read_put,
            client_id=client_id,
            schedule_key=schedule_key,
            cluster=self.cluster,
            now_ms=self.clock.now_ms(),
        )
        change = await _parsed(await self._body(request), read)
        return self._changed(await self.rescheduler.change(client_id, schedule_key, change, if_version=if_version))

    async def fire(self, request: web.Request) -> web.Response:
        client_id, schedule_key = key_in_path(request)
        if_version = changes.if_version(request)
        await _parsed(await self._body_if_any(request), changes.read_nothing)
        return self._changed(await self.rescheduler.fire(client_id, schedule_key, if_version=if_version))

    async def retry(self, request: web.Request) -> web.Response:
        client_id, schedule_key = key_in_path(request)
        if_version = changes.if_version(request)
        read = partial(changes.read_retry, cluster=self.cluster, now_ms=self.clock.now_ms())
        due_ms = await _parsed(await self._body_if_any(request), read)
        answer = await self.rearmer.rearm(client_id, schedule_key, due_ms=due_ms, if_version=if_version)
        if isinstance(answer, Refused) and answer.reason in _NOT_ARMED_BECAUSE:
            raise _conflict(answer.reason, answer.view, _NOT_ARMED_BECAUSE[answer.reason])
        return self._changed(answer)

    def _changed(self, answer: Changed | Unchanged | VersionDiffers | NotFound | Refused) -> web.Response:
        match answer:
            case Changed(view):
                self.telemetry.schedule("rescheduled")
                return _shown(view)
            case Unchanged(view):
                self.telemetry.schedule("repeated")
                return _shown(view)
            case VersionDiffers(view):
                raise Refusal(problems.version_differs(view.version, schemas.answer(view)))
            case NotFound():
                raise Refusal(problems.schedule_not_found())
            case Refused(reason, view):
                raise _conflict(reason, view)

    async def _body_if_any(self, request: web.Request) -> bytes:
        return await self._body(request) if request.can_read_body else b"{}"

    async def _body(self, request: web.Request) -> bytes:
        return await _body(request, bytes_max=min(self.body_bytes_max, ONE_SCHEDULE_BYTES_MAX))


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeHandlers:
    """What is said about the node itself."""

    readiness: Readiness
    metrics: Metrics

    async def livez(self, request: web.Request) -> web.Response:
        """Answers as long as the event loop turns: nothing else would be cured by a restart."""
        return _json({"status": "alive"})

    async def readyz(self, request: web.Request) -> web.Response:
        reasons, details = self.readiness.reasons(), self.readiness.details()
        if reasons:
            more = {"reasons": reasons, "details": details}
            raise Refusal(problems.unavailable("; ".join(reasons), more=more))
        return _json({"status": "ready", "reasons": [], "details": details})

    async def show_metrics(self, request: web.Request) -> web.Response:
        body, content_type = self.metrics.exposition()
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})


def problem_of(error: Exception) -> Problem:
    """The problem document for whatever ended a request, logged if it is ours to look at."""
    match error:
        case Refusal():
            return error.problem
        case schemas.TooLarge():
            return problems.too_large(str(error), error.errors)
        case InvalidInput():
            return problems.invalid_input(error.errors)
        case web.HTTPMethodNotAllowed():
            return problems.of_http(HTTPStatus(error.status), allow=sorted(error.allowed_methods))
        case web.HTTPException() if error.status >= 400:
            return problems.of_http(HTTPStatus(error.status))
        case Unavailable():
            _warn(error)
            return problems.unavailable(f"{_first_line(error)} The same request again settles it.")
        case ClockworkError():
            # Contested, Unreadable, …: the engine met something in the store that this node cannot settle now.
            _warn(error)
            return problems.unavailable("The stored state could not be read or settled. Try again.")
        case _:
            error_id = secrets.token_hex(8)
            log.error("Request failed", exc_info=error, extra={"event": "request.failed", "error_id": error_id})
            return problems.internal(error_id)


def _warn(error: ClockworkError) -> None:
    kind = type(error).__name__
    extra = {"event": "request.unavailable", "error": kind, "reason": str(error), "once_per": kind}
    log.warning("Request answered 503", extra=extra)


def _first_line(error: Exception) -> str:
    """What the error's class says; its message may name hosts."""
    return (type(error).__doc__ or "The service is not available.").strip().splitlines()[0]


def _json(document: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    body = json_body.compact(document)
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


def _shown(
    view: ScheduleView, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> web.Response:
    return _json(schemas.answer(view), status.value, {hdrs.ETAG: f'"{view.version}"', **(headers or {})})


def _conflict(reason: Reason, view: ScheduleView, because: str | None = None) -> Refusal:
    return Refusal(problems.conflict(reason.value, because or _REFUSED_BECAUSE[reason], schemas.answer(view)))


def _path_of(view: ScheduleView) -> str:
    return f"/schedule/{view.client_id}/{quote(view.schedule_key, safe='')}"


# --- what a request brings


def _only(request: web.Request, header: str) -> str | None:
    """A header's value if it is there once."""
    values = request.headers.getall(header, [])
    return values[0] if len(values) == 1 else None


def key_in_path(request: web.Request) -> tuple[ClientId, ScheduleKey]:
    """From the path as it was sent: the server's own decoding leaves what is not UTF-8 as it stands, so that two
    different paths would become one key. Raises: InvalidInput."""
    raw = request.raw_path.encode("utf-8", "surrogateescape")
    # Counted from the end, since a proxy may send the whole URL; behind the key may stand what is to be done with it.
    resource = request.match_info.route.resource
    pattern = ["{clientId}", "{scheduleKey}"] if resource is None else resource.canonical.split("/")
    begin = pattern.index("{clientId}") - len(pattern)
    segments = _PATH_END.split(raw, maxsplit=1)[0].split(b"/")[begin:][:2]
    names = ("clientId", "scheduleKey")
    document: dict[str, str] = {}
    for name, segment in zip(names, segments, strict=True):
        if _BAD_ESCAPE.search(segment):
            raise InvalidInput([FieldError(name, "has a % that is not followed by two hexadecimal digits")])
        try:
            document[name] = unquote_to_bytes(segment).decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput([FieldError(name, "is not UTF-8 when its percent-encoding is undone")]) from error
    return schemas.read_key(document)


async def _parsed(body: bytes, read: Callable[[Any], _Read]) -> _Read:
    """What `read` makes of the body's JSON. Large bodies are parsed beside the event loop: two megabytes of "[1,1,…"
    take a second, in which no heartbeat would be sent."""
    if len(body) <= ON_LOOP_BYTES_MAX:
        return read(json_body.parse(body))
    return await asyncio.to_thread(lambda: read(json_body.parse(body)))


async def _body(request: web.Request, *, bytes_max: int) -> bytes:
    _check_media_type(request)
    if request.content_length is not None and request.content_length > bytes_max:
        raise Refusal(_body_too_large(bytes_max))
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > bytes_max:
                    raise Refusal(_body_too_large(bytes_max))
    except TimeoutError as error:
        raise Refusal(problems.of_http(HTTPStatus.REQUEST_TIMEOUT)) from error
    except (web.RequestPayloadError, HttpProcessingError, ConnectionError) as error:
        # Its framing is broken, or the client went away in the middle: nothing was begun, and nobody may be listening.
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
