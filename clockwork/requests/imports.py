"""Importing a pending schedule of another store: a create that keeps what its acceptance there has given it.

The position is kept. It orders the schedule within its lane as it was ordered there, and positions never repeat, so it also
names the schedule in both stores, and an import may be repeated at any time:

    under the key, or in its history, stands here      the item is
    nothing                                            created
    this position, in whatever state                   there already
    its outcome: it ended here, maybe moved, and the   there already. Without this a file that is imported again after
      key has been used again since                    the key was used again would be delivered twice
    a schedule of the same create, of the same version there already: its client has repeated the create here, or changed
      or a later one                                   the imported schedule
    another one that is pending                        refused: it may be the same schedule before a change over there
    another one that has ended                         created, in its place under the key, as by every create

Outcomes are what tells that a schedule has ended here, and they live for the retention after the end, which comes after the
import and so after the export. So an export is taken for as long as the retention, and then refused (`ExportRefused`).

A row that is due already is like a create for a past time: a wake-up announces it. Its old acceptance time only orders it
among rows of the same due time.

A shard is computed anew: the number of shards may differ. Rate limits and the limit of pending schedules are not applied:
each schedule was within them once. Not imported are the attempts of a record that its topic has refused, and the history.
"""

from dataclasses import dataclass

from clockwork.domain.schedule import ImportedSchedule, Pointer, Row, Schedule, pointer_expiry_s
from clockwork.domain.sharding import shard_of
from clockwork.errors import ConditionFailed, FieldError, InvalidInput, StoreUnavailable, TransactionConflict
from clockwork.requests import state
from clockwork.requests.context import RequestContext
from clockwork.requests.create import announce, announce_pending, check_topic
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.results import AlreadyCreated, Created, CreateResult, ExportRefused, KeyTaken, Status


@dataclass(frozen=True, slots=True)
class ImportItem:
    """One item, and what a first look at all items of the batch has found under its key."""

    imported: ImportedSchedule
    seen: Pointer | None


def check_export(context: RequestContext, exported_at_ms: int) -> ExportRefused | None:
    """Judges the age of an export; None: it is taken."""
    now_ms, retention_ms = context.clock.now_ms(), context.settings.retention_ms
    if exported_at_ms > now_ms + state.CLOCKS_MS:
        return ExportRefused("lies ahead of this service's clock")
    if exported_at_ms < now_ms - retention_ms + state.CLOCKS_MS:
        return ExportRefused(
            f"lies back further than outcomes are kept here ({retention_ms} ms): what an earlier import has created, and "
            "was delivered since, could not be told from what is missing. Export again"
        )
    return None


async def import_schedule(context: RequestContext, item: ImportItem, deadline: RequestDeadline) -> CreateResult:
    """Imports a schedule. Raises: InvalidInput (no such topic; imported before and its retention over), Unavailable (it may
    have been imported: the same request again settles it)."""
    replaces: Pointer | None = None
    if item.seen is not None:
        found = await look_under_key(context, item.imported, deadline)
        if not isinstance(found, Pointer | None):
            return found
        replaces = found
    await check_topic(context, item.imported.new.topic)
    context.check_clock()
    while True:
        row = _row(context, item.imported, replaces)
        pointer = _pointer(context, item.imported, row)
        try:
            await context.store.create(row, pointer, replaces=replaces)
        except ConditionFailed:
            found = await look_under_key(context, item.imported, deadline)
            if not isinstance(found, Pointer | None):
                return found
            context.check_clock()
            replaces = found
        except (TransactionConflict, StoreUnavailable) as error:
            await deadline.pause(f"the schedule could not be stored in time: {error}")
            context.check_clock()
        else:
            announce(context, row.shard, due_ms=row.due_ms)
            return Created(state.pending_view(pointer, row))


async def look_under_key(
    context: RequestContext, imported: ImportedSchedule, deadline: RequestDeadline
) -> AlreadyCreated | KeyTaken | Pointer | None:
    """Reads what stands under its key: a result, if nothing is to be stored; else the pointer to replace, or None."""
    new = imported.new
    key = await state.read_key(context, new.client_id, new.schedule_key, deadline)
    pointer, view = key.pointer, key.view
    if pointer is None:
        return None
    is_this = pointer.position == imported.position or (
        pointer.digest == new.digest and pointer.version >= imported.version
    )
    if not is_this:
        # Outcomes are read after the pointer, because a key is used again only once the outcome of its schedule stands.
        ended = await context.store.read_outcome(new.client_id, new.schedule_key, imported.position)
        is_this = ended is not None
    if not is_this:
        return KeyTaken(view) if view is not None and view.status is Status.PENDING else pointer
    if view is None:
        raise InvalidInput(
            [FieldError("origin.position", "was imported before, and the retention of its outcome is over")]
        )
    announce_pending(context, view)
    return AlreadyCreated(view)


def _row(context: RequestContext, imported: ImportedSchedule, replaces: Pointer | None) -> Row:
    version = imported.version if replaces is None else max(imported.version, replaces.version + 1)
    schedule = Schedule(
        **imported.new.fields(),
        created_at_ms=imported.created_at_ms,
        version=version,
        delivery_id=imported.delivery_id,
    )
    return Row(
        shard=shard_of(schedule.ordering_key, context.settings.shards), position=imported.position, schedule=schedule
    )


def _pointer(context: RequestContext, imported: ImportedSchedule, row: Row) -> Pointer:
    # The expiry counts from now, not from the acceptance: the schedule may have been due for months, with its client
    # paused.
    expires_at_s = pointer_expiry_s(
        due_ms=row.due_ms, at_ms=context.clock.now_ms(), retention_ms=context.settings.retention_ms
    )
    return Pointer(
        client_id=row.schedule.client_id,
        schedule_key=row.schedule.schedule_key,
        shard=row.shard,
        position=row.position,
        digest=imported.new.digest,
        version=row.schedule.version,
        expires_at_s=expires_at_s,
        rearmed=imported.rearmed,
    )
