"""A node of two processes on the real services."""

import os
import signal
from collections.abc import Callable

import psutil
import pytest

from tests.support.load import Load
from tests.support.nodes import SHARDS, SHORT_SESSION, Cluster, ClusterNode, now_ms
from tests.support.under_load import audit, under_load, until_delivers
from tests.support.waiting import until

pytestmark = [pytest.mark.processes]


async def _until_shared(node: ClusterNode) -> None:
    """Returns when each of the two processes owns half of the shards."""

    async def look() -> bool:
        answered = await node.client.readyz()
        each = answered.body["details"]["processes"].values() if answered.status == 200 else ()
        return [state["shardsOwned"] for state in each if state != "down"] == [SHARDS // 2] * 2

    await until(look, "two processes with half of the shards each")


async def test_a_killed_process_of_a_node_is_started_again_and_nothing_is_lost_or_doubled(
    cluster: Cluster, tell: Callable[[str], None]
) -> None:
    # kill -9 of one of two under load: its shards move or wait, the port stays open, the parent starts it again, and at
    # the end one SIGTERM drains all of it.
    topic = await cluster.topic()
    node = await cluster.start(more={"CLOCKWORK_PROCESSES": "2"} | SHORT_SESSION)
    await _until_shared(node)
    load = Load(cluster, [topic])
    load.clients = [node.client]
    async with under_load(cluster, load, topic) as reader:
        await until_delivers(reader, load, since_ms=now_ms())
        victim = node.logged("process.started")[1]
        os.kill(victim["pid"], signal.SIGKILL)
        await node.until_logged("process.started", times=3)
        assert node.logged("process.started")[2]["number"] == victim["number"]
        await _until_shared(node)
        await until_delivers(reader, load, since_ms=now_ms())
    await audit(cluster, load, tell, topic)
    assert node.process.code == 0
    assert {line["sibling"] for line in node.logged("node.stopped")} == {0, 1}


async def test_processes_end_by_themselves_when_their_parent_was_killed(cluster: Cluster) -> None:
    # No process is left to stop them; a new parent wants their port.
    node = await cluster.start(more={"CLOCKWORK_PROCESSES": "2"})
    await _until_shared(node)
    # The parent alone: to kill the node would end all of its processes.
    parent = psutil.Process(node.logged("process.started")[0]["pid"]).parent()
    assert parent is not None
    parent.kill()
    await node.until_logged("node.stopped", times=2)
    assert len(node.logged("process.orphaned")) == 2
