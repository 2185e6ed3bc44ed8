"""The parent of several processes, with children of a few lines: who is started again, and how all of it ends."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from clockwork.domain.retry import BackoffPolicy
from clockwork.errors import CannotStart
from clockwork.node.processes import Processes, reserved_port
from clockwork.settings.model import HttpSettings, KafkaSettings, ProcessSettings, Settings
from tests.support.waiting import until

SOON: Final = BackoffPolicy(initial_ms=1, max_ms=1)
CHILD: Final = """
import os, signal, sys
folder, number = os.environ["PLAYGROUND"], sys.argv[-1].partition(":")[0]
told = [os.environ.get("CLOCKWORK_HTTP_PORT"), os.environ.get("CLOCKWORK_INSTANCE_ID"), sys.argv[1]]
told.append(open(os.environ["CLOCKWORK_UI_SECRET_FILE"]).read())
def drain(*_):
    open(f"{folder}/drained-{number}", "w").close()
    os._exit(int(os.environ.get("DRAINS_WITH", "0")))
signal.signal(signal.SIGTERM, signal.SIG_IGN if "DEAF" in os.environ else drain)
with open(f"{folder}/started-{number}", "a") as file:
    print(os.getpid(), *told, file=file)
if os.environ.get("REFUSES") == number:
    sys.exit(2)
if os.environ.get("DIES") == number:
    sys.exit(1)
