"""Discard: a dead letter needs nothing any more, says whoever looks after the service; so it is open no longer.

The mark stands in the pointer, not in the outcome. The pointer is written on condition of its version and position, which
say that what failed there is what stands under the key still: against a retry, or another schedule under the key, exactly
one of the two writes comes first, and the one that comes second knows. And a tidy-up that is repeated, by a new owner or a
zombie, puts the outcome once more as it was, and would take the mark off.

Nothing else looks at the mark. The schedule is `failed` as before, and what expires does so when it would have. A retry of
the key arms it all the same: the version is still what it was, and who changes their mind should not have to undo anything
first. The pointer is then replaced, and the mark gone with it: should it fail again, that is another letter, and open.
"""

from dataclasses import dataclass

from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.errors import Contested, StoreUnavailable
from clockwork.requests import state
from clockwork.requests.context import RequestContext
from clockwork.requests.results import NotFound, ScheduleView, Status


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


@dataclass(frozen=True, slots=True)
class Discarder:
    """Marks failed schedules as discarded."""

    context: RequestContext

    async def discard(
        self, client_id: ClientId, schedule_key: ScheduleKey, delivery_id: str
    ) -> Discarded | NotOpen | NotFound:
        """Notes that the schedule, failed with this delivery, needs nothing any more. Raises: Unavailable: it may have been
        done; the same request again settles it."""
        context = self.context
        async with context.deadline() as deadline:
            while True:
                try:
                    pointer = await context.store.read_pointer(client_id, schedule_key)
                    if pointer is None or await state.forgotten(context, pointer):
                        return NotFound()
                    view = await state.view_at(context, pointer)
                    if view is not None:
                        if not failed_with(view, delivery_id):
                            return NotOpen(view.status, readable=view.schedule is not None)
                        return Discarded(await context.store.discard(pointer, at_ms=context.clock.now_ms()))
                    why = state.BEING_CHANGED
                except (Contested, StoreUnavailable) as error:
                    # A write may have been applied all the same: the next round reads.
                    why = f"the dead letter could not be discarded in time: {error}"
                await deadline.pause(why)


def failed_with(view: ScheduleView, delivery_id: str | None) -> bool:
    """Whether what stands there is failed with this very delivery."""
    schedule = view.schedule
    return view.status is Status.FAILED and schedule is not None and schedule.delivery_id == delivery_id
