"""The calls under /admin: about the service itself, for those whose key has the right `admin`.

Every one of them is registered here and nowhere else, so none can be without the check. The right covers no schedule's
content: where an answer would show some, the key needs `read` for its client besides.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Final

from aiohttp import web

from clockwork.access.gate import principal_of
from clockwork.domain.pauses import PauseKind, Pauses
from clockwork.domain.rights import authorize_service
from clockwork.http.dead_letters import LetterHandlers
from clockwork.http.path import in_path
from clockwork.http.routes import ADMIN, ADMIN_CALL, Answer, Handler, add_routes, route
from clockwork.http.shards import ShardHandlers
from clockwork.operations.dead_letters import DeadLetterAdmin, Discarder
from clockwork.operations.pauses import PauseAdmin
from clockwork.operations.scan import PendingScan
from clockwork.operations.shards import ShardAdmin
from clockwork.schema import json as json_body
from clockwork.schema.operations import PausesDocument
from clockwork.schema.schedule import client_id_of, topic_of


@dataclass(frozen=True, kw_only=True, slots=True)
class AdminParts:
    """What the calls are answered by."""

    pausing: PauseAdmin
    letters: DeadLetterAdmin
    discards: Discarder
    survey: ShardAdmin
    scan: PendingScan


def add_admin_routes(app: web.Application, parts: AdminParts) -> None:
    """All calls under /admin."""
    pauses = PauseHandlers(pausing=parts.pausing)
    letters = LetterHandlers(letters=parts.letters, discards=parts.discards)
    shards = ShardHandlers(survey=parts.survey, scan=parts.scan)
    for handlers in (pauses, letters, shards):
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
    """What is paused. Each answers all of it, as it is then."""

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
        return _shown(await self.pausing.show())

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
        return _shown(await self.pausing.pause(PauseKind.CLIENT, in_path(request, "clientId", client_id_of)))

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
        return _shown(await self.pausing.resume(PauseKind.CLIENT, in_path(request, "clientId", client_id_of)))

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
        return _shown(await self.pausing.pause(PauseKind.TOPIC, in_path(request, "topic", topic_of)))

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
        return _shown(await self.pausing.resume(PauseKind.TOPIC, in_path(request, "topic", topic_of)))


def _shown(pauses: Pauses) -> web.Response:
    document = {
        kind: [{"name": name, "since": names[name]} for name in sorted(names)]
        for kind, names in (("clients", pauses.clients), ("topics", pauses.topics))
    }
    return web.Response(body=json_body.compact(document), content_type="application/json")
