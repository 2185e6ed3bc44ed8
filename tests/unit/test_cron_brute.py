"""Fire times beside brute force over minutes, around changes of offset; and beside cronsim, where there is none.

The brute force asks `zoneinfo` about each wall-clock minute (PEP 495: does it exist, once or twice?), and knows neither
stretches nor calendars. `SIMULATION=full` (make sim) plays every change of this decade in every zone; otherwise one of each
kind, a kind being the offsets before and after it and the time of day.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from itertools import product
from typing import Final
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from clockwork.domain.triggers.dst import GapRule, OverlapRule
from clockwork.domain.triggers.trigger import cron
from clockwork.domain.triggers.zones import Stretch, zone_names, zone_of
from tests.simulation.selection import FULL
from tests.unit.cron_times import ms, zone_info

DECADE: Final = (ms("2020-01-01T00:00") // 1_000, ms("2030-01-01T00:00") // 1_000)
AROUND: Final = timedelta(hours=7)
EXPRESSIONS: Final = (
    "* * * * *",
    "*/15 * * * *",
    "30 2 * * *",
    "0 0 * * *",
    "5,35 0-3,23 * * *",
    "*/20 22-2 * * *",
    "59 * * * *",
)
PARTS: Final = 32 if FULL else 2
"""Tests that share the changes, for as many workers."""
RULES: Final = tuple(product(GapRule, OverlapRule))


@dataclass(frozen=True)
class Minute:
    """A wall-clock minute near a change."""

    wall: datetime
    instants: tuple[int, ...]
    """In epoch seconds; empty if no clock shows it."""
    moved_s: dict[GapRule, int]
    """If no clock shows it."""


def changes_of(name: str) -> Iterator[Stretch]:
    """The stretches of this decade that begin with a change."""
    zone = zone_of(name)
    at_s = DECADE[0]
    while at_s < DECADE[1]:
        stretch = zone.stretch_at(at_s)
        if stretch.after_s != stretch.offset_s and stretch.end_s < DECADE[1]:
            yield zone.stretch_at(stretch.end_s)
        at_s = stretch.end_s


@cache
def all_changes() -> list[tuple[str, int]]:
    """Zones and the times of their changes: all, or one of each kind. Of zones with the same file there is one."""
    files = resources.files("tzdata") / "zoneinfo"
    names = {files.joinpath(*name.split("/")).read_bytes(): name for name in sorted(zone_names())}
    chosen: dict[object, tuple[str, int]] = {}
    for name in names.values():
        for stretch in changes_of(name):
            time_of_day_s = (stretch.start_s + stretch.before_s) % 86_400
            kind = (name, stretch.start_s) if FULL else (stretch.before_s, stretch.offset_s, time_of_day_s)
            chosen[kind] = (name, stretch.start_s)
    return list(chosen.values())


def minutes_around(zone: ZoneInfo, change_s: int) -> list[Minute]:
    change = datetime.fromtimestamp(change_s, zone).replace(tzinfo=None, second=0)
    wall, end = change - AROUND, change + AROUND
    minutes: list[Minute] = []
    missing: list[Minute] = []
    while wall < end:
        both = [wall.replace(tzinfo=zone, fold=fold) for fold in (0, 1)]
        instants = sorted(
            {
                round(at.timestamp())
                for at in both
                if at.astimezone(UTC).astimezone(zone).replace(tzinfo=None, fold=0) == wall
            }
        )
        # Before fold: the offset of before the gap, so the time is as late by the clock as it was meant.
        minute = Minute(wall, tuple(instants), {} if instants else {GapRule.SHIFT: round(both[0].timestamp())})
        minutes.append(minute)
        if not instants:
            missing.append(minute)
        elif missing:
            for each in missing:
                each.moved_s[GapRule.NEXT] = instants[0]
            missing = []
        wall += timedelta(minutes=1)
    return minutes


@cache
def named(field: str, low: int, high: int) -> frozenset[int]:
    """The values of a field of an expression; knows only the forms that `EXPRESSIONS` use."""
    values: set[int] = set()
    for item in field.split(","):
        body, _, step = item.partition("/")
        first, _, last = body.partition("-")
        start, end = (low, high) if first == "*" else (int(first), int(last or first))
        whole = range(start, end + 1) if start <= end else [*range(start, high + 1), *range(low, end + 1)]
        values.update(list(whole)[:: int(step or 1)])
    return frozenset(values)


def brute_force(expression: str, minutes: list[Minute], gap: GapRule, overlap: OverlapRule) -> list[int]:
    minute_field, hour_field, *_ = expression.split()
    in_minutes, in_hours = named(minute_field, 0, 59), named(hour_field, 0, 23)
    times: set[int] = set()
    for each in minutes:
        if each.wall.minute not in in_minutes or each.wall.hour not in in_hours:
            continue
        if each.instants:
            times.update(
                {"first": each.instants[:1], "second": each.instants[-1:], "both": each.instants}[overlap.value]
            )
        elif gap is not GapRule.SKIP:
            times.add(each.moved_s[gap])
    return sorted(times)


@pytest.mark.parametrize("part", range(PARTS))
def test_times_around_changes_of_offset_are_those_of_brute_force(part: int) -> None:
    changes = all_changes()
    assert len(changes) >= (2_000 if FULL else 40)
    for number, (name, change_s) in list(enumerate(changes))[part::PARTS]:
        minutes = minutes_around(zone_info(name), change_s)
        # Away from the ends, where the minutes that are looked at do not have all that may fire.
        from_s, until_s = change_s - 3 * 3_600, change_s + 3 * 3_600
        for place, expression in enumerate(EXPRESSIONS):
            # All rules for each change and each expression, in a full run; else one of nine.
            for gap, overlap in RULES if FULL else (RULES[(number + place) % len(RULES)],):
                wanted = [at_s for at_s in brute_force(expression, minutes, gap, overlap) if from_s < at_s <= until_s]
                times = cron(expression, time_zone=name, gap=gap, overlap=overlap).times
                said = f"{name} {change_s} {expression} {gap} {overlap}"

                found: list[int] = []
                at_s = times.next_after(from_s)
                while at_s is not None and at_s <= until_s:
                    found.append(at_s)
                    at_s = times.next_after(at_s)
                assert found == wanted, said

                backwards: list[int] = []
                at_s = times.last_at(until_s)
                while at_s is not None and at_s > from_s:
                    backwards.append(at_s)
                    at_s = times.last_at(at_s - 1)
                assert backwards[::-1] == wanted, said

                middle_s = from_s + 10_000
                assert times.count(from_s, until_s) == len(wanted), said
                assert times.count(from_s, middle_s) == sum(each <= middle_s for each in wanted), said


@pytest.mark.parametrize("seed", range(5))
def test_times_in_utc_are_those_of_cronsim(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(2_000 if FULL else 120):
        expression = random_expression(draw)
        start = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(minutes=draw.randrange(60 * 365 * 24 * 60))
        rule = cron(expression)
        at_ms: int | None = round(start.timestamp()) * 1_000
        oracle = CronSim(expression, start)
        for _ in range(5):
            assert at_ms is not None
            at_ms = rule.next_after(at_ms)
            wanted = next(oracle, None)
            if wanted is None:
                break
            assert at_ms == round(wanted.timestamp()) * 1_000, f"{expression!r} after {start}"


def random_expression(draw: random.Random) -> str:
    """Five fields that cronsim understands as we do. It has no ranges that wrap, and Vixie's rule for `*/n` among days."""

    def field(low: int, high: int) -> str:
        def item() -> str:
            first = draw.randint(low, high)
            # cronsim reads 6-6/3 as 6/3.
            last = draw.randint(min(first + 1, high), high)
            step = draw.randint(1, max(1, (high - low) // 2))
            stepped = f"{first}-{last}/{step}" if first < last else f"{first}"
            return draw.choice([f"{first}", f"{first}", f"{first}-{last}", stepped, f"*/{step}"])

        return draw.choice(["*", item(), item(), ",".join(item() for _ in range(3))])

    minute, hour, month = field(0, 59), field(0, 23), field(1, 12)
    day = draw.choice(["*", "*", "L", "LW", str(draw.randint(1, 28)), f"{draw.randint(1, 9)}-{draw.randint(9, 28)}"])
    weekday = draw.choice(
        [
            "*",
            "*",
            "1-5",
            str(draw.randint(0, 7)),
            f"{draw.randint(0, 6)}#{draw.randint(1, 4)}",
            f"{draw.randint(0, 6)}L",
        ]
    )
    return f"{minute} {hour} {day} {month} {weekday}"


def test_the_calendar_of_rare_days_is_that_of_a_walk_over_all_days() -> None:
    # Neither cronsim nor another oracle knows these; so they are said once more, day by day.
    def last(day: datetime) -> int:
        return ((day.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)).day

    def nearest(day: datetime, wanted: int) -> bool:
        if not 1 <= wanted <= last(day):
            return False
        near = [each for each in range(1, last(day) + 1) if day.replace(day=each).weekday() < 5]
        # No two weekdays are at one distance: a weekend has one neighbour on each side.
        return day.day == min(near, key=lambda each: abs(each - wanted))

    rules: dict[str, Callable[[datetime], bool]] = {
        "0 0 L * *": lambda day: day.day == last(day),
        "0 0 L-3 * *": lambda day: day.day == last(day) - 3,
        "0 0 L-30 * *": lambda day: day.day == last(day) - 30,
        "0 0 LW * *": lambda day: nearest(day, last(day)),
        "0 0 L-2W * *": lambda day: nearest(day, last(day) - 2),
        "0 0 L-29W * *": lambda day: nearest(day, last(day) - 29),
        "0 0 1W,15W,31W * *": lambda day: any(nearest(day, each) for each in (1, 15, 31)),
        "0 0 * * 5L": lambda day: day.weekday() == 4 and day.day + 7 > last(day),
        "0 0 * * SUNL": lambda day: day.weekday() == 6 and day.day + 7 > last(day),
        "0 0 * * 1#5": lambda day: day.weekday() == 0 and (day.day - 1) // 7 == 4,
        "0 0 * * TUE#2,FRI": lambda day: (day.weekday() == 1 and (day.day - 1) // 7 == 1) or day.weekday() == 4,
        "0 0 * * L": lambda day: day.weekday() == 5,
        "0 0 28-3 * *": lambda day: day.day >= 28 or day.day <= 3,
        "0 0 * NOV-FEB FRI-MON": lambda day: day.month in (11, 12, 1, 2) and day.weekday() in (4, 5, 6, 0),
        "0 0 L * 7": lambda day: day.day == last(day) or day.weekday() == 6,
    }
    start, days = datetime(2019, 12, 1, tzinfo=UTC), 366 * 5
    for expression, rule in rules.items():
        all_days = [start + timedelta(days=number) for number in range(days)]
        wanted = [round(day.timestamp()) * 1_000 for day in all_days if rule(day)]
        times = cron(expression)

        first_ms, end_ms = round(start.timestamp()) * 1_000, round(all_days[-1].timestamp()) * 1_000
        found: list[int] = []
        at_ms = times.next_after(first_ms - 1)
        while at_ms is not None and at_ms <= end_ms:
            found.append(at_ms)
            at_ms = times.next_after(at_ms)

        assert found == wanted, expression
        assert times.count(first_ms - 1, end_ms) == len(wanted), expression
        assert [times.last_at(each) for each in wanted] == wanted, expression
        assert [times.last_at(each - 1) for each in wanted[1:]] == wanted[:-1], expression
