"""The calls under /calendars: named calendars of recurring jobs."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from clockwork.access.gate import principal_of
from clockwork.domain.jobs.calendar import CALENDARS_OF_CLIENT_MAX, Calendar, CalendarName
from clockwork.domain.rights import Right, authorize
from clockwork.domain.schedule import ClientId
from clockwork.http import query as queries
from clockwork.http.body import Refusal, body_of, path_parameter
from clockwork.http.responses import json_list_response, json_response
from clockwork.http.routes import CALL_WITH_BODY, JOBS, JOBS_OFF, KEYED_CALL, Answer, Parameter, problem, route
from clockwork.http.schedules import CONDITIONS, ONE_SCHEDULE_BYTES_MAX, condition_of
from clockwork.requests.jobs.results import CalendarDeleted, CalendarNotFound, CalendarPut, CalendarVersionDiffers
from clockwork.requests.jobs.service import JobService
from clockwork.schema.calendar import (
    CalendarDocument,
    CalendarForm,
    CalendarsDocument,
    calendar_name_of,
    read_calendar,
)
from clockwork.schema.calendar_render import (
    CalendarInUseDocument,
    StaleCalendarDocument,
    of_calendar_declined,
    render_calendar,
    render_put,
)
from clockwork.schema.json import parse
from clockwork.schema.schedule import CLIENT_ID_SCHEMA, client_id_of

ONE: Final = "/calendars/{clientId}/{calendar}"


def _answer(description: str, *headers: str) -> Answer:
    return Answer(description=description, model=CalendarDocument, headers=("ETag", *headers))


_NO_CALENDAR: Final = problem("The client has no calendar of this name.")
_STALE: Final = problem("`If-Match` or `If-None-Match` rules the version out.", model=StaleCalendarDocument)
_WITHOUT_BODY: Final[Mapping[int, Answer]] = {**KEYED_CALL, 501: JOBS_OFF}
_LIST_PARAMETERS: Final = (
    Parameter(
        name="clientId",
        description="The calendars' client.",
        schema=CLIENT_ID_SCHEMA,
        required=True,
        example="shop",
        parse=client_id_of,
    ),
    *queries.PAGING,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CalendarHandlers:
    """The calls on calendars."""

    jobs: JobService
    body_bytes_max: int

    @route(
        "PUT",
        ONE,
        name="putCalendar",
        tag=JOBS,
        summary="Make or change a calendar",
        description=(
            "As a whole: what is left out it does not have. Each job that names it follows: its next run is the first that "
            "the calendar leaves from now on. Jobs that the request has no time for, and those whose run is on its way, are "
            "`behind`; no other run is delivered by the calendar of before. The audit of jobs comes to them. The same "
            "request again changes nothing, and answers who is behind by then."
        ),
        request=CalendarForm,
        parameters=CONDITIONS,
        answers={
            **CALL_WITH_BODY,
            200: _answer("The calendar as it is then."),
            201: _answer("It was not there before.", "Location"),
            409: problem(f"The client has {CALENDARS_OF_CLIENT_MAX} calendars already."),
            412: _STALE,
            501: JOBS_OFF,
        },
    )
    async def put(self, request: web.Request) -> web.Response:
        key, condition = self._covered(request, Right.CREATE), condition_of(request)
        body = await body_of(request, bytes_max=min(self.body_bytes_max, ONE_SCHEDULE_BYTES_MAX))
        read = partial(read_calendar, name=key.name)
        # In a thread: up to twenty cron expressions are read.
        new = await asyncio.to_thread(lambda: read(parse(body)))
        result = await self.jobs.put_calendar(
            principal_of(request),
            key.client_id,
            new,
            condition=condition,
            # `*` among the conditions is any version that is there (RFC 9110, 13.1.1).
            must_exist=hdrs.IF_MATCH in request.headers,
        )
        if not isinstance(result, CalendarPut):
            raise Refusal(of_calendar_declined(result))
        headers = _etag(result.calendar)
        if result.created:
            headers[hdrs.LOCATION] = f"/calendars/{key.client_id}/{key.name}"
        status = HTTPStatus.CREATED if result.created else HTTPStatus.OK
        return json_response(render_put(result), status.value, headers)

    @route(
        "GET",
        ONE,
        name="getCalendar",
        tag=JOBS,
        summary="One calendar",
        description="Strongly consistent.",
        parameters=CONDITIONS,
        answers={
            200: _answer("The calendar."),
            304: Answer(description="`If-None-Match` names the version.", media_type=None, headers=("ETag",)),
            404: _NO_CALENDAR,
            412: _STALE,
            **_WITHOUT_BODY,
        },
    )
    async def find(self, request: web.Request) -> web.Response:
        key, condition = self._covered(request, Right.READ), condition_of(request)
        calendar = await self.jobs.find_calendar(principal_of(request), key)
        if calendar is None:
            raise Refusal(of_calendar_declined(CalendarNotFound()))
        if condition.any_of is not None and calendar.version not in condition.any_of:
            raise Refusal(of_calendar_declined(CalendarVersionDiffers(calendar)))
        if condition.excludes(calendar.version):
            return web.Response(status=HTTPStatus.NOT_MODIFIED.value, headers=_etag(calendar))
        return json_response(render_calendar(calendar), headers=_etag(calendar))

    @route(
        "DELETE",
        ONE,
        name="deleteCalendar",
        tag=JOBS,
        summary="Delete a calendar",
        description="Only if no active or paused job names it.",
        parameters=CONDITIONS,
        answers={
            200: _answer("The calendar as it was."),
            404: _NO_CALENDAR,
            409: problem("Jobs go by it.", model=CalendarInUseDocument),
            412: _STALE,
            **_WITHOUT_BODY,
        },
    )
    async def delete(self, request: web.Request) -> web.Response:
        key, condition = self._covered(request, Right.CREATE), condition_of(request)
        result = await self.jobs.delete_calendar(principal_of(request), key, condition=condition)
        if not isinstance(result, CalendarDeleted):
            raise Refusal(of_calendar_declined(result))
        return json_response(render_calendar(result.calendar), headers=_etag(result.calendar))

    @route(
        "GET",
        "/calendars",
        name="listCalendars",
        tag=JOBS,
        summary="List a client's calendars",
        description="In the order of their names; strongly consistent.",
        parameters=_LIST_PARAMETERS,
        answers={200: Answer(description="A page.", model=CalendarsDocument), **_WITHOUT_BODY},
    )
    async def list(self, request: web.Request) -> web.Response:
        self.jobs.check_on()
        given = queries.read_query(request, _LIST_PARAMETERS)
        cursor, limit = given.pop("cursor", None), given.pop("limit", queries.LIMIT_DEFAULT)
        of = {"calendars of": given["clientId"]}
        after = queries.decode_text_cursor(cursor, of)
        page = await self.jobs.list_calendars(
            principal_of(request), ClientId(given["clientId"]), after=after, limit=limit
        )
        documents = map(render_calendar, page.calendars)
        return await json_list_response("calendars", documents, cursor=queries.encode_text_cursor(page.next_after, of))

    def _covered(self, request: web.Request, right: Right) -> CalendarName:
        """The calendar that the path names. Raises: JobsOff, InvalidInput, Forbidden."""
        self.jobs.check_on()
        client_id = ClientId(path_parameter(request, "clientId", client_id_of))
        name = path_parameter(request, "calendar", calendar_name_of)
        authorize(principal_of(request), right, client_id)
        return CalendarName(client_id, name)


def _etag(calendar: Calendar) -> dict[str, str]:
    return {hdrs.ETAG: f'"{calendar.version}"'}
