"""`DeadLetterLog`, on the broker in memory and on Kafka."""

import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.record.util import calc_crc32c

from clockwork.domain.record import OutRecord, dead_letter_of
from clockwork.domain.schedule import Failure, Topic
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
"""In a record batch; it is of what comes after it."""
FAILURE = Failure(reason="topic_missing", attempts=2)


@dataclass
class Grave:
    """The topic, and who writes into it."""

    log: DeadLetterLog
    topic: Topic
    producer: Any = None
    consumer: Any = None
    memory: MemoryKafka | None = None

    def record(self, key: str) -> OutRecord:
        schedule = builders.schedule(schedule_key=key, headers=(("a", "ü"),), traceparent="00-1")
        return dead_letter_of(schedule, FAILURE, topic=self.topic, now_ms=builders.DUE_MS)

    async def bury(self, *keys: str, kafka_partition: int = 0, commit: bool = True) -> None:
        """In one transaction; returns when it can be seen, if it was committed."""
        if self.memory is not None:
            epoch = self.memory.init("t")
            self.memory.begin("t", epoch)
            for key in keys:
                self.memory.append(self.record(key), kafka_partition, transactional_id="t", epoch=epoch)
            (self.memory.commit if commit else self.memory.abort)("t", epoch)
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
async def real_grave(services: LocalServices) -> AsyncIterator[Grave]:
    brokers = services.kafka_brokers
    kafka = KafkaContext(settings=KafkaSettings(brokers=(brokers,)))
    topic = Topic(f"t{uuid4().hex[:10]}")
    await create_topics(kafka, [topic], kafka_partitions=2)
    producer = AIOKafkaProducer(bootstrap_servers=brokers, transactional_id=topic)
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, isolation_level="read_committed")
    async with producer, consumer:
        yield Grave(KafkaDeadLetters(kafka), topic, producer=producer, consumer=consumer)


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.real)])
def grave(request: pytest.FixtureRequest) -> Grave:
    if request.param == "memory":
        memory = MemoryKafka(cluster="c", shards=1)
        return Grave(MemoryDeadLetters(memory), Topic(memory.dead_letters_topic), memory=memory)
    made: Grave = request.getfixturevalue("real_grave")
    return made


async def test_each_committed_letter_is_read_once_page_by_page_in_the_order_of_its_kafka_partition(
    grave: Grave,
) -> None:
    # Offsets have holes where transactions ended, and one that was aborted is never seen.
    await grave.bury("a", "b", "c")
    await grave.bury("never", "seen", commit=False)
    await grave.bury("d", kafka_partition=1)
    await grave.bury("e", "f")
    await grave.bury("nor this", commit=False)
    keys: list[str | None] = []
    start: Any = {}
    while start is not None:
        page = await grave.log.read_letters(grave.topic, start, letters_max=2)
        assert len(page.letters) <= 2
        keys += [letter.schedule_key for letter in page.letters]
        start = page.next_from
    assert sorted(filter(None, keys)) == ["a", "b", "c", "d", "e", "f"]
    assert [key for key in keys if key != "d"] == ["a", "b", "c", "e", "f"]


async def test_a_letter_tells_what_was_given_up_and_is_found_by_its_place(grave: Grave) -> None:
    await grave.bury("a", "b")
    page = await grave.log.read_letters(grave.topic, {}, letters_max=10)
    assert page.next_from is None
    letter = page.letters[1]
    assert await grave.log.read_letter(grave.topic, letter.receipt.kafka_partition, letter.receipt.offset) == letter
    assert (letter.client_id, letter.schedule_key, letter.delivery_id) == (builders.CLIENT, "b", "delivery-of-b")
    assert (letter.topic, letter.reason, letter.attempts) == (builders.TOPIC, "topic_missing", 2)
    assert (letter.due_ms, letter.ordering_key, letter.value) == (builders.DUE_MS, b"b", b'{"order":1}')
    assert letter.headers == (("a", "ü".encode()),)
    # Behind the last one stands Kafka's own note that the transaction ended.
    for nowhere in ((0, 2), (0, 99), (7_000, 0)):
        assert await grave.log.read_letter(grave.topic, *nowhere) is None


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
    services: LocalServices, real_grave: Grave
) -> None:
    grave = real_grave
    await grave.bury("a", "b")
    async with AIOKafkaProducer(bootstrap_servers=services.kafka_brokers) as producer:
        batch = producer.create_batch()
        batch.append(key=None, value=b"x", timestamp=builders.DUE_MS, headers=[("AB", b"1")])
        records = bytearray(batch._build().replace(b"AB", b"\xff\xfe"))
        struct.pack_into(">I", records, CRC_AT, calc_crc32c(bytes(records[CRC_AT + 4 :])))
        batch._buffer = records
        await (await producer.send_batch(batch, grave.topic, partition=0))
    await grave.bury("c")
    await grave.bury("d", kafka_partition=1)
    page = await grave.log.read_letters(grave.topic, {}, letters_max=10)
    assert sorted(str(letter.schedule_key) for letter in page.letters) == ["a", "b", "c", "d"]
    assert await grave.log.read_letter(grave.topic, 0, 3) is None
    assert await grave.log.read_letter(grave.topic, 0, 4) is not None


async def test_an_empty_topic_has_no_page_to_go_on_with(grave: Grave) -> None:
    page = await grave.log.read_letters(grave.topic, {}, letters_max=10)
    assert (page.letters, page.next_from) == ((), None)
    beyond = await grave.log.read_letters(grave.topic, {0: 99, 7_000: 3}, letters_max=10)
    assert (beyond.letters, beyond.next_from) == ((), None)


async def test_a_topic_that_is_missing_has_no_letters(grave: Grave) -> None:
    missing = Topic(f"{grave.topic}-of-nobody")
    page = await grave.log.read_letters(missing, {}, letters_max=10)
    assert (page.letters, page.next_from) == ((), None)
    assert await grave.log.read_letter(missing, 0, 0) is None


async def test_a_broker_that_is_away_is_told_as_that() -> None:
    kafka = KafkaContext(settings=KafkaSettings(brokers=("127.0.0.1:1",)))
    with pytest.raises(BrokerUnavailable):
        await KafkaDeadLetters(kafka).read_letters(Topic("c-dead-letters"), {}, letters_max=1)
