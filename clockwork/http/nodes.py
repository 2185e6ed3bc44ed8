"""GET /admin/nodes: the processes of the cluster."""

from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from clockwork.domain.registry import ProcessReport
from clockwork.http.responses import json_response
from clockwork.http.routes import ADMIN, ADMIN_CALL, READ_UNITS, Answer, ReadMetering, route
from clockwork.operations.processes import ProcessesView, ProcessSurvey
from clockwork.schema.nodes import NodesDocument

NODES_SHARED_S: Final = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeHandlers:
    """The call about processes. In the API their list is `nodes`."""

    survey: ProcessSurvey

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
        reads=ReadMetering(call="nodes", shared_s=NODES_SHARED_S, may_use_reserve=True),
        polled=True,
        answers={200: Answer(description="The processes.", model=NodesDocument, headers=(READ_UNITS,)), **ADMIN_CALL},
    )
    async def list(self, request: web.Request) -> web.Response:
        view = await self.survey.processes()
        known = {each.process for each in view.reports}
        document: dict[str, Any] = {
            "asOf": view.as_of_ms,
            "nodes": [_document_of(view, each) for each in view.reports],
            "differences": [{"setting": name, "processes": groups} for name, groups in view.differences],
            "membersWithoutNode": sorted((view.members or set()) - known),
        }
        document |= {} if view.members_unknown is None else {"membersUnknown": view.members_unknown}
        return json_response(document)


def _document_of(view: ProcessesView, report: ProcessReport) -> dict[str, Any]:
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
