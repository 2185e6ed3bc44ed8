"""Errors that the twin of the store once had, so that the engine was blamed (seeds 101147 and 101411 of their day)."""

from collections.abc import Mapping

import pytest

from clockwork.errors import TransactionConflict
from clockwork.stores.memory.store import ItemKey, MemoryScheduleStore, Write
from tests.support import builders


class HalfApplied(MemoryScheduleStore):
    """A transaction is decided, and only its first item applied, until `apply_rest`."""

    def _apply(self, writes: Mapping[ItemKey, Write]) -> None:
        first, *self._rest = writes.values()
        self.busy |= writes.keys()
        first()

    def apply_rest(self) -> None:
        for write in self._rest:
            write()
        self.busy.clear()


async def test_a_create_repeated_while_it_is_being_applied_is_not_answered_before_its_row_is_there() -> None:
    # DynamoDB knows the repeat by its token, and answers TransactionInProgress. The twin knew it by the pointer, which was
    # there already, and answered: a `201` for a row that no owner could read yet, and so a lane out of order.
    store = HalfApplied(shards=builders.SHARD + 1)
    row = builders.row()
    await store.create(row, builders.pointer(row), replaces=None)
    assert store.pointers
    assert not store.rows
    with pytest.raises(TransactionConflict):
        await store.create(row, builders.pointer(row), replaces=None)
    store.apply_rest()
    await store.create(row, builders.pointer(row), replaces=None)
    assert list(store.rows.values()) == [row]
