"""One pass over one shard: frontier, read, holds, deliver. Cleanup goes on beside it (docs/design.md, 5).

A row fires only from a query that began at or after its due time, and after a frontier at or past it was stored. The
rows are planned by `domain.planning`; the plan is sent by `firing.deliver_transactional` and
`firing.deliver_acknowledged`.
"""

import asyncio
import logging
from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import partial
from typing import Final

from clockwork.clock import Clock, ClockTrust
from clockwork.concurrency import gather_bounded
from clockwork.domain.marker import ENTRIES_MAX
from clockwork.domain.pauses import NOTHING_PAUSED, Pauses
from clockwork.domain.planning import BatchLimits, BlockedPrefix, PlannedDelivery, Planner, RetryMark, without_lane
from clockwork.domain.position import Position
from clockwork.domain.scanning import firing_bound_ms
from clockwork.domain.schedule import BrokenRow, Guarantee, Retry, Row
from clockwork.errors import ClockUntrusted, TransactionConflict
from clockwork.firing.dead_letters import dead_letter_topics
from clockwork.firing.deliver_acknowledged import AcknowledgedDelivery
from clockwork.firing.deliver_transactional import TransactionalDelivery
from clockwork.firing.destination_waits import DestinationWaits
from clockwork.firing.settlement import retry_policy
from clockwork.firing.takeover import ShardLease
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
"""Rows read in one pass; a longer blocked prefix is read in several passes."""
PREFIX_ROWS_MIN: Final = 200
"""A shorter blocked prefix is read again at each pass."""
CLEANUP_BYTES_MAX: Final = 8 * 1024 * 1024
"""Content of delivered rows kept for their outcomes, per shard. It bounds what a new owner has to read, too."""
HOLDS_AT_ONCE: Final = 16
"""Writes side by side to rows that bear a hold."""
RETRY_MARKS_MAX: Final = 64
"""Retry marks written in one pass, before it delivers; the others are written at the next."""
RETRY_MARK_GRACE_MS: Final = 1_000
"""Time that a marked row waits beyond the frontier, for its canceller's next try."""
CONFLICT_WAIT_MS: Final = 50
"""Delay after which a lane whose row is in a transaction is planned again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PassResult:
    """Result of a pass, for the wait that follows."""

    fired: int
    """Rows delivered, dead-lettered or dropped."""
    more_now: bool
    """It ended at a limit, or some rows are to be tried again at once."""
    next_due_ms: int | None
    waits_until_ms: int | None


class ShardPass:
    """Makes passes over shards. Keeps nothing of a shard: that is in its lease."""

    def __init__(
        self,
        store: ScheduleStore,
        transactional: TransactionalDelivery,
        acknowledged: AcknowledgedDelivery,
        destination_waits: DestinationWaits,
        clock: Clock,
        trust: ClockTrust,
        telemetry: Telemetry,
        settings: RunnerSettings,
        *,
        pauses: Callable[[], Pauses] = lambda: NOTHING_PAUSED,
    ) -> None:
        self._store = store
        self._transactional = transactional
        self._acknowledged = acknowledged
        self._destination_waits = destination_waits
        self._clock = clock
        self._trust = trust
        self._telemetry = telemetry
        self._settings = settings
        self._pauses = pauses
        self._retry = retry_policy(settings)
        self._dead_letter_topics = dead_letter_topics(settings)

    async def run(self, lease: ShardLease, *, records_max: int) -> PassResult:
        """Fires the due rows, at most `records_max`. Only after `wait_for_cleanup`.

        Raises: Fenced, DeliveryUnknown (the lease has ended), Unavailable (the lease goes on).
        """
        if not self._trust.trusted():
            raise ClockUntrusted
        if lease.frontier_ms < self._clock.now_ms():
            await self.raise_frontier(lease)
        planner = await self._read(lease, records_max=min(records_max, ENTRIES_MAX - len(lease.cleanup)))
        await self._write_retry_marks(lease, planner.retry_marks)
        deliveries = await self._drop_holds(planner)
        fired = await self._deliver(lease, deliveries) if deliveries else 0
        self._report(lease, planner, fired)
        return PassResult(
            fired=fired,
            more_now=planner.full or fired < len(deliveries),
            next_due_ms=planner.next_due_ms,
            waits_until_ms=_earlier(planner.waits_until_ms, planner.rate_limited_until_ms),
        )

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
        """Waits while many rows await cleanup: every pass reads them again before it comes to new ones, a marker must
        not become too long, and memory is bounded."""
        while len(lease.cleanup) > max(1, records_max // 2) or lease.cleanup.size_bytes > CLEANUP_BYTES_MAX:
            await lease.cleanup.wait_until_progress()

    async def first_due_ms(self, lease: ShardLease) -> int | None:
        """Due time of the first row that is not delivered; None if there is none. Fires nothing, so it needs no
        frontier: an idle shard writes nothing."""
        left_out = lease.cleanup.positions()
        page = await self._store.read_page(lease.shard, after=None, rows_max=len(left_out) + 1)
        first_ms = next((row.due_ms for row in page.rows if row.position not in left_out), None)
        now_ms = self._clock.now_ms()
        if first_ms is None or first_ms > now_ms:
            self._telemetry.due(lease.shard, rows=0, oldest_seconds=0.0)
        return first_ms if first_ms is not None or page.next_after is None else now_ms

    async def answer_wanted(self, lease: ShardLease, position: Position) -> None:
        """Writes the retry mark of a held row that waits, perhaps within the blocked prefix, which passes do not
        read: its cancel may have it then."""
        if position in lease.cleanup or not self._trust.trusted():
            return  # delivered: its outcome will answer. And a wrong clock must not announce how long a row waits.
        row = (await self._store.read_rows(lease.shard, [position])).get(position)
        if not isinstance(row, Row) or row.hold is None or row.schedule.guarantee is Guarantee.AT_LEAST_ONCE:
            return
        until_ms = lease.blocked_lanes.get(row.schedule.lane)
        if until_ms is not None and row.due_ms <= lease.frontier_ms:
            # The row's own back-off may be longer than that of its lane.
            until_ms = max(until_ms, row.retry.at_ms) if row.retry is not None else until_ms
            await self._write_retry_marks(lease, [RetryMark(row=row, until_ms=until_ms)])

    # --- read and plan

    async def _read(self, lease: ShardLease, *, records_max: int) -> Planner:
        """Plans pages from the lowest position, until enough rows fire or one is not due."""
        left_out = lease.cleanup.positions()
        now_ms = self._clock.now_ms()
        planner = self._new_planner(lease, left_out, now_ms=now_ms, records_max=records_max)
        prefix = lease.blocked_prefix
        if prefix is not None and prefix.until_ms <= now_ms:
            prefix = None
        # A rate-limited destination in the skipped prefix has tokens again: re-read from the start without dropping the
        # cached prefix.
        rereads = prefix is not None and not prefix.rate_limited <= planner.destination_waits.keys()
        if rereads:
            prefix = None
        if prefix is not None:
            planner.skip(prefix)
        after = prefix.last if prefix is not None else None
        rows_max = PAGE_ROWS_MAX if lease.backlog else min(PAGE_ROWS_MAX, PAGE_ROWS_FIRST + len(left_out))
        rows_read = 0
        while True:
            page = await self._store.read_page(lease.shard, after=after, rows_max=rows_max)
            rows_read += len(page.rows)
            if not all(planner.add(row) for row in page.rows) or page.next_after is None:
                break
            if rows_read >= ROWS_READ_MAX:
                # A part of a long blocked prefix; the next pass begins behind it.
                planner.full = True
                break
            after, rows_max = page.next_after, min(PAGE_ROWS_MAX, rows_max * 4)
        lease.backlog = planner.full
        if not (rereads and planner.full):
            self._remember_blocked(lease, planner, prefix, now_ms)
        return planner

    def _new_planner(self, lease: ShardLease, left_out: Set[Position], *, now_ms: int, records_max: int) -> Planner:
        self._forget_ended_waits(lease, left_out, now_ms)
        return Planner(
            bound_ms=firing_bound_ms(now_ms=now_ms, frontier_ms=lease.frontier_ms),
            epoch=lease.epoch,
            left_out=left_out,
            destination_waits=self._destination_waits.at(now_ms),
            dead_letter_topics=self._dead_letter_topics,
            retry=self._retry,
            limits=BatchLimits(records_max=records_max, bytes_max=self._settings.batch_bytes_max),
            announced_not_before_ms=lease.announced_not_before_ms,
            rejected_by_client_topic=lease.fallback_until_ms,
            paused=self._pauses(),
            take_token=partial(self._destination_waits.take_token, now_ms=now_ms),
        )

    def _forget_ended_waits(self, lease: ShardLease, left_out: Set[Position], now_ms: int) -> None:
        # Past the frontier no cancel believes a retry mark any more.
        announced, frontier_ms = lease.announced_not_before_ms.items(), lease.frontier_ms
        lease.announced_not_before_ms = {p: at_ms for p, at_ms in announced if at_ms > frontier_ms}
        fallbacks = lease.fallback_until_ms.items()
        lease.fallback_until_ms = {p: ms for p, ms in fallbacks if ms > now_ms and p not in left_out}

    def _remember_blocked(self, lease: ShardLease, planner: Planner, before: BlockedPrefix | None, now_ms: int) -> None:
        """Remembers the blocked lanes, and the blocked prefix if it is long: ten thousand rows of a dead topic are
        not read at each pass, the next passes begin behind them.

        Only rows that wait (and delivered ones) may be skipped, never one that fires, since its transaction may fail.
        The prefix is read again when the first of its waits ends, at each scan interval, and when a wake-up tells of
        a row due within it; but not before four times as long as it took to read, so that however long it is, the
        rows behind it have most of the time.

        The price: a schedule created with a time already past, at a position within the prefix, may be overtaken by
        the next one of its lane until its wake-up arrives, or until the next scan if that is lost.
        """
        lease.blocked_lanes = dict(planner.blocked)
        if planner.prefix_last is None or planner.prefix_rows < PREFIX_ROWS_MIN:
            lease.blocked_prefix = before
            return
        read_since_ms = before.read_since_ms if before is not None else now_ms
        read_until_ms = self._clock.now_ms()
        if before is None or planner.full:
            scan_ms = read_until_ms + self._settings.scan_interval_ms
            ends_ms = min(scan_ms, planner.waits_until_ms) if planner.waits_until_ms is not None else scan_ms
            until_ms = max(ends_ms, read_until_ms + 1 + 4 * (read_until_ms - read_since_ms))
        else:
            until_ms = before.until_ms
        waits = planner.destination_waits
        destinations = {destination for destination, _ in planner.prefix_lanes}
        lease.blocked_prefix = BlockedPrefix(
            last=planner.prefix_last,
            lanes=dict(planner.prefix_lanes),
            until_ms=until_ms,
            read_since_ms=read_since_ms,
            rows=planner.prefix_rows,
            oldest_due_ms=planner.oldest_due_ms,
            rate_limited=frozenset(each for each in destinations if each in waits and waits[each].rate_limited),
        )

    # --- holds

    async def _write_retry_marks(self, lease: ShardLease, marks: list[RetryMark]) -> None:
        """Announces to cancels until when these held rows certainly wait, and drops their holds."""

        async def one(mark: RetryMark) -> None:
            attempts = mark.row.retry.attempts if mark.row.retry is not None else 0
            earliest_ms = max(lease.frontier_ms, self._clock.now_ms() + self._settings.frontier_lead_ms)
            at_ms = max(mark.until_ms, earliest_ms + RETRY_MARK_GRACE_MS)
            retry = Retry(at_ms=at_ms, epoch=lease.epoch, attempts=attempts)
            lease.announced_not_before_ms[mark.row.position] = at_ms
            try:
                await self._store.set_retry(mark.row.name, retry, drop_hold=True)
            except TransactionConflict:
                # Its cancel is being decided at this moment; if it loses, the next pass sees the hold again.
                return

        await gather_bounded(one, marks[:RETRY_MARKS_MAX], at_once=HOLDS_AT_ONCE)

    async def _drop_holds(self, planner: Planner) -> list[PlannedDelivery]:
        """Drops the hold of each row that would fire. Returns the deliveries that remain, in order."""
        deliveries = list(planner.deliveries)

        async def one(planned: PlannedDelivery) -> bool | None:
            try:
                return await self._store.drop_hold(planned.row.name)
            except TransactionConflict:
                return None

        held = [planned for planned in deliveries if planned.held]
        for planned, there in zip(held, await gather_bounded(one, held, at_once=HOLDS_AT_ONCE), strict=True):
            if there is None and planned.lane is not None:
                # Being decided: left for the next pass, with the rows behind it in its lane.
                deliveries = without_lane(deliveries, planned.lane, after=planned.row.position)
                planner.block(planned.lane, self._clock.now_ms() + CONFLICT_WAIT_MS)
            elif not there:
                # Gone: its cancel or reschedule won.
                deliveries = [each for each in deliveries if each is not planned]
        return deliveries

    # --- deliver

    async def _deliver(self, lease: ShardLease, deliveries: list[PlannedDelivery]) -> int:
        """Delivers both guarantees side by side: they never share a lane (see `Planner`). Returns how many rows
        ended."""
        exactly_once = [each for each in deliveries if each.guarantee is Guarantee.EXACTLY_ONCE]
        at_least_once = [each for each in deliveries if each.guarantee is Guarantee.AT_LEAST_ONCE]
        counts = await asyncio.gather(
            self._transactional.deliver(lease, exactly_once),
            self._acknowledged.deliver(lease, at_least_once),
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
        for planned in planner.deliveries:
            if isinstance(planned.row, BrokenRow):
                self._telemetry.malformed("row")
                log.error(
                    "Row cannot be read",
                    extra={"event": "row.unreadable", "shard": lease.shard, "error": planned.row.reason},
                )


def _earlier(one_ms: int | None, other_ms: int | None) -> int | None:
    return min((ms for ms in (one_ms, other_ms) if ms is not None), default=None)
