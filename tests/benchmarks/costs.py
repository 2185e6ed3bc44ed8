"""What DynamoDB bills: for a schedule from its create to its tidied-up end, and for a shard that has nothing to do.

`cost` counts every request of a node over the whole life of some schedules. What belongs to a schedule (its create, its
outcome, its row's delete) is told apart from what a batch or a moment shares (frontiers, pages).
`idle` counts what a node without schedules asks, and takes its CPU.
"""

import asyncio
from collections import Counter
from typing import Final

from tests.benchmarks.figures import Finding, Goal
from tests.benchmarks.metered import Meter, metered_node
from tests.benchmarks.world import Bench, cpu_s, dynamo, started, until_empty
from tests.support.client import Client
from tests.support.nodes import Cluster

SCHEDULES: Final = 1_000
PAYLOAD: Final = {"note": "x" * 300}
"""The row, the outcome, and their index of names stay below 1 KB each."""
CREATES_AT_ONCE: Final = 16
IDLE_SECONDS: Final = 60.0
IDLE_CPU_MAX: Final = {64: 1.0, 256: 3.0}
OWN: Final = ("TransactWriteItems", "BatchWriteItem")
"""Operations that grow with the schedules and not with the batches."""


async def of_a_life(bench: Bench) -> None:
    count = bench.scaled(SCHEDULES)
    for name, spread_ms in (("due one by one", 10_000), ("due at one moment", 0)):
        async with bench.cluster() as cluster, dynamo(cluster) as client, metered_node(cluster) as (api, meter):
            topic = await cluster.topic()
            await asyncio.sleep(8)  # its shards are taken, and looked at once
            meter.clear()
            await _create(cluster, api, topic, count, spread_ms=spread_ms)
            await until_empty(client)
            _report(bench, name, meter, count)


async def _create(cluster: Cluster, api: Client, topic: str, count: int, *, spread_ms: int) -> None:
    gate = asyncio.Semaphore(CREATES_AT_ONCE)

    async def one(n: int) -> None:
        async with gate:
            in_ms = 5_000 + (n * spread_ms) // count
            answered = await api.create(cluster.body(topic, f"cost-{n}", in_ms=in_ms, data=PAYLOAD))
            if answered.status != 201:
                raise RuntimeError(f"{answered.status}: {answered.body}")

    async with asyncio.TaskGroup() as group:
        for n in range(count):
            group.create_task(one(n), name=f"create-{n}")


def _report(bench: Bench, name: str, meter: Meter, count: int) -> None:
    for unit, reads, bound in (("WCU", False, 6.0), ("RCU", True, 1.0)):
        goal = Goal(bound=bound)
        value = [meter.total(reads=reads) / count]
        what = f"whole life of a schedule of ≤ 1 KB, {name}"
        bench.report.add(Finding(scenario="cost", what=what, unit=unit, rounds=value, goal=goal))
    shared: Counter[str] = Counter()
    for operation, units in sorted(meter.units.items()):
        belongs = "" if operation.startswith(OWN) else ", shared by a batch"
        shared[f"of it {operation}{belongs}, {name}"] += units
    for what, units in shared.items():
        bench.report.add(Finding(scenario="cost", what=what, unit="units", rounds=[units / count]))


async def of_nothing_to_do(bench: Bench) -> None:
    seconds = 15.0 if bench.quick else IDLE_SECONDS
    for shards, bound in IDLE_CPU_MAX.items():
        async with bench.cluster(shards=shards) as cluster:
            node = await started(cluster)
            await asyncio.sleep(10)  # the first looks are over
            before_s = await cpu_s(node)
            await asyncio.sleep(seconds)
            share = (await cpu_s(node) - before_s) / seconds * 100
        what = f"idle node, {shards} shards"
        goal = Goal(bound=bound)
        bench.report.add(Finding(scenario="idle", what=what, unit="% of a core", rounds=[share], goal=goal))
    async with bench.cluster(shards=64) as cluster, metered_node(cluster) as (_, meter):
        await asyncio.sleep(10)
        meter.clear()
        await asyncio.sleep(seconds)
        per_hour = 3_600 / seconds / 64
        requests = sum(meter.requests.values()) * per_hour
        bench.report.add(
            Finding(scenario="idle", what="DynamoDB requests of an idle shard", unit="/h", rounds=[requests])
        )
        for unit, reads in (("WCU/h", False), ("RCU/h", True)):
            value = [meter.total(reads=reads) * per_hour]
            bench.report.add(Finding(scenario="idle", what="capacity of an idle shard", unit=unit, rounds=value))
