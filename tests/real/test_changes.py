"""Changes on the real services: whatever a PUT, a fire or a retry answers is what a consumer then sees."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from clockwork.domain import record as names
from clockwork.domain.schedule import OrderingKey
from clockwork.domain.sharding import shard_of
from tests.support.client import Answered
from tests.support.nodes import SHARDS, Cluster, ClusterNode, now_ms, soon_ms
from tests.support.reader import Arrived, read_all, reading
from tests.support.waiting import until

pytestmark = [pytest.mark.processes]

AT_DUE_TIME = 60
AT_ONCE = 50
HOUR_MS = 3_600_000


async def test_a_put_right_after_its_create_finds_it_and_moves_it(shared: Cluster, shared_node: ClusterNode) -> None:
    # An index that lags would answer 404 here. The old time comes and goes before the new one: what still stood there
    # would be seen.
    topic, other = await shared.topic(), await shared.topic()
    client = shared_node.client
    ahead_ms = soon_ms()

    async def one(key: str) -> None:
        created = await client.create(shared.body(topic, key, in_ms=ahead_ms))
        changes = {"scheduleTime": now_ms() + ahead_ms + 500, "taskData": "moved", "delivery": {"topic": other}}
        put = await client.put(shared.name, key, changes)
        assert (put.status, put.headers["ETag"]) == (200, '"2"'), put
        assert put.body == (await client.get(shared.name, key)).body
        assert put.body["deliveryId"] != created.body["deliveryId"]

    keys = [f"put-right-after-{number}" for number in range(20)]
    async with asyncio.TaskGroup() as group:
        for key in keys:
            group.create_task(one(key))
    for key in keys:
        ended = await shared.until_status(client, key)
        assert ended["delivered"]["topic"] == other
        assert (await client.put(shared.name, key, {"taskData": 1})).reason == "delivered"
    arrived = await read_all(shared.services.kafka_brokers, other)
    assert sorted(record.schedule_key for record in arrived) == sorted(keys)
    assert all(record.value == b"moved" for record in arrived)
    assert await read_all(shared.services.kafka_brokers, topic) == []


async def test_a_put_at_the_very_due_time_is_answered_truly(
    shared: Cluster, shared_node: ClusterNode, tell: Callable[[str], None]
) -> None:
    # The race of the whole protocol: hold, look and decide against frontier, read and commit. Moved, or delivered at the
    # old time; never both, never neither.
    topic = await shared.topic()
    client = shared_node.client
    ahead_ms = soon_ms()
    bodies = [
        shared.body(topic, f"put-due-{n}", in_ms=ahead_ms + 17 * n, ordering_key=f"put-lane-{n % 20}")
        for n in range(AT_DUE_TIME)
    ]

    async def one(n: int, body: dict[str, Any]) -> Answered:
        assert (await client.create(body)).status == 201
        # The first one at once: it has time enough, whatever this machine does.
        await asyncio.sleep(max(0, body["scheduleTime"] - (450 - 10 * n if n else HOUR_MS) - now_ms()) / 1_000)
        moved = {"scheduleTime": body["scheduleTime"] + 1_500}
        put = await _answered(lambda: client.put(shared.name, body["scheduleKey"], moved))
        assert put.status in (200, 409), put
        return put

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(n, body)) for n, body in enumerate(bodies)]
    answers = {body["scheduleKey"]: task.result() for body, task in zip(bodies, tasks, strict=True)}
    async with reading(shared.services.kafka_brokers, topic) as reader:
        await reader.until_arrived(answers)
    ends = {key: await shared.until_status(client, key) for key in answers}
    arrived = await read_all(shared.services.kafka_brokers, topic)
    assert Counter(record.schedule_key for record in arrived) == Counter(list(answers))
    for record in arrived:
        _check(record, ends[record.schedule_key], answers[record.schedule_key])
    said = Counter(answer.reason or "moved" for answer in answers.values())
    tell(f"puts around the due time: {dict(said)}")
    assert said["moved"], "the earliest of them had time enough"


def _check(record: Arrived, ended: dict[str, Any], answer: Answered) -> None:
    assert record.text(names.DELIVERY_ID) == ended["deliveryId"]
    assert record.timestamp_ms >= ended["scheduleTime"] == int(record.text(names.SCHEDULE_TIME))
    assert ended["version"] == (2 if answer.status == 200 else 1)
    if answer.status == 200:
        assert ended["deliveryId"] == answer.body["deliveryId"]


async def test_a_put_of_the_ordering_key_moves_the_schedule_to_another_shard(
    shared: Cluster, shared_node: ClusterNode
) -> None:
    topic = await shared.topic()
    client = shared_node.client
    old, new = (
        (key := "put-shard"),
        next(
            f"other-{n}"
            for n in range(1_000)
            if shard_of(OrderingKey(f"other-{n}"), SHARDS) != shard_of(OrderingKey(key), SHARDS)
        ),
    )
    due_ms = now_ms() + soon_ms()
    for name, lane in ((key, old), ("put-shard-before", new)):
        assert (await client.create(shared.body(topic, name, due_ms=due_ms, ordering_key=lane))).status == 201
    put = await client.put(shared.name, key, {"orderingKey": new})
    assert (put.status, put.body["shard"]) == (200, shard_of(OrderingKey(new), SHARDS))
    await shared.until_status(client, key)
    await shared.until_status(client, "put-shard-before")
    arrived = await read_all(shared.services.kafka_brokers, topic)
    # Accepted later, so behind what stood in that lane with the same due time.
    assert [(r.schedule_key, r.key) for r in arrived] == [("put-shard-before", new.encode()), (key, new.encode())]


async def test_fifty_puts_at_once_are_made_one_after_the_other(
    shared: Cluster, shared_node: ClusterNode, tell: Callable[[str], None]
) -> None:
    # Each takes the others' holds off the row. Who loses too often is told so; of the others each has a version of its own.
    topic = await shared.topic()
    client = shared_node.client
    assert (await client.create(shared.body(topic, "fifty-puts", in_ms=HOUR_MS))).status == 201
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(client.impatient.put(shared.name, "fifty-puts", {"taskData": n}), name=f"put-{n}")
            for n in range(AT_ONCE)
        ]
    answers = [task.result() for task in tasks]
    assert {answer.status for answer in answers} <= {200, 409, 503}
    assert {answer.reason for answer in answers if answer.status == 409} <= {"in_flight"}
    by_version = sorted((a.body["version"], a.body["taskData"]) for a in answers if a.status == 200)
    tell(f"{len(by_version)} of {AT_ONCE} puts at once were made; {Counter(a.status for a in answers)}")
    assert len({version for version, _ in by_version}) == len(by_version)
    now = (await client.get(shared.name, "fifty-puts")).body
    if all(answer.status != 503 for answer in answers):
        assert [version for version, _ in by_version] == list(range(2, len(by_version) + 2))
        assert (now["version"], now["taskData"]) == by_version[-1]

    stale = await client.put(shared.name, "fifty-puts", {"taskData": "stale"}, if_match='"1"')
    assert stale.status == 412
    fresh = await client.put(shared.name, "fifty-puts", {"taskData": "fresh"}, if_match=f'"{now["version"]}"')
    again = await client.put(shared.name, "fifty-puts", {"taskData": "fresh"}, if_match=f'"{now["version"]}"')
    assert (fresh.status, again.status, again.body) == (200, 200, fresh.body)
    assert (await client.cancel(shared.name, "fifty-puts")).status == 200
    assert (await client.put(shared.name, "fifty-puts", {"taskData": 1})).reason == "cancelled"


async def test_a_fired_schedule_arrives_now_and_once(shared: Cluster, shared_node: ClusterNode) -> None:
    topic = await shared.topic()
    client = shared_node.client
    body = shared.body(topic, "fired", in_ms=HOUR_MS)
    assert (await client.create(body)).status == 201
    fired = await client.fire(shared.name, "fired")
    assert (fired.status, fired.body["version"]) == (200, 2)
    assert fired.body["scheduleTime"] <= now_ms()
    ended = await shared.until_status(client, "fired")
    assert (await client.fire(shared.name, "fired")).reason == "delivered"
    assert (await client.create(body)).body == ended, "the create is still known by its digest"
    (record,) = await read_all(shared.services.kafka_brokers, topic)
    assert record.text(names.DELIVERY_ID) == fired.body["deliveryId"] == ended["deliveryId"]
    assert (await client.fire(shared.name, "never-heard-of")).status == 404


async def test_a_failed_schedule_is_armed_again_once_and_delivered(shared: Cluster, shared_node: ClusterNode) -> None:
    # Its topic refused it for its size; then the topic's limit was raised.
    topic = await shared.topic(config={"max.message.bytes": "400"})
    client = shared_node.client
    body = shared.body(topic, "armed", data="x" * 2_000)
    assert (await client.create(body)).status == 201
    assert (await client.retry(shared.name, "armed")).status == 409
    failed = await shared.until_status(client, "armed", "failed")
    await shared.configure_topic(topic, {"max.message.bytes": "100000"})
    first = await client.retry(shared.name, "armed", {"scheduleTime": now_ms() + soon_ms()})
    assert first.status == 200
    again = await client.retry(shared.name, "armed")
    assert (again.status, again.body) == (200, first.body)
    assert (first.body["version"], first.body["status"]) == (2, "pending")
    assert first.body["deliveryId"] != failed["deliveryId"]
    await shared.until_status(client, "armed")
    arrived = await read_all(shared.services.kafka_brokers, topic)
    (record,) = [record for record in arrived if record.schedule_key == "armed"]
    assert record.value == b"x" * 2_000
    assert (await client.retry(shared.name, "armed")).reason == "delivered"


async def test_what_was_dropped_for_lateness_is_armed_again_with_its_whole_deadline(
    shared: Cluster, shared_node: ClusterNode
) -> None:
    topic = await shared.topic()
    client = shared_node.client
    body = shared.body(topic, "late", in_ms=-20_000)
    body["delivery"] |= {"deadline": 10_000, "onLate": "drop"}
    assert (await client.create(body)).status == 201
    failed = await shared.until_status(client, "late", "failed")
    assert failed["failed"]["reason"] == "expired"
    armed = await client.retry(shared.name, "late")
    assert (armed.status, armed.body["delivery"]) == (200, failed["delivery"])
    await shared.until_status(client, "late")
    (record,) = await read_all(shared.services.kafka_brokers, topic)
    assert record.text(names.DELIVERY_ID) == armed.body["deliveryId"]


async def test_a_put_that_sets_a_deadline_is_heeded(shared: Cluster, shared_node: ClusterNode) -> None:
    topic = await shared.topic()
    client = shared_node.client
    assert (await client.create(shared.body(topic, "set-late", in_ms=HOUR_MS))).status == 201
    late = {"scheduleTime": now_ms() - 20_000, "delivery": {"deadline": 10_000, "onLate": "dead_letter"}}
    assert (await client.put(shared.name, "set-late", late)).status == 200
    failed = await shared.until_status(client, "set-late", "failed")
    assert (failed["failed"]["reason"], failed["version"]) == ("expired", 2)
    assert await read_all(shared.services.kafka_brokers, topic) == []


async def _answered(ask: Callable[[], Any]) -> Answered:
    """After a 503 the same request again settles it."""

    async def look() -> Answered | None:
        answered: Answered = await ask()
        return answered if answered.status != 503 else None

    return await until(look, "an answer")
