"""Accepting on the real services: once however often it is asked for, and what a consumer then gets."""

import asyncio

import pytest

from tests.support.nodes import Cluster, ClusterNode, now_ms, soon_ms
from tests.support.reader import read_all, reading

pytestmark = [pytest.mark.processes]

AT_ONCE = 50
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_record_bears_key_value_headers_and_time_as_promised(shared: Cluster, shared_node: ClusterNode) -> None:
    # A topic that keeps the producer's timestamps, so that ours can be seen. The bytes are not UTF-8 on purpose.
    topic = await shared.topic(broker_time=False)
    body = shared.body(topic, "shape-1", in_ms=300, ordering_key="customer ä", data="AP/+")
    body["taskDataEncoding"] = "base64"
    body["delivery"]["headers"] = {"b-kind": "ö", "a-empty": ""}
    created = await shared_node.client.create(body, headers={"traceparent": TRACEPARENT})
    assert created.status == 201, created
    text = shared.body(topic, "shape-2", data="words, not JSON")
    assert (await shared_node.client.create(text)).status == 201
    compact = shared.body(topic, "shape-3", data={"b": [1, 2], "a": "ä"})
    assert (await shared_node.client.create(compact)).status == 201

    async with reading(shared.services.kafka_brokers, topic) as reader:
        await reader.until_arrived(["shape-1", "shape-2", "shape-3"])
    by_key = {record.schedule_key: record for record in reader.records}
    record = by_key["shape-1"]
    assert record.key == "customer ä".encode()
    assert record.value == b"\x00\xff\xfe"
    assert sorted(record.headers) == sorted(
        {
            "clockwork-client-id": shared.name.encode(),
            "clockwork-schedule-key": b"shape-1",
            "clockwork-schedule-time": str(body["scheduleTime"]).encode(),
            "clockwork-delivery-id": created.body["deliveryId"].encode(),
            "b-kind": "ö".encode(),
            "a-empty": b"",
            "traceparent": TRACEPARENT.encode(),
        }.items()
    )
    assert body["scheduleTime"] <= record.timestamp_ms <= now_ms()
    assert by_key["shape-2"].value == b"words, not JSON"
    assert by_key["shape-2"].key == b"shape-2", "the schedule key stands in for a missing ordering key"
    assert by_key["shape-3"].value == '{"b":[1,2],"a":"ä"}'.encode()
    assert "traceparent" not in dict(by_key["shape-3"].headers)

    ended = await shared.until_status(shared_node.client, "shape-1")
    said = ended["delivered"]
    assert (said["topic"], said["partition"], said["offset"]) == record.place
    assert said["at"] == record.timestamp_ms
    assert said["latenessMs"] == record.timestamp_ms - body["scheduleTime"]


async def test_one_create_sent_fifty_times_at_once_is_one_schedule(shared: Cluster, shared_node: ClusterNode) -> None:
    # The race: all of them find no pointer, one transaction wins, the others must recognise their own twin.
    topic = await shared.topic()
    body = shared.body(topic, "fifty", in_ms=1_500)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(shared_node.client.create(body)) for _ in range(AT_ONCE)]
    answers = [task.result() for task in tasks]
    assert sorted(answer.status for answer in answers) == [200] * (AT_ONCE - 1) + [201]
    assert len({answer.body["deliveryId"] for answer in answers}) == 1

    await shared.until_status(shared_node.client, "fifty")
    assert (await shared_node.client.create(body)).body["status"] == "delivered", "a late repeat brings nothing back"
    assert len(await read_all(shared.services.kafka_brokers, topic)) == 1


async def test_a_key_may_be_used_again_once_its_schedule_has_ended(shared: Cluster, shared_node: ClusterNode) -> None:
    # Pending: another schedule under the key is refused. Delivered or cancelled: the key is taken over, and a late repeat
    # of what stood there before must not bring that back.
    topic = await shared.topic()
    client = shared_node.client
    first = shared.body(topic, "again", in_ms=soon_ms(), data="first")
    second = shared.body(topic, "again", in_ms=60_000, data="second")
    assert (await client.create(first)).status == 201
    refused = await client.create(second)
    assert (refused.status, refused.reason) == (409, "pending")
    assert refused.body["schedule"]["taskData"] == "first"

    await shared.until_status(client, "again")
    taken_over = await client.create(second)
    assert (taken_over.status, taken_over.body["version"]) == (201, 2)
    late_repeat = await client.create(first)
    assert (late_repeat.status, late_repeat.reason) == (409, "pending")
    assert (await client.cancel(shared.name, "again")).status == 200
    third = shared.body(topic, "again", data="third")
    assert (await client.create(third)).status == 201
    assert (await shared.until_status(client, "again"))["version"] == 3

    values = [record.value for record in await read_all(shared.services.kafka_brokers, topic)]
    assert values == [b"first", b"third"]
