"""Races about one job on the real stores: two writers at one moment, each with a store of its own, many rounds."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, NamedTuple

import pytest

from clockwork.domain.jobs.job import JobStatus, JobTransaction, TakenRow
from clockwork.domain.jobs.steps import pause, repair
from clockwork.domain.run import JobId
from clockwork.domain.schedule import RequestId
from clockwork.errors import ConditionFailed, TransactionConflict
from clockwork.ports.jobs import JobStore
from clockwork.ports.store import ScheduleStore
from clockwork.settings.model import DynamoSettings, PostgresSettings
from clockwork.stores.dynamodb.client import HttpTransport
from clockwork.stores.dynamodb.jobs import DynamoJobStore
from clockwork.stores.postgres.jobs import PostgresJobStore
from tests.contract.racing import Race
from tests.contract.store_fixtures import postgres_store_on, store_on
from tests.support.builders import gone
from tests.support.jobs import created, definition, delivery_of, new_job, next_armed, step_context, the_row

pytestmark = pytest.mark.real

AT_ONCE: Final = 6
"""Rounds side by side, so that several calls are at the server at one moment."""
HOLD: Final = RequestId("mine")


class Process(NamedTuple):
    """The stores of one process."""

    schedules: ScheduleStore
    jobs: JobStore


class Two(NamedTuple):
    """Two processes on the same tables."""

    one: Process
    other: Process
    rounds: int
    """As many as both ends of a race are seen in, on a busy machine."""


@pytest.fixture
def two_on_dynamo(dynamo_settings: DynamoSettings, transport: HttpTransport) -> Two:
    stores = [store_on(transport, dynamo_settings) for _ in range(2)]
    here, there = (Process(store, DynamoJobStore(store.client)) for store in stores)
    return Two(here, there, rounds=90)


@pytest.fixture
async def two_on_postgresql(postgres_settings: PostgresSettings) -> AsyncIterator[Two]:
    async with postgres_store_on(postgres_settings) as one, postgres_store_on(postgres_settings) as other:
        here, there = (Process(store, PostgresJobStore(store.client)) for store in (one, other))
        yield Two(here, there, rounds=240)


@pytest.fixture(params=["dynamo", "postgresql"])
def two(request: pytest.FixtureRequest) -> Two:
    """Two processes on each store in turn."""
    found: Two = request.getfixturevalue(f"two_on_{request.param}")
    return found


async def _rounds(one: Callable[[int], Awaitable[None]], count: int) -> None:
    """Does a round again and again, `AT_ONCE` side by side; each is told a number of its own."""
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            await one(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(some())


async def _made(process: Process, number: int) -> JobTransaction:
    change = created(new_job(job_id=JobId(f"job-{number}")))
    await process.jobs.change(change)
    return change


async def _won(process: Process, change: JobTransaction) -> bool:
    """True if the change was made, False if its condition failed."""
    while True:
        try:
            await process.jobs.change(change)
        except TransactionConflict:
            continue
        except ConditionFailed:
            return False
        return True


async def _tidied_up(process: Process, made: JobTransaction) -> bool:
    """As the owner of the row does it after its delivery: outcome, arm, delete. True if it armed."""
    row = the_row(made)
    await process.jobs.put_run_deliveries([delivery_of(made)], keep_existing=False)
    armed = await _won(process, next_armed(made))
    await process.schedules.finish(row.shard, [gone(row)])
    return armed


async def _names_its_row(process: Process, made: JobTransaction) -> None:
    """The state names the only row of the job, or there is neither."""
    state = await process.jobs.read_state(made.name)
    assert state is not None
    page = await process.schedules.read_page(the_row(made).shard, after=None, rows_max=1_000)
    key = the_row(made).schedule.schedule_key
    assert [row.position for row in page.rows if row.name.schedule_key == key] == [a.position for a in state.pending()]


async def test_of_two_armings_of_one_revision_one_is_made(two: Two) -> None:
    # Two owners of the shard: the one that was paused wakes up.
    winners = set()
    race = Race()

    async def one(number: int) -> None:
        made = await _made(two.one, number)
        first, second = next_armed(made), next_armed(made)
        results = await race.between(_won(two.one, first), _won(two.other, second))
        assert sorted(results) == [False, True]
        won = first if results[0] else second
        assert await two.one.jobs.read_state(made.name) == won.state
        await two.one.schedules.finish(the_row(made).shard, [gone(the_row(made))])
        await _names_its_row(two.other, made)
        winners.add(results[0])

    await _rounds(one, two.rounds)

    assert winners == {True, False}, "one of them never won"


async def test_of_an_arming_and_a_change_that_takes_the_row_one_is_made(two: Two) -> None:
    # A pause that has looked in vain, because its node's clock is behind: the revision decides.
    winners = set()
    race = Race()

    async def one(number: int) -> None:
        made = await _made(two.one, number)
        row = the_row(made)
        await two.other.schedules.hold(row.name, HOLD)
        taken = [TakenRow(name=row.name, hold=HOLD)]
        armed, paused = await race.between(
            _tidied_up(two.one, made),
            _won(two.other, pause(made.state, taken, step_context(), note=None)),
        )
        assert armed is not paused
        state = await two.one.jobs.read_state(made.name)
        assert state is not None
        assert state.status is (JobStatus.PAUSED if paused else JobStatus.ACTIVE)
        await _names_its_row(two.other, made)
        winners.add(armed)

    await _rounds(one, two.rounds)

    assert winners == {True, False}, "one of them never won"


async def test_a_change_takes_a_row_only_if_its_owner_did_not(two: Two) -> None:
    # The owner takes the hold off, and would deliver the row: from then on nothing takes it.
    winners = set()
    race = Race()

    async def one(number: int) -> None:
        made = await _made(two.one, number)
        row = the_row(made)
        await two.other.schedules.hold(row.name, HOLD)
        taken = [TakenRow(name=row.name, hold=HOLD)]

        async def drops() -> bool:
            while True:
                try:
                    return await two.one.schedules.drop_hold(row.name)
                except TransactionConflict:
                    continue

        dropped, paused = await race.between(
            drops(), _won(two.other, pause(made.state, taken, step_context(), note=None))
        )
        assert dropped is not paused
        assert (await two.one.schedules.read_row(row.name) is None) is paused
        await _names_its_row(two.other, made)
        winners.add(paused)

    await _rounds(one, two.rounds)

    assert winners == {True, False}, "one of them never won"


async def test_a_repair_beside_an_arming_leaves_one_row(two: Two) -> None:
    # The audit reads a state and then, while its owner tidies it up, no row: it must not arm beside it.
    repaired = []

    async def audits(made: JobTransaction) -> None:
        while True:
            state = await two.other.jobs.read_state(made.name)
            assert state is not None
            assert state.armed is not None
            if state.rev != made.state.rev:
                return
            await asyncio.sleep(0)
            if await two.other.schedules.read_row(state.row_name(state.armed)) is None:
                mend = repair(state, definition(made), state.armed, None, step_context())
                repaired.append(await _won(two.other, mend))
                return

    async def one(number: int) -> None:
        made = await _made(two.one, number)
        await asyncio.gather(_tidied_up(two.one, made), audits(made))
        await _names_its_row(two.other, made)

    await _rounds(one, two.rounds)

    assert not any(repaired), "a row that is there, or whose successor is, was taken for lost"


async def test_of_a_repair_and_an_arming_of_a_lost_row_one_is_made(two: Two) -> None:
    # The row was deleted by hand after it was delivered, and its owner has not tidied it up.
    winners = set()
    race = Race()

    async def one(number: int) -> None:
        made = await _made(two.one, number)
        row = the_row(made)
        await two.one.schedules.finish(row.shard, [gone(row)])
        armed = made.state.armed
        assert armed is not None
        mend = repair(made.state, definition(made), armed, None, step_context())
        armed_next, mended = await race.between(_won(two.one, next_armed(made)), _won(two.other, mend))
        assert armed_next is not mended
        await _names_its_row(two.other, made)
        winners.add(mended)

    await _rounds(one, two.rounds)

    assert winners == {True, False}, "one of them never won"


async def test_a_repair_is_refused_while_the_row_is_there_whatever_else_happens(two: Two) -> None:
    async def one(number: int) -> None:
        made = await _made(two.one, number)
        armed = made.state.armed
        assert armed is not None
        mend = repair(made.state, definition(made), armed, None, step_context())
        mended, _ = await asyncio.gather(
            _won(two.other, mend), two.one.schedules.hold(the_row(made).name, RequestId("another"))
        )
        assert not mended
        await _names_its_row(two.other, made)

    await _rounds(one, two.rounds // 3)
