"""Triggers: pure functions from a time to the fire times of a recurring job. Epoch milliseconds in and out.

A fire time is nominal: it is the identity of an occurrence, and knows no jitter. `Trigger.due_ms` adds that, and can be
computed again at any time. Fire times are at least a second apart, and a time with jitter never passes the next fire time.

Cron, recurrence rules, rates and their union have fire times that are known beforehand (`Timetable`). A fixed delay has
none: its next one depends on the end of the last run, so nothing of it can be missed. Cron and recurrence rules name
times by the clock; they alone have calendars, since a rate knows no days.

What is wrong is raised as `InvalidInput` with the field's name in a request, below the trigger: `everyMs`, `of.1.everyMs`.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum
from heapq import heapify, heappop, heapreplace
from itertools import islice, takewhile
from typing import Final, Protocol, TypeAlias, TypeVar, cast

from clockwork.domain.triggers.cron import Days, Dialect, parse_cron
from clockwork.domain.triggers.day_times import DayTimes, TimesByDay
from clockwork.domain.triggers.dst import GapRule, OverlapRule, ZonedTimes
from clockwork.domain.triggers.exclusions import NO_DAYS, AllowedTimes, ExcludedTimes, Exclusion, OnExcluded
from clockwork.domain.triggers.recurrence import read_recurrence
from clockwork.domain.triggers.zones import DAY_S, EPOCH_DAY, zone_of
from clockwork.errors import FieldError, InvalidInput, shortened

APART_MS_MIN: Final = 1_000
"""Least distance of two fire times."""
PERIOD_MS_MAX: Final = 3_653 * 86_400_000
"""Ten years: the longest rate or delay; a schedule may be due as far ahead."""
TIME_MS_MAX: Final = 10**14 - 1
"""Latest start, end or anchor, in the year 5138: 14 digits, as in positions. Python's calendar ends in 9999."""
JITTER_MS_MAX: Final = 86_400_000
FIRE_MS_MAX: Final = TIME_MS_MAX - JITTER_MS_MAX
"""Latest fire time: a position has no room for a later due time."""
MEMBERS_MIN: Final = 2
MEMBERS_MAX: Final = 10
CALENDARS_MAX: Final = 3
"""Different named calendars of one trigger: the state of a job has their digests, and stays below 1 KB."""
COUNT_EXACT_MAX: Final = 10_000
"""The union of several timetables is counted by going through it, and no further than this. A step costs some microseconds
for each member that has the time; ten members with the same times, a week away, take 0.3 s, and all others less."""


@dataclass(frozen=True, slots=True)
class TimeStretch:
    """A stretch of times at which a job does not run: fire times that are skipped, or times that a calendar takes away."""

    first_ms: int
    last_ms: int
    count: int
    """From `COUNT_EXACT_MAX` on at least that."""


