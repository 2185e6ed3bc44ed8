"""The pace of Kafka transactions: what `CLOCKWORK_TRANSACTION_PACE_MS` costs in lateness, and saves in transactions.

A node for each pace, all rates on each; 1,000 a second from the memory store and created by batches, the others from
DynamoDB Local. The paces alternate: every round goes through all of them, so that what else the machine does falls on all.
"""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Final

from tests.benchmarks.figures import Finding, Goal, quantile
from tests.benchmarks.memory_store import BATCH, MEMORY
from tests.benchmarks.steady import Contender, Cost, a_round, contender, idle_shares
from tests.benchmarks.world import Bench

PACES_MS: Final = (0, 10, 20, 40)
SLOW_RATES: Final = (10, 100, 300)
FAST_RATE: Final = 1_000
SECONDS: Final = 10
LOADS: Final[tuple[tuple[tuple[int, ...], Mapping[str, str], int], ...]] = (
    (SLOW_RATES, {}, 1),
    ((FAST_RATE,), MEMORY, BATCH),
)
"""Rates, settings of the nodes, schedules in one request."""
P99_MS_MAX: Final = 50.0
"""At 100/s with the pace that is the default."""
DEFAULT_MS: Final = 20


async def compared(bench: Bench) -> None:
    for rates, settings, batch in LOADS:
        async with AsyncExitStack() as stack:
            contenders = {
                pace_ms: await contender(
                    bench, stack, "", settings={**settings, "CLOCKWORK_TRANSACTION_PACE_MS": str(pace_ms)}
                )
                for pace_ms in PACES_MS
            }
            idle = await idle_shares()
            for each in contenders.values():
                await a_round(each, max(rates), "warm", seconds=SECONDS, idle=idle, batch=batch)
            for rate in rates:
                rounds = await _rounds(bench, contenders, rate, idle, batch)
                for pace_ms, costs in rounds.items():
                    _report(bench, f"{rate:,}/s, pace {pace_ms} ms", costs, rate == 100 and pace_ms == DEFAULT_MS)


async def _rounds(
    bench: Bench, contenders: dict[int, Contender], rate: int, idle: Mapping[str, float], batch: int
) -> dict[int, list[Cost]]:
    rounds: dict[int, list[Cost]] = {pace_ms: [] for pace_ms in contenders}
    for n in range(bench.rounds):
        for pace_ms, each in contenders.items():
            rounds[pace_ms].append(await a_round(each, rate, f"r{n}-{rate}", seconds=SECONDS, idle=idle, batch=batch))
    return rounds


def _report(bench: Bench, what: str, costs: list[Cost], judged: bool) -> None:
    figures = (
        ("p50", "ms", [quantile(cost.late_ms, 0.5) for cost in costs], None),
        ("p99", "ms", [quantile(cost.late_ms, 0.99) for cost in costs], Goal(bound=P99_MS_MAX) if judged else None),
        ("transactions a schedule", "", [cost.transactions / len(cost.arrivals) for cost in costs], None),
        ("Kafka's CPU a schedule", "ms", [cost.each_ms(cost.kafka_cpu_s) for cost in costs], None),
        ("the node's CPU a schedule", "ms", [cost.each_ms(cost.node_cpu_s) for cost in costs], None),
    )
    for figure, unit, values, goal in figures:
        bench.report.add(Finding(scenario="pace", what=f"{figure}, {what}", unit=unit, rounds=values, goal=goal))
