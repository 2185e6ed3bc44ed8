"""Hundreds at once on the real services: each answered as if it had come alone, and soon."""

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from tests.support.client import REQUEST_S_MAX, Answered
from tests.support.node_fixtures import on_each_store
from tests.support.nodes import Cluster, ClusterNode, now_ms
from tests.support.reader import reading

pytestmark = [pytest.mark.processes]

ITEMS = 300
"""More than a wave of a batch."""
FAR_MS = 3_600_000
Tell = Callable[[str], None]


def statuses(answered: Answered) -> Counter[int]:
    assert answered.status == 200, answered
    return Counter(result["status"] for result in answered.body["results"])


async def test_hundreds_are_created_recognised_and_cancelled(
    shared: Cluster, shared_node: ClusterNode, tell: Tell
) -> None:
    topic = await shared.topic()
    client, loop = shared_node.client, asyncio.get_running_loop()
    keys = [f"hundreds-{n}" for n in range(ITEMS)]
    bodies = [shared.body(topic, key, in_ms=FAR_MS) for key in keys]
    took_s = []
    for wanted, ask in (
        ({201, 200}, partial(client.create_many, bodies)),
        ({200}, partial(client.create_many, bodies)),
        ({200}, partial(client.cancel_many, shared.name, keys)),
    ):
        began_s = loop.time()
        # What a busy machine could not do in time is answered with 503, and asked again.
        while not (told := statuses(answered := await ask())).keys() <= wanted:
            assert told.keys() <= wanted | {503}
        took_s.append(loop.time() - began_s)
        assert [result["schedule"]["scheduleKey"] for result in answered.body["results"]] == keys
    assert statuses(await client.cancel_many(shared.name, [keys[0], "unheard-of"])) == {200: 1, 404: 1}
    tell(f"{ITEMS} created in {took_s[0]:.2f} s, repeated in {took_s[1]:.2f} s, cancelled in {took_s[2]:.2f} s")


async def test_what_came_in_a_batch_is_delivered_once(shared: Cluster, shared_node: ClusterNode) -> None:
    topic = await shared.topic()
    keys = [f"soon-{n}" for n in range(200)]
    bodies = [shared.body(topic, key, in_ms=500) for key in keys]
    # The same twice in one batch: one after the other, so the second is recognised.
    assert statuses(await shared_node.client.create_many([*bodies, *bodies])) == {201: 200, 200: 200}

    async with reading(shared.services.kafka_brokers, topic) as reader:
        await reader.until_arrived(keys)
    assert Counter(record.schedule_key for record in reader.records) == Counter(keys)


async def test_a_batch_of_one_ordering_key_is_delivered_in_the_order_given(
    shared: Cluster, shared_node: ClusterNode
) -> None:
    # A topic of which the node has heard nothing yet: its first items wait for the metadata, the others find them.
    topic = await shared.topic(kafka_partitions=1)
    keys = [f"in-order-{n:03}" for n in range(100)]
    due_ms = now_ms()
    bodies = [shared.body(topic, key, due_ms=due_ms, ordering_key="one") for key in keys]
    assert statuses(await shared_node.client.create_many(bodies)) == {201: len(keys)}

    async with reading(shared.services.kafka_brokers, topic) as reader:
        await reader.until_arrived(keys)
    assert [record.schedule_key for record in reader.records] == keys


@on_each_store
async def test_a_store_that_is_silent_is_answered_item_by_item_in_time(cluster: Cluster) -> None:
    topic = await cluster.topic()
    node = await cluster.start(more={"CLOCKWORK_REQUEST_TIMEOUT_MS": "1000"})
    bodies = [cluster.body(topic, f"silent-{n}", in_ms=FAR_MS) for n in range(ITEMS)]
    cluster.services.pause_store(cluster.store)
    try:
        node.client.request_s_max = 1.0 + ITEMS * 0.02 + 5.0
        answered = await node.client.create_many(bodies)
        assert statuses(answered) == {503: ITEMS}
        assert (await node.client.impatient.page(cluster.name)).status == 503
    finally:
        cluster.services.resume_store(cluster.store)
    node.client.request_s_max = REQUEST_S_MAX
    await node.until_ready()
    settled: set[str] = set()
    while len(settled) < ITEMS:
        # What was sent may have been stored: the same again settles it, item by item.
        left = [body for body in bodies if body["scheduleKey"] not in settled]
        results = (await node.client.create_many(left)).body["results"]
        assert {result["status"] for result in results} <= {200, 201, 503}
        settled |= {result["schedule"]["scheduleKey"] for result in results if result["status"] < 300}
