"""The run of a record, while its consumer works on it.

    async with clockwork.run(message.headers) as run:
        run.result = {"rows": await work(message.value)}

At the end of the block the run is completed; if the block raises, it has failed. Meanwhile heartbeats keep its time-out
away. A consumer that commits its output by a Kafka transaction sends the command `completeRun` in it instead.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Protocol, Self

from clockwork.client.consumer import JobRun
from clockwork.client.errors import CallFailed, InFlight, Refused
from clockwork.clock import Clock
from clockwork.schema.completion import HeartbeatDocument
from clockwork.schema.job import RunDocument

SHARE: Final = 3
"""Heartbeats within the time that is left: two of them may fail."""
WAIT_S_MIN: Final = 0.2
IN_FLIGHT_TRIES: Final = 10
"""Tries of the last report, `WAIT_S_MIN` apart, while the run's time-out is too near to say which of both comes first."""
MESSAGE_CHARS_MAX: Final = 500
"""An error's message is kept up to here, as a result or an error is at most 4 KiB."""


class Reports(Protocol):
    """The calls of a client about runs."""

    async def complete_run(
        self, client_id: str, job_id: str, run_id: str, *, attempt: int = 1, result: Any = None, started_at: Any = None
    ) -> RunDocument: ...
    async def fail_run(
        self,
        client_id: str,
        job_id: str,
        run_id: str,
        *,
        attempt: int = 1,
        error: Any = None,
        retry: bool = True,
        started_at: Any = None,
    ) -> RunDocument: ...
    async def heartbeat_run(
        self, client_id: str, job_id: str, run_id: str, *, extend_ms: int, attempt: int = 1
    ) -> HeartbeatDocument: ...


class OpenRun:
    """A run that its consumer works on: see the module. A run of which no completion is asked is left alone."""

    def __init__(self, reports: Reports, run: JobRun, *, extend_ms: int, clock: Clock) -> None:
        """`extend_ms`: the time that each heartbeat asks for."""
        self.run = run
        self.result: Any = None
        """Sent with the completion: any JSON value, at most 4 KiB."""
        self.lost: CallFailed | None = None
        """The conflict that ended the heartbeats: the run has timed out, say, and another attempt may be under way."""
        self._reports = reports
        self._extend_ms = extend_ms
        self._clock = clock
        self._started_at_ms = 0
        self._tasks = asyncio.TaskGroup()
        self._heartbeats: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._started_at_ms = self._clock.now_ms()
        if self.run.until_ms is not None:
            await self._tasks.__aenter__()
            beating = self._beat(self.run.until_ms)
            self._heartbeats = self._tasks.create_task(beating, name=f"heartbeats-{self.run.run_id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises: as `complete_run`. Where the block has raised, a report that fails is a note of that error."""
        if self._heartbeats is None:
            return
        self._heartbeats.cancel()
        await self._tasks.__aexit__(None, None, None)
        named: dict[str, Any] = {"attempt": self.run.attempt, "started_at": self._started_at_ms}
        key = (self.run.client_id, self.run.job_id, self.run.run_id)
        if error is None:
            await self._settled(lambda: self._reports.complete_run(*key, result=self.result, **named))
        elif isinstance(error, Exception):
            # A message may have what is no text, such as the bytes of a file's name.
            message = str(error)[:MESSAGE_CHARS_MAX].encode(errors="replace").decode()
            told = {"type": type(error).__name__, "message": message}
            try:
                await self._settled(lambda: self._reports.fail_run(*key, error=told, **named))
            except CallFailed as failed:
                error.add_note(f"The run {self.run.run_id} could not be reported as failed: {failed}")
        # Cancelled, or the program ends: the run is left open, and its time-out decides.

    async def _settled(self, report: Callable[[], Awaitable[object]]) -> None:
        for number in range(1, IN_FLIGHT_TRIES + 1):
            try:
                await report()
            except InFlight:
                if number == IN_FLIGHT_TRIES:
                    raise
                await asyncio.sleep(WAIT_S_MIN)
            else:
                return

    async def _beat(self, until_ms: int) -> None:
        while True:
            left_s = (until_ms - self._clock.now_ms()) / 1_000
            await asyncio.sleep(max(WAIT_S_MIN, min(left_s, self._extend_ms / 1_000) / SHARE))
            try:
                goes_on = await self._reports.heartbeat_run(
                    self.run.client_id,
                    self.run.job_id,
                    self.run.run_id,
                    attempt=self.run.attempt,
                    extend_ms=self._extend_ms,
                )
            except Refused as refused:
                self.lost = refused
                return
            except CallFailed:
                continue  # the next one settles it
            until_ms = max(goes_on.until_ms, self._clock.now_ms() + self._extend_ms)
