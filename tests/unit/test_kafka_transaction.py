"""The outcome of a delivery, for each answer of a broker, and for none."""

import asyncio
from collections import deque
from typing import Any

import pytest

from clockwork.domain.record import OutRecord
from clockwork.errors import BrokerUnavailable, DeliveryRefused, DeliveryUnknown, Fenced, Refusal, RefusalCause
from clockwork.firing.destination_waits import AWAY_BACKOFF
from clockwork.kafka import codes
from clockwork.kafka.transactional import LAYOUT_AGE_S_MAX
from tests.support.virtual_time import in_virtual_time
from tests.unit.kafka_script import LOST, ScriptedWire, open_scripted


def _times(code: int, times: int) -> deque[int]:
    return deque([code] * times)


def record(topic: str = "orders", value: bytes = b"v", key: bytes | None = b"k") -> OutRecord:
    return OutRecord(topic=topic, key=key, value=value, headers=(), timestamp_ms=5)


def no_marker(receipt: object) -> bytes:
    return b"marker"


async def refusals_of(wire: ScriptedWire, *records: OutRecord, begun: bool) -> tuple[Refusal, ...]:
    publisher = await open_scripted(wire)
    with pytest.raises(DeliveryRefused) as refused:
        await publisher.deliver(records, no_marker)
    assert refused.value.begun is begun
    assert "commit" not in wire.asked
    return refused.value.refusals


def transactional(wire: ScriptedWire) -> list[str]:
    return [word for word in wire.asked if word in ("add", "produce", "commit", "abort")]


@in_virtual_time
async def test_the_marker_goes_after_the_records_and_before_the_commit() -> None:
    wire = ScriptedWire()
    publisher = await open_scripted(wire)
    for _ in range(2):
        await publisher.deliver([record(), record("bills")], no_marker)
    assert transactional(wire) == ["add", "produce", "produce", "commit"] * 2
    assert [values for topic, _, values in wire.appended if topic == "cw-deliveries"] == [[b"marker"]] * 2


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
    publisher = await open_scripted(wire)
    await publisher.deliver([record("bills")], no_marker)
    del wire.topics["bills"]
    await asyncio.sleep(1)
    wire.script("add", {"bills": codes.UNKNOWN_TOPIC_OR_PARTITION})
    with pytest.raises(DeliveryRefused) as refused:
        await publisher.deliver([record("bills")], no_marker)
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
    publisher = await open_scripted(wire)
    [receipt] = await publisher.deliver([record()], no_marker)
    assert receipt.offset == 0


NO_LEADER = {"leader": -1}
MISSING = {"topics": {"cw-deliveries": codes.NONE}}
FORBIDDEN = {"topics": {"cw-deliveries": codes.NONE, "orders": codes.TOPIC_FORBIDDEN}}
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
    publisher = await open_scripted(wire)
    with pytest.raises(DeliveryRefused) as refused:
        await publisher.deliver([record()], no_marker)
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
    publisher = await open_scripted(wire)
    set_up(wire, trouble)
    with pytest.raises(DeliveryRefused):
        await publisher.deliver([record()], no_marker)
    set_up(wire, healthy)
    await asyncio.sleep(AWAY_BACKOFF.initial_ms / 1_000)
    await publisher.deliver([record()], no_marker)


@pytest.mark.parametrize(("replicas", "in_sync_min"), [(1, 2), (2, 3), (3, 9)])
@in_virtual_time
async def test_more_replicas_than_there_are_need_not_be_in_sync(replicas: int, in_sync_min: int) -> None:
    # Brokers since Kafka 3.7 ask for the smaller of the two numbers.
    wire = ScriptedWire()
    wire.replicas = wire.in_sync = replicas
    wire.configs = {"min.insync.replicas": str(in_sync_min)}
    publisher = await open_scripted(wire)
    await publisher.deliver([record()], no_marker)
    wire.in_sync = replicas - 1
    await asyncio.sleep(LAYOUT_AGE_S_MAX + 0.01)
    with pytest.raises(DeliveryRefused):
        await publisher.deliver([record()], no_marker)


@in_virtual_time
async def test_a_commit_whose_answer_is_lost_is_asked_for_again() -> None:
    wire = ScriptedWire()
    wire.script("commit", LOST, codes.NOT_COORDINATOR, codes.CONCURRENT_TRANSACTIONS)
    publisher = await open_scripted(wire)
    await publisher.deliver([record()], no_marker)
    assert transactional(wire)[-4:] == ["commit"] * 4


