"""The contract of Publisher and ShardPublisher, on the twin and on a real Kafka."""

import asyncio

import pytest

from clockwork.domain.marker import MarkerEntry, encode
from clockwork.domain.position import Position
from clockwork.domain.schedule import Failure
from clockwork.errors import DeliveryRefused, DeliveryUnknown, Fenced, RefusalCause
from tests.contract.kafka_fixtures import (
    SMALL_BYTES_MAX,
    KafkaUnderTest,
    PublisherWithWakeups,
    RealUnderTest,
    ended_at,
    marker_of,
    record,
    until_async,
)


async def test_a_delivered_batch_is_visible_with_key_headers_and_time(
    kafka: KafkaUnderTest, node: PublisherWithWakeups
) -> None:
    topic = await kafka.create_topic()
    shard = await node.open_shard(kafka.shard)
    receipt = await shard.deliver([record(topic, b"a"), record(topic, b"b", key=None)], marker_of)
    await shard.close()

    seen = await kafka.read_committed(topic)
    assert [(r.key, r.value, r.headers, r.timestamp_ms) for r in seen] == [
        (b"key", b"a", (("clockwork-delivery-id", b"d1"),), 1_700_000_000_123),
        (None, b"b", (("clockwork-delivery-id", b"d1"),), 1_700_000_000_123),
    ]
    assert [(p.kafka_partition, p.offset, p.at_ms) for p in receipt] == [
        (r.kafka_partition, r.offset, r.timestamp_ms) for r in seen
    ]


async def test_a_transaction_may_consist_of_its_marker(kafka: KafkaUnderTest, node: PublisherWithWakeups) -> None:
    # A dropped schedule leaves no record, and is decided by a transaction all the same.
    dropped = MarkerEntry(
        position=Position(10**24 + 1), at_ms=5, receipt=None, failure=Failure(reason="expired", attempts=0)
    )
    first = await node.open_shard(kafka.shard)
    assert await first.deliver([], lambda _: encode([dropped])) == []
    await first.close()

    second = await node.open_shard(kafka.shard)
    assert await second.read_marker() == (dropped,)
    await second.close()


async def test_a_shard_without_deliveries_has_an_empty_marker(
    kafka: KafkaUnderTest, node: PublisherWithWakeups
) -> None:
    shard = await node.open_shard(kafka.shard)
    assert await shard.read_marker() == ()
    await shard.close()


async def test_the_next_owner_reads_the_marker_of_the_last_delivery(
    kafka: KafkaUnderTest, node: PublisherWithWakeups
) -> None:
    topic = await kafka.create_topic(kafka_partitions=3)
    first = await node.open_shard(kafka.shard)
    for number in range(30):
        batch = [record(topic, b"%d-%d" % (number, nth), key=b"k%d" % nth) for nth in range(5)]
        receipt = await first.deliver(batch, marker_of)
    await first.close()

    second = await node.open_shard(kafka.shard)
    assert await second.read_marker() == tuple(ended_at(where, nth) for nth, where in enumerate(receipt))
    await second.close()


async def test_shards_have_markers_of_their_own(kafka: KafkaUnderTest, node: PublisherWithWakeups) -> None:
    topic = await kafka.create_topic()
    one, other = await node.open_shard(kafka.shard), await node.open_shard(kafka.other_shard)
    receipt = await one.deliver([record(topic)], marker_of)
    assert await other.read_marker() == ()
    assert await one.read_marker() == (ended_at(receipt[0]),)
    await one.close()
    await other.close()


async def test_records_of_one_key_keep_their_order_within_and_across_batches(
    kafka: KafkaUnderTest, node: PublisherWithWakeups
) -> None:
    topic = await kafka.create_topic(kafka_partitions=3)
    shard = await node.open_shard(kafka.shard)
    for first in range(0, 400, 100):
        batch = [record(topic, b"%03d" % n, key=b"lane-%d" % (n % 7), size=300) for n in range(first, first + 100)]
        await shard.deliver(batch, marker_of)
    await shard.close()

    seen = await kafka.read_committed(topic)
    assert len(seen) == 400
    for lane in range(7):
        values = [r.value for r in seen if r.key == b"lane-%d" % lane]
        assert values == sorted(values)


async def test_a_batch_larger_than_a_request_arrives_whole(kafka: KafkaUnderTest, node: PublisherWithWakeups) -> None:
    # 4 MB to one Kafka partition are several batches, one after the other.
    topic = await kafka.create_topic()
    shard = await node.open_shard(kafka.shard)
    receipt = await shard.deliver([record(topic, b"%02d" % n, size=200_000) for n in range(20)], marker_of)
    await shard.close()

    seen = await kafka.read_committed(topic)
    assert [r.value[:2] for r in seen] == [b"%02d" % n for n in range(20)]
    assert [p.offset for p in receipt] == [r.offset for r in seen]


