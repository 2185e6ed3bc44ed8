"""The reading of markers, for answers that a healthy Kafka does not give: a marker that is missed is a batch twice."""

import asyncio
from collections.abc import Mapping
from typing import Final

import pytest

from clockwork.domain.marker import MarkerEntry, barrier_key, encode, marker_key
from clockwork.domain.ownership import IncarnationId
from clockwork.domain.position import Position
from clockwork.domain.schedule import Receipt
from clockwork.domain.sharding import ShardId, kafka_partition_of
from clockwork.errors import BrokerUnavailable
from clockwork.kafka import codes
from clockwork.kafka.client import LastAnswer
from clockwork.kafka.marker import FIRST_WINDOW, MarkerReader, MarkerTopic
from clockwork.kafka.plain import PlainSender
from clockwork.kafka.topics import TopicDirectory
from clockwork.ports.delivery import SlotName
from tests.support.virtual_time import in_virtual_time
from tests.unit.kafka_script import LOST, MARKERS, SLOT, ScriptedLog, ScriptedWire, kafka_for_script

READER: Final = IncarnationId("00000000000000bb.1")
KEY: Final = marker_key(SLOT.incarnation, SLOT.slot)
OTHER: Final = b"another slot's"
NUMBER: Final = kafka_partition_of(KEY, 4)
KEEPS_SILENT: Final = 10_000


def entry(number: int) -> MarkerEntry:
    receipt = Receipt(kafka_partition=0, offset=number, at_ms=5)
    return MarkerEntry(shard=ShardId(3), position=Position(10**24 + number), at_ms=5, receipt=receipt)


def marker(number: int) -> bytes:
    return encode([entry(number)])


def log_of(wire: ScriptedWire) -> ScriptedLog:
    """The Kafka partition of the slot's markers, as its leader, node 1, has it."""
    return wire.logs.setdefault((MARKERS, NUMBER), ScriptedLog())


def fill(log: ScriptedLog, count: int) -> None:
    for _ in range(count):
        log.append(OTHER, b"value")


async def read(
    wire: ScriptedWire, *, hint: int | None = None, slots: Mapping[SlotName, int | None] | None = None
) -> Mapping[SlotName, tuple[MarkerEntry, ...]]:
    """Reads with connections of its own, as a taker does. The barrier goes to the log like any other record."""
    kafka = kafka_for_script(init_ms=15_000, sends_ms=6_000)
    directory = TopicDirectory(kafka, LastAnswer(), wire)
    sender = PlainSender(kafka, directory, wire)
    reader = MarkerReader(kafka, directory, wire, sender, MarkerTopic(MARKERS), lambda: 1_000)
    # Metadata "from now on" must be told from those of a moment ago.
    wire.latency_s = 0.001
    async with asyncio.TaskGroup() as group:
        running = group.create_task(sender.run(), name="sender")
        await asyncio.sleep(0)
        [found] = await asyncio.gather(reader.read(READER, slots or {SLOT: hint}), return_exceptions=True)
        running.cancel()
    if isinstance(found, BaseException):
        raise found
    return found


@in_virtual_time
async def test_the_last_marker_counts_and_not_the_first_of_the_same_look() -> None:
    wire = ScriptedWire()
    for number in range(5):
        log_of(wire).append(KEY, marker(number))
        fill(log_of(wire), 1)
    assert await read(wire) == {SLOT: (entry(4),)}


@in_virtual_time
async def test_a_slot_without_a_marker_is_looked_for_down_to_the_start() -> None:
    wire = ScriptedWire()
    fill(log_of(wire), 200)
    assert await read(wire) == {SLOT: ()}
    assert min(position for _node, position in wire.fetched) == 0


@in_virtual_time
async def test_without_a_hint_the_looks_grow_backwards_from_the_barrier() -> None:
    wire = ScriptedWire()
    log_of(wire).append(KEY, marker(1))
    fill(log_of(wire), 199)
    assert await read(wire) == {SLOT: (entry(1),)}
    first = 200 + 1 - FIRST_WINDOW
    assert wire.fetched[0] == (1, first)
    assert (1, first - 8 * FIRST_WINDOW) in wire.fetched


@in_virtual_time
async def test_with_a_hint_the_look_begins_there_and_finds_a_later_marker() -> None:
    wire = ScriptedWire()
    log = log_of(wire)
    fill(log, 100)
    log.append(KEY, marker(1))
    fill(log, 100)
    log.append(KEY, marker(2))
    fill(log, 100)
    assert await read(wire, hint=100) == {SLOT: (entry(2),)}
    assert min(wire.fetched) == (1, 100)


@pytest.mark.parametrize("hint", [250, 10_000])
@in_virtual_time
async def test_a_hint_that_leads_nowhere_is_no_reason_to_miss_the_marker(hint: int) -> None:
    # The topic was made anew, say, and its offsets began again.
    wire = ScriptedWire()
    log_of(wire).append(KEY, marker(1))
    fill(log_of(wire), 300)
    assert await read(wire, hint=hint) == {SLOT: (entry(1),)}


