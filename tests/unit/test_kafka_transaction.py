"""The outcome of a delivery, for each answer of a broker, and for none."""

import asyncio
from collections import deque
from typing import Any

import pytest

from clockwork.domain.record import OutRecord
from clockwork.errors import (
    BrokerUnavailable,
    DeliveryAborted,
    DeliveryRefused,
    DeliveryUnknown,
    Fenced,
    Refusal,
    RefusalCause,
)
from clockwork.firing.destination_waits import AWAY_BACKOFF
from clockwork.kafka import codes
from clockwork.kafka.transactional import LAYOUT_AGE_S_MAX
from clockwork.ports.delivery import Committed, SlotProducer
from tests.support.virtual_time import in_virtual_time
from tests.unit.kafka_script import LOST, MARKERS, SENDS_MS, ScriptedWire, open_scripted


def _times(code: int, times: int) -> deque[int]:
    return deque([code] * times)


def record(topic: str = "orders", value: bytes = b"v", key: bytes | None = b"k") -> OutRecord:
    return OutRecord(topic=topic, key=key, value=value, headers=(), timestamp_ms=5)


async def deliver(producer: SlotProducer, *records: OutRecord, sends_ms: int = SENDS_MS) -> Committed:
    return await producer.deliver(records, lambda _: b"marker", sends_ms=sends_ms)


async def refusals_of(wire: ScriptedWire, *records: OutRecord, begun: bool) -> tuple[Refusal, ...]:
    producer = await open_scripted(wire)
    with pytest.raises(DeliveryRefused) as refused:
        await deliver(producer, *records)
    assert refused.value.begun is begun
    assert "commit" not in wire.asked
    return refused.value.refusals


def transactional(wire: ScriptedWire) -> list[str]:
    return [word for word in wire.asked if word in ("add", "produce", "commit", "abort")]


@in_virtual_time
async def test_the_marker_goes_after_the_records_and_before_the_commit() -> None:
    wire = ScriptedWire()
    producer = await open_scripted(wire)
    for _ in range(2):
        await deliver(producer, record(), record("bills"))
    assert transactional(wire) == ["add", "produce", "produce", "commit"] * 2
    assert [values for topic, _, values in wire.appended if topic == MARKERS] == [[b"marker"]] * 2


@in_virtual_time
async def test_a_commit_gives_the_places_of_records_and_marker_and_the_time_of_each_topic() -> None:
    wire = ScriptedWire()
    wire.produce_codes["bills"] = _times(codes.NOT_ENOUGH_REPLICAS, 3)
    producer = await open_scripted(wire)
    await deliver(producer, record("bills"))
    committed = await deliver(producer, record(), record("bills"), record())
    assert [receipt.offset for receipt in committed.receipts] == [0, 1, 1]
    assert (committed.marker_offset, committed.settled) == (1, True)
    assert (committed.sends_ms, committed.marker_ms) == ({"orders": 0, "bills": 0}, 0)
    wire.produce_codes["bills"] = _times(codes.NOT_ENOUGH_REPLICAS, 3)
    slow = await deliver(producer, record(), record("bills"))
    assert slow.sends_ms["orders"] == 0 < slow.sends_ms["bills"]


@in_virtual_time
async def test_a_topic_that_may_not_be_written_is_named_and_leaves_nothing_open() -> None:
    wire = ScriptedWire()
    wire.script("add", {"bills": codes.TOPIC_FORBIDDEN})
    assert await refusals_of(wire, record(), record("bills"), begun=False) == (
        Refusal(cause=RefusalCause.DESTINATION, reason="topic_forbidden", destination="bills"),
    )
    assert transactional(wire) == ["add"]


@in_virtual_time
async def test_after_an_unanswered_try_a_refusal_to_add_leaves_the_transaction_to_the_next_init() -> None:
    # The first try may have added the Kafka partitions, so a transaction may be open.
    wire = ScriptedWire()
    wire.script("add", LOST, {"bills": codes.TOPIC_FORBIDDEN})
    [refusal] = await refusals_of(wire, record("bills"), begun=True)
    assert refusal.reason == "topic_forbidden"
    assert transactional(wire) == ["add", "add"]


@in_virtual_time
async def test_a_forbidden_topic_that_shows_only_at_produce_is_named_alone() -> None:
    wire = ScriptedWire()
    wire.produce_codes["bills"] = _times(codes.TOPIC_FORBIDDEN, 1)
    [refusal] = await refusals_of(wire, record(), record("bills"), begun=True)
    assert (refusal.cause, refusal.destination) == (RefusalCause.DESTINATION, "bills")


