"""The HTTP server of a node: its routes, the middlewares around every request, start and stop."""

import asyncio
import logging
import ssl
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from clockwork.access.gate import Gate, authentication
from clockwork.access.oidc_login import OidcLogin
from clockwork.errors import CannotStart
from clockwork.http import openapi
from clockwork.http import operations as admin_calls
from clockwork.http.activity import ActivityHandlers
from clockwork.http.batches import BatchHandlers
from clockwork.http.calendars import CalendarHandlers
from clockwork.http.clients import ClientHandlers
from clockwork.http.connection import Connection, ConnectionCount
from clockwork.http.forecast import ForecastHandlers
from clockwork.http.jobs import JobHandlers
from clockwork.http.lists import ListHandlers
from clockwork.http.node_pages import Metrics, NodePages, Pages, Readiness
from clockwork.http.oidc_login import OidcLoginHandlers
from clockwork.http.polls import answer_unchanged
from clockwork.http.read_budget import ReadBudget
from clockwork.http.responses import problem_of, problem_response
from clockwork.http.routes import add_routes
from clockwork.http.same_origin import same_origin
from clockwork.http.schedules import ScheduleHandlers
from clockwork.http.search import SearchHandlers
from clockwork.http.sessions import ClusterInfo, MeHandlers, SessionHandlers
from clockwork.http.ui import UiPages
from clockwork.http.upcoming import UpcomingHandlers
from clockwork.http.why import WhyHandlers
from clockwork.operations.activity import ActivityTail
from clockwork.operations.clients import ClientDirectory
from clockwork.operations.forecast import Forecaster
from clockwork.ports.tracing import Tracer
from clockwork.requests.search import KeySearch
from clockwork.requests.service import RequestService
from clockwork.requests.upcoming import UpcomingReader
from clockwork.requests.why import WhyReader
from clockwork.settings.model import ConnectionSettings, HttpSettings
from clockwork.tls import HANDSHAKE_S_MAX

UNMATCHED: Final = "unmatched"
"""Label of requests without a route: their paths come from outside and must not become labels."""
BACKLOG: Final = 1_024
"""Connections that may wait to be accepted: a burst, or a short pause of the event loop."""

TRACED_PATHS: Final = frozenset({"/schedule", "/schedules", "/jobs"})
TRACE_HEADERS: Final = ("traceparent", "tracestate")
"""Headers that say which trace a request belongs to (W3C Trace Context)."""

TELEMETRY: Final = web.AppKey("telemetry", Metrics)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryServices:
    """The services of a node that explain why a schedule waits, list and count what is due, and search."""

    why: WhyReader
    upcoming: UpcomingReader
    forecaster: Forecaster
    search: KeySearch


def make_app(
    requests: RequestService,
    settings: HttpSettings,
    readiness: Readiness,
    telemetry: Metrics,
    *,
    accepts: bool = True,
    gate: Gate | None = None,
    pages: Pages | None = None,
    admin: admin_calls.AdminParts | None = None,
    tail: ActivityTail | None = None,
    clients: ClientDirectory | None = None,
    ui: UiPages | None = None,
    cluster_info: ClusterInfo | None = None,
    login: OidcLogin | None = None,
    query_services: QueryServices | None = None,
) -> web.Application:
    """The application with all routes.

    accepts: False for a worker: only the node's own pages.
    gate: None admits every caller.
    pages: the node's own pages where several processes share the port; None: those of this process.
    admin: None leaves out the calls under /admin.
    tail: the latest activity; None: this cluster records none.
    clients: None leaves out the list of clients.
    ui: None leaves out the dashboard, and its sessions.
    cluster_info: the cluster, as callers are shown it.
    login: None leaves out the dashboard's logins at an issuer.
    query_services: None leaves out why, upcoming, forecast and search.

    The body's limit is checked where bodies are read, so aiohttp's own is off.
    """
    node = pages or NodePages(readiness=readiness, metrics=telemetry)
    gate = gate or Gate(None, telemetry)
    cluster_info = cluster_info or ClusterInfo(cluster=settings.cluster)
    admission = authentication(gate, telemetry)
    own_site, tracer = same_origin(settings), requests.context.tracer
    counted = ReadBudget(settings.ui_read_units_per_second, telemetry).middleware()
    around = [*tracing(tracer), _metered(telemetry), own_site, admission, answer_unchanged(), counted]
    app = web.Application(middlewares=around, client_max_size=0)
    app[TELEMETRY] = telemetry
    app.on_response_prepare.append(_set_headers)
    if accepts:
        schedules = ScheduleHandlers(
            requests=requests, cluster=settings.cluster, body_bytes_max=settings.body_bytes_max
        )
        batches = BatchHandlers(requests=requests, cluster=settings.cluster, body_bytes_max=settings.body_bytes_max)
        jobs = JobHandlers(
            jobs=requests.jobs,
            cluster=settings.cluster,
            body_bytes_max=settings.body_bytes_max,
        )
        calendars = CalendarHandlers(jobs=requests.jobs, body_bytes_max=settings.body_bytes_max)
        now_ms = requests.context.clock.now_ms
        activity = ActivityHandlers(tail=tail, now_ms=now_ms)
        for handlers in (schedules, batches, ListHandlers(requests=requests), jobs, calendars, activity):
            add_routes(app, handlers)
        if clients is not None:
            add_routes(app, ClientHandlers(directory=clients))
        if query_services is not None:
            add_routes(app, WhyHandlers(reader=query_services.why))
            add_routes(app, UpcomingHandlers(reader=query_services.upcoming))
            add_routes(app, ForecastHandlers(forecaster=query_services.forecaster, tail=tail))
            add_routes(app, SearchHandlers(keys=query_services.search))
        if admin is not None:
            admin_calls.add_admin_routes(
                app, admin, requests, cluster=settings.cluster, body_bytes_max=settings.body_bytes_max
            )
        add_routes(app, MeHandlers(cluster_info=cluster_info))
        if ui is not None:
            add_routes(app, SessionHandlers(cluster_info=cluster_info, gate=gate))
            add_routes(app, OidcLoginHandlers(settings=ui.settings, gate=gate, login=login))
            ui.add_to(app)
    add_routes(app, node)
    openapi.add_pages(app)
    return app


