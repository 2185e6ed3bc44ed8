"""A short run of chaos, the same disturbances each time. Longer ones: `python -m tests.chaos.run`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from infra.local.node import Launch
from tests.chaos.plan import Kind, draw_plan
from tests.chaos.run import chaos
from tests.chaos.world import SESSION_TIMEOUT_MS
from tests.support.node_fixtures import launch, tell

__all__ = ["launch", "tell"]

SEED = 16
SECONDS = 45.0
"""Long enough for each kind of disturbance, with this seed."""
JOBS = 12


def test_this_run_has_each_kind_of_disturbance() -> None:
    plan = draw_plan(SEED, seconds=SECONDS, session_timeout_ms=SESSION_TIMEOUT_MS)
    assert {disturbance.kind for disturbance in plan} == set(Kind)


@pytest.mark.processes
@pytest.mark.real
@pytest.mark.timeout(300)
async def test_no_promise_is_broken_while_nodes_and_services_fail(
    tmp_path: Path, launch: Launch, tell: Callable[[str], None]
) -> None:
    # Services of its own: the broker is killed here, which no other test of the session should notice.
    result = await chaos(tmp_path, seed=SEED, seconds=SECONDS, jobs=JOBS, launch=launch)
    tell(f"chaos, seed {SEED}\n{result.text}")
    if not result.kept:
        pytest.fail(f"seed {SEED}, logs in {tmp_path}\n{result.text}")
