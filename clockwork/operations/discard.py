"""Discard: a dead letter needs nothing any more, says whoever looks after the service; so it is open no longer.

The mark stands in the pointer, not in the outcome. The pointer is written on condition of its version and position, which
say that what failed there is what stands under the key still: against a retry, or another schedule under the key, exactly
one of the two writes comes first, and the one that comes second knows. And a tidy-up that is repeated, by a new owner or a
zombie, puts the outcome once more as it was, and would take the mark off.

Nothing else looks at the mark. The schedule is `failed` as before, and what expires does so when it would have. A retry of
the key arms it all the same: the version is still what it was, and who changes their mind should not have to undo anything
first. The pointer is then replaced, and the mark gone with it: should it fail again, that is another letter, and open.
"""

import random
from dataclasses import dataclass
from typing import Protocol

from clockwork.clock import Clock
from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.errors import Contested, StoreUnavailable
from clockwork.ports.store import ScheduleStore
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.results import NotFound, ScheduleView, Status
from clockwork.requests.state import Reading
from clockwork.settings.model import IntakeSettings


@dataclass(frozen=True, slots=True)
class Discarded:
    """Now, or before."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class NotOpen:
    """Something else stands under the key by now, as far as it can be read."""

    status: Status
    """`failed`: with another delivery."""
    readable: bool = True
    """False: its content is not, so that nobody can tell which delivery it is."""


class Discards(Protocol):
    """What the edge asks."""

    async def discard(
        self, client_id: ClientId, schedule_key: ScheduleKey, delivery_id: str
    ) -> Discarded | NotOpen | NotFound:
        """Notes that the schedule, failed with this delivery, needs nothing any more. Raises: Unavailable: it may have been
        done; the same request again settles it."""
        ...


class Discarder:
    """Implements `Discards`."""

    def __init__(self, store: ScheduleStore, clock: Clock, rng: random.Random, settings: IntakeSettings) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self._settings = settings
        self._reading = Reading(store, clock, retention_ms=settings.retention_ms)

    async def discard(
        self, client_id: ClientId, schedule_key: ScheduleKey, delivery_id: str
    ) -> Discarded | NotOpen | NotFound:
        """See `Discards`."""
        patience = RequestDeadline(self._settings.request_timeout_ms, self._rng)
        async with patience.kept():
            while True:
                try:
                    pointer = await self._store.read_pointer(client_id, schedule_key)
                    if pointer is None or await self._reading.forgotten(pointer):
                        return NotFound()
                    view = await self._reading.view_at(pointer)
                    if view is not None:
                        if not failed_with(view, delivery_id):
                            return NotOpen(view.status, readable=view.schedule is not None)
                        return Discarded(await self._store.discard(pointer, at_ms=self._clock.now_ms()))
                    why = "the schedule is being changed by another request"
                except (Contested, StoreUnavailable) as error:
                    # Whatever was applied meanwhile, the next round reads.
                    why = f"the dead letter could not be discarded in time: {error}"
                await patience.pause(why)


def failed_with(view: ScheduleView, delivery_id: str | None) -> bool:
    """Whether what stands there is failed with this very delivery."""
    schedule = view.schedule
    return view.status is Status.FAILED and schedule is not None and schedule.delivery_id == delivery_id
