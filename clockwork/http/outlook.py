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
from clockwork.http.activity import covered_topics
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
from clockwork.operations.activity import ActivityTail
from clockwork.operations.forecast import Forecast, Forecaster, ForecastQuery, put_together
from clockwork.requests.search import KeySearch
from clockwork.requests.upcoming import Upcoming, UpcomingQuery
from clockwork.requests.why import WhyReader
from clockwork.schema import problems
from clockwork.schema.outlook import ForecastDocument, FoundDocument, UpcomingDocument
from clockwork.schema.outlook_render import render_forecast, render_found, render_upcoming
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
        name="from",
        description="Beginning of the window; by default that of the present bucket, whose overdue rows are counted apart.",
        schema=queries.TIME,
        parse=queries.time_of,
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
        description="`client/key`, a key, or a `deliveryId`.",
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
    tail: ActivityTail | None
    """None: this cluster records no activity."""

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
        polled=True,
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
            "an answer, and answers may lag by a moment. The next hour by minutes, for a key that covers every client, is "
            "made once a minute by those that deliver, and costs nothing to look at: it may be two minutes old (`asOf`), "
            "unless it is asked for with `Cache-Control: no-cache`. `mostDelivered` is a measure to compare it with: the "
            "minute with the most deliveries of about a day, for covered topics, or for the one that is asked for. The "
            "cluster may be able to do more; it had no cause to."
        ),
        parameters=_FORECAST_PARAMETERS,
        reads=PageReads(call="forecast", shared_s=10.0),
        polled=True,
        answers={200: Answer(description="The forecast.", model=ForecastDocument, headers=(READ_UNITS,)), **KEYED_CALL},
    )
    async def forecast(self, request: web.Request) -> web.Response:
        given = queries.read_query(request, _FORECAST_PARAMETERS)
        principal = principal_of(request)
        _authorize_reading(principal, given.get("clientId"))
        context = self.parts.forecaster.context
        now_ms, bucket_ms = context.clock.now_ms(), given.get("bucketMs", BUCKET_MS)
        from_ms = given.get("from", now_ms // bucket_ms * bucket_ms)
        query = ForecastQuery(
            from_ms=from_ms,
            to_ms=given.get("to", from_ms + WINDOW_MS),
            bucket_ms=bucket_ms,
            client_id=given.get("clientId"),
            topic=given.get("topic"),
            overdue_before_ms=None if "from" in given else now_ms,
        )
        if query.to_ms <= query.from_ms:
            raise InvalidInput([FieldError("to", "should be after the beginning of the window")])
        if query.buckets > BUCKETS_MAX:
            raise InvalidInput(
                [FieldError("bucketMs", f"makes {query.buckets} buckets; at most {BUCKETS_MAX} are shown")]
            )
        usual = ForecastQuery(from_ms=from_ms, to_ms=from_ms + WINDOW_MS, bucket_ms=BUCKET_MS, overdue_before_ms=now_ms)
        found = None
        if query == usual and principal.clients.all and not queries.is_to_be_fresh(request):
            found = self._recorded(from_ms)
        if found is None:
            async with context.deadline():
                found = await self.parts.forecaster.forecast(query, principal.clients.cover)
        busiest = None
        if self.tail is not None and query.client_id is None:
            busiest = await self.tail.busiest_minute(covered_topics(principal), topic=query.topic)
        return json_response(render_forecast(found, busiest))

    def _recorded(self, from_ms: int) -> Forecast | None:
        """The forecast of the next hour that the processes have recorded; None: it has to be read."""
        shards = self.parts.forecaster.context.settings.shards
        recorded = None if self.tail is None else self.tail.recorded_forecasts(shards=shards)
        return None if recorded is None else put_together(recorded, from_ms=from_ms)

    @route(
        "GET",
        "/search",
        name="searchSchedules",
        tag=MANY,
        summary="Find a schedule by its key, or by a delivery",
        description=(
            "`client/key`; or a key alone, which is looked for in every client that is covered and known, 200 "
            "at most; or a `deliveryId`, as records have it, which is looked for in the latest events, those that this node "
            "has in memory. Known are the clients that the caller's rights name, and those that were seen to create "
            "something, as they were up to a minute ago (`GET /clients`). `complete` says that no known client was left out."
        ),
        parameters=_SEARCH_PARAMETERS,
        reads=PageReads(call="search", shared_s=1.0),
        answers={200: Answer(description="The findings.", model=FoundDocument, headers=(READ_UNITS,)), **KEYED_CALL},
    )
    async def search(self, request: web.Request) -> web.Response:
        text: str = queries.read_query(request, _SEARCH_PARAMETERS)["q"]
        principal = principal_of(request)
        _authorize_reading(principal, None)
        async with self.parts.search.context.deadline() as deadline:
            found = await self.parts.search.search(text, principal.clients, deadline)
        return json_response(render_found(text, found))


def _authorize_reading(principal: Principal, client_id: ClientId | None) -> None:
    """Raises: Forbidden."""
    if client_id is None:
        authorize_any(principal, (Right.READ,))
    else:
        authorize(principal, Right.READ, client_id)
