"""HTTP verbs to the engine's words, and its answers to HTTP statuses."""

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote

from aiohttp import hdrs, web

from clockwork.access.gate import principal_of
from clockwork.clock import Clock
from clockwork.domain.record import TRACEPARENT
from clockwork.domain.rights import Principal, Right, authorize
from clockwork.domain.schedule import ClientId, Schedule, ScheduleKey
from clockwork.errors import (
    ClockworkError,
    Forbidden,
    InvalidInput,
    TooManyPending,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from clockwork.http import problems
from clockwork.http.body import Refusal, body_of, key_in_path, only, parsed
from clockwork.http.problems import Problem
from clockwork.ports.telemetry import Telemetry
from clockwork.ports.tracing import NO_TRACER, Tracer
from clockwork.requests.dedup import CommandDedup
from clockwork.requests.pending_quota import NO_PENDING_LIMIT, PendingLimit
from clockwork.requests.rate_limits import NO_LIMITS, CreateLimits, Headers
from clockwork.requests.results import (
    Accepts,
    Cancelled,
    Cancels,
    Change,
    Changed,
    Created,
    IfVersion,
    KeyTaken,
    NewSchedule,
    NotFound,
    Rearms,
    Reason,
    Refused,
    Repeated,
    Reschedules,
    ScheduleView,
    Status,
    Unchanged,
    VersionDiffers,
)
from clockwork.schema import change as changes
from clockwork.schema import json as json_body
from clockwork.schema import schedule as schemas

ONE_SCHEDULE_BYTES_MAX: Final = 2 * 1024 * 1024
"""Of a body that holds one schedule: 256 KiB with every byte escaped as `\\u0000` is 1.5 MiB. Parsing costs memory and
time in proportion, so it is not left at the limit that a batch of a thousand needs."""
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
    limits: CreateLimits = NO_LIMITS
    pending: PendingLimit = NO_PENDING_LIMIT
    tracer: Tracer = NO_TRACER

    async def create(self, request: web.Request) -> web.Response:
        try:
            new = await parsed(await self._body(request), self.reader(request))
        except (Refusal, InvalidInput):
            self.telemetry.schedule("rejected")
            raise
        self.tracer.create(new.client_id, new.topic)
        status, view, quota = await self.accept(principal_of(request), new)
        location = {hdrs.LOCATION: _path_of(view)} if status is HTTPStatus.CREATED else {}
        return _shown(view, status, location | quota)

    def reader(self, request: web.Request) -> Callable[[Any], NewSchedule]:
        """Makes a create of a JSON value that came with this request. It raises: InvalidInput."""
        return partial(
            schemas.read_schedule,
            cluster=self.cluster,
            now_ms=self.clock.now_ms(),
            traceparent=only(request, TRACEPARENT),
        )

    async def accept(
        self, principal: Principal, new: NewSchedule, *, turn: CommandDedup | None = None
    ) -> tuple[HTTPStatus, ScheduleView, Headers]:
        """One create, alone, of a batch, or by command; with the headers that tell what is left of the client's quota.

        Raises: Refusal, InvalidInput, Forbidden, TooManyRequests, Unavailable, CommandAlreadyProcessed.
        """
        try:
            authorize(principal, Right.CREATE, new.client_id, new.topic)
            quota = self.limits.take(new.client_id, payload_bytes=len(new.task_data))
            result, quota = await self._create_within_limit(new, turn, quota)
        except (InvalidInput, Forbidden, TooManyRequests) as error:
            # A command over a limit of so many a second, or at one that is being counted, is not rejected: it waits.
            if turn is None or not isinstance(error, TooManyRequests) or isinstance(error, TooManyPending):
                self.telemetry.schedule("rejected")
            raise
        match result:
            case Created(view):
                self.telemetry.schedule("created")
                return HTTPStatus.CREATED, view, quota
            case Repeated(view):
                self.telemetry.schedule("repeated")
                return HTTPStatus.OK, view, quota
            case KeyTaken(view):
                self.telemetry.schedule("rejected")
                raise _conflict(Reason.PENDING, view)

    async def _create_within_limit(
        self, new: NewSchedule, turn: CommandDedup | None, quota: Headers
    ) -> tuple[Created | Repeated | KeyTaken, Headers]:
        ahead_ms = new.due_ms - self.clock.now_ms()
        try:
            quota = await self.pending.take(new.client_id, ahead_ms=ahead_ms, said=quota)
        except TooManyRequests:
            # What was accepted before stays accepted, and whoever asks again is told so.
            known = await self.intake.known(new, turn=turn)
            if known is None:
                self.telemetry.limited("pending")
                raise
            return known, quota
        create = self.intake.create(new, turn=turn)
        return await self.pending.used(new.client_id, create, ahead_ms=ahead_ms), quota

    async def find(self, request: web.Request) -> web.Response:
        client_id, schedule_key = key_in_path(request)
        authorize(principal_of(request), Right.READ, client_id)
        view = await self.intake.find(client_id, schedule_key)
        if view is None:
            raise Refusal(problems.schedule_not_found())
        return _shown(view)

    async def cancel(self, request: web.Request) -> web.Response:
        return _shown(await self.cancel_one(principal_of(request), *key_in_path(request)))

    async def cancel_named_in_body(self, request: web.Request) -> web.Response:
        named = await parsed(await self._body(request), schemas.read_key)
        return _shown(await self.cancel_one(principal_of(request), *named))

    async def cancel_one(
        self,
        principal: Principal,
        client_id: ClientId,
        schedule_key: ScheduleKey,
        *,
        turn: CommandDedup | None = None,
    ) -> ScheduleView:
        """One cancel, alone, of a batch, or by command. Raises: Refusal, Forbidden, Unavailable, CommandAlreadyProcessed."""
        authorize(principal, Right.CANCEL, client_id)
        match await self.canceller.cancel(client_id, schedule_key, turn=turn):
            case Cancelled(view):
                self.telemetry.schedule("cancelled")
                return view
            case NotFound():
                raise Refusal(problems.schedule_not_found())
            case Refused(reason, view):
                raise _conflict(reason, view)

    async def read_many(self, request: web.Request, read: Callable[[Any], _Read]) -> _Read:
        """What `read` makes of the JSON of a body that may be as long as any. Raises: Refusal, InvalidInput."""
        return await parsed(await body_of(request, bytes_max=self.body_bytes_max), read)

    async def change(self, request: web.Request) -> web.Response:
        principal = principal_of(request)
        client_id, schedule_key = key_in_path(request)
        authorize(principal, Right.CREATE, client_id)
        if_version = changes.if_version(request)
        read = partial(
            changes.read_put,
            client_id=client_id,
            schedule_key=schedule_key,
            cluster=self.cluster,
            now_ms=self.clock.now_ms(),
        )
        change = await parsed(await self._body(request), read)
        return _shown(await self.change_one(principal, client_id, schedule_key, change, if_version=if_version))

    async def change_one(
        self,
        principal: Principal,
        client_id: ClientId,
        schedule_key: ScheduleKey,
        change: Change,
        *,
        if_version: IfVersion | None,
        turn: CommandDedup | None = None,
    ) -> ScheduleView:
        """One change, over HTTP or by command.

        Raises: Refusal, InvalidInput, Forbidden, Unavailable, CommandAlreadyProcessed.
        """
        authorize(principal, Right.CREATE, client_id)

        def covered(schedule: Schedule) -> Schedule:
            # Also where the topic stays as it is: what is sent to it would be this key's.
            changed = change(schedule)
            authorize(principal, Right.CREATE, client_id, changed.topic)
            return changed

        answer = await self.rescheduler.change(client_id, schedule_key, covered, if_version=if_version, turn=turn)
        return self._view_of(answer)

    async def fire(self, request: web.Request) -> web.Response:
        client_id, schedule_key = key_in_path(request)
        authorize(principal_of(request), Right.CREATE, client_id)
        if_version = changes.if_version(request)
        await parsed(await self._body_if_any(request), changes.read_nothing)
        return self._changed(await self.rescheduler.fire(client_id, schedule_key, if_version=if_version))

    async def retry(self, request: web.Request) -> web.Response:
        client_id, schedule_key = key_in_path(request)
        authorize(principal_of(request), Right.CREATE, client_id)
        if_version = changes.if_version(request)
        read = partial(changes.read_retry, cluster=self.cluster, now_ms=self.clock.now_ms())
        due_ms = await parsed(await self._body_if_any(request), read)
        rearm = partial(self.rearmer.rearm, client_id, schedule_key, due_ms=due_ms, if_version=if_version)
        ahead_ms = 0 if due_ms is None else due_ms - self.clock.now_ms()
        try:
            await self.pending.take(client_id, ahead_ms=ahead_ms)
        except TooManyRequests:
            found = await self.intake.find(client_id, schedule_key)
            as_wished = found is not None and (if_version is None or found.version in if_version)
            if as_wished and found is not None and found.status is Status.FAILED:
                self.telemetry.limited("pending")
                raise
            # Nothing becomes pending by it: maybe it is the same request again.
            answer = await rearm()
        else:
            answer = await self.pending.used(client_id, rearm(), ahead_ms=ahead_ms)
        if isinstance(answer, Refused) and answer.reason in _NOT_ARMED_BECAUSE:
            raise _conflict(answer.reason, answer.view, _NOT_ARMED_BECAUSE[answer.reason])
        return self._changed(answer)

    def _changed(self, answer: Changed | Unchanged | VersionDiffers | NotFound | Refused) -> web.Response:
        return _shown(self._view_of(answer))

    def _view_of(self, answer: Changed | Unchanged | VersionDiffers | NotFound | Refused) -> ScheduleView:
        match answer:
            case Changed(view):
                self.telemetry.schedule("rescheduled")
                return view
            case Unchanged(view):
                self.telemetry.schedule("repeated")
                return view
            case VersionDiffers(view):
                raise Refusal(problems.version_differs(view.version, schemas.answer(view)))
            case NotFound():
                raise Refusal(problems.schedule_not_found())
            case Refused(reason, view):
                raise _conflict(reason, view)

    async def _body_if_any(self, request: web.Request) -> bytes:
        return await self._body(request) if request.can_read_body else b"{}"

    async def _body(self, request: web.Request) -> bytes:
        return await body_of(request, bytes_max=min(self.body_bytes_max, ONE_SCHEDULE_BYTES_MAX))


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
        case Unauthenticated():
            return problems.unauthenticated(str(error))
        case Forbidden():
            return problems.forbidden(str(error), error.errors)
        case TooManyRequests():
            return problems.too_many(str(error), retry_after_s=error.retry_after_s, headers=error.headers)
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
    extra = {"event": "request.unavailable", "kind": kind, "error": str(error), "once_per": kind}
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
