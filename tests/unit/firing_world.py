"""Several processes that fire, over one store and one Kafka in memory, in virtual time; the test plays the group."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from clockwork.domain.ownership import IncarnationId, ProcessId
from clockwork.domain.record import SCHEDULE_KEY
from clockwork.domain.schedule import Guarantee, Row
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import NewlyDue, WakeUp
from clockwork.errors import BrokerUnavailable
from clockwork.firing.context import FiringContext
from clockwork.firing.destination_waits import DestinationWaits
from clockwork.firing.supervisor import Supervisor
from clockwork.kafka.memory.broker import MemoryKafka, OnStep, Step
from clockwork.kafka.memory.publisher import MemoryPublisher
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import RunnerSettings
from clockwork.stores.memory.jobs import JobTables, MemoryJobStore
from clockwork.stores.memory.store import MemoryScheduleStore
from tests.support import builders
from tests.support.clocks import LoopClock, TrustedClock

SHARDS = 4
DRAIN_TIMEOUT_MS = 5_000

T = TypeVar("T")


class ProcessStore(MemoryScheduleStore):
    """One process's way to the store that all share: the test can stop the process there, or lose answers."""

    def __init__(self, shared: MemoryScheduleStore) -> None:
        self.__dict__.update(shared.__dict__)
        self.dead = False
        self.calls: list[str] = []
        """The operations, in the order in which they were carried out."""
        self.before: dict[str, Callable[[], Awaitable[None]]] = {}
        """By operation, what happens before it is carried out."""
        self.after: dict[str, Callable[[], Awaitable[None]]] = {}

    async def _serve(self, operation: str, effect: Callable[[], T]) -> T:
        await self._step(self.before.get(operation))
        self.calls.append(operation)
        answer = effect()
        await self._step(self.after.get(operation))
        return answer

    async def _step(self, hook: Callable[[], Awaitable[None]] | None) -> None:
        await asyncio.sleep(0)
        if hook is not None:
            await hook()
        if self.dead:
            await asyncio.Event().wait()


class Member:
    """One process's place in the consumer group, as the test wants it."""

    def __init__(self, world: "FiringWorld", process: ProcessId) -> None:
        self.assigned: frozenset[ShardId] = frozenset()
        self.confirms = True
        """False: a heartbeat is answered with the end of its generation."""
        self.reaches_group = True
        self._world = world
        self._process = process

    async def run(
        self, on_assignment: Callable[[frozenset[ShardId]], None], on_wakeup: Callable[[ShardId, WakeUp], None]
    ) -> None:
        raise NotImplementedError("the test assigns")

    async def confirmed_assignment(self) -> frozenset[ShardId]:
        if not self.reaches_group:
            raise BrokerUnavailable("no coordinator")
        return self.assigned if self.confirms else frozenset()

    async def member_processes(self) -> frozenset[ProcessId]:
        if not self.reaches_group:
            raise BrokerUnavailable("no coordinator")
        return frozenset(self._world.members)

    async def wake(self, shard: ShardId, wakeup: WakeUp) -> None:
        self._world.wake(shard, wakeup)


class Process:
    """One process that fires."""

    def __init__(self, world: "FiringWorld", number: int) -> None:
        self.id = ProcessId(f"{number:016x}")
        self.member = Member(world, self.id)
        store = self.store = ProcessStore(world.store)
        self.context = FiringContext(
            store=store,
            jobs=MemoryJobStore(store, world.job_tables),
            publisher=MemoryPublisher(world.kafka, world.clock),
            ownership=self.member,
            destination_waits=DestinationWaits(
                topic_wait_ms=900_000, topic_missing=MemoryPublisher(world.kafka, world.clock).topic_missing
            ),
            clock=world.clock,
            trust=TrustedClock(),
            telemetry=NoTelemetry(),
            rng=random.Random(number),
            settings=RunnerSettings(scan_interval_ms=1_000),
            process=self.id,
            node=f"host:{number}",
            drain_timeout_ms=DRAIN_TIMEOUT_MS,
            wake=lambda shard, wakeup: world.wake(shard, wakeup),
        )
        self.supervisor = Supervisor(self.context, shards=SHARDS)
        self.task = asyncio.get_running_loop().create_task(self.supervisor.run(), name=f"process {number}")

    def assign(self, *shards: int) -> None:
        """Gives it an assignment."""
        self.member.assigned = frozenset(map(ShardId, shards))
        self.supervisor.assign(self.member.assigned)

    def incarnation(self, count: int = 1) -> IncarnationId:
        """The id of one of its incarnations."""
        return IncarnationId(f"{self.id}.{count}")

    async def stop(self) -> None:
        """SIGTERM."""
        self.task.cancel()
        await asyncio.wait([self.task])


