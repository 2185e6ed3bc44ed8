"""The occurrence that follows: lateness, missed fire times, resume, changes, runs that may not overlap. Numbers are those of
the list of cases."""

import pytest

from clockwork.domain.jobs.next_occurrence import (
    Decision,
    EndedOccurrence,
    Misfire,
    MisfirePolicy,
    NextOccurrence,
    OccurrenceKind,
    OverlapPolicy,
    excluded_before,
    next_after_delivery,
    next_after_exclusive_run,
    next_not_due,
)
from clockwork.domain.triggers.exclusions import exclusion
from clockwork.domain.triggers.trigger import FixedDelay, FixedRate, Jitter, JitterPer, TimeStretch, Trigger, cron
from clockwork.errors import InvalidInput
from tests.unit.cron_times import cron_of, ms

JOB = "billing/nightly"
DAY = "2026-11-29"
EVERY_MINUTE = Trigger(rule=cron_of("u", "* * * * *"))
FIRE_ONCE = Misfire()
SKIP = Misfire(policy=MisfirePolicy.SKIP)
FIRE_ALL = Misfire(policy=MisfirePolicy.FIRE_ALL)


def at(time: str) -> int:
    return ms(f"{DAY}T{time}")


def every(period_ms: int, anchor_ms: int) -> Trigger:
    return Trigger(rule=FixedRate(every_ms=period_ms, anchor_ms=anchor_ms))


def ended(scheduled_ms: int, ended_ms: int, *, dropped: bool = False) -> EndedOccurrence:
    return EndedOccurrence(scheduled_at_ms=scheduled_ms, cursor_ms=scheduled_ms, ended_ms=ended_ms, dropped=dropped)


def follows(
    trigger: Trigger, misfire: Misfire, last: EndedOccurrence, now_ms: int | None = None, runs: int = 1
) -> Decision:
    return next_after_delivery(
        trigger, misfire, last, jitter_seed=JOB, runs=runs, now_ms=last.ended_ms if now_ms is None else now_ms
    )


def scheduled(at_ms: int) -> NextOccurrence:
    return NextOccurrence(scheduled_at_ms=at_ms, due_ms=at_ms, kind=OccurrenceKind.SCHEDULED, cursor_ms=at_ms)


def catch_up(at_ms: int) -> NextOccurrence:
    return NextOccurrence(scheduled_at_ms=at_ms, due_ms=at_ms, kind=OccurrenceKind.CATCH_UP, cursor_ms=at_ms)


# --- excluded times

CHRISTMAS = Trigger(rule=cron("0 * * * *", exclude=exclusion(annual=["12-25"], cron=["* 0-7 * * *"])))


def test_missed_times_and_times_excluded_among_them_are_told_apart() -> None:
    last = ended(ms("2026-12-24T21:00"), ms("2026-12-24T21:00:01"))

    decision = follows(CHRISTMAS, SKIP, last, ms("2026-12-26T09:30"))

    assert decision == Decision(
        armed=scheduled(ms("2026-12-26T10:00")),
        skipped=TimeStretch(first_ms=ms("2026-12-24T22:00"), last_ms=ms("2026-12-26T09:00"), count=4),
        excluded=TimeStretch(first_ms=ms("2026-12-25T00:00"), last_ms=ms("2026-12-26T07:00"), count=32),
    )


def test_what_is_caught_up_has_no_excluded_times_beyond_those_it_skipped() -> None:
    last = ended(ms("2026-12-24T23:00"), ms("2026-12-24T23:00:01"))

    once = follows(CHRISTMAS, FIRE_ONCE, last, ms("2026-12-26T08:30"))

    # The fire time itself is armed; what lies before it is noted when it has ended.
    assert once == Decision(armed=catch_up(ms("2026-12-26T08:00")))
    assert excluded_before(CHRISTMAS, ms("2026-12-26T08:00"), since_ms=0) == TimeStretch(
        first_ms=ms("2026-12-25T00:00"), last_ms=ms("2026-12-26T07:00"), count=32
    )


