"""Nodes as forks: each is a process of its own, with the environment, signals and end of one that was started by itself."""

import asyncio
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
import pytest

from infra.local.child import Child
from infra.local.node import REPOSITORY
from tests.support.forks import Template
from tests.support.waiting import until

WITHIN_S: Final = 60.0
SLEEPS: Final = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"


@pytest.fixture(scope="module")
def template() -> Iterator[Template]:
    with Template(imports=()) as opened:
        yield opened


async def started(template: Template, log_path: Path, module: str, *arguments: str, **env: str) -> Child:
    command = [sys.executable, "-m", module, *arguments]
    return await template.launch(command, log_path=log_path, cwd=REPOSITORY, env=env)


async def sleeping(template: Template, log_path: Path) -> tuple[Child, psutil.Process]:
    """A fork that sleeps, and its process."""
    child = await started(template, log_path, "timeit", "-n", "1", "-r", "1", SLEEPS)

    async def pid() -> str:
        return said(log_path)

    return child, psutil.Process(int(await until(pid, "the fork to run")))


def said(log_path: Path) -> str:
    return log_path.read_text()


async def test_a_fork_runs_a_module_with_its_arguments_and_its_environment_alone(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEFT_OUT", "x")
    program = "import os; print(sorted(os.environ), os.getcwd())"

    ends = await started(template, tmp_path / "ends", "timeit", "-n", "1", "-r", "1", program, ONE="1")
    fails = await started(template, tmp_path / "fails", "json.tool", "no such file")

    assert [await ends.wait(WITHIN_S), await fails.wait(WITHIN_S)] == [0, 2]
    assert said(tmp_path / "ends").startswith(f"['ONE'] {REPOSITORY}\n")
    assert "no such file" in said(tmp_path / "fails")
    for each in (ends, fails):
        await each.kill()


async def test_a_fork_is_paused_resumed_and_stopped_by_signals(template: Template, tmp_path: Path) -> None:
    child, process = await sleeping(template, tmp_path / "log")

    async def is_stopped() -> bool:
        return bool(process.status() == psutil.STATUS_STOPPED)

    async def goes_on() -> bool:
        return bool(process.status() == psutil.STATUS_SLEEPING)

    child.pause()
    await until(is_stopped, "the fork to be paused")
    assert await child.wait(0.01) is None
    child.resume()
    await until(goes_on, "the fork to go on")
    await child.stop()

    assert child.code == 128 + signal.SIGTERM
    assert not process.is_running()


async def test_a_fork_that_is_killed_has_the_shells_code_and_no_other_fork_notices(
    template: Template, tmp_path: Path
) -> None:
    killed, _ = await sleeping(template, tmp_path / "killed")
    other, process = await sleeping(template, tmp_path / "other")

    await killed.kill()

    assert killed.code == 128 + signal.SIGKILL
    assert (other.code, process.is_running()) == (None, True)
    await other.kill()


async def test_forks_end_with_the_process_of_the_tests(tmp_path: Path) -> None:
    with Template(imports=()) as template:
        child, process = await sleeping(template, tmp_path / "log")

    _, left = await asyncio.to_thread(psutil.wait_procs, [process], timeout=WITHIN_S)
    assert left == []
    assert await child.wait(WITHIN_S) == 128 + signal.SIGKILL
    await child.kill()
