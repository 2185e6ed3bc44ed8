"""Answers about named calendars: a calendar, a refusal. Most of their models are in `calendar`."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from clockwork.domain.jobs.calendar import Calendar
from clockwork.requests.jobs.results import (
    CalendarInUse,
    CalendarNotFound,
    CalendarPut,
    CalendarVersionDiffers,
    TooManyCalendars,
)
from clockwork.schema.calendar import CalendarDocument
from clockwork.schema.problems import Problem, ProblemDocument, not_found
from clockwork.schema.trigger import entries_document


class CalendarInUseDocument(ProblemDocument):
    """Jobs go by the calendar."""

    jobs: list[str]
    """Ids of the first of them, at most 100."""


class StaleCalendarDocument(ProblemDocument):
    """The calendar has another version."""

    calendar: CalendarDocument | None = None
    """The present one; absent: there is none."""


def render_calendar(calendar: Calendar) -> dict[str, Any]:
    """A calendar, as every answer shows it: a `CalendarDocument`."""
    document: dict[str, Any] = {
        "clientId": calendar.client_id,
        "name": calendar.name,
        **calendar_document(calendar),
        "version": calendar.version,
        "createdAt": calendar.created_at_ms,
        "updatedAt": calendar.updated_at_ms,
    }
    return document if calendar.changed_by is None else document | {"changedBy": calendar.changed_by}


def calendar_document(calendar: Calendar) -> dict[str, Any]:
    """The `PUT` that makes this calendar."""
    entries = entries_document(calendar.exclusion)
    return entries if calendar.description is None else {"description": calendar.description, **entries}


def render_put(result: CalendarPut) -> dict[str, Any]:
    """The calendar, and the jobs that have not followed it yet."""
    document = render_calendar(result.calendar)
    if result.behind:
        document["behind"] = list(result.behind)
    if result.more_behind:
        document["moreBehind"] = True
    return document


CalendarDeclined = CalendarInUse | CalendarNotFound | CalendarVersionDiffers | TooManyCalendars
_JOBS_TOLD_MAX: Final = 10
"""Jobs that the text of an answer names."""


def of_calendar_declined(result: CalendarDeclined) -> Problem:
    """`404`, `409` or `412`."""
    match result:
        case CalendarNotFound():
            return not_found(
                "calendar-not-found", "There is no such calendar", "The client has no calendar of this name."
            )
        case CalendarInUse(_, jobs):
            return Problem(
                status=HTTPStatus.CONFLICT,
                kind="calendar-in-use",
                title="Jobs go by the calendar",
                detail=f"{_named(jobs)} it; give them another trigger, or delete them, first.",
                more={"jobs": list(jobs)},
            )
        case TooManyCalendars(most):
            return Problem(
                status=HTTPStatus.CONFLICT,
                kind="too-many-calendars",
                title="The client has as many calendars as it may have",
                detail=f"A client may have {most}. Nothing was stored.",
            )
        case CalendarVersionDiffers(None):
            return Problem(
                status=HTTPStatus.PRECONDITION_FAILED,
                kind="version-differs",
                title="There is no such calendar",
                detail="The request's condition names a version, and there is none.",
            )
        case CalendarVersionDiffers(calendar):
            assert calendar is not None, "the case above"
            return Problem(
                status=HTTPStatus.PRECONDITION_FAILED,
                kind="version-differs",
                title="The calendar has another version",
                detail=f"Its version is {calendar.version}, which the request's condition does not allow.",
                more={"calendar": render_calendar(calendar)},
                headers={"ETag": f'"{calendar.version}"'},
            )


def _named(jobs: Sequence[str]) -> str:
    named, more = jobs[:_JOBS_TOLD_MAX], len(jobs) - _JOBS_TOLD_MAX
    return f"{', '.join(named)}{f' and {more} more' if more > 0 else ''} {'goes' if len(jobs) == 1 else 'go'} by"
