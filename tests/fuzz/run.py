"""`make fuzz MINUTES=5`: every campaign over and over, each round from another seed; prints what became of the examples.

What fails is printed as small as hypothesis could make it, with its seed: SEED=… runs that round again.
"""

import argparse
import asyncio
import logging
import random
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import strategies as st

from clockwork.access.keys import KeyRing
from clockwork.observability.metrics import PrometheusTelemetry
from infra.local import LocalServices
from infra.local.node import Store
from tests.fuzz import files, postgres_rows, real, requests, rows, wakeups
from tests.fuzz.tally import Tally, sample, try_each
from tests.support.clocks import ManualClock
from tests.support.nodes import Cluster, ClusterNode, opened_cluster
from tests.unit.api_edge import NOW_MS
from tests.unit.service import open_service

REQUESTS = 2_000
ROWS = 2_000
FILES = 500
WAKEUPS = 1_000
REAL_ROWS = 100
REAL_WAKEUPS = 200
"""Numbers of one round: some 30 s each for what is in memory, and for what is real."""


async def _in_memory(seeded: int, tally: Tally) -> None:
    async with open_service() as service:
        await service.seed("shop", "other")
        port = int(service.url.rpartition(":")[2])
        await asyncio.to_thread(requests.run, port, count=REQUESTS, seeded=seeded, tally=tally)
    for damage, at in sample(st.tuples(rows.DAMAGES, st.none() | rows.POSITIONS), count=ROWS, seeded=seeded):
        await rows.check(partial(rows.dynamo_row, damage=damage, at=at), tally)
    for change in sample(postgres_rows.DAMAGES, count=ROWS, seeded=seeded):
        await rows.check(change.row, tally, postgres_rows.CAMPAIGN)
    for value in sample(wakeups.VALUES, count=WAKEUPS, seeded=seeded):
        wakeups.check(value, tally)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "keys.toml"
        path.write_bytes(files.SOUND_KEYS)
        ring = KeyRing(path, ManualClock(NOW_MS), PrometheusTelemetry())
        for text in sample(files.KEYS_FILES, count=FILES, seeded=seeded):
            await files.check_keys(text, ring, path, tally)
        try_each(
            files.SETTINGS_FILES,
            lambda text: files.check_settings(text, Path(folder), tally),
            count=FILES,
            seeded=seeded,
        )


async def _on_real_services(seeded: int, tally: Tally, cluster: Cluster, node: ClusterNode) -> None:
    damages: st.SearchStrategy[Any] = postgres_rows.DAMAGES if cluster.store == "postgresql" else rows.DAMAGES
    await real.plant_rows(cluster, node, sample(damages, count=REAL_ROWS, seeded=seeded), tally)
    await real.put_records(cluster, node, sample(wakeups.VALUES, count=REAL_WAKEUPS, seeded=seeded), tally)


async def _rounds(minutes: float, seed: int | None, tally: Tally, store: Store) -> int:
    """Returns the number of rounds."""
    loop = asyncio.get_running_loop()
    with TemporaryDirectory() as folder:
        async with (
            LocalServices(dynamodb=store == "dynamodb", postgres=store == "postgresql") as services,
            opened_cluster(services, Path(folder), store=store) as cluster,
        ):
            node = await cluster.start()
            await node.until_works(int(cluster.settings["CLOCKWORK_SHARDS"]))
            campaigns: list[Callable[[int], Awaitable[None]]] = [
                lambda seeded: _in_memory(seeded, tally),
                lambda seeded: _on_real_services(seeded, tally, cluster, node),
            ]
            ends_s, rounds = loop.time() + minutes * 60, 0
            while loop.time() < ends_s or rounds == 0:
                seeded = random.getrandbits(32) if seed is None else seed + rounds
                print(f"round {rounds + 1}, SEED={seeded}", flush=True)
                for campaign in campaigns:
                    await campaign(seeded)
                rounds += 1
                print(f"{sum(tally.counts.values()):,} examples so far", flush=True)
            return rounds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--store", choices=("dynamodb", "postgresql"), default="dynamodb", help="default: dynamodb")
    chosen = parser.parse_args()
    logging.getLogger("clockwork").setLevel(logging.CRITICAL + 1)  # what is refused is logged, thousands of times
    tally = Tally()
    try:
        rounds = asyncio.run(_rounds(chosen.minutes, chosen.seed, tally, chosen.store))
    finally:
        print(tally.text())
    print(f"{rounds} rounds, {sum(tally.counts.values()):,} examples, nothing lost, no answer of 500 and above")
    return 0


if __name__ == "__main__":
    sys.exit(main())
