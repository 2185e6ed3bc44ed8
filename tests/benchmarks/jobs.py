"""Recurring jobs: what a run of one costs, and how late it is, beside one-shots.

`job-cost`: what DynamoDB bills for a run, from its delivery to the row of the next one, counted over some runs of each job
while nothing is created; and for a round of the audit.
`jobs`: jobs that each run every second, spread over the second. Every round has three parts on one node: one-shots at a
rate, from their creates on; runs of jobs at the same rate; and such runs with one-shots beside them. The first is the
yardstick of the others. What is late is delivered late and never skipped, as one-shots are, so lateness tells of it.
With `--against PATH` a node of that worktree runs the same rounds, alternating with ours.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from infra.local.node import Store
from tests.benchmarks.costs import OWN
from tests.benchmarks.figures import Finding, Goal, quantile
from tests.benchmarks.metered import Meter, metered_node
from tests.benchmarks.raw_http import post, send_all
from tests.benchmarks.steady import (
    CLIENT_KAFKA_PARTITIONS,
    WARM_SECONDS,
    Contender,
    Cost,
    RoundMeter,
    a_round,
    contender,
    idle_shares,
)
from tests.benchmarks.world import SLOW_S, Arrival, Bench, collect, create_at_rate, sleep_until, total
from tests.support.client import Client
from tests.support.nodes import Cluster, ClusterNode, now_ms
from tests.support.waiting import until

COSTED: Final = 100
COSTED_EVERY_MS: Final = 2_000
COSTED_SECONDS: Final = 30
AUDIT_BEGINS_S: Final = 75
"""After its take-over a shard is audited for the first time within this."""
RATES: Final[Mapping[Store, Sequence[int]]] = {"dynamodb": (50, 100), "postgresql": (100, 300, 1_000)}
"""Runs a second: as many as two cores carry with Kafka and the store, and a thousand where the store does."""
ROUNDS: Final = 3
SECONDS: Final = 20
BESIDE_PER_S: Final = 50
CLIENTS: Final = 64
"""Connections on which jobs are made."""
STARTS_MS: Final = 3_000
CREATE_MS: Final[Mapping[Store, int]] = {"dynamodb": 15, "postgresql": 2}
"""A create of a job over HTTP, on the slowest of our machines; runs begin once all are there."""
DATA: Final = {"note": "x" * 200}
ON: Final = {"CLOCKWORK_JOBS": "on"}
RUNS: Final = "clockwork_job_runs_total"


# --- what DynamoDB bills


async def of_a_run(bench: Bench) -> None:
    count = bench.scaled(COSTED)
    async with bench.cluster(CLOCKWORK_JOBS="on") as cluster, metered_node(cluster) as (api, meter):
        ready_ms, topic = now_ms(), await cluster.topic()
        await make_jobs(cluster, api.url, topic, count, every_ms=COSTED_EVERY_MS, first_ms=now_ms() + 5_000)
        await asyncio.sleep(10)  # each job is in its rhythm
        before = await _delivered(cluster, api, count)
        meter.clear()
        await asyncio.sleep(COSTED_SECONDS)
        units = Counter(meter.units)
        runs = await _delivered(cluster, api, count) - before
        audit = await _audited(meter, begins_ms=ready_ms + AUDIT_BEGINS_S * 1_000)
    own = sum(each for operation, each in units.items() if operation.startswith(OWN))
    what = "a run of a job of ≤ 1 KB without completion, but for what a batch shares"
    # Runs that are under way at either end of the count are a per cent or two.
    bench.report.add(Finding(scenario="job-cost", what=what, unit="WCU", rounds=[own / runs], goal=Goal(bound=6.3)))
    for operation, each in sorted(units.items()):
        belongs = "" if operation.startswith(OWN) else ", shared by a batch"
        bench.report.add(
            Finding(scenario="job-cost", what=f"of it {operation}{belongs}", unit="units", rounds=[each / runs])
        )
    for operation, read in sorted(audit.items()):
        what = f"{operation} of a round of the audit, a job"
        bench.report.add(Finding(scenario="job-cost", what=what, unit="units", rounds=[read / count]))


async def _delivered(cluster: Cluster, api: Client, count: int) -> int:
    """Runs of all jobs that were delivered until now."""
    jobs = [(await api.job(cluster.name, f"job-{n}")).body for n in range(count)]
    return sum(int(each["counts"]["delivered"]) for each in jobs)


async def _audited(meter: Meter, *, begins_ms: int) -> Mapping[str, float]:
    """The units of the first round of the audit, but for the entries of the index. Runs read nothing in batches."""
    meter.clear()
    await sleep_until(begins_ms)
    return {name: each for name, each in meter.units.items() if name.startswith("BatchGetItem")}


# --- what it costs, and how late it is, beside one-shots


@dataclass(kw_only=True, slots=True)
class _Pairs:
    """The rounds of one node."""

    node: Contender
    shots: list[Cost] = field(default_factory=list)
    jobs: list[Cost] = field(default_factory=list)
    together: list[Sequence[Arrival]] = field(default_factory=list)

    def late_ms(self, prefix: str) -> list[list[float]]:
        """Lateness in the third part, by round, of what has keys of this prefix."""
        return [[late_ms(each) for each in some if each.schedule_key.startswith(prefix)] for some in self.together]


async def each_second(bench: Bench) -> None:
    rates = RATES[bench.store]
    for rate in rates[:1] if bench.quick else rates:
        async with AsyncExitStack() as stack:
            nodes = [_Pairs(node=await contender(bench, stack, "", settings=ON))]
            if bench.against:
                theirs = await contender(bench, stack, " (against)", checkout=bench.against, settings=ON)
                nodes.append(_Pairs(node=theirs))
            idle = await idle_shares()
            for each in nodes:
                await a_round(each.node, rate, f"warm-{rate}", seconds=WARM_SECONDS, idle=idle)
                await _rhythm(bench, each.node, rate, "warm", seconds=WARM_SECONDS, idle=idle)
            for n in range(1 if bench.quick else ROUNDS):
                idle = await idle_shares(settle_s=0)
                for each in nodes:
                    shots = await a_round(each.node, rate, f"r{n}-{rate}", seconds=SECONDS, idle=idle)
                    each.shots.append(shots)
                    each.jobs.append(await _rhythm(bench, each.node, rate, f"job{n}", seconds=SECONDS, idle=idle))
                    both = await _rhythm(bench, each.node, rate, f"job-b{n}", seconds=SECONDS, idle=idle, beside=True)
                    each.together.append(both.arrivals)
            for each in nodes:
                _report(bench, f"{rate:,}/s{each.node.name}", each, wanted=rate * SECONDS)
            if bench.against:
                _compare(bench, f"{rate:,}/s", *nodes)


async def _rhythm(
    bench: Bench,
    each: Contender,
    rate: int,
    prefix: str,
    *,
    seconds: int,
    idle: Mapping[str, float],
    beside: bool = False,
) -> Cost:
    """So many jobs that run each second, for some seconds, until the last run is cleaned up; `beside`: with one-shots."""
    topic = await each.cluster.topic(kafka_partitions=CLIENT_KAFKA_PARTITIONS)
    first_ms = now_ms() + STARTS_MS + CREATE_MS[bench.store] * rate
    await make_jobs(
        each.cluster,
        each.node.client.url,
        topic,
        rate,
        prefix=prefix,
        every_ms=1_000,
        first_ms=first_ms,
        spread_ms=1_000,
        misfire={"policy": "fire_all", "maxCatchUp": 1_000},
        maxRuns=seconds,
    )
    shots = BESIDE_PER_S * seconds if beside else 0
    ended = await total(each.node, RUNS) + rate * seconds
    measured = await RoundMeter.begin(each.node, idle)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(
            collect(each.cluster, topic, rate * seconds + shots, within_s=seconds + 120), name="read"
        )
        if beside:
            await sleep_until(first_ms)
            await create_at_rate(
                each.cluster, each.node, topic, per_second=BESIDE_PER_S, seconds=seconds, prefix=f"shot-{prefix}"
            )
    await until_runs_ended(each.node, ended)
    return await measured.end(reading.result())


def _report(bench: Bench, what: str, pairs: _Pairs, *, wanted: int) -> None:
    """Findings of the runs of jobs, `wanted` in each round, with the one-shots of the same rounds as their yardstick."""

    def add(
        figure: str, unit: str, ours: Sequence[float], theirs: Sequence[float] = (), goal: Goal | None = None
    ) -> None:
        bench.report.add(
            Finding(scenario="jobs", what=f"{figure}, {what}", unit=unit, rounds=ours, yardstick=theirs, goal=goal)
        )

    for name, unit, value in FIGURES:
        add(f"{name} of a run", unit, [value(cost) for cost in pairs.jobs], [value(cost) for cost in pairs.shots])
    runs, beside = pairs.late_ms("job"), pairs.late_ms("shot")
    for share in (0.5, 0.99):
        shots = [quantile(each, share) for each in beside]
        name = f"p{share * 100:g} of jobs beside {BESIDE_PER_S} one-shots/s and of these"
        add(name, "ms", [quantile(each, share) for each in runs], shots)
    earliest = [min(map(min, (runs[n], beside[n], pairs.jobs[n].late_ms))) for n in range(len(runs))]
    add("the earliest", "ms", earliest, goal=Goal(bound=0.0, at_least=True))
    add("runs that did not come", "", [float(wanted - len(cost.arrivals)) for cost in pairs.jobs], goal=Goal(bound=0.0))


def _compare(bench: Bench, what: str, ours: _Pairs, theirs: _Pairs) -> None:
    """Findings of our node beside the other worktree's."""
    for of, mine, other in (("run", ours.jobs, theirs.jobs), ("one-shot", ours.shots, theirs.shots)):
        for name, unit, value in FIGURES:
            bench.report.add(
                Finding(
                    scenario="jobs",
                    what=f"{name} of a {of} beside the other worktree's, {what}",
                    unit=unit,
                    rounds=[value(cost) for cost in mine],
                    yardstick=[value(cost) for cost in other],
                )
            )


