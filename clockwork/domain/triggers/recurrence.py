"""Recurrence rules of RFC 5545 (`RRULE`), as wall-clock times: no time zone is known here (`dst`).

    FREQ         DAILY, WEEKLY, MONTHLY, YEARLY      what is below DAILY is a cron expression, or a fixed rate
    INTERVAL     every n-th day, week, month, year   counted from the one that `start` lies in
    BY…          which days and times in a period    as in the RFC's table; what is not given, `start` says
    BYSETPOS     which of them in a period
    UNTIL        the last time, inclusive            in UTC, as the RFC has it for rules with a time zone
    COUNT        is refused                          the trigger's `maxRuns` counts what ran

A period (day, week, month, year) is filtered day by day, and looked at only where a fire time is sought: the next one costs
the same ten years after `start` as on its first day. python-dateutil, the oracle of the tests, walks from `start` each time,
has no way back, and searches a rule without a date up to the year 9999.

Where the RFC leaves it open: `start` is no fire time unless the rule names it. BYWEEKNO has to come with BYDAY, since
without it some take all days of the week, and others that of `start`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple, TypeVar

from clockwork.domain.triggers.zones import DAY_S, EPOCH_DAY
from clockwork.errors import FieldError, InvalidInput, shortened

RULE_CHARS_MAX: Final = 1_024
INTERVAL_MAX: Final = 1_000
_PERIODS_KEPT: Final = 64
"""Periods of one rule whose times are kept: those about the time that is asked for."""


class Frequency(StrEnum):
    """The period of a rule."""

    DAILY = "DAILY"
    WEEKLY = "WEEKLY"
    MONTHLY = "MONTHLY"
    YEARLY = "YEARLY"


class _NthWeekday(NamedTuple):
    weekday: int
    """0 is Monday."""
    nth: int
    """Its number in the month or year; negative: from the end; 0: each."""


_WEEKDAYS: Final = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_FREQUENCIES_BELOW: Final = frozenset({"HOURLY", "MINUTELY", "SECONDLY"})
_WEEKDAY: Final = re.compile(r"([+-]?\d{1,2})?([A-Z]{2})", re.ASCII)
_INTEGER: Final = re.compile(r"[+-]?\d{1,4}", re.ASCII)
_UNTIL: Final = re.compile(r"\d{8}T\d{6}Z", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecurrenceRule:
    """A parsed rule (`day_times.DayTimes`). Days are counted from 1970-01-01; Monday is 0."""

    frequency: Frequency
    interval: int
    start_s: int
    """The wall-clock second from which it counts; nothing fires before."""
    until_s: int | None
    """The last instant at which it may fire, in epoch seconds: of no concern to wall-clock times."""
    week_start: int
    months: frozenset[int]
    """Empty: all, here and below."""
    week_numbers: frozenset[int]
    year_days: frozenset[int]
    month_days: frozenset[int]
    weekdays: frozenset[_NthWeekday]
    minutes: int
    """The minutes of each day, as bits."""
    second: int
    positions: frozenset[int]
    _kept: dict[int, dict[int, int]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def seconds(self) -> int:
        return 1 << self.second

    def minutes_of(self, day: int) -> int:
        """The minutes of a day that have a time, as bits."""
        period = self._period_of(day)
        return 0 if period < 0 or period % self.interval else self._times_of(period).get(day, 0)

    def first_day(self, from_day: int, until_day: int) -> int | None:
        """The first day in a range that has times."""
        period = max(0, -(-self._period_of(from_day) // self.interval) * self.interval)
        while self._first_day_of(period) < until_day:
            for day in self._times_of(period):
                if day >= from_day:
                    return day if day < until_day else None
            period += self.interval
        return None

    def last_day(self, from_day: int, until_day: int) -> int | None:
        """The last day in a range that has times."""
        period = self._period_of(until_day - 1) // self.interval * self.interval
        while period >= 0 and self._first_day_of(period + 1) > from_day:
            for day in reversed(self._times_of(period)):
                if day < until_day:
                    return day if day >= from_day else None
            period -= self.interval
        return None

    # Periods, counted from the one that the start lies in.

    def _period_of(self, day: int) -> int:
        start = _date(self.start_s // DAY_S)
        match self.frequency:
            case Frequency.DAILY:
                return day - self.start_s // DAY_S
            case Frequency.WEEKLY:
                return (day - self._week_of_start()) // 7
            case Frequency.MONTHLY:
                at = _date(day)
                return (at.year - start.year) * 12 + at.month - start.month
            case Frequency.YEARLY:
                return _date(day).year - start.year

    def _first_day_of(self, period: int) -> int:
        start = _date(self.start_s // DAY_S)
        match self.frequency:
            case Frequency.DAILY:
                return self.start_s // DAY_S + period
            case Frequency.WEEKLY:
                return self._week_of_start() + 7 * period
            case Frequency.MONTHLY:
                return _day_of_month(start.year, start.month + period)
            case Frequency.YEARLY:
                return _day_of_month(start.year + period, 1)

    def _week_of_start(self) -> int:
        day = self.start_s // DAY_S
        return day - (_date(day).weekday() - self.week_start) % 7

    def _times_of(self, period: int) -> dict[int, int]:
        """The days of a period that have times, in order, and the minutes of each."""
        if (kept := self._kept.get(period)) is not None:
            return kept
        days = range(self._first_day_of(period), self._first_day_of(period + 1))
        times = dict.fromkeys((day for day in days if self._names(_date(day))), self.minutes)
        if self.positions:
            times = self._at_positions(list(times))
        start_day, start_second = divmod(self.start_s, DAY_S)
        if start_day in times:
            times[start_day] &= -1 << max(0, -(-(start_second - self.second) // 60))
        times = {day: minutes for day, minutes in times.items() if day >= start_day and minutes}
        if len(self._kept) >= _PERIODS_KEPT:
            self._kept.clear()
        self._kept[period] = times
        return times

    def _names(self, at: date) -> bool:
        """True if the rule names this day, positions aside."""
        if self.months and at.month not in self.months:
            return False
        if self.month_days:
            index, length = _within_month(at)
            if self.month_days.isdisjoint((index + 1, index - length)):
                return False
        if self.year_days:
            index, length = _within_year(at)
            if self.year_days.isdisjoint((index + 1, index - length)):
                return False
        if self.week_numbers and self.week_numbers.isdisjoint(self._week_numbers_of(at)):
            return False
        return not self.weekdays or not self.weekdays.isdisjoint(self._nth_weekdays_of(at))

    def _nth_weekdays_of(self, at: date) -> tuple[_NthWeekday, ...]:
        """The names of a day's weekday: each of them, the n-th, the n-th from the end. In a rule by years they are counted
        within the year, unless it names months."""
        by_year = self.frequency is Frequency.YEARLY and not self.months
        index, total = _within_year(at) if by_year else _within_month(at)
        weekday = at.weekday()
        return (
            _NthWeekday(weekday, 0),
            _NthWeekday(weekday, index // 7 + 1),
            _NthWeekday(weekday, -((total - 1 - index) // 7) - 1),
        )

    def _week_numbers_of(self, at: date) -> tuple[int, int]:
        """The number of a day's week, from the beginning and from the end of its year. The first week of a year is the first
        that has four days in it."""
        week = at - timedelta(days=(at.weekday() - self.week_start) % 7)
        year = (week + timedelta(days=3)).year
        number = (week - self._first_week(year)).days // 7 + 1
        weeks = (self._first_week(year + 1) - self._first_week(year)).days // 7
        return number, number - weeks - 1

    def _first_week(self, year: int) -> date:
        fourth = date(year, 1, 4)
        return fourth - timedelta(days=(fourth.weekday() - self.week_start) % 7)

    def _at_positions(self, days: list[int]) -> dict[int, int]:
        each_day = [minute for minute in range(self.minutes.bit_length()) if self.minutes >> minute & 1]
        total = len(days) * len(each_day)
        chosen: dict[int, int] = {}
        for index in sorted({position - 1 if position > 0 else total + position for position in self.positions}):
            if 0 <= index < total:
                day = days[index // len(each_day)]
                chosen[day] = chosen.get(day, 0) | 1 << each_day[index % len(each_day)]
        return chosen


def _date(day: int) -> date:
    return date.fromordinal(day + EPOCH_DAY)


def _within_month(at: date) -> tuple[int, int]:
    """The days before a day in its month, and the month's length."""
    return at.day - 1, _day_of_month(at.year, at.month + 1) - _day_of_month(at.year, at.month)


