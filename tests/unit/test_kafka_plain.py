"""Records outside a transaction: each is acknowledged or refused by itself, and no unknown fate does harm later."""

import asyncio
from collections import deque
from typing import Any

import pytest
from aiokafka.protocol.produce import ProduceRequest

from clockwork.domain.record import OutRecord
from clockwork.errors import BrokerUnavailable, DeliveryRefused, RefusalCause
from clockwork.firing.destination_waits import AWAY_BACKOFF
from clockwork.kafka import codes
from clockwork.kafka.client import LastAnswer
from clockwork.kafka.plain import METADATA_AGE_S_MAX, PlainSender
from clockwork.kafka.topics import TopicDirectory
from tests.support.virtual_time import in_virtual_time
from tests.unit.kafka_script import LOST, ScriptedWire, kafka_for_script


def record(value: bytes = b"v", *, topic: str = "orders") -> OutRecord:
    return OutRecord(topic=topic, key=b"k", value=value, headers=(), timestamp_ms=5)


class Sending:
    """A plain sender on a scripted broker, running for the length of the block."""

    def __init__(self, wire: ScriptedWire) -> None:
        kafka = kafka_for_script()
        self.sender = PlainSender(kafka, TopicDirectory(kafka, LastAnswer(), wire), wire)

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
async def test_callers_that_wait_when_the_sender_ends_are_told() -> None:
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


@in_virtual_time
async def test_a_topic_that_takes_nothing_leaves_the_connections_that_others_use() -> None:
    wire = ScriptedWire()
    wire.produce_codes["orders"] = deque([codes.NOT_ENOUGH_REPLICAS] * 1_000)
    async with Sending(wire) as sender:
        with pytest.raises(BrokerUnavailable):
            await sender.send(record())
        await asyncio.sleep(1)
        assert "reset" not in wire.asked
        wire.silent.add("produce")
        with pytest.raises(BrokerUnavailable):
            await sender.send(record(topic="bills"))
        await asyncio.sleep(1)
        assert "reset" in wire.asked


@in_virtual_time
async def test_after_a_topic_was_refused_the_numbers_of_an_unanswered_batch_are_not_used_again() -> None:
    # The batch may have been appended: another one with its numbers would count as its repeat, and be dropped as one.
    wire = ScriptedWire()
    async with Sending(wire) as sender:
        await sender.send(record(b"before"))
        wire.script("produce", LOST)
        wire.produce_codes["orders"] = deque([codes.TOPIC_FORBIDDEN])
        with pytest.raises(DeliveryRefused):
            await sender.send(record(b"in doubt"))
        await sender.send(record(b"after"))
    assert wire.asked.count("init") == 2


@in_virtual_time
async def test_a_topic_that_was_put_right_takes_what_waits_for_it_and_the_next_record_at_once() -> None:
    wire = ScriptedWire()
    wire.produce_codes["orders"] = deque([codes.NOT_ENOUGH_REPLICAS] * 3)
    async with Sending(wire) as sender:
        assert (await sender.send(record())).offset == 0
        wire.produce_codes["orders"] = deque([codes.NOT_ENOUGH_REPLICAS] * 1_000)
        with pytest.raises(BrokerUnavailable):
            await sender.send(record())
        wire.produce_codes.clear()
        assert (await sender.send(record())).offset == 1


@pytest.mark.parametrize("code", [None, codes.TOPIC_FORBIDDEN])
@in_virtual_time
async def test_a_topic_that_was_created_or_allowed_takes_the_next_record_however_soon_it_comes(
    code: int | None,
) -> None:
    wire = ScriptedWire()
    wire.topics = {} if code is None else {"orders": code}
    async with Sending(wire) as sender:
        with pytest.raises(DeliveryRefused):
            await sender.send(record())
        wire.topics["orders"] = codes.NONE
        await asyncio.sleep(AWAY_BACKOFF.initial_ms / 1_000)
        await sender.send(record())


# --- each send by itself


