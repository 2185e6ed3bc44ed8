"""GET /clients: the clients that were seen to create something."""

from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import web

from clockwork.access.gate import principal_of
from clockwork.domain.registry import DAY_MS, KnownClient
from clockwork.domain.rights import Right, authorize_any
from clockwork.http.responses import json_list_response
from clockwork.http.routes import ACTIVITY, KEYED_CALL, READ_UNITS, Answer, ReadMetering, route
from clockwork.operations.clients import CLIENTS_MAX, ClientDirectory
from clockwork.schema.clients import ClientsDocument


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
        reads=ReadMetering(call="clients", shared_s=1.0),
        polled=True,
        answers={200: Answer(description="The clients.", model=ClientsDocument, headers=(READ_UNITS,)), **KEYED_CALL},
    )
    async def list(self, request: web.Request) -> web.Response:
        principal = principal_of(request)
        authorize_any(principal, [Right.READ])
        known = await self.directory.list()
        covered = (_client(each) for each in known.clients if principal.clients.cover(each.client_id))
        return await json_list_response("clients", covered, complete=known.complete, asOf=known.as_of_ms)


def _client(seen: KnownClient) -> dict[str, str]:
    return {"clientId": seen.client_id, "firstDay": _day(seen.first_day), "lastDay": _day(seen.last_day)}


def _day(number: int) -> str:
    return datetime.fromtimestamp(number * DAY_MS / 1_000, UTC).date().isoformat()
