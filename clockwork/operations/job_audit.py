"""The audit of jobs: no active job is without its next row, whatever was done to the tables by hand.

A job goes on by itself: the step that ends a row arms the next one. The audit is for what no step foresees: a row that was
deleted by hand, or that could not be read and has its dead letter; tables that were restored to different times; a state
that only a newer node could read; jobs for which nothing was armed while triggers were off (`CLOCKWORK_JOBS=manual`).

The owner of shard n reads segment n of all jobs, `START_S` after its take-over and then once in an interval: names from the
index, states, then the rows that they name. A row that is not there is looked for again `CONFIRM_S` later. If the state has
not moved meanwhile, and the row is still not there, the step is `domain.jobs.steps.repair`:

    Update state IF rev  +  ConditionCheck: the missing row is not there  +  Put the next row

The check closes a gap that no number of looks would: the row may be about to be applied, by the transaction that wrote the
state. Then the items conflict, or the check fails (docs/jobs.md, protocol).

On the way it moves armed rows that other rules of time zones put where these would not (`tzdata` was updated since), as a
PUT of the trigger does; has jobs follow named calendars that have changed since, where the request that changed them did
not come to it; and deletes what nothing else does: definitions beyond the newest hundred, and jobs whose retention is over.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

from clockwork.clock import Clock, ClockTrust
from clockwork.concurrency import gather_bounded
from clockwork.domain.jobs.calendar import CalendarName
from clockwork.domain.jobs.job import VERSIONS_KEPT, ArmedRow, JobName, JobState, JobStatus, JobTransaction, TakenRow
from clockwork.domain.jobs.steps import arm_missing, move_for_time_zones, repair, time_zones_would_move
from clockwork.domain.position import Position
from clockwork.domain.sharding import ShardId
from clockwork.errors import ClockworkError, ConditionFailed, Contested, Unavailable, Unreadable
from clockwork.firing.job_chains import JobChains
from clockwork.ports.jobs import JobStore
from clockwork.ports.store import ScheduleSearch
from clockwork.ports.telemetry import Telemetry

log = logging.getLogger(__name__)

START_S: Final = 60.0
"""Between the take-over of a shard and its first audit: rows that its former owner left are armed by then."""
CONFIRM_S: Final = 60.0
"""Between the two looks for a row."""
POLL_S: Final = 1.0
"""Between two looks at what is to be audited."""
OVERDUE_MS: Final = 300_000
"""Time after its time-out for which an open run is no sign of trouble: a backlog, a take-over, or a store that is away."""
JOBS_PAGE: Final = 100
REPAIRS_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class _Suspect:
    """A row that a state names and that was not there."""

    state: JobState
    row: ArmedRow


class JobAudit:
    """Audits the segments of the shards that this process owns."""

    def __init__(
        self,
        jobs: JobStore,
        search: ScheduleSearch,
        chains: JobChains,
        clock: Clock,
        trust: ClockTrust,
        telemetry: Telemetry,
        *,
        take: Callable[[JobState], Awaitable[Sequence[TakenRow]]],
        follow_calendars: Callable[[JobName], Awaitable[bool]],
        shards: int,
        interval_ms: int,
    ) -> None:
        """`take`: hold and look of the armed row of a state; none: it is in flight. `follow_calendars`: has a job
        follow its named calendars, and tells if it was changed. `shards`: the number of shards in the cluster."""
        self._jobs = jobs
        self._search = search
        self._chains = chains
        self._clock = clock
        self._trust = trust
        self._telemetry = telemetry
        self._take = take
        self._follow_calendars = follow_calendars
        self._shards = shards
        self._interval_s = interval_ms / 1_000
        self._next_s: dict[ShardId, float] = {}
        self._audited_s: dict[ShardId, float] = {}
        """By owned shard, the loop time of its last audit, or of its take-over."""
        self._overdue: dict[ShardId, int] = {}
        """By owned shard, the open runs of its segment whose time-outs were long over at the last audit."""
        self._digests: dict[CalendarName, str | None] = {}
        """The calendars that were read in this round, by their digests; None: there is none."""
        self._pruned: dict[JobName, int] = {}
        """The jobs whose definitions this process has pruned, and below which version."""

    async def run(self, mine: Callable[[], Set[ShardId]]) -> None:
        """Audits until cancelled. `mine`: the shards that are owned now."""
        loop = asyncio.get_running_loop()
        self._telemetry.watch_job_audit(
            lambda: loop.time() - min(self._audited_s.values(), default=loop.time()), interval_seconds=self._interval_s
        )
        while True:
            now_s = loop.time()
            owned = mine()
            self._next_s = {shard: self._next_s.get(shard, now_s + START_S) for shard in owned}
            self._audited_s = {shard: self._audited_s.get(shard, now_s) for shard in owned}
            self._overdue = {shard: self._overdue.get(shard, 0) for shard in owned}
            due = [shard for shard, at_s in self._next_s.items() if at_s <= now_s]
            if due and self._trust.trusted():
                for shard in await self._audited(due):
                    self._audited_s[shard] = loop.time()
                    self._next_s[shard] = loop.time() + self._interval_s
            self._telemetry.job_runs_overdue(sum(self._overdue.values()))
            await asyncio.sleep(POLL_S)

    async def _audited(self, shards: Iterable[ShardId]) -> list[ShardId]:
        """Audits the segments of these shards. Returns those that were read to their ends; the others are due again."""
        suspects: list[_Suspect] = []
        done: list[ShardId] = []
        self._digests.clear()
        for shard in shards:
            overdue = 0
            try:
                async for states in self._states(shard):
                    overdue += sum(map(self._is_overdue, states.values()))
                    suspects += await self._look(states)
                    await self._tidy(states)
            except (Unavailable, Contested, Unreadable) as error:
                self._log_failure(error)
            else:
                done.append(shard)
                self._overdue[shard] = overdue
        if suspects:
            await asyncio.sleep(CONFIRM_S)
            await self._confirm(suspects)
        return done

    async def _states(self, shard: ShardId) -> AsyncIterator[Mapping[JobName, JobState]]:
        after: JobName | None = None
        while True:
            page = await self._jobs.scan_jobs(shard, self._shards, after=after, jobs_max=JOBS_PAGE)
            if page.names:
                yield await self._jobs.read_states(page.names)
            if page.next_after is None:
                return
            after = page.next_after

    def _is_overdue(self, state: JobState) -> bool:
        """True if a run is open though its watchdog should have closed it long ago."""
        run = state.open_run
        return run is not None and run.until_ms < self._clock.now_ms() - OVERDUE_MS

    async def _look(self, states: Mapping[JobName, JobState]) -> list[_Suspect]:
        """The rows that these states name and that are not there."""
        named = [_Suspect(state, row) for state in states.values() for row in state.pending()]
        places = [(each.row.shard, each.row.position) for each in named]
        there = await self._search.read_rows_at(places) if places else {}
        return [each for each, place in zip(named, places, strict=True) if place not in there]

    async def _confirm(self, suspects: Sequence[_Suspect]) -> None:
        """The second look, and the repair of what is still not there at the same revision."""
        found_at = {(each.state.name, each.row.position): each.state.rev for each in suspects}
        # In the order of the suspects, not in that of a set: a seed of the simulation is to be the same history each time.
        names = list(dict.fromkeys(each.state.name for each in suspects))
        try:
            for begin in range(0, len(names), JOBS_PAGE):
                states = await self._jobs.read_states(names[begin : begin + JOBS_PAGE])
                still = [each for each in await self._look(states) if self._has_stood_still(each, found_at)]
                await gather_bounded(self._repair, _one_of_each_job(still), at_once=REPAIRS_AT_ONCE)
        except (Unavailable, Contested, Unreadable) as error:
            self._log_failure(error)  # the next audit finds them

    def _has_stood_still(self, suspect: _Suspect, found_at: Mapping[tuple[JobName, Position], int]) -> bool:
        """True if the row was not there at the first look either, at the same revision. That of a run by hand, or of a
        backfill, may go on meanwhile, with the runs of the trigger."""
        state, row = suspect.state, suspect.row
        rev = found_at.get((state.name, row.position))
        return rev == state.rev or (rev is not None and row != state.armed)

    async def _repair(self, missing: _Suspect) -> None:
        state = missing.state
        try:
            job = await self._chains.definitions.of_state(state)
            run_delivery = await self._jobs.read_run_delivery(state.name, missing.row.position)
            change = repair(state, job, missing.row, run_delivery, self._chains.step_context())
            await self._chains.apply(change)
        except (Unavailable, Contested, Unreadable) as error:
            # Changed meanwhile, or about to be applied: nothing was lost, or the next audit finds it.
            self._log_failure(error)
            return
        self._telemetry.job_repaired()
        log.error(
            "Job repaired: its row was not there",
            extra={"event": "job.repaired", "client": state.client_id, "run": missing.row.run_id},
        )

    async def _tidy(self, states: Mapping[JobName, JobState]) -> None:
        """Arms what is not armed, and deletes what is over."""
        await gather_bounded(self._tidy_one, states.values(), at_once=REPAIRS_AT_ONCE)

    async def _tidy_one(self, state: JobState) -> None:
        try:
            if state.expires_at_s is not None and state.expires_at_s * 1_000 <= self._clock.now_ms():
                await self._forget(state)
                return
            await self._prune(state)
            if await self._follow_changed_calendars(state):
                return  # the state is another by now
            if state.status is JobStatus.ACTIVE and state.open_run is None:
                await self._arm(state)
        except (Contested, Unreadable) as error:
            self._log_failure(error)

    async def _follow_changed_calendars(self, state: JobState) -> bool:
        """Has the job follow its calendars, if one is another than the job was resolved with. Returns True if the audit of
        this job is to end here: it followed, or could not."""
        if not state.calendars or state.status not in (JobStatus.ACTIVE, JobStatus.PAUSED):
            return False
        try:
            present = {name: await self._digest_of(CalendarName(state.client_id, name)) for name, _ in state.calendars}
        except Unreadable as error:
            self._log_failure(error)  # it keeps the content that it has
            return False
        for name, digest in present.items():
            if digest is None:
                log.warning(
                    "A job names a calendar that does not exist",
                    extra={
                        "event": "job.calendar_missing",
                        "client": state.client_id,
                        "job_id": state.job_id,
                        "calendar": name,
                    },
                )
        if all(present[name] in (None, digest) for name, digest in state.calendars):
            return False
        try:
            if not await self._follow_calendars(state.name):
                return False
        except Unavailable as error:
            self._log_failure(error)  # of one job: the others of the segment do not wait for it
            return True
        self._telemetry.job_rearmed("calendar")
        log.info(
            "Job follows a calendar that has changed",
            extra={"event": "job.follows_calendar", "client": state.client_id, "job_id": state.job_id},
        )
        return True

    async def _digest_of(self, key: CalendarName) -> str | None:
        if key not in self._digests:
            calendar = await self._jobs.read_calendar(key)
            self._digests[key] = None if calendar is None else calendar.exclusion.digest
        return self._digests[key]

    async def _arm(self, state: JobState) -> None:
        """Arms what is not armed, or stands at another time than it would by the rules of time zones as they are."""
        if state.armed is not None and state.tz_release == self._chains.step_context().tz_release:
            return
        job = await self._chains.definitions.of_state(state)
        change: JobTransaction | None
        if state.armed is None:
            change = arm_missing(state, job, self._chains.step_context())
        elif time_zones_would_move(state, job, self._chains.step_context()) and (taken := await self._take(state)):
            change = move_for_time_zones(state, job, taken, self._chains.step_context())
        else:
            return
        if change is None:
            return
        await self._chains.apply(change)
        if state.armed is None:
            self._telemetry.job_rearmed("not_armed")
            return
        self._telemetry.job_rearmed("time_zones")
        log.info(
            "Job armed for another time, by the present rules of time zones",
            extra={"event": "job.rearmed", "client": state.client_id, "run": state.armed.run_id},
        )

    async def _forget(self, state: JobState) -> None:
        # A row of it that waits, for its topic say, is none of a job's any more once the state is gone, and ends alone.
        try:
            await self._jobs.forget(state)
        except ConditionFailed:
            return  # it goes on: restored, or made anew
        self._pruned.pop(state.name, None)

    async def _prune(self, state: JobState) -> None:
        below = state.version - VERSIONS_KEPT + 1
        if below <= self._pruned.get(state.name, 1):
            return
        await self._jobs.prune_versions(state, below=below)
        self._pruned[state.name] = below

    def _log_failure(self, error: ClockworkError) -> None:
        extra = {"event": "job.audit_failed", "error": str(error), "once_per": f"job audit {type(error).__name__}"}
        log.warning("The audit of jobs leaves something to its next round", extra=extra)


def _one_of_each_job(suspects: Sequence[_Suspect]) -> list[_Suspect]:
    """The first of each job: its repair moves the revision that the others were found at."""
    first: dict[JobName, _Suspect] = {}
    for each in suspects:
        first.setdefault(each.state.name, each)
    return list(first.values())
