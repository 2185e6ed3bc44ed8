"""Batches: their records, their Kafka partition, and the verdict on a broker's answer."""

import pytest
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from clockwork.domain.record import OutRecord
from clockwork.kafka import codes
from clockwork.kafka.send import (
    BATCH_BYTES_MAX,
    ESTIMATE_SLACK_BYTES,
    NO_ANSWER,
    PartitionQueue,
    ProduceAnswer,
    ProducerIdentity,
    Verdict,
    encode_batch,
    judge,
    partition_for,
    wire_bytes,
)
from clockwork.kafka.topics import TopicLayout, TopicState

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
    queue = PartitionQueue(WHERE, limit_bytes=1_000)
    for index in range(20):
        queue.append(index, record(b"x" * 300))
    seen = []
    while queue:
        batch = queue.head()
        assert batch == queue.head()
        assert (
            len(encode_batch([out for _, out in batch], ProducerIdentity(producer_id=1, producer_epoch=0), WHERE))
            <= 1_000
        )
        seen += [index for index, _ in queue.take(len(batch))]
    assert seen == list(range(20))


def test_a_record_over_the_limit_goes_alone() -> None:
    queue = PartitionQueue(WHERE, limit_bytes=None)
    queue.append(0, record(b"x" * BATCH_BYTES_MAX))
    queue.append(1, record())
    assert [index for index, _ in queue.head()] == [0]


def test_after_a_split_just_those_records_go_one_by_one() -> None:
    queue = PartitionQueue(WHERE, limit_bytes=None)
    for index in range(5):
        queue.append(index, record())
    queue.head()
    queue.append(5, record())
    queue.append(6, record())
    queue.split(5)
    sizes = []
    while queue:
        sizes.append(len(queue.head()))
        queue.take(sizes[-1])
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


@pytest.mark.parametrize(
    ("code", "of_one", "of_many"),
    [
        (codes.NONE, Verdict.APPENDED, Verdict.APPENDED),
        (NO_ANSWER, Verdict.RETRY, Verdict.RETRY),
        (codes.NOT_LEADER, Verdict.RETRY, Verdict.RETRY),
        # A topic that is gone says so, and so does a leader that has not heard of it yet: metadata decide.
        (codes.UNKNOWN_TOPIC_OR_PARTITION, Verdict.RETRY, Verdict.RETRY),
        (codes.NOT_ENOUGH_REPLICAS, Verdict.RETRY, Verdict.RETRY),
        (codes.MESSAGE_TOO_LARGE, Verdict.RECORD_REFUSED, Verdict.SPLIT),
        (codes.INVALID_RECORD, Verdict.RECORD_REFUSED, Verdict.SPLIT),
        (codes.TOPIC_FORBIDDEN, Verdict.TOPIC_REFUSED, Verdict.TOPIC_REFUSED),
        (codes.PRODUCER_FENCED, Verdict.FAILED, Verdict.FAILED),
        (codes.INVALID_PRODUCER_EPOCH, Verdict.FAILED, Verdict.FAILED),
        # OUT_OF_ORDER_SEQUENCE_NUMBER, and one that does not exist.
        (45, Verdict.FAILED, Verdict.FAILED),
        (9_999, Verdict.FAILED, Verdict.FAILED),
    ],
)
def test_an_answer_is_judged_by_its_code_and_the_number_of_records(
    code: int, of_one: Verdict, of_many: Verdict
) -> None:
    answer = ProduceAnswer(code=code)
    assert judge(answer, [record()]) is of_one
    assert judge(answer, [record(), record()]) is of_many
