"""Kafka in the format before: a transactional id, and a marker as JSON, for each shard.

`<cluster>-shard-<n>` is the id; the marker is a record with the key `marker` in the Kafka partition n of the deliveries
topic. It names the rows that were delivered and may not be deleted yet.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.structs import TopicPartition

from clockwork.concurrency import Backoff
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.position import position_of
from clockwork.domain.retry import BackoffPolicy
from clockwork.domain.schedule import Failure, Receipt
from clockwork.domain.sharding import ShardId
from clockwork.errors import BrokerUnavailable, NewerFormat, Unreadable
from clockwork.kafka import codes
from clockwork.kafka.client import RNG, KafkaContext, KafkaWire, LastAnswer

KEY: Final = b"marker"
BARRIER: Final = b"migrate/barrier"
"""The key of the record that marks how far a reader must come. Its value is null, so compaction removes it."""
FORMAT: Final = 1
FETCH_MS: Final = 200
READ_S_MAX: Final = 60.0
"""For one Kafka partition: a transaction that is open there ends within its ten seconds."""
BACKOFF: Final = BackoffPolicy(initial_ms=5, max_ms=200)


@dataclass(frozen=True, kw_only=True, slots=True)
class OldKafka:
    """The three connections of the migration."""

    context: KafkaContext
    wire: KafkaWire
    producer: AIOKafkaProducer
    consumer: AIOKafkaConsumer

    async def settle(self, shard: ShardId) -> None:
        """Fences the last producer of this shard, and settles its transaction. Raises: BrokerUnavailable."""
        transactional_id = f"{self.context.settings.cluster}-shard-{shard}"
        request = InitProducerIdRequest(transactional_id, self.context.timeouts.transaction_ms)
        backoff = Backoff(RNG, BACKOFF)
        try:
            async with asyncio.timeout(self.context.timeouts.init_ms / 1_000):
                while not await self._init(request, transactional_id):
                    await backoff.wait()
        except TimeoutError as error:
            raise BrokerUnavailable(f"init of {transactional_id} was not answered in time") from error

    async def _init(self, request: Any, transactional_id: str) -> bool:
        coordinator = await self.wire.find_coordinator(transactional_id)
        if coordinator is None:
            return False
        answer = await self.wire.request(request, node_id=coordinator, coordinator=True)
        if answer.error_code in (codes.CONCURRENT_TRANSACTIONS, *codes.FENCED, *codes.COORDINATOR_AWAY):
            return False
        if answer.error_code != codes.NONE:
            raise BrokerUnavailable(f"init of {transactional_id}: error code {answer.error_code}")
        return True

    async def read_marker(self, shard: ShardId) -> tuple[MarkerEntry, ...]:
        """The last committed marker of this shard; empty without one. Only after `settle`.

        Read up to a record of our own: a leader that was deposed does not have it (docs/design.md, 5: reading a marker).

        Raises: BrokerUnavailable, NewerFormat, Unreadable.
        """
        where = TopicPartition(self.context.settings.deliveries_topic, int(shard))
        try:
            async with asyncio.timeout(READ_S_MAX):
                barrier = await self.producer.send_and_wait(where.topic, None, BARRIER, where.partition)
                self.consumer.assign([where])
                await self.consumer.seek_to_beginning(where)
                value = await self._last_before(where, barrier.offset)
        except (KafkaError, TimeoutError) as error:
            raise BrokerUnavailable(f"the marker of shard {shard}: {error!r}") from error
        return () if value is None else decode(value, shard)

    async def _last_before(self, where: TopicPartition, barrier: int) -> bytes | None:
        found: bytes | None = None
        while True:
            for record in (await self.consumer.getmany(where, timeout_ms=FETCH_MS)).get(where, []):
                if record.offset == barrier and record.key == BARRIER:
                    return found
                if record.offset >= barrier:
                    raise BrokerUnavailable(f"{where.topic}/{where.partition}: read from a leader that was deposed")
                if record.key == KEY and record.value is not None:
                    found = record.value


@asynccontextmanager
async def open_old_kafka(context: KafkaContext) -> AsyncIterator[OldKafka]:
    """Opens the connections. Raises: BrokerUnavailable."""
    wire = KafkaWire(context, LastAnswer(), role="migrate")
    producer = AIOKafkaProducer(**context.connection("migrate"), enable_idempotence=True)
    consumer = AIOKafkaConsumer(
        **context.connection("migrate"), isolation_level="read_committed", enable_auto_commit=False
    )
    try:
        try:
            await producer.start()
            await consumer.start()
        except KafkaError as error:
            raise BrokerUnavailable(f"Kafka: {error!r}") from error
        yield OldKafka(context=context, wire=wire, producer=producer, consumer=consumer)
    finally:
        await consumer.stop()
        await producer.stop()
        await wire.close()


def decode(value: bytes, shard: ShardId) -> tuple[MarkerEntry, ...]:
    """Reads a marker's value. Raises: NewerFormat, Unreadable."""
    try:
        document = json.loads(value)
        if _int(document["v"]) > FORMAT:
            raise NewerFormat(f"marker of format {document['v']}")
        if document["v"] < 1 or not isinstance(document["ended"], list):
            raise Unreadable(f"marker of format {document['v']}")
        return tuple(_ended(entry, shard) for entry in document["ended"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unreadable(f"marker: {error!r}") from error


def _ended(entry: object, shard: ShardId) -> MarkerEntry:
    if not isinstance(entry, list) or len(entry) not in (4, 6):
        raise Unreadable("marker: an entry has 4 or 6 fields")
    position, kafka_partition, offset, at_ms, *failed = entry
    receipt = None
    if kafka_partition is not None or offset is not None:
        receipt = Receipt(kafka_partition=_int(kafka_partition), offset=_int(offset), at_ms=_int(at_ms))
    failure = Failure(reason=str(failed[0]), attempts=_int(failed[1])) if failed else None
    if receipt is None and failure is None:
        raise Unreadable("marker: an entry without a record and without a reason")
    return MarkerEntry(shard=shard, position=position_of(position), at_ms=_int(at_ms), receipt=receipt, failure=failure)


def _int(value: object) -> int:
    """Checks for a whole number: `True` and `1.9` would pass through `int()`."""
    if type(value) is not int:
        raise Unreadable(f"marker: {value!r:.64} is not a whole number")
    return value
