"""Cancels on the real services: the answer is the truth."""

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from tests.support.load import Load
from tests.support.nodes import Cluster, ClusterNode, now_ms, soon_ms
from tests.support.reader import read_all, reading
from tests.support.waiting import until

pytestmark = [pytest.mark.processes]

AT_DUE_TIME = 80
AT_ONCE_MS = -60_000
"""From the due time: long past."""


async def test_a_cancel_right_after_its_create_finds_it(shared: Cluster, shared_node: ClusterNode) -> None:
    # An index that lags would answer 404 here. The schedules are due at once after, so a cancel that only pretended
    # would be seen.
    topic = await shared.topic()
    client = shared_node.client
    ahead_ms = soon_ms()

    async def one(key: str) -> None:
        assert (await client.create(shared.body(topic, key, in_ms=ahead_ms))).status == 201
        answered = await client.cancel(shared.name, key)
        assert (answered.status, answered.body["status"]) == (200, "cancelled")
        assert (await client.cancel(shared.name, key)).status == 200, "cancelled before is cancelled"
        assert (await client.get(shared.name, key)).body["status"] == "cancelled"

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(one(f"right-after-{number}"))
    # Of the same shard as the last one, and due later than all of them: when it is there, they have been passed over.
    last = shared.body(topic, "after-them", in_ms=ahead_ms + 100, ordering_key="right-after-19")
    assert (await client.create(last)).status == 201
    await shared.until_status(client, "after-them")
    assert [r.schedule_key for r in await read_all(shared.services.kafka_brokers, topic)] == ["after-them"]


async def test_cancels_at_the_very_due_time_are_answered_truly(
    shared: Cluster, shared_node: ClusterNode, tell: Callable[[str], None]
) -> None:
    # The race of the whole protocol: hold, look and decide against frontier, read and commit, at every distance from
    # far enough to too late. Two cancels of each race each other, too.
    topic = await shared.topic()
    load = Load(shared, [topic], prefix="due")
    load.clients = [shared_node.client]
    ahead_ms = soon_ms()
    bodies = [
        shared.body(topic, f"due-{n}", in_ms=ahead_ms + 17 * n, ordering_key=f"due-lane-{n % 20}")
        for n in range(AT_DUE_TIME)
    ]
    async with asyncio.TaskGroup() as group:
        for body in bodies:
            group.create_task(load.create(body))
    async with asyncio.TaskGroup() as group:
        cancels = [
            group.create_task(load.cancel_near_due(body, offset_ms=offset_ms))
            for n, body in enumerate(bodies)
            # The first ones at once: they have time enough, whatever this machine does.
            for offset_ms in ((-450 + 8 * n, -440 + 8 * n) if n else (AT_ONCE_MS, AT_ONCE_MS))
        ]
    answers = [task.result() for task in cancels]
    async with reading(shared.services.kafka_brokers, topic) as reader:
        await reader.until_arrived(load.ledger.expected())
    async with asyncio.TaskGroup() as group:
        for key in load.ledger.expected():
            group.create_task(_seen_delivered(shared, shared_node, load, key))
    await load.ask_all(at_most=AT_DUE_TIME)
    said = Counter(a.reason or a.body["status"] for a in answers)
    tell(f"cancels around the due time: {dict(said)}")
    assert said["cancelled"], "the earliest of them had time enough"
    assert not load.ledger.broken(await read_all(shared.services.kafka_brokers, topic))


async def test_a_row_whose_lane_waits_can_be_cancelled_long_after_its_due_time(
    shared: Cluster, shared_node: ClusterNode
) -> None:
    # The frontier has passed the row long ago, so only its owner can promise not to fire it: the cancel asks it by a
    # wake-up, the owner stamps the row. Under at_least_once a zombie might have sent it: never cancelled any more.
    topic = await shared.topic()
    client = shared_node.client
    due_ms = now_ms() + soon_ms()
    for key, guarantee in (("w-1", "exactly_once"), ("w-2", "exactly_once"), ("w-alo", "at_least_once")):
        body = shared.body(topic, key, due_ms=due_ms, ordering_key="waits", guarantee=guarantee)
        assert (await client.create(body)).status == 201
    await shared.delete_topic(topic)

    async def long_due() -> bool:
        return now_ms() > due_ms + 1_100 and any(line["topic"] == topic for line in shared_node.logged("topic.waits"))

    await until(long_due, "the topic's rows wait")
    cancelled = await client.cancel(shared.name, "w-1")
    assert (cancelled.status, cancelled.body.get("status")) == (200, "cancelled"), cancelled
    refused = await client.cancel(shared.name, "w-alo")
    assert (refused.status, refused.reason) == (409, "in_flight"), refused

    await shared.make_topic(topic)
    await shared.until_status(client, "w-2")
    await shared.until_status(client, "w-alo")
    keys = [record.schedule_key for record in await read_all(shared.services.kafka_brokers, topic)]
    assert keys == ["w-2", "w-alo"]


async def _seen_delivered(cluster: Cluster, node: ClusterNode, load: Load, schedule_key: str) -> None:
    await cluster.until_status(node.client, schedule_key)
    asked_again = await load.cancel(schedule_key)
    assert (asked_again.status, asked_again.reason) == (409, "delivered")
