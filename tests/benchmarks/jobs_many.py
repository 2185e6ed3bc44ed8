"""Very many recurring jobs: making them, their runs at one moment, and a node that has them all armed.

`jobs-hour`: jobs whose runs are due in the same millisecond, without jitter and spread by it, beside as many one-shots that
are due at one moment. Their rate is hourly, with an anchor a moment ahead; the runs after that one are an hour away. A few
one-shots of each second are due meanwhile: how late they are is what jitter is for. With all of them armed again, a node is
started anew: its memory, and what a round of the audit costs.
`job-creates`: jobs made one by one over HTTP, beside one-shots, and by `clockwork job apply` from one file.
"""

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from clockwork.operations.job_audit import START_S
from infra.local.node import REPOSITORY, Store
from tests.benchmarks.figures import Finding, quantile
from tests.benchmarks.jobs import CLIENTS, CREATE_MS, DATA, job_body, late_ms, make_jobs, until_runs_ended
from tests.benchmarks.node_cpu import store_calls
from tests.benchmarks.raw_http import post, send_all
from tests.benchmarks.steady import CLIENT_KAFKA_PARTITIONS, IDLE_S, SETTLE_S, SHARDS, Cost, RoundMeter, idle_shares
from tests.benchmarks.world import (
    SLOW_S,
    Bench,
    by_hand,
    collect,
    cpu_s,
    create_at_rate,
    preload,
    row_of,
    series,
    sleep_until,
    started,
    total,
    until_empty,
)
from tests.support.nodes import Cluster, ClusterNode, now_ms
from tests.support.waiting import until

AT_THE_HOUR: Final[Mapping[Store, int]] = {"dynamodb": 10_000, "postgresql": 100_000}
"""DynamoDB Local takes ten minutes for each ten thousand."""
HOUR_MS: Final = 3_600_000
JITTER_MS: Final = 60_000
PRELOAD_MS: Final = 1
"""A row that is put by hand."""
BESIDE_PER_S: Final = 20
BESIDE_SECONDS: Final = 60
MADE: Final[Mapping[Store, int]] = {"dynamodb": 2_000, "postgresql": 10_000}
APPLIED: Final = 1_000
AHEAD_MS: Final = 86_400_000
PATHS: Final = ("/jobs", "/schedule")


# --- at one moment


@dataclass(frozen=True, kw_only=True, slots=True)
class _Burst:
    """Findings of one burst."""

    cost: Cost
    took_s: float
    """From the first due time to the last record."""
    settled_s: float
    """And until each next row is armed, and each row cleaned up."""
    made_per_s: float
    late_ms: Sequence[float]
    beside_ms: Sequence[float]


async def at_the_hour(bench: Bench) -> None:
    count = bench.scaled(AT_THE_HOUR[bench.store])
    shots = await _shots_at_once(bench, count)
    for name, jitter_ms in (("without jitter", 0), (f"with {JITTER_MS // 1_000} s of jitter", JITTER_MS)):
        jobs = await _jobs_at_once(bench, count, jitter_ms=jitter_ms, audited=not jitter_ms)
        _report(bench, f"{count:,} jobs on the hour, {name}", jobs, shots)


async def _shots_at_once(bench: Bench, count: int) -> _Burst:
    async with bench.cluster(shards=SHARDS) as cluster, by_hand(cluster) as client:
        topic = await cluster.topic(kafka_partitions=CLIENT_KAFKA_PARTITIONS)
        node = await started(cluster)
        first_ms, start_ms = now_ms() + 5_000 + PRELOAD_MS * count, now_ms()
        await preload(client, [row_of(cluster, topic, f"many-{n}", first_ms) for n in range(count)])
        made_ms = now_ms() - start_ms
        return await _burst(cluster, node, topic, count, first_ms=first_ms, made_ms=made_ms)


async def _jobs_at_once(bench: Bench, count: int, *, jitter_ms: int, audited: bool) -> _Burst:
    async with bench.cluster(shards=SHARDS, CLOCKWORK_JOBS="on") as cluster:
        topic = await cluster.topic(kafka_partitions=CLIENT_KAFKA_PARTITIONS)
        node = await started(cluster)
        await asyncio.sleep(SETTLE_S)
        empty_mb = await _memory_mb(node)
        first_ms, start_ms = now_ms() + 5_000 + CREATE_MS[bench.store] * count, now_ms()
        jitter: dict[str, Any] = {"jitterMs": jitter_ms} if jitter_ms else {}
        await make_jobs(
            cluster, node.client.url, topic, count, prefix="many", every_ms=HOUR_MS, first_ms=first_ms, **jitter
        )
        made_ms = now_ms() - start_ms
        burst = await _burst(cluster, node, topic, count, first_ms=first_ms, made_ms=made_ms, jobs=True)
        if audited:
            await node.process.stop()
            await _armed_and_audited(bench, cluster, count, empty_mb=empty_mb)
        return burst


