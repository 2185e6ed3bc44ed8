"""The calls under /jobs: each parses its request, asks the request service, and renders the result."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import quote

from aiohttp import hdrs, web

from clockwork.access.gate import principal_of
from clockwork.concurrency import Turns
from clockwork.domain.jobs.job import BackfillRequest, CompletionReport, Heartbeat, JobName, JobStatus, RunNow
from clockwork.domain.position import Position
from clockwork.domain.record import TRACEPARENT
from clockwork.domain.rights import Right, authorize
from clockwork.domain.run import JobId
from clockwork.domain.triggers.preview import TIMES_MAX, FireTime, Preview
from clockwork.errors import InvalidInput
from clockwork.http import query as queries
from clockwork.http.body import Refusal, body_of, names_in_path, path_parameter, single_header
from clockwork.http.responses import json_list_response, json_response
from clockwork.http.routes import (
    CALL_WITH_BODY,
    JOBS,
    JOBS_OFF,
    KEYED_CALL,
    QUOTA_HEADERS,
    Answer,
    Parameter,
    problem,
    route,
)
from clockwork.http.schedules import CONDITIONS, ONE_SCHEDULE_BYTES_MAX, condition_of
from clockwork.requests.jobs.listing import JobQuery
from clockwork.requests.jobs.log import LogQuery
from clockwork.requests.jobs.results import (
    JobAlreadyCreated,
    JobChanged,
    JobChangeResult,
    JobCreated,
    JobNotFound,
    JobRefused,
    JobUnchanged,
    JobVersionDiffers,
    JobView,
    RunAccepted,
    RunAlreadyAccepted,
    RunAlreadyClosed,
    RunClosed,
    RunExtended,
    RunResult,
    RunStatus,
)
from clockwork.requests.jobs.service import JobService
from clockwork.schema import problems
from clockwork.schema.change import NothingForm, read_nothing
from clockwork.schema.completion import (
    CompleteForm,
    FailForm,
    HeartbeatDocument,
    HeartbeatForm,
    read_complete,
    read_fail,
    read_heartbeat,
    run_id_of,
)
from clockwork.schema.job import (
    BackfillDocument,
    BackfillForm,
    JobChangeForm,
    JobDocument,
    JobForm,
    JobsDocument,
    JobVersionDocument,
    PauseForm,
    PreviewDocument,
    PreviewForm,
    RunDocument,
    RunNowForm,
    RunsDocument,
    VersionsDocument,
    fire_time_document,
    label_of,
    read_backfill,
    read_job,
    read_job_change,
    read_job_key,
    read_pause,
    read_preview,
    read_run_now,
)
from clockwork.schema.job_render import (
    JobConflictDocument,
    RunConflictDocument,
    StaleJobDocument,
    next_times,
    of_job_declined,
    of_run_declined,
    render_heartbeat,
    render_job,
    render_run,
    render_version,
    run_not_found,
    version_not_found,
)
from clockwork.schema.json import parse
from clockwork.schema.schedule import CLIENT_ID_SCHEMA, client_id_of, topic_of

ONE: Final = "/jobs/{clientId}/{jobId}"
_NUMBER: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
PREVIEWS_AT_ONCE: Final = 2
"""Previews that are computed at once. A hundred fire times of a rare date take seconds of a thread, and with it of the event
loop: both run Python. Any key may ask for them, and all that goes to a thread shares a few."""
PREVIEWS_WAITING_MAX: Final = 16
PREVIEW_AGAIN_S: Final = 2

_Read = TypeVar("_Read")
_Name = TypeVar("_Name")
_Found = TypeVar("_Found")


def _job_answer(description: str, *headers: str) -> Answer:
    return Answer(description=description, model=JobDocument, headers=("ETag", *headers))


_NO_JOB: Final = problem("No job is known under this name.")
_CONFLICT: Final = problem("The job's state does not allow it; `reason` names it.", model=JobConflictDocument)
_STALE: Final = problem("`If-Match` or `If-None-Match` rules the version out.", "ETag", model=StaleJobDocument)
_CHANGED: Final[Mapping[int, Answer]] = {
    200: _job_answer(
        "The job as it is then. `inFlight` names the runs that may still be delivered as they were before."
    ),
    404: _NO_JOB,
    409: _CONFLICT,
    412: _STALE,
}
_NO_RUN: Final = problem("No such job or run is known.")
_WITHOUT_BODY: Final[Mapping[int, Answer]] = {**KEYED_CALL, 501: JOBS_OFF}
_WITH_BODY: Final[Mapping[int, Answer]] = {**CALL_WITH_BODY, 501: JOBS_OFF}

_ENDED_RUN: Final[Mapping[int, Answer]] = {
    **_WITH_BODY,
    200: Answer(description="The run as it is then.", model=RunDocument),
    404: _NO_RUN,
    409: problem("The run's state does not allow it; `reason` names it.", model=RunConflictDocument),
}


def _one_of(kind: Callable[[str], _Name], names: str) -> Callable[[str], _Name]:
    def parse_name(text: str) -> _Name:
        try:
            return kind(text)
        except ValueError as error:
            raise ValueError(f"should be one of {names}") from error

    return parse_name


def _true(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("should be true or false")
    return text == "true"


def _count(text: str) -> int:
    if _NUMBER.fullmatch(text) is None or int(text) > TIMES_MAX:
        raise ValueError(f"should be 0 to {TIMES_MAX}")
    return int(text)


def _version(text: str) -> int:
    if _NUMBER.fullmatch(text) is None or int(text) < 1:
        raise ValueError("should be a number from 1 on")
    return int(text)


_JOB_STATUSES: Final = [each.value for each in JobStatus]
_RUN_STATUSES: Final = [each.value for each in RunStatus]
_LIST_PARAMETERS: Final = (
    Parameter(
        name="clientId",
        description="The jobs' client.",
        schema=CLIENT_ID_SCHEMA,
        required=True,
        example="shop",
        parse=client_id_of,
    ),
    Parameter(
        name="status",
        description="Only jobs in this state; by default all but deleted ones.",
        schema={"type": "string", "enum": _JOB_STATUSES},
        parse=_one_of(JobStatus, ", ".join(_JOB_STATUSES)),
    ),
    Parameter(name="topic", description="Only jobs for this topic.", schema={"type": "string"}, parse=topic_of),
    Parameter(
        name="label",
        description="Only jobs with this label, as `name:value`.",
        schema={"type": "string"},
        parse=label_of,
    ),
    Parameter(
        name="deleted",
        description="true: the deleted jobs that are kept, and no others.",
        schema={"type": "boolean"},
        parse=_true,
    ),
    *queries.PAGING,
)
_NEXT: Final = (
    Parameter(
        name="next",
        description="Shows so many next fire times.",
        schema={"type": "integer", "minimum": 0, "maximum": TIMES_MAX},
        example=5,
        parse=_count,
    ),
)
_LOG_PARAMETERS: Final = (
    Parameter(name="from", description="Due at this time or later.", schema=queries.TIME, parse=queries.time_of),
    Parameter(name="to", description="Due before this time.", schema=queries.TIME, parse=queries.time_of),
    Parameter(
        name="status",
        description="Only runs in this state.",
        schema={"type": "string", "enum": _RUN_STATUSES},
        parse=_one_of(RunStatus, ", ".join(_RUN_STATUSES)),
    ),
    *queries.PAGING,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobHandlers:
    """The calls on jobs."""

    jobs: JobService
    cluster: str
    body_bytes_max: int
    _previews: Turns = field(
        default_factory=lambda: Turns(
            "previews",
            at_once=PREVIEWS_AT_ONCE,
            waiting_max=PREVIEWS_WAITING_MAX,
            retry_after_s=PREVIEW_AGAIN_S,
        )
    )

    # --- one job

    @route(
        "POST",
        "/jobs",
        name="createJob",
        tag=JOBS,
        summary="Create a job",
        description=(
            "`201` means that it is durable, and its first run armed. The same request again is the same job and answers "
            "`200` with its present state, whatever became of it."
        ),
        request=JobForm,
        answers={
            200: _job_answer("The same request again: the job's present state.", *QUOTA_HEADERS),
            201: _job_answer("Created, and durable.", "Location", *QUOTA_HEADERS),
            409: problem("Another job has this name.", model=JobConflictDocument),
            **_WITH_BODY,
        },
    )
    async def create(self, request: web.Request) -> web.Response:
        self.jobs.check_on()
        read = partial(
            read_job, cluster=self.cluster, now_ms=self._now_ms(), traceparent=single_header(request, TRACEPARENT)
        )
        new = await self._read(request, read)
        result = await self.jobs.create(principal_of(request), new)
        match result:
            case JobCreated(view, limits):
                location = f"/jobs/{new.client_id}/{quote(new.job_id, safe='')}"
                headers = {hdrs.LOCATION: location, **problems.rate_limit_headers(limits)}
                return _shown(view, HTTPStatus.CREATED, headers)
            case JobAlreadyCreated(view, limits):
                return _shown(view, headers=problems.rate_limit_headers(limits))
            case JobRefused():
                raise Refusal(of_job_declined(result))

    @route(
        "GET",
        ONE,
        name="getJob",
        tag=JOBS,
        summary="Definition, state, next and last run",
        description="Strongly consistent: never behind an answer that was given before.",
        parameters=(*_NEXT, *CONDITIONS),
        answers={
            200: _job_answer("The job."),
            304: Answer(description="`If-None-Match` names the version.", media_type=None, headers=("ETag",)),
            404: _NO_JOB,
            412: _STALE,
            **_WITHOUT_BODY,
        },
    )
    async def find(self, request: web.Request) -> web.Response:
        name, condition = self._covered(request, Right.READ), condition_of(request)
        given = queries.read_query(request, _NEXT)
        view = await self.jobs.find(principal_of(request), name)
        if view is None:
            raise Refusal(of_job_declined(JobNotFound()))
        if condition.any_of is not None and view.version not in condition.any_of:
            raise Refusal(of_job_declined(JobVersionDiffers(view)))
        if condition.excludes(view.version):
            return web.Response(status=HTTPStatus.NOT_MODIFIED.value, headers=_etag(view))
        times = None
        if "next" in given:
            preview = next_times(view, given["next"], now_ms=self._now_ms())
            times = [] if preview is None else await self._times(preview)
        return json_response(render_job(view, times), headers=_etag(view))

    @route(
        "PUT",
        ONE,
        name="changeJob",
        tag=JOBS,
        summary="Change a job",
        description=(
            "Omitted fields stay; `delivery` is merged field by field, `trigger`, `misfire` and `retry` are replaced as a "
            "whole. Another trigger counts from now on and never fires at once; with the same one the armed time stays. An "
            "optional field without a default, such as `description`, is removed by null."
        ),
        request=JobChangeForm,
        parameters=CONDITIONS,
        answers={**_CHANGED, **_WITH_BODY},
    )
    async def change(self, request: web.Request) -> web.Response:
        name, condition = self._covered(request, Right.CREATE), condition_of(request)
        read = partial(
            read_job_change,
            client_id=name.client_id,
            job_id=name.job_id,
            cluster=self.cluster,
            now_ms=self._now_ms(),
        )
        edit = await self._read(request, read)
        return _answer(await self.jobs.put(principal_of(request), name, edit, condition=condition))

    @route(
        "DELETE",
        ONE,
        name="deleteJob",
        tag=JOBS,
        summary="Delete a job",
        description="It is kept for the retention, and may be restored until then. The same call again changes nothing.",
        parameters=CONDITIONS,
        answers={200: _CHANGED[200], 404: _NO_JOB, 412: _STALE, **_WITHOUT_BODY},
    )
    async def delete(self, request: web.Request) -> web.Response:
        name, condition = self._covered(request, Right.CANCEL), condition_of(request)
        return _answer(await self.jobs.delete(principal_of(request), name, condition=condition))

    @route(
        "POST",
        f"{ONE}/restore",
        name="restoreJob",
        tag=JOBS,
        summary="Restore a deleted job",
        description="As it was, active or paused. Nothing that was missed is caught up.",
        request=NothingForm,
        request_required=False,
        parameters=CONDITIONS,
        answers={**_CHANGED, **_WITH_BODY},
    )
    async def restore(self, request: web.Request) -> web.Response:
        name, condition = self._covered(request, Right.CREATE), condition_of(request)
        await self._read_if_any(request, read_nothing)
        return _answer(await self.jobs.restore(principal_of(request), name, condition=condition))

    @route(
        "POST",
        f"{ONE}/pause",
        name="pauseJob",
        tag=JOBS,
        summary="Pause a job",
        description="No run is armed any more until a resume. The same call again changes nothing.",
        request=PauseForm,
        request_required=False,
        parameters=CONDITIONS,
        answers={**_CHANGED, **_WITH_BODY},
    )
    async def pause(self, request: web.Request) -> web.Response:
        name, condition = self._covered(request, Right.CANCEL), condition_of(request)
        note = await self._read_if_any(request, read_pause)
        return _answer(await self.jobs.pause(principal_of(request), name, note, condition=condition))

    @route(
        "POST",
        f"{ONE}/resume",
        name="resumeJob",
        tag=JOBS,
        summary="Resume a paused job",
        description="The next run is the first fire time after now: what was missed is not caught up (see backfill).",
        request=NothingForm,
        request_required=False,
        parameters=CONDITIONS,
        answers={**_CHANGED, **_WITH_BODY},
    )
    async def resume(self, request: web.Request) -> web.Response:
        name, condition = self._covered(request, Right.CREATE), condition_of(request)
        await self._read_if_any(request, read_nothing)
        return _answer(await self.jobs.resume(principal_of(request), name, condition=condition))

    # --- runs

    @route(
        "POST",
        f"{ONE}/run-now",
        name="runJob",
        tag=JOBS,
        summary="Run a job now",
        description="A run by hand, also while the job is paused. The same `requestId` is the same run.",
        request=RunNowForm,
        answers={
            200: Answer(
                description="The same request again: the run's present state.",
                model=RunDocument,
                headers=QUOTA_HEADERS,
            ),
            201: Answer(description="The run is armed.", model=RunDocument, headers=QUOTA_HEADERS),
            404: _NO_JOB,
            409: _CONFLICT,
            **_WITH_BODY,
        },
    )
    async def run_now(self, request: web.Request) -> web.Response:
        name = self._covered(request, Right.CREATE)
        asked: RunNow = await self._read(request, read_run_now)
        result = await self.jobs.start_runs(principal_of(request), name, asked)
        accepted = _accepted(result)
        status = HTTPStatus.CREATED if isinstance(accepted, RunAccepted) else HTTPStatus.OK
        return json_response(render_run(accepted.run), status.value, problems.rate_limit_headers(accepted.limits))

    @route(
        "POST",
        f"{ONE}/backfill",
        name="backfillJob",
        tag=JOBS,
        summary="Run past fire times",
        description=(
            "Runs of the fire times in a range, one after the other, beside the job's own; also while it is paused. The "
            "same `requestId` is the same backfill."
        ),
        request=BackfillForm,
        answers={
            200: Answer(
                description="The same request again: its first run's present state.",
                model=BackfillDocument,
                headers=QUOTA_HEADERS,
            ),
            202: Answer(description="Its first run is armed.", model=BackfillDocument, headers=QUOTA_HEADERS),
            404: _NO_JOB,
            409: _CONFLICT,
            **_WITH_BODY,
        },
    )
    async def backfill(self, request: web.Request) -> web.Response:
        name = self._covered(request, Right.CREATE)
        asked: BackfillRequest = await self._read(request, partial(read_backfill, now_ms=self._now_ms()))
        accepted = _accepted(await self.jobs.start_runs(principal_of(request), name, asked))
        status = HTTPStatus.ACCEPTED if isinstance(accepted, RunAccepted) else HTTPStatus.OK
        document = {"requestId": asked.request_id, "run": render_run(accepted.run)}
        return json_response(document, status.value, problems.rate_limit_headers(accepted.limits))

    @route(
        "GET",
        f"{ONE}/logs",
        name="getJobLogs",
        tag=JOBS,
        summary="Runs of a job, and what was skipped",
        description="Newest first, by their due times, until retention ends.",
        parameters=_LOG_PARAMETERS,
        answers={200: Answer(description="A page.", model=RunsDocument), 404: _NO_JOB, **_WITHOUT_BODY},
    )
    async def logs(self, request: web.Request) -> web.Response:
        name = self._covered(request, Right.READ)
        given = queries.read_query(request, _LOG_PARAMETERS)
        cursor, limit = given.pop("cursor", None), given.pop("limit", queries.LIMIT_DEFAULT)
        query = LogQuery(from_ms=given.get("from"), to_ms=given.get("to"), status=given.get("status"))
        of = {"logs of": [name.client_id, name.job_id], **given}
        last = queries.decode_cursor(cursor, of)
        page = _of_known_job(
            await self.jobs.list_runs(principal_of(request), name, query, newest_position=last, limit=limit)
        )
        documents = (render_run(each) for each in page.runs)
        return await json_list_response("runs", documents, cursor=queries.encode_cursor(page.next_from, of))

    @route(
        "GET",
        f"{ONE}/runs/{{runId}}",
        name="getRun",
        tag=JOBS,
        summary="One run",
        description="At its latest attempt.",
        answers={
            200: Answer(description="The run.", model=RunDocument),
            404: _NO_RUN,
            **_WITHOUT_BODY,
        },
    )
    async def run(self, request: web.Request) -> web.Response:
        name, run_id = self._covered(request, Right.READ), path_parameter(request, "runId", run_id_of)
        found = _of_known_job(await self.jobs.find_run(principal_of(request), name, run_id))
        if found is None:
            raise Refusal(run_not_found())
        return json_response(render_run(found))

    @route(
        "POST",
        f"{ONE}/runs/{{runId}}/complete",
        name="completeRun",
        tag=JOBS,
        summary="Say that a run has ended well",
        description=(
            "What follows it is armed, if no run may be open beside it. The same call again changes nothing. A consumer "
            "that is faster than the end of the delivery may be answered with `503`: ask again."
        ),
        request=CompleteForm,
        request_required=False,
        answers=_ENDED_RUN,
    )
    async def complete(self, request: web.Request) -> web.Response:
        return await self._report(request, read_complete)

    @route(
        "POST",
        f"{ONE}/runs/{{runId}}/fail",
        name="failRun",
        tag=JOBS,
        summary="Say that a run has failed",
        description=(
            "Another attempt follows if the job's `completion` has one left, unless `retry` is false. The same call again "
            "changes nothing."
        ),
        request=FailForm,
        request_required=False,
        answers=_ENDED_RUN,
    )
    async def fail(self, request: web.Request) -> web.Response:
        return await self._report(request, read_fail)

    @route(
        "POST",
        f"{ONE}/runs/{{runId}}/heartbeat",
        name="heartbeatRun",
        tag=JOBS,
        summary="Say that a run goes on",
        description=(
            "Moves its time-out away. Where runs may overlap there is none to be moved: `409` `not_open`. Such a run can be "
            "completed all the same, at any time."
        ),
        request=HeartbeatForm,
        answers={**_ENDED_RUN, 200: Answer(description="The run goes on.", model=HeartbeatDocument)},
    )
    async def heartbeat(self, request: web.Request) -> web.Response:
        return await self._report(request, read_heartbeat)

    # --- definitions

    @route(
        "GET",
        f"{ONE}/versions",
        name="listJobVersions",
        tag=JOBS,
        summary="Versions of a job's definition",
        description="Newest first; the last 100 are kept.",
        parameters=queries.PAGING,
        answers={200: Answer(description="A page.", model=VersionsDocument), 404: _NO_JOB, **_WITHOUT_BODY},
    )
    async def versions(self, request: web.Request) -> web.Response:
        name = self._covered(request, Right.READ)
        given = queries.read_query(request, queries.PAGING)
        of = {"versions of": [name.client_id, name.job_id]}
        below = queries.decode_cursor(given.get("cursor"), of)
        limit = given.get("limit", queries.LIMIT_DEFAULT)
        page = _of_known_job(await self.jobs.versions(principal_of(request), name, below=below, limit=limit))
        after = None if page.next_below is None else Position(page.next_below)
        documents = (render_version(each) for each in page.versions)
        return await json_list_response("versions", documents, cursor=queries.encode_cursor(after, of))

    @route(
        "GET",
        f"{ONE}/versions/{{version}}",
        name="getJobVersion",
        tag=JOBS,
        summary="One version of a job's definition",
        description="When and by which key it was made, too.",
        answers={
            200: Answer(description="The version.", model=JobVersionDocument),
            404: problem("No such job or version is known."),
            **_WITHOUT_BODY,
        },
    )
    async def version(self, request: web.Request) -> web.Response:
        name, number = self._covered(request, Right.READ), path_parameter(request, "version", _version)
        found = _of_known_job(await self.jobs.version(principal_of(request), name, number))
        if found is None:
            raise Refusal(version_not_found())
        return json_response(render_version(found))

    # --- many, and none

    @route(
        "GET",
        "/jobs",
        name="listJobs",
        tag=JOBS,
        summary="List a client's jobs",
        description="In the order of their ids. A job that was created a few seconds ago may be missing.",
        parameters=_LIST_PARAMETERS,
        polled=True,
        answers={200: Answer(description="A page.", model=JobsDocument), **_WITHOUT_BODY},
    )
    async def list(self, request: web.Request) -> web.Response:
        self.jobs.check_on()
        given = queries.read_query(request, _LIST_PARAMETERS)
        cursor, limit = given.pop("cursor", None), given.pop("limit", queries.LIMIT_DEFAULT)
        query = JobQuery(
            client_id=given["clientId"],
            status=JobStatus.DELETED if given.get("deleted") else given.get("status"),
            topic=given.get("topic"),
            label=given.get("label"),
        )
        after = queries.decode_text_cursor(cursor, given)
        page = await self.jobs.list_jobs(
            principal_of(request), query, after=None if after is None else JobId(after), limit=limit
        )
        # In a thread: the first use of each time zone takes tens of milliseconds.
        documents = await asyncio.to_thread(lambda: [render_job(view) for view in page.views])
        return await json_list_response("jobs", documents, cursor=queries.encode_text_cursor(page.next_after, given))

    @route(
        "POST",
        "/jobs/preview",
        name="previewTrigger",
        tag=JOBS,
        summary="The next fire times of a trigger",
        description=(
            "Nothing is stored. A trigger that names a calendar needs `clientId`, and a key with the right `read` for it."
        ),
        request=PreviewForm,
        answers={200: Answer(description="The fire times, in order.", model=PreviewDocument), **_WITH_BODY},
    )
    async def preview(self, request: web.Request) -> web.Response:
        self.jobs.check_on()
        body, now_ms = await self._body(request), self._now_ms()
        async with self._previews.one():
            preview = await asyncio.to_thread(lambda: read_preview(parse(body), now_ms=now_ms))
        preview = await self.jobs.resolve(principal_of(request), preview)
        times = await self._times(preview)
        return await json_list_response("times", map(fire_time_document, times))

    # --- within

    def _now_ms(self) -> int:
        return self.jobs.context.clock.now_ms()

    async def _times(self, preview: Preview) -> Sequence[FireTime]:
        """Raises: TooManyRequests."""
        async with self._previews.one():
            return await asyncio.to_thread(preview.times)

    def _covered(self, request: web.Request, right: Right) -> JobName:
        """The job that the path names. Raises: JobsOff, InvalidInput; Forbidden (the caller does not have the right for its
        client: the node should read and judge no body then)."""
        self.jobs.check_on()
        client_id, job_id = read_job_key(names_in_path(request, "clientId", "jobId"))
        authorize(principal_of(request), right, client_id)
        return JobName(client_id, job_id)

    async def _report(self, request: web.Request, read: Callable[[Any], CompletionReport | Heartbeat]) -> web.Response:
        name = self._covered(request, Right.COMPLETE)
        try:
            run_id = path_parameter(request, "runId", run_id_of)
        except InvalidInput as wrong:
            await self._read_besides(request, read, wrong)
            raise
        report = await self._read_if_any(request, read)
        result = await self.jobs.report_run(principal_of(request), name, run_id, report)
        match result:
            case RunClosed(run) | RunAlreadyClosed(run):
                return json_response(render_run(run))
            case RunExtended():
                return json_response(render_heartbeat(result))
            case _:
                raise Refusal(of_run_declined(result))

    async def _read_besides(self, request: web.Request, read: Callable[[Any], object], wrong: InvalidInput) -> None:
        """Reads the body of a request whose path is wrong. Raises: InvalidInput, naming every wrong field of both."""
        try:
            await self._read_if_any(request, read)
        except InvalidInput as too:
            raise InvalidInput([*wrong.errors, *too.errors]) from wrong

    async def _read_if_any(self, request: web.Request, read: Callable[[Any], _Read]) -> _Read:
        return await self._read(request, read) if request.can_read_body else read({})

    async def _read(self, request: web.Request, read: Callable[[Any], _Read]) -> _Read:
        """The request's body as `read` takes it, in a thread: the first use of a time zone takes tens of milliseconds, and
        the search for a rare date as long, in which the event loop would send no heartbeat."""
        body = await self._body(request)
        return await asyncio.to_thread(lambda: read(parse(body)))

    async def _body(self, request: web.Request) -> bytes:
        return await body_of(request, bytes_max=min(self.body_bytes_max, ONE_SCHEDULE_BYTES_MAX))


def _of_known_job(found: _Found | JobNotFound) -> _Found:
    if isinstance(found, JobNotFound):
        raise Refusal(of_job_declined(found))
    return found


def _accepted(result: RunResult) -> RunAccepted | RunAlreadyAccepted:
    if not isinstance(result, RunAccepted | RunAlreadyAccepted):
        raise Refusal(of_job_declined(result))
    return result


def _answer(result: JobChangeResult) -> web.Response:
    if not isinstance(result, JobChanged | JobUnchanged):
        raise Refusal(of_job_declined(result))
    return _shown(result.view)


def _shown(view: JobView, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> web.Response:
    return json_response(render_job(view), status.value, {**_etag(view), **(headers or {})})


def _etag(view: JobView) -> dict[str, str]:
    return {hdrs.ETAG: f'"{view.version}"'}
