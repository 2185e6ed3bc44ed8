"""`ScheduleSearch` on the twin in memory. Its index never lags; tests that need one which does override `list_pointers`."""

from collections.abc import Mapping, Sequence
from itertools import islice

from clockwork.domain.position import Position
from clockwork.domain.schedule import BrokenRow, ClientId, Outcome, Pointer, Row, ScheduleKey
from clockwork.ports.store import KeyName, OutcomePlace, PointerPage, RowPlace
from clockwork.stores.memory.store import MemoryScheduleStore


class MemoryScheduleSearch:
    """Looks into the store's dictionaries."""

    def __init__(self, store: MemoryScheduleStore) -> None:
        self._store = store

    async def list_pointers(
        self, client_id: ClientId, *, first: Position, last: Position, pointers_max: int
    ) -> PointerPage:
        """See `ScheduleSearch`."""
        inside = sorted(
            (p for p in self._store.pointers.values() if p.client_id == client_id and first <= p.position <= last),
            key=lambda pointer: pointer.position,
        )
        page = tuple(inside[:pointers_max])
        more = len(inside) > len(page)
        return PointerPage(pointers=page, next_first=Position(page[-1].position + 1) if more else None)

    async def count_pointers(self, client_id: ClientId, *, first: Position, at_most: int) -> int:
        """See `ScheduleSearch`."""
        ahead = (p for p in self._store.pointers.values() if p.client_id == client_id and p.position >= first)
        return sum(1 for _ in islice(ahead, at_most))

    async def read_pointers(self, names: Sequence[KeyName]) -> Mapping[KeyName, Pointer]:
        """See `ScheduleSearch`."""
        return {name: self._store.pointers[name] for name in names if name in self._store.pointers}

    async def read_rows_at(self, places: Sequence[RowPlace]) -> Mapping[RowPlace, Row | BrokenRow]:
        """See `ScheduleSearch`."""
        return {place: self._store.rows[place] for place in places if place in self._store.rows}

    async def read_outcomes(self, places: Sequence[OutcomePlace]) -> Mapping[OutcomePlace, Outcome]:
        """See `ScheduleSearch`."""
        return {place: self._store.outcomes[place] for place in places if place in self._store.outcomes}

    async def read_ended(self, client_id: ClientId, schedule_key: ScheduleKey) -> Sequence[Position]:
        """See `ScheduleSearch`."""
        return [at for client, key, at in self._store.outcomes if (client, key) == (client_id, schedule_key)]