async def test_a_new_owner_fences_the_old_one(kafka: KafkaUnderTest, node: PublisherWithWakeups) -> None:
    topic = await kafka.create_topic()
    old = await node.open_shard(kafka.shard)
    await old.deliver([record(topic, b"before")], marker_of)
    async with kafka.node() as other_node:
        new = await other_node.open_shard(kafka.shard)
        with pytest.raises(Fenced):
            await old.deliver([record(topic, b"zombie")], marker_of)
        await new.deliver([record(topic, b"after")], marker_of)
        await new.close()
    await old.close()
    assert [r.value for r in await kafka.read_committed(topic)] == [b"before", b"after"]


async def test_what_the_old_owner_left_open_is_settled_before_the_marker_is_read(
    kafka: KafkaUnderTest, node: PublisherWithWakeups
) -> None:
    # The old owner stops between its records and its commit, as if paused. The new owner's marker must be the one
    # before, and the paused delivery must never be seen.
    topic = await kafka.create_topic()
    old = await node.open_shard(kafka.shard)
    committed = await old.deliver([record(topic, b"committed")], marker_of)
    sent = asyncio.Event()

    def stop_here(receipt: object) -> bytes:
        sent.set()
        raise _Paused

    with pytest.raises(_Paused):
        await old.deliver([record(topic, b"never")], stop_here)
    assert sent.is_set()

    new = await node.open_shard(kafka.shard)
    assert await new.read_marker() == (ended_at(committed[0]),)
    await new.deliver([record(topic, b"next")], marker_of)
    await new.close()
    await old.close()
    assert [r.value for r in await kafka.read_committed(topic)] == [b"committed", b"next"]


async def test_an_aborted_marker_is_never_read(kafka: KafkaUnderTest, node: PublisherWithWakeups) -> None:
    # Aborted transactions take offsets, too; more of them than the first look back covers.
    topic = await kafka.create_topic()
    shard = await node.open_shard(kafka.shard)
    committed = await shard.deliver([record(topic)], marker_of)
    for _ in range(12):
        await shard.close()
        shard = await node.open_shard(kafka.shard)
        kafka.lose_commits(shard)
        with pytest.raises(DeliveryUnknown):
            await shard.deliver([record(topic, b"never")], marker_of)
    await shard.close()
    shard = await node.open_shard(kafka.shard)
    assert await shard.read_marker() == (ended_at(committed[0]),)
    await shard.close()


async def test_a_missing_topic_is_refused_before_anything_is_begun(
    kafka: KafkaUnderTest, node: PublisherWithWakeups
) -> None:
    topic = await kafka.create_topic()
    shard = await node.open_shard(kafka.shard)
    with pytest.raises(DeliveryRefused) as refused:
        await shard.deliver([record(topic), record("no-such-topic"), record("no-such-topic")], marker_of)
    assert not refused.value.begun
    [refusal] = refused.value.refusals
    assert (refusal.cause, refusal.reason, refusal.destination) == (
        RefusalCause.DESTINATION,
        "topic_missing",
        "no-such-topic",
    )

    # The same producer goes on.
    await shard.deliver([record(topic, b"other")], marker_of)
    await shard.close()
    assert [r.value for r in await kafka.read_committed(topic)] == [b"other"]


async def test_a_record_too_large_for_its_topic_is_named_and_nothing_of_the_batch_is_seen(
    kafka: KafkaUnderTest, node: PublisherWithWakeups
) -> None:
    topic, small = await kafka.create_topic(), await kafka.create_topic(record_bytes_max=SMALL_BYTES_MAX)
    shard = await node.open_shard(kafka.shard)
    batch = [record(topic, b"a"), record(small, b"b"), record(small, b"c", size=SMALL_BYTES_MAX + 200)]
    with pytest.raises(DeliveryRefused) as refused:
        await shard.deliver(batch, marker_of)
    [refusal] = refused.value.refusals
    assert (refusal.cause, refusal.reason, refusal.destination, refusal.index) == (
        RefusalCause.RECORD,
        "record_too_large",
        small,
        2,
    )
    if refused.value.begun:
        await shard.close()
        shard = await node.open_shard(kafka.shard)
    await shard.deliver(batch[:2], marker_of)
    await shard.close()
    assert [r.value for r in await kafka.read_committed(topic)] == [b"a"]
    assert [r.value for r in await kafka.read_committed(small)] == [b"b"]


