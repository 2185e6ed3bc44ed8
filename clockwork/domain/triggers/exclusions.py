"""Calendars: days and times of day at which a job does not run, and what becomes of its fire times then.

    excluded by            excludes                                            its fire times
    dates                  2026-12-25                                          skipped, or moved to another day
    annual                 12-25, each year                                    likewise
    weekdays               SAT                                                 likewise
    cron, of whole days    `* * * * 5#3`: minute and hour are both *           likewise
    cron, of hours         `* 0-7 * * *`: each minute that it names            skipped, always

`onExcluded` says what becomes of the times on an excluded day:

    skip       they do not fire
    next       they fire on the first day after it that is not excluded, at the same time by the clock
    previous   on the last such day before it

A time that another day has already is not repeated. What is moved to a day has to keep out of that day's excluded hours as
its own times do. No time is moved further than a year.

Calendars are asked about the time by the clock that was meant, before rules for changes of offset: 02:30 of a Sunday on
which there is no 02:30 is excluded with the Sunday.

An exclusion may name a calendar that its client keeps (`domain.jobs.calendar`). A trigger is parsed with the name alone, and
is *resolved* before it is stored: a stored job has the calendar's content, as it was, in its definition. Fire times are
computed of that, so nothing that fires ever reads a calendar, or could find it missing.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Final, TypeVar

from clockwork.domain.triggers.cron import WEEKDAYS, CronExpression, Dialect, parse_cron
from clockwork.domain.triggers.day_times import MINUTES_OF_DAY, DayTimes
from clockwork.domain.triggers.zones import EPOCH_DAY
from clockwork.errors import FieldError, InvalidInput

DATES_MAX: Final = 500
"""Excluded dates: those of a country for thirty years."""
ANNUAL_MAX: Final = 366
CRON_MAX: Final = 20
MOVE_DAYS_MAX: Final = 366
"""A time is moved no further than this. More days than that in a row are a mistake."""

CALENDAR_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", re.ASCII)
CALENDAR_NAME_MESSAGE: Final = "should be 1 to 64 of A-Z a-z 0-9 . _ -, and not begin with a dot"
DIGEST_CHARS: Final = 16

_EVERY_MINUTE: Final = (1 << MINUTES_OF_DAY) - 1
_LEAP_YEAR: Final = 2000
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_MONTH_AND_DAY: Final = re.compile(r"\d\d-\d\d", re.ASCII)

_T = TypeVar("_T")


class OnExcluded(StrEnum):
    """The fate of fire times on an excluded day."""

    SKIP = "skip"
    NEXT = "next"
    PREVIOUS = "previous"


@dataclass(frozen=True, kw_only=True, slots=True)
class Exclusion:
    """The days and hours at which a job does not run, as they were given: `exclusion`. Days are counted from 1970-01-01."""

    dates: tuple[str, ...] = ()
    annual: tuple[str, ...] = ()
    weekdays: tuple[str, ...] = ()
    cron: tuple[str, ...] = ()
    calendar: str | None = None
    """Name of a calendar of the client's."""
    named: "Exclusion | None" = None
    """That calendar, as it was when this was resolved. None beside a name: it is not resolved."""
    days: frozenset[date] = field(compare=False, repr=False)
    days_of_year: frozenset[tuple[int, int]] = field(compare=False, repr=False)
    """Month and day."""
    days_of_week: frozenset[int] = field(compare=False, repr=False)
    """0 is Sunday."""
    whole_days: tuple[CronExpression, ...] = field(compare=False, repr=False)
    hours: tuple[CronExpression, ...] = field(compare=False, repr=False)

    @property
    def size_bytes(self) -> int:
        """Bytes of its own texts."""
        return sum(len(text) for texts in (self.dates, self.annual, self.weekdays, self.cron) for text in texts)

    @property
    def digest(self) -> str:
        """A digest of its own entries: of equal ones it is equal, whatever their order."""
        entries = (
            f"{kind} {text}"
            for kind, texts in (("d", self.dates), ("a", self.annual), ("w", self.weekdays), ("c", self.cron))
            for text in sorted(set(texts))
        )
        return hashlib.sha256("\n".join(entries).encode()).hexdigest()[:DIGEST_CHARS]

    def excludes_day(self, day: int) -> bool:
        """True if the whole day is excluded."""
        at = date.fromordinal(day + EPOCH_DAY)
        return (
            at.isoweekday() % 7 in self.days_of_week
            or at in self.days
            or (at.month, at.day) in self.days_of_year
            or any(each.minutes_of(day) for each in self.whole_days)
            or (self.named is not None and self.named.excludes_day(day))
        )

    def minutes_of(self, day: int) -> int:
        """The minutes of a day that are excluded by their hours, as bits."""
        minutes = 0 if self.named is None else self.named.minutes_of(day)
        for each in self.hours:
            minutes |= each.minutes_of(day)
        return minutes

    def reason(self, day: int) -> str:
        """The field that excludes a day, or hours of it: for people."""
        at = date.fromordinal(day + EPOCH_DAY)
        if at in self.days:
            return "dates"
        if (at.month, at.day) in self.days_of_year:
            return "annual"
        if at.isoweekday() % 7 in self.days_of_week:
            return "weekdays"
        if any(each.minutes_of(day) for each in (*self.whole_days, *self.hours)):
            return "cron"
        return f"calendar {self.calendar}"


