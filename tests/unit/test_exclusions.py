"""Calendars: days and hours at which a job does not run, beside a walk over all days; and what is said about it."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clockwork.domain.triggers.cron import Dialect
from clockwork.domain.triggers.exclusions import DATES_MAX, MOVE_DAYS_MAX, Exclusion, OnExcluded, exclusion
from clockwork.domain.triggers.trigger import AnyOf, Cron, FixedRate, Recurrence, Trigger, check_fires, cron, rrule
from clockwork.domain.triggers.zones import zone_names
from clockwork.errors import InvalidInput
from tests.simulation.selection import FULL
from tests.unit.cron_times import following, local, ms

BERLIN: Final = "Europe/Berlin"
CHRISTMAS: Final = exclusion(dates=["2026-12-25"], annual=["12-24", "12-26"], weekdays=["SAT", "SUN"])


def nine(exclude: Exclusion, on_excluded: str = "skip", expression: str = "0 9 * * *") -> Cron:
    return cron(expression, time_zone=BERLIN, exclude=exclude, on_excluded=OnExcluded(on_excluded))


def times_of(rule: Cron, after: str, number: int) -> list[str]:
    return [local(rule, at_ms)[:16] for at_ms in following(rule, ms(after, rule.time_zone), number)]


# --- examples


def test_times_on_excluded_days_are_skipped() -> None:
    rule = nine(CHRISTMAS)

    assert times_of(rule, "2026-12-22T09:00", 3) == ["2026-12-23T09:00", "2026-12-28T09:00", "2026-12-29T09:00"]


def test_times_on_excluded_days_are_moved_to_the_day_after_or_before() -> None:
    monthly = "0 9 25 * *"

    assert times_of(nine(CHRISTMAS, "next", monthly), "2026-11-30T00:00", 2) == ["2026-12-28T09:00", "2027-01-25T09:00"]
    assert times_of(nine(CHRISTMAS, "previous", monthly), "2026-11-30T00:00", 2) == [
        "2026-12-23T09:00",
        "2027-01-25T09:00",
    ]


def test_a_moved_time_that_the_day_has_already_is_not_repeated() -> None:
    for on_excluded in ("next", "previous"):
        times = times_of(nine(CHRISTMAS, on_excluded), "2026-12-17T12:00", 5)
        assert times == [
            "2026-12-18T09:00",
            "2026-12-21T09:00",
            "2026-12-22T09:00",
            "2026-12-23T09:00",
            "2026-12-28T09:00",
        ]


def test_hours_are_excluded_minute_by_minute_and_never_moved() -> None:
    nights = exclusion(cron=["* 0-7,20-23 * * *", "0-29 12 * * *"])

    for on_excluded in ("skip", "next", "previous"):
        rule = nine(nights, on_excluded, "0,30 */4 * * *")
        assert times_of(rule, "2026-11-29T00:00", 5) == [
            "2026-11-29T08:00",
            "2026-11-29T08:30",
            "2026-11-29T12:30",
            "2026-11-29T16:00",
            "2026-11-29T16:30",
        ]


def test_an_expression_of_all_minutes_excludes_days_that_may_be_moved() -> None:
    third_fridays = exclusion(cron=["* * * * 5#3"])

    assert times_of(nine(third_fridays, "next", "0 9 * * 5"), "2026-12-12T00:00", 2) == [
        "2026-12-19T09:00",
        "2026-12-25T09:00",
    ]


def test_the_seconds_of_an_excluded_minute_are_excluded() -> None:
    rule = cron("*/20 30-31 9 * * *", dialect=Dialect.SPRING, exclude=exclusion(cron=["30 * * * *"]))

    assert [at_ms - ms("2026-11-29T09:31") for at_ms in following(rule, ms("2026-11-29T00:00"), 3)] == [
        0,
        20_000,
        40_000,
    ]


def test_a_calendar_of_the_client_is_excluded_beside_the_rest() -> None:
    exclude = exclusion(weekdays=["SAT"], calendar="de", named=exclusion(annual=["12-25"], cron=["* 9 24 * *"]))

    assert times_of(nine(exclude), "2026-12-22T12:00", 2) == ["2026-12-23T09:00", "2026-12-27T09:00"]


def test_29_february_is_excluded_in_the_years_that_have_it() -> None:
    rule = nine(exclusion(annual=["02-29"]), expression="0 9 28,29 2 *")

    assert times_of(rule, "2027-12-31T00:00", 2) == ["2028-02-28T09:00", "2029-02-28T09:00"]


def test_what_is_excluded_is_the_time_that_was_meant_and_not_the_one_it_was_moved_to() -> None:
    # The night of 2018-11-03 to Sunday 11-04 has no midnight in São Paulo: that of Sunday fires at 01:00.
    sundays = exclusion(cron=["* 1 * * 0"])
    rule = cron("0 0 * * *", time_zone="America/Sao_Paulo", exclude=sundays)

    assert times_of(rule, "2018-11-03T12:00", 2) == ["2018-11-04T01:00", "2018-11-05T00:00"]
    assert times_of(
        cron("0 0 * * *", time_zone="America/Sao_Paulo", exclude=exclusion(weekdays=["SUN"])), "2018-11-03T12:00", 1
    ) == ["2018-11-05T00:00"]


@pytest.mark.parametrize(("on_excluded", "way"), [("next", 1), ("previous", -1)])
def test_no_time_is_moved_further_than_a_year(on_excluded: str, way: int) -> None:
    day = date(2027, 6, 1)
    row = [(day + timedelta(days=way * number)).isoformat() for number in range(MOVE_DAYS_MAX + 1)]
    once = partial(cron, "0 0 9 1 6 ? 2027", dialect=Dialect.QUARTZ, on_excluded=OnExcluded(on_excluded))
    moved_ms = ms(f"{day + timedelta(days=way * MOVE_DAYS_MAX)}T09:00")

    rule = once(exclude=exclusion(dates=row[:-1]))
    assert rule.next_after(0) == moved_ms
    assert rule.last_at(ms("2040-01-01T00:00")) == moved_ms
    assert rule.count(0, ms("2040-01-01T00:00")) == 1

    rule = once(exclude=exclusion(dates=row))
    assert rule.next_after(ms("2020-01-01T00:00")) is None
    assert rule.last_at(ms("2040-01-01T00:00")) is None
    assert rule.count(0, ms("2040-01-01T00:00")) == 0


# --- beside a walk over all days

_TOKENS: Final[dict[str, Callable[[date], bool]]] = {
    "SAT": lambda day: day.weekday() == 5,
    "SUN": lambda day: day.weekday() == 6,
    "MON": lambda day: day.weekday() == 0,
    "12-24": lambda day: (day.month, day.day) == (12, 24),
    "02-29": lambda day: (day.month, day.day) == (2, 29),
    "* * 1-10 * *": lambda day: day.day <= 10,
    "* * * * 5#3": lambda day: day.weekday() == 4 and 15 <= day.day <= 21,
    "* * * MAR-NOV *": lambda day: 3 <= day.month <= 11,
    "* * * JAN,DEC,FEB *": lambda day: day.month in (1, 2, 12),
}
"""Entries that exclude whole days, and the same in words of the standard library. The last two together exclude all."""
_HOURS: Final[dict[str, Callable[[datetime], bool]]] = {
    "* 0-7 * * *": lambda at: at.hour <= 7,
    "*/2 9 * * MON": lambda at: at.hour == 9 and at.minute % 2 == 0 and at.weekday() == 0,
    "* 22-2 15-20 * *": lambda at: (at.hour >= 22 or at.hour <= 2) and 15 <= at.day <= 20,
}
_BASES: Final = ("0 9 * * *", "30 7,9 * * MON-FRI", "0 9 1,15 * *", "1 23,0 L * *", "0 9 24 12 *", "0 9 29 2 *")
_START: Final = date(2023, 11, 1)
_DAYS: Final = 400


def expected(base: str, excluded: list[str], dates: set[date], on_excluded: str) -> list[int]:
    """The fire times that a walk over all days finds."""
    whole = cron(base)
    margin = timedelta(days=MOVE_DAYS_MAX + 2)
    at_ms = whole.next_after(ms((_START - margin).isoformat()) - 1)
    end_ms = ms((_START + timedelta(days=_DAYS) + margin).isoformat())
    step = timedelta(days={"skip": 0, "next": 1, "previous": -1}[on_excluded])
    found: set[int] = set()

    def away(day: date) -> bool:
        return day in dates or any(_TOKENS[each](day) for each in excluded if each in _TOKENS)

    while at_ms is not None and at_ms < end_ms:
        at = datetime.fromtimestamp(at_ms / 1_000, UTC)
        moved = 0
        while away(at.date()) and step and moved < MOVE_DAYS_MAX:
            at += step
            moved += 1
        if not away(at.date()) and not any(_HOURS[each](at) for each in excluded if each in _HOURS):
            found.add(round(at.timestamp()) * 1_000)
        at_ms = whole.next_after(at_ms)
    first_ms, last_ms = ms(_START.isoformat()), ms((_START + timedelta(days=_DAYS)).isoformat())
    return sorted(at_ms for at_ms in found if first_ms <= at_ms < last_ms)


@settings(max_examples=1_000 if FULL else 50)
@given(
    base=st.sampled_from(_BASES),
    excluded=st.lists(st.sampled_from([*_TOKENS, *_HOURS]), max_size=5, unique=True),
    dates=st.sets(st.integers(0, _DAYS).map(lambda days: _START + timedelta(days=days)), max_size=5),
    on_excluded=st.sampled_from(["skip", "next", "previous"]),
    cut=st.integers(0, _DAYS * 24 * 60),
)
def test_times_are_those_of_a_walk_over_all_days(
    base: str, excluded: list[str], dates: set[date], on_excluded: str, cut: int
) -> None:
    exclude = exclusion(
        dates=[each.isoformat() for each in dates],
        annual=[each for each in excluded if "-" in each and "*" not in each],
        weekdays=[each for each in excluded if each.isalpha()],
        cron=[each for each in excluded if "*" in each],
    )
    rule = cron(base, exclude=exclude, on_excluded=OnExcluded(on_excluded))
    wanted = expected(base, excluded, dates, on_excluded)
    first_ms, end_ms = ms(_START.isoformat()), ms((_START + timedelta(days=_DAYS)).isoformat())

    found: list[int] = []
    at_ms = rule.next_after(first_ms - 1)
    while at_ms is not None and at_ms < end_ms:
        found.append(at_ms)
        at_ms = rule.next_after(at_ms)
    assert found == wanted

    backwards: list[int] = []
    at_ms = rule.last_at(end_ms - 1)
    while at_ms is not None and at_ms >= first_ms:
        backwards.append(at_ms)
        at_ms = rule.last_at(at_ms - 1)
    assert backwards[::-1] == wanted

    cut_ms = first_ms + cut * 60_000
    assert rule.count(first_ms - 1, cut_ms) == sum(at_ms <= cut_ms for at_ms in wanted)
    assert rule.count(cut_ms, end_ms - 1) == sum(at_ms > cut_ms for at_ms in wanted)


@settings(max_examples=1_000 if FULL else 50)
@given(
    zone=st.sampled_from(sorted(zone_names())),
    expression=st.sampled_from(["*/15 * * * *", "30 2 * * *", "0 0 * * *", "5,35 0-3,23 * * *"]),
    exclude=st.sampled_from(
        [
            exclusion(weekdays=["SUN"]),
            exclusion(cron=["* 2 * * *"]),
            exclusion(cron=["0-29 * * * SAT,SUN"]),
            exclusion(annual=["03-29", "10-25"], cron=["30-59 0-1 * * *"]),
        ]
    ),
    day=st.integers(0, 3_650),
)
def test_each_time_is_either_a_fire_time_or_an_excluded_one(
    zone: str, expression: str, exclude: Exclusion, day: int
) -> None:
    # Around changes of offset too: all of a zone's times are shared out between both, whatever their rules do to them.
    whole = cron(expression, time_zone=zone)
    rule = cron(expression, time_zone=zone, exclude=exclude)
    after_ms = ms("2020-01-01T00:00") + day * 86_400_000
    until_ms = after_ms + 4 * 86_400_000
    away = rule.excluded_times
    assert away is not None

    def within(next_s: Callable[[int], int | None]) -> list[int]:
        found: list[int] = []
        at_s = next_s(after_ms // 1_000)
        while at_s is not None and at_s <= until_ms // 1_000:
            found.append(at_s)
            at_s = next_s(at_s)
        return found

    fired, excluded = within(rule.times.next_after), within(away.next_after)
    # Two that were meant for the same moment behind a gap may be one of each.
    assert sorted({*fired, *excluded}) == within(whole.times.next_after)
    summary = rule.excluded(after_ms, until_ms)
    assert (summary.count if summary else 0) == len(excluded)
    if summary is not None:
        assert (summary.first_ms, summary.last_ms) == (excluded[0] * 1_000, excluded[-1] * 1_000)


# --- what is said


@pytest.mark.parametrize(
    ("on_excluded", "at", "note"),
    [
        ("skip", "2026-12-22T09:00", None),
        ("skip", "2026-12-28T09:00", "excluded: 4 before it, 2026-12-24T09:00 (annual) to 2026-12-27T09:00 (weekdays)"),
        ("next", "2026-12-28T09:00", "excluded: stands for 2026-12-24 (annual) to 2026-12-27 (weekdays) too"),
        ("previous", "2026-12-23T09:00", "excluded: stands for 2026-12-24 (annual) to 2026-12-27 (weekdays) too"),
        ("next", "2026-12-22T09:00", None),
    ],
)
def test_a_fire_time_says_what_was_excluded_before_it_or_moved_to_it(
    on_excluded: str, at: str, note: str | None
) -> None:
    assert nine(CHRISTMAS, on_excluded).explain(ms(at, BERLIN)) == note


def test_a_moved_time_says_from_where_and_what_its_change_of_offset_did() -> None:
    palm_sunday = exclusion(dates=["2026-03-28"], calendar="de", named=exclusion(annual=["04-01"]))
    rule = nine(palm_sunday, "next", "30 2 28 3 *")

    assert rule.explain(ms("2026-03-29T01:00")) == (
        "gap: 02:30 does not exist; moved to 03:00; excluded: moved from 2026-03-28 (dates)"
    )
    assert nine(palm_sunday, "previous", "30 2 1 4 *").explain(ms("2026-03-31T02:30", BERLIN)) == (
        "excluded: moved from 2026-04-01 (calendar de)"
    )


def test_nothing_before_the_start_of_a_trigger_is_named() -> None:
    trigger = Trigger(rule=nine(CHRISTMAS), start_ms=ms("2026-12-26T00:00", BERLIN))

    assert trigger.explain(ms("2026-12-28T09:00", BERLIN)) == (
        "excluded: 2 before it, 2026-12-26T09:00 (annual) to 2026-12-27T09:00 (weekdays)"
    )
    assert trigger.excluded(0, ms("2026-12-28T09:00")) is not None
    assert (
        Trigger(rule=nine(CHRISTMAS), start_ms=ms("2026-12-28T00:00")).explain(ms("2026-12-28T09:00", BERLIN)) is None
    )


def test_what_one_rule_of_a_union_excludes_and_another_has_fires() -> None:
    christmas = exclusion(annual=["12-25"])
    union = AnyOf(of=(cron("0 9,10 * * *", exclude=christmas), FixedRate(every_ms=86_400_000, anchor_ms=9 * 3_600_000)))

    excluded = Trigger(rule=union).excluded(ms("2026-12-25T00:00"), ms("2026-12-26T00:00"))

    assert excluded is not None
    assert (excluded.first_ms, excluded.last_ms, excluded.count) == (ms("2026-12-25T10:00"), ms("2026-12-25T10:00"), 1)
    assert union.count(ms("2026-12-25T00:00"), ms("2026-12-26T00:00")) == 1


# --- bad input


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({"dates": ["2026-12-25", "2026-02-29", "25.12.2026", "20261225"]}, ["dates.1", "dates.2", "dates.3"]),
        ({"annual": ["02-29", "02-30", "12-25-2026", "2026-12-25"]}, ["annual.1", "annual.2", "annual.3"]),
        ({"weekdays": ["SAT", "SATURDAY", "6"]}, ["weekdays.1", "weekdays.2"]),
        ({"cron": ["* 0-7 * * *", "61 * * * *", "* * * * * *", "* * */2 * MON"]}, ["cron.1", "cron.2", "cron.3"]),
        ({"dates": ["2026-12-25"] * (DATES_MAX + 1)}, ["dates"]),
        ({"calendar": "d/e"}, ["calendar"]),
    ],
)
def test_every_wrong_entry_of_an_exclusion_is_named(given: dict[str, Any], fields: list[str]) -> None:
    with pytest.raises(InvalidInput) as wrong:
        exclusion(**given)

    assert [error.field for error in wrong.value.errors] == fields


@pytest.mark.parametrize(
    "given",
    [
        {"weekdays": ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"]},
        {"cron": ["* * 1-15 * *", "* * 16-31 * *"]},
        {"cron": ["0-58 * * * *"]},
    ],
)
@pytest.mark.parametrize("on_excluded", [*OnExcluded])
def test_an_exclusion_that_leaves_no_fire_time_is_refused(given: dict[str, Any], on_excluded: OnExcluded) -> None:
    rules: list[Cron | Recurrence] = [
        cron("*/5 * * * *", exclude=exclusion(**given), on_excluded=on_excluded),
        rrule("FREQ=DAILY", start_ms=0, exclude=exclusion(**given), on_excluded=on_excluded),
    ]
    for rule in rules:
        with pytest.raises(InvalidInput) as wrong:
            check_fires(Trigger(rule=rule), ms("2026-11-29T12:00"))
        assert [error.field for error in wrong.value.errors] == ["exclude"]
