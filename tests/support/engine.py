"""The engine on the twins in memory, one shard of it, with a clock that the test sets."""

import asyncio
import random
from collections import Counter
from typing import Any

from clockwork.domain.command_notes import CommandOffset
from clockwork.domain.record import SCHEDULE_KEY
from clockwork.domain.rights import ANYONE
from clockwork.domain.schedule import ClientId, EndState, Failure, NewSchedule, Row, ScheduleKey
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import WakeUp
from clockwork.firing.dead_letters import dead_letter_topics
from clockwork.firing.deliver_acknowledged import AcknowledgedDelivery
from clockwork.firing.deliver_transactional import TransactionalDelivery
from clockwork.firing.destination_waits import DestinationRateLimits, DestinationWaits
from clockwork.firing.pause_watch import PauseWatch
from clockwork.firing.settlement import Settlement
from clockwork.firing.shard_pass import PassResult, ShardPass
from clockwork.firing.takeover import ShardLease, Takeover
from clockwork.kafka.memory.broker import MemoryKafka
from clockwork.kafka.memory.dead_letters import MemoryDeadLetters
from clockwork.kafka.memory.publisher import MemoryPublisher
from clockwork.kafka.memory.wakeups import DirectWaker
from clockwork.operations.dead_letters import DeadLetterAdmin, Discarder
from clockwork.operations.pauses import PauseAdmin
from clockwork.operations.scan import PendingScan
from clockwork.operations.shards import ShardAdmin
from clockwork.ports.telemetry import NoTelemetry, Telemetry
from clockwork.ports.tracing import NO_TRACER, Tracer
from clockwork.requests.context import RequestContext
from clockwork.requests.dedup import CommandDedup
from clockwork.requests.results import (
    ANY_VERSION,
    CancelResult,
    Change,
    ChangeResult,
    CreateResult,
    ScheduleView,
    VersionCondition,
)
from clockwork.requests.service import RequestService
from clockwork.settings.model import IntakeSettings, RunnerSettings
from clockwork.stores.memory.store import MemoryPauses, MemoryScheduleSearch, MemoryScheduleStore
from tests.support import builders
from tests.support.clocks import ManualClock, TrustedClock

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
        self.kafka = MemoryKafka(cluster="clockwork", shards=SHARDS)
        self.kafka.create_topic(builders.TOPIC)
        self.publisher = MemoryPublisher(self.kafka, self.clock)
        self.settings = RunnerSettings(**settings)
        self.destination_waits = DestinationWaits(topic_wait_ms=self.settings.topic_wait_ms, limits=limits)
        self.woken: list[tuple[ShardId, WakeUp]] = []
        self.was_woken = asyncio.Event()
        rng = random.Random(7)
        telemetry = telemetry or NoTelemetry()
        self.takeover = Takeover(
            self.store, self.publisher, telemetry, node="node", retention_ms=self.settings.retention_ms, rng=rng
        )
        settlement = Settlement(
            self.store, self.destination_waits, self.clock, telemetry, rng, self.settings, tracer=tracer
        )
        self.pauses = MemoryPauses()
        self.pause_watch = PauseWatch(self.pauses, telemetry, on_change=lambda: None)
        self.shard_pass = ShardPass(
            self.store,
            TransactionalDelivery(self.takeover, settlement, telemetry),
            AcknowledgedDelivery(self.publisher, settlement),
            self.destination_waits,
            self.clock,
            self.trust,
            telemetry,
            self.settings,
            pauses=self.pause_watch.current,
        )
        intake_settings = IntakeSettings(shards=SHARDS, request_timeout_ms=request_timeout_ms)
        self.context = RequestContext(
            store=self.store,
            search=MemoryScheduleSearch(self.store),
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
        self.survey = ShardAdmin(self.store, self.context.waker, self.clock, rng, intake_settings)
        self.scan = PendingScan(self.store, self.context.search, self.clock, rng, intake_settings)

    # --- requests in nobody's name

    async def create(self, new: NewSchedule, *, command: CommandDedup | None = None) -> CreateResult:
        return await self.requests.create(ANYONE, new, command=command)

    async def find(self, client_id: ClientId, schedule_key: ScheduleKey) -> ScheduleView | None:
        return await self.requests.state_of(client_id, schedule_key)

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
        return CommandDedup(self.context, client_id, schedule_key, place)

    # --- firing

    async def own(self) -> ShardLease:
        """Takes the shard over."""
        return await self.takeover.run(SHARD)

    async def one_pass(self, lease: ShardLease) -> PassResult:
        return await self.shard_pass.run(lease, records_max=self.settings.batch_records_max)

    async def put(self, *rows: Row) -> None:
        """Stores rows as accepted schedules."""
        for row in rows:
            await self.store.create(row, builders.pointer(row), replaces_version=None)

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
