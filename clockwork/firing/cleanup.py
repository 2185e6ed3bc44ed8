"""Cleanup after the commit: write the outcome, *then* delete the row.

The order matters: a row that is deleted without an outcome would be a schedule whose end is unknown
(docs/protocol.md: x-delete-first); only a row without a readable key leaves none. Both writes are idempotent, also when
a zombie makes them: under exactly_once every writer writes the same outcome, under at_least_once the first one stands.
Cleanup runs beside the next passes. Until its row is deleted, a completed position is left out of every page, and named
in every marker of its slot.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final

from clockwork.concurrency import Backoff, gather_bounded
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.position import Position
from clockwork.domain.retry import BackoffPolicy
from clockwork.domain.schedule import BrokenRow, EndState, Guarantee, Outcome, Row, outcome_expiry_s
from clockwork.domain.sharding import ShardId
from clockwork.errors import Contested, NewerFormat, Unavailable
from clockwork.ports.store import End, ScheduleStore

log = logging.getLogger(__name__)

CHUNK_ROWS: Final = 200
"""Rows cleaned up together: eight batch writes side by side keep the store busy, and a crash repeats little."""
CHUNK_BYTES_MAX: Final = 1024 * 1024
"""Content of these rows, or a single larger row: encoding their outcomes occupies the event loop, which heartbeats
share, for 3 ms a megabyte."""
FAILED_CHUNK_SHARE: Final = 4
"""The chunk after a failed one has this part of its size, and each chunk that succeeds doubles it again: so a row whose
own DynamoDB partition is throttled is soon alone with its failures, and does not hold up the others."""
CHUNKS_AT_ONCE: Final = 4
"""Chunks of a former owner's rows side by side: a shard changes hands only when the last is done."""
FULL_WRITE_ROWS: Final = 25
"""Rows of one full batch write: cleanup starts at once."""
TICK_S: Final = 0.25
"""Interval of cleanup below `FULL_WRITE_ROWS`, in step for all shards of a node, so that their rows share batch writes
(`stores.dynamodb.batching`). A pair of writes for each row was a quarter of the cost of a delivery."""
LAST_CLEANUP_S: Final = 2.0
"""Time for the acknowledged rows at the end of an incarnation: longer would hold up its successor, which delivers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Completed:
    """A row whose delivery or dead letter is committed or acknowledged, or which was dropped."""

    row: Row | BrokenRow
    entry: MarkerEntry
    slot: int | None
    """The slot of this incarnation whose markers name it until it is deleted; None if none does: it was acknowledged
    outside transactions, or a former owner ended it (take-over)."""

    @property
    def guarantee(self) -> Guarantee:
        return self.row.schedule.guarantee if isinstance(self.row, Row) else Guarantee.EXACTLY_ONCE


class Cleanup:
    """The completed rows of one lease that are not deleted yet, oldest first but for those that failed."""

    def __init__(
        self,
        store: ScheduleStore,
        shard: ShardId,
        *,
        retention_ms: int,
        rng: random.Random,
        on_done: Callable[[Sequence[Completed]], None],
    ) -> None:
        """`on_done` is called when rows are deleted: from then on no marker needs to name them."""
        self._store = store
        self._shard = shard
        self._retention_ms = retention_ms
        self._on_done = on_done
        self._pending: dict[Position, Completed] = {}
        self._size_bytes = 0
        self._chunk_rows = CHUNK_ROWS
        self._writing = asyncio.Lock()
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
                pass  # few rows, but they have waited long enough
            await self._clean_some(self._pending.values())

    async def finish(self) -> None:
        """Cleans up all rows, then returns: for a clean hand-over. `run` may go on beside it."""
        while self._pending:
            await self._clean_some(self._pending.values())

    async def finish_acknowledged(self) -> None:
        """Cleans up the acknowledged at_least_once rows, for at most `LAST_CLEANUP_S`: the end of an incarnation, whose
        memory is dropped then. No marker names these rows, so those that are left are sent again (docs/design.md, 5:
        end of an incarnation). Safe for a zombie too."""
        try:
            async with asyncio.timeout(LAST_CLEANUP_S):
                while acknowledged := self._acknowledged():
                    await self._clean_some(acknowledged)
        except TimeoutError:
            log.warning(
                "Acknowledged rows are left to be sent again",
                extra={"event": "tidy.left", "shard": self._shard, "rows": len(self._acknowledged())},
            )

    def _acknowledged(self) -> list[Completed]:
        return [one for one in self._pending.values() if one.slot is None]

    async def _clean_some(self, completed: Iterable[Completed]) -> None:
        """Cleans up the first of these rows; after a failure returns when it is time for another try."""
        async with self._writing:
            # After a wait for the lock, some of an older list are done.
            chunk = _next_chunk((one for one in completed if one.row.position in self._pending), self._chunk_rows)
            if not chunk:
                return
            try:
                await _write(self._store, self._shard, chunk, retention_ms=self._retention_ms)
            except (Unavailable, Contested) as error:
                self._failed(chunk)
                wait_s = self._backoff.next_wait_s()
                log.warning(
                    "Cleanup waits",
                    extra={"event": "tidy.waits", "shard": self._shard, "rows": len(self), "error": str(error)},
                )
            else:
                self._done(chunk)
                wait_s = 0.0
        if wait_s:
            await asyncio.sleep(wait_s)

    def _failed(self, chunk: list[Completed]) -> None:
        """Puts the rows of a failed chunk behind the others. They stay named in every marker of their slot, so only
        time is lost."""
        self._chunk_rows = max(1, len(chunk) // FAILED_CHUNK_SHARE)
        for one in chunk:
            self._pending[one.row.position] = self._pending.pop(one.row.position)

    def _done(self, chunk: list[Completed]) -> None:
        self._backoff.reset()
        self._chunk_rows = min(CHUNK_ROWS, 2 * self._chunk_rows)
        for one in chunk:
            del self._pending[one.row.position]
            self._size_bytes -= _size_bytes(one)
        if not self._pending:
            self._work.clear()
        if len(self._pending) < FULL_WRITE_ROWS:
            self._many.clear()
        self._on_done(chunk)
        self._progress.set()


async def finish_rows(
    store: ScheduleStore, shard: ShardId, completed: Sequence[Completed], *, retention_ms: int
) -> None:
    """Cleans up the rows of a shard that its former owner has completed, before the shard changes hands: no marker of the
    next owner names them (docs/protocol.md: x-tidy-after). May be repeated.

    Raises: NewerFormat (nothing is written: this version must not judge a row that it cannot read in full, so the shard
    is not for this node), StoreUnavailable, Contested.
    """
    newer = [one.row for one in completed if isinstance(one.row, BrokenRow) and one.row.newer_format]
    if newer:
        raise NewerFormat(f"shard {shard}: {len(newer)} delivered rows are of a newer format: {newer[0].reason}")
    chunks: list[list[Completed]] = []
    left = list(completed)
    while left:
        chunks.append(_next_chunk(left, CHUNK_ROWS))
        left = left[len(chunks[-1]) :]
    await gather_bounded(partial(_write, store, shard, retention_ms=retention_ms), chunks, at_once=CHUNKS_AT_ONCE)


def _next_chunk(completed: Iterable[Completed], rows_max: int) -> list[Completed]:
    chunk: list[Completed] = []
    size_bytes = 0
    for one in islice(completed, rows_max):
        size_bytes += _size_bytes(one)
        if chunk and size_bytes > CHUNK_BYTES_MAX:
            break
        chunk.append(one)
    return chunk


async def _write(store: ScheduleStore, shard: ShardId, chunk: Sequence[Completed], *, retention_ms: int) -> None:
    ends = [
        End(
            row=one.row,
            outcome=outcome_of(one, retention_ms=retention_ms),
            first_stands=one.guarantee is Guarantee.AT_LEAST_ONCE,
        )
        for one in chunk
    ]
    await store.finish(shard, ends)


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
