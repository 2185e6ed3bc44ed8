"""Cleanup after the commit: write the outcome, *then* delete the row.

The order matters: a row that is deleted without an outcome would be a schedule whose end is unknown
(docs/protocol.md: x-delete-first); only a row without a readable key leaves none. Both writes are idempotent, also when
a zombie makes them: under exactly_once every writer writes the same outcome, under at_least_once the first one stands.
Cleanup runs beside the next passes. Until its row is deleted, a completed position is left out of every page, and named
in every marker of its slot. A row of a job has its end noted in the job's log, and the next row of its chain is armed before
it is deleted (`job_chains`).
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final

from clockwork.concurrency import Backoff, gather_bounded
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.position import Position
from clockwork.domain.retry import BackoffPolicy
from clockwork.domain.schedule import (
    BrokenRow,
    EndState,
    Guarantee,
    Outcome,
    Row,
    outcome_expiry_s,
    with_last_refusal,
)
from clockwork.domain.sharding import ShardId
from clockwork.errors import Contested, NewerFormat, StoreUnavailable, Unavailable
from clockwork.firing.job_chains import JobChains
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


class _Queue:
    """Rows that await their ends in the store, oldest first but for those that failed. Rows of schedules and rows of jobs
    have one each: the store of jobs may be away, and that holds up no row of a schedule."""

    def __init__(
        self,
        write: Callable[[Sequence[Completed]], Awaitable[Sequence[Completed]]],
        on_done: Callable[[Sequence[Completed]], None],
        rng: random.Random,
        *,
        shard: ShardId,
    ) -> None:
        """`write` ends rows and returns those that it could not, or raises: none of them. `on_done` is told of the rows that
        are deleted."""
        self.pending: dict[Position, Completed] = {}
        self.size_bytes = 0
        self._write = write
        self._on_done = on_done
        self._shard = shard
        self._chunk_rows = CHUNK_ROWS
        self._writing = asyncio.Lock()
        self._work = asyncio.Event()
        self._many = asyncio.Event()
        self._backoff = Backoff(rng, BackoffPolicy(initial_ms=50, max_ms=5_000))

    def add(self, one: Completed) -> None:
        if one.row.position not in self.pending:
            self.size_bytes += _size_bytes(one)
        self.pending[one.row.position] = one
        self._work.set()
        if len(self.pending) >= FULL_WRITE_ROWS or _is_awaited(one):
            self._many.set()

    def hurry(self) -> None:
        """Starts at once, and not with the next tick."""
        self._many.set()

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
            await self.clean_some(self.pending.values())

    async def finish(self) -> None:
        """Cleans up all rows, then returns."""
        while self.pending:
            await self.clean_some(self.pending.values())

    async def finish_acknowledged(self) -> None:
        """Cleans up the acknowledged at_least_once rows, then returns."""
        while acknowledged := self.acknowledged():
            await self.clean_some(acknowledged)

    def acknowledged(self) -> list[Completed]:
        return [one for one in self.pending.values() if one.slot is None]

    async def clean_some(self, completed: Iterable[Completed]) -> None:
        """Cleans up the first of these rows; if all of them failed, returns when it is time for another try."""
        async with self._writing:
            # After a wait for the lock, some of an older list are done.
            chunk = _next_chunk((one for one in completed if one.row.position in self.pending), self._chunk_rows)
            if not chunk:
                return
            wait_s = 0.0
            try:
                left = await self._write(chunk)
            except (Unavailable, Contested) as error:
                self._chunk_rows = max(1, len(chunk) // FAILED_CHUNK_SHARE)
                left = chunk
                log.warning(
                    "Cleanup waits",
                    extra={"event": "tidy.waits", "shard": self._shard, "rows": len(self.pending), "error": str(error)},
                )
            self._put_behind(left)
            if len(left) < len(chunk):
                failed = {one.row.position for one in left}
                self._done([one for one in chunk if one.row.position not in failed])
            else:
                wait_s = self._backoff.next_wait_s()
        if wait_s:
            await asyncio.sleep(wait_s)

    def _put_behind(self, failed: Sequence[Completed]) -> None:
        """Puts the rows behind the others. They stay named in every marker of their slot, so only time is lost."""
        for one in failed:
            self.pending[one.row.position] = self.pending.pop(one.row.position)

    def _done(self, chunk: list[Completed]) -> None:
        self._backoff.reset()
        self._chunk_rows = min(CHUNK_ROWS, 2 * self._chunk_rows)
        for one in chunk:
            del self.pending[one.row.position]
            self.size_bytes -= _size_bytes(one)
        if not self.pending:
            self._work.clear()
        if len(self.pending) < FULL_WRITE_ROWS:
            self._many.clear()
        self._on_done(chunk)


class Cleanup:
    """The completed rows of one lease that are not deleted yet."""

    def __init__(
        self,
        store: ScheduleStore,
        chains: JobChains,
        shard: ShardId,
        *,
        retention_ms: int,
        rng: random.Random,
        on_done: Callable[[Sequence[Completed]], None],
    ) -> None:
        """`on_done` is called when rows are deleted: from then on no marker needs to name them."""
        self._shard = shard
        self._on_done = on_done
        self._progress = asyncio.Event()
        end_schedules = partial(_end_schedules, store, shard, retention_ms=retention_ms)
        end_jobs = partial(_end_jobs, store, chains, shard)
        self._schedules = _Queue(end_schedules, self._done, rng, shard=shard)
        self._jobs = _Queue(end_jobs, self._done, rng, shard=shard)
        self._queues = (self._schedules, self._jobs)

    def __len__(self) -> int:
        return sum(len(queue.pending) for queue in self._queues)

    @property
    def size_bytes(self) -> int:
        """Bytes of the rows kept in memory."""
        return sum(queue.size_bytes for queue in self._queues)

    def __contains__(self, position: Position) -> bool:
        return any(position in queue.pending for queue in self._queues)

    def add(self, completed: Iterable[Completed]) -> None:
        for one in completed:
            (self._jobs if one.row.of_job else self._schedules).add(one)

    def positions(self) -> frozenset[Position]:
        """Positions of the rows not yet deleted. Take the copy *before* the query is sent: its answer may still contain
        a row that is deleted meanwhile (docs/protocol.md: x-late-exclude)."""
        return frozenset(self._schedules.pending).union(self._jobs.pending)

    async def wait_until_progress(self) -> None:
        """Starts cleanup at once and returns after the next chunk."""
        for queue in self._queues:
            queue.hurry()
        self._progress.clear()
        await self._progress.wait()

    async def run(self) -> None:
        """Cleans up until cancelled."""
        await self._with_each(_Queue.run)

    async def finish(self) -> None:
        """Cleans up all rows, then returns: for a clean hand-over. `run` may go on beside it."""
        await self._with_each(_Queue.finish)

    async def finish_acknowledged(self) -> None:
        """Cleans up the acknowledged at_least_once rows, for at most `LAST_CLEANUP_S`: the end of an incarnation, whose
        memory is dropped then. No marker names these rows, so those that are left are sent again (docs/design.md, 5:
        end of an incarnation). Safe for a zombie too."""
        try:
            async with asyncio.timeout(LAST_CLEANUP_S):
                await self._with_each(_Queue.finish_acknowledged)
        except TimeoutError:
            left = sum(len(queue.acknowledged()) for queue in self._queues)
            log.warning(
                "Acknowledged rows are left to be sent again",
                extra={"event": "tidy.left", "shard": self._shard, "rows": left},
            )

    async def _with_each(self, work: Callable[[_Queue], Coroutine[Any, Any, None]]) -> None:
        async with asyncio.TaskGroup() as group:
            for queue, name in zip(self._queues, ("schedules", "jobs"), strict=True):
                group.create_task(work(queue), name=f"cleanup-{self._shard}-{name}")

    def _done(self, tidied: Sequence[Completed]) -> None:
        self._on_done(tidied)
        self._progress.set()


async def finish_rows(
    store: ScheduleStore, chains: JobChains, shard: ShardId, completed: Sequence[Completed], *, retention_ms: int
) -> None:
    """Cleans up the rows of a shard that its former owner has completed, before the shard changes hands: no marker of the
    next owner names them (docs/protocol.md: x-tidy-after). May be repeated.

    Raises: NewerFormat (nothing is written: this version must not judge a row that it cannot read in full, so the shard
    is not for this node), Unavailable, Contested.
    """

    async def end_jobs(chunk: Sequence[Completed]) -> None:
        if left := await _end_jobs(store, chains, shard, chunk):
            raise StoreUnavailable(f"shard {shard}: the next rows of {len(left)} jobs cannot be armed")

    _check_format(shard, completed)
    await finish_schedules(store, shard, [one for one in completed if not one.row.of_job], retention_ms=retention_ms)
    jobs = _chunks([one for one in completed if one.row.of_job])
    await gather_bounded(end_jobs, jobs, at_once=CHUNKS_AT_ONCE)


async def finish_schedules(
    store: ScheduleStore, shard: ShardId, completed: list[Completed], *, retention_ms: int
) -> None:
    """The same for rows of schedules alone. Raises: see `finish_rows`."""
    _check_format(shard, completed)
    end_schedules = partial(_end_schedules, store, shard, retention_ms=retention_ms)
    await gather_bounded(end_schedules, _chunks(completed), at_once=CHUNKS_AT_ONCE)


def _check_format(shard: ShardId, completed: Iterable[Completed]) -> None:
    newer = [one.row for one in completed if isinstance(one.row, BrokenRow) and one.row.newer_format]
    if newer:
        raise NewerFormat(f"shard {shard}: {len(newer)} delivered rows are of a newer format: {newer[0].reason}")


def _chunks(completed: list[Completed]) -> list[list[Completed]]:
    chunks: list[list[Completed]] = []
    while completed:
        chunks.append(_next_chunk(completed, CHUNK_ROWS))
        completed = completed[len(chunks[-1]) :]
    return chunks


def _next_chunk(completed: Iterable[Completed], rows_max: int) -> list[Completed]:
    chunk: list[Completed] = []
    size_bytes = 0
    for one in islice(completed, rows_max):
        size_bytes += _size_bytes(one)
        if chunk and size_bytes > CHUNK_BYTES_MAX:
            break
        chunk.append(one)
    return chunk


async def _end_schedules(
    store: ScheduleStore, shard: ShardId, chunk: Sequence[Completed], *, retention_ms: int
) -> Sequence[Completed]:
    """Puts the outcomes of these rows, then deletes them; all, or it raises."""
    ends = [
        End(
            row=one.row,
            outcome=outcome_of(one, retention_ms=retention_ms),
            keep_existing=one.guarantee is Guarantee.AT_LEAST_ONCE,
        )
        for one in chunk
    ]
    await store.finish(shard, ends)
    return ()


async def _end_jobs(
    store: ScheduleStore, chains: JobChains, shard: ShardId, chunk: Sequence[Completed]
) -> Sequence[Completed]:
    """Notes the ends of these rows of jobs, arms what follows each, then deletes it. Returns the rows whose next ones could
    not be armed now. Of a row that cannot be read nothing is known that could be armed: the audit goes on with its job."""
    readable = {one.row.position: (one.row, one.entry) for one in chunk if isinstance(one.row, Row)}
    await chains.put_run_deliveries(list(readable.values()))
    failed: set[Position] = set()
    for row, error in await chains.arm_next_all(list(readable.values())):
        if error is not None:
            failed.add(row.position)
            log.warning(
                "The next row of a job waits to be armed",
                extra={"event": "job.arming_waits", "shard": shard, "error": str(error), "once_per": "job arming"},
            )
    ends = [End(row=one.row, outcome=None, keep_existing=False) for one in chunk if one.row.position not in failed]
    if ends:
        await store.finish(shard, ends)
    return [one for one in chunk if one.row.position in failed]


def _is_awaited(completed: Completed) -> bool:
    """True for a run that is to be completed: its consumer may be faster than the next tick."""
    return completed.row.run is not None and completed.row.run.timeout_ms is not None


def _size_bytes(completed: Completed) -> int:
    return completed.row.schedule.size_bytes if isinstance(completed.row, Row) else len(completed.row.raw)


def outcome_of(completed: Completed, *, retention_ms: int) -> Outcome | None:
    """The outcome of a completed row of a schedule; None if not even its key can be read.

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
        failure=with_last_refusal(entry.failure, row),
        expires_at_s=outcome_expiry_s(due_ms=row.due_ms, end_ms=entry.at_ms, retention_ms=retention_ms),
    )
