"""One service: a Java server that is started until it answers, and then stopped, killed, paused at will."""

import asyncio
import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, NoReturn

from infra.local.child import Child, log_end
from infra.local.errors import LocalServicesError, OutOfMemory, PortTaken, ServiceDied, StartTimedOut
from infra.local.ports import free_port, is_free

START_SECONDS_MAX = 60.0
"""A start takes two seconds; thirty times that is a machine which something else has taken."""
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
    """What Kafka and DynamoDB Local have in common.

    It keeps its port and its data from one start to the next, so that clients find again what they lost.
    """

    name: ClassVar[str]
    """As it is written in messages."""
    port_option: ClassVar[str]
    """How the user of `python -m infra.local` chooses its port."""
    heap_mb: ClassVar[int]

    def __init__(self, *, port: int | None, home: Path, log_path: Path, scratch: Path | None) -> None:
        self._port = port
        self.home = home
        self.log_path = log_path
        self._scratch = scratch
        self._child: Child | None = None
        self._log_offset = 0

    @property
    def port(self) -> int:
        if self._port is None:
            raise RuntimeError(f"{self.name} has no port before its first start")
        return self._port

    async def start(self) -> None:
        """Start and wait until it answers; with no port given, on one that is free."""
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
        """Let it shut down in order. Safe when it does not run."""
        if self._child is not None:
            await self._child.stop()
            self._child = None

    async def kill(self) -> None:
        """End it as a power cut would. Safe when it does not run."""
        if self._child is not None:
            await self._child.kill()
            self._child = None

    def pause(self) -> None:
        """Freeze it: connections stay open, and nothing answers."""
        self._running_child().pause()

    def resume(self) -> None:
        self._running_child().resume()

    async def raise_when_dead(self) -> NoReturn:
        """Wait until it ends by itself, and say why it did."""
        child = self._running_child()
        await child.wait()
        raise self._why_ended(child)

    async def run_command(self, command: list[str]) -> None:
        """Run a preparing command to its end, with the same log and the same errors."""
        self._log_offset = self._log_size()
        async with Child.running(command, log_path=self.log_path, cwd=self.home, scratch=self._scratch) as child:
            code = await child.wait(START_SECONDS_MAX)
            if code is None:
                raise self._timed_out()
            if code != 0:
                raise self._why_ended(child)

    @abstractmethod
    async def prepare(self, port: int) -> list[str]:
        """Make ready what the server reads at its start; the command that starts it."""

    @abstractmethod
    async def answers(self, port: int) -> bool:
        """Whether it answers a real request now. Does not raise, and returns in a second or two."""

    async def _launch(self, port: int) -> Child:
        command = await self.prepare(port)
        self._log_offset = self._log_size()
        child = await Child.start(command, log_path=self.log_path, cwd=self.home, scratch=self._scratch)
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
        said = log_end(self.log_path, offset=self._log_offset, lines_max=SIGN_LINES_MAX)
        if any(sign in said for sign in PORT_TAKEN_SIGNS):
            return PortTaken(f"{self.name} found a port taken that was free a moment ago (log: {self.log_path})")
        if child.code == KILLED_CODE or any(sign in said for sign in OUT_OF_MEMORY_SIGNS):
            return OutOfMemory(
                f"{self.name} ran out of memory or was killed for it (exit code {child.code}): "
                f"it needs about {self.heap_mb} MB (log: {self.log_path})"
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
