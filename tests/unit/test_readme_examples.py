"""The README's examples run as they stand there."""

import asyncio
import re
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from clockwork.client import AsyncClient
from clockwork.clock import SystemClock
from clockwork.domain.record import delivery_of
from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.engine.answers import Status
from tests.support import builders
from tests.unit.api_edge import open_edge
from tests.unit.service import open_service

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8080"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


CALLS, CONSUMER = blocks("python")
CREATE, MANY, CHANGE = (block for block in blocks("sh") if block.startswith("curl"))


async def statuses(block: str, url: str) -> list[int]:
    """Of each of its calls with curl."""
    script = re.sub(
        r"^curl ", "curl -s -o /dev/null -w '%{http_code} ' ", block.replace(ADDRESS, url), flags=re.MULTILINE
    )
    shell = await asyncio.create_subprocess_exec("sh", "-ec", script, stdout=asyncio.subprocess.PIPE)
    told, _ = await shell.communicate()
    assert shell.returncode == 0
    return [int(each) for each in told.split()]


@pytest.mark.skipif(shutil.which("curl") is None, reason="has no curl to try the examples with")
async def test_the_examples_with_curl_create_show_change_and_cancel_a_schedule() -> None:
    async with open_service() as service:
        engine = service.engine
        # The examples' time is the wall clock's.
        engine.clock.set_ms(SystemClock().now_ms())
        for topic in ("orderTopic", "otherTopic"):
            engine.kafka.create_topic(topic)
        assert await statuses(CREATE, service.url) == [201, 200, 200]
        assert await statuses(MANY, service.url) == [200, 200, 200, 200]
        cancelled = await engine.intake.find(ClientId("shop"), ScheduleKey("order-1"))
        assert cancelled is not None
        assert cancelled.schedule is not None
        assert (cancelled.status, cancelled.schedule.ordering_key) == (Status.CANCELLED, "customer-7")
    async with open_service() as service, AsyncClient(service.url) as client:
        await client.create("shop", "order-1", at=timedelta(hours=1), topic=builders.TOPIC, data=1)
        service.engine.kafka.create_topic("otherTopic")
        # The last one is for what has failed.
        assert await statuses(CHANGE, service.url) == [200, 200, 409]
        await service.deliver()
        assert service.engine.arrived("otherTopic") == ["order-1"]


async def test_the_clients_example_creates_and_cancels_a_schedule(capsys: pytest.CaptureFixture[str]) -> None:
    async with open_edge() as edge:
        code = CALLS.replace(ADDRESS, f"http://127.0.0.1:{edge.server.port}")
        assert code != CALLS
        await asyncio.to_thread(exec, code, {})
    (new,) = edge.engine.news
    assert (new.client_id, new.schedule_key, new.ordering_key) == ("shop", "order-1", "customer-7")
    assert capsys.readouterr().out == f"pending {new.due_ms}\n"


def test_the_consumers_example_handles_each_delivery_once(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(CONSUMER, names)
    handle: Callable[[list[tuple[str, bytes]], bytes], None] = names["handle"]
    record = delivery_of(builders.schedule(), now_ms=1)
    for _ in range(2):
        handle(list(record.headers), record.value)
    assert len(capsys.readouterr().out.splitlines()) == 1
