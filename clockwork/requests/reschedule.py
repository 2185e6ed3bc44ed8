"""Reschedule: pointer, hold, look, decide (`hold`); the decision replaces the row by another one, at a new position.

    Delete row p IF hold = r  +  Put outcome `superseded` of p  +  Put row p'
      +  Put pointer (p', version + 1) IF version AND position as read

The row never moves and its position is never used again: what an owner has read at p it must not find at p'. The new row
may belong to another shard, because the ordering key may have changed; it is accepted at this moment, as a create is, so
the clock must be trusted. "Fire now" is a reschedule to now. The digest stays that of the create: a late repeat of the
create is still recognised, and brings nothing back.

**A lost answer, within one request.** The transaction was sent and its result is unknown. The next round does not guess:
the outcome of p says where its schedule stands since (`moved_to`). If that is the position of this request's row, the
transaction was applied, and the answer is `200`, whatever happened to the schedule after that; if it is another one, the
transaction can never be applied any more, and the change is made to the schedule as it stands now. So one request changes
a schedule at most once.

**A lost answer, seen by the client.** The same request again settles it, because it states the wanted schedule, not a step:

    it is so already                  `200` with the schedule as it is; nothing is written, the version stays
    another request changed it since  it is applied to the present schedule, as if it came for the first time
    it has ended meanwhile            `409`, which shows how; the time and the version tell whether it ended as changed
    with `If-Match` of version v      `200` if the present version is v + 1 and all is as the request wants it: the change
                                      was made, and by all evidence by this request (RFC 9110, 13.1.1 allows it); any
                                      other version is `412`
"""

from dataclasses import dataclass, replace

from clockwork.domain.schedule import (
    BrokenRow,
    ClientId,
    EndState,
    Outcome,
    Pointer,
    Row,
    Schedule,
    ScheduleKey,
)
from clockwork.errors import StoreUnavailable, Unreadable
from clockwork.requests import state
from clockwork.requests.context import RequestContext
from clockwork.requests.create import announce, check_topic, new_delivery_id, new_row, pointer_expires_at_s
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.dedup import CommandDedup
from clockwork.requests.hold import Held, HoldAttempts
from clockwork.requests.results import (
    Change,
    Changed,
    ChangeResult,
    NotFound,
    Reason,
    Refused,
    Unchanged,
    VersionCondition,
    VersionDiffers,
)
from clockwork.requests.state import Unseen


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """The change that one request wants."""

    change: Change
    condition: VersionCondition
    command: CommandDedup | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """The change from one position to another. It is made once and is the same for every try."""

    old: Pointer
    new: Pointer
    row: Row


async def reschedule(
    context: RequestContext,
    client_id: ClientId,
    schedule_key: ScheduleKey,
    deadline: RequestDeadline,
    wish: Wish,
) -> ChangeResult:
    """Replaces the pending schedule by the wished one.

    Raises: InvalidInput, Unavailable: it may have been changed; the same request again settles it. CommandAlreadyProcessed.
    """
    move: Move | None = None
    while True:
        try:
            pointer = await context.store.read_pointer(client_id, schedule_key)
            if move is not None and (pointer is None or pointer.position != move.old.position):
                # The key's schedule moved since the last try, whose answer may have been lost.
                result = _result(context, move.old, move, await _end_of(context, move.old, deadline), wish)
                if result is not None:
                    return result
                move = None
            if pointer is None:
                return NotFound()
            present = await state.row_or_end(context, pointer)
            if isinstance(present, Row | BrokenRow):
                step = await _prepare(context, pointer, present, wish, move)
                if not isinstance(step, Move):
                    return step
                move = step
                present = await _replace_row(context, move, wish, deadline)
            if present is Unseen.RETENTION_OVER:
                return NotFound()
            result = None if isinstance(present, Unseen) else _result(context, pointer, move, present, wish)
            if result is not None:
                return result
            why = state.BEING_CHANGED
        except StoreUnavailable as error:
            # A write may have been applied all the same: the next round reads.
            why = f"the schedule could not be changed in time: {error}"
        await deadline.pause(why)


