"""Kafka stopped, frozen and back: no call waits for ever, nothing stays broken, nothing is left behind."""

import asyncio
from typing import TYPE_CHECKING, Final

import pytest

from clockwork.domain.record import OutRecord
from clockwork.errors import BrokerUnavailable, ClockworkError, DeliveryAborted, DeliveryUnknown, Fenced
from clockwork.ports.delivery import SlotName
from tests.contract.kafka_fixtures import (
    SHARDS,
    PublisherWithWakeups,
    RealUnderTest,
    deliver,
    ended_at,
    marker_of,
    member,
    new_incarnation,
    open_slot,
    record,
    take_over,
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


@pytest.fixture
def name() -> SlotName:
    return SlotName(new_incarnation(), 0)


async def deliver_as_a_slot_does(node: PublisherWithWakeups, name: SlotName, out: OutRecord) -> None:
    """Goes through R1 and R3 until the record is delivered: a marker says so of a commit that was not answered."""
    slot = node.open_slot(name)
    unknown = False
    async with asyncio.timeout(60):
        while True:
            try:
                await slot.init()
                if unknown and (await node.read_markers(name.incarnation, {name: None}))[name]:
                    break
                unknown = False
                await deliver(slot, out)
                break
            except DeliveryUnknown:
                unknown = True
            except (BrokerUnavailable, DeliveryAborted):
                # Kafka is just back, and the test's time limits are short.
                await asyncio.sleep(0.1)
    await slot.close()


async def test_while_kafka_is_stopped_every_call_ends_in_time_and_all_is_well_when_it_is_back(
    quick: RealUnderTest, services: "LocalServices", name: SlotName
) -> None:
    topic = await quick.create_topic()
    async with quick.node() as node, member(quick, node) as owner:
        slot, other = await open_slot(node, name), node.open_slot(SlotName(name.incarnation, 1))
        await deliver(slot, record(topic, b"before"))
        await until(lambda: len(owner.shards) == SHARDS)
        await services.stop_kafka()
        try:
            async with asyncio.timeout(60):
                delivered, *others = await asyncio.gather(
                    slot.deliver([record(topic, b"never")], marker_of, sends_ms=QUICK["sends_ms"]),
                    node.send(record(topic, b"lost")),
                    other.init(),
                    node.settle(name.incarnation, slots=2),
                    node.read_markers(new_incarnation(), {name: None}),
                    node.topic_exists("unknown"),
                    node.topic_missing(topic),
                    return_exceptions=True,
                )
                assert isinstance(delivered, ClockworkError)
                assert [type(each) for each in others] == [BrokerUnavailable] * 6
                # Known before, so still known.
                assert await node.topic_exists(topic)
                await until(lambda: not node.connected())
                await slot.close()
        finally:
            await services.start_kafka()
        await until(node.connected)
        await deliver_as_a_slot_does(node, SlotName(new_incarnation(), 0), record(topic, b"after"))
        assert (await node.send(record(topic, b"plain"))).kafka_partition == 0
    assert [r.value for r in await quick.read_committed(topic)] == [b"before", b"after", b"plain"]


async def test_a_node_opens_and_closes_without_any_kafka(real_kafka: RealUnderTest) -> None:
    nowhere = real_kafka.with_settings(brokers=("127.0.0.1:1",)).with_timeouts(**QUICK)
    async with nowhere.node() as node, member(nowhere, node) as owner:
        assert not node.connected()
        with pytest.raises(BrokerUnavailable):
            await node.topic_exists("any")
        assert owner.assignments == []


async def test_a_delivery_to_a_frozen_kafka_ends_in_time_and_closing_does_not_hang(
    quick: RealUnderTest, real_kafka: RealUnderTest, services: "LocalServices", name: SlotName
) -> None:
    topic = await quick.create_topic()
    async with quick.node() as node:
        slot = await open_slot(node, name)
        committed = await deliver(slot, record(topic, b"before"))
        services.pause_kafka()
        try:
            async with asyncio.timeout(60):
                never = [record(topic, b"never", size=1_000) for _ in range(50)]
                with pytest.raises((DeliveryAborted, BrokerUnavailable)):
                    await slot.deliver(never, marker_of, sends_ms=QUICK["sends_ms"])
                await slot.close()
        finally:
            services.resume_kafka()
        await until(node.connected)
        async with real_kafka.node() as patient:
            assert await take_over(patient, name) == (ended_at(committed.receipts[0]),)
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


async def test_many_incarnations_are_taken_over_at_once(real_kafka: RealUnderTest) -> None:
    # As after the loss of a large cluster's nodes: more slots than there are Kafka partitions of markers.
    topic = await real_kafka.create_topic(kafka_partitions=4)
    incarnations = [new_incarnation() for _ in range(40)]
    names = [SlotName(incarnation, number) for incarnation in incarnations for number in range(2)]
    async with real_kafka.node() as node, real_kafka.node() as other:
        old = {name: node.open_slot(name) for name in names}
        await asyncio.gather(*(slot.init() for slot in old.values()))
        committed = await asyncio.gather(*(deliver(old[name], record(topic)) for name in names))
        await asyncio.gather(*(other.settle(incarnation, slots=2) for incarnation in incarnations))
        hints = {name: each.marker_offset for name, each in zip(names, committed, strict=True)}
        found = await other.read_markers(new_incarnation(), hints)
        assert [found[name] for name in names] == [(ended_at(each.receipts[0]),) for each in committed]
        for slot in old.values():
            with pytest.raises(Fenced):
                await deliver(slot, record(topic, b"zombie"))
    assert len(await real_kafka.read_committed(topic)) == len(names)
