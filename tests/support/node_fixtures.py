"""Fixtures of the tests that run nodes."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from infra.local import LocalServices
from infra.local.node import Launch, Store
from tests.support.forks import Template
from tests.support.nodes import Cluster, ClusterNode, opened_cluster
from tests.support.timing import TOLD

on_each_store = pytest.mark.parametrize("kind", ["dynamodb", "postgresql"], indirect=True)
"""Runs a test with a cluster of its own once for each store."""


@pytest.fixture
async def kind(request: pytest.FixtureRequest, services: LocalServices) -> Store:
    """The store of the test's cluster, which is running: DynamoDB, unless the test is marked `on_each_store`."""
    chosen: Store = getattr(request, "param", "dynamodb")
    if chosen == "postgresql":
        await services.start_postgres()
    return chosen


@pytest.fixture(scope="session")
def launch() -> Iterator[Launch]:
    """Starts the processes of nodes, as forks: for tests that are not about the start of Python."""
    with Template() as template:
        yield template.launch


@pytest.fixture
async def cluster(services: LocalServices, tmp_path: Path, kind: Store, launch: Launch) -> AsyncIterator[Cluster]:
    """A cluster of this test's own, without nodes."""
    async with opened_cluster(services, tmp_path, store=kind, launch=launch) as opened:
        yield opened


@pytest.fixture(scope="session")
async def shared(
    services: LocalServices, tmp_path_factory: pytest.TempPathFactory, launch: Launch
) -> AsyncIterator[Cluster]:
    """One cluster for the tests that break nothing but schedules of their own; keys must be unique among them."""
    async with opened_cluster(services, tmp_path_factory.mktemp("shared"), launch=launch) as opened:
        yield opened


@pytest.fixture(scope="module")
async def module_node(shared: Cluster) -> AsyncIterator[ClusterNode]:
    """A node of the shared cluster for one file's tests. Beside other tests it would have nothing to do, and with the store
    and Kafka, which it asks all the time, still take a tenth of a core from them, or two."""
    node = await shared.start()
    await node.until_works(int(shared.settings["CLOCKWORK_SHARDS"]))
    yield node
    await node.process.stop()


@pytest.fixture
async def shared_node(module_node: ClusterNode) -> ClusterNode:
    """The node of the shared cluster, ready again if an earlier test took something away from it."""
    await module_node.until_ready()
    return module_node


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Notes a figure that was measured, and that no test asserts: it is printed at the end of the run, also if the test ran
    in a worker."""
    return lambda line: record_property(TOLD, line)