def exclusion(
    *,
    dates: Sequence[str] = (),
    annual: Sequence[str] = (),
    weekdays: Sequence[str] = (),
    cron: Sequence[str] = (),
    calendar: str | None = None,
    named: Exclusion | None = None,
) -> Exclusion:
    """An exclusion of texts: dates `2026-12-25`, annual `12-25`, weekdays `SAT`, cron expressions of five fields. `named`:
    the client's calendar of the name `calendar`; None: it is not resolved.

    Raises: InvalidInput, naming every wrong entry: `dates.3`.
    """
    parser = _Parser()
    days = frozenset(parser.each("dates", dates, _date, DATES_MAX))
    days_of_year = frozenset(parser.each("annual", annual, _month_and_day, ANNUAL_MAX))
    days_of_week = frozenset(parser.each("weekdays", weekdays, _weekday, len(WEEKDAYS)))
    expressions = list(parser.each("cron", cron, _expression, CRON_MAX))
    if calendar is not None and CALENDAR_NAME.fullmatch(calendar) is None:
        parser.errors.append(FieldError("calendar", CALENDAR_NAME_MESSAGE))
    if parser.errors:
        raise InvalidInput(parser.errors)
    return Exclusion(
        dates=tuple(dates),
        annual=tuple(annual),
        weekdays=tuple(weekdays),
        cron=tuple(cron),
        calendar=calendar,
        named=named,
        days=days,
        days_of_year=days_of_year,
        days_of_week=days_of_week,
        whole_days=tuple(each for each in expressions if each.every_minute == _EVERY_MINUTE),
        hours=tuple(each for each in expressions if each.every_minute != _EVERY_MINUTE),
    )


class _Parser:
    """The parser of an exclusion: collects what is wrong with any of its entries."""

    def __init__(self) -> None:
        self.errors: list[FieldError] = []

    def each(self, name: str, texts: Sequence[str], read: Callable[[str], _T], most: int) -> Iterator[_T]:
        """The entries of a field that can be read."""
        if len(texts) > most:
            self.errors.append(FieldError(name, f"has {len(texts)} entries; at most {most} are taken"))
            return
        for index, text in enumerate(texts):
            try:
                yield read(text)
            except ValueError as error:
                self.errors.append(FieldError(f"{name}.{index}", str(error)))
            except InvalidInput as wrong:
                self.errors += (FieldError(f"{name}.{index}", each.message) for each in wrong.errors)


def _date(text: str) -> date:
    """Raises: ValueError, with a message for the client; here and below."""
    if not _DATE.fullmatch(text):
        raise ValueError("should be a date such as 2026-12-25")
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text} is no date") from error


def _month_and_day(text: str) -> tuple[int, int]:
    if not _MONTH_AND_DAY.fullmatch(text):
        raise ValueError("should be a month and a day such as 12-25")
    try:
        day = date.fromisoformat(f"{_LEAP_YEAR}-{text}")
    except ValueError as error:
        raise ValueError(f"{text} is a day of no year") from error
    return day.month, day.day


def _weekday(text: str) -> int:
    if text not in WEEKDAYS:
        raise ValueError(f"should be {' or '.join(WEEKDAYS)}")
    return WEEKDAYS.index(text)


def _expression(text: str) -> CronExpression:
    try:
        return parse_cron(text, dialect=Dialect.UNIX)
    except InvalidInput as wrong:
        if any(error.field == "days" for error in wrong.errors):
            raise ValueError(
                "restricts days of the month and of the week, and one of them begins with *, which is read in two ways; "
                "write it as two expressions, or without the *"
            ) from wrong
        raise


