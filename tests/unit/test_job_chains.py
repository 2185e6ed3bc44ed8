"""The end of a job's row: noted, followed by the next one, deleted; on the twin of the store."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeVar

import pytest

from clockwork.domain.jobs.job import (
    CompletionPolicy,
    CompletionResult,
    JobName,
    JobStatus,
    JobTransaction,
    RetryOn,
    RunCompletion,
    RunDelivery,
    TakenRow,
)
from clockwork.domain.jobs.next_occurrence import OverlapPolicy
from clockwork.domain.jobs.steps import pause, run_now, update
from clockwork.domain.marker import MarkerEntry
from clockwork.domain.position import due_ms_of
from clockwork.domain.retry import BackoffPolicy, RetryPolicy
from clockwork.domain.run import JobId, RunId, RunKind
from clockwork.domain.schedule import Guarantee, RequestId, Row
from clockwork.domain.triggers.trigger import FixedRate, Trigger
from clockwork.domain.wakeup import NewlyDue
from clockwork.errors import ClockUntrusted, NewerFormat, StoreUnavailable, TransactionConflict
from clockwork.firing.cleanup import Cleanup, Completed, finish_rows
from clockwork.firing.job_chains import JobChains
from clockwork.stores.memory.jobs import JobTables, MemoryJobStore
from clockwork.stores.memory.store import MemoryScheduleStore
from tests.support import builders
from tests.support.builders import row, schedule
from tests.support.clocks import ManualClock, TrustedClock
from tests.support.jobs import (
    JOB_ID,
    NOW_MS,
    RETENTION_MS,
    Woken,
    chains_on,
    created,
    definition,
    delivered,
    dropped,
    new_job,
    step_context,
    the_row,
)
from tests.support.virtual_time import in_virtual_time

T = TypeVar("T")

MINUTE: Final = 60_000
RETRIES: Final = RetryPolicy(attempts_max=2, backoff=BackoffPolicy(initial_ms=1_000, max_ms=1_000))
OF_JOBS: Final = {"read_job", "read_job_committed", "read_definition", "change_job", "put_run_deliveries"}


class Store(MemoryScheduleStore):
    """Remembers its calls. `away`: the operations that get no answer; `instead`: those that are answered otherwise."""

    def __init__(self) -> None:
        super().__init__(shards=8)
        self.calls: list[str] = []
        self.away: set[str] = set()
        self.instead: dict[str, Exception] = {}

    async def _serve(self, operation: str, effect: Callable[[], T]) -> T:
        self.calls.append(operation)
        await asyncio.sleep(0)
        if operation in self.away:
            raise StoreUnavailable
        if operation in self.instead:
            raise self.instead[operation]
        return effect()


class World:
    """A store with jobs, and what follows their rows."""

    def __init__(self) -> None:
        self.store = Store()
        self.jobs = MemoryJobStore(self.store, JobTables())
        self.clock = ManualClock(NOW_MS)
        self.trust = TrustedClock()
        self.woken = Woken()
        self.chains = self.new_chains()

    def new_chains(self) -> JobChains:
        """Those of another process."""
        return chains_on(self.jobs, clock=self.clock, trust=self.trust, wake=self.woken)

    async def made(self, **fields: Any) -> JobTransaction:
        change = created(new_job(**fields))
        await self.jobs.change(change)
        self.store.calls.clear()
        return change

    def cleanup(self, *completed: Completed, chains: JobChains | None = None) -> Cleanup:
        shard = completed[0].row.shard
        cleanup = Cleanup(
            self.store,
            chains if chains is not None else self.chains,
            shard,
            retention_ms=RETENTION_MS,
            rng=random.Random(1),
            on_done=lambda done: None,
        )
        cleanup.add(completed)
        return cleanup

    async def clean(self, of: Row, entry: MarkerEntry | None = None, chains: JobChains | None = None) -> None:
        """The row has ended, and is cleaned up."""
        await self.cleanup(ended(of, entry), chains=chains).finish()

    @property
    def rows(self) -> list[Row]:
        return [each for each in self.store.rows.values() if isinstance(each, Row)]

    @property
    def due_ms(self) -> list[int]:
        return [due_ms_of(position) for _, position in self.store.rows]


def ended(of: Row, entry: MarkerEntry | None = None, *, slot: int | None = 0) -> Completed:
    return Completed(row=of, entry=entry if entry is not None else delivered(of), slot=slot)


async def test_a_row_of_a_job_is_noted_then_followed_then_deleted() -> None:
    # In this order: x-delete-first for jobs. Whatever dies in between, the next owner finds the row, and does the rest.
    world = World()
    change = await world.made()
    run = the_row(change)
    await world.clean(run)

    assert [call for call in world.store.calls if call in {"put_run_deliveries", "change_job", "finish"}] == [
        "put_run_deliveries",
        "change_job",
        "finish",
    ]
    assert world.due_ms == [NOW_MS + 2 * MINUTE]
    end = await world.jobs.read_run_delivery(change.name, run.position)
    assert isinstance(end, RunDelivery)
    assert (end.run_id, end.receipt, end.failure) == (f"s{NOW_MS + MINUTE}", delivered(run).receipt, None)
    assert not world.store.outcomes


async def test_a_process_follows_the_rows_that_it_armed_without_reading_anything() -> None:
    world = World()
    await world.clean(the_row(await world.made()))
    world.store.calls.clear()
    (second,) = world.rows
    await world.clean(second)

    assert OF_JOBS.intersection(world.store.calls) == {"put_run_deliveries", "change_job"}
    assert world.due_ms == [NOW_MS + 3 * MINUTE]


@pytest.mark.parametrize("away", [False, True], ids=["one call", "each alone"])
async def test_states_that_are_not_remembered_are_read_for_all_rows_at_once(away: bool) -> None:
    # One hour after the last run of a hundred thousand jobs none is. And a throttled job holds up no other.
    world = World()
    made = [await world.made(job_id=JobId(f"job-{number}")) for number in range(3)]
    runs = [the_row(each) for each in made]
    world.store.away = {"read_jobs"} if away else set()
    told = await world.chains.arm_next_all([(run, delivered(run)) for run in runs])

    assert told == [(run, None) for run in runs]
    reads = [call for call in world.store.calls if call in ("read_job", "read_jobs")]
    assert reads == ["read_jobs", *(["read_job"] * 3 if away else [])]
    assert sorted(world.due_ms) == [NOW_MS + MINUTE] * 3 + [NOW_MS + 2 * MINUTE] * 3


async def test_two_ended_rows_of_one_job_in_one_chunk_are_followed_one_after_the_other() -> None:
    # The state that was read for both is that before the first.
    world = World()
    first = await world.made()
    by_hand = run_now(first.state, definition(first), step_context(), request_id="r")
    await world.jobs.change(by_hand)
    run, single = the_row(first), the_row(by_hand)
    told = await world.chains.arm_next_all([(run, delivered(run)), (single, delivered(single))])

    assert [error for _, error in told] == [None, None]
    state = world.jobs.tables.states[first.name]
    assert (state.side_rows, state.counts.delivered) == ((), 2)
    assert sorted(world.due_ms)[-1] == NOW_MS + 2 * MINUTE


async def test_of_two_owners_that_follow_one_row_one_arms() -> None:
    world = World()
    run = the_row(await world.made())
    await world.clean(run, chains=world.new_chains())
    (armed,) = world.rows
    await world.clean(run, chains=world.new_chains())

    assert world.rows == [armed]


async def test_a_zombie_that_knows_an_older_state_arms_nothing() -> None:
    world = World()
    zombie = world.new_chains()
    first = the_row(await world.made())
    await world.clean(first, chains=zombie)
    (second,) = world.rows
    await world.clean(second, chains=world.new_chains())
    (third,) = world.rows
    await world.clean(second, chains=zombie)

    assert world.rows == [third]


async def test_a_row_that_is_seen_before_its_state_waits_until_that_is_applied() -> None:
    # The transaction that wrote both is being applied, item by item. By the state before it the row would be a stranger,
    # and its chain would end here.
    world = World()
    first = await world.made()
    run = the_row(first)
    await world.clean(run)
    (second,) = world.rows
    now = world.jobs.tables.states[first.name]
    world.jobs.tables.states[first.name] = first.state
    world.store.busy.add(("job", *first.name))
    with pytest.raises(TransactionConflict):
        await world.new_chains().arm_next(second, delivered(second))
    assert world.rows == [second]

    world.store.busy.clear()
    world.jobs.tables.states[first.name] = now
    await world.new_chains().arm_next(second, delivered(second))

    assert sorted(world.due_ms) == [NOW_MS + 2 * MINUTE, NOW_MS + 3 * MINUTE]


async def test_a_row_whose_job_is_gone_for_good_is_deleted() -> None:
    # Its state has expired: a deleted job whose last row had waited for longer than the retention.
    world = World()
    change = await world.made()
    del world.jobs.tables.states[change.name]
    await world.clean(the_row(change))

    assert world.rows == []


async def test_a_row_is_followed_by_what_the_job_is_now() -> None:
    # Another process has paused it since this one knew it.
    world = World()
    await world.clean(the_row(await world.made()))
    (second,) = world.rows
    name = JobName(builders.CLIENT, JobId(second.schedule.schedule_key))
    await world.jobs.change(pause(world.jobs.tables.states[name], [], step_context(NOW_MS + 2 * MINUTE), note=None))
    await world.clean(second)

    assert world.rows == []
    state = world.jobs.tables.states[name]
    assert (state.status, state.armed, state.counts.delivered) == (JobStatus.PAUSED, None, 2)


async def test_a_definition_that_was_changed_meanwhile_counts_for_what_follows() -> None:
    world = World()
    change = await world.made()
    wanted = replace(definition(change), trigger=Trigger(rule=FixedRate(every_ms=7_000, anchor_ms=NOW_MS)))
    await world.jobs.change(update(change.state, definition(change), wanted, [], step_context(NOW_MS + MINUTE)))
    await world.clean(the_row(change))

    assert world.due_ms == [NOW_MS + 63_000]


async def test_a_row_that_a_request_took_over_is_not_followed_again() -> None:
    world = World()
    change = await world.made()
    run, hold = the_row(change), RequestId("hold")
    await world.store.hold(run.name, hold)
    taken = [TakenRow(name=run.name, hold=hold)]
    wanted = replace(definition(change), description="new")
    await world.jobs.change(update(change.state, definition(change), wanted, taken, step_context(NOW_MS + 1)))
    (new,) = world.rows
    await world.clean(run)

    assert world.rows == [new]


async def test_a_dropped_fire_time_is_in_the_log_as_skipped_and_not_as_a_run() -> None:
    world = World()
    change = await world.made()
    run = the_row(change)
    world.clock.set_ms(NOW_MS + 3 * MINUTE + 1)
    await world.clean(run, dropped(run, NOW_MS + 3 * MINUTE))

    assert await world.jobs.read_run_delivery(change.name, run.position) is None
    assert [entry.position > run.position for entry in world.jobs.tables.log.values()] == [True]


async def test_an_owner_is_woken_for_a_row_that_is_due_before_its_next_scan() -> None:
    world = World()
    every_second = Trigger(rule=FixedRate(every_ms=1_000, anchor_ms=NOW_MS))
    await world.clean(the_row(await world.made(trigger=every_second)))
    (armed,) = world.rows
    assert world.woken == [(armed.shard, NewlyDue(armed.due_ms))]

    world.woken.clear()
    await world.clean(the_row(await world.made(job_id=JobId("rare"))))

    assert world.woken == []


@in_virtual_time
async def test_while_the_store_of_jobs_is_away_their_rows_wait_and_no_other_row_does() -> None:
    world = World()
    run = the_row(await world.made())
    other = row(shard=run.shard)
    world.store.put_by_hand(other)
    world.store.away = set(OF_JOBS)
    cleanup = world.cleanup(ended(run), ended(other))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(cleanup.run(), name="cleanup")
        await cleanup.wait_until_progress()
        assert world.rows == [run]
        assert cleanup.positions() == {run.position}
        world.store.away.clear()
        await cleanup.wait_until_progress()
        running.cancel()

    assert world.due_ms == [NOW_MS + 2 * MINUTE]


@in_virtual_time
async def test_a_job_that_cannot_be_armed_now_holds_up_no_other_job() -> None:
    world = World()
    run = the_row(await world.made())
    same_shard = [
        the_row(await world.made(job_id=JobId(f"job-{number}"), ordering_key=run.schedule.ordering_key))
        for number in range(3)
    ]
    world.store.busy.add(("job", builders.CLIENT, run.schedule.schedule_key))
    cleanup = world.cleanup(ended(run), *map(ended, same_shard))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(cleanup.run(), name="cleanup")
        await cleanup.wait_until_progress()
        assert cleanup.positions() == {run.position}
        running.cancel()


async def test_an_untrusted_clock_arms_nothing() -> None:
    # To arm is to accept: by a wrong clock every fire time would be a missed one, or none.
    world = World()
    run = the_row(await world.made())
    world.trust.is_trusted = False
    with pytest.raises(ClockUntrusted):
        await world.chains.arm_next(run, delivered(run))

    assert world.rows == [run]


@pytest.mark.parametrize("operation", ["read_job", "read_definition"])
async def test_a_job_that_a_newer_node_wrote_is_left_to_the_audit_of_such_a_node(
    operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    change = await world.made()
    world.store.instead[operation] = NewerFormat("format 9")
    await world.clean(the_row(change))

    assert world.rows == []
    assert world.jobs.tables.states == {change.name: change.state}
    assert [vars(each)["event"] for each in caplog.records if each.levelname == "ERROR"] == ["job.unreadable"]


@in_virtual_time
async def test_a_row_whose_job_has_lost_its_definition_waits_for_it_and_not_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    change = await world.made()
    run = the_row(change)
    there = world.jobs.tables.definitions.copy()
    world.jobs.tables.definitions.clear()
    with pytest.raises(TransactionConflict):
        await world.chains.arm_next(run, delivered(run))
    world.jobs.tables.definitions.update(there)
    await world.clean(run)
    (second,) = world.rows
    world.jobs.tables.definitions.clear()
    await world.clean(second, chains=world.new_chains())

    assert world.rows == []
    assert [vars(each)["event"] for each in caplog.records if each.levelname == "ERROR"] == ["job.unreadable"]


async def test_a_broken_row_of_a_job_is_deleted_and_leaves_no_outcome_under_a_key() -> None:
    world = World()
    change = await world.made()
    run = the_row(change)
    broken = builders.broken_row(
        shard=run.shard, at=run.position, client_id=builders.CLIENT, schedule_key=JOB_ID, of_job=True
    )
    world.store.put_by_hand(broken)
    await world.cleanup(Completed(row=broken, entry=delivered(run), slot=0)).finish()

    assert (world.store.rows, world.store.outcomes) == ({}, {})
    assert world.jobs.tables.states == {change.name: change.state}, "the audit goes on with it"


async def test_under_at_least_once_a_second_delivery_arms_nothing_and_changes_no_entry() -> None:
    world = World()
    change = await world.made(guarantee=Guarantee.AT_LEAST_ONCE)
    run = the_row(change)
    await world.clean(run, delivered(run, NOW_MS + MINUTE + 5))
    armed = world.rows
    await world.clean(run, delivered(run, NOW_MS + MINUTE + 900), chains=world.new_chains())

    assert world.rows == armed
    end = await world.jobs.read_run_delivery(change.name, run.position)
    assert end is not None
    assert end.at_ms == NOW_MS + MINUTE + 5


async def test_a_taker_arms_what_its_former_owner_did_not() -> None:
    world = World()
    run, other = the_row(await world.made()), row(schedule())
    completed = [ended(run, slot=None), ended(other, slot=None)]
    await finish_rows(world.store, world.chains, run.shard, completed, retention_ms=RETENTION_MS)

    assert world.due_ms == [NOW_MS + 2 * MINUTE]
    assert len(world.store.outcomes) == 1


@pytest.mark.parametrize("away", sorted(OF_JOBS - {"read_job_committed"}))
async def test_a_shard_is_not_taken_while_the_next_row_of_a_job_cannot_be_armed(away: str) -> None:
    world = World()
    run = the_row(await world.made())
    world.store.away.add(away)
    with pytest.raises(StoreUnavailable):
        await finish_rows(world.store, world.chains, run.shard, [ended(run, slot=None)], retention_ms=RETENTION_MS)

    assert world.rows == [run]


async def test_a_run_that_is_completed_already_when_it_runs_out_of_time_is_closed_by_that() -> None:
    # Completed before its row was cleaned up, and opened all the same: the job asked for completions only since.
    world = World()
    completion = CompletionPolicy(timeout_ms=1_000, retry=RETRIES, retry_on=frozenset(RetryOn))
    change = await world.made(completion=completion, overlap=OverlapPolicy.SKIP)
    run = the_row(change)
    await world.clean(run)
    (watchdog,) = world.rows
    done = RunCompletion(
        client_id=change.name.client_id,
        job_id=change.name.job_id,
        position=run.position,
        run_id=RunId("s1"),
        attempt=1,
        result=CompletionResult.COMPLETED,
        finished_at_ms=NOW_MS,
        expires_at_s=2_000_000_000,
    )
    world.jobs.tables.completions[(change.name, run.position)] = done
    await world.clean(watchdog, dropped(watchdog, reason="timed_out"))

    (row,) = world.rows
    assert row.run is not None
    assert row.run.kind is RunKind.SCHEDULED, "no other attempt"
    assert world.jobs.tables.completions == {(change.name, run.position): done}
    state = world.jobs.tables.states[change.name]
    assert (state.open_run, state.failures) == (None, 0)


@pytest.mark.parametrize("job_log", ["on", "off"])
async def test_each_run_is_a_line_of_the_log_if_that_is_wanted(job_log: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    world = World()
    run = the_row(await world.made())
    await world.clean(run, chains=chains_on(world.jobs, clock=world.clock, trust=world.trust, job_log=job_log))

    lines = [vars(each) for each in caplog.records if vars(each).get("event") == "job.run"]
    assert [(each["job_id"], each["run"], each["result"]) for each in lines] == (
        [(JOB_ID, f"s{NOW_MS + MINUTE}", "delivered")] if job_log == "on" else []
    )
