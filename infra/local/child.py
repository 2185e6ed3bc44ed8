"""The parent's side of a keeper: a command that runs no longer than this process holds the pipe. See keeper.py."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Protocol, Self

KEEPER = Path(__file__).with_name("keeper.py")
STOP_SECONDS_MAX = 10.0
LOG_END_LINES = 8
LOG_END_BYTES_MAX = 64 * 1024


class Keeper(Protocol):
    """The process that keeps a command, and ends with its exit code; or the end of one command of several that it keeps."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    async def wait(self) -> int:
        """The exit code, once it has ended."""
        ...


class Child:
    """A command under a keeper.

        running ──pause──► paused ──resume──► running
        running or paused ──stop, kill, its own end, our own end──► ended

    Signals to a command that has ended are dropped: `code` and `wait` tell of its end.
    """

    def __init__(self, keeper: Keeper, pipe: int) -> None:
        """`pipe`: its writing end, by which the keeper gets the signals for the command."""
        self._keeper = keeper
        self._pipe = pipe

    @classmethod
    async def start(
        cls,
        command: list[str],
        *,
        log_path: Path | None,
        cwd: Path,
        scratch: Path | None = None,
        env: Mapping[str, str] | None = None,
        user: int | None = None,
    ) -> Self:
        """Starts the command, its output appended to the log (None: it goes to this process's own). `env` is its whole
        environment, None for this process's. The keeper removes `scratch` if this process is killed. `user`: runs it as
        this user and group, which only root can."""
        # A pipe made here, not asyncio's: nothing of it is left for the loop to close after the process is gone.
        reading, writing = os.pipe()
        try:
            with log_path.open("ab") if log_path is not None else contextlib.nullcontext() as log:
                keeper = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-I",
                    "-S",
                    str(KEEPER),
                    str(scratch or ""),
                    "" if user is None else str(user),
                    *command,
                    stdin=reading,
                    stdout=log,
                    stderr=log,
                    cwd=cwd,
                    env=env,
                    start_new_session=True,
                )
        except BaseException:
            os.close(writing)
            raise
        finally:
            os.close(reading)
        return cls(keeper, writing)

    @classmethod
    @contextlib.asynccontextmanager
    async def running(
        cls, command: list[str], *, log_path: Path, cwd: Path, scratch: Path | None = None, user: int | None = None
    ) -> AsyncIterator[Self]:
        """Runs the command for the length of the block at most."""
        child = await cls.start(command, log_path=log_path, cwd=cwd, scratch=scratch, user=user)
        try:
            yield child
        finally:
            await child.kill()

    @property
    def code(self) -> int | None:
        """Exit code of the command, 128 + n after signal n; None while it lives."""
        return self._keeper.returncode

    async def wait(self, seconds_max: float | None = None) -> int | None:
        """Waits for the exit code, None if the command still lives after that time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds_max):
                return await self._keeper.wait()
        return None

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    async def stop(self, seconds_max: float | None = None, *, number: signal.Signals = signal.SIGTERM) -> None:
        """Sends the signal, waits for the command's end, and kills it when it takes too long."""
        self._signal(number)
        # A paused command gets its signal only when it goes on.
        self._signal(signal.SIGCONT)
        await self.wait(STOP_SECONDS_MAX if seconds_max is None else seconds_max)
        await self.kill()

    async def kill(self) -> None:
        """Ends the command at once. Safe when it has ended, and twice."""
        self._signal(signal.SIGKILL)
        await self._keeper.wait()
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1

    def _signal(self, number: signal.Signals) -> None:
        if self._pipe < 0 or self.code is not None:
            return
        # The command may end at this very moment.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._pipe, f"{number.name}\n".encode())


def log_end(log_path: Path, *, offset: int = 0, lines_max: int = LOG_END_LINES) -> str:
    """The last lines written after `offset`, without the frames of Java's stack traces."""
    with contextlib.suppress(FileNotFoundError), log_path.open("rb") as file:
        file.seek(max(offset, log_path.stat().st_size - LOG_END_BYTES_MAX))
        lines = file.read().decode(errors="replace").splitlines()
        telling = [line for line in lines if line.strip() and not line.startswith("\t")]
        return "\n".join(telling[-lines_max:])
    return ""
