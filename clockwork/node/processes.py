"""Several processes of one node, because one Python process uses one core: `--processes n`, `CLOCKWORK_PROCESSES`.

A parent process that does nothing else starts n times `python -m clockwork`. Each is a whole node: a group member with its
own share of the shards. They share the HTTP port (`node.siblings` answers for all of them) and their end:

                     ┌──── died: after a back-off, once more ────┐
    parent ──start──►│ process 0 … n-1 ──refused to start (2)──► all others drain; 2
       │             └───────────────────────────────────────────┘
       ├── SIGTERM, SIGINT ──► SIGTERM to all, each drains as a single node does; 0, or 1 if one of them failed in it
       ├── SIGUSR1 ──► SIGUSR1 to all, each drains and leaves the group for good; the same codes
       ├── a second one ──► SIGKILL to all; 1
       └── killed itself ──► each sees its standard input end, and drains

Processes rather than forks: a fork of a running event loop shares its selector and its libraries' state. Each process has a
session of its own: Ctrl-C in a terminal reaches a whole process group, and a child that also gets the parent's SIGTERM would
take it for the second one. The death of a process does not end the node: its shards move to the others within a session
time-out, or, with a `CLOCKWORK_INSTANCE_ID` (each process has `<id>-<number>`), wait for its restart.

The parent binds the port too, without listening. So it notices another program on that port, which the processes, sharing
it on purpose, would not; it keeps the port while processes restart; and it turns port 0 into one number.
"""

import asyncio
import logging
import os
import random
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from clockwork.concurrency import Backoff
from clockwork.domain.retry import BackoffPolicy
from clockwork.errors import CannotStart
from clockwork.settings.model import UI_SECRET_FILE, HttpSettings, Settings

BACKOFF: Final = BackoffPolicy(initial_ms=200, max_ms=10_000)
STEADY_S: Final = 60.0
"""Uptime after which the earlier deaths of a process no longer count for its back-off."""
REFUSED: Final = 2
"""Exit code of a process whose start was refused; another try would end in the same way."""

_SECRET_NAME: Final = "ui-secret"
"""File with the secret of sessions where the settings give none."""

_Start = Callable[[], Awaitable[asyncio.subprocess.Process]]

log = logging.getLogger(__name__)


class Processes:
    """The processes of one node, from start to SIGTERM."""

    def __init__(
        self,
        settings: Settings,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        *,
        program: Sequence[str] = (sys.executable, "-m", "clockwork"),
        backoff: BackoffPolicy = BACKOFF,
    ) -> None:
        """`arguments` of `python -m clockwork` are given to every process."""
        self._settings = settings
        self._command = (*program, *arguments)
        self._environ = environ
        self._backoff = backoff
        self._count = settings.processes.count
        self._stopping = asyncio.Event()
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._ended: set[int] = set()
        """Exit codes of the processes that were running at the end."""

    async def run(self) -> int:
        """The exit code. Raises: CannotStart."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        loop.add_signal_handler(signal.SIGUSR1, self._on_leave)
        try:
            with reserved_port(self._settings.http) as port, tempfile.TemporaryDirectory(prefix="clockwork-") as folder:
                await self._run(port, Path(folder))
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                loop.remove_signal_handler(number)
        # The signal itself ended the process, which had not begun to work, so there was nothing to drain.
        failed = self._ended - {0, -signal.SIGTERM, -signal.SIGUSR1}
        return REFUSED if REFUSED in failed else int(bool(failed))

    async def _run(self, port: int, folder: Path) -> None:
        # Only the parent holds the writing end, so the pipe closes with the parent, whatever ends it.
        reading, writing = os.pipe()
        # Each process reads the others' sessions. The folder is the user's alone.
        (folder / _SECRET_NAME).write_text(secrets.token_urlsafe(32), encoding="ascii")
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._count):
                    start = self._start(number, port=port, folder=folder, life=reading)
                    group.create_task(self._keep(number, start), name=f"process-{number}")
        finally:
            os.close(reading)
            os.close(writing)

    async def _keep(self, number: int, start: _Start) -> None:
        """Runs this process, and restarts it after a back-off, until the node stops."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(random.SystemRandom(), self._backoff)
        while not self._stopping.is_set():
            began_s = loop.time()
            process = self._running[number] = await start()
            if self._stopping.is_set():
                # The signal came while it was being started.
                process.terminate()
            code = await process.wait()
            del self._running[number]
            if code == REFUSED:
                self._stop(signal.SIGTERM)
            if self._stopping.is_set():
                self._ended.add(code)
                return
            if loop.time() - began_s > STEADY_S:
                backoff.reset()
            wait_s = backoff.next_wait_s()
            log.error(
                "A process died and is started again",
                extra={"event": "process.died", "number": number, "code": code, "wait_ms": int(wait_s * 1_000)},
            )
            try:
                async with asyncio.timeout(wait_s):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    def _start(self, number: int, *, port: int, folder: Path, life: int) -> _Start:
        settings = self._settings
        more = {"CLOCKWORK_HTTP_PORT": str(port), "CLOCKWORK_PROCESSES": str(self._count)}
        if settings.kafka.instance_id is not None:
            more["CLOCKWORK_INSTANCE_ID"] = settings.processes.instance_ids(settings.kafka.instance_id)[number]
        if settings.ui.secret_file is None:
            more[UI_SECRET_FILE] = str(folder / _SECRET_NAME)
        command = (*self._command, "--sibling", f"{number}:{folder}")

        async def start() -> asyncio.subprocess.Process:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=life, env={**self._environ, **more}, start_new_session=True
            )
            log.info("Process started", extra={"event": "process.started", "number": number, "pid": process.pid})
            return process

        return start

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            log.error("Stopped at once", extra={"event": "node.aborted"})
            # SIGKILL, because a process whose event loop hangs does not react to SIGTERM.
            self._stop(signal.SIGKILL)
        else:
            log.info("Stopping", extra={"event": "node.stopping"})
            self._stop(signal.SIGTERM)

    def _on_leave(self) -> None:
        if not self._stopping.is_set():
            log.info("Stopping", extra={"event": "node.stopping"})
            self._stop(signal.SIGUSR1)

    def _stop(self, number: signal.Signals) -> None:
        self._stopping.set()
        for process in self._running.values():
            if process.returncode is None:
                process.send_signal(number)


@contextmanager
def reserved_port(settings: HttpSettings) -> Iterator[int]:
    """Reserves the port for the processes, which bind it too. Raises: CannotStart if another program has it."""
    names = "CLOCKWORK_HTTP_HOST, CLOCKWORK_HTTP_PORT"
    try:
        family, kind, *_, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as alone:
            # As a server binds it: connections of an earlier one that linger are no obstacle, a listener is.
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(address)
            alone.listen()
            port = int(alone.getsockname()[1])
        shared = socket.socket(family, kind)
    except OSError as error:
        raise CannotStart(f"{names}: cannot listen on {settings.host}:{settings.port}: {error.strerror}") from error
    with shared:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            shared.bind((address[0], port, *address[2:]))
        except OSError as error:
            raise CannotStart(f"{names}: lost {settings.host}:{port}: {error.strerror}") from error
        yield port
