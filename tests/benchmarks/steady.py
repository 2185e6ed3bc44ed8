"""A steady load on 64 shards, created by two processes beside: what a delivery costs, and how late it is.

Every round of a node is followed by one of a bare producer that group-commits the same arrivals: it has their due times in
memory, takes whatever is due by then, commits it with a marker, and goes on with what has become due meanwhile. Nothing
delivers with fewer parts. The same creates run beside it, due tomorrow, so that both share the machine with as much.

With `--against PATH` a node of that worktree runs the same rounds, alternating with ours: ratios within one run.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from clockwork.domain.record import OutRecord
from clockwork.domain.sharding import murmur2
from clockwork.kafka.topics import create_topics
from infra.local.node import REPOSITORY
from tests.benchmarks.bare_kafka import BareProducer
from tests.benchmarks.cpu import KAFKA_MAIN, STORE_MAINS, cpu_of_service_s
from tests.benchmarks.figures import Finding, Goal, quantile
from tests.benchmarks.world import Arrival, Bench, collect, cpu_s, kafka_context, started, total
from tests.support.nodes import Cluster, ClusterNode, now_ms

SHARDS: Final = 64
RATES: Final = (100, 300)
SECONDS: Final = 20
WARM_SECONDS: Final = 10
SETTLE_S: Final = 8.0
"""After the start of a node, before it counts as idle: first looks, Java's compiler."""
IDLE_S: Final = 8.0
LOADERS: Final = 2
CLIENT_KAFKA_PARTITIONS: Final = 8
MARKER_KAFKA_PARTITIONS: Final = 64
MARKER_ROW_BYTES: Final = 39
TOMORROW_MS: Final = 86_400_000
TRANSACTIONS_MAX: Final = {100: 0.6, 300: 0.25}
"""Transactions for each schedule, at this rate."""
KAFKA_CPU_MAX: Final = 1.5
"""Times the bare producer's."""
P99_BEYOND_BARE_MS: Final = 40.0
AGAINST_CPU_MAX: Final = 0.5
"""Times that of the worktree that is measured against, at 100/s: node and Kafka."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Findings of one round."""

    arrivals: Sequence[Arrival]
    transactions: float
    kafka_cpu_s: float
    """Beyond an idle broker's."""
    store_cpu_s: float = 0.0
    node_cpu_s: float = 0.0
    refused: int = 0
    """Creates that were not answered 201."""

    @property
    def late_ms(self) -> list[float]:
        return [arrival.appended_ms - arrival.due_ms for arrival in self.arrivals]

    def each_ms(self, seconds: float) -> float:
        """So much CPU, as milliseconds for each schedule."""
        return seconds / len(self.arrivals) * 1_000


@dataclass(kw_only=True, slots=True)
class Contender:
    """A node under the load, and what is known of it so far."""

    name: str
    cluster: Cluster
    node: ClusterNode
    topic: str
    rounds: list[Cost] = field(default_factory=list)
    seen: int = 0


async def under_load(bench: Bench) -> None:
    """At each rate: the node, the bare producer, and (with `--against`) the other worktree's node, in turn."""
    for rate in RATES:
        async with AsyncExitStack() as stack:
            ours = await contender(bench, stack, "")
            theirs = [await contender(bench, stack, " (against)", checkout=bench.against)] if bench.against else []
            idle = await idle_shares()
            bare: list[Cost] = []
            for each in [ours, *theirs]:
                await a_round(each, rate, f"warm-{rate}", seconds=WARM_SECONDS, idle=idle)
            for n in range(bench.rounds):
                idle = await idle_shares(settle_s=0)
                for each in [ours, *theirs]:
                    each.rounds.append(await a_round(each, rate, f"r{n}-{rate}", seconds=SECONDS, idle=idle))
                bare.append(await bare_round(ours, rate, f"bare{n}-{rate}", ours.rounds[-1].arrivals, idle=idle))
            report(bench, f"{rate}/s", ours.rounds, bare, rate=rate)
            for each in theirs:
                report(bench, f"{rate}/s{each.name}", each.rounds, bare)
                compare(bench, f"{rate}/s", ours.rounds, each.rounds, judged=rate == min(RATES))


