"""One node: the production engine, put together as `clockwork.node.app` does it, over the simulated worlds."""

import asyncio
from dataclasses import dataclass, replace
from typing import Final

from clockwork.commands.worker import CommandWorker
from clockwork.domain.destination import Topic
from clockwork.domain.rights import ANYONE
from clockwork.domain.schedule import ClientId, NewSchedule, OnLate, OrderingKey, Schedule, ScheduleKey
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import WakeUp
from clockwork.errors import Unavailable
from clockwork.firing.deliver_acknowledged import AcknowledgedDelivery
from clockwork.firing.deliver_transactional import TransactionalDelivery
from clockwork.firing.destination_waits import DestinationWaits
from clockwork.firing.settlement import Settlement
from clockwork.firing.shard_loop import ConcurrencyLimits, ShardLoop
from clockwork.firing.shard_pass import ShardPass
from clockwork.firing.supervisor import Supervisor
from clockwork.firing.takeover import Takeover
from clockwork.kafka.wakeups import WakeupSender
from clockwork.ports.telemetry import NoTelemetry
from clockwork.requests.context import RequestContext
from clockwork.requests.results import ANY_VERSION, VersionCondition
from clockwork.requests.service import RequestService
from clockwork.settings.model import IntakeSettings, RunnerSettings
from clockwork.stores.memory.store import MemoryScheduleSearch
from tests.simulation.command_world import COMMANDS, CommandWorld, HostCommandLog
from tests.simulation.faults import Profile
from tests.simulation.group_world import GroupWorld, HostOwnership
from tests.simulation.host import Host
from tests.simulation.kafka_host import HostPublisher
from tests.simulation.kafka_world import CLUSTER, DEAD_LETTERS, OWN_DEAD_LETTERS, KafkaWorld
from tests.simulation.store_world import HostStore, StoreWorld
from tests.simulation.trace import Trace, describe

PING_INTERVAL_S: Final = 5.0
PING_AGAIN_S: Final = 1.0
DRAIN_TIMEOUT_MS: Final = 1_500
PASSES_AT_ONCE: Final = 2
TAKEOVERS_AT_ONCE: Final = 2
"""Both small, so that runs reach them."""
REQUEST_TIMEOUT_MS: Final = 3_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Worlds:
    """All that nodes have in common."""

    store: StoreWorld
    kafka: KafkaWorld
    group: GroupWorld
    commands: CommandWorld
    trace: Trace


def runner_settings(profile: Profile) -> RunnerSettings:
    """Short waits, so that a run reaches the end of each."""
    return RunnerSettings(
        scan_interval_ms=profile.scan_interval_ms,
        frontier_lead_ms=profile.lead_ms,
        batch_records_max=profile.batch_records_max,
        retry_attempts=3,
        retry_initial_ms=profile.retry_initial_ms,
        retry_max_ms=max(2_000, profile.retry_initial_ms),
        topic_wait_ms=2_500,
        dead_letter_topic=DEAD_LETTERS,
        dead_letter_topics={"client": OWN_DEAD_LETTERS} if profile.own_letters else {},
    )