class Timetable(Protocol):
    """Fire times that are known beforehand. None: there is none within 60 years."""

    def next_after(self, at_ms: int) -> int | None:
        """The first fire time after a time."""

    def last_at(self, at_ms: int) -> int | None:
        """The last fire time at or before a time."""

    def nth_last(self, at_ms: int, count_max: int, *, since_ms: int) -> int | None:
        """The oldest among the `count_max` latest fire times at or before a time that are not before `since_ms`; None:
        there is none."""

    def count(self, after_ms: int, until_ms: int) -> int:
        """The number of fire times after one time, up to and including another; from `COUNT_EXACT_MAX` on it may be less
        than there are."""

    def excluded(self, after_ms: int, until_ms: int) -> TimeStretch | None:
        """The times after one time, up to and including another, that would be fire times if no calendar excluded them."""

    def explain(self, at_ms: int, since_ms: int = 0) -> str | None:
        """The rule that put a fire time where it is, and what is excluded between the fire time before it and itself, in
        words; None if there is nothing to say. Nothing before `since_ms` is named."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ZonedRule:
    """A rule about wall-clock times in a time zone, less what its calendar excludes."""

    time_zone: str
    gap: GapRule | None
    overlap: OverlapRule | None
    exclude: Exclusion | None = None
    on_excluded: OnExcluded = OnExcluded.SKIP
    until_ms: int | None = field(compare=False, repr=False, default=None)
    """The last time at which it may fire, which follows from the rule; None: no end."""
    times: ZonedTimes = field(compare=False, repr=False)
    excluded_times: ZonedTimes | None = field(compare=False, repr=False, default=None)
    """The times that the calendar takes away."""

    def next_after(self, at_ms: int) -> int | None:
        next_s = self.times.next_after(at_ms // 1_000)
        return None if next_s is None or next_s * 1_000 > self._until(next_s * 1_000) else next_s * 1_000

    def last_at(self, at_ms: int) -> int | None:
        last_s = self.times.last_at(self._until(at_ms) // 1_000)
        return None if last_s is None else last_s * 1_000

    def nth_last(self, at_ms: int, count_max: int, *, since_ms: int) -> int | None:
        found_ms: int | None = None
        earlier_ms = self.last_at(at_ms)
        for _ in range(count_max):
            if earlier_ms is None or earlier_ms < since_ms:
                break
            found_ms, earlier_ms = earlier_ms, self.last_at(earlier_ms - 1)
        return found_ms

    def count(self, after_ms: int, until_ms: int) -> int:
        return self.times.count(after_ms // 1_000, self._until(until_ms) // 1_000)

    def excluded(self, after_ms: int, until_ms: int) -> TimeStretch | None:
        after_s, until_s = after_ms // 1_000, self._until(until_ms) // 1_000
        times = self.excluded_times
        if times is None or not (count := times.count(after_s, until_s)):
            return None
        first_s, last_s = times.next_after(after_s), times.last_at(until_s)
        return None if first_s is None or last_s is None else TimeStretch(first_s * 1_000, last_s * 1_000, count)

    def explain(self, at_ms: int, since_ms: int = 0) -> str | None:
        notes = [self.times.explain(at_ms // 1_000), *self._notes_of_calendar(at_ms, since_ms)]
        return "; ".join(note for note in notes if note) or None

    def without_calendar(self) -> ZonedTimes:
        """Its times as if nothing were excluded."""
        walls = self.times.walls
        if isinstance(walls, TimesByDay) and isinstance(walls.days, AllowedTimes):
            return replace(self.times, walls=TimesByDay(walls.days.base))
        return self.times

    def _until(self, at_ms: int) -> int:
        return at_ms if self.until_ms is None else min(at_ms, self.until_ms)

    def _notes_of_calendar(self, at_ms: int, since_ms: int) -> Iterator[str]:
        days = self.times.walls.days if isinstance(self.times.walls, TimesByDay) else None
        if self.exclude is None or not isinstance(days, AllowedTimes):
            return
        for wall_s in self.times.meant_at(at_ms // 1_000):
            day, second = divmod(wall_s, DAY_S)
            moved = sorted(each for each in days.sources(day) if days.base.minutes_of(each) >> second // 60 & 1)
            if moved:
                own = days.base.minutes_of(day) >> second // 60 & 1
                yield f"excluded: {'stands for' if own else 'moved from'} {self._named_days(moved)}{' too' if own else ''}"
                break
        before = self.excluded(max(since_ms - 1, self.last_at(at_ms - 1) or 0), at_ms - 1)
        if before is not None:
            zone = self.times.zone
            ends = dict.fromkeys((before.first_ms, before.last_ms))
            named = [f"{zone.local(each)[:16]} ({self._reason(each)})" for each in ends]
            yield f"excluded: {before.count} before it, {' to '.join(named)}"

    def _named_days(self, days: Sequence[int]) -> str:
        ends = dict.fromkeys((days[0], days[-1]))
        return " to ".join(f"{date.fromordinal(each + EPOCH_DAY)} ({self._why(each)})" for each in ends)

    def _reason(self, at_ms: int) -> str:
        return self._why((at_ms // 1_000 + self.times.zone.offset_at(at_ms // 1_000)) // DAY_S)

    def _why(self, day: int) -> str:
        return self.exclude.reason(day) if self.exclude is not None else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cron(ZonedRule):
    """A cron expression in a time zone, as it was given, and its times: `cron`."""

    expression: str
    dialect: Dialect | None
    days: Days | None


def cron(
    expression: str,
    *,
    dialect: Dialect | None = None,
    time_zone: str = "UTC",
    days: Days | None = None,
    gap: GapRule | None = None,
    overlap: OverlapRule | None = None,
    exclude: Exclusion | None = None,
    on_excluded: OnExcluded = OnExcluded.SKIP,
) -> Cron:
    """A cron trigger's timetable. Without rules for daylight saving: an hour field that begins with `*` means hours as they
    pass (gap: skip, overlap: both); any other means the clock on the wall, once a day (next, first).

    Raises: InvalidInput, naming every wrong field.
    """
    errors: list[FieldError] = []
    walls = zone = None
    try:
        walls = parse_cron(expression, dialect=dialect, days=days)
    except InvalidInput as wrong:
        errors += wrong.errors
    try:
        zone = zone_of(time_zone)
    except ValueError as error:
        errors.append(FieldError("timeZone", str(error)))
    if walls is None or zone is None:
        raise InvalidInput(errors)
    times, excluded_times = _with_calendar(
        ZonedTimes(
            walls=walls,
            zone=zone,
            gap=gap or (GapRule.SKIP if walls.every_hour else GapRule.NEXT),
            overlap=overlap or (OverlapRule.BOTH if walls.every_hour else OverlapRule.FIRST),
        ),
        walls,
        exclude,
        on_excluded,
    )
    return Cron(
        expression=expression,
        dialect=dialect,
        time_zone=time_zone,
        days=days,
        gap=gap,
        overlap=overlap,
        exclude=exclude,
        on_excluded=on_excluded,
        times=times,
        excluded_times=excluded_times,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Recurrence(ZonedRule):
    """A recurrence rule of RFC 5545 in a time zone, as it was given, and its times: `rrule`."""

    rule: str
    start_ms: int
    """The time from which it counts."""


def rrule(
    rule: str,
    *,
    start_ms: int,
    time_zone: str = "UTC",
    gap: GapRule | None = None,
    overlap: OverlapRule | None = None,
    exclude: Exclusion | None = None,
    on_excluded: OnExcluded = OnExcluded.SKIP,
) -> Recurrence:
    """An RRULE trigger's timetable. It counts from the wall-clock time at which the zone's clocks stand at its start. By
    default it means the clock on the wall, once a day (gap: next, overlap: first).

    Raises: InvalidInput, naming every wrong field.
    """
    errors: list[FieldError] = []
    if not 0 <= start_ms <= TIME_MS_MAX or start_ms % 1_000:
        errors.append(FieldError("start", f"{_TIME_MESSAGE}, in whole seconds"))
    zone = recurrence = None
    try:
        zone = zone_of(time_zone)
    except ValueError as error:
        errors.append(FieldError("timeZone", str(error)))
    start_s = 0 if errors else start_ms // 1_000
    try:
        recurrence = read_recurrence(rule, start_s=start_s + (0 if zone is None else zone.offset_at(start_s)))
    except InvalidInput as wrong:
        errors += wrong.errors
    if errors or zone is None or recurrence is None:
        raise InvalidInput(errors)
    times, excluded_times = _with_calendar(
        ZonedTimes(
            walls=TimesByDay(recurrence), zone=zone, gap=gap or GapRule.NEXT, overlap=overlap or OverlapRule.FIRST
        ),
        recurrence,
        exclude,
        on_excluded,
    )
    return Recurrence(
        rule=rule,
        start_ms=start_ms,
        time_zone=time_zone,
        gap=gap,
        overlap=overlap,
        exclude=exclude,
        on_excluded=on_excluded,
        until_ms=None if recurrence.until_s is None else recurrence.until_s * 1_000,
        times=times,
        excluded_times=excluded_times,
    )


def _with_calendar(
    times: ZonedTimes, base: DayTimes, exclude: Exclusion | None, on_excluded: OnExcluded
) -> tuple[ZonedTimes, ZonedTimes | None]:
    """The times that a calendar leaves, and those that it takes away. `base`: the same times, by days."""
    if exclude is None:
        return times, None
    open_times = AllowedTimes(base=base, exclusion=exclude, on_excluded=on_excluded)
    return (
        replace(times, walls=TimesByDay(open_times)),
        replace(times, walls=TimesByDay(ExcludedTimes(open_times))),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedRate:
    """Fire times at one distance from each other, for ever: `anchor_ms` + n · `every_ms`, n any whole number. Nothing
    drifts, whatever a run takes."""

    every_ms: int
    anchor_ms: int

    def __post_init__(self) -> None:
        """Raises: InvalidInput, naming every wrong field."""
        errors = _period_errors("everyMs", self.every_ms)
        if not 0 <= self.anchor_ms <= TIME_MS_MAX:
            errors.append(FieldError("anchor", _TIME_MESSAGE))
        if errors:
            raise InvalidInput(errors)

    def next_after(self, at_ms: int) -> int | None:
        return self.anchor_ms + ((at_ms - self.anchor_ms) // self.every_ms + 1) * self.every_ms

    def last_at(self, at_ms: int) -> int | None:
        return self.anchor_ms + (at_ms - self.anchor_ms) // self.every_ms * self.every_ms

    def nth_last(self, at_ms: int, count_max: int, *, since_ms: int) -> int | None:
        last_ms, first_ms = self.last_at(at_ms), self.next_after(since_ms - 1)
        if last_ms is None or first_ms is None or last_ms < first_ms:
            return None
        return max(first_ms, last_ms - (count_max - 1) * self.every_ms)

    def count(self, after_ms: int, until_ms: int) -> int:
        steps = (until_ms - self.anchor_ms) // self.every_ms - (after_ms - self.anchor_ms) // self.every_ms
        return max(0, steps)

    def excluded(self, after_ms: int, until_ms: int) -> TimeStretch | None:
        return None

    def explain(self, at_ms: int, since_ms: int = 0) -> str | None:
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedDelay:
    """A fire time some time after the end of the last run: after its completion, or its delivery where no completion is
    asked for."""

    delay_ms: int

    def __post_init__(self) -> None:
        """Raises: InvalidInput."""
        if errors := _period_errors("delayMs", self.delay_ms):
            raise InvalidInput(errors)


@dataclass(frozen=True, kw_only=True, slots=True)
class AnyOf:
    """The union of timetables; a time that several have is one. All of them have whole seconds, so that two fire times are
    never less than a second apart.

    A walk through its times asks a member for its next one only when the last one is passed: for a member that matches once
    in four years, the search costs more than all the others."""

    of: tuple[Cron | FixedRate, ...]

    def __post_init__(self) -> None:
        """Raises: InvalidInput."""
        errors = [
            FieldError(f"of.{index}.{name}", "should be whole seconds within a trigger of type any")
            for index, each in enumerate(self.of)
            if isinstance(each, FixedRate)
            for name, value_ms in (("everyMs", each.every_ms), ("anchor", each.anchor_ms))
            if value_ms % 1_000
        ]
        if not MEMBERS_MIN <= len(self.of) <= MEMBERS_MAX:
            errors.append(FieldError("of", f"should have {MEMBERS_MIN} to {MEMBERS_MAX} triggers"))
        if errors:
            raise InvalidInput(errors)

    def next_after(self, at_ms: int) -> int | None:
        return min((next_ms for each in self.of if (next_ms := each.next_after(at_ms)) is not None), default=None)

    def last_at(self, at_ms: int) -> int | None:
        return max((last_ms for each in self.of if (last_ms := each.last_at(at_ms)) is not None), default=None)

    def nth_last(self, at_ms: int, count_max: int, *, since_ms: int) -> int | None:
        found_ms: int | None = None
        for earlier_ms in islice(_downwards([each.last_at for each in self.of], at_ms), count_max):
            if earlier_ms < since_ms:
                break
            found_ms = earlier_ms
        return found_ms

    def count(self, after_ms: int, until_ms: int) -> int:
        """Goes through the fire times, and stops at `COUNT_EXACT_MAX`. A member that has as many alone needs no walk."""
        at_least = max(each.count(after_ms, until_ms) for each in self.of)
        if at_least >= COUNT_EXACT_MAX:
            return at_least
        times = _upwards([each.next_after for each in self.of], after_ms)
        return sum(1 for _ in islice(takewhile(lambda at_ms: at_ms <= until_ms, times), COUNT_EXACT_MAX))

    def excluded(self, after_ms: int, until_ms: int) -> TimeStretch | None:
        """Goes through the times, like `count`. A time that one rule excludes and another has is a fire time."""
        times = {at_ms for each in self.of for at_ms in _excluded_times(each, after_ms, until_ms)}
        upcoming: list[int | None] = [after_ms for _ in self.of]
        away: list[int] = []
        for at_ms in sorted(times):
            for index, rule in enumerate(self.of):
                known_ms = upcoming[index]
                if known_ms is not None and known_ms < at_ms:
                    upcoming[index] = rule.next_after(at_ms - 1)
            if at_ms not in upcoming:
                away.append(at_ms)
        return TimeStretch(away[0], away[-1], len(away)) if away else None

    def explain(self, at_ms: int, since_ms: int = 0) -> str | None:
        notes = [each.explain(at_ms, since_ms) for each in self.of if each.last_at(at_ms) == at_ms]
        return next((note for note in notes if note), None)


def _upwards(following: Sequence[Callable[[int], int | None]], after_ms: int) -> Iterator[int]:
    """The times of several timetables after a time, each once, in order. `following`: their `next_after`."""
    heads = [(at_ms, index) for index, each in enumerate(following) if (at_ms := each(after_ms)) is not None]
    heapify(heads)
    while heads:
        at_ms = heads[0][0]
        yield at_ms
        while heads and heads[0][0] == at_ms:
            index = heads[0][1]
            next_ms = following[index](at_ms)
            if next_ms is None:
                heappop(heads)
            else:
                heapreplace(heads, (next_ms, index))


def _downwards(preceding: Sequence[Callable[[int], int | None]], at_ms: int) -> Iterator[int]:
    """Those at or before a time, the latest first. `preceding`: their `last_at`."""

    def mirrored(last_at: Callable[[int], int | None]) -> Callable[[int], int | None]:
        def next_after(minus_ms: int) -> int | None:
            earlier_ms = last_at(-minus_ms - 1)
            return None if earlier_ms is None else -earlier_ms

        return next_after

    return (-minus_ms for minus_ms in _upwards([mirrored(each) for each in preceding], -at_ms - 1))


def _excluded_times(rule: Cron | FixedRate, after_ms: int, until_ms: int) -> Iterator[int]:
    excluded = rule.excluded(after_ms, until_ms)
    if excluded is None or not isinstance(rule, Cron) or rule.excluded_times is None:
        return
    at_s: int | None = after_ms // 1_000
    for _ in range(min(excluded.count, COUNT_EXACT_MAX)):
        at_s = rule.excluded_times.next_after(at_s) if at_s is not None else None
        if at_s is not None:
            yield at_s * 1_000


_TIME_MESSAGE: Final = "should be a time from 1970 to 5138"


def _period_errors(field: str, period_ms: int) -> list[FieldError]:
    if APART_MS_MIN <= period_ms <= PERIOD_MS_MAX:
        return []
    return [FieldError(field, f"should be {APART_MS_MIN} to {PERIOD_MS_MAX}")]


class JitterPer(StrEnum):
    """The thing whose hash a jitter is."""

    JOB = "job"
    """One offset for all runs of a job: its fire times keep their distance."""
    RUN = "run"
    """One for each fire time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Jitter:
    """A delay of deliveries, to spread what would be due at one moment. A hash, so that it can be computed again."""

    most_ms: int
    """Inclusive."""
    per: JitterPer = JitterPer.JOB

    def __post_init__(self) -> None:
        """Raises: InvalidInput."""
        if not 0 <= self.most_ms <= JITTER_MS_MAX:
            raise InvalidInput([FieldError("jitterMs", f"should be 0 to {JITTER_MS_MAX}")])


