"""Named calendars: days and hours at which jobs do not run, kept once for all jobs of a client that name them.

A job does not look its calendars up when it fires: its definition has their content (`Trigger.calendars`), and its state
their digests. So a calendar that is away, unreadable or deleted by hand neither loses nor doubles a fire time. A change of
a calendar reaches each job that names it as a new version of its definition (`steps.follow_calendars`), by the request that
changes the calendar, as far as its time goes, and for the rest by the audit.

A reference to each job that names a calendar is put beside it, before the transaction that puts the definition
(`JobTransaction.references_put`). That transaction has a condition: each calendar still has the content that it was resolved
with. So a request that changes or deletes a calendar, and then reads the references, finds every job that could have the
content of before: its state is there, or is being applied, which a read of the committed state tells. Rejected: to put the
reference in the transaction. One is applied item by item, and the change of the calendar could come after the check, and the
read of the references before the reference.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from clockwork.domain.schedule import ClientId, RequestId
from clockwork.domain.triggers.exclusions import MOVE_DAYS_MAX, Exclusion
from clockwork.domain.triggers.trigger import Trigger
from clockwork.errors import FieldError, InvalidInput

CALENDARS_OF_CLIENT_MAX: Final = 100
CALENDAR_BYTES_MAX: Final = 16 * 1024
"""Texts of one calendar: a definition has up to `trigger.CALENDARS_MAX` of them beside its data, in one stored item."""


class CalendarName(NamedTuple):
    """The name of a calendar."""

    client_id: ClientId
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Calendar:
    """A named calendar as it is stored."""

    client_id: ClientId
    name: str
    version: int
    """Counts its changes, from 1; a calendar that was deleted and is made anew begins with 1 again."""
    exclusion: Exclusion
    description: str | None = None
    created_at_ms: int
    updated_at_ms: int
    changed_by: str | None = None
    """The principal whose request it was. None: callers need no key."""
    write_id: RequestId
    """Id of the write: its writer recognises it when its answer was lost."""

    @property
    def key(self) -> CalendarName:
        return CalendarName(self.client_id, self.name)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewCalendar:
    """The wanted calendar of a PUT, validated."""

    name: str
    exclusion: Exclusion
    description: str | None = None


CalendarDigests: TypeAlias = tuple[tuple[str, str], ...]
"""Names of calendars, in order, each with the digest of its content (`Exclusion.digest`)."""


def digests_of(trigger: Trigger | None) -> CalendarDigests:
    """The calendars that a trigger was resolved with."""
    return () if trigger is None else tuple((each.name, each.exclusion.digest) for each in trigger.calendars)


def check_leaves_open_days(exclusion: Exclusion, *, today_day: int) -> None:
    """Refuses a calendar that leaves no day open for a year: a mistake, by which every job that names it would stop.
    `today_day`: days since 1970-01-01.

    Raises: InvalidInput.
    """
    if all(exclusion.excludes_day(day) for day in range(today_day, today_day + MOVE_DAYS_MAX)):
        raise InvalidInput([FieldError("body", f"excludes every one of the next {MOVE_DAYS_MAX} days")])