def test_nothing_is_noted_from_before_a_job_had_its_trigger() -> None:
    eight = ms("2026-11-29T08:00")

    assert excluded_before(CHRISTMAS, eight, since_ms=eight - 3_600_000) == TimeStretch(
        first_ms=eight - 3_600_000, last_ms=eight - 3_600_000, count=1
    )
    assert excluded_before(CHRISTMAS, eight + 3_600_000, since_ms=0) is None


def test_times_excluded_while_a_run_was_open_are_told_from_those_it_kept_from_firing() -> None:
    last_ms, now_ms = ms("2026-12-24T22:00"), ms("2026-12-26T09:30")
    excluded = TimeStretch(first_ms=ms("2026-12-25T00:00"), last_ms=ms("2026-12-26T07:00"), count=32)

    skips = next_after_exclusive_run(
        CHRISTMAS, OverlapPolicy.SKIP, jitter_seed=JOB, runs=1, cursor_ms=last_ms, now_ms=now_ms
    )
    waits = next_after_exclusive_run(
        CHRISTMAS, OverlapPolicy.WAIT, jitter_seed=JOB, runs=1, cursor_ms=last_ms, now_ms=now_ms
    )

    assert skips.excluded == waits.excluded == excluded
    assert waits.skipped == TimeStretch(first_ms=ms("2026-12-26T08:00"), last_ms=ms("2026-12-26T09:00"), count=2)


# --- nothing missed


def test_a_run_on_time_arms_the_next_fire_time() -> None:
    assert follows(EVERY_MINUTE, FIRE_ONCE, ended(at("12:00"), at("12:00:00.050"))) == Decision(
        armed=scheduled(at("12:01"))
    )


def test_a_fire_time_within_its_grace_is_armed_though_it_has_passed() -> None:
    # Case 44: a node is killed at 11:59:59.9; the next one owns the shard at 12:00:02, and first arms what follows 11:59.
    last = ended(at("11:59"), at("11:59:00.020"))

    assert follows(EVERY_MINUTE, FIRE_ONCE, last, at("12:00:02")) == Decision(armed=scheduled(at("12:00")))


def test_a_take_over_arms_what_the_owner_before_it_would_have_armed() -> None:
    # Case 45: killed between outcome and arming.
    last = ended(at("12:00"), at("12:00:00.020"))

    assert follows(EVERY_MINUTE, FIRE_ONCE, last, at("12:00:05")) == follows(EVERY_MINUTE, FIRE_ONCE, last)


def test_a_rate_does_not_drift_with_what_its_runs_take() -> None:
    # Case 35, at the end of a thousand runs that each took some time.
    trigger, at_ms = every(3_000, at("00:00")), at("00:00")
    for number in range(1_000):
        armed = follows(trigger, FIRE_ONCE, ended(at_ms, at_ms + number % 2_000)).armed
        assert armed is not None
        at_ms = armed.scheduled_at_ms

    assert at_ms == at("00:00") + 3_000_000


def test_a_delay_begins_at_the_end_of_a_run_and_a_rate_at_its_fire_time() -> None:
    # Case 36: delivered at .05, completed at .35.
    last = ended(at("14:00"), at("14:00:00.350"))

    assert follows(Trigger(rule=FixedDelay(delay_ms=5_000)), FIRE_ONCE, last).armed == scheduled(at("14:00:05.350"))
    assert follows(every(5_000, at("14:00")), FIRE_ONCE, last).armed == scheduled(at("14:00:05"))


def test_a_delay_misses_nothing_however_long_the_nodes_were_away() -> None:
    last = ended(at("01:00"), at("01:00:00.100"))

    assert follows(Trigger(rule=FixedDelay(delay_ms=60_000)), SKIP, last, at("23:00")) == Decision(
        armed=scheduled(at("01:01:00.100"))
    )


def test_a_rate_with_a_start_in_the_past_begins_with_the_next_of_its_times() -> None:
    # Case 49: every hour from 2020-01-01, created at 10:30.
    trigger = Trigger(
        rule=FixedRate(every_ms=3_600_000, anchor_ms=ms("2020-01-01T00:00")), start_ms=ms("2020-01-01T00:00")
    )

    assert trigger.first_after(at("10:30")) == at("11:00")


