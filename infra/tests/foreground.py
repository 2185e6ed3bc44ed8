"""The command `python -m infra.local` as its user has it: a process, two lines, a signal."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import psutil

from infra.local.jars import REPOSITORY

ANSWER_SECONDS_MAX = 60.0
GONE_SECONDS_MAX = 60.0


def names(folder: Path) -> list[str]:
    """Names of the folder's entries, sorted."""
    return sorted(path.name for path in folder.iterdir())


class Foreground:
    """The command after it has said where the services are."""

    def __init__(self, process: asyncio.subprocess.Process, lines: dict[str, str]) -> None:
        self.process = process
        self.lines = lines
        self.descendants = psutil.Process(process.pid).children(recursive=True)

    @property
    def servers(self) -> list[psutil.Process]:
        """The services' own processes: those without children, below the keepers."""
        return [process for process in self.descendants if not process.children()]

    async def end(self) -> tuple[int | None, str]:
        """Waits for the command's end; its exit code and what it wrote to standard error."""
        async with asyncio.timeout(GONE_SECONDS_MAX):
            _, said = await self.process.communicate()
        return self.process.returncode, said.decode()

    async def all_gone(self) -> bool:
        """True when none of the processes that it started runs any more."""
        _, left = await asyncio.to_thread(psutil.wait_procs, self.descendants, timeout=GONE_SECONDS_MAX)
        # In a container whose first process collects no children, dead processes stay in the table.
        return not [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


async def start(module: str, *arguments: str, environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    """Starts `python -m module` in the repository's root, with this added to the environment."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        cwd=REPOSITORY,
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@contextlib.asynccontextmanager
async def foreground(temporary: Path, *arguments: str, module: str = "infra.local") -> AsyncIterator[Foreground]:
    """The command, once both services answer; `temporary` is its folder for temporary files."""
    process = await start(module, *arguments, environment={"TMPDIR": str(temporary)})
    try:
        assert process.stdout is not None
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            read = [(await process.stdout.readline()).decode().strip() for _ in range(2)]
        yield Foreground(process, dict(line.split("=", 1) for line in read))
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
