"""PostgreSQL that is killed under nodes that work; `test_store_faults` has the faults that every store can have."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from infra.local import LocalServices
from infra.local.node import Launch
from tests.support.load import Load
from tests.support.nodes import Cluster, opened_cluster
from tests.support.under_load import audit, under_load, until_delivers

pytestmark = [pytest.mark.processes]

Tell = Callable[[str], None]


@pytest.fixture
async def cluster(services: LocalServices, postgres_url: str, tmp_path: Path, launch: Launch) -> AsyncIterator[Cluster]:
    """A cluster of this test's own on PostgreSQL, without nodes."""
    async with opened_cluster(services, tmp_path, store="postgresql", launch=launch) as opened:
        assert services.address_of("postgresql") == postgres_url
        yield opened


async def test_two_nodes_outlive_a_kill_of_the_server_and_keep_every_answer(cluster: Cluster, tell: Tell) -> None:
    topic = await cluster.topic()
    nodes = [await cluster.start(), await cluster.start()]
    load = Load(cluster, [topic], cancel_share=0.4)
    load.clients = [node.client for node in nodes]
    async with under_load(cluster, load, topic) as reader:
        await until_delivers(reader, load, since_ms=0)
        for _ in range(2):
            await cluster.services.kill_postgres()
            await cluster.services.start_postgres()
            for node in nodes:
                await node.until_ready()
            await until_delivers(reader, load, since_ms=max(record.timestamp_ms for record in reader.records))
    await audit(cluster, load, tell, topic)
