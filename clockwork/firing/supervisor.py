"""The supervisor: runs one shard loop for each shard that is assigned to this node.

An assignment is only recorded when it arrives (a callback of the consumer group must not do work); the supervisor
then compares it with the loops that run. The loop of a shard in both goes on with its epoch, since a rebalance takes
every shard away and gives most of them back. The loop of a lost shard finishes the work in flight, or is cancelled at
the drain time-out: the new owner fences it in any case. The new loop of a shard that comes back while its old loop
still drains waits for that one's end.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from clockwork.domain.ownership import assignment_change
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import WakeUp
from clockwork.ports.telemetry import Telemetry

log = logging.getLogger(__name__)

CANCEL_AGAIN_S: Final = 1.0
"""Between two cancellations of a loop that goes on after its drain time-out."""


class Runner(Protocol):
    """Works one shard: `ShardLoop`, or a stand-in of the tests."""

    def tell(self, wakeup: WakeUp) -> None:
        """Records a wake-up; returns at once."""
        ...

    def stop(self) -> None:
        """Lets `run` return when the work in flight is done; returns at once."""
        ...

    async def run(self) -> None:
        """Works until stopped or cancelled."""
        ...


@dataclass(slots=True)
class _Running:
    loop: Runner
    task: asyncio.Task[None]


class Supervisor:
    """Starts and ends shard loops as the assignment changes."""

    def __init__(self, new_loop: Callable[[ShardId], Runner], telemetry: Telemetry, *, drain_timeout_ms: int) -> None:
        self._new_loop = new_loop
        self._telemetry = telemetry
        self._drain_timeout_s = drain_timeout_ms / 1_000
        self._assigned: frozenset[ShardId] = frozenset()
        self._changed = asyncio.Event()
        self._running: dict[ShardId, _Running] = {}
        self._draining: dict[ShardId, asyncio.Task[None]] = {}

    @property
    def shards(self) -> frozenset[ShardId]:
        """The shards whose loops run here."""
        return frozenset(self._running)

    def assign(self, shards: frozenset[ShardId]) -> None:
        """Records an assignment; returns at once."""
        self._assigned = shards
        self._changed.set()

    def tell(self, shard: ShardId, wakeup: WakeUp) -> bool:
        """Hands a wake-up to the shard's loop; False if it does not run here."""
        running = self._running.get(shard)
        if running is None:
            return False
        running.loop.tell(wakeup)
        return True

    def tell_all(self, wakeup: WakeUp) -> None:
        """Hands a wake-up to every loop that runs here."""
        for running in self._running.values():
            running.loop.tell(wakeup)

    async def run(self) -> None:
        """Follows the assignment until cancelled; then drains every loop within the drain time-out."""
        async with asyncio.TaskGroup() as group:
            try:
                while True:
                    await self._changed.wait()
                    self._changed.clear()
                    self._reconcile(group)
            finally:
                self._assigned = frozenset()
                self._reconcile(group)
                # Shielded by nothing: the group waits for the drains, whose deadlines end them.
                await self._drained()

    async def _drained(self) -> None:
        if self._draining:
            await asyncio.wait(self._draining.values())

    def _reconcile(self, group: asyncio.TaskGroup) -> None:
        change = assignment_change(self._running.keys(), self._assigned)
        for shard in sorted(change.lost):
            running = self._running.pop(shard)
            running.loop.stop()
            self._draining[shard] = group.create_task(self._drain(shard, running.task), name=f"drain-{shard}")
        for shard in sorted(change.gained):
            loop = self._new_loop(shard)
            task = group.create_task(self._run_after(self._draining.get(shard), loop), name=f"shard-{shard}")
            self._running[shard] = _Running(loop=loop, task=task)
        self._telemetry.shards_owned(len(self._running))
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

    async def _run_after(self, previous: asyncio.Task[None] | None, loop: Runner) -> None:
        if previous is not None:
            await asyncio.wait([previous])
        await loop.run()

    async def _drain(self, shard: ShardId, task: asyncio.Task[None]) -> None:
        done, _ = await asyncio.wait([task], timeout=self._drain_timeout_s)
        if not done:
            log.warning("Shard dropped", extra={"event": "shard.dropped", "shard": shard})
            while not task.done():
                # Again and again: a task group that is ending because of an error may swallow one cancellation.
                task.cancel()
                await asyncio.wait([task], timeout=CANCEL_AGAIN_S)
        if self._draining.get(shard) is asyncio.current_task():
            del self._draining[shard]
        if shard not in self._running:
            # Only now: a pass that was still going on would have shown the shard's figures again, for good.
            self._telemetry.shard_released(shard)
