"""Triggers: rates, delays, unions, bounds, jitter; and properties that all of them have."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clockwork.domain.position import new_position
from clockwork.domain.triggers.cron import Days, Dialect
from clockwork.domain.triggers.dst import GapRule, OverlapRule
from clockwork.domain.triggers.exclusions import OnExcluded, exclusion
from clockwork.domain.triggers.trigger import (
    COUNT_EXACT_MAX,
    FIRE_MS_MAX,
    JITTER_MS_MAX,
    AnyOf,
    Cron,
    FixedDelay,
    FixedRate,
    Jitter,
    JitterPer,
    Recurrence,
    Rule,
    TimeStretch,
    Trigger,
    check_fires,
    cron,
    rrule,
)
from clockwork.domain.triggers.zones import zone_names
from clockwork.errors import InvalidInput
from tests.unit.cron_times import cron_of, following, ms

NOON = ms("2026-11-29T12:00")
JOB = "billing/nightly"


# --- rates, delays, unions


def test_a_rate_keeps_its_phase_before_and_behind_its_anchor() -> None:
    rate = FixedRate(every_ms=90 * 60_000, anchor_ms=NOON + 7)

    assert following(rate, NOON, 2) == [NOON + 7, NOON + 90 * 60_000 + 7]
    assert rate.next_after(NOON - 10 * 90 * 60_000) == NOON - 10 * 90 * 60_000 + 7
    assert rate.last_at(NOON + 6) == NOON + 7 - 90 * 60_000
    assert rate.count(NOON + 7, NOON + 7 + 1_000 * 90 * 60_000) == 1_000


def test_a_delay_first_runs_at_its_start_or_at_once() -> None:
    delay = FixedDelay(delay_ms=5_000)

    assert Trigger(rule=delay).first_after(NOON) == NOON
    assert Trigger(rule=delay, start_ms=NOON + 60_000).first_after(NOON) == NOON + 60_000
    assert Trigger(rule=delay).next_after(NOON + 350) == NOON + 5_350
    assert Trigger(rule=delay, end_ms=NOON + 5_000).next_after(NOON) is None
    assert Trigger(rule=delay).last_at(NOON) is None
    assert Trigger(rule=delay).count(0, NOON) == 0


def test_times_that_several_rules_of_a_union_have_are_one() -> None:
    union = AnyOf(of=(cron("0,30 * * * *"), FixedRate(every_ms=20 * 60_000, anchor_ms=NOON)))

    times = following(union, NOON, 4)

    assert [(at_ms - NOON) // 60_000 for at_ms in times] == [20, 30, 40, 60]
    assert [union.last_at(at_ms) for at_ms in times] == times
    assert union.count(NOON, NOON + 3_600_000) == 4


def test_a_union_is_counted_no_further_than_its_limit_and_by_a_member_that_has_reached_it() -> None:
    union = AnyOf(of=(FixedRate(every_ms=2_000, anchor_ms=0), FixedRate(every_ms=2_000, anchor_ms=1_000)))

    assert union.count(0, 9_999_000) == 9_999
    assert union.count(0, 16_000_000) == COUNT_EXACT_MAX
    assert union.count(0, 86_400_000) == 43_200


def test_a_union_says_what_became_of_a_time_of_any_of_its_rules() -> None:
    union = AnyOf(of=(cron("0 12 * * *"), cron_of("u", "30 2 * * *", "Europe/Berlin")))

    assert union.explain(ms("2026-03-29T01:00")) == "gap: 02:30 does not exist; moved to 03:00"
    assert union.explain(ms("2026-03-29T12:00")) is None


# --- bounds


def test_start_is_included_and_end_is_not() -> None:
    trigger = Trigger(rule=cron("0 * * * *"), start_ms=NOON, end_ms=NOON + 7_200_000)

    assert trigger.next_after(0) == NOON
    assert trigger.next_after(NOON) == NOON + 3_600_000
    assert trigger.next_after(NOON + 3_600_000) is None
    assert trigger.last_at(NOON - 1) is None
    assert trigger.last_at(NOON + 86_400_000) == NOON + 3_600_000
    assert trigger.count(0, NOON + 86_400_000) == 2


def test_a_year_of_an_expression_bounds_it_as_well() -> None:
    rule = cron("0 0 12 1 1 ? 2027-2028", dialect=Dialect.QUARTZ)

    assert following(rule, NOON, 2) == [ms("2027-01-01T12:00"), ms("2028-01-01T12:00")]
    assert rule.next_after(ms("2028-01-01T12:00")) is None
    assert rule.last_at(ms("2040-01-01T00:00")) == ms("2028-01-01T12:00")


@pytest.mark.parametrize(
    ("trigger", "field"),
    [
        (Trigger(rule=cron("0 0 12 1 1 ? 2020", dialect=Dialect.QUARTZ)), "expression"),
        (Trigger(rule=cron("0 12 * * *"), end_ms=NOON), "end"),
        (Trigger(rule=cron("0 12 * * *"), start_ms=NOON + 1, end_ms=NOON + 2), "end"),
        (Trigger(rule=FixedRate(every_ms=1_000, anchor_ms=0), end_ms=NOON + 1_000), "end"),
        (Trigger(rule=AnyOf(of=(cron("0 0 30 2 *"), cron("0 0 31 4 *")))), "of.0.expression"),
        (
            Trigger(
                rule=cron("0 0 29 2 1", days=Days.AND), start_ms=ms("2400-01-01T00:00"), end_ms=ms("2401-01-01T00:00")
            ),
            "end",
        ),
    ],
)
def test_a_trigger_without_a_fire_time_is_refused(trigger: Trigger, field: str) -> None:
    with pytest.raises(InvalidInput) as wrong:
        check_fires(trigger, NOON)

    assert wrong.value.errors[0].field == field


@pytest.mark.parametrize(
    "rule", [FixedDelay(delay_ms=1_000), FixedRate(every_ms=1_000, anchor_ms=0), cron("* * * * *")]
)
def test_a_trigger_that_would_first_fire_where_no_position_has_room_is_refused(rule: Rule) -> None:
    with pytest.raises(InvalidInput):
        check_fires(Trigger(rule=rule, start_ms=FIRE_MS_MAX + 1), NOON)
    last = Trigger(rule=rule, start_ms=FIRE_MS_MAX - 60_000, jitter=Jitter(most_ms=JITTER_MS_MAX))
    first_ms = last.first_after(NOON)
    assert first_ms is not None
    assert new_position(due_ms=last.due_ms(first_ms, JOB), accepted_us=1, random=0)


def test_a_trigger_whose_only_time_is_far_away_is_taken() -> None:
    # 29 February on a Monday: 2044 is the first after 2016, and 2072 the one after that.
    trigger = Trigger(rule=cron("0 0 29 2 1", days=Days.AND))

    check_fires(trigger, NOON)

    assert trigger.next_after(NOON) == ms("2044-02-29T00:00")


# --- jitter


def test_the_jitter_of_a_job_is_one_offset_that_can_be_computed_again() -> None:
    trigger = Trigger(rule=cron("0 * * * *"), jitter=Jitter(most_ms=600_000))
    times = following(trigger.rule, NOON, 50)  # type: ignore[arg-type]

    offsets = {trigger.due_ms(at_ms, JOB) - at_ms for at_ms in times}

    assert len(offsets) == 1
    assert 0 <= offsets.pop() <= 600_000
    assert len({trigger.due_ms(NOON, f"billing/{number}") for number in range(100)}) > 90


def test_the_jitter_of_runs_is_spread_evenly_over_its_range() -> None:
    trigger = Trigger(rule=cron("0 0 * * *"), jitter=Jitter(most_ms=9, per=JitterPer.RUN))
    times = following(trigger.rule, NOON, 1_000)  # type: ignore[arg-type]

    offsets = [trigger.due_ms(at_ms, JOB) - at_ms for at_ms in times]

    assert set(offsets) == set(range(10))
    assert all(60 <= offsets.count(each) <= 140 for each in range(10))


def test_the_jitter_of_a_run_never_passes_the_next_fire_time() -> None:
    trigger = Trigger(rule=cron("*/10 * * * *"), jitter=Jitter(most_ms=86_400_000, per=JitterPer.RUN))
    times = following(trigger.rule, NOON, 200)  # type: ignore[arg-type]

    assert all(trigger.due_ms(at_ms, JOB) < next_ms for at_ms, next_ms in pairwise(times))


@pytest.mark.parametrize("jitter", [None, Jitter(most_ms=50_000_000), Jitter(most_ms=50_000_000, per=JitterPer.RUN)])
def test_the_fire_times_that_are_due_are_those_whose_due_time_has_come(jitter: Jitter | None) -> None:
    trigger = Trigger(rule=cron("0 0,5,6 * * *"), jitter=jitter)
    times = following(cron("0 0,5,6 * * *"), NOON - 10 * 86_400_000, 60)
    for now_ms in range(NOON, NOON + 2 * 86_400_000, 3_000_001):
        due = [at_ms for at_ms in times if trigger.due_ms(at_ms, JOB) <= now_ms]

        assert trigger.last_due_at(now_ms, JOB) == due[-1]
        assert trigger.first_due_after(now_ms, JOB, cursor_ms=0) == times[len(due)]
        assert trigger.first_due_after(now_ms, JOB, cursor_ms=times[len(due)]) == times[len(due) + 1]


# --- bad input


@pytest.mark.parametrize(
    ("make", "fields"),
    [
        (lambda: FixedRate(every_ms=999, anchor_ms=0), ["everyMs"]),
        (lambda: FixedRate(every_ms=10**15, anchor_ms=0), ["everyMs"]),
        (lambda: FixedDelay(delay_ms=0), ["delayMs"]),
        (lambda: Jitter(most_ms=86_400_001), ["jitterMs"]),
        (lambda: Trigger(rule=FixedDelay(delay_ms=1_000), start_ms=5, end_ms=5, runs_max=0), ["end", "maxRuns"]),
        (lambda: AnyOf(of=(cron("0 0 * * *"),)), ["of"]),
        (
            lambda: AnyOf(of=(FixedRate(every_ms=1_500, anchor_ms=7), cron("0 0 * * *"))),
            ["of.0.everyMs", "of.0.anchor"],
        ),
        (lambda: cron("61 * * * 9", time_zone="Berlin"), ["expression", "expression", "timeZone"]),
    ],
)
def test_every_wrong_field_of_a_trigger_is_named(make, fields: list[str]) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidInput) as wrong:
        make()

    assert [error.field for error in wrong.value.errors] == fields


# --- properties

_numbers = st.integers


def _field(low: int, high: int) -> st.SearchStrategy[str]:
    item = st.one_of(
        _numbers(low, high).map(str),
        st.tuples(_numbers(low, high), _numbers(low, high)).map(lambda pair: f"{pair[0]}-{pair[1]}"),
        _numbers(1, max(1, (high - low) // 2)).map(lambda step: f"*/{step}"),
    )
    return st.one_of(st.just("*"), st.lists(item, min_size=1, max_size=3).map(",".join))


_day = st.sampled_from(["*", "1", "15", "L", "LW", "L-3", "1W", "28-3", "10-20"])
_weekday = st.sampled_from(["*", "MON-FRI", "FRI-MON", "SUN", "5L", "TUE#2", "0,3"])


_exclusions = st.one_of(
    st.none(),
    st.builds(
        lambda weekdays, annual, cron: exclusion(weekdays=weekdays, annual=annual, cron=cron),
        st.lists(st.sampled_from(["SAT", "SUN", "WED"]), unique=True),
        st.lists(st.sampled_from(["12-25", "02-29", "03-29", "10-25"]), unique=True),
        st.lists(st.sampled_from(["* 0-7 * * *", "*/2 * * * MON", "* * 10-15 * *", "* 2 L * *"]), unique=True),
    ),
)


@st.composite
def crons(draw: st.DrawFn) -> Cron:
    second = draw(st.sampled_from(["0", "*", "*/20", "59"]))
    fields = [second, draw(_field(0, 59)), draw(_field(0, 23)), draw(_day), draw(_field(1, 12)), draw(_weekday)]
    return cron(
        " ".join(fields),
        dialect=Dialect.SPRING,
        time_zone=draw(st.sampled_from(sorted(zone_names()))),
        days=Days.OR,
        gap=draw(st.sampled_from([None, *GapRule])),
        overlap=draw(st.sampled_from([None, *OverlapRule])),
        exclude=draw(_exclusions),
        on_excluded=draw(st.sampled_from(OnExcluded)),
    )


@st.composite
def recurrences(draw: st.DrawFn) -> Recurrence:
    return rrule(
        draw(
            st.sampled_from(
                [
                    "FREQ=DAILY;INTERVAL=3;BYHOUR=0,2,23;BYMINUTE=0,30",
                    "FREQ=WEEKLY;INTERVAL=2;BYDAY=SU,WE;WKST=SU",
                    "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1",
                    "FREQ=YEARLY;BYMONTH=3,10;BYDAY=-1SU;BYHOUR=2",
                ]
            )
        ),
        start_ms=draw(_numbers(0, ms("2040-01-01T00:00") // 1_000)) * 1_000,
        time_zone=draw(st.sampled_from(sorted(zone_names()))),
        gap=draw(st.sampled_from([None, *GapRule])),
        overlap=draw(st.sampled_from([None, *OverlapRule])),
        exclude=draw(_exclusions),
        on_excluded=draw(st.sampled_from(OnExcluded)),
    )


def rates() -> st.SearchStrategy[FixedRate]:
    return st.builds(
        FixedRate,
        every_ms=_numbers(1, 200_000).map(lambda seconds: seconds * 1_000),
        anchor_ms=_numbers(0, 2**31).map(lambda seconds: seconds * 1_000),
    )


def rules() -> st.SearchStrategy[Rule]:
    unions = st.lists(st.one_of(crons(), rates()), min_size=2, max_size=4).map(lambda of: AnyOf(of=tuple(of)))
    return st.one_of(crons(), recurrences(), rates(), unions)


@given(rule=rules(), at_ms=_numbers(ms("1990-01-01T00:00"), ms("2060-01-01T00:00")))
def test_every_trigger_keeps_its_promises_about_next_last_and_count(rule: Rule, at_ms: int) -> None:
    trigger = Trigger(rule=rule)
    times: list[int] = []
    while len(times) < 30:
        next_ms = trigger.next_after(times[-1] if times else at_ms)
        if next_ms is None:
            break
        times.append(next_ms)

    # Strictly later, and at least a second apart.
    assert times[:1] > [at_ms] or not times
    assert all(later - earlier >= 1_000 for earlier, later in pairwise(times))
    assert [trigger.last_at(each) for each in times] == times
    assert [trigger.last_at(later - 1) for later in times[1:]] == times[:-1]
    assert [trigger.count(at_ms, each) for each in times] == list(range(1, len(times) + 1))
    assert [trigger.count(each, times[-1]) for each in times] == list(range(len(times) - 1, -1, -1))
    assert times == [] or trigger.count(at_ms, times[0] - 1) == 0


@given(
    rule=rules(),
    at_ms=_numbers(ms("1990-01-01T00:00"), ms("2060-01-01T00:00")),
    most=_numbers(1, 40),
    span_ms=_numbers(0, 90 * 86_400_000),
)
def test_a_walk_back_ends_where_as_many_single_steps_do(rule: Rule, at_ms: int, most: int, span_ms: int) -> None:
    trigger = Trigger(rule=rule)
    expected: int | None = None
    step_ms = trigger.last_at(at_ms)
    for _ in range(most):
        if step_ms is None or step_ms < at_ms - span_ms:
            break
        expected, step_ms = step_ms, trigger.last_at(step_ms - 1)

    assert trigger.nth_last(at_ms, most, since_ms=at_ms - span_ms) == expected


@given(
    of=st.lists(st.one_of(crons(), rates()), min_size=2, max_size=4),
    at_ms=_numbers(ms("1990-01-01T00:00"), ms("2060-01-01T00:00")),
    span_ms=_numbers(0, 2 * 86_400_000),
)
def test_a_union_has_each_time_of_its_members_once_and_what_all_of_them_exclude(
    of: list[Cron | FixedRate], at_ms: int, span_ms: int
) -> None:
    union, until_ms = AnyOf(of=tuple(of)), at_ms + span_ms
    fires = {each for rule in of for each in _times(rule.next_after, at_ms, until_ms)}
    excluded = {
        each * 1_000
        for rule in of
        if isinstance(rule, Cron) and rule.excluded_times is not None
        for each in _times(rule.excluded_times.next_after, at_ms // 1_000, until_ms // 1_000)
    } - fires
    count, found = union.count(at_ms, until_ms), union.excluded(at_ms, until_ms)

    assert count == len(fires) if len(fires) < COUNT_EXACT_MAX else COUNT_EXACT_MAX <= count <= len(fires)
    if len(excluded) < COUNT_EXACT_MAX:
        assert found == (TimeStretch(min(excluded), max(excluded), len(excluded)) if excluded else None)


def _times(next_after: Callable[[int], int | None], after: int, until: int) -> Iterator[int]:
    at = next_after(after)
    while at is not None and at <= until:
        yield at
        at = next_after(at)
