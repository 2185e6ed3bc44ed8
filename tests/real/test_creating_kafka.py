"""A Kafka that creates each topic that a client names, as its own defaults say: nothing of ours lets it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # all of them documented
    AdminClient,
    ConfigResource,
    ResourceType,
)

from clockwork.kafka.topics import DELIVERIES_KAFKA_PARTITIONS
from clockwork.node.resources import check_resources
from clockwork.settings.sources import load_settings
from infra.local import LocalServices
from tests.support.commands import clockwork
from tests.support.nodes import Cluster, opened_cluster
from tests.support.reader import reading
from tests.support.waiting import until

pytestmark = [pytest.mark.processes]

SHARDS = 8
INTERNAL = ("shards", "deliveries", "dead-letters", "commands", "events", "minutes")
ANSWER_S_MAX = 30


@pytest.fixture(scope="module")
async def creating_services() -> AsyncIterator[LocalServices]:
    async with LocalServices(dynamodb=False, kafka_settings={"auto.create.topics.enable": "true"}) as services:
        yield services


@pytest.fixture
async def cluster(creating_services: LocalServices, tmp_path: Path) -> AsyncIterator[Cluster]:
    """A cluster without topics, whose store is no matter here."""
    settings = {"CLOCKWORK_SHARDS": str(SHARDS), "CLOCKWORK_COMMANDS": "on", "CLOCKWORK_CREATE_RESOURCES": "false"}
    async with opened_cluster(creating_services, tmp_path, settings, store="memory") as opened:
        yield opened


def topics(cluster: Cluster) -> dict[str, int]:
    """The numbers of Kafka partitions of the cluster's topics, asked for without naming one."""
    listed = admin_of(cluster).list_topics(timeout=ANSWER_S_MAX).topics
    return {
        name.removeprefix(f"{cluster.name}-"): len(topic.partitions)
        for name, topic in listed.items()
        if cluster.name in name
    }


def cleanup_policy(cluster: Cluster) -> str:
    resource = ConfigResource(ResourceType.TOPIC, f"{cluster.name}-deliveries")
    admin = admin_of(cluster)
    (answer,) = admin.describe_configs([resource]).values()
    return str(answer.result(ANSWER_S_MAX)["cleanup.policy"].value)


def admin_of(cluster: Cluster) -> Any:
    return AdminClient({"bootstrap.servers": cluster.services.kafka_brokers, "log_level": 0})


async def test_a_check_names_what_is_missing_and_creates_nothing_and_init_then_succeeds(cluster: Cluster) -> None:
    refused = await clockwork("check", settings=cluster.environment())
    assert refused.code == 2
    assert all(f"Kafka topic {cluster.name}-{name} is missing" in refused.stderr for name in INTERNAL)
    assert topics(cluster) == {}
    ended = await clockwork("init", settings=cluster.environment())
    assert ended.code == 0, ended.stderr
    await check_resources(load_settings(cluster.environment()))


async def test_a_node_as_the_very_first_command_creates_its_topics_as_they_should_be_and_no_client_s(
    cluster: Cluster,
) -> None:
    node = await cluster.start(more={"CLOCKWORK_CREATE_RESOURCES": "true"})
    made = topics(cluster)
    assert made.keys() == set(INTERNAL)
    assert (made["shards"], made["deliveries"], cleanup_policy(cluster)) == (
        SHARDS,
        DELIVERIES_KAFKA_PARTITIONS,
        "compact",
    )
    # A topic that a caller names is looked up, too: by a create, and where dead letters are read.
    refused = await node.client.create(cluster.body(f"for-{cluster.name}-unknown", "refused"))
    assert (refused.status, refused.body["errors"][0]["field"]) == (400, "delivery.topic")
    letters = {"deadLetterTopic": cluster.dead_letters}

    async def read() -> bool:
        async with cluster.session.get(f"{node.client.url}/admin/dead-letters", params=letters) as answer:
            assert answer.status in (200, 503), "the topic was made a moment ago: its leaders may not be elected"
            return answer.status == 200

    await until(read, "the dead letters")
    assert topics(cluster) == made
    topic = await cluster.topic()
    assert (await node.client.create(cluster.body(topic, "delivered", in_ms=300))).status == 201
    async with reading(cluster.services.kafka_brokers, topic) as reader:
        await reader.until_arrived(["delivered"])
