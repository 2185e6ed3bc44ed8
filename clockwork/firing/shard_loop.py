"""The loop of one shard: take-over, then pass after pass with waits in between; take-over again after anything in
doubt.

┌────────► take over ──fenced, unavailable──► back off ─┐
│              │                                        │
│   fenced, unknown commit         ┌── wait: next row, wake-up, scan ◄──┐
│              │                   ▼                                    │
└──────────────┴───────────────── pass ──── unavailable: back off ──────┘
"""

import asyncio
import logging
import random
from dataclasses import dataclass
from functools import partial
from typing import Final

from clockwork.clock import Clock
from clockwork.concurrency import Backoff, gather_bounded
from clockwork.domain.position import Position, due_ms_of
from clockwork.domain.retry import BackoffPolicy
from clockwork.domain.scanning import next_pass, scan_after
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import NewlyDue, WakeUp, Wanted
from clockwork.errors import ClockworkError, DeliveryUnknown, Fenced, Unavailable
from clockwork.firing.shard_pass import ShardPass
from clockwork.firing.takeover import ShardLease, Takeover
from clockwork.ports.telemetry import Telemetry
from clockwork.settings.model import RunnerSettings

log = logging.getLogger(__name__)

TAKEOVER_BACKOFF: Final = BackoffPolicy(initial_ms=50, max_ms=2_000)
PASS_BACKOFF: Final = BackoffPolicy(initial_ms=50, max_ms=2_000)
"""Both maxima are low: after an outage the waits add up, and one request a second for each shard is little to the
broker and the store."""
STEADY_MS: Final = 10_000
"""After so long as owner the take-over back-off is reset. Not at the first delivery: two nodes that both believe that
they own the shard would fence each other as fast as they can."""
SCAN_PAST_MAX: Final = 20
"""A scan has to read past the rows that await cleanup; with more than these it is put off."""
SCAN_PUT_OFF_MS: Final = 250
WANTED_AT_ONCE: Final = 16
"""Wanted rows that are answered side by side."""
WANTED_MAX: Final = 64
"""Wanted rows kept for the next round; others are found by the next tries of their cancels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConcurrencyLimits:
    """Limits of passes and take-overs of a node at the same time, over all its shards."""

    passes: asyncio.Semaphore
    takeovers: asyncio.Semaphore


class ShardLoop:
    """Works one shard on this node, from its assignment until it is told to stop."""

    def __init__(
        self,
        shard: ShardId,
        takeover: Takeover,
        shard_pass: ShardPass,
        concurrency: ConcurrencyLimits,
        clock: Clock,
        telemetry: Telemetry,
        rng: random.Random,
        settings: RunnerSettings,
    ) -> None:
        self._shard = shard
        self._takeover = takeover
        self._shard_pass = shard_pass
        self._concurrency = concurrency
        self._clock = clock
        self._telemetry = telemetry
        self._settings = settings
        self._attention = asyncio.Event()
        self._stopping = False
        self._next_ms: int | None = None
        self._scan_at_ms = 0
        self._owner_since_ms = 0
        self._hint_ms: int | None = None
        self._wanted: dict[Position, None] = {}
        self._records_max = settings.batch_records_max
        self._takeover_backoff = Backoff(rng, TAKEOVER_BACKOFF)
        self._pass_backoff = Backoff(rng, PASS_BACKOFF)

    def tell(self, wakeup: WakeUp) -> None:
        """Records a wake-up; returns at once."""
        match wakeup:
            case NewlyDue(due_ms):
                if self._hint_ms is None or due_ms < self._hint_ms:
                    self._hint_ms = due_ms
                    self._attention.set()
            case Wanted(position):
                if len(self._wanted) < WANTED_MAX:
                    self._wanted[position] = None
                    self._attention.set()

    def stop(self) -> None:
        """Lets `run` return when the work in flight is done; returns at once."""
        self._stopping = True
        self._attention.set()

    async def run(self) -> None:
        """Works the shard until stopped or cancelled."""
        while not self._stopping:
            lease = await self._become_owner()
            if lease is None:
                continue
            try:
                async with asyncio.TaskGroup() as group:
                    cleaning = group.create_task(lease.cleanup.run(), name=f"cleanup-{self._shard}")
                    await self._work(lease)
                    cleaning.cancel()
                await lease.cleanup.finish()
            except* Fenced as fenced:
                self._telemetry.fenced()
                self._log_failure("Fenced", "shard.fenced", fenced)
                await self._pause(self._takeover_backoff.next_wait_s())
            except* DeliveryUnknown as unknown:
                if any(isinstance(e, DeliveryUnknown) and e.timed_out for e in unknown.exceptions):
                    self._records_max = max(1, self._records_max // 2)
                self._log_failure("Commit unknown", "shard.commit_unknown", unknown)
                await self._pause(self._takeover_backoff.next_wait_s())
            except* Exception:
                # A defect must not stop a shard for good, and must be seen: the stack goes to the log, and take-over
                # discards the memory that led to it.
                log.exception("Shard loop failed", extra={"event": "shard.failed", "shard": self._shard})
                await self._pause(self._takeover_backoff.next_wait_s())
            finally:
                await self._close(lease)

    async def _close(self, lease: ShardLease) -> None:
        try:
            await lease.close()
        except Exception:
            # Harmless: only connections stay open, and the next init does not need them closed.
            log.exception("Producer not closed", extra={"event": "producer.not_closed", "shard": self._shard})

    async def _become_owner(self) -> ShardLease | None:
        """Tries one take-over; after a failure waits for the back-off and returns None."""
        try:
            async with self._concurrency.takeovers:
                lease = await self._takeover.run(self._shard)
        except Exception as error:
            # Any error: the shard is not worked without a take-over, and must not stay without one for good.
            if isinstance(error, Fenced):
                self._telemetry.fenced()
            if not isinstance(error, ClockworkError):
                log.exception(
                    "Take-over failed by a defect", extra={"event": "shard.takeover_defect", "shard": self._shard}
                )
            self._log_failure("Take-over failed", "shard.takeover_failed", error)
            await self._pause(self._takeover_backoff.next_wait_s())
            return None
        log.debug(
            "Shard taken",
            extra={
                "event": "shard.taken",
                "shard": self._shard,
                "epoch": lease.epoch,
                "untidied": len(lease.cleanup),
            },
        )
        return lease

    async def _work(self, lease: ShardLease) -> None:
        """Waits and passes in turn, until stopped. Raises: Fenced, DeliveryUnknown."""
        self._next_ms = self._scan_at_ms = self._owner_since_ms = self._clock.now_ms()
        while not self._stopping:
            try:
                await self._answer_wanted(lease)
                self._take_hint(lease)
                now_ms = self._clock.now_ms()
                if self._next_ms is not None and self._next_ms <= now_ms:
                    await self._pass(lease, now_ms)
                elif self._scan_at_ms <= now_ms and len(lease.cleanup) > SCAN_PAST_MAX:
                    self._scan_at_ms = now_ms + SCAN_PUT_OFF_MS
                elif self._scan_at_ms <= now_ms:
                    found_ms = await self._shard_pass.first_due_ms(lease)
                    # A hint stays beside it: after a fence it is not the time of a row.
                    known = [ms for ms in (self._next_ms, found_ms) if ms is not None]
                    self._next_ms = min(known, default=None)
                    self._scan_at_ms = scan_after(now_ms, scan_interval_ms=self._settings.scan_interval_ms)
                else:
                    await self._wait(lease)
            except Unavailable as error:
                self._log_failure("Shard waits", "shard.waits", error)
                await self._pause(self._pass_backoff.next_wait_s())
            else:
                self._pass_backoff.reset()

    async def _pass(self, lease: ShardLease, now_ms: int) -> None:
        await self._shard_pass.wait_for_cleanup(lease, records_max=self._records_max)
        async with self._concurrency.passes:
            result = await self._shard_pass.run(lease, records_max=self._records_max)
        if result.fired:
            self._records_max = min(self._settings.batch_records_max, self._records_max + 1 + self._records_max // 8)
        if now_ms - self._owner_since_ms > STEADY_MS:
            self._takeover_backoff.reset()
        known = [ms for ms in (result.next_due_ms, result.waits_until_ms) if ms is not None]
        self._next_ms = now_ms if result.more_now else min(known, default=None)
        self._scan_at_ms = scan_after(now_ms, scan_interval_ms=self._settings.scan_interval_ms)

    async def _wait(self, lease: ShardLease) -> None:
        """Waits until the next known row, the scan or a wake-up; raises the frontier on the way."""
        now_ms = self._clock.now_ms()
        wait = next_pass(
            now_ms=now_ms,
            scan_interval_ms=self._scan_at_ms - now_ms,
            frontier_ms=lease.frontier_ms,
            lead_ms=self._settings.frontier_lead_ms,
            next_due_ms=self._next_ms,
        )
        if wait.frontier_at_ms is not None:
            if await self._woken_before(wait.frontier_at_ms):
                return
            await self._shard_pass.raise_frontier(lease)
        await self._woken_before(wait.at_ms)

    async def _woken_before(self, at_ms: int) -> bool:
        """Waits until that time. True: a wake-up or a stop came first."""
        try:
            async with asyncio.timeout(max(0, at_ms - self._clock.now_ms()) / 1_000):
                await self._attention.wait()
        except TimeoutError:
            return False
        self._attention.clear()
        return True

    async def _answer_wanted(self, lease: ShardLease) -> None:
        # Once a round: rows that are wanted meanwhile wait for the next round, so that cancels never hold up the
        # firing.
        wanted, self._wanted = self._wanted, {}
        await gather_bounded(partial(self._shard_pass.answer_wanted, lease), wanted, at_once=WANTED_AT_ONCE)

    def _take_hint(self, lease: ShardLease) -> None:
        hint_ms, self._hint_ms = self._hint_ms, None
        if hint_ms is None:
            return
        self._next_ms = hint_ms if self._next_ms is None else min(self._next_ms, hint_ms)
        if lease.blocked_prefix is not None and hint_ms <= due_ms_of(lease.blocked_prefix.last):
            lease.blocked_prefix = None  # due within the rows that passes skip

    async def _pause(self, seconds: float) -> None:
        """Waits for a back-off; a stop ends it."""
        ends_ms = self._clock.now_ms() + int(seconds * 1_000)
        while not self._stopping and await self._woken_before(ends_ms):
            pass

    def _log_failure(self, message: str, event: str, error: BaseException) -> None:
        """Logs at most one line a minute for each shard and event."""
        causes = error.exceptions if isinstance(error, BaseExceptionGroup) else (error,)
        text = "; ".join(str(cause) for cause in causes)
        extra = {"event": event, "shard": self._shard, "error": text, "once_per": f"{event} {self._shard}"}
        log.warning(message, extra=extra)
