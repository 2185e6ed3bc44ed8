"""Recurrence rules of RFC 5545, beside python-dateutil, which walks from the start; and what is refused of them."""

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from dateutil.rrule import rrulestr
from hypothesis import given, settings
from hypothesis import strategies as st

from clockwork.domain.triggers.day_times import TimesByDay
from clockwork.domain.triggers.dst import GapRule, OverlapRule
from clockwork.domain.triggers.exclusions import OnExcluded, exclusion
from clockwork.domain.triggers.recurrence import read_recurrence
from clockwork.domain.triggers.trigger import Recurrence, Trigger, check_fires, rrule
from clockwork.domain.triggers.zones import zone_of
from clockwork.errors import InvalidInput
from tests.simulation.selection import FULL
from tests.unit.cron_times import following, ms

NOON: Final = ms("2026-11-29T12:00")


def times_of(rule: Recurrence, after: str, number: int) -> list[str]:
    return [zone_of(rule.time_zone).local(at_ms) for at_ms in following(rule, ms(after), number)]


# --- examples


def test_every_other_wednesday_is_counted_from_the_start() -> None:
    # Case 33: no cron expression says this.
    rule = rrule("FREQ=WEEKLY;INTERVAL=2;BYDAY=WE", start_ms=ms("2026-12-09T14:00"))

    times = following(rule, 0, 3)

    assert times == [ms("2026-12-09T14:00"), ms("2026-12-23T14:00"), ms("2027-01-06T14:00")]
    assert [rule.last_at(at_ms) for at_ms in times] == times
    assert rule.last_at(ms("2026-12-09T13:59")) is None
    assert rule.count(0, ms("2027-01-06T14:00")) == 3


@pytest.mark.parametrize(
    ("rule", "start", "times"),
    [
        ("FREQ=DAILY", "2026-11-29T09:30", ["2026-11-29T09:30", "2026-11-30T09:30"]),
        ("rrule:freq=daily;byhour=7,19;byminute=0;", "2026-11-29T09:30", ["2026-11-29T19:00", "2026-11-30T07:00"]),
        ("FREQ=WEEKLY", "2026-11-29T09:30", ["2026-11-29T09:30", "2026-12-06T09:30"]),
        ("FREQ=MONTHLY", "2026-10-31T09:00", ["2026-10-31T09:00", "2026-12-31T09:00", "2027-01-31T09:00"]),
        ("FREQ=MONTHLY;BYMONTHDAY=-1", "2026-10-01T09:00", ["2026-10-31T09:00", "2026-11-30T09:00"]),
        ("FREQ=MONTHLY;BYDAY=2TU", "2026-11-29T09:00", ["2026-12-08T09:00", "2027-01-12T09:00"]),
        (
            "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1",
            "2026-10-01T09:00",
            ["2026-10-30T09:00", "2026-11-30T09:00", "2026-12-31T09:00", "2027-01-29T09:00"],
        ),
        ("FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13", "2026-01-01T09:00", ["2026-02-13T09:00", "2026-03-13T09:00"]),
        ("FREQ=YEARLY", "2024-02-29T09:00", ["2024-02-29T09:00", "2028-02-29T09:00"]),
        ("FREQ=YEARLY;BYDAY=20MO", "1997-05-19T09:00", ["1997-05-19T09:00", "1998-05-18T09:00", "1999-05-17T09:00"]),
        (
            "FREQ=YEARLY;INTERVAL=4;BYMONTH=11;BYDAY=TU;BYMONTHDAY=2,3,4,5,6,7,8",
            "1996-11-05T09:00",
            ["1996-11-05T09:00", "2000-11-07T09:00", "2004-11-02T09:00"],
        ),
        ("FREQ=YEARLY;BYWEEKNO=1;BYDAY=MO", "2024-06-01T09:00", ["2024-12-30T09:00", "2025-12-29T09:00"]),
    ],
)
def test_the_start_says_what_the_rule_leaves_open(rule: str, start: str, times: list[str]) -> None:
    found = following(rrule(rule, start_ms=ms(start)), 0, len(times))

    assert found == [ms(each) for each in times]


def test_times_are_those_of_the_clock_on_the_wall() -> None:
    berlin = rrule("FREQ=DAILY;BYHOUR=2;BYMINUTE=30", start_ms=ms("2026-03-27T12:00"), time_zone="Europe/Berlin")
    shifted = rrule(
        "FREQ=DAILY;BYHOUR=2;BYMINUTE=30",
        start_ms=ms("2026-03-27T12:00"),
        time_zone="Europe/Berlin",
        gap=GapRule.SHIFT,
        overlap=OverlapRule.BOTH,
    )

    assert times_of(berlin, "2026-03-28T12:00", 2) == ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]
    assert times_of(shifted, "2026-03-28T12:00", 1) == ["2026-03-29T03:30:00+02:00"]
    assert times_of(shifted, "2026-10-24T12:00", 2) == ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"]


