"""GET /schedules and GET /schedule/{clientId}/{scheduleKey}/history."""

import re
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from clockwork.access.gate import principal_of
from clockwork.http import many
from clockwork.http import query as queries
from clockwork.http.body import Refusal, key_in_path
from clockwork.requests.listing import ListQuery
from clockwork.requests.results import NotFound, Status
from clockwork.requests.service import RequestService
from clockwork.schema import problems
from clockwork.schema import render as shown
from clockwork.schema import schedule as schemas
from clockwork.schema.times import time_ms_of_input

_INTEGER: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_STATUSES: Final = ", ".join(status.value for status in Status)


@dataclass(frozen=True, kw_only=True, slots=True)
class ListHandlers:
    """The calls that answer page by page."""

    requests: RequestService

    async def list(self, request: web.Request) -> web.Response:
        given = queries.read_query(request, _LIST_PARAMETERS, required=("clientId",))
        cursor, limit = given.pop("cursor", None), given.pop("limit", queries.LIMIT_DEFAULT)
        query = ListQuery(
            client_id=given["clientId"],
            status=given.get("status"),
            topic=given.get("topic"),
            ordering_key=given.get("orderingKey"),
            due_from_ms=given.get("dueFrom"),
            due_to_ms=given.get("dueTo"),
        )
        after = queries.opened(cursor, given)
        page = await self.requests.list_schedules(principal_of(request), query, after=after, limit=limit)
        documents = (schemas.answer(view) for view in page.views)
        return await many.listed("schedules", documents, cursor=queries.sealed(page.next_after, given))

    async def past(self, request: web.Request) -> web.Response:
        client_id, schedule_key = key_in_path(request)
        given = queries.read_query(request, _PAGE_PARAMETERS)
        query = {"history of": [client_id, schedule_key]}
        after = queries.opened(given.get("cursor"), query)
        limit = given.get("limit", queries.LIMIT_DEFAULT)
        page = await self.requests.history(principal_of(request), client_id, schedule_key, after=after, limit=limit)
        if isinstance(page, NotFound):
            raise Refusal(problems.of_declined(page))
        documents = (shown.past(outcome) for outcome in page.outcomes)
        return await many.listed("schedules", documents, cursor=queries.sealed(page.next_after, query))


def _time(text: str) -> int:
    return time_ms_of_input(int(text) if _INTEGER.fullmatch(text) else text)


def _status(text: str) -> Status:
    try:
        return Status(text)
    except ValueError as error:
        raise ValueError(f"should be one of {_STATUSES}") from error


_PAGE_PARAMETERS: Final[dict[str, queries.Parse]] = {"limit": queries.limit_of, "cursor": str}
_LIST_PARAMETERS: Final[dict[str, queries.Parse]] = {
    "clientId": schemas.client_id_of,
    "status": _status,
    "topic": schemas.topic_of,
    "orderingKey": schemas.key_of,
    "dueFrom": _time,
    "dueTo": _time,
} | _PAGE_PARAMETERS
