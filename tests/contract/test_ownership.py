"""The contract of ShardOwnership, on the twin and on a real Kafka."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from clockwork.domain.position import Position
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import NewlyDue, WakeUp, Wanted
from tests.contract.kafka_fixtures import (
    SHARDS,
    WAIT_S_MAX,
    KafkaUnderTest,
    Member,
    PublisherWithWakeups,
    RealUnderTest,
    member,
    until,
)

ALL = frozenset(ShardId(number) for number in range(SHARDS))


def shared(*members: Member) -> bool:
    """True if the members own each shard once, as far as they know."""
    owned = [shard for each in members for shard in each.shards]
    return len(owned) == SHARDS and frozenset(owned) == ALL


async def until_woken(sender: Member, receiver: Member, shard: ShardId, wakeup: WakeUp) -> None:
    """Sends until it arrives: a wake-up is a hint, and one that comes while its shard changes hands is lost."""
    async with asyncio.timeout(WAIT_S_MAX):
        while (shard, wakeup) not in receiver.wakeups:
            await sender.ownership.wake(shard, wakeup)
            await asyncio.sleep(0.05)


async def test_a_single_node_owns_every_shard(kafka: KafkaUnderTest, node: PublisherWithWakeups) -> None:
    async with member(kafka, node) as alone:
        await until(lambda: alone.shards == ALL)
        assert alone.telemetry.rebalances == len(alone.assignments)


async def test_two_nodes_share_and_the_one_that_stays_gets_all_and_keeps_what_it_had(
    kafka: KafkaUnderTest, node: PublisherWithWakeups
) -> None:
    async with member(kafka, node) as stays:
        await until(lambda: stays.shards == ALL)
        async with member(kafka, node) as leaves:
            await until(lambda: shared(stays, leaves) and len(leaves.shards) == SHARDS // 2)
            kept = stays.shards
            heard = len(stays.assignments)
        await until(lambda: stays.shards == ALL)
        # Between the two assignments it was never told that it owns nothing.
        assert all(kept <= assignment for assignment in stays.assignments[heard - 1 :])


async def test_with_more_nodes_than_shards_each_shard_has_one_owner(
    kafka: KafkaUnderTest, node: PublisherWithWakeups
) -> None:
    async with AsyncExitStack() as stack:
        members = [await stack.enter_async_context(member(kafka, node)) for _ in range(SHARDS + 2)]
        await until(lambda: shared(*members) and all(each.assignments for each in members))
        assert sorted(len(each.shards) for each in members) == [0, 0, 1, 1, 1, 1]


async def test_a_wake_up_reaches_the_shards_owner_wherever_it_is_sent(
    kafka: KafkaUnderTest, node: PublisherWithWakeups
) -> None:
    async with member(kafka, node) as one, member(kafka, node) as other:
        await until(lambda: shared(one, other) and len(one.shards) == len(other.shards))
        wanted, due = Wanted(Position(5 * 10**24 + 7)), NewlyDue(123)
        theirs, ours = min(other.shards), min(one.shards)
        await until_woken(one, other, theirs, wanted)
        await until_woken(one, one, ours, due)
        assert {shard for shard, _ in other.wakeups} == {theirs}
        assert {shard for shard, _ in one.wakeups} == {ours}


async def test_a_malformed_wake_up_is_counted_and_the_next_one_arrives(
    kafka: KafkaUnderTest, node: PublisherWithWakeups
) -> None:
    shard = ShardId(2)
    async with member(kafka, node) as owner:
        await until(lambda: owner.shards == ALL)
        await until_woken(owner, owner, shard, NewlyDue(1))
        for junk in (b"", b"{", b'{"due": "soon"}', b"[]"):
            await node.send_wakeup(shard, junk)
        await until_woken(owner, owner, shard, NewlyDue(2))
        assert owner.telemetry.malformed_wakeups == 4
        assert {wakeup for _, wakeup in owner.wakeups} == {NewlyDue(1), NewlyDue(2)}


@pytest.mark.real
async def test_a_static_member_that_comes_back_finds_its_shards_and_disturbs_no_other(
    real_kafka: RealUnderTest,
) -> None:
    # A rolling restart: the node is back before its session ends.
    first, second = (real_kafka.with_settings(instance_id=name, session_timeout_ms=30_000) for name in ("a", "b"))
    async with real_kafka.node() as node, member(first, node) as stays:
        async with member(second, node) as restarts:
            await until(lambda: shared(stays, restarts) and len(restarts.shards) == SHARDS // 2)
            had, heard = restarts.shards, len(stays.assignments)
        async with member(second, node) as back:
            await until(lambda: back.shards == had)
            assert len(stays.assignments) == heard
