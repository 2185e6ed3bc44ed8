"""One service: a server that is started until it answers, and then stopped, killed or paused on request."""

import asyncio
import copy
import logging
import signal
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, NoReturn, Self

from infra.local.child import Child, log_end
from infra.local.errors import LocalServicesError, OutOfMemory, PortTaken, ServiceDied, StartTimedOut
from infra.local.jars import Bundle
from infra.local.java import java_command
from infra.local.ports import free_port, is_free

START_SECONDS_MAX = 60.0
"""Deadline of a start, which takes two seconds: thirty times that is a machine which something else has taken."""
RECORD_SECONDS_MAX = 120.0
"""Deadline of writing the ahead-of-time cache at the end of the recorded start, which takes ten seconds."""
PORT_ATTEMPTS_MAX = 5
POLL_SECONDS = 0.03
KILLED_CODE = 137
OUT_OF_MEMORY_SIGNS = (
    "OutOfMemoryError",
    "insufficient memory",
    "Could not reserve enough space",
    "Cannot allocate memory",
)
SIGN_LINES_MAX = 200
PORT_TAKEN_SIGNS = ("Address already in use", "BindException")

logger = logging.getLogger("infra.local")


class Service(ABC):
    """The part that all of them have in common.

    It keeps its port and its data from one start to the next, so that clients find again what they lost.
    """

    name: ClassVar[str]
    """Name in messages."""
    port_option: ClassVar[str]
    """Option of `python -m infra.local` that chooses the port."""
    memory_mb: ClassVar[int]
    """Memory that it needs, about."""
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    """Signal at which it shuts down in order, even with connections open."""

    def __init__(self, *, port: int | None, home: Path, log_path: Path, scratch: Path | None) -> None:
        self._port = port
        self.home = home
        self.log_path = log_path
        self._scratch = scratch
        self._child: Child | None = None
        self._log_offset = 0
        self._user: int | None = None

    @property
    def port(self) -> int:
        if self._port is None:
            raise RuntimeError(f"{self.name} has no port before its first start")
        return self._port

    async def start(self) -> None:
        """Starts it and waits until it answers; with no port given, on a free one. Raises: LocalServicesError."""
        if self._child is not None:
            raise RuntimeError(f"{self.name} is already running")
        self.home.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, PORT_ATTEMPTS_MAX + 1):
            port = self._port or free_port()
            if not is_free(port):
                raise PortTaken(
                    f"{self.name} cannot have port {port}: another process listens there; "
                    f"choose another with {self.port_option}, or none for a free one"
                )
            try:
                self._child = await self._launch(port)
            except PortTaken:
                # A port was free a moment ago. The next round asks for others, or finds that the given one is the one.
                if attempt == PORT_ATTEMPTS_MAX:
                    raise
            else:
                self._port = port
                return

    async def stop(self) -> None:
        """Lets it shut down in order. Safe when it does not run."""
        if self._child is not None:
            await self._child.stop(number=self.stop_signal)
            self._child = None

    async def kill(self) -> None:
        """Ends it as a power cut would. Safe when it does not run."""
        if self._child is not None:
            await self._child.kill()
            self._child = None

    @property
    def is_started(self) -> bool:
        """True from its start until it was stopped or killed."""
        return self._child is not None

    def pause(self) -> None:
        """Freezes it: connections stay open, and requests are not answered."""
        self._running_child().pause()

    def resume(self) -> None:
        self._running_child().resume()

    async def raise_when_dead(self) -> NoReturn:
        """Waits until it ends by itself, and raises the reason. Raises: LocalServicesError."""
        child = self._running_child()
        await child.wait()
        raise self._why_ended(child)

    async def run_command(self, command: list[str]) -> None:
        """Runs a preparing command to its end, with the same log and the same errors. Raises: LocalServicesError."""
        self._log_offset = self._log_size()
        async with Child.running(
            command, log_path=self.log_path, cwd=self.home, scratch=self._scratch, user=self._user
        ) as child:
            code = await child.wait(START_SECONDS_MAX)
            if code is None:
                raise self._timed_out()
            if code != 0:
                raise self._why_ended(child)

    @property
    @abstractmethod
    def bundle(self) -> Bundle | None:
        """The files that have to be fetched for it; None: none. Raises: LocalServicesError."""

    @abstractmethod
    async def prepare(self, port: int) -> list[str]:
        """Writes the files that the server reads at its start, and returns the command that starts it."""

    @abstractmethod
    async def answers(self, port: int) -> bool:
        """True if it answers a real request now. Raises nothing, and returns in a second or two."""

    async def _launch(self, port: int) -> Child:
        command = await self.prepare(port)
        self._log_offset = self._log_size()
        child = await Child.start(
            command, log_path=self.log_path, cwd=self.home, scratch=self._scratch, user=self._user
        )
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                await self._until_it_answers(child, port)
        except TimeoutError:
            await child.kill()
            raise self._timed_out() from None
        except BaseException:
            await child.kill()
            raise
        logger.debug("%s answers on port %d", self.name, port)
        return child

    async def _until_it_answers(self, child: Child, port: int) -> None:
        while True:
            answered = await self.answers(port)
            # Looked at after the question: if our process is dead, another one's answered.
            if child.code is not None:
                raise self._why_ended(child)
            if answered:
                return
            await asyncio.sleep(POLL_SECONDS)

    def _why_ended(self, child: Child) -> LocalServicesError:
        lines = log_end(self.log_path, offset=self._log_offset, lines_max=SIGN_LINES_MAX)
        if any(sign in lines for sign in PORT_TAKEN_SIGNS):
            return PortTaken(f"{self.name} found a port taken that was free a moment ago (log: {self.log_path})")
        if child.code == KILLED_CODE or any(sign in lines for sign in OUT_OF_MEMORY_SIGNS):
            return OutOfMemory(
                f"{self.name} ran out of memory or was killed for it (exit code {child.code}): "
                f"it needs about {self.memory_mb} MB (log: {self.log_path})"
            )
        end = log_end(self.log_path, offset=self._log_offset)
        return ServiceDied(f"{self.name} ended with code {child.code}; the end of {self.log_path}:\n{end}")

    def _timed_out(self) -> StartTimedOut:
        end = log_end(self.log_path, offset=self._log_offset)
        return StartTimedOut(
            f"{self.name} did not answer within {START_SECONDS_MAX:.0f} s; the end of {self.log_path}:\n{end}"
        )

    def _running_child(self) -> Child:
        if self._child is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._child

    def _log_size(self) -> int:
        return self.log_path.stat().st_size if self.log_path.exists() else 0