sys.stdin.read()
open(f"{folder}/orphaned-{number}", "w").close()
"""
"""Notes what happens to it; drains at SIGTERM; ends with its standard input."""


@dataclass
class Playground:
    """A parent under test, and what its children have noted."""

    folder: Path
    running: asyncio.Task[int]

    def starts(self, number: int) -> list[list[str]]:
        note = self.folder / f"started-{number}"
        return [line.split(" ") for line in note.read_text().splitlines()] if note.exists() else []

    def notes(self, kind: str) -> list[str]:
        return sorted(path.name for path in self.folder.glob(f"{kind}-*"))

    def pid(self, number: int) -> int:
        return int(self.starts(number)[-1][0])

    async def until_started(self, number: int, *, times: int = 1) -> None:
        async def look() -> bool:
            return len(self.starts(number)) >= times

        await until(look, f"start {times} of process {number}")


@asynccontextmanager
async def playing(
    folder: Path, *, instance_id: str | None = None, backoff: BackoffPolicy = SOON, **environ: str
) -> AsyncIterator[Playground]:
    """Two children; whatever is left of them at the end is ended."""
    settings = Settings(
        http=HttpSettings(port=0),
        processes=ProcessSettings(count=2),
        kafka=KafkaSettings(instance_id=instance_id),
    )
    parent = Processes(
        settings,
        ["worker"],
        {**os.environ, "PLAYGROUND": str(folder), **environ},
        program=(sys.executable, "-c", CHILD),
        backoff=backoff,
    )
    async with asyncio.TaskGroup() as group:
        playground = Playground(folder, group.create_task(parent.run(), name="parent"))
        try:
            yield playground
        finally:
            if not playground.running.done():
                # Two of a kind might become one.
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGINT)


async def test_sigterm_drains_all_processes_and_ends_with_zero(tmp_path: Path) -> None:
    async with playing(tmp_path) as playground:
        for number in range(2):
            await playground.until_started(number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await playground.running == 0
    assert playground.notes("drained") == ["drained-0", "drained-1"]


async def test_sigusr1_reaches_all_processes_as_itself(tmp_path: Path) -> None:
    # They are to leave the group for good, which only each of them can do at its end. These know nothing of the signal.
    async with playing(tmp_path) as playground:
        for number in range(2):
            await playground.until_started(number)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert await playground.running == 0
    assert playground.notes("drained") == []


async def test_each_process_has_a_stable_instance_id_and_all_have_one_port(tmp_path: Path) -> None:
    # Port 0 as well: a port for each of them would be no port of the node.
    async with playing(tmp_path, instance_id="node-a") as playground:
        for number in range(2):
            await playground.until_started(number)
        told = [playground.starts(number)[0][1:] for number in range(2)]
    assert [each[1:3] for each in told] == [["node-a-0", "worker"], ["node-a-1", "worker"]]
    assert len({port for port, *_ in told} - {"0"}) == 1


async def test_all_processes_sign_sessions_with_one_secret_where_the_settings_give_none(tmp_path: Path) -> None:
    async with playing(tmp_path) as playground:
        for number in range(2):
            await playground.until_started(number)
        (secret,) = {playground.starts(number)[0][-1] for number in range(2)}
    assert len(secret) >= 32


async def test_a_killed_process_is_started_again_under_its_number_and_the_other_one_lives_on(tmp_path: Path) -> None:
    async with playing(tmp_path, instance_id="node-a") as playground:
        for number in range(2):
            await playground.until_started(number)
        survivor = playground.pid(0)
        os.kill(playground.pid(1), signal.SIGKILL)
        await playground.until_started(1, times=2)
        assert playground.starts(1)[0][2] == playground.starts(1)[1][2] == "node-a-1"
        assert playground.pid(0) == survivor
        os.kill(os.getpid(), signal.SIGTERM)
        assert await playground.running == 0, "a death that was mended is no failure of the node"


async def test_a_process_that_dies_at_every_start_is_tried_again_and_again(tmp_path: Path) -> None:
    # Its table may be back at the next try; that no person needs to come is the point of a parent.
    async with playing(tmp_path, DIES="1") as playground:
        await playground.until_started(0)
        await playground.until_started(1, times=4)
    assert len(playground.starts(0)) == 1


async def test_the_end_does_not_wait_for_a_back_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # One of them has died and waits an hour for its next try, when the node is told to stop.
    async with playing(tmp_path, backoff=BackoffPolicy(initial_ms=3_600_000, max_ms=3_600_000), DIES="1") as playground:
        await playground.until_started(0)

        async def died() -> bool:
            return "A process died" in caplog.text

        await until(died, "the death in the log")
        os.kill(os.getpid(), signal.SIGTERM)
        assert await playground.running == 0
    assert len(playground.starts(1)) == 1


async def test_a_process_that_refuses_to_start_ends_all_of_them_with_its_code(tmp_path: Path) -> None:
    # Wrong settings do not become right by another try.
    async with playing(tmp_path, REFUSES="1") as playground:
        assert await playground.running == 2
    assert len(playground.starts(1)) == 1


async def test_a_process_that_fails_to_drain_is_told_by_the_exit_code(tmp_path: Path) -> None:
    async with playing(tmp_path, DRAINS_WITH="1") as playground:
        for number in range(2):
            await playground.until_started(number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await playground.running == 1


async def test_a_second_signal_kills_processes_that_do_not_hear_the_first(tmp_path: Path) -> None:
    async with playing(tmp_path, DEAF="1") as playground:
        for number in range(2):
            await playground.until_started(number)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert await playground.running == 1
    assert playground.notes("orphaned") == []


def test_the_processes_of_a_node_are_told_apart_in_the_group_and_one_alone_has_the_node_s_name() -> None:
    # What the parent gives them and what `leave` takes away must be the same names.
    assert ProcessSettings(count=1).instance_ids("a") == ["a"]
    assert ProcessSettings(count=3).instance_ids("a") == ["a-0", "a-1", "a-2"]


async def test_a_port_that_somebody_else_listens_on_is_refused_by_name(tmp_path: Path) -> None:
    # The processes themselves would not notice: they share the port on purpose, and another node's would, too.
    with (
        socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken,
        pytest.raises(CannotStart, match="CLOCKWORK_HTTP_PORT"),
        reserved_port(HttpSettings(port=taken.getsockname()[1])),
    ):
        pass
    with reserved_port(HttpSettings(port=0)) as port, socket.create_server(("127.0.0.1", port), reuse_port=True):
        pass
