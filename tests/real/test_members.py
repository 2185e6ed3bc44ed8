"""Static members: a restart moves no shard, and who leaves for good hands over at once."""

import asyncio
import sys
from typing import Final

import pytest

from tests.support.load import Load
from tests.support.nodes import SHARDS, Cluster, ClusterNode, now_ms
from tests.support.under_load import audit, under_load, until_delivers

pytestmark = [pytest.mark.processes]

LONG_SESSION_MS: Final = 120_000
"""Longer than any wait of these tests: whatever moves here does not move because a session ended."""


async def member(cluster: Cluster, name: str) -> ClusterNode:
    settings = {"CLOCKWORK_INSTANCE_ID": name, "CLOCKWORK_SESSION_TIMEOUT_MS": str(LONG_SESSION_MS)}
    return await cluster.start(more=settings)


async def test_nodes_that_are_restarted_one_after_the_other_keep_their_shards(cluster: Cluster) -> None:
    topic = await cluster.topic()
    load = Load(cluster, [topic])
    first, second = await member(cluster, "first"), await member(cluster, "second")
    await second.until_works(SHARDS // 2)
    theirs = {"first": await first.until_works(SHARDS // 2), "second": await second.shards()}
    load.clients = [first.client]
    async with under_load(cluster, load, topic) as reader:
        await until_delivers(reader, load, since_ms=0)
        assert await second.process.stop() == 0
        second = await member(cluster, "second")
        load.clients = [second.client]
        assert await second.until_works(SHARDS // 2) == theirs["second"]
        assert await first.process.stop() == 0
        first = await member(cluster, "first")
        load.clients = [first.client, second.client]
        assert await first.until_works(SHARDS // 2) == theirs["first"]
        assert await second.shards() == theirs["second"]
        # Only its own coming made it an owner; the other's restart asked nothing of it.
        assert await second.metric("clockwork_rebalances_total") == 1
        await until_delivers(reader, load, since_ms=now_ms())
    await audit(cluster, load, lambda _: None, topic)


async def leave(cluster: Cluster, name: str | None) -> tuple[int | None, str]:
    """`python -m clockwork leave`, and what it says on standard error."""
    more = {"CLOCKWORK_INSTANCE_ID": name} if name is not None else {}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "clockwork",
        "leave",
        env=cluster.environment(more),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    return process.returncode, said.decode()


async def test_a_member_that_leaves_for_good_hands_its_shards_over_at_once(cluster: Cluster) -> None:
    stays, goes = await member(cluster, "stays"), await member(cluster, "goes")
    await goes.until_works(SHARDS // 2)
    await stays.until_works(SHARDS // 2)
    assert await goes.process.stop() == 0

    assert (await leave(cluster, "goes"))[0] == 0

    await stays.until_works(SHARDS)
    assert (await leave(cluster, "goes"))[0] == 0  # once more: it is gone already
    code, said = await leave(cluster, None)
    assert code == 2
    assert "CLOCKWORK_INSTANCE_ID" in said
