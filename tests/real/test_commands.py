"""The second way in, on the real services: a producer's transaction, a killed node, poison, replies.

Producers are librdkafka's: what they send is what other people's programs send.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Final

import pytest
from confluent_kafka import Producer

from clockwork.node.resources import init_resources
from clockwork.settings.sources import load_settings
from infra.local import LocalServices
from infra.local.node import Launch
from tests.support.nodes import SHORT_SESSION, Cluster, ClusterNode, opened_cluster
from tests.support.reader import Arrived, read_all, reading
from tests.support.waiting import until

pytestmark = [pytest.mark.processes]

COMMANDS: Final = 500
FLUSH_S: Final = 60


@pytest.fixture
async def commanded(services: LocalServices, tmp_path: Path, launch: Launch) -> AsyncIterator[Cluster]:
    """A cluster whose nodes take commands, with its topics made."""
    async with opened_cluster(services, tmp_path, {"CLOCKWORK_COMMANDS": "on"}, launch=launch) as cluster:
        await init_resources(load_settings(cluster.environment()))
        yield cluster


def producer(cluster: Cluster, **more: Any) -> Producer:
    settings = {"bootstrap.servers": cluster.services.kafka_brokers, "partitioner": "murmur2_random", "log_level": 0}
    return Producer(settings | more)


def send(cluster: Cluster, to: Producer, documents: Iterable[Any]) -> None:
    """Each keyed by its `clientId`; bytes go as they are."""
    for document in documents:
        client_id = document["schedule"]["clientId"] if isinstance(document, dict) else cluster.name
        value = json.dumps(document) if isinstance(document, dict) else document
        to.produce(f"{cluster.name}-commands", key=client_id, value=value, headers=[("mine", b"1")])
        to.poll(0)


async def flushed(to: Producer) -> None:
    assert await asyncio.to_thread(to.flush, FLUSH_S) == 0


def create(cluster: Cluster, topic: str, key: str, **more: Any) -> dict[str, Any]:
    client = more.pop("client", cluster.name)
    told: dict[str, Any] = {name: more.pop(name) for name in ("replyTo", "correlationId") if name in more}
    return {"command": "create", "schedule": {**cluster.body(topic, key, **more), "clientId": client}, **told}


def answers(records: Iterable[Arrived]) -> dict[str, tuple[int, dict[str, Any]]]:
    """By correlation id, the last of each."""
    return {
        record.text("clockwork-correlation-id"): (int(record.text("clockwork-status")), json.loads(record.value))
        for record in records
    }


async def until_answered(cluster: Cluster, topic: str, *ids: str) -> dict[str, tuple[int, dict[str, Any]]]:
    async with reading(cluster.services.kafka_brokers, topic) as reader:

        async def look() -> bool:
            await reader.read()
            return set(ids) <= answers(reader.records).keys()

        await until(look, f"answers to {ids}")
        return answers(reader.records)


async def test_commands_are_carried_out_in_order_and_answered_where_the_producer_wants(commanded: Cluster) -> None:
    node = await commanded.start()
    topic, replies = await commanded.topic(), await commanded.topic()
    key = {"clientId": commanded.name, "scheduleKey": "one"}
    ask = producer(commanded)
    told = [{"replyTo": replies, "correlationId": name} for name in ("a", "b", "c", "d", "e")]
    send(
        commanded,
        ask,
        [
            create(commanded, topic, "one", in_ms=600_000, **told[0]),
            {"command": "reschedule", "schedule": {**key, "taskData": "moved"}, "ifVersion": 1, **told[1]},
            {"command": "cancel", "schedule": key, **told[2]},
            {"command": "cancel", "schedule": {**key, "scheduleKey": "never"}, **told[3]},
            create(commanded, topic, "two", **told[4]),
        ],
    )
    await flushed(ask)
    found = await until_answered(commanded, replies, "a", "b", "c", "d", "e")
    assert {name: status for name, (status, _) in found.items()} == {"a": 201, "b": 200, "c": 200, "d": 404, "e": 201}
    assert found["b"][1]["schedule"]["taskData"] == "moved"
    assert found["c"][1]["schedule"] == (await node.client.get(commanded.name, "one")).body
    delivered = await commanded.until_status(node.client, "two")
    assert delivered["delivered"]["topic"] == topic
    assert [r.schedule_key for r in await read_all(commanded.services.kafka_brokers, topic)] == ["two"]
    assert await node.metric('clockwork_commands_total{command="create",result="done"}') == 2


async def test_an_aborted_transaction_schedules_nothing_and_a_committed_one_all(commanded: Cluster) -> None:
    topic = await commanded.topic()
    ask = producer(commanded, **{"transactional.id": f"{commanded.name}-shop"})
    await asyncio.to_thread(ask.init_transactions, FLUSH_S)
    for prefix, ends in (("aborted", ask.abort_transaction), ("committed", ask.commit_transaction)):
        ask.begin_transaction()
        send(commanded, ask, [create(commanded, topic, f"{prefix}-{n}") for n in range(20)])
        await flushed(ask)
        await asyncio.to_thread(ends, FLUSH_S)
    node = await commanded.start()
    async with reading(commanded.services.kafka_brokers, topic) as reader:
        await reader.until_arrived([f"committed-{n}" for n in range(20)])
    for number in range(20):
        assert (await node.client.get(commanded.name, f"aborted-{number}")).status == 404
    assert len(await read_all(commanded.services.kafka_brokers, topic)) == 20


async def test_a_node_that_is_killed_among_five_hundred_commands_leaves_each_carried_out_once(
    commanded: Cluster,
) -> None:
    # Of every client: create, cancel, create under the same key. Read again, the first of them would bring back what was
    # cancelled, and the second would cancel the third.
    topic, replies = await commanded.topic(kafka_partitions=4), await commanded.topic()
    clients = [f"client-{number}" for number in range(COMMANDS // 5)]
    documents: list[dict[str, Any]] = []
    for client in clients:
        key = {"clientId": client, "scheduleKey": "k"}
        documents += [
            create(commanded, topic, "k", client=client, data="first", in_ms=3_600_000),
            {"command": "cancel", "schedule": key},
            create(commanded, topic, "k", client=client, data="second", in_ms=3_600_000),
            {"command": "reschedule", "schedule": {**key, "scheduleTime": 0}},
            create(commanded, topic, "other", client=client, replyTo=replies, correlationId=client),
        ]
    assert len(documents) == COMMANDS
    commanded.settings.update(SHORT_SESSION)
    node = await commanded.start(role="api")
    ask = producer(commanded)
    send(commanded, ask, documents[: COMMANDS // 2])
    await flushed(ask)

    async def in_the_middle() -> bool:
        return await done_by(node) >= COMMANDS // 10

    await until(in_the_middle, "some commands carried out")
    await node.process.kill()
    # The other half now: where this machine stood still, the node may have carried out all of the first.
    send(commanded, ask, documents[COMMANDS // 2 :])
    await flushed(ask)
    other = await commanded.start()
    await until_answered(commanded, replies, *clients)

    async def all_there() -> bool:
        return len(await read_all(commanded.services.kafka_brokers, topic)) >= 2 * len(clients)

    await until(all_there, "all records")
    arrived = await read_all(commanded.services.kafka_brokers, topic)
    seen = sorted((record.client_id, record.schedule_key, record.value) for record in arrived)
    other_value, second = json.dumps({"key": "other"}, separators=(",", ":")).encode(), b"second"
    assert seen == sorted(
        [(client, "k", second) for client in clients] + [(client, "other", other_value) for client in clients]
    )
    assert await done_by(other) > 0
    for client in clients:
        history = await other.client.get(client, "k")
        assert (history.body["version"], history.body["status"]) == (3, "delivered"), "created, created again, moved"
    assert not await read_all(commanded.services.kafka_brokers, commanded.dead_letters)


async def done_by(node: ClusterNode) -> float:
    metrics = [f'clockwork_commands_total{{command="{c}",result="done"}}' for c in ("create", "cancel", "reschedule")]
    return sum([await node.metric(series) for series in metrics])


async def test_poison_is_a_dead_letter_with_its_own_headers_and_the_next_command_has_its_turn(
    commanded: Cluster,
) -> None:
    node = await commanded.start()
    topic = await commanded.topic()
    ask = producer(commanded)
    wrong = create(commanded, topic, "wrong")
    wrong["schedule"]["scheduleTime"] = -1
    large = create(commanded, topic, "large", data="x" * 300_000)
    send(
        commanded, ask, [b"\x00 no JSON", {**wrong, "command": "dance"}, wrong, large, create(commanded, topic, "good")]
    )
    await flushed(ask)
    await commanded.until_status(node.client, "good")
    letters = await read_all(commanded.services.kafka_brokers, commanded.dead_letters)
    reasons = {record.text("clockwork-reason"): record for record in letters}
    assert reasons.keys() == {"command_not_json", "command_unknown", "command_invalid", "command_too_large"}
    assert reasons["command_not_json"].value == b"\x00 no JSON"
    assert all(record.text("mine") == "1" for record in letters)
    assert "schedule.scheduleTime" in reasons["command_invalid"].text("clockwork-detail")


async def test_commands_are_handed_over_when_a_node_stops_and_another_comes(commanded: Cluster) -> None:
    # Two nodes, so that what one has is taken over by the other: SIGTERM in the middle is a hand-over like any other.
    first = await commanded.start()
    topic = await commanded.topic()
    ask = producer(commanded)
    send(commanded, ask, [create(commanded, topic, f"k-{n}", ordering_key="one") for n in range(100)])
    await flushed(ask)

    async def begun() -> bool:
        return await done_by(first) > 0

    await until(begun, "the first commands")
    second = await commanded.start()
    await first.process.stop()
    async with reading(commanded.services.kafka_brokers, topic) as reader:
        await reader.until_arrived([f"k-{n}" for n in range(100)])
        assert sorted(r.schedule_key for r in reader.records) == sorted(f"k-{n}" for n in range(100))
    assert (await second.client.get(commanded.name, "k-99")).status == 200