async def contender(
    bench: Bench,
    stack: AsyncExitStack,
    name: str,
    *,
    module: str = "clockwork",
    checkout: Path | None = None,
    settings: Mapping[str, str] | None = None,
) -> Contender:
    """A cluster of 64 shards with one node, of this worktree or of another one."""
    cluster = await stack.enter_async_context(bench.cluster(shards=SHARDS, **(settings or {})))
    topic = await cluster.topic(kafka_partitions=CLIENT_KAFKA_PARTITIONS)
    node = await started(cluster, module=module, checkout=checkout)
    return Contender(name=name, cluster=cluster, node=node, topic=topic)


async def idle_shares(*, settle_s: float = SETTLE_S) -> Mapping[str, float]:
    """Cores that the services use while the nodes have nothing to do."""
    await asyncio.sleep(settle_s)
    before = {KAFKA_MAIN: cpu_of_service_s(KAFKA_MAIN)}
    for main in STORE_MAINS.values():
        # Of the stores that one run measures: the others do not run.
        with contextlib.suppress(ProcessLookupError):
            before[main] = cpu_of_service_s(main)
    await asyncio.sleep(IDLE_S)
    return {main: (cpu_of_service_s(main) - used_s) / IDLE_S for main, used_s in before.items()}


async def a_round(
    each: Contender, rate: float, prefix: str, *, seconds: float, idle: Mapping[str, float], batch: int = 1
) -> Cost:
    """Creates at this rate, and everything that arrives."""
    count = round(rate / LOADERS * seconds) * LOADERS
    measured = await RoundMeter.begin(each.node, idle)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(
            collect(each.cluster, each.topic, each.seen + count, within_s=seconds + 60), name="read"
        )
        statuses = group.create_task(load(each, rate, prefix, seconds=seconds, batch=batch), name="load")
    arrivals = [arrival for arrival in reading.result() if arrival.schedule_key.startswith(f"{prefix}-")]
    each.seen += len(arrivals)
    refused = sum(number for status, number in statuses.result().items() if status != "201")
    return await measured.end(arrivals, refused=refused)


async def load(
    each: Contender,
    rate: float,
    prefix: str,
    *,
    seconds: float,
    ahead_ms: int = 2_000,
    spread_ms: int = 1_000,
    due_ms: int = 0,
    batch: int = 1,
) -> Mapping[str, int]:
    """The processes that create, until they are done; how many creates were answered with which status."""

    async def one(number: int) -> Mapping[str, int]:
        options = {
            "url": each.node.client.url,
            "client": each.cluster.name,
            "topic": each.topic,
            "prefix": f"{prefix}-{number}",
            "rate": rate / LOADERS,
            "seconds": seconds,
            "ahead-ms": ahead_ms,
            "spread-ms": spread_ms,
            "due-ms": due_ms,
            "batch": batch,
        }
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.benchmarks.loader", *arguments, cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"the load ended with {process.returncode}")
        counted: Mapping[str, int] = json.loads(printed)
        return counted

    both = await asyncio.gather(*(one(number) for number in range(LOADERS)))
    return {status: sum(counted.get(status, 0) for counted in both) for counted in both for status in counted}


async def bare_round(
    beside: Contender, rate: float, prefix: str, arrivals: Sequence[Arrival], *, idle: Mapping[str, float]
) -> Cost:
    """The bare producer, on the due times of a round before, moved to now; beside the same creates, due tomorrow."""
    first_ms = min(arrival.due_ms for arrival in arrivals)
    last_ms = max(arrival.due_ms for arrival in arrivals)
    due = sorted((arrival.due_ms - first_ms, arrival.schedule_key) for arrival in arrivals)
    seconds = (last_ms - first_ms) / 1_000
    async with opened_producer(beside.cluster, prefix) as (producer, records, markers):
        measured = await RoundMeter.begin(None, idle)
        async with asyncio.TaskGroup() as group:
            group.create_task(load(beside, rate, prefix, seconds=seconds, ahead_ms=TOMORROW_MS), name="load")
            sent = group.create_task(group_commit(producer, records, markers, due), name="bare")
        arrived, transactions = sent.result()
        return await measured.end(arrived, transactions=transactions)


