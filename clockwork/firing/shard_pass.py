"""ONE pass over ONE shard: frontier, read, holds, deliver; the tidy-up goes on beside (docs/design.md, 5).

A row is fired only from a Query that began at or after its due time, and after a frontier at or past it was stored.
What is read is planned by `domain.planning`; what is planned is sent by `firing.deliver`.
"""

import asyncio
import logging
from collections.abc import Callable, Container, Set
from dataclasses import dataclass
from functools import partial
from typing import Final

from clockwork.clock import Clock, ClockTrust
from clockwork.concurrency import gather_bounded
from clockwork.domain.marker import ENTRIES_MAX
from clockwork.domain.pauses import NOTHING_PAUSED, Pauses
from clockwork.domain.planning import BatchLimits, DestinationWait, PlannedDelivery, Planner, RetryMark, without_lane
from clockwork.domain.position import Position
from clockwork.domain.scanning import firing_bound_ms
from clockwork.domain.schedule import BrokenRow, Guarantee, Retry, Row
from clockwork.errors import ClockUntrusted, TransactionConflict
from clockwork.firing.dead_letters import dead_letter_topics
from clockwork.firing.deliver import Delivery, retry_policy
from clockwork.firing.destination_waits import DestinationWaits
from clockwork.firing.takeover import BlockedPrefix, ShardLease
from clockwork.ports.store import ScheduleStore
from clockwork.ports.telemetry import Telemetry
from clockwork.settings.model import RunnerSettings

log = logging.getLogger(__name__)

