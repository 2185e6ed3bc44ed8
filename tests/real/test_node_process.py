"""`python -m clockwork` from outside: HTTP in, Kafka out, SIGTERM."""

import asyncio

import pytest

from infra.local.child import Child
from tests.support.load import Load
from tests.support.nodes import SHARDS, Cluster, now_ms, soon_ms
from tests.support.reader import CommittedReader, read_all, reading
from tests.support.under_load import under_load
from tests.support.waiting import until

pytestmark = [pytest.mark.processes]


async def test_a_schedule_goes_in_by_http_and_comes_out_of_kafka_at_its_time(cluster: Cluster) -> None:
    # The whole way once, as the README shows it: created, seen pending, delivered, seen delivered; another is cancelled.
    cluster.launch = Child.start  # Python is started, as in production, and not forked
    topic = await cluster.topic()
    node = await cluster.start()
    body = cluster.body(topic, "order/1 ü", in_ms=soon_ms(), ordering_key="customer-1", data={"expire": "order/1 ü"})
    created = await node.client.create(body)
    assert created.status == 201
    assert created.headers["Location"] == f"/schedule/{cluster.name}/order%2F1%20%C3%BC"
    assert created.body["status"] == "pending"
    assert (await node.client.get(cluster.name, "order/1 ü")).body == created.body
    assert (await node.client.create(cluster.body(topic, "unwanted", in_ms=soon_ms()))).status == 201
    assert (await node.client.cancel(cluster.name, "unwanted")).body["status"] == "cancelled"

    async with reading(cluster.services.kafka_brokers, topic) as reader:
        (record,) = await reader.until_arrived(["order/1 ü"])
    assert record.value == '{"expire":"order/1 ü"}'.encode()
    assert record.timestamp_ms >= body["scheduleTime"]
    ended = await cluster.until_status(node.client, "order/1 ü")
    assert (ended["delivered"]["partition"], ended["delivered"]["offset"]) == (record.kafka_partition, record.offset)
    metrics = await node.client.metrics()
    assert 'clockwork_deliveries_total{guarantee="exactly_once",result="delivered"} 1.0' in metrics

    assert await node.process.stop() == 0
    assert [line["event"] for line in node.logged()][-1] == "node.stopped"
    assert len(await read_all(cluster.services.kafka_brokers, topic)) == 1


async def test_sigterm_under_load_finishes_what_is_in_flight_and_loses_nothing(cluster: Cluster) -> None:
    # Stopped and started again, twice: each end is orderly (code 0), every answer that was given holds, and no
    # shard has to be fenced, because the group was left after the drain.
    topic = await cluster.topic()
    load = Load(cluster, [topic])
    node = await cluster.start()
    load.clients = [node.client]
    async with under_load(cluster, load, topic) as reader:
        for _ in range(2):
            await _until_delivers(reader, since_ms=now_ms())
            assert await node.process.stop() == 0
            node = await cluster.start()
            load.clients = [node.client]
            await _until_delivers(reader, since_ms=now_ms())
            assert await node.metric("clockwork_owners_fenced_total") == 0
    await cluster.stop()
    assert not load.ledger.broken(await read_all(cluster.services.kafka_brokers, topic))
    assert {node.process.code for node in cluster.nodes} == {0}


async def _until_delivers(reader: CommittedReader, *, since_ms: int) -> None:
    async def look() -> bool:
        await reader.read()
        return any(record.timestamp_ms > since_ms for record in reader.records)

    await until(look, "deliveries")


async def test_an_api_node_and_a_worker_share_the_work_and_wake_up_through_kafka(cluster: Cluster) -> None:
    # No owner would look at the shard for a minute: only the record on the ownership topic can tell the worker. The hint
    # may be lost while the worker joins, so the schedules are created when it works all shards.
    topic = await cluster.topic()
    cluster.settings["CLOCKWORK_SCAN_INTERVAL_MS"] = "60000"
    api, worker = await cluster.start(role="api"), await cluster.start(role="worker")
    await worker.until_works(SHARDS)
    assert (await api.client.readyz()).body["details"]["shardsOwned"] == 0
    assert (await worker.client.create(cluster.body(topic, "not-here"))).status == 404, "a worker accepts nothing"
    keys = [f"woken-{n}" for n in range(2 * SHARDS)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(api.client.create(cluster.body(topic, key, in_ms=300))) for key in keys]
    assert {task.result().status for task in tasks} == {201}
    async with reading(cluster.services.kafka_brokers, topic) as reader:
        arrived = await reader.until_arrived(keys, within_s=40)
    assert len(arrived) == len(keys)
    assert (await api.client.get(cluster.name, keys[0])).status == 200
