"""GET /upcoming: what is due next, of all clients that a key covers."""

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from clockwork.access.gate import principal_of
from clockwork.domain.rights import Right, authorize_any
from clockwork.http import query as queries
from clockwork.http.responses import json_list_response
from clockwork.http.routes import KEYED_CALL, MANY, READ_UNITS, Answer, Parameter, ReadMetering, route
from clockwork.requests.upcoming import UpcomingQuery, UpcomingReader
from clockwork.schema.upcoming import UpcomingDocument
from clockwork.schema.upcoming_render import render_upcoming

UPCOMING_MAX: Final = 200
"""Most rows of one page: each shard is read for twice its share of them."""


def _few(text: str) -> int:
    limit = queries.limit_of(text)
    if limit > UPCOMING_MAX:
        raise ValueError(f"should be 1 to {UPCOMING_MAX}")
    return limit


_LIMIT: Final = Parameter(
    name="limit",
    description=f"Items of one page; by default {queries.LIMIT_DEFAULT}.",
    schema={"type": "integer", "minimum": 1, "maximum": UPCOMING_MAX},
    example=queries.LIMIT_DEFAULT,
    parse=_few,
)
_PARAMETERS: Final = (queries.CLIENT, queries.TOPIC, *queries.DUE, _LIMIT, queries.CURSOR)


@dataclass(frozen=True, kw_only=True, slots=True)
class UpcomingHandlers:
    """The list of what is due next."""

    reader: UpcomingReader

    @route(
        "GET",
        "/upcoming",
        name="listUpcoming",
        tag=MANY,
        summary="What is due next",
        description=(
            "Pending schedules, and next runs of jobs, of all clients that the key covers, in the order of due times, those "
            "that are overdue first. With `clientId` from now on unless `dueFrom` says otherwise, and without runs of jobs. "
            "May lag: a row of a moment ago may be missing, or shown though it has just ended."
        ),
        parameters=_PARAMETERS,
        reads=ReadMetering(call="upcoming", shared_s=1.0),
        polled=True,
        answers={200: Answer(description="A page.", model=UpcomingDocument, headers=(READ_UNITS,)), **KEYED_CALL},
    )
    async def upcoming(self, request: web.Request) -> web.Response:
        given = queries.read_query(request, _PARAMETERS)
        principal = principal_of(request)
        authorize_any(principal, [Right.READ], given.get("clientId"))
        limit, cursor = given.pop("limit", queries.LIMIT_DEFAULT), given.pop("cursor", None)
        query = UpcomingQuery(
            client_id=given.get("clientId"),
            topic=given.get("topic"),
            due_from_ms=given.get("dueFrom"),
            due_to_ms=given.get("dueTo"),
        )
        scope = {"upcoming": given}
        after = queries.decode_cursor(cursor, scope)
        as_of_ms = self.reader.context.clock.now_ms()
        async with self.reader.context.deadline() as deadline:
            page = await self.reader.page(query, principal.clients.cover, deadline, after=after, limit=limit)
        return await json_list_response(
            "schedules",
            map(render_upcoming, page.items),
            cursor=queries.encode_cursor(page.next_after, scope),
            asOf=as_of_ms,
            lookedAt=page.looked_at,
        )
