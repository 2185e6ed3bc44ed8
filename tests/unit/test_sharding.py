"""The shard of a key is what any Kafka client computes."""

from collections import Counter

import pytest
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as murmur2_of_aiokafka
from hypothesis import given
from hypothesis import strategies as st

from clockwork.domain.sharding import murmur2, shard_of

# From Apache Kafka's own UtilsTest.testMurmur2; signed there.
KNOWN_HASHES = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("data", "signed"), KNOWN_HASHES.items())
def test_the_hash_equals_the_one_in_kafkas_own_test(data: bytes, signed: int) -> None:
    assert murmur2(data) == signed & 0xFFFFFFFF


@given(st.binary(max_size=600))
def test_the_hash_equals_that_of_another_client_for_any_bytes(data: bytes) -> None:
    assert murmur2(data) == murmur2_of_aiokafka(data) & 0xFFFFFFFF


@given(st.text(min_size=1, max_size=128), st.integers(1, 1_000))
def test_the_shard_is_the_kafka_partition_that_a_client_chooses(ordering_key: str, shards: int) -> None:
    choice = DefaultPartitioner()(ordering_key.encode(), list(range(shards)), [])

    assert shard_of(ordering_key, shards) == choice


def test_keys_spread_evenly_over_the_shards() -> None:
    rows = Counter(shard_of(f"customer-{n}", 64) for n in range(6_400))

    assert len(rows) == 64
    assert max(rows.values()) < 2 * 100
