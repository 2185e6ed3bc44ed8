"""The supervisor: loops of shards follow the assignment."""

import asyncio

from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import NewlyDue, WakeUp
from clockwork.firing.supervisor import Supervisor
from clockwork.ports.telemetry import NoTelemetry
from tests.support.virtual_time import in_virtual_time


class FakeLoop:
    """A shard loop that ends when it is told, or never."""

    def __init__(self, *, drains: bool = True) -> None:
        self.told: list[WakeUp] = []
        self.started = asyncio.Event()
        self.ended = asyncio.Event()
        self._drains = drains
        self._stop = asyncio.Event()

    def tell(self, wakeup: WakeUp) -> None:
        self.told.append(wakeup)

    def stop(self) -> None:
        if self._drains:
            self._stop.set()

    async def run(self) -> None:
        self.started.set()
        try:
            await self._stop.wait()
        finally:
            self.ended.set()


class Supervised:
    """A supervisor over fake loops, running."""

    def __init__(self, *, drains: bool = True, drain_timeout_ms: int = 60_000) -> None:
        self.loops: dict[int, list[FakeLoop]] = {}
        self._drains = drains
        self.supervisor = Supervisor(self._new, NoTelemetry(), drain_timeout_ms=drain_timeout_ms)

    def _new(self, shard: ShardId) -> FakeLoop:
        loop = FakeLoop(drains=self._drains)
        self.loops.setdefault(shard, []).append(loop)
        return loop

    async def assign(self, *shards: int) -> None:
        self.supervisor.assign(frozenset(ShardId(shard) for shard in shards))
        for _ in range(5):
            await asyncio.sleep(0)


@in_virtual_time
async def test_a_shard_that_stays_keeps_its_loop_through_a_rebalance() -> None:
    supervised = Supervised()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(supervised.supervisor.run())
        await supervised.assign(1, 2)
        await supervised.assign(2, 3)
        assert {shard: len(loops) for shard, loops in supervised.loops.items()} == {1: 1, 2: 1, 3: 1}
        assert supervised.loops[1][0].ended.is_set()
        assert not supervised.loops[2][0].ended.is_set()
        task.cancel()
    assert supervised.loops[2][0].ended.is_set()


@in_virtual_time
async def test_a_shard_that_comes_back_waits_for_its_old_loop_to_drain() -> None:
    supervised = Supervised(drains=False, drain_timeout_ms=50)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(supervised.supervisor.run())
        await supervised.assign(1)
        await supervised.assign()
        await supervised.assign(1)
        old, new = supervised.loops[1]
        assert not new.started.is_set()
        await new.started.wait()
        assert old.ended.is_set()
        task.cancel()


@in_virtual_time
async def test_a_loop_that_does_not_drain_in_time_is_dropped() -> None:
    supervised = Supervised(drains=False, drain_timeout_ms=20)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(supervised.supervisor.run())
        await supervised.assign(1)
        await supervised.assign()
        await supervised.loops[1][0].ended.wait()
        task.cancel()


@in_virtual_time
async def test_a_wake_up_reaches_the_loop_of_its_shard_and_no_other() -> None:
    supervised = Supervised()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(supervised.supervisor.run())
        await supervised.assign(1)
        assert supervised.supervisor.tell(ShardId(1), NewlyDue(5))
        assert not supervised.supervisor.tell(ShardId(2), NewlyDue(5))
        assert supervised.loops[1][0].told == [NewlyDue(5)]
        task.cancel()
