"""`ActivityLog` on Kafka: the topics `<cluster>-events` and `<cluster>-minutes`.

Sent by the publisher's plain producer, over connections of their own: a delivery never waits behind an event. Followed by a
consumer without a group, as nothing is to be remembered: each accepting node reads all of both topics for itself. Topics
that are missing are looked for again now and then: nothing waits for them, and `init` makes them.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from clockwork.concurrency import Backoff
from clockwork.domain.retry import BackoffPolicy
from clockwork.errors import BrokerUnavailable
from clockwork.kafka import codes
from clockwork.kafka.aiokafka_internals import TopicLookup, ended
from clockwork.kafka.client import RNG, KafkaContext, KafkaWire, LastAnswer
from clockwork.kafka.publisher import KafkaPublisher
from clockwork.ports.activity import STREAMS, ActivityRecord, Stream

log = logging.getLogger(__name__)

LATEST_RECORDS: Final = 100
"""Records of each Kafka partition of events before its end with which following begins: a page has something to show."""
POLL_MS: Final = 1_000
POLL_RECORDS: Final = 50
"""Records that are taken over without a pause."""
FETCH_BYTES_MAX: Final = 512 * 1024
READ_S_MAX: Final = 4.0
"""Longest time for one reading, below the callers' deadline. The records read until then count."""
STOP_S_MAX: Final = 1.0
BACKOFF: Final = BackoffPolicy(initial_ms=200, max_ms=10_000)
"""Between the tries to follow."""


