"""Topics that are missing, that refuse a record, that stamp records themselves: other topics do not wait for them."""

import asyncio
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from clockwork.domain.record import DEAD_ATTEMPTS, DEAD_REASON, DEAD_TOPIC
from tests.support.client import Client
from tests.support.load import Load
from tests.support.nodes import Cluster, ClusterNode, node_here, now_ms, soon_ms
from tests.support.promises import lateness_text
from tests.support.reader import Arrived, read_all, reading

pytestmark = [pytest.mark.processes]

SMALL_BYTES = 2_000
STAMPED = 180
_lanes = itertools.count()


async def test_a_deleted_topic_holds_up_its_own_lanes_only_and_delivers_when_it_is_back(
    shared: Cluster, shared_node: ClusterNode
) -> None:
    # Deleted between accept and due time. The other topic's schedules have the same ordering key, so they stand in the
    # same shard, in the same passes, between the waiting ones.
    topic, other = await shared.topic(), await shared.topic()
    client = shared_node.client
    due_ms = now_ms() + soon_ms()
    await _create_all(
        client,
        [
            shared.body(to, f"{name}-{number}", due_ms=due_ms + number, ordering_key="same-shard")
            for to, name in ((topic, "gone"), (other, "there"))
            for number in range(4)
        ],
    )
    await shared.delete_topic(topic)

    async with reading(shared.services.kafka_brokers, other) as reader:
        await reader.until_arrived([f"there-{number}" for number in range(4)])
    assert (await client.get(shared.name, "gone-0")).body["status"] == "pending"
    refused = await client.create(shared.body(topic, "gone-late", ordering_key="same-shard"))
    assert (refused.status, refused.body["errors"][0]["field"]) == (400, "delivery.topic")

    await shared.make_topic(topic)
    async with reading(shared.services.kafka_brokers, topic) as reader:
        await reader.until_arrived([f"gone-{number}" for number in range(4)])
    assert [record.schedule_key for record in reader.records] == [f"gone-{number}" for number in range(4)]
    assert not [r for r in await read_all(shared.services.kafka_brokers, shared.dead_letters) if _lane(r, "same-shard")]


async def test_a_topic_that_stays_away_too_long_ends_its_schedules_as_dead_letters(cluster: Cluster) -> None:
    # The wait is over at a probe: then all of its rows fail, without attempts of their own, and in order.
    topic = await cluster.topic()
    async with node_here(cluster, more={"CLOCKWORK_TOPIC_WAIT_MS": "300"}) as (_, client):
        bodies = [cluster.body(topic, f"lost-{n}", in_ms=soon_ms() + n, ordering_key="lane") for n in range(3)]
        bodies.append(cluster.body(topic, "lost-alo", in_ms=soon_ms(), ordering_key="other", guarantee="at_least_once"))
        await _create_all(client, bodies)
        await cluster.delete_topic(topic)
        for body in bodies:
            ended = await cluster.until_status(client, body["scheduleKey"], "failed")
            assert ended["failed"]["reason"] == "topic_missing"
            assert ended["failed"]["attempts"] == 0
        refused = await client.cancel(cluster.name, "lost-0")
        assert (refused.status, refused.reason) == (409, "failed")
    dead_letters = await read_all(cluster.services.kafka_brokers, cluster.dead_letters)
    assert sorted(record.schedule_key for record in dead_letters) == ["lost-0", "lost-1", "lost-2", "lost-alo"]
    assert [r.schedule_key for r in dead_letters if _lane(r, "lane")] == ["lost-0", "lost-1", "lost-2"]
    assert {record.text(DEAD_TOPIC) for record in dead_letters} == {topic}
    assert {record.text(DEAD_REASON) for record in dead_letters} == {"topic_missing"}


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize("limit", ["known", "lowered"])
async def test_a_record_that_its_topic_refuses_becomes_a_dead_letter_and_its_lane_goes_on(
    shared: Cluster, shared_node: ClusterNode, limit: str, guarantee: str
) -> None:
    # Known: the node sees it before it sends. Lowered by hand after the node has looked: the broker refuses it inside
    # the transaction, which is aborted, and the innocent records of that transaction go again without it.
    topic = await shared.topic(config={"max.message.bytes": str(SMALL_BYTES)} if limit == "known" else None)
    client = shared_node.client
    name = f"large-{next(_lanes)}"
    if limit == "lowered":
        before = shared.body(topic, f"{name}-before", guarantee=guarantee)
        assert (await client.create(before)).status == 201
        await shared.until_status(client, f"{name}-before")
        await _set_limit(shared, topic)
    due_ms = now_ms() + soon_ms()
    culprit = shared.body(
        topic, f"{name}-culprit", due_ms=due_ms, ordering_key=name, data="x" * 3 * SMALL_BYTES, guarantee=guarantee
    )
    behind = [
        shared.body(topic, f"{name}-{n}", due_ms=due_ms + n, ordering_key=name, guarantee=guarantee) for n in (1, 2)
    ]
    others = [
        shared.body(topic, f"{name}-other-{n}", due_ms=due_ms, ordering_key=f"{name}-other-{n}", guarantee=guarantee)
        for n in range(10)
    ]
    created = await client.create(culprit)
    assert created.status == 201
    await _create_all(client, [*behind, *others])

    failed = (await shared.until_status(client, f"{name}-culprit", "failed"))["failed"]
    assert (failed["reason"], failed["attempts"]) == ("attempts_exhausted", 3)
    async with reading(shared.services.kafka_brokers, topic) as reader:
        arrived = await reader.until_arrived(body["scheduleKey"] for body in [*behind, *others])
    assert len(arrived) == len(behind) + len(others)
    assert f"{name}-culprit" not in {record.schedule_key for record in reader.records}
    letters = await read_all(shared.services.kafka_brokers, shared.dead_letters)
    (letter,) = (record for record in letters if record.schedule_key == f"{name}-culprit")
    assert letter.value == culprit["taskData"].encode()
    assert letter.key == name.encode()
    assert letter.text("clockwork-delivery-id") == created.body["deliveryId"]
    assert (letter.text(DEAD_TOPIC), letter.text(DEAD_ATTEMPTS)) == (topic, "3")
    in_lane = [record for record in arrived if _lane(record, name)]
    assert [record.schedule_key for record in in_lane] == [f"{name}-1", f"{name}-2"]
    assert all(record.timestamp_ms >= letter.timestamp_ms for record in in_lane), "they stand behind it"
    assert all(r.timestamp_ms <= letter.timestamp_ms for r in arrived if r not in in_lane), "they do not"


