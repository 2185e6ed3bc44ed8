"""The rounds: each part runs every contender in turn, on a cluster, tables and drivers of its own."""

import asyncio
import datetime
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.benchmarks.cpu import KAFKA_MAIN, POSTGRES, cpu_of_service_s
from tests.benchmarks.figures import Goal, quantile
from tests.benchmarks.peers.contenders import (
    DB_SCHEDULER_SETTINGS,
    RIVER_DEFAULTS,
    RIVER_SETTINGS,
    Clockwork,
    Contender,
    DrivenPeer,
    Load,
)
from tests.benchmarks.peers.driver import DB_SCHEDULER, RIVER, Driver, Peer, running
from tests.benchmarks.peers.table import Measures, table
from tests.benchmarks.report import machine
from tests.benchmarks.steady import idle_shares
from tests.benchmarks.world import Arrival, Bench, Offsets, by_hand, collect, ends_of, sleep_until
from tests.support.nodes import Cluster, now_ms

KAFKA_PARTITIONS: Final = 8
DRAINED: Final = 20_000
CREATED: Final = 40_000
CREATED_SINGLY: Final = 6_000
BATCH: Final = 100
BATCH_CALLERS: Final = 4
SINGLE_CALLERS: Final = 64
RATES: Final = (100, 500)
SECONDS: Final = 20
BATCHES_PER_S: Final = 10
AHEAD_MS: Final = 6_000
"""River looks for scheduled jobs every five seconds: what is due sooner than that may be late by as much."""
SPREAD_MS: Final = 1_000
TOMORROW_MS: Final = 86_400_000
IDLE_SETTLE_S: Final = 3.0
SETTLE_S: Final = 3.0
"""After a start, before the first create: River elects its leader."""
CREATED_PER_S_MIN: Final = 1_500
"""A drain is due so late that a contender this slow has created all before."""
LATE_S_MAX: Final = 60.0
"""Time-out for the records of a round, beyond its own length; no goal."""

AT_LEAST_AS_QUICK: Final = Goal(bound=1.0, at_least=True, of_ratio=True)
AT_MOST_AS_MUCH: Final = Goal(bound=1.0, of_ratio=True)
CREATES_GOAL: Final = Goal(bound=6_500.0, at_least=True)

