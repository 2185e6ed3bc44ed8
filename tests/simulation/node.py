"""One node: the production engine, put together as `clockwork.node.app` does it, over the simulated worlds."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import Final

from clockwork.commands.worker import CommandWorker
from clockwork.domain import schedule
from clockwork.domain.destination import Topic
from clockwork.domain.pauses import NOTHING_PAUSED, Pause, PauseKind
from clockwork.domain.rights import ANYONE
from clockwork.domain.schedule import ClientId, NewSchedule, OnLate, OrderingKey, Schedule, ScheduleKey
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import WakeUp
from clockwork.errors import Unavailable
from clockwork.firing import group_commit, shard_pass
from clockwork.firing.context import FiringContext
from clockwork.firing.destination_waits import DestinationWaits
from clockwork.firing.job_chains import JobChains
from clockwork.firing.supervisor import Supervisor
from clockwork.kafka.wakeups import WakeupSender
from clockwork.operations import job_audit
from clockwork.operations.job_audit import JobAudit
from clockwork.ports.telemetry import NoTelemetry
from clockwork.requests import state
from clockwork.requests.context import RequestContext
from clockwork.requests.jobs.calendars import follow_calendars_of
from clockwork.requests.jobs.service import JobService
from clockwork.requests.jobs.take import take_armed
from clockwork.requests.results import ANY_VERSION, VersionCondition
from clockwork.requests.service import RequestService
from clockwork.settings.model import IntakeSettings, RunnerSettings
from clockwork.stores.memory.store import MemoryScheduleSearch
from tests.simulation.command_world import COMMANDS, CommandWorld, HostCommandLog
from tests.simulation.faults import Profile
from tests.simulation.group_world import GroupWorld, HostOwnership
from tests.simulation.host import Host
from tests.simulation.job_world import HostJobStore, JobWorld
from tests.simulation.kafka_host import HostPublisher
from tests.simulation.kafka_world import CLUSTER, DEAD_LETTERS, OWN_DEAD_LETTERS, KafkaWorld
from tests.simulation.store_world import HostStore, StoreWorld
from tests.simulation.trace import Trace, describe

PING_INTERVAL_S: Final = 5.0
PING_AGAIN_S: Final = 1.0
DRAIN_TIMEOUT_MS: Final = 1_500
PASSES_AT_ONCE: Final = 2
"""Small, so that runs reach it."""
REQUEST_TIMEOUT_MS: Final = 3_000
AUDIT_MS: Final = 1_000
"""Between two audits of a shard's jobs, so that a run has some."""
AUDIT_START_S: Final = 0.5


