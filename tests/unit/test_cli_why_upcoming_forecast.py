"""`clockwork schedule why`, `upcoming` and `clockwork forecast`, against a service."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from clockwork.__main__ import clockwork
from clockwork.cli.forecast import forecast_table
from clockwork.client import AsyncClient, Client, Forecast, NotFound
from clockwork.clock import SystemClock
from tests.support.clocks import ManualClock
from tests.support.engine import Engine
from tests.unit.api_edge import NOW_MS, Edge, a_request, open_edge
from tests.unit.client_stub import FAST


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    # The command reckons the end of its window by the machine's clock.
    now_ms = SystemClock().now_ms()
    async with open_edge(Engine(clock=ManualClock(now_ms))) as opened:
        for number, key in enumerate(("first", "[b]second[/b]")):
            await opened.post(a_request(scheduleKey=key, scheduleTime=now_ms + 60_000 * (number + 1)))
        yield opened


async def run(edge: Edge, *words: str, code: int = 0) -> Result:
    url = f"http://127.0.0.1:{edge.server.port}"
    result = await asyncio.to_thread(CliRunner().invoke, clockwork, ["--url", url, *words])
    assert result.exit_code == code, result.output
    return result


async def test_the_reason_is_told_in_words_and_as_the_api_tells_it(edge: Edge) -> None:
    told = (await run(edge, "schedule", "why", "shop", "first")).output
    as_json = json.loads((await run(edge, "schedule", "why", "shop", "first", "--json")).output)

    assert "not_due in 1 min\n" in told
    assert "It is not due yet." in told
    assert as_json == (await edge.ask("GET", "/schedule/shop/first/why")).json
    assert "No schedule was accepted" in (await run(edge, "schedule", "why", "shop", "unknown", code=4)).output


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (
            {"reason": "paused", "paused": {"kind": "topic", "name": "t", "since": 0, "by": "ana", "reason": "a move"}},
            "paused topic t, since 1970-01-01T00:00:00.000Z by ana: a move",
        ),
        ({"reason": "shard_behind", "lagMs": 12_340}, "shard_behind by 12.3 s"),
        (
            {"reason": "destination_waits", "destination": {"topic": "t", "reason": "topic_missing", "since": 0}},
            "destination_waits t: topic_missing, since 1970-01-01T00:00:00.000Z",
        ),
        ({"reason": "retry", "retry": {"attempts": 3, "nextAt": NOW_MS}}, "retry after 3 attempts, at 2027-"),
        ({"reason": "behind", "behind": {"scheduleTime": NOW_MS}}, "behind another client's, due 2027-"),
        (
            {
                "reason": "ended",
                "status": "failed",
                "endedAt": NOW_MS,
                "failed": {"reason": "expired", "at": NOW_MS, "attempts": 0},
            },
            "ended failed expired, 0 attempts",
        ),
        ({"reason": "unknown", "lookedAt": 100, "lookedAtAll": False}, "100 rows before it were looked at"),
    ],
)
async def test_each_reason_has_its_facts(
    edge: Edge, monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any], words: str
) -> None:
    document = (await edge.ask("GET", "/schedule/shop/first/why")).json
    del document["dueInMs"]

    async def answered(*_: Any, **__: Any) -> Any:
        return document | facts

    monkeypatch.setattr("clockwork.client.transport.Transport.request", answered)

    assert words in (await run(edge, "schedule", "why", "shop", "first")).output


async def test_what_is_due_next_is_a_table_or_lines_of_json(edge: Edge) -> None:
    table = (await run(edge, "schedule", "upcoming")).output
    lines = (await run(edge, "schedule", "upcoming", "--limit", "1", "--json")).output.splitlines()

    assert table.index("first") < table.index("[b]second[/b]")
    assert [json.loads(line)["scheduleKey"] for line in lines] == ["first"]
    assert "first" not in (await run(edge, "schedule", "upcoming", "--topic", "other")).output


async def test_a_forecast_has_bars_and_a_sum(edge: Edge) -> None:
    told = (await run(edge, "forecast")).output
    start = str(edge.engine.clock.now_ms())
    words = ("forecast", "--from", start, "--for", "2m", "--bucket", "30s", "--json")
    as_json = json.loads((await run(edge, *words)).output)

    shown = forecast_table(Forecast.model_validate((await edge.ask("GET", "/forecast")).json), 80).fitted(80).plain

    assert told.count("#" * 40) == 2
    assert [len(line) for line in shown.splitlines()[1:]] == [80, 80]
    assert "0 overdue, 2 due from" in told
    assert "; exact" in told
    assert [each["count"] for each in as_json["buckets"]] == [0, 0, 1, 0]


async def test_the_client_has_the_same_calls(edge: Edge) -> None:
    async with AsyncClient(f"http://127.0.0.1:{edge.server.port}", retries=FAST) as client:
        assert (await client.why("shop", "first")).reason == "not_due"
        assert [each.schedule_key async for each in client.upcoming()] == ["first", "[b]second[/b]"]
        assert (await client.forecast(client_id="shop")).exact
        keys = [("shop", key) for key in ("first", "unknown")] * 60
        shown = [result async for result in client.get_many(keys)]
        assert [result.status for result in shown] == [200, 404] * 60
        assert isinstance(shown[1].error, NotFound)
        assert [result.status async for result in client.fire_many(keys[:2])] == [200, 404]
        assert [result.status async for result in client.retry_many(keys[:2])] == [409, 404]

    def from_a_thread() -> list[int]:
        with Client(f"http://127.0.0.1:{edge.server.port}", retries=FAST) as client:
            assert client.why("shop", "first").reason
            assert client.forecast().buckets
            assert len(list(client.upcoming())) == 2
            many = (client.get_many, client.fire_many, client.retry_many)
            return [next(call([("shop", "unknown")])).status for call in many]

    assert await asyncio.to_thread(from_a_thread) == [404, 404, 404]
