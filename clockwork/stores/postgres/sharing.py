"""Calls that several callers of one moment share, and the proof of an earlier copy of a write.

**Sharing a statement never shares a failure**: where a statement for several fails for a reason that may be one member's,
each goes alone.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar

from asyncpg import Record

from clockwork.concurrency import gather_bounded
from clockwork.errors import StoreThrottled, StoreUnavailable, TransactionConflict
from clockwork.ports.read_units import current_meter
from clockwork.stores.calls import Rejected, backoff_s
from clockwork.stores.micro_batching import MicroBatcher
from clockwork.stores.postgres import codec
from clockwork.stores.postgres.client import PostgresClient

GROUPS_AT_ONCE: Final = 4
"""Statements of one kind for several callers: more callers than this at one moment gather. Half of the connections by
default, so that one kind of call never takes all of them."""
READS_MAX: Final = 100
CONTENTS_MAX: Final = 20
"""Items in one read for several callers, where each may hold the content of a schedule or a job, up to 256 KiB."""
CALLS_AT_ONCE: Final = 4
"""Calls of one caller, so that one large read leaves connections for others."""
CONFLICT_ATTEMPTS_MAX: Final = 3
"""Attempts of a write whose condition is all in it, so that nothing is decided anew. Each waits for a lock for
`CallLimits.lock_timeout_ms`."""

_Key = TypeVar("_Key", bound=tuple[Any, ...])


class SharedReads(Generic[_Key]):
    """Micro-batching of reads of single items: callers that come while `GROUPS_AT_ONCE` statements are in flight join the
    next one, which is sent after they asked."""

    def __init__(self, client: PostgresClient, operation: str, sql: str, size_max: int) -> None:
        self._client = client
        self._operation = operation
        self._sql = sql
        self._batches = MicroBatcher[_Key, dict[_Key, Sequence[Any]] | StoreUnavailable](
            self._send, size_max=size_max, at_once=GROUPS_AT_ONCE
        )

    async def get(self, key: _Key) -> Sequence[Any] | None:
        """The columns of the item with this key; None: there is none. Raises: StoreUnavailable."""
        found = await self._batches.submit(key)
        while found is None:
            found = await self._batches.submit(key)
        if isinstance(found, Rejected):
            found = await self._send([key])  # the rejected key may be another caller's
        if isinstance(found, StoreUnavailable):
            raise found
        if (meter := current_meter()) is not None:
            meter.charge_rows(1)
        return found.get(key)

    async def _send(self, members: Sequence[_Key]) -> dict[_Key, Sequence[Any]] | StoreUnavailable:
        keys = list(dict.fromkeys(members))
        try:
            # Not `read`: each caller is charged for its own key, and not the one that sends for all.
            answer = await self._client.call(self._operation, self._sql, codec.arrays(keys), write=False)
        except StoreUnavailable as error:
            return error
        return {keys[record[0] - 1]: tuple(record)[1:] for record in answer.rows}


async def read_all(
    client: PostgresClient, operation: str, sql: str, keys: Sequence[tuple[Any, ...]], *, size_max: int
) -> list[Record]:
    """Runs a read of single items for any number of keys. Raises: StoreUnavailable."""

    async def read(chunk: Sequence[tuple[Any, ...]]) -> list[Record]:
        return await client.read(operation, sql, *codec.arrays(chunk))

    chunks = [keys[start : start + size_max] for start in range(0, len(keys), size_max)]
    pages = await gather_bounded(read, chunks, at_once=CALLS_AT_ONCE)
    return [record for page in pages for record in page]


async def prove(client: PostgresClient, operation: str, sql: str, *args: Any) -> list[Record]:
    """Reads what stands, to tell an earlier copy of a write from another's. If the read fails, the write is unknown: that
    its *last* copy was undone proves nothing of an earlier one. Raises: StoreUnavailable (outcome unknown)."""
    try:
        return await client.write(operation, sql, *args)
    except (TransactionConflict, StoreUnavailable) as error:
        raise StoreUnavailable(f"an earlier copy may have been applied: {error}", outcome_unknown=True) from error


async def retry_on_conflict(client: PostgresClient, operation: str, sql: str, *args: Any) -> list[Record]:
    """Does a write again while a transaction is in its way: its condition is all in it, so nothing is decided anew."""
    attempt = 1
    while True:
        try:
            return await client.write(operation, sql, *args)
        except TransactionConflict as conflict:
            if attempt == CONFLICT_ATTEMPTS_MAX:
                raise StoreThrottled("a transaction stood in the way for too long") from conflict
        await asyncio.sleep(backoff_s(attempt))
        attempt += 1
