"""The README's Python runs as it stands there."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clockwork.domain.record import delivery_of
from tests.support import builders
from tests.unit.api_edge import open_edge

README = Path(__file__).parents[2] / "README.md"
CALLS, CONSUMER = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


async def test_the_clients_example_creates_and_cancels_a_schedule(capsys: pytest.CaptureFixture[str]) -> None:
    async with open_edge() as edge:
        code = CALLS.replace("http://127.0.0.1:8080", f"http://127.0.0.1:{edge.server.port}")
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
