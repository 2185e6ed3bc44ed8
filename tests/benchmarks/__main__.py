"""Runs the benchmarks; `make bench SCENARIO=name QUICK=1`."""

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from infra.local import LocalServices
from tests.benchmarks import (
    broker_cpu,
    costs,
    creates,
    drains,
    dynamo_calls,
    handovers,
    lateness,
    lists,
    memory_store,
    node_cpu,
    paces,
    sections,
    steady,
    transactions,
    turns,
    uvloops,
)
from tests.benchmarks.report import Report
from tests.benchmarks.world import Bench

RESULTS: Final = Path("bench-results")
SCENARIOS: Final[dict[str, Callable[[Bench], Awaitable[None]]]] = {
    "sections": lambda bench: sections.run(bench.report),
    "turns": turns.under_the_largest_loads,
    "creates": creates.on_dynamodb_local,
    "creates-stub": creates.on_a_stub,
    "drain": drains.on_dynamodb_local,
    "drain-stub": drains.on_a_stub,
    "shards": drains.over_shards,
    "lateness": lateness.at_rates,
    "steady": steady.under_load,
    "memory": memory_store.at_a_thousand,
    "memory-drain": memory_store.drained,
    "pace": paces.compared,
    "rebalance": lateness.across_a_rebalance,
    "burst": lateness.beside_a_burst,
    "pending": lateness.before_a_backlog,
    "lists": lists.of_a_client_with_many,
    "idle": costs.of_nothing_to_do,
    "cost": costs.of_a_life,
    "takeover": handovers.after_kills,
    "handover": handovers.to_a_node_that_joins,
    "rolling": handovers.through_a_rolling_restart,
    "node-cpu": node_cpu.split,
    "broker-cpu": broker_cpu.of_a_transaction,
    "transactions": transactions.beside_the_library,
    "calls": dynamo_calls.beside_the_library,
}
ON_REQUEST: Final = {"uvloop": uvloops.compared}
"""Not part of the whole."""


async def main(names: list[str], *, quick: bool, against: Path | None) -> None:
    report = Report(RESULTS)
    with tempfile.TemporaryDirectory(prefix="clockwork-bench-") as folder:
        async with LocalServices() as services:
            bench = Bench(services=services, folder=Path(folder), report=report, quick=quick, against=against)
            for name in names:
                print(f"\n{name}", flush=True)
                await (SCENARIOS | ON_REQUEST)[name](bench)
                report.write()
    print(f"\nresults in {RESULTS}/: summary.md, summary.json, plots")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    names = ", ".join([*SCENARIOS, *ON_REQUEST])
    parser.add_argument("scenario", nargs="*", help=f"of {names}; default: all but {', '.join(ON_REQUEST)}")
    parser.add_argument("--quick", action="store_true", help="a tenth of the size, two rounds")
    parser.add_argument("--against", type=Path, help="another worktree, whose node runs the rounds of `steady`, too")
    chosen = parser.parse_args()
    if unknown := set(chosen.scenario) - {*SCENARIOS, *ON_REQUEST}:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}; there are {names}")
    against = chosen.against.absolute() if chosen.against is not None else None
    asyncio.run(main(chosen.scenario or list(SCENARIOS), quick=chosen.quick, against=against))
