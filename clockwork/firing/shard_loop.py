"""The loop of one owned shard: pass after pass, with waits in between.

    ┌── wait: next row, wake-up, scan, rows that land ◄──┐
    ▼                                                    │
    pass ── unavailable, or a defect: back off ──────────┘

It ends when it is told to stop, or with `Fenced`: the incarnation is over then, with all its shards.
"""

import asyncio
import logging
from functools import partial
from typing import Final

from clockwork.concurrency import Backoff, gather_bounded
from clockwork.domain.position import Position
from clockwork.domain.retry import BackoffPolicy
from clockwork.domain.scanning import next_pass, scan_after
from clockwork.domain.wakeup import NewlyDue, WakeUp, Wanted
from clockwork.errors import Fenced, Unavailable
from clockwork.firing.context import FiringContext
from clockwork.firing.lease import ShardLease
from clockwork.firing.shard_pass import ShardPass

log = logging.getLogger(__name__)

PASS_BACKOFF: Final = BackoffPolicy(initial_ms=50, max_ms=2_000)
"""The maximum is low: after an outage the waits add up, and one request a second for each shard is little to the broker
and the store."""
SCAN_PAST_MAX: Final = 20
"""A scan reads past the rows that await cleanup or are in flight; if there are more than these, it is put off."""
SCAN_PUT_OFF_MS: Final = 250
SCAN_PUT_OFF_MS_MAX: Final = 1_000
"""Longest time for which a scan is put off: otherwise, while the cleanup of rows is throttled for hours, a row whose
wake-up was lost would not be found for as long."""
WANTED_AT_ONCE: Final = 16
"""Wanted rows that are answered side by side."""
WANTED_MAX: Final = 64
"""Wanted rows kept for the next round; for others, their cancels ask again at their next try."""


