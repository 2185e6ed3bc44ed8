"""Cleanup after the commit: write the outcome, *then* delete the row.

The order matters: a row that is deleted without an outcome would be a schedule whose end is unknown
(docs/protocol.md: x-delete-first); only a row without a readable key leaves none. Both writes are idempotent, also when
a zombie makes them: under exactly_once every writer writes the same outcome, under at_least_once the first one stands.
Cleanup runs beside the next passes. Until its row is deleted, a completed position is left out of every page, and named
in every marker if a marker decided its end.
"""

import asyncio
import logging
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from clockwork.concurrency import Backoff
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.position import Position
from clockwork.domain.retry import BackoffPolicy
from clockwork.domain.schedule import EXPIRED, BrokenRow, EndState, Guarantee, Outcome, Row, outcome_expiry_s
from clockwork.domain.sharding import ShardId
from clockwork.errors import Contested, Unavailable
from clockwork.ports.store import End, ScheduleStore

log = logging.getLogger(__name__)

CHUNK_ROWS: Final = 200
"""Rows cleaned up together: eight batch writes side by side keep the store busy, and a crash repeats little."""
CHUNK_BYTES_MAX: Final = 1024 * 1024
"""Content of these rows, or a single larger row: encoding their outcomes occupies the event loop, which heartbeats
share, for 3 ms a megabyte."""
FULL_WRITE_ROWS: Final = 25
"""Rows of one full batch write: cleanup starts at once."""
TICK_S: Final = 0.25
"""Interval of cleanup below `FULL_WRITE_ROWS`, in step for all shards of a node, so that their rows share batch writes
(`stores.dynamodb.batching`). A pair of writes for each row was a quarter of the cost of a delivery."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Completed:
    """A row whose delivery or dead letter is committed, or which was dropped."""

    row: Row | BrokenRow
    entry: MarkerEntry

    @property
    def ended_by_marker(self) -> bool:
        """True if a marker decided the end of the row, and has to name it until the row is deleted."""
        failure = self.entry.failure
        return self.guarantee is Guarantee.EXACTLY_ONCE or (failure is not None and failure.reason == EXPIRED)

    @property
    def guarantee(self) -> Guarantee:
        return self.row.schedule.guarantee if isinstance(self.row, Row) else Guarantee.EXACTLY_ONCE


class Cleanup:
    """The completed rows of one lease that are not deleted yet, oldest first."""

    def __init__(self, store: ScheduleStore, shard: ShardId, *, retention_ms: int, rng: random.Random) -> None:
        self._store = store
        self._shard = shard
        self._retention_ms = retention_ms
        self._pending: dict[Position, Completed] = {}
        self._size_bytes = 0
        self._work = asyncio.Event()
        self._many = asyncio.Event()
        self._progress = asyncio.Event()
        self._backoff = Backoff(rng, BackoffPolicy(initial_ms=50, max_ms=5_000))

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def size_bytes(self) -> int:
        """Bytes of the rows kept in memory."""
        return self._size_bytes

    def __contains__(self, position: Position) -> bool:
        return position in self._pending

    def add(self, completed: Iterable[Completed]) -> None:
        for one in completed:
            if one.row.position not in self._pending:
                self._size_bytes += _size_bytes(one)
            self._pending[one.row.position] = one
        if self._pending:
            self._work.set()
        if len(self._pending) >= FULL_WRITE_ROWS:
            self._many.set()

    def positions(self) -> frozenset[Position]:
        """Positions of the rows not yet deleted. Take the copy *before* the query is sent: its answer may still contain
        a row that is deleted meanwhile (docs/protocol.md: x-late-exclude)."""
        return frozenset(self._pending)

    def marker_entries(self) -> Iterator[MarkerEntry]:
        """Entries of the rows whose end a marker decided: every marker names them until they are deleted."""
        return (one.entry for one in self._pending.values() if one.ended_by_marker)

    async def wait_until_progress(self) -> None:
        """Starts cleanup at once and returns after the next chunk."""
        self._many.set()
        self._progress.clear()
        await self._progress.wait()

    async def run(self) -> None:
        """Cleans up until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._work.wait()
            try:
                async with asyncio.timeout_at((loop.time() // TICK_S + 1) * TICK_S):
                    await self._many.wait()
            except TimeoutError:
                pass  # few, but they have waited long enough
            await self._clean_some()

    async def finish(self) -> None:
        """Cleans up all rows, then returns: for a clean hand-over."""
        while self._pending:
            await self._clean_some()

    async def _clean_some(self) -> None:
        chunk = self._next_chunk()
        try:
            await self._write(chunk)
        except (Unavailable, Contested) as error:
            # The rows stay named in every marker, so only time is lost.
            wait_s = self._backoff.next_wait_s()
            log.warning(
                "Cleanup waits",
                extra={"event": "tidy.waits", "shard": self._shard, "rows": len(self._pending), "error": str(error)},
            )
            await asyncio.sleep(wait_s)
            return
        self._backoff.reset()
        for one in chunk:
            if self._pending.pop(one.row.position, None) is not None:
                self._size_bytes -= _size_bytes(one)
        if not self._pending:
            self._work.clear()
        if len(self._pending) < FULL_WRITE_ROWS:
            self._many.clear()
        self._progress.set()

    def _next_chunk(self) -> list[Completed]:
        chunk: list[Completed] = []
        size_bytes = 0
        for one in islice(self._pending.values(), CHUNK_ROWS):
            size_bytes += _size_bytes(one)
            if chunk and size_bytes > CHUNK_BYTES_MAX:
                break
            chunk.append(one)
        return chunk

    async def _write(self, chunk: list[Completed]) -> None:
        await self._push_pointers(chunk)
        ends = [
            End(
                row=one.row,
                outcome=outcome_of(one, retention_ms=self._retention_ms),
                first_stands=one.guarantee is Guarantee.AT_LEAST_ONCE,
            )
            for one in chunk
        ]
        await self._store.finish(self._shard, ends)

    async def _push_pointers(self, chunk: list[Completed]) -> None:
        """Extends the pointer's expiry to the end time plus two retentions, for rows that ended more than one retention
        after their due time: the pointer outlives the outcome."""
        for one in chunk:
            end_ms = one.entry.at_ms
            if isinstance(one.row, Row) and end_ms - one.row.due_ms > self._retention_ms:
                expires_at_s = (end_ms + 2 * self._retention_ms) // 1_000
                await self._store.push_pointer_expiry(one.row, expires_at_s=expires_at_s)


def _size_bytes(completed: Completed) -> int:
    return completed.row.schedule.size_bytes if isinstance(completed.row, Row) else len(completed.row.raw)


def outcome_of(completed: Completed, *, retention_ms: int) -> Outcome | None:
    """The outcome of a completed row; None if not even its key can be read.

    Everything in it comes from the row and its marker entry, so that every owner computes the same.
    """
    row, entry = completed.row, completed.entry
    schedule = row.schedule if isinstance(row, Row) else None
    client_id = row.schedule.client_id if isinstance(row, Row) else row.client_id
    schedule_key = row.schedule.schedule_key if isinstance(row, Row) else row.schedule_key
    if client_id is None or schedule_key is None:
        return None
    return Outcome(
        client_id=client_id,
        schedule_key=schedule_key,
        position=row.position,
        state=EndState.DELIVERED if entry.failure is None else EndState.FAILED,
        at_ms=entry.at_ms,
        schedule=schedule,
        receipt=entry.receipt,
        failure=entry.failure,
        expires_at_s=outcome_expiry_s(due_ms=row.due_ms, end_ms=entry.at_ms, retention_ms=retention_ms),
    )
