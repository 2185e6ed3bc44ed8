"""The present state of a key: the pointer, then the outcome of its position, then the row; each read strongly consistent.

Never the row alone: between the write of the outcome and the delete of the row, an answer from the row would go backwards.

**Neither row nor outcome** is seen while a transaction is being applied item by item, after retention, and for a row that
its owner could not read, its key included. So one read of pointer, row and outcome as of one moment decides
(`decide_unseen`): it conflicts with a transaction that is being applied. Only it answers that a key is unknown although it
has a pointer, and only by it, or by an outcome that was read, may a key be taken over (docs/design.md, 4; docs/protocol.md:
x-notfound). Rejected: the three reads once more after a pause. No pause is long enough for a transaction that DynamoDB
applies late, and a row that was deleted without an outcome answered `503` until its retention was over.

Every function that reads raises: Unavailable, Unreadable.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from clockwork.domain.position import Position, accepted_ms_of, due_ms_of
from clockwork.domain.schedule import (
    POINTER_MARGIN_MS,
    UNREADABLE,
    BrokenRow,
    ClientId,
    EndState,
    Failure,
    Outcome,
    Pointer,
    Row,
    Schedule,
    ScheduleKey,
    outcome_expiry_s,
)
from clockwork.errors import ConditionFailed, TransactionConflict
from clockwork.requests.context import RequestContext
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.results import Reason, Refused, ScheduleView, Status

BEING_CHANGED: Final = "the schedule is being changed by another request"
"""The reason for which a request waits that has found neither row nor outcome."""
CLOCKS_MS: Final = 60_000
"""Retention counts as over this much before its end where no outcome is found: clocks of nodes and of the store differ by
some seconds, and an outcome that has just been deleted was no unreadable row."""

_STATUS = {
    EndState.DELIVERED: Status.DELIVERED,
    EndState.CANCELLED: Status.CANCELLED,
    EndState.FAILED: Status.FAILED,
}


class Unseen(Enum):
    """The reasons why a pointer shows no state of its key."""

    RETENTION_OVER = "retention_over"
    """Only the pointer is left, at one moment: the key is free."""
    BEING_CHANGED = "being_changed"
    """The pointer has moved, or a transaction is being applied: read the key again, beginning with its pointer."""


@dataclass(frozen=True, slots=True)
class KeyReading:
    """A key as it was read; without a view it is free."""

    pointer: Pointer | None
    """None: no schedule was ever accepted under the key, or its pointer is deleted."""
    view: ScheduleView | None
    """None: the same, or its retention is over."""


async def read_key(
    context: RequestContext, client_id: ClientId, schedule_key: ScheduleKey, deadline: RequestDeadline
) -> KeyReading:
    """Reads a key until its state is known."""
    while True:
        pointer = await context.store.read_pointer(client_id, schedule_key)
        if pointer is None:
            return KeyReading(None, None)
        state = await state_at(context, pointer)
        if state is not Unseen.BEING_CHANGED:
            return KeyReading(pointer, state if isinstance(state, ScheduleView) else None)
        await deadline.pause(BEING_CHANGED)


async def read_state(
    context: RequestContext, client_id: ClientId, schedule_key: ScheduleKey, deadline: RequestDeadline
) -> ScheduleView | None:
    """The present state of a key; None if no schedule was ever accepted under it, or retention is over."""
    return (await read_key(context, client_id, schedule_key, deadline)).view


async def state_at(context: RequestContext, pointer: Pointer) -> ScheduleView | Unseen:
    """The state of the schedule at the pointer's position."""
    end: Outcome | Unseen | None = await outcome_at(context, pointer)
    if end is None:
        row = await context.store.read_row(pointer.row_name)
        if row is not None:
            return pending_view(pointer, row)
        end = await decide_unseen(context, pointer)
    if isinstance(end, Unseen):
        return end
    return Unseen.BEING_CHANGED if end.state is EndState.SUPERSEDED else ended_view(pointer, end)


async def row_or_end(context: RequestContext, pointer: Pointer) -> Row | BrokenRow | Outcome | Unseen:
    """The outcome of the schedule at the pointer's position; its row, if it has not ended.

    The row is read first: in the other order a row that ends in between would look lost."""
    row = await context.store.read_row(pointer.row_name)
    end = await outcome_at(context, pointer)
    if end is not None:
        return end
    return row if row is not None else await decide_unseen(context, pointer)


