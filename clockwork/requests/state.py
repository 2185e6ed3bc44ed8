"""The present state of a key: the pointer, then the outcome of its position, then the row; each read strongly consistent.

Never the row alone: between the write of the outcome and the delete of the row, an answer from the row would go backwards.

Every function that reads raises: Unavailable, Unreadable.
"""

import asyncio
from typing import Final

from clockwork.domain.position import accepted_ms_of, due_ms_of
from clockwork.domain.schedule import BrokenRow, ClientId, EndState, Outcome, Pointer, Row, Schedule, ScheduleKey
from clockwork.requests.context import RequestContext
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.results import Reason, Refused, ScheduleView, Status

FORGOTTEN_PAUSE_S: Final = 0.2
"""A committed transaction is applied within milliseconds."""
BEING_CHANGED: Final = "the schedule is being changed by another request"
"""Why a request waits that found neither row nor outcome."""

_STATUS = {
    EndState.DELIVERED: Status.DELIVERED,
    EndState.CANCELLED: Status.CANCELLED,
    EndState.FAILED: Status.FAILED,
}


async def read_state(
    context: RequestContext, client_id: ClientId, schedule_key: ScheduleKey, deadline: RequestDeadline
) -> ScheduleView | None:
    """The present state of a key; None if no schedule was ever accepted under it, or retention is over."""
    while True:
        pointer = await context.store.read_pointer(client_id, schedule_key)
        if pointer is None:
            return None
        view = await view_at(context, pointer)
        if view is not None:
            return view
        if await forgotten(context, pointer):
            return None
        await deadline.pause(BEING_CHANGED)


async def view_at(context: RequestContext, pointer: Pointer) -> ScheduleView | None:
    """The state of the schedule at the pointer's position. None: it moved, its transaction is being applied, or its
    retention is over."""
    outcome = await outcome_at(context, pointer)
    if outcome is None:
        row = await context.store.read_row(pointer.row_name)
        if row is not None:
            return pending_view(pointer, row)
        # It ended between the two reads, or its transaction is still being applied.
        outcome = await outcome_at(context, pointer)
    if outcome is None or outcome.state is EndState.SUPERSEDED:
        return None
    return ended_view(pointer, outcome)


async def outcome_at(context: RequestContext, pointer: Pointer) -> Outcome | None:
    """The outcome of the pointer's position. TTL deletes late, so an expired outcome counts as absent."""
    outcome = await context.store.read_outcome(pointer.client_id, pointer.schedule_key, pointer.position)
    if outcome is None or outcome.expires_at_s * 1_000 <= context.clock.now_ms():
        return None
    return outcome


async def forgotten(context: RequestContext, pointer: Pointer) -> bool:
    """True if only the pointer is left of its schedule: no row, no outcome, and retention is over.

    The pointer's own expiry does not count: an owner that was away for weeks has not extended it, and the row, which is
    still to be delivered, must be found. Read twice, because a cancel of such a row may be in the middle of being applied:
    its row deleted, its outcome not yet there.
    """
    for pause_s in (FORGOTTEN_PAUSE_S, 0.0):
        if not retention_over(context, pointer):
            return False
        if await context.store.read_row(pointer.row_name) is not None:
            return False
        if await outcome_at(context, pointer) is not None:
            return False
        await asyncio.sleep(pause_s)
    return True


def retention_over(context: RequestContext, pointer: Pointer) -> bool:
    """True if retention would be over for a schedule that ended at its due time."""
    latest_ms = max(due_ms_of(pointer.position), accepted_ms_of(pointer.position))
    return latest_ms + context.settings.retention_ms < context.clock.now_ms()


def ended_view(pointer: Pointer, outcome: Outcome) -> ScheduleView:
    """The view of a schedule whose outcome is written (not `superseded`)."""
    return _view(pointer, outcome.schedule, outcome)


def pending_view(pointer: Pointer, row: Row | BrokenRow) -> ScheduleView:
    """The view of a schedule whose row is there."""
    return _view(pointer, row.schedule if isinstance(row, Row) else None, None)


def refused(view: ScheduleView) -> Refused:
    """The answer to a request that wants a pending schedule and found one that has ended."""
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
