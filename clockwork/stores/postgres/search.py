"""`ScheduleSearch` on PostgreSQL: the index `pointers_listed`, which never lags, and reads of many keys."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from clockwork.domain.position import Position, text_of
from clockwork.domain.schedule import BrokenRow, ClientId, Outcome, Pointer, Row, ScheduleKey
from clockwork.domain.sharding import ShardId
from clockwork.ports.store import KeyName, OutcomeKey, Page, PointerPage, RowKey
from clockwork.stores.checks import readable
from clockwork.stores.postgres import codec
from clockwork.stores.postgres.sharing import CONTENTS_MAX, read_all
from clockwork.stores.postgres.store import POSITIONS_PER_READ, PostgresScheduleStore, read_all_rows

_Read = TypeVar("_Read")

log = logging.getLogger(__name__)


class PostgresScheduleSearch:
    """See `ScheduleSearch`. Raises, from any method: StoreUnavailable and below."""

    def __init__(self, store: PostgresScheduleStore) -> None:
        self._store = store
        self._client = store.client
        self._statements = store.statements

    async def list_pointers(
        self, client_id: ClientId, *, first: Position, last: Position, pointers_max: int, descending: bool = False
    ) -> PointerPage:
        """See `ScheduleSearch`."""
        # One pointer more than asked for is read: the next page begins there.
        values = (client_id, text_of(first), text_of(last), pointers_max + 1)
        found = await self._client.read("list_pointers", self._statements.list_pointers[descending], *values)
        at = [name for name, _ in codec.POINTER].index("position")
        next_from = codec.stored_position(found[-1][at]) if len(found) > pointers_max else None
        pointers = tuple(readable(codec.pointer_of, found[:pointers_max]))
        return PointerPage(pointers=pointers, next_from=next_from)

    async def count_pointers(self, client_id: ClientId, *, first: Position, at_most: int) -> int:
        """See `ScheduleSearch`."""
        values = (client_id, text_of(first), at_most)
        found = await self._client.read("count_pointers", self._statements.count_pointers, *values)
        count: int = found[0][0]
        return count

    async def read_pointers(self, names: Sequence[KeyName]) -> Mapping[KeyName, Pointer]:
        """See `ScheduleSearch`."""
        keys = [(client_id, codec.key_bytes(schedule_key)) for client_id, schedule_key in dict.fromkeys(names)]
        found = await self._all("read_pointers", self._statements.read_pointers, keys, POSITIONS_PER_READ)
        return {(p.client_id, p.schedule_key): p for p in readable(codec.pointer_of, found)}

    async def peek_pointers(self, names: Sequence[KeyName]) -> Mapping[KeyName, Pointer]:
        """See `ScheduleSearch`. There is no cheaper read."""
        return await self.read_pointers(names)

    async def peek_rows(self, shard: ShardId, *, after: Position | None, rows_max: int) -> Page:
        """See `ScheduleSearch`. There is no cheaper read."""
        return await self._store.read_page(shard, after=after, rows_max=rows_max)

    async def read_rows_at(self, keys: Sequence[RowKey]) -> Mapping[RowKey, Row | BrokenRow]:
        """See `ScheduleSearch`."""
        wanted = [(shard, text_of(position)) for shard, position in dict.fromkeys(keys)]
        rows = await read_all_rows(self._client, self._statements, wanted)
        return {(row.shard, row.position): row for row in rows}

    async def read_outcomes(self, keys: Sequence[OutcomeKey]) -> Mapping[OutcomeKey, Outcome]:
        """See `ScheduleSearch`."""
        wanted = [
            (client_id, codec.key_bytes(key), text_of(position)) for client_id, key, position in dict.fromkeys(keys)
        ]
        found = await self._all("read_outcomes", self._statements.read_outcomes, wanted, CONTENTS_MAX)
        return {(o.client_id, o.schedule_key, o.position): o for o in readable(codec.outcome_of, found)}

    async def read_ended(self, client_id: ClientId, schedule_key: ScheduleKey) -> Sequence[Position]:
        """See `ScheduleSearch`."""
        key = (client_id, codec.key_bytes(schedule_key))
        found = await self._client.read("read_ended", self._statements.read_ended, *key)
        return [codec.stored_position(record[0]) for record in found]

    async def _all(
        self, operation: str, sql: str, keys: Sequence[tuple[Any, ...]], size_max: int
    ) -> list[tuple[Any, ...]]:
        found = await read_all(self._client, operation, sql, keys, size_max=size_max)
        return [tuple(record)[1:] for record in found]
