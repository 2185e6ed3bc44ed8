"""The node's own pages: liveness, readiness and metrics."""

from dataclasses import dataclass
from typing import Final, Protocol

from aiohttp import hdrs, web

from clockwork.http.body import Refusal
from clockwork.http.responses import json_response
from clockwork.http.routes import EVERY_CALL, NODE, Answer, problem, route
from clockwork.ports.telemetry import Telemetry
from clockwork.schema import problems
from clockwork.schema.operations import AliveDocument, ReadyDocument
from clockwork.schema.problems import UnreadyDocument


class Readiness(Protocol):
    """The node's readiness for its role."""

    def reasons(self) -> list[str]:
        """Reasons why it is not ready; empty if it is."""
        ...

    def needs_restart(self) -> str | None:
        """The reason why only a restart of the process helps; None if a restart would help against nothing."""
        ...

    def details(self) -> dict[str, object]:
        """The state of its dependencies; JSON values."""
        ...


class Metrics(Telemetry, Protocol):
    """Metrics that can be scraped."""

    def exposition(self) -> tuple[bytes, str]:
        """All metrics in Prometheus' text format, and the content type."""
        ...


class Pages(Protocol):
    """The node's own pages, of one process or of all."""

    async def livez(self, request: web.Request, /) -> web.Response: ...
    async def readyz(self, request: web.Request, /) -> web.Response: ...
    async def show_metrics(self, request: web.Request, /) -> web.Response: ...


LIVEZ: Final = route(
    "GET",
    "/livez",
    name="livez",
    tag=NODE,
    summary="Liveness",
    description="Is the event loop responsive, and the node's time usable, or soon so? If not, only a restart helps: of an "
    "event loop that hangs, or of a node whose machine's clock was set back far while it ran.",
    keyed=False,
    answers={
        **EVERY_CALL,
        200: Answer(description="Yes.", model=AliveDocument),
        503: problem("No, in one of the node's processes.", "Retry-After", model=UnreadyDocument),
    },
)
READYZ: Final = route(
    "GET",
    "/readyz",
    name="readyz",
    tag=NODE,
    summary="Readiness",
    description="Can the node do what its role does? For `api` and `all` that needs the store and a trusted clock; Kafka's "
    "state is in the details.",
    keyed=False,
    answers={
        **EVERY_CALL,
        200: Answer(description="It can.", model=ReadyDocument),
        503: problem("It cannot; the reasons are given.", "Retry-After", model=UnreadyDocument),
    },
)
METRICS: Final = route(
    "GET",
    "/metrics",
    name="metrics",
    tag=NODE,
    summary="Metrics for Prometheus",
    description="Prometheus' text format.",
    keyed=False,
    answers={200: Answer(description="All metrics.", media_type="text/plain"), **EVERY_CALL},
)


@dataclass(frozen=True, kw_only=True, slots=True)
class NodePages:
    """`/livez`, `/readyz` and `/metrics`."""

    readiness: Readiness
    metrics: Metrics

    @LIVEZ
    async def livez(self, request: web.Request) -> web.Response:
        """Liveness: `503` where only a restart helps. An event loop that hangs does not answer at all."""
        if (reason := self.readiness.needs_restart()) is not None:
            raise Refusal(problems.unavailable(reason, more={"reasons": [reason]}))
        return json_response({"status": "alive"})

    @READYZ
    async def readyz(self, request: web.Request) -> web.Response:
        reasons, details = self.readiness.reasons(), self.readiness.details()
        if reasons:
            more = {"reasons": reasons, "details": details}
            raise Refusal(problems.unavailable("; ".join(reasons), more=more))
        return json_response({"status": "ready", "reasons": [], "details": details})

    @METRICS
    async def show_metrics(self, request: web.Request) -> web.Response:
        body, content_type = self.metrics.exposition()
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})
