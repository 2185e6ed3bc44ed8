"""The bound of a pass, and the time of the next one."""

from dataclasses import dataclass
from typing import Final

TICKS: Final = 20
"""Ticks in one scan interval."""


def firing_bound_ms(*, now_ms: int, frontier_ms: int) -> int:
    """Rows due up to here may fire from a query that begins now."""
    return min(now_ms, frontier_ms)


@dataclass(frozen=True, kw_only=True, slots=True)
class NextPass:
    """The times of a shard's next pass and frontier write, in epoch milliseconds of the owner's clock."""

    at_ms: int
    """Time of the next pass."""
    frontier_at_ms: int | None
    """Time to raise the incarnation's frontier for it, off the critical path; None: no row is known that will need it."""


def scan_after(now_ms: int, *, scan_interval_ms: int) -> int:
    """The time of a shard's next scan if no wake-up comes: after the scan interval, or a little sooner, at a tick of
    the clock. The ticks are the same for all shards, so an idle node wakes up for several shards at once, and not for
    each."""
    at_ms = now_ms + scan_interval_ms
    return at_ms - at_ms % max(1, scan_interval_ms // TICKS)


def next_pass(
    *,
    now_ms: int,
    scan_interval_ms: int,
    frontier_ms: int,
    lead_ms: int,
    next_due_ms: int | None,
) -> NextPass:
    """The earlier of the next row (or the end of a wait) and the scan interval.

    The frontier is written when the next row comes within two fifths of the lead: early enough that the row finds it
    stored and costs one read and its part of a transaction, late enough that it reaches the rows that follow soon. All
    shards of the incarnation share it. A scan alone needs none, so an idle incarnation writes nothing.
    """
    scan_at_ms = now_ms + scan_interval_ms
    if next_due_ms is None or next_due_ms > scan_at_ms:
        return NextPass(at_ms=scan_at_ms, frontier_at_ms=None)
    at_ms = max(now_ms, next_due_ms)
    ahead_ms = at_ms - lead_ms * 2 // 5
    return NextPass(at_ms=at_ms, frontier_at_ms=ahead_ms if frontier_ms < at_ms else None)
