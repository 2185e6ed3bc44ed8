"""Creates over HTTP: beside the transactions that they are made of, and what one costs the node.

`creates`, on a store. On DynamoDB Local the yardstick is a loop that sends the same `TransactWriteItems` with nothing
around them, by fifties as far as there are clients; it runs in this process, the node in its own.
`creates-stub`, on a stub that answers after 5 ms: the node's own CPU.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from clockwork.domain.schedule import Row
from clockwork.stores.dynamodb import transactions
from clockwork.stores.dynamodb.attributes import Item
from clockwork.stores.dynamodb.batching import ACTIONS_MAX, TRANSACTIONS_AT_ONCE
from clockwork.stores.dynamodb.client import DynamoClient
from tests.benchmarks.figures import Finding, Goal
from tests.benchmarks.raw_http import post, send_all
from tests.benchmarks.stub import stub_dynamo
from tests.benchmarks.world import Bench, cpu_s, dynamo, row_of, started
from tests.support import builders
from tests.support.nodes import Cluster, ClusterNode, now_ms

COUNTS: Final = {1: 500, 16: 5_000, 64: 10_000, 256: 15_000}
"""Creates of one round, by the number of clients: some seconds each."""
PAYLOAD: Final = {"note": "x" * 490}
AHEAD_MS: Final = 86_400_000
"""Nothing fires meanwhile."""


async def on_a_store(bench: Bench) -> None:
    async with bench.cluster() as cluster:
        topic = await cluster.topic()
        node = await started(cluster, role="api")
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(dynamo(cluster)) if bench.store == "dynamodb" else None
            await _timed_http(cluster, node, topic, "warm", 1_000, clients=64)
            for clients, full in COUNTS.items():
                count = bench.scaled(full)
                ours, bare = [], []
                for n in range(bench.rounds):
                    prefix = f"{clients}-{n}"
                    ours.append(count / await _timed_http(cluster, node, topic, prefix, count, clients=clients))
                    if client is not None:
                        bare.append(count / await _timed_bare(cluster, client, topic, prefix, count, clients=clients))
                bench.report.add(
                    Finding(
                        scenario="creates",
                        what=f"creates over HTTP, {clients} clients",
                        unit="/s",
                        rounds=ours,
                        yardstick=bare,
                        goal=Goal(bound=0.8, at_least=True, of_ratio=True) if bare else None,
                    )
                )
                plot = bench.report.plot("creates", title="Creates over HTTP", x="clients", y="per second", log_x=True)
                plot.series["Clockwork"].append((clients, max(ours)))
                if bare:
                    plot.series["bare transactions"].append((clients, max(bare)))


async def on_a_stub(bench: Bench, *, module: str = "clockwork", name: str = "") -> None:
    async with bench.cluster() as cluster, stub_dynamo(cluster) as endpoint:
        topic = await cluster.topic()
        node = await started(cluster, role="api", module=module, DYNAMODB_ENDPOINT=endpoint)
        await _timed_http(cluster, node, topic, "warm", 2_000, clients=64)
        count, cost_us = bench.scaled(20_000), []
        for n in range(bench.rounds):
            before_s = await cpu_s(node)
            await _timed_http(cluster, node, topic, f"stub-{n}", count, clients=256)
            cost_us.append((await cpu_s(node) - before_s) / count * 1e6)
        what = f"node CPU per create, 256 clients{name}"
        bench.report.add(Finding(scenario="creates-stub", what=what, unit="µs", rounds=cost_us, goal=Goal(bound=150.0)))
        per_core = [1e6 / us for us in cost_us]
        goal = Goal(bound=5_000.0, at_least=True)
        what = f"creates per core{name}"
        bench.report.add(Finding(scenario="creates-stub", what=what, unit="/s", rounds=per_core, goal=goal))


async def _timed_http(
    cluster: Cluster, node: ClusterNode, topic: str, prefix: str, count: int, *, clients: int
) -> float:
    requests = [
        post(
            node.client.url,
            "/schedule",
            cluster.body(topic, f"h-{prefix}-{n}", in_ms=AHEAD_MS, data=PAYLOAD),
        )
        for n in range(count)
    ]
    start_s = time.perf_counter()
    await send_all(node.client.url, requests, clients=clients)
    return time.perf_counter() - start_s


async def _timed_bare(
    cluster: Cluster, client: DynamoClient, topic: str, prefix: str, count: int, *, clients: int
) -> float:
    due_ms = now_ms() + AHEAD_MS
    payload = b'{"note":"' + b"x" * 490 + b'"}'
    rows = [row_of(cluster, topic, f"b-{prefix}-{n}", due_ms, payload=payload) for n in range(count)]
    size = min(ACTIONS_MAX // 2, clients)
    groups = [_actions(client, rows[start : start + size]) for start in range(0, count, size)]
    start_s = time.perf_counter()
    waiting = iter(groups)

    async def one_after_another() -> None:
        for group in waiting:
            await client.call("transact_write_items", TransactItems=group)

    async with asyncio.TaskGroup() as tasks:
        for n in range(min(TRANSACTIONS_AT_ONCE, max(1, clients // size))):
            tasks.create_task(one_after_another(), name=f"bare-{n}")
    return time.perf_counter() - start_s


def _actions(client: DynamoClient, rows: Sequence[Row]) -> list[Item]:
    return [
        action
        for row in rows
        for action in transactions.create_actions(client.settings, row, builders.pointer(row), None)
    ]
