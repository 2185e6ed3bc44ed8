"""`DeadLetterLog`, on the broker in memory and on Kafka."""

import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.record.util import calc_crc32c

from clockwork.domain.destination import Topic
from clockwork.domain.record import OutRecord, dead_letter_of
from clockwork.domain.schedule import Failure
from clockwork.errors import BrokerUnavailable
from clockwork.kafka.client import KafkaContext
from clockwork.kafka.dead_letters import KafkaDeadLetters
from clockwork.kafka.memory.broker import MemoryKafka
from clockwork.kafka.memory.dead_letters import MemoryDeadLetters
from clockwork.kafka.topics import create_topics
from clockwork.ports.operations import DeadLetterLog
from clockwork.settings.model import KafkaSettings
from infra.local import LocalServices
from tests.support import builders

CRC_AT = 17
"""The place of a record batch's checksum, which covers the bytes after it."""
FAILURE = Failure(reason="topic_missing", attempts=2)


@dataclass
class LettersUnderTest:
    """A topic of dead letters, its log, and its writer."""

    log: DeadLetterLog
    topic: Topic
    producer: Any = None
    consumer: Any = None
    memory: MemoryKafka | None = None

    def record(self, key: str) -> OutRecord:
        schedule = builders.schedule(schedule_key=key, headers=(("a", "ü"),), traceparent="00-1")
        return dead_letter_of(schedule, FAILURE, topic=self.topic, now_ms=builders.DUE_MS)

    async def write(self, *keys: str, kafka_partition: int = 0, commit: bool = True) -> None:
        """Writes letters in one transaction; returns when they can be seen, if it was committed."""
        if self.memory is not None:
            epoch = self.memory.init("t")
            self.memory.begin("t", epoch)
            for key in keys:
                self.memory.append(self.record(key), kafka_partition, transactional_id="t", epoch=epoch)
            if commit:
                self.memory.commit("t", epoch)
            else:
                self.memory.expire_transaction("t")
            return
        await self.producer.begin_transaction()
        for key in keys:
            record = self.record(key)
            sent = await self.producer.send_and_wait(
                record.topic, record.value, record.key, kafka_partition, record.timestamp_ms, list(record.headers)
            )
        if not commit:
            await self.producer.abort_transaction()
            return
        await self.producer.commit_transaction()
        # The coordinator answers when the commit is decided; the partitions hear of it a little later.
        place = TopicPartition(sent.topic, sent.partition)
        self.consumer.assign([place])
        self.consumer.seek(place, sent.offset)
        assert (await self.consumer.getone(place)).offset == sent.offset


@pytest.fixture
async def real_letters(services: LocalServices) -> AsyncIterator[LettersUnderTest]:
    brokers = services.kafka_brokers
    kafka = KafkaContext(settings=KafkaSettings(brokers=(brokers,)))
    topic = Topic(f"t{uuid4().hex[:10]}")
    # The letters bear a time of long ago, and must not be deleted for it.
    await create_topics(kafka, [topic], kafka_partitions=2, config={"retention.ms": "-1"})
    producer = AIOKafkaProducer(bootstrap_servers=brokers, transactional_id=topic)
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, isolation_level="read_committed")
    async with producer, consumer:
        yield LettersUnderTest(KafkaDeadLetters(kafka), topic, producer=producer, consumer=consumer)


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.real)])
def under_test(request: pytest.FixtureRequest) -> LettersUnderTest:
    if request.param == "memory":
        memory = MemoryKafka(cluster="c", shards=1)
        return LettersUnderTest(MemoryDeadLetters(memory), Topic(memory.dead_letters_topic), memory=memory)
    made: LettersUnderTest = request.getfixturevalue("real_letters")
    return made


async def test_each_committed_letter_is_read_once_page_by_page_in_the_order_of_its_kafka_partition(
    under_test: LettersUnderTest,
) -> None:
    # Offsets have holes where transactions ended, and one that was aborted is never seen.
    await under_test.write("a", "b", "c")
    await under_test.write("never", "seen", commit=False)
    await under_test.write("d", kafka_partition=1)
    await under_test.write("e", "f")
    await under_test.write("nor this", commit=False)
    keys: list[str | None] = []
    start: Any = {}
    while start is not None:
        page = await under_test.log.read_letters(under_test.topic, start, letters_max=2)
        assert len(page.letters) <= 2
        keys += [letter.schedule_key for letter in page.letters]
        start = page.next_from
    assert sorted(filter(None, keys)) == ["a", "b", "c", "d", "e", "f"]
    assert [key for key in keys if key != "d"] == ["a", "b", "c", "e", "f"]


