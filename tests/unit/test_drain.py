"""The end of a node: what stops first, what is finished, what cuts it short."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from clockwork.node import lifecycle
from clockwork.node.lifecycle import Node
from clockwork.node.readiness import NodeReadiness, Role
from clockwork.settings.sources import load_settings
from infra.local.node import OURS, node_environment, store_settings
from infra.local.ports import free_port
from tests.support.processes import kill
from tests.support.waiting import until

WAIT_S = 30.0
NOWHERE = "127.0.0.1:1"

Part = Callable[..., Any]


class Idle:
    """A part that runs until it is cancelled, and says when it ends."""

    def __init__(self, name: str, said: list[str], *, drain: int = 0) -> None:
        self._name = name
        self._said = said
        self._drain = drain

    async def run(self, *_: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for _turn in range(self._drain):
                await asyncio.sleep(0)
            self._said.append(self._name)

    def assign(self, _: object) -> None: ...
    async def begin(self) -> None: ...


class IdleMember(Idle):
    """The group's member."""

    async def withdraw(self) -> None:
        self._said.append("withdrawn")


class FakeHttp:
    def __init__(self, said: list[str], readiness: NodeReadiness) -> None:
        self._said = said
        self._readiness = readiness

    async def stop(self) -> None:
        assert self._readiness.stopping, "callers must hear of it"
        await asyncio.sleep(0)
        self._said.append("http")


async def test_a_node_stops_accepting_then_withdraws_then_drains_its_shards_then_leaves_the_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The group must be left last, or another node takes a shard whose batch is still under way; the rest (keys,
    # certificates, the compared clock) must be there as long as a part needs it.
    said: list[str] = []
    ready = asyncio.Event()

    async def prepared(*_: object, **__: object) -> None:
        ready.set()

    monkeypatch.setattr(lifecycle, "prepare_resources", prepared)
    names = (
        "watch",
        "waker",
        "access",
        "certificates",
        "pauses",
        "clients",
        "reports",
        "recorder",
        "forecasts",
        "tail",
    )
    parts: Any = {name: Idle(name, said) for name in names}
    readiness = NodeReadiness(
        role=Role.ALL,
        guard=parts["watch"],
        held_time=parts["watch"],
        watch=parts["watch"],
        publisher=parts["watch"],
        shards_owned=lambda: 0,
    )
    shards: Any = Idle("shards", said, drain=20)
    member: Any = IdleMember("group", said)
    http: Any = FakeHttp(said, readiness)
    node = Node(
        settings=load_settings({}),
        role=Role.ALL,
        stores=parts["watch"],
        http=http,
        readiness=readiness,
        supervisor=shards,
        ownership=member,
        audit=None,
        commands=None,
        **parts,
    )
    stop = asyncio.Event()
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        group.create_task(node.run(stop), name="node")
        await ready.wait()
        await asyncio.sleep(0)
        stop.set()
    assert said[:3] == ["http", "withdrawn", "shards"]
    assert said.index("group") > said.index("shards")
    assert said.index("recorder") > said.index("shards"), "what the drain delivers is recorded"
    assert sorted(said[3:]) == sorted([*parts, "group"])


@asynccontextmanager
async def busy_node(folder: Path, *, drain_timeout_ms: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m clockwork` without any services, with a request in flight whose body never ends."""
    port = free_port()
    more = {"CLOCKWORK_DRAIN_TIMEOUT_MS": str(drain_timeout_ms), "CLOCKWORK_LOG_FORMAT": "json"}
    ours = node_environment(
        kafka_brokers=NOWHERE, store=store_settings("dynamodb", f"http://{NOWHERE}"), http_port=port, more=more
    )
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    with (folder / "node.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "clockwork", stdout=log, stderr=log, env=inherited | ours
        )
    try:
        async with asyncio.timeout(WAIT_S):
            reader, writer = await _connected(port)
            writer.write(
                b"POST /schedule HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n"
                b"Expect: 100-continue\r\n\r\n"
            )
            assert (await reader.readline()).startswith(b"HTTP/1.1 100 ")
        yield process
        writer.close()
    finally:
        await kill(process)


async def _connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)


async def _until_said(folder: Path, event: str) -> None:
    async def look() -> bool:
        return f'"event": "{event}"' in (folder / "node.log").read_text()

    await until(look, event)


@pytest.mark.processes
async def test_a_drain_that_is_not_over_in_time_is_cut_and_the_end_is_orderly_all_the_same(tmp_path: Path) -> None:
    async with asyncio.timeout(WAIT_S), busy_node(tmp_path, drain_timeout_ms=500) as process:
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    await _until_said(tmp_path, "node.stopped")


@pytest.mark.processes
async def test_a_second_signal_ends_a_node_at_once(tmp_path: Path) -> None:
    # A drain of ten minutes; only the second signal can be why it ends.
    async with asyncio.timeout(WAIT_S), busy_node(tmp_path, drain_timeout_ms=600_000) as process:
        process.send_signal(signal.SIGTERM)
        await _until_said(tmp_path, "node.stopping")
        assert process.returncode is None
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 1
    await _until_said(tmp_path, "node.aborted")
