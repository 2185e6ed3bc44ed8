"""GET /schedule/{clientId}/{scheduleKey}/why: the reason why a schedule is not delivered yet."""

from dataclasses import dataclass

from aiohttp import web

from clockwork.access.gate import principal_of
from clockwork.domain.rights import Right, authorize_any
from clockwork.http.body import Refusal, key_in_path
from clockwork.http.query import read_query
from clockwork.http.responses import json_response
from clockwork.http.routes import KEYED_CALL, NOT_FOUND, ONE, READ_UNITS, SCHEDULES, Answer, ReadMetering, route
from clockwork.requests.why import WhyReader
from clockwork.schema import problems
from clockwork.schema.why import WhyDocument
from clockwork.schema.why_render import render_why


@dataclass(frozen=True, kw_only=True, slots=True)
class WhyHandlers:
    """The call that explains a schedule."""

    reader: WhyReader

    @route(
        "GET",
        f"{ONE}/why",
        name="explainSchedule",
        tag=SCHEDULES,
        summary="Why it is not delivered yet",
        description=(
            "The first reason that holds, and what to do. The schedule's own state is strongly consistent; the rest is a "
            "look at things that move, and no promise."
        ),
        reads=ReadMetering(call="why"),
        answers={
            200: Answer(description="The reason.", model=WhyDocument, headers=(READ_UNITS,)),
            404: NOT_FOUND,
            **KEYED_CALL,
        },
    )
    async def why(self, request: web.Request) -> web.Response:
        client_id, schedule_key = key_in_path(request)
        read_query(request, ())
        principal = principal_of(request)
        authorize_any(principal, [Right.READ], client_id)
        async with self.reader.context.deadline() as deadline:
            found = await self.reader.explain(client_id, schedule_key, deadline)
        if found is None:
            raise Refusal(problems.schedule_not_found())
        return json_response(render_why(found, principal))
