"""The run of a record, while its consumer works on it.

    async with clockwork.run(message.headers) as run:
        run.result = {"rows": await work(message.value)}

At the end of the block the run is completed; if the block raises, it has failed. Meanwhile heartbeats keep its time-out
away. The time that is left is known to the service alone, whose clock may differ from this one's, and the record may have
waited in Kafka: so the first heartbeat comes soon, whatever the record says, and after an answer the next one is a share of
the time that was asked for away, by no clock but the loop's. A run that ends sooner costs none.

A consumer that commits its output by a Kafka transaction sends the command `completeRun` in it instead.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Protocol, Self

from clockwork.client.consumer import JobRun
from clockwork.client.errors import CallFailed, InFlight, Refused, RunNotOpen
from clockwork.client.schedules import encoded
from clockwork.clock import Clock
from clockwork.schema.completion import DOCUMENT_BYTES_MAX, LEVELS_MAX, HeartbeatDocument
from clockwork.schema.job import RunDocument
from clockwork.schema.json import deeper_than

SHARE: Final = 3
"""Heartbeats within the time that is left: two of them may fail."""
FIRST_S: Final = 1.0
"""The first heartbeat comes this soon, or sooner."""
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


class RunInProgress:
    """A run that its consumer works on: see the module. A run of which no completion is asked is left alone."""

    def __init__(self, reports: Reports, run: JobRun, *, extend_ms: int, clock: Clock) -> None:
        """`extend_ms`: the time that each heartbeat asks for."""
        self.run = run
        self._result: Any = None
        self.lost: CallFailed | None = None
        """The conflict that ended the heartbeats: the run has timed out, say, and another attempt may be under way."""
        self._reports = reports
        self._extend_ms = extend_ms
        self._clock = clock
        self._started_at_ms = 0
        self._tasks = asyncio.TaskGroup()
        self._heartbeats: asyncio.Task[None] | None = None

    @property
    def result(self) -> Any:
        """Sent with the completion: any JSON value, at most 4 KiB. Raises, where it is set: ValueError. One that is changed
        afterwards, and cannot be sent at the end of the block, raises there; the run is completed all the same."""
        return self._result

    @result.setter
    def result(self, value: Any) -> None:
        _check_document(value)
        self._result = value

    async def __aenter__(self) -> Self:
        self._started_at_ms = self._clock.now_ms()
        if self.run.until_ms is not None:
            await self._tasks.__aenter__()
            left_s = (self.run.until_ms - self._started_at_ms) / 1_000
            beating = self._beat(min(FIRST_S, left_s / SHARE))
            self._heartbeats = self._tasks.create_task(beating, name=f"heartbeats-{self.run.run_id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises: as `complete_run`; ValueError (see `result`). Where the block has raised, a report that fails is a note of
        that error."""
        if self._heartbeats is None:
            return
        self._heartbeats.cancel()
        await self._tasks.__aexit__(None, None, None)
        named: dict[str, Any] = {"attempt": self.run.attempt, "started_at": self._started_at_ms}
        key = (self.run.client_id, self.run.job_id, self.run.run_id)
        if error is None:
            await self._completed(key, named)
        elif isinstance(error, Exception):
            # A message may have what is no text, such as the bytes of a file's name.
            message = str(error)[:MESSAGE_CHARS_MAX].encode(errors="replace").decode()
            told = {"type": type(error).__name__, "message": message}
            try:
                await self._settled(lambda: self._reports.fail_run(*key, error=told, **named))
            except CallFailed as failed:
                error.add_note(f"The run {self.run.run_id} could not be reported as failed: {failed}")
        # Cancelled, or the program ends: the run is left open, and its time-out decides.

    async def _completed(self, key: tuple[str, str, str], named: dict[str, Any]) -> None:
        wrong, result = None, self._result
        try:
            _check_document(result)
        except ValueError as error:
            # The work is done. Without the completion the run would time out, and be done again.
            wrong, result = error, None
        await self._settled(lambda: self._reports.complete_run(*key, result=result, **named))
        if wrong is not None:
            raise ValueError(f"the run is completed, but without its result, which was changed: {wrong}") from wrong

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

    async def _beat(self, first_s: float) -> None:
        share_s = self._extend_ms / 1_000 / SHARE
        wait_s = first_s
        while True:
            await asyncio.sleep(max(WAIT_S_MIN, min(wait_s, share_s)))
            try:
                await self._reports.heartbeat_run(
                    self.run.client_id,
                    self.run.job_id,
                    self.run.run_id,
                    attempt=self.run.attempt,
                    extend_ms=self._extend_ms,
                )
            except RunNotOpen:
                return  # nothing times it out
            except Refused as refused:
                self.lost = refused
                return
            except CallFailed:
                wait_s = FIRST_S  # the next one settles it
            else:
                wait_s = share_s


def _check_document(value: Any) -> None:
    """Raises: ValueError: the service would not take it as a result."""
    size_bytes = len(encoded(value))
    if size_bytes > DOCUMENT_BYTES_MAX:
        raise ValueError(f"result: is {size_bytes} bytes as JSON; at most {DOCUMENT_BYTES_MAX} are taken")
    if deeper_than(value, LEVELS_MAX):
        raise ValueError(f"result: should be nested at most {LEVELS_MAX} levels")
