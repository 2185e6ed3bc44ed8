"""Nodes that are killed, paused, started and stopped under load: nothing lost, nothing twice, nothing early, in order."""

import asyncio
from collections.abc import Callable

import pytest

from tests.support.faults import HeldRequests
from tests.support.load import Load
from tests.support.nodes import SHARDS, SHORT_SESSION, Cluster, ClusterNode, node_here, now_ms, soon_ms
from tests.support.reader import count_written, read_all
from tests.support.under_load import audit, under_load, until_delivers
from tests.support.waiting import until

pytestmark = [pytest.mark.processes]

Tell = Callable[[str], None]


async def two_nodes(cluster: Cluster) -> tuple[ClusterNode, ClusterNode]:
    async with asyncio.TaskGroup() as group:
        starting = [group.create_task(cluster.start(more=SHORT_SESSION)) for _ in range(2)]
    first, second = (task.result() for task in starting)
    await first.until_works(SHARDS // 2)
    await second.until_works(SHARDS // 2)
    return first, second


async def test_a_killed_nodes_shards_are_taken_over_and_nothing_is_lost_or_twice(cluster: Cluster, tell: Tell) -> None:
    # kill -9 in the middle of passes, commits and tidy-ups. Its peer has to fence, to read the markers, and to leave out
    # what they name.
    topics = (await cluster.topic(), await cluster.topic())
    load = Load(cluster, topics)
    first, second = await two_nodes(cluster)
    load.clients = [first.client, second.client]
    async with under_load(cluster, load, *topics) as reader:
        await until_delivers(reader, load, since_ms=0)
        theirs = await first.shards()
        await first.process.kill()
        killed_ms = now_ms()
        load.clients = [second.client]
        again_ms = await until_delivers(reader, load, shards=theirs, since_ms=killed_ms)
        tell(f"after kill -9 of a node its {len(theirs)} shards deliver again in {(again_ms - killed_ms) / 1000:.2f} s")
    await audit(cluster, load, tell, *topics)


async def test_a_zombie_that_wakes_up_after_its_shards_moved_does_no_harm(cluster: Cluster, tell: Tell) -> None:
    # Frozen past its session, in the middle of whatever it was doing: passes planned, holds set, answers owed. When it
    # goes on it still believes that it owns its shards. Creates and cancels that were sent to it while it was frozen are
    # carried out then, and must be answered truly.
    topics = (await cluster.topic(), await cluster.topic())
    load = Load(cluster, topics, cancel_share=0.3)
    zombie, peer = await two_nodes(cluster)
    # Its clients give up soon, and ask its peer: the same request again settles what became of it.
    zombie.client.request_s_max = 1.0
    load.clients = [zombie.client, peer.client]
    async with under_load(cluster, load, *topics) as reader:
        since_ms = now_ms()
        await until_delivers(reader, load, since_ms=since_ms)
        theirs, rebalances = await zombie.shards(), await zombie.metric("clockwork_rebalances_total")
        zombie.process.pause()
        await peer.until_works(SHARDS)
        await until_delivers(reader, load, shards=theirs, since_ms=now_ms())
        zombie.process.resume()

        async def back(rebalances: float = rebalances) -> bool:
            return await zombie.metric("clockwork_rebalances_total") > rebalances

        await until(back, "the zombie in the group again")
        await zombie.until_works(SHARDS // 2)
        await peer.until_works(SHARDS // 2)
    await audit(cluster, load, tell, *topics)


async def test_a_commit_held_up_past_a_take_over_is_refused(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tell: Tell
) -> None:
    # The zombie at its worst moment: everything is sent, the commit is not. Its shard is taken over, the rows are there,
    # so the new owner delivers them. Then the old commit goes out; only the broker can refuse it. Half of the shards do
    # not move: theirs go out as if nothing had been.
    topic = await cluster.topic()
    # The peer waits for a release no longer than this: the first commits are still held then, and not given up.
    cluster.settings["CLOCKWORK_DRAIN_TIMEOUT_MS"] = "2000"
    commits = HeldRequests(monkeypatch, "EndTxnRequest")
    load = Load(cluster, [topic], prefix="held", lanes_per_shard=2)
    async with node_here(cluster) as (_, client):
        load.clients = [client]
        # All are due at one moment, after the last of them is there: with a transaction for each, more would be wanted than
        # a node has, and a held one never ends.
        due_ms = now_ms() + soon_ms()
        for lane in load.ordering_keys:
            await load.create(cluster.body(topic, f"of-{lane}", due_ms=due_ms, ordering_key=lane))

        async def all_held() -> bool:
            sent = await count_written(cluster.services.kafka_brokers, topic)
            return commits.waiting > 0 and sent == len(load.ledger.promises)

        await until(all_held, "each record sent, and no commit")
        peer = await cluster.start()
        theirs = await peer.until_works(SHARDS // 2)
        for promise in load.ledger.promises.values():
            if promise.shard in theirs:
                await cluster.until_status(peer.client, promise.schedule_key)
        assert peer.logged("shard.not_released")
        commits.release()
        for promise in load.ledger.promises.values():
            await cluster.until_status(peer.client, promise.schedule_key)
    load.clients = [peer.client]
    await audit(cluster, load, tell, topic)


async def test_nodes_come_and_go_under_load(cluster: Cluster, tell: Tell) -> None:
    # Each coming and going takes every shard away and gives most of them back. A node that is stopped in order drains:
    # it ends with code 0. Shards that stay where they are go on with their epoch. (at_least_once may come twice across a
    # hand-over; the audit knows.)
    topics = (await cluster.topic(), await cluster.topic())
    load = Load(cluster, topics, guarantees=("exactly_once", "exactly_once", "at_least_once"))
    first = await cluster.start()
    await first.until_works(SHARDS)
    load.clients = [first.client]
    async with under_load(cluster, load, *topics) as reader:
        await until_delivers(reader, load, since_ms=0)
        second = await cluster.start()
        load.clients = [first.client, second.client]
        await second.until_works(SHARDS // 2)
        third = await cluster.start()
        await third.until_works_some()
        load.clients = [second.client, third.client]
        assert await first.process.stop() == 0
        await third.until_works(SHARDS // 2)
        load.clients = [third.client]
        assert await second.process.stop() == 0
        await third.until_works(SHARDS)
        await until_delivers(reader, load, since_ms=now_ms())
    await audit(cluster, load, tell, *topics)


async def test_a_node_without_a_shard_is_ready_accepts_and_takes_over(cluster: Cluster) -> None:
    # Two nodes, one shard: the one without must be as useful to clients, and be there when the other one is gone.
    topic = await cluster.topic()
    cluster.settings.update({"CLOCKWORK_SHARDS": "1"} | SHORT_SESSION)
    first = await cluster.start()
    await first.until_works(1)
    second = await cluster.start()

    async def settled() -> tuple[ClusterNode, ClusterNode] | None:
        shards = [len(await node.shards()) for node in (first, second)]
        return {(1, 0): (first, second), (0, 1): (second, first)}.get((shards[0], shards[1]))

    owner, idle = await until(settled, "one of the two owns the shard")
    ready = await idle.client.readyz()
    assert (ready.status, ready.body["details"]["shardsOwned"]) == (200, 0)
    assert (await idle.client.create(cluster.body(topic, "from-idle", in_ms=300))).status == 201
    await cluster.until_status(idle.client, "from-idle")
    await owner.process.kill()
    assert (await idle.client.create(cluster.body(topic, "after-kill"))).status == 201
    await cluster.until_status(idle.client, "after-kill")
    assert len(await read_all(cluster.services.kafka_brokers, topic)) == 2
