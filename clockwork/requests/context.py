"""The dependencies of every request: built once for a node, passed to each use case."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property

from clockwork.clock import Clock, ClockTrust
from clockwork.domain.ownership import IncarnationId
from clockwork.domain.sharding import ShardId
from clockwork.errors import ClockUntrusted
from clockwork.ports.jobs import JobStore
from clockwork.ports.ownership import Waker
from clockwork.ports.store import ScheduleSearch, ScheduleStore
from clockwork.ports.telemetry import Telemetry
from clockwork.ports.tracing import NO_TRACER, Tracer
from clockwork.requests.deadline import RequestDeadline
from clockwork.settings.model import IntakeSettings


class AcceptanceClock:
    """Times of acceptance, in epoch microseconds. Each is later than the one before, so positions sort by acceptance."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_us = 0

    def next_us(self) -> int:
        self._last_us = max(self._clock.now_us(), self._last_us + 1)
        return self._last_us


@dataclass(frozen=True, kw_only=True)
class RequestContext:
    """The dependencies of the requests of one node."""

    store: ScheduleStore
    search: ScheduleSearch
    jobs: JobStore
    clock: Clock
    trust: ClockTrust
    rng: random.Random
    settings: IntakeSettings
    waker: Waker
    topic_exists: Callable[[str], Awaitable[bool]]
    """`Publisher.topic_exists`. Raises: BrokerUnavailable."""
    telemetry: Telemetry
    tracer: Tracer = NO_TRACER
    lists: bool = True
    """False: this cluster keeps no index to list schedules from."""
    last_owners: dict[ShardId, IncarnationId] = field(default_factory=dict)
    """The owner of each shard as this node last saw it: a guess, which saves a round trip when it is right (`hold`)."""

    @cached_property
    def acceptance(self) -> AcceptanceClock:
        return AcceptanceClock(self.clock)

    @asynccontextmanager
    async def deadline(self) -> AsyncIterator[RequestDeadline]:
        """The time limit of one request, enforced over the block. Raises: Unavailable at its end."""
        deadline = RequestDeadline(self.settings.request_timeout_ms, self.rng)
        async with deadline.enforced():
            yield deadline

    def check_clock(self) -> None:
        """Raises: ClockUntrusted. A row is accepted and due by this node's clock."""
        if not self.trust.trusted():
            raise ClockUntrusted