class TwoLeaders(ScriptedWire):
    """Two brokers: `orders` is led by node 1, everything else by node 2."""

    def __init__(self) -> None:
        super().__init__()
        self.orders_leader = 1
        self.node_1_answers = True
        self.node_2_answers = asyncio.Event()
        """Set: node 2 answers at once."""
        self.node_2_answers.set()

    async def request(self, request: Any, *, node_id: int | None = None, coordinator: bool = False) -> Any:
        if isinstance(request, ProduceRequest):
            if node_id == 1 and not self.node_1_answers:
                await asyncio.sleep(0.01)
                raise BrokerUnavailable("no answer")
            if node_id == 2:
                await self.node_2_answers.wait()
        return await super().request(request, node_id=node_id, coordinator=coordinator)

    def _topic(self, name: str) -> tuple[int, str, bool, list[Any]]:
        self.leader = self.orders_leader if name == "orders" else 2
        return super()._topic(name)


@pytest.mark.parametrize(
    ("in_sync", "leader", "reason"), [(2, -1, "leader_unavailable"), (1, 1, "not_enough_replicas")]
)
@in_virtual_time
async def test_a_topic_that_would_not_take_the_record_is_refused_unsent_and_at_once(
    in_sync: int, leader: int, reason: str
) -> None:
    # It held the record, and with it a shard, until time ran out.
    wire = TwoLeaders()
    wire.replicas, wire.in_sync, wire.orders_leader = 3, in_sync, leader
    wire.configs = {"min.insync.replicas": "2"}
    async with Sending(wire) as sender:
        begun_s = asyncio.get_running_loop().time()
        with pytest.raises(DeliveryRefused) as refused:
            await sender.send(record())
        assert asyncio.get_running_loop().time() == begun_s
        assert "produce" not in wire.asked
    [refusal] = refused.value.refusals
    assert (refusal.cause, refusal.reason, refused.value.begun) == (RefusalCause.TRANSIENT, reason, False)


@in_virtual_time
async def test_a_leader_that_is_away_is_known_within_a_second_and_one_that_is_back_at_once() -> None:
    wire = TwoLeaders()
    async with Sending(wire) as sender:
        await sender.send(record())
        wire.orders_leader = -1
        await asyncio.sleep(METADATA_AGE_S_MAX + 0.01)
        with pytest.raises(DeliveryRefused):
            await sender.send(record())
        await sender.send(record(topic="bills"))
        wire.orders_leader = 1
        await asyncio.sleep(AWAY_BACKOFF.initial_ms / 1_000)
        await sender.send(record())
    assert [topic for topic, _, _ in wire.appended] == ["orders", "bills", "orders"]


@in_virtual_time
async def test_a_send_that_is_out_of_time_ends_no_other_and_leaves_it_its_connection() -> None:
    wire = TwoLeaders()
    wire.node_1_answers = False
    async with Sending(wire) as sender, asyncio.TaskGroup() as group:
        lost = group.create_task(_fails(sender), name="lost")
        wire.node_2_answers.clear()
        slow = group.create_task(sender.send(record(b"slow", topic="bills")), name="slow")
        await asyncio.sleep(0.1)
        wire.node_2_answers.set()
        assert (await slow).offset == 0
        wire.node_2_answers.clear()
        slow = group.create_task(sender.send(record(b"slower", topic="bills")), name="slower")
        await lost
        wire.node_2_answers.set()
        assert (await slow).offset == 1
    assert "reset" not in wire.asked


@in_virtual_time
async def test_behind_a_send_that_is_out_of_time_the_next_one_to_its_kafka_partition_has_its_own_time() -> None:
    wire = TwoLeaders()
    wire.node_1_answers = False
    async with Sending(wire) as sender, asyncio.TaskGroup() as group:
        lost = group.create_task(_fails(sender), name="lost")
        await asyncio.sleep(0.1)
        behind = group.create_task(sender.send(record(b"behind")), name="behind")
        await lost
        assert not behind.done()
        wire.node_1_answers = True
        await behind
    assert wire.appended == [("orders", behind.result().kafka_partition, [b"behind"])]