class JavaService(Service):
    """A service that is a Java server, out of a bundle of jars."""

    jars: ClassVar[Bundle]

    @property
    def bundle(self) -> Bundle:
        """See `Service`."""
        return self.jars

    def __init__(self, *, port: int | None, home: Path, log_path: Path, scratch: Path | None) -> None:
        super().__init__(port=port, home=home, log_path=log_path, scratch=scratch)
        self._recorded: Path | None = None

    def recorder(self, folder: Path) -> Self:
        """A service of the same kind and log, with its data in this folder, for `record`."""
        recorder = copy.copy(self)
        recorder._port = None
        recorder.home = folder / self.bundle.name
        recorder._scratch = folder
        return recorder

    async def record(self) -> None:
        """Starts and stops it once, on data of no use, and puts the bundle's ahead-of-time cache in place.
        Raises: LocalServicesError."""
        archive = self.bundle.archive
        self._recorded = self.home / archive.name
        try:
            await self.start()
            await self._running_child().stop(RECORD_SECONDS_MAX)
        finally:
            await self.kill()
        # Java without this ability writes none. An empty file then says that it was tried.
        self._recorded.touch()
        # Two processes that record at once each put a whole file in place.
        self._recorded.replace(archive)

    def server_command(self, options: list[str], main: list[str]) -> list[str]:
        """The command line that starts the server, whose class is `main[0]`; recorded if `record` has asked for it."""
        if self._recorded is not None:
            options = [*options, f"-XX:AOTCacheOutput={self._recorded}"]
        return self.java_command(options, main)

    def java_command(self, options: list[str], main: list[str]) -> list[str]:
        """The command line that runs the class `main[0]` of the bundle, with the ahead-of-time cache if there is one."""
        temporary = self.home / "tmp"
        temporary.mkdir(exist_ok=True)
        if self._recorded is None and self.bundle.archived:
            archive = self.bundle.archive
            if archive.exists() and archive.stat().st_size > 0:
                options = [*options, f"-XX:AOTCache={archive}"]
        return java_command(self.bundle.folder, self.memory_mb, temporary, options, main)
