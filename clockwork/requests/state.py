"""What a key's schedule is now: pointer, then the outcome of its position, both strongly.

Never from the row alone: between the outcome and the row's delete, an answer from the row would go backwards.
"""

import asyncio
from typing import Final

from clockwork.clock import Clock
from clockwork.domain.position import accepted_ms_of, due_ms_of
from clockwork.domain.schedule import BrokenRow, ClientId, EndState, Outcome, Pointer, Row, Schedule, ScheduleKey
from clockwork.ports.store import ScheduleStore
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.results import Reason, Refused, ScheduleView, Status

FORGOTTEN_PAUSE_S: Final = 0.2
"""A decided transaction is applied in milliseconds."""

_STATUS = {
    EndState.DELIVERED: Status.DELIVERED,
    EndState.CANCELLED: Status.CANCELLED,
    EndState.FAILED: Status.FAILED,
}


class Reading:
    """Reads states. Every method raises: Unavailable, Unreadable."""

    def __init__(self, store: ScheduleStore, clock: Clock, *, retention_ms: int) -> None:
        self._store = store
        self._clock = clock
        self._retention_ms = retention_ms

    async def view(
        self, client_id: ClientId, schedule_key: ScheduleKey, patience: RequestDeadline
    ) -> ScheduleView | None:
        """The present state of a key; None if nothing was ever accepted under it, or retention is over."""
        while True:
            pointer = await self._store.read_pointer(client_id, schedule_key)
            if pointer is None:
                return None
            view = await self.view_at(pointer)
            if view is not None:
                return view
            if await self.forgotten(pointer):
                return None
            await patience.pause("the schedule is being changed by another request")

    async def view_at(self, pointer: Pointer) -> ScheduleView | None:
        """The state of the schedule that this pointer points to; None if there is nothing to be seen there: it moved, its
        transaction is being applied, or its retention is over."""
        outcome = await self.outcome_at(pointer)
        if outcome is None:
            row = await self._store.read_row(pointer.shard, pointer.position)
            if row is not None:
                return pending_view(pointer, row)
            # Ended between the two reads, or its transaction is still being applied.
            outcome = await self.outcome_at(pointer)
        if outcome is None or outcome.state is EndState.SUPERSEDED:
            return None
        return ended_view(pointer, outcome)

    async def outcome_at(self, pointer: Pointer) -> Outcome | None:
        """How it ended. TTL deletes late, so an expired outcome counts as absent."""
        outcome = await self._store.read_outcome(pointer.client_id, pointer.schedule_key, pointer.position)
        if outcome is None or outcome.expires_at_s * 1_000 <= self._clock.now_ms():
            return None
        return outcome

    async def forgotten(self, pointer: Pointer) -> bool:
        """True if the pointer is all that is left of its schedule: no row, no outcome, and retention is over.

        The pointer's own expiry is not asked: an owner that was away for weeks has not pushed it on, and the row, still
        to be delivered, must be found. Looked at twice, because a cancel of such a row may be applied at this moment:
        its row gone, its outcome not yet there.
        """
        for pause_s in (FORGOTTEN_PAUSE_S, 0.0):
            if not self.is_processed(pointer):
                return False
            if await self._store.read_row(pointer.shard, pointer.position) is not None:
                return False
            if await self.outcome_at(pointer) is not None:
                return False
            await asyncio.sleep(pause_s)
        return True

    def is_processed(self, pointer: Pointer) -> bool:
        """Whether retention would be over, had it ended when it was due."""
        latest_ms = max(due_ms_of(pointer.position), accepted_ms_of(pointer.position))
        return latest_ms + self._retention_ms < self._clock.now_ms()


def ended_view(pointer: Pointer, outcome: Outcome) -> ScheduleView:
    """The view of a schedule whose outcome is written (not `superseded`)."""
    return _view(pointer, outcome.schedule, outcome)


def pending_view(pointer: Pointer, row: Row | BrokenRow) -> ScheduleView:
    """The view of a schedule whose row is there."""
    return _view(pointer, row.schedule if isinstance(row, Row) else None, None)


def refused(view: ScheduleView) -> Refused:
    """Why a request that wants a pending schedule cannot have this one: it has ended so."""
    return Refused(Reason(view.status.value), view)


def _view(pointer: Pointer, schedule: Schedule | None, outcome: Outcome | None) -> ScheduleView:
    return ScheduleView(
        client_id=pointer.client_id,
        schedule_key=pointer.schedule_key,
        position=pointer.position,
        shard=pointer.shard,
        schedule=schedule,
        status=_STATUS[outcome.state] if outcome is not None else Status.PENDING,
        version=pointer.version,
        outcome=outcome,
        discarded_at_ms=pointer.discarded_at_ms,
    )
