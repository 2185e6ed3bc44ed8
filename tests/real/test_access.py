"""Keys and limits of a whole node, from its settings to the records in Kafka."""

from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from clockwork.access.keys import KeyEntry, hash_of, new_key
from clockwork.access.keys_command import entry
from clockwork.domain.rights import Right
from tests.support.client import Client
from tests.support.nodes import Cluster, now_ms
from tests.support.reader import read_all, reading
from tests.support.waiting import until

pytestmark = [pytest.mark.processes]

PER_SECOND = 20


def a_key(client: str, topic: str, *rights: Right) -> tuple[dict[str, str], str]:
    """The header that carries a new key, and its entry."""
    key, key_id = new_key()
    written = KeyEntry(
        id=key_id,
        name=client,
        hash=hash_of(key),
        clients=[client],
        topics=[topic],
        rights=list(rights),
    )
    return {"Authorization": f"Bearer {key}"}, entry(written)


async def test_a_node_accepts_a_key_for_as_long_as_its_file_has_the_entry(cluster: Cluster, tmp_path: Path) -> None:
    topic, other = await cluster.topic(), await cluster.topic()
    path = tmp_path / "keys.toml"
    headers, text = a_key(cluster.name, topic, Right.CREATE, Right.READ)
    path.write_text(text, encoding="utf-8")
    node = await cluster.start(more={"CLOCKWORK_AUTH": "keys", "CLOCKWORK_AUTH_KEYS_FILE": str(path)})
    body = cluster.body(topic, "a", in_ms=300)
    assert (await node.client.create(body)).status == 401
    async with aiohttp.ClientSession(headers=headers) as session:
        client = Client(session, node.client.url)
        assert (await client.create(body)).status == 201
        refused = await client.create(cluster.body(other, "b", in_ms=300))
        assert (refused.status, refused.body["errors"][0]["field"]) == (403, "delivery.topic")
        assert (await client.get("somebody", "a")).status == 403
        assert (await client.cancel(cluster.name, "a")).status == 403
        async with reading(cluster.services.kafka_brokers, topic) as reader:
            await reader.until_arrived(["a"])
        assert (await client.get(cluster.name, "a")).status == 200

        path.write_text("[[keys]", encoding="utf-8")
        await node.until_logged("auth.keys_kept")
        assert (await client.get(cluster.name, "a")).status == 200
        path.write_text("", encoding="utf-8")

        async def look() -> bool:
            return (await client.get(cluster.name, "a")).status == 401

        await until(look, "the end of the key")
    assert (await node.client.readyz()).status == 200
    said = node.log_path.read_text(encoding="utf-8")
    assert headers["Authorization"].split("_")[-1] not in said


async def test_both_processes_of_a_node_read_a_session_until_its_key_is_removed(
    cluster: Cluster, tmp_path: Path
) -> None:
    path = tmp_path / "keys.toml"
    headers, text = a_key(cluster.name, await cluster.topic(), Right.READ)
    path.write_text(text, encoding="utf-8")
    keys = {"CLOCKWORK_AUTH": "keys", "CLOCKWORK_AUTH_KEYS_FILE": str(path)}
    node = await cluster.start(more={"CLOCKWORK_PROCESSES": "2", **keys})

    async def both() -> bool:
        answered = await node.client.readyz()
        return answered.status == 200 and "down" not in answered.body["details"]["processes"].values()

    await until(both, "two processes")
    # Every request is a connection of its own: the kernel deals them out to the processes.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(
        node.client.url, connector=connector, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        async with session.get("/ui/") as page:
            assert (page.status, "default-src 'none'" in page.headers["Content-Security-Policy"]) == (200, True)
        async with session.post("/session", json={"key": headers["Authorization"].split(" ")[1]}) as answer:
            assert answer.status == 200
            cookie = answer.headers["Set-Cookie"].partition(";")[0]

        async def status() -> int:
            async with session.get("/me", headers={"clockwork-ui": "1", "Cookie": cookie}) as answer:
                return answer.status

        assert {await status() for _ in range(20)} == {200}
        path.write_text("", encoding="utf-8")

        async def look() -> bool:
            return {await status() for _ in range(20)} == {401}

        await until(look, "the end of the session")
    said = node.log_path.read_text(encoding="utf-8")
    assert cookie.rpartition(".")[2] not in said


