"""A keeper's command lives until its parent ends it or is gone, and a service that does not start says why.

Python stands in for Java here: the tests are about the processes and the messages, not about the servers.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from infra.local import child as child_module
from infra.local import service as service_module
from infra.local.child import KEEPER, Child, log_end
from infra.local.errors import OutOfMemory, PortTaken, ServiceDied, StartTimedOut
from infra.local.jars import CACHE_VARIABLE, Bundle
from infra.local.ports import free_port
from infra.local.service import JavaService

GONE_SECONDS_MAX = 60.0
SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


async def started(command: list[str], folder: Path) -> tuple[Child, psutil.Process]:
    """A child that has printed its first line, and its process (below the keeper)."""
    log_path = folder / "child.log"
    child = await Child.start(command, log_path=log_path, cwd=folder)
    await until(lambda: "up" in log_end(log_path))
    (process,) = [process for process in psutil.Process().children(recursive=True) if process.cmdline() == command]
    return child, process


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition of other processes, which send no signal when it comes true."""
    async with asyncio.timeout(GONE_SECONDS_MAX):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


async def until_gone(process: psutil.Process) -> None:
    gone, _ = await asyncio.to_thread(psutil.wait_procs, [process], timeout=GONE_SECONDS_MAX)
    assert gone == [process]


async def test_the_command_s_own_exit_code_comes_through(tmp_path: Path) -> None:
    async with Child.running([sys.executable, "-c", "raise SystemExit(7)"], log_path=tmp_path / "l", cwd=tmp_path) as c:
        assert await c.wait(GONE_SECONDS_MAX) == 7


async def test_a_command_that_died_of_a_signal_has_the_shell_s_code_for_it(tmp_path: Path) -> None:
    child, process = await started(SLEEPER, tmp_path)

    process.kill()

    assert await child.wait(GONE_SECONDS_MAX) == 128 + signal.SIGKILL
    await child.kill()


async def test_waiting_for_a_living_command_ends_without_a_code(tmp_path: Path) -> None:
    child, _ = await started(SLEEPER, tmp_path)

    assert await child.wait(0.01) is None
    await child.kill()


async def test_a_command_that_ignores_stopping_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "STOP_SECONDS_MAX", 0.1)
    child, process = await started(STUBBORN, tmp_path)

    await child.stop()

    await until_gone(process)


async def test_a_paused_command_can_be_stopped(tmp_path: Path) -> None:
    # A signal to a stopped process waits until it goes on: without that, stopping would take its whole time limit.
    child, process = await started(SLEEPER, tmp_path)
    child.pause()
    await until(lambda: process.status() == psutil.STATUS_STOPPED)

    await child.stop()

    assert child.code == 128 + signal.SIGTERM


async def test_ending_a_command_twice_does_no_harm(tmp_path: Path) -> None:
    child, _ = await started(SLEEPER, tmp_path)

    await child.stop()
    await child.stop()
    await child.kill()
    child.pause()


def test_a_closed_pipe_ends_the_command_and_removes_its_scratch_folder(tmp_path: Path) -> None:
    # What the kernel does for a parent that was killed, done by hand.
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    reading, writing = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-I", "-S", str(KEEPER), str(scratch), "", *SLEEPER], stdin=reading
    ) as keeper:
        os.close(reading)

        os.close(writing)

        assert keeper.wait(GONE_SECONDS_MAX) == 128 + signal.SIGKILL
    assert not scratch.exists()


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(
            signal.SIGKILL, marks=pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's PDEATHSIG")
        ),
    ],
)
async def test_a_keeper_that_is_ended_takes_its_command_along(tmp_path: Path, number: signal.Signals) -> None:
    child, process = await started(SLEEPER, tmp_path)
    keeper = process.parent()
    assert keeper is not None

    keeper.send_signal(number)

    await until_gone(process)
    await child.kill()


class Pretended(JavaService):
    """A service whose server is a line of Python and which answers when told so."""

    name = "Pretended"
    jars = Bundle(name="pretended", coordinates=(), archived=True)
    port_option = "--pretended-port"
    memory_mb = 1

    def __init__(self, *, script: str, folder: Path, port: int | None = None, answering: bool = False) -> None:
        super().__init__(port=port, home=folder, log_path=folder / "pretended.log", scratch=None)
        self.script = script
        self.answering = answering
        self.starts = 0

    async def prepare(self, port: int) -> list[str]:
        self.starts += 1
        options = [option for option in self.server_command([], []) if option.startswith("-XX:AOT")]
        return [sys.executable, "-c", self.script, str(port), *options]

    async def answers(self, port: int) -> bool:
        return self.answering


