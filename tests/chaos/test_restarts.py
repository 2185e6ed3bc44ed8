"""A rolling restart and a scale-down, once; the same as `python -m tests.chaos.restarts`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from infra.local import LocalServices
from infra.local.node import Launch
from tests.chaos.restarts import SETTINGS, leave, restarts
from tests.support.node_fixtures import launch, tell
from tests.support.nodes import opened_cluster

__all__ = ["launch", "tell"]


@pytest.mark.processes
@pytest.mark.real
async def test_a_rolling_restart_of_static_members_moves_no_shard_and_a_leave_hands_over(
    services: LocalServices, tmp_path: Path, launch: Launch, tell: Callable[[str], None]
) -> None:
    # How late anything was is shown, and not asserted: a machine that pauses is late without a defect.
    async with opened_cluster(services, tmp_path, SETTINGS, launch=launch) as cluster:
        report = await restarts(cluster)
        assert (await leave(cluster, report.removed.name)).code == 0, "to leave again changes nothing"
        nameless = await leave(cluster, None)
        assert nameless.code == 2
        assert "CLOCKWORK_INSTANCE_ID" in nameless.stderr
    tell(report.text())
    assert not report.broken
    # By SIGUSR1 a node says so itself; the group knew it until then.
    assert [line["was_member"] for node in cluster.nodes for line in node.logged("group.left_for_good")] == [True]
    assert [(change.moved, change.rebalances) for change in report.restarts] == [(0, 0)] * len(report.restarts)