async def test_a_client_that_has_enough_pending_is_refused_more_until_it_is_counted_anew(cluster: Cluster) -> None:
    topic = await cluster.topic()
    node = await cluster.start(more={"CLOCKWORK_CLIENT_PENDING_MAX": "20"})
    bodies = [cluster.body(topic, f"k{n}", in_ms=3_600_000) for n in range(30)]
    results = (await node.client.create_many(bodies)).body["results"]
    assert Counter(each["status"] for each in results) == {201: 20, 429: 10}
    stored = next(body for body, each in zip(bodies, results, strict=True) if each["status"] == 201)
    refused = next(body for body, each in zip(bodies, results, strict=True) if each["status"] == 429)
    over = await node.client.create(refused)
    assert (over.status, over.headers["RateLimit-Policy"]) == (429, '"pending";q=20')
    assert over.headers["RateLimit"].startswith('"pending";r=0;t=')
    assert (await node.client.create(stored)).status == 200
    # What is made due leaves the future, and so makes room; seen by the next count of the real index.
    assert (await node.client.fire(cluster.name, stored["scheduleKey"])).status == 200

    async def look() -> bool:
        return (await node.client.create(refused)).status == 201

    await until(look, "a place")
    assert (await node.client.create(cluster.body(topic, "one more", in_ms=3_600_000))).status == 429
    # Another node knows it from its own first count.
    other = await cluster.start(more={"CLOCKWORK_CLIENT_PENDING_MAX": "20"})
    assert (await other.client.create(cluster.body(topic, "elsewhere", in_ms=3_600_000))).status == 429
    assert await node.metric('clockwork_limited_total{limit="pending"}') >= 11
    assert await node.metric('clockwork_pending_counts_total{result="failed"}') == 0
    assert await node.metric('clockwork_pending_counts_total{result="counted"}') >= 2


async def test_a_catch_up_gives_a_topic_its_pace_in_order_and_holds_up_no_other(cluster: Cluster) -> None:
    # All are due before the node comes up, as after an outage: the paced topic in lanes of several shards, another
    # beside it in the same shards.
    paced, free = await cluster.topic(), await cluster.topic()
    first = await cluster.start(role="api")
    due_ms, count = now_ms(), 6 * PER_SECOND
    for number in range(count):
        lane = f"lane-{number % 6}"
        for topic, name in ((paced, "paced"), (free, "free")):
            body = cluster.body(topic, f"{name}-{number}", due_ms=due_ms + number, ordering_key=lane)
            assert (await first.client.create(body)).status == 201
    begun_ms = now_ms()
    worker = await cluster.start(role="worker", more={"CLOCKWORK_TOPIC_RATES": f"{paced}={PER_SECOND}"})
    async with reading(cluster.services.kafka_brokers, paced) as reader:
        records = await reader.until_arrived([f"paced-{number}" for number in range(count)])
    others = await read_all(cluster.services.kafka_brokers, free)
    assert len(others) == len(records) == count
    for n in range(6):
        keys = [r.schedule_key for r in records if r.key == f"lane-{n}".encode()]
        assert keys == [f"paced-{number}" for number in range(n, count, 6)]
    # A full bucket, and what came into it until the last one was planned. No second is looked at alone: what was planned in
    # several of them is sent in one if the machine stands still meanwhile.
    assert max(r.timestamp_ms for r in records) >= begun_ms + 1_000 * (count - PER_SECOND) // PER_SECOND
    assert max(r.timestamp_ms for r in others) < max(r.timestamp_ms for r in records)
    assert await worker.metric('clockwork_limited_total{limit="topic_deliveries"}') >= 1