def _within_year(at: date) -> tuple[int, int]:
    """The days before a day in its year, and the year's length."""
    first = _day_of_month(at.year, 1)
    return at.toordinal() - EPOCH_DAY - first, _day_of_month(at.year + 1, 1) - first


def _day_of_month(year: int, month: int) -> int:
    """The first day of a month; months beyond December are those of later years."""
    return date(year + (month - 1) // 12, (month - 1) % 12 + 1, 1).toordinal() - EPOCH_DAY


# --- reading


def read_recurrence(text: str, *, start_s: int) -> RecurrenceRule:
    """The rule of a text, with or without `RRULE:` before it. `start_s`: the wall-clock second from which it counts.

    Raises: InvalidInput, naming `rule`, one error for each wrong part.
    """
    return _Parser(text, start_s).rule()


_T = TypeVar("_T")


class _Parser:
    """The parser of one rule: collects what is wrong with any of its parts."""

    def __init__(self, text: str, start_s: int) -> None:
        self._errors: list[FieldError] = []
        self._start_s = start_s
        self._parts = self._split(text)

    def _split(self, text: str) -> dict[str, str]:
        if len(text) > RULE_CHARS_MAX:
            raise _wrong(f"should have at most {RULE_CHARS_MAX} characters")
        if "\n" in text or "\r" in text:
            raise _wrong("should be the rule alone; DTSTART is the field start, and EXDATE is exclude.dates")
        parts: dict[str, str] = {}
        for part in text.strip().upper().removeprefix("RRULE:").rstrip(";").split(";"):
            name, equals, value = part.partition("=")
            if not equals or not value:
                self._refuse(f"{shortened(part)!r} should be a name, = and a value")
            elif name in parts:
                self._refuse(f"has {shortened(name)} twice")
            elif name not in _PARTS:
                self._refuse(
                    _UNKNOWN.get(name, f"{shortened(name)} is no part of a rule; there are {', '.join(_PARTS)}")
                )
            parts[name] = value
        return parts

    def _refuse(self, message: str) -> None:
        self._errors.append(FieldError("rule", message))

    def rule(self) -> RecurrenceRule:
        """Raises: InvalidInput."""
        frequency = self._frequency()
        interval = self._one("INTERVAL", 1, INTERVAL_MAX, 1)
        start = datetime.fromtimestamp(self._start_s, UTC)
        months = self._numbers("BYMONTH", 1, 12)
        week_numbers = self._numbers("BYWEEKNO", 1, 53, negative=True)
        year_days = self._numbers("BYYEARDAY", 1, 366, negative=True)
        month_days = self._numbers("BYMONTHDAY", 1, 31, negative=True)
        weekdays = self._list("BYDAY", _nth_weekday)
        positions = self._numbers("BYSETPOS", 1, 366, negative=True)
        hours = self._numbers("BYHOUR", 0, 23) or {start.hour}
        minutes = self._numbers("BYMINUTE", 0, 59) or {start.minute}
        seconds = self._numbers("BYSECOND", 0, 59) or {start.second}
        week_start = self._week_start()
        until_s = self._until()
        if len(seconds) > 1:
            self._refuse("BYSECOND should be one value; for several in a minute use a cron expression")
        self._check_table(frequency, weekdays)
        if self._errors:
            raise InvalidInput(self._errors)
        if not (week_numbers or year_days or month_days or weekdays):
            # Left open by the rule: as the start is.
            if frequency is Frequency.WEEKLY:
                weekdays = frozenset({_NthWeekday(start.weekday(), 0)})
            elif frequency is not Frequency.DAILY:
                month_days = frozenset({start.day})
                if frequency is Frequency.YEARLY and not months:
                    months = frozenset({start.month})
        return RecurrenceRule(
            frequency=frequency,
            interval=interval,
            start_s=self._start_s,
            until_s=until_s,
            week_start=week_start,
            months=months,
            week_numbers=week_numbers,
            year_days=year_days,
            month_days=month_days,
            weekdays=weekdays,
            minutes=sum(1 << 60 * hour + minute for hour in hours for minute in minutes),
            second=min(seconds),
            positions=positions,
        )

    def _frequency(self) -> Frequency:
        text = self._parts.get("FREQ", "")
        if text in Frequency.__members__:
            return Frequency[text]
        if text in _FREQUENCIES_BELOW:
            self._refuse(f"FREQ={text} is below a day: use a trigger of type cron or fixed_rate")
        else:
            self._refuse(f"FREQ should be one of {', '.join(Frequency)}")
        return Frequency.DAILY

    def _check_table(self, frequency: Frequency, weekdays: frozenset[_NthWeekday]) -> None:
        """Refuses what the table of the RFC (3.3.10) has no meaning for."""
        for name, allowed in _ALLOWED.items():
            if name in self._parts and frequency not in allowed:
                self._refuse(f"{name} has no meaning with FREQ={frequency}")
        if any(each.nth for each in weekdays):
            if frequency not in (Frequency.MONTHLY, Frequency.YEARLY):
                self._refuse(f"BYDAY with a number has no meaning with FREQ={frequency}")
            elif "BYWEEKNO" in self._parts:
                self._refuse("BYDAY with a number has no meaning with BYWEEKNO")
            elif frequency is Frequency.MONTHLY and any(abs(each.nth) > 5 for each in weekdays):
                self._refuse("BYDAY should have a number up to 5 with FREQ=MONTHLY")
        if "BYWEEKNO" in self._parts and "BYDAY" not in self._parts:
            self._refuse("BYWEEKNO should come with BYDAY: without it, some take all days of the week and others one")
        if "BYSETPOS" in self._parts and not any(name.startswith("BY") and name != "BYSETPOS" for name in self._parts):
            self._refuse("BYSETPOS should come with another BY… that it chooses from")

    def _until(self) -> int | None:
        if (text := self._parts.get("UNTIL")) is None:
            return None
        try:
            if _UNTIL.fullmatch(text):
                return round(datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp())
        except ValueError:
            pass
        self._refuse(
            "UNTIL should be a time in UTC such as 20271231T225959Z, as a rule with a time zone needs; or use end"
        )
        return None

    def _week_start(self) -> int:
        text = self._parts.get("WKST", "MO")
        if text not in _WEEKDAYS:
            self._refuse(f"WKST should be one of {', '.join(_WEEKDAYS)}")
            return 0
        return _WEEKDAYS.index(text)

    def _one(self, name: str, low: int, high: int, default: int) -> int:
        numbers = self._numbers(name, low, high) or frozenset({default})
        if len(numbers) > 1:
            self._refuse(f"{name} should be one number")
        return min(numbers)

    def _numbers(self, name: str, low: int, high: int, *, negative: bool = False) -> frozenset[int]:
        def number(text: str) -> int:
            value = int(text) if _INTEGER.fullmatch(text) else None
            if value is None or not (low <= value <= high or (negative and low <= -value <= high)):
                below_zero = f", or -{high} to -{low}" if negative else ""
                raise ValueError(f"should be {low} to {high}{below_zero}")
            return value

        return self._list(name, number)

    def _list(self, name: str, read: Callable[[str], _T]) -> frozenset[_T]:
        if name not in self._parts:
            return frozenset()
        values: set[_T] = set()
        for text in self._parts[name].split(","):
            try:
                values.add(read(text))
            except ValueError as error:
                self._refuse(f"{name} {shortened(text)!r} {error}")
        return frozenset(values)


def _nth_weekday(text: str) -> _NthWeekday:
    """Raises: ValueError, with a message for the client."""
    match = _WEEKDAY.fullmatch(text)
    if match is None or match[2] not in _WEEKDAYS or (match[1] is not None and not 1 <= abs(int(match[1])) <= 53):
        raise ValueError("should be a weekday such as MO, 2TU or -1FR")
    return _NthWeekday(_WEEKDAYS.index(match[2]), int(match[1] or 0))


def _wrong(message: str) -> InvalidInput:
    return InvalidInput([FieldError("rule", message)])


_PARTS: Final = (
    "FREQ",
    "INTERVAL",
    "UNTIL",
    "BYMONTH",
    "BYWEEKNO",
    "BYYEARDAY",
    "BYMONTHDAY",
    "BYDAY",
    "BYHOUR",
    "BYMINUTE",
    "BYSECOND",
    "BYSETPOS",
    "WKST",
)
_UNKNOWN: Final[Mapping[str, str]] = {
    "COUNT": "COUNT is not taken: the trigger's maxRuns counts what ran",
    "DTSTART": "DTSTART is the field start",
    "EXDATE": "EXDATE is exclude.dates",
}
_ALLOWED: Final[Mapping[str, frozenset[Frequency]]] = {
    "BYWEEKNO": frozenset({Frequency.YEARLY}),
    "BYYEARDAY": frozenset({Frequency.YEARLY}),
    "BYMONTHDAY": frozenset({Frequency.DAILY, Frequency.MONTHLY, Frequency.YEARLY}),
}
