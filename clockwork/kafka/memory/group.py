"""The twin of ShardOwnership: a consumer group in memory."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from clockwork.domain import wakeup as wakeup_value
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import WakeUp
from clockwork.errors import BrokerUnavailable, DeliveryRefused, Unreadable
from clockwork.kafka.memory.broker import MemoryKafka
from clockwork.kafka.memory.publisher import MemoryPublisher
from clockwork.ports.telemetry import Telemetry

log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True, eq=False)
class _Member:
    order: int
    """Members are numbered as they join."""
    assignment: frozenset[ShardId] = frozenset()
    generation: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class MemoryGroup:
    """The group's coordinator: its members, and the range of shards of each.

    A member hears of a new generation when its own task next runs, so two nodes may believe in the same shard for a
    while, as with the real one.
    """

    def __init__(self, shards: int) -> None:
        self._shards = shards
        self._members: list[_Member] = []
        self._joined = 0
        self._generation = 0

    def join(self) -> _Member:
        self._joined += 1
        member = _Member(order=self._joined)
        self._members.append(member)
        self._rebalance()
        return member

    def leave(self, member: _Member) -> None:
        if member in self._members:
            self._members.remove(member)
            self._rebalance()

    def _rebalance(self) -> None:
        self._generation += 1
        start, count = 0, len(self._members)
        for index, member in enumerate(self._members):
            share = self._shards // count + (1 if index < self._shards % count else 0)
            member.assignment = frozenset(ShardId(number) for number in range(start, start + share))
            member.generation = self._generation
            member.changed.set()
            start += share


class MemoryOwnership:
    """See `ports.ShardOwnership`. One per node."""

    def __init__(
        self, kafka: MemoryKafka, group: MemoryGroup, publisher: MemoryPublisher, telemetry: Telemetry
    ) -> None:
        self._kafka = kafka
        self._group = group
        self._publisher = publisher
        self._telemetry = telemetry
        self._connected = asyncio.Event()
        self._connected.set()
        self._member: _Member | None = None

    def cut_off(self) -> None:
        """Times the node's session out without its knowing: the others get its shards, and it believes in them as before."""
        self._connected.clear()
        if self._member is not None:
            self._group.leave(self._member)
            self._member.changed.set()

    def heal(self) -> None:
        """Lets it reach the group again, learn that it was out, and join."""
        self._connected.set()

    async def run(
        self,
        on_assignment: Callable[[frozenset[ShardId]], None],
        on_wakeup: Callable[[ShardId, WakeUp], None],
    ) -> None:
        while True:
            await self._connected.wait()
            self._member = self._group.join()
            try:
                await self._stay(self._member, on_assignment, on_wakeup)
            finally:
                self._group.leave(self._member)

    async def wake(self, shard: ShardId, wakeup: WakeUp) -> None:
        try:
            await self._publisher.send_wakeup(shard, wakeup_value.encode(wakeup))
        except DeliveryRefused as error:
            raise BrokerUnavailable(f"a wake-up was refused: {error}") from error

    async def _stay(
        self,
        member: _Member,
        on_assignment: Callable[[frozenset[ShardId]], None],
        on_wakeup: Callable[[ShardId, WakeUp], None],
    ) -> None:
        generation = 0
        read_until: dict[ShardId, int] = {}
        with self._kafka.listening(member.changed):
            while self._connected.is_set():
                member.changed.clear()
                if member.generation != generation:
                    generation = member.generation
                    read_until = {shard: self._end(shard) for shard in member.assignment}
                    self._telemetry.rebalance()
                    on_assignment(member.assignment)
                for shard, position in read_until.items():
                    read_until[shard] = self._hand_over(shard, position, on_wakeup)
                await member.changed.wait()

    def _end(self, shard: ShardId) -> int:
        return self._kafka.end_offset(self._kafka.shards_topic, shard)

    def _hand_over(self, shard: ShardId, position: int, on_wakeup: Callable[[ShardId, WakeUp], None]) -> int:
        for record in self._kafka.records_from(self._kafka.shards_topic, shard, position):
            position = record.offset + 1
            try:
                wakeup = wakeup_value.decode(record.value)
            except Unreadable:
                # Skipped and counted: the scan finds the schedules that it announced.
                self._telemetry.malformed("wakeup")
                continue
            on_wakeup(shard, wakeup)
        return position
