"""PostgreSQL that is silent, killed, away, or does what it is asked without an answer, under nodes that work."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from infra.local import LocalServices
from tests.support.load import Load
from tests.support.nodes import Cluster, opened_cluster
from tests.support.proxy import proxy_to
from tests.support.under_load import audit, under_load, until_delivers
from tests.support.waiting import until

pytestmark = [pytest.mark.processes]

Tell = Callable[[str], None]
SHORT_DEADLINE: Final = {"CLOCKWORK_REQUEST_TIMEOUT_MS": "1000"}


@pytest.fixture
async def cluster(services: LocalServices, postgres_url: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    """A cluster of this test's own on PostgreSQL, without nodes."""
    async with opened_cluster(services, tmp_path, store="postgresql") as opened:
        assert services.address_of("postgresql") == postgres_url
        yield opened


def by_way_of(address: str, url: str) -> dict[str, str]:
    """The settings of a node that reaches the database at another address."""
    parts = urlsplit(url)
    return {"CLOCKWORK_POSTGRES_URL": f"postgresql://{parts.username}@{address}{parts.path}"}


async def test_a_frozen_server_is_answered_503_and_all_goes_on_by_itself(cluster: Cluster, tell: Tell) -> None:
    topic = await cluster.topic()
    node = await cluster.start(more=SHORT_DEADLINE)
    load = Load(cluster, [topic])
    load.clients = [node.client]
    async with under_load(cluster, load, topic) as reader:
        await until_delivers(reader, load, since_ms=0)
        body = cluster.body(topic, "frozen", in_ms=200)
        cluster.services.pause_postgres()
        try:

            async def refused() -> bool:
                answered = await node.client.impatient.create(body)
                return (answered.status, "Retry-After" in answered.headers) == (503, True)

            await until(refused, "an answer of 503, once all of its processes stand still")
            assert (await node.client.livez()).status == 200
        finally:
            cluster.services.resume_postgres()
        await load.create(body)
        await node.until_ready()
    await audit(cluster, load, tell, topic)


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


async def test_lost_answers_make_nothing_twice_and_no_answer_false(cluster: Cluster, tell: Tell) -> None:
    topic = await cluster.topic()
    url = cluster.services.postgres_url
    async with proxy_to(url) as proxy:
        await proxy.open()
        node = await cluster.start(more=by_way_of(proxy.address, url))
        load = Load(cluster, [topic], cancel_share=0.4)
        load.clients = [node.client]
        async with under_load(cluster, load, topic) as reader:
            await until_delivers(reader, load, since_ms=0)
            proxy.lose_answers = 0.1

            async def enough() -> bool:
                await reader.read()
                return proxy.lost >= 100

            await until(enough, "100 answers lost")
            proxy.lose_answers = 0.0
        tell(f"answers of PostgreSQL lost: {proxy.lost}")
        await audit(cluster, load, tell, topic)


async def test_a_node_waits_for_a_server_that_is_away_at_its_start_and_goes_on_by_itself(cluster: Cluster) -> None:
    topic = await cluster.topic()
    url = cluster.services.postgres_url
    async with proxy_to(url) as proxy:
        node = await cluster.start(more=by_way_of(proxy.address, url), ready=False)
        await node.until_answers()

        async def named() -> bool:
            ready = await node.client.readyz()
            return ready.status == 503 and any("PostgreSQL" in reason for reason in ready.body["reasons"])

        await until(named, "PostgreSQL named")
        assert (await node.client.livez()).status == 200
        await proxy.open()
        await node.until_ready()
        assert (await node.client.create(cluster.body(topic, "at-last"))).status == 201
        await cluster.until_status(node.client, "at-last")
        assert node.process.code is None
