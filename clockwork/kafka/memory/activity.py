"""The twin of `ActivityLog`, on the broker in memory."""

import asyncio
from collections.abc import Callable, Sequence

from clockwork.clock import Clock
from clockwork.domain.record import OutRecord
from clockwork.errors import BrokerUnavailable
from clockwork.kafka.memory.broker import MemoryKafka
from clockwork.ports.activity import EVENTS_KAFKA_PARTITIONS, STREAMS, ActivityRecord, Stream


class MemoryActivity:
    """See `ActivityLog`."""

    def __init__(self, kafka: MemoryKafka, clock: Clock) -> None:
        self._kafka = kafka
        self._clock = clock
        self._topics: dict[Stream, str] = {
            "events": kafka.settings.events_topic,
            "minutes": kafka.settings.minutes_topic,
        }
        self._appended = asyncio.Event()
        kafka.create_topic(self._topics["events"], kafka_partitions=EVENTS_KAFKA_PARTITIONS)
        kafka.create_topic(self._topics["minutes"])

    async def send(self, stream: Stream, kafka_partition: int, value: bytes) -> None:
        """See `ActivityLog`."""
        if self._kafka.down:
            raise BrokerUnavailable("the broker is down")
        topic = self._topics[stream]
        record = OutRecord(topic=topic, key=None, value=value, headers=(), timestamp_ms=self._clock.now_ms())
        self._kafka.append(record, kafka_partition)
        self._appended.set()

    async def tail(self, on_records: Callable[[Sequence[ActivityRecord]], None], *, minutes_from_ms: int) -> None:
        """See `ActivityLog`."""
        seen: dict[tuple[Stream, int], int] = {}
        while True:
            self._appended.clear()
            for stream in STREAMS:
                from_ms = minutes_from_ms if stream == "minutes" else 0
                for record in self.records(stream):
                    where = (stream, record.kafka_partition)
                    if record.offset >= seen.get(where, 0) and record.at_ms >= from_ms:
                        seen[where] = record.offset + 1
                        on_records([record])
            await self._appended.wait()

    async def read(
        self, stream: Stream, *, from_ms: int, to_ms: int | None = None, records_max: int
    ) -> Sequence[ActivityRecord]:
        """See `ActivityLog`."""
        if self._kafka.down:
            raise BrokerUnavailable("the broker is down")
        found = [
            record
            for record in self.records(stream)
            if record.at_ms >= from_ms and (to_ms is None or record.at_ms < to_ms)
        ]
        found.sort(key=lambda record: (record.at_ms, record.kafka_partition, record.offset))
        return found[:records_max]

    def records(self, stream: Stream) -> list[ActivityRecord]:
        """All records of a stream, by Kafka partition and offset."""
        topic = self._topics[stream]
        return [
            ActivityRecord(
                stream=stream,
                kafka_partition=number,
                offset=record.offset,
                at_ms=record.timestamp_ms,
                value=record.value or b"",
            )
            for number in range(self._kafka.kafka_partitions(topic))
            for record in self._kafka.records_from(topic, number, 0)
        ]
