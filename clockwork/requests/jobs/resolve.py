"""Resolving triggers: from the names of calendars to their contents, as they are now.

A job is resolved when it is stored, and again when one of its calendars has changed; nothing that fires reads a calendar.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from clockwork.domain.jobs.calendar import Calendar, CalendarName
from clockwork.domain.schedule import ClientId
from clockwork.domain.triggers.exclusions import Exclusion
from clockwork.domain.triggers.preview import Preview
from clockwork.domain.triggers.trigger import Trigger, check_fires
from clockwork.errors import FieldError, InvalidInput, StoreUnavailable
from clockwork.requests.context import RequestContext
from clockwork.requests.deadline import RequestDeadline


async def read_calendars(context: RequestContext, client_id: ClientId, names: Iterable[str]) -> Mapping[str, Calendar]:
    """Those of the named calendars that exist. Raises: StoreUnavailable, Unreadable."""
    found: dict[str, Calendar] = {}
    for name in sorted(set(names)):
        calendar = await context.jobs.read_calendar(CalendarName(client_id, name))
        if calendar is not None:
            found[name] = calendar
    return found


async def resolved(
    context: RequestContext, client_id: ClientId, trigger: Trigger | None, *, now_ms: int | None = None
) -> Trigger | None:
    """The trigger with the calendars that it names and was not resolved with. `now_ms`: it should fire from then on; None:
    from now on.

    Raises: InvalidInput (there is no such calendar, or with it no fire time), StoreUnavailable, Unreadable.
    """
    if trigger is None or not trigger.unresolved:
        return trigger
    calendars = await read_calendars(context, client_id, trigger.unresolved.values())
    try:
        made = trigger.resolved(exclusions_of(calendars))
        check_fires(made, context.clock.now_ms() if now_ms is None else now_ms)
    except InvalidInput as wrong:
        errors = [FieldError(f"trigger.{each.field}", each.message) for each in wrong.errors]
        raise InvalidInput(errors) from wrong
    return made


async def resolve_preview(context: RequestContext, preview: Preview, deadline: RequestDeadline) -> Preview:
    """The question with the trigger resolved, if its client is known. Raises: InvalidInput, Unavailable, Unreadable."""
    if preview.client_id is None:
        return preview
    while True:
        try:
            trigger = await resolved(context, preview.client_id, preview.trigger, now_ms=preview.from_ms)
        except StoreUnavailable as error:
            await deadline.pause(f"the calendars could not be read in time: {error}")
        else:
            return preview if trigger is None else replace(preview, trigger=trigger)


def exclusions_of(calendars: Mapping[str, Calendar]) -> Mapping[str, Exclusion]:
    """The contents of calendars by their names."""
    return {name: each.exclusion for name, each in calendars.items()}
