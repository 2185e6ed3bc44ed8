"""Lists and histories on the real services: complete while everything moves, and never in contradiction to a read."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import pytest

from tests.support.client import Client
from tests.support.nodes import Cluster, ClusterNode
from tests.support.waiting import until

pytestmark = [pytest.mark.processes]

STILL = 1_000
FAR_MS = 3_600_000
Tell = Callable[[str], None]


async def create_all(client: Client, bodies: list[dict[str, object]]) -> None:
    for start in range(0, len(bodies), 1_000):
        results = (await client.create_many(bodies[start : start + 1_000])).body["results"]
        assert {result["status"] for result in results} == {201}


async def test_paging_finds_each_untouched_schedule_once_while_others_come_and_go(cluster: Cluster, tell: Tell) -> None:
    topic = await cluster.topic()
    node = await cluster.start()
    client, chance, loop = node.client, random.Random(7), asyncio.get_running_loop()
    still = {f"still-{n}" for n in range(STILL)}
    in_between = [cluster.body(topic, key, in_ms=FAR_MS + chance.randrange(100_000)) for key in sorted(still)]
    await create_all(client, in_between)

    async def indexed() -> bool:
        return len(await client.listed(cluster.name, limit=1_000)) == STILL

    await until(indexed, "all of them in the index")
    over = asyncio.Event()
    changes = 0

    async def come_and_go() -> None:
        nonlocal changes
        while not over.is_set():
            keys = [f"moving-{changes + n}" for n in range(20)]
            # Before, behind and at the cursor; some are due at once.
            due_in_ms = [chance.choice([0, FAR_MS + chance.randrange(100_000)]) for _ in keys]
            await client.create_many(
                [cluster.body(topic, key, in_ms=in_ms) for key, in_ms in zip(keys, due_in_ms, strict=True)]
            )
            await client.cancel_many(cluster.name, keys)
            changes += len(keys)

    async with asyncio.TaskGroup() as group:
        group.create_task(come_and_go())
        try:
            for filters in ({"limit": 230}, {"limit": 150, "status": "pending"}, {"limit": 330, "topic": topic}):
                began_s = loop.time()
                found = Counter(each["scheduleKey"] for each in await client.listed(cluster.name, **filters))
                tell(f"{STILL} and more listed by {filters} in {loop.time() - began_s:.2f} s")
                assert {key: count for key, count in found.items() if key in still} == dict.fromkeys(still, 1)
        finally:
            over.set()
    assert changes


async def test_a_list_shows_what_a_get_shows_whatever_became_of_it(shared: Cluster, shared_node: ClusterNode) -> None:
    topic = await shared.topic()
    client = shared_node.client
    bodies = [shared.body(topic, f"shown-{n}", in_ms=200 if n < 5 else FAR_MS, data="ä" * n) for n in range(15)]
    await create_all(client, bodies)
    for n in range(5):
        await shared.until_status(client, f"shown-{n}")
    await client.cancel_many(shared.name, [f"shown-{n}" for n in range(5, 10)])
    read = {f"shown-{n}": (await client.get(shared.name, f"shown-{n}")).body for n in range(15)}

    async def listed(**filters: object) -> dict[str, object]:
        return {each["scheduleKey"]: each for each in await client.listed(shared.name, topic=topic, **filters)}

    async def indexed() -> bool:
        return await listed() == read

    await until(indexed, "the list and the reads are the same")
    for status, numbers in (("delivered", range(5)), ("cancelled", range(5, 10)), ("pending", range(10, 15))):
        assert await listed(status=status) == {f"shown-{n}": read[f"shown-{n}"] for n in numbers}
    assert await listed(orderingKey="shown-12") == {"shown-12": read["shown-12"]}
    due_ms = bodies[12]["scheduleTime"]
    assert "shown-12" in await listed(dueFrom=due_ms, dueTo=due_ms + 1)
    assert "shown-12" not in await listed(dueTo=due_ms)


async def test_a_history_tells_what_became_of_a_key_the_last_one_first(
    shared: Cluster, shared_node: ClusterNode
) -> None:
    topic = await shared.topic()
    client = shared_node.client
    assert (await client.history(shared.name, "told")).status == 404
    assert (await client.create(shared.body(topic, "told", in_ms=FAR_MS, data="first"))).status == 201
    assert (await client.history(shared.name, "told")).body["schedules"] == []
    assert (await client.cancel(shared.name, "told")).status == 200
    assert (await client.create(shared.body(topic, "told", in_ms=200, data="second"))).status == 201
    delivered = await shared.until_status(client, "told")

    told = (await client.history(shared.name, "told")).body

    assert [each["status"] for each in told["schedules"]] == ["delivered", "cancelled"]
    assert [each["taskData"] for each in told["schedules"]] == ["second", "first"]
    assert told["schedules"][0]["delivered"] == delivered["delivered"]
    assert told["cursor"] is None


async def test_without_search_there_are_no_lists_and_no_index_and_all_else_works(cluster: Cluster) -> None:
    topic = await cluster.topic()
    node = await cluster.start(more={"CLOCKWORK_SEARCH": "off"})
    assert (await node.client.create(cluster.body(topic, "unlisted"))).status == 201

    assert (await node.client.page(cluster.name)).status == 501
    await cluster.until_status(node.client, "unlisted")
    assert len((await node.client.history(cluster.name, "unlisted")).body["schedules"]) == 1
