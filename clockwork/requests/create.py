"""Accepting a schedule: one transaction puts the pointer and the row, or neither.

`201` only after that transaction; a repeat of the same create is recognised by its digest, which stays with the pointer
through every reschedule and after the end. A key whose schedule has ended is taken over: on condition of the very pointer,
version *and* position, whose outcome was read, strongly, so that two takers cannot both win. A pointer's version alone would
not do: versions restart when a pointer is deleted, positions never repeat. A key whose outcome has expired is taken over
only after one read of pointer, row and outcome has found the pointer alone (`state.decide_unseen`): the pointer's own date
decides nothing, because the row of a paused client waits for as long as it is paused.

The row's position orders it behind everything that was accepted before. `accepted_us`, which a batch gives, is the time of
acceptance that was reserved for the item when the batch began: the topic look-ups and key take-overs of its items take
differently long, and must not reorder them.
"""

from clockwork.domain.destination import Topic
from clockwork.domain.position import RANDOM_DIGITS, acceptance_of, accepted_ms_of, due_ms_of, new_position
from clockwork.domain.schedule import NewSchedule, Pointer, Row, Schedule, pointer_expiry_s
from clockwork.domain.sharding import ShardId, shard_of
from clockwork.domain.wakeup import NewlyDue
from clockwork.errors import (
    ConditionFailed,
    FieldError,
    InvalidInput,
    StoreUnavailable,
    TransactionConflict,
    Unavailable,
)
from clockwork.requests import state
from clockwork.requests.context import RequestContext
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.dedup import CommandDedup
from clockwork.requests.results import AlreadyCreated, Created, CreateResult, KeyTaken, ScheduleView, Status


async def create_schedule(
    context: RequestContext,
    new: NewSchedule,
    deadline: RequestDeadline,
    *,
    accepted_us: int | None = None,
    known: AlreadyCreated | KeyTaken | None = None,
    command: CommandDedup | None = None,
) -> CreateResult:
    """Accepts a schedule. `known`: `find_repeat` has just found that it stores nothing.

    Raises: InvalidInput (its topic does not exist), Unavailable (it may have been accepted: the same request again
    settles it), CommandAlreadyProcessed.
    """
    try:
        await check_topic(context, new.topic)
        context.check_clock()
    except (InvalidInput, Unavailable):
        # A schedule that was accepted before stays accepted, even if its topic, Kafka or the clock is gone since.
        if known is None:
            known = await find_repeat(context, new, deadline, command=command)
        if not isinstance(known, AlreadyCreated):
            raise
        return known
    if known is not None:
        return known
    if command is not None:
        await command.check()
    row = _row(context, new, accepted_us)
    replaces: Pointer | None = None
    while True:
        pointer = _pointer(context, new, row)
        note = command.change(due_ms=row.due_ms) if command is not None else None
        try:
            await context.store.create(row, pointer, replaces=replaces, note=note)
        except ConditionFailed:
            found = await _result_or_replaceable(context, new, row, deadline, command)
            if not isinstance(found, Pointer | None):
                return found
            if command is not None:
                await command.check()
            context.check_clock()
            replaces = found
            row = _row(context, new, accepted_us, replaces=replaces)
        except (TransactionConflict, StoreUnavailable) as error:
            # The same row again, at the same position: if the first try was applied after all, this is that create.
            await deadline.pause(f"the schedule could not be stored in time: {error}")
            context.check_clock()
        else:
            return _accepted(context, state.pending_view(pointer, row), row, command)


async def find_repeat(
    context: RequestContext, new: NewSchedule, deadline: RequestDeadline, *, command: CommandDedup | None = None
) -> AlreadyCreated | KeyTaken | None:
    """The result that `create_schedule` has if it stores nothing; None if it would store.

    Raises: Unavailable, CommandAlreadyProcessed.
    """
    if command is not None:
        await command.check()
    found = await _result_or_replaceable(context, new, None, deadline, command)
    return found if isinstance(found, AlreadyCreated | KeyTaken) else None


