"""Batches: what goes into one, and where it goes."""

import asyncio
from collections import deque

import pytest
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from clockwork.domain.record import OutRecord
from clockwork.errors import BrokerUnavailable, DeliveryRefused
from clockwork.kafka import client as codes
from clockwork.kafka.client import KafkaSecurity, KafkaSettings, Pulse
from clockwork.kafka.plain import PlainSender
from clockwork.kafka.produce import (
    BATCH_BYTES_MAX,
    ESTIMATE_SLACK_BYTES,
    Line,
    ProducerIdentity,
    encode_batch,
    partition_for,
    wire_bytes,
)
from clockwork.kafka.topics import TopicDirectory, TopicLayout, TopicState
from tests.support.virtual_time import in_virtual_time
from tests.unit.kafka_script import ScriptedWire, settings_for_script

WHERE = ("orders", 0)


def record(value: bytes = b"v", *, key: bytes | None = b"k", headers: tuple[tuple[str, bytes], ...] = ()) -> OutRecord:
    return OutRecord(topic="orders", key=key, value=value, headers=headers, timestamp_ms=5)


@given(
    key=st.none() | st.binary(max_size=600),
    value=st.binary(max_size=2_000),
    headers=st.lists(st.tuples(st.text(max_size=30), st.binary(max_size=300)), max_size=6),
)
def test_the_estimate_of_a_size_is_never_too_low_and_hardly_too_high(
    key: bytes | None, value: bytes, headers: list[tuple[str, bytes]]
) -> None:
    out = record(value, key=key, headers=tuple(headers))
    identity = ProducerIdentity(producer_id=1, producer_epoch=2, transactional_id="t")
    exact = len(encode_batch([out], identity, WHERE))
    assert exact <= wire_bytes(out) <= exact + ESTIMATE_SLACK_BYTES


@given(key=st.binary(max_size=40), count=st.integers(1, 50))
def test_keys_go_where_kafkas_default_partitioner_sends_them(key: bytes, count: int) -> None:
    layout = TopicLayout(state=TopicState.PRESENT, leaders=(1,) * count, read_at_s=0)
    numbers = list(range(count))
    assert partition_for(record(key=key), layout) == DefaultPartitioner()(key, numbers, numbers)


def test_a_record_without_a_key_goes_where_there_is_a_leader() -> None:
    layout = TopicLayout(state=TopicState.PRESENT, leaders=(-1, -1, 3, -1), read_at_s=0)
    assert partition_for(record(key=None), layout) == 2


def test_batches_stay_below_the_limit_and_keep_the_order() -> None:
    line = Line(WHERE, limit_bytes=1_000)
    for index in range(20):
        line.append(index, record(b"x" * 300))
    seen = []
    while line:
        batch = line.head()
        assert batch == line.head()
        assert (
            len(encode_batch([out for _, out in batch], ProducerIdentity(producer_id=1, producer_epoch=0), WHERE))
            <= 1_000
        )
        seen += [index for index, _ in line.take(len(batch))]
    assert seen == list(range(20))


def test_a_record_over_the_limit_goes_alone() -> None:
    line = Line(WHERE, limit_bytes=None)
    line.append(0, record(b"x" * BATCH_BYTES_MAX))
    line.append(1, record())
    assert [index for index, _ in line.head()] == [0]


def test_after_a_split_just_those_records_go_one_by_one() -> None:
    line = Line(WHERE, limit_bytes=None)
    for index in range(5):
        line.append(index, record())
    line.head()
    line.append(5, record())
    line.append(6, record())
    line.split(5)
    sizes = []
    while line:
        sizes.append(len(line.head()))
        line.take(sizes[-1])
    assert sizes == [1, 1, 1, 1, 1, 2]


def test_a_repeat_is_byte_for_byte_the_same_and_the_next_batch_has_the_next_numbers() -> None:
    identity = ProducerIdentity(producer_id=9, producer_epoch=3, transactional_id="t")
    first = encode_batch([record(), record()], identity, WHERE)
    assert encode_batch([record(), record()], identity, WHERE) == first
    identity.advance(WHERE, 2)
    batch = MemoryRecords(encode_batch([record()], identity, WHERE)).next_batch()
    assert batch is not None
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (9, 3, 2)
    assert batch.is_transactional


