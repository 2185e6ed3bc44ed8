"""The ports, clocks and settings that all incarnations of a process share."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from clockwork.clock import Clock, ClockTrust
from clockwork.domain.ownership import ProcessId
from clockwork.domain.pauses import NOTHING_PAUSED, Pauses
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import WakeUp
from clockwork.firing.destination_waits import DestinationWaits
from clockwork.ports.delivery import Publisher
from clockwork.ports.jobs import JobStore
from clockwork.ports.ownership import ShardOwnership
from clockwork.ports.store import ScheduleStore
from clockwork.ports.telemetry import Telemetry
from clockwork.ports.tracing import NO_TRACER, Tracer
from clockwork.settings.model import RunnerSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class FiringContext:
    """Ports, clocks and settings of one process."""

    store: ScheduleStore
    jobs: JobStore
    publisher: Publisher
    ownership: ShardOwnership
    destination_waits: DestinationWaits
    clock: Clock
    trust: ClockTrust
    telemetry: Telemetry
    rng: random.Random
    settings: RunnerSettings
    process: ProcessId
    node: str
    """Host and process number, for people."""
    drain_timeout_ms: int
    wake: Callable[[ShardId, WakeUp], None]
    """`Waker.wake`: tells the owner of a shard, here or elsewhere, that a row is new."""
    pauses: Callable[[], Pauses] = field(default=lambda: NOTHING_PAUSED)
    tracer: Tracer = NO_TRACER
    passes_at_once: int = 32
    """Passes under way in the process: bounds its memory, and lets each shard have its turn (first come, first served),
    however long another one's backlog is."""
    prefix_rows_min: int = 200
    """Rows from which on a blocked prefix is kept; a shorter one is read again at each pass."""
