"""Replacements of a rule by the mutations: each function stands for one that `mutations` names, but for one flaw."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from clockwork.domain.position import due_ms_of
from clockwork.domain.schedule import BrokenRow, EndState, Outcome, Pointer, Retry, Row, RowName
from clockwork.errors import ConditionFailed, StoreUnavailable
from clockwork.ports.store import End
from clockwork.requests import cancel, state
from clockwork.requests import hold as holding
from clockwork.requests.context import RequestContext
from clockwork.requests.results import NotFound, Reason, Refused
from clockwork.requests.state import Unseen
from tests.simulation.store_world import HostStore

# --- holds, cancels, retries


def held_by_anybody(self: HostStore, name: RowName, outcome: Outcome, hold: Any) -> None:
    """A cancel deletes the row, whether it bears its hold or not."""
    if (name.shard, name.position) not in self.rows:
        raise ConditionFailed


def free_until_whatever_epoch(row: Any, *, epoch: int) -> int:
    """A retry mark of an earlier owner is believed, too."""
    return cancel_free_until(row, epoch=row.retry.epoch if row.retry else epoch)


def free_until_whatever_guarantee(row: Any, *, epoch: int) -> int:
    """The retry mark of an at_least_once row is believed, though a zombie may have sent the row."""
    return row.retry.at_ms if row.retry is not None and row.retry.epoch == epoch else due_ms_of(row.position)


def one_hold_per_request(text: str) -> Any:
    """All tries of a request have one hold: a late copy of the first puts back what the owner took off."""
    return f"hold-of-{hash(asyncio.current_task())}"


async def cancel_whatever_is_there_now(
    context: RequestContext, client_id: Any, schedule_key: Any, deadline: Any, *, condition: Any, command: Any
) -> Any:
    """Each try of a cancel reads the pointer anew, and so may cancel the next schedule of the key."""
    while True:
        try:
            pointer = await context.store.read_pointer(client_id, schedule_key)
            if pointer is None:
                return NotFound()
            end = await cancel._cancel_row(context, pointer, deadline, command)
        except StoreUnavailable:
            await deadline.pause("")
            continue
        if isinstance(end, Row | BrokenRow):
            return Refused(Reason.IN_FLIGHT, state.pending_view(pointer, end))
        if isinstance(end, Unseen):
            await deadline.pause("")
        elif end.state is not EndState.SUPERSEDED:
            return cancel._result(pointer, end)


def upsert(self: HostStore, name: RowName, retry: Retry | None, *, drop_hold: bool) -> bool:
    """An update of a row that is gone puts it again."""
    there = _change_row(self, name, retry, drop_hold=drop_hold)
    if not there and (row := self.world.rows.ever.get((name.shard, name.position))) is not None:
        self._insert(replace(row, retry=retry))
    return True


# --- cleanup


async def delete_first(self: HostStore, shard: Any, ends: Sequence[End]) -> None:
    """The row is deleted before its outcome is written."""
    await self.delete_rows(shard, [end.row.position for end in ends])
    await _finish(self, shard, ends)


async def last_outcome_stands(self: HostStore, outcomes: Sequence[Outcome]) -> None:
    """An outcome that is there is written over."""
    await self.put_outcomes(outcomes)


# --- answers


async def unseen_counts_as_absent(context: RequestContext, pointer: Pointer) -> Unseen:
    """A key is answered as unknown when neither row nor outcome was seen, though a transaction may be about to be
    applied."""
    return Unseen.RETENTION_OVER


async def state_from_the_row(context: RequestContext, pointer: Pointer) -> Any:
    """A row that is there counts as pending, also when its outcome is written already."""
    row = await context.store.read_row(pointer.row_name)
    if row is not None:
        return state.pending_view(pointer, row)
    return await _state_at(context, pointer)


async def create_over_anything(
    self: HostStore, row: Row, pointer: Pointer, *, replaces: Pointer | None, note: Any = None
) -> None:
    """A create takes the key over whatever has it by now."""
    await _create(self, row, pointer, replaces=self.pointers.get((pointer.client_id, pointer.schedule_key)), note=note)


def same_version(there: Pointer | None, read: Pointer | None) -> bool:
    """The pointer is compared by its version alone, without its position."""
    if there is None or read is None:
        return there is read
    return there.version == read.version


_finish = HostStore.finish
_change_row = HostStore._change_row
_create = HostStore.create
_state_at = state.state_at
cancel_free_until = holding._free_until_ms
