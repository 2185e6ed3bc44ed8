"""PostgreSQL: the machine's own, if there is one and it is new enough, else programs that are fetched as the jars are.

PostgreSQL refuses to run as root. For root, which is everybody in a container, it runs as a user without rights in a
folder of that user's; the programs are copied beside it where they lie in a folder that this user may not enter.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from infra.local.errors import LocalServicesError, UnsupportedPlatform
from infra.local.jars import PLATFORM, POSTGRES, POSTGRES_PLATFORMS, Bundle
from infra.local.service import Service

HOST: Final = "127.0.0.1"
USER: Final = "clockwork"
DATABASE: Final = "postgres"
MAJOR_MIN: Final = 15
PROGRAMS_VARIABLE: Final = "CLOCKWORK_LOCAL_POSTGRES"
"""The variable that names the folder of the programs; `fetched`: the fetched ones, whatever is installed."""
FETCHED: Final = "fetched"
UNPRIVILEGED: Final = 65_534
"""The user and group `nobody` of most systems; the number alone is needed, no entry."""
ANSWER_S_MAX: Final = 2.0
ASK_VERSION_S_MAX: Final = 20.0
_PLACES: Final = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql@*/bin")
"""Folders in which Debian, Red Hat and Homebrew put the servers, which are not on the path there."""
_PROTOCOL_3: Final = 3 << 16

SETTINGS: Final = {
    "listen_addresses": HOST,
    # A socket would need a folder with a short path.
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    # Several nodes of several processes, at eight connections each.
    "max_connections": "200",
}
"""The server's settings; all others as they are by default: what is acknowledged survives a power cut."""


class Postgres(Service):
    """PostgreSQL as a child process, without passwords."""

    name = "PostgreSQL"
    port_option = "--postgres-port (or postgres_port=)"
    memory_mb = 64
    # Fast: it ends the sessions that are open. SIGTERM would wait for them.
    stop_signal = signal.SIGINT

    def __init__(self, **of_service: Any) -> None:
        super().__init__(**of_service)
        self._installed: Path | None = None

    @property
    def bundle(self) -> Bundle | None:
        """The files that have to be fetched; None: it is installed. Decides what `prepare` starts.

        Raises: LocalServicesError.
        """
        self._installed = find_installed()
        if self._installed is not None:
            return None
        if PLATFORM not in POSTGRES_PLATFORMS:
            raise UnsupportedPlatform(
                f"no PostgreSQL for {PLATFORM} can be fetched: install PostgreSQL {MAJOR_MIN} or later"
            )
        return POSTGRES

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@{HOST}:{self.port}/{DATABASE}"

    async def prepare(self, port: int) -> list[str]:
        programs = self._installed or POSTGRES.folder / "bin"
        if os.geteuid() == 0:
            self._user = UNPRIVILEGED
            os.chown(self.home, UNPRIVILEGED, UNPRIVILEGED)
            if (closed := _closed(self.home)) is not None:
                raise LocalServicesError(
                    f"PostgreSQL refuses to run as root, and its own user ({UNPRIVILEGED}) may not enter {closed}: "
                    "choose a folder elsewhere for the data (for temporary data: TMPDIR), or run as another user"
                )
            if _closed(programs) is not None:
                programs = self._copied(programs)
        data = self.home / "data"
        if not data.exists():
            # One that was broken off must not be taken for a whole one.
            unfinished = self.home / "unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            options = ["-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"]
            await self.run_command([str(programs / "initdb"), "-D", str(unfinished), *options])
            unfinished.rename(data)
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        return [str(programs / "postgres"), "-D", str(data), "-p", str(port), *settings]

    async def answers(self, port: int) -> bool:
        """See `Service`: a session can be opened. In the bytes of the protocol, so that no client library is needed."""
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                return await _opens_a_session(port)
        except (OSError, EOFError, TimeoutError):
            return False

    def _copied(self, programs: Path) -> Path:
        copy = self.home / programs.parent.name
        if not copy.exists():
            shutil.copytree(programs.parent, copy, symlinks=True)
        return copy / programs.name


def find_installed() -> Path | None:
    """The folder of the programs of an installed PostgreSQL that is new enough; None: there is none.
    Raises: LocalServicesError, if `PROGRAMS_VARIABLE` names a folder without one.
    """
    chosen = os.environ.get(PROGRAMS_VARIABLE, "")
    if chosen == FETCHED:
        return None
    if chosen:
        if not _usable(Path(chosen)):
            raise LocalServicesError(
                f"{PROGRAMS_VARIABLE}: {chosen} should hold initdb and postgres of PostgreSQL {MAJOR_MIN} or later"
            )
        return Path(chosen).absolute()
    return next((folder for folder in _candidates() if _usable(folder)), None)


def _candidates() -> Iterator[Path]:
    """Folders where the programs may be, the one on the path first, then the newest."""
    on_path = shutil.which("postgres")
    if on_path is not None:
        # What stands on the path may be a link to a program that looks for its files beside itself.
        yield Path(on_path).resolve().parent
    for pattern in _PLACES:
        yield from sorted(Path("/").glob(pattern), key=_numbers, reverse=True)


def _numbers(folder: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(folder))]


def _usable(folder: Path) -> bool:
    if not (folder / "initdb").exists():
        return False
    try:
        command = [str(folder / "postgres"), "--version"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=ASK_VERSION_S_MAX, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    found = re.search(r"\(PostgreSQL\) (\d+)", said)
    return found is not None and int(found[1]) >= MAJOR_MIN


def _closed(folder: Path) -> Path | None:
    """The outermost folder on the way there that only its owner or group may enter; None: the way is open."""
    return next((each for each in reversed(folder.resolve().parents) if not each.stat().st_mode & 0o001), None)


async def _opens_a_session(port: int) -> bool:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        parameters = b"".join(part.encode() + b"\0" for part in ("user", USER, "database", DATABASE, ""))
        writer.write(struct.pack("!II", 8 + len(parameters), _PROTOCOL_3) + parameters)
        # Messages of a type and a length that counts itself: authentication, parameters, …, ready ("Z") or an error ("E").
        while (kind := await reader.readexactly(1)) not in (b"Z", b"E"):
            (length,) = struct.unpack("!I", await reader.readexactly(4))
            await reader.readexactly(length - 4)
        return kind == b"Z"
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
