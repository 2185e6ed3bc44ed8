"""Delivery from the memory store: what the engine does when no database is the limit.

`memory`: 1,000 a second on 64 shards, created by batches, beside single bare transactions in between.
`memory-drain`: 50,000 due at one moment, one process, from the due time to the broker's time of the last record.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import Final

from tests.benchmarks.figures import Finding, Goal, quantile
from tests.benchmarks.steady import (
    SECONDS,
    WARM_SECONDS,
    Contender,
    Cost,
    a_round,
    contender,
    idle_shares,
    load,
    single_bare_ms,
)
from tests.benchmarks.world import Bench, collect, cpu_s
from tests.support.nodes import now_ms

RATE: Final = 1_000
BATCH: Final = 50
P50_BEYOND_BARE_MS: Final = 30.0
P99_BEYOND_BARE_MS: Final = 80.0
DRAINED: Final = 50_000
DRAIN_BATCH: Final = 500
CREATED_PER_S: Final = 2_500
"""Creates a second before the drain, at least: they are all there before they are due."""
STARTS_MS: Final = 15_000
"""For the start of the processes that create, and what they need beyond that rate."""
DRAIN_PER_S_MIN: Final = 8_000.0
MEMORY: Final = {"CLOCKWORK_STORE": "memory", "CLOCKWORK_CREATE_RESOURCES": "true"}


async def at_a_thousand(bench: Bench) -> None:
    async with AsyncExitStack() as stack:
        ours = await contender(bench, stack, "", settings=MEMORY)
        idle = await idle_shares()
        await a_round(ours, RATE, "warm", seconds=WARM_SECONDS, idle=idle, batch=BATCH)
        rounds: list[Cost] = []
        bare_ms: list[float] = []
        for n in range(bench.rounds):
            rounds.append(await a_round(ours, RATE, f"r{n}", seconds=SECONDS, idle=idle, batch=BATCH))
            bare_ms.append(await single_bare_ms(ours.cluster, f"single{n}"))
    for share, bound in ((0.5, P50_BEYOND_BARE_MS), (0.99, P99_BEYOND_BARE_MS)):
        late = [quantile(cost.late_ms, share) for cost in rounds]
        name = f"p{share * 100:.0f}"
        _add(bench, "memory", f"{name}, {RATE:,}/s, memory store", "ms", late, yardstick=bare_ms)
        beyond = [mine - bare for mine, bare in zip(late, bare_ms, strict=True)]
        _add(bench, "memory", f"{name} beyond a bare transaction, {RATE:,}/s", "ms", beyond, goal=Goal(bound=bound))
    _add(bench, "memory", "creates not answered 201", "", [cost.refused for cost in rounds], goal=Goal(bound=0.0))
    per_row = [cost.transactions / len(cost.arrivals) for cost in rounds]
    _add(bench, "memory", f"transactions a schedule, {RATE:,}/s", "", per_row)
    cpu_ms = [cost.each_ms(cost.node_cpu_s) for cost in rounds]
    _add(bench, "memory", f"the node's CPU a schedule (create and delivery), {RATE:,}/s", "ms", cpu_ms)


async def drained(bench: Bench) -> None:
    count = bench.scaled(DRAINED)
    async with AsyncExitStack() as stack:
        ours = await contender(bench, stack, "", settings=MEMORY)
        await _drain(ours, "warm", count // 10)
        found = [await _drain(ours, f"drain{n}", count) for n in range(bench.rounds)]
    rates, cost_us = zip(*found, strict=True)
    goal = Goal(bound=DRAIN_PER_S_MIN, at_least=True)
    _add(bench, "memory-drain", f"drain of {count:,} on 64 shards, memory store, 1 process", "/s", rates, goal=goal)
    _add(bench, "memory-drain", "node CPU per delivery", "µs", cost_us)


async def _drain(ours: Contender, prefix: str, count: int) -> tuple[float, float]:
    """Deliveries a second, and the node's CPU for each, in µs."""
    seconds = count / CREATED_PER_S
    due_ms = now_ms() + round(seconds * 1_000) + STARTS_MS
    statuses = await load(ours, CREATED_PER_S, prefix, seconds=seconds, due_ms=due_ms, batch=DRAIN_BATCH)
    created = statuses.get("201", 0)
    if now_ms() >= due_ms or created != sum(statuses.values()):
        raise RuntimeError(f"not all there before they were due: {statuses}")
    await asyncio.sleep(max(0, due_ms - 200 - now_ms()) / 1_000)
    cpu_before_s = await cpu_s(ours.node)
    ours.seen += created
    arrivals = [a for a in await collect(ours.cluster, ours.topic, ours.seen) if a.schedule_key.startswith(prefix)]
    cpu_used_s = await cpu_s(ours.node) - cpu_before_s
    took_s = (max(arrival.appended_ms for arrival in arrivals) - due_ms) / 1_000
    return created / took_s, cpu_used_s / created * 1e6


def _add(
    bench: Bench,
    scenario: str,
    what: str,
    unit: str,
    rounds: "list[float] | tuple[float, ...] | list[int]",
    *,
    yardstick: "list[float] | tuple[float, ...]" = (),
    goal: Goal | None = None,
) -> None:
    bench.report.add(
        Finding(
            scenario=scenario, what=what, unit=unit, rounds=[float(v) for v in rounds], yardstick=yardstick, goal=goal
        )
    )
