"""A store that is slow, silent, away, or does what it is asked without an answer."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.faults import Throttle
from tests.support.load import Load
from tests.support.node_fixtures import on_each_store
from tests.support.nodes import Cluster, node_here
from tests.support.promises import lateness_text
from tests.support.proxy import proxy_to
from tests.support.reader import read_all
from tests.support.under_load import audit, under_load, until_delivers
from tests.support.waiting import until

pytestmark = [pytest.mark.processes, on_each_store]

Tell = Callable[[str], None]
SHORT_DEADLINE = {"CLOCKWORK_REQUEST_TIMEOUT_MS": "1000"}
PRODUCTS = {"dynamodb": "DynamoDB", "postgresql": "PostgreSQL"}


async def test_a_throttled_store_is_answered_503_and_all_goes_on_by_itself(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tell: Tell
) -> None:
    # First some of the requests are refused: repeats hide that. Then all of them: the API says so, the runners wait.
    topic = await cluster.topic()
    throttle = Throttle(monkeypatch, cluster.store)
    async with node_here(cluster, more=SHORT_DEADLINE) as (_, client):
        load = Load(cluster, [topic])
        load.clients = [client]
        async with under_load(cluster, load, topic) as reader:
            throttle.share = 0.3
            await until_delivers(reader, load, since_ms=0)
            throttle.share = 1.0
            body = cluster.body(topic, "throttled", in_ms=200)
            answers = [
                await client.impatient.create(body),
                await client.impatient.get(cluster.name, "load-1"),
                await client.impatient.cancel(cluster.name, "load-1"),
            ]
            throttle.share = 0.0
            assert [(a.status, "Retry-After" in a.headers) for a in answers] == [(503, True)] * 3
            await load.create(body)
        await load.ask_all()
    tell(f"throttled: {sum(throttle.refused.values())} requests of {len(throttle.refused)} kinds")
    records = await read_all(cluster.services.kafka_brokers, topic)
    tell(lateness_text(load.ledger, records))
    assert not load.ledger.broken(records)


async def test_a_frozen_store_is_answered_503_and_all_goes_on_by_itself(cluster: Cluster, tell: Tell) -> None:
    # Frozen, not away: connections stay open and nothing answers, and what was sent to it is carried out when it goes
    # on. So a create that was answered 503 may have happened: the same request again settles it.
    topic = await cluster.topic()
    node = await cluster.start(more=SHORT_DEADLINE)
    load = Load(cluster, [topic])
    load.clients = [node.client]
    async with under_load(cluster, load, topic) as reader:
        await until_delivers(reader, load, since_ms=0)
        bodies: list[dict[str, Any]] = []
        cluster.services.pause_store(cluster.store)
        try:
            # One call of the store waits longer than this for its answer (7.5 s); no caller has to.
            node.client.request_s_max = 6.0

            async def unanswered() -> bool:
                # The signal takes a moment to reach all of its processes.
                bodies.append(cluster.body(topic, f"frozen-{len(bodies)}", in_ms=200))
                answered = await node.client.impatient.create(bodies[-1])
                assert (answered.status, "Retry-After" in answered.headers) in {(201, False), (503, True)}
                return answered.status == 503

            await until(unanswered, "the store does not answer")
            assert (await node.client.livez()).status == 200
        finally:
            cluster.services.resume_store(cluster.store)
        for body in bodies:
            await load.create(body)
        await node.until_ready()
    await audit(cluster, load, tell, topic)


async def test_lost_answers_of_the_store_make_nothing_twice_and_no_answer_false(cluster: Cluster, tell: Tell) -> None:
    # Every write may have happened although its answer is lost: creates, holds, cancels, frontiers, epochs, outcomes.
    # Each is repeated, by the library or by us, and must be recognised when it comes twice.
    topic = await cluster.topic()
    async with proxy_to(cluster.store_address) as proxy:
        await proxy.open()
        node = await cluster.start(more=cluster.with_store_at(proxy.address))
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
        tell(f"answers of {cluster.store} lost: {proxy.lost}")
        await audit(cluster, load, tell, topic)


async def test_a_node_waits_for_what_is_away_at_its_start_and_goes_on_by_itself(cluster: Cluster) -> None:
    # Whatever starts first in a new cluster: alive, not ready, and saying why, until both are there.
    topic = await cluster.topic()
    async with (
        proxy_to(cluster.store_address) as store,
        proxy_to(cluster.services.kafka_brokers) as kafka,
    ):
        away = cluster.with_store_at(store.address) | {"KAFKA_BROKERS": kafka.address}
        node = await cluster.start(more=away, ready=False)
        await node.until_answers()

        async def reasons(name: str) -> bool:
            ready = await node.client.readyz()
            return ready.status == 503 and any(name in reason for reason in ready.body["reasons"])

        await until(lambda: reasons("the store"), "the store named")
        await until(lambda: reasons(PRODUCTS[cluster.store]), "its product named")
        assert (await node.client.livez()).status == 200
        await store.open()
        await until(lambda: reasons("topics"), "Kafka named")
        await kafka.open()
        await node.until_ready()
        assert (await node.client.create(cluster.body(topic, "at-last"))).status == 201
        await cluster.until_status(node.client, "at-last")
        assert node.process.code is None
