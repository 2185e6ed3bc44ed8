"""The node's own CPU for a schedule, by part, at a steady rate and in a drain: requests, signing, parsing, wake-ups.

Two measurements of the same rounds. A node as it is: its CPU for each schedule, and its requests to the store for each, by
operation. A node under a profiler (`profiled_node`): the share of each part of the code in its time, and how often that is
called, for each schedule, which is paid for by the call: requests to Kafka, signatures, turns of the event loop.
"""

import pstats
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.figures import Finding
from tests.benchmarks.profiled_node import PROFILE
from tests.benchmarks.steady import Contender, a_round, contender, idle_shares
from tests.benchmarks.world import Bench
from tests.support.nodes import ClusterNode

RATES: Final = (10, 100, 300)
SECONDS: Final = 20
PARTS: Final = (
    ("sockets", ("_socket", "socket.py", "ssl.py")),
    ("signing of store requests", ("stores/dynamodb/signature",)),
    ("store: codec, conditions, batches", ("clockwork/stores/",)),
    ("Kafka: producers, markers, topics", ("clockwork/kafka/", "clockwork/domain/marker")),
    ("Kafka: aiokafka", ("aiokafka/",)),
    ("HTTP client and server: aiohttp", ("aiohttp/", "yarl/", "multidict/", "frozenlist/", "propcache/")),
    ("HTTP: our routes and connections", ("clockwork/http/", "clockwork/access/")),
    ("JSON, forms and their checks", ("clockwork/schema/", "pydantic", "orjson", "json/")),
    ("requests: create, cancel", ("clockwork/requests/",)),
    ("planning and firing", ("clockwork/firing/", "clockwork/domain/")),
    ("metrics, logs", ("clockwork/observability/", "prometheus_client/", "logging/")),
    ("event loop and tasks", ("asyncio/", "selectors", "_asyncio", "select.epoll", "clockwork/concurrency")),
)
"""Names of parts, and what the file or the name of a function has in it; the first that fits."""
BUILT_IN: Final = "~"
CALLS: Final = (
    ("requests to Kafka", "kafka/client", "request"),
    ("signatures", "dynamodb/signature", "headers"),
    ("turns of the event loop", "asyncio/base_events", "_run_once"),
    ("callbacks of the event loop", "asyncio/events", "_run"),
    ("passes", "firing/shard_pass", "run"),
    ("wake-ups told", "firing/shard_loop", "tell"),
)
"""The counted parts: a name, the file, the function."""


async def split(bench: Bench) -> None:
    for rate in RATES:
        async with AsyncExitStack() as stack:
            plain = await contender(bench, stack, "")
            idle = await idle_shares()
            await a_round(plain, rate, "warm", seconds=SECONDS / 2, idle=idle)
            cpu_ms, asked = [], []
            for n in range(bench.rounds):
                before = await store_calls(plain.node)
                cost = await a_round(plain, rate, f"r{n}", seconds=SECONDS, idle=idle)
                cpu_ms.append(cost.each_ms(cost.node_cpu_s))
                calls = await store_calls(plain.node) - before
                asked.append({name: number / len(cost.arrivals) for name, number in calls.items()})
        _add(bench, f"the node's CPU a schedule, {rate}/s", "ms", cpu_ms)
        for name in sorted({name for each in asked for name in each}):
            _add(bench, f"{name} a schedule, {rate}/s", "calls", [each.get(name, 0.0) for each in asked])
        await _profiled(bench, rate)


async def _profiled(bench: Bench, rate: int) -> None:
    path = bench.folder / f"profile-{rate}"
    async with AsyncExitStack() as stack:
        slow: Contender = await contender(
            bench, stack, "", module="tests.benchmarks.profiled_node", settings={PROFILE: str(path)}
        )
        idle = await idle_shares()
        cost = await a_round(slow, rate, "profiled", seconds=SECONDS, idle=idle)
        await slow.node.process.stop()
    shares, calls = read_profile(path)
    for part, share in sorted(shares.items(), key=lambda item: -item[1]):
        _add(bench, f"{part}, {rate}/s", "% of the profile", [share * 100])
    for name, number in calls.items():
        _add(bench, f"{name} a schedule, {rate}/s", "calls", [number / len(cost.arrivals)])


async def store_calls(node: ClusterNode) -> Counter[str]:
    """Requests to the store so far, by operation."""
    found: Counter[str] = Counter()
    for labels, value in re.findall(
        r"^clockwork_store_seconds_count\{(.*)\} (\S+)$", await node.client.metrics(), re.M
    ):
        (operation,) = re.findall(r'operation="(\w+)"', labels)
        found[operation] += int(float(value))
    return found


def read_profile(path: Path) -> tuple[Mapping[str, float], Mapping[str, int]]:
    """The share of each part in the profile's own time without the waits for the network, and the counted calls."""
    stats: Any = pstats.Stats(str(path))
    own_s: dict[str, float] = defaultdict(float)
    calls: Counter[str] = Counter()
    for (file, _line, function), (_primitive, number, its_own_s, _all_s, callers) in stats.stats.items():
        for name, its_file, its_function in CALLS:
            if f"{its_file}.py" in file and function == its_function:
                calls[name] += number
        if "poll" in function:
            continue  # waits
        if file != BUILT_IN:
            own_s[_part(file, function)] += its_own_s
            continue
        # A function in C belongs to the part that calls it.
        for (its_file, _its_line, its_function), (_, _, by_caller_s, _) in callers.items():
            own_s[_part(f"{its_file} {file}", f"{its_function} {function}")] += by_caller_s
    whole_s = sum(own_s.values())
    return {part: its_s / whole_s for part, its_s in own_s.items()}, calls


def _part(file: str, function: str) -> str:
    where = f"{file} {function}"
    return next((part for part, words in PARTS if any(word in where for word in words)), "everything else")


def _add(bench: Bench, what: str, unit: str, rounds: list[float]) -> None:
    bench.report.add(Finding(scenario="node-cpu", what=what, unit=unit, rounds=rounds))
