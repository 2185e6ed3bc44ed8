"""GET and POST /admin/schedules: lists all pending schedules of this cluster, and imports those of another."""

import base64
import binascii
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from clockwork.access.gate import principal_of
from clockwork.domain.names import BATCH_ITEMS_MAX
from clockwork.domain.position import LAST, Position
from clockwork.domain.rights import Right, authorize
from clockwork.domain.schedule import ClientId, ImportedSchedule
from clockwork.domain.sharding import ShardId
from clockwork.errors import FieldError, Forbidden, InvalidInput
from clockwork.http import query as queries
from clockwork.http.batches import batch_response
from clockwork.http.body import Refusal, body_of
from clockwork.http.responses import json_list_response
from clockwork.http.routes import ADMIN, ADMIN_CALL, CALL_WITH_BODY, Answer, Parameter, problem, route
from clockwork.operations.scan import SCAN_START, PendingScan, ScanCursor, ScanFilter
from clockwork.requests.results import ExportRefused
from clockwork.requests.service import RequestService
from clockwork.schema.batch import BatchDocument, read_each
from clockwork.schema.json import read_json
from clockwork.schema.problems import Problem
from clockwork.schema.render import render_pending
from clockwork.schema.schedule import CLIENT_ID_SCHEMA, client_id_of
from clockwork.schema.transfer import ImportManyForm, PendingDocument, read_envelope, read_imported

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
        if Right.READ not in principal.rights:
            # The content of schedules belongs to their clients; the right `admin` does not cover it.
            raise Forbidden(f"This key does not have the right {Right.READ.value!r}.")
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


def _encode_cursor(place: ScanCursor | None) -> str | None:
    if place is None:
        return None
    parts = place.shard.to_bytes(_SHARD_BYTES, "big") + (place.after or 0).to_bytes(_POSITION_BYTES, "big")
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
