"""The client for programs with an event loop."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack
from urllib.parse import quote
from uuid import uuid4

from pydantic import BaseModel, ValidationError

from clockwork.client.activity import EventFilters, MinutesWindow, events_query, minutes_query
from clockwork.client.consumer import run_of
from clockwork.client.errors import (
    AlreadyDelivered,
    CallFailed,
    InvalidRequest,
    JobNotDeleted,
    TooMany,
    Unavailable,
)
from clockwork.client.jobs import (
    Exclude,
    JobChanges,
    JobFilters,
    LogFilters,
    NewJobFields,
    Trigger,
    job_change_document,
    jobs_query,
    logs_query,
    new_job_document,
    path_of_calendar,
    path_of_job,
    trigger_document,
)
from clockwork.client.runs import RunInProgress
from clockwork.client.schedules import (
    BATCH_BYTES_MAX,
    BATCH_ITEMS_MAX,
    Changes,
    ForecastWindow,
    ListFilters,
    NewSchedule,
    NewScheduleFields,
    UpcomingFilters,
    When,
    batches,
    change_document,
    data_fields,
    encoded_item,
    epoch_ms,
    forecast_query,
    given,
    list_query,
    upcoming_query,
)
from clockwork.client.transport import Retries, Transport, failure_of_item
from clockwork.clock import Clock, SystemClock
from clockwork.domain.names import LOOK_UP_ITEMS_MAX
from clockwork.schema.activity import EventDocument, EventsDocument, MinutesDocument
from clockwork.schema.calendar import CalendarDocument, CalendarsDocument
from clockwork.schema.clients import ClientsDocument
from clockwork.schema.completion import HeartbeatDocument
from clockwork.schema.forecast import ForecastDocument
from clockwork.schema.job import (
    BackfillDocument,
    FireTimeDocument,
    JobDocument,
    JobsDocument,
    JobVersionDocument,
    PreviewDocument,
    RunDocument,
    RunsDocument,
    VersionsDocument,
)
from clockwork.schema.schedule import HistoryDocument, PageDocument, PastDocument, ScheduleDocument
from clockwork.schema.transfer import ImportedJobDocument
from clockwork.schema.upcoming import UpcomingDocument, UpcomingScheduleDocument
from clockwork.schema.why import WhyDocument

_Document = TypeVar("_Document", bound=BaseModel)
_REFUSED_FOR_AN_ITEM: Final = frozenset({400, 413})
"""Statuses of a whole batch that a single one of its items may cause."""
_HEAD: Final = b'{"schedules":['
"""The body of a batch, up to its items."""
FOLLOW_S: Final = 2.0
"""Time between looks for events that follow."""
NO_DATA: Final = object()
"""In the place of a payload: the job's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The outcome of one item of many: a schedule or an error."""

    index: int
    """Position of the item among those given, from 0."""
    schedule: ScheduleDocument | None
    error: CallFailed | None
    status: int
    """HTTP status that the single call would have answered; 0 if the item was not sent or not answered."""


