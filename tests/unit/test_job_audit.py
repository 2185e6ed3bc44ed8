"""The audit of jobs, on the twin of the store, in virtual time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import pytest

from clockwork.domain.jobs.calendar import Calendar, CalendarName
from clockwork.domain.jobs.job import CompletionPolicy, JobName, JobState, JobStatus, JobTransaction, TakenRow
from clockwork.domain.jobs.next_occurrence import OverlapPolicy
from clockwork.domain.jobs.steps import after_end, create, delete, ended_row, pause, run_delivery_of, run_now
from clockwork.domain.run import JobId
from clockwork.domain.schedule import RequestId, Row
from clockwork.domain.sharding import ShardId
from clockwork.domain.triggers.exclusions import Exclusion, exclusion
from clockwork.domain.triggers.trigger import FixedRate, Trigger, cron
from clockwork.domain.triggers.zones import RULES_VERSION
from clockwork.errors import NewerFormat, StoreUnavailable, Unavailable, Unreadable
from clockwork.operations.job_audit import CONFIRM_S, OVERDUE_MS, START_S, JobAudit
from clockwork.ports.telemetry import NoTelemetry, RearmedFor
from clockwork.stores.memory.jobs import JobTables, MemoryJobStore
from clockwork.stores.memory.store import MemoryScheduleSearch
from tests.support import builders
from tests.support.clocks import LoopClock, TrustedClock
from tests.support.jobs import (
    NOW_MS,
    RETENTION_MS,
    SHARDS,
    chains_on,
    created,
    definition,
    delivered,
    new_job,
    step_context,
    the_row,
)
from tests.support.virtual_time import in_virtual_time
from tests.unit.test_job_chains import Store

INTERVAL_MS: Final = 600_000
ALL: Final = frozenset(map(ShardId, range(SHARDS)))
MINUTE: Final = 60_000


class Counts(NoTelemetry):
    """Counts what the audit did."""

    def __init__(self) -> None:
        self.repaired = 0
        self.rearmed: list[RearmedFor] = []
        self.age_s: Callable[[], float] = lambda: -1.0
        self.overdue = -1

    def job_repaired(self) -> None:
        self.repaired += 1

    def job_rearmed(self, reason: RearmedFor) -> None:
        self.rearmed.append(reason)

    def watch_job_audit(self, read: Any, *, interval_seconds: float) -> None:
        self.age_s = read

    def job_runs_overdue(self, count: int) -> None:
        self.overdue = count


class World:
    """Jobs, and an audit of all of them."""

    def __init__(self) -> None:
        self.store = Store()
        self.jobs = MemoryJobStore(self.store, JobTables())
        self.clock = LoopClock(NOW_MS)
        self.trust = TrustedClock()
        self.counts = Counts()
        self.audit = JobAudit(
            self.jobs,
            MemoryScheduleSearch(self.store),
            chains_on(self.jobs, clock=self.clock, trust=self.trust),
            self.clock,
            self.trust,
            self.counts,
            take=self.take,
            follow_calendars=self.follow,
            shards=SHARDS,
            interval_ms=INTERVAL_MS,
        )
        self.owned = ALL
        self.followed: list[str] = []
        self.follow_fails = False

    async def made(self, **fields: Any) -> JobTransaction:
        change = created(new_job(**fields))
        await self.jobs.change(change)
        return change

    async def take(self, state: JobState) -> Sequence[TakenRow]:
        """Holds the armed row; a look finds that no owner has read it for firing."""
        assert state.armed is not None
        name = state.row_name(state.armed)
        await self.store.hold(name, RequestId("audit"))
        return [TakenRow(name=name, hold=RequestId("audit"))]

    async def follow(self, job: JobName) -> bool:
        """Remembers the jobs that are to follow their calendars."""
        self.followed.append(job.job_id)
        if self.follow_fails:
            raise Unavailable("no answer")
        return True

    def lose(self, row: Row) -> None:
        """Deletes a row, as an operator does by hand."""
        self.store._remove(row.shard, row.position)

    @asynccontextmanager
    async def auditing(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(self.audit.run(lambda: self.owned), name="audit")
            try:
                yield
            finally:
                running.cancel()

    @property
    def rows(self) -> list[Row]:
        return [row for row in self.store.rows.values() if isinstance(row, Row)]


ONE_AUDIT_S: Final = START_S + CONFIRM_S + 10


@in_virtual_time
async def test_a_row_that_was_deleted_by_hand_is_armed_again(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    lost = the_row(await world.made())
    world.lose(lost)
    async with world.auditing():
        await asyncio.sleep(ONE_AUDIT_S)

    (row,) = world.rows
    assert (row.run and row.run.run_id) == f"s{NOW_MS + MINUTE}"
    assert world.counts.repaired == 1
    assert [vars(each)["event"] for each in caplog.records if each.levelname == "ERROR"] == ["job.repaired"]


@in_virtual_time
async def test_a_row_that_was_delivered_and_not_followed_is_followed() -> None:
    # By a node that could not read the state, and deleted the row all the same.
    world = World()
    change = await world.made()
    lost = the_row(change)
    end = run_delivery_of(lost, delivered(lost), retention_ms=RETENTION_MS)
    assert end is not None
    await world.jobs.put_run_deliveries([end], keep_existing=False)
    world.lose(lost)
    async with world.auditing():
        await asyncio.sleep(ONE_AUDIT_S)

    (row,) = world.rows
    assert row.run is not None
    assert row.run.scheduled_at_ms == NOW_MS + 2 * MINUTE


@in_virtual_time
async def test_jobs_whose_rows_are_there_are_left_alone() -> None:
    world = World()
    change = await world.made()
    async with world.auditing():
        await asyncio.sleep(ONE_AUDIT_S)

    assert world.rows == [the_row(change)]
    assert world.jobs.tables.states == {change.name: change.state}


@in_virtual_time
async def test_a_job_that_has_gone_on_between_the_two_looks_is_left_alone() -> None:
    # Its row was not there, and its state moved: nothing was lost.
    world = World()
    change = await world.made()
    row = the_row(change)
    world.lose(row)
    async with world.auditing():
        await asyncio.sleep(START_S + 10)
        await world.jobs.change(pause(change.state, [], step_context(NOW_MS + MINUTE), note=None))
        await asyncio.sleep(CONFIRM_S)

    assert (world.rows, world.counts.repaired) == ([], 0)


@in_virtual_time
async def test_a_row_that_is_about_to_be_applied_is_not_repaired() -> None:
    # The state is there, its row is not yet: however often the audit looks, a second row would be one too many.
    world = World()
    change = await world.made()
    row = the_row(change)
    world.lose(row)
    world.store.busy.add((row.shard, row.position))
    async with world.auditing():
        await asyncio.sleep(ONE_AUDIT_S)
        world.store.put_by_hand(row)

    assert (world.rows, world.counts.repaired) == ([row], 0)


@in_virtual_time
async def test_a_lost_run_by_hand_is_run_again_whatever_its_job_did_meanwhile() -> None:
    world = World()
    change = await world.made(trigger=None, durable=True)
    again = run_now(change.state, definition(change), step_context(NOW_MS), request_id="r")
    await world.jobs.change(again)
    world.lose(the_row(again))
    async with world.auditing():
        await asyncio.sleep(START_S + 10)
        moved = replace(again.state, rev=again.state.rev + 1, pause_reason="n")
        await world.jobs.change(JobTransaction(before_rev=again.state.rev, state=moved))
        await asyncio.sleep(CONFIRM_S)

    (row,) = world.rows
    assert (row.run and row.run.run_id) == again.state.side_rows[0].run_id


@in_virtual_time
async def test_a_job_for_which_nothing_was_armed_is_armed_and_counted() -> None:
    # It was made, or went on, while triggers armed nothing.
    world = World()
    change = create(new_job(), None, step_context(triggers_on=False))
    await world.jobs.change(change)
    async with world.auditing():
        await asyncio.sleep(ONE_AUDIT_S)

    assert (len(world.rows), world.counts.rearmed, world.counts.repaired) == (1, ["not_armed"], 0)


@in_virtual_time
async def test_a_deleted_job_is_forgotten_once_its_retention_is_over() -> None:
    world = World()
    kept, gone = await world.made(job_id=JobId("kept")), await world.made()
    for change, expires_at_s in ((kept, NOW_MS // 1_000 + 7_200), (gone, NOW_MS // 1_000)):
        end = delete(change.state, [], step_context(NOW_MS))
        await world.jobs.change(replace(end, state=replace(end.state, expires_at_s=expires_at_s)))
    async with world.auditing():
        await asyncio.sleep(ONE_AUDIT_S)

    assert list(world.jobs.tables.states) == [kept.name]
    assert {name for name, _ in world.jobs.tables.definitions} == {kept.name}
    assert world.jobs.tables.states[kept.name].status is JobStatus.DELETED


@in_virtual_time
async def test_the_newest_hundred_definitions_of_a_job_are_kept() -> None:
    world = World()
    change = await world.made()
    job, state = definition(change), change.state
    for version in range(2, 121):
        before, state = state, replace(state, rev=state.rev + 1, version=version)
        await world.jobs.change(
            JobTransaction(before_rev=before.rev, state=state, definition=replace(job, version=version))
        )
    async with world.auditing():
        await asyncio.sleep(ONE_AUDIT_S)

    assert sorted(version for _, version in world.jobs.tables.definitions) == list(range(21, 121))


@in_virtual_time
async def test_only_the_segments_of_owned_shards_are_audited_and_again_after_the_interval() -> None:
    world = World()
    world.owned = frozenset()
    async with world.auditing():
        await asyncio.sleep(2 * ONE_AUDIT_S)
        assert "scan_jobs" not in world.store.calls
        world.owned = frozenset({ShardId(3)})
        await asyncio.sleep(ONE_AUDIT_S)
        assert world.store.calls.count("scan_jobs") == 1
        assert world.counts.age_s() < ONE_AUDIT_S
        await asyncio.sleep(INTERVAL_MS / 1_000)

    assert world.store.calls.count("scan_jobs") == 2


@in_virtual_time
async def test_while_the_clock_is_not_trusted_nothing_is_audited() -> None:
    world = World()
    world.trust.is_trusted = False
    async with world.auditing():
        await asyncio.sleep(ONE_AUDIT_S)

    assert world.store.calls == []


@in_virtual_time
async def test_an_audit_that_the_store_does_not_answer_is_made_again_soon() -> None:
    world = World()
    world.lose(the_row(await world.made()))
    world.store.instead["read_jobs"] = StoreUnavailable()
    async with world.auditing():
        await asyncio.sleep(START_S + 10)
        world.store.instead.clear()
        await asyncio.sleep(CONFIRM_S + 10)

    assert world.counts.repaired == 1


@in_virtual_time
async def test_a_job_that_cannot_be_read_keeps_no_other_from_being_repaired() -> None:
    world = World()
    bad, good = await world.made(job_id=JobId("bad")), await world.made()
    for change in (bad, good):
        world.lose(the_row(change))
    read = world.jobs.read_definition

    async def read_definition(name: Any, version: int) -> Any:
        if name == bad.name:
            raise NewerFormat("format 9")
        return await read(name, version)

    vars(world.jobs)["read_definition"] = read_definition
    async with world.auditing():
        await asyncio.sleep(ONE_AUDIT_S)

    assert [str(row.schedule.schedule_key) for row in world.rows] == [str(good.name.job_id)]


@in_virtual_time
async def test_a_row_that_other_rules_of_time_zones_armed_is_moved() -> None:
    # Case 8: armed by the rules before an update of tzdata, it stands an hour from where it would by the present ones.
    world = World()
    every_hour = Trigger(rule=FixedRate(every_ms=60 * MINUTE, anchor_ms=NOW_MS + 30 * MINUTE))
    change = await world.made(trigger=every_hour)
    moved = replace(definition(change), trigger=Trigger(rule=FixedRate(every_ms=60 * MINUTE, anchor_ms=NOW_MS)))
    world.jobs.tables.definitions[(change.name, 1)] = moved
    world.jobs.tables.states[change.name] = replace(change.state, tz_release="2001a")
    async with world.auditing():
        await asyncio.sleep(ONE_AUDIT_S)

    (row,) = world.rows
    assert (row.due_ms, world.counts.rearmed) == (NOW_MS + 60 * MINUTE, ["time_zones"])
    state = world.jobs.tables.states[change.name]
    assert (state.tz_release, state.version) == (RULES_VERSION, 1)


@in_virtual_time
async def test_a_row_that_stands_where_the_present_rules_put_it_stays() -> None:
    world = World()
    change = await world.made()
    world.jobs.tables.states[change.name] = replace(change.state, tz_release="2001a")
    async with world.auditing():
        await asyncio.sleep(START_S + 10)

    assert world.rows == [the_row(change)]


@in_virtual_time
async def test_runs_that_are_open_long_after_their_time_outs_are_counted() -> None:
    # Their watchdogs are there, and no owner ends them: say, the shard stands still.
    world = World()
    change = await world.made(completion=CompletionPolicy(timeout_ms=MINUTE), overlap=OverlapPolicy.SKIP)
    row = the_row(change)
    open_ = after_end(change.state, definition(change), ended_row(row, delivered(row)), step_context(row.due_ms))
    assert open_.state.open_run is not None
    await world.jobs.change(open_)
    world.store.put_by_hand(the_row(open_))
    until_s = (open_.state.open_run.until_ms - NOW_MS) / 1_000
    async with world.auditing():
        await asyncio.sleep(ONE_AUDIT_S)
        counted_before = world.counts.overdue
        await asyncio.sleep(until_s + OVERDUE_MS / 1_000 + INTERVAL_MS / 1_000 + CONFIRM_S)

    assert (counted_before, world.counts.overdue) == (0, 1)


# --- named calendars

BEFORE = exclusion(annual=["10-03"])
AFTER = exclusion(annual=["10-03", "12-25"])
BY_CALENDAR = Trigger(rule=cron("0 9 * * *", exclude=exclusion(calendar="de", named=BEFORE)))


async def kept(world: World, content: Exclusion) -> None:
    """The client's calendar has this content."""
    key = CalendarName(builders.CLIENT, "de")
    calendar = Calendar(
        client_id=key.client_id,
        name=key.name,
        version=1,
        exclusion=content,
        created_at_ms=NOW_MS,
        updated_at_ms=NOW_MS,
        write_id=RequestId(content.digest),
    )
    await world.jobs.put_calendar(calendar, before=await world.jobs.read_calendar(key))