# --- missed


def test_an_outage_of_a_minutely_job_is_one_run_and_one_entry() -> None:
    # Case 37: every minute, away from 08:29:00 to 10:21:00.5; the row of 08:30 is delivered then.
    assert follows(EVERY_MINUTE, FIRE_ONCE, ended(at("08:30"), at("10:21:00.500"))) == Decision(
        armed=scheduled(at("10:22")), skipped=TimeStretch(first_ms=at("08:31"), last_ms=at("10:21"), count=111)
    )


def test_an_outage_of_a_job_that_skips_is_no_run_and_one_entry() -> None:
    # Case 37, skip: the row of 08:30 is dropped.
    assert follows(EVERY_MINUTE, SKIP, ended(at("08:30"), at("10:21:00.500"), dropped=True)) == Decision(
        armed=scheduled(at("10:22")), skipped=TimeStretch(first_ms=at("08:30"), last_ms=at("10:21"), count=112)
    )


def test_an_outage_of_a_job_that_fires_all_is_caught_up_in_order_from_its_limit_on() -> None:
    # Case 37, fire_all: 08:30 late, then 08:42 to 10:21, eleven skipped.
    decision = follows(EVERY_MINUTE, FIRE_ALL, ended(at("08:30"), at("10:21:00.500")))
    assert decision.skipped == TimeStretch(first_ms=at("08:31"), last_ms=at("08:41"), count=11)

    armed, now_ms = [decision.armed], at("10:21:00.500")
    while (last := armed[-1]) is not None and last.scheduled_at_ms < at("10:22"):
        now_ms += 10
        decision = follows(EVERY_MINUTE, FIRE_ALL, ended(last.scheduled_at_ms, now_ms))
        assert decision.skipped is None
        armed.append(decision.armed)

    assert armed == [
        *(catch_up(at("08:42") + number * 60_000) for number in range(99)),
        scheduled(at("10:21")),
        scheduled(at("10:22")),
    ]


def test_runs_older_than_the_window_are_not_caught_up() -> None:
    misfire = Misfire(policy=MisfirePolicy.FIRE_ALL, window_ms=600_000)

    assert follows(EVERY_MINUTE, misfire, ended(at("08:30"), at("10:21:00.500"))) == Decision(
        armed=catch_up(at("10:12")), skipped=TimeStretch(first_ms=at("08:31"), last_ms=at("10:11"), count=101)
    )


def test_a_window_that_holds_no_fire_time_catches_nothing_up() -> None:
    misfire = Misfire(policy=MisfirePolicy.FIRE_ALL, window_ms=60_000)

    assert follows(every(3_600_000, at("00:00")), misfire, ended(at("01:00"), at("05:30"))) == Decision(
        armed=scheduled(at("06:00")), skipped=TimeStretch(first_ms=at("02:00"), last_ms=at("05:00"), count=4)
    )


def test_two_weeks_of_five_seconds_are_one_run_and_one_entry() -> None:
    # Case 38.
    start_ms, back_ms = at("00:00"), at("00:00") + 14 * 86_400_000 + 1_000

    assert follows(every(5_000, start_ms), FIRE_ONCE, ended(start_ms, back_ms)) == Decision(
        armed=scheduled(back_ms + 4_000),
        skipped=TimeStretch(first_ms=start_ms + 5_000, last_ms=back_ms - 1_000, count=241_920),
    )


def test_a_job_that_skips_does_not_fire_a_missed_time_because_it_is_recent() -> None:
    # Case 39: every 15 s, away until 16:44:42. The grace is 15 s: 16:44:30 is no later than that, but part of the gap.
    decision = follows(every(15_000, at("00:00")), SKIP, ended(at("16:44"), at("16:44:42"), dropped=True))

    assert decision == Decision(
        armed=scheduled(at("16:44:45")), skipped=TimeStretch(first_ms=at("16:44"), last_ms=at("16:44:30"), count=3)
    )
    assert SKIP.grace_of(every(15_000, at("00:00")), at("16:44")) == 15_000