class ShardLoop:
    """Works one shard of an incarnation until it is told to stop."""

    def __init__(
        self, context: FiringContext, lease: ShardLease, shard_pass: ShardPass, passes: asyncio.Semaphore
    ) -> None:
        """`passes` bounds the passes of the process, over all its shards."""
        self.lease = lease
        self._shard_pass = shard_pass
        self._passes = passes
        self._clock = context.clock
        self._settings = context.settings
        self._attention = asyncio.Event()
        self._stopping = False
        self._next_ms: int | None = self._clock.now_ms()
        self._scan_at_ms = self._clock.now_ms()
        self._scan_latest_ms = self._scan_at_ms
        self._hint_ms: int | None = None
        self._wanted: dict[Position, None] = {}
        self._backoff = Backoff(context.rng, PASS_BACKOFF)
        lease.in_flight.on_landing = self._landed

    def tell(self, wakeup: WakeUp) -> None:
        """Records a wake-up; returns at once."""
        match wakeup:
            case NewlyDue(due_ms):
                # At once, not between passes: a pass that waits for its turn or for its page would begin behind the new
                # row, and fire the next row of its lane.
                self.lease.open_prefix(due_ms)
                if self._hint_ms is None or due_ms < self._hint_ms:
                    self._hint_ms = due_ms
                    self._attention.set()
            case Wanted(position):
                if len(self._wanted) < WANTED_MAX:
                    self._wanted[position] = None
                    self._attention.set()

    def stop(self) -> None:
        """Lets `run` return when the pass under way is done; returns at once."""
        self._stopping = True
        self._attention.set()

    async def run(self) -> None:
        """Waits and passes in turn, until stopped or cancelled. Raises: Fenced."""
        lease = self.lease
        while not self._stopping:
            try:
                await self._answer_wanted()
                self._take_hint()
                now_ms = self._clock.now_ms()
                if self._next_ms is not None and self._next_ms <= now_ms:
                    await self._pass(now_ms)
                elif (
                    self._scan_at_ms <= now_ms < self._scan_latest_ms
                    and len(lease.cleanup) + len(lease.in_flight) > SCAN_PAST_MAX
                ):
                    self._scan_at_ms = now_ms + SCAN_PUT_OFF_MS
                elif self._scan_at_ms <= now_ms:
                    found_ms = await self._shard_pass.first_due_ms(lease)
                    # A wake-up's time is kept beside this one: it may be the time of rows that wait for their lanes.
                    known = [ms for ms in (self._next_ms, found_ms) if ms is not None]
                    self._next_ms = min(known, default=None)
                    self._plan_scan(now_ms)
                else:
                    await self._wait()
            except Fenced:
                raise
            except Unavailable as error:
                self._log_failure("Shard waits", "shard.waits", error)
                await self._pause(self._backoff.next_wait_s())
            except Exception:
                # One row that a defect makes unfit must not stop the other shards of the process, so the incarnation goes
                # on. Nothing of this shard is lost: rows are in flight only once delivery has them.
                log.exception("Pass failed", extra={"event": "shard.failed", "shard": lease.shard})
                await self._pause(self._backoff.next_wait_s())
            else:
                self._backoff.reset()

    async def _pass(self, now_ms: int) -> None:
        if not self._shard_pass.has_room(self.lease):
            # Rows that land or are deleted may make a pass due.
            self.lease.in_flight.awaited = True
            self._next_ms = now_ms + self._settings.scan_interval_ms
            return
        async with self._passes:
            result = await self._shard_pass.run(self.lease, records_max=self._settings.batch_records_max)
        known = [ms for ms in (result.next_due_ms, result.waits_until_ms) if ms is not None]
        self._next_ms = now_ms if result.more_now else min(known, default=None)
        self._plan_scan(now_ms)

    def _plan_scan(self, now_ms: int) -> None:
        self._scan_at_ms = scan_after(now_ms, scan_interval_ms=self._settings.scan_interval_ms)
        self._scan_latest_ms = self._scan_at_ms + SCAN_PUT_OFF_MS_MAX

    async def _wait(self) -> None:
        """Waits until the next known row, the scan or a wake-up; raises the frontier on the way."""
        now_ms = self._clock.now_ms()
        wait = next_pass(
            now_ms=now_ms,
            scan_interval_ms=self._scan_at_ms - now_ms,
            frontier_ms=self.lease.frontier_ms,
            lead_ms=self._settings.frontier_lead_ms,
            next_due_ms=self._next_ms,
        )
        if wait.frontier_at_ms is not None:
            if await self._woken_before(wait.frontier_at_ms):
                return
            if self.lease.frontier_ms < wait.at_ms:
                await self.lease.incarnation.raise_frontier()
        await self._woken_before(wait.at_ms)

    async def _woken_before(self, at_ms: int) -> bool:
        """Waits until that time. True: a wake-up, landing rows or a stop came first."""
        try:
            async with asyncio.timeout(max(0, at_ms - self._clock.now_ms()) / 1_000):
                await self._attention.wait()
        except TimeoutError:
            return False
        self._attention.clear()
        return True

    async def _answer_wanted(self) -> None:
        # Once a round: rows that are wanted meanwhile wait for the next round, so that cancels never hold up the
        # firing.
        wanted, self._wanted = self._wanted, {}
        await gather_bounded(partial(self._shard_pass.answer_wanted, self.lease), wanted, at_once=WANTED_AT_ONCE)

    def _take_hint(self) -> None:
        hint_ms, self._hint_ms = self._hint_ms, None
        if hint_ms is not None:
            self._next_ms = hint_ms if self._next_ms is None else min(self._next_ms, hint_ms)

    def _landed(self) -> None:
        """Records that a pass is due now: rows have left flight or were deleted, and others waited for that."""
        self._hint_ms = min(self._clock.now_ms(), self._hint_ms or self._clock.now_ms())
        self._attention.set()

    async def _pause(self, seconds: float) -> None:
        """Waits for a back-off; a stop ends it."""
        ends_ms = self._clock.now_ms() + int(seconds * 1_000)
        while not self._stopping and await self._woken_before(ends_ms):
            pass

    def _log_failure(self, message: str, event: str, error: BaseException) -> None:
        """Logs at most one line a minute for each shard and event."""
        extra = {"event": event, "shard": self.lease.shard, "error": str(error)}
        log.warning(message, extra=extra | {"once_per": f"{event} {self.lease.shard}"})
