"""Retry of a failed schedule: a create under its own key.

The content is that of the failed outcome; the due time is new, and so are position, delivery id and version. The key is
taken over on condition of the very pointer, version and position, whose outcome was read, as every used key is: of two
requests at one moment one wins, and a late copy of a request finds another pointer. The dead letter stays where it is. The
lateness policy stays too, and counts from the new due time: a schedule that failed as `expired` has its whole deadline
again.

The digest stays that of the first create, so that a late repeat of *that* brings nothing up. The pointer's `rearmed` says
that its schedule was retried: the same request, repeated because its answer was lost, is answered `200` with the pending
schedule. Once it has failed a second time a repeat cannot be told from a new wish; a client that cares sends `If-Match`.
"""

from dataclasses import dataclass, replace

from clockwork.domain.schedule import ClientId, Pointer, Row, Schedule, ScheduleKey
from clockwork.errors import Contested, StoreUnavailable
from clockwork.requests import state
from clockwork.requests.context import RequestContext
from clockwork.requests.create import (
    announce,
    announce_pending,
    check_topic,
    new_delivery_id,
    new_row,
    pointer_expires_at_s,
)
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.results import (
    ANY_VERSION,
    Changed,
    ChangeResult,
    NotFound,
    Refused,
    ScheduleView,
    Status,
    Unchanged,
    VersionCondition,
    VersionDiffers,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wish:
    """The retry that one request wants."""

    due_ms: int
    any_due: bool
    """The request gave no due time: now, at any moment."""
    condition: VersionCondition


@dataclass(frozen=True, kw_only=True, slots=True)
class _Retry:
    """The change from the failed schedule to the pending one. It is made once and is the same for every try."""

    old: Pointer
    new: Pointer
    row: Row


async def retry_failed(
    context: RequestContext,
    client_id: ClientId,
    schedule_key: ScheduleKey,
    deadline: RequestDeadline,
    *,
    due_ms: int | None = None,
    condition: VersionCondition = ANY_VERSION,
) -> ChangeResult:
    """Makes the schedule that failed under the key pending again, due at `due_ms` (epoch milliseconds; None: now).

    Raises: InvalidInput (its topic does not exist), Unavailable: it may have been done; the same request again settles it.
    """
    wish = _Wish(
        due_ms=context.clock.now_ms() if due_ms is None else due_ms, any_due=due_ms is None, condition=condition
    )
    retry: _Retry | None = None
    while True:
        try:
            found = await state.read_key(context, client_id, schedule_key, deadline)
            pointer, view = found.pointer, found.view
            if pointer is None or view is None:
                return NotFound()
            if retry is not None and await _was_done(context, retry, pointer):
                return _done(context, retry)
            step = await _prepare(context, pointer, view, wish, retry)
            if not isinstance(step, _Retry):
                return step
            retry = step
            await context.store.create(retry.row, retry.new, replaces=retry.old)
            return _done(context, retry)
        except (Contested, StoreUnavailable) as error:
            # A write may have been applied all the same: the next round reads.
            await deadline.pause(f"the schedule could not be retried in time: {error}")


async def _was_done(context: RequestContext, retry: _Retry, pointer: Pointer) -> bool:
    """True if a try of this request, whose answer was lost, has written the schedule that stands there or stood there
    since. Then another write would retry the schedule twice for one request."""
    if pointer.position in (retry.old.position, retry.new.position):
        return pointer.position == retry.new.position
    return await state.outcome_at(context, retry.new) is not None


async def _prepare(
    context: RequestContext, pointer: Pointer, view: ScheduleView, wish: _Wish, retry: _Retry | None
) -> _Retry | Unchanged | VersionDiffers | Refused:
    schedule, condition = view.schedule, wish.condition
    if view.status is Status.PENDING and schedule is not None and pointer.rearmed:
        same_request = condition.holds(pointer.version) or condition.held_before(pointer.version)
        if same_request and (wish.any_due or schedule.due_ms == wish.due_ms):
            announce_pending(context, view)
            return Unchanged(view)
    if view.status is not Status.FAILED or schedule is None:
        return state.refused(view)
    if not condition.holds(pointer.version):
        return VersionDiffers(view)
    context.check_clock()
    if retry is not None and retry.old.position == pointer.position:
        return retry
    await check_topic(context, schedule.topic)
    return _retry_of(context, pointer, schedule, due_ms=wish.due_ms)


def _retry_of(context: RequestContext, pointer: Pointer, failed: Schedule, *, due_ms: int) -> _Retry:
    row = new_row(
        context, replace(failed, due_ms=due_ms, version=pointer.version + 1, delivery_id=new_delivery_id(context))
    )
    new = replace(
        pointer,
        shard=row.shard,
        position=row.position,
        version=row.schedule.version,
        expires_at_s=pointer_expires_at_s(context, row),
        rearmed=True,
        discarded_at_ms=None,
    )
    return _Retry(old=pointer, new=new, row=row)


def _done(context: RequestContext, retry: _Retry) -> Changed:
    announce(context, retry.row.shard, due_ms=retry.row.due_ms)
    return Changed(state.pending_view(retry.new, retry.row))
