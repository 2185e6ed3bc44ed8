"""Dead letters of a client with a topic of its own, which is small, missing, or back again: none is lost or doubled."""

import asyncio
import json

import pytest

from clockwork.domain.record import DEAD_REASON
from tests.support.commands import admin
from tests.support.nodes import Cluster, ClusterNode, soon_ms
from tests.support.reader import read_all

pytestmark = [pytest.mark.processes]

SMALL_BYTES = 4_096
LARGE = "x" * 3 * SMALL_BYTES


async def fail_all(cluster: Cluster, node: ClusterNode, data: dict[str, object]) -> None:
    """Both guarantees, each in a lane of its own; the topic is gone when they are due."""
    topic = await cluster.topic()
    bodies = [
        cluster.body(topic, f"{key}-{guarantee}", in_ms=soon_ms(), data=value, guarantee=guarantee)
        for key, value in data.items()
        for guarantee in ("exactly_once", "at_least_once")
    ]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(node.client.create(body)) for body in bodies]
    assert {task.result().status for task in tasks} == {201}
    await cluster.delete_topic(topic)
    for body in bodies:
        await cluster.until_status(node.client, body["scheduleKey"], "failed")


async def letters_in(cluster: Cluster, topic: str) -> list[str]:
    found = await read_all(cluster.services.kafka_brokers, topic)
    assert {record.text(DEAD_REASON) for record in found} <= {"topic_missing"}
    return sorted(record.schedule_key for record in found)


def both(*keys: str) -> list[str]:
    return sorted(f"{key}-{guarantee}" for key in keys for guarantee in ("exactly_once", "at_least_once"))


async def start(cluster: Cluster, own: str) -> ClusterNode:
    settings = {"CLOCKWORK_DEAD_LETTER_TOPICS": f"{cluster.name}={own},other=other-{own}"}
    return await cluster.start(more={"CLOCKWORK_TOPIC_WAIT_MS": "300", **settings})


@pytest.mark.parametrize("limit", ["known", "lowered"])
async def test_what_is_too_large_for_the_clients_topic_is_in_the_clusters_and_the_rest_is_in_its_own(
    cluster: Cluster, limit: str
) -> None:
    # Known: seen before anything is sent. Lowered by hand after the node has looked: the broker refuses it inside the
    # transaction, and what is innocent goes again in the next one.
    small = {"max.message.bytes": str(SMALL_BYTES)}
    own = await cluster.topic(config=small if limit == "known" else None)
    node = await start(cluster, own)
    if limit == "lowered":
        await fail_all(cluster, node, {"before": 1})
        await cluster.configure_topic(own, small)
    await fail_all(cluster, node, {"small": 1, "large": LARGE})
    before = ["before"] if limit == "lowered" else []
    assert await letters_in(cluster, own) == both("small", *before)
    assert await letters_in(cluster, cluster.dead_letters) == both("large")
    assert await node.metric('clockwork_dead_letters_total{where="client"}') == 2 * (1 + len(before))
    assert await node.metric('clockwork_dead_letters_total{where="turned_away"}') == 2
    assert {line["topic"] for line in node.logged("dead_letter.turned_away")} == {own}


async def test_letters_lie_in_the_clusters_topic_while_the_clients_is_missing_and_are_listed_wherever_they_lie(
    cluster: Cluster,
) -> None:
    own = await cluster.topic()
    await cluster.delete_topic(own)
    node = await start(cluster, own)
    assert any(own in line["warning"] for line in node.logged("check.warning"))
    await fail_all(cluster, node, {"before": 1})
    assert await listed(node) == [(cluster.dead_letters, key) for key in both("before")]
    await cluster.make_topic(own)
    await fail_all(cluster, node, {"after": 1})
    assert await letters_in(cluster, own) == both("after")
    assert await letters_in(cluster, cluster.dead_letters) == both("before")
    assert await listed(node) == sorted(
        [(cluster.dead_letters, key) for key in both("before")] + [(own, key) for key in both("after")]
    )
    assert await listed(node, "--in", own) == [(own, key) for key in both("after")]


async def listed(node: ClusterNode, *arguments: str) -> list[tuple[str, str]]:
    told = await admin(node, "dead-letters", "list", "--json", *arguments)
    found = map(json.loads, told.splitlines())
    return sorted((each["deadLetterTopic"], each["scheduleKey"]) for each in found)
