"""The calls under /admin/shards."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from clockwork.access.gate import principal_of
from clockwork.domain.activity import Action
from clockwork.domain.ownership import NodeState
from clockwork.domain.sharding import ShardId
from clockwork.http.actions import reason_of, record
from clockwork.http.body import Refusal, path_parameter
from clockwork.http.routes import ADMIN, ADMIN_CALL, CALL_WITH_BODY, READ_UNITS, Answer, ReadMetering, problem, route
from clockwork.operations.shards import FencedOwner, NoOwner, ShardAdmin, ShardView
from clockwork.ports.telemetry import Telemetry
from clockwork.schema import json as json_body
from clockwork.schema.operations import FencedDocument, ShardsDocument
from clockwork.schema.problems import Problem
from clockwork.schema.reason import ReasonForm

SHARDS_SHARED_S: Final = 5.0
"""All shards cost about their number in read units. Pages ask every ten seconds: so twenty of them cost no more than two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardHandlers:
    """The calls about shards."""

    shards: ShardAdmin
    telemetry: Telemetry

    @route(
        "GET",
        "/admin/shards",
        name="listShards",
        tag=ADMIN,
        summary="All shards",
        description=(
            "Owner, progress and lag of each. Several shards have the same owner, and with it the same frontier. Equal "
            "requests within five seconds share an answer, but for those with `Cache-Control: no-cache`."
        ),
        reads=ReadMetering(call="shards", shared_s=SHARDS_SHARED_S, may_use_reserve=True),
        polled=True,
        answers={200: Answer(description="The shards.", model=ShardsDocument, headers=(READ_UNITS,)), **ADMIN_CALL},
    )
    async def list(self, request: web.Request) -> web.Response:
        return _json({"shards": [_document_of(view) for view in await self.shards.shards()]})

    @route(
        "POST",
        "/admin/shards/{shard}/fence",
        name="fenceShard",
        tag=ADMIN,
        summary="Fence a shard's owner",
        description=(
            "For an owner that seems stuck. An owner is an incarnation: one run of a process's engine, which owns several "
            "shards. It is fenced as a whole: it stops, and all its shards are taken over from it, mostly by the next "
            "incarnation of the same process. Nothing is lost or sent twice. It does not move a shard to another node: stop "
            "the node for that. The same request again fences the next owner."
        ),
        request=ReasonForm,
        request_required=False,
        answers={
            **CALL_WITH_BODY,
            **ADMIN_CALL,
            200: Answer(description="The incarnation, fenced, and its shards.", model=FencedDocument),
            409: problem("The shard has no owner, so nothing was fenced."),
        },
    )
    async def fence(self, request: web.Request) -> web.Response:
        shard = path_parameter(request, "shard", _shard_below(self.shards.count))
        reason = await reason_of(request)
        match await self.shards.fence(shard):
            case NoOwner():
                raise Refusal(shard_not_owned(shard))
            case FencedOwner(owner=owner, shards=shards):
                by = principal_of(request).name
                record(self.telemetry, Action(kind="fenced", by=by, shard=shard, number=len(shards), reason=reason))
                return _json(_owner_members(owner) | {"incarnation": owner.incarnation, "shards": shards})


def shard_not_owned(shard: ShardId) -> Problem:
    return Problem(
        status=HTTPStatus.CONFLICT,
        kind="shard-not-owned",
        title="The shard has no owner",
        detail=f"Shard {shard} has no owner now, so nothing was fenced. The process that the consumer group assigns it to "
        "takes it without being asked.",
    )


def _shard_below(count: int) -> Callable[[str], ShardId]:
    def parse(text: str) -> ShardId:
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) < count):
            raise ValueError(f"should be 0 to {count - 1}")
        return ShardId(int(text))

    return parse


def _document_of(view: ShardView) -> dict[str, Any]:
    state, oldest_ms = view.state, view.oldest_due_ms
    document: dict[str, Any] = {"shard": view.shard, "lagMs": view.lag_ms}
    if state is not None:
        document |= {"epoch": state.epoch, "floor": state.floor_ms}
        document |= {} if state.owner is None else {"owner": state.owner}
    if view.owner is not None:
        document |= _owner_members(view.owner)
    if oldest_ms is not None:
        document["oldestDue"] = oldest_ms
    if view.oldest_paused:
        document["oldestPaused"] = True
    if view.topic is not None:
        document["oldestTopic"] = view.topic
    return document if view.problem is None else document | {"problem": view.problem}


def _owner_members(owner: NodeState) -> dict[str, Any]:
    members = {"node": owner.node, "frontier": owner.frontier_ms}
    return members if owner.fenced_at_ms is None else members | {"fencedAt": owner.fenced_at_ms}


def _json(document: Any) -> web.Response:
    return web.Response(body=json_body.compact(document), content_type="application/json")
