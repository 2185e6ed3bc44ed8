"""A node's time never steps back, and is trusted only while it agrees with the store's."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clockwork.clock import (
    ANSWER_MS_MAX,
    CHECK_AGE_MS_MAX,
    HELD_AHEAD_FOR_MS_LIVE,
    HELD_AHEAD_MS_LIVE,
    HELD_AHEAD_MS_MAX,
    SKEW_MS_MAX,
    ClockGuard,
    HeldTimeWatch,
    SystemClock,
    system_ms,
)
from tests.support.clocks import ManualClock, ManualMonotonic

NOW_MS = 1_700_000_000_000


class Node:
    """One node's two clocks and its guard, and a server whose clock is right."""

    def __init__(self, *, ahead_ms: int = 0) -> None:
        self.server_ms = NOW_MS
        self.clock = ManualClock(NOW_MS + ahead_ms)
        self.monotonic = ManualMonotonic()
        self.guard = ClockGuard(self.clock, self.monotonic)

    def pass_time(self, ms: int) -> None:
        self.server_ms += ms
        self.clock.advance_ms(ms)
        self.monotonic.advance_ms(ms)

    def ask(self, *, way_there_ms: int = 0, way_back_ms: int = 0, resolution_ms: int = 1_000) -> None:
        """One request: the server states its time, cut to its resolution."""
        sent_ms = self.clock.now_ms()
        self.pass_time(way_there_ms)
        server_ms = self.server_ms // resolution_ms * resolution_ms
        self.pass_time(way_back_ms)
        self.guard.observe(
            sent_ms=sent_ms, received_ms=self.clock.now_ms(), server_ms=server_ms, resolution_ms=resolution_ms
        )


# --- the system's clock


def test_system_time_is_held_while_the_machines_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    readings_us = iter([1_000_000, 1_000_500, 400_000, 999_999, 1_000_501])
    monkeypatch.setattr(time, "time_ns", lambda: next(readings_us) * 1_000)
    clock = SystemClock()

    assert [clock.now_us() for _ in range(5)] == [1_000_000, 1_000_500, 1_000_500, 1_000_500, 1_000_501]


def test_milliseconds_and_microseconds_are_one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    readings_us = iter([5_999, 4_000])
    monkeypatch.setattr(time, "time_ns", lambda: next(readings_us) * 1_000 + 999)
    clock = SystemClock()

    assert clock.now_us() == 5_999
    assert clock.now_ms() == 5


def test_system_time_is_that_of_the_machine() -> None:
    before_ms = time.time_ns() // 1_000_000  # noqa: TID251
    now_ms = SystemClock().now_ms()
    after_ms = time.time_ns() // 1_000_000  # noqa: TID251

    assert before_ms <= now_ms <= after_ms


def test_the_lead_of_held_time_is_what_the_machines_clock_was_set_back_by(monkeypatch: pytest.MonkeyPatch) -> None:
    machine_ms = NOW_MS
    monkeypatch.setattr(time, "time_ns", lambda: machine_ms * 1_000_000)
    clock = SystemClock()
    assert clock.ahead_ms() == 0, "it was never read"
    assert clock.now_ms() == NOW_MS
    machine_ms += 500
    assert clock.ahead_ms() == 0, "it may lag behind, between two readings"
    clock.now_ms()
    machine_ms -= 3_000
    assert (clock.now_ms(), clock.ahead_ms(), system_ms()) == (NOW_MS + 500, 3_000, NOW_MS - 2_500)
    machine_ms += 1_000
    assert (clock.now_ms(), clock.ahead_ms(), system_ms()) == (NOW_MS + 500, 2_000, NOW_MS - 1_500)
    machine_ms += 2_500
    assert (clock.now_ms(), clock.ahead_ms()) == (NOW_MS + 1_000, 0)


# --- held time that is ahead of the machine's


class SetBack:
    """A clock whose machine was set back, and the monotonic clock beside it."""

    def __init__(self, *, by_ms: int) -> None:
        self.lead_ms = by_ms
        self.monotonic = ManualMonotonic()
        self.watch = HeldTimeWatch(lambda: self.lead_ms, self.monotonic)


@pytest.mark.parametrize(
    ("by_ms", "ready", "live"),
    [
        (0, True, True),
        (HELD_AHEAD_MS_MAX, True, True),
        (HELD_AHEAD_MS_MAX + 1, False, True),
        (HELD_AHEAD_MS_LIVE, False, True),
        (HELD_AHEAD_MS_LIVE + 1, False, False),
    ],
)
def test_a_small_lead_is_waited_for_and_one_of_minutes_wants_a_restart(by_ms: int, ready: bool, live: bool) -> None:
    clock = SetBack(by_ms=by_ms)
    assert (clock.watch.trusted(), clock.watch.needs_restart()) == (ready, not live)


def test_a_lead_that_does_not_end_wants_a_restart_after_five_minutes() -> None:
    clock = SetBack(by_ms=HELD_AHEAD_MS_MAX + 1)
    assert not clock.watch.trusted()
    clock.monotonic.advance_ms(HELD_AHEAD_FOR_MS_LIVE)
    assert not clock.watch.needs_restart()
    clock.monotonic.advance_ms(1)
    assert clock.watch.needs_restart()


def test_a_lead_that_ended_meanwhile_is_waited_for_anew() -> None:
    clock = SetBack(by_ms=HELD_AHEAD_MS_MAX + 1)
    assert not clock.watch.trusted()
    clock.monotonic.advance_ms(HELD_AHEAD_FOR_MS_LIVE)
    clock.lead_ms = HELD_AHEAD_MS_MAX
    assert clock.watch.trusted()
    clock.lead_ms += 1
    clock.monotonic.advance_ms(1)
    assert not clock.watch.needs_restart()


