"""GET and POST /admin/schedules and /admin/jobs: list what is pending in this cluster, and import that of another."""

import base64
import binascii
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from clockwork.access.gate import principal_of
from clockwork.domain.jobs.job import JobName
from clockwork.domain.names import BATCH_ITEMS_MAX, is_client_id, is_key
from clockwork.domain.position import LAST, Position
from clockwork.domain.rights import Principal, Right, authorize
from clockwork.domain.run import JobId
from clockwork.domain.schedule import ClientId, ImportedSchedule
from clockwork.domain.sharding import ShardId
from clockwork.errors import FieldError, Forbidden, InvalidInput
from clockwork.http import query as queries
from clockwork.http.batches import batch_response
from clockwork.http.body import Refusal, body_of
from clockwork.http.responses import json_list_response, json_response
from clockwork.http.routes import ADMIN, ADMIN_CALL, CALL_WITH_BODY, JOBS_OFF, Answer, Parameter, problem, route
from clockwork.operations.scan import SCAN_START, PendingScan, ScanCursor, ScanFilter
from clockwork.requests.jobs.results import JobAlreadyCreated, JobCreated, JobRefused
from clockwork.requests.jobs.service import JobService
from clockwork.requests.jobs.transfer import left_behind
from clockwork.requests.results import ExportRefused
from clockwork.requests.service import RequestService
from clockwork.schema.batch import BatchDocument, read_each
from clockwork.schema.job_render import exported_job, of_job_declined, render_job
from clockwork.schema.json import read_json
from clockwork.schema.problems import Problem
from clockwork.schema.render import render_pending
from clockwork.schema.schedule import CLIENT_ID_SCHEMA, client_id_of
from clockwork.schema.transfer import (
    ExportedJobsDocument,
    ImportedJobDocument,
    ImportJobForm,
    ImportManyForm,
    PendingDocument,
    read_envelope,
    read_imported,
    read_imported_job,
)

_SHARD_BYTES: Final = 4
_POSITION_BYTES: Final = 16
_SCAN_PARAMETERS: Final = (
    Parameter(
        name="clientId",
        description="Only this client's schedules.",
        schema=CLIENT_ID_SCHEMA,
        parse=client_id_of,
    ),
    *queries.DUE,
    *queries.PAGING,
)

