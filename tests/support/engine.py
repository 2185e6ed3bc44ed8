"""The engine on the twins in memory, one shard of it, with a clock that the test sets."""

import asyncio
import random
from collections import Counter
from typing import Any

from clockwork.domain.record import SCHEDULE_KEY
from clockwork.domain.schedule import EndState, Failure, Row
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
from clockwork.operations.dead_letters import DeadLetterAdmin, Discarder
from clockwork.operations.pauses import PauseAdmin
from clockwork.operations.scan import PendingScan
from clockwork.operations.shards import ShardAdmin
from clockwork.ports.telemetry import NoTelemetry
from clockwork.ports.tracing import NO_TRACER, Tracer
from clockwork.requests.history import History
from clockwork.requests.listing import Listing
from clockwork.requests.service import Requests
from clockwork.requests.waker import Waker
from clockwork.settings.model import IntakeSettings, RunnerSettings
from clockwork.stores.memory.pauses import MemoryPauses
from clockwork.stores.memory.search import MemoryScheduleSearch
from clockwork.stores.memory.store import MemoryScheduleStore
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


class _NoOwnership:
    async def run(self, on_assignment: Any, on_wakeup: Any) -> None:
        raise AssertionError("not in this test")

    async def wake(self, shard: ShardId, wakeup: WakeUp) -> None:
        raise AssertionError("not in this test")


class Engine:
    """Everything of a node but its loops: passes are made by the test, one by one."""

    def __init__(
        self,
        *,
        limits: DestinationRateLimits | None = None,
        tracer: Tracer = NO_TRACER,
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
        telemetry = NoTelemetry()
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
        waker = Waker(_NoOwnership(), self._wake)
        intake_settings = IntakeSettings(shards=SHARDS, request_timeout_ms=request_timeout_ms)
        requests = Requests.on(self.store, self.publisher, waker, self.clock, self.trust, rng, intake_settings)
        self.intake, self.canceller = requests.intake, requests.canceller
        self.rescheduler, self.rearmer = requests.rescheduler, requests.rearmer
        self.turn_of = requests.turn_of
        self.letters = DeadLetterAdmin(MemoryDeadLetters(self.kafka), self.intake, dead_letter_topics(self.settings))
        self.discarder = Discarder(self.store, self.clock, rng, intake_settings)
        self.pauser = PauseAdmin(self.pauses, self.clock, rng, intake_settings)
        search = MemoryScheduleSearch(self.store)
        self.listing = Listing(search, self.store, self.clock, rng, intake_settings)
        self.survey = ShardAdmin(self.store, waker, self.clock, rng, intake_settings)
        self.scan = PendingScan(self.store, search, self.clock, rng, intake_settings)
        self.history = History(search, self.store, self.clock, rng, intake_settings)

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
        await self.store.put_outcomes([ended])
        await self.store.delete_rows(row.shard, [row.position])

    def at_due(self, late_ms: int = 0) -> None:
        self.clock.set_ms(builders.DUE_MS + late_ms)

    def arrived(self, topic: str = builders.TOPIC) -> list[str]:
        """Schedule keys that a read_committed consumer has seen, in order."""
        return [dict(record.headers)[SCHEDULE_KEY].decode() for record in self.kafka.read_committed(topic)]

    def _wake(self, shard: ShardId, wakeup: WakeUp) -> bool:
        self.woken.append((shard, wakeup))
        self.was_woken.set()
        return True