async def _end_of(context: RequestContext, pointer: Pointer, deadline: RequestDeadline) -> Outcome:
    """The outcome of a position that the key's pointer has left. There is one, though its write may not be applied
    yet."""
    while (end := await state.outcome_at(context, pointer)) is None:
        await deadline.pause(state.BEING_CHANGED)
    return end


async def _prepare(
    context: RequestContext, pointer: Pointer, row: Row | BrokenRow, wish: Wish, move: Move | None
) -> Move | Unchanged | VersionDiffers:
    """The move of this row; or the result of a request that moves nothing."""
    if isinstance(row, BrokenRow):
        raise Unreadable(row.reason)
    wanted = wish.change(row.schedule)
    unchanged = wanted == row.schedule
    if not wish.condition.holds(pointer.version):
        # An equal schedule counts as the work of this same request only if no other request can have come in between.
        done_before = unchanged and wish.condition.held_before(pointer.version)
        if not done_before:
            return VersionDiffers(state.pending_view(pointer, row))
    if unchanged:
        # The same request before may have made it so, and its wake-up may be lost with its answer.
        announce(context, row.shard, due_ms=row.due_ms)
        return Unchanged(state.pending_view(pointer, row))
    context.check_clock()
    if move is not None:
        return move
    if wanted.topic != row.schedule.topic:
        await check_topic(context, wanted.topic)
    return _move(context, pointer, row.schedule, wanted)


def _move(context: RequestContext, pointer: Pointer, present: Schedule, wanted: Schedule) -> Move:
    moved_in_time = wanted.due_ms != present.due_ms
    row = new_row(
        context,
        replace(
            wanted,
            version=pointer.version + 1,
            delivery_id=new_delivery_id(context) if moved_in_time else present.delivery_id,
        ),
    )
    new = replace(
        pointer,
        shard=row.shard,
        position=row.position,
        version=row.schedule.version,
        expires_at_s=pointer_expires_at_s(context, row),
    )
    return Move(old=pointer, new=new, row=row)


async def _replace_row(
    context: RequestContext, move: Move, wish: Wish, deadline: RequestDeadline
) -> Outcome | Row | BrokenRow | Unseen:
    """The outcome of the schedule at the old position, by this request or another writer; or as `HoldAttempts.end_row`."""
    attempts = HoldAttempts(context, move.old, deadline)
    return await attempts.end_row(lambda held: _decide(context, move, held, wish))


async def _decide(context: RequestContext, move: Move, held: Held, wish: Wish) -> Outcome:
    """Step 4.

    Raises: ConditionFailed, TransactionConflict (nothing was written), StoreUnavailable, CommandAlreadyProcessed.
    """
    superseded = state.new_outcome(context, move.old, EndState.SUPERSEDED, moved_to=move.new.position)
    if wish.command is not None:
        await wish.command.check()
    await context.store.reschedule(
        move.old.row_name,
        superseded,
        hold=held.by,
        row=move.row,
        pointer=move.new,
        replaces=move.old,
        note=wish.command.change(due_ms=move.row.due_ms) if wish.command is not None else None,
    )
    return superseded


def _result(
    context: RequestContext, pointer: Pointer, move: Move | None, present: Row | BrokenRow | Outcome, wish: Wish
) -> Changed | Refused | None:
    """The result of the request; None if another request moved the schedule, so that the next round reads its present
    position."""
    if not isinstance(present, Outcome):
        return Refused(Reason.IN_FLIGHT, state.pending_view(pointer, present))
    if present.state is not EndState.SUPERSEDED:
        return state.refused(state.ended_view(pointer, present))
    if move is None or present.moved_to != move.new.position:
        return None
    if wish.command is not None:
        wish.command.had_effect = True
    announce(context, move.row.shard, due_ms=move.row.due_ms)
    return Changed(state.pending_view(move.new, move.row))
