"""The README's examples run as they stand there."""

import asyncio
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clockwork.domain.record import delivery_of
from tests.support import builders
from tests.unit.api_edge import open_edge

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8080"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


CALLS, CONSUMER = blocks("python")
CURL = next(block for block in blocks("sh") if block.startswith("curl"))


@pytest.mark.skipif(shutil.which("curl") is None, reason="has no curl to try the examples with")
async def test_the_examples_with_curl_create_show_and_cancel_a_schedule() -> None:
    async with open_edge() as edge:
        script = "set -e\n" + CURL.replace(ADDRESS, f"http://127.0.0.1:{edge.server.port}").replace(
            "curl ", "curl -sf "
        )
        shell = await asyncio.create_subprocess_exec("sh", "-c", script, stdout=asyncio.subprocess.PIPE)
        told, _ = await shell.communicate()
    assert shell.returncode == 0
    assert told.startswith(b"HTTP/1.1 201 ")
    assert told.count(b'"scheduleKey":"order-1"') == 3
    (new,) = edge.engine.news
    assert (new.client_id, new.schedule_key, new.ordering_key) == ("shop", "order-1", "customer-7")


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
