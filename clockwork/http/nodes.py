"""GET /admin/nodes and GET /clients: who works, and for whom."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web

from clockwork.access.gate import principal_of
from clockwork.domain.registry import DAY_MS, KnownClient, ProcessReport
from clockwork.domain.rights import Right, authorize_any
from clockwork.http.responses import json_list_response, json_response
from clockwork.http.routes import ACTIVITY, ADMIN, ADMIN_CALL, KEYED_CALL, READ_UNITS, Answer, PageReads, route
from clockwork.operations.clients import CLIENTS_MAX, ClientDirectory
from clockwork.operations.nodes import NodeSurvey, NodesView
from clockwork.schema.nodes import ClientsDocument, NodesDocument

NODES_SHARED_S: Final = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeHandlers:
    """The call about nodes."""

    nodes: NodeSurvey

    @route(
        "GET",
        "/admin/nodes",
        name="listNodes",
        tag=ADMIN,
        summary="Processes of the cluster",
        description=(
            "Each process as it reports of itself every 10 seconds, whichever node is asked: role, version, shards, rates, "
            "event loop, clock, what it sees of Kafka and the store; and settings in which they differ, without values. "
            "Beside them the consumer group's members, where Kafka answers. A process that has been silent for 30 seconds "
            "is gone; its report stays for a day. The answer is up to 5 seconds old."
        ),
        reads=PageReads(call="nodes", shared_s=NODES_SHARED_S),
        polled=True,
        answers={200: Answer(description="The processes.", model=NodesDocument, headers=(READ_UNITS,)), **ADMIN_CALL},
    )
    async def list(self, request: web.Request) -> web.Response:
        view = await self.nodes.nodes()
        known = {each.process for each in view.reports}
        document: dict[str, Any] = {
            "asOf": view.as_of_ms,
            "nodes": [_document_of(view, each) for each in view.reports],
            "differences": [{"setting": name, "processes": groups} for name, groups in view.differences],
            "membersWithoutNode": sorted((view.members or set()) - known),
        }
        document |= {} if view.members_unknown is None else {"membersUnknown": view.members_unknown}
        return json_response(document)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientHandlers:
    """The call about clients."""

    directory: ClientDirectory

    @route(
        "GET",
        "/clients",
        name="listClients",
        tag=ACTIVITY,
        summary="Clients that create",
        description=(
            "The covered clients that have created something, with the days (UTC) of their first and last create that was "
            f"noted; of {CLIENTS_MAX:,} at most. The answer is up to a minute old."
        ),
        reads=PageReads(call="clients", shared_s=1.0),
        polled=True,
        answers={200: Answer(description="The clients.", model=ClientsDocument, headers=(READ_UNITS,)), **KEYED_CALL},
    )
    async def list(self, request: web.Request) -> web.Response:
        principal = principal_of(request)
        authorize_any(principal, [Right.READ])
        known = await self.directory.list()
        covered = (_client(each) for each in known.clients if principal.clients.cover(each.client_id))
        return await json_list_response("clients", covered, complete=known.complete, asOf=known.as_of_ms)


def _document_of(view: NodesView, report: ProcessReport) -> dict[str, Any]:
    fires = report.role in ("all", "worker")
    document: dict[str, Any] = {
        "process": report.process,
        "node": report.node,
        "role": report.role,
        "version": report.version,
        "since": report.since_ms,
        "seenAt": report.seen_at_ms,
        "gone": view.is_gone(report),
        "accepts": report.role in ("all", "api"),
        "fires": fires,
        "shards": report.shards,
        "assigned": report.assigned,
        "createdPerSecond": report.created_per_second,
        "deliveredPerSecond": report.delivered_per_second,
        "loopLagMs": report.loop_lag_ms,
        "kafka": report.kafka,
        "store": report.store,
    }
    document |= {} if report.clock_skew_ms is None else {"clockSkewMs": report.clock_skew_ms}
    return document | ({"member": report.process in view.members} if fires and view.members is not None else {})


def _client(seen: KnownClient) -> dict[str, str]:
    return {"clientId": seen.client_id, "firstDay": _day(seen.first_day), "lastDay": _day(seen.last_day)}


def _day(number: int) -> str:
    return datetime.fromtimestamp(number * DAY_MS / 1_000, UTC).date().isoformat()