_JOB_SCAN_PARAMETERS: Final = (
    Parameter(name="clientId", description="Only this client's jobs.", schema=CLIENT_ID_SCHEMA, parse=client_id_of),
    *queries.PAGING,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferHandlers:
    """The two halves of a move between stores."""

    scan: PendingScan
    requests: RequestService
    cluster: str
    body_bytes_max: int

    @route(
        "GET",
        "/admin/schedules",
        name="scanPending",
        tag=ADMIN,
        summary="All pending schedules",
        description=(
            "Schedules of the clients that the key covers, for which it also needs the right `read`; shard after shard, in "
            "the order of their delivery. Each as it was at its own moment; one that is changed meanwhile may be listed or "
            "not. A page may be short, or empty, before the end."
        ),
        parameters=_SCAN_PARAMETERS,
        answers={200: Answer(description="A page.", model=PendingDocument), **ADMIN_CALL},
    )
    async def read(self, request: web.Request) -> web.Response:
        principal = principal_of(request)
        _check_export(principal)
        given = queries.read_query(request, _SCAN_PARAMETERS)
        client_id = given.get("clientId")
        if client_id is not None:
            authorize(principal, Right.READ, ClientId(client_id))
        at_ms = self.requests.context.clock.now_ms()
        start = _decode_cursor(given.get("cursor"), shards=self.scan.shards)
        only = ScanFilter(client_id=client_id, due_from_ms=given.get("dueFrom"), due_to_ms=given.get("dueTo"))
        page = await self.scan.page(start, limit=given.get("limit", queries.LIMIT_DEFAULT), only=only)
        covered = [each for each in page.found if principal.clients.cover(each.view.client_id)]
        return await json_list_response(
            "schedules",
            map(render_pending, covered),
            at=at_ms,
            unreadable=page.unreadable,
            uncovered=len(page.found) - len(covered),
            cursor=_encode_cursor(page.next_from),
        )

    @route(
        "POST",
        "/admin/schedules",
        name="importSchedules",
        tag=ADMIN,
        summary=f"Import up to {BATCH_ITEMS_MAX:,} pending schedules of another cluster",
        description=(
            "Each as `GET /admin/schedules` shows it there, without `status` and `shard`; it keeps its place in its lane, "
            "version, delivery id and the digest of its create. The key also needs the right `create` for clients and "
            "topics; limits of clients are not applied. Each succeeds or fails alone: `201` imported, `200` there "
            "already, in whatever state it is by now, also after it was delivered; `409` another schedule is pending under "
            "its key. So the same request may be sent again at any time, as long as the export is not older than outcomes "
            "are kept here."
        ),
        request=ImportManyForm,
        answers={
            200: Answer(description="A result for each, in the order given.", model=BatchDocument),
            409: problem("The export is older than outcomes are kept here, or lies ahead: nothing was imported."),
            **CALL_WITH_BODY,
            **ADMIN_CALL,
        },
    )
    async def import_many(self, request: web.Request) -> web.Response:
        body = await body_of(request, bytes_max=self.body_bytes_max)
        now_ms = self.requests.context.clock.now_ms()
        exported_at_ms, items = await read_json(body, partial(_read_import, cluster=self.cluster, now_ms=now_ms))
        results = await self.requests.import_batch(principal_of(request), items, exported_at_ms=exported_at_ms)
        if isinstance(results, ExportRefused):
            raise Refusal(_export_refused(results))
        return await batch_response(results)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobTransferHandlers:
    """The same for recurring jobs."""

    jobs: JobService
    cluster: str
    body_bytes_max: int

    @route(
        "GET",
        "/admin/jobs",
        name="scanJobs",
        tag=ADMIN,
        summary="All recurring jobs",
        description=(
            "Active and paused jobs of the clients that the key covers, for which it also needs the right `read`; in any "
            "order. A page may be short, or empty, before the end."
        ),
        parameters=_JOB_SCAN_PARAMETERS,
        answers={200: Answer(description="A page.", model=ExportedJobsDocument), **ADMIN_CALL},
    )
    async def read(self, request: web.Request) -> web.Response:
        principal = principal_of(request)
        _check_export(principal)
        given = queries.read_query(request, _JOB_SCAN_PARAMETERS)
        client_id = given.get("clientId")
        if client_id is not None:
            authorize(principal, Right.READ, ClientId(client_id))
        page = await self.jobs.scan(
            client_id=client_id,
            after=_decode_name(given.get("cursor")),
            limit=given.get("limit", queries.LIMIT_DEFAULT),
        )
        covered = [view for view in page.views if principal.clients.cover(view.state.client_id)]
        return await json_list_response(
            "jobs",
            map(exported_job, covered),
            unreadable=page.unreadable,
            uncovered=len(page.views) - len(covered),
            leftBehind=sum(left_behind(view.state) for view in covered),
            cursor=_encode_name(page.next_after),
        )

    @route(
        "POST",
        "/admin/jobs",
        name="importJob",
        tag=ADMIN,
        summary="Import a recurring job of another cluster",
        description=(
            "As `GET /admin/jobs` shows it there. It keeps version, counts, pause and the digest of its create, and its "
            "fire times go on from where they were decided there: what was missed meanwhile is caught up or skipped by its "
            "misfire policy. The key also needs the right `create` for client and topic; limits of clients are not applied. "
            "The same request again is the same job and answers `200`, whatever has become of it here."
        ),
        request=ImportJobForm,
        answers={
            200: Answer(description="It is here already: the job as it is.", model=ImportedJobDocument),
            201: Answer(description="Imported, and durable.", model=ImportedJobDocument),
            409: problem(
                "Another job has this name, or the export is older than outcomes are kept here, or lies ahead."
            ),
            501: JOBS_OFF,
            **CALL_WITH_BODY,
            **ADMIN_CALL,
        },
    )
    async def import_one(self, request: web.Request) -> web.Response:
        body = await body_of(request, bytes_max=self.body_bytes_max)
        exported_at_ms, imported = await read_json(body, partial(read_imported_job, cluster=self.cluster))
        result = await self.jobs.import_one(principal_of(request), imported, exported_at_ms=exported_at_ms)
        match result:
            case JobCreated(view):
                return json_response({"created": True, "job": render_job(view)}, HTTPStatus.CREATED.value)
            case JobAlreadyCreated(view):
                return json_response({"created": False, "job": render_job(view)})
            case JobRefused():
                raise Refusal(of_job_declined(result))
            case ExportRefused():
                raise Refusal(_export_refused(result))


def _check_export(principal: Principal) -> None:
    """Return if the principal may export schedules and jobs, by client. Raises: Forbidden."""
    if Right.READ not in principal.rights:
        # The content of schedules belongs to their clients; the right `admin` does not cover it.
        raise Forbidden(f"This key does not have the right {Right.READ.value!r}.")
    if principal.redacted:
        # Such an export looks complete, and cannot be imported.
        raise Forbidden("This key may not see the content of schedules, so it can export none.")


def _encode_name(name: JobName | None) -> str | None:
    return None if name is None else base64.urlsafe_b64encode(str(name).encode()).decode()


def _decode_name(cursor: str | None) -> JobName | None:
    if cursor is None:
        return None
    try:
        client_id, _, job_id = base64.b64decode(cursor, altchars=b"-_", validate=True).decode().partition("/")
    except (binascii.Error, ValueError) as error:
        raise _bad_cursor() from error
    if not is_client_id(client_id) or not is_key(job_id):
        raise _bad_cursor()
    return JobName(ClientId(client_id), JobId(job_id))


def _read_import(document: Any, *, cluster: str, now_ms: int) -> tuple[int, list[ImportedSchedule | InvalidInput]]:
    exported_at_ms, items = read_envelope(document)
    return exported_at_ms, read_each(items, partial(read_imported, cluster=cluster, now_ms=now_ms))


def _export_refused(refused: ExportRefused) -> Problem:
    return Problem(
        status=HTTPStatus.CONFLICT,
        kind="export-refused",
        title="The export cannot be imported any more",
        detail=f"exportedAt {refused.reason}.",
    )


def _encode_cursor(start: ScanCursor | None) -> str | None:
    if start is None:
        return None
    parts = start.shard.to_bytes(_SHARD_BYTES, "big") + (start.after or 0).to_bytes(_POSITION_BYTES, "big")
    return base64.urlsafe_b64encode(parts).decode()


def _decode_cursor(cursor: str | None, *, shards: int) -> ScanCursor:
    if cursor is None:
        return SCAN_START
    try:
        parts = base64.b64decode(cursor, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad_cursor() from error
    shard, after = int.from_bytes(parts[:_SHARD_BYTES], "big"), int.from_bytes(parts[_SHARD_BYTES:], "big")
    if len(parts) != _SHARD_BYTES + _POSITION_BYTES or shard >= shards or after > LAST:
        raise _bad_cursor()
    return ScanCursor(shard=ShardId(shard), after=Position(after) if after else None)


def _bad_cursor() -> InvalidInput:
    return InvalidInput([FieldError("cursor", "is not one that was given out")])
