"""The contract of Publisher and SlotProducer, on the twin and on a real Kafka."""

import asyncio

import pytest

from clockwork.domain.marker import MarkerEntry, encode
from clockwork.domain.position import Position
from clockwork.domain.schedule import Failure
from clockwork.domain.sharding import ShardId
from clockwork.errors import DeliveryAborted, DeliveryRefused, DeliveryUnknown, Fenced, RefusalCause, Unreadable
from clockwork.ports.delivery import SlotName
from tests.contract.kafka_fixtures import (
    SENDS_MS,
    SHORT_MS,
    SMALL_BYTES_MAX,
    KafkaUnderTest,
    PublisherWithWakeups,
    RealUnderTest,
    deliver,
    ended_at,
    new_incarnation,
    open_slot,
    record,
    sharing,
    take_over,
    until_async,
)


@pytest.fixture
def name() -> SlotName:
    """A slot that no other test delivers by."""
    return SlotName(new_incarnation(), 0)


async def test_a_delivered_batch_is_visible_with_key_headers_and_time(
    kafka: KafkaUnderTest, node: PublisherWithWakeups, name: SlotName
) -> None:
    topic = await kafka.create_topic()
    slot = await open_slot(node, name)
    committed = await deliver(slot, record(topic, b"a"), record(topic, b"b", key=None))
    await slot.close()

    seen = await kafka.read_committed(topic)
    assert [(r.key, r.value, r.headers, r.timestamp_ms) for r in seen] == [
        (b"key", b"a", (("clockwork-delivery-id", b"d1"),), 1_700_000_000_123),
        (None, b"b", (("clockwork-delivery-id", b"d1"),), 1_700_000_000_123),
    ]
    assert [(p.kafka_partition, p.offset, p.at_ms) for p in committed.receipts] == [
        (r.kafka_partition, r.offset, r.timestamp_ms) for r in seen
    ]
    assert committed.settled
    assert set(committed.sends_ms) == {topic}


async def test_a_transaction_may_consist_of_its_marker(node: PublisherWithWakeups, name: SlotName) -> None:
    # A dropped schedule leaves no record, and is decided by a transaction all the same.
    dropped = MarkerEntry(
        shard=ShardId(5),
        position=Position(10**24 + 1),
        at_ms=5,
        receipt=None,
        failure=Failure(reason="expired", attempts=0),
    )
    slot = await open_slot(node, name)
    committed = await slot.deliver([], lambda _: encode([dropped]), sends_ms=SENDS_MS)
    await slot.close()

    assert (committed.receipts, committed.sends_ms) == ([], {})
    assert await take_over(node, name) == (dropped,)


async def test_a_slot_without_deliveries_has_an_empty_marker(node: PublisherWithWakeups, name: SlotName) -> None:
    slot = await open_slot(node, name)
    await slot.close()
    assert await take_over(node, name) == ()


async def test_a_taker_reads_the_marker_of_the_last_delivery_with_and_without_a_hint(
    kafka: KafkaUnderTest, node: PublisherWithWakeups, name: SlotName
) -> None:
    # More transactions than the first look back from the end covers.
    topic = await kafka.create_topic(kafka_partitions=3)
    slot = await open_slot(node, name)
    for number in range(30):
        batch = [record(topic, b"%d-%d" % (number, nth), key=b"k%d" % nth) for nth in range(5)]
        committed = await deliver(slot, *batch)
        hint = committed.marker_offset if number == 10 else None
    await slot.close()

    last = tuple(ended_at(where, nth) for nth, where in enumerate(committed.receipts))
    assert await take_over(node, name) == last
    assert await take_over(node, name, hint=hint) == last
    assert await take_over(node, name, hint=committed.marker_offset) == last


async def test_slots_have_markers_of_their_own(kafka: KafkaUnderTest, node: PublisherWithWakeups) -> None:
    # Slots 0 to 11: more than there are Kafka partitions of markers, so that some share one. All even ones deliver twice.
    topic = await kafka.create_topic()
    incarnation = new_incarnation()
    names = [SlotName(incarnation, number) for number in range(12)]
    expected = {}
    for name in names:
        slot = await open_slot(node, name)
        for _ in range(2):
            if name.slot % 2 == 0:
                committed = await deliver(slot, record(topic))
                expected[name] = (ended_at(committed.receipts[0]),)
        await slot.close()
    await node.settle(incarnation, slots=len(names))
    found = await node.read_markers(new_incarnation(), dict.fromkeys(names))
    assert found == dict.fromkeys(names, ()) | expected


async def test_a_forgotten_marker_is_empty(kafka: KafkaUnderTest, node: PublisherWithWakeups, name: SlotName) -> None:
    topic = await kafka.create_topic()
    slot = await open_slot(node, name)
    committed = await deliver(slot, record(topic))
    await slot.close()
    await node.forget_markers(name.incarnation, slots=1)
    assert await take_over(node, name, hint=committed.marker_offset) == ()


async def test_a_marker_that_cannot_be_read_is_an_error_and_never_an_empty_one(
    node: PublisherWithWakeups, name: SlotName
) -> None:
    slot = await open_slot(node, name)
    await slot.deliver([], lambda _: b"damaged", sends_ms=SENDS_MS)
    await slot.close()
    with pytest.raises(Unreadable):
        await take_over(node, name)