def test_the_start_counts_by_the_clock_of_its_zone() -> None:
    # 23:30Z on a Tuesday is Wednesday in Berlin.
    rule = rrule("FREQ=WEEKLY", start_ms=ms("2026-12-08T23:30"), time_zone="Europe/Berlin")

    assert times_of(rule, "2026-12-08T00:00", 2) == ["2026-12-09T00:30:00+01:00", "2026-12-16T00:30:00+01:00"]


def test_until_is_a_time_in_utc_and_included() -> None:
    until = "FREQ=DAILY;UNTIL=20261202T080000Z"
    rule = rrule(until, start_ms=ms("2026-11-29T08:00"), time_zone="Europe/Berlin")

    assert following(rule, NOON, 3)[-1] == ms("2026-12-02T08:00")
    assert rule.next_after(ms("2026-12-02T08:00")) is None
    assert rule.last_at(ms("2040-01-01T00:00")) == ms("2026-12-02T08:00")
    assert rule.count(0, ms("2040-01-01T00:00")) == 4


def test_dates_are_taken_out_by_a_calendar() -> None:
    # EXDATE in RFC 5545.
    rule = rrule(
        "FREQ=MONTHLY;BYMONTHDAY=25",
        start_ms=ms("2026-11-01T09:00"),
        exclude=exclusion(dates=["2026-12-25"]),
        on_excluded=OnExcluded.NEXT,
    )

    assert following(rule, 0, 3) == [ms("2026-11-25T09:00"), ms("2026-12-26T09:00"), ms("2027-01-25T09:00")]
    assert rule.explain(ms("2026-12-26T09:00")) == "excluded: moved from 2026-12-25 (dates)"


# --- beside the oracle

_DAYS: Final = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")


@st.composite
def rules(draw: st.DrawFn) -> str:
    """Rules that have times. For one that has none, the oracle searches up to the year 9999."""
    frequency = draw(st.sampled_from(["DAILY", "WEEKLY", "MONTHLY", "YEARLY"]))
    interval = draw(st.sampled_from([1, 1, 2, 3, 5]))
    parts = [f"FREQ={frequency}", f"INTERVAL={interval}", f"WKST={draw(st.sampled_from(_DAYS))}"]

    def some(name: str, values: st.SearchStrategy[object], least: int = 1) -> str:
        return f"{name}={','.join(map(str, draw(st.lists(values, min_size=least, max_size=4, unique=True))))}"

    weekdays = some("BYDAY", st.sampled_from(_DAYS))
    nth = some(
        "BYDAY",
        st.tuples(st.sampled_from([1, 2, 4, -1, -3]), st.sampled_from(_DAYS)).map(lambda each: f"{each[0]}{each[1]}"),
    )
    months = some("BYMONTH", st.integers(1, 12))
    month_days = some("BYMONTHDAY", st.sampled_from([*range(1, 29), -1, -2, -28]))
    choices = {
        "DAILY": [[], [weekdays], [month_days] if interval == 1 else [], [months]],
        "WEEKLY": [[], [weekdays], [weekdays, months] if interval == 1 else [weekdays]],
        "MONTHLY": [[], [weekdays], [nth], [month_days], [month_days, weekdays], [months] if interval == 1 else []],
        "YEARLY": [
            [],
            [months],
            [months, nth],
            [months, weekdays],
            [months, month_days],
            [weekdays],
            [nth],
            [month_days],
            [some("BYYEARDAY", st.sampled_from([1, 59, 60, 100, 365, -1, -306, -365]))],
            [some("BYWEEKNO", st.sampled_from([1, 2, 20, 52, 53, -1, -2, -20])), weekdays],
        ],
    }
    parts += draw(st.sampled_from(choices[frequency]))
    hours = some("BYHOUR", st.integers(0, 23), least=2)
    parts += draw(st.sampled_from([[], [hours], [hours, some("BYMINUTE", st.integers(0, 59))]]))
    if hours in parts:
        parts += draw(st.sampled_from([[], ["BYSETPOS=1"], ["BYSETPOS=-1,2"], ["BYSETPOS=-2,-1"]]))
    return ";".join(parts)