class Node:
    """One life of a node."""

    def __init__(self, worlds: Worlds, host: Host, profile: Profile) -> None:
        self.host = host
        self._trace = worlds.trace
        clock, rng, telemetry = host.clock, host.rng, NoTelemetry()
        runner = runner_settings(profile)
        intake = IntakeSettings(
            shards=profile.shards,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            scan_interval_ms=profile.scan_interval_ms,
        )
        self.store = HostStore(worlds.store, host)
        self.publisher = HostPublisher(worlds.kafka, host)
        self._ownership = HostOwnership(worlds.group, host)
        destination_waits = DestinationWaits(topic_wait_ms=runner.topic_wait_ms)
        takeover = Takeover(
            self.store, self.publisher, telemetry, node=host.name, retention_ms=runner.retention_ms, rng=rng
        )
        settlement = Settlement(self.store, destination_waits, clock, telemetry, rng, runner)
        shard_pass = ShardPass(
            self.store,
            TransactionalDelivery(takeover, settlement, telemetry),
            AcknowledgedDelivery(self.publisher, settlement),
            destination_waits,
            clock,
            host.guard,
            telemetry,
            runner,
        )
        concurrency = ConcurrencyLimits(
            passes=asyncio.Semaphore(PASSES_AT_ONCE), takeovers=asyncio.Semaphore(TAKEOVERS_AT_ONCE)
        )

        def new_loop(shard: ShardId) -> ShardLoop:
            return ShardLoop(shard, takeover, shard_pass, concurrency, clock, telemetry, rng, runner)

        self.supervisor = Supervisor(new_loop, telemetry, drain_timeout_ms=DRAIN_TIMEOUT_MS)
        self._waker = WakeupSender(self._ownership, self.supervisor.tell)
        self.requests = RequestService(
            context=RequestContext(
                store=self.store,
                search=MemoryScheduleSearch(self.store),
                clock=clock,
                trust=host.guard,
                rng=rng,
                settings=intake,
                waker=self._waker,
                topic_exists=self.publisher.topic_exists,
                telemetry=telemetry,
            )
        )
        self._commands = HostCommandLog(worlds.commands, host) if profile.commanded else None
        self._command_worker = CommandWorker(
            requests=self.requests,
            cluster=CLUSTER,
            publisher=self.publisher,
            rng=rng,
            principal=lambda: ANYONE,
            topic=COMMANDS,
            dead_letter_topic=DEAD_LETTERS,
        )
        self._stop = asyncio.Event()
        self.ended = False

    def start(self) -> None:
        self.host.loop.create_task(self._run(), name="node")

    def stop(self) -> None:
        """SIGTERM."""
        self.host.loop.call_soon(self._stop.set)

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                side = [group.create_task(self._ping()), group.create_task(self._waker.run())]
                if self._commands is not None:
                    side.append(group.create_task(self._commands.run(self._command_worker.work)))
                work = group.create_task(self._work())
                await self._stop.wait()
                work.cancel()
                await asyncio.wait([work])
                for task in side:
                    task.cancel()
        except Exception as error:
            self._trace.violation("defect", f"node {self.host} ended: {describe(error)}")
        self.ended = True

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            member = group.create_task(self._ownership.run(self.supervisor.assign, self._on_wakeup))
            try:
                await self.supervisor.run()
            finally:
                member.cancel()

    def _on_wakeup(self, shard: ShardId, wakeup: WakeUp) -> None:
        self.supervisor.tell(shard, wakeup)

    async def _ping(self) -> None:
        """What `Watch` does for the clock."""
        while True:
            try:
                await self.store.ping()
            except Unavailable:
                await asyncio.sleep(PING_AGAIN_S)
            else:
                await asyncio.sleep(PING_INTERVAL_S)


@dataclass(frozen=True, slots=True)
class CreateCall:
    new: NewSchedule


@dataclass(frozen=True, slots=True)
class CancelCall:
    client_id: ClientId
    schedule_key: ScheduleKey


@dataclass(frozen=True, slots=True)
class FindCall:
    client_id: ClientId
    schedule_key: ScheduleKey


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangeCall:
    """What is None stays as it is."""

    client_id: ClientId
    schedule_key: ScheduleKey
    due_ms: int | None = None
    task_data: bytes | None = None
    lane: tuple[Topic, OrderingKey] | None = None
    lateness: tuple[int, OnLate] | None = None
    if_version: int | None = None

    def __call__(self, schedule: Schedule) -> Schedule:
        topic, ordering_key = self.lane or schedule.lane
        deadline_ms, on_late = self.lateness or (schedule.deadline_ms, schedule.on_late)
        return replace(
            schedule,
            due_ms=schedule.due_ms if self.due_ms is None else self.due_ms,
            task_data=schedule.task_data if self.task_data is None else self.task_data,
            topic=topic,
            ordering_key=ordering_key,
            deadline_ms=deadline_ms,
            on_late=on_late,
        )


@dataclass(frozen=True, slots=True)
class FireCall:
    client_id: ClientId
    schedule_key: ScheduleKey


@dataclass(frozen=True, slots=True)
class RearmCall:
    client_id: ClientId
    schedule_key: ScheduleKey


Call = CreateCall | CancelCall | FindCall | ChangeCall | FireCall | RearmCall


async def answer(node: Node, call: Call) -> object:
    """The request service's answer to a call of the workload."""
    requests, nobody = node.requests, ANYONE
    match call:
        case CreateCall(new):
            return await requests.create(nobody, new)
        case CancelCall(client_id, schedule_key):
            return await requests.cancel(nobody, client_id, schedule_key)
        case FindCall(client_id, schedule_key):
            return await requests.find(nobody, client_id, schedule_key)
        case ChangeCall():
            condition = (
                ANY_VERSION if call.if_version is None else VersionCondition(any_of=frozenset({call.if_version}))
            )
            return await requests.reschedule(nobody, call.client_id, call.schedule_key, call, condition=condition)
        case FireCall(client_id, schedule_key):
            return await requests.fire(nobody, client_id, schedule_key)
        case RearmCall(client_id, schedule_key):
            return await requests.retry_failed(nobody, client_id, schedule_key)
