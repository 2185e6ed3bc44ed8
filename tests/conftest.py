"""Fixtures of every test: the real services, if it asks for them, and an event loop that it leaves as it found it."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from tests.simulation import selection
from tests.support import timing
from tests.support.endings import end_all
from tests.support.workers import TwoEndedScheduling, rank

if TYPE_CHECKING:
    from infra.local import LocalServices

# No limit per example: a busy machine is no failure. What failed is printed so that it can be run again.
settings.register_profile("clockwork", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("clockwork")

_REAL_FIXTURE = "services"


@pytest.fixture(scope="session")
async def services() -> AsyncIterator["LocalServices"]:
    """A real Kafka and a real DynamoDB Local, started for the first test that asks and shared by all. Tests keep apart
    by using table names, topics and a cluster name of their own."""
    # Not imported at the top: the tests of the rules run without the packages that these services come from.
    from infra.local import LocalServices

    async with LocalServices() as running:
        yield running


@pytest.fixture(scope="session")
async def postgres_url(services: "LocalServices") -> str:
    """The database, for any schemas."""
    await services.start_postgres()
    return services.postgres_url


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that use the real services, directly or through another fixture, and runs their files last: a
    broken rule is known at once."""
    for item in items:
        if _REAL_FIXTURE in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real)
    items.sort(key=lambda item: rank(item.nodeid))


def pytest_report_header() -> str:
    """Says how much of the simulation runs, and by which draw."""
    return f"simulation: {selection.text()}"


@pytest.hookimpl(optionalhook=True)  # absent with -p no:xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> TwoEndedScheduling:
    """Distributes the tests if they run in several workers."""
    return TwoEndedScheduling(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints figures that tests have noted, and where the time went, unless it was asked to be quiet."""
    if config.get_verbosity() < 0:
        return
    reports = [each for kind in terminalreporter.stats.values() for each in kind if isinstance(each, pytest.TestReport)]
    if told := timing.told_lines(reports):
        terminalreporter.write_sep("=", "figures")
        for line in told:
            terminalreporter.write_line(line)
    terminalreporter.write_sep("=", "time by folder and by file")
    for line in (*timing.time_lines(reports), timing.cpu_line()):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
async def _session_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


@pytest.fixture(autouse=True)
def _no_task_outlives_its_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests share one event loop, as the services do. A task that a test leaves behind would run on in the next one,
    and its error would be blamed on that; so the test that started it fails, and the task is cancelled."""
    if not inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        yield
        return
    loop: asyncio.AbstractEventLoop = request.getfixturevalue("_session_loop")
    # Those of the session's own fixtures, which are set up before this one.
    before = asyncio.all_tasks(loop)
    yield
    loop.run_until_complete(end_all())
    left = asyncio.all_tasks(loop) - before
    if left:
        # What is cancelled or closed already may need some turns of the loop to end.
        loop.run_until_complete(asyncio.wait(left, timeout=0.5))
        left = {task for task in left if not task.done()}
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left, timeout=5))
        pytest.fail(f"tasks outlive the test: {sorted(repr(task.get_coro()) for task in left)}")