async def _burst(
    cluster: Cluster, node: ClusterNode, topic: str, count: int, *, first_ms: int, made_ms: int, jobs: bool = False
) -> _Burst:
    """From shortly before the first due time until the last row is cleaned up."""
    await sleep_until(first_ms - 15_000)
    idle = await idle_shares(settle_s=0)
    await sleep_until(first_ms - 2_000)
    measured = await RoundMeter.begin(node, idle)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(
            collect(cluster, topic, count + BESIDE_PER_S * BESIDE_SECONDS, within_s=3_600), name="read"
        )
        await create_at_rate(cluster, node, topic, per_second=BESIDE_PER_S, seconds=BESIDE_SECONDS, prefix="beside")
        if jobs:
            await until_runs_ended(node, count)
    if not jobs:
        async with by_hand(cluster) as client:
            await until_empty(client)
    settled_ms = now_ms()
    arrivals = [each for each in reading.result() if each.schedule_key.startswith("many-")]
    beside = [late_ms(each) for each in reading.result() if each.schedule_key.startswith("beside-")]
    cost = await measured.end(arrivals)
    return _Burst(
        cost=cost,
        took_s=(max(each.appended_ms for each in arrivals) - first_ms) / 1_000,
        settled_s=(settled_ms - first_ms) / 1_000,
        made_per_s=count / made_ms * 1_000,
        late_ms=cost.late_ms,
        beside_ms=beside,
    )


def _report(bench: Bench, what: str, jobs: _Burst, shots: _Burst) -> None:
    def add(figure: str, unit: str, ours: float, theirs: float | None = None) -> None:
        beside = [] if theirs is None else [theirs]
        finding = Finding(scenario="jobs-hour", what=f"{figure}, {what}", unit=unit, rounds=[ours], yardstick=beside)
        bench.report.add(finding)

    add("made over HTTP", "/s", jobs.made_per_s)
    add("all delivered", "s", jobs.took_s, shots.took_s)
    add("all armed again", "s", jobs.settled_s, shots.settled_s)
    for share in (0.5, 0.99):
        name = f"p{share * 100:g} of lateness"
        add(name, "ms", quantile(jobs.late_ms, share), quantile(shots.late_ms, share))
        beside = quantile(jobs.beside_ms, share), quantile(shots.beside_ms, share)
        add(f"{name} of {BESIDE_PER_S} one-shots/s beside", "ms", *beside)
    for name, mine, other in (
        ("the node's CPU", jobs.cost.node_cpu_s, shots.cost.node_cpu_s),
        ("the store's CPU", jobs.cost.store_cpu_s, shots.cost.store_cpu_s),
        ("Kafka's CPU", jobs.cost.kafka_cpu_s, shots.cost.kafka_cpu_s),
    ):
        add(f"{name} of a run", "µs", jobs.cost.each_ms(mine) * 1_000, shots.cost.each_ms(other) * 1_000)


# --- armed


