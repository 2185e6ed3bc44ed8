"""Slots on a real Kafka: commits without an answer (R1 to R3), and a taker's init against the owner's own (T2b against R1).

What the node item's flag decides in the store is a variable here: it is set before T2b, and read after R1.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import pytest

from clockwork.domain.marker import MarkerEntry, encode
from clockwork.domain.position import Position
from clockwork.domain.record import OutRecord
from clockwork.domain.schedule import Receipt
from clockwork.domain.sharding import ShardId
from clockwork.errors import BrokerUnavailable, DeliveryAborted, DeliveryUnknown, Fenced
from clockwork.kafka.client import KafkaWire
from clockwork.ports.delivery import Publisher, SlotName, SlotProducer
from tests.contract.kafka_fixtures import (
    SENDS_MS,
    RealUnderTest,
    module_kafka,
    new_incarnation,
    open_slot,
    real_kafka,
    record,
)

pytestmark = [pytest.mark.real]

__all__ = ["module_kafka", "real_kafka"]

SLOTS: Final = 5
COMMITS: Final = 50
"""Commits of each slot; none of them is answered."""
TAKEOVERS: Final = 30
ROWS: Final = 4
"""Rows of one incarnation; it delivers them one by one until it is fenced, and the taker the rest."""
COMMIT_MS: Final = 30


class DroppedCommits:
    """Drops the answers to EndTxn of some transactional ids, all of one transaction in one of three ways: the request was
    carried out; it was not sent; it is on its way, and arrives beside or behind the next init."""

    def __init__(self, patch: pytest.MonkeyPatch, group: asyncio.TaskGroup) -> None:
        self.way_of: dict[str, str] = {}
        self.dropped: Counter[str] = Counter()
        real = KafkaWire.request

        async def late(wire: KafkaWire, wanted: Any, more: dict[str, Any]) -> None:
            with contextlib.suppress(BrokerUnavailable):
                await real(wire, wanted, **more)

        async def request(wire: KafkaWire, wanted: Any, **more: Any) -> Any:
            way = self.way_of.get(getattr(wanted, "_transactional_id", ""))
            if way is None or type(wanted).__name__ != "EndTxnRequest":
                return await real(wire, wanted, **more)
            self.dropped[way] += 1
            if way == "carried out":
                await real(wire, wanted, **more)
            elif way == "late":
                group.create_task(late(wire, wanted, more), name="late copy of EndTxn")
            raise BrokerUnavailable("the answer to EndTxn is dropped")

        patch.setattr(KafkaWire, "request", request)


def entries(rows: Sequence[int], receipts: Sequence[Receipt]) -> list[MarkerEntry]:
    return [
        MarkerEntry(shard=ShardId(row), position=Position(10**24 + row), at_ms=where.at_ms, receipt=where)
        for row, where in zip(rows, receipts, strict=True)
    ]


def rows_of(marker: Sequence[MarkerEntry]) -> set[int]:
    return {int(entry.shard) for entry in marker}


def row_of(topic: str, label: int, row: int) -> OutRecord:
    return record(topic, b"%d/%d" % (label, row))


class Slot:
    """A slot as the group commit uses it: its marker names all rows that it ended."""

    def __init__(self, node: Publisher, name: SlotName, topic: str, *, label: int) -> None:
        self.name = name
        self.producer: SlotProducer = node.open_slot(name)
        self.untidied: dict[int, MarkerEntry] = {}
        self._node = node
        self._topic = topic
        self._label = label

    async def deliver(self, row: int) -> bool:
        """Delivers a row. True if the commit was answered."""
        ended: list[MarkerEntry] = []

        def marker(receipts: Sequence[Receipt]) -> bytes:
            ended[:] = entries([row], receipts)
            return encode([*self.untidied.values(), *ended])

        try:
            await self.producer.deliver([row_of(self._topic, self._label, row)], marker, sends_ms=SENDS_MS)
        except DeliveryUnknown:
            return False
        self.untidied[row] = ended[0]
        return True

    async def read(self) -> set[int]:
        """R3."""
        marker = (await self._node.read_markers(self.name.incarnation, {self.name: None}))[self.name]
        self.untidied |= {int(entry.shard): entry for entry in marker}
        return rows_of(marker)


async def test_after_250_commits_without_an_answer_each_record_is_there_once(
    real_kafka: RealUnderTest, monkeypatch: pytest.MonkeyPatch, tell: Any
) -> None:
    topic = await real_kafka.create_topic()
    incarnation = new_incarnation()
    kafka = real_kafka.with_timeouts(commit_ms=COMMIT_MS)
    found_out: Counter[str] = Counter()

    async def work(slot: Slot, transactional_id: str) -> None:
        await slot.producer.init()
        for row in range(COMMITS):
            drops.way_of[transactional_id] = ("carried out", "not sent", "late")[row % 3]
            assert not await slot.deliver(row)
            del drops.way_of[transactional_id]
            await slot.producer.init()
            while row not in await slot.read():
                found_out["fired again"] += 1
                if await slot.deliver(row):
                    break
                # The machine stood still for longer than this test waits for a commit.
                await slot.producer.init()
            else:
                found_out["delivered"] += 1

    async with kafka.node() as node, asyncio.TaskGroup() as late_copies:
        drops = DroppedCommits(monkeypatch, late_copies)
        async with asyncio.TaskGroup() as group:
            for number in range(SLOTS):
                slot = Slot(node, SlotName(incarnation, number), topic, label=number)
                name = kafka.kafka.settings.transactional_id(incarnation, number)
                group.create_task(work(slot, name), name=name)
    tell(f"EndTxn: {dict(drops.dropped)}; found out: {dict(found_out)}")
    assert found_out.keys() == {"fired again", "delivered"}
    seen = [r.value for r in await real_kafka.read_committed(topic)]
    assert Counter(seen) == Counter(row_of(topic, n, row).value for n in range(SLOTS) for row in range(COMMITS))


async def test_takers_that_fence_an_owner_which_initialises_its_own_id_deliver_each_row_once(
    real_kafka: RealUnderTest, tell: Any
) -> None:
    # The owner heals its slot before each row, as after refusals. Two takers of different shards fence it at once: the same
    # flag, both initialise its id, both must read the same marker. Then one of them delivers what that does not name.
    topic = await real_kafka.create_topic()
    rng = random.Random(1)
    delivered_by: Counter[str] = Counter()

    async def own(slot: Slot, fenced: asyncio.Event) -> None:
        for row in range(ROWS):
            done = False
            while not done:
                await slot.producer.init()  # R1
                if fenced.is_set():  # R2
                    return
                try:
                    done = row in await slot.read() or await slot.deliver(row)
                except Fenced:
                    return
                except DeliveryAborted:
                    continue

    async def take(node: Publisher, name: SlotName, fenced: asyncio.Event) -> set[int]:
        fenced.set()  # T2a
        await node.settle(name.incarnation, slots=1)  # T2b
        return rows_of((await node.read_markers(new_incarnation(), {name: None}))[name])  # T2c

    async with real_kafka.node() as node, real_kafka.node() as one, real_kafka.node() as another:
        for takeover in range(TAKEOVERS):
            fenced = asyncio.Event()
            slot = Slot(node, SlotName(new_incarnation(), 0), topic, label=takeover)
            async with asyncio.TaskGroup() as group:
                owner = group.create_task(own(slot, fenced), name="owner")
                # Somewhere in between, another place each time.
                await asyncio.sleep(rng.uniform(0.0, 0.15))
                takes = [group.create_task(take(taker, slot.name, fenced), name="taker") for taker in (one, another)]
            assert owner.done()
            named, others_named = (task.result() for task in takes)
            assert named == others_named >= slot.untidied.keys()
            delivered_by["owner"] += len(named)
            await slot.producer.close()
            heir = await open_slot(one, SlotName(new_incarnation(), 0))
            rest = [row for row in range(ROWS) if row not in named]
            delivered_by["taker"] += len(rest)
            await heir.deliver([row_of(topic, takeover, row) for row in rest], lambda _: encode([]), sends_ms=SENDS_MS)
            await heir.close()
    seen = [r.value for r in await real_kafka.read_committed(topic)]
    assert Counter(seen) == Counter(row_of(topic, n, row).value for n in range(TAKEOVERS) for row in range(ROWS))
    tell(f"rows delivered: {dict(delivered_by)}")
    assert delivered_by.keys() == {"owner", "taker"}