async def outcome_at(context: RequestContext, pointer: Pointer) -> Outcome | None:
    """The outcome of the pointer's position. TTL deletes late, so an expired outcome counts as absent."""
    outcome = await context.store.read_outcome(pointer.client_id, pointer.schedule_key, pointer.position)
    return None if outcome is None or _expired(context, outcome) else outcome


async def decide_unseen(context: RequestContext, pointer: Pointer) -> Outcome | Unseen:
    """Decides what became of a schedule whose row and outcome were both found absent: its outcome, which may be the one that
    is written here, or the reason why it has none."""
    try:
        key = await context.store.read_key_state(pointer)
    except TransactionConflict:
        return Unseen.BEING_CHANGED
    if key.outcome is not None and not _expired(context, key.outcome):
        return key.outcome
    moved = key.pointer is None or (key.pointer.version, key.pointer.position) != (pointer.version, pointer.position)
    if moved or key.row_there:
        return Unseen.BEING_CHANGED
    # From here on the clock decides, so it must be trusted.
    context.check_clock()
    if key.outcome is not None or retention_over(context, pointer):
        return Unseen.RETENTION_OVER
    return await _end_as_unreadable(context, pointer)


async def _end_as_unreadable(context: RequestContext, pointer: Pointer) -> Outcome | Unseen:
    """Writes the outcome of a row that was deleted without one: no outcome can have expired yet, so its owner found it
    unreadable, with a key that could not be read either (docs/design.md, 5.6)."""
    outcome = new_outcome(context, pointer, EndState.FAILED, failure=Failure(reason=UNREADABLE, attempts=0))
    try:
        await context.store.put_unreadable_outcome(pointer, outcome)
    except (ConditionFailed, TransactionConflict):
        # Another reader was faster, or the key has moved since.
        return Unseen.BEING_CHANGED
    return outcome


def new_outcome(
    context: RequestContext,
    pointer: Pointer,
    end: EndState,
    *,
    schedule: Schedule | None = None,
    failure: Failure | None = None,
    moved_to: Position | None = None,
) -> Outcome:
    """The outcome of the schedule at the pointer's position, if a request ends it now."""
    now_ms, retention_ms = context.clock.now_ms(), context.settings.retention_ms
    return Outcome(
        client_id=pointer.client_id,
        schedule_key=pointer.schedule_key,
        position=pointer.position,
        state=end,
        at_ms=now_ms,
        schedule=schedule,
        failure=failure,
        moved_to=moved_to,
        expires_at_s=outcome_expiry_s(due_ms=due_ms_of(pointer.position), end_ms=now_ms, retention_ms=retention_ms),
    )


def retention_over(context: RequestContext, pointer: Pointer) -> bool:
    """True if the outcome of the pointer's schedule may have expired. It decides nothing while there is a row or an outcome.

    An outcome lives for the retention that was set when its schedule ended. That may have been shorter than today's, and the
    pointer's date tells: otherwise, after the retention was raised, every schedule whose outcome had expired by the old one
    would look like an unreadable row, and be answered `failed`.
    """
    position, retention_ms = pointer.position, context.settings.retention_ms
    # No schedule ends before it is accepted.
    expiry_s = outcome_expiry_s(due_ms=due_ms_of(position), end_ms=accepted_ms_of(position), retention_ms=retention_ms)
    over_ms = min(expiry_s * 1_000, pointer.expires_at_s * 1_000 - POINTER_MARGIN_MS)
    return over_ms - CLOCKS_MS <= context.clock.now_ms()


def ended_view(pointer: Pointer, outcome: Outcome) -> ScheduleView:
    """The view of a schedule whose outcome is written (not `superseded`)."""
    return _view(pointer, outcome.schedule, outcome)


def pending_view(pointer: Pointer, row: Row | BrokenRow) -> ScheduleView:
    """The view of a schedule whose row is there."""
    return _view(pointer, row.schedule if isinstance(row, Row) else None, None)


def row_view(row: Row) -> ScheduleView:
    """The view of a pending row whose pointer was not read."""
    return ScheduleView(
        client_id=row.schedule.client_id,
        schedule_key=row.schedule.schedule_key,
        position=row.position,
        shard=row.shard,
        schedule=row.schedule,
        status=Status.PENDING,
        version=row.schedule.version,
        outcome=None,
    )


def refused(view: ScheduleView) -> Refused:
    """The answer to a request that wants a pending schedule and found one that has ended."""
    return Refused(Reason(view.status.value), view)


def _expired(context: RequestContext, outcome: Outcome) -> bool:
    return outcome.expires_at_s * 1_000 <= context.clock.now_ms()


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
