"""Sharding: the shard of a schedule, by its ordering key.

The same rule as Kafka's default partitioner for records with a key (murmur2 of the key's bytes, sign bit cleared,
modulo the number of Kafka partitions: `org.apache.kafka.common.utils.Utils.murmur2` and `toPositive`), so that any
Kafka client can compute the shard of a key. Kafka partition n of the ownership topic is shard n.

The shard count cannot change while schedules are pending: a key would move to another shard and its lane would lose
its order. The count is therefore stored with the cluster and checked by every node at its start.
"""

from typing import Final, NewType

ShardId = NewType("ShardId", int)

_M: Final = 0x5BD1E995
_SEED: Final = 0x9747B28C
_MASK: Final = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """MurmurHash2 (Austin Appleby, 32 bit) with Kafka's seed; unsigned."""
    length = len(data)
    h = _SEED ^ length
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * _M & _MASK
        k ^= k >> 24
        h = (h * _M & _MASK) ^ (k * _M & _MASK)
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * _M & _MASK
    h ^= h >> 13
    h = h * _M & _MASK
    return h ^ (h >> 15)


def kafka_partition_of(key: bytes, kafka_partitions: int) -> int:
    """The Kafka partition of a record with this key, by Kafka's default partitioner."""
    return (murmur2(key) & 0x7FFFFFFF) % kafka_partitions


def shard_of(ordering_key: str, shards: int) -> ShardId:
    """The shard of an ordering key, among `shards` shards."""
    return ShardId(kafka_partition_of(ordering_key.encode(), shards))
