"""The supervisor: runs one incarnation after another, and in it one shard loop for each shard that it owns.

    start ──► work: take over, fire, release, as the assignment changes ──┬─ stop ──► drain, release all, fence the own item
      ▲                                                                   └─ fenced, or a defect ──┐
      └───────────────── back off, next incarnation ◄── clean up acknowledged rows, forget the rest ┘

An assignment is only recorded when it arrives (a callback of the consumer group must not do work); it is then compared with
the shards that are owned. A shard in both goes on with its lease, since a rebalance takes every shard away and gives most of
them back. A lost shard is drained and released. One that comes back before its release was sent goes on with its lease.

An incarnation that ends in any other way than by a stop releases nothing: what is in doubt is what take-over is made for,
and the next incarnation takes its shards over from it as from any other.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from clockwork.concurrency import Backoff
from clockwork.domain.ownership import ShardState, assignment_change, incarnation_id
from clockwork.domain.retry import BackoffPolicy
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import WakeUp
from clockwork.errors import ClockworkError, Fenced, StoreUnavailable
from clockwork.firing.cleanup import Cleanup, Completed
from clockwork.firing.context import FiringContext
from clockwork.firing.deliver_acknowledged import AcknowledgedDelivery
from clockwork.firing.group_commit import GroupCommit
from clockwork.firing.incarnation import RunningIncarnation
from clockwork.firing.job_chains import JobChains
from clockwork.firing.lease import ShardLease
from clockwork.firing.release import release
from clockwork.firing.settlement import Settlement
from clockwork.firing.shard_loop import ShardLoop
from clockwork.firing.shard_pass import ShardPass
from clockwork.firing.sweep import sweep_hourly
from clockwork.firing.takeover import Takeover

log = logging.getLogger(__name__)

BACKOFF: Final = BackoffPolicy(initial_ms=100, max_ms=30_000)
"""Between two incarnations: two nodes that both believe that they own a shard would fence each other as fast as they can."""
STEADY_S: Final = 60.0
"""An incarnation that worked for so long ends the back-off."""
END_S_MAX: Final = 2.0
"""Longest time to fence the own item at the end of an orderly stop: without it, the next owner does."""


@dataclass(slots=True, eq=False)
class _Owned:
    """One owned shard and the tasks that work it."""

    lease: ShardLease
    loop: ShardLoop
    passing: asyncio.Task[None]
    """Runs the loop."""
    cleaning: asyncio.Task[None]
    changed: asyncio.Event
    """Set when rows have left flight or were deleted: the shard may be idle."""
    draining: asyncio.Task[None] | None = None
    """Drains and releases the shard, once it is not assigned any more."""
    releasing: bool = False


class Supervisor:
    """Runs the incarnations of this process."""

    def __init__(self, context: FiringContext, *, shards: int) -> None:
        """`shards`: the number of shards in the cluster."""
        self._context = context
        self._shards = shards
        self._assigned: frozenset[ShardId] = frozenset()
        self._count = 0
        self._work: Work | None = None

    @property
    def shards(self) -> frozenset[ShardId]:
        """The shards that are owned and worked here."""
        return self._work.shards if self._work is not None else frozenset()

    @property
    def assigned(self) -> frozenset[ShardId]:
        """The shards that the group assigns to this process, owned or not yet."""
        return self._assigned

    def assign(self, shards: frozenset[ShardId]) -> None:
        """Records an assignment; returns at once."""
        self._assigned = shards
        self._context.telemetry.shards_assigned(len(shards))
        if self._work is not None:
            self._work.reconsider()

    def tell(self, shard: ShardId, wakeup: WakeUp) -> bool:
        """Hands a wake-up to the shard's loop; False if the shard is not owned here."""
        return self._work is not None and self._work.tell(shard, wakeup)

    def tell_all(self, wakeup: WakeUp) -> None:
        """Hands a wake-up to every loop that runs here."""
        for shard in self.shards:
            self.tell(shard, wakeup)

    async def run(self) -> None:
        """Follows the assignment until cancelled; then drains and releases, within the drain time-out."""
        context = self._context
        backoff = Backoff(context.rng, BACKOFF)
        loop = asyncio.get_running_loop()
        while True:
            self._count += 1
            settings = context.settings
            own = RunningIncarnation(
                incarnation_id(context.process, self._count),
                context.store,
                context.clock,
                context.trust,
                node=context.node,
                frontier_lead_ms=settings.frontier_lead_ms,
            )
            started_s = loop.time()
            async with asyncio.TaskGroup() as group:
                # In a task that raises nothing: a task group that is ending with errors swallows a cancellation of its own
                # task (before Python 3.13). A process that is stopped while its incarnation is ending would begin another
                # one, and never stop.
                group.create_task(self._work_until_over(own), name=f"incarnation {self._count}")
            if loop.time() - started_s > STEADY_S:
                backoff.reset()
            await backoff.wait()

    async def _work_until_over(self, own: RunningIncarnation) -> None:
        """Runs one incarnation. Raises nothing."""
        context = self._context
        self._work = Work(context, own, shards=self._shards, assigned=lambda: self._assigned)
        try:
            await self._work.run()
        except* Fenced as fenced:
            context.telemetry.incarnation_ended("fenced")
            self._log_end("Incarnation fenced", "node.fenced", own, fenced)
        except* ClockworkError as error:
            context.telemetry.incarnation_ended("gave_up")
            self._log_end("Incarnation gave itself up", "node.gave_up", own, error)
        except* Exception:
            # A defect must not stop the process's shards for good, and must be seen: the stack goes to the log, and the
            # next incarnation begins without the memory that led to it.
            context.telemetry.incarnation_ended("defect")
            log.exception("Incarnation ended by a defect", extra={"event": "node.defect", "incarnation": own.id})
        finally:
            self._work = None

    def _log_end(
        self, message: str, event: str, own: RunningIncarnation, error: BaseExceptionGroup[BaseException]
    ) -> None:
        causes = "; ".join(str(cause) for cause in _leaves(error))
        log.warning(message, extra={"event": event, "incarnation": own.id, "error": causes})