Rule: TypeAlias = Cron | Recurrence | FixedRate | FixedDelay | AnyOf


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedExclusion:
    """A named calendar as a trigger was resolved with it."""

    name: str
    exclusion: Exclusion


@dataclass(frozen=True, kw_only=True, slots=True)
class Trigger:
    """A rule within its bounds."""

    rule: Rule
    start_ms: int | None = None
    """Inclusive."""
    end_ms: int | None = None
    """Exclusive; both bound fire times, before jitter."""
    runs_max: int | None = None
    """Runs in all, skipped ones aside."""
    jitter: Jitter | None = None

    def __post_init__(self) -> None:
        """Raises: InvalidInput."""
        errors = [
            FieldError(name, _TIME_MESSAGE)
            for name, at_ms in (("start", self.start_ms), ("end", self.end_ms))
            if at_ms is not None and not 0 <= at_ms <= TIME_MS_MAX
        ]
        if self.start_ms is not None and self.end_ms is not None and self.end_ms <= self.start_ms:
            errors.append(FieldError("end", "should be after start"))
        if self.runs_max is not None and self.runs_max < 1:
            errors.append(FieldError("maxRuns", "should be at least 1"))
        if errors:
            raise InvalidInput(errors)

    def first_after(self, created_ms: int) -> int | None:
        """The first fire time of a job that is created now. A fixed delay begins at its start, or at once."""
        if isinstance(self.rule, FixedDelay):
            return self._within(max(created_ms, self.start_ms or 0))
        return self.next_after(created_ms)

    def next_after(self, at_ms: int) -> int | None:
        """The first fire time after a time; None: there is none any more. For a fixed delay, the time is the end of the
        last run."""
        if isinstance(self.rule, FixedDelay):
            return self._within(max(at_ms + self.rule.delay_ms, self.start_ms or 0))
        return self._within(self.rule.next_after(at_ms if self.start_ms is None else max(at_ms, self.start_ms - 1)))

    def last_at(self, at_ms: int) -> int | None:
        """The last fire time at or before a time. A fixed delay has none that are known by themselves."""
        if isinstance(self.rule, FixedDelay):
            return None
        last_ms = self.rule.last_at(at_ms if self.end_ms is None else min(at_ms, self.end_ms - 1))
        return None if last_ms is None or last_ms < (self.start_ms or 0) else last_ms

    def nth_last(self, at_ms: int, count_max: int, *, since_ms: int) -> int | None:
        """The earliest of the last fire times at or before a time, at most so many, none of them before `since_ms`. None:
        there is no such fire time. A fixed delay has none that are known by themselves."""
        if isinstance(self.rule, FixedDelay):
            return None
        at_ms = at_ms if self.end_ms is None else min(at_ms, self.end_ms - 1)
        return self.rule.nth_last(at_ms, count_max, since_ms=max(since_ms, self.start_ms or 0))

    def count(self, after_ms: int, until_ms: int) -> int:
        """The number of fire times after one time, up to and including another; of a union, at least that from
        `COUNT_EXACT_MAX` on. 0 for a fixed delay."""
        if isinstance(self.rule, FixedDelay):
            return 0
        after_ms = max(after_ms, (self.start_ms or 0) - 1)
        until_ms = until_ms if self.end_ms is None else min(until_ms, self.end_ms - 1)
        return self.rule.count(after_ms, until_ms) if after_ms < until_ms else 0

    def excluded(self, after_ms: int, until_ms: int) -> TimeStretch | None:
        """The times after one time, up to and including another, that would be fire times if no calendar excluded them. None
        if there are none. Times that are moved to another day are none of them."""
        if isinstance(self.rule, FixedDelay):
            return None
        after_ms = max(after_ms, (self.start_ms or 0) - 1)
        until_ms = until_ms if self.end_ms is None else min(until_ms, self.end_ms - 1)
        return self.rule.excluded(after_ms, until_ms) if after_ms < until_ms else None

    def explain(self, at_ms: int) -> str | None:
        """The rule that put a fire time where it is, in words (`gap: 02:30 does not exist; moved to 03:00`), and what a
        calendar excluded before it; None if there is nothing to say."""
        return None if isinstance(self.rule, FixedDelay) else self.rule.explain(at_ms, self.start_ms or 0)

    def _within(self, at_ms: int | None) -> int | None:
        over = at_ms is None or at_ms > FIRE_MS_MAX or (self.end_ms is not None and at_ms >= self.end_ms)
        return None if over else at_ms

    @property
    def calendars(self) -> tuple[NamedExclusion, ...]:
        """The named calendars that it was resolved with, by their names."""
        named = {each.calendar: each.named for _, each in self._exclusions() if each.named is not None}
        return tuple(NamedExclusion(name=name, exclusion=of) for name, of in sorted(named.items()) if name is not None)

    @property
    def unresolved(self) -> Mapping[str, str]:
        """The calendars that it names and was not resolved with: the field of each name, and the name."""
        return {
            field: each.calendar
            for field, each in self._exclusions()
            if each.calendar is not None and each.named is None
        }

    def resolved(self, calendars: Mapping[str, Exclusion]) -> "Trigger":
        """The trigger with these calendars, by name, in the place of those that it was resolved with; one that is not among
        them stays. Raises: InvalidInput (one is missing that it was never resolved with)."""
        unknown = {field: name for field, name in self.unresolved.items() if name not in calendars}
        if unknown:
            raise InvalidInput(
                [
                    FieldError(field, f"{shortened(name)} is no calendar of this client")
                    for field, name in unknown.items()
                ]
            )
        match self.rule:
            case AnyOf(of=members):
                return replace(self, rule=AnyOf(of=tuple(_resolved(each, calendars) for each in members)))
            case Cron() | Recurrence():
                return replace(self, rule=_resolved(self.rule, calendars))
            case _:
                return self

    def kept_by_calendars(self, at_ms: int) -> bool:
        """True if only named calendars leave no fire time after a time. They may change: the trigger is not over."""
        if not self.calendars or self.next_after(at_ms) is not None:
            return False
        return self.resolved({each.name: NO_DAYS for each in self.calendars}).next_after(at_ms) is not None

    def _exclusions(self) -> Iterator[tuple[str, Exclusion]]:
        """Its exclusions that name calendars, each with the field of the name."""
        rules = [("", self.rule)]
        if isinstance(self.rule, AnyOf):
            rules = [(f"of.{index}.", each) for index, each in enumerate(self.rule.of)]
        for place, rule in rules:
            if isinstance(rule, ZonedRule) and rule.exclude is not None and rule.exclude.calendar is not None:
                yield f"{place}exclude.calendar", rule.exclude

    # Fire times with jitter. It never passes the next fire time, unless it is one offset for the whole job: so the order of
    # due times is that of fire times, and an occurrence that is due has no successor that is.

    def due_ms(self, at_ms: int, jitter_seed: str) -> int:
        """The due time of a fire time. `jitter_seed`: the job's name, from which its jitter is computed."""
        if self.jitter is None or not self.jitter.most_ms:
            return at_ms
        if self.jitter.per is JitterPer.JOB:
            return at_ms + _share(jitter_seed, self.jitter.most_ms + 1)
        room_ms = self.jitter.most_ms + 1
        if not isinstance(self.rule, FixedDelay) and (next_ms := self.rule.next_after(at_ms)) is not None:
            room_ms = min(room_ms, next_ms - at_ms)
        return at_ms + _share(f"{jitter_seed}\n{at_ms}", room_ms)

    def last_due_at(self, now_ms: int, jitter_seed: str) -> int | None:
        """The last fire time that is due."""
        at_ms = self.last_at(now_ms - self._offset_ms(jitter_seed))
        return at_ms if at_ms is None or self.due_ms(at_ms, jitter_seed) <= now_ms else self.last_at(at_ms - 1)

    def first_due_after(self, now_ms: int, jitter_seed: str, *, cursor_ms: int) -> int | None:
        """The first fire time after the cursor that is not due yet."""
        at_ms = self.last_at(now_ms - self._offset_ms(jitter_seed))
        if at_ms is not None and at_ms > cursor_ms and self.due_ms(at_ms, jitter_seed) > now_ms:
            return at_ms
        return self.next_after(max(cursor_ms, now_ms - self._offset_ms(jitter_seed)))

    def _offset_ms(self, jitter_seed: str) -> int:
        """The jitter that all fire times have alike."""
        per_job = self.jitter is not None and self.jitter.per is JitterPer.JOB
        return self.due_ms(0, jitter_seed) if per_job else 0


