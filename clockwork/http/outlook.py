"""Calls of the dashboard that only look: why a schedule waits, and what is coming."""

import re
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from clockwork.access.gate import principal_of
from clockwork.domain.names import CLIENT_CHARS_MAX, KEY_BYTES_MAX
from clockwork.domain.rights import Principal, Right, authorize, authorize_any
from clockwork.domain.schedule import ClientId
from clockwork.errors import FieldError, InvalidInput
from clockwork.http import query as queries
from clockwork.http.body import Refusal, key_in_path
from clockwork.http.responses import json_list_response, json_response
from clockwork.http.routes import (
    KEYED_CALL,
    MANY,
    NOT_FOUND,
    ONE,
    READ_UNITS,
    SCHEDULES,
    Answer,
    PageReads,
    Parameter,
    route,
)
from clockwork.operations.forecast import Forecaster, ForecastQuery
from clockwork.requests.search import KeySearch
from clockwork.requests.upcoming import Upcoming, UpcomingQuery
from clockwork.requests.why import WhyReader
from clockwork.schema import problems
from clockwork.schema.outlook import ForecastDocument, FoundDocument, UpcomingDocument
from clockwork.schema.outlook_render import SUMMARY, render_forecast, render_upcoming
from clockwork.schema.render import render_schedule
from clockwork.schema.schedule import CLIENT_ID_SCHEMA, client_id_of, topic_of
from clockwork.schema.why import WhyDocument
from clockwork.schema.why_render import render_why

UPCOMING_MAX: Final = 200
"""Most rows of one page: each shard is read for twice its share of them."""


def _few(text: str) -> int:
    limit = queries.limit_of(text)
    if limit > UPCOMING_MAX:
        raise ValueError(f"should be 1 to {UPCOMING_MAX}")
    return limit


_CLIENT: Final = Parameter(
    name="clientId", description="Only of this client.", schema=CLIENT_ID_SCHEMA, parse=client_id_of
)
_TOPIC: Final = Parameter(name="topic", description="Only for this topic.", schema={"type": "string"}, parse=topic_of)
_LIMIT: Final = Parameter(
    name="limit",
    description=f"Items of one page; by default {queries.LIMIT_DEFAULT}.",
    schema={"type": "integer", "minimum": 1, "maximum": UPCOMING_MAX},
    example=queries.LIMIT_DEFAULT,
    parse=_few,
)
_UPCOMING_PARAMETERS: Final = (_CLIENT, _TOPIC, *queries.DUE, _LIMIT, queries.CURSOR)


BUCKETS_MAX: Final = 2_000
BUCKET_MS_MIN: Final = 1_000
WINDOW_MS: Final = 3_600_000
BUCKET_MS: Final = 60_000
"""Window and bucket of a forecast by default."""
_NUMBER: Final = re.compile(r"[0-9]{1,12}", re.ASCII)


def _bucket_ms(text: str) -> int:
    if _NUMBER.fullmatch(text) is None or int(text) < BUCKET_MS_MIN:
        raise ValueError(f"should be a number of milliseconds, {BUCKET_MS_MIN} or more")
    return int(text)


_FORECAST_PARAMETERS: Final = (
    Parameter(
        name="from", description="Beginning of the window; by default now.", schema=queries.TIME, parse=queries.time_of
    ),
    Parameter(
        name="to",
        description="End of the window; by default an hour after its beginning.",
        schema=queries.TIME,
        parse=queries.time_of,
    ),
    Parameter(
        name="bucketMs",
        description=f"Width of a bucket; by default a minute. At most {BUCKETS_MAX:,} buckets.",
        schema={"type": "integer", "minimum": BUCKET_MS_MIN},
        example=BUCKET_MS,
        parse=_bucket_ms,
    ),
    _CLIENT,
    _TOPIC,
)


def _text(text: str) -> str:
    if not 1 <= len(text.encode()) <= SEARCHED_BYTES_MAX:
        raise ValueError(f"should be 1 to {SEARCHED_BYTES_MAX} bytes of UTF-8")
    return text


