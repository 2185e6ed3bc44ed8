"""GET /schedules and GET /schedule/{clientId}/{scheduleKey}/history."""

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from aiohttp import web

from clockwork.access.gate import principal_of
from clockwork.domain.rights import Right, authorize
from clockwork.http import many, problems
from clockwork.http import query as queries
from clockwork.http.body import Refusal, key_in_path
from clockwork.http.problems import Problem
from clockwork.requests.history import Remembers
from clockwork.requests.listing import ListQuery, Lists
from clockwork.requests.results import Status
from clockwork.schema import render as shown
from clockwork.schema import schedule as schemas
from clockwork.schema.times import time_ms_of_input

_INTEGER: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_STATUSES: Final = ", ".join(status.value for status in Status)


@dataclass(frozen=True, kw_only=True, slots=True)
class ListHandlers:
    """Everything that is answered page by page."""

    lists: Lists | None
    """None: this cluster has no index to list from."""
    history: Remembers | None

    async def list(self, request: web.Request) -> web.Response:
        if self.lists is None:
            raise Refusal(_search_is_off())
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
        authorize(principal_of(request), Right.READ, query.client_id)
        page = await self.lists.page(query, after=queries.opened(cursor, given), limit=limit)
        documents = (schemas.answer(view) for view in page.views)
        return await many.listed("schedules", documents, cursor=queries.sealed(page.next_after, given))

    async def past(self, request: web.Request) -> web.Response:
        if self.history is None:
            raise Refusal(problems.of_http(HTTPStatus.NOT_IMPLEMENTED))
        client_id, schedule_key = key_in_path(request)
        authorize(principal_of(request), Right.READ, client_id)
        given = queries.read_query(request, _PAGE_PARAMETERS)
        query = {"history of": [client_id, schedule_key]}
        after = queries.opened(given.get("cursor"), query)
        limit = given.get("limit", queries.LIMIT_DEFAULT)
        page = await self.history.page(client_id, schedule_key, after=after, limit=limit)
        if page is None:
            raise Refusal(problems.schedule_not_found())
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


def _search_is_off() -> Problem:
    return Problem(
        status=HTTPStatus.NOT_IMPLEMENTED,
        kind="search-off",
        title="This cluster does not list schedules",
        detail="It runs with CLOCKWORK_SEARCH=off, so there is no index to list from. Ask for each schedule by its key.",
    )
