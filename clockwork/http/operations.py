"""The calls under /admin: about the service itself.

Every call is registered here, and nowhere else: those about pauses and dead letters, which are for operators of the clients
and topics concerned and check that themselves, and the others, with the check that the key has the right `admin`. That right
covers no schedule's content: for an answer with content the key also needs `read` for its client.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Final

from aiohttp import web

from clockwork.access.gate import principal_of
from clockwork.domain.activity import Action
from clockwork.domain.destination import Topic
from clockwork.domain.pauses import PauseKind, Pauses
from clockwork.domain.rights import (
    LOOK,
    Principal,
    authorize_any,
    authorize_pausing,
    authorize_service,
    sees_client,
    sees_topic,
)
from clockwork.domain.schedule import ClientId
from clockwork.http.actions import reason_of, record
from clockwork.http.body import path_parameter
from clockwork.http.dead_letters import LetterHandlers
from clockwork.http.nodes import NodeHandlers
from clockwork.http.responses import json_response
from clockwork.http.routes import (
    ADMIN,
    CALL_WITH_BODY,
    OPERATOR_CALL,
    READ_UNITS,
    Answer,
    Handler,
    ReadMetering,
    add_routes,
    route,
)
from clockwork.http.shards import ShardHandlers
from clockwork.http.transfer import JobTransferHandlers, TransferHandlers
from clockwork.operations.dead_letters import DeadLetterAdmin, Discarder, LetterBatches
from clockwork.operations.pauses import PauseAdmin
from clockwork.operations.processes import ProcessSurvey
from clockwork.operations.scan import PendingScan
from clockwork.operations.shards import ShardAdmin
from clockwork.ports.telemetry import Telemetry
from clockwork.requests.service import RequestService
from clockwork.schema.letter_batches import run_again
from clockwork.schema.operations import PausesDocument, render_pause
from clockwork.schema.reason import ReasonForm
from clockwork.schema.schedule import client_id_of, topic_of


@dataclass(frozen=True, kw_only=True, slots=True)
class AdminParts:
    """The parts of the service that answer the calls."""

    pausing: PauseAdmin
    letters: DeadLetterAdmin
    discards: Discarder
    shards: ShardAdmin
    processes: ProcessSurvey
    scan: PendingScan


def add_admin_routes(
    app: web.Application, parts: AdminParts, requests: RequestService, *, cluster: str, body_bytes_max: int
) -> None:
    """All calls under /admin."""
    telemetry = requests.context.telemetry
    batches = LetterBatches(requests=requests, letters=parts.letters, discards=parts.discards, run_again=run_again)
    letters = LetterHandlers(letters=parts.letters, batches=batches, body_bytes_max=body_bytes_max)
    shards = ShardHandlers(shards=parts.shards, telemetry=telemetry)
    nodes = NodeHandlers(survey=parts.processes)
    transfer = TransferHandlers(scan=parts.scan, requests=requests, cluster=cluster, body_bytes_max=body_bytes_max)
    jobs = JobTransferHandlers(jobs=requests.jobs, cluster=cluster, body_bytes_max=body_bytes_max)
    pauses = PauseHandlers(pausing=parts.pausing, telemetry=telemetry)
    for handlers in (pauses, letters):
        add_routes(app, handlers)
    for for_admins in (shards, nodes, transfer, jobs):
        add_routes(app, for_admins, wrap=_for_admins)


def _for_admins(answering: Handler) -> Handler:
    @wraps(answering)
    async def admitted(request: web.Request) -> web.StreamResponse:
        authorize_service(principal_of(request))
        return await answering(request)

    return admitted


_ANSWERS: Final[Mapping[int, Answer]] = {
    200: Answer(description="Paused clients and topics, after the call.", model=PausesDocument),
    **OPERATOR_CALL,
}
_PAUSED: Final = (
    "Within seconds every node holds back the due schedules concerned, in place and in order; schedules behind them in the "
    "same lane wait too. Nothing is lost, no attempt is counted. Deadlines (`onLate`) are applied when delivery goes on. "
    "Cancels and changes work as for any waiting schedule. The same call again changes nothing; another `reason` replaces "
    "`reason` and `by`, and `since` stays. Needs the right `operate`, for a topic with a key that covers all clients."
)
_RESUMED: Final = "Delivery goes on within seconds. The same call again changes nothing."


@dataclass(frozen=True, kw_only=True, slots=True)
class PauseHandlers:
    """The calls about pauses. Each answers with the pauses that the key may see, as they are after it."""

    pausing: PauseAdmin
    telemetry: Telemetry

    @route(
        "GET",
        "/admin/pauses",
        name="listPauses",
        tag=ADMIN,
        summary="Paused clients and topics",
        description=(
            "Clients and topics whose schedules are held back, since when, by whom and why: all for a key with the right "
            "`admin`; with `read` or `operate` those that it covers. By whom is shown to who paused, "
            "and to those who may see its events."
        ),
        reads=ReadMetering(call="pauses", may_use_reserve=True),
        polled=True,
        answers={
            **_ANSWERS,
            200: Answer(description="Paused clients and topics.", model=PausesDocument, headers=(READ_UNITS,)),
        },
    )
    async def show(self, request: web.Request) -> web.Response:
        principal = principal_of(request)
        authorize_any(principal, LOOK)
        return _pauses_response(await self.pausing.show(), principal)

    @route(
        "PUT",
        "/admin/pauses/clients/{clientId}",
        name="pauseClient",
        tag=ADMIN,
        summary="Pause the delivery of a client's schedules",
        description=_PAUSED,
        request=ReasonForm,
        request_required=False,
        answers={**CALL_WITH_BODY, **_ANSWERS},
    )
    async def pause_client(self, request: web.Request) -> web.Response:
        principal, name = principal_of(request), _client(request)
        authorize_pausing(principal, client_id=name)
        reason = await reason_of(request)
        pauses = await self.pausing.pause(PauseKind.CLIENT, name, by=principal.name, reason=reason)
        record(self.telemetry, Action(kind="paused", by=principal.name, client_id=ClientId(name), reason=reason))
        return _pauses_response(pauses, principal)

    @route(
        "DELETE",
        "/admin/pauses/clients/{clientId}",
        name="resumeClient",
        tag=ADMIN,
        summary="Resume the delivery of a client's schedules",
        description=_RESUMED,
        answers=_ANSWERS,
    )
    async def resume_client(self, request: web.Request) -> web.Response:
        principal, name = principal_of(request), _client(request)
        authorize_pausing(principal, client_id=name)
        pauses = await self.pausing.resume(PauseKind.CLIENT, name)
        record(self.telemetry, Action(kind="resumed", by=principal.name, client_id=ClientId(name)))
        return _pauses_response(pauses, principal)

    @route(
        "PUT",
        "/admin/pauses/topics/{topic}",
        name="pauseTopic",
        tag=ADMIN,
        summary="Pause the delivery to a topic",
        description=_PAUSED,
        request=ReasonForm,
        request_required=False,
        answers={**CALL_WITH_BODY, **_ANSWERS},
    )
    async def pause_topic(self, request: web.Request) -> web.Response:
        principal, name = principal_of(request), _topic(request)
        authorize_pausing(principal, topic=name)
        reason = await reason_of(request)
        pauses = await self.pausing.pause(PauseKind.TOPIC, name, by=principal.name, reason=reason)
        record(self.telemetry, Action(kind="paused", by=principal.name, topic=Topic(name), reason=reason))
        return _pauses_response(pauses, principal)

    @route(
        "DELETE",
        "/admin/pauses/topics/{topic}",
        name="resumeTopic",
        tag=ADMIN,
        summary="Resume the delivery to a topic",
        description=_RESUMED,
        answers=_ANSWERS,
    )
    async def resume_topic(self, request: web.Request) -> web.Response:
        principal, name = principal_of(request), _topic(request)
        authorize_pausing(principal, topic=name)
        pauses = await self.pausing.resume(PauseKind.TOPIC, name)
        record(self.telemetry, Action(kind="resumed", by=principal.name, topic=Topic(name)))
        return _pauses_response(pauses, principal)


def _client(request: web.Request) -> str:
    return path_parameter(request, "clientId", client_id_of)


def _topic(request: web.Request) -> str:
    return path_parameter(request, "topic", topic_of)


def _pauses_response(pauses: Pauses, principal: Principal) -> web.Response:
    document = {
        f"{kind.value}s": [
            render_pause(kind, name, pause, principal) for name, pause in sorted(names.items()) if sees(principal, name)
        ]
        for kind, names, sees in (
            (PauseKind.CLIENT, pauses.clients, sees_client),
            (PauseKind.TOPIC, pauses.topics, sees_topic),
        )
    }
    return json_response(document)
