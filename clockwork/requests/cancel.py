"""Cancel: pointer, hold, look, decide (`hold`); the decision deletes the row and writes the outcome `cancelled`."""

from clockwork.domain.schedule import (
    BrokenRow,
    ClientId,
    EndState,
    Outcome,
    Pointer,
    Row,
    ScheduleKey,
)
from clockwork.errors import StoreUnavailable
from clockwork.requests import state
from clockwork.requests.context import RequestContext
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.dedup import CommandDedup
from clockwork.requests.hold import Held, HoldAttempts
from clockwork.requests.results import (
    ANY_VERSION,
    Cancelled,
    CancelResult,
    NotFound,
    Reason,
    Refused,
    Status,
    VersionCondition,
    VersionDiffers,
)
from clockwork.requests.state import Unseen


async def cancel_schedule(
    context: RequestContext,
    client_id: ClientId,
    schedule_key: ScheduleKey,
    deadline: RequestDeadline,
    *,
    condition: VersionCondition = ANY_VERSION,
    command: CommandDedup | None = None,
) -> CancelResult:
    """Cancels the schedule that is pending under the key.

    Raises: Unavailable: it may have been cancelled; the same request again settles it. CommandAlreadyProcessed.
    """
    tried: Pointer | None = None
    while True:
        try:
            pointer = await context.store.read_pointer(client_id, schedule_key)
            if tried is not None and (pointer is None or pointer.position != tried.position):
                # The key may have been used again after a try of this request whose answer was lost: then that end is the
                # answer. To go on would cancel two schedules with one request.
                ended = await state.outcome_at(context, tried)
                if ended is not None and ended.state is not EndState.SUPERSEDED:
                    return _result(tried, ended)
            if pointer is None:
                return NotFound()
            if condition.holds(pointer.version):
                tried = pointer
                end = await _cancel_row(context, pointer, deadline, command)
            else:
                refused = await _refused_for_version(context, pointer)
                if not isinstance(refused, Unseen):
                    return refused
                end = refused
        except StoreUnavailable as error:
            # A write may have been applied all the same: the next round reads its outcome, which is the answer.
            await deadline.pause(f"the schedule could not be cancelled in time: {error}")
            continue
        match end:
            case Row() | BrokenRow():
                return Refused(Reason.IN_FLIGHT, state.pending_view(pointer, end))
            case Unseen.RETENTION_OVER:
                return NotFound()
            case Unseen.BEING_CHANGED:
                await deadline.pause(state.BEING_CHANGED)
            case Outcome() if end.state is not EndState.SUPERSEDED:
                if command is not None and not command.had_effect:
                    await command.recognise_effect()
                return _result(pointer, end)


async def _refused_for_version(context: RequestContext, pointer: Pointer) -> VersionDiffers | Refused | Unseen:
    """The answer where the condition does not hold for the pointer's version."""
    view = await state.state_at(context, pointer)
    if isinstance(view, Unseen):
        return view
    # A schedule that could not be cancelled anyway is refused for that (RFC 9110, 13.2.1).
    cancellable = view.status in (Status.PENDING, Status.CANCELLED)
    return VersionDiffers(view) if cancellable else state.refused(view)


async def _cancel_row(
    context: RequestContext, pointer: Pointer, deadline: RequestDeadline, command: CommandDedup | None
) -> Outcome | Row | BrokenRow | Unseen:
    """The outcome of the schedule at this position, by this request or another writer; or as `HoldAttempts.end_row`."""
    attempts = HoldAttempts(context, pointer, deadline)
    return await attempts.end_row(lambda held: _decide(context, pointer, held, command))


async def _decide(context: RequestContext, pointer: Pointer, held: Held, command: CommandDedup | None) -> Outcome:
    """Step 4.

    Raises: ConditionFailed, TransactionConflict (nothing was written), StoreUnavailable, CommandAlreadyProcessed.
    """
    schedule = held.row.schedule if isinstance(held.row, Row) else None
    outcome = state.new_outcome(context, pointer, EndState.CANCELLED, schedule=schedule)
    if command is not None:
        await command.check()
    note = command.change(due_ms=held.row.due_ms) if command is not None else None
    await context.store.cancel(pointer.row_name, outcome, hold=held.by, note=note)
    if command is not None:
        command.had_effect = True
    return outcome


def _result(pointer: Pointer, end: Outcome) -> Cancelled | Refused:
    view = state.ended_view(pointer, end)
    return Cancelled(view) if view.status is Status.CANCELLED else state.refused(view)