FIGURES: Final[Sequence[tuple[str, str, Callable[[Cost], float]]]] = (
    ("the node's CPU", "ms", lambda cost: cost.each_ms(cost.node_cpu_s)),
    ("the store's CPU", "ms", lambda cost: cost.each_ms(cost.store_cpu_s)),
    ("Kafka's CPU", "ms", lambda cost: cost.each_ms(cost.kafka_cpu_s)),
    ("transactions", "", lambda cost: cost.transactions / len(cost.arrivals)),
    ("p50 of lateness", "ms", lambda cost: quantile(cost.late_ms, 0.5)),
    ("p99 of lateness", "ms", lambda cost: quantile(cost.late_ms, 0.99)),
)


# --- jobs


async def make_jobs(
    cluster: Cluster,
    url: str,
    topic: str,
    count: int,
    *,
    every_ms: int,
    first_ms: int,
    prefix: str = "job",
    spread_ms: int = 0,
    misfire: Mapping[str, Any] | None = None,
    **trigger: Any,
) -> None:
    """Jobs at a fixed rate, with their first fire times at `first_ms` or spread over so much time after it. Raises:
    RuntimeError, if they are not all there by then."""
    requests = []
    for n in range(count):
        anchor_ms = first_ms + n * spread_ms // count
        rate = {"type": "fixed_rate", "everyMs": every_ms, "anchor": anchor_ms, "start": first_ms}
        body = job_body(cluster, topic, f"{prefix}-{n}", rate | trigger)
        requests.append(post(url, "/jobs", body | ({"misfire": misfire} if misfire is not None else {})))
    await send_all(url, requests, clients=CLIENTS)
    if now_ms() > first_ms:
        raise RuntimeError("the jobs were not there before they were due")


def job_body(cluster: Cluster, topic: str, job_id: str, trigger: Mapping[str, Any]) -> dict[str, Any]:
    """The create of a job."""
    return {
        "clientId": cluster.name,
        "jobId": job_id,
        "trigger": dict(trigger),
        "taskData": DATA,
        "delivery": {"topic": topic},
    }


async def until_runs_ended(node: ClusterNode, count: float) -> None:
    """Returns when so many runs have ended since the start of the node: what follows them is armed."""

    async def look() -> bool:
        await asyncio.sleep(0.5)  # to write its figures out takes the node milliseconds
        return await total(node, RUNS) >= count

    await until(look, f"{count:,.0f} runs", within_s=SLOW_S)


def late_ms(arrival: Arrival) -> float:
    return arrival.appended_ms - arrival.due_ms
