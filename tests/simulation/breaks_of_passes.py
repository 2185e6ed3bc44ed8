"""Replacements of a rule by the mutations of passes and of the cached prefix, as `breaks` has them for the others."""

import asyncio
from collections.abc import Sequence
from typing import Any

from clockwork.domain.planning import PlannedDelivery, Planner, earlier
from clockwork.domain.position import Position, due_ms_of
from clockwork.domain.schedule import Retry, Row
from clockwork.errors import TransactionConflict
from clockwork.firing.deliver_acknowledged import AcknowledgedDelivery
from clockwork.firing.incarnation import RunningIncarnation
from clockwork.firing.lease import ShardLease
from clockwork.firing.shard_pass import ShardPass
from tests.simulation.store_world import HostStore

# --- the frontier, and the time


async def frontier_pretended(self: RunningIncarnation) -> None:
    """The frontier is raised in memory, and not stored before the rows are read."""
    self.frontier_ms = max(self.frontier_ms, self._clock.now_ms() + self._lead_ms)


async def read_then_frontier(self: ShardPass, lease: ShardLease, *, records_max: int) -> Any:
    """Together with the one above: what was pretended is written when the rows have been read."""
    read = await _read(self, lease, records_max=records_max)
    await self._store.raise_frontier(lease.incarnation.id, frontier_ms=lease.frontier_ms, hints={})
    return read


async def bound_read_at_the_answer(self: ShardPass, lease: ShardLease, *, records_max: int) -> Any:
    """Fires all that is due when the answer comes, not only what was due when the Query began."""
    store, before = self._store, lease.cleanup.positions() | lease.in_flight.positions()
    first = await store.read_page(lease.shard, after=None, rows_max=500)

    class ReadBefore:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        async def read_page(self, shard: Any, **how: Any) -> Any:
            return first

    self._store = ReadBefore()
    lease.cleanup.positions = lambda: before  # type: ignore[method-assign]
    try:
        return await _read(self, lease, records_max=records_max)
    finally:
        del lease.cleanup.positions
        self._store = store


# --- rows left out


class _Now:
    """The rows that are left out at the moment of asking."""

    def __init__(self, lease: ShardLease) -> None:
        self._lease = lease

    def __contains__(self, position: Position) -> bool:
        return position in self._lease.cleanup or position in self._lease.in_flight

    def __len__(self) -> int:
        return len(self._lease.cleanup) + len(self._lease.in_flight)


def left_out_when_the_answer_comes(self: ShardPass, lease: ShardLease, *, now_ms: int, records_max: int) -> Planner:
    """Rows in flight are left out as of the answer, not as of the begin of the read."""
    planner = _new_planner(self, lease, now_ms=now_ms, records_max=records_max)
    planner.left_out = _Now(lease)  # type: ignore[assignment]
    return planner


def block_no_lane(self: Planner, lane: Any, until_ms: int) -> None:
    """A row that waits does not hold up those after it in its lane."""
    self.waits_until_ms = earlier(self.waits_until_ms, until_ms)


# --- the cached prefix


def prefix_up_to_now(self: ShardPass, lease: ShardLease, *, now_ms: int, records_max: int) -> Planner:
    """The cached prefix may cover rows that have only just become due."""
    planner = _new_planner(self, lease, now_ms=now_ms, records_max=records_max)
    planner.prefix_due_ms_max = None
    return planner


def leave_the_prefix(self: ShardLease, due_ms: int) -> None:
    """A wake-up leaves the cached prefix as it is."""
    return


def open_the_prefix_between_passes(self: ShardLease, due_ms: int) -> None:
    """A pass that has begun goes on."""
    if self.blocked_prefix is not None and due_ms <= due_ms_of(self.blocked_prefix.last):
        self.blocked_prefix = None


# --- announced times, holds


def announcements_forgotten(self: ShardPass, lease: ShardLease, left_out: Any, now_ms: int) -> None:
    """The times before which an owner announced not to fire a row are forgotten."""
    lease.announced_not_before_ms = {}


def applied_however_far(row: Row, retry: Retry, *, epoch: int, now_ms: int, policy: Any) -> bool:
    """A retry mark counts however far ahead it is."""
    return retry.at_ms > now_ms


async def holds_ignored(self: ShardPass, planner: Planner) -> list[PlannedDelivery]:
    """Rows are fired without taking their holds off."""
    return list(planner.deliveries)


async def drop_hold_and_fire(self: HostStore, name: Any) -> bool:
    """A row that is gone when its hold is taken off is fired."""
    await _drop_hold(self, name)
    return True


async def drop_hold_through_conflict(self: HostStore, name: Any) -> bool:
    """A row is fired though its hold could not be taken off: a transaction is being applied to it."""
    try:
        return await _drop_hold(self, name)
    except TransactionConflict:
        return True


# --- lanes of at_least_once


def lane_at_once(self: AcknowledgedDelivery, lease: ShardLease, deliveries: Sequence[PlannedDelivery]) -> None:
    """Rows of one lane are sent side by side."""
    for each in deliveries:
        _enqueue(self, lease, [each])


async def _nothing(*_: Any, **__: Any) -> None:
    await asyncio.sleep(0)


do_nothing = _nothing

_read = ShardPass._read
_new_planner = ShardPass._new_planner
_drop_hold = HostStore.drop_hold
_enqueue = AcknowledgedDelivery.enqueue
