"""Recurring jobs: what a run of one costs, how late they are beside one-shots, and very many of them at one moment.

`job-cost`: what DynamoDB bills for a run, from its delivery to the row of the next one; counted over some runs of each job,
while nothing is created. `jobs`: jobs that each run every second, spread over the second, and one-shots of the same time at
random milliseconds. `jobs-hour`: jobs whose runs are due in the same millisecond, without jitter and spread by it; their
rate is hourly, with an anchor that lies a moment ahead. The runs after that one are an hour away.
"""

import asyncio
from collections import Counter
from typing import Any, Final

from tests.benchmarks.costs import CREATES_AT_ONCE, OWN, PAYLOAD
from tests.benchmarks.figures import Finding, Goal, quantile
from tests.benchmarks.metered import metered_node
from tests.benchmarks.world import Arrival, Bench, collect, create_at_rate, sleep_until, started
from tests.support.client import Client
from tests.support.nodes import Cluster, now_ms

COSTED: Final = 100
COSTED_EVERY_MS: Final = 2_000
COSTED_SECONDS: Final = 30
EACH_SECOND: Final = 1_000
SECONDS: Final = 20
ONE_SHOTS_PER_S: Final = 50
AT_THE_HOUR: Final = 100_000
HOUR_MS: Final = 3_600_000
JITTER_MS: Final = 60_000
CREATE_MS: Final = 10
"""A create of a job over HTTP, on the slowest of our machines; runs begin once all are there."""


async def of_a_run(bench: Bench) -> None:
    count = bench.scaled(COSTED)
    async with bench.cluster(CLOCKWORK_JOBS="on") as cluster, metered_node(cluster) as (api, meter):
        topic = await cluster.topic()
        await _create(cluster, api, topic, count, every_ms=COSTED_EVERY_MS, first_ms=now_ms() + 5_000)
        await asyncio.sleep(10)  # each job is in its rhythm
        before = await _runs(cluster, api, count)
        meter.clear()
        await asyncio.sleep(COSTED_SECONDS)
        units = Counter(meter.units)
        runs = await _runs(cluster, api, count) - before
    own = sum(each for operation, each in units.items() if operation.startswith(OWN))
    what = "a run of a job of ≤ 1 KB without completion, but for what a batch shares"
    # Runs that are under way at either end of the count are a per cent or two.
    bench.report.add(Finding(scenario="job-cost", what=what, unit="WCU", rounds=[own / runs], goal=Goal(bound=6.3)))
    for operation, each in sorted(units.items()):
        belongs = "" if operation.startswith(OWN) else ", shared by a batch"
        bench.report.add(
            Finding(scenario="job-cost", what=f"of it {operation}{belongs}", unit="units", rounds=[each / runs])
        )


async def each_second(bench: Bench) -> None:
    count = bench.scaled(EACH_SECOND)
    late: dict[str, list[list[float]]] = {"jobs": [], "one-shots": []}
    for n in range(max(1, bench.rounds // 2)):
        async with bench.cluster(CLOCKWORK_JOBS="on") as cluster:
            topic = await cluster.topic(kafka_partitions=8)
            node = await started(cluster)
            first_ms = now_ms() + 5_000 + CREATE_MS * count
            await _create(
                cluster, node.client, topic, count, every_ms=1_000, first_ms=first_ms, runs=SECONDS, spread_ms=1_000
            )
            if now_ms() > first_ms:
                raise RuntimeError("the jobs were not there before they were due")
            shots = ONE_SHOTS_PER_S * SECONDS
            async with asyncio.TaskGroup() as group:
                wanted = count * SECONDS + shots
                reading = group.create_task(collect(cluster, topic, wanted, within_s=600), name="read")
                await sleep_until(first_ms)
                await create_at_rate(
                    cluster, node, topic, per_second=ONE_SHOTS_PER_S, seconds=SECONDS, prefix=f"shot-{n}"
                )
            for name, prefix in (("jobs", "job-"), ("one-shots", "shot-")):
                late[name].append([_late_ms(each) for each in reading.result() if each.schedule_key.startswith(prefix)])
    for name, rounds in late.items():
        for share in (0.5, 0.99):
            what = f"p{share * 100:g} of {name}, {count:,} jobs each second beside {ONE_SHOTS_PER_S} one-shots/s"
            values = [quantile(each, share) for each in rounds]
            bench.report.add(Finding(scenario="jobs", what=what, unit="ms", rounds=values))
    earliest = [min(map(min, rounds)) for rounds in late.values()]
    goal = Goal(bound=0.0, at_least=True)
    bench.report.add(Finding(scenario="jobs", what="the earliest", unit="ms", rounds=earliest, goal=goal))


async def at_the_hour(bench: Bench) -> None:
    count = bench.scaled(AT_THE_HOUR)
    for name, jitter_ms in (("without jitter", 0), (f"with {JITTER_MS // 1_000} s of jitter", JITTER_MS)):
        async with bench.cluster(shards=64, CLOCKWORK_JOBS="on") as cluster:
            topic = await cluster.topic(kafka_partitions=8)
            node = await started(cluster)
            first_ms = now_ms() + 5_000 + CREATE_MS * count
            more = {"jitterMs": jitter_ms} if jitter_ms else {}
            await _create(cluster, node.client, topic, count, every_ms=HOUR_MS, first_ms=first_ms, **more)
            if now_ms() > first_ms:
                raise RuntimeError("the jobs were not there before they were due")
            arrivals = await collect(cluster, topic, count, within_s=3_600)
        took_s = (max(each.appended_ms for each in arrivals) - first_ms) / 1_000
        late = [_late_ms(each) for each in arrivals]
        what = f"{count:,} jobs on the hour, {name}"
        bench.report.add(Finding(scenario="jobs-hour", what=f"all delivered, {what}", unit="s", rounds=[took_s]))
        bench.report.add(Finding(scenario="jobs-hour", what=f"p99, {what}", unit="ms", rounds=[quantile(late, 0.99)]))


async def _create(
    cluster: Cluster,
    api: Client,
    topic: str,
    count: int,
    *,
    every_ms: int,
    first_ms: int,
    runs: int | None = None,
    spread_ms: int = 0,
    **trigger: Any,
) -> None:
    """Jobs at a fixed rate, with their first fire times at `first_ms` or spread over so much time after it."""
    gate = asyncio.Semaphore(CREATES_AT_ONCE)

    async def one(n: int) -> None:
        anchor_ms = first_ms + n * spread_ms // count
        rate: dict[str, Any] = {"type": "fixed_rate", "everyMs": every_ms, "anchor": anchor_ms, "start": first_ms}
        body = {
            "clientId": cluster.name,
            "jobId": f"job-{n}",
            "trigger": rate | ({"maxRuns": runs} if runs is not None else {}) | trigger,
            "taskData": PAYLOAD,
            "delivery": {"topic": topic},
        }
        async with gate:
            answered = await api.create_job(body)
            if answered.status != 201:
                raise RuntimeError(f"{answered.status}: {answered.body}")

    async with asyncio.TaskGroup() as group:
        for n in range(count):
            group.create_task(one(n), name=f"create-{n}")


async def _runs(cluster: Cluster, api: Client, count: int) -> int:
    """Runs of all jobs that were delivered until now."""
    jobs = [(await api.job(cluster.name, f"job-{n}")).body for n in range(count)]
    return sum(int(each["counts"]["delivered"]) for each in jobs)


def _late_ms(arrival: Arrival) -> float:
    return arrival.appended_ms - arrival.due_ms
