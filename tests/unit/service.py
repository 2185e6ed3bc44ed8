"""A node's HTTP service on the twins in memory, on a free port; what is due is delivered when the test says so."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from clockwork.access.gate import Gate
from clockwork.domain.rights import Principal, Right, names_of
from clockwork.domain.sharding import ShardId
from clockwork.errors import Unauthenticated
from clockwork.http.operations import AdminParts
from clockwork.http.server import HttpServer, make_app
from clockwork.http.sessions import ClusterInfo
from clockwork.http.ui import UiPages
from clockwork.ports.telemetry import NoTelemetry
from clockwork.requests.pending_quota import NO_PENDING_LIMIT, PendingLimit
from clockwork.requests.rate_limits import NO_LIMITS, CreateLimits
from clockwork.requests.service import RequestService
from clockwork.settings.model import HttpSettings, UiSettings
from tests.support import builders
from tests.support.engine import SHARDS, Engine
from tests.unit.api_edge import FakeReadiness, a_request

ENDED = {"delivered": "done", "failed": "given-up", "cancelled": "gone"}
"""Keys of what `seed` brings to an end."""


@dataclass
class Service:
    engine: Engine
    url: str

    async def deliver(self) -> None:
        """One pass over each shard."""
        for shard in range(SHARDS):
            lease = await self.engine.own(ShardId(shard))
            await self.engine.one_pass(lease)
            await lease.cleanup.finish()

    async def recorded(self) -> None:
        """Returns once everything that happened so far can be read as activity, and who creates is noted."""
        assert self.engine.recorder is not None, "the engine's telemetry records nothing"
        assert self.engine.notes is not None, "so are clients"
        await self.engine.notes.write()
        async with asyncio.TaskGroup() as group:
            self.engine.recorder.flush(group)
        for _ in range(3):
            await asyncio.sleep(0)

    async def seed(self, *client_ids: str) -> None:
        """For each client one schedule in each state: those of `ENDED`, and `a`, which is pending."""
        late = {"topic": builders.TOPIC, "deadline": 0, "onLate": "dead_letter"}
        due_ms = self.engine.clock.now_ms() + 60_000
        async with aiohttp.ClientSession(self.url) as session:

            async def create(client_id: str, key: str, **more: Any) -> None:
                body = a_request(clientId=client_id, scheduleKey=key, **{"scheduleTime": due_ms, **more})
                async with session.post("/schedule", json=body) as answer:
                    assert answer.status == 201

            for client_id in client_ids:
                await create(client_id, ENDED["delivered"])
                await create(client_id, ENDED["failed"], delivery=late)
                await create(client_id, ENDED["cancelled"])
                async with session.delete(f"/schedule/{client_id}/{ENDED['cancelled']}") as answer:
                    assert answer.status == 200
            self.engine.clock.set_ms(due_ms + 1)
            await self.deliver()
            for client_id in client_ids:
                await create(client_id, "a", scheduleTime=due_ms + 86_400_000)
                for status, key in ENDED.items():
                    async with session.get(f"/schedule/{client_id}/{key}") as answer:
                        assert (await answer.json())["status"] == status


class Keys:
    """An `Authenticator` with these keys."""

    def __init__(self, keys: Mapping[str, Principal]) -> None:
        self._keys = keys

    async def authenticate(self, credential: str) -> Principal:
        if credential not in self._keys:
            raise Unauthenticated("No such key.")
        return self._keys[credential]

    async def run(self) -> None:
        raise AssertionError("not in this test")


def a_principal(*rights: Right, clients: str = "shop", topics: str = builders.TOPIC) -> Principal:
    return Principal(name="test", clients=names_of([clients]), topics=names_of([topics]), rights=frozenset(rights))


def gate_of(keys: Mapping[str, Principal]) -> Gate:
    """Admits these keys, with what each may do."""
    return Gate(Keys(keys), NoTelemetry())


def app_of(
    engine: Engine,
    gate: Gate | None = None,
    limits: CreateLimits = NO_LIMITS,
    pending: PendingLimit = NO_PENDING_LIMIT,
    ui: UiPages | None = None,
    cluster_info: ClusterInfo | None = None,
) -> web.Application:
    return make_app(
        RequestService(context=engine.context, rate_limits=limits, pending=pending),
        HttpSettings(port=0),
        FakeReadiness(),
        NoTelemetry(),
        gate=gate,
        query_services=engine.query_services,
        admin=AdminParts(
            pausing=engine.pauser,
            letters=engine.letters,
            discards=engine.discarder,
            shards=engine.shard_admin,
            processes=engine.processes,
            scan=engine.scan,
        ),
        tail=engine.tail,
        clients=engine.clients,
        ui=ui or UiPages(UiSettings(), auth="none", https=False),
        cluster_info=cluster_info,
    )


@asynccontextmanager
async def open_service(
    engine: Engine | None = None,
    *,
    gate: Gate | None = None,
    limits: CreateLimits = NO_LIMITS,
    pending: PendingLimit = NO_PENDING_LIMIT,
    ui: UiPages | None = None,
    cluster_info: ClusterInfo | None = None,
) -> AsyncIterator[Service]:
    """Activity is followed while the block lasts; recorded, if the engine's telemetry does."""
    engine = engine or Engine()
    app = app_of(engine, gate, limits, pending, ui, cluster_info)
    async with HttpServer(app, HttpSettings(port=0)) as server, _activity(engine):
        yield Service(engine, f"http://127.0.0.1:{server.port}")


@asynccontextmanager
async def _activity(engine: Engine) -> AsyncIterator[None]:
    """Records and follows activity until the block ends."""
    # No task group around the block: the block's errors would leave it as a group.
    background = AsyncExitStack()
    group = await background.enter_async_context(asyncio.TaskGroup())
    tasks = [group.create_task(engine.tail.run(), name="tail")]
    if engine.recorder is not None:
        tasks.append(group.create_task(engine.recorder.run(), name="recorder"))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await background.aclose()