def tracing(tracer: Tracer) -> list[Middleware]:
    """The middleware that makes a span of each request that creates, as a part of its caller's trace; none if traces are
    off."""

    @web.middleware
    async def trace(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method != hdrs.METH_POST or request.path not in TRACED_PATHS:
            return await handler(request)
        carried = {name: value for name in TRACE_HEADERS if (value := request.headers.get(name)) is not None}
        with tracer.request(method=request.method, route=request.path, carried=carried) as answered:
            response = await handler(request)
            answered(response.status)
            return response

    return [trace] if tracer.active else []


def _metered(telemetry: Metrics) -> Middleware:
    """The middleware that turns every error into an answer, and counts and times the request."""

    @web.middleware
    async def answer_always(request: web.Request, handler: Handler) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        try:
            response = await handler(request)
        except Exception as error:  # CancelledError is none of these: it goes on to the server
            response = problem_response(problem_of(error, reads=request.method in (hdrs.METH_GET, hdrs.METH_HEAD)))
        telemetry.request(route=_label(request), status=response.status, seconds=loop.time() - begun_s)
        return response

    return answer_always


def _label(request: web.Request) -> str:
    route = request.match_info.route
    return UNMATCHED if route.resource is None else f"{route.method} {route.resource.canonical}"


async def _set_headers(_: web.BaseRequest, response: web.StreamResponse) -> None:
    response.headers.popall(hdrs.SERVER, None)
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")


class HttpServer:
    """Serves an application from `start` until `stop`. Both may be called twice; `stop` without `start` does nothing.

    `stop` accepts no new connections, closes idle ones, lets requests finish within the drain time, and cancels the
    rest. The application's parts must outlive it. `shares_port`: other processes of this node listen there too.
    """

    def __init__(
        self,
        app: web.Application,
        settings: HttpSettings,
        tls: ssl.SSLContext | None = None,
        *,
        connections: ConnectionSettings | None = None,
        shares_port: bool = False,
    ) -> None:
        self._app = app
        self._settings = settings
        self._connections = ConnectionCount(settings=connections or ConnectionSettings(), telemetry=app[TELEMETRY])
        self._tls = tls
        self._shares_port = shares_port
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port that the server listens on; the settings may say 0, for any."""
        if self._listener is None:
            raise RuntimeError("the HTTP server is not started")
        return int(self._listener.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Raises: CannotStart if the address cannot be had."""
        if self._runner is not None:
            return
        self._runner = web.AppRunner(
            self._app,
            # The server waits up to this for handlers, cancels what they read, and waits up to this again.
            shutdown_timeout=self._settings.drain_timeout_ms / 2_000,
        )
        await self._runner.setup()
        host, port = self._settings.host, self._settings.port
        try:
            # Not a TCPSite: it leaves no choice of the connection's class.
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_server(
                self._new_connection,
                host,
                port,
                backlog=BACKLOG,
                reuse_port=self._shares_port or None,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE_S_MAX if self._tls is not None else None,
            )
        except OSError as error:
            await self.stop()
            raise CannotStart(
                f"CLOCKWORK_HTTP_HOST, CLOCKWORK_HTTP_PORT: cannot listen on {host}:{port}: {error.strerror}"
            ) from error
        fields = {"host": host, "port": self.port, "tls": self._tls is not None}
        log.info("HTTP server listens", extra={"event": "http.listening", **fields})

    def _new_connection(self) -> Connection:
        if self._runner is None or self._runner.server is None:
            raise RuntimeError("a connection to a server that is not started")
        return Connection(self._runner.server, self._connections)

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        listener, self._listener = self._listener, None
        if runner is None:
            return
        if listener is not None:
            listener.close()
        await runner.cleanup()
        log.info("HTTP server stopped", extra={"event": "http.stopped"})

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
