"""A Kafka that creates each topic that a client names, as its own defaults say: nothing of ours lets it."""

import asyncio
import sys
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
from infra.local import LocalServices
from tests.support.nodes import Cluster, opened_cluster
from tests.support.reader import reading

pytestmark = [pytest.mark.processes]

SHARDS = 8
INTERNAL = ("shards", "deliveries", "dead-letters", "commands", "events", "minutes")
ANSWER_S_MAX = 30


@pytest.fixture(scope="module")
async def creating_services() -> AsyncIterator[LocalServices]:
    async with LocalServices(kafka_settings={"auto.create.topics.enable": "true"}) as services:
        yield services


@pytest.fixture
async def cluster(creating_services: LocalServices, tmp_path: Path) -> AsyncIterator[Cluster]:
    """A cluster with nothing in it, neither tables nor topics."""
    settings = {"CLOCKWORK_SHARDS": str(SHARDS), "CLOCKWORK_COMMANDS": "on", "CLOCKWORK_CREATE_RESOURCES": "false"}
    async with opened_cluster(creating_services, tmp_path, settings) as opened:
        yield opened


async def command(cluster: Cluster, name: str) -> tuple[int | None, str]:
    """What `python -m clockwork` ended with, and said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "clockwork", name, env=cluster.environment(), stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    return process.returncode, said.decode()


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
    code, said = await command(cluster, "check")
    assert code == 2
    assert all(f"Kafka topic {cluster.name}-{name} is missing" in said for name in INTERNAL)
    assert topics(cluster) == {}
    for name in ("init", "check"):
        code, said = await command(cluster, name)
        assert code == 0, said


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
    async with cluster.session.get(f"{node.client.url}/admin/dead-letters", params=letters) as answer:
        assert answer.status == 200
    assert topics(cluster) == made
    topic = await cluster.topic()
    assert (await node.client.create(cluster.body(topic, "delivered", in_ms=300))).status == 201
    async with reading(cluster.services.kafka_brokers, topic) as reader:
        await reader.until_arrived(["delivered"])
