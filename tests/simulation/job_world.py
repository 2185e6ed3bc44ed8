"""The table of jobs, as one node sees it, and what it remembers for the checkers."""

import random
from collections.abc import Sequence
from typing import Final

from clockwork.domain.jobs.job import JobName, JobState, JobTransaction, RunCompletion, RunDelivery, SkippedTimes
from clockwork.domain.position import Position
from clockwork.domain.schedule import Row
from clockwork.stores.memory.jobs import JobTables, LogKey, MemoryJobStore
from tests.simulation.store_world import HostStore, StoreWorld
from tests.simulation.trace import Trace

LOSS_LEAD_MS: Final = 1_500
"""Rows that are due later than this are deleted by hand: no owner has read one for firing."""


class States(dict[JobName, JobState]):
    """States; and every one that ever was. A revision is never used again."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.ever: dict[JobName, list[JobState]] = {}
        self._trace = trace

    def __setitem__(self, name: JobName, state: JobState) -> None:
        there = self.get(name)
        if there is not None and state.rev <= there.rev:
            self._trace.violation("lowered", f"{name}: revision {there.rev} became {state.rev}")
        self.ever.setdefault(name, []).append(state)
        armed = state.armed.run_id if state.armed is not None else None
        self._trace.note("job", name.job_id, state.rev, state.status, f"v{state.version}", armed)
        super().__setitem__(name, state)


class Log(dict[LogKey, RunDelivery | SkippedTimes]):
    """Entries of the logs. That of a run is final once written."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace

    def __setitem__(self, place: LogKey, entry: RunDelivery | SkippedTimes) -> None:
        there = self.get(place)
        if there is not None and there != entry:
            self._trace.violation("outcome_changed", f"{place}: {there}, then {entry}")
        super().__setitem__(place, entry)


class Completions(dict[LogKey, RunCompletion]):
    """Completions. The first one stands."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace

    def __setitem__(self, place: LogKey, completion: RunCompletion) -> None:
        there = self.get(place)
        if there is not None and there != completion:
            self._trace.violation("outcome_changed", f"{place}: {there}, then {completion}")
        self._trace.note("run", completion.job_id, completion.run_id, completion.attempt, completion.result)
        super().__setitem__(place, completion)


class JobWorld:
    """All that is stored of jobs, and what was done to their rows."""

    def __init__(self, store: StoreWorld, rng: random.Random) -> None:
        self.tables = JobTables(states=States(store.trace), log=Log(store.trace), completions=Completions(store.trace))
        self.taken: set[Position] = set()
        """Rows that requests took, by changes that were decided."""
        self.lost: set[Position] = set()
        """Rows that were deleted by hand."""
        self.skipped_at_rev: dict[Position, int] = {}
        """By the position of a skipped stretch, the revision that was written with it."""
        self._store = store
        self._rng = rng

    def lose_row(self, through: HostStore) -> None:
        """Deletes a row of a job, as an operator does by hand, that no owner can have read for firing."""
        store = self._store
        frontier_ms = max((node.frontier_ms for node in store.nodes.values()), default=0)
        safe_ms = max(frontier_ms, int(store.now_ms())) + LOSS_LEAD_MS
        rows = [
            row
            for place, row in store.rows.items()
            if isinstance(row, Row)
            and row.of_job
            and row.hold is None
            and row.due_ms > safe_ms
            and place not in store.tables.busy
        ]
        if not rows:
            return
        row = self._rng.choice(sorted(rows, key=lambda each: each.position))
        store.trace.note("by hand: a row is deleted", row.schedule.schedule_key, row.run and row.run.run_id)
        self.lost.add(row.position)
        through._remove(row.shard, row.position)


class HostJobStore(MemoryJobStore):
    """The store of jobs on one node; what is stored is the world's."""

    def __init__(self, schedules: HostStore, world: JobWorld) -> None:
        super().__init__(schedules, world.tables)
        self._host_store = schedules
        self._world = world

    def _check_conditions(self, change: JobTransaction) -> None:
        super()._check_conditions(change)
        # From here on it is decided.
        self._world.taken.update(each.name.position for each in change.taken)
        for entry in change.entries:
            if isinstance(entry, SkippedTimes):
                self._world.skipped_at_rev[entry.position] = change.state.rev

    async def put_run_deliveries(self, ends: Sequence[RunDelivery], *, keep_existing: bool) -> None:
        """In parts, as `HostStore.put_outcomes`."""

        def put(end: RunDelivery) -> None:
            place = (end.name, end.position)
            if not (keep_existing and place in self.tables.log):
                self.tables.log[place] = end

        await self._host_store._step("put_run_deliveries", ends, lambda end: ("run", *end.name, end.position), put)
