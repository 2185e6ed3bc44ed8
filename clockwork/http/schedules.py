"""The calls on one schedule: each parses its request, asks the request service, and renders the result."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from aiohttp import hdrs, web

from clockwork.access.gate import principal_of
from clockwork.domain.record import TRACEPARENT
from clockwork.domain.rights import RESEND, Right, authorize_any
from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.errors import FieldError, InvalidInput
from clockwork.http import query as queries
from clockwork.http.body import Refusal, body_of, key_in_path, single_header
from clockwork.http.responses import json_response
from clockwork.http.routes import (
    CALL_WITH_BODY,
    KEYED_CALL,
    NOT_FOUND,
    ONE,
    QUOTA_HEADERS,
    SCHEDULES,
    Answer,
    Parameter,
    problem,
    route,
)
from clockwork.requests.results import (
    AlreadyCreated,
    CancelResult,
    ChangeResult,
    Created,
    CreateResult,
    KeyTaken,
    NotFound,
    Refused,
    ScheduleView,
    VersionCondition,
    VersionDiffers,
)
from clockwork.requests.service import RequestService
from clockwork.schema import problems
from clockwork.schema.change import ChangeForm, NothingForm, RearmForm, read_nothing, read_put, read_retry
from clockwork.schema.json import read_json
from clockwork.schema.problems import ConflictDocument, StaleDocument
from clockwork.schema.render import render_schedule
from clockwork.schema.schedule import WHOLE, Detail, KeyForm, ScheduleDocument, ScheduleForm, read_key, read_schedule

ONE_SCHEDULE_BYTES_MAX: Final = 2 * 1024 * 1024
"""The limit of a body with one schedule: 256 KiB with every byte escaped as `\\u0000` is 1.5 MiB. Parsing costs memory and
time in proportion, so the limit is not that of a batch of a thousand."""
_TAG: Final = re.compile(r'(W/)?"([!#-~\x80-\U0010ffff]*)"')
"""An entity tag (RFC 9110, 8.8.3). Bytes from 0x80 on are decoded by the time they are seen here."""
_TAGS: Final = re.compile(rf"[ \t,]*(?:{_TAG.pattern}[ \t]*(?:,[ \t,]*|\Z))+")
"""A list of one entity tag or more; elements may be empty (RFC 9110, 5.6.1.2)."""
_VERSION: Final = re.compile(r"[1-9][0-9]{0,17}")


def _schedule_answer(description: str, *headers: str) -> Answer:
    return Answer(description=description, model=ScheduleDocument, headers=("ETag", *headers))


CONDITIONS: Final = (
    Parameter(
        name="If-Match",
        where="header",
        description="Only if this is still the version, in quotes; else 412.",
        schema={"type": "string"},
        example='"3"',
    ),
    Parameter(
        name="If-None-Match",
        where="header",
        description="Only if the version, in quotes, is another; `*`: only if there is no schedule. Else 304 (GET) or 412.",
        schema={"type": "string"},
    ),
)
_STALE: Final = problem("`If-Match` or `If-None-Match` rules the version out.", "ETag", model=StaleDocument)
_GONE_ON: Final = problem("It has ended, or is too close to its time to say.", model=ConflictDocument)
_CANCEL_ANSWERS: Final[Mapping[int, Answer]] = {
    200: _schedule_answer("It will never be delivered; cancelled now or before."),
    404: NOT_FOUND,
    409: _GONE_ON,
    412: _STALE,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleHandlers:
    """The calls under /schedule."""

    requests: RequestService
    cluster: str
    body_bytes_max: int

    @route(
        "POST",
        "/schedule",
        name="createSchedule",
        tag=SCHEDULES,
        summary="Create a schedule",
        description=(
            "`201` means that it is durable. The same request again is the same schedule and answers `200` with its "
            "present state, so a lost answer is settled by sending it again."
        ),
        request=ScheduleForm,
        answers={
            200: _schedule_answer("The same request again: the schedule's present state.", *QUOTA_HEADERS),
            201: _schedule_answer("Created, and durable.", "Location", *QUOTA_HEADERS),
            409: problem("Another schedule is pending under this key.", model=ConflictDocument),
            **CALL_WITH_BODY,
        },
    )
    async def create(self, request: web.Request) -> web.Response:
        read = partial(
            read_schedule,
            cluster=self.cluster,
            now_ms=self.requests.context.clock.now_ms(),
            traceparent=single_header(request, TRACEPARENT),
        )
        try:
            new = await read_json(await self._body(request), read)
        except (Refusal, InvalidInput):
            self.requests.count_rejected()
            raise
        return _created(await self.requests.create(principal_of(request), new))

    @route(
        "GET",
        ONE,
        name="getSchedule",
        tag=SCHEDULES,
        summary="State and content",
        description="Strongly consistent: never behind an answer that was given before.",
        parameters=(queries.DATA_AS, *CONDITIONS),
        answers={
            200: _schedule_answer("The schedule."),
            304: Answer(description="`If-None-Match` names the version.", media_type=None, headers=("ETag",)),
            404: NOT_FOUND,
            412: _STALE,
            **KEYED_CALL,
        },
    )
    async def find(self, request: web.Request) -> web.Response:
        key, condition = _covered_key(request, Right.READ), condition_of(request)
        detail = queries.take_detail(queries.read_query(request, (queries.DATA_AS,)))
        view = await self.requests.find(principal_of(request), *key)
        if view is None:
            raise Refusal(problems.schedule_not_found())
        if condition.any_of is not None and view.version not in condition.any_of:
            raise Refusal(problems.of_declined(VersionDiffers(view)))
        if condition.excludes(view.version):
            return web.Response(status=HTTPStatus.NOT_MODIFIED.value, headers=_etag(view))
        return _shown(view, detail=detail)

    @route(
        "DELETE",
        ONE,
        name="cancelSchedule",
        tag=SCHEDULES,
        summary="Cancel",
        description="The answer is the truth: after `200` it is never delivered; `in_flight` promises nothing.",
        parameters=CONDITIONS,
        answers={**_CANCEL_ANSWERS, **KEYED_CALL},
    )
    async def cancel(self, request: web.Request) -> web.Response:
        key, condition = _covered_key(request, Right.CANCEL), condition_of(request)
        return _answer(await self.requests.cancel(principal_of(request), *key, condition=condition))

    @route(
        "DELETE",
        "/schedule",
        name="cancelScheduleNamedInBody",
        tag=SCHEDULES,
        summary="Cancel, named in the body",
        description="The same as `DELETE /schedule/{clientId}/{scheduleKey}`.",
        request=KeyForm,
        parameters=CONDITIONS,
        answers={**_CANCEL_ANSWERS, **CALL_WITH_BODY},
    )
    async def cancel_named_in_body(self, request: web.Request) -> web.Response:
        condition = condition_of(request)
        key = await read_json(await self._body(request), read_key)
        return _answer(await self.requests.cancel(principal_of(request), *key, condition=condition))

    @route(
        "PUT",
        ONE,
        name="changeSchedule",
        tag=SCHEDULES,
        summary="Reschedule or change",
        description=(
            "Omitted fields stay; `delivery` is merged field by field, its `headers` and `retry` as a whole. An optional "
            "field without a default, such as `deadline`, is removed by null."
        ),
        request=ChangeForm,
        parameters=CONDITIONS,
        answers={
            200: _schedule_answer("The changed schedule."),
            404: NOT_FOUND,
            409: _GONE_ON,
            412: _STALE,
            **CALL_WITH_BODY,
        },
    )
    async def change(self, request: web.Request) -> web.Response:
        client_id, schedule_key = _covered_key(request, Right.CREATE)
        condition = condition_of(request)
        read = partial(
            read_put,
            client_id=client_id,
            schedule_key=schedule_key,
            cluster=self.cluster,
            now_ms=self.requests.context.clock.now_ms(),
        )
        change = await read_json(await self._body(request), read)
        return _answer(
            await self.requests.reschedule(principal_of(request), client_id, schedule_key, change, condition=condition)
        )

    @route(
        "POST",
        f"{ONE}/fire",
        name="fireSchedule",
        tag=SCHEDULES,
        summary="Deliver now",
        description=(
            "A change of `scheduleTime` to now; a schedule that is due stays as it is. Needs the right `operate` or "
            "`create`."
        ),
        request=NothingForm,
        request_required=False,
        parameters=CONDITIONS,
        answers={
            200: _schedule_answer("It is due now."),
            404: NOT_FOUND,
            409: _GONE_ON,
            412: _STALE,
            **CALL_WITH_BODY,
        },
    )
    async def fire(self, request: web.Request) -> web.Response:
        key, condition = _covered_key(request, *RESEND), condition_of(request)
        await read_json(await self._body_if_any(request), read_nothing)
        return _answer(await self.requests.fire(principal_of(request), *key, condition=condition))

    @route(
        "POST",
        f"{ONE}/retry",
        name="retrySchedule",
        tag=SCHEDULES,
        summary="Arm a failed schedule again",
        description=(
            "With a new due time, by default now; the same request again does not arm it twice. Needs the right `operate` "
            "or `create`."
        ),
        request=RearmForm,
        request_required=False,
        parameters=CONDITIONS,
        answers={
            200: _schedule_answer("It is pending again."),
            404: NOT_FOUND,
            409: problem("It has not failed.", model=ConflictDocument),
            412: _STALE,
            **CALL_WITH_BODY,
        },
    )
    async def retry(self, request: web.Request) -> web.Response:
        key, condition = _covered_key(request, *RESEND), condition_of(request)
        read = partial(read_retry, cluster=self.cluster, now_ms=self.requests.context.clock.now_ms())
        due_ms = await read_json(await self._body_if_any(request), read)
        result = await self.requests.retry_failed(principal_of(request), *key, due_ms=due_ms, condition=condition)
        return _answer(result, retry=True)

    async def _body_if_any(self, request: web.Request) -> bytes:
        return await self._body(request) if request.can_read_body else b"{}"

    async def _body(self, request: web.Request) -> bytes:
        return await body_of(request, bytes_max=min(self.body_bytes_max, ONE_SCHEDULE_BYTES_MAX))


def _covered_key(request: web.Request, *rights: Right) -> tuple[ClientId, ScheduleKey]:
    """The key that the path names. Raises: InvalidInput; Forbidden (the caller has none of the rights for its client).

    The service checks the rights as well, but only after the rest of the request is read: for a caller without the right
    the node should read and judge no body.
    """
    client_id, schedule_key = key_in_path(request)
    authorize_any(principal_of(request), rights, client_id)
    return client_id, schedule_key


def condition_of(request: web.Request) -> VersionCondition:
    """The versions that `If-Match` and `If-None-Match` allow. Raises: InvalidInput."""
    # Weak tags never match in `If-Match` (RFC 9110, 13.1.1), and match as any in `If-None-Match` (13.1.2).
    match, none_match = _field(request, hdrs.IF_MATCH), _field(request, hdrs.IF_NONE_MATCH)
    any_of, none_of = None, frozenset[int]()
    if match is not None and match != "*":
        any_of = _versions(hdrs.IF_MATCH, match, weak=False)
    if none_match == "*":
        return VersionCondition(any_of=any_of, none_of=None)
    if none_match is not None:
        none_of = _versions(hdrs.IF_NONE_MATCH, none_match, weak=True)
    return VersionCondition(any_of=any_of, none_of=none_of)


def _field(request: web.Request, header: str) -> str | None:
    """All lines of a header as one list (RFC 9110, 5.3); None: there is none."""
    lines = request.headers.getall(header, None)
    return None if lines is None else ", ".join(lines).strip(" \t")


def _versions(header: str, field: str, *, weak: bool) -> frozenset[int]:
    """The versions among the entity tags of a list. Raises: InvalidInput (all of it has to be a list, with one tag or more:
    acting on the part before a mistake would be acting on another condition than the caller's)."""
    if _TAGS.fullmatch(field) is None:
        raise InvalidInput(
            [FieldError(header, 'should be versions as the ETag gives them, such as "3", "4"; or * alone')]
        )
    named = (opaque for mark, opaque in _TAG.findall(field) if weak or not mark)
    # An entity tag is compared as text: one that no version of ours is written as, such as "01", matches none.
    return frozenset(int(opaque) for opaque in named if _VERSION.fullmatch(opaque))


def _created(result: CreateResult) -> web.Response:
    match result:
        case Created(view, limits):
            location = f"/schedule/{view.client_id}/{quote(view.schedule_key, safe='')}"
            headers = {hdrs.LOCATION: location, **problems.rate_limit_headers(limits)}
            return _shown(view, HTTPStatus.CREATED, headers)
        case AlreadyCreated(view, limits):
            return _shown(view, headers=problems.rate_limit_headers(limits))
        case KeyTaken():
            raise Refusal(problems.of_declined(result))


def _answer(result: CancelResult | ChangeResult, *, retry: bool = False) -> web.Response:
    if isinstance(result, NotFound | Refused | VersionDiffers):
        raise Refusal(problems.of_declined(result, retry=retry))
    return _shown(result.view)


def _shown(
    view: ScheduleView,
    status: HTTPStatus = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
    detail: Detail = WHOLE,
) -> web.Response:
    return json_response(render_schedule(view, detail), status.value, {**_etag(view), **(headers or {})})


def _etag(view: ScheduleView) -> dict[str, str]:
    return {hdrs.ETAG: f'"{view.version}"'}
