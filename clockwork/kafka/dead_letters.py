"""`DeadLetterLog` on Kafka: a consumer without a group, one for each request, with `read_committed`.

No group, because nothing is to be remembered: the caller says where to read on. One consumer for each request costs some
round trips, which a person who looks at dead letters does not notice; one that stays open would fetch every new dead letter
ahead, on every node, without a reader.

A topic is looked up first: clients may delete theirs, and a consumer would wait for a missing one until it times out.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from clockwork.domain.dead_letters import DeadLetter, dead_letter
from clockwork.domain.destination import Topic
from clockwork.domain.schedule import Receipt
from clockwork.errors import BrokerUnavailable
from clockwork.kafka import codes
from clockwork.kafka.aiokafka_internals import TopicLookup, ended
from clockwork.kafka.client import KafkaContext, KafkaWire, LastAnswer
from clockwork.ports.operations import DeadLetterPage

log = logging.getLogger(__name__)

CONSUMERS_AT_ONCE: Final = 2
"""Consumers of one node at the same time: each has connections and buffers of its own."""
PAGE_BYTES_MAX: Final = 8 * 1024 * 1024
"""A page ends with the letter that passes this."""
FETCH_BYTES_MAX: Final = 256 * 1024
"""Bytes of one Kafka partition that are fetched ahead; a longer letter comes all the same, alone."""
KAFKA_PARTITIONS_AT_ONCE: Final = 100
"""Kafka partitions of a topic that are read side by side, the lowest first: the cursor at the end of a page names all of
them, and it is part of a URL, which has to fit into a line of a request."""
POLL_MS: Final = 200
POLL_LETTERS: Final = 50
READ_S_MAX: Final = 4.0
"""Longest time for one request, below the callers' deadline. The letters read until then are a page."""
STOP_S_MAX: Final = 1.0
"""Longest time for a consumer to stop."""


class KafkaDeadLetters:
    """See `DeadLetterLog`."""

    def __init__(self, kafka: KafkaContext) -> None:
        self._kafka = kafka
        self._consumers = asyncio.Semaphore(CONSUMERS_AT_ONCE)

    async def read_letters(self, topic: Topic, start: Mapping[int, int], *, letters_max: int) -> DeadLetterPage:
        """See `DeadLetterLog`."""
        letters: list[DeadLetter] = []
        page_bytes = 0
        async with self._consumer(topic) as consumer:
            if consumer is None:
                return DeadLetterPage(letters=(), next_from=None)
            begin_s = asyncio.get_running_loop().time()
            ends, at = await _seek(consumer, start)
            while block := _block(at, ends):
                spent_s = asyncio.get_running_loop().time() - begin_s
                if len(letters) >= letters_max or page_bytes > PAGE_BYTES_MAX or spent_s > READ_S_MAX:
                    break
                left = [where for where in block if at[where] < ends[where]]
                most = min(POLL_LETTERS, letters_max - len(letters))
                found = [_letter(record) for record in await _polled(consumer, {w: at[w] for w in left}, most)]
                letters += found
                page_bytes += sum(len(letter.value) for letter in found)
                # Positions are taken over also where no letter came: offsets have holes where transactions ended.
                at |= {where: await consumer.position(where) for where in left}
            letters.sort(
                key=lambda letter: (letter.receipt.at_ms, letter.receipt.kafka_partition, letter.receipt.offset)
            )
            next_from = {where.partition: at[where] for where in block} or None
            return DeadLetterPage(letters=tuple(letters), next_from=next_from)

    async def read_letter(self, topic: Topic, kafka_partition: int, offset: int) -> DeadLetter | None:
        """See `DeadLetterLog`."""
        async with self._consumer(topic) as consumer:
            where = TopicPartition(topic, kafka_partition)
            if consumer is None or where not in consumer.assignment():
                return None
            ends, at = await _seek(consumer, {kafka_partition: offset})
            while at[where] <= offset < ends[where]:
                for record in await _polled(consumer, {where: at[where]}, 1):
                    return _letter(record) if record.offset == offset else None
                at[where] = await consumer.position(where)
            return None

    @asynccontextmanager
    async def _consumer(self, topic: Topic) -> AsyncIterator[Any]:
        """A consumer with all Kafka partitions of the topic; None if it is missing. Raises: BrokerUnavailable."""
        async with self._consumers:
            if not await self._exists(topic):
                yield None
                return
            async with self._reading(topic) as consumer:
                yield consumer

    async def _exists(self, topic: Topic) -> bool:
        """Raises: BrokerUnavailable."""
        wire = KafkaWire(self._kafka, LastAnswer(), role="dead-letters")
        try:
            answer = await wire.request(TopicLookup([topic]))
        finally:
            await wire.close()
        ((error_code, *_),) = answer.topics
        if error_code not in (codes.NONE, codes.UNKNOWN_TOPIC_OR_PARTITION):
            why = "Kafka denies it" if error_code == codes.TOPIC_FORBIDDEN else f"error code {error_code}"
            raise BrokerUnavailable(f"{topic} could not be read: {why}")
        return bool(error_code == codes.NONE)

    @asynccontextmanager
    async def _reading(self, topic: Topic) -> AsyncIterator[Any]:
        consumer = AIOKafkaConsumer(
            topic,
            **self._kafka.connection("dead-letters"),
            group_id=None,
            isolation_level="read_committed",
            enable_auto_commit=False,
            # For an offset that retention has removed meanwhile.
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES_MAX,
        )
        try:
            async with asyncio.timeout(2 * READ_S_MAX):
                await consumer.start()
                yield consumer
        except (KafkaError, OSError, TimeoutError) as error:
            raise BrokerUnavailable(f"{topic} could not be read: {error!r}") from error
        finally:
            await _stop(consumer)


