"""One pass over one shard: frontier, read, holds, and the hand-over to delivery. It waits for no delivery: rows that it
hands over are in flight, and the next passes leave them out (docs/design.md, 5).

A row fires only from a query that began at or after its due time, and after a frontier at or past it was stored. The rows
are planned by `domain.planning`; `firing.group_commit` and `firing.deliver_acknowledged` take them.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Final, Protocol

from clockwork.clock import Clock, ClockTrust
from clockwork.concurrency import gather_bounded
from clockwork.domain.pauses import NOTHING_PAUSED, Pauses
from clockwork.domain.planning import (
    ROOM_ROWS,
    SLOW_AFTER_MS,
    BatchLimits,
    BlockedPrefix,
    PlannedDelivery,
    Planner,
    RetryMark,
    announced_at_ms,
    earlier,
    lowest_positions,
    retry_applies,
    without_lanes,
)
from clockwork.domain.position import Position, due_ms_of
from clockwork.domain.scanning import firing_bound_ms
from clockwork.domain.schedule import (
    POINTER_PUSH_AFTER_MS,
    BrokenRow,
    Guarantee,
    Retry,
    Row,
    pointer_expiry_s,
)
from clockwork.errors import ClockUntrusted, StoreUnavailable, TransactionConflict
from clockwork.firing.dead_letters import dead_letter_topics
from clockwork.firing.destination_waits import DestinationWaits
from clockwork.firing.lease import ShardLease
from clockwork.firing.settlement import retry_policy
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
"""A shorter blocked prefix is read again at each pass: it costs no more than one page."""
STORED_WITHIN_MS: Final = 5_000
"""Time within which an accepted schedule is stored, counted from its position's own time; with some left for clocks."""
CLEANUP_BYTES_MAX: Final = 8 * 1024 * 1024
"""Content of rows in flight, and of delivered rows kept for their outcomes, per shard. It bounds what a new owner has to
read, too."""
HOLDS_AT_ONCE: Final = 16
"""Writes side by side to rows that bear a hold."""
RETRY_MARKS_MAX: Final = 64
"""Retry marks written in one pass, before it delivers; the others are written at the next."""
RETRY_MARK_GRACE_MS: Final = 1_000
"""Time that a marked row waits beyond the frontier, for its canceller's next try."""
CONFLICT_WAIT_MS: Final = 50
"""Delay after which a lane is planned again whose row is in a transaction, or whose hold could not be dropped."""
PUSHES_MAX: Final = 100
"""Pointers that get a later expiry in one pass. They have forty days for it."""
PUSHES_S: Final = 1.0
"""Time for these, after the hand-over: the next pass waits for them."""
PUSHED_MAX: Final = 50_000
"""Number of pushed pointers that are remembered. The oldest ones are forgotten; to push such a pointer again costs a
write."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PassResult:
    """Result of a pass, for the wait that follows."""

    fired: int
    """Rows handed over, to be delivered, dead-lettered or dropped."""
    more_now: bool
    """It ended at a limit, or some rows are to be tried again at once."""
    next_due_ms: int | None
    waits_until_ms: int | None


class Delivery(Protocol):
    """Takes rows over: `GroupCommit` or `AcknowledgedDelivery`."""

    def enqueue(self, lease: ShardLease, deliveries: Sequence[PlannedDelivery]) -> None:
        """Marks the rows as in flight and returns at once."""
        ...


class ShardPass:
    """Makes passes over shards. Keeps nothing of a shard: that is in its lease."""

    def __init__(
        self,
        store: ScheduleStore,
        transactional: Delivery,
        acknowledged: Delivery,
        destination_waits: DestinationWaits,
        clock: Clock,
        trust: ClockTrust,
        telemetry: Telemetry,
        settings: RunnerSettings,
        *,
        pauses: Callable[[], Pauses] = lambda: NOTHING_PAUSED,
        prefix_rows_min: int = PREFIX_ROWS_MIN,
    ) -> None:
        """`prefix_rows_min`: a shorter blocked prefix is not cached. The simulation sets it to 1, to meet the rules of the
        cached prefix with a few rows."""
        self._store = store
        self._transactional = transactional
        self._acknowledged = acknowledged
        self._destination_waits = destination_waits
        self._clock = clock
        self._trust = trust
        self._telemetry = telemetry
        self._settings = settings
        self._pauses = pauses
        self._prefix_rows_min = prefix_rows_min
        self._retry = retry_policy(settings)
        self._dead_letter_topics = dead_letter_topics(settings)

    def has_room(self, lease: ShardLease) -> bool:
        """True if the shard may have more rows in flight or awaiting cleanup. If not, only its own passes wait, until rows
        have landed or are deleted: until then each landing calls `on_landing`."""
        rows = len(lease.in_flight) + len(lease.cleanup)
        room = rows < ROOM_ROWS and self._bytes_kept(lease) < CLEANUP_BYTES_MAX
        if not room:
            lease.in_flight.awaited = True
        return room

    async def run(self, lease: ShardLease, *, records_max: int) -> PassResult:
        """Hands over the due rows, at most `records_max` and as many as there is room for. One pass of a shard at a time,
        and only if it `has_room`.

        Raises: Fenced, Unavailable (nothing was handed over).
        """
        if not self._trust.trusted():
            raise ClockUntrusted
        await lease.incarnation.cover_now()
        in_flight = lease.in_flight.positions()
        planner, old_rows = await self._read(lease, records_max=records_max)
        await self._write_retry_marks(lease, planner.retry_marks)
        deliveries = await self._drop_holds(planner)
        if self._passed_over(lease, planner.skipped):
            # The plan is thrown away: a new row may stand before these rows in their lanes, where this pass did not
            # read.
            return PassResult(fired=0, more_now=True, next_due_ms=None, waits_until_ms=None)
        self._hand_over(lease, deliveries)
        lease.in_flight.awaited = planner.awaits_landing or not self.has_room(lease)
        lease.in_flight.awaited_share = planner.awaits_share
        self._report(lease, planner, deliveries)
        await self._push_pointers(lease, old_rows)
        return PassResult(
            fired=len(deliveries),
            more_now=planner.full
            or (planner.awaits_landing and self._landings_missed(lease, in_flight))
            or lease.in_flight.share_is_free,
            next_due_ms=planner.next_due_ms,
            waits_until_ms=earlier(planner.waits_until_ms, planner.rate_limited_until_ms),
        )

    async def first_due_ms(self, lease: ShardLease) -> int | None:
        """Due time of the first row that is neither delivered nor in flight; None if there is none. Fires nothing, so it
        needs no frontier: an idle shard writes nothing."""
        left_out = lease.cleanup.positions() | lease.in_flight.positions()
        now_ms = self._clock.now_ms()
        page = await self._store.read_page(lease.shard, after=None, rows_max=len(left_out) + 1, due_ms_max=now_ms)
        first_ms = next((row.due_ms for row in page.rows if row.position not in left_out), None)
        if first_ms is None or first_ms > now_ms:
            self._telemetry.due(lease.shard, rows=0, oldest_seconds=0.0)
        return first_ms if first_ms is not None or page.next_after is None else now_ms

    async def answer_wanted(self, lease: ShardLease, position: Position) -> None:
        """Writes the retry mark of a held row that waits, perhaps within the blocked prefix, which passes do not
        read, or behind rows in flight: its cancel may have it then. Not during a pass, which may be about to fire it."""
        if position in lease.cleanup or position in lease.in_flight or not self._trust.trusted():
            # The row is sent, or about to be, so its outcome will be the answer. And a wrong clock must announce no wait.
            return
        row = (await self._store.read_rows(lease.shard, [position])).get(position)
        if not isinstance(row, Row) or row.hold is None or row.schedule.guarantee is Guarantee.AT_LEAST_ONCE:
            return
        if row.is_watchdog:
            return  # it waits for no lane, so no time can be announced for it
        until_ms = self._waits_until_ms(lease, row)
        if until_ms is not None and row.due_ms <= lease.frontier_ms:
            await self._write_retry_marks(lease, [RetryMark(row=row, until_ms=until_ms)])

    def _waits_until_ms(self, lease: ShardLease, row: Row) -> int | None:
        """Time until which a row waits, as far as it is known; None if its lane does not wait."""
        lane, now_ms = row.schedule.lane, self._clock.now_ms()
        until_ms = lease.blocked_lanes.get(lane)
        if until_ms is None and lease.blocked_prefix is not None:
            until_ms = lease.blocked_prefix.blocked_until_ms(lane)
        if until_ms is None and lease.in_flight.blocks(lane):
            until_ms = now_ms
        retry = row.retry
        if until_ms is None or retry is None:
            return until_ms
        # The row's own back-off may be longer than that of its lane.
        applies = retry_applies(row, retry, epoch=lease.epoch, now_ms=now_ms, policy=self._retry)
        return max(until_ms, retry.at_ms) if applies else until_ms

    # --- read and plan

    async def _read(self, lease: ShardLease, *, records_max: int) -> tuple[Planner, list[Row | BrokenRow]]:
        """Plans pages from the lowest position, until enough rows fire or one is not due. Returns also the rows whose
        pointers are to be pushed."""
        now_ms = self._clock.now_ms()
        lease.woken_due_ms = None
        planner = self._new_planner(lease, now_ms=now_ms, records_max=records_max)
        prefix = lease.blocked_prefix
        if prefix is not None and (prefix.until_ms <= now_ms or not prefix.awaits <= planner.lanes_in_flight):
            prefix = None
        # A destination of the skipped prefix goes on (it has tokens again, its back-off has ended, its rows have landed):
        # re-read from the start without dropping the cached prefix.
        rereads = prefix is not None and not all(map(planner.waits_as_a_whole, prefix.destinations))
        if prefix is not None and not rereads:
            planner.skip(prefix)
        after = planner.prefix_last
        old_rows: list[Row | BrokenRow] = []
        rows_max = PAGE_ROWS_MAX if lease.backlog else min(PAGE_ROWS_MAX, PAGE_ROWS_FIRST + len(planner.left_out))
        rows_read = 0
        while True:
            page = await self._store.read_page(lease.shard, after=after, rows_max=rows_max, due_ms_max=planner.bound_ms)
            rows_read += len(page.rows)
            old_rows += self._to_push(lease, page.rows, planner.left_out, now_ms, at_most=PUSHES_MAX - len(old_rows))
            if not all(planner.add(row) for row in page.rows) or page.next_after is None:
                break
            if rows_read >= ROWS_READ_MAX and planner.prefix_last == page.rows[-1].position:
                # A part of a long blocked prefix; the next pass begins behind it.
                planner.full = True
                break
            after, rows_max = page.next_after, min(PAGE_ROWS_MAX, rows_max * 4)
        lease.backlog = planner.full or planner.awaits_landing or planner.awaits_share is not None
        lease.blocked_lanes = planner.blocked | dict.fromkeys(planner.lanes_awaiting, planner.bound_ms)
        if not (rereads and planner.full and planner.deliveries):
            self._remember_prefix(lease, planner, now_ms)
        return planner, old_rows

    def _new_planner(self, lease: ShardLease, *, now_ms: int, records_max: int) -> Planner:
        """A planner with the state of now, before the Query is sent: the answer may still contain a row that meanwhile
        has landed and is deleted (docs/protocol.md: x-late-exclude)."""
        in_flight = lease.in_flight
        left_out = lease.cleanup.positions() | in_flight.positions()
        self._forget_ended_waits(lease, left_out, now_ms)
        topics = in_flight.topics()
        slow_before_s = asyncio.get_running_loop().time() - SLOW_AFTER_MS / 1_000
        stuck = frozenset(topic for topic, state in topics.items() if state.last_progress_s <= slow_before_s)
        rows_left = max(0, ROOM_ROWS - len(left_out))
        bytes_left = max(0, CLEANUP_BYTES_MAX - self._bytes_kept(lease))
        return Planner(
            bound_ms=firing_bound_ms(now_ms=now_ms, frontier_ms=lease.frontier_ms),
            epoch=lease.epoch,
            left_out=left_out,
            destination_waits=self._destination_waits.at(now_ms),
            dead_letter_topics=self._dead_letter_topics,
            retry=self._retry,
            limits=BatchLimits(
                records_max=min(records_max, rows_left), bytes_max=min(self._settings.batch_bytes_max, bytes_left)
            ),
            lanes_in_flight=in_flight.lanes(),
            rows_in_flight={topic: state.rows for topic, state in topics.items()},
            slow=stuck | self._destination_waits.probed(now_ms),
            prefix_due_ms_max=now_ms - self._settings.scan_interval_ms - STORED_WITHIN_MS,
            announced_not_before_ms=lease.announced_not_before_ms,
            rejected_by_client_topic=lease.fallback_until_ms,
            paused=self._pauses(),
            take_token=partial(self._destination_waits.take_token, now_ms=now_ms),
        )

    def _bytes_kept(self, lease: ShardLease) -> int:
        return lease.in_flight.size_bytes + lease.cleanup.size_bytes

    def _forget_ended_waits(self, lease: ShardLease, left_out: Set[Position], now_ms: int) -> None:
        # Past the frontier no cancel believes a retry mark any more.
        announced, frontier_ms = lease.announced_not_before_ms.items(), lease.frontier_ms
        lease.announced_not_before_ms = {p: at_ms for p, at_ms in announced if at_ms > frontier_ms}
        fallbacks = lease.fallback_until_ms.items()
        lease.fallback_until_ms = {p: ms for p, ms in fallbacks if ms > now_ms and p not in left_out}

    def _remember_prefix(self, lease: ShardLease, planner: Planner, now_ms: int) -> None:
        """Remembers the blocked prefix if it is long: ten thousand rows of a dead topic are not read at each pass, the next
        passes begin behind them.

        Only rows that wait (and delivered ones) may be skipped, never one that fires, since its transaction may fail. And
        only rows that were due at least the scan interval and `STORED_WITHIN_MS` before they were read: a schedule that
        was created "due now" at that time, and one that is created later, stands behind them. (A prefix up to now was
        overtaken by creates of the last seconds.)

        The prefix is read again when the first wait of its lanes ends, at each scan interval, and when a wake-up tells of
        a row due within it (`ShardLease.open_prefix`).

        The price: a schedule stored with a time further back than that may be overtaken by the next one of its lane until
        its wake-up arrives, or until the next scan if that is lost. If reading the prefix takes longer than a quarter of
        the scan interval, until four times as long: however long it is, the rows behind it have most of the time.
        """
        before, last = planner.skipped, planner.prefix_last
        lease.blocked_prefix = None
        if last is None or planner.prefix_rows < self._prefix_rows_min:
            return
        if lease.woken_due_ms is not None and lease.woken_due_ms <= due_ms_of(last):
            return  # the new row may have been stored behind this pass's back
        if before is None:
            scan_ms = self._clock.now_ms() + self._settings.scan_interval_ms
            before = BlockedPrefix(
                last=last, lanes={}, until_ms=scan_ms, read_since_ms=now_ms, rows=0, oldest_due_ms=None
            )
        before.lanes.update(planner.prefix_lanes)
        before.destinations.update(planner.prefix_destinations)
        before.awaits.update(planner.prefix_awaits)
        until_ms = earlier(before.until_ms, planner.prefix_until_ms) or before.until_ms
        if planner.full:
            # More of it follows.
            read_until_ms = self._clock.now_ms()
            until_ms = max(until_ms, read_until_ms + 1 + 4 * (read_until_ms - before.read_since_ms))
        lease.blocked_prefix = replace(
            before, last=last, until_ms=until_ms, rows=planner.prefix_rows, oldest_due_ms=planner.oldest_due_ms
        )

    def _passed_over(self, lease: ShardLease, skipped: BlockedPrefix | None) -> bool:
        """True if a wake-up that came since the pass began to read tells of a row within the prefix that it skipped."""
        woken_ms = lease.woken_due_ms
        return skipped is not None and woken_ms is not None and woken_ms <= due_ms_of(skipped.last)

    # --- holds

    async def _write_retry_marks(self, lease: ShardLease, marks: list[RetryMark]) -> None:
        """Announces to cancels until when these held rows certainly wait, and drops their holds."""

        async def one(mark: RetryMark) -> None:
            row = mark.row
            frontier_ms = max(
                lease.incarnation.frontier_sent_ms, self._clock.now_ms() + self._settings.frontier_lead_ms
            )
            at_ms = announced_at_ms(
                row,
                max(mark.until_ms, frontier_ms + RETRY_MARK_GRACE_MS),
                epoch=lease.epoch,
                announced_not_before_ms=lease.announced_not_before_ms,
            )
            lease.announced_not_before_ms[row.position] = at_ms
            before = row.retry if row.retry is not None else Retry(at_ms=0, epoch=0, attempts=0)
            retry = replace(before, at_ms=at_ms, epoch=lease.epoch)
            try:
                await self._store.set_retry(row.name, retry, drop_hold=True)
            except (TransactionConflict, StoreUnavailable):
                # Its cancel is being decided at this moment, or the row's own place in the store is throttled. The row
                # keeps to the announced time; the next pass sees the hold again. No other row waits for this one.
                return

        await gather_bounded(one, marks[:RETRY_MARKS_MAX], at_once=HOLDS_AT_ONCE)

    async def _drop_holds(self, planner: Planner) -> list[PlannedDelivery]:
        """Drops the hold of each row that would fire. Returns the deliveries that remain, in order."""

        async def one(planned: PlannedDelivery) -> bool | None:
            try:
                return await self._store.drop_hold(planned.row.name)
            except (TransactionConflict, StoreUnavailable):
                return None

        held = [planned for planned in planner.deliveries if planned.held]
        if not held:
            return planner.deliveries
        there = await gather_bounded(one, held, at_once=HOLDS_AT_ONCE)
        # The row is gone: its cancel or reschedule won.
        gone = {planned.row.position for planned, answer in zip(held, there, strict=True) if answer is False}
        # Its cancel is being decided, or the write has no known outcome: the row is left for the next pass, with the
        # rows behind it in its lane.
        undecided = [planned for planned, answer in zip(held, there, strict=True) if answer is None]
        for planned in undecided:
            if planned.lane is not None:
                planner.block(planned.lane, self._clock.now_ms() + CONFLICT_WAIT_MS)
        left = [planned for planned in planner.deliveries if planned.row.position not in gone]
        without_lane = {planned.row.position for planned in undecided if planned.lane is None}
        return without_lanes(left, lowest_positions(undecided), rows=without_lane)

    # --- hand over

    def _landings_missed(self, lease: ShardLease, in_flight: Set[Position]) -> bool:
        """True if the rows that wait for these may wait in vain for a landing: rows have landed since the pass began,
        when `awaited` was not set yet, or no row is in flight any more."""
        return not len(lease.in_flight) or any(position not in lease.in_flight for position in in_flight)

    def _hand_over(self, lease: ShardLease, deliveries: list[PlannedDelivery]) -> None:
        """Hands each row to the delivery of its guarantee; they never share a lane (see `Planner`). Rows that are dropped
        for lateness and unreadable ones end by a marker, whatever their guarantee."""
        exactly_once = [each for each in deliveries if each.guarantee is Guarantee.EXACTLY_ONCE]
        at_least_once = [each for each in deliveries if each.guarantee is Guarantee.AT_LEAST_ONCE]
        if exactly_once:
            self._transactional.enqueue(lease, exactly_once)
        if at_least_once:
            self._acknowledged.enqueue(lease, at_least_once)

    # --- pointers of rows that wait for weeks

    def _to_push(
        self,
        lease: ShardLease,
        rows: Sequence[Row | BrokenRow],
        left_out: Set[Position],
        now_ms: int,
        *,
        at_most: int,
    ) -> list[Row | BrokenRow]:
        """The rows whose pointers get a later expiry now. A pointer must outlive its row: the key of a row without one looks
        free, and is unknown to its cancel (docs/design.md, 3)."""
        old_ms = now_ms - POINTER_PUSH_AFTER_MS
        if not rows or rows[0].due_ms > old_ms:
            return []
        pushed = lease.pointer_pushed_ms
        old = (
            row
            for row in rows
            if row.due_ms <= old_ms
            and row.name.client_id is not None
            and not row.of_job
            and row.position not in left_out
            and pushed.get(row.position, 0) <= old_ms
        )
        return list(islice(old, at_most))

    async def _push_pointers(self, lease: ShardLease, rows: list[Row | BrokenRow]) -> None:
        """Sets the expiry of these rows' pointers anew. Raises nothing: a push that fails is made by a later pass."""
        if not rows:
            return

        async def one(row: Row | BrokenRow) -> None:
            now_ms = self._clock.now_ms()
            expires_at_s = pointer_expiry_s(due_ms=row.due_ms, at_ms=now_ms, retention_ms=self._settings.retention_ms)
            try:
                await self._store.push_pointer_expiry(row.name, expires_at_s=expires_at_s)
            except (StoreUnavailable, TransactionConflict) as error:
                log.warning(
                    "Pointer not pushed",
                    extra={
                        "event": "pointer.not_pushed",
                        "shard": lease.shard,
                        "error": str(error),
                        "once_per": "pointer",
                    },
                )
                return
            lease.pointer_pushed_ms.pop(row.position, None)
            lease.pointer_pushed_ms[row.position] = now_ms

        try:
            async with asyncio.timeout(PUSHES_S):
                await gather_bounded(one, rows, at_once=HOLDS_AT_ONCE)
        except TimeoutError:
            log.warning(
                "Pointers not pushed in time",
                extra={"event": "pointer.pushes_late", "shard": lease.shard, "once_per": "pointer"},
            )
        while len(lease.pointer_pushed_ms) > PUSHED_MAX:
            del lease.pointer_pushed_ms[next(iter(lease.pointer_pushed_ms))]

    # --- report

    def _report(self, lease: ShardLease, planner: Planner, deliveries: Sequence[PlannedDelivery]) -> None:
        fired = sum(not each.is_watchdog for each in deliveries)
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
