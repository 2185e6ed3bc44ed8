"""The chains of jobs: what follows a row of a job that has ended is armed between its outcome and its delete.

    outcome   the entry of the run in the job's log
    arm       one transaction: the state IF it is at the revision that was read, and the next row
    delete    of the row that has ended

In this order (docs/jobs.md, protocol). Until it is deleted the row is named in the markers of its slot, so whatever dies in
between, the next owner does the rest: no job is without its next row. And the arming is on condition of a revision that is
never used again: of all owners and zombies that follow one row, one arms. The state tells the others so:

    older than the row      the transaction that wrote both is being applied: wait. Found by the row's own revision
    names this row          arm; if it was changed meanwhile (paused, another definition), by what it is now
    names another, or none  another writer went on from this row: nothing to do
    cannot be read          a newer node's: the row is deleted all the same, and the audit of such a node goes on. The same
                            if its definition is not there, and is not about to be applied: it was deleted by hand

A state that stays older than the row, or is not there, although no transaction is being applied to it, has expired, or
is that of a table that was restored to an earlier time. Such a row is none of its; without this, it would stay for
ever, and its shard could not change hands.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from clockwork.clock import Clock, ClockTrust
from clockwork.concurrency import gather_bounded
from clockwork.domain.jobs.job import (
    Job,
    JobName,
    JobState,
    JobStatus,
    JobTransaction,
    RunCompletion,
    RunDelivery,
    SkippedTimes,
    job_name_of,
)
from clockwork.domain.jobs.steps import (
    EndedRow,
    RowRelation,
    StepContext,
    after_end,
    close_completed,
    ended_row,
    relation_of,
    run_delivery_of,
)
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.position import RANDOM_DIGITS
from clockwork.domain.schedule import Guarantee, RequestId, Row
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import NewlyDue, WakeUp
from clockwork.errors import (
    ClockUntrusted,
    ClockworkError,
    ConditionFailed,
    Contested,
    StoreUnavailable,
    TransactionConflict,
    Unavailable,
    Unreadable,
)
from clockwork.ports.jobs import JobStore, StaleRevision
from clockwork.ports.telemetry import JobRunResult, Telemetry
from clockwork.settings.model import RunnerSettings

log = logging.getLogger(__name__)

CHAINS_AT_ONCE: Final = 64
"""Rows of one chunk whose next ones are armed side by side: the store shares their calls."""
STATES_KEPT: Final = 20_000
"""States that are remembered as this process wrote them last, some 1 KB each: a row whose state is among them, at the row's
own revision, is followed without a read. The condition on the revision tells if another writer was faster."""
DEFINITIONS_KEPT: Final = 5_000
DEFINITIONS_BYTES_MAX: Final = 32 * 1024 * 1024
"""Content of the definitions that are remembered. They never change."""
MISSING_S: Final = 60.0
"""Time after which a definition that is not there will not be applied any more. Without an end, the rows of its job would
stay for ever, and their shards could not change hands."""


class JobDefinitions:
    """Reads definitions, and remembers them."""

    def __init__(self, jobs: JobStore) -> None:
        self._jobs = jobs
        self._known: dict[tuple[JobName, int], Job] = {}
        self._size_bytes = 0
        self._missing_since_s: dict[tuple[JobName, int, int], float] = {}
        """By name, version, and creation of the job."""

    async def of_state(self, state: JobState) -> Job:
        """The definition of the state's version.

        Raises: TransactionConflict (it is about to be applied), Unreadable (or it was deleted by hand), StoreUnavailable.
        """
        key = (state.name, state.version)
        job = self._known.get(key)
        if job is not None and job.created_at_ms == state.created_at_ms:
            return job
        job = await self._jobs.read_definition(*key)
        if job is None or job.created_at_ms != state.created_at_ms:
            # The state is read before its definition is there; or a version of a job that had this name before.
            now_s = asyncio.get_running_loop().time()
            since_s = self._missing_since_s.setdefault((*key, state.created_at_ms), now_s)
            while len(self._missing_since_s) > DEFINITIONS_KEPT:
                del self._missing_since_s[next(iter(self._missing_since_s))]
            if now_s - since_s >= MISSING_S:
                raise Unreadable(f"the definition {state.version} of a job is not there")
            raise TransactionConflict(f"the definition {state.version} of a job is not there yet")
        self._missing_since_s.pop((*key, state.created_at_ms), None)
        self._remember(key, job)
        return job

    def _remember(self, key: tuple[JobName, int], job: Job) -> None:
        old = self._known.pop(key, None)
        self._known[key] = job
        self._size_bytes += len(job.task_data) - (len(old.task_data) if old is not None else 0)
        while len(self._known) > DEFINITIONS_KEPT or self._size_bytes > DEFINITIONS_BYTES_MAX:
            oldest = next(iter(self._known))
            self._size_bytes -= len(self._known.pop(oldest).task_data)


class JobChains:
    """Arms what follows ended rows, for all shards of one process."""

    def __init__(
        self,
        jobs: JobStore,
        clock: Clock,
        trust: ClockTrust,
        rng: random.Random,
        telemetry: Telemetry,
        settings: RunnerSettings,
        *,
        shards: int,
        wake: Callable[[ShardId, WakeUp], None],
    ) -> None:
        """`shards`: the number of shards in the cluster. `wake` tells the owner of a shard that a row of it is new."""
        self.definitions = JobDefinitions(jobs)
        self._jobs = jobs
        self._clock = clock
        self._trust = trust
        self._rng = rng
        self._telemetry = telemetry
        self._settings = settings
        self._shards = shards
        self._wake = wake
        self._known: dict[JobName, JobState] = {}
        self._last_us = 0

    async def put_run_deliveries(self, ended: Sequence[tuple[Row, MarkerEntry]]) -> None:
        """Puts the entries of these rows in the logs of their jobs. Raises: StoreUnavailable."""
        ends: dict[bool, list[RunDelivery]] = {True: [], False: []}
        for row, entry in ended:
            end = run_delivery_of(row, entry, retention_ms=self._settings.retention_ms)
            if end is not None:
                ends[row.schedule.guarantee is Guarantee.AT_LEAST_ONCE].append(end)
        for keep_existing, entries in ends.items():
            if entries:
                await self._jobs.put_run_deliveries(entries, keep_existing=keep_existing)

    async def arm_next_all(self, ended: Sequence[tuple[Row, MarkerEntry]]) -> list[tuple[Row, ClockworkError | None]]:
        """Arms what follows each of these rows, whose entries stand: see `follow`. Each fails alone. Returns the rows with
        their failures; None: it may be deleted."""
        states = await self._unknown_states([row for row, _ in ended])

        async def one(of: tuple[Row, MarkerEntry]) -> tuple[Row, ClockworkError | None]:
            row, entry = of
            try:
                await self.arm_next(row, entry, states.get(job_name_of(row)))
            except (Unavailable, Contested) as error:
                return row, error
            return row, None

        return await gather_bounded(one, ended, at_once=CHAINS_AT_ONCE)

    async def _unknown_states(self, rows: Sequence[Row]) -> Mapping[JobName, JobState]:
        """The states of these rows that are not remembered, read in one call: those of jobs that run rarely are not, when
        very many are due at one moment. What is missing in it is read by each row for itself, and so fails alone."""
        unknown = [job_name_of(row) for row in rows if self._state_at(row) is None]
        try:
            return await self._jobs.read_states(unknown) if len(unknown) > 1 else {}
        except StoreUnavailable:
            return {}

    def _state_at(self, row: Row) -> JobState | None:
        """The state as this process wrote it with this row, if it remembers it."""
        state = self._known.get(job_name_of(row))
        return state if state is not None and row.run is not None and state.rev == row.run.rev else None

    async def arm_next(self, row: Row, entry: MarkerEntry, state: JobState | None = None) -> None:
        """Arms what follows a row of a job that has ended. When it returns, the row may be deleted. `state`: as it was read
        after the end; None: it is read if need be.

        Raises: Unavailable, Contested: it is to be called again.
        """
        if not self._trust.trusted():
            raise ClockUntrusted  # to arm is to accept
        name = job_name_of(row)
        try:
            state = self._state_at(row) or state or await self._jobs.read_state(name)
            while True:
                relation = relation_of(row, state)
                if relation is RowRelation.STATE_NOT_APPLIED:
                    state = await self._jobs.read_state(name, committed=True)
                    relation = relation_of(row, state, committed=True)
                if relation is RowRelation.SUPERSEDED or state is None:
                    return
                ended, job = ended_row(row, entry), await self.definitions.of_state(state)
                change = after_end(state, job, ended, self.step_context())
                try:
                    await self.apply(change)
                except StaleRevision as changed:
                    state = changed.state  # changed meanwhile: again, from what it is now
                    continue
                except ConditionFailed:
                    change = await self._close_completed(state, job, change, ended)
                if ended.run.is_watchdog:
                    self._count_time_out(state, change)
                elif not ended.dropped:
                    self._count_run(row, ended)
                if state.status is not JobStatus.PAUSED and change.state.status is JobStatus.PAUSED:
                    log.warning(
                        "Job paused: its runs failed in a row",
                        extra={
                            "event": "job.paused_by_failures",
                            "client": name.client_id,
                            "failures": change.state.failures,
                        },
                    )
                return
        except Unreadable as error:
            self._telemetry.malformed("job")
            log.error(
                "Job cannot be read; nothing is armed",
                extra={
                    "event": "job.unreadable",
                    "client": name.client_id,
                    "run": row.run.run_id if row.run is not None else None,
                    "shard": row.shard,
                    "error": str(error),
                },
            )

    def _count_run(self, row: Row, ended: EndedRow) -> None:
        result: JobRunResult = "failed" if ended.failed else "delivered"
        self._telemetry.job_run(result)
        if self._settings.job_log == "on":
            log.info(
                "Delivery of a run ended",
                extra={
                    "event": "job.run",
                    "client": row.schedule.client_id,
                    "job_id": row.schedule.schedule_key,
                    "run": ended.run.run_id,
                    "kind": ended.run.kind.value,
                    "attempt": ended.run.attempt,
                    "result": result,
                    "shard": row.shard,
                },
            )

    def _count_time_out(self, before: JobState, change: JobTransaction) -> None:
        run = before.open_run
        for entry in change.entries:
            if isinstance(entry, RunCompletion) and run is not None:
                seconds = (entry.finished_at_ms - run.delivered_at_ms) / 1_000
                self._telemetry.job_completion(entry.result, seconds=seconds)

    async def _close_completed(
        self, state: JobState, job: Job, change: JobTransaction, ended: EndedRow
    ) -> JobTransaction:
        """Closes a run that ran out of time, and that is completed already: before its own row was cleaned up, or in a table
        that was restored. That completion counts; without an end, the watchdog would stay for ever, and its shard with it.
        Returns the change that was made, which is no time-out.

        Raises: Contested, as `JobStore.change`; Unreadable.
        """
        timed_out = next((each for each in change.entries if isinstance(each, RunCompletion)), None)
        recorded = await self._jobs.read_completion(state.name, timed_out.position) if timed_out is not None else None
        if recorded is None:
            raise TransactionConflict("a condition of the arming does not hold, and none of its items says why")
        closed = close_completed(state, job, recorded, self.step_context(), content=ended.content)
        await self.apply(closed)
        return closed

    async def apply(self, change: JobTransaction) -> None:
        """Applies a change, remembers the state, and wakes the owners of its rows.

        Raises: as `JobStore.change`.
        """
        self._known.pop(change.name, None)
        await self._jobs.change(change)
        self._known[change.name] = change.state
        while len(self._known) > STATES_KEPT:
            del self._known[next(iter(self._known))]
        for entry in change.entries:
            if isinstance(entry, SkippedTimes):
                self._telemetry.job_skipped(entry.reason, entry.count)
        now_ms = self._clock.now_ms()
        for row in change.rows:
            if row.due_ms <= now_ms + self._settings.scan_interval_ms:
                self._wake(row.shard, NewlyDue(row.due_ms))

    def step_context(self) -> StepContext:
        """The context of a step that is made now."""
        self._last_us = max(self._clock.now_us(), self._last_us + 1)
        return StepContext(
            now_ms=self._clock.now_ms(),
            accepted_us=self._last_us,
            random=self._rng.randrange(10**RANDOM_DIGITS),
            write_id=RequestId(f"{self._rng.getrandbits(128):032x}"),
            shards=self._shards,
            retention_ms=self._settings.retention_ms,
            triggers_on=self._settings.jobs != "manual",
        )