PAGE_ROWS_FIRST: Final = 16
"""Rows of the first page of an idle shard, besides those left out: a due row should not cost the read of a page full of
rows that are not due."""
PAGE_ROWS_MAX: Final = 500
"""Rows of a page under backlog; the store cuts it at 1 MB anyway."""
ROWS_READ_MAX: Final = 20_000
"""Rows looked at in one pass; a longer front of waiting rows is got over in several."""
FRONT_ROWS_MIN: Final = 200
"""Fewer waiting rows than this at the front are simply read again at each pass."""
UNTIDIED_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of delivered rows that are kept for their outcomes; per shard. It bounds what a new owner has to read, too."""
HOLDS_AT_ONCE: Final = 16
STAMPS_MAX: Final = 64
"""Waiting rows answered in one pass, before it delivers; the rest at the next."""
STAMP_GRACE_MS: Final = 1_000
"""How much longer than the frontier a stamped row waits: time for its canceller's next try."""
CONFLICT_WAIT_MS: Final = 50
"""When a lane whose row is in a transaction is looked at again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PassResult:
    """What a pass found, for the wait that follows."""

    fired: int
    """Rows delivered or dead-lettered."""
    more_now: bool
    """It ended at a limit, or something is to be tried again at once."""
    next_due_ms: int | None
    waits_until_ms: int | None


class ShardPass:
    """Makes passes. Holds nothing of a shard: that is the tenure's."""

    def __init__(
        self,
        store: ScheduleStore,
        delivery: Delivery,
        destination_waits: DestinationWaits,
        clock: Clock,
        trust: ClockTrust,
        telemetry: Telemetry,
        settings: RunnerSettings,
        *,
        pauses: Callable[[], Pauses] = lambda: NOTHING_PAUSED,
    ) -> None:
        self._pauses = pauses
        self._store = store
        self._delivery = delivery
        self._destination_waits = destination_waits
        self._clock = clock
        self._trust = trust
        self._telemetry = telemetry
        self._settings = settings
        self._retry = retry_policy(settings)
        self._letters = dead_letter_topics(settings)

    async def look(self, lease: ShardLease) -> int | None:
        """When the first row that is not delivered is due; None if there is none. Fires nothing, so it needs no frontier:
        an idle shard writes nothing."""
        left_out = lease.cleanup.positions()
        page = await self._store.read_page(lease.shard, after=None, rows_max=len(left_out) + 1)
        first = next((row.due_ms for row in page.rows if row.position not in left_out), None)
        now_ms = self._clock.now_ms()
        if first is None or first > now_ms:
            self._telemetry.due(lease.shard, rows=0, oldest_seconds=0.0)
        return first if first is not None or page.next_after is None else now_ms

    async def raise_frontier(self, lease: ShardLease) -> None:
        """Stores a frontier one lead ahead of now, if it is not there yet.

        Raises: Fenced, ClockUntrusted, StoreUnavailable.
        """
        if not self._trust.trusted():
            raise ClockUntrusted
        wanted_ms = self._clock.now_ms() + self._settings.frontier_lead_ms
        if lease.frontier_ms < wanted_ms:
            lease.frontier_ms = await self._store.raise_frontier(lease.shard, epoch=lease.epoch, frontier_ms=wanted_ms)

    async def wait_for_cleanup(self, lease: ShardLease, *, records_max: int) -> None:
        """Waits for the tidy-up while much is left untidied: every pass reads those rows again before it comes to new
        ones, a marker must not become too long, and memory is bounded."""
        while len(lease.cleanup) > max(1, records_max // 2) or lease.cleanup.size_bytes > UNTIDIED_BYTES_MAX:
            await lease.cleanup.progress()

    async def run_pass(self, lease: ShardLease, *, records_max: int) -> PassResult:
        """Fires what is due, at most `records_max` rows. Only after `wait_for_cleanup`.

        Raises: Fenced, DeliveryUnknown (the tenure is over), Unavailable (the tenure goes on).
        """
        if not self._trust.trusted():
            raise ClockUntrusted
        if lease.frontier_ms < self._clock.now_ms():
            await self.raise_frontier(lease)
        planner = await self._read(lease, records_max=min(records_max, ENTRIES_MAX - len(lease.cleanup)))
        await self._stamp(lease, planner.retry_marks)
        deliveries = await self._answer_holds(planner)
        fired = await self._deliver(lease, deliveries) if deliveries else 0
        self._report(lease, planner, fired)
        return PassResult(
            fired=fired,
            more_now=planner.full or fired < len(deliveries),
            next_due_ms=planner.next_due_ms,
            waits_until_ms=_earlier(planner.waits_until_ms, planner.paced_until_ms),
        )

    async def answer_wanted(self, lease: ShardLease, position: Position) -> None:
        """Somebody holds a row that waits, maybe behind the front that passes do not read: lets a cancel have it."""
        if position in lease.cleanup or not self._trust.trusted():
            return  # delivered: its outcome will answer. And a wrong clock must not say how long anything waits.
        row = (await self._store.read_rows(lease.shard, [position])).get(position)
        if not isinstance(row, Row) or row.hold is None or row.schedule.guarantee is Guarantee.AT_LEAST_ONCE:
            return
        until_ms = lease.waiting_lanes.get(row.schedule.lane)
        if until_ms is not None and row.due_ms <= lease.frontier_ms:
            # Its own back-off may be longer than what it stands behind.
            until_ms = max(until_ms, row.retry.at_ms) if row.retry is not None else until_ms
            await self._stamp(lease, [RetryMark(row=row, until_ms=until_ms)])

    async def _read(self, lease: ShardLease, *, records_max: int) -> Planner:
        """Pages from the lowest position, until enough rows that may fire, or one that is not due."""
        left_out = lease.cleanup.positions()
        now_ms = self._clock.now_ms()
        front = lease.blocked_prefix
        waits = self._destination_waits.at(now_ms)
        if front is not None and front.until_ms <= now_ms:
            front = None
        # A topic among the front may have some more: they are fetched from its lowest positions, and the front is kept.
        fetches = front is not None and not front.paced <= waits.keys()
        if fetches:
            front = None
        planner = Planner(
            bound_ms=firing_bound_ms(now_ms=now_ms, frontier_ms=lease.frontier_ms),
            epoch=lease.epoch,
            left_out=left_out,
            destination_waits=waits,
            announced_not_before_ms=self._promises(lease),
            turned_away=_turned_away(lease, left_out, now_ms=now_ms),
            letters=self._letters,
            paused=self._pauses(),
            pace=partial(self._destination_waits.pace, now_ms=now_ms),
            retry=self._retry,
            limits=BatchLimits(records_max=records_max, bytes_max=self._settings.batch_bytes_max),
        )
        if front is not None:
            planner.resume(front.lanes, until_ms=front.until_ms, rows=front.rows, oldest_due_ms=front.oldest_due_ms)
            planner.paced_until_ms = min((waits[topic].until_ms for topic in front.paced), default=None)
        after = front.last if front is not None else None
        rows_max = PAGE_ROWS_MAX if lease.backlog else min(PAGE_ROWS_MAX, PAGE_ROWS_FIRST + len(left_out))
        rows_read = 0
        while True:
            page = await self._store.read_page(lease.shard, after=after, rows_max=rows_max)
            rows_read += len(page.rows)
            if not all(planner.take(row) for row in page.rows) or page.next_after is None:
                break
            if rows_read >= ROWS_READ_MAX:
                # Got over a part of a long front; the next pass begins where this one ended.
                planner.full = True
                break
            after, rows_max = page.next_after, min(PAGE_ROWS_MAX, rows_max * 4)
        lease.backlog = planner.full
        if not (fetches and planner.full):
            self._remember_front(lease, planner, front, now_ms)
        return planner

    def _remember_front(self, lease: ShardLease, planner: Planner, before: BlockedPrefix | None, now_ms: int) -> None:
        """Ten thousand rows of a dead topic are not read at each pass: the next ones begin behind them.

        Only rows that wait (and delivered ones) may be skipped, never one that fires, since its transaction may fail.
        The front is read again when the first of its waits ends, at each scan interval, and when a wake-up tells of
        something due among it; but not before four times as long as it took to read, so that however long it is, what
        stands behind it has most of the time.

        What this costs: a schedule created with a time already past, at a position among the skipped ones, may be
        overtaken by the next of its lane until its wake-up has arrived, or until the next scan if that is lost.
        """
        lease.waiting_lanes = dict(planner.blocked)
        if planner.front_last is None or planner.front_rows < FRONT_ROWS_MIN:
            lease.blocked_prefix = before
            return
        walk_began_ms = before.walk_began_ms if before is not None else now_ms
        ended_ms = self._clock.now_ms()
        ends = [ended_ms + self._settings.scan_interval_ms]
        if planner.waits_until_ms is not None:
            ends.append(planner.waits_until_ms)
        lease.blocked_prefix = BlockedPrefix(
            last=planner.front_last,
            lanes=dict(planner.front_lanes),
            until_ms=max(min(ends), ended_ms + 1 + 4 * (ended_ms - walk_began_ms))
            if before is None or planner.full
            else before.until_ms,
            walk_began_ms=walk_began_ms,
            rows=planner.front_rows,
            oldest_due_ms=planner.oldest_due_ms,
            paced=frozenset(
                topic for topic, _ in planner.front_lanes if _is_paced(planner.destination_waits.get(topic))
            ),
        )

    def _promises(self, lease: ShardLease) -> dict[Position, int]:
        """Those that still hold anything back. Past the frontier no cancel believes a `retry` any more."""
        lease.announced_not_before_ms = {
            p: at_ms for p, at_ms in lease.announced_not_before_ms.items() if at_ms > lease.frontier_ms
        }
        return lease.announced_not_before_ms

    async def _stamp(self, lease: ShardLease, retry_marks: list[RetryMark]) -> None:
        """Tells cancels until when these held rows certainly wait."""

        async def one(stamp: RetryMark) -> None:
            attempts = stamp.row.retry.attempts if stamp.row.retry is not None else 0
            earliest_ms = max(lease.frontier_ms, self._clock.now_ms() + self._settings.frontier_lead_ms)
            at_ms = max(stamp.until_ms, earliest_ms + STAMP_GRACE_MS)
            retry = Retry(at_ms=at_ms, epoch=lease.epoch, attempts=attempts)
            lease.announced_not_before_ms[stamp.row.position] = at_ms
            try:
                await self._store.set_retry(stamp.row.name, retry, drop_hold=True)
            except TransactionConflict:
                # Its cancel is being decided at this moment; if it loses, the next pass sees the hold again.
                return

        await gather_bounded(one, retry_marks[:STAMPS_MAX], at_once=HOLDS_AT_ONCE)

    async def _answer_holds(self, planner: Planner) -> list[PlannedDelivery]:
        """Takes the hold off each row that would fire. What is left fires, in order."""
        deliveries = list(planner.deliveries)

        async def one(firing: PlannedDelivery) -> bool | None:
            try:
                return await self._store.drop_hold(firing.row.name)
            except TransactionConflict:
                return None

        held = [firing for firing in deliveries if firing.held]
        for firing, there in zip(held, await gather_bounded(one, held, at_once=HOLDS_AT_ONCE), strict=True):
            if there is None and firing.lane is not None:
                # Being decided: left for the next pass, with what stands behind it in its lane.
                deliveries = without_lane(deliveries, firing.lane, after=firing.row.position)
                planner.wait(firing.lane, self._clock.now_ms() + CONFLICT_WAIT_MS)
            elif not there:
                # Gone: its cancel or reschedule won.
                deliveries = [f for f in deliveries if f is not firing]
        return deliveries

    async def _deliver(self, lease: ShardLease, deliveries: list[PlannedDelivery]) -> int:
        """Both kinds side by side: they never share a lane (see `Planner`)."""
        exactly = [f for f in deliveries if f.guarantee is Guarantee.EXACTLY_ONCE]
        at_least = [f for f in deliveries if f.guarantee is Guarantee.AT_LEAST_ONCE]
        counts = await asyncio.gather(
            self._delivery.in_transactions(lease, exactly),
            self._delivery.lane_by_lane(lease, at_least),
            return_exceptions=True,
        )
        for count in counts:
            if isinstance(count, BaseException):
                raise count
        return sum(count for count in counts if isinstance(count, int))

    def _report(self, lease: ShardLease, planner: Planner, fired: int) -> None:
        oldest_ms = planner.oldest_due_ms
        left = max(0, planner.due_rows - fired)
        age_ms = max(0, self._clock.now_ms() - oldest_ms) if oldest_ms is not None and left else 0
        self._telemetry.due(lease.shard, rows=left, oldest_seconds=age_ms / 1_000)
        for _ in range(planner.newer_format_rows):
            self._telemetry.malformed("newer_row")
        for firing in planner.deliveries:
            if isinstance(firing.row, BrokenRow):
                self._telemetry.malformed("row")
                log.error(
                    "Row cannot be read",
                    extra={"event": "row.unreadable", "shard": lease.shard, "error": firing.row.reason},
                )


def _turned_away(lease: ShardLease, delivered: Set[Position], *, now_ms: int) -> Container[Position]:
    """What is still to be known of letters that their clients' topics refused."""
    known = lease.turned_away.items()
    lease.turned_away = {p: until_ms for p, until_ms in known if until_ms > now_ms and p not in delivered}
    return lease.turned_away


def _is_paced(wait: DestinationWait | None) -> bool:
    return wait is not None and wait.paced


def _earlier(one_ms: int | None, other_ms: int | None) -> int | None:
    return min((ms for ms in (one_ms, other_ms) if ms is not None), default=None)
