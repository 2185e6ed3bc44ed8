"""Lateness beside a snapshot that stays open for ten minutes, as a backup's or a forgotten session's does.

While it is open, no deleted row can be removed by vacuum. 1,000 a second are created by batches meanwhile, and so many
delivered; the p99 before, during and after, and PostgreSQL's CPU for each schedule, tell what the dead rows cost.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import asyncpg

from tests.benchmarks.cpu import POSTGRES, cpu_of_service_s
from tests.benchmarks.figures import Finding, quantile
from tests.benchmarks.steady import Contender, contender, load
from tests.benchmarks.world import Arrival, Bench, collect
from tests.support.nodes import now_ms

RATE: Final = 1_000
BATCH: Final = 50
WARM_S: Final = 20
PHASES: Final = {"before": 120, "during": 600, "after": 240}
"""Seconds. After it, vacuum needs some time to remove what has gathered."""
AHEAD_S: Final = 3.0
"""Time before a phase in which what is due in it was created, at most."""
LATE_S_MAX: Final = 120.0
PLOT_MS: Final = 10_000
DEAD_ROWS: Final = "SELECT n_dead_tup FROM pg_catalog.pg_stat_user_tables WHERE schemaname = $1 AND relname = 'rows'"


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One of the three."""

    from_ms: int
    to_ms: int
    postgres_cpu_s: float
    dead_rows: int
    """In the table of pending schedules, at its end; by the server's statistics."""


async def across_one(bench: Bench) -> None:
    seconds = {name: bench.scaled(full) for name, full in PHASES.items()}
    total_s = WARM_S + sum(seconds.values())
    async with AsyncExitStack() as stack:
        ours = await contender(bench, stack, "")
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(
                collect(ours.cluster, ours.topic, RATE * total_s, within_s=total_s + LATE_S_MAX), name="read"
            )
            phases = group.create_task(_phases(bench, ours, seconds), name="phases")
            statuses = group.create_task(load(ours, RATE, "row", seconds=total_s, batch=BATCH), name="load")
        refused = sum(count for status, count in statuses.result().items() if status != "201")
        _report(bench, reading.result(), phases.result(), refused)


async def _phases(bench: Bench, ours: Contender, seconds: Mapping[str, int]) -> Mapping[str, Phase]:
    """The phases, one after another, while the load goes on."""
    await asyncio.sleep(WARM_S + AHEAD_S)
    phases: dict[str, Phase] = {}
    async with _connected(bench) as connection:
        for name, length_s in seconds.items():
            from_ms, cpu_before_s = now_ms(), cpu_of_service_s(POSTGRES)
            if name == "during":
                async with _open_snapshot(bench):
                    await asyncio.sleep(length_s)
            else:
                # Nothing is due any more when the load has ended.
                await asyncio.sleep(length_s - (AHEAD_S if name == "after" else 0))
            dead_rows = await connection.fetchval(DEAD_ROWS, ours.cluster.settings["CLOCKWORK_POSTGRES_SCHEMA"])
            phases[name] = Phase(
                from_ms=from_ms,
                to_ms=now_ms(),
                postgres_cpu_s=cpu_of_service_s(POSTGRES) - cpu_before_s,
                dead_rows=dead_rows,
            )
    return phases


@asynccontextmanager
async def _connected(bench: Bench) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    connection = await asyncpg.connect(bench.services.postgres_url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def _open_snapshot(bench: Bench) -> AsyncIterator[None]:
    async with _connected(bench) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        # The snapshot is taken by the first statement, not by the begin.
        await connection.fetchval("SELECT count(*) FROM pg_catalog.pg_class")
        yield


def _report(bench: Bench, arrivals: Sequence[Arrival], phases: Mapping[str, Phase], refused: int) -> None:
    def add(what: str, unit: str, value: float, beside: float | None = None) -> None:
        yardstick = [] if beside is None else [beside]
        bench.report.add(Finding(scenario="snapshot", what=what, unit=unit, rounds=[value], yardstick=yardstick))

    def p99_ms(from_ms: int, to_ms: int) -> float:
        return quantile([each.appended_ms - each.due_ms for each in arrivals if from_ms <= each.due_ms < to_ms], 0.99)

    def cpu_us(phase: Phase) -> float:
        return phase.postgres_cpu_s / (RATE * (phase.to_ms - phase.from_ms) / 1_000) * 1e6

    before, during = phases["before"], phases["during"]
    usual_ms = p99_ms(before.from_ms, before.to_ms)
    length_ms = during.to_ms - during.from_ms
    for name, phase in phases.items():
        is_first = phase is before
        what = f"{name} a snapshot of {length_ms / 1_000:.0f} s, {RATE:,}/s"
        add(f"p99 {what}", "ms", p99_ms(phase.from_ms, phase.to_ms), None if is_first else usual_ms)
        add(f"PostgreSQL's CPU a schedule {what}", "µs", cpu_us(phase), None if is_first else cpu_us(before))
        add(f"dead rows at the end, {what}", "", phase.dead_rows)
    add("p99 in the snapshot's last tenth", "ms", p99_ms(during.to_ms - length_ms // 10, during.to_ms), usual_ms)
    add("creates not answered 201", "", refused)
    plot = bench.report.plot("snapshot", title=f"A long snapshot, {RATE:,}/s", x="seconds", y="p99 in ms")
    plot.series["Clockwork"] = [
        ((from_ms - before.from_ms) / 1_000, p99_ms(from_ms, from_ms + PLOT_MS))
        for from_ms in range(before.from_ms, phases["after"].to_ms, PLOT_MS)
    ]
