"""The longest turns of the event loop of a node under the largest pages, batches and payloads that are allowed.

`sections` times single pieces of work; here a whole node runs in this process, and every callback of its loop is timed: what
several pieces make together when no `await` between them really waits.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from tests.benchmarks.figures import Finding, Goal, quantile
from tests.benchmarks.world import Bench, dynamo, preload, row_of, shards_of, sleep_until, until_empty
from tests.support.nodes import Cluster, node_here, now_ms

TURN_MS_MAX: Final = 10.0
SHOWN: Final = 5
LOADS: Final = {"many small": (20_000, 200), "few large": (200, 250_000)}
"""Rows and bytes of each."""


async def under_the_largest_loads(bench: Bench) -> None:
    for name, (full, payload_bytes) in LOADS.items():
        count = bench.scaled(full)
        async with bench.cluster(shards=4, CLOCKWORK_BATCH_RECORDS_MAX="2000") as cluster, dynamo(cluster) as client:
            topic = await cluster.topic(kafka_partitions=8)
            async with node_here(cluster):
                due_ms = now_ms() + 20_000
                await preload(client, _rows(cluster, topic, count, payload_bytes, due_ms))
                await sleep_until(due_ms - 500)
                with timed_turns() as turns:
                    await until_empty(client)
        longest = {where: max(took_ms) for where, took_ms in turns.items()}
        worst = sorted(longest, key=lambda where: -longest[where])[:SHOWN]
        every = [ms for took_ms in turns.values() for ms in took_ms]
        goal = Goal(bound=TURN_MS_MAX)
        what = f"turns of the loop, {name}"
        bench.report.add(Finding(scenario="turns", what=f"p999 of {what}", unit="ms", rounds=[quantile(every, 0.999)]))
        bench.report.add(
            Finding(scenario="turns", what=f"longest of {what}", unit="ms", rounds=[max(every)], goal=goal)
        )
        for where in worst:
            bench.report.add(Finding(scenario="turns", what=f"{where}, {name}", unit="ms", rounds=[longest[where]]))


def _rows(cluster: Cluster, topic: str, count: int, payload_bytes: int, due_ms: int) -> list[Any]:
    payload = b'"' + b"x" * payload_bytes + b'"'
    return [
        row_of(cluster, topic, f"turn-{n}", due_ms, shard=n % shards_of(cluster), payload=payload) for n in range(count)
    ]


@contextmanager
def timed_turns() -> Iterator[dict[str, list[float]]]:
    """Milliseconds of every callback, by what it was."""
    turns: dict[str, list[float]] = defaultdict(list)
    run = asyncio.events.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        start_s = time.perf_counter()
        run(handle)
        turns[_name_of(handle)].append((time.perf_counter() - start_s) * 1_000)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.events.Handle, "_run", timed)
        yield turns


def _name_of(handle: asyncio.Handle) -> str:
    callback = getattr(handle, "_callback", None)
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        return f"task {task.get_name().rstrip('0123456789-')}"
    return str(getattr(callback, "__qualname__", type(callback).__name__))
