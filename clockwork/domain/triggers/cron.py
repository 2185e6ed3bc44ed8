"""Cron expressions: which wall-clock seconds they name, in four dialects. No time zone is known here: `dst`.

    dialect   fields                                                    day of week
    unix      minute hour day month weekday                             0-7, 0 and 7 are Sunday
    quartz    second minute hour day month weekday [year], one `?`      1-7, 1 is Sunday
    spring    second minute hour day month weekday                      0-7, 0 and 7 are Sunday
    aws       minute hour day month weekday year, one `?`               1-7, 1 is Sunday

A field is a list of `*`, `a`, `a-b`, and each of these with a step `/n`; `a/n` goes from a to the field's last value. Ranges
wrap (`22-2`, `FRI-MON`). Days of the month have `L`, `L-n`, `LW`, `L-nW` and `nW` besides, weekdays `L`, `xL` and `x#k`, in
every dialect and within lists. Two expressions that look alike mean different days in two dialects, so a dialect is never
guessed where it matters: six fields with a digit as their weekday need it to be named.

Both day fields restricted: POSIX takes a day that either names, and so does Vixie's cron, unless one of the two begins with
`*`: then it takes a day that both name. Spring always does. `days` says which is meant; without it, a text that POSIX and
Vixie read differently is refused.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple, TypeVar

from clockwork.domain.triggers.day_times import below, lowest
from clockwork.domain.triggers.zones import DAY_S, EPOCH_DAY
from clockwork.errors import FieldError, InvalidInput, shortened

EXPRESSION_CHARS_MAX: Final = 512
"""Characters of an expression; a list of all minutes has 170."""
YEAR_MIN: Final = 1970
YEAR_MAX: Final = 2199
"""Years that an expression can name: the range of Quartz and of AWS."""


class Dialect(StrEnum):
    """The dialect of an expression."""

    UNIX = "unix"
    QUARTZ = "quartz"
    SPRING = "spring"
    AWS = "aws"


class Days(StrEnum):
    """The days of an expression that restricts both the day of the month and the day of the week."""

    OR = "or"
    """Days that either field names (POSIX)."""
    AND = "and"
    """Days that both fields name (Spring)."""


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    period: int
    """Number of different values: a range that wraps goes on after so many."""
    names: Sequence[str] = ()
    """Names of the values from `low` on."""


WEEKDAYS: Final = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_SECOND: Final = _Field("second", 0, 59, 60)
_MINUTE: Final = _Field("minute", 0, 59, 60)
_HOUR: Final = _Field("hour", 0, 23, 24)
_DAY: Final = _Field("day of month", 1, 31, 31)
_MONTH: Final = _Field(
    "month", 1, 12, 12, ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
)
_FROM_0: Final = _Field("day of week", 0, 7, 7, WEEKDAYS)
_FROM_1: Final = _Field("day of week", 1, 7, 7, WEEKDAYS)
_YEAR: Final = _Field("year", YEAR_MIN, YEAR_MAX, YEAR_MAX - YEAR_MIN + 1)

_LAYOUTS: Final = {
    Dialect.UNIX: (_MINUTE, _HOUR, _DAY, _MONTH, _FROM_0),
    Dialect.QUARTZ: (_SECOND, _MINUTE, _HOUR, _DAY, _MONTH, _FROM_1, _YEAR),
    Dialect.SPRING: (_SECOND, _MINUTE, _HOUR, _DAY, _MONTH, _FROM_0),
    Dialect.AWS: (_MINUTE, _HOUR, _DAY, _MONTH, _FROM_1, _YEAR),
}
_COUNTS: Final = {Dialect.UNIX: "5", Dialect.QUARTZ: "6 or 7", Dialect.SPRING: "6", Dialect.AWS: "6"}
_ONE_QUESTION_MARK: Final = frozenset({Dialect.QUARTZ, Dialect.AWS})
_WEEKDAY_OF_SIX: Final = 5
"""Index of the weekday among six or seven fields in the order of Quartz and Spring."""

_MACROS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_ANY: Final = frozenset({"*", "?"})
"""A day field that restricts nothing."""
_STEPPED: Final = re.compile(r"(\*|[A-Z]+|\d{1,4})(?:-([A-Z]+|\d{1,4}))?(?:/(\d{1,4}))?", re.ASCII)
_LAST_DAY: Final = re.compile(r"L(?:-(\d{1,2}))?(W)?", re.ASCII)
_NEAREST_WEEKDAY: Final = re.compile(r"(\d{1,2})W", re.ASCII)
_LAST_OF_WEEKDAY: Final = re.compile(r"([A-Z]{3}|\d)L", re.ASCII)
_NTH_OF_WEEKDAY: Final = re.compile(r"([A-Z]{3}|\d)#(\d)", re.ASCII)
_BACK_MAX: Final = 30
"""`L-30` is the first of a month with 31 days."""


def _highest_below(bits: int, value: int) -> int:
    """The highest bit below a value; -1 if there is none."""
    return below(bits, value).bit_length() - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class _DaysOfMonth:
    """The day of month field."""

    numbers: int
    """Bit n: the n-th."""
    backs: tuple[int, ...]
    """`L-n`: days before the last."""
    nearest: tuple[int, ...]
    """`nW`."""
    nearest_back: tuple[int, ...]
    """`L-nW`."""

    def bits(self, first_weekday: int, length: int) -> int:
        """The days of a month that has this length and begins on this weekday (0: Sunday)."""
        bits = self.numbers
        for back in self.backs:
            if back < length:
                bits |= 1 << (length - back)
        for day in self.nearest:
            if day <= length:
                bits |= 1 << _nearest_weekday(day, first_weekday, length)
        for back in self.nearest_back:
            if back < length:
                bits |= 1 << _nearest_weekday(length - back, first_weekday, length)
        return bits


def _nearest_weekday(day: int, first_weekday: int, length: int) -> int:
    """The day from Monday to Friday of the same month that is nearest."""
    match (first_weekday + day - 1) % 7:
        case 6:
            return day - 1 if day > 1 else day + 2
        case 0:
            return day + 1 if day < length else day - 2
        case _:
            return day


@dataclass(frozen=True, kw_only=True, slots=True)
class _DaysOfWeek:
    """The day of week field."""

    numbers: int
    """Bit n: that weekday, 0 is Sunday."""
    last: tuple[int, ...]
    """`xL`."""
    nth: tuple[tuple[int, int], ...]
    """`x#k`."""

    def bits(self, first_weekday: int, length: int) -> int:
        """The days of a month that has this length and begins on this weekday."""
        # Bit 0 is the first of the month, then shifted; six weeks cover it.
        week = ((self.numbers | self.numbers << 7) >> first_weekday) & 0x7F
        bits = (week * 0x810204081) << 1
        for weekday in self.last:
            first = (weekday - first_weekday) % 7 + 1
            bits |= 1 << (first + (length - first) // 7 * 7)
        for weekday, k in self.nth:
            # Beyond the month: cut off by the caller.
            bits |= 1 << ((weekday - first_weekday) % 7 + 1 + (k - 1) * 7)
        return bits


@dataclass(frozen=True, kw_only=True, slots=True)
class CronExpression:
    """A parsed expression. Its members are wall-clock seconds: seconds that a clock without a zone shows, counted
    from 1970-01-01T00:00:00 as if all days had 24 hours. All ranges of them exclude their end."""

    seconds: int
    minutes: int
    hours: int
    """Bit n: that value, here and below."""
    months: int
    years: int | None
    """Bit n: year `YEAR_MIN` + n. None: all."""
    days_of_month: _DaysOfMonth | None
    days_of_week: _DaysOfWeek | None
    """None: not restricted."""
    both_days: bool
    """If both are restricted: a day must be in both, not in either."""
    every_hour: bool
    """The hour field begins with `*`: hours are meant as they pass, not as clocks show them."""

    def __contains__(self, wall_s: int) -> bool:
        return self.first(wall_s, wall_s + 1) is not None

    def first(self, from_s: int, until_s: int) -> int | None:
        """The first member from one wall-clock time on and before another."""
        day, second = divmod(from_s, DAY_S)
        today = date.fromordinal(day + EPOCH_DAY)
        year, month = today.year, today.month
        bits = self._days(year, month)
        if bits >> today.day & 1 and (time_s := self._time_from(second)) is not None:
            found = day * DAY_S + time_s
            return found if found < until_s else None
        bits &= -2 << today.day
        start = day - today.day
        while not bits:
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)
            if not self.months >> month:
                year, month = year + 1, lowest(self.months)
            elif not self.months >> month & 1:
                month += lowest(self.months >> month)
            if (start := _day_before(year, month)) * DAY_S >= until_s:
                return None
            bits = self._days(year, month)
        found = (start + lowest(bits)) * DAY_S + self._first_time()
        return found if found < until_s else None

    def last(self, from_s: int, until_s: int) -> int | None:
        """The last member in a range."""
        day, second = divmod(until_s, DAY_S)
        today = date.fromordinal(day + EPOCH_DAY)
        year, month = today.year, today.month
        bits = self._days(year, month)
        if bits >> today.day & 1 and (time_s := self._time_before(second)) is not None:
            found = day * DAY_S + time_s
            return found if found >= from_s else None
        bits &= (1 << today.day) - 1
        start = day - today.day
        while not bits:
            if (start + 1) * DAY_S <= from_s:
                return None
            month = _highest_below(self.months, month)
            if month < 1:
                year, month = year - 1, self.months.bit_length() - 1
            start = _day_before(year, month)
            bits = self._days(year, month)
        found = (start + bits.bit_length() - 1) * DAY_S + self._time_before_midnight()
        return found if found >= from_s else None

    def count(self, from_s: int, until_s: int) -> int:
        """The number of members in a range."""
        if from_s >= until_s:
            return 0
        first_day, first_s = divmod(from_s, DAY_S)
        last_day, last_s = divmod(until_s, DAY_S)
        days = self._count_days(first_day, last_day)
        total = days * self.hours.bit_count() * self.minutes.bit_count() * self.seconds.bit_count()
        if last_s and self._has_day(last_day):
            total += self._count_times(last_s)
        if first_s and self._has_day(first_day):
            total -= self._count_times(first_s)
        return total

    # By days, for calendars (`day_times.DayTimes`).

    @property
    def every_minute(self) -> int:
        """The minutes of each day that is named, as bits."""
        return _minutes_of_day(self.hours, self.minutes)

    def minutes_of(self, day: int) -> int:
        """The minutes of a day that have a member, as bits."""
        return self.every_minute if self._has_day(day) else 0

    def first_day(self, from_day: int, until_day: int) -> int | None:
        """The first day in a range that has members."""
        found = self.first(from_day * DAY_S, until_day * DAY_S)
        return None if found is None else found // DAY_S

    def last_day(self, from_day: int, until_day: int) -> int | None:
        """The last day in a range that has members."""
        found = self.last(from_day * DAY_S, until_day * DAY_S)
        return None if found is None else found // DAY_S

    def _has_day(self, day: int) -> bool:
        today = date.fromordinal(day + EPOCH_DAY)
        return bool(self._days(today.year, today.month) >> today.day & 1)

    def _days(self, year: int, month: int) -> int:
        """The days of a month: bit n is the n-th."""
        if not self.months >> month & 1:
            return 0
        if self.years is not None and (year < YEAR_MIN or not self.years >> (year - YEAR_MIN) & 1):
            return 0
        length = _month_length(year, month)
        every = (2 << length) - 2
        if self.days_of_month is None and self.days_of_week is None:
            return every
        # Sunday, 0, is the day before 0001-01-01, a Monday.
        weekday = date(year, month, 1).toordinal() % 7
        if self.days_of_week is None:
            return every & self.days_of_month.bits(weekday, length) if self.days_of_month is not None else every
        by_week = self.days_of_week.bits(weekday, length)
        if self.days_of_month is None:
            return every & by_week
        by_month = self.days_of_month.bits(weekday, length)
        return every & (by_month & by_week if self.both_days else by_month | by_week)

    def _count_days(self, from_day: int, until_day: int) -> int:
        total = 0
        first = date.fromordinal(from_day + EPOCH_DAY)
        year, month, skipped = first.year, first.month, first.day
        start = from_day - first.day
        while start + 1 < until_day:
            bits = self._days(year, month) >> skipped << skipped
            length = _month_length(year, month)
            if start + length >= until_day:
                bits &= (1 << (until_day - start)) - 1
            total += bits.bit_count()
            start += length
            year, month, skipped = (year, month + 1, 0) if month < 12 else (year + 1, 1, 0)
        return total

    # Times of day, in seconds.

    def _first_time(self) -> int:
        return lowest(self.hours) * 3_600 + lowest(self.minutes) * 60 + lowest(self.seconds)

    def _time_before_midnight(self) -> int:
        hour, minute, second = (bits.bit_length() - 1 for bits in (self.hours, self.minutes, self.seconds))
        return hour * 3_600 + minute * 60 + second

    def _time_from(self, time_s: int) -> int | None:
        hour, rest = divmod(time_s, 3_600)
        minute, second = divmod(rest, 60)
        if self.hours >> hour & 1:
            if self.minutes >> minute & 1 and (later := self.seconds >> second):
                return hour * 3_600 + minute * 60 + second + lowest(later)
            if later := self.minutes >> (minute + 1):
                return hour * 3_600 + (minute + 1 + lowest(later)) * 60 + lowest(self.seconds)
        if later := self.hours >> (hour + 1):
            return (hour + 1 + lowest(later)) * 3_600 + lowest(self.minutes) * 60 + lowest(self.seconds)
        return None

    def _time_before(self, time_s: int) -> int | None:
        hour, rest = divmod(time_s, 3_600)
        minute, second = divmod(rest, 60)
        if self.hours >> hour & 1:
            if self.minutes >> minute & 1 and (earlier := _highest_below(self.seconds, second)) >= 0:
                return hour * 3_600 + minute * 60 + earlier
            if (earlier := _highest_below(self.minutes, minute)) >= 0:
                return hour * 3_600 + earlier * 60 + self.seconds.bit_length() - 1
        if (earlier := _highest_below(self.hours, hour)) >= 0:
            return earlier * 3_600 + (self.minutes.bit_length() - 1) * 60 + self.seconds.bit_length() - 1
        return None

    def _count_times(self, before_s: int) -> int:
        hour, rest = divmod(before_s, 3_600)
        minute, second = divmod(rest, 60)
        minutes, seconds = self.minutes.bit_count(), self.seconds.bit_count()
        total = below(self.hours, hour).bit_count() * minutes * seconds
        if self.hours >> hour & 1:
            total += below(self.minutes, minute).bit_count() * seconds
            if self.minutes >> minute & 1:
                total += below(self.seconds, second).bit_count()
        return total


@lru_cache(maxsize=4_096)
def _minutes_of_day(hours: int, minutes: int) -> int:
    return sum(minutes << 60 * hour for hour in range(24) if hours >> hour & 1)


_LENGTHS: Final = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def _month_length(year: int, month: int) -> int:
    leap = month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 29 if leap else _LENGTHS[month]


def _day_before(year: int, month: int) -> int:
    """The day before a month, so that the n-th is n days after it; days are counted from 1970-01-01."""
    return date(year, month, 1).toordinal() - EPOCH_DAY - 1


# --- reading


def parse_cron(text: str, *, dialect: Dialect | None = None, days: Days | None = None) -> CronExpression:
    """The expression of a text. `dialect`: None for unix with five fields, Quartz with more.

    Raises: InvalidInput, naming `expression`, `dialect` or `days`, one error for each wrong part.
    """
    if len(text) > EXPRESSION_CHARS_MAX:
        raise _wrong(f"should have at most {EXPRESSION_CHARS_MAX} characters")
    if not text.isascii():
        raise _wrong("should have ASCII characters only")
    if (stripped := text.strip()).startswith("@"):
        text, dialect = _macro(stripped.lower()), Dialect.UNIX
    if stripped.lower().startswith(("cron(", "rate(")):
        raise _wrong("should be the fields alone, without cron( ); for rate( ) use a trigger of type fixed_rate")
    if re.match(r"(?:CRON_)?TZ=", stripped, re.IGNORECASE):
        raise _wrong("should be the fields alone; the zone is the field timeZone")
    parts = text.upper().split()
    dialect = dialect or _dialect_of(parts)
    layout = _LAYOUTS[dialect]
    if len(parts) != len(layout) and not (dialect is Dialect.QUARTZ and len(parts) == len(layout) - 1):
        names = " ".join(each.name.replace(" ", "-") for each in layout)
        raise _wrong(f"has {len(parts)} fields; {dialect} has {_COUNTS[dialect]}: {names}")
    return _Parser(dict(zip(layout, parts, strict=False)), dialect).expression(days)


def _wrong(message: str, field: str = "expression") -> InvalidInput:
    return InvalidInput([FieldError(field, message)])


def _macro(text: str) -> str:
    if text.startswith("@every"):
        raise _wrong("@every is no cron: use a trigger of type fixed_rate, with everyMs")
    if text not in _MACROS:
        raise _wrong(f"{shortened(text)} is no macro; there are {', '.join(_MACROS)}")
    return _MACROS[text]


def _dialect_of(parts: Sequence[str]) -> Dialect:
    if len(parts) == 5:
        return Dialect.UNIX
    if len(parts) not in (6, 7):
        raise _wrong(f"has {len(parts)} fields; there are 5 (unix), 6 (quartz, spring, aws) or 7 (quartz)")
    if re.search(r"\d", parts[_WEEKDAY_OF_SIX]):
        raise _wrong(
            "is required: 1 is Sunday for quartz and aws, and Monday for spring; or write the weekday as a name",
            "dialect",
        )
    return Dialect.QUARTZ


_Rule = TypeVar("_Rule")


class _Parser:
    """The parser of one expression: collects what is wrong with any of its fields."""

    def __init__(self, parts: dict[_Field, str], dialect: Dialect) -> None:
        self._parts = {each.name: (each, text) for each, text in parts.items()}
        self._dialect = dialect
        self._errors: list[FieldError] = []

    def expression(self, days: Days | None) -> CronExpression:
        """Raises: InvalidInput."""
        seconds = self._values(_SECOND) if _SECOND.name in self._parts else 1
        minutes, hours, months = self._values(_MINUTE), self._values(_HOUR), self._values(_MONTH)
        years = self._values(_YEAR) >> YEAR_MIN if self._text(_YEAR) != "*" else None
        by_month, by_week = self._days_of_month(), self._days_of_week()
        both_days = self._both_days(days)
        if self._errors:
            raise InvalidInput(self._errors)
        return CronExpression(
            seconds=seconds,
            minutes=minutes,
            hours=hours,
            months=months,
            years=years,
            days_of_month=by_month,
            days_of_week=by_week,
            both_days=both_days,
            every_hour=self._text(_HOUR).startswith("*"),
        )

    def _text(self, field: _Field) -> str:
        return self._parts[field.name][1] if field.name in self._parts else "*"

    def _refuse(self, field: _Field, item: str, message: str) -> None:
        self._errors.append(FieldError("expression", f"{field.name} {shortened(item)!r} {message}"))

    def _values(self, field: _Field) -> int:
        """The values of a field without special forms, as bits."""
        values = 0
        for item in self._text(field).split(","):
            values |= self._stepped(field, item)
        return values

    def _both_days(self, days: Days | None) -> bool:
        month, week = self._text(_DAY), self._text(_FROM_0)
        if self._dialect in _ONE_QUESTION_MARK:
            if (month == "?") == (week == "?"):
                self._errors.append(
                    FieldError(
                        "expression",
                        f"should have ? as day of month or as day of week, and not in both, in dialect {self._dialect}; "
                        "put it where any day is meant",
                    )
                )
            return False
        if self._dialect is Dialect.UNIX and "?" in (month, week):
            self._errors.append(FieldError("expression", "has ?, which unix does not know; write * for any day"))
        if month in _ANY or week in _ANY:
            return False
        if days is None and self._dialect is Dialect.SPRING:
            return True
        if days is None and (month.startswith("*") or week.startswith("*")):
            self._errors.append(
                FieldError(
                    "days",
                    "is required: day of month and day of week are both restricted, and one begins with *; that is a day in "
                    "both for Vixie's cron (and), in either for POSIX (or)",
                )
            )
        return days is Days.AND

    def _days_of_month(self) -> _DaysOfMonth | None:
        if (text := self._text(_DAY)) in _ANY:
            return None
        numbers = 0
        backs: list[int] = []
        nearest: list[int] = []
        nearest_back: list[int] = []
        for item in text.split(","):
            if match := _LAST_DAY.fullmatch(item):
                back = int(match[1] or 0)
                if match[1] is not None and not 1 <= back <= _BACK_MAX:
                    self._refuse(_DAY, item, f"should be L-1 to L-{_BACK_MAX}")
                (nearest_back if match[2] else backs).append(back)
            elif match := _NEAREST_WEEKDAY.fullmatch(item):
                if not 1 <= int(match[1]) <= 31:
                    self._refuse(_DAY, item, "should be 1W to 31W")
                nearest.append(int(match[1]))
            else:
                numbers |= self._stepped(_DAY, item)
        return _DaysOfMonth(
            numbers=numbers, backs=tuple(backs), nearest=tuple(nearest), nearest_back=tuple(nearest_back)
        )

    def _days_of_week(self) -> _DaysOfWeek | None:
        field, text = self._parts[_FROM_0.name]
        if text in _ANY:
            return None
        numbers = 0
        last: list[int] = []
        nth: list[tuple[int, int]] = []
        for item in text.split(","):
            if item == "L":
                numbers |= 1 << 6
            elif match := _LAST_OF_WEEKDAY.fullmatch(item):
                if (value := self._number(field, match[1], item)) is not None:
                    last.append(_weekday(field, value))
            elif match := _NTH_OF_WEEKDAY.fullmatch(item):
                if not 1 <= int(match[2]) <= 5:
                    self._refuse(field, item, "should have #1 to #5; for the last of a month write L, as in FRIL")
                elif (value := self._number(field, match[1], item)) is not None:
                    nth.append((_weekday(field, value), int(match[2])))
            else:
                numbers |= self._stepped(field, item, _weekday)
        return _DaysOfWeek(numbers=numbers, last=tuple(last), nth=tuple(nth))

    def _stepped(self, field: _Field, item: str, bit: Callable[[_Field, int], int] = lambda _, value: value) -> int:
        """The values of `*`, `a`, `a-b`, or one of these with a step, as bits; 0 if it is wrong."""
        match = _STEPPED.fullmatch(item)
        if match is None or (match[1] == "*" and match[2]):
            self._refuse(field, item, f"is not understood; write {_grammar(field)}")
            return 0
        first, last, step = match.groups()
        if first == "*":
            low, high = field.low, field.high
        else:
            maybe_low = self._number(field, first, item)
            maybe_high = self._number(field, last, item) if last else (field.high if step else maybe_low)
            if maybe_low is None or maybe_high is None:
                return 0
            low, high = maybe_low, maybe_high
        width = int(step or 1)
        if not 1 <= width <= field.high - field.low:
            self._refuse(field, item, _step_message(field, width))
            return 0
        if low > high and field is _YEAR:
            self._refuse(field, item, "should begin with the earlier year")
            return 0
        if low > high:
            high += field.period
        values = 0
        for value in range(low, high + 1, width):
            values |= 1 << bit(field, field.low + (value - field.low) % field.period if value > field.high else value)
        return values

    def _number(self, field: _Field, text: str, item: str) -> int | None:
        if text.isdigit():
            if field.low <= int(text) <= field.high:
                return int(text)
            self._refuse(field, item, f"should be within {field.low} and {field.high}")
        elif text in field.names:
            return field.names.index(text) + field.low
        else:
            self._refuse(field, item, f"is not understood; write {_grammar(field)}")
        return None


def _weekday(field: _Field, value: int) -> int:
    """The weekday of a value; 0 is Sunday."""
    return (value - field.low) % 7


def _grammar(field: _Field) -> str:
    grammar = f"*, {field.low}-{field.high}, a-b, a/n or a list of these"
    if field.names:
        grammar += f", with names {field.names[0]} to {field.names[-1]}"
    if field.name == _DAY.name:
        grammar += ", L, L-n, LW, L-nW, nW"
    if field.names is WEEKDAYS:
        grammar += ", L, xL, x#k"
    return grammar


def _step_message(field: _Field, width: int) -> str:
    if width < 1:
        return "should have a step of at least 1"
    message = f"has a step beyond its field ({field.high - field.low} at most): it would fire at one value only"
    every_ms = {"second": 1_000, "minute": 60_000, "hour": 3_600_000}.get(field.name)
    if every_ms is not None:
        message += f"; for every {width} {field.name}s use a trigger of type fixed_rate with everyMs {width * every_ms}"
    return message