@in_virtual_time
async def test_a_topic_deleted_meanwhile_is_reported_as_missing() -> None:
    wire = ScriptedWire()
    producer = await open_scripted(wire)
    await deliver(producer, record("bills"))
    del wire.topics["bills"]
    await asyncio.sleep(1)
    wire.script("add", {"bills": codes.UNKNOWN_TOPIC_OR_PARTITION})
    with pytest.raises(DeliveryRefused) as refused:
        await deliver(producer, record("bills"))
    assert [r.reason for r in refused.value.refusals] == ["topic_missing"]


@pytest.mark.parametrize("code", [codes.INVALID_RECORD, codes.INVALID_TIMESTAMP, codes.MESSAGE_TOO_LARGE])
@in_virtual_time
async def test_of_a_refused_batch_exactly_the_culprits_are_named(code: int) -> None:
    wire = ScriptedWire()
    wire.refuse_values = {b"bad-1": code, b"bad-2": code}
    batch = [record(value=value) for value in (b"a", b"bad-1", b"b", b"bad-2", b"c")]
    found = await refusals_of(wire, *batch, record("bills"), begun=True)
    assert [(r.cause, r.destination, r.index) for r in found] == [
        (RefusalCause.RECORD, "orders", 1),
        (RefusalCause.RECORD, "orders", 3),
    ]
    # The others were sent, in order, each with the next sequence number; the abort takes them back.
    assert [values for topic, _, values in wire.appended if topic == "orders"] == [[b"a"], [b"b"], [b"c"]]


@in_virtual_time
async def test_too_few_replicas_until_time_runs_out_is_a_refusal_of_that_topic() -> None:
    wire = ScriptedWire()
    wire.produce_codes["bills"] = _times(codes.NOT_ENOUGH_REPLICAS, 1_000)
    assert await refusals_of(wire, record(), record("bills"), begun=True) == (
        Refusal(cause=RefusalCause.TRANSIENT, reason="not_enough_replicas", destination="bills"),
    )


@in_virtual_time
async def test_a_leader_that_moves_is_followed() -> None:
    wire = ScriptedWire()
    wire.produce_codes["orders"] = _times(codes.NOT_LEADER, 3)
    producer = await open_scripted(wire)
    [receipt] = (await deliver(producer, record())).receipts
    assert receipt.offset == 0


NO_LEADER = {"leader": -1}
MISSING = {"topics": {MARKERS: codes.NONE}}
FORBIDDEN = {"topics": {MARKERS: codes.NONE, "orders": codes.TOPIC_FORBIDDEN}}
HIGH_MIN = {"configs": {"min.insync.replicas": "2"}}
TOO_FEW_IN_SYNC = {"replicas": 3} | HIGH_MIN
MORE_THAN_AN_OLD_BROKER_TAKES = {"produce_version": 9} | HIGH_MIN


def set_up(wire: ScriptedWire, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(wire, name, value)


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (NO_LEADER, "leader_unavailable"),
        (TOO_FEW_IN_SYNC, "not_enough_replicas"),
        (MORE_THAN_AN_OLD_BROKER_TAKES, "not_enough_replicas"),
    ],
)
@in_virtual_time
async def test_a_kafka_partition_that_could_not_end_a_transaction_is_not_drawn_into_one(
    trouble: dict[str, Any], reason: str
) -> None:
    wire = ScriptedWire()
    set_up(wire, trouble)
    producer = await open_scripted(wire)
    with pytest.raises(DeliveryRefused) as refused:
        await deliver(producer, record())
    assert [(r.cause, r.reason, r.destination) for r in refused.value.refusals] == [
        (RefusalCause.TRANSIENT, reason, "orders")
    ]
    assert not refused.value.begun
    assert transactional(wire) == []


@pytest.mark.parametrize(
    ("standing", "trouble"),
    [
        ({}, MISSING),
        ({}, FORBIDDEN),
        ({}, NO_LEADER),
        ({"replicas": 3}, HIGH_MIN),
        ({"produce_version": 9}, HIGH_MIN),
    ],
)
@in_virtual_time
async def test_a_topic_that_was_put_right_takes_the_next_attempt_however_soon_it_comes(
    standing: dict[str, Any], trouble: dict[str, Any]
) -> None:
    # Metadata and settings are remembered, but none refuses anything without being read again.
    wire = ScriptedWire()
    set_up(wire, standing)
    healthy = {name: getattr(wire, name) for name in trouble}
    producer = await open_scripted(wire)
    set_up(wire, trouble)
    with pytest.raises(DeliveryRefused):
        await deliver(producer, record())
    set_up(wire, healthy)
    await asyncio.sleep(AWAY_BACKOFF.initial_ms / 1_000)
    await deliver(producer, record())


