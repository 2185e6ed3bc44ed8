"""Lateness of schedules: at a steady rate, across a rebalance, beside a burst, and before a large backlog of others.

Lateness is the time the broker put on the record (`LogAppendTime`) less `scheduleTime`, what the API reports as well. A
`read_committed` consumer sees the record after the commit: that is measured too, with the consumer's own delay in it.
Schedules are due at random milliseconds, and created over HTTP meanwhile; at 500/s they are there beforehand, as the
creates, who makes them and both services together are more than two cores can do. The first round of each node is a
warm-up and reported apart.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from clockwork.domain.sharding import ShardId
from infra.local.node import Store
from tests.benchmarks.bare import opened_bare
from tests.benchmarks.cpu import STORE_MAINS, cpu_of_service_s
from tests.benchmarks.figures import Finding, Goal, quantile
from tests.benchmarks.report import distribution
from tests.benchmarks.world import (
    Arrival,
    Bench,
    by_hand,
    collect,
    cpu_s,
    create_at_rate,
    preload,
    row_of,
    series,
    shards_of,
    sleep_until,
    started,
)
from tests.support.nodes import Cluster, ClusterNode, now_ms

RATES: Final = (10, 100, 500)
CREATED_PER_S_MAX: Final = 100
"""Above this rate rows are put there beforehand."""
SECONDS: Final = 10
BARE_TRANSACTIONS: Final = 40
REBALANCE_RATE: Final = 100
BURST: Final = 20_000
BURST_SECONDS: Final = 10
PENDING: Final = (10_000, 100_000, 1_000_000)
PENDING_RATE: Final = 50
PENDING_SECONDS: Final = 20
PUT_AHEAD_MS: Final = 6_000
FLAT: Final = 1.2
"""Within 20 %."""


async def at_rates(bench: Bench, *, module: str = "clockwork", name: str = "") -> None:
    for rate in RATES:
        for guarantee in ("exactly_once", "at_least_once"):
            async with bench.cluster() as cluster, opened_bare(bench) as bare:
                topic = await cluster.topic(kafka_partitions=8)
                node = await started(cluster, module=module)
                what = f"{rate}/s, {guarantee}{name}"
                warm = await round_of(cluster, node, topic, rate, guarantee, "warm", seen_before=0)
                _report(bench, f"warm-up, {what}", [warm], [])
                rounds: list[list[Arrival]] = []
                single_ms: list[float] = []
                seen = len(warm)
                for n in range(bench.rounds):
                    arrivals = await round_of(cluster, node, topic, rate, guarantee, f"r{n}", seen_before=seen)
                    seen += len(arrivals)
                    rounds.append(arrivals)
                    single_ms.append(await bare.transaction_ms(BARE_TRANSACTIONS))
                _report(bench, what, rounds, single_ms if guarantee == "exactly_once" else [], judged=rate == 100)
                plot = bench.report.plot(
                    "lateness", title="Lateness", x="at most ms", y="share of schedules", log_x=True
                )
                plot.series[what] = distribution([late_ms(a) for arrivals in rounds for a in arrivals])


async def round_of(
    cluster: Cluster,
    node: ClusterNode,
    topic: str,
    rate: int,
    guarantee: str,
    prefix: str,
    *,
    seen_before: int,
    seconds: int = SECONDS,
) -> list[Arrival]:
    count = rate * seconds
    async with asyncio.TaskGroup() as group:
        # From the beginning of the topic, so it begins with what earlier rounds left.
        reading = group.create_task(collect(cluster, topic, seen_before + count, within_s=60), name="read")
        if rate > CREATED_PER_S_MAX:
            await _put_ahead(cluster, topic, count, guarantee, prefix)
        else:
            await create_at_rate(
                cluster, node, topic, per_second=rate, seconds=seconds, prefix=prefix, guarantee=guarantee
            )
    arrivals = [arrival for arrival in reading.result() if arrival.schedule_key.startswith(f"{prefix}-")]
    if len(arrivals) != count:
        raise RuntimeError(f"{len(arrivals)} of {count} arrived within a minute")
    return arrivals


async def _put_ahead(cluster: Cluster, topic: str, count: int, guarantee: str, prefix: str) -> None:
    """Rows due at random milliseconds of `SECONDS` seconds, written before the first is due."""
    rng, from_ms = random.Random(1), now_ms() + PUT_AHEAD_MS
    async with by_hand(cluster) as client:
        rows = [
            row_of(cluster, topic, f"{prefix}-{n}", from_ms + rng.randrange(SECONDS * 1_000), guarantee=guarantee)
            for n in range(count)
        ]
        await preload(client, rows)
    if now_ms() > from_ms:
        raise RuntimeError("the rows were not there before they were due")


def late_ms(arrival: Arrival) -> float:
    return arrival.appended_ms - arrival.due_ms


def _report(
    bench: Bench, what: str, rounds: Sequence[Sequence[Arrival]], bare_ms: Sequence[float], *, judged: bool = False
) -> None:
    late = [[late_ms(arrival) for arrival in arrivals] for arrivals in rounds]
    p50, p99 = ([quantile(values, share) for values in late] for share in (0.5, 0.99))

    def add(figure: str, values: Sequence[float], goal: Goal | None = None, yardstick: Sequence[float] = ()) -> None:
        finding = Finding(
            scenario="lateness", what=f"{figure}, {what}", unit="ms", rounds=values, goal=goal, yardstick=yardstick
        )
        bench.report.add(finding)

    add("p50", p50, yardstick=bare_ms)
    add("p99", p99, Goal(bound=50.0) if judged else None)
    add("earliest", [min(values) for values in late], Goal(bound=0.0, at_least=True))
    add("p50 as seen by a consumer", [quantile([a.seen_ms - a.due_ms for a in each], 0.5) for each in rounds])
    if bare_ms and judged:
        beyond = [ours - theirs for ours, theirs in zip(p50, bare_ms, strict=True)]
        add("p50 beyond a bare transaction", beyond, Goal(bound=5.0))


async def across_a_rebalance(bench: Bench) -> None:
    """A second node joins, and leaves in an orderly way; thirty seconds in all."""
    p99, most = [], []
    for n in range(max(1, bench.rounds // 2)):
        async with bench.cluster() as cluster:
            topic = await cluster.topic(kafka_partitions=8)
            stays = await started(cluster)
            await create_at_rate(cluster, stays, topic, per_second=REBALANCE_RATE, seconds=5, prefix="warm")
            async with asyncio.TaskGroup() as group:
                count = REBALANCE_RATE * 35
                reading = group.create_task(collect(cluster, topic, count, within_s=90), name="read")
                group.create_task(_come_and_go(cluster), name="node")
                await create_at_rate(cluster, stays, topic, per_second=REBALANCE_RATE, seconds=30, prefix=f"moved-{n}")
            late = [late_ms(a) for a in reading.result() if a.schedule_key.startswith("moved")]
            p99.append(quantile(late, 0.99))
            most.append(max(late))
    goal = Goal(bound=1_000.0)
    what = "p99 while a node joins and leaves, 100/s, 30 s"
    bench.report.add(Finding(scenario="rebalance", what=what, unit="ms", rounds=p99, goal=goal))
    bench.report.add(Finding(scenario="rebalance", what="the latest of them", unit="ms", rounds=most))


async def _come_and_go(cluster: Cluster) -> None:
    await asyncio.sleep(5)
    node = await started(cluster, role="worker")
    await asyncio.sleep(8)
    await node.process.stop()


async def beside_a_burst(bench: Bench) -> None:
    """So many due in the same millisecond, in one shard or spread over all, and a few a second in the other shards."""
    burst = bench.scaled(BURST)
    for where in ("one shard", "64 shards"):
        others_p99, took_s = [], []
        for n in range(max(1, bench.rounds // 2)):
            async with bench.cluster(shards=64) as cluster, by_hand(cluster) as client:
                topic = await cluster.topic(kafka_partitions=8)
                await started(cluster, role="worker")
                due_ms = now_ms() + 6_000 + burst // 2
                rng = random.Random(n)
                crowd = [
                    row_of(cluster, topic, f"burst-{k}", due_ms, shard=0 if where == "one shard" else k % 64)
                    for k in range(burst)
                ]
                calm = [
                    row_of(cluster, topic, f"calm-{k}", due_ms + rng.randrange(BURST_SECONDS * 1_000), shard=1 + k % 63)
                    for k in range(BURST_SECONDS * 50)
                ]
                await preload(client, [*crowd, *calm])
                await sleep_until(due_ms)
                arrivals = await collect(cluster, topic, len(crowd) + len(calm))
                others_p99.append(quantile([late_ms(a) for a in arrivals if a.schedule_key.startswith("calm")], 0.99))
                took_s.append(max(late_ms(a) for a in arrivals if a.schedule_key.startswith("burst")) / 1_000)
        # Spread over all shards it is every other schedule's own queue; only shards beside it have something to keep.
        goal = Goal(bound=250.0) if where == "one shard" else None
        what = f"p99 of other schedules beside a burst of {burst:,} on {where}"
        bench.report.add(Finding(scenario="burst", what=what, unit="ms", rounds=others_p99, goal=goal))
        bench.report.add(Finding(scenario="burst", what=f"the burst itself, {where}", unit="s", rounds=took_s))


async def before_a_backlog(bench: Bench) -> None:
    """Schedules of tomorrow must cost today nothing: rows behind the due ones are never read. The clusters are measured in
    turn, and each round's figure is held against that of the fewest pending in the same round."""
    counts = [bench.scaled(count) for count in PENDING]
    figures: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    async with AsyncExitStack() as stack:
        backlogs = [await _backlog(bench, stack, count) for count in counts]
        for n in range(-1, bench.rounds):
            for backlog in backlogs:
                found = await _beside(backlog, f"r{n}", bench.store)
                if n >= 0:
                    for what, value in found.items():
                        figures[what][backlog.pending].append(value)
    fewest = counts[0]
    for what, by_count in figures.items():
        name, unit = what.rsplit(", ", 1)
        plot = bench.report.plot("pending", title="Cost against pending schedules", x="pending", y="", log_x=True)
        for count, rounds in by_count.items():
            bench.report.add(
                Finding(
                    scenario="pending",
                    what=f"{name}, {count:,} pending beside {fewest:,}",
                    unit=unit,
                    rounds=rounds,
                    yardstick=by_count[fewest] if count != fewest else (),
                    goal=Goal(bound=FLAT, of_ratio=True) if count != fewest else None,
                )
            )
            plot.series[what].append((count, quantile(rounds, 0.5)))


