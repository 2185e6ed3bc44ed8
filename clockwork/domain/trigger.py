"""Triggers: pure functions from a time to the fire times of a recurring job. Epoch milliseconds in and out.

A fire time is nominal: it is the identity of an occurrence, and knows no jitter. `Trigger.due_ms` adds that, and can be
computed again at any time. Fire times are at least a second apart, and a time with jitter never passes the next fire time.

Cron, rates and their union have fire times that are known beforehand (`Timetable`). A fixed delay has none: its next one
depends on the end of the last run, so nothing of it can be missed. RRULE and calendars become further timetables.

What is wrong is raised as `InvalidInput` with the field's name in a request, below the trigger: `everyMs`, `of.1.everyMs`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol, TypeAlias

from clockwork.domain.cron import Days, Dialect, read_cron
from clockwork.domain.dst import Gap, Overlap, ZonedTimes
from clockwork.domain.zones import zone_of
from clockwork.errors import FieldError, InvalidInput

APART_MS_MIN: Final = 1_000
"""Least distance of two fire times."""
PERIOD_MS_MAX: Final = 3_653 * 86_400_000
"""Ten years: the longest rate or delay; a schedule may be due as far ahead."""
TIME_MS_MAX: Final = 10**14 - 1
"""Latest start, end or anchor, in the year 5138: 14 digits, as in positions. Python's calendar ends in 9999."""
JITTER_MS_MAX: Final = 86_400_000
MEMBERS_MIN: Final = 2
MEMBERS_MAX: Final = 10
COUNT_EXACT_MAX: Final = 10_000
"""The union of several timetables is counted by going through it, and no further than this."""


class Timetable(Protocol):
    """Fire times that are known beforehand. None: there is none within 60 years."""

    def next_after(self, at_ms: int) -> int | None:
        """The first fire time after a time."""

    def last_at(self, at_ms: int) -> int | None:
        """The last fire time at or before a time."""

    def count(self, after_ms: int, until_ms: int) -> int:
        """The number of fire times after one time, up to and including another; from `COUNT_EXACT_MAX` on it may be less
        than there are."""

    def note(self, at_ms: int) -> str | None:
        """The rule that put a fire time where it is, in words; None if it needed none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cron:
    """A cron expression in a time zone, as it was given, and its times: `cron`."""

    expression: str
    dialect: Dialect | None
    time_zone: str
    days: Days | None
    gap: Gap | None
    overlap: Overlap | None
    times: ZonedTimes = field(compare=False, repr=False)

    def next_after(self, at_ms: int) -> int | None:
        return _ms(self.times.next_after(at_ms // 1_000))

    def last_at(self, at_ms: int) -> int | None:
        return _ms(self.times.last_at(at_ms // 1_000))

    def count(self, after_ms: int, until_ms: int) -> int:
        return self.times.count(after_ms // 1_000, until_ms // 1_000)

    def note(self, at_ms: int) -> str | None:
        return self.times.note(at_ms // 1_000)


def _ms(at_s: int | None) -> int | None:
    return None if at_s is None else at_s * 1_000


def cron(
    expression: str,
    *,
    dialect: Dialect | None = None,
    time_zone: str = "UTC",
    days: Days | None = None,
    gap: Gap | None = None,
    overlap: Overlap | None = None,
) -> Cron:
    """A cron trigger's timetable. Without rules for daylight saving: an hour field that begins with `*` means hours as they
    pass (gap: skip, overlap: both); any other means the clock on the wall, once a day (next, first).

    Raises: InvalidInput, naming every wrong field.
    """
    errors: list[FieldError] = []
    walls = zone = None
    try:
        walls = read_cron(expression, dialect=dialect, days=days)
    except InvalidInput as wrong:
        errors += wrong.errors
    try:
        zone = zone_of(time_zone)
    except ValueError as error:
        errors.append(FieldError("timeZone", str(error)))
    if walls is None or zone is None:
        raise InvalidInput(errors)
    return Cron(
        expression=expression,
        dialect=dialect,
        time_zone=time_zone,
        days=days,
        gap=gap,
        overlap=overlap,
        times=ZonedTimes(
            walls=walls,
            zone=zone,
            gap=gap or (Gap.SKIP if walls.every_hour else Gap.NEXT),
            overlap=overlap or (Overlap.BOTH if walls.every_hour else Overlap.FIRST),
        ),
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

    def count(self, after_ms: int, until_ms: int) -> int:
        steps = (until_ms - self.anchor_ms) // self.every_ms - (after_ms - self.anchor_ms) // self.every_ms
        return max(0, steps)

    def note(self, at_ms: int) -> str | None:
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
    never less than a second apart."""

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

    def count(self, after_ms: int, until_ms: int) -> int:
        """Goes through the fire times, and stops at `COUNT_EXACT_MAX`."""
        total = 0
        upcoming = [each.next_after(after_ms) for each in self.of]
        while total < COUNT_EXACT_MAX:
            at_ms = min((each for each in upcoming if each is not None), default=None)
            if at_ms is None or at_ms > until_ms:
                break
            total += 1
            upcoming = [
                rule.next_after(at_ms) if each == at_ms else each for rule, each in zip(self.of, upcoming, strict=True)
            ]
        return total

    def note(self, at_ms: int) -> str | None:
        notes = [each.note(at_ms) for each in self.of if each.last_at(at_ms) == at_ms]
        return next((note for note in notes if note), None)


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