async def test_nothing_arrives_early_by_the_brokers_own_clock_and_lanes_keep_their_order(
    shared: Cluster, shared_node: ClusterNode, tell: Callable[[str], None]
) -> None:
    # Two topics stamp their records themselves (LogAppendTime); in the third the producer says when it sent them. Both
    # guarantees, some lanes with both of them: such a lane sends one kind at a time, because the transaction and the
    # plain producer would race each other.
    topics = [await shared.topic(), await shared.topic(kafka_partitions=1), await shared.topic(broker_time=False)]
    load = Load(shared, topics, prefix="stamped")
    load.clients = [shared_node.client]
    start_ms = now_ms() + soon_ms()
    async with asyncio.TaskGroup() as group:
        for number in range(STAMPED):
            body = shared.body(
                topics[number % 3],
                f"stamped-{number}",
                due_ms=start_ms + 2 * number,
                ordering_key=f"stamped-lane-{number % 12}",
                guarantee="at_least_once" if number % 12 in (0, 1) or number % 36 in (2, 3) else "exactly_once",
            )
            group.create_task(load.create(body))
    async with reading(shared.services.kafka_brokers, *topics) as reader:
        await reader.until_arrived(load.ledger.expected())
    for key in load.ledger.promises:
        await shared.until_status(shared_node.client, key)
    await load.ask_all()
    records = await read_all(shared.services.kafka_brokers, *topics)
    assert {record.topic for record in records if record.timestamp_of_broker} == set(topics[:2])
    assert not load.ledger.broken(records)
    assert len(records) == len(load.ledger.promises), "without a fault at_least_once is once, too"
    tell(lateness_text(load.ledger, records))


async def _create_all(client: Client, bodies: Iterable[dict[str, Any]]) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client.create(body)) for body in bodies]
    assert {task.result().status for task in tasks} == {201}


def _lane(record: Arrived, ordering_key: str) -> bool:
    return record.key == ordering_key.encode()


async def _set_limit(cluster: Cluster, topic: str) -> None:
    configs = {"max.message.bytes": str(SMALL_BYTES), "message.timestamp.type": "LogAppendTime"}
    admin: Any = AIOKafkaAdminClient(bootstrap_servers=cluster.services.kafka_brokers)
    await admin.start()
    try:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=configs)])
    finally:
        await admin.close()