_R = TypeVar("_R", bound=Cron | Recurrence | FixedRate)


def _resolved(rule: _R, calendars: Mapping[str, Exclusion]) -> _R:
    exclude = rule.exclude if isinstance(rule, ZonedRule) else None
    if (
        not isinstance(rule, ZonedRule)
        or exclude is None
        or exclude.calendar is None
        or exclude.calendar not in calendars
    ):
        return rule
    exclude = replace(exclude, named=calendars[exclude.calendar])
    days = rule.times.walls.days if isinstance(rule.times.walls, TimesByDay) else None
    assert isinstance(days, AllowedTimes), "a rule with a calendar has open times"
    times, excluded_times = _with_calendar(rule.times, days.base, exclude, rule.on_excluded)
    return cast(_R, replace(rule, exclude=exclude, times=times, excluded_times=excluded_times))


def _share(text: str, room_ms: int) -> int:
    """A number from 0 to below `room_ms`, evenly spread over texts."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) % room_ms


def check_fires(trigger: Trigger, now_ms: int) -> None:
    """Refuses a trigger without a fire time from now on. Raises: InvalidInput."""
    if trigger.first_after(now_ms) is not None:
        return
    unbounded = Trigger(rule=trigger.rule, start_ms=trigger.start_ms)
    if trigger.end_ms is not None and unbounded.first_after(now_ms) is not None:
        raise InvalidInput([FieldError("end", "leaves no fire time: the first one would not be before it")])
    raise InvalidInput(_never(trigger.rule, max(now_ms, trigger.start_ms or 0)))


def _never(rule: Rule, at_ms: int) -> Sequence[FieldError]:
    if isinstance(rule, AnyOf):
        return [
            FieldError(f"of.{index}.{each.field}", each.message)
            for index, member in enumerate(rule.of)
            for each in _never(member, at_ms)
        ]
    if not isinstance(rule, ZonedRule):
        return []
    if rule.exclude is not None and rule.without_calendar().next_after(at_ms // 1_000 - 1) is not None:
        return [FieldError("exclude", "leaves no fire time: each one within 60 years is excluded")]
    field = "rule" if isinstance(rule, Recurrence) else "expression"
    return [FieldError(field, "never fires: no such date within 60 years from now, or from start")]
