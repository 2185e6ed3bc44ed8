"""An HTTP edge over an engine of a few lines, for the tests of the edge."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import aiohttp
from yarl import URL

from clockwork.access.gate import Authenticator, Gate
from clockwork.domain.position import new_position
from clockwork.domain.schedule import ClientId, Schedule, ScheduleKey
from clockwork.domain.sharding import shard_of
from clockwork.http.server import HttpServer, make_app
from clockwork.observability.metrics import PrometheusTelemetry
from clockwork.requests.dedup import CommandDedup
from clockwork.requests.history import Remembers
from clockwork.requests.listing import Lists
from clockwork.requests.pending_quota import NO_PENDING_LIMIT, PendingLimit
from clockwork.requests.rate_limits import CreateLimits
from clockwork.requests.results import (
    Cancelled,
    Change,
    Changed,
    Created,
    IfVersion,
    KeyTaken,
    NewSchedule,
    NotFound,
    Refused,
    Repeated,
    ScheduleView,
    Status,
    Unchanged,
    VersionDiffers,
)
from clockwork.settings.model import ConnectionSettings, HttpSettings
from tests.support.waiting import until

NOW_MS: Final = 1_800_000_000_000
DUE_MS: Final = NOW_MS + 60_000


ChangeAnswer = Changed | Unchanged | VersionDiffers | NotFound | Refused


class StillClock:
    def now_us(self) -> int:
        return NOW_MS * 1_000

    def now_ms(self) -> int:
        return NOW_MS


@dataclass
class FakeReadiness:
    why_not: list[str] = field(default_factory=list)

    def reasons(self) -> list[str]:
        return self.why_not

    def details(self) -> dict[str, object]:
        return {"kafka": {"connected": True}}


@dataclass
class FakeEngine:
    """Accepts in memory; `error` and `cancel_answer` are what a test wants to happen next."""

    views: dict[tuple[str, str], ScheduleView] = field(default_factory=dict)
    digests: dict[tuple[str, str], str] = field(default_factory=dict)
    news: list[NewSchedule] = field(default_factory=list)
    error: BaseException | None = None
    cancel_answer: Cancelled | NotFound | Refused | None = None
    change_answer: ChangeAnswer | None = None
    if_versions: list[IfVersion | None] = field(default_factory=list)
    due_asked: list[int | None] = field(default_factory=list)
    """By retries."""

    async def create(self, new: NewSchedule, *, turn: CommandDedup | None = None) -> Created | Repeated | KeyTaken:
        if self.error is not None:
            raise self.error
        self.news.append(new)
        key = (new.client_id, new.schedule_key)
        if key in self.views:
            return Repeated(self.views[key]) if self.digests[key] == new.digest else KeyTaken(self.views[key])
        self.digests[key] = new.digest
        self.views[key] = view_of(new)
        return Created(self.views[key])

    async def known(self, new: NewSchedule, *, turn: CommandDedup | None = None) -> Repeated | KeyTaken | None:
        key = (new.client_id, new.schedule_key)
        if (view := self.views.get(key)) is None:
            return None
        if self.digests[key] == new.digest:
            return Repeated(view)
        return KeyTaken(view) if view.status is Status.PENDING else None

    async def find(self, client_id: ClientId, schedule_key: ScheduleKey) -> ScheduleView | None:
        if self.error is not None:
            raise self.error
        return self.views.get((client_id, schedule_key))

    async def cancel(
        self, client_id: ClientId, schedule_key: ScheduleKey, *, turn: CommandDedup | None = None
    ) -> Cancelled | NotFound | Refused:
        if self.error is not None:
            raise self.error
        if self.cancel_answer is not None:
            return self.cancel_answer
        view = self.views.get((client_id, schedule_key))
        return NotFound() if view is None else Cancelled(view)

    async def change(
        self,
        client_id: ClientId,
        schedule_key: ScheduleKey,
        change: Change,
        *,
        if_version: IfVersion | None = None,
        turn: CommandDedup | None = None,
    ) -> ChangeAnswer:
        if self.error is not None:
            raise self.error
        self.if_versions.append(if_version)
        view = self.views.get((client_id, schedule_key))
        if self.change_answer is not None or view is None or view.schedule is None:
            return self.change_answer or NotFound()
        if if_version is not None and view.version not in if_version:
            return VersionDiffers(view)
        wanted = change(view.schedule)
        if wanted == view.schedule:
            return Unchanged(view)
        position = new_position(due_ms=wanted.due_ms, accepted_us=NOW_MS * 1_000, random=8)
        changed = replace(view, schedule=wanted, version=view.version + 1, position=position)
        self.views[client_id, schedule_key] = changed
        return Changed(changed)

    async def fire(
        self, client_id: ClientId, schedule_key: ScheduleKey, *, if_version: IfVersion | None = None
    ) -> ChangeAnswer:
        return await self.change(client_id, schedule_key, lambda s: replace(s, due_ms=NOW_MS), if_version=if_version)

    async def rearm(
        self,
        client_id: ClientId,
        schedule_key: ScheduleKey,
        *,
        due_ms: int | None = None,
        if_version: IfVersion | None = None,
    ) -> ChangeAnswer:
        self.due_asked.append(due_ms)
        return await self.fire(client_id, schedule_key, if_version=if_version)


def view_of(new: NewSchedule) -> ScheduleView:
    return ScheduleView(
        client_id=new.client_id,
        schedule_key=new.schedule_key,
        position=new_position(due_ms=new.due_ms, accepted_us=NOW_MS * 1_000, random=7),
        shard=shard_of(new.ordering_key, 64),
        schedule=Schedule(
            client_id=new.client_id,
            schedule_key=new.schedule_key,
            ordering_key=new.ordering_key,
            due_ms=new.due_ms,
            topic=new.topic,
            guarantee=new.guarantee,
            task_data=new.task_data,
            data_form=new.data_form,
            headers=new.headers,
            traceparent=new.traceparent,
            deadline_ms=new.deadline_ms,
            on_late=new.on_late,
            retry=new.retry,
            created_at_ms=NOW_MS,
            version=1,
            delivery_id="d" * 32,
        ),
        status=Status.PENDING,
        version=1,
        outcome=None,
    )


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
    engine: FakeEngine
    readiness: FakeReadiness
    telemetry: PrometheusTelemetry
    server: HttpServer
    session: aiohttp.ClientSession
    limits_ns: list[int]
    """What the limits take for the time; a test sets the only one."""

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
    engine: FakeEngine | None = None,
    *,
    authenticator: Authenticator | None = None,
    connections: ConnectionSettings | None = None,
    creates_per_second: int = 0,
    bytes_per_second: int = 0,
    pending: PendingLimit = NO_PENDING_LIMIT,
    request_timeout_ms: int = 60_000,
    lists: Lists | None = None,
    history: Remembers | None = None,
    **settings: Any,
) -> AsyncIterator[Edge]:
    engine, readiness, telemetry = engine or FakeEngine(), FakeReadiness(), PrometheusTelemetry()
    http = HttpSettings(port=0, **settings)
    now_ns = [0]
    gate = Gate(authenticator, telemetry)
    limits = CreateLimits(
        creates_per_second=creates_per_second,
        bytes_per_second=bytes_per_second,
        telemetry=telemetry,
        monotonic_ns=lambda: now_ns[0],
    )
    app = make_app(
        engine,
        engine,
        http,
        readiness,
        telemetry,
        StillClock(),
        rescheduler=engine,
        rearmer=engine,
        gate=gate,
        limits=limits,
        pending=pending,
        request_timeout_ms=request_timeout_ms,
        lists=lists,
        history=history,
    )
    async with (
        HttpServer(app, http, connections=connections) as server,
        aiohttp.ClientSession(auto_decompress=False) as session,
    ):
        yield Edge(engine, readiness, telemetry, server, session, now_ns)
