"""Parts that scenarios share: real services, clusters of their own, rows by the batch, and the figures of a node."""

import asyncio
import itertools
import random
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import SecretStr

from clockwork.clock import ClockGuard, SystemClock
from clockwork.domain.schedule import Guarantee, OrderingKey, Row
from clockwork.domain.sharding import shard_of
from clockwork.kafka.client import KafkaContext
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import DynamoSettings, KafkaSettings, PostgresSettings
from clockwork.stores.dynamodb import codec
from clockwork.stores.dynamodb.batching import write_all
from clockwork.stores.dynamodb.client import DynamoClient
from clockwork.stores.postgres.store import PostgresScheduleStore
from infra.local import LocalServices
from infra.local.node import Store
from tests.benchmarks.report import Report
from tests.support import builders
from tests.support.nodes import Cluster, ClusterNode, now_ms, opened_cluster
from tests.support.waiting import until

SHARDS: Final = 16
PAYLOAD: Final = b'{"note":"' + b"x" * 200 + b'"}'
PRELOAD_ROWS: Final = 1_000
"""Made and written at a time."""
ByHand = DynamoClient | PostgresScheduleStore
SLOW_S: Final = 600.0
"""Time after which a scenario is broken."""


@dataclass(kw_only=True, slots=True)
class Bench:
    """One run of the benchmarks."""

    services: LocalServices
    folder: Path
    report: Report
    quick: bool
    store: Store = "dynamodb"
    against: Path | None = None
    """Another worktree, whose node is measured beside ours where a scenario does so."""
    _numbers: Any = field(default_factory=itertools.count)

    @property
    def rounds(self) -> int:
        return 2 if self.quick else 5

    def scaled(self, count: int) -> int:
        """So many, or a tenth in a quick run."""
        return max(1, count // 10) if self.quick else count

    @asynccontextmanager
    async def cluster(self, *, shards: int = SHARDS, **settings: str) -> AsyncIterator[Cluster]:
        """A cluster of its own with the settings that production has by default, but for these."""
        folder = self.folder / f"cluster-{next(self._numbers)}"
        folder.mkdir()
        usual = {
            "CLOCKWORK_SHARDS": str(shards),
            "CLOCKWORK_SESSION_TIMEOUT_MS": "10000",
            "CLOCKWORK_HEARTBEAT_INTERVAL_MS": "500",
            "CLOCKWORK_SCAN_INTERVAL_MS": "5000",
            "CLOCKWORK_LOG_LEVEL": "warning",
        }
        async with opened_cluster(self.services, folder, usual | settings, store=self.store) as cluster:
            yield cluster


def shards_of(cluster: Cluster) -> int:
    return int(cluster.settings["CLOCKWORK_SHARDS"])


async def started(
    cluster: Cluster,
    *,
    role: str = "all",
    processes: int = 1,
    module: str = "clockwork",
    checkout: Path | None = None,
    **more: str,
) -> ClusterNode:
    """A node that is ready, and works all shards if it fires and is alone."""
    alone = all(node.process.code is not None for node in cluster.nodes)
    settings = {"CLOCKWORK_PROCESSES": str(processes), **more}
    node = await cluster.start(role=role, module=module, checkout=checkout, more=settings)
    if role != "api" and alone:
        await until_works(node, shards_of(cluster))
    return node


async def until_works(node: ClusterNode, count: int) -> None:
    """Returns when its processes together have taken over and looked at so many shards."""

    async def look() -> bool:
        return len(await series(node, "clockwork_due")) == count

    await until(look, f"{count} shards at {node.client.url}", within_s=60)


async def series(node: ClusterNode, name: str) -> list[float]:
    """All series of a metric, of all processes."""
    found = re.findall(rf"^{re.escape(name)}(?:\{{.*\}})? (\S+)$", await node.client.metrics(), re.M)
    return [float(value) for value in found]


async def total(node: ClusterNode, name: str) -> float:
    return sum(await series(node, name))


async def delivered(node: ClusterNode) -> float:
    """Schedules that it has delivered so far, of both guarantees."""
    found = re.findall(
        r'^clockwork_deliveries_total\{.*result="delivered".*\} (\S+)$', await node.client.metrics(), re.M
    )
    return sum(float(value) for value in found)


async def cpu_s(node: ClusterNode) -> float:
    """CPU time that it has used so far."""
    return await total(node, "process_cpu_seconds_total")


# --- the store by hand


@asynccontextmanager
async def by_hand(cluster: Cluster) -> AsyncIterator[ByHand]:
    """The cluster's store, without a node."""
    if cluster.store == "dynamodb":
        async with dynamo(cluster) as client:
            yield client
        return
    settings = PostgresSettings(
        url=SecretStr(cluster.services.postgres_url), schema=cluster.settings["CLOCKWORK_POSTGRES_SCHEMA"]
    )
    clock = SystemClock()
    async with PostgresScheduleStore(settings, clock, ClockGuard(clock).observe, NoTelemetry()) as store:
        yield store


@asynccontextmanager
async def dynamo(cluster: Cluster, endpoint: str | None = None) -> AsyncIterator[DynamoClient]:
    """A client on the cluster's tables, or on those of a stub."""
    clock = SystemClock()
    async with DynamoClient(
        dynamo_settings(cluster, endpoint), clock, ClockGuard(clock).observe, NoTelemetry()
    ) as client:
        yield client


def dynamo_settings(cluster: Cluster, endpoint: str | None = None) -> DynamoSettings:
    return DynamoSettings(
        region="us-east-1",
        endpoint=endpoint or cluster.services.dynamodb_endpoint,
        access_key="local",
        secret_key=SecretStr("local"),
        schedules_table=cluster.settings["SCHEDULE_DB"],
        executions_table=cluster.settings["PARTITION_EXEC_DB"],
        keys_table=cluster.settings["SCHEDULE_KEY_DB"],
        jobs_table=cluster.settings["JOB_DB"],
    )


def kafka_context(cluster: Cluster) -> KafkaContext:
    settings = KafkaSettings(
        brokers=(cluster.services.kafka_brokers,),
        cluster=cluster.name,
        shards=shards_of(cluster),
        consumer_group=cluster.name,
    )
    return KafkaContext(settings=settings)


def row_of(
    cluster: Cluster,
    topic: str,
    key: str,
    due_ms: int,
    *,
    guarantee: str = "exactly_once",
    shard: int | None = None,
    payload: bytes = PAYLOAD,
) -> Row:
    """A row as a create would put it, in its shard or in this one."""
    wanted = builders.schedule(
        client_id=cluster.name,
        schedule_key=key,
        ordering_key=key,
        due_ms=due_ms,
        topic=topic,
        guarantee=Guarantee(guarantee),
        task_data=payload,
    )
    return builders.row(wanted, shard=shard_of(OrderingKey(key), shards_of(cluster)) if shard is None else shard)


async def preload(client: ByHand, rows: Sequence[Row]) -> None:
    """Writes the rows in batches; to DynamoDB alone, as what fires needs no more, to PostgreSQL with their pointers."""
    for start in range(0, len(rows), PRELOAD_ROWS):
        if isinstance(client, PostgresScheduleStore):
            async with asyncio.TaskGroup() as group:
                for row in rows[start : start + PRELOAD_ROWS]:
                    group.create_task(client.create(row, builders.pointer(row), replaces=None), name="preload")
            continue
        puts = [{"PutRequest": {"Item": codec.row_item(row)}} for row in rows[start : start + PRELOAD_ROWS]]
        await write_all(client, client.settings.schedules_table, puts)


async def until_empty(client: ByHand) -> None:
    """Returns when all rows are deleted."""

    async def look() -> bool:
        if isinstance(client, PostgresScheduleStore):
            schema = client.client.settings.schema
            (found,) = await client.client.read("look", f'SELECT EXISTS (SELECT 1 FROM "{schema}".rows)')
            return not found[0]
        table = client.settings.schedules_table
        answer = await client.call("scan", TableName=table, Limit=1, ConsistentRead=True)
        return not answer["Items"]

    await until(look, "all rows tidied up", within_s=SLOW_S)


# --- Kafka


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """A record, as a `read_committed` consumer got it."""

    schedule_key: str
    """The runs of a job have the same one, its id."""
    due_ms: int
    appended_ms: int
    """By the broker's clock, which is this machine's."""
    seen_ms: int


Offsets = Mapping[TopicPartition, int]


async def ends_of(cluster: Cluster, topic: str, *, kafka_partitions: int) -> Offsets:
    """The present ends of the topic's Kafka partitions: behind all that is in it."""
    consumer = AIOKafkaConsumer(bootstrap_servers=cluster.services.kafka_brokers)
    await consumer.start()
    try:
        ends: Offsets = await consumer.end_offsets([TopicPartition(topic, n) for n in range(kafka_partitions)])
        return ends
    finally:
        await consumer.stop()


async def collect(
    cluster: Cluster, topic: str, count: int, *, within_s: float = SLOW_S, since: Offsets | None = None
) -> list[Arrival]:
    """The first record of each of so many schedules, or runs of jobs; fewer if the time is up. `since`: from these offsets
    on; None: all."""
    consumer = AIOKafkaConsumer(
        *(() if since else (topic,)),
        bootstrap_servers=cluster.services.kafka_brokers,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    found: dict[tuple[str, int], Arrival] = {}
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + within_s
    await consumer.start()
    try:
        if since:
            consumer.assign(list(since))
            for where, offset in since.items():
                consumer.seek(where, offset)
        while len(found) < count and loop.time() < ends_s:
            for page in (await consumer.getmany(timeout_ms=100)).values():
                seen_ms = now_ms()
                for record in page:
                    arrival = _arrival(dict(record.headers), record.timestamp, seen_ms)
                    found.setdefault((arrival.schedule_key, arrival.due_ms), arrival)
    finally:
        await consumer.stop()
    return list(found.values())


def _arrival(headers: Mapping[str, bytes], appended_ms: int, seen_ms: int) -> Arrival:
    return Arrival(
        schedule_key=headers["clockwork-schedule-key"].decode(),
        due_ms=int(headers["clockwork-schedule-time"]),
        appended_ms=appended_ms,
        seen_ms=seen_ms,
    )


# --- load


async def create_at_rate(
    cluster: Cluster,
    node: ClusterNode,
    topic: str,
    *,
    per_second: float,
    seconds: float,
    prefix: str,
    guarantee: str = "exactly_once",
    ahead_ms: tuple[int, int] = (2_000, 3_000),
) -> int:
    """Creates over HTTP at an even pace, due at random milliseconds; how many."""
    rng, loop = random.Random(1), asyncio.get_running_loop()
    count, start_s = int(per_second * seconds), asyncio.get_running_loop().time()

    async def one(key: str) -> None:
        body = cluster.body(topic, key, in_ms=rng.randint(*ahead_ms), data={"note": "x" * 200}, guarantee=guarantee)
        answered = await node.client.create(body)
        if answered.status != 201:
            raise RuntimeError(f"{answered.status}: {answered.body}")

    async with asyncio.TaskGroup() as group:
        for n in range(count):
            await asyncio.sleep(max(0.0, start_s + n / per_second - loop.time()))
            group.create_task(one(f"{prefix}-{n}"), name=f"create-{n}")
    return count


async def sleep_until(at_ms: int) -> None:
    await asyncio.sleep(max(0, at_ms - now_ms()) / 1_000)