class FiringWorld:
    """The services that the processes share."""

    def __init__(self) -> None:
        self.clock = LoopClock(builders.DUE_MS)
        self.store = MemoryScheduleStore(shards=SHARDS)
        self.job_tables = JobTables()
        self.kafka = MemoryKafka(cluster="clockwork", shards=SHARDS)
        self.kafka.create_topic(builders.TOPIC)
        self.processes: dict[ProcessId, Process] = {}
        self.members: set[ProcessId] = set()
        """The processes that the group describes as its members."""
        self.on_kafka_step: OnStep | None = None
        self.kafka.on_step = self._on_kafka_step

    def wake(self, shard: ShardId, wakeup: WakeUp) -> None:
        for process in self.processes.values():
            process.supervisor.tell(shard, wakeup)

    def start(self) -> Process:
        """Starts a process, which is a member at once and has no shards."""
        process = Process(self, len(self.processes) + 1)
        self.processes[process.id] = process
        self.members.add(process.id)
        return process

    def kill(self, process: Process) -> None:
        """kill -9, as far as others see it: nothing that it asks for is carried out any more, and it is no member."""
        process.store.dead = True
        process.member.reaches_group = False
        self.members.discard(process.id)

    async def _on_kafka_step(self, step: Step, who: str, done: bool) -> None:
        for process in self.processes.values():
            # Not its ids' inits: those are its takers'.
            if process.store.dead and process.id in who and step is not Step.INIT:
                await asyncio.Event().wait()
        if (hook := self.on_kafka_step) is not None:
            await hook(step, who, done)

    async def create(
        self,
        key: str,
        *,
        due_ms: int | None = None,
        shard: int = 0,
        lane: str | None = None,
        guarantee: Guarantee = Guarantee.EXACTLY_ONCE,
        wakes: bool = True,
    ) -> Row:
        """Stores a schedule and wakes its owner."""
        now_ms = self.clock.now_ms()
        row = builders.row(
            builders.schedule(
                schedule_key=key,
                ordering_key=lane,
                due_ms=now_ms if due_ms is None else due_ms,
                guarantee=guarantee,
            ),
            shard=shard,
        )
        await self.store.create(row, builders.pointer(row), replaces=None)
        for process in self.processes.values() if wakes else ():
            process.supervisor.tell(row.shard, NewlyDue(row.due_ms))
        return row

    def arrived(self, topic: str = builders.TOPIC) -> list[str]:
        """Schedule keys that a read_committed consumer has seen, in order."""
        return [dict(record.headers)[SCHEDULE_KEY].decode() for record in self.kafka.read_committed(topic)]

    def owners(self) -> dict[int, str | None]:
        return {int(shard): state.owner for shard, state in self.store.shard_states.items()}

    async def until(self, condition: Callable[[], Any], *, within_s: float = 60.0) -> None:
        """Lets virtual time pass until the condition holds."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + within_s
        while not condition():
            assert loop.time() < deadline_s, "it does not come true"
            await asyncio.sleep(0.005)

    async def stop(self, processes: Iterable[Process]) -> None:
        for process in processes:
            await process.stop()


@asynccontextmanager
async def firing_world() -> AsyncIterator[FiringWorld]:
    """A world whose processes are stopped at the end."""
    world = FiringWorld()
    try:
        yield world
    finally:
        await world.stop(world.processes.values())
