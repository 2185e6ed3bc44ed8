"""A node with `CLOCKWORK_STORE=memory`: everything but the store is real, and no DynamoDB is there."""

import logging

import pytest

from clockwork.errors import CannotStart
from clockwork.node.app import open_node
from clockwork.node.readiness import Role
from clockwork.node.resources import check_resources, init_resources
from clockwork.settings.sources import load_settings
from tests.support.nodes import Cluster, node_here
from tests.support.reader import reading

MEMORY = {"CLOCKWORK_STORE": "memory", "DYNAMODB_ENDPOINT": "http://127.0.0.1:1"}
HOUR_MS = 3_600_000


async def test_schedules_are_accepted_cancelled_listed_and_delivered_from_memory_and_end_with_the_process(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    topic = await cluster.topic()
    with caplog.at_level(logging.WARNING):
        async with node_here(cluster, more=MEMORY) as (_, client):
            for key, in_ms in (("now-1", 0), ("now-2", 300), ("later", HOUR_MS)):
                assert (await client.create(cluster.body(topic, key, in_ms=in_ms))).status == 201
            assert (await client.create(cluster.body(topic, "gone", in_ms=HOUR_MS))).status == 201
            assert (await client.cancel(cluster.name, "gone")).status == 200
            async with reading(cluster.services.kafka_brokers, topic) as reader:
                await reader.until_arrived(["now-1", "now-2"])
            for key in ("now-1", "now-2"):
                await cluster.until_status(client, key)
            pending = await client.listed(cluster.name, status="pending")
            assert [each["scheduleKey"] for each in pending] == ["later"]
            metrics = await client.metrics()
            assert 'clockwork_store_seconds_count{operation="create",result="ok",store="memory"} 4.0' in metrics
    assert any("end with it" in str(vars(record).get("warning")) for record in caplog.records)

    # Another process on the same Kafka: its markers and offsets are those of the one before, its store is empty.
    async with node_here(cluster, more=MEMORY) as (_, client):
        assert (await client.get(cluster.name, "later")).status == 404
        assert (await client.create(cluster.body(topic, "anew"))).status == 201
        async with reading(cluster.services.kafka_brokers, topic) as reader:
            await reader.until_arrived(["now-1", "now-2", "anew"])
        arrived = [record.schedule_key for record in reader.records]
    assert sorted(arrived) == ["anew", "now-1", "now-2"]


async def test_init_and_check_look_at_kafka_alone(cluster: Cluster) -> None:
    settings = load_settings(cluster.environment({**MEMORY, "CLOCKWORK_CREATE_RESOURCES": "false"}))
    with pytest.raises(CannotStart, match="topic"):
        await check_resources(settings)
    await init_resources(settings)
    await check_resources(settings)


@pytest.mark.parametrize("role", [Role.API, Role.WORKER])
async def test_a_role_that_would_need_another_node_is_refused(role: Role) -> None:
    settings = load_settings({"CLOCKWORK_STORE": "memory"})
    with pytest.raises(CannotStart, match=f"--role {role}"):
        async with open_node(settings, role):
            pytest.fail("it was opened")
