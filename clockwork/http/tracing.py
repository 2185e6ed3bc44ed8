"""A span for each request that creates, as a part of its caller's trace."""

from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from clockwork.ports.tracing import Tracer

TRACED: Final = frozenset({"/schedule", "/schedules"})
CARRIED: Final = ("traceparent", "tracestate")
"""Headers that say which trace a request belongs to (W3C Trace Context)."""


def tracing(tracer: Tracer) -> list[Middleware]:
    """None at all where nobody wants spans."""
    return [_traced(tracer)] if tracer.active else []


def _traced(tracer: Tracer) -> Middleware:
    @web.middleware
    async def trace(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method != "POST" or request.path not in TRACED:
            return await handler(request)
        carried = {name: value for name in CARRIED if (value := request.headers.get(name)) is not None}
        with tracer.request(method=request.method, route=request.path, carried=carried) as answered:
            response = await handler(request)
            answered(response.status)
            return response

    return trace
