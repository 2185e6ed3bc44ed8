"""The twin of `DeadLetterLog`, on the broker in memory."""

from collections.abc import Mapping

from clockwork.domain.dead_letters import DeadLetter, dead_letter
from clockwork.domain.destination import Topic
from clockwork.domain.schedule import Receipt
from clockwork.errors import BrokerUnavailable
from clockwork.kafka.memory.broker import MemoryKafka, StoredRecord
from clockwork.ports.operations import DeadLetterPage


class MemoryDeadLetters:
    """See `DeadLetterLog`."""

    def __init__(self, kafka: MemoryKafka) -> None:
        self._kafka = kafka

    async def read_letters(self, topic: Topic, start: Mapping[int, int], *, letters_max: int) -> DeadLetterPage:
        """See `DeadLetterLog`."""
        first = min(start, default=0)
        records = sorted(self._records(topic), key=lambda record: (record.kafka_partition, record.offset))
        found = [r for r in records if r.kafka_partition >= first and r.offset >= start.get(r.kafka_partition, 0)]
        page, left = found[:letters_max], found[letters_max:]
        letters = sorted(map(_letter, page), key=lambda each: each.receipt.at_ms)
        next_from = {left[0].kafka_partition: left[0].offset} if left else None
        return DeadLetterPage(letters=tuple(letters), next_from=next_from)

    async def read_letter(self, topic: Topic, kafka_partition: int, offset: int) -> DeadLetter | None:
        """See `DeadLetterLog`."""
        for record in self._records(topic):
            if (record.kafka_partition, record.offset) == (kafka_partition, offset):
                return _letter(record)
        return None

    def _records(self, topic: Topic) -> list[StoredRecord]:
        if self._kafka.down:
            raise BrokerUnavailable("the broker is down")
        if self._kafka.is_forbidden(topic):
            raise BrokerUnavailable(f"{topic} may not be read")
        return self._kafka.read_committed(topic) if self._kafka.has_topic(topic) else []


def _letter(record: StoredRecord) -> DeadLetter:
    receipt = Receipt(kafka_partition=record.kafka_partition, offset=record.offset, at_ms=record.timestamp_ms)
    return dead_letter(receipt=receipt, key=record.key, value=record.value or b"", headers=record.headers)