@pytest.fixture
async def taken_port() -> AsyncIterator[int]:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        yield port


async def test_a_service_that_dies_at_its_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    service = Pretended(script="raise SystemExit('the data is of a newer version')", folder=tmp_path)

    with pytest.raises(ServiceDied) as raised:
        await service.start()

    assert "ended with code 1" in str(raised.value)
    assert str(tmp_path / "pretended.log") in str(raised.value)
    assert str(raised.value).endswith("the data is of a newer version")


@pytest.mark.parametrize(
    "script",
    [
        "raise SystemExit('Terminating due to java.lang.OutOfMemoryError: Java heap space')",
        "raise SystemExit('There is insufficient memory for the Java Runtime Environment to continue.')",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    ],
)
async def test_a_service_without_memory_is_told_from_a_broken_one(tmp_path: Path, script: str) -> None:
    with pytest.raises(OutOfMemory, match="Pretended ran out of memory"):
        await Pretended(script=script, folder=tmp_path).start()


async def test_an_earlier_run_s_errors_are_not_taken_for_this_one_s(tmp_path: Path) -> None:
    (tmp_path / "pretended.log").write_text("java.lang.OutOfMemoryError\n")

    with pytest.raises(ServiceDied):
        await Pretended(script="raise SystemExit(3)", folder=tmp_path).start()


async def test_a_service_that_never_answers_is_given_up_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "START_SECONDS_MAX", 0.1)
    before = psutil.Process().children(recursive=True)

    with pytest.raises(StartTimedOut, match=r"Pretended did not answer"):
        await Pretended(script="import time; time.sleep(600)", folder=tmp_path).start()

    assert psutil.Process().children(recursive=True) == before


async def test_a_given_port_that_is_taken_is_named_before_anything_starts(tmp_path: Path, taken_port: int) -> None:
    service = Pretended(script="", folder=tmp_path, port=taken_port)

    with pytest.raises(PortTaken, match=rf"Pretended cannot have port {taken_port}: .* --pretended-port"):
        await service.start()

    assert service.starts == 0


async def test_a_free_port_that_is_snatched_before_its_use_is_replaced_by_another(tmp_path: Path) -> None:
    # The server finds its port taken once, as it would if another process had bound it after the check.
    script = (
        "import pathlib, sys, time\n"
        "marker = pathlib.Path('snatched')\n"
        "if not marker.exists():\n"
        "    marker.touch()\n"
        "    raise SystemExit('java.net.BindException: Address already in use')\n"
        "pathlib.Path('port').write_text(sys.argv[1])\n"
        "time.sleep(600)\n"
    )

    class Patient(Pretended):
        async def answers(self, port: int) -> bool:
            # It is there before its contents are.
            return (self.home / "port").exists() and bool((self.home / "port").read_text())

    service = Patient(script=script, folder=tmp_path)

    await service.start()

    assert service.starts == 2
    assert (tmp_path / "port").read_text() == str(service.port)
    await service.kill()


async def test_a_service_that_ends_by_itself_is_noticed_by_its_watcher(tmp_path: Path) -> None:
    service = Pretended(script="import time; time.sleep(0.05); raise SystemExit(5)", folder=tmp_path, answering=True)
    await service.start()

    with pytest.raises(ServiceDied, match="ended with code 5"):
        await service.raise_when_dead()
    await service.kill()


RECORDING = """
import pathlib, signal, sys
option, _, path = sys.argv[2].partition("=")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(pathlib.Path(path).write_text(option) and 0))
pathlib.Path("up").touch()
signal.pause()
"""
NOT_RECORDING = "import pathlib, signal; pathlib.Path('up').touch(); signal.pause()"


class Recorded(Pretended):
    """Answers when its handler of SIGTERM is in place."""

    async def answers(self, port: int) -> bool:
        return (self.home / "up").exists()


@pytest.mark.parametrize(("script", "content"), [(RECORDING, "-XX:AOTCacheOutput"), (NOT_RECORDING, "")])
async def test_a_recorded_start_puts_the_file_that_the_server_wrote_in_place_for_later_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, content: str
) -> None:
    # A Java without this ability writes none: an empty file then keeps later starts from trying again.
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    service = Recorded(script=script, folder=tmp_path / "data")
    (tmp_path / "data").mkdir()
    assert not [option for option in service.java_command([], []) if option.startswith("-XX:AOT")]

    await service.recorder(tmp_path / "recording").record()

    assert service.bundle.archive.read_text() == content
    given = [option for option in service.java_command([], []) if option.startswith("-XX:AOT")]
    assert given == ([f"-XX:AOTCache={service.bundle.archive}"] if content else [])
    assert service.starts == 0