async def test_records_of_one_key_keep_their_order_within_and_across_batches(
    kafka: KafkaUnderTest, node: PublisherWithWakeups, name: SlotName
) -> None:
    topic = await kafka.create_topic(kafka_partitions=3)
    slot = await open_slot(node, name)
    for first in range(0, 400, 100):
        await deliver(
            slot, *(record(topic, b"%03d" % n, key=b"lane-%d" % (n % 7), size=300) for n in range(first, first + 100))
        )
    await slot.close()

    seen = await kafka.read_committed(topic)
    assert len(seen) == 400
    for lane in range(7):
        values = [r.value or b"" for r in seen if r.key == b"lane-%d" % lane]
        assert values == sorted(values)


async def test_a_batch_larger_than_a_request_arrives_whole(
    kafka: KafkaUnderTest, node: PublisherWithWakeups, name: SlotName
) -> None:
    # 4 MB to one Kafka partition are several batches, one after the other.
    topic = await kafka.create_topic()
    slot = await open_slot(node, name)
    committed = await deliver(slot, *(record(topic, b"%02d" % n, size=200_000) for n in range(20)))
    await slot.close()

    seen = await kafka.read_committed(topic)
    assert [(r.value or b"")[:2] for r in seen] == [b"%02d" % n for n in range(20)]
    assert [p.offset for p in committed.receipts] == [r.offset for r in seen]


async def test_a_taker_fences_the_producers_of_all_slots(kafka: KafkaUnderTest, node: PublisherWithWakeups) -> None:
    topic = await kafka.create_topic()
    incarnation = new_incarnation()
    slots = [await open_slot(node, SlotName(incarnation, number)) for number in range(2)]
    for slot in slots:
        await deliver(slot, record(topic, b"before"))
    async with kafka.node() as taker:
        await taker.settle(incarnation, slots=2)
        for slot in slots:
            with pytest.raises(Fenced):
                await deliver(slot, record(topic, b"zombie"))
    # Its own init gives the producer back to it: the flag of its item in the store is what stops it then.
    await slots[0].init()
    await deliver(slots[0], record(topic, b"after"))
    for slot in slots:
        await slot.close()
    assert [r.value for r in await kafka.read_committed(topic)] == [b"before", b"before", b"after"]


async def test_a_transaction_left_open_is_settled_before_the_marker_is_read(
    kafka: KafkaUnderTest, node: PublisherWithWakeups, name: SlotName
) -> None:
    # The old owner stops between its records and its commit, as if paused. The marker that the taker reads must be the one
    # before, and the paused delivery must never be seen.
    topic = await kafka.create_topic()
    old = await open_slot(node, name)
    committed = await deliver(old, record(topic, b"committed"))

    def stop_here(receipt: object) -> bytes:
        raise _Paused

    with pytest.raises(_Paused):
        await old.deliver([record(topic, b"never")], stop_here, sends_ms=SENDS_MS)
    with pytest.raises(DeliveryAborted):
        await deliver(old, record(topic, b"not without an init"))

    assert await take_over(node, name) == (ended_at(committed.receipts[0]),)
    await old.init()
    await deliver(old, record(topic, b"next"))
    await old.close()
    assert [r.value for r in await kafka.read_committed(topic)] == [b"committed", b"next"]


async def test_a_reader_waits_for_another_slots_transaction_in_the_same_kafka_partition(
    kafka: KafkaUnderTest, node: PublisherWithWakeups, name: SlotName
) -> None:
    topic = await kafka.create_topic()
    slot = await open_slot(node, name)
    other_name = sharing(name)
    other = await open_slot(node, other_name)
    # Its marker is sent, its commit does not arrive: the transaction stays open.
    kafka.lose_commits(other)
    with pytest.raises(DeliveryUnknown):
        await deliver(other, record(topic))
    committed = await deliver(slot, record(topic))
    await slot.close()
    await node.settle(name.incarnation, slots=1)

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(node.read_markers(new_incarnation(), {name: None}), name="reading")
        # Long enough for a reader that does not wait to find nothing.
        await deliver(await open_slot(node, SlotName(new_incarnation(), 0)), *[record(topic)] * 10)
        assert not reading.done()
        await node.settle(other_name.incarnation, slots=1)
    assert reading.result() == {name: (ended_at(committed.receipts[0]),)}
    await other.close()


async def test_an_aborted_marker_is_never_read(
    kafka: KafkaUnderTest, node: PublisherWithWakeups, name: SlotName
) -> None:
    # Aborted transactions take offsets, too; more of them than the first look back covers.
    topic = await kafka.create_topic()
    slot = await open_slot(node, name)
    committed = await deliver(slot, record(topic))
    kafka.lose_commits(slot)
    for _ in range(12):
        with pytest.raises(DeliveryUnknown):
            await deliver(slot, record(topic, b"never"))
        await slot.init()
    await slot.close()
    assert await take_over(node, name) == (ended_at(committed.receipts[0]),)


