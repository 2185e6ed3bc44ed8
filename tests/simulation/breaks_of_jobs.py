"""The code that mutations of jobs put in the place of a rule; `breaks` has that of the others."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from clockwork.domain.jobs import steps
from clockwork.domain.jobs.calendar import CalendarName, NewCalendar
from clockwork.domain.jobs.job import ArmedRow, JobState, JobTransaction, TakenRow
from clockwork.domain.jobs.steps import RowRelation
from clockwork.domain.schedule import RequestId, Row
from clockwork.firing.cleanup import Completed
from clockwork.firing.job_chains import JobChains
from clockwork.ports.store import End, ScheduleStore
from clockwork.requests.hold import Held
from clockwork.requests.jobs import calendars
from clockwork.requests.jobs.job_state import StoredJob
from clockwork.requests.jobs.results import CalendarPut
from clockwork.requests.jobs.service import JobService
from clockwork.requests.jobs.take import RowTaker
from clockwork.requests.results import ANY_VERSION
from clockwork.stores.memory.jobs import MemoryJobStore
from tests.simulation.job_world import HostJobStore

BLIND: Final = RequestId("blind")


async def delete_then_arm(
    store: ScheduleStore, chains: JobChains, shard: Any, chunk: Sequence[Completed]
) -> Sequence[Completed]:
    """Outcome, delete, arm."""
    ended = [(one.row, one.entry) for one in chunk if isinstance(one.row, Row)]
    await chains.put_run_deliveries(ended)
    await store.finish(shard, [End(row=one.row, outcome=None, keep_existing=False) for one in chunk])
    await chains.arm_next_all(ended)
    return ()


async def no_audit(self: Any, mine: Callable[[], Any]) -> None:
    """No audit of jobs runs."""
    await asyncio.Event().wait()


async def no_repair(context: Any, stored: StoredJob, lost: ArmedRow) -> None:
    """A request that finds a row missing waits."""


def no_losses(self: Any, through: Any) -> None:
    """Without an audit, what is deleted by hand stays lost."""


async def change_at_any_revision(self: HostJobStore, change: JobTransaction) -> None:
    """Puts the state without looking at its revision."""

    def effect() -> None:
        writes = self._writes(change)
        self._schedules._check_free(*writes)
        if self.tables.states.get(change.name) == change.state:
            return
        self._check_conditions(change)
        self._schedules._apply(writes)

    await self._serve("change_job", effect)


def relation_by_name_alone(row: Row, state: JobState | None, *, committed: bool = False) -> RowRelation:
    """A state that does not name the row has gone on from it, even one from before it."""
    return RowRelation.CURRENT if state is not None and state.has_row_at(row.position) else RowRelation.SUPERSEDED


def repair_unchecked(*args: Any) -> JobTransaction:
    """A missing row is repaired without the condition that it is not there: it may be about to be applied."""
    return replace(steps.repair(*args), absent=None)


def held_by_anyone(self: HostJobStore, taken: Any) -> None:
    """A taken row is deleted, whatever hold it bears, and if it is gone already."""


class BlindTaker(RowTaker):
    """Takes every row, even one that another request holds, or an owner reads for firing."""

    async def take(self, stored: StoredJob, rows: Iterable[ArmedRow]) -> Sequence[TakenRow]:
        return [TakenRow(name=stored.state.row_name(each), hold=BLIND) for each in rows]

    def content_of(self, taken: TakenRow) -> None:
        return None


def any_calendar(self: HostJobStore, change: JobTransaction) -> None:
    """A job that was resolved with the calendar as it was before is stored all the same."""


async def follow_then_put(self: JobService, principal: Any, client_id: Any, new: NewCalendar, **how: Any) -> Any:
    """The jobs follow the calendar that is there, and then it is changed."""
    behind = calendars.OutdatedJobs()
    async with self.context.deadline() as deadline:
        await calendars.have_jobs_follow(self.context, CalendarName(client_id, new.name), deadline, behind)
        result = await calendars.put_calendar(
            self.context, client_id, new, deadline, condition=ANY_VERSION, must_exist=False, principal=None
        )
    return behind.added_to(result) if isinstance(result, CalendarPut) else result


def held_or_blind(self: HostJobStore, taken: TakenRow) -> None:
    """The hold counts for all requests but the blind ones."""
    if taken.hold != BLIND:
        MemoryJobStore._check_held(self, taken)


async def hold_without_look(context: Any, name: Any) -> Held:
    """An owner may have read the row for firing before it was held."""
    by = RequestId(f"{context.rng.getrandbits(128):032x}")
    return Held(await context.store.hold(name, by), by)