@asynccontextmanager
async def opened_producer(cluster: Cluster, prefix: str) -> AsyncIterator[tuple[BareProducer, str, str]]:
    """A bare producer, with topics of its own for records and for markers."""
    kafka = kafka_context(cluster)
    records, markers = f"for-{cluster.name}-{prefix}", f"for-{cluster.name}-{prefix}-markers"
    await create_topics(kafka, [records], kafka_partitions=CLIENT_KAFKA_PARTITIONS, config=BROKER_TIME)
    await create_topics(kafka, [markers], kafka_partitions=MARKER_KAFKA_PARTITIONS)
    producer = BareProducer(kafka, f"bare-{cluster.name}-{prefix}")
    try:
        await producer.open()
        yield producer, records, markers
    finally:
        await producer.close()


async def single_bare_ms(cluster: Cluster, prefix: str) -> float:
    """The usual time of a transaction of one record and its marker, alone."""
    took_ms: list[float] = []
    async with opened_producer(cluster, prefix) as (producer, records, markers):
        for _ in range(BARE_TRANSACTIONS):
            await asyncio.sleep(BARE_PAUSE_S)
            start_s = time.perf_counter()
            await group_commit(producer, records, markers, [(0, "single")], ahead_ms=0)
            took_ms.append((time.perf_counter() - start_s) * 1_000)
    return quantile(took_ms, 0.5)


BARE_TRANSACTIONS: Final = 40
BARE_PAUSE_S: Final = 0.05
"""Between single transactions: one right behind another waits for the broker."""
BROKER_TIME: Final = {"message.timestamp.type": "LogAppendTime"}


async def group_commit(
    producer: BareProducer, records: str, markers: str, due: Sequence[tuple[int, str]], *, ahead_ms: int = 500
) -> tuple[list[Arrival], int]:
    """Commits whatever is due, again and again; `due` has times from now on, in order."""
    start_ms, position, transactions = now_ms() + ahead_ms, 0, 0
    arrivals: list[Arrival] = []
    while position < len(due):
        await asyncio.sleep(max(0, start_ms + due[position][0] - now_ms()) / 1_000)
        taken: dict[tuple[str, int], list[OutRecord]] = {}
        keys: dict[tuple[str, int], list[tuple[int, str]]] = {}
        while position < len(due) and start_ms + due[position][0] <= now_ms():
            after_ms, key = due[position]
            where = (records, (murmur2(key.encode()) & 0x7FFFFFFF) % CLIENT_KAFKA_PARTITIONS)
            taken.setdefault(where, []).append(
                OutRecord(topic=records, key=key.encode(), value=VALUE, headers=HEADERS, timestamp_ms=now_ms())
            )
            keys.setdefault(where, []).append((start_ms + after_ms, key))
            position += 1
        rows = sum(map(len, taken.values()))
        if not rows:
            continue
        marker = OutRecord(
            topic=markers, key=b"bare/0", value=b"x" * MARKER_ROW_BYTES * rows, headers=(), timestamp_ms=now_ms()
        )
        appended = await producer.commit(taken, marker={(markers, 0): [marker]})
        transactions += 1
        for where, entries in keys.items():
            arrivals += [
                Arrival(schedule_key=key, due_ms=due_ms, appended_ms=appended[where], seen_ms=now_ms())
                for due_ms, key in entries
            ]
    return arrivals, transactions


VALUE: Final = b'{"note":"' + b"x" * 200 + b'"}'
HEADERS: Final = tuple((f"clockwork-header-{n}", b"x" * 30) for n in range(4))


@dataclass(kw_only=True, slots=True)
class RoundMeter:
    """Counters at the begin of a round."""

    node: ClusterNode | None
    idle: Mapping[str, float]
    start_s: float
    used_s: Mapping[str, float]
    node_cpu_s: float
    transactions: float

    @staticmethod
    async def begin(node: ClusterNode | None, idle: Mapping[str, float]) -> "RoundMeter":
        return RoundMeter(
            node=node,
            idle=idle,
            start_s=asyncio.get_running_loop().time(),
            used_s={main: cpu_of_service_s(main) for main in idle},
            node_cpu_s=await cpu_s(node) if node is not None else 0.0,
            transactions=await total(node, TRANSACTIONS) if node is not None else 0.0,
        )

    async def end(self, arrivals: Sequence[Arrival], *, transactions: int = 0, refused: int = 0) -> Cost:
        took_s = asyncio.get_running_loop().time() - self.start_s
        used = {main: cpu_of_service_s(main) - before_s for main, before_s in self.used_s.items()}
        node = self.node
        return Cost(
            arrivals=arrivals,
            transactions=await total(node, TRANSACTIONS) - self.transactions if node is not None else transactions,
            kafka_cpu_s=used[KAFKA_MAIN] - self.idle[KAFKA_MAIN] * took_s,
            store_cpu_s=sum(used[main] - self.idle[main] * took_s for main in used if main != KAFKA_MAIN),
            node_cpu_s=await cpu_s(node) - self.node_cpu_s if node is not None else 0.0,
            refused=refused,
        )


