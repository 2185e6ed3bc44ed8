"""A Kafka that asks who we are: TLS, SCRAM and ACLs, and what a node with a wrong password does."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import trustme
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # all of them documented
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from clockwork.kafka.group import leave_group
from clockwork.node.resources import init_resources, kafka_context
from clockwork.settings.sources import load_settings
from infra.kafka.acls import Right, rights
from infra.local import LocalServices
from infra.local.kafka import SecureListener
from infra.local.node import Launch
from infra.local.ports import free_port
from tests.support.certificates import ca_file, issue
from tests.support.commands import clockwork
from tests.support.kafka_partitions import few_kafka_partitions
from tests.support.nodes import Cluster, ClusterNode, opened_cluster
from tests.support.reader import reading
from tests.support.waiting import until

pytestmark = [pytest.mark.processes, pytest.mark.real]

USER: Final = "node"
PASSWORD: Final = "correct-horse"
WRONG: Final = "battery-staple"
INTERNAL: Final = ("shards", "deliveries", "dead-letters")
KINDS: Final = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}
OPERATIONS: Final = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
}


class Secure:
    """A cluster on a Kafka of its own that listens twice: openly for the test, and with TLS and SCRAM for nodes."""

    def __init__(self, cluster: Cluster, brokers: str, ca: Path) -> None:
        self.cluster = cluster
        self.environment = {
            "KAFKA_BROKERS": brokers,
            "CLOCKWORK_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "CLOCKWORK_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "CLOCKWORK_KAFKA_SASL_USERNAME": USER,
            "CLOCKWORK_KAFKA_SASL_PASSWORD": PASSWORD,
            "CLOCKWORK_KAFKA_TLS_CA": str(ca),
            # A node has no right to make anything.
            "CLOCKWORK_CREATE_RESOURCES": "false",
        }

    async def allow(self, topic: str, *dead_letter_topics: str) -> None:
        """Allows what infra/kafka/acls.yaml lists, and nothing else."""
        name = self.cluster.name
        listed = rights("node", cluster=name, group=name, topics=[topic], dead_letter_topics=dead_letter_topics)
        admin = AdminClient({"bootstrap.servers": self.cluster.services.kafka_brokers, "log_level": 0})
        for created in admin.create_acls([binding(right) for right in listed]).values():
            await asyncio.to_thread(created.result, 30)


def binding(right: Right) -> AclBinding:
    pattern = ResourcePatternType.PREFIXED if right.pattern == "prefixed" else ResourcePatternType.LITERAL
    operation = OPERATIONS[right.operation]
    return AclBinding(
        KINDS[right.resource], right.name, pattern, f"User:{USER}", "*", operation, AclPermissionType.ALLOW
    )


@pytest.fixture(scope="module")
async def secure_services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[LocalServices, str, Path]]:
    folder = tmp_path_factory.mktemp("secure")
    ca = trustme.CA()
    pair = issue(ca, folder, "broker")
    both = folder / "broker.pem"
    both.write_bytes(pair.key.read_bytes() + pair.cert.read_bytes())
    listener = SecureListener(port=free_port(), cert_and_key=both, users={USER: PASSWORD}, enforce_acls=True)
    async with LocalServices(dynamodb=False, secure=listener) as services:
        yield services, f"127.0.0.1:{listener.port}", ca_file(ca, folder)


@pytest.fixture
async def secure(
    secure_services: tuple[LocalServices, str, Path], tmp_path: Path, launch: Launch
) -> AsyncIterator[Secure]:
    services, brokers, ca = secure_services
    async with opened_cluster(services, tmp_path, store="memory", launch=launch) as cluster:
        with few_kafka_partitions():
            await init_resources(load_settings(cluster.environment()))
        yield Secure(cluster, brokers, ca)


async def test_a_node_delivers_over_tls_and_scram_with_the_listed_rights_alone(secure: Secure) -> None:
    # Both guarantees, a wake-up to itself, dead letters, and the leave of a static member: every kind of request.
    cluster = secure.cluster
    topic = await cluster.topic(config={"max.message.bytes": "4096"})
    own, forbidden = await cluster.topic(), await cluster.topic()
    await secure.allow(topic, own)
    more = secure.environment | {
        "CLOCKWORK_INSTANCE_ID": "static",
        "CLOCKWORK_DEAD_LETTER_TOPICS": f"owner={own},stranger={forbidden}",
    }
    node = await cluster.start(more=more)
    wanted = {"once": "exactly_once", "at-least-once": "at_least_once"}
    for key, guarantee in wanted.items():
        assert (await node.client.create(cluster.body(topic, key, in_ms=300, guarantee=guarantee))).status == 201
    large = cluster.body(topic, "too-large", data="x" * 8_192)
    assert (await node.client.create(large)).status == 201
    for client in ("owner", "stranger"):
        body = large | {"clientId": client, "scheduleKey": f"of-{client}"}
        assert (await node.client.create(body)).status == 201
    async with reading(cluster.services.kafka_brokers, topic, own, cluster.dead_letters) as reader:
        arrived = await reader.until_arrived([*wanted, "too-large", "of-owner", "of-stranger"])
    letters = {record.schedule_key: record.topic for record in arrived if record.topic != topic}
    assert letters == {"too-large": cluster.dead_letters, "of-owner": own, "of-stranger": cluster.dead_letters}
    for lies_in, status in ((cluster.dead_letters, 200), (own, 200), (forbidden, 503)):
        async with cluster.session.get(
            f"{node.client.url}/admin/dead-letters", params={"deadLetterTopic": lies_in}
        ) as answer:
            assert answer.status == status
    for key in wanted:
        await cluster.until_status(node.client, key)
    await cluster.until_status(node.client, "too-large", "failed")
    assert await node.process.stop() == 0
    assert await leave_group(kafka_context(load_settings(cluster.environment(more))), "static")
    assert PASSWORD not in node.log_path.read_text(encoding="utf-8")


async def test_check_names_each_right_that_is_missing_in_a_line_of_its_own(secure: Secure) -> None:
    ended = await clockwork("check", settings=secure.cluster.environment(secure.environment))
    name = secure.cluster.name
    denied = [line.partition(":")[2] for line in ended.stderr.splitlines() if "Kafka denies this user" in line]
    assert ended.code == 2
    wanted = [f"group {name}", f"transactional ids {name}-*", *(f"topic {name}-{each}" for each in INTERNAL)]
    assert [line.removeprefix(" Kafka denies this user the ").partition(":")[0] for line in denied] == wanted


async def test_a_topic_without_the_right_to_write_waits_and_is_named(secure: Secure) -> None:
    # Not allowed even to know that it exists: a create is refused, as for a missing topic.
    cluster = secure.cluster
    topic, other = await cluster.topic(), await cluster.topic()
    await secure.allow(topic)
    node = await cluster.start(more=secure.environment)
    refused = await node.client.create(cluster.body(other, "forbidden"))
    assert (refused.status, refused.body["errors"][0]["field"]) == (400, "delivery.topic")


@pytest.mark.parametrize("create", ["false", "true"])
async def test_a_wrong_password_is_named_in_the_log_and_in_readyz_and_the_node_lives(
    secure: Secure, create: str
) -> None:
    more = secure.environment | {
        "CLOCKWORK_KAFKA_SASL_PASSWORD": WRONG,
        "CLOCKWORK_CREATE_RESOURCES": create,
    }
    node = await secure.cluster.start(more=more, ready=False)
    await until_says(node, "CLOCKWORK_KAFKA_SASL_PASSWORD")
    assert "invalid credentials" in node.logged("node.start_waits")[0]["error"]
    ready = await node.client.readyz()
    assert (ready.status, ready.body["details"]["kafka"]) == (503, "down")
    assert (await node.client.livez()).status == 200
    assert node.process.code is None
    assert len(node.logged("node.start_waits")) == len(node.logged("kafka.lost")) == 1
    said = node.log_path.read_text(encoding="utf-8") + str(ready.body)
    assert WRONG not in said


async def test_brokers_whose_certificate_is_signed_by_another_are_named(secure: Secure, tmp_path: Path) -> None:
    stranger = ca_file(trustme.CA(), tmp_path, "stranger")
    node = await secure.cluster.start(more=secure.environment | {"CLOCKWORK_KAFKA_TLS_CA": str(stranger)}, ready=False)
    await until_says(node, "CLOCKWORK_KAFKA_TLS_CA")
    assert node.process.code is None


async def until_says(node: ClusterNode, words: str) -> None:
    """Until `/readyz` names it as a reason, and the log did once."""
    await node.until_answers()

    async def look() -> bool:
        ready = await node.client.readyz()
        named = any(words in reason for reason in ready.body.get("reasons", []))
        return named and bool(node.logged("node.start_waits")) and bool(node.logged("kafka.lost"))

    await until(look, f"{words} in /readyz of {node.client.url}")
