"""The commands topic and its group as they are: producers' transactions that are decided later, or never; a member that
reads on without knowing that it is none any more; offsets that only a member may commit, whose answer may be lost."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from clockwork.domain.command_notes import CommandOffset
from clockwork.domain.sharding import ShardId
from clockwork.errors import BrokerUnavailable, ClockworkError
from clockwork.ports.commands import CommandBatch, CommandRecord, ProcessBatch
from tests.simulation.group_world import GroupWorld
from tests.simulation.host import Host
from tests.simulation.kafka_host import Wire
from tests.simulation.kafka_world import CLUSTER, KAFKA_PARTITIONS, Entry, KafkaWorld

COMMANDS: Final = f"{CLUSTER}-commands"
REPLIES: Final = "replies"
POLL_S: Final = 0.1
FETCH_TIMEOUT_S: Final = 0.5
COMMIT_TIMEOUT_S: Final = 0.6
REJOIN_S: Final = 0.3
RECORDS_MAX: Final = 6
"""Small, so that runs reach it."""


class NoMember(ClockworkError):
    """Answer to a commit by a client that, by the group's account, has left, or in a generation that is over."""


@dataclass(kw_only=True, slots=True)
class CommandWorld:
    """The commands topic at the brokers, and its group."""

    kafka: KafkaWorld
    group: GroupWorld
    """The group of the members that read commands: its "shards" are the topic's Kafka partitions."""
    committed: dict[int, tuple[int, int]] = field(default_factory=dict)
    """For each Kafka partition: where to go on, and before which offset effects are over."""

    def fetch(self, number: int, offset: int) -> list[CommandRecord]:
        """The next committed records from there."""
        entries = self.kafka.committed((COMMANDS, number))
        found = [entry for entry in entries if entry.offset >= offset and entry.record is not None]
        return [self.record(number, entry) for entry in found[:RECORDS_MAX]]

    @staticmethod
    def record(number: int, entry: Entry) -> CommandRecord:
        assert entry.record is not None
        assert entry.record.value is not None
        return CommandRecord(
            place=CommandOffset(kafka_partition=number, offset=entry.offset, at_ms=int(entry.appended_at_ms)),
            key=entry.record.key,
            value=entry.record.value,
            headers=entry.record.headers,
        )

    def worked_off(self) -> bool:
        """Nothing is left to be read."""
        return not any(self.fetch(number, self.committed.get(number, (0, 0))[0]) for number in range(KAFKA_PARTITIONS))


class HostCommandLog:
    """See `ports.CommandLog`. One per node."""

    def __init__(self, world: CommandWorld, host: Host) -> None:
        self._world = world
        self._host = host
        self._wire = Wire(world.kafka, host)
        self._assigned: frozenset[int] = frozenset()
        self._changed = asyncio.Event()
        self._generation = self._commits = self._taken = 0

    async def run(self, work: ProcessBatch) -> None:
        member = self._world.group.add(self._host, self._assign, lambda *_: None)
        self._may_commit: Callable[[int], bool] = partial(self._world.group.takes_commit, member)
        try:
            while True:
                self._changed.clear()
                # The tasks of the assignment before have ended: none of their commits bears this generation.
                self._generation = member.generation
                await self._one_assignment(self._assigned, work)
        finally:
            self._world.group.leave(member)

    def _assign(self, numbers: frozenset[ShardId]) -> None:
        self._assigned = frozenset(int(number) for number in numbers)
        self._changed.set()

    async def _one_assignment(self, assigned: frozenset[int], work: ProcessBatch) -> None:
        """Works until the next assignment."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._one_partition(number, work)) for number in sorted(assigned)]
            await self._changed.wait()
            for task in tasks:
                task.cancel()

    async def _one_partition(self, number: int, work: ProcessBatch) -> None:
        """Again and again from where the group has it: an error, or being no member, is the end of what was read."""
        while True:
            try:
                await self._from_committed(number, work)
            except (BrokerUnavailable, NoMember):
                await asyncio.sleep(REJOIN_S)

    async def _from_committed(self, number: int, work: ProcessBatch) -> None:
        begin = (0, 0)
        offset, noted = await self._wire.ask(
            "offsets", lambda: self._world.committed.get(number, begin), timeout_s=FETCH_TIMEOUT_S
        )
        while True:
            fetch = partial(self._world.fetch, number, offset)
            records = await self._wire.ask("fetch", fetch, timeout_s=FETCH_TIMEOUT_S)
            if not records:
                await asyncio.sleep(POLL_S)
                continue
            over = sum(record.place.offset < noted for record in records)
            offset = await self._work_off(CommandBatch(records=tuple(records), over=over), work)

    async def _work_off(self, batch: CommandBatch, work: ProcessBatch) -> int:
        """Returns where to go on."""
        first, last = batch.records[0].place, batch.records[-1].place
        number, end = first.kafka_partition, last.offset + 1
        await work(batch, partial(self._note, number, first.offset, end))
        await self._commit(number, (end, 0))
        return end

    async def _note(self, number: int, begin: int, end: int) -> None:
        await self._commit(number, (begin, end))

    async def _commit(self, number: int, where: tuple[int, int]) -> None:
        """Raises: BrokerUnavailable, NoMember."""
        self._commits += 1
        order, generation = self._commits, self._generation

        def effect() -> bool:
            if not self._may_commit(generation):
                raise NoMember(f"{self._host} may not commit {COMMANDS}/{number} in generation {generation}")
            # One connection: what was sent before arrives before, or not at all.
            if order >= self._taken:
                self._taken = order
                self._world.committed[number] = where
            return True

        await self._wire.ask("commit_offsets", effect, timeout_s=COMMIT_TIMEOUT_S)
