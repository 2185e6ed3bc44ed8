"""`clockwork admin` against a node's HTTP service on the twins in memory."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from click.testing import CliRunner, Result

from clockwork.__main__ import clockwork
from tests.support import builders
from tests.unit.service import Service, open_service


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with open_service() as opened:
        yield opened


async def admin(service: Service, *arguments: str, code: int = 0) -> Result:
    """In a thread, since it waits for answers that this thread's loop gives."""
    environment = {"CLOCKWORK_URL": service.url, "COLUMNS": "200"}
    given = ["--timeout-ms", "1", "admin", *arguments]
    result = await asyncio.to_thread(lambda: CliRunner().invoke(clockwork, given, env=environment))
    assert result.exit_code == code, result.output
    return result


async def test_what_is_paused_is_shown_until_it_is_resumed(service: Service) -> None:
    since_ms = service.engine.clock.now_ms()
    await admin(service, "pause", "client", "shop")
    shown = await admin(service, "pause", "topic", builders.TOPIC)
    assert "shop" in shown.output
    assert builders.TOPIC in shown.output
    told = json.loads((await admin(service, "pauses", "--json")).output)
    assert told == {
        "clients": [{"name": "shop", "since": since_ms}],
        "topics": [{"name": builders.TOPIC, "since": since_ms}],
    }
    await admin(service, "resume", "client", "shop")
    assert json.loads((await admin(service, "pauses", "--json")).output)["clients"] == []


async def test_a_name_that_could_be_no_clients_is_refused(service: Service) -> None:
    refused = await admin(service, "pause", "client", "a b", code=3)
    assert "clientId: should be 1 to 128 of" in refused.output
    await admin(service, "pause", "shard", "3", code=2)
