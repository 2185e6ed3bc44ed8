"""GET /forecast: how much is due when."""

import re
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from clockwork.access.gate import principal_of
from clockwork.domain.rights import Right, authorize_any
from clockwork.errors import FieldError, InvalidInput
from clockwork.http import query as queries
from clockwork.http.activity import covered_topics
from clockwork.http.responses import json_response
from clockwork.http.routes import KEYED_CALL, MANY, READ_UNITS, Answer, Parameter, ReadMetering, route
from clockwork.operations.activity import ActivityTail
from clockwork.operations.forecast import Forecast, Forecaster, ForecastQuery, put_together
from clockwork.schema.forecast import ForecastDocument
from clockwork.schema.forecast_render import render_forecast

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


_PARAMETERS: Final = (
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
    queries.CLIENT,
    queries.TOPIC,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ForecastHandlers:
    """The counts of what is due."""

    forecaster: Forecaster
    tail: ActivityTail | None
    """None: this cluster records no activity."""

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
        parameters=_PARAMETERS,
        reads=ReadMetering(call="forecast", shared_s=10.0, may_use_reserve=True),
        polled=True,
        answers={200: Answer(description="The forecast.", model=ForecastDocument, headers=(READ_UNITS,)), **KEYED_CALL},
    )
    async def forecast(self, request: web.Request) -> web.Response:
        given = queries.read_query(request, _PARAMETERS)
        principal = principal_of(request)
        authorize_any(principal, [Right.READ], given.get("clientId"))
        context = self.forecaster.context
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
                found = await self.forecaster.forecast(query, principal.clients.cover)
        busiest = None
        if self.tail is not None and query.client_id is None:
            busiest = await self.tail.busiest_minute(covered_topics(principal), topic=query.topic)
        return json_response(render_forecast(found, busiest))

    def _recorded(self, from_ms: int) -> Forecast | None:
        """The forecast of the next hour that the processes have recorded; None: it has to be read."""
        shards = self.forecaster.context.settings.shards
        recorded = None if self.tail is None else self.tail.recorded_forecasts(shards=shards)
        return None if recorded is None else put_together(recorded, from_ms=from_ms)