@in_virtual_time
async def test_a_commit_without_any_answer_is_unknown_and_was_not_too_slow_a_batch() -> None:
    wire = ScriptedWire()
    wire.silent.add("commit")
    publisher = await open_scripted(wire)
    with pytest.raises(DeliveryUnknown) as unknown:
        await publisher.deliver([record()], no_marker)
    assert not unknown.value.timed_out
    with pytest.raises(DeliveryUnknown):
        await publisher.deliver([record()], no_marker)
    await publisher.close()


@pytest.mark.parametrize("word", ["add", "produce"])
@in_virtual_time
async def test_silence_before_the_commit_is_unknown_and_timed_out(word: str) -> None:
    wire = ScriptedWire()
    publisher = await open_scripted(wire)
    await publisher.deliver([record()], no_marker)
    wire.silent |= {word, "metadata"}
    with pytest.raises(DeliveryUnknown) as unknown:
        await publisher.deliver([record()], no_marker)
    assert unknown.value.timed_out


@in_virtual_time
async def test_silence_of_one_leader_while_kafka_answers_is_its_topics_fault() -> None:
    wire = ScriptedWire()
    wire.silent.add("produce")
    [refusal] = await refusals_of(wire, record(), begun=True)
    assert (refusal.cause, refusal.destination) == (RefusalCause.TRANSIENT, "orders")


@in_virtual_time
async def test_after_a_commit_that_was_asked_for_twice_the_producer_begins_nothing_more() -> None:
    # A copy of the first request may still be on its way: it would commit a part of the next transaction.
    wire = ScriptedWire()
    wire.script("commit", LOST)
    publisher = await open_scripted(wire)
    await publisher.deliver([record()], no_marker)
    with pytest.raises(DeliveryUnknown):
        await publisher.deliver([record()], no_marker)
    assert transactional(wire).count("add") == 1


@pytest.mark.parametrize("word", ["add", "produce", "commit"])
@pytest.mark.parametrize("code", [codes.INVALID_PRODUCER_EPOCH, codes.PRODUCER_FENCED])
@in_virtual_time
async def test_a_newer_epoch_fences_at_every_step(word: str, code: int) -> None:
    wire = ScriptedWire()
    if word == "produce":
        wire.produce_codes["orders"] = _times(code, 1)
    else:
        wire.script(word, code)
    publisher = await open_scripted(wire)
    with pytest.raises(Fenced):
        await publisher.deliver([record()], no_marker)


@pytest.mark.parametrize("code", [45, 48, 49, 53, 59, -1])
@in_virtual_time
async def test_an_unexpected_answer_after_begin_is_unknown(code: int) -> None:
    # 49 is INVALID_PRODUCER_ID_MAPPING, which comes after idle days.
    for word in ("add", "commit"):
        wire = ScriptedWire()
        wire.script(word, code)
        publisher = await open_scripted(wire)
        with pytest.raises(DeliveryUnknown):
            await publisher.deliver([record()], no_marker)
    wire = ScriptedWire()
    wire.produce_codes["orders"] = _times(code, 1)
    publisher = await open_scripted(wire)
    with pytest.raises(DeliveryUnknown):
        await publisher.deliver([record()], no_marker)


@in_virtual_time
async def test_init_waits_for_the_coordinator_and_for_the_old_owners_transaction() -> None:
    wire = ScriptedWire()
    wire.script("init", codes.COORDINATOR_LOADING, codes.CONCURRENT_TRANSACTIONS, LOST, codes.NOT_COORDINATOR)
    publisher = await open_scripted(wire)
    assert wire.asked.count("init") == 5
    await publisher.deliver([record()], no_marker)


@in_virtual_time
async def test_init_gives_up_in_time() -> None:
    wire = ScriptedWire()
    wire.silent.add("init")
    with pytest.raises(BrokerUnavailable):
        await open_scripted(wire)


@in_virtual_time
async def test_kafka_away_before_begin_leaves_the_producer_usable() -> None:
    wire = ScriptedWire()
    publisher = await open_scripted(wire)
    wire.silent.add("metadata")
    with pytest.raises(BrokerUnavailable):
        await publisher.deliver([record()], no_marker)
    wire.silent.clear()
    await publisher.deliver([record()], no_marker)


@in_virtual_time
async def test_a_cancelled_delivery_spends_the_producer() -> None:
    wire = ScriptedWire()
    wire.silent.add("commit")
    publisher = await open_scripted(wire, commit_ms=60_000)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await publisher.deliver([record()], no_marker)
    with pytest.raises(DeliveryUnknown):
        await publisher.deliver([record()], no_marker)
