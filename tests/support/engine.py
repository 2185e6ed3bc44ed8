"""The engine on the twins in memory, one shard of it, with a clock that the test sets."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from clockwork.domain.activity import merged_waits
from clockwork.domain.command_notes import CommandOffset
from clockwork.domain.ownership import ProcessId, incarnation_id
from clockwork.domain.record import SCHEDULE_KEY
from clockwork.domain.rights import ANYONE
from clockwork.domain.schedule import ClientId, EndState, Failure, NewSchedule, Row, ScheduleKey
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import WakeUp
from clockwork.firing.context import FiringContext
from clockwork.firing.dead_letters import dead_letter_topics
from clockwork.firing.destination_waits import DestinationRateLimits, DestinationWaits
from clockwork.firing.incarnation import RunningIncarnation
from clockwork.firing.lease import ShardLease
from clockwork.firing.pause_watch import PauseWatch
from clockwork.firing.shard_pass import PassResult, ShardPass
from clockwork.firing.supervisor import Work
from clockwork.firing.takeover import Takeover
from clockwork.http.server import QueryServices
from clockwork.kafka.memory.activity import MemoryActivity
from clockwork.kafka.memory.broker import MemoryKafka
from clockwork.kafka.memory.dead_letters import MemoryDeadLetters
from clockwork.kafka.memory.publisher import MemoryPublisher
from clockwork.kafka.memory.wakeups import DirectWaker
from clockwork.observability.activity import ActivityRecorder, RecordingTelemetry
from clockwork.observability.known_clients import ClientRecorder
from clockwork.operations.activity import ActivityTail
from clockwork.operations.clients import ClientDirectory
from clockwork.operations.dead_letters import DeadLetterAdmin, Discarder
from clockwork.operations.forecast import Forecaster
from clockwork.operations.pauses import PauseAdmin
from clockwork.operations.processes import ProcessSurvey
from clockwork.operations.scan import PendingScan
from clockwork.operations.shards import ShardAdmin
from clockwork.ports.telemetry import NoTelemetry, Telemetry
from clockwork.ports.tracing import NO_TRACER, Tracer
from clockwork.requests.context import RequestContext
from clockwork.requests.dedup import CommandDedup, ScheduleNotes
from clockwork.requests.results import (
    ANY_VERSION,
    CancelResult,
    Change,
    ChangeResult,
    CreateResult,
    ScheduleView,
    VersionCondition,
)
from clockwork.requests.search import KeySearch
from clockwork.requests.service import RequestService
from clockwork.requests.upcoming import UpcomingReader
from clockwork.requests.why import WhyReader
from clockwork.settings.model import IntakeSettings, RunnerSettings
from clockwork.stores.memory.jobs import JobTables, MemoryJobStore
from clockwork.stores.memory.registry import MemoryRegistry
from clockwork.stores.memory.store import MemoryPauses, MemoryScheduleSearch, MemoryScheduleStore
from tests.support import builders
from tests.support.clocks import ManualClock, TrustedClock
from tests.support.endings import ENDINGS

SHARD = builders.SHARD
SHARDS = 8


class CountingStore(MemoryScheduleStore):
    """Remembers how often each method was called."""

    def __init__(self, *, shards: int) -> None:
        super().__init__(shards=shards)
        self.calls: Counter[str] = Counter()

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if not name.startswith("_") and callable(found) and name != "calls":
            super().__getattribute__("calls")[name] += 1
        return found


class AssignedToOne:
    """The port ShardOwnership of a group with one member, which is assigned every shard."""

    def __init__(self, wake: Callable[[ShardId, WakeUp], None]) -> None:
        self._wake = wake
        self.members: frozenset[ProcessId] = frozenset()

    async def run(
        self, on_assignment: Callable[[frozenset[ShardId]], None], on_wakeup: Callable[[ShardId, WakeUp], None]
    ) -> None:
        on_assignment(await self.confirmed_assignment())
        await asyncio.Event().wait()

    async def confirmed_assignment(self) -> frozenset[ShardId]:
        return frozenset(map(ShardId, range(SHARDS)))

    async def member_processes(self) -> frozenset[ProcessId]:
        return self.members

    async def wake(self, shard: ShardId, wakeup: WakeUp) -> None:
        self._wake(shard, wakeup)


async def first_cause(task: asyncio.Task[None]) -> None:
    """Raises the first error of a task that failed with a group of them."""
    try:
        await task
    except BaseExceptionGroup as group:
        cause: BaseException = group
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        raise cause from None


class Engine:
    """Everything of a node but its loops: passes are made by the test, one by one."""

    def __init__(
        self,
        *,
        limits: DestinationRateLimits | None = None,
        tracer: Tracer = NO_TRACER,
        telemetry: Telemetry | None = None,
        request_timeout_ms: int = 60_000,
        clock: ManualClock | None = None,
        **settings: Any,
    ) -> None:
        """`request_timeout_ms`: longer than a busy machine stands still; short only where a test waits for its end."""
        self.clock = clock or ManualClock(builders.DUE_MS - 60_000)
        self.trust = TrustedClock()
        self.store = CountingStore(shards=SHARDS)
        self.jobs = MemoryJobStore(self.store, JobTables())
        self.kafka = MemoryKafka(cluster="clockwork", shards=SHARDS)
        self.kafka.create_topic(builders.TOPIC)
        self.publisher = MemoryPublisher(self.kafka, self.clock)
        self.settings = RunnerSettings(**settings)
        self.destination_waits = DestinationWaits(
            topic_wait_ms=self.settings.topic_wait_ms, topic_missing=self.publisher.topic_missing, limits=limits
        )
        self.woken: list[tuple[ShardId, WakeUp]] = []
        self.was_woken = asyncio.Event()
        rng = random.Random(7)
        telemetry = telemetry or NoTelemetry()
        self.pauses = MemoryPauses()
        self.pause_watch = PauseWatch(self.pauses, telemetry, on_change=lambda: None)
        self.ownership = AssignedToOne(self._wake)
        self.firing = FiringContext(
            store=self.store,
            jobs=self.jobs,
            publisher=self.publisher,
            ownership=self.ownership,
            destination_waits=self.destination_waits,
            clock=self.clock,
            trust=self.trust,
            telemetry=telemetry,
            rng=rng,
            settings=self.settings,
            process=ProcessId("0123456789abcdef"),
            node="host:1",
            drain_timeout_ms=5_000,
            wake=self._wake,
            pauses=self.pause_watch.current,
            tracer=tracer,
        )
        self.works: dict[str, Work] = {}
        """By incarnation."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        intake_settings = IntakeSettings(shards=SHARDS, request_timeout_ms=request_timeout_ms, jobs="on")
        self.context = RequestContext(
            store=self.store,
            search=MemoryScheduleSearch(self.store),
            jobs=self.jobs,
            clock=self.clock,
            trust=self.trust,
            rng=rng,
            settings=intake_settings,
            waker=DirectWaker(self._wake),
            topic_exists=self._topic_exists,
            telemetry=telemetry,
            tracer=tracer,
        )
        self.requests = RequestService(context=self.context)
        self.letters = DeadLetterAdmin(MemoryDeadLetters(self.kafka), self.requests, dead_letter_topics(self.settings))
        self.discarder = Discarder(self.context)
        self.pauser = PauseAdmin(self.pauses, self.clock, rng, intake_settings)
        self.activity = MemoryActivity(self.kafka, self.clock)
        self.tail = ActivityTail(self.activity, self.clock)
        self.recorder: ActivityRecorder | None = None
        """The recording of activity, if the telemetry records it."""
        if isinstance(telemetry, RecordingTelemetry):
            self.recorder = telemetry.recorder = ActivityRecorder(self.activity, self.clock, telemetry)
        self.registry = MemoryRegistry()
        self.clients = ClientDirectory(store=self.registry, clock=self.clock)
        self.notes: ClientRecorder | None = None
        """The notes of clients that create, if the telemetry takes them."""
        if isinstance(telemetry, RecordingTelemetry):
            self.notes = telemetry.clients = ClientRecorder(self.registry, self.clock)
        self.processes = ProcessSurvey(
            store=self.registry, clock=self.clock, member_processes=self.ownership.member_processes
        )
        self.shard_admin = ShardAdmin(
            self.store, self.context.search, self.pauses, self.context.waker, self.clock, rng, intake_settings
        )
        self.query_services = QueryServices(
            why=WhyReader(
                context=self.context,
                pauses=self.pauses,
                waits=self.destination_waits.at,
                refusing_topics=lambda now_ms: merged_waits(
                    self.tail.refusing_topics(), self.destination_waits.refusing_topics(now_ms)
                ),
            ),
            upcoming=UpcomingReader(context=self.context),
            forecaster=Forecaster(context=self.context),
            search=KeySearch(context=self.context, clients=self.clients.names, events_of=self.tail.of_delivery),
        )
        self.scan = PendingScan(self.store, self.context.search, self.clock, rng, intake_settings)

    # --- requests without a caller

    async def create(self, new: NewSchedule, *, command: CommandDedup | None = None) -> CreateResult:
        return await self.requests.create(ANYONE, new, command=command)

    async def find(self, client_id: ClientId, schedule_key: ScheduleKey) -> ScheduleView | None:
        return await self.requests.find_unchecked(client_id, schedule_key)

    async def cancel(
        self,
        client_id: ClientId,
        schedule_key: ScheduleKey,
        *,
        condition: VersionCondition = ANY_VERSION,
        command: CommandDedup | None = None,
    ) -> CancelResult:
        return await self.requests.cancel(ANYONE, client_id, schedule_key, condition=condition, command=command)

    async def change(
        self,
        client_id: ClientId,
        schedule_key: ScheduleKey,
        change: Change,
        *,
        condition: VersionCondition = ANY_VERSION,
        command: CommandDedup | None = None,
    ) -> ChangeResult:
        return await self.requests.reschedule(
            ANYONE, client_id, schedule_key, change, condition=condition, command=command
        )

    async def fire(self, client_id: ClientId, schedule_key: ScheduleKey) -> ChangeResult:
        return await self.requests.fire(ANYONE, client_id, schedule_key)

    async def retry(
        self,
        client_id: ClientId,
        schedule_key: ScheduleKey,
        *,
        due_ms: int | None = None,
        condition: VersionCondition = ANY_VERSION,
    ) -> ChangeResult:
        return await self.requests.retry_failed(ANYONE, client_id, schedule_key, due_ms=due_ms, condition=condition)

    def dedup(self, client_id: ClientId, schedule_key: ScheduleKey, place: CommandOffset) -> CommandDedup:
        """The guard of the command at this place."""
        return CommandDedup(self.context, ScheduleNotes(self.context, client_id, schedule_key), place)

    # --- firing

    async def own(self, shard: ShardId = SHARD) -> ShardLease:
        """Starts another incarnation, which takes the shard over, by fencing the incarnation that owns it. Its transactions
        go on by themselves; passes are made by the test."""
        count = len(self.works) + 1
        own = RunningIncarnation(
            incarnation_id(self.firing.process, count),
            self.store,
            self.clock,
            self.trust,
            node=self.firing.node,
            frontier_lead_ms=self.settings.frontier_lead_ms,
        )
        work = self.works[own.id] = Work(self.firing, own, shards=SHARDS, assigned=lambda: frozenset({shard}))
        await own.start()
        if self.stop not in ENDINGS:
            ENDINGS.append(self.stop)
        self._tasks[own.id] = asyncio.get_running_loop().create_task(work.deliver(), name=f"delivery of {own.id}")
        leases: asyncio.Queue[ShardLease] = asyncio.Queue()
        taken: set[ShardId] = set()

        def on_taken(some: Sequence[ShardLease]) -> None:
            for lease in some:
                taken.add(lease.shard)
                leases.put_nowait(lease)

        takeover = Takeover(
            self.firing,
            own,
            work.chains,
            missing=lambda: frozenset({shard}) - taken,
            new_lease=work.new_lease,
            on_taken=on_taken,
        )
        taking = asyncio.get_running_loop().create_task(takeover.run(), name="take-over")
        getting = asyncio.get_running_loop().create_task(leases.get(), name="lease")
        await asyncio.wait([taking, getting], return_when=asyncio.FIRST_COMPLETED)
        if not getting.done():
            await first_cause(taking)
        taking.cancel()
        return getting.result()

    async def stop(self) -> None:
        """Ends the deliveries of all incarnations, as a crash does: nothing is released. Done after each test by itself."""
        tasks = [task for task in self._tasks.values() if not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def shard_pass(self, lease: ShardLease) -> ShardPass:
        """The maker of this lease's passes."""
        return self.works[lease.incarnation.id].shard_pass

    async def one_pass(self, lease: ShardLease) -> PassResult:
        """Makes a pass, and waits until none of its rows is in flight. Raises: what ended the incarnation, if that came
        first."""
        result = await self.shard_pass(lease).run(lease, records_max=self.settings.batch_records_max)
        await self.landed(lease)
        return result

    async def landed(self, lease: ShardLease) -> None:
        """Waits until nothing of the lease is in flight. Raises: what ended the incarnation, if that came first."""
        delivering = self._tasks[lease.incarnation.id]
        landing = asyncio.Event()
        lease.in_flight.awaited = True
        lease.in_flight.on_landing = landing.set
        while lease.in_flight:
            landing.clear()
            waiting = asyncio.get_running_loop().create_task(landing.wait(), name="landing")
            await asyncio.wait([delivering, waiting], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if delivering.done():
                await first_cause(delivering)

    async def put(self, *rows: Row) -> None:
        """Stores rows as accepted schedules."""
        for row in rows:
            await self.store.create(row, builders.pointer(row), replaces=None)

    async def fail(self, row: Row) -> None:
        """Its topic has refused it too often."""
        failure = Failure(reason="record_too_large", attempts=8)
        ended = builders.outcome(row, EndState.FAILED, failure=failure, expires_at_s=2**40)
        await self.store.finish(row.shard, [builders.end(row, ended)])

    def at_due(self, late_ms: int = 0) -> None:
        self.clock.set_ms(builders.DUE_MS + late_ms)

    def arrived(self, topic: str = builders.TOPIC) -> list[str]:
        """Schedule keys that a read_committed consumer has seen, in order."""
        return [dict(record.headers)[SCHEDULE_KEY].decode() for record in self.kafka.read_committed(topic)]

    async def _topic_exists(self, topic: str) -> bool:
        return await self.publisher.topic_exists(topic)

    def _wake(self, shard: ShardId, wakeup: WakeUp) -> None:
        self.woken.append((shard, wakeup))
        self.was_woken.set()