@contextlib.contextmanager
def engine_limits(profile: Profile) -> Iterator[None]:
    """The engine's own limits, so small that a few rows reach them."""
    limits: list[tuple[ModuleType, str, float]] = [
        (group_commit, "QUICK_ROWS_MAX", profile.quick_rows),
        (group_commit, "QUICK_WAIT_MS_MAX", profile.quick_wait_ms),
    ]
    limits += [
        (job_audit, "START_S", AUDIT_START_S),
        (job_audit, "CONFIRM_S", profile.audit_confirm_s),
        (job_audit, "POLL_S", AUDIT_START_S),
    ]
    if profile.pointer_margin_ms is not None:
        limits += [
            (schedule, "POINTER_MARGIN_MS", profile.pointer_margin_ms),
            (state, "POINTER_MARGIN_MS", profile.pointer_margin_ms),
            (shard_pass, "POINTER_PUSH_AFTER_MS", profile.pointer_margin_ms // 3),
        ]
    before = [(module, name, getattr(module, name)) for module, name, _ in limits]
    try:
        for module, name, value in limits:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


class PausesWorld:
    """Topics that an operator has paused; every node knows it at once."""

    def __init__(self) -> None:
        self.present = NOTHING_PAUSED

    def pause(self, topic: str, *, at_ms: int) -> None:
        self.present = self.present.with_pause(PauseKind.TOPIC, topic, Pause(since_ms=at_ms, by="operator"))

    def resume(self, topic: str) -> None:
        self.present = self.present.without_pause(PauseKind.TOPIC, topic)

    def resume_all(self) -> None:
        for topic in list(self.present.topics):
            self.resume(topic)


@dataclass(frozen=True, kw_only=True, slots=True)
class Worlds:
    """All that nodes have in common."""

    store: StoreWorld
    jobs: JobWorld
    kafka: KafkaWorld
    group: GroupWorld
    commands: CommandWorld
    pauses: PausesWorld
    trace: Trace


def runner_settings(profile: Profile) -> RunnerSettings:
    """Short waits, so that a run reaches the end of each."""
    return RunnerSettings(
        scan_interval_ms=profile.scan_interval_ms,
        frontier_lead_ms=profile.lead_ms,
        batch_records_max=profile.batch_records_max,
        transaction_pace_ms=profile.pace_ms,
        retry_attempts=3,
        retry_initial_ms=profile.retry_initial_ms,
        retry_max_ms=max(2_000, profile.retry_initial_ms),
        topic_wait_ms=2_500,
        retention_ms=profile.retention_ms,
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
            retention_ms=profile.retention_ms,
            jobs="on",
        )
        self.store = HostStore(worlds.store, host)
        self.jobs = HostJobStore(self.store, worlds.jobs)
        self.publisher = HostPublisher(worlds.kafka, host)
        self._ownership = HostOwnership(worlds.group, host)
        self.supervisor = Supervisor(
            FiringContext(
                store=self.store,
                jobs=self.jobs,
                publisher=self.publisher,
                ownership=self._ownership,
                destination_waits=DestinationWaits(
                    topic_wait_ms=runner.topic_wait_ms, topic_missing=self.publisher.topic_missing
                ),
                clock=clock,
                trust=host.guard,
                telemetry=telemetry,
                rng=rng,
                settings=runner,
                process=host.process,
                node=host.name,
                drain_timeout_ms=DRAIN_TIMEOUT_MS,
                wake=lambda shard, wakeup: self._waker.wake(shard, wakeup),
                pauses=lambda: worlds.pauses.present,
                passes_at_once=PASSES_AT_ONCE,
                prefix_rows_min=profile.prefix_rows,
            ),
            shards=profile.shards,
        )
        self._waker = WakeupSender(self._ownership, self.supervisor.tell)
        self.requests = RequestService(
            context=RequestContext(
                store=self.store,
                search=MemoryScheduleSearch(self.store),
                jobs=self.jobs,
                clock=clock,
                trust=host.guard,
                rng=rng,
                settings=intake,
                waker=self._waker,
                topic_exists=self.publisher.topic_exists,
                telemetry=telemetry,
            )
        )
        self.job_requests = JobService(context=self.requests.context)
        chains = JobChains(
            self.jobs,
            clock,
            host.guard,
            rng,
            telemetry,
            runner,
            shards=profile.shards,
            wake=lambda shard, wakeup: self._waker.wake(shard, wakeup),
        )
        self._audit = JobAudit(
            self.jobs,
            self.requests.context.search,
            chains,
            clock,
            host.guard,
            telemetry,
            take=partial(take_armed, self.requests.context),
            follow_calendars=partial(follow_calendars_of, self.requests.context),
            shards=profile.shards,
            interval_ms=AUDIT_MS,
        )
        self._audits = profile.jobs > 0
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
            side = [group.create_task(self._ownership.run(self.supervisor.assign, self._on_wakeup))]
            if self._audits:
                side.append(group.create_task(self._audit.run(lambda: self.supervisor.shards)))
            try:
                await self.supervisor.run()
            finally:
                for task in side:
                    task.cancel()

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
    """A change; None: it stays as it is."""

    client_id: ClientId
    schedule_key: ScheduleKey
    due_ms: int | None = None
    task_data: bytes | None = None
    lane: tuple[Topic, OrderingKey] | None = None
    lateness: tuple[int, OnLate] | None = None
    if_version: int | None = None

    def __call__(self, present: Schedule) -> Schedule:
        topic, ordering_key = self.lane or present.lane
        deadline_ms, on_late = self.lateness or (present.deadline_ms, present.on_late)
        return replace(
            present,
            due_ms=present.due_ms if self.due_ms is None else self.due_ms,
            task_data=present.task_data if self.task_data is None else self.task_data,
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


@dataclass(frozen=True, slots=True)
class JobCall:
    """A request about a job."""

    what: str
    ask: Callable[[JobService], Awaitable[object]]


Call = CreateCall | CancelCall | FindCall | ChangeCall | FireCall | RearmCall


async def answer(node: Node, call: Call | JobCall) -> object:
    """The request service's answer to a call of the workload."""
    requests, caller = node.requests, ANYONE
    match call:
        case CreateCall(new):
            return await requests.create(caller, new)
        case CancelCall(client_id, schedule_key):
            return await requests.cancel(caller, client_id, schedule_key)
        case FindCall(client_id, schedule_key):
            return await requests.find(caller, client_id, schedule_key)
        case ChangeCall():
            condition = (
                ANY_VERSION if call.if_version is None else VersionCondition(any_of=frozenset({call.if_version}))
            )
            return await requests.reschedule(caller, call.client_id, call.schedule_key, call, condition=condition)
        case FireCall(client_id, schedule_key):
            return await requests.fire(caller, client_id, schedule_key)
        case RearmCall(client_id, schedule_key):
            return await requests.retry_failed(caller, client_id, schedule_key)
        case JobCall(_, ask):
            return await ask(node.job_requests)
