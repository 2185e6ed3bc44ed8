"""The engine's small parts: bounded fan-out, topics that wait, the supervisor."""

import asyncio

import pytest

from clockwork.concurrency import gather_bounded
from clockwork.domain.destination import Topic
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import NewlyDue, WakeUp
from clockwork.errors import RefusalCause, StoreThrottled
from clockwork.firing.destination_waits import DestinationWaits
from clockwork.firing.supervisor import Supervisor
from clockwork.ports.telemetry import NoTelemetry
from tests.support.virtual_time import in_virtual_time

NOW_MS = 1_700_000_000_000
TOPIC = Topic("orders")


async def test_results_come_in_the_order_of_what_was_asked_for() -> None:
    gates = [asyncio.Event() for _ in range(3)]

    async def one(number: int) -> int:
        if number < 2:
            await gates[number + 1].wait()
        gates[number].set()
        return number * 10

    assert await gather_bounded(one, range(3), at_once=3) == [0, 10, 20]


async def test_the_first_failure_is_raised_as_itself_and_ends_the_rest() -> None:
    ended = []

    async def one(number: int) -> None:
        if number == 0:
            raise StoreThrottled
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    with pytest.raises(StoreThrottled):
        await gather_bounded(one, range(3), at_once=3)
    assert sorted(ended) == [1, 2]


async def test_no_more_than_the_bound_run_at_once() -> None:
    running, most = 0, 0

    async def one(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    await gather_bounded(one, range(20), at_once=4)
    assert most == 4


def test_refusals_at_the_same_time_count_as_one_probe() -> None:
    waits = DestinationWaits(topic_wait_ms=60_000)
    first = waits.refused(TOPIC, RefusalCause.DESTINATION, "topic_missing", now_ms=NOW_MS)
    assert waits.refused(TOPIC, RefusalCause.DESTINATION, "topic_missing", now_ms=NOW_MS + 1) == first


def test_a_topic_is_probed_again_after_its_back_off_and_forgotten_when_it_takes_records() -> None:
    waits = DestinationWaits(topic_wait_ms=60_000)
    wait = waits.refused(TOPIC, RefusalCause.DESTINATION, "topic_missing", now_ms=NOW_MS)
    assert TOPIC in waits.at(wait.until_ms - 1)
    assert TOPIC not in waits.at(wait.until_ms)
    waits.took_records(TOPIC)
    again = waits.refused(TOPIC, RefusalCause.DESTINATION, "topic_missing", now_ms=NOW_MS + 100_000)
    assert again.until_ms - NOW_MS - 100_000 == wait.until_ms - NOW_MS


def test_only_a_missing_or_forbidden_topic_is_ever_given_up() -> None:
    for cause, given_up in ((RefusalCause.DESTINATION, True), (RefusalCause.TRANSIENT, False)):
        waits = DestinationWaits(topic_wait_ms=60_000)
        waits.refused(TOPIC, cause, "reason", now_ms=NOW_MS)
        assert waits.refused(TOPIC, cause, "reason", now_ms=NOW_MS + 60_000).given_up is given_up


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