def test_a_row_that_was_dropped_alone_is_one_skipped_fire_time() -> None:
    assert follows(EVERY_MINUTE, SKIP, ended(at("12:00"), at("12:01:00.100"), dropped=True)) == Decision(
        armed=scheduled(at("12:01")), skipped=TimeStretch(first_ms=at("12:00"), last_ms=at("12:00"), count=1)
    )


def test_an_outage_behind_a_delivery_fires_the_latest_of_the_missed_times() -> None:
    # 08:30 was delivered in time; then the nodes were away.
    last = ended(at("08:30"), at("08:30:00.020"))

    assert follows(EVERY_MINUTE, FIRE_ONCE, last, at("10:21:00.500")) == Decision(
        armed=catch_up(at("10:21")), skipped=TimeStretch(first_ms=at("08:31"), last_ms=at("10:20"), count=110)
    )


def test_a_single_missed_time_behind_a_delivery_is_fired_and_nothing_skipped() -> None:
    last = ended(at("08:00"), at("08:00:00.020"))

    assert follows(every(3_600_000, at("00:00")), FIRE_ONCE, last, at("09:30")) == Decision(armed=catch_up(at("09:00")))


def test_a_row_that_was_dropped_is_not_the_one_run_for_its_gap() -> None:
    # A job with a deadline of its own: nothing was delivered for the gap, so the latest is.
    last = ended(at("08:30"), at("10:21:00.500"), dropped=True)

    assert follows(EVERY_MINUTE, FIRE_ONCE, last) == Decision(
        armed=catch_up(at("10:21")), skipped=TimeStretch(first_ms=at("08:30"), last_ms=at("10:20"), count=111)
    )


def test_a_given_grace_is_longer_than_the_distance_of_fire_times() -> None:
    misfire = Misfire(policy=MisfirePolicy.SKIP, grace_ms=300_000)

    assert follows(EVERY_MINUTE, misfire, ended(at("12:00"), at("12:04"))) == Decision(armed=scheduled(at("12:01")))


def test_no_more_runs_are_armed_than_were_asked_for() -> None:
    trigger = Trigger(rule=cron_of("u", "* * * * *"), runs_max=3)

    assert follows(trigger, FIRE_ONCE, ended(at("12:00"), at("12:00:00.1")), runs=2).armed == scheduled(at("12:01"))
    assert follows(trigger, FIRE_ONCE, ended(at("12:00"), at("12:00:00.1")), runs=3) == Decision(armed=None)


def test_a_gap_up_to_the_end_of_a_trigger_is_skipped_and_nothing_armed() -> None:
    trigger = Trigger(rule=cron_of("u", "* * * * *"), end_ms=at("08:35"))

    assert follows(trigger, FIRE_ONCE, ended(at("08:30"), at("10:21"))) == Decision(
        armed=None, skipped=TimeStretch(first_ms=at("08:31"), last_ms=at("08:34"), count=4)
    )


def test_a_run_that_its_jitter_delays_is_not_late() -> None:
    trigger = Trigger(rule=cron_of("u", "0 * * * *"), jitter=Jitter(most_ms=86_400_000))
    due_ms = trigger.due_ms(at("00:00"), JOB)
    assert due_ms > at("04:00"), "choose another name for the job"

    decision = follows(trigger, FIRE_ONCE, ended(at("00:00"), due_ms + 20))

    assert decision.skipped is None
    assert decision.armed == NextOccurrence(
        scheduled_at_ms=at("01:00"), due_ms=due_ms + 3_600_000, kind=OccurrenceKind.SCHEDULED, cursor_ms=at("01:00")
    )


# --- resume, change


def test_a_resumed_job_catches_nothing_up() -> None:
    # Case 40: every 5 s, paused from 12:00:01 to 12:00:21.
    trigger = every(5_000, at("12:00"))

    assert next_not_due(trigger, jitter_seed=JOB, cursor_ms=at("12:00"), now_ms=at("12:00:21")) == scheduled(
        at("12:00:25")
    )


