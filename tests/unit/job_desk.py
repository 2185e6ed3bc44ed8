"""Requests about jobs on the twins in memory, for the tests of the request side."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from clockwork.domain.jobs.job import JobContent, JobName, JobState, NewJob, RunNow
from clockwork.domain.rights import ANYONE
from clockwork.domain.run import JobId
from clockwork.domain.schedule import Row
from clockwork.domain.sharding import ShardId
from clockwork.errors import StoreUnavailable
from clockwork.requests.jobs.results import (
    JobChanged,
    JobChangeResult,
    JobCreated,
    JobCreateResult,
    JobEdit,
    JobUnchanged,
    JobView,
    RunResult,
)
from clockwork.requests.jobs.service import JobService
from clockwork.requests.results import ANY_VERSION, VersionCondition
from tests.support import builders
from tests.support.clocks import ManualClock
from tests.support.engine import SHARDS, Engine
from tests.support.jobs import JOB_ID, NOW_MS, new_job

NAME: Final = JobName(builders.CLIENT, JOB_ID)
MINUTE_MS: Final = 60_000


def to(**fields: Any) -> JobEdit:
    """A change of these fields."""

    def edit(content: JobContent, *, created_ms: int) -> JobContent:
        return replace(content, **fields)

    return edit


class JobDesk:
    """One node's requests about jobs, in the name of any caller."""

    def __init__(self, **settings: Any) -> None:
        self.engine = Engine(clock=ManualClock(NOW_MS), **settings)
        self.clock = self.engine.clock
        self.jobs: JobService = self.engine.requests.jobs

    # --- requests

    async def create(self, new: NewJob | None = None) -> JobCreateResult:
        wanted = new if new is not None else new_job()
        return await self.jobs.create(ANYONE, replace(wanted, created_at_ms=self.clock.now_ms()))

    async def created(self, new: NewJob | None = None) -> JobView:
        """A job that was not there."""
        result = await self.create(new)
        assert isinstance(result, JobCreated)
        return result.view

    async def put(self, condition: VersionCondition = ANY_VERSION, **fields: Any) -> JobChangeResult:
        return await self.jobs.put(ANYONE, NAME, to(**fields), condition=condition)

    async def pause(self, note: str | None = None) -> JobChangeResult:
        return await self.jobs.pause(ANYONE, NAME, note)

    async def resume(self) -> JobChangeResult:
        return await self.jobs.resume(ANYONE, NAME)

    async def delete(self) -> JobChangeResult:
        return await self.jobs.delete(ANYONE, NAME)

    async def restore(self) -> JobChangeResult:
        return await self.jobs.restore(ANYONE, NAME)

    async def run_now(self, request_id: str = "r1", data: bytes | None = None) -> RunResult:
        digest = "" if data is None else data.decode()
        request = RunNow(request_id=request_id, task_data=data, digest=digest)
        return await self.jobs.start_runs(ANYONE, NAME, request)

    # --- what is there

    async def state(self, name: JobName = NAME) -> JobState:
        state = await self.engine.jobs.read_state(name)
        assert state is not None
        return state

    def rows(self) -> list[Row]:
        """All rows, in the order of their due times."""
        rows = [row for row in self.engine.store.rows.values() if isinstance(row, Row)]
        return sorted(rows, key=lambda row: row.position)

    def lose(self, row: Row) -> None:
        """Deletes a row, as an operator does by hand."""
        self.engine.store._remove(row.shard, row.position)

    def put_back(self, row: Row) -> None:
        """Puts a row as it was."""
        self.engine.store._apply(self.engine.store._put_row(row))

    # --- the other side

    async def in_flight(self) -> None:
        """The owners of all shards may be firing what is due within a year."""
        states = self.engine.store.shard_states
        for shard in states:
            states[shard] = replace(states[shard], floor_ms=self.clock.now_ms() + 365 * 86_400_000)

    async def deliver(self) -> None:
        """One pass over each shard, and the cleanup behind it."""
        for number in range(SHARDS):
            lease = await self.engine.own(ShardId(number))
            await self.engine.one_pass(lease)
            await lease.cleanup.finish()

    async def deliver_at(self, at_ms: int) -> None:
        self.clock.set_ms(at_ms)
        await self.deliver()

    def lose_answer(self, *, applied: bool = True, then: Callable[[], Awaitable[Any]] | None = None) -> None:
        """The next change of a job is carried out, or is not, without an answer. `then`: what follows before the request
        comes back to it."""
        store, real = self.engine.jobs, self.engine.jobs.change

        async def once(change: Any) -> None:
            setattr(store, "change", real)  # noqa: B010  # a method, which types do not let us assign
            if applied:
                await real(change)
            if then is not None:
                await then()
            raise StoreUnavailable("no answer", outcome_unknown=True)

        setattr(store, "change", once)  # noqa: B010

    def before_change(self, first: Callable[[], Awaitable[Any]]) -> None:
        """Something else happens between a request's read and its change."""
        store, real = self.engine.jobs, self.engine.jobs.change

        async def late(change: Any) -> None:
            setattr(store, "change", real)  # noqa: B010
            await first()
            await real(change)

        setattr(store, "change", late)  # noqa: B010


def done(result: object) -> JobView:
    """The job of a change that was made, or found made."""
    assert isinstance(result, JobChanged | JobUnchanged), result
    return result.view


def other_name(job_id: str) -> JobName:
    return JobName(builders.CLIENT, JobId(job_id))