async def _stop(consumer: Any) -> None:
    try:
        async with asyncio.timeout(STOP_S_MAX):
            await ended(consumer.stop())
    except (KafkaError, OSError, TimeoutError):
        # It is in no group; its tasks end with its connections.
        return


async def _seek(consumer: Any, start: Mapping[int, int]) -> tuple[dict[Any, int], dict[Any, int]]:
    """Moves the consumer to where reading begins. Returns the topic's present ends, and these places, by Kafka partition,
    the lowest first."""
    assigned = sorted(consumer.assignment())
    ends: dict[Any, int] = await consumer.end_offsets(assigned)
    begins: dict[Any, int] = await consumer.beginning_offsets(assigned)
    first = min(start, default=0)
    unnamed = {where: ends[where] if where.partition < first else 0 for where in assigned}
    at = {where: max(begins[where], start.get(where.partition, unnamed[where])) for where in assigned}
    for where, offset in at.items():
        consumer.seek(where, min(offset, max(ends[where], begins[where])))
    return ends, at


def _block(at: Mapping[Any, int], ends: Mapping[Any, int]) -> list[Any]:
    """The lowest Kafka partition that is not read to its end, and those after it that are read beside it; none above them
    has been begun. Empty: all are read."""
    order = list(at)
    first = next((i for i, where in enumerate(order) if at[where] < ends[where]), len(order))
    return order[first : first + KAFKA_PARTITIONS_AT_ONCE]


async def _polled(consumer: Any, at: Mapping[Any, int], most: int) -> list[Any]:
    """Up to `most` records from these places on. The position of a Kafka partition is then behind its last record.

    A header's name that is not UTF-8, which no letter of ours has, is an error to aiokafka: of the whole poll, and of the
    batch that the record came in. The records before it are then taken one by one, and it is skipped.
    """
    try:
        polled = await consumer.getmany(*at, timeout_ms=POLL_MS, max_records=most)
        return [record for records in polled.values() for record in records]
    except UnicodeDecodeError:
        # The error does not tell the Kafka partition, and records of the others may be lost with it.
        for where, offset in at.items():
            consumer.seek(where, offset)
    found: list[Any] = []
    for where, offset in at.items():
        if len(found) >= most:
            break
        try:
            polled = await consumer.getmany(where, timeout_ms=POLL_MS, max_records=1)
            found += polled.get(where, ())
        except UnicodeDecodeError:
            log.warning(
                "A record among the dead letters cannot be read",
                extra={
                    "event": "dead_letter.unreadable",
                    "once_per": f"{where.topic} {where.partition}",
                    "topic": where.topic,
                    "kafka_partition": where.partition,
                    "offset": offset,
                },
            )
            consumer.seek(where, offset + 1)
    return found


def _letter(record: Any) -> DeadLetter:
    return dead_letter(
        receipt=Receipt(kafka_partition=record.partition, offset=record.offset, at_ms=record.timestamp),
        key=record.key,
        value=record.value or b"",
        headers=[(name, value or b"") for name, value in record.headers],
    )
