"""The calls under /admin: about the service itself, for keys with the right `admin`.

Every call is registered here, with the check, and nowhere else. The right covers no schedule's content: for an answer with
content the key also needs `read` for its client.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Final

from aiohttp import web

from clockwork.access.gate import principal_of
from clockwork.domain.pauses import PauseKind, Pauses
from clockwork.domain.rights import authorize_service
from clockwork.http.body import path_parameter
from clockwork.http.dead_letters import LetterHandlers
from clockwork.http.routes import ADMIN, ADMIN_CALL, Answer, Handler, add_routes, route
from clockwork.http.shards import ShardHandlers
from clockwork.http.transfer import JobTransferHandlers, TransferHandlers
from clockwork.operations.dead_letters import DeadLetterAdmin, Discarder
from clockwork.operations.pauses import PauseAdmin
from clockwork.operations.scan import PendingScan
from clockwork.operations.shards import ShardAdmin
from clockwork.requests.service import RequestService
from clockwork.schema import json as json_body
from clockwork.schema.operations import PausesDocument
from clockwork.schema.schedule import client_id_of, topic_of


@dataclass(frozen=True, kw_only=True, slots=True)
class AdminParts:
    """The parts of the service that answer the calls."""

    pausing: PauseAdmin
    letters: DeadLetterAdmin
    discards: Discarder
    survey: ShardAdmin
    scan: PendingScan


def add_admin_routes(
    app: web.Application, parts: AdminParts, requests: RequestService, *, cluster: str, body_bytes_max: int
) -> None:
    """All calls under /admin."""
    pauses = PauseHandlers(pausing=parts.pausing)
    letters = LetterHandlers(letters=parts.letters, discards=parts.discards)
    shards = ShardHandlers(survey=parts.survey)
    transfer = TransferHandlers(scan=parts.scan, requests=requests, cluster=cluster, body_bytes_max=body_bytes_max)
    jobs = JobTransferHandlers(jobs=requests.jobs, cluster=cluster, body_bytes_max=body_bytes_max)
    for handlers in (pauses, letters, shards, transfer, jobs):
        add_routes(app, handlers, wrap=_for_admins)


def _for_admins(answering: Handler) -> Handler:
    @wraps(answering)
    async def admitted(request: web.Request) -> web.StreamResponse:
        authorize_service(principal_of(request))
        return await answering(request)

    return admitted


_ANSWERS: Final[Mapping[int, Answer]] = {
    200: Answer(description="All paused clients and topics, after the call.", model=PausesDocument),
    **ADMIN_CALL,
}
_PAUSED: Final = (
    "Within seconds every node holds back the due schedules concerned, in place and in order; schedules behind them in the "
    "same lane wait too. Nothing is lost, no attempt is counted. Deadlines (`onLate`) are applied when delivery goes on. "
    "Cancels and changes work as for any waiting schedule. The same call again changes nothing."
)
_RESUMED: Final = "Delivery goes on within seconds. The same call again changes nothing."


@dataclass(frozen=True, kw_only=True, slots=True)
class PauseHandlers:
    """The calls about pauses. Each answers with all pauses, as they are after it."""

    pausing: PauseAdmin

    @route(
        "GET",
        "/admin/pauses",
        name="listPauses",
        tag=ADMIN,
        summary="Paused clients and topics",
        description="Clients and topics whose schedules are held back.",
        answers=_ANSWERS,
    )
    async def show(self, request: web.Request) -> web.Response:
        return _pauses_response(await self.pausing.show())

    @route(
        "PUT",
        "/admin/pauses/clients/{clientId}",
        name="pauseClient",
        tag=ADMIN,
        summary="Pause the delivery of a client's schedules",
        description=_PAUSED,
        answers=_ANSWERS,
    )
    async def pause_client(self, request: web.Request) -> web.Response:
        return _pauses_response(await self.pausing.pause(PauseKind.CLIENT, _client(request)))

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
        return _pauses_response(await self.pausing.resume(PauseKind.CLIENT, _client(request)))

    @route(
        "PUT",
        "/admin/pauses/topics/{topic}",
        name="pauseTopic",
        tag=ADMIN,
        summary="Pause the delivery to a topic",
        description=_PAUSED,
        answers=_ANSWERS,
    )
    async def pause_topic(self, request: web.Request) -> web.Response:
        return _pauses_response(await self.pausing.pause(PauseKind.TOPIC, _topic(request)))

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
        return _pauses_response(await self.pausing.resume(PauseKind.TOPIC, _topic(request)))


def _client(request: web.Request) -> str:
    return path_parameter(request, "clientId", client_id_of)


def _topic(request: web.Request) -> str:
    return path_parameter(request, "topic", topic_of)


def _pauses_response(pauses: Pauses) -> web.Response:
    document = {
        kind: [{"name": name, "since": names[name]} for name in sorted(names)]
        for kind, names in (("clients", pauses.clients), ("topics", pauses.topics))
    }
    return web.Response(body=json_body.compact(document), content_type="application/json")
