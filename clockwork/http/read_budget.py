"""A budget of read units for the calls that the dashboard makes, from any caller, and answers that equal requests share.

Each of these calls has a `ReadMetering` in its route. Calls of applications, such as reading one schedule, have none: a page
must not keep them from being answered.

One bucket of read units for the process (`CLOCKWORK_UI_READ_UNITS_PER_SECOND`, ten seconds of it at once). What a request
costs is known only when the store has answered. So a request begins if there is anything in the bucket, takes what the same
call cost last time, and settles the difference at its end, maybe with a debt that later requests wait for (`429`). The cost
of one request is bounded by its call, and a few are under way at once; some others wait for their turn.

Shards, nodes, pauses and the forecast, asked for without query parameters, have a reserve: where the bucket is empty, they
may begin on a fifth of its rate (`ReadMetering.may_use_reserve`). A page with large lists leaves the overview in sight so.
What they read is taken from the bucket all the same, so the process reads no more than its setting on average; lists wait
for it. Parameters end it, since a filter may make a call dearer. The forecast is mostly recorded, and reads nothing; for a
key that does not cover every client, or with `no-cache`, it reads some 100 units, and may still begin on the reserve: its
debt stands there, too. Not chosen: a part of the bucket that others leave alone, since the debt of one list would use that
up, too.

Where the answer may lag, equal requests of equal rights within `shared_s` share one: five open pages cost no more than one.
A request that comes while the first one is being answered waits for it. Sharing a call never shares a failure: if the first
one fails, those that waited ask for themselves, side by side. One after the other, each up to its timeout while the store is
away, the last of twenty pages would hear of it minutes later. Answers that never lag are not shared: the reader may have
just changed what they show. `Cache-Control: no-cache` reads anew (exports, and pages after a change). Its answer replaces
the shared one.
"""

import asyncio
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from clockwork.access.gate import principal_of
from clockwork.concurrency import Turns
from clockwork.domain.rate import NS, Bucket, Rate
from clockwork.errors import TooManyRequests
from clockwork.http.query import is_to_be_fresh
from clockwork.http.routes import READ_UNITS, ReadMetering, route_of
from clockwork.ports.read_units import metered
from clockwork.ports.telemetry import ReadCall, Telemetry

PARTS: Final = 100
"""Tokens for a read unit: half a unit is DynamoDB's smallest price, a quarter that of a row."""
BURST_S: Final = 10
RESERVE_DIVISOR: Final = 5
"""The reserve fills at the bucket's rate, divided by this."""
UNDER_WAY_MAX: Final = 16
"""Requests that read at once: before the first of them ends, all begin on what is in the bucket."""
WAITING_MAX: Final = 500
"""Requests that wait for their turn; those beyond are refused: a longer queue would only delay everyone."""
SHARED_MAX: Final = 50
"""Shared answers that are kept."""
SHARED_BYTES_MAX: Final = 1024 * 1024
"""Size of an answer beyond which it is not kept."""


@dataclass(slots=True)
class _Shared:
    """The answer to equal requests."""

    ends_s: float
    """Time up to which it is given out, by the event loop's clock. It counts from the beginning of the first request."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    body: bytes | None = None
    """None: it is being read, or the first request has failed."""
    content_type: str = ""


class ReadBudget:
    """The bucket of one process, and the answers that equal requests share."""

    def __init__(self, units_per_second: int, telemetry: Telemetry, *, now_ns: Callable[[], int] | None = None) -> None:
        """`now_ns`: any clock that never steps back; by default the event loop's."""
        per_second = units_per_second * PARTS
        self._bucket = Bucket(rate=Rate(per_second=per_second, burst=per_second * BURST_S))
        reserved = per_second // RESERVE_DIVISOR
        self._reserve = Bucket(rate=Rate(per_second=reserved, burst=reserved * BURST_S))
        self._telemetry = telemetry
        self._now_ns = now_ns or (lambda: int(asyncio.get_running_loop().time() * NS))
        self._turns = Turns(
            "lists, searches and operators' calls", at_once=UNDER_WAY_MAX, waiting_max=WAITING_MAX, retry_after_s=1
        )
        self._last_cost: dict[ReadCall, int] = {}
        self._shared: dict[Hashable, _Shared] = {}

    def middleware(self) -> Middleware:
        """The middleware that counts and bounds the reads of routes that have a `ReadMetering`."""

        @web.middleware
        async def count_reads(request: web.Request, handler: Handler) -> web.StreamResponse:
            declared = route_of(request.match_info.handler)
            reads = declared.reads if declared is not None else None
            if reads is None or (reads.only_summaries and request.query.get("fields") != "summary"):
                return await handler(request)
            if not reads.shared_s:
                return await self._counted(request, handler, reads)
            return await self._shared_answer(request, handler, reads)

        return count_reads

    async def _counted(self, request: web.Request, handler: Handler, reads: ReadMetering) -> web.StreamResponse:
        """Raises: TooManyRequests."""
        call = reads.call
        async with self._turns.one():
            buckets = [self._bucket]
            wait_ns = self._bucket.wait_ns(1, self._now_ns())
            if wait_ns and reads.may_use_reserve and not request.query:
                buckets.append(self._reserve)
                wait_ns = min(wait_ns, self._reserve.wait_ns(1, self._now_ns()))
            if wait_ns:
                self._telemetry.limited("read_units")
                raise TooManyRequests(
                    "The read units of lists, search and operators' calls are used up for now "
                    "(CLOCKWORK_UI_READ_UNITS_PER_SECOND).",
                    retry_after_s=math.ceil(wait_ns / NS),
                )
            expected = self._last_cost.get(call, 0)
            for bucket in buckets:
                bucket.take(expected, self._now_ns())
            with metered() as meter:
                try:
                    response = await handler(request)
                finally:
                    cost = round(meter.units * PARTS)
                    if cost:  # a request that was refused says nothing of the next one
                        self._last_cost[call] = cost
                    for bucket in buckets:
                        bucket.give_back(expected)
                        bucket.take(cost, self._now_ns())
                    self._telemetry.metered_read(call, units=meter.units)
        response.headers[READ_UNITS] = _text(meter.units)
        return response

    async def _shared_answer(self, request: web.Request, handler: Handler, reads: ReadMetering) -> web.StreamResponse:
        key = (request.method, request.raw_path, replace(principal_of(request), name=""))
        loop = asyncio.get_running_loop()
        fresh = is_to_be_fresh(request)
        if not fresh and (known := self._shared.get(key)) is not None and known.ends_s > loop.time():
            await known.over.wait()
            if known.body is not None:
                headers = {READ_UNITS: _text(0)}
                return web.Response(body=known.body, content_type=known.content_type, headers=headers)
        self._drop_old(loop.time())
        first = self._shared[key] = _Shared(loop.time() + reads.shared_s)
        try:
            response = await self._counted(request, handler, reads)
            body = response.body if isinstance(response, web.Response) else None
            if isinstance(body, bytes) and response.status == 200 and len(body) <= SHARED_BYTES_MAX:
                first.body, first.content_type = body, response.content_type
            return response
        finally:
            first.over.set()

    def _drop_old(self, now_s: float) -> None:
        self._shared = {key: each for key, each in self._shared.items() if each.ends_s > now_s}
        while len(self._shared) >= SHARED_MAX:
            del self._shared[next(iter(self._shared))]


def _text(units: float) -> str:
    return f"{units:.2f}".rstrip("0").rstrip(".")