@pytest.mark.parametrize("hint", [None, 1])
@in_virtual_time
async def test_slots_of_one_kafka_partition_are_read_by_one_barrier(hint: int | None) -> None:
    # While one is looked for farther back, older markers of the other one come by.
    wire = ScriptedWire()
    number = next(n for n in range(1, 100) if kafka_partition_of(marker_key(SLOT.incarnation, n), 4) == NUMBER)
    beside = SlotName(SLOT.incarnation, number)
    beside_key = marker_key(beside.incarnation, beside.slot)
    log = log_of(wire)
    log.append(beside_key, marker(0))
    log.append(KEY, marker(1))
    log.append(beside_key, marker(2))
    fill(log, 100)
    log.append(beside_key, marker(3))
    assert await read(wire, slots={SLOT: hint, beside: None}) == {SLOT: (entry(1),), beside: (entry(3),)}
    assert [values for topic, _number, values in wire.appended if topic == MARKERS] == [[b""]]


@in_virtual_time
async def test_a_forgotten_marker_is_none() -> None:
    wire = ScriptedWire()
    log_of(wire).append(KEY, marker(1))
    log_of(wire).append(KEY, None)
    assert await read(wire) == {SLOT: ()}


@in_virtual_time
async def test_the_reader_waits_until_the_last_stable_offset_has_passed_its_barrier() -> None:
    # A foreign transaction is open at offset 3. A look at what is stable now would end before the second marker.
    wire = ScriptedWire()
    log = log_of(wire)
    log.append(KEY, marker(1))
    fill(log, 2)
    log.append(OTHER, b"of the open transaction")
    log.append(KEY, marker(2))
    barrier = len(log.batches)
    log.stable_ends.extend([3, 3, barrier - 1, barrier])
    assert await read(wire) == {SLOT: (entry(2),)}
    assert not log.stable_ends
    # Nothing was fetched before that, and each try asked for the leader again.
    assert wire.asked.index("fetch") > max(nth for nth, word in enumerate(wire.asked) if word == "offset") - 2
    assert wire.asked.count("metadata") >= 5


def deposed(wire: ScriptedWire) -> ScriptedLog:
    """Node 2 led the Kafka partition once, and has what it had then: the first marker and not the second. Metadata name it
    for a while."""
    log_of(wire).append(KEY, marker(1))
    fill(log_of(wire), 2)
    wire.deposed[2] = ScriptedLog(batches=list(log_of(wire).batches))
    log_of(wire).append(KEY, marker(2))
    # The first answer is about the layout, and serves the barrier, too.
    wire.marker_leaders.extend([1, 2, 2])
    return wire.deposed[2]


@in_virtual_time
async def test_a_deposed_leader_that_has_no_such_offset_is_not_asked_for_a_marker() -> None:
    wire = ScriptedWire()
    deposed(wire)
    assert await read(wire) == {SLOT: (entry(2),)}
    assert {node for node, _position in wire.fetched} == {1}


@pytest.mark.parametrize(
    ("key", "headers"),
    [
        (OTHER, ()),
        # A barrier that the same reader wrote earlier, while this broker still led.
        (barrier_key(READER), (("clockwork-nonce", b"12345678"),)),
    ],
)
@in_virtual_time
async def test_a_deposed_leader_that_has_another_record_there_is_not_believed(
    key: bytes, headers: tuple[tuple[str, bytes], ...]
) -> None:
    wire = ScriptedWire()
    old = deposed(wire)
    fill(old, len(log_of(wire).batches) - len(old.batches))
    old.append(key, None, headers)
    fill(old, 5)
    assert await read(wire) == {SLOT: (entry(2),)}
    # It was asked, and had something else at the barrier's offset.
    assert {node for node, _position in wire.fetched} == {1, 2}


@in_virtual_time
async def test_a_leader_that_moves_while_it_is_read_is_followed_with_the_same_barrier() -> None:
    wire = ScriptedWire()
    log_of(wire).append(KEY, marker(1))
    wire.script("fetch", codes.NOT_LEADER)
    wire.script("offset", codes.NOT_LEADER, codes.NONE, LOST)
    assert await read(wire) == {SLOT: (entry(1),)}
    assert wire.asked.count("produce") == 1


@in_virtual_time
async def test_a_barrier_without_an_acknowledgement_is_followed_by_another_one() -> None:
    wire = ScriptedWire()
    log_of(wire).append(KEY, marker(1))
    # For longer than one send tries.
    wire.script("produce", *[LOST] * 60)
    assert await read(wire) == {SLOT: (entry(1),)}
    [_sent] = wire.appended


@in_virtual_time
async def test_without_the_barrier_in_time_nothing_is_said_about_the_marker() -> None:
    # No leader ever has the barrier at its place: a broker that lost data. An empty answer would be a guess.
    wire = ScriptedWire()
    log_of(wire).append(KEY, marker(1))
    wire.deposed[1] = ScriptedLog()
    fill(wire.deposed[1], 5)
    with pytest.raises(BrokerUnavailable, match="does not have the barrier"):
        await read(wire)


@in_virtual_time
async def test_a_kafka_partition_without_a_leader_ends_the_reading_in_time() -> None:
    wire = ScriptedWire()
    wire.marker_leaders.extend([1, *[-1] * KEEPS_SILENT])
    with pytest.raises(BrokerUnavailable, match="has no leader"):
        await read(wire)