TRANSACTIONS: Final = "clockwork_kafka_commit_seconds_count"
"""Committed ones; earlier versions have it, too."""


def report(bench: Bench, what: str, ours: Sequence[Cost], bare: Sequence[Cost], *, rate: int | None = None) -> None:
    """Findings of a node's rounds, beside the bare producer's. With `rate` they are held against the goals."""

    def add(
        figure: str, unit: str, value: Callable[[Cost], float], goal: Goal | None = None, *, beside: bool = True
    ) -> None:
        finding = Finding(
            scenario="steady",
            what=f"{figure}, {what}",
            unit=unit,
            rounds=[value(cost) for cost in ours],
            yardstick=[value(cost) for cost in bare] if beside else (),
            goal=goal if rate is not None else None,
        )
        bench.report.add(finding)

    most = TRANSACTIONS_MAX.get(rate) if rate is not None else None
    add(
        "transactions a schedule",
        "",
        lambda cost: cost.transactions / len(cost.arrivals),
        Goal(bound=most) if most is not None else None,
    )
    add(
        "Kafka's CPU a schedule",
        "ms",
        lambda cost: cost.each_ms(cost.kafka_cpu_s),
        Goal(bound=KAFKA_CPU_MAX, of_ratio=True),
    )
    add("the node's CPU a schedule", "ms", lambda cost: cost.each_ms(cost.node_cpu_s), beside=False)
    add("the store's CPU a schedule", "ms", lambda cost: cost.each_ms(cost.store_cpu_s), beside=False)
    add("p50", "ms", lambda cost: quantile(cost.late_ms, 0.5))
    add("p99", "ms", lambda cost: quantile(cost.late_ms, 0.99))
    add("earliest", "ms", lambda cost: min(cost.late_ms), Goal(bound=0.0, at_least=True), beside=False)
    add("creates not answered 201", "", lambda cost: float(cost.refused), Goal(bound=0.0), beside=False)
    beyond = [
        quantile(mine.late_ms, 0.99) - quantile(theirs.late_ms, 0.99) for mine, theirs in zip(ours, bare, strict=True)
    ]
    bench.report.add(
        Finding(
            scenario="steady",
            what=f"p99 beyond the bare p99, {what}",
            unit="ms",
            rounds=beyond,
            goal=Goal(bound=P99_BEYOND_BARE_MS) if rate is not None else None,
        )
    )


def compare(bench: Bench, what: str, ours: Sequence[Cost], theirs: Sequence[Cost], *, judged: bool) -> None:
    """Findings of our node beside another worktree's."""

    def both_ms(cost: Cost) -> float:
        return cost.each_ms(cost.node_cpu_s + cost.kafka_cpu_s)

    figures: Sequence[tuple[str, str, Callable[[Cost], float], Any]] = (
        ("CPU of node and Kafka a schedule", "ms", both_ms, Goal(bound=AGAINST_CPU_MAX, of_ratio=True)),
        ("the node's CPU a schedule", "ms", lambda cost: cost.each_ms(cost.node_cpu_s), None),
        ("Kafka's CPU a schedule", "ms", lambda cost: cost.each_ms(cost.kafka_cpu_s), None),
        ("the store's CPU a schedule", "ms", lambda cost: cost.each_ms(cost.store_cpu_s), None),
        ("transactions a schedule", "", lambda cost: cost.transactions / len(cost.arrivals), None),
        ("p50", "ms", lambda cost: quantile(cost.late_ms, 0.5), None),
        ("p99", "ms", lambda cost: quantile(cost.late_ms, 0.99), None),
    )
    for figure, unit, value, goal in figures:
        bench.report.add(
            Finding(
                scenario="steady",
                what=f"{figure} beside the other worktree's, {what}",
                unit=unit,
                rounds=[value(cost) for cost in ours],
                yardstick=[value(cost) for cost in theirs],
                goal=goal if judged else None,
            )
        )