async def test_small_records_are_not_refused_because_their_batch_is_large(
    kafka: KafkaUnderTest, node: PublisherWithWakeups
) -> None:
    # A broker's limit holds for a batch of records, not for one.
    small = await kafka.create_topic(record_bytes_max=SMALL_BYTES_MAX)
    shard = await node.open_shard(kafka.shard)
    await shard.deliver([record(small, b"%02d" % n, size=900) for n in range(20)], marker_of)
    await shard.close()
    assert len(await kafka.read_committed(small)) == 20


async def test_a_transaction_that_the_broker_aborted_is_never_reported_as_delivered(kafka: KafkaUnderTest) -> None:
    # The runner is paused between its records and the commit for longer than the broker keeps a transaction open.
    topic = await kafka.create_topic()
    async with kafka.node() as node:
        shard = await node.open_shard(kafka.shard)
        await shard.deliver([record(topic, b"before")], marker_of)
        await shard.close()
    async with kafka.node(short_transactions=True) as node:
        shard = await node.open_shard(kafka.shard)
        kafka.commit_late(shard)
        with pytest.raises((Fenced, DeliveryUnknown)):
            await shard.deliver([record(topic, b"too late")], marker_of)
        await shard.close()
    assert [r.value for r in await kafka.read_committed(topic)] == [b"before"]


async def test_after_close_nothing_can_be_delivered_and_closing_again_is_harmless(
    kafka: KafkaUnderTest, node: PublisherWithWakeups
) -> None:
    topic = await kafka.create_topic()
    shard = await node.open_shard(kafka.shard)
    await shard.close()
    await shard.close()
    with pytest.raises(DeliveryUnknown):
        await shard.deliver([record(topic)], marker_of)
    assert await kafka.read_committed(topic) == []


async def test_plain_sends_are_acknowledged_with_their_place(kafka: KafkaUnderTest, node: PublisherWithWakeups) -> None:
    topic = await kafka.create_topic(kafka_partitions=2)
    values = [b"%03d" % n for n in range(200)]
    receipt = await asyncio.gather(*(node.send(record(topic, value, key=value)) for value in values))
    seen = {(r.kafka_partition, r.offset): r.value for r in await kafka.read_committed(topic)}
    assert [seen[p.kafka_partition, p.offset] for p in receipt] == values
    assert len(seen) == len(values)


async def test_a_refused_plain_send_harms_no_other(kafka: KafkaUnderTest, node: PublisherWithWakeups) -> None:
    small = await kafka.create_topic(record_bytes_max=SMALL_BYTES_MAX)
    sends = [
        record(small, b"a"),
        record(small, b"b", size=SMALL_BYTES_MAX + 200),
        record("no-such-topic"),
        record(small),
    ]
    results = await asyncio.gather(*(node.send(each) for each in sends), return_exceptions=True)
    await node.send(record(small, b"after"))
    refusals = [result for result in results if isinstance(result, DeliveryRefused)]
    assert [(r.refusals[0].cause, r.begun) for r in refusals] == [
        (RefusalCause.RECORD, False),
        (RefusalCause.DESTINATION, False),
    ]
    assert [r.value for r in await kafka.read_committed(small)] == [b"a", b"value", b"after"]


async def test_whether_a_topic_exists_is_known_soon_after_it_is_made(
    kafka: KafkaUnderTest, node: PublisherWithWakeups
) -> None:
    assert not await node.topic_exists("no-such-topic")
    topic = await kafka.create_topic()
    await until_async(lambda: node.topic_exists(topic))
    assert node.connected()


@pytest.mark.real
async def test_a_topic_that_asks_for_more_replicas_than_it_has_takes_records_all_the_same(
    real_kafka: RealUnderTest,
) -> None:
    # The broker is content with all replicas that there are. Were it not, the transaction would never end, and with it the
    # shard's producer would be of no use to any other topic.
    topic = await real_kafka.create_topic(config={"min.insync.replicas": "2"})
    async with real_kafka.node() as node:
        shard = await node.open_shard(real_kafka.shard)
        for value in (b"a", b"b"):
            await shard.deliver([record(topic, value)], marker_of)
        await shard.close()
        await node.send(record(topic, b"plain"))
    assert [r.value for r in await real_kafka.read_committed(topic)] == [b"a", b"b", b"plain"]


class _Paused(Exception):
    """Stands for a process that stops here."""
