"""The consumer group as it is: a silent member loses its shards and does not know; their new owner may begin while the
old owner still believes; answers about members and generations are behind by a rebalance; wake-ups come late, twice, or
never."""

import asyncio
import random
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import Final, TypeVar

from clockwork.domain.ownership import ProcessId
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import WakeUp
from clockwork.errors import BrokerUnavailable
from tests.simulation.host import Host
from tests.simulation.kafka_world import KafkaWorld
from tests.simulation.virtual_loop import Reactor

TICK_S: Final = 0.2
"""The heartbeat."""
HEARS_S_MAX: Final = 0.5
"""Time after the others in which a member hears of a new assignment, at most."""
REQUEST_TIMEOUT_S: Final = 0.4

_T = TypeVar("_T", frozenset[ShardId], frozenset[ProcessId])


@dataclass(kw_only=True, slots=True, eq=False)
class _Member:
    host: Host
    on_assignment: Callable[[frozenset[ShardId]], None]
    on_wakeup: Callable[[ShardId, WakeUp], None]
    joined: bool = False
    seen_at_s: float = 0.0
    assignment: frozenset[ShardId] = frozenset()
    """As the group has it."""
    believes: frozenset[ShardId] = frozenset()
    """As it was told last."""
    generation: int = 0
    """That of what it was told last."""
    hears_at_s: float | None = None


@dataclass(kw_only=True, slots=True)
class GroupWorld:
    """The group's coordinator."""

    reactor: Reactor
    kafka: KafkaWorld
    rng: random.Random
    shards: int
    session_s: float
    members: list[_Member] = field(default_factory=list)
    generation: int = 0
    """The number of rebalances so far."""
    processes_before: frozenset[ProcessId] = frozenset()
    """Processes of the members, as of the rebalance before the last."""
    _processes: frozenset[ProcessId] = frozenset()

    def start(self) -> None:
        self._tick()

    def add(
        self,
        host: Host,
        on_assignment: Callable[[frozenset[ShardId]], None],
        on_wakeup: Callable[[ShardId, WakeUp], None],
    ) -> _Member:
        member = _Member(host=host, on_assignment=on_assignment, on_wakeup=on_wakeup)
        self.members.append(member)
        return member

    def leave(self, member: _Member) -> None:
        """Said goodbye; who cannot reach the group just falls silent."""
        if member.host.reaches_group and member in self.members:
            self.members.remove(member)
            self.rebalance()

    def rebalance(self) -> None:
        """A new generation: shards are dealt out anew, and each member hears of it at its own time."""
        members = [member for member in self.members if member.joined]
        self.processes_before, self._processes = self._processes, self.processes()
        self.rng.shuffle(members)
        self.generation += 1
        start = 0
        for index, member in enumerate(members):
            share = self.shards // len(members) + (1 if index < self.shards % len(members) else 0)
            member.assignment = frozenset(ShardId(number) for number in range(start, start + share))
            member.hears_at_s = self.reactor.now_s + self.rng.uniform(0, HEARS_S_MAX)
            start += share
        shares = [f"{member.host}={sorted(member.assignment)}" for member in members]
        self.kafka.trace.note("group", *sorted(shares))

    def processes(self) -> frozenset[ProcessId]:
        """Processes of the members, by their client ids."""
        return frozenset(member.host.process for member in self.members if member.joined)

    def confirmed(self, member: _Member) -> frozenset[ShardId]:
        """The answer to a heartbeat with the member's own generation: its assignment if that is current, else nothing."""
        current = member in self.members and member.joined and member.hears_at_s is None
        return member.believes if current else frozenset()

    def takes_commit(self, member: _Member, generation: int) -> bool:
        """True if an offset may be committed: by a member, and in the generation that the group is in. To be assigned the
        same Kafka partition again is not enough: another member may have worked off more of it in between."""
        return member in self.members and member.joined and generation == self.generation

    def wake(self, shard: ShardId, wakeup: WakeUp) -> None:
        """A record on the ownership topic."""
        if self.rng.random() < self.kafka.faults.wakeup_lost:
            return
        for _ in range(2 if self.rng.random() < self.kafka.faults.wakeup_doubled else 1):
            self.reactor.after(self.rng.expovariate(1 / 0.02), self._hand_over, shard, wakeup)

    def _hand_over(self, shard: ShardId, wakeup: WakeUp) -> None:
        for member in self.members:
            if shard in member.believes and member.joined and member.host.reaches_group:
                member.host.loop.call_soon(member.on_wakeup, shard, wakeup)

    def _tick(self) -> None:
        self.reactor.after(TICK_S, self._tick)
        if self.kafka.down:
            return
        now_s = self.reactor.now_s
        changed = False
        for member in list(self.members):
            if member.host.awake and member.host.reaches_group:
                changed |= self._heartbeat(member, now_s)
            elif now_s - member.seen_at_s > self.session_s:
                if member.joined:
                    member.joined = False
                    changed = True
                if not member.host.alive:
                    self.members.remove(member)
        if changed:
            self.rebalance()

    def _heartbeat(self, member: _Member, now_s: float) -> bool:
        """True if the group has to be rebalanced."""
        member.seen_at_s = now_s
        if not member.joined:
            member.joined = True
            return True
        if member.hears_at_s is not None and member.hears_at_s <= now_s:
            member.hears_at_s = None
            member.believes = member.assignment
            member.generation = self.generation
            member.host.loop.call_soon(member.on_assignment, member.assignment)
        return False