class KafkaActivity:
    """See `ActivityLog`."""

    def __init__(self, kafka: KafkaContext, publisher: KafkaPublisher) -> None:
        self._kafka = kafka
        self._publisher = publisher
        self._topics: dict[Stream, str] = {
            "events": kafka.settings.events_topic,
            "minutes": kafka.settings.minutes_topic,
        }
        self._stream_of: dict[str, Stream] = {topic: stream for stream, topic in self._topics.items()}

    async def send(self, stream: Stream, kafka_partition: int, value: bytes) -> None:
        """See `ActivityLog`."""
        await self._publisher.send_activity(self._topics[stream], kafka_partition, value)

    async def tail(self, on_records: Callable[[Sequence[ActivityRecord]], None], *, minutes_from_ms: int) -> None:
        """See `ActivityLog`."""
        backoff = Backoff(RNG, BACKOFF)
        next_offsets: dict[TopicPartition, int] = {}
        while True:
            try:
                async with self._consumer(list(STREAMS)) as consumer:
                    await self._begin(consumer, next_offsets, minutes_from_ms)
                    backoff.reset()
                    await self._follow(consumer, next_offsets, on_records)
            except Exception as error:
                # Harmless: pages show what is known, and how old it is; the next try goes on behind it. Any error, as the
                # library raises others than its own now and then, and a look at what happens must never end a node.
                log.warning(
                    "Activity cannot be followed",
                    extra={"event": "activity.not_followed", "once_per": "follow", "error": str(error)},
                )
            await backoff.wait()

    async def _begin(self, consumer: Any, next_offsets: Mapping[TopicPartition, int], minutes_from_ms: int) -> None:
        """Moves the consumer behind what was read, or to where reading begins."""
        assigned = consumer.assignment()
        begins: dict[TopicPartition, int] = await consumer.beginning_offsets(assigned)
        ends: dict[TopicPartition, int] = await consumer.end_offsets(assigned)
        minutes = [where for where in assigned if self._stream_of[where.topic] == "minutes"]
        since = await _offsets_at(consumer, minutes, minutes_from_ms, ends)
        for where in assigned:
            first = since.get(where, max(begins[where], ends[where] - LATEST_RECORDS))
            # A topic that was deleted and made again begins anew.
            known = next_offsets.get(where, math.inf)
            consumer.seek(where, int(known) if begins[where] <= known <= ends[where] else first)

    async def _follow(
        self,
        consumer: Any,
        next_offsets: dict[TopicPartition, int],
        on_records: Callable[[Sequence[ActivityRecord]], None],
    ) -> None:
        while True:
            polled = await consumer.getmany(timeout_ms=POLL_MS, max_records=POLL_RECORDS)
            for where, records in polled.items():
                on_records([self._record(record) for record in records])
                next_offsets[where] = records[-1].offset + 1

    async def read(
        self, stream: Stream, *, from_ms: int, to_ms: int | None = None, records_max: int
    ) -> Sequence[ActivityRecord]:
        """See `ActivityLog`."""
        found: list[ActivityRecord] = []
        async with self._consumer([stream]) as consumer:
            until_s = asyncio.get_running_loop().time() + READ_S_MAX
            assigned = consumer.assignment()
            ends: dict[TopicPartition, int] = await consumer.end_offsets(assigned)
            if to_ms is not None:
                ends = await _offsets_at(consumer, assigned, to_ms, ends)
            at = await _offsets_at(consumer, assigned, from_ms, ends)
            for where, offset in at.items():
                consumer.seek(where, offset)
            while left := [where for where in assigned if at[where] < ends[where]]:
                if len(found) >= records_max or asyncio.get_running_loop().time() > until_s:
                    break
                polled = await consumer.getmany(*left, timeout_ms=POLL_MS, max_records=POLL_RECORDS)
                for where, records in polled.items():
                    found += [self._record(record) for record in records if record.offset < ends[where]]
                at |= {where: await consumer.position(where) for where in left}
        found.sort(key=lambda record: (record.at_ms, record.kafka_partition, record.offset))
        return found[:records_max]

    def _record(self, record: Any) -> ActivityRecord:
        return ActivityRecord(
            stream=self._stream_of[record.topic],
            kafka_partition=record.partition,
            offset=record.offset,
            at_ms=record.timestamp,
            value=record.value or b"",
        )

    @contextlib.asynccontextmanager
    async def _consumer(self, streams: Sequence[Stream]) -> AsyncIterator[Any]:
        """A consumer of all Kafka partitions of these streams. Raises: BrokerUnavailable."""
        topics = [self._topics[stream] for stream in streams]
        await self._check(topics)
        consumer = AIOKafkaConsumer(
            *topics,
            **self._kafka.connection("activity"),
            group_id=None,
            enable_auto_commit=False,
            # For an offset that retention has removed meanwhile.
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES_MAX,
            fetch_max_wait_ms=POLL_MS // 2,
        )
        try:
            await consumer.start()
            yield consumer
        except (KafkaError, OSError, TimeoutError) as error:
            raise BrokerUnavailable(f"activity could not be read: {error!r}") from error
        finally:
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                # It is in no group; its tasks end with its connections.
                async with asyncio.timeout(STOP_S_MAX):
                    await ended(consumer.stop())

    async def _check(self, topics: Sequence[str]) -> None:
        """Looks the topics up: a consumer would wait for a missing one. Raises: BrokerUnavailable."""
        wire = KafkaWire(self._kafka, LastAnswer(), role="activity")
        try:
            answer = await wire.request(TopicLookup(list(topics)))
        finally:
            await wire.close()
        for error_code, topic, *_ in answer.topics:
            if error_code != codes.NONE:
                missing = error_code == codes.UNKNOWN_TOPIC_OR_PARTITION
                why = "is missing: run `python -m clockwork init`" if missing else f"cannot be read: code {error_code}"
                raise BrokerUnavailable(f"Kafka topic {topic} {why}")


async def _offsets_at(
    consumer: Any, wheres: Sequence[TopicPartition], at_ms: int, ends: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """The first offsets of records of this time or later; the ends where there are none."""
    if not wheres:
        return {}
    found = await consumer.offsets_for_times({where: max(at_ms, 0) for where in wheres})
    return {where: ends[where] if found.get(where) is None else found[where].offset for where in wheres}