Built = Mapping[str, Path]
"""Folders of the drivers that could be built, by the peer's name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """CPU time so far, or in a round: beyond what idle services use."""

    own_s: float
    postgres_s: float
    kafka_s: float

    @property
    def total_s(self) -> float:
        return self.own_s + self.postgres_s + self.kafka_s


@dataclass(kw_only=True, slots=True)
class Meter:
    """CPU time from the begin of something on."""

    contender: Contender
    idle: Mapping[str, float]
    begun: Spent
    begun_at_s: float

    @staticmethod
    async def begin(contender: Contender, idle: Mapping[str, float]) -> "Meter":
        return Meter(
            contender=contender,
            idle=idle,
            begun=await _spent(contender),
            begun_at_s=asyncio.get_running_loop().time(),
        )

    async def end(self) -> Spent:
        now = await _spent(self.contender)
        took_s = asyncio.get_running_loop().time() - self.begun_at_s
        return Spent(
            own_s=now.own_s - self.begun.own_s,
            postgres_s=now.postgres_s - self.begun.postgres_s - self.idle[POSTGRES] * took_s,
            kafka_s=now.kafka_s - self.begun.kafka_s - self.idle[KAFKA_MAIN] * took_s,
        )


async def _spent(contender: Contender) -> Spent:
    return Spent(
        own_s=await contender.cpu_s(),
        postgres_s=cpu_of_service_s(POSTGRES),
        kafka_s=cpu_of_service_s(KAFKA_MAIN),
    )


@dataclass(kw_only=True, slots=True)
class Part:
    """Settings that the rounds of a part share."""

    bench: Bench
    measures: Measures
    cluster: Cluster
    contenders: Sequence[Contender]
    topic: str
    idle: Mapping[str, float] = field(default_factory=dict)
    """Cores that the services use while nothing works; as of the round."""

    async def turns(self, what: str) -> AsyncIterator[tuple[int, Contender]]:
        """Every round, and in it every contender, whose turn it is to work alone. Round -1 is a warm-up: Java has compiled
        when it is over."""
        for n in range(-1, self.bench.rounds):
            # Of each round: the broker has less and less to do by itself after its start.
            self.idle = await idle_shares(settle_s=IDLE_SETTLE_S)
            for contender in self.contenders:
                print(f"  {what}: {'warm-up' if n < 0 else f'round {n + 1}'}, {contender.name}", flush=True)
                await contender.start()
                await asyncio.sleep(SETTLE_S)
                yield n, contender
                await contender.stop()

    def add_cpu(self, contender: Contender, what: str, spent: Spent, count: int, *, goal: Goal | None = None) -> None:
        """CPU for each schedule, and where it went."""

        def us(seconds: float) -> float:
            return seconds / count * 1e6

        name, add = contender.name, self.measures.add
        add(name, f"CPU of {what}, all processes", "µs", us(spent.total_s), goal=goal)
        add(name, f"CPU of {what}, the scheduler's own", "µs", us(spent.own_s), detail=True)
        add(name, f"CPU of {what}, PostgreSQL's", "µs", us(spent.postgres_s), detail=True)
        add(name, f"CPU of {what}, Kafka's", "µs", us(spent.kafka_s), detail=True)


async def run(bench: Bench) -> None:
    """Every part, then the table."""
    left_out: list[str] = []
    built: dict[str, Path] = {}
    for peer in (DB_SCHEDULER, RIVER):
        if (line := peer.missing()) is not None:
            left_out.append(line)
            print(f"\n{line}\n", flush=True)
        else:
            built[peer.name] = await peer.built()
    measures = Measures()
    async with opened(bench, built, measures) as part:
        await drain(part)
    async with opened(bench, built, measures) as part:
        await creates(part, "by batches of 100, 4 callers", CREATED, BATCH, BATCH_CALLERS, CREATES_GOAL)
        await creates(part, "one by one, 64 callers", CREATED_SINGLY, 1, SINGLE_CALLERS, None)
    for rate in RATES:
        async with opened(bench, built, measures, defaults=True) as part:
            await lateness(part, rate)
    for measure in measures.all():
        for finding in measure.findings():
            bench.report.add(finding)
    text = table(measures.all(), on=_on(bench)) + "".join(f"\n{line}\n" for line in left_out)
    print(f"\n{text}", flush=True)
    bench.report.page("peers", text)


def _on(bench: Bench) -> str:
    on, today = machine(), datetime.datetime.now(datetime.UTC).date()
    size = ", a quick run" if bench.quick else ""
    return f"Measured on {today}, {on['cores']} cores for everything, {on['system']}, Python {on['python']}{size}"


@asynccontextmanager
async def opened(bench: Bench, built: Built, measures: Measures, *, defaults: bool = False) -> AsyncIterator[Part]:
    """A cluster, and drivers that are ready, with nothing at work. `defaults`: River once more, as it is by default."""
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(bench.cluster())
        contenders: list[Contender] = [Clockwork(cluster, await stack.enter_async_context(by_hand(cluster)))]
        if DB_SCHEDULER.name in built:
            driver = await stack.enter_async_context(_driver(bench, cluster, DB_SCHEDULER, built))
            contenders.append(DrivenPeer(DB_SCHEDULER.name, driver, DB_SCHEDULER_SETTINGS))
        if RIVER.name in built:
            driver = await stack.enter_async_context(_driver(bench, cluster, RIVER, built))
            contenders.append(DrivenPeer(RIVER.name, driver, RIVER_SETTINGS))
            if defaults:
                contenders.append(DrivenPeer(f"{RIVER.name}, its defaults", driver, RIVER_DEFAULTS))
        yield Part(
            bench=bench,
            measures=measures,
            cluster=cluster,
            contenders=contenders,
            topic=await cluster.topic(kafka_partitions=KAFKA_PARTITIONS),
        )


@asynccontextmanager
async def _driver(bench: Bench, cluster: Cluster, peer: Peer, built: Built) -> AsyncIterator[Driver]:
    port = urlsplit(bench.services.postgres_url).port
    schema = f"{peer.sources.name}_{cluster.name}"
    command = peer.starts(built[peer.name], str(port), schema, bench.services.kafka_brokers)
    async with running(peer.name, command, cluster.folder / f"{peer.sources.name}.log") as driver:
        yield driver


async def drain(part: Part) -> None:
    """So many due at one moment; the order in which they come is of no matter here."""
    count = part.bench.scaled(DRAINED)
    async for n, contender in part.turns("drain"):
        since = await ends_of(part.cluster, part.topic, kafka_partitions=KAFKA_PARTITIONS)
        due_ms = now_ms() + 3_000 + count * 1_000 // CREATED_PER_S_MIN
        load = Load(
            prefix=f"drain{n}", topic=part.topic, count=count, batch=BATCH, callers=BATCH_CALLERS, due_ms=due_ms
        )
        await contender.create(load)
        if now_ms() >= due_ms:
            raise RuntimeError(f"{contender.name}: the schedules were not there before they were due")
        await sleep_until(due_ms)
        meter = await Meter.begin(contender, part.idle)
        await contender.until_cleaned_up(count)
        spent = await meter.end()
        arrivals = await _all_of(part, contender, load, since)
        if n >= 0:
            took_s = (max(arrival.appended_ms for arrival in arrivals) - due_ms) / 1_000
            what = f"drain of {count:,} due"
            part.measures.add(contender.name, what, "/s", count / took_s, goal=AT_LEAST_AS_QUICK)
            part.add_cpu(contender, "a delivery in the drain", spent, count)


async def creates(part: Part, how: str, full: int, batch: int, callers: int, goal: Goal | None) -> None:
    """As fast as they go, due tomorrow; nothing fires meanwhile."""
    count = part.bench.scaled(full)
    async for n, contender in part.turns(f"creates {how}"):
        load = Load(
            prefix=f"create{batch}.{n}",
            topic=part.topic,
            count=count,
            batch=batch,
            callers=callers,
            due_ms=now_ms() + TOMORROW_MS,
        )
        meter = await Meter.begin(contender, part.idle)
        took_s = await contender.create(load)
        spent = await meter.end()
        if n >= 0:
            part.measures.add(contender.name, f"creates {how}", "/s", count / took_s, goal=goal)
            part.add_cpu(contender, f"a create {how}", spent, count)


async def lateness(part: Part, rate: int) -> None:
    """A steady rate, created meanwhile."""
    count = rate * (SECONDS // 4 if part.bench.quick else SECONDS)
    async for n, contender in part.turns(f"lateness at {rate}/s"):
        since = await ends_of(part.cluster, part.topic, kafka_partitions=KAFKA_PARTITIONS)
        load = Load(
            prefix=f"late{n}",
            topic=part.topic,
            count=count,
            batch=rate // BATCHES_PER_S,
            callers=BATCH_CALLERS,
            per_second=rate,
            ahead_ms=AHEAD_MS,
            spread_ms=SPREAD_MS,
        )
        meter = await Meter.begin(contender, part.idle)
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(_all_of(part, contender, load, since), name="read")
            group.create_task(contender.create(load), name="create")
        await contender.until_cleaned_up(count)
        spent = await meter.end()
        if n >= 0:
            late_ms = [arrival.appended_ms - arrival.due_ms for arrival in reading.result()]
            for share in (0.5, 0.99):
                goal = AT_MOST_AS_MUCH if share == 0.99 else None
                what = f"lateness at {rate}/s, p{share * 100:.0f}"
                part.measures.add(contender.name, what, "ms", quantile(late_ms, share), goal=goal)
            part.measures.add(contender.name, f"lateness at {rate}/s, the earliest", "ms", min(late_ms), detail=True)
            what = f"a schedule's life at {rate}/s (create and delivery)"
            part.add_cpu(contender, what, spent, count, goal=AT_MOST_AS_MUCH)


async def _all_of(part: Part, contender: Contender, load: Load, since: Offsets) -> list[Arrival]:
    """The records of a round. Raises: RuntimeError unless there is one for each schedule."""
    within_s = SECONDS + AHEAD_MS / 1_000 + LATE_S_MAX
    arrivals = await collect(part.cluster, part.topic, load.count, within_s=within_s, since=since)
    ours = [arrival for arrival in arrivals if arrival.schedule_key.startswith(f"{load.prefix}-")]
    if len(ours) != load.count or len(arrivals) != load.count:
        raise RuntimeError(f"{contender.name}: {len(ours)} of {load.count} arrived, {len(arrivals)} records in all")
    return ours
