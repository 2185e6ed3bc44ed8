"""`python -m tests.benchmarks.loader`: one process of the load of a benchmark: creates over HTTP, at an even pace.

A process of its own, so that neither its work nor its pauses are the node's or the measurement's. It prints one line of
JSON: how many creates were answered, by status. `--batch` sends so many schedules in one request.
"""

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import aiohttp

from clockwork.clock import SystemClock

DATA: Final = {"note": "x" * 200}
CONNECTIONS: Final = 64


async def load(chosen: argparse.Namespace) -> Counter[int]:
    """Sends what was chosen; the statuses of the single creates."""
    rng, loop = random.Random(chosen.prefix), asyncio.get_running_loop()
    clock = SystemClock()
    statuses: Counter[int] = Counter()
    start_s = loop.time()
    count = round(chosen.rate * chosen.seconds)

    def body(n: int) -> dict[str, Any]:
        ahead_ms = rng.randint(chosen.ahead_ms, chosen.ahead_ms + chosen.spread_ms)
        return {
            "clientId": chosen.client,
            "scheduleKey": f"{chosen.prefix}-{n}",
            "scheduleTime": chosen.due_ms or clock.now_ms() + ahead_ms,
            "taskData": DATA,
            "delivery": {"topic": chosen.topic, "guarantee": chosen.guarantee},
        }

    async def one(session: aiohttp.ClientSession, n: int) -> None:
        async with session.post(f"{chosen.url}/schedule", json=body(n)) as answer:
            await answer.read()
            statuses[answer.status] += 1

    async def many(session: aiohttp.ClientSession, numbers: range) -> None:
        document = {"schedules": [body(n) for n in numbers]}
        async with session.post(f"{chosen.url}/schedules", json=document) as answer:
            results = (await answer.json())["results"] if answer.status == 200 else []
            statuses.update(result["status"] for result in results)
            statuses[answer.status] += 0 if results else len(numbers)

    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
        for n in range(0, count, chosen.batch):
            await asyncio.sleep(max(0.0, start_s + n / chosen.rate - loop.time()))
            if chosen.batch == 1:
                group.create_task(one(session, n), name=f"create-{n}")
            else:
                group.create_task(many(session, range(n, min(count, n + chosen.batch))), name=f"batch-{n}")
    return statuses


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.loader", description=__doc__)
    parser.add_argument("--url", required=True, help="of the node")
    parser.add_argument("--client", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--prefix", required=True, help="of the keys; the seed of the due times, too")
    parser.add_argument("--rate", type=float, required=True, help="schedules a second")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--ahead-ms", type=int, default=2_000, help="how far ahead they are due at least")
    parser.add_argument("--spread-ms", type=int, default=1_000, help="and at most so much more")
    parser.add_argument("--due-ms", type=int, default=0, help="all are due then")
    parser.add_argument("--guarantee", default="exactly_once")
    parser.add_argument("--batch", type=int, default=1, help="schedules in one request")
    sys.stdout.write(json.dumps(asyncio.run(load(parser.parse_args(arguments)))) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
