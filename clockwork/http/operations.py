"""The calls under /admin: about the service itself, for keys with the right `admin`.

Every call is registered here, with the check, and nowhere else. The right covers no schedule's content: for an answer with
content the key also needs `read` for its client.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import hdrs, web

from clockwork.access.gate import principal_of
from clockwork.domain.pauses import PauseKind, Pauses
from clockwork.domain.rights import authorize_service
from clockwork.http.body import path_parameter
from clockwork.http.dead_letters import LetterHandlers
from clockwork.http.shards import ShardHandlers
from clockwork.operations.dead_letters import DeadLetterAdmin, Discarder
from clockwork.operations.pauses import PauseAdmin
from clockwork.operations.scan import PendingScan
from clockwork.operations.shards import ShardAdmin
from clockwork.schema import json as json_body
from clockwork.schema import schedule as schemas

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, kw_only=True, slots=True)
class AdminParts:
    """The parts of the service that answer the calls."""

    pausing: PauseAdmin
    letters: DeadLetterAdmin
    discards: Discarder
    survey: ShardAdmin
    scan: PendingScan


def add_routes(app: web.Application, parts: AdminParts) -> None:
    """All calls under /admin."""
    pauses = PauseHandlers(pausing=parts.pausing)
    letters = LetterHandlers(letters=parts.letters, discards=parts.discards)
    shards = ShardHandlers(survey=parts.survey, scan=parts.scan)
    calls: list[tuple[str, str, Answering]] = [
        (hdrs.METH_GET, "/admin/pauses", pauses.show),
        (hdrs.METH_PUT, "/admin/pauses/clients/{clientId:[^/]+}", pauses.pause_client),
        (hdrs.METH_DELETE, "/admin/pauses/clients/{clientId:[^/]+}", pauses.resume_client),
        (hdrs.METH_PUT, "/admin/pauses/topics/{topic:[^/]+}", pauses.pause_topic),
        (hdrs.METH_DELETE, "/admin/pauses/topics/{topic:[^/]+}", pauses.resume_topic),
        (hdrs.METH_GET, "/admin/dead-letters", letters.list),
        (hdrs.METH_POST, "/admin/dead-letters/discard", letters.discard),
        (hdrs.METH_GET, "/admin/dead-letters/{partition:[^/]+}/{offset:[^/]+}", letters.one),
        (hdrs.METH_GET, "/admin/shards", shards.list),
        (hdrs.METH_POST, "/admin/shards/{shard:[^/]+}/fence", shards.fence),
        (hdrs.METH_GET, "/admin/schedules", shards.schedules),
    ]
    for method, path, answering in calls:
        app.router.add_route(method, path, _for_admins(answering))


def _for_admins(answering: Answering) -> Answering:
    async def admitted(request: web.Request) -> web.StreamResponse:
        authorize_service(principal_of(request))
        return await answering(request)

    return admitted


@dataclass(frozen=True, kw_only=True, slots=True)
class PauseHandlers:
    """The calls about pauses. Each answers with all pauses, as they are after it."""

    pausing: PauseAdmin

    async def show(self, request: web.Request) -> web.Response:
        return _pauses_response(await self.pausing.show())

    async def pause_client(self, request: web.Request) -> web.Response:
        return _pauses_response(await self.pausing.pause(PauseKind.CLIENT, _client(request)))

    async def resume_client(self, request: web.Request) -> web.Response:
        return _pauses_response(await self.pausing.resume(PauseKind.CLIENT, _client(request)))

    async def pause_topic(self, request: web.Request) -> web.Response:
        return _pauses_response(await self.pausing.pause(PauseKind.TOPIC, _topic(request)))

    async def resume_topic(self, request: web.Request) -> web.Response:
        return _pauses_response(await self.pausing.resume(PauseKind.TOPIC, _topic(request)))


def _client(request: web.Request) -> str:
    return path_parameter(request, "clientId", schemas.client_id_of)


def _topic(request: web.Request) -> str:
    return path_parameter(request, "topic", schemas.topic_of)


def _pauses_response(pauses: Pauses) -> web.Response:
    document = {
        kind: [{"name": name, "since": names[name]} for name in sorted(names)]
        for kind, names in (("clients", pauses.clients), ("topics", pauses.topics))
    }
    return web.Response(body=json_body.compact(document), content_type="application/json")