async def test_a_letter_tells_what_was_given_up_and_is_found_by_its_place(under_test: LettersUnderTest) -> None:
    await under_test.write("a", "b")
    page = await under_test.log.read_letters(under_test.topic, {}, letters_max=10)
    assert page.next_from is None
    letter = page.letters[1]
    where = (letter.receipt.kafka_partition, letter.receipt.offset)
    assert await under_test.log.read_letter(under_test.topic, *where) == letter
    assert (letter.client_id, letter.schedule_key, letter.delivery_id) == (builders.CLIENT, "b", "delivery-of-b")
    assert (letter.topic, letter.reason, letter.attempts) == (builders.TOPIC, "topic_missing", 2)
    assert (letter.due_ms, letter.ordering_key, letter.value) == (builders.DUE_MS, b"b", b'{"order":1}')
    assert letter.headers == (("a", "ü".encode()),)
    # Behind the last one stands Kafka's own note that the transaction ended.
    for nowhere in ((0, 2), (0, 99), (7_000, 0)):
        assert await under_test.log.read_letter(under_test.topic, *nowhere) is None


@pytest.mark.real
@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
async def test_a_topic_that_its_broker_compresses_is_read(services: LocalServices, compression: str) -> None:
    kafka = KafkaContext(settings=KafkaSettings(brokers=(services.kafka_brokers,)))
    topic = Topic(f"t{uuid4().hex[:10]}")
    await create_topics(kafka, [topic], config={"compression.type": compression})
    async with AIOKafkaProducer(bootstrap_servers=services.kafka_brokers) as producer:
        await producer.send_and_wait(topic, b"x" * 1_000)
    page = await KafkaDeadLetters(kafka).read_letters(topic, {}, letters_max=10)
    assert [letter.value for letter in page.letters] == [b"x" * 1_000]


@pytest.mark.real
async def test_a_record_with_a_header_that_is_no_text_hides_no_letter(
    services: LocalServices, real_letters: LettersUnderTest
) -> None:
    under_test = real_letters
    await under_test.write("a", "b")
    async with AIOKafkaProducer(bootstrap_servers=services.kafka_brokers) as producer:
        batch = producer.create_batch()
        batch.append(key=None, value=b"x", timestamp=builders.DUE_MS, headers=[("AB", b"1")])
        records = bytearray(batch._build().replace(b"AB", b"\xff\xfe"))
        struct.pack_into(">I", records, CRC_AT, calc_crc32c(bytes(records[CRC_AT + 4 :])))
        batch._buffer = records
        await (await producer.send_batch(batch, under_test.topic, partition=0))
    await under_test.write("c")
    await under_test.write("d", kafka_partition=1)
    page = await under_test.log.read_letters(under_test.topic, {}, letters_max=10)
    assert sorted(str(letter.schedule_key) for letter in page.letters) == ["a", "b", "c", "d"]
    assert await under_test.log.read_letter(under_test.topic, 0, 3) is None
    assert await under_test.log.read_letter(under_test.topic, 0, 4) is not None


async def test_an_empty_topic_has_no_page_to_go_on_with(under_test: LettersUnderTest) -> None:
    page = await under_test.log.read_letters(under_test.topic, {}, letters_max=10)
    assert (page.letters, page.next_from) == ((), None)
    beyond = await under_test.log.read_letters(under_test.topic, {0: 99, 7_000: 3}, letters_max=10)
    assert (beyond.letters, beyond.next_from) == ((), None)


async def test_a_topic_that_is_missing_has_no_letters(under_test: LettersUnderTest) -> None:
    missing = Topic(f"{under_test.topic}-missing")
    page = await under_test.log.read_letters(missing, {}, letters_max=10)
    assert (page.letters, page.next_from) == ((), None)
    assert await under_test.log.read_letter(missing, 0, 0) is None


async def test_a_broker_that_is_away_is_told_as_that() -> None:
    kafka = KafkaContext(settings=KafkaSettings(brokers=("127.0.0.1:1",)))
    with pytest.raises(BrokerUnavailable):
        await KafkaDeadLetters(kafka).read_letters(Topic("c-dead-letters"), {}, letters_max=1)
