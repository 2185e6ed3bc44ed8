"""Replacements of a rule by the mutations of reschedules, as `breaks` has them for the others."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from clockwork.domain.schedule import BrokenRow, Outcome, Row, RowName
from clockwork.errors import ConditionFailed, StoreUnavailable
from clockwork.requests import reschedule, state
from clockwork.requests.context import RequestContext
from clockwork.requests.results import NotFound
from clockwork.requests.state import Unseen
from tests.simulation.store_world import HostStore


def rescheduling(*, deletes: bool = True, on_condition: bool = True, puts_outcome: bool = True) -> Callable[..., Any]:
    """The store's transaction, but for one part."""

    async def transaction(
        self: HostStore,
        name: RowName,
        outcome: Outcome,
        *,
        hold: Any,
        row: Row,
        pointer: Any,
        replaces: Any,
        note: Any = None,
    ) -> None:
        place, key = (name.shard, name.position), (pointer.client_id, pointer.schedule_key)

        def effect() -> None:
            there = self.pointers[key]
            self._check_free(place, (*key, outcome.position), (row.shard, row.position), key)
            if there.position == row.position:
                return
            if on_condition:
                self._check_held(name, outcome, hold)
            if (there.version, there.position) != (replaces.version, replaces.position):
                raise ConditionFailed
            writes = self._put_row(row) | self._put_pointer(pointer)
            writes |= self._delete_row(*place) if deletes else {}
            writes |= self._move_note(key, note)
            self._apply(writes | (self._put_outcome(outcome) if puts_outcome else {}))

        await self._serve("reschedule", effect)

    return transaction


async def change_whatever_is_there_now(
    context: RequestContext, client_id: Any, key: Any, deadline: Any, wish: Any
) -> Any:
    """A try whose answer was lost is forgotten."""
    while True:
        try:
            pointer = await context.store.read_pointer(client_id, key)
            if pointer is None:
                return NotFound()
            move: Any = None
            present: Any = await state.row_or_end(context, pointer)
            if isinstance(present, Row | BrokenRow):
                step = await reschedule._prepare(context, pointer, present, wish, None)
                if not isinstance(step, reschedule.Move):
                    return step
                move, present = step, await reschedule._replace_row(context, step, wish, deadline)
            unseen = isinstance(present, Unseen)
            answer = None if unseen else reschedule._result(context, pointer, move, present, wish)
            if answer is not None:
                return answer
        except StoreUnavailable:
            pass  # the break: what was tried is not asked for
        await deadline.pause("")


def same_delivery_id(context: RequestContext, pointer: Any, present: Any, wanted: Any) -> Any:
    """A change of the due time keeps the delivery id."""
    move = _move(context, pointer, present, wanted)
    return replace(move, row=replace(move.row, schedule=replace(move.row.schedule, delivery_id=present.delivery_id)))


_move = reschedule._move
