"""The calls under /admin: about the service itself, for those whose key has the right `admin`.

Every one of them is registered here and nowhere else, so none can be without the check. The right covers no schedule's
content: where an answer would show some, the key needs `read` for its client besides.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import hdrs, web

from clockwork.access.gate import principal_of
from clockwork.domain.pauses import PauseKind, Pauses
from clockwork.domain.rights import authorize_service
from clockwork.http.dead_letters import LetterHandlers
from clockwork.http.path import in_path
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
    """What the calls are answered by."""

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
    """What is paused. Each answers all of it, as it is then."""

    pausing: PauseAdmin

    async def show(self, request: web.Request) -> web.Response:
        return _shown(await self.pausing.show())

    async def pause_client(self, request: web.Request) -> web.Response:
        return _shown(await self.pausing.pause(PauseKind.CLIENT, in_path(request, "clientId", schemas.client_id_of)))

    async def resume_client(self, request: web.Request) -> web.Response:
        return _shown(await self.pausing.resume(PauseKind.CLIENT, in_path(request, "clientId", schemas.client_id_of)))

    async def pause_topic(self, request: web.Request) -> web.Response:
        return _shown(await self.pausing.pause(PauseKind.TOPIC, in_path(request, "topic", schemas.topic_of)))

    async def resume_topic(self, request: web.Request) -> web.Response:
        return _shown(await self.pausing.resume(PauseKind.TOPIC, in_path(request, "topic", schemas.topic_of)))


def _shown(pauses: Pauses) -> web.Response:
    document = {
        kind: [{"name": name, "since": names[name]} for name in sorted(names)]
        for kind, names in (("clients", pauses.clients), ("topics", pauses.topics))
    }
    return web.Response(body=json_body.compact(document), content_type="application/json")