@dataclass(kw_only=True, slots=True)
class _Backlog:
    """A cluster with so many pending, and its node."""

    pending: int
    cluster: Cluster
    node: ClusterNode
    topic: str
    seen: int = 0


async def _backlog(bench: Bench, stack: AsyncExitStack, pending: int) -> _Backlog:
    cluster = await stack.enter_async_context(bench.cluster())
    topic = await cluster.topic(kafka_partitions=8)
    node = await started(cluster)
    await _fill(cluster, topic, pending)
    return _Backlog(pending=pending, cluster=cluster, node=node, topic=topic)


async def _beside(backlog: _Backlog, prefix: str, store: Store) -> dict[str, float]:
    """The figures of one round, each with its unit."""
    main = STORE_MAINS[store]
    before_s, store_before_s = await cpu_s(backlog.node), cpu_of_service_s(main)
    arrivals = await round_of(
        backlog.cluster,
        backlog.node,
        backlog.topic,
        PENDING_RATE,
        "exactly_once",
        prefix,
        seen_before=backlog.seen,
        seconds=PENDING_SECONDS,
    )
    backlog.seen += len(arrivals)
    late_ms = [late_ms(arrival) for arrival in arrivals]
    return {
        "CPU of the node, ms a schedule": (await cpu_s(backlog.node) - before_s) / len(arrivals) * 1_000,
        "CPU of the store, ms a schedule": (cpu_of_service_s(main) - store_before_s) / len(arrivals) * 1_000,
        "p50 of lateness, ms": quantile(late_ms, 0.5),
        "p99 of lateness, ms": quantile(late_ms, 0.99),
        "memory of the node, MB": (await series(backlog.node, "process_resident_memory_bytes"))[0] / 1e6,
    }


async def _fill(cluster: Cluster, topic: str, count: int) -> None:
    """Rows due tomorrow, in all shards."""
    tomorrow_ms = now_ms() + 86_400_000
    async with by_hand(cluster) as client:
        for start in range(0, count, 10_000):
            rows = [
                row_of(
                    cluster,
                    topic,
                    f"later-{k}",
                    tomorrow_ms + k,
                    shard=ShardId(k % shards_of(cluster)),
                    payload=b"{}",
                )
                for k in range(start, min(count, start + 10_000))
            ]
            await preload(client, rows)
