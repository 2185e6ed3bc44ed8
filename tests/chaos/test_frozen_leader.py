"""One topic's leader is frozen in the middle of a load. With figures: `python -m tests.chaos.frozen_leader`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from infra.local.node import Launch
from tests.chaos.brokers import SECOND
from tests.chaos.frozen_leader import freeze
from tests.support.node_fixtures import launch, tell

__all__ = ["launch", "tell"]


@pytest.mark.processes
@pytest.mark.real
@pytest.mark.timeout(300)
async def test_a_frozen_leader_holds_up_its_own_topic_and_no_other(
    tmp_path: Path, launch: Launch, tell: Callable[[str], None]
) -> None:
    # Its Kafka partition has no other replica: the transaction in which it stopped cannot end before it is back, and the
    # transactional id with it. The rows of that one transaction wait, with their lanes; all others go by other ids.
    result = await freeze(tmp_path, replicas=(SECOND,), launch=launch)
    tell(result.text())
    assert not result.held_up
    assert result.frozen_topic_arrived > 0
    assert not result.broken