@pytest.mark.parametrize(("replicas", "in_sync_min"), [(1, 2), (2, 3), (3, 9)])
@in_virtual_time
async def test_more_replicas_than_there_are_need_not_be_in_sync(replicas: int, in_sync_min: int) -> None:
    # Brokers since Kafka 3.7 ask for the smaller of the two numbers.
    wire = ScriptedWire()
    wire.replicas = wire.in_sync = replicas
    wire.configs = {"min.insync.replicas": str(in_sync_min)}
    producer = await open_scripted(wire)
    await deliver(producer, record())
    wire.in_sync = replicas - 1
    await asyncio.sleep(LAYOUT_AGE_S_MAX + 0.01)
    with pytest.raises(DeliveryRefused):
        await deliver(producer, record())


# --- time


@in_virtual_time
async def test_a_leader_that_takes_its_time_is_its_topics_fault_and_no_others() -> None:
    # Node 2 leads `bills` and never answers. `orders`, on node 1, was acknowledged long before the time was over.
    wire = ScriptedWire()
    wire.leader_of["bills"], wire.hung = 2, {2}
    assert await refusals_of(wire, record(), record("bills"), begun=True) == (
        Refusal(cause=RefusalCause.TRANSIENT, reason="timed_out", destination="bills"),
    )