class Work:
    """One incarnation at work."""

    def __init__(
        self,
        context: FiringContext,
        own: RunningIncarnation,
        *,
        shards: int,
        assigned: Callable[[], frozenset[ShardId]],
    ) -> None:
        self._context = context
        self._own = own
        self._shards = shards
        self._assigned = assigned
        settlement = Settlement(
            context.store,
            context.destination_waits,
            context.clock,
            context.telemetry,
            context.rng,
            context.settings,
            tracer=context.tracer,
        )
        self.chains = JobChains(
            context.jobs,
            context.clock,
            context.trust,
            context.rng,
            context.telemetry,
            context.settings,
            shards=shards,
            wake=context.wake,
        )
        self.group_commit = GroupCommit(context, own, settlement)
        self.acknowledged = AcknowledgedDelivery(context.publisher, settlement)
        self.shard_pass = ShardPass(
            context.store,
            self.group_commit,
            self.acknowledged,
            context.destination_waits,
            context.clock,
            context.trust,
            context.telemetry,
            context.settings,
            pauses=context.pauses,
            prefix_rows_min=context.prefix_rows_min,
        )
        self.takeover = Takeover(
            context, own, self.chains, missing=self._missing, new_lease=self.new_lease, on_taken=self._on_taken
        )
        self._passes = asyncio.Semaphore(context.passes_at_once)
        self._owned: dict[ShardId, _Owned] = {}
        self._changed = asyncio.Event()
        self._over = False
        self._group: asyncio.TaskGroup | None = None

    @property
    def shards(self) -> frozenset[ShardId]:
        """The shards that are owned and not being released."""
        return frozenset(shard for shard, owned in self._owned.items() if owned.draining is None)

    def reconsider(self) -> None:
        """The assignment has changed; returns at once."""
        self._changed.set()
        self.takeover.look_now()

    def tell(self, shard: ShardId, wakeup: WakeUp) -> bool:
        owned = self._owned.get(shard)
        if owned is None:
            if shard in self._assigned():
                self.takeover.look_now()  # the owner of a new shard may have released it
            return False
        owned.loop.tell(wakeup)
        return True

    def new_lease(self, shard: ShardId, state: ShardState) -> ShardLease:
        """A lease without any memory."""
        context = self._context
        cleanup = Cleanup(
            context.store,
            self.chains,
            shard,
            retention_ms=context.settings.retention_ms,
            rng=context.rng,
            on_done=lambda tidied: self._on_tidied(shard, tidied),
        )
        return ShardLease(
            shard=shard, epoch=state.epoch, floor_ms=state.floor_ms, incarnation=self._own, cleanup=cleanup
        )

    async def run(self) -> None:
        """Works until cancelled, then drains and releases; or until the incarnation is over.

        Raises: ExceptionGroup of Fenced, of other errors by which it gave itself up, or of a defect.
        """
        await self._start()
        try:
            async with asyncio.TaskGroup() as self._group:
                background = [
                    self._begin(self.deliver, "delivery"),
                    self._begin(self.takeover.run, "take-over"),
                    self._begin(self._watch_own_item, "own-item"),
                    self._begin(self._sweep, "sweep"),
                ]
                try:
                    while True:
                        await self._changed.wait()
                        self._changed.clear()
                        self._reconcile()
                finally:
                    if not self._over:
                        background[1].cancel()
                        await self._drain_all()
                    for task in background:
                        task.cancel()
                    for owned in self._owned.values():
                        for each in (owned.passing, owned.cleaning, owned.draining):
                            if each is not None:
                                each.cancel()
        finally:
            self._group = None
            await self._save_acknowledged()
            self._context.telemetry.shards_owned(0)
            for shard in self._owned:
                self._context.telemetry.shard_released(shard)

    async def deliver(self) -> None:
        """Delivers the rows that passes hand over, until cancelled. Raises: ExceptionGroup, as `run` does."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.group_commit.run(), name="group-commit")
            group.create_task(self.acknowledged.run(), name="acknowledged")

    # --- begin and end

    async def _start(self) -> None:
        backoff = Backoff(self._context.rng, BACKOFF)
        while True:
            try:
                await self._own.start()
                break
            except StoreUnavailable as error:
                extra = {"event": "node.incarnation_waits", "error": str(error), "once_per": "incarnation start"}
                log.warning("Start of an incarnation waits", extra=extra)
                await backoff.wait()
        log.info("Incarnation started", extra={"event": "node.incarnation", "incarnation": self._own.id})

    def _begin(self, work: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
        """Starts a task whose failure ends the incarnation. A function and not its coroutine, which would never be awaited
        if the task is cancelled before its first step."""

        async def guarded() -> None:
            try:
                await work()
            except asyncio.CancelledError:
                raise
            except BaseException:
                # Seen before the group cancels the rest: an incarnation that is over drains and releases nothing.
                self._over = True
                raise

        assert self._group is not None, "tasks begin while `run` is under way"
        return self._group.create_task(guarded(), name=name)

    async def _drain_all(self) -> None:
        """An orderly end: every shard is drained and released, as far as the drain time-out allows."""
        for shard, owned in self._owned.items():
            if owned.draining is None:
                self._drain(shard, owned)
        tasks = [owned.draining for owned in self._owned.values() if owned.draining is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=self._context.drain_timeout_ms / 1_000)
        for shard in self._owned:
            self._context.telemetry.released("given_up", seconds=self._context.drain_timeout_ms / 1_000)
            log.warning("Shard dropped", extra={"event": "shard.dropped", "shard": shard})
        try:
            async with asyncio.timeout(END_S_MAX):
                await self._own.end()
        except (TimeoutError, ClockworkError) as error:
            # The next owner of whatever was not released fences this incarnation.
            log.warning("Own item not fenced", extra={"event": "node.not_fenced", "error": str(error)})
        self._context.telemetry.incarnation_ended("stopped")

    async def _save_acknowledged(self) -> None:
        """Outcome and delete of rows that were acknowledged outside transactions: forgetting them would send them again."""
        await asyncio.gather(*(owned.lease.cleanup.finish_acknowledged() for owned in self._owned.values()))

    # --- shards

    def _missing(self) -> frozenset[ShardId]:
        return self._assigned() - self._owned.keys()

    def _on_taken(self, leases: Sequence[ShardLease]) -> None:
        for lease in leases:
            loop = ShardLoop(self._context, lease, self.shard_pass, self._passes)
            self._owned[lease.shard] = _Owned(
                lease=lease,
                loop=loop,
                passing=self._begin(loop.run, f"shard-{lease.shard}"),
                cleaning=self._begin(lease.cleanup.run, f"cleanup-{lease.shard}"),
                changed=asyncio.Event(),
            )
        self._changed.set()
        self._report()

    def _resume(self, owned: _Owned) -> None:
        """A shard that is assigned again, and whose release was not sent, goes on with its lease."""
        previous = owned.passing
        assert owned.draining is not None, "only a shard that drains is resumed"
        owned.draining.cancel()
        owned.draining = None
        owned.loop = ShardLoop(self._context, owned.lease, self.shard_pass, self._passes)

        async def after_the_last_pass(loop: ShardLoop) -> None:
            # Two passes of a shard at once would not know of each other's rows.
            await asyncio.wait([previous])
            await loop.run()

        owned.passing = self._begin(partial(after_the_last_pass, owned.loop), f"shard-{owned.lease.shard}")

    def _on_tidied(self, shard: ShardId, tidied: Sequence[Completed]) -> None:
        self.group_commit.forget(tidied)
        owned = self._owned.get(shard)
        if owned is not None:
            owned.changed.set()
            if owned.lease.in_flight.awaited:
                owned.lease.in_flight.on_landing()

    def _reconcile(self) -> None:
        """Drains the shards that are not assigned any more, and goes on with those that came back in time."""
        assigned = self._assigned()
        working = {shard for shard, owned in self._owned.items() if owned.draining is None}
        change = assignment_change(working, assigned)
        for shard in sorted(change.lost):
            self._drain(shard, self._owned[shard])
        for shard in sorted(change.gained & self._owned.keys()):
            owned = self._owned[shard]
            if not owned.releasing:
                self._resume(owned)
        self.takeover.look_now()
        if change.gained or change.lost:
            log.info(
                "Assignment",
                extra={
                    "event": "node.assignment",
                    "gained": len(change.gained),
                    "kept": len(change.kept),
                    "lost": len(change.lost),
                },
            )
        self._report()

    def _drain(self, shard: ShardId, owned: _Owned) -> None:
        owned.loop.stop()
        owned.draining = self._begin(partial(self._drain_and_release, shard, owned), f"drain-{shard}")

    async def _drain_and_release(self, shard: ShardId, owned: _Owned) -> None:
        """Waits until the shard is idle, however long that takes, then releases it. A next owner that waits in vain fences
        this incarnation. Raises: Fenced."""
        started_s = asyncio.get_running_loop().time()
        await asyncio.wait([owned.passing])
        lease = owned.lease
        lease.in_flight.awaited = True
        lease.in_flight.on_landing = owned.changed.set
        while not lease.idle:
            owned.changed.clear()
            await owned.changed.wait()
        owned.releasing = True
        await release(self._context, lease)
        owned.cleaning.cancel()
        del self._owned[shard]
        self._context.telemetry.shard_released(shard)
        self._context.telemetry.released("released", seconds=asyncio.get_running_loop().time() - started_s)
        log.debug("Shard released", extra={"event": "shard.released", "shard": shard, "epoch": lease.epoch})
        self._report()
        self.takeover.look_now()

    def _report(self) -> None:
        self._context.telemetry.shards_owned(len(self.shards))

    async def _watch_own_item(self) -> None:
        """Finds out that this incarnation was fenced, also while it is idle: nothing would be refused until its next row is
        due, and its other shards would be without an owner for so long. Raises: Fenced."""
        while True:
            await asyncio.sleep(self._context.settings.scan_interval_ms / 1_000)
            try:
                await self._own.recheck()
            except StoreUnavailable:
                continue  # whatever it was about to do is refused, if it was fenced

    async def _sweep(self) -> None:
        """The owner of shard 0 sweeps: one process is enough."""
        await sweep_hourly(self._context, shards=self._shards, mine=lambda: ShardId(0) in self.shards)


def _leaves(error: BaseException) -> Sequence[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _leaves(each)]
    return [error]