@settings(max_examples=3_000 if FULL else 80, deadline=None)
@given(text=rules(), start_day=st.integers(0, 20_000), start_second=st.integers(0, 86_399), cut=st.integers(0, 880))
def test_times_are_those_of_the_oracle(text: str, start_day: int, start_second: int, cut: int) -> None:
    start_s = start_day * 86_400 + start_second
    start = datetime.fromtimestamp(start_s, UTC).replace(tzinfo=None)
    end = start + timedelta(days=900)
    # In a first week that is not whole the oracle counts positions from the start.
    first = start + timedelta(days=7) if "WEEKLY" in text and "BYSETPOS" in text else start
    oracle = rrulestr(text, dtstart=start).between(first - timedelta(seconds=1), end, inc=True)
    wanted = [round(each.replace(tzinfo=UTC).timestamp()) for each in oracle]
    walls = TimesByDay(read_recurrence(text, start_s=start_s))
    from_s, until_s = (round(each.replace(tzinfo=UTC).timestamp()) for each in (first, end + timedelta(seconds=1)))

    found: list[int] = []
    at_s = walls.first(from_s, until_s)
    while at_s is not None:
        found.append(at_s)
        at_s = walls.first(at_s + 1, until_s)
    assert found == wanted

    backwards: list[int] = []
    at_s = walls.last(from_s, until_s)
    while at_s is not None:
        backwards.append(at_s)
        at_s = walls.last(from_s, at_s)
    assert backwards[::-1] == wanted

    cut_s = from_s + cut * 86_400 + start_second
    assert walls.count(from_s, cut_s) == sum(each < cut_s for each in wanted)
    assert all(each in walls for each in wanted[:5])
    assert not any(each + 1 in walls for each in wanted[:5])


def test_a_time_long_after_the_start_is_found_without_the_way_there() -> None:
    rule = read_recurrence("FREQ=DAILY;INTERVAL=3", start_s=0)

    assert rule.first_day(300_001, 300_010) == 300_003
    assert rule.last_day(300_001, 300_010) == 300_009
    assert len(rule._kept) == 2


# --- bad input


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a name"),
        ("FREQ=HOURLY", "fixed_rate"),
        ("FREQ=OFTEN", "FREQ should be one of"),
        ("INTERVAL=2", "FREQ should be one of"),
        ("FREQ=DAILY;COUNT=10", "maxRuns"),
        ("FREQ=DAILY;INTERVAL=0", "INTERVAL '0' should be 1 to 1000"),
        ("FREQ=DAILY;INTERVAL=1,2", "one number"),
        ("FREQ=DAILY;FREQ=WEEKLY", "twice"),
        ("FREQ=DAILY;BYEASTER=1", "BYEASTER is no part"),
        ("FREQ=DAILY;UNTIL=20271231T225959", "UTC"),
        ("FREQ=DAILY;UNTIL=20271231", "UTC"),
        ("FREQ=DAILY;UNTIL=20271331T000000Z", "UTC"),
        ("FREQ=DAILY;BYHOUR=24", "BYHOUR '24' should be 0 to 23"),
        ("FREQ=DAILY;BYSECOND=0,30", "BYSECOND"),
        ("FREQ=DAILY;BYDAY=1MO", "no meaning with FREQ=DAILY"),
        ("FREQ=WEEKLY;BYMONTHDAY=1", "no meaning with FREQ=WEEKLY"),
        ("FREQ=MONTHLY;BYYEARDAY=1", "no meaning with FREQ=MONTHLY"),
        ("FREQ=MONTHLY;BYDAY=6MO", "up to 5"),
        ("FREQ=MONTHLY;BYDAY=0MO", "should be a weekday"),
        ("FREQ=MONTHLY;BYMONTHDAY=0,32,-32", "should be 1 to 31, or -31 to -1"),
        ("FREQ=YEARLY;BYWEEKNO=20", "should come with BYDAY"),
        ("FREQ=YEARLY;BYWEEKNO=20;BYDAY=1MO", "no meaning with BYWEEKNO"),
        ("FREQ=DAILY;BYSETPOS=1", "another BY"),
        ("FREQ=WEEKLY;WKST=XX", "WKST"),
        ("DTSTART:20261209T140000\nRRULE:FREQ=DAILY", "field start"),
        ("FREQ=DAILY;BYHOUR=" + "1," * 1_000, "characters"),
    ],
)
def test_a_rule_that_has_no_meaning_here_is_refused_with_a_reason(text: str, words: str) -> None:
    with pytest.raises(InvalidInput) as wrong:
        rrule(text, start_ms=0)

    assert {error.field for error in wrong.value.errors} == {"rule"}
    assert words in str(wrong.value)


def test_every_wrong_field_beside_a_rule_is_named() -> None:
    with pytest.raises(InvalidInput) as wrong:
        rrule("FREQ=DAILY;COUNT=1", start_ms=500, time_zone="Berlin")

    assert [error.field for error in wrong.value.errors] == ["start", "timeZone", "rule"]


@pytest.mark.parametrize(
    "text",
    [
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=DAILY;UNTIL=20261129T110000Z",
        "FREQ=MONTHLY;BYMONTHDAY=1;BYSETPOS=5",
    ],
)
def test_a_rule_without_a_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as wrong:
        check_fires(Trigger(rule=rrule(text, start_ms=0)), NOON)

    assert [error.field for error in wrong.value.errors] == ["rule"]
