"""The bound of a pass, and when a shard is looked at next."""

from hypothesis import given
from hypothesis import strategies as st

from clockwork.domain.scanning import TICKS, NextPass, firing_bound_ms, next_pass, scan_after

NOW_MS = 1_700_000_000_000
SCAN_MS = 5_000
LEAD_MS = 250


def look(
    *,
    next_due_ms: int | None = None,
    frontier_ms: int = NOW_MS,
) -> NextPass:
    return next_pass(
        now_ms=NOW_MS,
        scan_interval_ms=SCAN_MS,
        frontier_ms=frontier_ms,
        lead_ms=LEAD_MS,
        next_due_ms=next_due_ms,
    )


def test_nothing_fires_before_its_time_nor_beyond_the_stored_frontier() -> None:
    assert firing_bound_ms(now_ms=100, frontier_ms=350) == 100
    assert firing_bound_ms(now_ms=400, frontier_ms=350) == 350


def test_an_idle_shard_is_scanned_and_writes_nothing() -> None:
    assert look() == NextPass(at_ms=NOW_MS + SCAN_MS, frontier_at_ms=None)


def test_a_row_beyond_the_next_scan_is_left_to_that_scan() -> None:
    assert look(next_due_ms=NOW_MS + SCAN_MS + 1) == NextPass(at_ms=NOW_MS + SCAN_MS, frontier_at_ms=None)


def test_a_row_before_the_next_scan_is_met_on_time_with_its_frontier_stored_ahead() -> None:
    due_ms = NOW_MS + 2_000

    assert look(next_due_ms=due_ms) == NextPass(at_ms=due_ms, frontier_at_ms=due_ms - 100)


def test_a_frontier_that_reaches_the_row_is_not_written_again() -> None:
    due_ms = NOW_MS + 100

    assert look(next_due_ms=due_ms, frontier_ms=due_ms) == NextPass(at_ms=due_ms, frontier_at_ms=None)


def test_a_time_that_has_passed_means_now_and_not_the_past() -> None:
    assert look(next_due_ms=NOW_MS - 10_000).at_ms == NOW_MS


moments = st.none() | st.integers(NOW_MS - 100_000, NOW_MS + 100_000)


@given(moments, st.integers(NOW_MS - 10_000, NOW_MS + 10_000), st.integers(0, 5_000))
def test_no_known_time_is_slept_through(next_due_ms: int | None, frontier_ms: int, lead_ms: int) -> None:
    found = next_pass(
        now_ms=NOW_MS,
        scan_interval_ms=SCAN_MS,
        frontier_ms=frontier_ms,
        lead_ms=lead_ms,
        next_due_ms=next_due_ms,
    )

    assert NOW_MS <= found.at_ms <= NOW_MS + SCAN_MS
    assert next_due_ms is None or found.at_ms <= max(NOW_MS, next_due_ms)
    if found.frontier_at_ms is not None:
        # Written at that moment, one lead ahead, it reaches the row; and no earlier than it has to be.
        assert found.at_ms - lead_ms <= found.frontier_at_ms <= found.at_ms


@given(now_ms=st.integers(0, 2**45), later_ms=st.integers(0, 10_000), interval_ms=st.integers(1, 100_000))
def test_shards_that_were_looked_at_within_a_tick_are_looked_at_together_and_never_late(
    now_ms: int, later_ms: int, interval_ms: int
) -> None:
    at_ms = scan_after(now_ms, scan_interval_ms=interval_ms)
    tick_ms = max(1, interval_ms // TICKS)
    assert interval_ms - tick_ms < at_ms - now_ms <= interval_ms
    assert at_ms > now_ms
    other_ms = scan_after(now_ms + later_ms, scan_interval_ms=interval_ms)
    assert (other_ms - at_ms) % tick_ms == 0
    assert other_ms - at_ms < later_ms + tick_ms
