"""A topic of many Kafka partitions, page by page: each dead letter once, and a cursor short enough to be sent back."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from clockwork.domain.destination import Topic
from clockwork.http.connection import TARGET_BYTES_MAX
from clockwork.http.dead_letters import _decode_cursor, _encode_cursor
from clockwork.kafka.client import KafkaContext
from clockwork.kafka.dead_letters import KAFKA_PARTITIONS_AT_ONCE, KafkaDeadLetters
from clockwork.operations.dead_letters import DeadLetterCursor

TOPIC = Topic("dead")


class _Consumer:
    """The log of a topic with so many dead letters in its Kafka partitions."""

    def __init__(self, letters: list[int]) -> None:
        self._ends = {TopicPartition(TOPIC, number): count for number, count in enumerate(letters)}
        self._at = dict.fromkeys(self._ends, 0)

    def assignment(self) -> set[TopicPartition]:
        return set(self._ends)

    async def end_offsets(self, wheres: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {where: self._ends[where] for where in reversed(wheres)}

    async def beginning_offsets(self, wheres: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(wheres, 0)

    def seek(self, where: TopicPartition, offset: int) -> None:
        self._at[where] = offset

    async def position(self, where: TopicPartition) -> int:
        return self._at[where]

    async def getmany(self, *wheres: TopicPartition, timeout_ms: int, max_records: int) -> Any:
        polled: dict[TopicPartition, list[Any]] = {}
        for where in sorted(wheres, key=lambda each: each.partition * 7 % 13):
            count = min(max_records, self._ends[where] - self._at[where])
            offsets = range(self._at[where], self._at[where] + count)
            polled[where] = [
                SimpleNamespace(partition=where.partition, offset=o, timestamp=o, key=None, value=b"", headers=())
                for o in offsets
            ]
            self._at[where] += count
            max_records -= count
        return polled


@pytest.mark.parametrize("letters", [[3] * 700, [0, 1] * 350, [0] * 650 + [5], [400] + [0] * 699, [0] * 700])
async def test_each_dead_letter_of_a_topic_of_many_kafka_partitions_is_read_once_and_every_cursor_can_be_sent_back(
    letters: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def opened(*_: Any) -> AsyncIterator[Any]:
        yield _Consumer(letters)

    monkeypatch.setattr(KafkaDeadLetters, "_consumer", opened)
    log = KafkaDeadLetters(KafkaContext())
    found: list[tuple[int, int]] = []
    start: Mapping[int, int] | None = {}
    while start is not None:
        page = await log.read_letters(TOPIC, start, letters_max=70)
        found += [(letter.receipt.kafka_partition, letter.receipt.offset) for letter in page.letters]
        start = page.next_from
        if start is not None:
            cursor = _encode_cursor(DeadLetterCursor(topic=TOPIC, offsets=start))
            assert cursor is not None
            start = _decode_cursor(cursor).offsets
    assert sorted(found) == [(number, o) for number, count in enumerate(letters) for o in range(count)]


def test_the_longest_cursor_fits_into_a_line_of_a_request() -> None:
    offsets = {999_999 - number: 10**15 for number in range(KAFKA_PARTITIONS_AT_ONCE)}
    start = DeadLetterCursor(topic=Topic("t" * 249), offsets=offsets)
    cursor = _encode_cursor(start)
    assert cursor is not None
    assert len(cursor) < TARGET_BYTES_MAX / 2
    assert _decode_cursor(cursor) == start
