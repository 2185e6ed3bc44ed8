"""A node's HTTP service on the twins in memory, on a free port; what is due is delivered when the test says so."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from clockwork.adapters.telemetry import NoTelemetry
from clockwork.api.server import HttpServer, make_app
from clockwork.config import HttpSettings
from clockwork.domain.sharding import ShardId
from tests.support.engine import SHARDS, Engine
from tests.unit.api_edge import FakeReadiness


@dataclass
class Service:
    engine: Engine
    url: str

    async def deliver(self) -> None:
        """One pass over each shard."""
        for shard in range(SHARDS):
            await self.engine.one_pass(await self.engine.take_over.run(ShardId(shard)))


def app_of(engine: Engine) -> web.Application:
    return make_app(engine.intake, engine.canceller, HttpSettings(port=0), FakeReadiness(), NoTelemetry(), engine.clock)


@asynccontextmanager
async def open_service(engine: Engine | None = None) -> AsyncIterator[Service]:
    engine = engine or Engine()
    async with HttpServer(app_of(engine), HttpSettings(port=0)) as server:
        yield Service(engine, f"http://127.0.0.1:{server.port}")
