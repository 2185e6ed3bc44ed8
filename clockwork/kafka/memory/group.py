"""The twin of ShardOwnership: a consumer group in memory."""

import asyncio
import logging
from collections.abc import Callable, Set
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from clockwork.domain import wakeup as wakeup_value
from clockwork.domain.ownership import ProcessId
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import WakeUp
from clockwork.errors import BrokerUnavailable, DeliveryRefused, Unreadable
from clockwork.kafka.memory.broker import MemoryKafka
from clockwork.kafka.memory.publisher import MemoryPublisher
from clockwork.ports.telemetry import Telemetry

WITHDRAW_S_MAX: Final = 3.0
"""Longest wait for the assignment without shards."""

log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True, eq=False)
class _Member:
    process: ProcessId
    withdrawn: bool = False
    assignment: frozenset[ShardId] = frozenset()
    generation: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Membership:
    """A member's view: the generation whose assignment it was told of."""

    member: _Member
    generation: int
    assignment: frozenset[ShardId]


class MemoryGroup:
    """The group's coordinator: its members, and the range of shards of each.

    A member hears of a new generation when its own task next runs, so two nodes may believe in the same shard for a
    while, as with the real one.
    """

    def __init__(self, shards: int) -> None:
        self.away = False
        """Set by tests: heartbeats and descriptions are not answered. Members stay members."""
        self._shards = shards
        self._members: list[_Member] = []
        self._generation = 0

    def join(self, process: ProcessId) -> _Member:
        member = _Member(process=process)
        self._members.append(member)
        self._rebalance()
        return member

    def leave(self, member: _Member) -> None:
        if self.has(member):
            self._members.remove(member)
            self._rebalance()

    def withdraw(self, member: _Member) -> None:
        if self.has(member):
            member.withdrawn = True
            self._rebalance()

    def has(self, member: _Member) -> bool:
        return member in self._members

    def is_current(self, membership: _Membership) -> bool:
        """The answer to a heartbeat: True if this is a member, and its generation the present one."""
        return self.has(membership.member) and membership.generation == self._generation

    def processes(self) -> frozenset[ProcessId]:
        return frozenset(member.process for member in self._members)

    def _rebalance(self) -> None:
        self._generation += 1
        takers = [member for member in self._members if not member.withdrawn] or self._members
        start, count = 0, len(takers)
        for index, member in enumerate(takers):
            share = self._shards // count + (1 if index < self._shards % count else 0)
            member.assignment = frozenset(ShardId(number) for number in range(start, start + share))
            start += share
        for member in self._members:
            if member not in takers:
                member.assignment = frozenset()
            member.generation = self._generation
            member.changed.set()


class MemoryOwnership:
    """See `ports.ShardOwnership`. One per node."""

    def __init__(
        self,
        kafka: MemoryKafka,
        group: MemoryGroup,
        publisher: MemoryPublisher,
        telemetry: Telemetry,
        *,
        process: ProcessId,
    ) -> None:
        self._kafka = kafka
        self._group = group
        self._publisher = publisher
        self._telemetry = telemetry
        self._process = process
        self._connected = asyncio.Event()
        self._connected.set()
        self._member: _Member | None = None
        self._membership: _Membership | None = None
        self._assigned = asyncio.Event()
        """Set by each assignment."""
        self._lagging_processes: frozenset[ProcessId] | None = None

    def lag(self) -> None:
        """Delays all that the node hears of the group: it stays a member and is told of no rebalance, its heartbeats
        are answered "current", and a description of the group shows the members of this moment. It is as if each answer
        had left the coordinator now and arrived later."""
        self._lagging_processes = self._group.processes()

    def catch_up(self) -> None:
        """Ends `lag`."""
        self._lagging_processes = None
        if self._member is not None:
            self._member.changed.set()

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
            self._member = self._group.join(self._process)
            try:
                await self._run_membership(self._member, on_assignment, on_wakeup)
            finally:
                self._membership = None
                self._group.leave(self._member)

    async def confirmed_assignment(self) -> Set[ShardId]:
        self._reach_coordinator()
        membership = self._membership
        if membership is None or not (self._lagging_processes is not None or self._group.is_current(membership)):
            return frozenset()
        return membership.assignment

    async def member_processes(self) -> Set[ProcessId]:
        self._reach_coordinator()
        return self._group.processes() if self._lagging_processes is None else self._lagging_processes

    async def withdraw(self) -> None:
        """As of `KafkaOwnership`."""
        if self._member is None or self._membership is None:
            return
        self._assigned.clear()
        self._group.withdraw(self._member)
        with suppress(TimeoutError):
            async with asyncio.timeout(WITHDRAW_S_MAX):
                await self._assigned.wait()

    async def wake(self, shard: ShardId, wakeup: WakeUp) -> None:
        try:
            await self._publisher.send_wakeup(shard, wakeup_value.encode(wakeup))
        except DeliveryRefused as error:
            raise BrokerUnavailable(f"a wake-up was refused: {error}") from error

    async def _run_membership(
        self,
        member: _Member,
        on_assignment: Callable[[frozenset[ShardId]], None],
        on_wakeup: Callable[[ShardId, WakeUp], None],
    ) -> None:
        generation = 0
        read_until: dict[ShardId, int] = {}
        with self._kafka.listening(member.changed):
            while self._connected.is_set() and self._group.has(member):
                member.changed.clear()
                if member.generation != generation and self._lagging_processes is None:
                    generation = member.generation
                    self._membership = _Membership(member=member, generation=generation, assignment=member.assignment)
                    read_until = {shard: self._end(shard) for shard in member.assignment}
                    self._telemetry.rebalance()
                    self._assigned.set()
                    on_assignment(member.assignment)
                for shard, position in read_until.items():
                    read_until[shard] = self._hand_over(shard, position, on_wakeup)
                await member.changed.wait()

    def _reach_coordinator(self) -> None:
        """Raises: BrokerUnavailable."""
        if self._group.away or not self._connected.is_set():
            raise BrokerUnavailable("the group's coordinator does not answer")

    def _end(self, shard: ShardId) -> int:
        return self._kafka.end_offset(self._kafka.shards_topic, shard)

    def _hand_over(self, shard: ShardId, position: int, on_wakeup: Callable[[ShardId, WakeUp], None]) -> int:
        for record in self._kafka.records_from(self._kafka.shards_topic, shard, position):
            position = record.offset + 1
            try:
                wakeup = wakeup_value.decode(record.value)
            except Unreadable:
                # The wake-up is skipped and counted: a scan finds the schedules that it announced.
                self._telemetry.malformed("wakeup")
                continue
            on_wakeup(shard, wakeup)
        return position
