"""Hand-overs of shards under a load: after `kill -9`, to a node that joins, and through a rolling restart of three nodes.

The load goes to a node that only accepts (`--role api`), so that no create waits for the nodes that come and go. For
`takeover` and `handover` all of it is created before: what is measured is the change of hands, and not what creates leave
of two cores.

    takeover      kill -9 of the owner of 64 shards, 30 times: from the kill until the last of its shards has delivered
                  something that was due in the meantime
    handover      all 64 shards of a node to one that joins: the new node starts, the old one is stopped in order
    rolling       three nodes stopped in order and started again, one after the other: nothing lost, nothing twice
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from clockwork.domain import record as names
from clockwork.domain.schedule import OrderingKey
from clockwork.domain.sharding import shard_of
from tests.benchmarks.figures import Finding, Goal, quantile
from tests.benchmarks.steady import CLIENT_KAFKA_PARTITIONS, Contender, load
from tests.benchmarks.world import Bench, delivered, shards_of, sleep_until, started
from tests.support.nodes import Cluster, ClusterNode, now_ms
from tests.support.reader import Arrived, read_all
from tests.support.waiting import until

SHARDS: Final = 64
RATE: Final = 100
KILLS: Final = 30
AHEAD_MS: Final = 8_000
"""From the creates until the first of them is due: they are created, and the machine is calm again."""
BATCH: Final = 50
HAND_OVER_S: Final = 30
KILL_SPREAD_MS: Final = 5_000
KILL_SETTLED_MS: Final = 4_000
"""After the last due time, before the records are read."""
KILL_SCHEDULES: Final = 600
"""Due evenly within that time: some two in each shard while its owner is missed."""
SESSION_MS: Final = 2_000
"""Brokers take 6 s and more unless configured otherwise, as the local one is. What comes on top does not depend on it."""
BEYOND_SESSION_MS: Final = 500.0
HAND_OVER_MS_MAX: Final = 300.0
ROLLING_P99_MS_MAX: Final = 1_000.0
CALM_S: Final = 3.0
"""Between two changes, and before the first."""


async def after_kills(bench: Bench) -> None:
    """Two nodes of 64 shards each; one of them is killed, the other has all until the next start."""
    beyond_ms: list[float] = []
    settings = {"CLOCKWORK_SESSION_TIMEOUT_MS": str(SESSION_MS), "CLOCKWORK_HEARTBEAT_INTERVAL_MS": "300"}
    async with AsyncExitStack() as stack:
        world = await _opened(bench, stack, shards=2 * SHARDS, **settings)
        nodes = [await started(world.cluster, role="worker") for _ in range(2)]
        kills = bench.scaled(KILLS)
        for number in range(kills):
            for node in nodes:
                await node.until_works(SHARDS)
            victim = nodes.pop(number % 2)
            its_shards = await victim.shards()
            prefix = f"kill{number}"
            created_ms = now_ms()
            rate = KILL_SCHEDULES * 2.0
            await load(world, rate, prefix, seconds=0.5, ahead_ms=AHEAD_MS, spread_ms=KILL_SPREAD_MS, batch=BATCH)
            # Not in step with anything: heartbeats, scans, due times.
            await sleep_until(created_ms + AHEAD_MS + 1_500 + 37 * number)
            killed_ms = now_ms()
            await victim.process.kill()
            await _until_empty_of(world, nodes[0])
            await sleep_until(created_ms + AHEAD_MS + KILL_SPREAD_MS + KILL_SETTLED_MS)
            records = [r for r in await _records(world) if r.schedule_key.startswith(prefix)]
            last_ms = [
                record.timestamp_ms - killed_ms
                for record in records
                if shard_of(OrderingKey(record.schedule_key), 2 * SHARDS) in its_shards
                and killed_ms <= _due_ms(record) < killed_ms + SESSION_MS
            ]
            beyond_ms.append(max(last_ms) - SESSION_MS)
            nodes.append(await started(world.cluster, role="worker"))
    goal = Goal(bound=BEYOND_SESSION_MS)
    what = f"beyond the session time-out, until the last of {SHARDS} shards delivers again, {kills} kills"
    bench.report.add(Finding(scenario="takeover", what=what, unit="ms", rounds=beyond_ms, goal=goal))
    worst = [max(beyond_ms)]
    bench.report.add(Finding(scenario="takeover", what="the worst of them", unit="ms", rounds=worst, goal=goal))


async def to_a_node_that_joins(bench: Bench) -> None:
    latest: dict[str, list[float]] = {"half of them, as it joins": [], "the rest, as the old one is stopped": []}
    p99 = []
    for n in range(bench.rounds):
        async with AsyncExitStack() as stack:
            world = await _opened(bench, stack, shards=SHARDS)
            old = await started(world.cluster, role="worker")
            await old.until_works(SHARDS)
            await load(
                world,
                HAND_OVER_S * RATE / 2,
                f"hand{n}",
                seconds=2,
                ahead_ms=AHEAD_MS,
                spread_ms=HAND_OVER_S * 1_000,
                batch=BATCH,
            )
            await _until_delivers(old, 0)
            await asyncio.sleep(CALM_S)
            from_ms = now_ms()
            new = await started(world.cluster, role="worker")
            await new.until_works(SHARDS // 2)
            await asyncio.sleep(CALM_S)
            stopped_ms = now_ms()
            await old.process.stop()
            await new.until_works(SHARDS)
            to_ms = now_ms()
            records = await _until_all(world, f"hand{n}")
            for what, span in zip(latest, ((from_ms, stopped_ms), (stopped_ms, to_ms)), strict=True):
                latest[what].append(max(_late_ms(records, from_ms=span[0], to_ms=span[1])))
            p99.append(quantile(_late_ms(records, from_ms=from_ms, to_ms=to_ms), 0.99))
    goal = Goal(bound=HAND_OVER_MS_MAX)
    for what, values in latest.items():
        said = f"the latest while {SHARDS} shards go to a node that joins, {RATE}/s: {what}"
        bench.report.add(Finding(scenario="handover", what=said, unit="ms", rounds=values, goal=goal))
    bench.report.add(Finding(scenario="handover", what="p99 meanwhile", unit="ms", rounds=p99))


async def through_a_rolling_restart(bench: Bench) -> None:
    p99, latest, lost, twice = [], [], [], []
    for n in range(max(1, bench.rounds // 2)):
        async with AsyncExitStack() as stack:
            world = await _opened(bench, stack, shards=SHARDS)
            nodes = [await started(world.cluster, role="worker") for _ in range(3)]
            prefix = f"roll{n}"
            async with asyncio.TaskGroup() as group:
                asked = group.create_task(load(world, RATE, prefix, seconds=60, ahead_ms=500), name="load")
                await _until_delivers(nodes[0], 0)
                await asyncio.sleep(CALM_S)
                from_ms = now_ms()
                for number, node in enumerate(nodes):
                    await node.process.stop()
                    nodes[number] = await started(world.cluster, role="worker")
                    await nodes[number].until_works_some()
                    await asyncio.sleep(CALM_S)
                to_ms = now_ms()
            accepted = asked.result().get("201", 0)
            records = await _until_all(world, prefix, count=accepted)
            late_ms = _late_ms(records, from_ms=from_ms, to_ms=to_ms)
            seen = Counter(record.schedule_key for record in records)
            p99.append(quantile(late_ms, 0.99))
            latest.append(max(late_ms))
            lost.append(float(accepted - len(seen)))
            twice.append(float(sum(count - 1 for count in seen.values())))
    for what, unit, values, goal in (
        ("p99 through a rolling restart of three nodes", "ms", p99, Goal(bound=ROLLING_P99_MS_MAX)),
        ("the latest of them", "ms", latest, None),
        ("lost", "", lost, Goal(bound=0.0)),
        ("twice", "", twice, Goal(bound=0.0)),
    ):
        bench.report.add(Finding(scenario="rolling", what=what, unit=unit, rounds=values, goal=goal))


async def _opened(bench: Bench, stack: AsyncExitStack, *, shards: int, **settings: str) -> Contender:
    """A cluster with a node that only accepts."""
    cluster: Cluster = await stack.enter_async_context(bench.cluster(shards=shards, **settings))
    topic = await cluster.topic(kafka_partitions=CLIENT_KAFKA_PARTITIONS)
    api = await started(cluster, role="api")
    return Contender(name="", cluster=cluster, node=api, topic=topic)


async def _records(world: Contender) -> Sequence[Arrived]:
    return await read_all(world.cluster.services.kafka_brokers, world.topic)


async def _until_all(world: Contender, prefix: str, *, count: int = 0) -> Sequence[Arrived]:
    """The records of these schedules, once there are so many schedules, or no new ones for a while."""
    found: Sequence[Arrived] = ()
    calm = 0
    while calm < 3 or (count and len({r.schedule_key for r in found}) < count and calm < 20):
        await asyncio.sleep(1)
        before, found = len(found), [r for r in await _records(world) if r.schedule_key.startswith(prefix)]
        calm = calm + 1 if len(found) == before else 0
    return found


async def _until_empty_of(world: Contender, survivor: ClusterNode) -> None:
    """Returns when the survivor works all shards."""

    async def look() -> bool:
        return len(await survivor.shards()) == shards_of(world.cluster)

    await until(look, "the survivor works all shards", within_s=60)


async def _until_delivers(node: ClusterNode, before: float) -> None:
    async def look() -> bool:
        return await delivered(node) > before

    await until(look, "the load has begun", within_s=60)


def _due_ms(record: Arrived) -> int:
    return int(record.text(names.SCHEDULE_TIME))


def _late_ms(records: Sequence[Arrived], *, from_ms: int, to_ms: int) -> list[float]:
    return [float(r.timestamp_ms - _due_ms(r)) for r in records if from_ms <= _due_ms(r) <= to_ms]
