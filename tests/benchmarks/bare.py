"""The yardsticks of delivery: the same Kafka transactions and DynamoDB writes, with nothing around them.

Everything is made before the clock starts: records, outcomes, keys, a marker of the usual length. The rows exist: to
delete one that does not is cheaper. As the node does it, a batch is cleaned up while the next one is on its way. Each shard
has a producer of its own, more than a node would: as many as are of use.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from clockwork.clock import SystemClock
from clockwork.domain import marker
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.ownership import IncarnationId
from clockwork.domain.record import OutRecord, delivery_of
from clockwork.domain.schedule import Receipt, Row
from clockwork.domain.sharding import ShardId
from clockwork.firing.cleanup import CHUNK_ROWS
from clockwork.kafka.publisher import KafkaPublisher
from clockwork.kafka.topics import create_internal_topics
from clockwork.ports.delivery import SlotName, SlotProducer
from clockwork.stores.dynamodb import codec
from clockwork.stores.dynamodb.attributes import Item
from clockwork.stores.dynamodb.batching import write_all
from clockwork.stores.dynamodb.client import DynamoClient
from clockwork.stores.dynamodb.schema import create_tables
from tests.benchmarks.figures import quantile
from tests.benchmarks.world import Bench, dynamo, kafka_context, preload, row_of, shards_of
from tests.support import builders
from tests.support.nodes import Cluster, now_ms

BATCH_RECORDS: Final = 500
SENDS_MS: Final = 6_000
PACE_S: Final = 0.05
"""Between single transactions: one right behind another waits for the broker."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Batch:
    records: Sequence[OutRecord]
    marker: bytes
    writes: Sequence[tuple[list[Item], list[Item]]]
    """For each chunk: puts of outcomes, deletes of rows."""


class Bare:
    """A cluster without nodes, and its producers."""

    def __init__(self, cluster: Cluster, client: DynamoClient, shards: Sequence[SlotProducer], topic: str) -> None:
        self._cluster = cluster
        self._client = client
        self._shards = shards
        self._topic = topic

    async def drain(self, prefix: str, count: int) -> float:
        """Seconds for as many deliveries."""
        due_ms = now_ms() + 86_400_000
        rows = [row_of(self._cluster, self._topic, f"{prefix}-{n}", due_ms) for n in range(count)]
        await preload(self._client, rows)
        by_shard: dict[ShardId, list[Row]] = defaultdict(list)
        for row in rows:
            by_shard[row.shard].append(row)
        batches = {shard: [_batch(part) for part in _cut(mine, BATCH_RECORDS)] for shard, mine in by_shard.items()}
        start_s = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for shard, mine in batches.items():
                group.create_task(self._drain_shard(self._shards[shard], mine), name=f"shard-{shard}")
        return time.perf_counter() - start_s

    async def transaction_ms(self, count: int) -> float:
        """The usual latency of one record and its marker, alone."""
        took_ms = []
        for n in range(count):
            await asyncio.sleep(PACE_S)
            batch = _batch([row_of(self._cluster, self._topic, f"single-{n}", now_ms())])
            start_s = time.perf_counter()
            await self._shards[n % len(self._shards)].deliver(batch.records, lambda _: b"marker", sends_ms=SENDS_MS)
            took_ms.append((time.perf_counter() - start_s) * 1_000)
        return quantile(took_ms, 0.5)

    async def _drain_shard(self, shard: SlotProducer, batches: Sequence[_Batch]) -> None:
        tidying: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as group:
            for batch in batches:
                await shard.deliver(batch.records, partial(_same, batch.marker), sends_ms=SENDS_MS)
                if tidying is not None:
                    await tidying
                tidying = group.create_task(self._tidy(batch), name="bare-tidy")

    async def _tidy(self, batch: _Batch) -> None:
        settings = self._client.settings
        for puts, deletes in batch.writes:
            await write_all(self._client, settings.keys_table, puts)
            await write_all(self._client, settings.schedules_table, deletes)


@asynccontextmanager
async def opened_bare(bench: Bench) -> AsyncIterator[Bare]:
    """On tables and topics of its own."""
    async with bench.cluster() as cluster, dynamo(cluster) as client:
        await create_tables(client)
        await create_internal_topics(kafka_context(cluster))
        topic = await cluster.topic(kafka_partitions=8)
        async with KafkaPublisher(kafka_context(cluster), SystemClock()) as publisher:
            shards = [publisher.open_slot(SlotName(IncarnationId("bare.1"), n)) for n in range(shards_of(cluster))]
            await asyncio.gather(*(shard.init() for shard in shards))
            yield Bare(cluster, client, shards, topic)


def _same(marker_value: bytes, _receipts: Sequence[Receipt]) -> bytes:
    return marker_value


def _batch(rows: Sequence[Row]) -> _Batch:
    ended = [
        MarkerEntry(shard=row.shard, position=row.position, at_ms=now_ms(), receipt=builders.receipt(n))
        for n, row in enumerate(rows)
    ]
    return _Batch(
        records=[delivery_of(row.schedule, now_ms=now_ms()) for row in rows],
        marker=marker.encode(ended),
        writes=[
            (
                [{"PutRequest": {"Item": codec.outcome_item(builders.outcome(row))}} for row in part],
                [{"DeleteRequest": {"Key": codec.row_key(row.shard, row.position)}} for row in part],
            )
            for part in _cut(rows, CHUNK_ROWS)
        ],
    )


def _cut(rows: Sequence[Row], size: int) -> list[Sequence[Row]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