SEARCHED_BYTES_MAX: Final = CLIENT_CHARS_MAX + 1 + KEY_BYTES_MAX
_SEARCH_PARAMETERS: Final = (
    Parameter(
        name="q",
        description="`client/key`, or a key.",
        schema={"type": "string", "minLength": 1, "maxLength": SEARCHED_BYTES_MAX},
        required=True,
        example="shop/order-1",
        parse=_text,
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """The parts of a node that answer these calls."""

    why: WhyReader
    upcoming: Upcoming
    forecaster: Forecaster
    search: KeySearch


@dataclass(frozen=True, kw_only=True, slots=True)
class OutlookHandlers:
    """The calls that only look."""

    parts: Outlook

    @route(
        "GET",
        f"{ONE}/why",
        name="explainSchedule",
        tag=SCHEDULES,
        summary="Why it is not delivered yet",
        description=(
            "The first reason that holds, and what to do. The schedule's own state is strongly consistent; the rest is a "
            "look at things that move, and no promise."
        ),
        reads=PageReads(call="why"),
        answers={
            200: Answer(description="The reason.", model=WhyDocument, headers=(READ_UNITS,)),
            404: NOT_FOUND,
            **KEYED_CALL,
        },
    )
    async def why(self, request: web.Request) -> web.Response:
        client_id, schedule_key = key_in_path(request)
        queries.read_query(request, ())
        principal = principal_of(request)
        authorize(principal, Right.READ, client_id)
        async with self.parts.why.context.deadline() as deadline:
            found = await self.parts.why.explain(client_id, schedule_key, deadline)
        if found is None:
            raise Refusal(problems.schedule_not_found())
        return json_response(render_why(found, principal))

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
        parameters=_UPCOMING_PARAMETERS,
        reads=PageReads(call="upcoming", shared_s=1.0),
        answers={200: Answer(description="A page.", model=UpcomingDocument, headers=(READ_UNITS,)), **KEYED_CALL},
    )
    async def upcoming(self, request: web.Request) -> web.Response:
        given = queries.read_query(request, _UPCOMING_PARAMETERS)
        principal = principal_of(request)
        _authorize_reading(principal, given.get("clientId"))
        limit, cursor = given.pop("limit", queries.LIMIT_DEFAULT), given.pop("cursor", None)
        query = UpcomingQuery(
            client_id=given.get("clientId"),
            topic=given.get("topic"),
            due_from_ms=given.get("dueFrom"),
            due_to_ms=given.get("dueTo"),
        )
        scope = {"upcoming": given}
        after = queries.decode_cursor(cursor, scope)
        upcoming = self.parts.upcoming
        as_of_ms = upcoming.context.clock.now_ms()
        async with upcoming.context.deadline() as deadline:
            page = await upcoming.page(query, principal.clients.cover, deadline, after=after, limit=limit)
        return await json_list_response(
            "schedules",
            map(render_upcoming, page.items),
            cursor=queries.encode_cursor(page.next_after, scope),
            asOf=as_of_ms,
            lookedAt=page.looked_at,
        )

    @route(
        "GET",
        "/forecast",
        name="getForecast",
        tag=MANY,
        summary="How much is due when",
        description=(
            "Pending schedules, and next runs of jobs, of clients that the key covers, counted by their due times: exactly "
            "up to `exactTo`, estimated from samples behind it. What it reads is bounded. Equal requests within 10 s share "
            "an answer, and answers may lag by a moment."
        ),
        parameters=_FORECAST_PARAMETERS,
        reads=PageReads(call="forecast", shared_s=10.0),
        answers={200: Answer(description="The forecast.", model=ForecastDocument, headers=(READ_UNITS,)), **KEYED_CALL},
    )
    async def forecast(self, request: web.Request) -> web.Response:
        given = queries.read_query(request, _FORECAST_PARAMETERS)
        principal = principal_of(request)
        _authorize_reading(principal, given.get("clientId"))
        context = self.parts.forecaster.context
        from_ms = given.get("from", context.clock.now_ms())
        query = ForecastQuery(
            from_ms=from_ms,
            to_ms=given.get("to", from_ms + WINDOW_MS),
            bucket_ms=given.get("bucketMs", BUCKET_MS),
            client_id=given.get("clientId"),
            topic=given.get("topic"),
            with_overdue="from" not in given,
        )
        if query.to_ms <= query.from_ms:
            raise InvalidInput([FieldError("to", "should be after the beginning of the window")])
        if query.buckets > BUCKETS_MAX:
            raise InvalidInput(
                [FieldError("bucketMs", f"makes {query.buckets} buckets; at most {BUCKETS_MAX} are shown")]
            )
        async with context.deadline():
            found = await self.parts.forecaster.forecast(query, principal.clients.cover)
        return json_response(render_forecast(found))

    @route(
        "GET",
        "/search",
        name="searchSchedules",
        tag=MANY,
        summary="Find a schedule by its key",
        description=(
            "`client/key`, or a key alone, which is looked for in every client that the key covers and that is known by "
            "name, 200 at most."
        ),
        parameters=_SEARCH_PARAMETERS,
        reads=PageReads(call="search"),
        answers={200: Answer(description="The findings.", model=FoundDocument, headers=(READ_UNITS,)), **KEYED_CALL},
    )
    async def search(self, request: web.Request) -> web.Response:
        text: str = queries.read_query(request, _SEARCH_PARAMETERS)["q"]
        principal = principal_of(request)
        _authorize_reading(principal, None)
        async with self.parts.search.context.deadline() as deadline:
            found = await self.parts.search.search(text, principal.clients, deadline)
        return json_response(
            {
                "q": text,
                "results": [render_schedule(view, SUMMARY) for view in found.views],
                "clientsLookedAt": found.clients_looked_at,
                "complete": found.complete,
            }
        )


def _authorize_reading(principal: Principal, client_id: ClientId | None) -> None:
    """Raises: Forbidden."""
    if client_id is None:
        authorize_any(principal, (Right.READ,))
    else:
        authorize(principal, Right.READ, client_id)
