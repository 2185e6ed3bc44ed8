"""A named calendar as JSON: its put, and the models of its answers."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from clockwork.domain.jobs.calendar import CALENDAR_BYTES_MAX, NewCalendar
from clockwork.domain.triggers.exclusions import CALENDAR_NAME, CALENDAR_NAME_MESSAGE, Exclusion, exclusion
from clockwork.errors import FieldError, InvalidInput
from clockwork.schema.job import DescriptionText
from clockwork.schema.trigger import EntriesDocument, EntriesForm
from clockwork.schema.validation import DOCUMENT, validated


class CalendarForm(EntriesForm):
    """A calendar, as a whole: what is left out it does not have."""

    description: DescriptionText | None = None


class CalendarDocument(EntriesDocument):
    """A named calendar."""

    model_config = DOCUMENT

    client_id: str
    name: str
    description: str | None = None
    version: int
    """Counts its changes; also the `ETag`, in quotes."""
    created_at_ms: Annotated[int, Field(alias="createdAt")]
    """In epoch milliseconds."""
    updated_at_ms: Annotated[int, Field(alias="updatedAt")]
    """The time of its last change, in epoch milliseconds."""
    changed_by: str | None = None
    """Name of the key or token by which it was changed last; absent where none is needed."""
    behind: list[str] | None = None
    """After a `PUT`: the ids of the jobs of which a run may still be delivered by the calendar of before; of no others.
    Absent: none. At most 100 are named; see `moreBehind`."""
    more_behind: bool | None = None
    """true: and others, which are not named."""


class CalendarsDocument(BaseModel):
    """A page of calendars."""

    model_config = DOCUMENT

    calendars: list[CalendarDocument]
    cursor: str | None
    """Asks for the next page; null at the end."""


# --- requests


def calendar_name_of(text: str) -> str:
    """A legal name of a calendar. Raises: ValueError, with a message for the client."""
    if CALENDAR_NAME.fullmatch(text) is None:
        raise ValueError(CALENDAR_NAME_MESSAGE)
    return text


def read_calendar(document: Any, *, name: str) -> NewCalendar:
    """The body of a `PUT` of the calendar of this name. Raises: InvalidInput, naming every wrong field."""
    errors, form = validated(CalendarForm, document)
    if form is None:
        raise InvalidInput(errors)
    return NewCalendar(name=name, exclusion=exclusion_of(form), description=form.description)


def exclusion_of(form: EntriesForm) -> Exclusion:
    """The content of a calendar. Raises: InvalidInput, naming every wrong entry."""
    made = exclusion(dates=form.dates, annual=form.annual, weekdays=form.weekdays, cron=form.cron)
    if made.size_bytes > CALENDAR_BYTES_MAX:
        message = f"the texts of a calendar should have at most {CALENDAR_BYTES_MAX} bytes together"
        raise InvalidInput([FieldError("body", message)])
    return made
