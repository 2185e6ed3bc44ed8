"""Pass after pass over one shard, and the waits in between; take-over before, and after anything that is in doubt.

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
"""Both end low: after an outage they add up, and one request a second for each shard is nothing to Kafka or the store."""
STEADY_MS: Final = 10_000
"""An owner for this long forgets its earlier failures. Not at its first delivery: two nodes that both believe in the
shard would fence each other as fast as they can."""
LOOK_PAST_MAX: Final = 20
"""A look has to read past the rows that are still being tidied up; with more than these it waits a little."""
LOOK_LATER_MS: Final = 250
WANTED_AT_ONCE: Final = 16
WANTED_MAX: Final = 64
"""Held rows that wait for an answer; more are found by the cancels' next tries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConcurrencyLimits:
    """What the shards of one node share, in the order of their asking."""

    passes: asyncio.Semaphore
    takeovers: asyncio.Semaphore


class ShardLoop:
    """The runner of one shard on this node, from its assignment until it is told to stop."""

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
        self._dispatcher = shard_pass
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
        self._takeover_setbacks = Backoff(rng, TAKEOVER_BACKOFF)
        self._pass_setbacks = Backoff(rng, PASS_BACKOFF)

    def tell(self, wakeup: WakeUp) -> None:
        """Takes a hint into account; returns at once."""
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
        """Asks the loop to end after what is in flight: `run` then returns."""
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
                    tidying = group.create_task(lease.cleanup.run(), name=f"tidy-{self._shard}")
                    await self._work(lease)
                    tidying.cancel()
                await lease.cleanup.finish()
            except* Fenced as fenced:
                self._telemetry.fenced()
                self._note("Fenced", "shard.fenced", fenced)
                await self._pause(self._takeover_setbacks.next_wait_s())
            except* DeliveryUnknown as unknown:
                if any(isinstance(e, DeliveryUnknown) and e.timed_out for e in unknown.exceptions):
                    self._records_max = max(1, self._records_max // 2)
                self._note("Commit unknown", "shard.commit_unknown", unknown)
                await self._pause(self._takeover_setbacks.next_wait_s())
            except* Exception:
                # A defect must not stop a shard for good, and must be seen: the stack goes to the log, the shard through
                # take-over, which forgets whatever memory led to it.
                log.exception("Runner failed", extra={"event": "shard.failed", "shard": self._shard})
                await self._pause(self._takeover_setbacks.next_wait_s())
            finally:
                await self._close(lease)

    async def _close(self, lease: ShardLease) -> None:
        try:
            await lease.close()
        except Exception:
            # Only connections are at stake, and the next init does not need them closed.
            log.exception("Producer not closed", extra={"event": "producer.not_closed", "shard": self._shard})

    async def _become_owner(self) -> ShardLease | None:
        """One try; after a failure it has waited."""
        try:
            async with self._concurrency.takeovers:
                lease = await self._takeover.run(self._shard)
        except Exception as error:
            # Whatever it is: the shard is not worked without a take-over, and must not stay without for good.
            if isinstance(error, Fenced):
                self._telemetry.fenced()
            if not isinstance(error, ClockworkError):
                log.exception("Take-over met a defect", extra={"event": "shard.takeover_defect", "shard": self._shard})
            self._note("Take-over failed", "shard.takeover_failed", error)
            await self._pause(self._takeover_setbacks.next_wait_s())
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
        """Wait, pass, wait, pass. Raises: Fenced, DeliveryUnknown."""
        self._next_ms = self._scan_at_ms = self._owner_since_ms = self._clock.now_ms()
        while not self._stopping:
            try:
                await self._answer_wanted(lease)
                self._heed_hint(lease)
                now_ms = self._clock.now_ms()
                if self._next_ms is not None and self._next_ms <= now_ms:
                    await self._pass(lease, now_ms)
                elif self._scan_at_ms <= now_ms and len(lease.cleanup) > LOOK_PAST_MAX:
                    self._scan_at_ms = now_ms + LOOK_LATER_MS
                elif self._scan_at_ms <= now_ms:
                    self._next_ms = await self._dispatcher.look(lease)
                    self._scan_at_ms = scan_after(now_ms, scan_interval_ms=self._settings.scan_interval_ms)
                else:
                    await self._wait(lease)
            except Unavailable as error:
                self._note("Shard waits", "shard.waits", error)
                await self._pause(self._pass_setbacks.next_wait_s())
            else:
                self._pass_setbacks.reset()

    async def _pass(self, lease: ShardLease, now_ms: int) -> None:
        await self._dispatcher.wait_for_cleanup(lease, records_max=self._records_max)
        async with self._concurrency.passes:
            result = await self._dispatcher.run_pass(lease, records_max=self._records_max)
        if result.fired:
            self._records_max = min(self._settings.batch_records_max, self._records_max + 1 + self._records_max // 8)
        if now_ms - self._owner_since_ms > STEADY_MS:
            self._takeover_setbacks.reset()
        known = [ms for ms in (result.next_due_ms, result.waits_until_ms) if ms is not None]
        self._next_ms = now_ms if result.more_now else min(known, default=None)
        self._scan_at_ms = scan_after(now_ms, scan_interval_ms=self._settings.scan_interval_ms)

    async def _wait(self, lease: ShardLease) -> None:
        """Until the next known row, or the scan, or a wake-up; the frontier is raised on the way."""
        now_ms = self._clock.now_ms()
        look = next_pass(
            now_ms=now_ms,
            scan_interval_ms=self._scan_at_ms - now_ms,
            frontier_ms=lease.frontier_ms,
            lead_ms=self._settings.frontier_lead_ms,
            next_due_ms=self._next_ms,
        )
        if look.frontier_at_ms is not None:
            if await self._woken_before(look.frontier_at_ms):
                return
            await self._dispatcher.raise_frontier(lease)
        await self._woken_before(look.at_ms)

    async def _woken_before(self, at_ms: int) -> bool:
        """Waits until that time; True if a wake-up or a stop came first."""
        try:
            async with asyncio.timeout(max(0, at_ms - self._clock.now_ms()) / 1_000):
                await self._attention.wait()
        except TimeoutError:
            return False
        self._attention.clear()
        return True

    async def _answer_wanted(self, lease: ShardLease) -> None:
        # Once a round: those that ask meanwhile wait for the next, so that nobody's asking holds up the firing.
        wanted, self._wanted = self._wanted, {}
        await gather_bounded(partial(self._dispatcher.answer_wanted, lease), wanted, at_once=WANTED_AT_ONCE)

    def _heed_hint(self, lease: ShardLease) -> None:
        hint_ms, self._hint_ms = self._hint_ms, None
        if hint_ms is None:
            return
        self._next_ms = hint_ms if self._next_ms is None else min(self._next_ms, hint_ms)
        if lease.blocked_prefix is not None and hint_ms <= due_ms_of(lease.blocked_prefix.last):
            lease.blocked_prefix = None  # among the rows that passes skip

    async def _pause(self, seconds: float) -> None:
        """Back-off; a stop ends it."""
        ends_ms = self._clock.now_ms() + int(seconds * 1_000)
        while not self._stopping and await self._woken_before(ends_ms):
            pass

    def _note(self, message: str, event: str, error: BaseException) -> None:
        """One line for many failures in a row: at most one a minute for each shard and event."""
        causes = error.exceptions if isinstance(error, BaseExceptionGroup) else (error,)
        text = "; ".join(str(cause) for cause in causes)
        extra = {"event": event, "shard": self._shard, "error": text, "once_per": f"{event} {self._shard}"}
        log.warning(message, extra=extra)
