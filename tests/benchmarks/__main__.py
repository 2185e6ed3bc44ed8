"""Runs the benchmarks; `make bench SCENARIO=name QUICK=1`."""

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Final

from infra.local import LocalServices
from infra.local.node import Store
from tests.benchmarks import (
    broker_cpu,
    costs,
    creates,
    drains,
    dynamo_calls,
    events,
    handovers,
    jobs,
    jobs_many,
    lateness,
    lists,
    memory_store,
    node_cpu,
    overviews,
    paces,
    ready,
    sections,
    snapshot,
    steady,
    transactions,
    turns,
    uvloops,
)
from tests.benchmarks.peers import rounds
from tests.benchmarks.report import Report
from tests.benchmarks.world import Bench

RESULTS: Final = Path("bench-results")
SCENARIOS: Final[dict[str, Callable[[Bench], Awaitable[None]]]] = {
    "sections": lambda bench: sections.run(bench.report),
    "turns": turns.under_the_largest_loads,
    "creates": creates.on_a_store,
    "creates-stub": creates.on_a_stub,
    "drain": drains.on_a_store,
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
    "events": events.measured,
    "overviews": overviews.beside_deliveries,
    "lists": lists.of_a_client_with_many,
    "idle": costs.of_nothing_to_do,
    "cost": costs.of_a_life,
    "job-cost": jobs.of_a_run,
    "jobs": jobs.each_second,
    "job-creates": jobs_many.made,
    "takeover": handovers.after_kills,
    "handover": handovers.to_a_node_that_joins,
    "rolling": handovers.through_a_rolling_restart,
    "node-cpu": node_cpu.split,
    "broker-cpu": broker_cpu.of_a_transaction,
    "transactions": transactions.beside_the_library,
    "calls": dynamo_calls.beside_the_library,
    "snapshot": snapshot.across_one,
    "peers": rounds.run,
    "ready": ready.of_make_run,
}
OF_DYNAMODB: Final = frozenset(
    {
        "memory",
        "memory-drain",
        "creates-stub",
        "drain-stub",
        "idle",
        "cost",
        "job-cost",
        "node-cpu",
        "broker-cpu",
        "transactions",
        "calls",
        "uvloop",
    }
)
"""Beside it, on a stub of it, by what it bills, or beside its own calls."""
OF_POSTGRESQL: Final = frozenset({"snapshot", "peers"})
"""Chosen alone, they choose the store, too."""
ON_REQUEST: Final = {"uvloop": uvloops.compared, "jobs-hour": jobs_many.at_the_hour}
"""Not part of the whole."""

LEFT_OUT: Final[dict[Store, frozenset[str]]] = {"dynamodb": OF_POSTGRESQL, "postgresql": OF_DYNAMODB}


def store_for(names: Collection[str]) -> Store:
    """The store on which these scenarios run, if none is chosen."""
    return "postgresql" if names and OF_POSTGRESQL.issuperset(names) else "dynamodb"


async def main(names: list[str], *, quick: bool, against: Path | None, store: Store) -> None:
    report = Report(RESULTS)
    with tempfile.TemporaryDirectory(prefix="clockwork-bench-") as folder:
        async with LocalServices(dynamodb=store == "dynamodb", postgres=store == "postgresql") as services:
            bench = Bench(
                services=services, folder=Path(folder), report=report, quick=quick, against=against, store=store
            )
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
    parser.add_argument(
        "--against", type=Path, help="another worktree, whose node runs the rounds of `steady` and `jobs`, too"
    )
    parser.add_argument(
        "--store", choices=("dynamodb", "postgresql"), help="default: dynamodb, or what was chosen needs"
    )
    chosen = parser.parse_args()
    if unknown := set(chosen.scenario) - {*SCENARIOS, *ON_REQUEST}:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}; there are {names}")
    store = chosen.store or store_for(chosen.scenario)
    left_out = LEFT_OUT[store]
    if asked := left_out & {*chosen.scenario}:
        parser.error(f"not on {store}: {', '.join(sorted(asked))}")
    names_chosen = chosen.scenario or [name for name in SCENARIOS if name not in left_out]
    against = chosen.against.absolute() if chosen.against is not None else None
    asyncio.run(main(names_chosen, quick=chosen.quick, against=against, store=store))