# --- the comparison


def test_a_clock_that_was_never_compared_is_not_trusted() -> None:
    node = Node()

    assert not node.guard.trusted()
    assert node.guard.skew_ms is None


@pytest.mark.parametrize("into_second_ms", [0, 1, 500, 999])
def test_a_clock_that_is_right_shows_no_skew_at_any_point_of_a_second(into_second_ms: int) -> None:
    # `Date` has whole seconds, so a right clock may look ahead by all but one second.
    node = Node()
    node.pass_time(into_second_ms)

    node.ask(way_there_ms=20, way_back_ms=20)

    assert node.guard.skew_ms == 0
    assert node.guard.trusted()


@given(
    st.integers(-10_000, 10_000),
    st.integers(0, 999),
    st.integers(0, ANSWER_MS_MAX // 2),
    st.integers(0, ANSWER_MS_MAX // 2),
    st.sampled_from([1, 1_000]),
)
def test_the_skew_is_never_overstated_and_missed_by_the_resolution_and_the_way_at_most(
    ahead_ms: int, into_second_ms: int, way_there_ms: int, way_back_ms: int, resolution_ms: int
) -> None:
    node = Node(ahead_ms=ahead_ms)
    node.pass_time(into_second_ms)

    node.ask(way_there_ms=way_there_ms, way_back_ms=way_back_ms, resolution_ms=resolution_ms)

    skew_ms = node.guard.skew_ms
    assert skew_ms is not None
    assert abs(skew_ms) <= abs(ahead_ms)
    assert skew_ms * ahead_ms >= 0
    assert abs(ahead_ms - skew_ms) <= resolution_ms + way_there_ms + way_back_ms


@pytest.mark.parametrize(
    ("skew_ms", "trusted"),
    [(0, True), (SKEW_MS_MAX, True), (-SKEW_MS_MAX, True), (SKEW_MS_MAX + 1, False), (-SKEW_MS_MAX - 1, False)],
)
def test_trust_ends_one_millisecond_past_the_limit_in_either_direction(skew_ms: int, trusted: bool) -> None:
    node = Node()
    # Ahead: our clock reads `skew_ms` past the last moment at which the server can have said NOW_MS.
    ours_ms = NOW_MS + skew_ms + (1_000 if skew_ms > 0 else 0)
    node.clock.set_ms(ours_ms)

    node.guard.observe(sent_ms=ours_ms, received_ms=ours_ms, server_ms=NOW_MS, resolution_ms=1_000)

    assert node.guard.skew_ms == skew_ms
    assert node.guard.trusted() is trusted


def test_a_slow_answer_says_nothing_about_the_time() -> None:
    node = Node()
    node.ask()

    node.guard.observe(
        sent_ms=NOW_MS, received_ms=NOW_MS + ANSWER_MS_MAX + 1, server_ms=NOW_MS + 60_000, resolution_ms=1_000
    )

    assert node.guard.skew_ms == 0


def test_an_answer_that_is_just_fast_enough_counts() -> None:
    node = Node()

    node.guard.observe(sent_ms=NOW_MS, received_ms=NOW_MS + ANSWER_MS_MAX, server_ms=NOW_MS, resolution_ms=1_000)

    assert node.guard.trusted()


def test_an_answer_received_before_it_was_sent_says_nothing() -> None:
    node = Node()

    node.guard.observe(sent_ms=NOW_MS + 1, received_ms=NOW_MS, server_ms=NOW_MS, resolution_ms=1_000)

    assert node.guard.skew_ms is None


def test_trust_comes_back_with_a_comparison_that_agrees() -> None:
    node = Node(ahead_ms=3_600_000)
    node.ask()
    assert not node.guard.trusted()

    node.clock.set_ms(node.server_ms)
    node.ask()

    assert node.guard.trusted()


# --- between two comparisons


def test_a_comparison_is_believed_for_half_a_minute_and_no_longer() -> None:
    node = Node()
    node.ask()

    node.pass_time(CHECK_AGE_MS_MAX)
    assert node.guard.trusted()

    node.pass_time(1)
    assert not node.guard.trusted()


def test_slow_answers_do_not_keep_an_old_comparison_young() -> None:
    node = Node()
    node.ask()
    node.pass_time(CHECK_AGE_MS_MAX - 1_500)

    node.ask(way_there_ms=ANSWER_MS_MAX + 1, way_back_ms=1_000)

    assert not node.guard.trusted()


@pytest.mark.parametrize("jump_ms", [SKEW_MS_MAX + 1, -SKEW_MS_MAX - 1, 3_600_000])
def test_a_clock_that_jumps_is_not_trusted_before_it_is_compared_again(jump_ms: int) -> None:
    node = Node()
    node.ask()

    node.clock.advance_ms(jump_ms)

    assert not node.guard.trusted()


def test_a_jump_is_judged_by_the_next_comparison() -> None:
    # The wall clock was behind, and the machine put it right in one step: from then on it agrees.
    node = Node(ahead_ms=-2_500)
    node.ask()
    node.clock.advance_ms(2_500)
    assert not node.guard.trusted()

    node.ask()

    assert node.guard.trusted()


def test_a_clock_held_after_a_step_back_loses_trust_while_real_time_goes_on() -> None:
    # SystemClock stands still until the machine's clock has caught up; by then it is behind everybody else.
    node = Node()
    node.ask()

    node.monotonic.advance_ms(SKEW_MS_MAX)
    assert node.guard.trusted()

    node.monotonic.advance_ms(1)
    assert not node.guard.trusted()
