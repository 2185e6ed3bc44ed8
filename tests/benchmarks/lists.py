"""A client with a hundred thousand pending schedules: made, asked for again, listed to the end, and cancelled.

By thousands, as many as a request takes, through the client that users have; the list page by page, once alone and once
while others of the same client come and go between those that stay. Whatever stays is listed exactly once, or the run fails.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from clockwork.client import AsyncClient, NewSchedule, Result
from tests.benchmarks.figures import Finding, quantile
from tests.benchmarks.world import Bench, started
from tests.support.nodes import Cluster, ClusterNode, now_ms

PENDING: Final = 100_000
BATCH: Final = 1_000
PAGE: Final = 1_000
MOVING: Final = 100
"""Created, and cancelled again, at a time."""
AHEAD_MS: Final = 86_400_000
SPREAD_MS: Final = 3_600_000
"""Due times differ, so that those who come stand between those who stay."""

_Item = TypeVar("_Item")


async def of_a_client_with_many(bench: Bench) -> None:
    async with bench.cluster() as cluster:
        topic = await cluster.topic()
        node = await started(cluster, role="api")
        chance, due_ms = random.Random(7), now_ms() + AHEAD_MS
        staying = [
            _new(cluster, topic, f"stays-{n}", due_ms + chance.randrange(SPREAD_MS))
            for n in range(bench.scaled(PENDING))
        ]
        keys = [(new.client_id, new.schedule_key) for new in staying]
        async with AsyncClient(node.client.url) as client:
            await _by_batches(bench, "create", staying, client.create_many, status=201)
            # A minute's work of the full size: whatever the index lags by is over when the list begins.
            await _by_batches(bench, "repeat", staying, client.create_many, status=200)
            await _listed(bench, node, cluster, keys, "alone")
            over = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                moving = group.create_task(_come_and_go(cluster, topic, client, due_ms, over), name="come-and-go")
                try:
                    await _listed(bench, node, cluster, keys, "while others come and go")
                finally:
                    over.set()
            print(f"  {moving.result()} came and went meanwhile", flush=True)
            await _by_batches(bench, "cancel", keys, client.cancel_many, status=200)


def _new(cluster: Cluster, topic: str, key: str, due_ms: int) -> NewSchedule:
    return NewSchedule(client_id=cluster.name, schedule_key=key, at=due_ms, topic=topic, data={"note": "x" * 200})


async def _by_batches(
    bench: Bench,
    what: str,
    items: Sequence[_Item],
    call: Callable[[Iterable[_Item]], AsyncIterator[Result]],
    *,
    status: int,
) -> None:
    took_ms: list[float] = []
    for start in range(0, len(items), BATCH):
        begun_s = time.perf_counter()
        results = [result async for result in call(items[start : start + BATCH])]
        took_ms.append((time.perf_counter() - begun_s) * 1_000)
        if wrong := [result for result in results if result.status != status]:
            raise RuntimeError(f"{what}: {len(wrong)} not answered {status}, the first: {wrong[0]}")
    _report(bench, f"{what} of {BATCH:,} in one request", took_ms)


async def _listed(
    bench: Bench, node: ClusterNode, cluster: Cluster, keys: Sequence[tuple[str, str]], when: str
) -> None:
    """Lists everything of the client. Raises: RuntimeError if one that stays is not there exactly once."""
    found: Counter[str] = Counter()
    took_ms: list[float] = []
    cursor: str | None = None
    while True:
        begun_s = time.perf_counter()
        answered = await node.client.page(cluster.name, limit=PAGE, cursor=cursor)
        took_ms.append((time.perf_counter() - begun_s) * 1_000)
        if answered.status != 200:
            raise RuntimeError(f"a page of the list was answered {answered.status}: {answered.body}")
        page: list[dict[str, Any]] = answered.body["schedules"]
        found.update(each["scheduleKey"] for each in page)
        cursor = answered.body["cursor"]
        if cursor is None:
            break
    if wrong := {key: found[key] for _, key in keys if found[key] != 1}:
        raise RuntimeError(
            f"{len(wrong)} of {len(keys)} not listed exactly once, some of them: {list(wrong.items())[:5]}"
        )
    _report(bench, f"a page of {PAGE:,} of {len(keys):,}, {when}", took_ms)


async def _come_and_go(cluster: Cluster, topic: str, client: AsyncClient, due_ms: int, over: asyncio.Event) -> int:
    """Returns the number of those that did."""
    chance, turn = random.Random(8), 0
    while not over.is_set():
        news = [_new(cluster, topic, f"goes-{turn}-{n}", due_ms + chance.randrange(SPREAD_MS)) for n in range(MOVING)]
        keys = [(new.client_id, new.schedule_key) for new in news]
        for results in (client.create_many(news), client.cancel_many(keys)):
            async for result in results:
                if result.error is not None:
                    raise result.error
        turn += 1
    return turn * MOVING


def _report(bench: Bench, what: str, took_ms: Sequence[float]) -> None:
    """The finding has the median and the extremes; what matters beside is how bad one of a hundred is."""
    print(f"  {what}: p99 {quantile(took_ms, 0.99):,.0f} ms of {len(took_ms)}", flush=True)
    bench.report.add(Finding(scenario="lists", what=what, unit="ms", rounds=took_ms))
