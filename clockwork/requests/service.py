"""What is done with requests about schedules, whichever way they come in: over HTTP or as commands."""

import random
from dataclasses import dataclass
from functools import partial
from typing import Self

from clockwork.clock import Clock, ClockTrust
from clockwork.ports.delivery import Publisher
from clockwork.ports.store import ScheduleStore
from clockwork.requests.cancel import Canceller
from clockwork.requests.create import Intake
from clockwork.requests.dedup import CommandDedup, TurnOf
from clockwork.requests.reschedule import Rescheduler
from clockwork.requests.retry_failed import Rearmer
from clockwork.requests.waker import Waker
from clockwork.settings.model import IntakeSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class Requests:
    """One node's."""

    intake: Intake
    canceller: Canceller
    rescheduler: Rescheduler
    rearmer: Rearmer
    turn_of: TurnOf

    @classmethod
    def on(
        cls,
        store: ScheduleStore,
        publisher: Publisher,
        waker: Waker,
        clock: Clock,
        trust: ClockTrust,
        rng: random.Random,
        settings: IntakeSettings,
    ) -> Self:
        """On these tables and topics."""
        return cls(
            intake=Intake(store, publisher, waker, clock, trust, rng, settings),
            canceller=Canceller(store, waker, clock, rng, settings),
            rescheduler=Rescheduler(store, publisher, waker, clock, trust, rng, settings),
            rearmer=Rearmer(store, publisher, waker, clock, trust, rng, settings),
            turn_of=partial(CommandDedup, store, clock, rng, settings.retention_ms),
        )
