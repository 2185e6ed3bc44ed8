"""Processes that share a port answer for all of them."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import make_mocked_request
from prometheus_client.parser import text_string_to_metric_families

from clockwork.domain.sharding import ShardId
from clockwork.node import siblings
from clockwork.node.siblings import Sibling, SiblingPages, answering_siblings
from clockwork.observability.metrics import PrometheusTelemetry
from tests.unit.api_edge import FakeReadiness

COUNT = 3


class Family:
    """Three processes of a node, each with its readiness and its figures."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.states = [FakeReadiness() for _ in range(COUNT)]
        self.figures = [PrometheusTelemetry() for _ in range(COUNT)]
        self.handlers = SiblingPages(sibling=self.sibling(0))

    def sibling(self, number: int) -> Sibling:
        return Sibling(number=number, count=COUNT, folder=self.folder)

    @asynccontextmanager
    async def alive(self, *numbers: int) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for number in numbers:
                answering = answering_siblings(self.sibling(number), self.states[number], self.figures[number])
                await stack.enter_async_context(answering)
            yield

    async def ask(self, page: str) -> tuple[int, Any]:
        response = await getattr(self.handlers, page)(make_mocked_request("GET", f"/{page}"))
        return response.status, orjson.loads(response.body)


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> Iterator[Family]:
    # Longer than a busy machine stands still.
    monkeypatch.setattr(siblings, "ANSWER_S_MAX", 60.0)
    # Not in tmp_path: the name of a socket has about 100 characters at most.
    with tempfile.TemporaryDirectory() as folder:
        yield Family(Path(folder))


async def test_the_node_is_ready_if_each_process_that_lives_is(family: Family) -> None:
    async with family.alive(0, 1, 2):
        status, body = await family.ask("readyz")
        assert (status, list(body["details"]["processes"])) == (200, ["0", "1", "2"])
        family.states[2].why_not = ["DynamoDB: gone"]
        status, body = await family.ask("readyz")
        assert (status, body["reasons"]) == (503, ["process 2: DynamoDB: gone"])


async def test_a_process_that_died_is_named_and_is_no_reason_to_send_nothing_to_the_others(family: Family) -> None:
    # Its socket's file is left behind, as after kill -9, or was never there.
    family.sibling(2).socket(2).touch()
    async with family.alive(0):
        status, body = await family.ask("readyz")
        assert (status, body["details"]["processes"]["1"], body["details"]["processes"]["2"]) == (200, "down", "down")
        assert (await family.ask("livez"))[0] == 200


async def test_a_process_whose_loop_hangs_makes_the_node_neither_alive_nor_ready(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It takes connections and answers none of them: only a restart of the node helps.
    asked, ask, hanging = asyncio.Event(), siblings._ask, family.sibling(1).socket(1)

    async def ask_with_little_patience(socket: Path, path: str) -> Any:
        # Little for the one that hangs alone: the others do answer, when this machine lets them.
        monkeypatch.setattr(siblings, "ANSWER_S_MAX", 0.05 if socket == hanging else 60.0)
        return await ask(socket, path)

    monkeypatch.setattr(siblings, "_ask", ask_with_little_patience)

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            asked.set()
            await reader.read()

    async with family.alive(0, 2), await asyncio.start_unix_server(hang, hanging):
        for page in ("livez", "readyz"):
            status, body = await family.ask(page)
            assert (status, body["reasons"]) == (503, ["process 1 does not answer"])
    assert asked.is_set()


async def test_a_process_that_needs_a_restart_makes_the_node_not_alive(family: Family) -> None:
    family.states[1].why_restart = "the clock was set back by an hour"
    async with family.alive(0, 1):
        status, body = await family.ask("livez")
    assert (status, body["reasons"]) == (503, ["process 1: the clock was set back by an hour"])


async def test_metrics_are_those_of_all_processes_each_with_its_number(family: Family) -> None:
    family.figures[0].shards_owned(2)
    family.figures[1].shards_owned(3)
    family.figures[1].due(ShardId(7), rows=5, oldest_seconds=1.5)
    async with family.alive(0, 1):
        response = await family.handlers.show_metrics(make_mocked_request("GET", "/metrics"))
    assert isinstance(response.body, bytes)
    text = response.body.decode()
    families = {each.name: each for each in text_string_to_metric_families(text)}
    assert len(families) == text.count("# TYPE "), "no metric stands in two places"
    owned = {s.labels["process"]: s.value for s in families["clockwork_shards_owned"].samples}
    assert owned == {"0": 2.0, "1": 3.0}
    (due,) = families["clockwork_due"].samples
    assert (due.labels, due.value) == ({"process": "1", "shard": "7"}, 5.0)
    up = {s.labels["process"]: s.value for s in families["clockwork_process_up"].samples}
    assert up == {"0": 1.0, "1": 1.0, "2": 0.0}


async def test_a_process_that_was_started_again_answers_on_the_socket_of_the_one_before(family: Family) -> None:
    family.sibling(1).socket(1).touch()
    async with family.alive(0, 1):
        status, body = await family.ask("readyz")
    assert (status, body["details"]["processes"]["1"]) == (200, {"kafka": {"connected": True}})