class HostOwnership:
    """See `ports.ShardOwnership`."""

    def __init__(self, group: GroupWorld, host: Host) -> None:
        self._group = group
        self._host = host
        self._member: _Member | None = None

    async def run(
        self,
        on_assignment: Callable[[frozenset[ShardId]], None],
        on_wakeup: Callable[[ShardId, WakeUp], None],
    ) -> None:
        member = self._member = self._group.add(self._host, on_assignment, on_wakeup)
        try:
            await asyncio.Event().wait()
        finally:
            self._group.leave(member)

    async def confirmed_assignment(self) -> Set[ShardId]:
        return await self._ask("confirm_assignment", self._confirmed)

    async def member_processes(self) -> Set[ProcessId]:
        return await self._ask("member_processes", self._processes)

    def _confirmed(self) -> frozenset[ShardId]:
        member = self._member
        if member is None:
            return frozenset()
        # A coordinator that is deposed itself knows nothing of the newest rebalance.
        return member.believes if self._lags() and member.joined else self._group.confirmed(member)

    def _processes(self) -> frozenset[ProcessId]:
        return self._group.processes_before if self._lags() else self._group.processes()

    def _lags(self) -> bool:
        return self._group.rng.random() < self._group.kafka.faults.group_lags

    async def _ask(self, what: str, read: Callable[[], _T]) -> _T:
        """Raises: BrokerUnavailable."""
        host, group = self._host, self._group
        await host.step(what, after=False)
        latency_s = group.kafka.faults.latency_s * 2
        if not host.reaches_group or group.kafka.down:
            await asyncio.sleep(REQUEST_TIMEOUT_S)
            raise BrokerUnavailable(f"{what} was not answered in time")
        await asyncio.sleep(group.rng.expovariate(1 / latency_s))
        answer = read()
        await asyncio.sleep(group.rng.expovariate(1 / latency_s))
        await host.step(what, after=True)
        group.kafka.trace.note("group answers", host, what, *sorted(answer))
        return answer

    async def wake(self, shard: ShardId, wakeup: WakeUp) -> None:
        await self._host.step("wake", after=False)
        if not self._host.reaches_kafka or self._group.kafka.down:
            raise BrokerUnavailable("the wake-up was not sent")
        self._group.wake(shard, wakeup)
