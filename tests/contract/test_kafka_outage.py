"""Kafka stopped, frozen and back: no call waits for ever, nothing stays broken, nothing is left behind."""

import asyncio
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import pytest

from clockwork.domain.marker import MarkerEntry
from clockwork.domain.record import OutRecord
from clockwork.domain.sharding import ShardId
from clockwork.errors import BrokerUnavailable, ClockworkError, DeliveryUnknown, Fenced
from clockwork.kafka.check import check_kafka
from clockwork.kafka.topics import create_internal_topics
from tests.contract.kafka_fixtures import (
    SHARDS,
    PublisherWithWakeups,
    RealUnderTest,
    ended_at,
    marker_of,
    member,
    record,
    until,
)

if TYPE_CHECKING:
    from infra.local import LocalServices

pytestmark = pytest.mark.real
QUICK: Final = {"sends_ms": 4_000, "commit_ms": 4_000, "init_ms": 4_000, "request_ms": 2_500, "lookup_ms": 2_500}
"""Gives up soon, but not because a busy machine stands still for two seconds."""


@pytest.fixture
def quick(real_kafka: RealUnderTest) -> RealUnderTest:
    return real_kafka.with_timeouts(**QUICK)


async def deliver_as_a_runner_does(node: PublisherWithWakeups, shard_id: ShardId, out: OutRecord) -> None:
    """Goes through take-over until the record is delivered. A marker that changed says that an unknown delivery was."""
    before: tuple[MarkerEntry, ...] | None = None
    async with asyncio.timeout(60):
        while True:
            shard = None
            try:
                shard = await node.open_shard(shard_id)
                marker = await shard.read_marker()
                if before is not None and marker != before:
                    return
                before = marker
                await shard.deliver([out], marker_of)
                return
            except (BrokerUnavailable, DeliveryUnknown):
                # Kafka is just back, and the test's time limits are short.
                await asyncio.sleep(0.1)
            finally:
                if shard is not None:
                    await shard.close()


async def test_while_kafka_is_stopped_every_call_ends_in_time_and_all_is_well_when_it_is_back(
    quick: RealUnderTest, services: "LocalServices"
) -> None:
    topic = await quick.create_topic()
    async with quick.node() as node, member(quick, node) as owner:
        shard = await node.open_shard(quick.shard)
        await shard.deliver([record(topic, b"before")], marker_of)
        await until(lambda: len(owner.shards) == SHARDS)
        await services.stop_kafka()
        try:
            async with asyncio.timeout(60):
                delivered, *others = await asyncio.gather(
                    shard.deliver([record(topic, b"never")], marker_of),
                    node.send(record(topic, b"lost")),
                    node.open_shard(quick.other_shard),
                    node.topic_exists("unknown"),
                    return_exceptions=True,
                )
                assert isinstance(delivered, ClockworkError)
                assert [type(each) for each in others] == [BrokerUnavailable] * 3
                # Known before, so still known.
                assert await node.topic_exists(topic)
                await until(lambda: not node.connected())
                await shard.close()
        finally:
            await services.start_kafka()
        await until(node.connected)
        await deliver_as_a_runner_does(node, quick.shard, record(topic, b"after"))
        assert (await node.send(record(topic, b"plain"))).kafka_partition == 0
    assert [r.value for r in await quick.read_committed(topic)] == [b"before", b"after", b"plain"]


async def test_a_node_opens_and_closes_without_any_kafka(real_kafka: RealUnderTest) -> None:
    nowhere = real_kafka.with_settings(brokers=("127.0.0.1:1",)).with_timeouts(**QUICK)
    async with nowhere.node() as node, member(nowhere, node) as owner:
        assert not node.connected()
        with pytest.raises(BrokerUnavailable):
            await node.topic_exists("any")
        assert owner.assignments == []


async def test_a_delivery_to_a_frozen_kafka_is_unknown_in_time_and_closing_does_not_hang(
    quick: RealUnderTest, real_kafka: RealUnderTest, services: "LocalServices"
) -> None:
    topic = await quick.create_topic()
    async with quick.node() as node:
        shard = await node.open_shard(quick.shard)
        committed = await shard.deliver([record(topic, b"before")], marker_of)
        services.pause_kafka()
        try:
            async with asyncio.timeout(60):
                with pytest.raises((DeliveryUnknown, BrokerUnavailable)):
                    await shard.deliver([record(topic, b"never", size=1_000) for _ in range(50)], marker_of)
                await shard.close()
        finally:
            services.resume_kafka()
        await until(node.connected)
        async with real_kafka.node() as patient:
            shard = await patient.open_shard(quick.shard)
            assert await shard.read_marker() == (ended_at(committed[0]),)
            await shard.close()
    assert [r.value for r in await quick.read_committed(topic)] == [b"before"]


async def test_a_member_leaves_a_frozen_kafka_in_time(quick: RealUnderTest, services: "LocalServices") -> None:
    async with quick.node() as node:
        try:
            async with asyncio.timeout(60):
                async with member(quick, node) as owner:
                    await until(lambda: len(owner.shards) == SHARDS)
                    services.pause_kafka()
        finally:
            services.resume_kafka()


async def test_many_shards_are_taken_over_at_once(real_kafka: RealUnderTest) -> None:
    wide = real_kafka.with_settings(cluster=f"cw{uuid4().hex[:8]}", shards=32)
    await create_internal_topics(wide.kafka)
    topic = await wide.create_topic(kafka_partitions=4)
    async with wide.node() as node, wide.node() as other:
        old = await asyncio.gather(*(node.open_shard(ShardId(n)) for n in range(32)))
        receipt = await asyncio.gather(
            *(each.deliver([record(topic, key=b"%d" % n)], marker_of) for n, each in enumerate(old))
        )
        new = await asyncio.gather(*(other.open_shard(ShardId(n)) for n in range(32)))
        assert await asyncio.gather(*(each.read_marker() for each in new)) == [(ended_at(p[0]),) for p in receipt]
        for each in old:
            with pytest.raises(Fenced):
                await each.deliver([record(topic, b"zombie")], marker_of)
    assert len(await wide.read_committed(topic)) == 32


async def test_internal_topics_are_made_once_and_checked(real_kafka: RealUnderTest) -> None:
    # One broker: nothing is wrong with it, and each topic that must not be lost is named.
    own = real_kafka.with_settings(cluster=f"cw{uuid4().hex[:8]}")
    for _ in range(2):
        await create_internal_topics(own.kafka)
    found = await check_kafka(own.kafka)
    assert found.problems == ()
    assert len([line for line in found.warnings if "has 1 replicas" in line]) == 2
    more = await check_kafka(own.with_settings(shards=SHARDS + 1).kafka)
    assert len([line for line in more.problems if f"CLOCKWORK_SHARDS is {SHARDS + 1}" in line]) == 2
    none = await check_kafka(own.with_settings(cluster="no-such-cluster", instance_id="a").kafka)
    assert len([line for line in none.problems if "is missing" in line]) == 3
