"""The client for programs without an event loop: the asynchronous one, on a loop in a thread of its own.

There is one implementation, so that both always do the same; a second one on another HTTP library would be a second
dependency and a second set of mistakes. tests/unit/test_client_sync.py compares the two classes' methods.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack

from clockwork.client.activity import EventFilters, MinutesWindow
from clockwork.client.aio import NO_DATA, AsyncClient, Result
from clockwork.client.jobs import Exclude, JobChanges, JobFilters, LogFilters, NewJobFields, Trigger
from clockwork.client.runs import RunInProgress
from clockwork.client.schedules import (
    BATCH_ITEMS_MAX,
    Changes,
    ForecastWindow,
    ListFilters,
    NewSchedule,
    NewScheduleFields,
    UpcomingFilters,
    When,
)
from clockwork.client.transport import Retries
from clockwork.clock import Clock
from clockwork.domain.names import LOOK_UP_ITEMS_MAX
from clockwork.schema.activity import EventDocument, MinutesDocument
from clockwork.schema.calendar import CalendarDocument
from clockwork.schema.clients import ClientsDocument
from clockwork.schema.completion import HeartbeatDocument
from clockwork.schema.forecast import ForecastDocument
from clockwork.schema.job import (
    BackfillDocument,
    FireTimeDocument,
    JobDocument,
    JobVersionDocument,
    RunDocument,
)
from clockwork.schema.schedule import PastDocument, ScheduleDocument
from clockwork.schema.upcoming import UpcomingScheduleDocument
from clockwork.schema.why import WhyDocument

_Value = TypeVar("_Value")
_FORKED: Final = "the client was opened by another process, whose thread a fork does not copy: open one after the fork"


class Client:
    """Calls one service. Use it in a `with` block; many threads may share it, and no other process: after a fork, the child
    opens its own. See `AsyncClient` for what calls do."""

    def __init__(
        self, url: str, *, api_key: str | None = None, retries: Retries | None = None, clock: Clock | None = None
    ) -> None:
        self._client = AsyncClient(url, api_key=api_key, retries=retries, clock=clock)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process_id = os.getpid()

    def __enter__(self) -> Self:
        if self._loop is not None:
            raise RuntimeError(_FORKED if self._process_id != os.getpid() else "the client is open already")
        self._process_id = os.getpid()
        self._loop = asyncio.new_event_loop()
        # A daemon: a program that forgets to close its client still ends.
        self._thread = threading.Thread(target=self._loop.run_forever, name="clockwork-client", daemon=True)
        self._thread.start()
        self._wait(self._client.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is None or self._thread is None or self._process_id != os.getpid():
            # In the child of a fork there is nothing to close: loop and connections are the parent's.
            return
        try:
            self._wait(self._client.__aexit__(kind, error, trace))
            # Generators of results that were not read to their end.
            self._wait(self._loop.shutdown_asyncgens())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = None

    def create(
        self,
        client_id: str,
        schedule_key: str,
        *,
        traceparent: str | None = None,
        **fields: Unpack[NewScheduleFields],
    ) -> ScheduleDocument:
        return self._wait(self._client.create(client_id, schedule_key, traceparent=traceparent, **fields))

    def get(self, client_id: str, schedule_key: str) -> ScheduleDocument:
        return self._wait(self._client.get(client_id, schedule_key))

    def cancel(self, client_id: str, schedule_key: str) -> ScheduleDocument:
        return self._wait(self._client.cancel(client_id, schedule_key))

    def reschedule(
        self, client_id: str, schedule_key: str, *, if_version: int | None = None, **changes: Unpack[Changes]
    ) -> ScheduleDocument:
        return self._wait(self._client.reschedule(client_id, schedule_key, if_version=if_version, **changes))

    def fire(self, client_id: str, schedule_key: str, *, if_version: int | None = None) -> ScheduleDocument:
        return self._wait(self._client.fire(client_id, schedule_key, if_version=if_version))

    def retry(
        self, client_id: str, schedule_key: str, *, at: When | None = None, if_version: int | None = None
    ) -> ScheduleDocument:
        return self._wait(self._client.retry(client_id, schedule_key, at=at, if_version=if_version))

    def history(self, client_id: str, schedule_key: str, *, page_size: int = 100) -> Iterator[PastDocument]:
        return self._each(self._client.history(client_id, schedule_key, page_size=page_size))

    def why(self, client_id: str, schedule_key: str) -> WhyDocument:
        return self._wait(self._client.why(client_id, schedule_key))

    def upcoming(self, **filters: Unpack[UpcomingFilters]) -> Iterator[UpcomingScheduleDocument]:
        return self._each(self._client.upcoming(**filters))

    def forecast(self, **window: Unpack[ForecastWindow]) -> ForecastDocument:
        return self._wait(self._client.forecast(**window))

    def events(self, *, follow: bool = False, **filters: Unpack[EventFilters]) -> Iterator[EventDocument]:
        return self._each(self._client.events(follow=follow, **filters))

    def minutes(self, **window: Unpack[MinutesWindow]) -> MinutesDocument:
        return self._wait(self._client.minutes(**window))

    def clients(self) -> ClientsDocument:
        return self._wait(self._client.clients())

    def create_many(
        self, schedules: Iterable[NewSchedule | Mapping[str, Any]], *, batch_items_max: int = BATCH_ITEMS_MAX
    ) -> Iterator[Result]:
        return self._each(self._client.create_many(schedules, batch_items_max=batch_items_max))

    def cancel_many(
        self, keys: Iterable[tuple[str, str]], *, batch_items_max: int = BATCH_ITEMS_MAX
    ) -> Iterator[Result]:
        return self._each(self._client.cancel_many(keys, batch_items_max=batch_items_max))

    def get_many(
        self, keys: Iterable[tuple[str, str]], *, batch_items_max: int = LOOK_UP_ITEMS_MAX
    ) -> Iterator[Result]:
        return self._each(self._client.get_many(keys, batch_items_max=batch_items_max))

    def fire_many(self, keys: Iterable[tuple[str, str]], *, batch_items_max: int = BATCH_ITEMS_MAX) -> Iterator[Result]:
        return self._each(self._client.fire_many(keys, batch_items_max=batch_items_max))

    def retry_many(
        self, keys: Iterable[tuple[str, str]], *, batch_items_max: int = BATCH_ITEMS_MAX
    ) -> Iterator[Result]:
        return self._each(self._client.retry_many(keys, batch_items_max=batch_items_max))

    def import_many(
        self, exported: Iterable[bytes], *, exported_at_ms: int, batch_items_max: int = BATCH_ITEMS_MAX
    ) -> Iterator[Result]:
        values = self._client.import_many(exported, exported_at_ms=exported_at_ms, batch_items_max=batch_items_max)
        return self._each(values)

    def import_jobs(self, exported: Iterable[bytes], *, exported_at_ms: int) -> Iterator[Result]:
        return self._each(self._client.import_jobs(exported, exported_at_ms=exported_at_ms))

    def list(self, client_id: str, **filters: Unpack[ListFilters]) -> Iterator[ScheduleDocument]:
        return self._each(self._client.list(client_id, **filters))

    # --- recurring jobs

    def create_job(
        self, client_id: str, job_id: str, *, traceparent: str | None = None, **fields: Unpack[NewJobFields]
    ) -> JobDocument:
        return self._wait(self._client.create_job(client_id, job_id, traceparent=traceparent, **fields))

    def get_job(self, client_id: str, job_id: str, *, next_times: int | None = None) -> JobDocument:
        return self._wait(self._client.get_job(client_id, job_id, next_times=next_times))

    def list_jobs(self, client_id: str, **filters: Unpack[JobFilters]) -> Iterator[JobDocument]:
        return self._each(self._client.list_jobs(client_id, **filters))

    def put_job(
        self, client_id: str, job_id: str, *, if_version: int | None = None, **changes: Unpack[JobChanges]
    ) -> JobDocument:
        return self._wait(self._client.put_job(client_id, job_id, if_version=if_version, **changes))

    def pause_job(
        self, client_id: str, job_id: str, *, note: str | None = None, if_version: int | None = None
    ) -> JobDocument:
        return self._wait(self._client.pause_job(client_id, job_id, note=note, if_version=if_version))

    def resume_job(self, client_id: str, job_id: str, *, if_version: int | None = None) -> JobDocument:
        return self._wait(self._client.resume_job(client_id, job_id, if_version=if_version))

    def delete_job(self, client_id: str, job_id: str, *, if_version: int | None = None) -> JobDocument:
        return self._wait(self._client.delete_job(client_id, job_id, if_version=if_version))

    def restore_job(self, client_id: str, job_id: str, *, if_version: int | None = None) -> JobDocument:
        return self._wait(self._client.restore_job(client_id, job_id, if_version=if_version))

    def run_job(
        self, client_id: str, job_id: str, *, data: Any = NO_DATA, request_id: str | None = None
    ) -> RunDocument:
        return self._wait(self._client.run_job(client_id, job_id, data=data, request_id=request_id))

    def backfill(
        self,
        client_id: str,
        job_id: str,
        *,
        since: When,
        until: When,
        max_runs: int | None = None,
        request_id: str | None = None,
    ) -> BackfillDocument:
        return self._wait(
            self._client.backfill(client_id, job_id, since=since, until=until, max_runs=max_runs, request_id=request_id)
        )

    def logs(self, client_id: str, job_id: str, **filters: Unpack[LogFilters]) -> Iterator[RunDocument]:
        return self._each(self._client.logs(client_id, job_id, **filters))

    def get_run(self, client_id: str, job_id: str, run_id: str) -> RunDocument:
        return self._wait(self._client.get_run(client_id, job_id, run_id))

    def complete_run(
        self,
        client_id: str,
        job_id: str,
        run_id: str,
        *,
        attempt: int = 1,
        result: Any = None,
        started_at: When | None = None,
    ) -> RunDocument:
        return self._wait(
            self._client.complete_run(client_id, job_id, run_id, attempt=attempt, result=result, started_at=started_at)
        )

    def fail_run(
        self,
        client_id: str,
        job_id: str,
        run_id: str,
        *,
        attempt: int = 1,
        error: Any = None,
        retry: bool = True,
        started_at: When | None = None,
    ) -> RunDocument:
        return self._wait(
            self._client.fail_run(
                client_id, job_id, run_id, attempt=attempt, error=error, retry=retry, started_at=started_at
            )
        )

    def heartbeat_run(
        self, client_id: str, job_id: str, run_id: str, *, extend_ms: int, attempt: int = 1
    ) -> HeartbeatDocument:
        return self._wait(self._client.heartbeat_run(client_id, job_id, run_id, extend_ms=extend_ms, attempt=attempt))

    @contextmanager
    def run(
        self, headers: Iterable[tuple[str, bytes | None]] | None, *, extend_ms: int = 60_000
    ) -> Iterator[RunInProgress]:
        opened = self._client.run(headers, extend_ms=extend_ms)
        self._wait(opened.__aenter__())
        try:
            yield opened
        except BaseException as error:
            self._wait(opened.__aexit__(type(error), error, error.__traceback__))
            raise
        self._wait(opened.__aexit__(None, None, None))

    def versions(self, client_id: str, job_id: str, *, page_size: int = 100) -> Iterator[JobVersionDocument]:
        return self._each(self._client.versions(client_id, job_id, page_size=page_size))

    def get_version(self, client_id: str, job_id: str, version: int) -> JobVersionDocument:
        return self._wait(self._client.get_version(client_id, job_id, version))

    def preview(
        self,
        trigger: Trigger,
        *,
        since: When | None = None,
        count: int | None = None,
        job: tuple[str, str] | None = None,
        client_id: str | None = None,
    ) -> Sequence[FireTimeDocument]:
        return self._wait(self._client.preview(trigger, since=since, count=count, job=job, client_id=client_id))

    # --- named calendars

    def put_calendar(
        self,
        client_id: str,
        name: str,
        entries: Exclude,
        *,
        description: str | None = None,
        if_version: int | None = None,
    ) -> CalendarDocument:
        return self._wait(
            self._client.put_calendar(client_id, name, entries, description=description, if_version=if_version)
        )

    def get_calendar(self, client_id: str, name: str) -> CalendarDocument:
        return self._wait(self._client.get_calendar(client_id, name))

    def list_calendars(self, client_id: str, *, page_size: int = 100) -> Iterator[CalendarDocument]:
        return self._each(self._client.list_calendars(client_id, page_size=page_size))

    def delete_calendar(self, client_id: str, name: str, *, if_version: int | None = None) -> CalendarDocument:
        return self._wait(self._client.delete_calendar(client_id, name, if_version=if_version))

    def _wait(self, work: Coroutine[Any, Any, _Value]) -> _Value:
        if self._loop is None:
            work.close()
            raise RuntimeError("the client is not open: use it in a `with` block")
        if self._process_id != os.getpid():
            work.close()
            raise RuntimeError(_FORKED)
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C ends the waiting, and must end the call as well.
            future.cancel()
            raise

    def _each(self, values: AsyncIterator[_Value]) -> Iterator[_Value]:
        async def read_next() -> tuple[_Value] | None:
            try:
                return (await anext(values),)
            except StopAsyncIteration:
                return None  # a future cannot carry StopAsyncIteration

        while (value := self._wait(read_next())) is not None:
            yield value[0]