async def _armed_and_audited(bench: Bench, cluster: Cluster, count: int, *, empty_mb: float) -> None:
    """A node that takes all of it over, its runs an hour away. `empty_mb`: the memory of one before there were any."""
    node = await started(cluster)
    await asyncio.sleep(SETTLE_S)
    memory_mb, used_s = await _memory_mb(node), await cpu_s(node)
    await asyncio.sleep(IDLE_S)
    idle_share = (await cpu_s(node) - used_s) / IDLE_S

    async def age_s() -> float:
        """Age of the audit of its shards; until their first round, since they were taken over."""
        await asyncio.sleep(1)
        return await total(node, "clockwork_job_audit_age_seconds")

    async def begins() -> bool:
        return await age_s() > START_S - 3

    async def over() -> bool:
        return await age_s() < START_S - 3

    await until(begins, "the first round of the audit", within_s=2 * START_S)
    start_s, used_s, called = time.perf_counter(), await cpu_s(node), await store_calls(node)
    await until(over, "its end", within_s=SLOW_S)
    took_s = time.perf_counter() - start_s
    each_us = (await cpu_s(node) - used_s - idle_share * took_s) / count * 1e6
    calls = await store_calls(node) - called
    what = f"{count:,} jobs that are armed"
    for name, unit, value in (
        ("memory of a node before there were any", "MB", empty_mb),
        ("of one that has just taken over", "MB", memory_mb),
        ("and after a round of the audit", "MB", await _memory_mb(node)),
        ("CPU of an idle node", "% of a core", idle_share * 100),
        ("a round of the audit", "s", took_s - 3),
        ("the node's CPU of it, a job", "µs", each_us),
        *((f"{call} of it, a thousand jobs", "calls", each / count * 1_000) for call, each in sorted(calls.items())),
    ):
        bench.report.add(Finding(scenario="jobs-hour", what=f"{name}, {what}", unit=unit, rounds=[value]))


async def _memory_mb(node: ClusterNode) -> float:
    return (await series(node, "process_resident_memory_bytes"))[0] / 1e6


# --- making them


async def made(bench: Bench) -> None:
    count = bench.scaled(MADE[bench.store])
    async with bench.cluster(CLOCKWORK_JOBS="on") as cluster:
        topic = await cluster.topic()
        node = await started(cluster, role="api")
        for path in ("/jobs", "/schedule"):
            await _made_over_http(cluster, node, topic, path, "warm", count // 4, clients=CLIENTS)
        for clients in (1, CLIENTS):
            some = count if clients > 1 else count // 10
            found = [
                [
                    await _made_over_http(cluster, node, topic, path, f"{clients}-{n}", some, clients=clients)
                    for path in PATHS
                ]
                for n in range(2 if bench.quick else 3)
            ]
            for unit, number in (("/s", 0), ("µs of the node's CPU each", 1)):
                jobs, shots = ([each[which][number] for each in found] for which in (0, 1))
                what = f"jobs made over HTTP, {clients} client{'s' * (clients > 1)}, beside one-shots"
                bench.report.add(Finding(scenario="job-creates", what=what, unit=unit, rounds=jobs, yardstick=shots))
        for what in ("from nothing", "again, with nothing to do"):
            per_s = APPLIED / await _applied(bench, cluster, node, topic)
            what = f"`job apply` of a file of {APPLIED:,} jobs, {what}"
            bench.report.add(Finding(scenario="job-creates", what=what, unit="/s", rounds=[per_s]))


async def _made_over_http(
    cluster: Cluster, node: ClusterNode, topic: str, path: str, prefix: str, count: int, *, clients: int
) -> tuple[float, float]:
    """So many a second, and the node's CPU of each, in µs."""
    first_ms = now_ms() + AHEAD_MS
    hourly = {"type": "fixed_rate", "everyMs": HOUR_MS, "anchor": first_ms, "start": first_ms}
    bodies = (
        job_body(cluster, topic, f"{prefix}-{n}", hourly)
        if path == "/jobs"
        else cluster.body(topic, f"{prefix}-{n}", due_ms=first_ms, data=DATA)
        for n in range(count)
    )
    requests = [post(node.client.url, path, body) for body in bodies]
    start_s, used_s = time.perf_counter(), await cpu_s(node)
    await send_all(node.client.url, requests, clients=clients)
    took_s = time.perf_counter() - start_s
    return count / took_s, (await cpu_s(node) - used_s) / count * 1e6


async def _applied(bench: Bench, cluster: Cluster, node: ClusterNode, topic: str) -> float:
    """Seconds that the command takes."""
    path = bench.folder / "jobs.toml"
    declared = [
        f'name = "bench"\nclientId = "{cluster.name}"\n[defaults]\ndelivery.topic = "{topic}"',
        f'taskData = {{ note = "{DATA["note"]}" }}',
        *(
            f'[jobs.applied-{n}]\ntrigger = {{ type = "cron", expression = "{n % 60} 3 * * *" }}'
            for n in range(APPLIED)
        ),
    ]
    path.write_text("\n".join(declared), encoding="utf-8")
    start_s = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "clockwork", "--url", node.client.url, "job", "apply", str(path)),
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.DEVNULL,
    )
    if await process.wait():
        raise RuntimeError("the command failed")
    return time.perf_counter() - start_s
