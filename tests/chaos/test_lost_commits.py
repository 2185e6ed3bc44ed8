"""A few lost commits on a real Kafka. More of them: `python -m tests.chaos.lost_commits --drops 250`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from infra.local.node import Launch
from tests.chaos.lost_commits import LOST, lose_commits
from tests.support.node_fixtures import launch, tell

__all__ = ["launch", "tell"]

DROPS: int = 12


@pytest.mark.processes
@pytest.mark.real
@pytest.mark.timeout(300)
async def test_commits_whose_answers_are_lost_are_neither_forgotten_nor_repeated(
    tmp_path: Path, launch: Launch, tell: Callable[[str], None]
) -> None:
    # Services of its own: all that is sent to this broker goes through the proxy.
    result = await lose_commits(tmp_path, drops=DROPS, launch=launch)
    tell(result.text())
    assert result.lost.keys() == set(LOST), "each way was met"
    assert result.unknown > 0
    assert not result.broken