def test_sequence_numbers_begin_again_behind_the_last() -> None:
    identity = ProducerIdentity(producer_id=1, producer_epoch=0)
    identity.sequences[WHERE] = 2**31 - 1
    identity.advance(WHERE, 2)
    assert identity.sequences[WHERE] == 1


def test_secrets_are_not_in_the_text_of_settings() -> None:
    security = KafkaSecurity(protocol="SASL_PLAINTEXT", username="user", password="very-secret")
    settings = KafkaSettings(brokers="b:1", cluster="c", shards=1, consumer_group="g", security=security)
    assert "very-secret" not in repr(settings)


def test_sends_must_end_before_the_broker_gives_a_transaction_up() -> None:
    with pytest.raises(ValueError, match="sends_timeout_ms"):
        settings_for_script(sends_timeout_ms=10_000, transaction_timeout_ms=10_000)


# --- the plain sender


class Sending:
    """A plain sender on a scripted broker, running for the length of the block."""

    def __init__(self, wire: ScriptedWire) -> None:
        settings = settings_for_script()
        self.sender = PlainSender(settings, TopicDirectory(settings, Pulse(), wire), wire)

    async def __aenter__(self) -> PlainSender:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._task = self._group.create_task(self.sender.run())
        await asyncio.sleep(0)
        return self.sender

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()
        await self._group.__aexit__(None, None, None)


@in_virtual_time
async def test_of_records_sent_together_only_the_culprit_is_refused() -> None:
    wire = ScriptedWire()
    wire.refuse_values = {b"bad": codes.INVALID_RECORD}
    async with Sending(wire) as sender:
        await sender.send(record())
        results = await asyncio.gather(
            *(sender.send(record(value)) for value in (b"a", b"bad", b"b")), return_exceptions=True
        )
        assert [type(result).__name__ for result in results] == ["Receipt", "DeliveryRefused", "Receipt"]
        await sender.send(record(b"after"))
    # The refused record used no number: the same producer goes on.
    assert wire.asked.count("init") == 1


@in_virtual_time
async def test_after_a_batch_of_unknown_fate_a_new_producer_id_is_used() -> None:
    wire = ScriptedWire()
    async with Sending(wire) as sender:
        await sender.send(record(b"before"))
        wire.silent.add("produce")
        with pytest.raises(BrokerUnavailable):
            await sender.send(record(b"lost"))
        wire.silent.clear()
        await sender.send(record(b"after"))
    assert wire.asked.count("init") == 2
    assert [values for _, _, values in wire.appended] == [[b"before"], [b"after"]]


@in_virtual_time
async def test_a_forbidden_topic_fails_only_its_own_records() -> None:
    wire = ScriptedWire()
    wire.produce_codes["orders"] = deque([codes.TOPIC_FORBIDDEN])
    async with Sending(wire) as sender:
        with pytest.raises(DeliveryRefused) as refused:
            await sender.send(record())
        assert refused.value.refusals[0].reason == "topic_forbidden"
        await sender.send(record())


@in_virtual_time
async def test_whoever_waits_when_the_sender_ends_is_told() -> None:
    wire = ScriptedWire()
    wire.produce_codes["orders"] = deque([codes.NOT_LEADER] * 1_000)
    async with asyncio.TaskGroup() as group:
        async with Sending(wire) as sender:
            task = group.create_task(_fails(sender))
            async with asyncio.timeout(5):
                while "produce" not in wire.asked:  # noqa: ASYNC110 - the script has no event for it
                    await asyncio.sleep(0)
        await task
    with pytest.raises(BrokerUnavailable):
        await sender.send(record())


async def _fails(sender: PlainSender) -> None:
    with pytest.raises(BrokerUnavailable):
        await sender.send(record())