def test_a_job_paused_while_its_jitter_runs_keeps_that_run() -> None:
    trigger = Trigger(rule=cron_of("u", "0 0 * * *"), jitter=Jitter(most_ms=86_400_000))
    due_ms = trigger.due_ms(at("00:00"), JOB)

    before = next_not_due(trigger, jitter_seed=JOB, cursor_ms=at("00:00") - 86_400_000, now_ms=due_ms - 1)
    after = next_not_due(trigger, jitter_seed=JOB, cursor_ms=at("00:00") - 86_400_000, now_ms=due_ms)

    assert before is not None
    assert before.scheduled_at_ms == at("00:00")
    assert after is not None
    assert after.scheduled_at_ms == at("00:00") + 86_400_000


@pytest.mark.parametrize(
    ("expression", "zone", "changed", "first"),
    [
        # Case 41: a change runs nothing at once. Case 42: nor does it wait for the time of before.
        ("0 10 * * *", "Europe/Moscow", "2019-03-18T12:00", "2019-03-19T10:00"),
        ("0 5 1 * *", "America/Lima", "2016-05-17T00:00", "2016-06-01T05:00"),
        ("* * * * *", "UTC", "2026-11-29T12:00:30", "2026-11-29T12:01"),
    ],
)
def test_a_changed_trigger_goes_on_with_its_first_time_from_now(
    expression: str, zone: str, changed: str, first: str
) -> None:
    trigger = Trigger(rule=cron_of("u", expression, zone))
    now_ms = ms(changed, zone)

    assert next_not_due(trigger, jitter_seed=JOB, cursor_ms=now_ms - 86_400_000, now_ms=now_ms) == scheduled(
        ms(first, zone)
    )


def test_a_change_does_not_repeat_what_is_decided() -> None:
    # The cursor is ahead of now: the run of 12:05 was fired by a trigger of before, or by a clock that is a bit ahead.
    assert next_not_due(EVERY_MINUTE, jitter_seed=JOB, cursor_ms=at("12:05"), now_ms=at("12:04:59.900")) == scheduled(
        at("12:06")
    )


def test_a_resumed_job_whose_trigger_is_over_arms_nothing() -> None:
    over = Trigger(rule=cron_of("u", "* * * * *"), end_ms=at("12:00"))
    enough = Trigger(rule=cron_of("u", "* * * * *"), runs_max=2)

    assert next_not_due(over, jitter_seed=JOB, cursor_ms=at("11:00"), now_ms=at("12:00")) is None
    assert next_not_due(enough, jitter_seed=JOB, cursor_ms=at("11:00"), now_ms=at("12:00"), runs=2) is None


# --- runs that may not overlap


def test_a_skipping_job_passes_over_the_times_of_a_long_run() -> None:
    # Case 48: every run takes 140 s, from 12:00 on.
    times, entries = _exclusive(OverlapPolicy.SKIP)

    assert times == [(at("12:00"), at("12:00")), (at("12:03"), at("12:03")), (at("12:06"), at("12:06"))]
    assert entries[0] == TimeStretch(first_ms=at("12:01"), last_ms=at("12:02"), count=2)


def test_a_waiting_job_fires_the_first_of_the_times_that_passed_at_once() -> None:
    # Case 48: the entries name the times that were skipped.
    times, entries = _exclusive(OverlapPolicy.WAIT)

    assert times == [(at("12:00"), at("12:00")), (at("12:01"), at("12:02:20")), (at("12:03"), at("12:04:40"))]
    assert entries == [
        TimeStretch(first_ms=at("12:02"), last_ms=at("12:02"), count=1),
        TimeStretch(first_ms=at("12:04"), last_ms=at("12:04"), count=1),
    ]


def test_a_short_run_is_followed_by_the_next_fire_time() -> None:
    decision = next_after_exclusive_run(
        EVERY_MINUTE, OverlapPolicy.WAIT, jitter_seed=JOB, runs=1, cursor_ms=at("12:00"), now_ms=at("12:00:30")
    )

    assert decision == Decision(armed=scheduled(at("12:01")))


def test_a_run_that_timed_out_is_followed_as_one_that_ended() -> None:
    # Case 46: its consumer is gone; the watchdog is due after ten minutes.
    decision = next_after_exclusive_run(
        every(3_600_000, at("00:00")),
        OverlapPolicy.SKIP,
        jitter_seed=JOB,
        runs=1,
        cursor_ms=at("12:00"),
        now_ms=at("12:10"),
    )

    assert decision == Decision(armed=scheduled(at("13:00")))


