"""Fixtures of the tests that run nodes."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from infra.local import LocalServices
from tests.support.nodes import Cluster, ClusterNode, opened_cluster


@pytest.fixture
async def cluster(services: LocalServices, tmp_path: Path) -> AsyncIterator[Cluster]:
    """A cluster of this test's own, without nodes."""
    async with opened_cluster(services, tmp_path) as opened:
        yield opened


@pytest.fixture(scope="session")
async def shared(services: LocalServices, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """One cluster for the tests that break nothing but schedules of their own; keys must be unique among them."""
    async with opened_cluster(services, tmp_path_factory.mktemp("shared")) as opened:
        yield opened


@pytest.fixture(scope="session")
async def session_node(shared: Cluster) -> ClusterNode:
    node = await shared.start()
    await node.until_works(int(shared.settings["CLOCKWORK_SHARDS"]))
    return node


@pytest.fixture
async def shared_node(session_node: ClusterNode) -> ClusterNode:
    """The node of the shared cluster, ready again if an earlier test took something away from it."""
    await session_node.until_ready()
    return session_node


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Writes a line to the terminal: a figure that was measured, and that no test asserts."""
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    capture = request.config.pluginmanager.get_plugin("capturemanager")

    def write(line: str) -> None:
        if reporter is not None and capture is not None:
            with capture.global_and_fixture_disabled():
                reporter.ensure_newline()
                reporter.write_line(f"    {line}")

    return write