@in_virtual_time
async def test_a_job_follows_a_calendar_that_has_changed_and_no_other_job_is_touched() -> None:
    world = World()
    await kept(world, BEFORE)
    await world.made(trigger=BY_CALENDAR)
    await world.made(job_id=JobId("other"))
    async with world.auditing():
        await asyncio.sleep(ONE_AUDIT_S)
        assert world.followed == []
        await kept(world, AFTER)
        await asyncio.sleep(INTERVAL_MS / 1_000)

    assert world.followed == ["nightly"]
    assert world.counts.rearmed == ["calendar"]


@in_virtual_time
async def test_a_job_whose_calendar_is_gone_is_left_as_it_is_and_told(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    await kept(world, BEFORE)
    made = await world.made(trigger=BY_CALENDAR)
    world.jobs.tables.calendars.clear()
    async with world.auditing():
        await asyncio.sleep(ONE_AUDIT_S)

    assert world.followed == []
    assert world.rows == [the_row(made)]
    assert [vars(each)["event"] for each in caplog.records] == ["job.calendar_missing"]


@in_virtual_time
async def test_a_calendar_that_cannot_be_read_keeps_nothing_from_being_audited(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    await kept(world, BEFORE)
    lost = the_row(await world.made(trigger=BY_CALENDAR))
    world.lose(lost)

    async def unreadable(key: CalendarName) -> Calendar | None:
        raise Unreadable("of another format")

    setattr(world.jobs, "read_calendar", unreadable)  # noqa: B010  # a method, which types do not let us assign
    async with world.auditing():
        await asyncio.sleep(ONE_AUDIT_S)

    assert world.counts.repaired == 1
    assert "job.audit_failed" in {vars(each)["event"] for each in caplog.records}


@in_virtual_time
async def test_a_job_that_cannot_follow_keeps_no_other_from_being_audited() -> None:
    world = World()
    world.follow_fails = True
    await kept(world, BEFORE)
    await world.made(trigger=BY_CALENDAR)
    world.lose(the_row(await world.made(job_id=JobId("other"))))
    await kept(world, AFTER)
    async with world.auditing():
        await asyncio.sleep(ONE_AUDIT_S)

    assert (world.followed, world.counts.repaired) == (["nightly"], 1)