class AsyncClient:
    """Calls one service. Use it in an `async with` block; many tasks may share it, and no other process: after a fork, the
    child opens its own.

    Every method raises the errors of clockwork.client.errors, and ValueError, before anything is sent, for an argument that
    no request can carry.
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, retries: Retries | None = None, clock: Clock | None = None
    ) -> None:
        self._http = Transport(url, api_key=api_key, retries=retries)
        self._clock = clock or SystemClock()

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def create(
        self,
        client_id: str,
        schedule_key: str,
        *,
        traceparent: str | None = None,
        **fields: Unpack[NewScheduleFields],
    ) -> ScheduleDocument:
        """Creates a schedule; durable when it returns. The same request again returns the same schedule in its present
        state, which may be any. Raises: KeyTaken: another one is pending under this key."""
        new = NewSchedule(client_id=client_id, schedule_key=schedule_key, **fields)
        headers = {} if traceparent is None else {"traceparent": traceparent}
        answer = await self._http.request("POST", "/schedule", body=new.document(self._clock), headers=headers)
        return read_document(ScheduleDocument, answer)

    async def get(self, client_id: str, schedule_key: str) -> ScheduleDocument:
        """Returns the schedule in its present state. Raises: NotFound."""
        return await self._schedule("GET", path_of(client_id, schedule_key))

    async def cancel(self, client_id: str, schedule_key: str) -> ScheduleDocument:
        """Cancels a schedule: once this returns, it is never delivered. Raises: NotFound, AlreadyDelivered, AlreadyFailed,
        InFlight."""
        return await self._schedule("DELETE", path_of(client_id, schedule_key))

    async def reschedule(
        self, client_id: str, schedule_key: str, *, if_version: int | None = None, **changes: Unpack[Changes]
    ) -> ScheduleDocument:
        """Changes a pending schedule. Raises: NotFound, Conflict, InFlight, VersionMismatch."""
        body = change_document(self._clock, **changes)
        return await self._schedule("PUT", path_of(client_id, schedule_key), body=body, if_version=if_version)

    async def fire(self, client_id: str, schedule_key: str, *, if_version: int | None = None) -> ScheduleDocument:
        """Delivers a pending schedule now. Raises: NotFound, Conflict, InFlight, VersionMismatch."""
        path = f"{path_of(client_id, schedule_key)}/fire"
        try:
            return await self._schedule("POST", path, if_version=if_version)
        except AlreadyDelivered as delivered:
            if delivered.after_lost_answer and delivered.schedule is not None:
                return delivered.schedule
            raise

    async def retry(
        self, client_id: str, schedule_key: str, *, at: When | None = None, if_version: int | None = None
    ) -> ScheduleDocument:
        """Makes a failed schedule pending again, by default for now. Raises: NotFound, Conflict, VersionMismatch."""
        body = {} if at is None else {"scheduleTime": epoch_ms(at, self._clock)}
        path = f"{path_of(client_id, schedule_key)}/retry"
        return await self._schedule("POST", path, body=body, if_version=if_version)

    async def history(self, client_id: str, schedule_key: str, *, page_size: int = 100) -> AsyncIterator[PastDocument]:
        """Lists the ended schedules of a key, newest first. Raises: NotFound."""
        path = f"{path_of(client_id, schedule_key)}/history"
        async for page in self._pages(HistoryDocument, path, {"limit": str(page_size)}):
            for each in page.schedules:
                yield each

    async def why(self, client_id: str, schedule_key: str) -> WhyDocument:
        """Returns the reason for which a schedule is not delivered yet, and what to do. Raises: NotFound."""
        answer = await self._http.request("GET", f"{path_of(client_id, schedule_key)}/why")
        return read_document(WhyDocument, answer)

    async def upcoming(self, **filters: Unpack[UpcomingFilters]) -> AsyncIterator[UpcomingScheduleDocument]:
        """Lists what is due next, of all clients that the API key covers, without payloads and headers: what is overdue
        first, or with `client_id` from now on. May lag by a moment."""
        async for page in self._pages(UpcomingDocument, "/upcoming", upcoming_query(self._clock, **filters)):
            for each in page.schedules:
                yield each

    async def forecast(self, **window: Unpack[ForecastWindow]) -> ForecastDocument:
        """Returns how many schedules are due when, by default in each minute of the next hour."""
        query = forecast_query(self._clock, **window)
        return read_document(ForecastDocument, await self._http.request("GET", "/forecast", query=query))

    async def events(self, *, follow: bool = False, **filters: Unpack[EventFilters]) -> AsyncIterator[EventDocument]:
        """Lists what happened lately to schedules of the clients that the API key covers, oldest first: the latest ones, or
        from `since` on. `follow`: goes on with what happens, for ever. Best effort: an event may be missing. Raises:
        NotSupported: this cluster records none."""
        query = events_query(self._clock, **filters)
        while True:
            page = read_document(EventsDocument, await self._http.request("GET", "/events", query=query))
            for each in page.events:
                yield each
            if not page.more and not follow:
                return
            query.pop("from", None)
            query["cursor"] = page.cursor
            if not page.more:
                await asyncio.sleep(FOLLOW_S)

    async def minutes(self, **window: Unpack[MinutesWindow]) -> MinutesDocument:
        """Returns counts of what happened, and how late deliveries were, by default in each minute of the last hour. Best
        effort. Raises: NotSupported: this cluster records none."""
        query = minutes_query(self._clock, **window)
        return read_document(MinutesDocument, await self._http.request("GET", "/minutes", query=query))

    async def clients(self) -> ClientsDocument:
        """Returns the clients that have created something, of those that the API key covers, as they were up to a minute
        ago."""
        return read_document(ClientsDocument, await self._http.request("GET", "/clients"))

    async def create_many(
        self, schedules: Iterable[NewSchedule | Mapping[str, Any]], *, batch_items_max: int = BATCH_ITEMS_MAX
    ) -> AsyncIterator[Result]:
        """Creates any number of schedules, in batches; yields a result for each, in order. The error of an item, also of
        one that cannot be sent, is in its result. A mapping is sent as it is: a schedule as the HTTP API takes it.

        Raises: CallFailed: a batch as a whole got no answer. The results before it are final, and the same call again is
        safe.
        """
        items = (encoded_item(new, self._clock) for new in schedules)
        async for result in self._batches("/schedules", items, batch_items_max):
            yield result

    async def cancel_many(
        self, keys: Iterable[tuple[str, str]], *, batch_items_max: int = BATCH_ITEMS_MAX
    ) -> AsyncIterator[Result]:
        """Cancels any number of schedules by (client id, schedule key), in batches, as `create_many` creates them."""
        items = (encoded_item(document, self._clock) for document in _named(keys))
        async for result in self._batches("/schedules/cancel", items, batch_items_max):
            yield result

    async def get_many(
        self, keys: Iterable[tuple[str, str]], *, batch_items_max: int = LOOK_UP_ITEMS_MAX
    ) -> AsyncIterator[Result]:
        """Shows any number of schedules by (client id, schedule key), a hundred at a time, each in its present state."""
        items = (encoded_item(document, self._clock) for document in _named(keys))
        async for result in self._batches("/schedules/get", items, min(batch_items_max, LOOK_UP_ITEMS_MAX)):
            yield result

    async def fire_many(
        self, keys: Iterable[tuple[str, str]], *, batch_items_max: int = BATCH_ITEMS_MAX
    ) -> AsyncIterator[Result]:
        """Delivers any number of pending schedules now, in batches, as `fire` does each."""
        items = (encoded_item(document, self._clock) for document in _named(keys))
        async for result in self._batches("/schedules/fire", items, batch_items_max):
            yield result

    async def retry_many(
        self, keys: Iterable[tuple[str, str]], *, batch_items_max: int = BATCH_ITEMS_MAX
    ) -> AsyncIterator[Result]:
        """Makes any number of failed schedules pending again, due now, in batches, as `retry` does each."""
        items = (encoded_item(document, self._clock) for document in _named(keys))
        async for result in self._batches("/schedules/retry", items, batch_items_max):
            yield result

    async def import_many(
        self, exported: Iterable[bytes], *, exported_at_ms: int, batch_items_max: int = BATCH_ITEMS_MAX
    ) -> AsyncIterator[Result]:
        """Imports pending schedules of another cluster, for operators, as `create_many` creates them. Each is JSON, as
        `clockwork admin export` writes it; it keeps its place in its lane, its version and its delivery id.
        `exported_at_ms`: the time that it says it began at, in epoch milliseconds.

        Raises: CallFailed, as `create_many`; Conflict: the export is older than the service keeps outcomes.
        """
        head = b'{"exportedAt":%d,"schedules":[' % exported_at_ms
        async for result in self._batches("/admin/schedules", exported, batch_items_max, head):
            yield result

    async def import_jobs(self, exported: Iterable[bytes], *, exported_at_ms: int) -> AsyncIterator[Result]:
        """Imports recurring jobs of another cluster, for operators, one after the other. Each is JSON, as `clockwork admin
        export` writes it; its fire times go on from where they were decided there. `exported_at_ms`: as of `import_many`.

        Raises: CallFailed: the outcome of one is unknown, and those after it were not sent.
        """
        for index, line in enumerate(exported):
            body = b'{"exportedAt":%d,%s' % (exported_at_ms, line.strip()[1:])
            try:
                answer = await self._http.request("POST", "/admin/jobs", body=body)
            except (Unavailable, TooMany):
                raise
            except CallFailed as error:
                yield _failed(index, error)
            else:
                created = read_document(ImportedJobDocument, answer).created
                yield Result(index=index, schedule=None, error=None, status=201 if created else 200)

    async def list(self, client_id: str, **filters: Unpack[ListFilters]) -> AsyncIterator[ScheduleDocument]:
        """Lists a client's schedules, each key once; may lag by 5 s. Raises: NotSupported: the service keeps no index to
        list from."""
        async for page in self._pages(PageDocument, "/schedules", list_query(client_id, self._clock, **filters)):
            for each in page.schedules:
                yield each

    # --- recurring jobs

    async def create_job(
        self, client_id: str, job_id: str, *, traceparent: str | None = None, **fields: Unpack[NewJobFields]
    ) -> JobDocument:
        """Creates a job; durable, and its first run armed, when it returns. The same request again returns the same job in
        its present state, which may be any. Raises: KeyTaken: another job has this id."""
        body = new_job_document(client_id, job_id, fields, self._clock)
        headers = {} if traceparent is None else {"traceparent": traceparent}
        return read_document(JobDocument, await self._http.request("POST", "/jobs", body=body, headers=headers))

    async def get_job(self, client_id: str, job_id: str, *, next_times: int | None = None) -> JobDocument:
        """Returns the job, its state, next and last run, and so many next fire times, at most 100. Raises: NotFound."""
        query = {} if next_times is None else {"next": str(next_times)}
        answer = await self._http.request("GET", path_of_job(client_id, job_id), query=query)
        return read_document(JobDocument, answer)

    async def list_jobs(self, client_id: str, **filters: Unpack[JobFilters]) -> AsyncIterator[JobDocument]:
        """Lists a client's jobs by their ids. A job that was created a few seconds ago may be missing."""
        async for page in self._pages(JobsDocument, "/jobs", jobs_query(client_id, **filters)):
            for each in page.jobs:
                yield each

    async def put_job(
        self, client_id: str, job_id: str, *, if_version: int | None = None, **changes: Unpack[JobChanges]
    ) -> JobDocument:
        """Changes a job. Another trigger counts from now on and never fires at once. `in_flight` of what is returned names
        the runs that may still be delivered as they were before. Raises: NotFound, JobDeleted, VersionMismatch."""
        body = job_change_document(changes, self._clock)
        return await self._job("PUT", path_of_job(client_id, job_id), body=body, if_version=if_version)

    async def pause_job(
        self, client_id: str, job_id: str, *, note: str | None = None, if_version: int | None = None
    ) -> JobDocument:
        """Pauses a job: but for the runs in `in_flight`, no run is delivered until it is resumed, by hand and backfills
        aside. Raises: NotFound, JobDeleted, JobEnded, VersionMismatch."""
        body = {} if note is None else {"note": note}
        return await self._job("POST", f"{path_of_job(client_id, job_id)}/pause", body=body, if_version=if_version)

    async def resume_job(self, client_id: str, job_id: str, *, if_version: int | None = None) -> JobDocument:
        """Resumes a paused job, from its first fire time after now: nothing is caught up. Raises: NotFound, JobDeleted,
        JobEnded, VersionMismatch."""
        return await self._job("POST", f"{path_of_job(client_id, job_id)}/resume", if_version=if_version)

    async def delete_job(self, client_id: str, job_id: str, *, if_version: int | None = None) -> JobDocument:
        """Deletes a job; until its retention ends it may be restored. But for the runs in `in_flight`, none is delivered any
        more. Raises: NotFound, VersionMismatch."""
        return await self._job("DELETE", path_of_job(client_id, job_id), if_version=if_version)

    async def restore_job(self, client_id: str, job_id: str, *, if_version: int | None = None) -> JobDocument:
        """Restores a deleted job as it was, active or paused; nothing is caught up. Raises: NotFound, JobNotDeleted,
        VersionMismatch."""
        try:
            return await self._job("POST", f"{path_of_job(client_id, job_id)}/restore", if_version=if_version)
        except JobNotDeleted as restored:
            if restored.after_lost_answer and restored.job is not None:
                return restored.job
            raise

    async def run_job(
        self, client_id: str, job_id: str, *, data: Any = NO_DATA, request_id: str | None = None
    ) -> RunDocument:
        """Runs a job now, also while it is paused; with `data` in place of its own. The same `request_id` is the same run,
        returned in its present state; by default it is a new one. Raises: NotFound, JobDeleted, JobRunning, TooManyRuns,
        KeyTaken."""
        body = {"requestId": _request_id(request_id), **({} if data is NO_DATA else data_fields(data))}
        path = f"{path_of_job(client_id, job_id)}/run-now"
        return read_document(RunDocument, await self._http.request("POST", path, body=body))

    async def backfill(
        self,
        client_id: str,
        job_id: str,
        *,
        since: When,
        until: When,
        max_runs: int | None = None,
        request_id: str | None = None,
    ) -> BackfillDocument:
        """Runs the job's fire times from `since` to `until`, both included and not after now, one after the other, at most
        `max_runs` of them (1,000). The same `request_id` is the same backfill; by default it is a new one. Raises: NotFound,
        JobDeleted, JobRunning, NoFireTimes, KeyTaken."""
        times = {"from": epoch_ms(since, self._clock), "to": epoch_ms(until, self._clock)}
        most = {} if max_runs is None else {"maxRuns": max_runs}
        body = {"requestId": _request_id(request_id), **times, **most}
        path = f"{path_of_job(client_id, job_id)}/backfill"
        return read_document(BackfillDocument, await self._http.request("POST", path, body=body))

    async def logs(self, client_id: str, job_id: str, **filters: Unpack[LogFilters]) -> AsyncIterator[RunDocument]:
        """Lists the runs of a job, and what was skipped, newest first. Raises: NotFound."""
        path = f"{path_of_job(client_id, job_id)}/logs"
        async for page in self._pages(RunsDocument, path, logs_query(self._clock, **filters)):
            for each in page.runs:
                yield each

    async def get_run(self, client_id: str, job_id: str, run_id: str) -> RunDocument:
        """Returns a run at its latest attempt. Raises: NotFound."""
        path = f"{path_of_job(client_id, job_id)}/runs/{quote(run_id, safe='')}"
        return read_document(RunDocument, await self._http.request("GET", path))

    async def complete_run(
        self,
        client_id: str,
        job_id: str,
        run_id: str,
        *,
        attempt: int = 1,
        result: Any = None,
        started_at: When | None = None,
    ) -> RunDocument:
        """Says that an attempt of a run has ended well, with a result of at most 4 KiB of JSON. Raises: NotFound,
        AlreadyFailed, RunTimedOut, RunSuperseded, JobDeleted, InFlight, Conflict."""
        body = {"attempt": attempt, **given({"result": result, "startedAt": self._time_or_none(started_at)})}
        return await self._reported(client_id, job_id, run_id, "complete", body)

    async def fail_run(
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
        """Says that an attempt of a run has failed, with an error of at most 4 KiB of JSON. Without `retry` no other attempt
        is made. Raises: NotFound, AlreadyCompleted, RunTimedOut, RunSuperseded, JobDeleted, InFlight, Conflict."""
        more = given({"error": error, "startedAt": self._time_or_none(started_at)})
        return await self._reported(
            client_id, job_id, run_id, "fail", {"attempt": attempt, **more, **({} if retry else {"retry": False})}
        )

    async def heartbeat_run(
        self, client_id: str, job_id: str, run_id: str, *, extend_ms: int, attempt: int = 1
    ) -> HeartbeatDocument:
        """Says that a run goes on: it is not timed out within `extend_ms` from now. Raises: NotFound, AlreadyCompleted,
        AlreadyFailed, RunTimedOut, RunSuperseded, RunNotOpen, JobDeleted, InFlight, Conflict."""
        path = f"{path_of_job(client_id, job_id)}/runs/{quote(run_id, safe='')}/heartbeat"
        body = {"attempt": attempt, "extendMs": extend_ms}
        return read_document(HeartbeatDocument, await self._http.request("POST", path, body=body))

    def run(self, headers: Iterable[tuple[str, bytes | None]] | None, *, extend_ms: int = 60_000) -> RunInProgress:
        """The run that a record belongs to, for an `async with` block in which its consumer works on it: completed at the
        end of the block, failed if that raises, with heartbeats meanwhile that ask for `extend_ms` each. Raises:
        NotADelivery; the end of the block: as `complete_run`, and ValueError (`RunInProgress.result`)."""
        return RunInProgress(self, run_of(headers), extend_ms=extend_ms, clock=self._clock)

    async def versions(self, client_id: str, job_id: str, *, page_size: int = 100) -> AsyncIterator[JobVersionDocument]:
        """Lists the versions of a job's definition, newest first. Raises: NotFound."""
        path = f"{path_of_job(client_id, job_id)}/versions"
        async for page in self._pages(VersionsDocument, path, {"limit": str(page_size)}):
            for each in page.versions:
                yield each

    async def get_version(self, client_id: str, job_id: str, version: int) -> JobVersionDocument:
        """Returns one version of a job's definition. Raises: NotFound."""
        path = f"{path_of_job(client_id, job_id)}/versions/{version}"
        return read_document(JobVersionDocument, await self._http.request("GET", path))

    async def preview(
        self,
        trigger: Trigger,
        *,
        since: When | None = None,
        count: int | None = None,
        job: tuple[str, str] | None = None,
        client_id: str | None = None,
    ) -> Sequence[FireTimeDocument]:
        """Computes the next fire times of a trigger, from `since` on (now), at most `count` (10). Nothing is stored. `job`:
        client id and job id for its jitter; it need not exist. `client_id`: the client of the calendars that the trigger
        names, if no job is given."""
        start = {} if since is None else {"from": epoch_ms(since, self._clock)}
        most = {} if count is None else {"count": count}
        name = given({"clientId": client_id}) if job is None else {"clientId": job[0], "jobId": job[1]}
        body = {"trigger": trigger_document(trigger, self._clock), **start, **most, **name}
        return read_document(PreviewDocument, await self._http.request("POST", "/jobs/preview", body=body)).times

    # --- named calendars

    async def put_calendar(
        self,
        client_id: str,
        name: str,
        entries: Exclude,
        *,
        description: str | None = None,
        if_version: int | None = None,
    ) -> CalendarDocument:
        """Makes or changes a calendar, as a whole. The jobs that name it follow; those of which a run may still be delivered
        by the calendar of before are `behind` in the answer. Raises: InvalidRequest, VersionMismatch, Conflict (too many
        calendars)."""
        body = {**entries.document(), **given({"description": description})}
        path = path_of_calendar(client_id, name)
        answer = await self._http.request("PUT", path, body=body, headers=_if(if_version))
        return read_document(CalendarDocument, answer)

    async def get_calendar(self, client_id: str, name: str) -> CalendarDocument:
        """Returns a calendar. Raises: NotFound."""
        return read_document(CalendarDocument, await self._http.request("GET", path_of_calendar(client_id, name)))

    async def list_calendars(self, client_id: str, *, page_size: int = 100) -> AsyncIterator[CalendarDocument]:
        """Lists the calendars of a client by their names."""
        query = {"clientId": client_id, "limit": str(page_size)}
        async for page in self._pages(CalendarsDocument, "/calendars", query):
            for each in page.calendars:
                yield each

    async def delete_calendar(self, client_id: str, name: str, *, if_version: int | None = None) -> CalendarDocument:
        """Deletes a calendar that no job uses. Raises: NotFound, VersionMismatch, Conflict (jobs use it)."""
        path = path_of_calendar(client_id, name)
        return read_document(CalendarDocument, await self._http.request("DELETE", path, headers=_if(if_version)))

    def _time_or_none(self, when: When | None) -> int | None:
        return None if when is None else epoch_ms(when, self._clock)

    async def _reported(
        self, client_id: str, job_id: str, run_id: str, how: str, body: Mapping[str, Any]
    ) -> RunDocument:
        path = f"{path_of_job(client_id, job_id)}/runs/{quote(run_id, safe='')}/{how}"
        return read_document(RunDocument, await self._http.request("POST", path, body=body))

    async def _job(self, method: str, path: str, *, body: Any = None, if_version: int | None = None) -> JobDocument:
        return read_document(JobDocument, await self._http.request(method, path, body=body, headers=_if(if_version)))

    async def _schedule(
        self, method: str, path: str, *, body: Any = None, if_version: int | None = None
    ) -> ScheduleDocument:
        answer = await self._http.request(method, path, body=body, headers=_if(if_version))
        return read_document(ScheduleDocument, answer)

    async def _pages(self, model: type[_Document], path: str, query: Mapping[str, str]) -> AsyncIterator[_Document]:
        cursor: str | None = None
        while True:
            more = {} if cursor is None else {"cursor": cursor}
            page = read_document(model, await self._http.request("GET", path, query={**query, **more}))
            yield page
            cursor = getattr(page, "cursor", None)
            if cursor is None:
                return

    async def _batches(
        self, path: str, items: Iterable[bytes | InvalidRequest], items_max: int, head: bytes = _HEAD
    ) -> AsyncIterator[Result]:
        if not 1 <= items_max <= BATCH_ITEMS_MAX:
            raise ValueError(f"batch_items_max: should be 1 to {BATCH_ITEMS_MAX}")
        first = 0
        for batch in batches(items, items_max=items_max, bytes_max=BATCH_BYTES_MAX):
            results = await self._settle(path, head, dict(enumerate(batch, first)))
            for index in range(first, first + len(batch)):
                yield results[index]
            first += len(batch)

    async def _settle(self, path: str, head: bytes, batch: Mapping[int, bytes | InvalidRequest]) -> dict[int, Result]:
        """Sends a batch and returns the result of each item, by index. Items that are not settled are sent again, as single
        calls are."""
        results = {index: _failed(index, item) for index, item in batch.items() if not isinstance(item, bytes)}
        waiting = {index: item for index, item in batch.items() if isinstance(item, bytes)}
        give_up_s = self._http.give_up_s(len(batch))
        for attempt in count(1):
            if not waiting:
                break
            try:
                results |= await self._send(path, head, waiting)
            except CallFailed as error:
                if attempt == 1:
                    raise
                # The results of the first request are final: the error is that of the items still open.
                results |= {index: _failed(index, error) for index in waiting}
                break
            waiting = {i: item for i, item in waiting.items() if isinstance(results[i].error, TooMany | Unavailable)}
            if waiting and not await self._http.pause(attempt, give_up_s):
                break
        return results

    async def _send(self, path: str, head: bytes, items: Mapping[int, bytes]) -> dict[int, Result]:
        """Sends items in one request. A request that is refused as a whole is halved again and again, until each item
        that causes a refusal is alone: it fails, and the others do not."""
        try:
            body = head + b",".join(items.values()) + b"]}"
            answer = await self._http.request("POST", path, body=body, items=len(items))
        except InvalidRequest as error:
            if error.status not in _REFUSED_FOR_AN_ITEM:
                raise
            if len(items) == 1:
                return {index: _failed(index, error) for index in items}
            indexes = list(items)
            halves = indexes[: len(indexes) // 2], indexes[len(indexes) // 2 :]
            found: dict[int, Result] = {}
            for half in halves:
                try:
                    found |= await self._send(path, head, {index: items[index] for index in half})
                except CallFailed as failed:
                    # The other half may have its results.
                    found |= {index: _failed(index, failed) for index in half}
            return found
        results = answer.get("results") if isinstance(answer, dict) else None
        if not isinstance(results, list) or len(results) != len(items):
            raise Unavailable("The answer does not have one result for each item.")
        return {index: _result(index, document) for index, document in zip(items, results, strict=True)}


def _if(version: int | None) -> dict[str, str]:
    return {} if version is None else {"If-Match": f'"{version}"'}


def _request_id(given: str | None) -> str:
    """One for a call, so that its retries are the same request."""
    return uuid4().hex if given is None else given


def _named(keys: Iterable[tuple[str, str]]) -> Iterator[dict[str, str]]:
    return ({"clientId": client_id, "scheduleKey": schedule_key} for client_id, schedule_key in keys)


def path_of(client_id: str, schedule_key: str) -> str:
    """The path of one schedule. Raises: ValueError: a name with a lone surrogate."""
    return f"/schedule/{quote(client_id, safe='')}/{quote(schedule_key, safe='')}"


def read_document(model: type[_Document], document: Any) -> _Document:
    """An answer as a model. Raises: Unavailable: it is not the service's, such as a proxy's page."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        wrong = "; ".join(".".join(map(str, each["loc"])) for each in error.errors(include_input=False))
        raise Unavailable(f"The answer is none of this API: {wrong}") from error


def _result(index: int, document: Any) -> Result:
    status = document.get("status") if isinstance(document, dict) else None
    if not (isinstance(status, int) and 200 <= status < 300):
        return _failed(index, failure_of_item(document))
    try:
        schedule = read_document(ScheduleDocument, document.get("schedule"))
    except Unavailable as error:
        return _failed(index, error)
    return Result(index=index, schedule=schedule, error=None, status=status)


def _failed(index: int, error: CallFailed) -> Result:
    return Result(index=index, schedule=error.schedule, error=error, status=error.status or 0)
