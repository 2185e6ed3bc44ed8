"""Draining a backlog: so many schedules due at one moment, until each is delivered and tidied up.

`drain`, with one process and with two; on DynamoDB Local the yardstick (`bare`) alternates with it. The rows are put
there by batches beforehand, so that nothing but the firing is measured.
`drain-stub`, on a stub: the node's CPU per delivery, for both guarantees.
"""

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from tests.benchmarks.bare import opened_bare
from tests.benchmarks.figures import Finding, Goal
from tests.benchmarks.stub import stub_dynamo
from tests.benchmarks.world import (
    Bench,
    ByHand,
    by_hand,
    cpu_s,
    delivered,
    dynamo,
    preload,
    row_of,
    sleep_until,
    started,
    until_empty,
)
from tests.support.nodes import Cluster, ClusterNode, now_ms

COUNT: Final = 50_000
STUB_COUNT: Final = 20_000
PRELOADED_PER_S: Final = 2_500
"""At least; the rows must be there before they are due."""
POSTGRES_GOAL: Final = Goal(bound=4_000.0, at_least=True)
COST_US_MAX: Final = {"exactly_once": 100.0, "at_least_once": 60.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Drained:
    """One drain."""

    took_s: float
    cpu_s: float
    """CPU of the node."""


async def on_a_store(bench: Bench) -> None:
    count = bench.scaled(COUNT)
    plot = bench.report.plot("drain", title=f"Drain of {count:,} due schedules", x="processes", y="per second")
    for processes in (1, 2):
        async with bench.cluster() as cluster, AsyncExitStack() as stack, by_hand(cluster) as client:
            bare = await stack.enter_async_context(opened_bare(bench)) if bench.store == "dynamodb" else None
            topic = await cluster.topic(kafka_partitions=8)
            node = await started(cluster, role="worker", processes=processes)
            await drain(cluster, client, node, topic, "warm", count // 10)
            ours, theirs = [], []
            for n in range(bench.rounds):
                ours.append(count / (await drain(cluster, client, node, topic, f"drain-{n}", count)).took_s)
                if bare is not None:
                    theirs.append(count / await bare.drain(f"bare-{n}", count))
            bench.report.add(
                Finding(
                    scenario="drain",
                    what=f"drain of {count:,} on 16 shards, {processes} process{'es' * (processes > 1)}",
                    unit="/s",
                    rounds=ours,
                    yardstick=theirs,
                    goal=Goal(bound=0.8, at_least=True, of_ratio=True) if theirs else POSTGRES_GOAL,
                )
            )
            plot.series["Clockwork"].append((processes, max(ours)))
            if theirs:
                plot.series["bare, one process"].append((processes, max(theirs)))


async def over_shards(bench: Bench) -> None:
    """Throughput against the number of shards, and of nodes."""
    count = bench.scaled(20_000)
    plot = bench.report.plot("shards", title=f"Drain of {count:,}", x="shards", y="per second", log_x=True)
    for processes in (1, 2):
        for shards in (2, 4, 16, 64):
            async with bench.cluster(shards=shards) as cluster, by_hand(cluster) as client:
                topic = await cluster.topic(kafka_partitions=8)
                node = await started(cluster, role="worker", processes=processes)
                await drain(cluster, client, node, topic, "warm", count // 10)
                drained = [await drain(cluster, client, node, topic, f"drain-{n}", count) for n in range(bench.rounds)]
                rounds = [count / each.took_s for each in drained]
                what = f"drain of {count:,}, {shards} shards, {processes} process{'es' * (processes > 1)}"
                bench.report.add(Finding(scenario="shards", what=what, unit="/s", rounds=rounds))
                plot.series[f"{processes} process{'es' * (processes > 1)}"].append((shards, max(rounds)))


async def on_a_stub(bench: Bench, *, module: str = "clockwork", name: str = "") -> None:
    count = bench.scaled(STUB_COUNT)
    for guarantee, bound_us in COST_US_MAX.items():
        async with (
            bench.cluster() as cluster,
            stub_dynamo(cluster) as endpoint,
            dynamo(cluster, endpoint) as client,
        ):
            topic = await cluster.topic(kafka_partitions=8)
            node = await started(cluster, role="worker", module=module, DYNAMODB_ENDPOINT=endpoint)
            await drain(cluster, client, node, topic, "warm", count // 10, guarantee=guarantee)
            drained = [
                await drain(cluster, client, node, topic, f"stub-{n}", count, guarantee=guarantee)
                for n in range(bench.rounds)
            ]
            cost_us = [each.cpu_s / count * 1e6 for each in drained]
            rates = [count / each.took_s for each in drained]
            what = f"node CPU per delivery, {guarantee}{name}"
            goal = Goal(bound=bound_us)
            bench.report.add(Finding(scenario="drain-stub", what=what, unit="µs", rounds=cost_us, goal=goal))
            what = f"deliveries, {guarantee}{name}"
            bench.report.add(Finding(scenario="drain-stub", what=what, unit="/s", rounds=rates))


async def drain(
    cluster: Cluster,
    client: ByHand,
    node: ClusterNode,
    topic: str,
    prefix: str,
    count: int,
    *,
    guarantee: str = "exactly_once",
) -> Drained:
    """From the due time until all are delivered and tidied up."""
    due_ms = now_ms() + 3_000 + count * 1_000 // PRELOADED_PER_S
    rows = [row_of(cluster, topic, f"{prefix}-{n}", due_ms, guarantee=guarantee) for n in range(count)]
    before = await delivered(node)
    await preload(client, rows)
    if now_ms() >= due_ms:
        raise RuntimeError("the rows were not there before they were due")
    await sleep_until(due_ms)
    start_s, cpu_before_s = time.perf_counter(), await cpu_s(node)
    # The node's figures are not asked for meanwhile: to write them all out takes it milliseconds.
    await until_empty(client)
    took = Drained(took_s=time.perf_counter() - start_s, cpu_s=await cpu_s(node) - cpu_before_s)
    if (found := await delivered(node) - before) != count:
        raise RuntimeError(f"{found:.0f} of {count} delivered")
    return took
