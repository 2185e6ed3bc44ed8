"""A driver of a peer: built once by the peer's own tools, and spoken to line by line.

A request is a verb and values without spaces, an answer `ok …` or `error …`, in turn:

    create prefix= topic= count= batch= callers= per-second= due-ms= ahead-ms= spread-ms=     → seconds
    start …                  works what is due, with these settings of the peer
    stop                     finishes what is being worked
    completed                → jobs whose end is stored, since the process started

`create`: `count` jobs by batches, `callers` at once; as fast as it goes, or (`per-second`) at an even pace. Due at
`due-ms`, or (0) so long after the batch's own time: `ahead-ms`, and up to `spread-ms` more.
"""

import asyncio
import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from infra.local.child import log_end
from infra.local.jars import cache
from tests.support.processes import wait_or_kill

HERE: Final = Path(__file__).parent
END_S_MAX: Final = 20.0
"""Time for a driver to end once its input is closed; then it is killed."""
BUILD_S_MAX: Final = 900.0
HEAP_MB: Final = 512


class PeerFailed(Exception):
    """A driver that could not be built, refused a request, or is gone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """A peer's driver: how it is built, and how it is started."""

    name: str
    tools: Mapping[str, str]
    """Programs that it is built and run with, and the Debian packages that have them."""
    sources: Path
    builds: Callable[[Path], Sequence[Sequence[str]]]
    """Commands that build it into this folder, run where the sources are."""
    starts: Callable[[Path, str, str, str], Sequence[str]]
    """The command of the built driver: for a port of PostgreSQL here, a schema to be made, Kafka's brokers."""

    def missing(self, find: Callable[[str], str | None] = shutil.which) -> str | None:
        """A line for people, if a tool is missing."""
        absent = [tool for tool in self.tools if find(tool) is None]
        if not absent:
            return None
        packages = " ".join(dict.fromkeys(self.tools[tool] for tool in absent))
        return f"!!! {self.name} IS LEFT OUT: no {', '.join(absent)} on the path (Debian: apt install {packages})"

    async def built(self) -> Path:
        """The folder of the built driver; made anew after a change of its sources. Raises: PeerFailed."""
        folder = cache() / f"peer-{self.sources.name}-{digest_of(self.sources)}"
        if folder.exists():
            return folder
        print(f"building the driver of {self.name}, once (a minute)", flush=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix="peer-", dir=folder.parent))
        try:
            for command in self.builds(staging):
                await _run(command, self.sources)
            _put_in_place(staging, folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return folder


def _put_in_place(staging: Path, folder: Path) -> None:
    # Only when it is whole: a build that was broken off is not taken for one.
    staging.rename(folder)


def digest_of(sources: Path) -> str:
    """A name for what these files hold."""
    files = sorted(path for path in sources.rglob("*") if path.is_file())
    parts = [part for path in files for part in (path.relative_to(sources).as_posix().encode(), path.read_bytes())]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


async def _run(command: Sequence[str], folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(BUILD_S_MAX):
            said, _ = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise
    if process.returncode != 0:
        raise PeerFailed(f"{' '.join(command)} ended with {process.returncode}:\n{said.decode(errors='replace')}")


DB_SCHEDULER: Final = Peer(
    name="db-scheduler",
    tools={"mvn": "maven", "javac": "default-jdk-headless", "java": "default-jdk-headless"},
    sources=HERE / "db_scheduler",
    builds=lambda folder: [["mvn", "--batch-mode", "--quiet", f"-Dpeers.build={folder}", "process-classes"]],
    starts=lambda folder, port, schema, brokers: [
        "java",
        f"-Xmx{HEAP_MB}m",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp",
        f"{folder}/classes:{folder}/lib/*",
        "Driver",
        f"jdbc:postgresql://127.0.0.1:{port}/postgres",
        "clockwork",
        schema,
        brokers,
    ],
)
RIVER: Final = Peer(
    name="River",
    tools={"go": "golang-go"},
    sources=HERE / "river",
    builds=lambda folder: [["go", "vet", "./..."], ["go", "build", "-o", f"{folder}/river", "."]],
    starts=lambda folder, port, schema, brokers: [
        f"{folder}/river",
        f"postgresql://clockwork@127.0.0.1:{port}/postgres",
        schema,
        brokers,
    ],
)


class Driver:
    """A running driver."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._name = name
        self._process = process
        self._turn = asyncio.Lock()

    def cpu_s(self) -> float:
        """CPU time that it has used so far."""
        times = psutil.Process(self._process.pid).cpu_times()
        return times.user + times.system

    async def ask(self, verb: str, values: Mapping[str, object] | None = None) -> str:
        """Raises: PeerFailed."""
        request = " ".join([verb, *(f"{name}={value}" for name, value in (values or {}).items())])
        async with self._turn:
            assert self._process.stdin is not None
            self._process.stdin.write(f"{request}\n".encode())
            return await self.answer()

    async def answer(self) -> str:
        """The next one. Raises: PeerFailed."""
        assert self._process.stdout is not None
        return answer_in(self._name, (await self._process.stdout.readline()).decode())


def answer_in(name: str, line: str) -> str:
    """The answer in a driver's line. Raises: PeerFailed."""
    kind, _, answer = line.rstrip("\n").partition(" ")
    if kind != "ok":
        raise PeerFailed(f"{name}: {answer if kind == 'error' else line.strip() or 'it has ended; see its log'}")
    return answer


@asynccontextmanager
async def running(name: str, command: Sequence[str], log_path: Path) -> AsyncIterator[Driver]:
    """A driver, ready; it ends with the block, and with this process, as its input does."""
    with log_path.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log
        )
    try:
        driver = Driver(name, process)
        await driver.answer()
        yield driver
    except PeerFailed as error:
        error.add_note(f"the end of its log:\n{log_end(log_path)}")
        raise
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await wait_or_kill(process, within_s=END_S_MAX)
