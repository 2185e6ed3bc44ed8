"""Records among the dead letters that Clockwork did not write: they hide no letter of its own."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from clockwork.domain.dead_letters import DeadLetter, dead_letter
from clockwork.domain.record import CLIENT_ID, SCHEDULE_KEY
from clockwork.domain.schedule import Receipt
from clockwork.errors import Unreadable
from clockwork.kafka.dead_letters import _polled
from clockwork.operations.dead_letters import DeadLetterCursor
from tests.support.engine import Engine
from tests.unit.test_requests_retry_failed import KEY, failed


def letter(client_id: bytes, schedule_key: bytes) -> DeadLetter:
    headers = [(CLIENT_ID, client_id), (SCHEDULE_KEY, schedule_key)]
    return dead_letter(receipt=Receipt(kafka_partition=0, offset=0, at_ms=1), key=None, value=b"", headers=headers)


@pytest.mark.parametrize("client_id", [b"", b"a b", b"x" * 129, "ü".encode(), b"\xff"])
def test_a_client_that_could_not_be_one_is_none(client_id: bytes) -> None:
    found = letter(client_id, b"k")
    assert (found.client_id, found.schedule_key) == (None, "k")


@pytest.mark.parametrize("schedule_key", [b"", b"x" * 513, "ü".encode() * 257, b"x" * 3_000, b"\xff"])
def test_a_schedule_key_that_could_not_be_one_is_none(schedule_key: bytes) -> None:
    found = letter(b"shop", schedule_key)
    assert (found.client_id, found.schedule_key) == ("shop", None)


def test_the_longest_names_are_names() -> None:
    found = letter(b"x" * 128, "ü".encode() * 256)
    assert (found.client_id, found.schedule_key) == ("x" * 128, "ü" * 256)


async def test_a_letter_whose_schedule_cannot_be_read_leaves_the_others_on_the_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine(topic_wait_ms=0)
    other = "other"
    read_pointer = engine.store.read_pointer

    async def damaged(client_id: Any, schedule_key: Any) -> Any:
        if schedule_key == other:
            raise Unreadable("newer")
        return await read_pointer(client_id, schedule_key)

    monkeypatch.setattr(engine.store, "read_pointer", damaged)
    row = await failed(engine)
    engine.letters._log = _Log([letter(row.schedule.client_id.encode(), key.encode()) for key in (KEY, other)])
    page = await engine.letters.page(DeadLetterCursor(topic=engine.letters.topics[0]), letters_max=10)
    assert [view.present is not None for view in page.views] == [True, False]


class _Log:
    def __init__(self, letters: list[DeadLetter]) -> None:
        self._letters = tuple(letters)

    async def read_letters(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(letters=self._letters, next_from=None)

    async def read_letter(self, *_: Any) -> None:
        return None


class _Consumer:
    """Like aiokafka's: a record that cannot be read is an error of the poll, and what other Kafka partitions gave in it is
    lost, though their positions have moved."""

    def __init__(self, records: Mapping[TopicPartition, list[int | None]]) -> None:
        self.records = records
        self.at = dict.fromkeys(records, 0)

    async def getmany(self, *wheres: TopicPartition, timeout_ms: int, max_records: int) -> Any:
        polled: dict[TopicPartition, list[Any]] = {}
        for where in wheres:
            found = self.records[where][self.at[where] :][:max_records]
            if None in found:
                raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
            polled[where] = [SimpleNamespace(value=value) for value in found]
            self.at[where] += len(found)
            max_records -= len(found)
        return polled

    def seek(self, where: TopicPartition, offset: int) -> None:
        self.at[where] = offset


async def test_a_record_with_a_header_that_is_no_text_is_stepped_over_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = TopicPartition("dead", 0), TopicPartition("dead", 1)
    consumer = _Consumer({first: [1, 2, 3], second: [4, None, 5]})
    found: list[int] = []
    for _ in range(5):
        polled = await _polled(consumer, dict(consumer.at), 10)
        found += [record.value for record in polled]
    assert sorted(found) == [1, 2, 3, 4, 5]
    assert [(r.event, r.kafka_partition, r.offset) for r in caplog.records] == [("dead_letter.unreadable", 1, 1)]  # type: ignore[attr-defined]


async def test_never_more_than_asked_for_beside_a_record_that_cannot_be_read() -> None:
    first, second = TopicPartition("dead", 0), TopicPartition("dead", 1)
    consumer = _Consumer({first: [None, 1], second: [2, 3]})
    assert [record.value for record in await _polled(consumer, dict(consumer.at), 1)] == [2]
    assert consumer.at == {first: 1, second: 1}
