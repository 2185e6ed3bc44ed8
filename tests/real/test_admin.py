"""An operator's work with `clockwork admin`, on nodes that run."""

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import pytest

from clockwork.domain.record import DELIVERY_ID
from infra.local.node import Launch, Store
from tests.support.commands import admin, admin_result
from tests.support.nodes import SHARDS, Cluster, ClusterNode, now_ms, opened_cluster, soon_ms
from tests.support.reader import read_all, reading
from tests.support.waiting import until

pytestmark = [pytest.mark.processes]


async def create_all(node: ClusterNode, bodies: list[dict[str, Any]]) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(node.client.create(body)) for body in bodies]
    assert {task.result().status for task in tasks} == {201}


async def test_a_paused_topic_waits_on_all_nodes_also_after_a_restart_and_goes_on_in_order(cluster: Cluster) -> None:
    topic, other = await cluster.topic(), await cluster.topic()
    first = await cluster.start()
    second = await cluster.start()

    async def share() -> bool:
        return sorted([len(await first.shards()), len(await second.shards())]) == [SHARDS // 2, SHARDS // 2]

    await until(share, "both nodes own shards")
    await admin(first, "pause", "topic", topic)
    for node in (first, second):

        async def heard(node: ClusterNode = node) -> bool:
            return await node.metric('clockwork_paused{what="topic"}') == 1

        await until(heard, f"the pause at {node.client.url}")
    due_ms = now_ms() + 300
    lanes = [f"lane-{n}" for n in range(2 * SHARDS)]
    keys = {lane: [f"{lane}-{n}" for n in range(3)] for lane in lanes}
    await create_all(
        first,
        [
            cluster.body(to, f"{name}{key}", due_ms=due_ms + n, ordering_key=lane)
            for lane in lanes
            for n, key in enumerate(keys[lane])
            for to, name in ((topic, ""), (other, "other-"))
        ],
    )
    async with reading(cluster.services.kafka_brokers, other) as reader:
        await reader.until_arrived(f"other-{key}" for each in keys.values() for key in each)
    # Its own lanes only; and one that has not begun to fire knows it before it does.
    await second.process.stop()
    third = await cluster.start()
    await third.until_works_some()
    cancelled = await first.client.cancel(cluster.name, keys[lanes[0]][1])
    assert (cancelled.status, cancelled.body["status"]) == (200, "cancelled")
    await third.until_logged("pauses.changed")
    async with reading(cluster.services.kafka_brokers, topic) as reader:
        await reader.read()
        assert reader.records == []
        assert topic in await admin(third, "pauses")
        await admin(third, "resume", "topic", topic)
        left = {lane: [key for key in keys[lane] if key != keys[lanes[0]][1]] for lane in lanes}
        arrived = await reader.until_arrived(key for each in left.values() for key in each)
    assert {lane: [r.schedule_key for r in arrived if r.key == lane.encode()] for lane in lanes} == left


GIVES_UP: Final = {"CLOCKWORK_TOPIC_WAIT_MS": "300"}


async def started_again(cluster: Cluster, node: ClusterNode) -> ClusterNode:
    """A node that knows nothing of the topics that the former one gave up: until the back-off of such a topic ends, after at
    most ten seconds, what is due for it fails at once, and so would a retry."""
    assert await node.process.stop() == 0
    return await cluster.start(more=GIVES_UP)


async def test_a_dead_letter_is_listed_and_retried_and_then_delivered_once(cluster: Cluster) -> None:
    topic = await cluster.topic()
    node = await cluster.start(more=GIVES_UP)
    bodies = [cluster.body(topic, f"lost-{n}", in_ms=soon_ms()) for n in range(3)]
    await create_all(node, bodies)
    await cluster.delete_topic(topic)
    for body in bodies:
        await cluster.until_status(node.client, body["scheduleKey"], "failed")
    lines = (await admin(node, "dead-letters", "list", "--reason", "topic_missing", "--json")).splitlines()
    letters = {letter["scheduleKey"]: letter for letter in map(json.loads, lines)}
    assert sorted(letters) == ["lost-0", "lost-1", "lost-2"]
    assert json.loads(letters["lost-0"]["value"]) == {"key": "lost-0"}

    await cluster.make_topic(topic)
    node = await started_again(cluster, node)
    place = [str(letters["lost-0"][name]) for name in ("partition", "offset")]
    assert json.loads(await admin(node, "dead-letters", "show", *place)) == letters["lost-0"]
    await admin(node, "dead-letters", "retry", *place)
    assert "2 armed, 0 refused" in await admin(node, "dead-letters", "retry", "--all", "--topic", topic)
    for body in bodies:
        await cluster.until_status(node.client, body["scheduleKey"])
    assert "0 armed, 0 refused" in await admin(node, "dead-letters", "retry", "--all")
    arrived = await read_all(cluster.services.kafka_brokers, topic)
    assert sorted(record.schedule_key for record in arrived) == ["lost-0", "lost-1", "lost-2"]


async def test_a_discarded_letter_is_gone_from_the_list_on_every_node_and_can_be_retried_still(
    cluster: Cluster,
) -> None:
    topic = await cluster.topic()
    first = await cluster.start(more=GIVES_UP)
    second = await cluster.start(role="api")
    bodies = [cluster.body(topic, f"lost-{n}", in_ms=soon_ms()) for n in range(3)]
    await create_all(first, bodies)
    await cluster.delete_topic(topic)
    for body in bodies:
        await cluster.until_status(first.client, body["scheduleKey"], "failed")
    ended = await first.client.get(cluster.name, "lost-0")
    assert "3 discarded, 0 refused" in await admin(first, "dead-letters", "discard", "--all", "--topic", topic)
    assert await admin(second, "dead-letters", "list", "--json") == ""
    letters = [
        json.loads(line) for line in (await admin(second, "dead-letters", "list", "--all", "--json")).splitlines()
    ]
    assert {letter["scheduleKey"] for letter in letters if "discardedAt" in letter} == {"lost-0", "lost-1", "lost-2"}
    assert (await second.client.get(cluster.name, "lost-0")).body == ended.body

    await cluster.make_topic(topic)
    first = await started_again(cluster, first)
    (letter,) = (letter for letter in letters if letter["scheduleKey"] == "lost-0")
    place = [str(letter[name]) for name in ("partition", "offset")]
    await admin(second, "dead-letters", "retry", *place)
    await cluster.until_status(first.client, "lost-0")
    arrived = await read_all(cluster.services.kafka_brokers, topic)
    assert [record.schedule_key for record in arrived] == ["lost-0"]


@pytest.mark.parametrize(
    ("kind", "target"), [("dynamodb", "postgresql"), ("postgresql", "dynamodb")], indirect=["kind"]
)
async def test_a_cluster_moves_to_another_store_and_each_schedule_arrives_once_and_in_order(
    cluster: Cluster, target: Store, tmp_path: Path, launch: Launch
) -> None:
    await cluster.services.start_postgres()
    topic = await cluster.topic()
    old = await cluster.start()
    begins_ms, lanes = now_ms() + soon_ms(), [f"lane-{n}" for n in range(2 * SHARDS)]
    # Due before, during and after the move; the last ones much later, and all of one lane one after another.
    dues_ms = [begins_ms + 300 * n for n in range(20)] + [begins_ms + 3_600_000]
    bodies = [
        cluster.body(topic, f"{lane}-{n:02}", due_ms=due_ms, ordering_key=lane)
        for lane in lanes
        for n, due_ms in enumerate(dues_ms)
    ]
    await create_all(old, bodies)
    ids = {
        body["scheduleKey"]: (await old.client.get(cluster.name, body["scheduleKey"])).body["deliveryId"]
        for body in bodies
    }
    gone = bodies.pop()["scheduleKey"]
    assert (await old.client.cancel(cluster.name, gone)).status == 200
    async with reading(cluster.services.kafka_brokers, topic) as reader:
        await reader.until_arrived(f"{lane}-00" for lane in lanes)
    await old.process.stop()

    source = await cluster.start(role="api")
    at, soon, later = str(begins_ms + 1_800_000), str(tmp_path / "soon.jsonl"), str(tmp_path / "later.jsonl")
    exported = await admin_result(source, "export", "--due-to", at, soon)
    assert "delivers" not in exported.stderr
    count = int(exported.stderr.split()[0])
    await admin(source, "export", "--due-from", at, later)
    fewer = {"CLOCKWORK_SHARDS": str(SHARDS // 2)}
    async with opened_cluster(cluster.services, tmp_path, fewer, store=target, launch=launch) as new:
        api = await new.start(role="api")
        assert f"{count} created" in await admin(api, "import", soon)
        assert f"0 created, {count} there already" in await admin(api, "import", soon)
        await new.start(role="worker", ready=False)
        assert f"{len(lanes) - 1} created" in await admin(api, "import", later)
        async with reading(cluster.services.kafka_brokers, topic) as reader:
            await reader.until_arrived(body["scheduleKey"] for body in bodies if body["scheduleTime"] != dues_ms[-1])
            for lane in lanes[:-1]:
                assert (await api.client.fire(cluster.name, f"{lane}-20")).status == 200
            await reader.until_arrived(body["scheduleKey"] for body in bodies)
        # On a busy machine the cluster of before has delivered all of these itself.
        ended = f" ({count} of them ended)" if count else ""
        assert f"0 created, {count} there already{ended}" in await admin(api, "import", soon)
        await new.stop()
        records = await read_all(cluster.services.kafka_brokers, topic)
    assert sorted(record.schedule_key for record in records) == sorted(body["scheduleKey"] for body in bodies)
    for lane in lanes:
        order = [record.schedule_key for record in records if record.key == lane.encode()]
        assert order == sorted(order), lane
    there = {
        record.schedule_key: record.text(DELIVERY_ID) for record in records if not record.schedule_key.endswith("-20")
    }
    assert there == {key: delivery_id for key, delivery_id in ids.items() if not key.endswith("-20")}


async def test_a_fenced_shard_is_taken_over_again_by_its_owner_and_delivers_on(
    shared: Cluster, shared_node: ClusterNode
) -> None:
    topic = await shared.topic()

    async def shown(shard: str) -> dict[str, Any]:
        found: dict[str, Any] = (await shared_node.client.shards())[int(shard)]
        return found

    for number in range(2):
        body = shared.body(topic, f"fence-{number}", in_ms=1_500, ordering_key="fence")
        assert (await shared_node.client.create(body)).status == 201
        shard = str((await shared_node.client.get(shared.name, f"fence-{number}")).body["shard"])
        before = await shown(shard)
        await admin(shared_node, "fence", shard)

        async def taken(shard: str = shard, epoch: int = before["epoch"]) -> bool:
            # The answer of `fence` may show the next take-over already, so it is not what this is compared with.
            found = await shown(shard)
            return bool(found["epoch"] > epoch and not found["owner"].startswith("operator/"))

        await until(taken, f"a new take-over of shard {shard}")
        await shared.until_status(shared_node.client, f"fence-{number}")
    async with reading(shared.services.kafka_brokers, topic) as reader:
        assert len(await reader.until_arrived(["fence-0", "fence-1"])) == 2