def test_a_delay_after_a_run_with_completion_begins_at_its_end() -> None:
    decision = next_after_exclusive_run(
        Trigger(rule=FixedDelay(delay_ms=5_000)),
        OverlapPolicy.SKIP,
        jitter_seed=JOB,
        runs=1,
        cursor_ms=at("12:00"),
        now_ms=at("12:10"),
    )

    assert decision == Decision(armed=scheduled(at("12:10:05")))


def _exclusive(overlap: OverlapPolicy) -> tuple[list[tuple[int, int]], list[TimeStretch]]:
    """Fire times and due times of three runs of 140 s each, and what was skipped between them."""
    armed: NextOccurrence | None = scheduled(at("12:00"))
    times: list[tuple[int, int]] = []
    entries: list[TimeStretch] = []
    for _ in range(3):
        assert armed is not None
        times.append((armed.scheduled_at_ms, armed.due_ms))
        decision = next_after_exclusive_run(
            EVERY_MINUTE, overlap, jitter_seed=JOB, runs=1, cursor_ms=armed.cursor_ms, now_ms=armed.due_ms + 140_000
        )
        armed = decision.armed
        entries += [decision.skipped] if decision.skipped is not None and len(times) < 3 else []
    return times, entries


# --- all policies


@pytest.mark.parametrize("misfire", [FIRE_ONCE, SKIP, FIRE_ALL, Misfire(policy=MisfirePolicy.FIRE_ALL, catch_up_max=7)])
@pytest.mark.parametrize("jitter", [None, Jitter(most_ms=45_000), Jitter(most_ms=86_400_000, per=JitterPer.RUN)])
def test_every_fire_time_is_fired_or_skipped_once_and_in_order(misfire: Misfire, jitter: Jitter | None) -> None:
    # Outages of all lengths, before and behind deliveries.
    trigger = Trigger(rule=cron_of("u", "*/5 * * * *"), jitter=jitter)
    now_ms = at("00:00")
    cursor_ms = at("00:00")
    decided: list[int] = []
    armed = next_not_due(trigger, jitter_seed=JOB, cursor_ms=cursor_ms, now_ms=now_ms)
    for number in range(300):
        assert armed is not None
        away_ms = [0, 0, 10, 61_000, 0, 301_000, 0, 7_200_000][number % 8]
        now_ms = max(now_ms, armed.due_ms) + away_ms
        late = now_ms - trigger.due_ms(armed.scheduled_at_ms, JOB) > misfire.grace_of(trigger, armed.scheduled_at_ms)
        dropped = misfire.policy is MisfirePolicy.SKIP and late
        last = EndedOccurrence(
            scheduled_at_ms=armed.scheduled_at_ms, cursor_ms=armed.cursor_ms, ended_ms=now_ms, dropped=dropped
        )
        now_ms += [0, 400_000, 5][number % 3]
        decision = follows(trigger, misfire, last, now_ms)
        decided += [] if dropped else [armed.scheduled_at_ms]
        if decision.skipped is not None:
            stretch = _times(trigger, decision.skipped)
            assert len(stretch) == decision.skipped.count
            decided += stretch
        armed = decision.armed

    assert decided == _times(trigger, TimeStretch(first_ms=decided[0], last_ms=decided[-1], count=0))
    assert decided[0] == at("00:05")


def _times(trigger: Trigger, stretch: TimeStretch) -> list[int]:
    times: list[int] = []
    at_ms = trigger.next_after(stretch.first_ms - 1)
    while at_ms is not None and at_ms <= stretch.last_ms:
        times.append(at_ms)
        at_ms = trigger.next_after(at_ms)
    return times


def test_every_wrong_field_of_a_policy_is_named() -> None:
    with pytest.raises(InvalidInput) as wrong:
        Misfire(grace_ms=0, catch_up_max=0, window_ms=1)

    assert [error.field for error in wrong.value.errors] == ["graceMs", "maxCatchUp", "windowMs"]