@in_virtual_time
async def test_a_leader_tells_in_time_which_of_its_topics_wait_for_replicas() -> None:
    # Both topics are in one request. The leader's own time limit lies below that of the sends, so it answers.
    wire = ScriptedWire()
    wire.produce_codes["bills"] = _times(codes.REQUEST_TIMED_OUT, 1_000)
    assert await refusals_of(wire, record(), record("bills"), begun=True) == (
        Refusal(cause=RefusalCause.TRANSIENT, reason="timed_out", destination="bills"),
    )
    assert set(wire.append_timeouts_ms) == {SENDS_MS * 2 // 3}


@in_virtual_time
async def test_a_leader_that_took_a_part_is_not_silent_and_the_batch_was_too_large() -> None:
    wire = ScriptedWire()
    wire.hang_after["orders"] = 1
    producer = await open_scripted(wire)
    with pytest.raises(DeliveryAborted) as aborted:
        await deliver(producer, *(record(value=b"v" * 500_000) for _ in range(4)))
    assert aborted.value.timed_out


@pytest.mark.parametrize("word", ["add", "produce"])
@in_virtual_time
async def test_silence_of_all_of_kafka_is_no_topics_fault(word: str) -> None:
    wire = ScriptedWire()
    producer = await open_scripted(wire)
    await deliver(producer, record())
    wire.silent |= {word, "metadata"}
    with pytest.raises(DeliveryAborted) as aborted:
        await deliver(producer, record())
    assert aborted.value.timed_out


@in_virtual_time
async def test_silence_of_one_leader_while_kafka_answers_is_its_topics_fault() -> None:
    wire = ScriptedWire()
    wire.silent.add("produce")
    [refusal] = await refusals_of(wire, record(), begun=True)
    assert (refusal.cause, refusal.destination) == (RefusalCause.TRANSIENT, "orders")


@in_virtual_time
async def test_a_topic_that_the_coordinators_broker_does_not_know_yet_is_named() -> None:
    wire = ScriptedWire()
    wire.script("add", *[{"bills": codes.UNKNOWN_TOPIC_OR_PARTITION}] * 1_000)
    assert await refusals_of(wire, record(), record("bills"), begun=True) == (
        Refusal(cause=RefusalCause.TRANSIENT, reason="leader_unavailable", destination="bills"),
    )


@in_virtual_time
async def test_a_leader_that_does_not_say_what_it_asks_for_holds_up_its_own_topic_only() -> None:
    wire = ScriptedWire()
    set_up(wire, HIGH_MIN)
    wire.silent.add("versions")
    [refusal] = await refusals_of(wire, record(), begun=False)
    assert (refusal.cause, refusal.reason) == (RefusalCause.TRANSIENT, "not_enough_replicas")


# --- the marker


@in_virtual_time
async def test_while_the_leader_of_its_markers_is_away_a_slot_begins_nothing() -> None:
    wire = ScriptedWire()
    wire.leader_of[MARKERS] = -1
    producer = await open_scripted(wire)
    with pytest.raises(BrokerUnavailable):
        await deliver(producer, record())
    assert transactional(wire) == []
    del wire.leader_of[MARKERS]
    await asyncio.sleep(LAYOUT_AGE_S_MAX + 0.01)
    await deliver(producer, record())


@pytest.mark.parametrize(
    ("trouble", "timed_out"),
    [
        ({"produce_codes": {MARKERS: _times(codes.NOT_LEADER, 1_000)}}, False),
        ({"leader_of": {MARKERS: 2}, "hung": {2}}, True),
        ({"produce_codes": {MARKERS: _times(codes.TOPIC_FORBIDDEN, 1)}}, False),
        ({"refuse_values": {b"marker": codes.MESSAGE_TOO_LARGE}}, False),
    ],
)
@in_virtual_time
async def test_a_marker_that_cannot_be_written_aborts_and_blames_no_topic(
    trouble: dict[str, Any], timed_out: bool
) -> None:
    wire = ScriptedWire()
    producer = await open_scripted(wire)
    set_up(wire, trouble)
    with pytest.raises(DeliveryAborted) as aborted:
        await deliver(producer, record())
    assert aborted.value.timed_out is timed_out
    assert "commit" not in wire.asked


@in_virtual_time
async def test_the_topic_of_the_markers_is_no_destination_that_could_be_refused() -> None:
    wire = ScriptedWire()
    wire.script("add", {MARKERS: codes.TOPIC_FORBIDDEN})
    producer = await open_scripted(wire)
    with pytest.raises(BrokerUnavailable):
        await deliver(producer, record())
    wire.script("add", LOST, {MARKERS: codes.TOPIC_FORBIDDEN})
    with pytest.raises(DeliveryAborted):
        await deliver(producer, record())


@in_virtual_time
async def test_after_a_change_of_the_number_of_kafka_partitions_markers_are_not_written_elsewhere() -> None:
    # A reader with the old number would not find them, and one with the new number not those that there are.
    wire = ScriptedWire()
    producer = await open_scripted(wire)
    await deliver(producer, record())
    wire.marker_kafka_partitions = 8
    await asyncio.sleep(LAYOUT_AGE_S_MAX + 0.01)
    with pytest.raises(BrokerUnavailable, match="8 Kafka partitions"):
        await deliver(producer, record())


# --- the commit


@in_virtual_time
async def test_a_commit_whose_answer_is_lost_is_asked_for_again_and_the_producer_must_be_initialised_after_it() -> None:
    # A copy of the first request may still be on its way: it would commit a part of the next transaction.
    wire = ScriptedWire()
    wire.script("commit", LOST, codes.CONCURRENT_TRANSACTIONS)
    producer = await open_scripted(wire)
    assert not (await deliver(producer, record())).settled
    assert transactional(wire) == ["add", "produce", "produce", *["commit"] * 3]
    with pytest.raises(DeliveryAborted):
        await deliver(producer, record())
    assert transactional(wire).count("add") == 1
    await producer.init()
    assert (await deliver(producer, record())).settled


@in_virtual_time
async def test_after_an_unanswered_try_to_begin_the_producer_must_be_initialised_as_well() -> None:
    # A late copy would begin another transaction behind the commit, and the broker would fence its producer in the end.
    wire = ScriptedWire()
    wire.script("add", LOST)
    producer = await open_scripted(wire)
    assert not (await deliver(producer, record())).settled


@in_virtual_time
async def test_a_commit_without_any_answer_is_unknown() -> None:
    wire = ScriptedWire()
    wire.silent.add("commit")
    producer = await open_scripted(wire)
    with pytest.raises(DeliveryUnknown):
        await deliver(producer, record())
    with pytest.raises(DeliveryAborted):
        await deliver(producer, record())
    wire.silent.clear()
    await producer.init()
    await deliver(producer, record())


@pytest.mark.parametrize("code", [codes.NONE, codes.INVALID_PRODUCER_EPOCH, codes.PRODUCER_FENCED])
@in_virtual_time
async def test_only_the_coordinator_that_took_the_transaction_is_believed_about_its_commit(code: int) -> None:
    # Every request is answered. Node 1 took the transaction and then gave the id away; the search finds node 2, which was
    # deposed earlier and answers from its memory: with the success of the transaction before, or about an old epoch.
    wire = ScriptedWire()
    producer = await open_scripted(wire)
    await deliver(producer, record())
    wire.script("commit", codes.NOT_COORDINATOR, code)
    wire.coordinators.append(2)
    with pytest.raises(DeliveryUnknown):
        await deliver(producer, record())
    assert wire.coordinators_asked == [1, 1, 2]


@in_virtual_time
async def test_a_coordinator_that_moved_before_the_transaction_began_is_believed() -> None:
    wire = ScriptedWire()
    producer = await open_scripted(wire)
    wire.script("add", codes.NOT_COORDINATOR)
    wire.coordinators.append(2)
    assert (await deliver(producer, record())).settled
    assert wire.coordinators_asked == [2]


@in_virtual_time
async def test_a_coordinator_that_is_found_again_is_believed() -> None:
    wire = ScriptedWire()
    wire.script("commit", codes.COORDINATOR_LOADING)
    producer = await open_scripted(wire)
    assert (await deliver(producer, record())).settled
    assert wire.coordinators_asked == [1, 1]


@pytest.mark.parametrize("word", ["add", "produce", "commit"])
@pytest.mark.parametrize("code", [codes.INVALID_PRODUCER_EPOCH, codes.PRODUCER_FENCED])
@in_virtual_time
async def test_a_newer_epoch_fences_at_every_step(word: str, code: int) -> None:
    wire = ScriptedWire()
    if word == "produce":
        wire.produce_codes["orders"] = _times(code, 1)
    else:
        wire.script(word, code)
    producer = await open_scripted(wire)
    with pytest.raises(Fenced):
        await deliver(producer, record())


@pytest.mark.parametrize("code", [45, 48, 49, 53, 59, -1])
@in_virtual_time
async def test_an_unexpected_answer_aborts_before_the_commit_and_leaves_it_unknown_after(code: int) -> None:
    # 49 is INVALID_PRODUCER_ID_MAPPING, which comes after idle days.
    wire = ScriptedWire()
    producer = await open_scripted(wire)
    wire.script("add", code)
    with pytest.raises(DeliveryAborted):
        await deliver(producer, record())
    await producer.init()
    wire.produce_codes["orders"] = _times(code, 1)
    with pytest.raises(DeliveryAborted):
        await deliver(producer, record())
    await producer.init()
    wire.script("commit", code)
    with pytest.raises(DeliveryUnknown):
        await deliver(producer, record())


@in_virtual_time
async def test_init_waits_for_the_coordinator_and_for_a_transaction_that_is_being_settled() -> None:
    wire = ScriptedWire()
    answers = (codes.COORDINATOR_LOADING, codes.CONCURRENT_TRANSACTIONS, LOST, codes.NOT_COORDINATOR, *codes.FENCED)
    wire.script("init", *answers)
    producer = await open_scripted(wire)
    assert wire.asked.count("init") == len(answers) + 1
    await deliver(producer, record())


@in_virtual_time
async def test_init_gives_up_in_time() -> None:
    wire = ScriptedWire()
    wire.silent.add("init")
    with pytest.raises(BrokerUnavailable):
        await open_scripted(wire)
    # The brokers that the connections know may all have moved.
    assert wire.asked[-1] == "reset"


@in_virtual_time
async def test_kafka_away_before_begin_leaves_the_producer_usable() -> None:
    wire = ScriptedWire()
    producer = await open_scripted(wire)
    wire.silent.add("metadata")
    with pytest.raises(BrokerUnavailable):
        await deliver(producer, record())
    wire.silent.clear()
    await deliver(producer, record())


@pytest.mark.parametrize("sends_ms", [0, 10_000])
@in_virtual_time
async def test_sends_must_end_before_the_broker_ends_the_transaction(sends_ms: int) -> None:
    # A slow batch would be taken for another incarnation's fencing.
    producer = await open_scripted(ScriptedWire(), transaction_ms=10_000)
    with pytest.raises(ValueError, match="sends_ms"):
        await deliver(producer, record(), sends_ms=sends_ms)


@in_virtual_time
async def test_a_cancelled_delivery_spends_the_producer() -> None:
    wire = ScriptedWire()
    wire.silent.add("commit")
    producer = await open_scripted(wire, commit_ms=60_000)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await deliver(producer, record())
    with pytest.raises(DeliveryAborted):
        await deliver(producer, record())


@in_virtual_time
async def test_a_closed_producer_is_not_initialised_again() -> None:
    producer = await open_scripted(ScriptedWire())
    await producer.close()
    with pytest.raises(BrokerUnavailable):
        await producer.init()