NO_DAYS: Final = exclusion()
"""Excludes nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AllowedTimes:
    """Times of days as a calendar leaves them (`DayTimes`)."""

    base: DayTimes
    exclusion: Exclusion
    on_excluded: OnExcluded

    @property
    def seconds(self) -> int:
        return self.base.seconds

    def minutes_of(self, day: int) -> int:
        if self.exclusion.excludes_day(day):
            return 0
        return self.meant_for(day) & ~self.exclusion.minutes_of(day)

    def meant_for(self, day: int) -> int:
        """The minutes that are meant for a day that is not excluded: its own, and those that were moved to it."""
        minutes = self.base.minutes_of(day)
        for source in self.sources(day):
            minutes |= self.base.minutes_of(source)
        return minutes

    def sources(self, day: int) -> Iterator[int]:
        """The days whose times are moved to a day that is not excluded, the nearest first."""
        step = self._step
        for other in range(day - step, day - step * (MOVE_DAYS_MAX + 1), -step) if step else ():
            if not self.exclusion.excludes_day(other):
                return
            yield other

    @property
    def _step(self) -> int:
        """The direction into which times are moved; 0: into none."""
        return {OnExcluded.SKIP: 0, OnExcluded.NEXT: 1, OnExcluded.PREVIOUS: -1}[self.on_excluded]

    def first_day(self, from_day: int, until_day: int) -> int | None:
        return self._search(from_day, until_day, 1) if from_day < until_day else None

    def last_day(self, from_day: int, until_day: int) -> int | None:
        return self._search(until_day - 1, from_day - 1, -1) if from_day < until_day else None

    def _search(self, day: int, end: int, way: int) -> int | None:
        """The first day that may have times from a day on, before another is reached; `way`: forwards or backwards. Each day
        of a row of excluded ones is looked at once."""
        if self._step == way:
            return self._search_with_moves(day, end, way)
        if self._step == -way:
            return self._search_against_moves(day, end, way)
        found = self._base_day(day, end, way)
        while found is not None and self.exclusion.excludes_day(found):
            found = self._base_day(found + way, end, way)
        return found

    def _search_with_moves(self, day: int, end: int, way: int) -> int | None:
        while True:
            while day != end and self.exclusion.excludes_day(day):
                day += way
            if day == end or self.meant_for(day):
                return None if day == end else day
            found = self._base_day(day + way, end, way)
            if found is None:
                return None
            day = found

    def _search_against_moves(self, day: int, end: int, way: int) -> int | None:
        # Days behind the end may have times that are moved to before it.
        reach = end + way * MOVE_DAYS_MAX
        seen = target = None
        found = self._base_day(day, reach, way)
        while found is not None:
            seen, target = found, self._target(found, seen, target)
            if target is not None and (target - day) * way >= 0:
                return target if (end - target) * way > 0 else None
            found = self._base_day(found + way, reach, way)
        return None

    def _target(self, day: int, seen: int | None, target: int | None) -> int | None:
        """The day on which the times of a day fire; None: none is near enough. `seen`, `target`: another day, and the one on
        which its times fire."""
        for other in range(day, day + self._step * (MOVE_DAYS_MAX + 1), self._step):
            if other == seen:
                # The other one is nearer to it: where that is too far, this is too.
                return target
            if not self.exclusion.excludes_day(other):
                return other
        return None

    def _base_day(self, day: int, end: int, way: int) -> int | None:
        """The first day that may have times of its own."""
        if way > 0:
            return self.base.first_day(day, end) if day < end else None
        return self.base.last_day(end + 1, day + 1) if day > end else None


@dataclass(frozen=True, slots=True)
class ExcludedTimes:
    """The times of days that a calendar takes away, and moves to no other day (`DayTimes`)."""

    open: AllowedTimes

    @property
    def seconds(self) -> int:
        return self.open.seconds

    def minutes_of(self, day: int) -> int:
        if not self.open.exclusion.excludes_day(day):
            return self.open.meant_for(day) & self.open.exclusion.minutes_of(day)
        return self.open.base.minutes_of(day) if self.open.on_excluded is OnExcluded.SKIP else 0

    def first_day(self, from_day: int, until_day: int) -> int | None:
        return self._days.first_day(from_day, until_day)

    def last_day(self, from_day: int, until_day: int) -> int | None:
        return self._days.last_day(from_day, until_day)

    @property
    def _days(self) -> DayTimes:
        """The days among which all of them are."""
        return self.open.base if self.open.on_excluded is OnExcluded.SKIP else self.open
