"""The figures of the main job, on real services: lateness, drain, take-over.

Lateness is the broker's append time minus `scheduleTime`, on a topic with `LogAppendTime`, so neither the node's clock
nor the reader's delay is in it. The drain is set beside the bare DynamoDB writes that any delivery needs (an outcome and
a delete per schedule), made by the same client with nothing else to do.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiokafka import AIOKafkaConsumer

from clockwork.adapters.dynamo_client import DynamoClient
from clockwork.adapters.dynamo_wire import DynamoClientSettings
from clockwork.adapters.kafka_client import KafkaSettings
from clockwork.adapters.kafka_topics import create_topics
from clockwork.adapters.telemetry import NoTelemetry
from clockwork.clock import ClockGuard, SystemClock
from infra.local import LocalServices
from infra.local.node import NodeProcess, node_environment
from infra.local.ports import free_port
from infra.local.verdict import percentile

TOPIC: Final = "bench"
SHARDS: Final = 16
SESSION_TIMEOUT_MS: Final = 6_000
PAYLOAD: Final = {"note": "x" * 200}


def now_ms() -> int:
    """The benchmark stands outside and looks at the wall."""
    return time.time_ns() // 1_000_000


class Bench:
    """A pair of services, and nodes on it."""

    def __init__(self, services: LocalServices, folder: Path) -> None:
        self._services = services
        self._folder = folder
        self._seen: dict[str, tuple[int, int]] = {}
        self._nodes = 0

    def node(self, role: str) -> NodeProcess:
        self._nodes += 1
        environment = node_environment(
            kafka_brokers=self._services.kafka_brokers,
            dynamodb_endpoint=self._services.dynamodb_endpoint,
            http_port=free_port(),
            more={
                "CLOCKWORK_SHARDS": str(SHARDS),
                "CLOCKWORK_SESSION_TIMEOUT_MS": str(SESSION_TIMEOUT_MS),
                "CLOCKWORK_LOG_LEVEL": "warning",
            },
        )
        return NodeProcess(environment, role=role, log_path=self._folder / f"node-{self._nodes}.log")

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            TOPIC,
            bootstrap_servers=self._services.kafka_brokers,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.stop()


async def create(session: aiohttp.ClientSession, url: str, client_id: str, key: str, due_ms: int) -> None:
    body = {
        "clientId": client_id,
        "scheduleKey": key,
        "scheduleTime": due_ms,
        "taskData": PAYLOAD,
        "delivery": {"topic": TOPIC},
    }
    async with session.post(f"{url}/schedule", json=body) as response:
        if response.status != 201:
            raise RuntimeError(f"{response.status}: {await response.text()}")


async def collect(consumer: AIOKafkaConsumer, client_id: str, count: int, timeout_s: float) -> dict[str, list[Any]]:
    """All records of a client, by schedule key, until that many keys were seen."""
    seen: dict[str, list[Any]] = {}
    ends_s = time.monotonic() + timeout_s
    while len(seen) < count and time.monotonic() < ends_s:
        for page in (await consumer.getmany(timeout_ms=100)).values():
            for record in page:
                headers = dict(record.headers)
                if headers["clockwork-client-id"] == client_id.encode():
                    due_ms = int(headers["clockwork-schedule-time"])
                    seen.setdefault(headers["clockwork-schedule-key"].decode(), []).append((record.timestamp, due_ms))
    return seen


async def lateness(bench: Bench, rate_per_s: int, seconds: int) -> None:
    client_id = f"late-{rate_per_s}-{now_ms()}"
    rng = random.Random(1)
    count = rate_per_s * seconds
    async with bench.node("all") as node, bench.reader() as consumer, aiohttp.ClientSession() as session:
        await node.until_ready()
        reading = asyncio.get_running_loop().create_task(collect(consumer, client_id, count, seconds + 30))
        async with asyncio.TaskGroup() as group:
            start_s = time.monotonic()
            for n in range(count):
                await asyncio.sleep(max(0.0, start_s + n / rate_per_s - time.monotonic()))
                due_ms = now_ms() + 2_000 + rng.randrange(1_000)
                group.create_task(create(session, node.url, client_id, f"k{n}", due_ms), name=f"create-{n}")
        seen = await reading
    late_ms = sorted(records[0][0] - records[0][1] for records in seen.values())
    again = sum(len(records) - 1 for records in seen.values())
    print(
        f"lateness at {rate_per_s}/s, {SHARDS} shards, ms: p50 {percentile(late_ms, 0.5)}  p99 {percentile(late_ms, 0.99)}"
        f"  max {late_ms[-1]}  min {late_ms[0]}  ({len(late_ms)} of {count} delivered, {again} twice)"
    )


async def drain(bench: Bench, count: int) -> None:
    client_id = f"drain-{now_ms()}"
    async with bench.node("api") as api, aiohttp.ClientSession() as session:
        await api.until_ready()
        gate = asyncio.Semaphore(64)

        async def one(n: int) -> None:
            async with gate:
                await create(session, api.url, client_id, f"k{n}", now_ms())

        start_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for n in range(count):
                group.create_task(one(n), name=f"create-{n}")
        print(f"creates over HTTP, 64 at a time: {count / (time.monotonic() - start_s):,.0f}/s")
    async with bench.node("worker") as worker, bench.reader() as consumer:
        seen = await collect(consumer, client_id, count, 120)
        await worker.until_ready()
    stamps = sorted(records[0][0] for records in seen.values())
    took_s = (stamps[-1] - stamps[0]) / 1_000
    again = sum(len(records) - 1 for records in seen.values())
    print(f"drain of {count:,} due schedules: {len(seen) / took_s:,.0f}/s ({len(seen)} delivered, {again} twice)")


async def bare_writes(services: LocalServices, count: int) -> None:
    """An outcome put and a row deleted per schedule, by 25, eight requests at a time, nothing else."""
    clock = SystemClock()
    settings = DynamoClientSettings(
        region="us-east-1", endpoint=services.dynamodb_endpoint, access_key="local", secret_key="local"
    )
    async with DynamoClient(
        settings, clock=clock, observe=ClockGuard(clock).observe, telemetry=NoTelemetry()
    ) as client:
        gate = asyncio.Semaphore(8)

        async def one(start: int) -> None:
            puts = [
                {
                    "PutRequest": {
                        "Item": {"clientKey": {"S": f"bare/{n}"}, "position": {"N": f"{n}.5"}, "d": {"S": "x" * 800}}
                    }
                }
                for n in range(start, start + 25)
            ]
            deletes = [
                {"DeleteRequest": {"Key": {"partitionId": {"S": "0"}, "scheduleTime": {"N": f"{n}.5"}}}}
                for n in range(start, start + 25)
            ]
            async with gate:
                await client.call("batch_write_item", RequestItems={settings.keys_table: puts})
                await client.call("batch_write_item", RequestItems={settings.schedules_table: deletes})

        start_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for start in range(0, count, 25):
                group.create_task(one(start), name=f"bare-{start}")
        print(f"bare DynamoDB writes for as many fires: {count / (time.monotonic() - start_s):,.0f}/s")


async def takeover(bench: Bench, kills: int) -> None:
    """kill -9 of one of two nodes under load: seconds until its shards deliver again."""
    client_id = f"kill-{now_ms()}"
    silent_s: list[float] = []
    async with bench.node("all") as survivor, bench.reader() as consumer, aiohttp.ClientSession() as session:
        await survivor.until_ready()
        planned = 0
        seen: dict[str, list[Any]] = {}
        for kill in range(kills):
            victim = bench.node("worker")
            await victim.start()
            await victim.until_ready()
            begin_ms = now_ms() + 1_500
            keys = [f"{kill}-{n}" for n in range(1_500)]
            async with asyncio.TaskGroup() as group:
                for n, key in enumerate(keys):
                    group.create_task(create(session, survivor.url, client_id, key, begin_ms + n * 8), name=key)
            planned += len(keys)
            await asyncio.sleep(max(0.0, (begin_ms + 3_000 - now_ms()) / 1_000))
            killed_ms = now_ms()
            await victim.kill()
            some = await collect(consumer, client_id, len(keys), 60)
            seen |= some
            late = [
                stamp for (stamp, due_ms), *_ in some.values() if due_ms < killed_ms + 500 and stamp > killed_ms + 500
            ]
            silent_s.append((min(late) - killed_ms) / 1_000 if late else 0.0)
    again = sum(len(records) - 1 for records in seen.values())
    print(
        f"kill -9 of one of two nodes, {kills} times, session {SESSION_TIMEOUT_MS} ms: its shards deliver again after "
        f"{', '.join(f'{s:.1f}' for s in silent_s)} s; {planned - len(seen)} of {planned} lost, {again} twice"
    )


async def main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="clockwork-bench-") as folder:
        async with LocalServices() as services:
            settings = KafkaSettings(brokers=services.kafka_brokers, cluster="bench", shards=1, consumer_group="none")
            stamped = {"message.timestamp.type": "LogAppendTime"}
            await create_topics(settings, [TOPIC], kafka_partitions=8, config=stamped)
            bench = Bench(services, Path(folder))
            for rate_per_s in arguments.rates:
                await lateness(bench, rate_per_s, arguments.seconds)
            await drain(bench, arguments.drain)
            await bare_writes(services, arguments.drain)
            await takeover(bench, arguments.kills)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", type=int, nargs="*", default=[100])
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--drain", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=2)
    asyncio.run(main(parser.parse_args()))
