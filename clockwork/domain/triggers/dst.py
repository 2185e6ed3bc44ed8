"""From wall-clock times to instants: a zone's clocks jump forward (a gap: times that they never show) and back (an overlap:
times that they show twice).

    change           wall-clock time                rule      fires
    gap              does not exist, 02:30          next      at the first instant after the gap, 03:00; several become one
                                                    shift     as late as it was meant, by the clock of before: 03:30
                                                    skip      not at all
    overlap          exists twice, 02:30            first     at its first pass
                                                    second    at its second pass
                                                    both      at both

A gap of more than six hours is a day that a country leaves out (Samoa, 2011-12-30), not daylight saving: its times are
skipped whatever the rule says.

A stretch of one offset is arithmetic (`zones.Stretch`); only its ends need the rules. So the next time costs one look at the
calendar, wherever it lies, and a change costs two more.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from clockwork.domain.triggers.zones import DAY_S, OFFSET_S_MAX, Stretch, Zone

SEARCH_S_MAX: Final = 60 * 366 * DAY_S
"""Nothing is searched further than 60 years ahead or back. 29 February on a Monday is 40 years apart at most."""
GAP_S_MAX: Final = 6 * 3_600
"""A longer gap is no daylight saving."""
_REACH_S: Final = OFFSET_S_MAX + GAP_S_MAX
"""An instant is never further from its wall-clock time, as seconds."""
_NAMED_MAX: Final = 3
"""Wall-clock times that a note names; of more, the first and the last."""


class GapRule(StrEnum):
    """The rule for wall-clock times that do not exist."""

    NEXT = "next"
    SHIFT = "shift"
    SKIP = "skip"


class OverlapRule(StrEnum):
    """The rule for wall-clock times that exist twice."""

    FIRST = "first"
    SECOND = "second"
    BOTH = "both"


class WallTimes(Protocol):
    """A set of wall-clock seconds, counted as if all days had 24 hours. Ranges exclude their end."""

    def __contains__(self, wall_s: int) -> bool: ...

    def first(self, from_s: int, until_s: int) -> int | None:
        """The first member in a range."""

    def last(self, from_s: int, until_s: int) -> int | None:
        """The last member in a range."""

    def count(self, from_s: int, until_s: int) -> int:
        """The number of members in a range."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ZonedTimes:
    """The instants of wall-clock times in a zone, in epoch seconds."""

    walls: WallTimes
    zone: Zone
    gap: GapRule
    overlap: OverlapRule

    def next_after(self, at_s: int) -> int | None:
        """The first instant after a time; None: there is none within 60 years."""
        from_s, wall_end_s = at_s + 1, at_s + SEARCH_S_MAX
        while from_s < wall_end_s:
            stretch = self.zone.stretch_at(from_s)
            found_s = self._first(stretch, from_s)
            if found_s is not None:
                return found_s
            # From the stretch's end on clocks show no earlier time than this one.
            seen_s = stretch.end_s + min(stretch.offset_s, stretch.after_s)
            wall_s = self.walls.first(seen_s, wall_end_s)
            if wall_s is None:
                return None
            from_s = max(stretch.end_s, wall_s - _REACH_S)
        return None

    def last_at(self, at_s: int) -> int | None:
        """The last instant at or before a time; None: there is none within 60 years."""
        wall_start_s = at_s - SEARCH_S_MAX
        while at_s > wall_start_s:
            stretch = self.zone.stretch_at(at_s)
            found_s = self._last(stretch, at_s)
            if found_s is not None:
                return found_s
            # Before the stretch's start clocks show only times before this one.
            wall_s = self.walls.last(wall_start_s, stretch.start_s + stretch.before_s)
            if wall_s is None:
                return None
            at_s = min(stretch.start_s - 1, wall_s + _REACH_S)
        return None

    def count(self, after_s: int, until_s: int) -> int:
        """The number of instants after one time, up to and including another."""
        total, from_s = 0, after_s + 1
        while from_s <= until_s:
            stretch = self.zone.stretch_at(from_s)
            total += self._count(stretch, from_s, min(stretch.end_s, until_s + 1))
            from_s = stretch.end_s
        return total

    def meant_at(self, at_s: int) -> list[int]:
        """The wall-clock times that fire at an instant: the one that clocks show, or those that do not exist."""
        stretch = self.zone.stretch_at(at_s)
        return list(self._missing_at(stretch, at_s)) or [at_s + stretch.offset_s]

    def explain(self, at_s: int) -> str | None:
        """The rule that put an instant where it is, in words; None if it needed none."""
        stretch = self.zone.stretch_at(at_s)
        wall_s = at_s + stretch.offset_s
        missing = list(self._missing_at(stretch, at_s))
        if missing:
            return f"gap: {_named(missing)} not exist; moved to {_clock(wall_s)}"
        if wall_s < stretch.start_s + stretch.before_s:
            return "overlap: second of two"
        if wall_s >= stretch.end_s + stretch.after_s:
            return "overlap: first of two"
        return None

    # One stretch.

    def _bounds(self, stretch: Stretch) -> tuple[int, int]:
        """The wall-clock times that fire within a stretch at the time that they show."""
        low_s, high_s = stretch.start_s + stretch.offset_s, stretch.end_s + stretch.offset_s
        if self.overlap is OverlapRule.FIRST:
            low_s = max(low_s, stretch.start_s + stretch.before_s) if _is_overlap(stretch) else low_s
        elif self.overlap is OverlapRule.SECOND:
            high_s = min(high_s, stretch.end_s + stretch.after_s)
        return low_s, high_s

    def _gap(self, stretch: Stretch) -> tuple[int, int] | None:
        """The wall-clock times in the gap before a stretch, if they fire in it."""
        size_s = stretch.offset_s - stretch.before_s
        if self.gap is GapRule.SKIP or not 0 < size_s <= GAP_S_MAX:
            return None
        return stretch.start_s + stretch.before_s, stretch.start_s + stretch.offset_s

    def _first(self, stretch: Stretch, from_s: int) -> int | None:
        low_s, high_s = self._bounds(stretch)
        wall_s = self.walls.first(max(low_s, from_s + stretch.offset_s), high_s)
        found_s = None if wall_s is None else wall_s - stretch.offset_s
        gap = self._gap(stretch) if from_s < stretch.start_s + GAP_S_MAX else None
        if gap is None:
            return found_s
        if self.gap is GapRule.NEXT:
            fires = from_s == stretch.start_s and self.walls.first(*gap) is not None
            return stretch.start_s if fires else found_s
        missing_s = self.walls.first(max(gap[0], from_s + stretch.before_s), gap[1])
        moved_s = None if missing_s is None else missing_s - stretch.before_s
        return moved_s if found_s is None or (moved_s is not None and moved_s < found_s) else found_s

    def _last(self, stretch: Stretch, at_s: int) -> int | None:
        low_s, high_s = self._bounds(stretch)
        wall_s = self.walls.last(low_s, max(low_s, min(high_s, at_s + 1 + stretch.offset_s)))
        found_s = None if wall_s is None else wall_s - stretch.offset_s
        gap = self._gap(stretch)
        if gap is None or (found_s is not None and found_s >= stretch.start_s + GAP_S_MAX):
            return found_s
        if self.gap is GapRule.NEXT:
            return stretch.start_s if found_s is None and self.walls.first(*gap) is not None else found_s
        missing_s = self.walls.last(gap[0], min(gap[1], at_s + 1 + stretch.before_s))
        moved_s = None if missing_s is None else missing_s - stretch.before_s
        return moved_s if found_s is None or (moved_s is not None and moved_s > found_s) else found_s

    def _count(self, stretch: Stretch, from_s: int, until_s: int) -> int:
        low_s, high_s = self._bounds(stretch)
        total = self.walls.count(max(low_s, from_s + stretch.offset_s), min(high_s, until_s + stretch.offset_s))
        gap = self._gap(stretch) if from_s < stretch.start_s + GAP_S_MAX else None
        if gap is None:
            return total
        if self.gap is GapRule.NEXT:
            alone = from_s == stretch.start_s and gap[1] not in self.walls and self.walls.first(*gap) is not None
            return total + alone
        # Seconds of a few hours a year at most, and only where it was asked for.
        moved = (wall_s - stretch.before_s for wall_s in self._members(*gap))
        return total + sum(from_s <= at_s < until_s and at_s + stretch.offset_s not in self.walls for at_s in moved)

    def _missing_at(self, stretch: Stretch, at_s: int) -> Iterator[int]:
        """The wall-clock times that do not exist and fire at an instant."""
        gap = self._gap(stretch) if at_s < stretch.start_s + GAP_S_MAX else None
        if gap is None:
            return
        if self.gap is GapRule.SHIFT:
            if at_s + stretch.before_s < gap[1] and at_s + stretch.before_s in self.walls:
                yield at_s + stretch.before_s
        elif at_s == stretch.start_s:
            yield from self._members(*gap)

    def _members(self, from_s: int, until_s: int) -> Iterator[int]:
        wall_s = self.walls.first(from_s, until_s)
        while wall_s is not None:
            yield wall_s
            wall_s = self.walls.first(wall_s + 1, until_s)


def _is_overlap(stretch: Stretch) -> bool:
    return stretch.offset_s < stretch.before_s


def _clock(wall_s: int) -> str:
    minutes, seconds = divmod(wall_s % DAY_S, 60)
    text = f"{minutes // 60:02}:{minutes % 60:02}"
    return f"{text}:{seconds:02}" if seconds else text


def _named(walls: list[int]) -> str:
    texts = [_clock(wall_s) for wall_s in walls]
    if len(texts) == 1:
        return f"{texts[0]} does"
    if len(texts) <= _NAMED_MAX:
        return f"{', '.join(texts[:-1])} and {texts[-1]} do"
    return f"{texts[0]} to {texts[-1]} do"
