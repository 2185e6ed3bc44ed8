"""The HTTP edge of a node whose store and broker are the twins in memory, for the tests of the edge."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import aiohttp
from yarl import URL

from clockwork.access.gate import Authenticator, Gate
from clockwork.access.oidc_login import OidcLogin
from clockwork.access.sessions import Sessions
from clockwork.domain.schedule import ClientId, EndState, Row, Schedule, ScheduleKey
from clockwork.http.server import HttpServer, make_app
from clockwork.http.sessions import ClusterInfo
from clockwork.http.ui import UiPages
from clockwork.observability.metrics import PrometheusTelemetry
from clockwork.requests.pending_quota import NO_PENDING_LIMIT, PendingLimit
from clockwork.requests.rate_limits import CreateLimits
from clockwork.requests.service import RequestService
from clockwork.settings.model import ConnectionSettings, HttpSettings
from tests.support import builders
from tests.support.clocks import ManualClock
from tests.support.engine import Engine
from tests.support.waiting import until

NOW_MS: Final = 1_800_000_000_000
DUE_MS: Final = NOW_MS + 60_000


class StillClock:
    def now_us(self) -> int:
        return NOW_MS * 1_000

    def now_ms(self) -> int:
        return NOW_MS


@dataclass
class FakeReadiness:
    why_not: list[str] = field(default_factory=list)
    why_restart: str | None = None

    def reasons(self) -> list[str]:
        return self.why_not

    def needs_restart(self) -> str | None:
        return self.why_restart

    def details(self) -> dict[str, object]:
        return {"kafka": {"connected": True}}


def a_request(**changes: Any) -> dict[str, Any]:
    """A valid create; a change to `...` leaves the field out."""
    document: dict[str, Any] = {
        "clientId": "shop",
        "scheduleKey": "order-1",
        "scheduleTime": DUE_MS,
        "taskData": {"order": 1},
        "delivery": {"topic": "orders"},
    }
    return {name: value for name, value in (document | changes).items() if value is not ...}


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes
    json: Any

    @property
    def fields(self) -> list[str]:
        """The wrong fields that a problem document names."""
        return [each["field"] for each in self.json["errors"]]


@dataclass
class Edge:
    engine: Engine
    readiness: FakeReadiness
    telemetry: PrometheusTelemetry
    server: HttpServer
    session: aiohttp.ClientSession
    limits_ns: list[int]
    """The time of the limits; a test sets the only one."""

    async def ask(self, method: str, path: str, **given: Any) -> Answer:
        """`path` goes out as it is, percent-encoding and all. Every answer of 400 and above is checked for its form."""
        url = URL(f"http://127.0.0.1:{self.server.port}{path}", encoded=True)
        async with self.session.request(method, url, **given) as response:
            body = await response.read()
            is_json = response.content_type in {"application/json", "application/problem+json"}
            document = await response.json(content_type=None) if is_json and body else None
            answer = Answer(response.status, response.headers, body, document)
        if answer.status >= 400 and method != "HEAD":
            assert response.content_type == "application/problem+json"
            assert answer.json["status"] == answer.status
            assert {"type", "title", "detail"} <= answer.json.keys()
        return answer

    async def stored(self, key: str = "order-1", client: str = "shop") -> Schedule:
        """The content of what stands under a key."""
        view = await self.engine.find(ClientId(client), ScheduleKey(key))
        assert view is not None
        assert view.schedule is not None
        return view.schedule

    async def row(self, key: str = "order-1", client: str = "shop") -> Row:
        """The row of the schedule that is pending under a key."""
        pointer = self.engine.store.pointers[ClientId(client), ScheduleKey(key)]
        row = await self.engine.store.read_row(pointer.row_name)
        assert isinstance(row, Row)
        return row

    async def ends(self, state: EndState, key: str = "order-1", **how: Any) -> None:
        """The schedule that is pending under a key ends so."""
        row = await self.row(key)
        ended = builders.outcome(row, state, expires_at_s=2**40, **how)
        await self.engine.store.finish(row.shard, [builders.end(row, ended)])

    async def in_flight(self, key: str = "order-1") -> None:
        """The owner of its shard may be firing it."""
        row = await self.row(key)
        states = self.engine.store.shard_states
        states[row.shard] = replace(states[row.shard], floor_ms=row.due_ms)

    def keys(self) -> list[str]:
        """All keys under which a schedule was accepted."""
        return sorted(key for _, key in self.engine.store.pointers)

    async def shows(self, line: str) -> None:
        """Waits until the metrics show this."""

        async def look() -> bool:
            return line in self.telemetry.exposition()[0].decode()

        await until(look, line)

    async def post(self, document: Any, **given: Any) -> Answer:
        return await self.ask("POST", "/schedule", json=document, **given)

    async def post_bytes(self, body: bytes, *, content_type: str = "application/json") -> Answer:
        return await self.ask("POST", "/schedule", data=body, headers={"Content-Type": content_type})


@asynccontextmanager
async def open_edge(
    engine: Engine | None = None,
    *,
    authenticator: Authenticator | None = None,
    connections: ConnectionSettings | None = None,
    creates_per_second: int = 0,
    bytes_per_second: int = 0,
    pending: PendingLimit = NO_PENDING_LIMIT,
    lists: bool = True,
    ui: UiPages | None = None,
    sessions: Sessions | None = None,
    cluster_info: ClusterInfo | None = None,
    login: OidcLogin | None = None,
    **settings: Any,
) -> AsyncIterator[Edge]:
    """With an `engine` of its own clock; else it is `NOW_MS`."""
    engine, readiness, telemetry = engine or Engine(clock=ManualClock(NOW_MS)), FakeReadiness(), PrometheusTelemetry()
    http = HttpSettings(port=0, **settings)
    now_ns = [0]
    gate = Gate(authenticator, telemetry, sessions)
    limits = CreateLimits(
        creates_per_second=creates_per_second,
        bytes_per_second=bytes_per_second,
        telemetry=telemetry,
        monotonic_ns=lambda: now_ns[0],
    )
    context = replace(engine.context, telemetry=telemetry, lists=lists)
    requests = RequestService(context=context, rate_limits=limits, pending=pending)
    app = make_app(
        requests,
        http,
        readiness,
        telemetry,
        gate=gate,
        ui=ui,
        cluster_info=cluster_info,
        login=login,
        query_services=engine.query_services,
        clients=engine.clients,
    )
    async with (
        HttpServer(app, http, connections=connections) as server,
        aiohttp.ClientSession(auto_decompress=False) as session,
    ):
        yield Edge(engine, readiness, telemetry, server, session, now_ns)
