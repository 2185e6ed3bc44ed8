"""The node's own pages: liveness, readiness and metrics."""

from dataclasses import dataclass
from typing import Protocol

from aiohttp import hdrs, web

from clockwork.http.body import Refusal
from clockwork.http.responses import json_response
from clockwork.ports.telemetry import Telemetry
from clockwork.schema import problems


class Readiness(Protocol):
    """The node's readiness for its role."""

    def reasons(self) -> list[str]:
        """Reasons why it is not ready; empty if it is."""
        ...

    def details(self) -> dict[str, object]:
        """The state of its dependencies; JSON values."""
        ...


class Metrics(Telemetry, Protocol):
    """Metrics that can be scraped."""

    def exposition(self) -> tuple[bytes, str]:
        """All metrics in Prometheus' text format, and the content type."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class NodePages:
    """`/livez`, `/readyz` and `/metrics`."""

    readiness: Readiness
    metrics: Metrics

    async def livez(self, request: web.Request) -> web.Response:
        """Answers as long as the event loop is responsive: a restart helps against nothing else."""
        return json_response({"status": "alive"})

    async def readyz(self, request: web.Request) -> web.Response:
        reasons, details = self.readiness.reasons(), self.readiness.details()
        if reasons:
            more = {"reasons": reasons, "details": details}
            raise Refusal(problems.unavailable("; ".join(reasons), more=more))
        return json_response({"status": "ready", "reasons": [], "details": details})

    async def show_metrics(self, request: web.Request) -> web.Response:
        body, content_type = self.metrics.exposition()
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})
