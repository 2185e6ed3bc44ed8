"""The contract of ShardOwnership, on the twin and on a real Kafka."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from clockwork.domain.ownership import ProcessId
from clockwork.domain.position import Position
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import NewlyDue, WakeUp, Wanted
from clockwork.errors import BrokerUnavailable
from tests.contract.kafka_fixtures import (
    SHARDS,
    WAIT_S_MAX,
    KafkaUnderTest,
    Member,
    MemoryUnderTest,
    PublisherWithWakeups,
    RealUnderTest,
    member,
    until,
    until_async,
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


async def test_a_node_that_withdraws_is_told_of_it_when_the_others_have_its_shards(
    kafka: KafkaUnderTest, node: PublisherWithWakeups
) -> None:
    async with member(kafka, node) as stays, member(kafka, node) as withdraws:
        await until(lambda: shared(stays, withdraws) and len(withdraws.shards) == SHARDS // 2)
        heard = len(withdraws.assignments)
        await withdraws.ownership.withdraw()
        await until(lambda: stays.shards == ALL)
        assert withdraws.assignments[heard:] == [frozenset()]
        # It is a member still: an owner that releases at its leisure is not fenced.
        assert await stays.ownership.member_processes() == {stays.process, withdraws.process}


async def test_a_node_that_withdraws_alone_keeps_the_shards(kafka: KafkaUnderTest, node: PublisherWithWakeups) -> None:
    async with member(kafka, node) as alone:
        await until(lambda: alone.shards == ALL)
        await alone.ownership.withdraw()
        assert alone.shards == ALL


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


# --- permission to try (docs/design.md, 5: T0), and the processes of the members


async def test_an_assignment_is_confirmed_for_as_long_as_its_generation_lasts(
    kafka: KafkaUnderTest, node: PublisherWithWakeups
) -> None:
    async with member(kafka, node) as stays:
        assert await stays.ownership.confirmed_assignment() == frozenset()
        await until(lambda: stays.shards == ALL)
        assert await stays.ownership.confirmed_assignment() == ALL
        async with member(kafka, node) as leaves:
            await until(lambda: shared(stays, leaves) and len(leaves.shards) == SHARDS // 2)
            for each in (stays, leaves):
                assert await each.ownership.confirmed_assignment() == each.shards
        await until(lambda: stays.shards == ALL)
        assert await stays.ownership.confirmed_assignment() == ALL
    assert await leaves.ownership.confirmed_assignment() == frozenset()


async def test_the_processes_of_the_group_are_those_of_its_members(
    kafka: KafkaUnderTest, node: PublisherWithWakeups
) -> None:
    async with member(kafka, node) as stays:
        await until(lambda: stays.shards == ALL)
        assert await stays.ownership.member_processes() == {stays.process}
        async with member(kafka, node) as leaves:
            await until(lambda: shared(stays, leaves) and len(leaves.shards) == SHARDS // 2)
            for each in (stays, leaves):
                assert await each.ownership.member_processes() == {stays.process, leaves.process}
        await until(lambda: stays.shards == ALL)
        assert await stays.ownership.member_processes() == {stays.process}


@pytest.mark.real
async def test_while_the_group_is_between_two_generations_its_members_are_told_by_their_client_ids(
    real_kafka: RealUnderTest,
) -> None:
    # The coordinator waits for the deaf one, and shows nothing of the members but their ids and addresses.
    deaf = real_kafka.with_settings(heartbeat_interval_ms=29_000, session_timeout_ms=30_000)
    async with real_kafka.node() as node, member(deaf, node) as stays:
        await until(lambda: stays.shards == ALL)
        async with member(real_kafka, node) as joins:
            both = {stays.process, joins.process}
            await until_async(lambda: _are_members(stays, both))
            assert await stays.ownership.confirmed_assignment() == frozenset()
            admin = AIOKafkaAdminClient(**real_kafka.kafka.connection("test"))
            await admin.start()
            [described] = await admin.describe_consumer_groups([real_kafka.kafka.settings.consumer_group])
            await admin.close()
            [(_code, _group, state, _type, _protocol, members, *_)] = described.groups
            assert state == "PreparingRebalance"
            assert {client_id for _id, client_id, *_ in members} == {f"clockwork-ownership-{each}" for each in both}
            assert not any(metadata for _id, _client_id, _host, metadata, *_ in members)


async def _are_members(asks: Member, processes: set[ProcessId]) -> bool:
    return bool(await asks.ownership.member_processes() == processes)


@pytest.mark.real
async def test_a_node_that_lost_its_group_without_knowing_it_gets_no_shard_confirmed(
    real_kafka: RealUnderTest,
) -> None:
    # One that hears of a rebalance at its next heartbeat only, as if it were paused: the group goes on without it.
    short = real_kafka.with_timeouts(rebalance_ms=1_000)
    deaf = short.with_settings(heartbeat_interval_ms=29_000, session_timeout_ms=30_000)
    async with real_kafka.node() as node, member(deaf, node) as lost:
        await until(lambda: lost.shards == ALL)
        async with member(short, node) as owner:
            await until(lambda: owner.shards == ALL)
            assert lost.shards == ALL
            assert await lost.ownership.confirmed_assignment() == frozenset()
            assert await owner.ownership.confirmed_assignment() == ALL
            assert await owner.ownership.member_processes() == {owner.process}


async def test_a_node_that_is_cut_off_believes_in_its_shards_and_gets_none_confirmed(
    memory_kafka: MemoryUnderTest,
) -> None:
    node = memory_kafka.node()
    async with member(memory_kafka, node) as lost, member(memory_kafka, node) as owner:
        await until(lambda: shared(lost, owner) and len(lost.shards) == SHARDS // 2)
        lost.ownership.cut_off()
        await until(lambda: owner.shards == ALL)
        assert lost.shards
        with pytest.raises(BrokerUnavailable):
            await lost.ownership.confirmed_assignment()
        # The network is back, and the node has not noticed yet.
        lost.ownership.heal()
        assert await lost.ownership.confirmed_assignment() == frozenset()
        await until(lambda: shared(lost, owner))
        assert await lost.ownership.confirmed_assignment() == lost.shards


async def test_the_twin_s_answers_may_be_out_of_date_or_missing(memory_kafka: MemoryUnderTest) -> None:
    node = memory_kafka.node()
    async with member(memory_kafka, node) as outdated:
        await until(lambda: outdated.shards == ALL)
        outdated.ownership.lag()
        async with member(memory_kafka, node) as other:
            await until(lambda: len(other.shards) == SHARDS // 2)
            assert outdated.shards == await outdated.ownership.confirmed_assignment() == ALL
            assert await outdated.ownership.member_processes() == {outdated.process}
            outdated.ownership.catch_up()
            await until(lambda: shared(outdated, other))
            assert await outdated.ownership.confirmed_assignment() == outdated.shards
            assert await outdated.ownership.member_processes() == {outdated.process, other.process}
            memory_kafka.group.away = True
            for ask in (other.ownership.confirmed_assignment, other.ownership.member_processes):
                with pytest.raises(BrokerUnavailable):
                    await ask()


@pytest.mark.real
async def test_of_two_processes_under_one_instance_id_only_the_later_one_is_confirmed(
    real_kafka: RealUnderTest,
) -> None:
    # The first one is paused, and was replaced; when it wakes up, it does not know.
    static = real_kafka.with_settings(instance_id="a", heartbeat_interval_ms=29_000, session_timeout_ms=30_000)
    async with real_kafka.node() as node, member(static, node) as paused:
        await until(lambda: paused.shards == ALL)
        assert await paused.ownership.confirmed_assignment() == ALL
        async with member(static, node) as later:
            await until(lambda: later.shards == ALL)
            assert await paused.ownership.confirmed_assignment() == frozenset()
            assert await later.ownership.confirmed_assignment() == ALL
            # Not by the client id, which is that of the first one for as long as the static member is in the group.
            assert await later.ownership.member_processes() == {later.process}


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
            for each in (stays, back):
                assert await each.ownership.confirmed_assignment() == each.shards
                assert await each.ownership.member_processes() == {stays.process, back.process}