async def _result_or_replaceable(
    context: RequestContext,
    new: NewSchedule,
    mine: Row | None,
    deadline: RequestDeadline,
    command: CommandDedup | None,
) -> CreateResult | Pointer | None:
    """The result of a create that found a pointer under its key, or the pointer that the create may replace; None if
    the pointer is gone."""
    found = await state.read_key(context, new.client_id, new.schedule_key, deadline)
    pointer, view = found.pointer, found.view
    if pointer is None or view is None:
        return pointer
    if mine is not None and pointer.position == mine.position:
        return _accepted(context, view, mine, command)  # the row was written by a try whose answer was lost
    if pointer.digest == new.digest:
        announce_pending(context, view)
        return AlreadyCreated(view)
    return KeyTaken(view) if view.status is Status.PENDING else pointer


def _accepted(context: RequestContext, view: ScheduleView, row: Row, command: CommandDedup | None) -> Created:
    if command is not None:
        command.had_effect = True
    announce(context, row.shard, due_ms=row.due_ms)
    return Created(view)


def _row(
    context: RequestContext,
    new: NewSchedule,
    accepted_us: int | None,
    *,
    replaces: Pointer | None = None,
) -> Row:
    schedule = Schedule(
        **new.fields(),
        created_at_ms=context.clock.now_ms(),
        version=replaces.version + 1 if replaces is not None else 1,
        delivery_id=new_delivery_id(context),
    )
    row = new_row(context, schedule, accepted_us=accepted_us)
    if replaces is not None and acceptance_of(row.position) <= acceptance_of(replaces.position):
        # The key's last schedule was accepted after this batch began: histories go by acceptance.
        return new_row(context, schedule)
    return row


def _pointer(context: RequestContext, new: NewSchedule, row: Row) -> Pointer:
    return Pointer(
        client_id=new.client_id,
        schedule_key=new.schedule_key,
        shard=row.shard,
        position=row.position,
        digest=new.digest,
        version=row.schedule.version,
        expires_at_s=pointer_expires_at_s(context, row),
    )


# --- the same for every request that stores a row


async def check_topic(context: RequestContext, topic: Topic) -> None:
    """Raises: InvalidInput (the topic does not exist), BrokerUnavailable."""
    if not await context.topic_exists(topic):
        raise InvalidInput([FieldError("delivery.topic", f"the topic {topic!r} does not exist; create it first")])


def new_row(context: RequestContext, schedule: Schedule, *, accepted_us: int | None = None) -> Row:
    """The row of a schedule that is accepted now, or at a reserved time, at a position that was never used before."""
    if accepted_us is None:
        accepted_us = context.acceptance.next_us()
    digits = context.rng.randrange(10**RANDOM_DIGITS)
    return Row(
        shard=shard_of(schedule.ordering_key, context.settings.shards),
        position=new_position(due_ms=schedule.due_ms, accepted_us=accepted_us, random=digits),
        schedule=schedule,
    )


def new_delivery_id(context: RequestContext) -> str:
    return f"{context.rng.getrandbits(128):032x}"


def pointer_expires_at_s(context: RequestContext, row: Row) -> int:
    """TTL of a pointer to this row."""
    accepted_ms, retention_ms = accepted_ms_of(row.position), context.settings.retention_ms
    return pointer_expiry_s(due_ms=row.due_ms, at_ms=accepted_ms, retention_ms=retention_ms)


def announce(context: RequestContext, shard: ShardId, *, due_ms: int) -> None:
    """Wakes the owner of the shard of a row that is due then, unless its next scan comes early enough."""
    if due_ms <= context.clock.now_ms() + context.settings.scan_interval_ms:
        context.waker.wake(shard, NewlyDue(due_ms))


def announce_pending(context: RequestContext, view: ScheduleView) -> None:
    """Wakes the owner of a schedule that a repeated request found pending: the first request's wake-up may be lost, as its
    answer was, by a node that died in between. Without it the row is late by up to a scan interval."""
    if view.status is Status.PENDING:
        announce(context, view.shard, due_ms=due_ms_of(view.position))