Rule: TypeAlias = Cron | FixedRate | FixedDelay | AnyOf


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

    def count(self, after_ms: int, until_ms: int) -> int:
        """The number of fire times after one time, up to and including another; of a union, at least that from
        `COUNT_EXACT_MAX` on. 0 for a fixed delay."""
        if isinstance(self.rule, FixedDelay):
            return 0
        after_ms = max(after_ms, (self.start_ms or 0) - 1)
        until_ms = until_ms if self.end_ms is None else min(until_ms, self.end_ms - 1)
        return self.rule.count(after_ms, until_ms) if after_ms < until_ms else 0

    def note(self, at_ms: int) -> str | None:
        """The rule that put a fire time where it is, in words (`gap: 02:30 does not exist; moved to 03:00`); None if it
        needed none."""
        return None if isinstance(self.rule, FixedDelay) else self.rule.note(at_ms)

    def _within(self, at_ms: int | None) -> int | None:
        return None if at_ms is None or (self.end_ms is not None and at_ms >= self.end_ms) else at_ms

    # Fire times with jitter. It never passes the next fire time, unless it is one offset for the whole job: so the order of
    # due times is that of fire times, and an occurrence that is due has no successor that is.

    def due_ms(self, at_ms: int, job: str) -> int:
        """The due time of a fire time. `job` names the job in the cluster."""
        if self.jitter is None or not self.jitter.most_ms:
            return at_ms
        if self.jitter.per is JitterPer.JOB:
            return at_ms + _share(job, self.jitter.most_ms + 1)
        room_ms = self.jitter.most_ms + 1
        if not isinstance(self.rule, FixedDelay) and (next_ms := self.rule.next_after(at_ms)) is not None:
            room_ms = min(room_ms, next_ms - at_ms)
        return at_ms + _share(f"{job}\n{at_ms}", room_ms)

    def last_due_at(self, now_ms: int, job: str) -> int | None:
        """The last fire time that is due."""
        at_ms = self.last_at(now_ms - self._offset_ms(job))
        return at_ms if at_ms is None or self.due_ms(at_ms, job) <= now_ms else self.last_at(at_ms - 1)

    def first_due_after(self, now_ms: int, job: str, *, cursor_ms: int) -> int | None:
        """The first fire time after the cursor that is not due yet."""
        at_ms = self.last_at(now_ms - self._offset_ms(job))
        if at_ms is not None and at_ms > cursor_ms and self.due_ms(at_ms, job) > now_ms:
            return at_ms
        return self.next_after(max(cursor_ms, now_ms - self._offset_ms(job)))

    def _offset_ms(self, job: str) -> int:
        """The jitter that all fire times have alike."""
        per_job = self.jitter is not None and self.jitter.per is JitterPer.JOB
        return self.due_ms(0, job) if per_job else 0


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
    raise InvalidInput(_never(trigger.rule))


def _never(rule: Rule) -> Sequence[FieldError]:
    message = "never fires: no such date within 60 years from now, or from start"
    if isinstance(rule, AnyOf):
        return [
            FieldError(f"of.{index}.expression", message)
            for index, each in enumerate(rule.of)
            if isinstance(each, Cron)
        ]
    return [FieldError("expression", message)]