async def test_a_missing_topic_is_refused_before_anything_is_begun(
    kafka: KafkaUnderTest, node: PublisherWithWakeups, name: SlotName
) -> None:
    topic = await kafka.create_topic()
    slot = await open_slot(node, name)
    with pytest.raises(DeliveryRefused) as refused:
        await deliver(slot, record(topic), record("no-such-topic"), record("no-such-topic"))
    assert not refused.value.begun
    [refusal] = refused.value.refusals
    assert (refusal.cause, refusal.reason, refusal.destination) == (
        RefusalCause.DESTINATION,
        "topic_missing",
        "no-such-topic",
    )

    # The same producer goes on.
    await deliver(slot, record(topic, b"other"))
    await slot.close()
    assert [r.value for r in await kafka.read_committed(topic)] == [b"other"]


async def test_a_record_too_large_for_its_topic_is_named_and_nothing_of_the_batch_is_seen(
    kafka: KafkaUnderTest, node: PublisherWithWakeups, name: SlotName
) -> None:
    topic, small = await kafka.create_topic(), await kafka.create_topic(record_bytes_max=SMALL_BYTES_MAX)
    slot = await open_slot(node, name)
    batch = [record(topic, b"a"), record(small, b"b"), record(small, b"c", size=SMALL_BYTES_MAX + 200)]
    with pytest.raises(DeliveryRefused) as refused:
        await deliver(slot, *batch)
    [refusal] = refused.value.refusals
    assert (refusal.cause, refusal.reason, refusal.destination, refusal.index) == (
        RefusalCause.RECORD,
        "record_too_large",
        small,
        2,
    )
    if refused.value.begun:
        await slot.init()
    await deliver(slot, *batch[:2])
    await slot.close()
    assert [r.value for r in await kafka.read_committed(topic)] == [b"a"]
    assert [r.value for r in await kafka.read_committed(small)] == [b"b"]


async def test_small_records_are_not_refused_because_their_batch_is_large(
    kafka: KafkaUnderTest, node: PublisherWithWakeups, name: SlotName
) -> None:
    # A broker's limit holds for a batch of records, not for one.
    small = await kafka.create_topic(record_bytes_max=SMALL_BYTES_MAX)
    slot = await open_slot(node, name)
    await deliver(slot, *(record(small, b"%02d" % n, size=900) for n in range(20)))
    await slot.close()
    assert len(await kafka.read_committed(small)) == 20


async def test_a_transaction_that_the_broker_aborted_is_never_reported_as_delivered(
    kafka: KafkaUnderTest, name: SlotName
) -> None:
    # The process is paused between its records and the commit for longer than the broker keeps a transaction open.
    topic = await kafka.create_topic()
    async with kafka.node(short_transactions=True) as node:
        slot = await open_slot(node, name)
        await deliver(slot, record(topic, b"before"), sends_ms=SHORT_MS - 100)
        kafka.commit_late(node, slot, name)
        with pytest.raises((Fenced, DeliveryUnknown)):
            await deliver(slot, record(topic, b"too late"), sends_ms=SHORT_MS - 100)
        await slot.close()
    assert [r.value for r in await kafka.read_committed(topic)] == [b"before"]


async def test_after_close_nothing_can_be_delivered_and_closing_again_is_harmless(
    kafka: KafkaUnderTest, node: PublisherWithWakeups, name: SlotName
) -> None:
    topic = await kafka.create_topic()
    slot = await open_slot(node, name)
    await slot.close()
    await slot.close()
    with pytest.raises(DeliveryAborted):
        await deliver(slot, record(topic))
    assert await kafka.read_committed(topic) == []


async def test_plain_sends_are_acknowledged_with_their_place(kafka: KafkaUnderTest, node: PublisherWithWakeups) -> None:
    topic = await kafka.create_topic(kafka_partitions=2)
    values = [b"%03d" % n for n in range(200)]
    receipts = await asyncio.gather(*(node.send(record(topic, value, key=value)) for value in values))
    seen = {(r.kafka_partition, r.offset): r.value for r in await kafka.read_committed(topic)}
    assert [seen[p.kafka_partition, p.offset] for p in receipts] == values
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
    assert await node.topic_missing("no-such-topic")
    topic = await kafka.create_topic()
    await until_async(lambda: node.topic_exists(topic))
    assert not await node.topic_missing(topic)
    assert node.connected()


@pytest.mark.real
async def test_a_topic_that_asks_for_more_replicas_than_it_has_takes_records_all_the_same(
    real_kafka: RealUnderTest, name: SlotName
) -> None:
    # The broker is content with all replicas that there are. Were it not, the transaction would never end, and with it the
    # slot's producer would be of no use to any other topic.
    topic = await real_kafka.create_topic(config={"min.insync.replicas": "2"})
    async with real_kafka.node() as node:
        slot = await open_slot(node, name)
        for value in (b"a", b"b"):
            await deliver(slot, record(topic, value))
        await slot.close()
        await node.send(record(topic, b"plain"))
    assert [r.value for r in await real_kafka.read_committed(topic)] == [b"a", b"b", b"plain"]


class _Paused(Exception):
    """Stands for a process that stops here."""
