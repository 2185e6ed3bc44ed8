"""Wall-clock times by days: the form in which calendars and recurrence rules give them to `dst`.

Days are counted from 1970-01-01. The times of a day are the minutes in which there is one, as 1,440 bits, and the seconds
within each of them. So two sets of times of day are joined, and one taken from another, by one operation on integers.
"""

from dataclasses import dataclass
from typing import Final, Protocol

from clockwork.domain.triggers.zones import DAY_S

MINUTES_OF_DAY: Final = 1_440


class DayTimes(Protocol):
    """Times of days. Ranges exclude their end."""

    @property
    def seconds(self) -> int:
        """The seconds of each minute that has a time, as bits."""

    def minutes_of(self, day: int) -> int:
        """The minutes of a day that have a time, as bits."""

    def first_day(self, from_day: int, until_day: int) -> int | None:
        """The first day in a range that may have times."""

    def last_day(self, from_day: int, until_day: int) -> int | None:
        """The last day in a range that may have times."""


@dataclass(frozen=True, slots=True)
class TimesByDay:
    """The wall-clock seconds of times of days (`dst.WallTimes`)."""

    days: DayTimes

    def __contains__(self, wall_s: int) -> bool:
        day, second = divmod(wall_s, DAY_S)
        return bool(self.days.minutes_of(day) >> second // 60 & 1 and self.days.seconds >> second % 60 & 1)

    def first(self, from_s: int, until_s: int) -> int | None:
        """The first time in a range."""
        from_day, second = divmod(from_s, DAY_S)
        until_day = -(-until_s // DAY_S)
        day = self.days.first_day(from_day, until_day)
        while day is not None:
            found_s = _first(self.days.minutes_of(day), self.days.seconds, second if day == from_day else 0)
            if found_s is not None:
                return day * DAY_S + found_s if day * DAY_S + found_s < until_s else None
            day = self.days.first_day(day + 1, until_day)
        return None

    def last(self, from_s: int, until_s: int) -> int | None:
        """The last time in a range."""
        from_day, (last_day, second) = from_s // DAY_S, divmod(until_s, DAY_S)
        day = self.days.last_day(from_day, last_day + 1)
        while day is not None:
            found_s = _last(self.days.minutes_of(day), self.days.seconds, second if day == last_day else DAY_S)
            if found_s is not None:
                return day * DAY_S + found_s if day * DAY_S + found_s >= from_s else None
            day = self.days.last_day(from_day, day)
        return None

    def count(self, from_s: int, until_s: int) -> int:
        """The number of times in a range."""
        if from_s >= until_s:
            return 0
        (first_day, first_s), (last_day, last_s) = divmod(from_s, DAY_S), divmod(until_s, DAY_S)
        seconds, total = self.days.seconds, 0
        day = self.days.first_day(first_day, last_day + 1)
        while day is not None:
            minutes = self.days.minutes_of(day)
            total += _count(minutes, seconds, last_s if day == last_day else DAY_S)
            if day == first_day:
                total -= _count(minutes, seconds, first_s)
            day = self.days.first_day(day + 1, last_day + 1)
        return total


def _first(minutes: int, seconds: int, from_s: int) -> int | None:
    minute, second = divmod(from_s, 60)
    if minutes >> minute & 1 and (later := seconds >> second):
        return from_s + lowest(later)
    if later := minutes >> (minute + 1):
        return (minute + 1 + lowest(later)) * 60 + lowest(seconds)
    return None


def _last(minutes: int, seconds: int, until_s: int) -> int | None:
    minute, second = divmod(until_s, 60)
    if minutes >> minute & 1 and (earlier := below(seconds, second)):
        return minute * 60 + earlier.bit_length() - 1
    if earlier := below(minutes, minute):
        return (earlier.bit_length() - 1) * 60 + seconds.bit_length() - 1
    return None


def _count(minutes: int, seconds: int, until_s: int) -> int:
    minute, second = divmod(until_s, 60)
    total = below(minutes, minute).bit_count() * seconds.bit_count()
    return total + (below(seconds, second).bit_count() if minutes >> minute & 1 else 0)


# Bits.


def lowest(bits: int) -> int:
    """The lowest of some bits."""
    return (bits & -bits).bit_length() - 1


def below(bits: int, value: int) -> int:
    """The bits below a value."""
    return bits & ((1 << value) - 1)
