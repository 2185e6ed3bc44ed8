"""GET /schedules and GET /schedule/{clientId}/{scheduleKey}/history: the answers that come page by page."""

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from clockwork.access.gate import principal_of
from clockwork.http import query as queries
from clockwork.http.body import Refusal, key_in_path
from clockwork.http.responses import json_list_response
from clockwork.http.routes import (
    KEYED_CALL,
    MANY,
    NOT_FOUND,
    ONE,
    READ_UNITS,
    SCHEDULES,
    Answer,
    Parameter,
    ReadMetering,
    problem,
    route,
)
from clockwork.requests.listing import ListQuery
from clockwork.requests.results import NotFound, Status
from clockwork.requests.service import RequestService
from clockwork.schema import problems
from clockwork.schema.render import render_history, render_schedule
from clockwork.schema.schedule import CLIENT_ID_SCHEMA, HistoryDocument, PageDocument, client_id_of, key_of, topic_of

_STATUSES: Final = ", ".join(status.value for status in Status)


def _status(text: str) -> Status:
    try:
        return Status(text)
    except ValueError as error:
        raise ValueError(f"should be one of {_STATUSES}") from error


_LIST_PARAMETERS: Final = (
    Parameter(
        name="clientId",
        description="The schedules' client.",
        schema=CLIENT_ID_SCHEMA,
        required=True,
        example="shop",
        parse=client_id_of,
    ),
    Parameter(
        name="status",
        description="Only schedules in this state.",
        schema={"type": "string", "enum": [status.value for status in Status]},
        parse=_status,
    ),
    Parameter(name="topic", description="Only schedules for this topic.", schema={"type": "string"}, parse=topic_of),
    Parameter(
        name="orderingKey",
        description="Only schedules with this ordering key.",
        schema={"type": "string"},
        parse=key_of,
    ),
    *queries.DUE,
    queries.ORDER,
    queries.FIELDS,
    queries.DATA_AS,
    *queries.PAGING,
)
_HISTORY_PARAMETERS: Final = (queries.FIELDS, queries.DATA_AS, *queries.PAGING)


@dataclass(frozen=True, kw_only=True, slots=True)
class ListHandlers:
    """The calls that answer page by page."""

    requests: RequestService

    @route(
        "GET",
        "/schedules",
        name="listSchedules",
        tag=MANY,
        summary="List a client's schedules",
        description="The present state of each key, of all states unless filtered. May lag by 5 s.",
        parameters=_LIST_PARAMETERS,
        reads=ReadMetering(call="list", only_summaries=True),
        answers={
            200: Answer(description="A page.", model=PageDocument, headers=(READ_UNITS,)),
            501: problem("This cluster keeps no index to list from."),
            **KEYED_CALL,
        },
    )
    async def list(self, request: web.Request) -> web.Response:
        given = queries.read_query(request, _LIST_PARAMETERS)
        cursor, limit = given.pop("cursor", None), given.pop("limit", queries.LIMIT_DEFAULT)
        detail = queries.take_detail(given)
        query = ListQuery(
            client_id=given["clientId"],
            status=given.get("status"),
            topic=given.get("topic"),
            ordering_key=given.get("orderingKey"),
            due_from_ms=given.get("dueFrom"),
            due_to_ms=given.get("dueTo"),
            descending=given.get("order") == "desc",
        )
        after = queries.decode_cursor(cursor, given)
        page = await self.requests.list_schedules(principal_of(request), query, after=after, limit=limit)
        documents = (render_schedule(view, detail) for view in page.views)
        cursor = queries.encode_cursor(page.next_after, given)
        return await json_list_response("schedules", documents, cursor=cursor, lookedAt=page.looked_at)

    @route(
        "GET",
        f"{ONE}/history",
        name="getHistory",
        tag=SCHEDULES,
        summary="All schedules that a key had",
        description="Newest first, until retention ends; a change leaves a `superseded` one where it moved it away from.",
        parameters=_HISTORY_PARAMETERS,
        answers={200: Answer(description="A page.", model=HistoryDocument), 404: NOT_FOUND, **KEYED_CALL},
    )
    async def history(self, request: web.Request) -> web.Response:
        client_id, schedule_key = key_in_path(request)
        given = queries.read_query(request, _HISTORY_PARAMETERS)
        detail = queries.take_detail(given)
        query = {"history of": [client_id, schedule_key]}
        after = queries.decode_cursor(given.get("cursor"), query)
        limit = given.get("limit", queries.LIMIT_DEFAULT)
        page = await self.requests.history(principal_of(request), client_id, schedule_key, after=after, limit=limit)
        if isinstance(page, NotFound):
            raise Refusal(problems.of_declined(page))
        documents = (render_history(outcome, detail) for outcome in page.outcomes)
        return await json_list_response("schedules", documents, cursor=queries.encode_cursor(page.next_after, query))
