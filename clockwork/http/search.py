"""GET /search: a schedule by its key in any client, or by a delivery of it."""

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from clockwork.access.gate import principal_of
from clockwork.domain.names import CLIENT_CHARS_MAX, KEY_BYTES_MAX
from clockwork.domain.rights import Right, authorize_any
from clockwork.http.query import read_query
from clockwork.http.responses import json_response
from clockwork.http.routes import KEYED_CALL, MANY, READ_UNITS, Answer, Parameter, ReadMetering, route
from clockwork.requests.search import KeySearch
from clockwork.schema.search import FoundDocument
from clockwork.schema.search_render import render_found

SEARCHED_BYTES_MAX: Final = CLIENT_CHARS_MAX + 1 + KEY_BYTES_MAX


def _text(text: str) -> str:
    if not 1 <= len(text.encode()) <= SEARCHED_BYTES_MAX:
        raise ValueError(f"should be 1 to {SEARCHED_BYTES_MAX} bytes of UTF-8")
    return text


_PARAMETERS: Final = (
    Parameter(
        name="q",
        description="`client/key`, a key, or a `deliveryId`.",
        schema={"type": "string", "minLength": 1, "maxLength": SEARCHED_BYTES_MAX},
        required=True,
        example="shop/order-1",
        parse=_text,
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchHandlers:
    """The search over clients."""

    keys: KeySearch

    @route(
        "GET",
        "/search",
        name="searchSchedules",
        tag=MANY,
        summary="Find a schedule by its key, or by a delivery",
        description=(
            "`client/key`; or a key alone, which is looked for in every client that is covered and known, 200 "
            "at most; or a `deliveryId`, as records have it, which is looked for in the latest events, those that this node "
            "has in memory. Known are the clients that the caller's rights name, and those that were seen to create "
            "something, as they were up to a minute ago (`GET /clients`). `complete` says that no known client was left out."
        ),
        parameters=_PARAMETERS,
        reads=ReadMetering(call="search", shared_s=1.0),
        answers={200: Answer(description="The findings.", model=FoundDocument, headers=(READ_UNITS,)), **KEYED_CALL},
    )
    async def search(self, request: web.Request) -> web.Response:
        text: str = read_query(request, _PARAMETERS)["q"]
        principal = principal_of(request)
        authorize_any(principal, [Right.READ])
        async with self.keys.context.deadline() as deadline:
            found = await self.keys.search(text, principal.clients, deadline)
        return json_response(render_found(text, found))
