"""`make run` with each store: the services and the node that it starts, with doubles in their place."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import pytest

from clockwork.settings.sources import load_settings
from infra.local import LocalServices, demo, jars, node, run, services
from infra.local.errors import LocalServicesError
from infra.local.jars import Bundle
from infra.tests import stand_ins


class Double:
    """In the place of the services and of the node: keeps what it was given, and opens at once."""

    given: dict[str, Any]
    kafka_brokers = "127.0.0.1:1"
    url = "http://127.0.0.1:3"

    def __init__(self, *arguments: object, **options: Any) -> None:
        type(self).given = {"arguments": arguments, **options}
        self.ended = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def until_ready(self) -> None:
        return

    async def until_one_dies(self) -> None:
        await self.ended.wait()


ADDRESSES: dict[node.Store, str | None] = {
    "dynamodb": "http://127.0.0.1:2",
    "postgresql": "postgresql://clockwork@127.0.0.1:2/postgres",
    "memory": None,
}
NAMED = {
    "dynamodb": {"DYNAMODB_ENDPOINT", "AWS_REGION", "AWS_ACCESS_KEY", "AWS_SECRET_KEY"},
    "postgresql": {"CLOCKWORK_STORE", "CLOCKWORK_POSTGRES_URL"},
    "memory": {"CLOCKWORK_STORE"},
}


class ServicesDouble(Double):
    """In the place of `LocalServices`."""

    def address_of(self, store: node.Store) -> str | None:
        return ADDRESSES[store]


class NodeDouble(Double):
    """In the place of the node: ends when everything has been printed, and notes what `make demo` would find by then."""

    found: run.Running

    async def until_end(self) -> int:
        type(self).found = run.find_running()
        return 7


@pytest.fixture
def doubles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def no_topics(*_: object, **__: object) -> None:
        return

    monkeypatch.setenv(jars.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(run, "LocalServices", ServicesDouble)
    monkeypatch.setattr(run, "NodeProcess", NodeDouble)
    monkeypatch.setattr(run, "create_topics", no_topics)


def node_settings() -> Mapping[str, str]:
    (settings,) = NodeDouble.given["arguments"]
    assert isinstance(settings, Mapping)
    return settings


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("store", ["dynamodb", "postgresql", "memory"])
async def test_a_node_is_started_on_the_store_that_was_asked_for(
    store: node.Store, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExceptionGroup) as ended:
        await run.run(store, 0.0)

    assert ended.group_contains(LocalServicesError, match="the node ended with code 7")
    named = {
        name for name in node_settings() if name.startswith(("DYNAMODB_", "AWS_", "CLOCKWORK_STORE", "CLOCKWORK_POST"))
    }
    printed = capsys.readouterr().out
    assert ServicesDouble.given["dynamodb"] is (store == "dynamodb")
    assert ServicesDouble.given["postgres"] is (store == "postgresql")
    assert named == NAMED[store]
    assert load_settings(node_settings()).store.kind == store
    assert load_settings(node_settings()).kafka.create_resources
    assert (NodeDouble.found.store, NodeDouble.found.store_address) == (store, ADDRESSES[store])
    # What came before this command counts: the wait began at 0, the beginning of 1970.
    assert float(printed.partition("ready after ")[2].partition(" s")[0]) > 1e9
    assert f"store     {ADDRESSES[store] or 'memory: schedules end with the node'}\n" in printed
    with pytest.raises(LocalServicesError, match="no node is running here"):
        run.find_running()


def test_a_store_that_is_not_there_is_refused_with_a_line_that_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["run", "--store", "x"])

    with pytest.raises(SystemExit) as ended:
        run.main()

    line = "'x' should be dynamodb, postgresql or memory"
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"python -m infra.local.run: error: argument --store: {line}"


def test_fetching_tells_how_much_of_what_there_is_has_come(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(jars.CACHE_VARIABLE, str(tmp_path))
    for name, size_bytes in (
        ("a-1/a.jar", 3_000_000),
        ("staging/maven/b/b.jar", 1_500_000),
        ("other/c.jar", 9_000_000),
    ):
        file = tmp_path / name
        file.parent.mkdir(parents=True)
        file.write_bytes(bytes(size_bytes))
    known = [Bundle(name=f"{name}-1", coordinates=(), archived=False, megabytes=4) for name in ("a", "b")]
    assert jars.progress_line(known) == "fetched 4 MB of about 8 MB"
    assert jars.progress_line([*known, Bundle(name="d-1", coordinates=(), archived=False)]) == "fetched 4 MB"


async def test_without_dynamodb_kafka_runs_alone_and_only_its_jars_are_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fetched: list[Bundle] = []

    async def fetch(bundles: list[Bundle], log_path: Path, scratch: Path | None) -> None:
        fetched.extend(bundles)

    monkeypatch.setattr(services, "Kafka", stand_ins.Kafka)
    monkeypatch.setattr(services, "ensure_jars", fetch)
    async with LocalServices(dynamodb=False, data_dir=tmp_path) as alone:
        assert fetched == [stand_ins.Kafka.jars]
        assert alone.kafka_brokers.startswith("127.0.0.1:")
        assert not (tmp_path / "dynamodb").exists()
        with pytest.raises(RuntimeError, match="without DynamoDB"):
            _ = alone.dynamodb_endpoint


async def test_the_demo_starts_no_second_node_beside_one_whose_store_is_its_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A second node would have an empty store of its own, and its shards would deliver nothing.
    monkeypatch.delattr(demo, "NodeProcess")
    running = run.Running(
        kafka_brokers="127.0.0.1:1", store="memory", store_address=None, http_url="http://127.0.0.1:3"
    )
    one = demo.Demo(running, session=None)  # type: ignore[arg-type]

    await one.disturb(tmp_path / "log")

    assert one.verdict.killed_at_ms is None
