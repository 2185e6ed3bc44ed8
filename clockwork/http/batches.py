"""POST /schedules and POST /schedules/cancel: up to a thousand requests in one body, each answered as if it had come
alone.

An error in the envelope refuses the whole; an error in an item is that item's result. An item has the size limits of a
single request for its stored part (256 KiB of data and headers); its JSON is bounded by the body's limit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeVar

from aiohttp import web

from clockwork.access.gate import principal_of
from clockwork.domain.activity import BatchKind
from clockwork.domain.names import BATCH_ITEMS_MAX, LOOK_UP_ITEMS_MAX
from clockwork.domain.record import TRACEPARENT
from clockwork.errors import InvalidInput
from clockwork.http import query as queries
from clockwork.http.actions import BatchRecord
from clockwork.http.body import body_of, single_header
from clockwork.http.responses import json_list_response, problem_of
from clockwork.http.routes import CALL_WITH_BODY, MANY, READ_UNITS, Answer, ReadMetering, route
from clockwork.requests.results import CancelResult, ChangeResult, Created, CreateResult, Declined, ScheduleView
from clockwork.requests.service import ActionItem, RequestService
from clockwork.schema import problems
from clockwork.schema.batch import (
    BatchDocument,
    CancelManyForm,
    CreateManyForm,
    FireManyForm,
    GetManyForm,
    RetryManyForm,
    read_actions,
    read_cancel_item,
    read_few,
    read_fire_item,
    read_items,
    read_retry_item,
)
from clockwork.schema.json import read_json
from clockwork.schema.render import render_schedule
from clockwork.schema.schedule import WHOLE, Detail, read_key, read_schedule

_ANSWERS: Final[Mapping[int, Answer]] = {
    200: Answer(description="A result for each, in the order given.", model=BatchDocument),
    **CALL_WITH_BODY,
}

LOOK_UP_BYTES_MAX: Final = 512 * 1024
"""Limit of a body with a hundred keys, in any spelling that is not a waste."""

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchHandlers:
    """The calls with many schedules."""

    requests: RequestService
    cluster: str
    body_bytes_max: int

    @route(
        "POST",
        "/schedules",
        name="createSchedules",
        tag=MANY,
        summary=f"Create up to {BATCH_ITEMS_MAX:,}",
        description="Each succeeds or fails alone, with the answer of the single call.",
        request=CreateManyForm,
        answers=_ANSWERS,
    )
    async def create(self, request: web.Request) -> web.Response:
        read = partial(
            read_schedule,
            cluster=self.cluster,
            now_ms=self.requests.context.clock.now_ms(),
            traceparent=single_header(request, TRACEPARENT),
        )
        items = await self._read(request, read)
        return await batch_response(await self.requests.create_batch(principal_of(request), items))

    @route(
        "POST",
        "/schedules/cancel",
        name="cancelSchedules",
        tag=MANY,
        summary=f"Cancel up to {BATCH_ITEMS_MAX:,}",
        description="Each succeeds or fails alone, with the answer of the single call.",
        request=CancelManyForm,
        answers=_ANSWERS,
    )
    async def cancel(self, request: web.Request) -> web.Response:
        items, reason = await self._read_actions(request, read_cancel_item)
        results = await self.requests.cancel_batch(principal_of(request), items)
        return await self._actions_response(request, "batch_cancelled", items, results, reason)

    @route(
        "POST",
        "/schedules/fire",
        name="fireSchedules",
        tag=MANY,
        summary=f"Deliver up to {BATCH_ITEMS_MAX:,} now",
        description="Each succeeds or fails alone, with the answer of the single call; `ifVersion` is its `If-Match`.",
        request=FireManyForm,
        answers=_ANSWERS,
    )
    async def fire(self, request: web.Request) -> web.Response:
        items, reason = await self._read_actions(request, read_fire_item)
        results = await self.requests.fire_batch(principal_of(request), items)
        return await self._actions_response(request, "batch_fired", items, results, reason)

    @route(
        "POST",
        "/schedules/retry",
        name="retrySchedules",
        tag=MANY,
        summary=f"Arm up to {BATCH_ITEMS_MAX:,} failed ones again",
        description=(
            "Each succeeds or fails alone, with the answer of the single call; `ifVersion` is its `If-Match`. With it, the "
            "same batch again arms none twice."
        ),
        request=RetryManyForm,
        answers=_ANSWERS,
    )
    async def retry(self, request: web.Request) -> web.Response:
        read = partial(read_retry_item, cluster=self.cluster, now_ms=self.requests.context.clock.now_ms())
        items, reason = await self._read_actions(request, read)
        results = await self.requests.retry_batch(principal_of(request), items)
        return await self._actions_response(request, "batch_retried", items, results, reason)

    @route(
        "POST",
        "/schedules/get",
        name="getSchedules",
        tag=MANY,
        summary=f"Show up to {LOOK_UP_ITEMS_MAX}",
        description=(
            "The present state of each, strongly consistent, as the single call would show it; also of keys that a path "
            "cannot carry, such as `..`. Changes nothing."
        ),
        request=GetManyForm,
        parameters=(queries.FIELDS, queries.DATA_AS),
        reads=ReadMetering(call="get", only_summaries=True),
        answers={
            **_ANSWERS,
            200: Answer(
                description="A result for each, in the order given.", model=BatchDocument, headers=(READ_UNITS,)
            ),
        },
    )
    async def get(self, request: web.Request) -> web.Response:
        detail = queries.take_detail(queries.read_query(request, (queries.FIELDS, queries.DATA_AS)))
        body = await body_of(request, bytes_max=LOOK_UP_BYTES_MAX)
        items = await read_json(body, partial(read_few, read=read_key))
        return await batch_response(await self.requests.find_many(principal_of(request), items), detail)

    async def _actions_response(
        self,
        request: web.Request,
        kind: BatchKind,
        items: Sequence[ActionItem | InvalidInput],
        results: Sequence["_Result | Exception"],
        reason: str | None,
    ) -> web.Response:
        """The answer to a batch of actions, which is recorded as a whole."""
        recorded = BatchRecord(request, self.requests.context.telemetry, kind, reason=reason)
        documents = _documents(results, WHOLE, retry=kind == "batch_retried")
        response = await json_list_response("results", recorded.counted(documents))
        recorded.finish(item if isinstance(item, InvalidInput) else item.client_id for item in items)
        return response

    async def _read_actions(
        self, request: web.Request, read: Callable[[Any], ActionItem]
    ) -> tuple[list[ActionItem | InvalidInput], str | None]:
        body = await body_of(request, bytes_max=self.body_bytes_max)
        return await read_json(body, partial(read_actions, read=read))

    async def _read(self, request: web.Request, read: Callable[[Any], _T]) -> list[_T | InvalidInput]:
        body = await body_of(request, bytes_max=self.body_bytes_max)
        return await read_json(body, partial(read_items, read=read))


_Result = CreateResult | CancelResult | ChangeResult | ScheduleView


async def batch_response(results: Sequence[_Result | Exception], detail: Detail = WHOLE) -> web.Response:
    """One result for each item, in their order."""
    return await json_list_response("results", _documents(results, detail))


def _documents(
    results: Sequence[_Result | Exception], detail: Detail, *, retry: bool = False
) -> Iterator[dict[str, Any]]:
    """`retry`: the items were retries of failed schedules."""
    for result in results:
        if isinstance(result, Exception):
            yield problem_of(result).document()
        elif isinstance(result, Declined):
            yield problems.of_declined(result, retry=retry).document()
        else:
            status = HTTPStatus.CREATED if isinstance(result, Created) else HTTPStatus.OK
            view = result if isinstance(result, ScheduleView) else result.view
            yield {"status": status.value, "schedule": render_schedule(view, detail)}
