"""`clockwork events`, `minutes` and `clients`, and the calls of the client that they make, against a service."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from click.testing import CliRunner, Result

from clockwork.__main__ import clockwork
from clockwork.client import AsyncClient, Event, NotSupported
from clockwork.clock import SystemClock
from clockwork.http.server import HttpServer, make_app
from clockwork.observability.activity import RecordingTelemetry
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import HttpSettings
from tests.support import builders
from tests.support.clocks import ManualClock
from tests.support.engine import Engine
from tests.unit.api_edge import FakeReadiness
from tests.unit.service import Service, open_service


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    # The command reckons times by the machine's clock.
    engine = Engine(clock=ManualClock(SystemClock().now_ms() - 120_000), telemetry=RecordingTelemetry())
    async with open_service(engine) as opened:
        await opened.seed("shop", "bank")
        await opened.recorded()
        engine.clock.set_ms(SystemClock().now_ms())
        await opened.recorded()
        yield opened


async def run(service: Service, *words: str, code: int = 0) -> Result:
    wide = CliRunner(env={"COLUMNS": "300"})
    result = await asyncio.to_thread(wide.invoke, clockwork, ["--url", service.url, *words])
    assert result.exit_code == code, result.output
    return result


async def test_events_are_a_table_or_lines_of_json_as_the_api_tells_them(service: Service) -> None:
    table = (await run(service, "events", "--client", "shop")).output
    lines = (await run(service, "events", "--client", "shop", "--last", "1h", "--json")).output.splitlines()
    failed = (await run(service, "events", "--kind", "failed", "--kind", "refused", "--json")).output.splitlines()

    found = [json.loads(line) for line in lines]
    assert {each["clientId"] for each in found} == {"shop"}
    assert [each["kind"] for each in found].count("created") == 4
    for text in ("delivered", "shop done", "expired", builders.TOPIC, "1 ms"):
        assert text in table
    assert {json.loads(line)["kind"] for line in failed} == {"failed"}
    assert "exclude each other" in (await run(service, "events", "--last", "1h", "--from", "1", code=2)).output


async def test_a_batch_and_a_reason_are_told_in_words(service: Service) -> None:
    reason = "broker [red]move[/red]"
    await run(service, "admin", "pause", "topic", builders.TOPIC, "--reason", reason)
    async with AsyncClient(service.url) as client:
        assert [result.error is None async for result in client.fire_many([("shop", "a"), ("shop", "done")])] == [
            True,
            False,
        ]
    await service.recorded()

    table = " ".join((await run(service, "events", "--kind", "paused", "--kind", "batch_fired")).output.split())

    assert reason in table
    assert "1 done, 1 delivered" in table


async def test_who_follows_gets_what_happens_later_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = asyncio.Event()
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        looked.set()
        await real(0)

    monkeypatch.setattr("clockwork.client.aio.asyncio.sleep", sleep)
    seen: list[Event] = []
    async with AsyncClient(service.url) as client:

        async def follow() -> None:
            async for event in client.events(follow=True, client_id="shop", page_size=1_000):
                seen.append(event)
                if event.kind == "cancelled" and event.schedule_key == "a":
                    return

        task = asyncio.get_running_loop().create_task(follow())
        await looked.wait()
        before = len(seen)
        await client.cancel("shop", "a")
        await service.recorded()
        await task

    assert [(each.kind, each.schedule_key) for each in seen[before:]] == [("cancelled", "a")]


async def test_minutes_are_told_by_step_and_by_topic(service: Service) -> None:
    table = (await run(service, "minutes", "--for", "2h", "--step", "2h")).output
    document = json.loads((await run(service, "minutes", "--for", "2h", "--json")).output)

    assert sum(each["delivered"] for each in document["minutes"]) == 2
    assert builders.TOPIC in table
    assert "1 ms" in table
    await run(service, "minutes", "--step", "1s", code=3)


async def test_clients_are_listed_with_their_days(service: Service) -> None:
    table = (await run(service, "clients")).output
    document = json.loads((await run(service, "clients", "--json")).output)

    assert [each["clientId"] for each in document["clients"]] == ["bank", "shop"]
    assert document["clients"][0]["firstDay"] in table


async def test_a_cluster_that_records_nothing_says_so() -> None:
    app = make_app(Engine().requests, HttpSettings(port=0), FakeReadiness(), NoTelemetry())
    async with (
        HttpServer(app, HttpSettings(port=0)) as server,
        AsyncClient(f"http://127.0.0.1:{server.port}") as client,
    ):
        with pytest.raises(NotSupported):
            await client.minutes()
