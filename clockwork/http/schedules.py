"""The calls on one schedule: each parses its request, asks the request service, and renders the result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from aiohttp import ETag, hdrs, web

from clockwork.access.gate import principal_of
from clockwork.domain.record import TRACEPARENT
from clockwork.errors import FieldError, InvalidInput
from clockwork.http.body import Refusal, body_of, key_in_path, only
from clockwork.http.responses import json_response
from clockwork.requests.results import (
    CancelResult,
    ChangeResult,
    Created,
    CreateResult,
    KeyTaken,
    NotFound,
    Refused,
    Repeated,
    ScheduleView,
    VersionCondition,
    VersionDiffers,
)
from clockwork.requests.service import RequestService
from clockwork.schema import change as changes
from clockwork.schema import problems
from clockwork.schema import schedule as schemas
from clockwork.schema.json import read_json

ONE_SCHEDULE_BYTES_MAX: Final = 2 * 1024 * 1024
"""The limit of a body with one schedule: 256 KiB with every byte escaped as `\\u0000` is 1.5 MiB. Parsing costs memory and
time in proportion, so the limit is not that of a batch of a thousand."""
_VERSION_CHARS_MAX: Final = 18


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleHandlers:
    """The calls under /schedule."""

    requests: RequestService
    cluster: str
    body_bytes_max: int

    async def create(self, request: web.Request) -> web.Response:
        read = partial(
            schemas.read_schedule,
            cluster=self.cluster,
            now_ms=self.requests.context.clock.now_ms(),
            traceparent=only(request, TRACEPARENT),
        )
        try:
            new = await read_json(await self._body(request), read)
        except (Refusal, InvalidInput):
            self.requests.count_rejected()
            raise
        return _created(await self.requests.create(principal_of(request), new))

    async def find(self, request: web.Request) -> web.Response:
        condition = condition_of(request)
        view = await self.requests.find(principal_of(request), *key_in_path(request))
        if view is None:
            raise Refusal(problems.schedule_not_found())
        if condition.any_of is not None and view.version not in condition.any_of:
            raise Refusal(problems.of_declined(VersionDiffers(view)))
        if condition.excludes(view.version):
            return web.Response(status=HTTPStatus.NOT_MODIFIED.value, headers=_etag(view))
        return _shown(view)

    async def cancel(self, request: web.Request) -> web.Response:
        condition = condition_of(request)
        return _answer(await self.requests.cancel(principal_of(request), *key_in_path(request), condition=condition))

    async def cancel_named_in_body(self, request: web.Request) -> web.Response:
        condition = condition_of(request)
        key = await read_json(await self._body(request), schemas.read_key)
        return _answer(await self.requests.cancel(principal_of(request), *key, condition=condition))

    async def change(self, request: web.Request) -> web.Response:
        client_id, schedule_key = key_in_path(request)
        condition = condition_of(request)
        read = partial(
            changes.read_put,
            client_id=client_id,
            schedule_key=schedule_key,
            cluster=self.cluster,
            now_ms=self.requests.context.clock.now_ms(),
        )
        change = await read_json(await self._body(request), read)
        return _answer(
            await self.requests.reschedule(principal_of(request), client_id, schedule_key, change, condition=condition)
        )

    async def fire(self, request: web.Request) -> web.Response:
        key, condition = key_in_path(request), condition_of(request)
        await read_json(await self._body_if_any(request), changes.read_nothing)
        return _answer(await self.requests.fire(principal_of(request), *key, condition=condition))

    async def retry(self, request: web.Request) -> web.Response:
        key, condition = key_in_path(request), condition_of(request)
        read = partial(changes.read_retry, cluster=self.cluster, now_ms=self.requests.context.clock.now_ms())
        due_ms = await read_json(await self._body_if_any(request), read)
        result = await self.requests.retry_failed(principal_of(request), *key, due_ms=due_ms, condition=condition)
        return _answer(result, retry=True)

    async def _body_if_any(self, request: web.Request) -> bytes:
        return await self._body(request) if request.can_read_body else b"{}"

    async def _body(self, request: web.Request) -> bytes:
        return await body_of(request, bytes_max=min(self.body_bytes_max, ONE_SCHEDULE_BYTES_MAX))


def condition_of(request: web.Request) -> VersionCondition:
    """The versions that `If-Match` and `If-None-Match` allow. Raises: InvalidInput."""
    # Weak tags never match in `If-Match` (RFC 9110, 13.1.1), and match as any in `If-None-Match` (13.1.2).
    match, none_match = _lines(request, hdrs.IF_MATCH), _lines(request, hdrs.IF_NONE_MATCH)
    any_of = none_of = None
    if match not in ([], ["*"]):
        any_of = _versions(hdrs.IF_MATCH, match, request.if_match, weak=False)
    if none_match != ["*"]:
        none_of = (
            _versions(hdrs.IF_NONE_MATCH, none_match, request.if_none_match, weak=True) if none_match else frozenset()
        )
    return VersionCondition(any_of=any_of, none_of=none_of)


def _lines(request: web.Request, header: str) -> list[str]:
    return [line.strip() for line in request.headers.getall(header, [])]


def _versions(header: str, lines: list[str], tags: Sequence[ETag] | None, *, weak: bool) -> frozenset[int]:
    if not tags or len(lines) != 1:
        raise InvalidInput([FieldError(header, 'should be one header with versions as the ETag gives them: "3"; or *')])
    named = (tag.value for tag in tags if weak or not tag.is_weak)
    # A tag that is no version of ours matches none.
    return frozenset(int(v) for v in named if v.isascii() and v.isdigit() and len(v) <= _VERSION_CHARS_MAX)


def _created(result: CreateResult) -> web.Response:
    match result:
        case Created(view, limits):
            location = f"/schedule/{view.client_id}/{quote(view.schedule_key, safe='')}"
            headers = {hdrs.LOCATION: location, **problems.rate_limit_headers(limits)}
            return _shown(view, HTTPStatus.CREATED, headers)
        case Repeated(view, limits):
            return _shown(view, headers=problems.rate_limit_headers(limits))
        case KeyTaken():
            raise Refusal(problems.of_declined(result))


def _answer(result: CancelResult | ChangeResult, *, retry: bool = False) -> web.Response:
    if isinstance(result, NotFound | Refused | VersionDiffers):
        raise Refusal(problems.of_declined(result, retry=retry))
    return _shown(result.view)


def _shown(
    view: ScheduleView, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> web.Response:
    return json_response(schemas.answer(view), status.value, {**_etag(view), **(headers or {})})


def _etag(view: ScheduleView) -> dict[str, str]:
    return {hdrs.ETAG: f'"{view.version}"'}
