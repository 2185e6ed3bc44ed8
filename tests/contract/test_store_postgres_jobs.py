"""`JobStore` on PostgreSQL: shared statements, what has expired, what another version has written."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from clockwork.domain.jobs.job import JobTransaction, RunDelivery
from clockwork.domain.run import JobId
from clockwork.errors import NewerFormat, TransactionConflict, Unreadable
from clockwork.ports.jobs import StaleRevision
from clockwork.ports.telemetry import NoTelemetry, StoreResult
from clockwork.settings.model import PostgresSettings
from clockwork.stores.postgres.jobs import PostgresJobStore
from clockwork.stores.postgres.maintenance import Maintenance
from clockwork.stores.postgres.store import PostgresScheduleStore
from tests.contract.store_fixtures import POSTGRES_LIMITS, execute, locked, postgres_store_on
from tests.support.builders import CLIENT
from tests.support.jobs import created, delivery_of, new_job, next_armed, the_row

pytestmark = pytest.mark.real


class Calls(NoTelemetry):
    """The calls to the store, in order."""

    def __init__(self) -> None:
        self.made: list[tuple[str, StoreResult]] = []

    def store_call(self, *, store: str, operation: str, result: StoreResult, seconds: float) -> None:
        self.made.append((operation, result))


@pytest.fixture
def jobs(postgres_store: PostgresScheduleStore) -> PostgresJobStore:
    return PostgresJobStore(postgres_store.client)


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
async def watched(postgres_settings: PostgresSettings, calls: Calls) -> AsyncIterator[PostgresJobStore]:
    """A store of which each call is seen, and that waits for no lock for long."""
    limits = replace(POSTGRES_LIMITS, lock_timeout_ms=100)
    async with postgres_store_on(postgres_settings, limits=limits, telemetry=calls) as store:
        yield PostgresJobStore(store.client)


async def _made(jobs: PostgresJobStore, number: int = 0) -> JobTransaction:
    change = created(new_job(job_id=JobId(f"job-{number}")))
    await jobs.change(change)
    return change


def _run_delivery(of: JobTransaction, *, expires_at_s: int = 2_000_000_000) -> RunDelivery:
    return replace(delivery_of(of), expires_at_s=expires_at_s)


async def test_armings_and_creates_of_one_moment_share_a_statement(
    jobs: PostgresJobStore, watched: PostgresJobStore, calls: Calls
) -> None:
    made = [await _made(jobs, number) for number in range(40)]
    changes = [next_armed(each) for each in made]
    changes += [created(new_job(job_id=JobId(f"new-{number}"))) for number in range(40)]

    await asyncio.gather(*map(watched.change, changes))

    assert calls.made == [("change_job", "ok")]
    assert await jobs.read_states([each.name for each in changes]) == {each.name: each.state for each in changes}
    for each in changes[40:]:
        assert await jobs.read_definition(each.name, 1) == each.definition


async def test_a_shared_statement_makes_no_state_where_none_stands_and_writes_over_none(
    jobs: PostgresJobStore, postgres_settings: PostgresSettings
) -> None:
    standing, gone = await _made(jobs, 0), await _made(jobs, 1)
    await execute(postgres_settings, "DELETE FROM jobs WHERE job_id = 'job-1'")
    before = await execute(postgres_settings, "SELECT * FROM rows ORDER BY position")
    again = created(new_job(job_id=JobId("job-0"), task_data=b"{}"))

    told = await asyncio.gather(*map(jobs.change, [again, next_armed(gone)]), return_exceptions=True)

    assert [each.state for each in told if isinstance(each, StaleRevision)] == [standing.state, None]
    assert await jobs.read_states([standing.name, gone.name]) == {standing.name: standing.state}
    assert await jobs.read_definition(standing.name, 1) == standing.definition
    assert await execute(postgres_settings, "SELECT * FROM rows ORDER BY position") == before


async def test_a_job_that_is_locked_holds_up_no_other(
    jobs: PostgresJobStore, watched: PostgresJobStore, postgres_settings: PostgresSettings
) -> None:
    made = [await _made(jobs, number) for number in range(10)]
    armed = [next_armed(each) for each in made]

    async with locked(postgres_settings, "SELECT 1 FROM jobs WHERE job_id = 'job-3' FOR UPDATE"):
        told = await asyncio.gather(*map(watched.change, armed), return_exceptions=True)

    assert [type(each) for each in told] == [TransactionConflict if n == 3 else type(None) for n in range(10)]
    states = await jobs.read_states([each.name for each in made])
    assert [states[each.name] for each in made] == [(made if n == 3 else armed)[n].state for n in range(10)]


async def test_no_index_of_the_states_has_a_column_that_a_run_changes(postgres_settings: PostgresSettings) -> None:
    # So a run updates its state in place (HOT), and the indexes do not grow with the runs.
    found = await execute(
        postgres_settings,
        "SELECT DISTINCT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indexrelid "
        f"WHERE i.indrelid = '{postgres_settings.schema}.jobs'::regclass",
    )
    assert {record[0] for record in found} == {"client_id", "job_id", "spread"}


@pytest.mark.parametrize(
    ("damage", "error"),
    [("format = 2", NewerFormat), ("body = '{}'", Unreadable)],
    ids=["newer", "damaged"],
)
async def test_a_state_that_cannot_be_read_is_never_written_over_and_hides_no_other(
    jobs: PostgresJobStore, postgres_settings: PostgresSettings, damage: str, error: type[Exception]
) -> None:
    first, other = await _made(jobs), await _made(jobs, 1)
    # Its revision is another one, as after any write of another version.
    await execute(postgres_settings, f"UPDATE jobs SET rev = rev + 1, {damage} WHERE job_id = 'job-0'")
    before = await execute(postgres_settings, "SELECT * FROM jobs ORDER BY job_id")

    with pytest.raises(error):
        await jobs.read_state(first.name)
    with pytest.raises(error):
        await jobs.change(next_armed(first))

    assert await execute(postgres_settings, "SELECT * FROM jobs ORDER BY job_id") == before
    assert await jobs.read_states([first.name, other.name]) == {other.name: other.state}
    assert (await jobs.list_jobs(CLIENT, after=None, jobs_max=10)).names == (first.name, other.name)


async def test_what_has_expired_of_a_job_goes_and_its_state_and_definitions_stay(
    jobs: PostgresJobStore, postgres_settings: PostgresSettings
) -> None:
    old, young = await _made(jobs), await _made(jobs, 1)
    await jobs.put_run_deliveries([_run_delivery(old, expires_at_s=1), _run_delivery(young)], keep_existing=False)
    await execute(
        postgres_settings,
        *(
            f"INSERT INTO {table} VALUES ('a', 'x', {values}, 1, 1), ('b', 'x', {values}, 9000000000, 1)"
            for table, values in (
                ("job_completions", "1.5, '{}'"),
                ("job_requests", "'r', '{}'"),
                ("job_notes", "'0.1.2', 'y'"),
            )
        ),
    )

    await Maintenance(postgres_settings, None, NoTelemetry()).once()

    assert await jobs.read_run_delivery(old.name, the_row(old).position) is None
    assert await jobs.read_run_delivery(young.name, the_row(young).position) == _run_delivery(young)
    for table in ("job_completions", "job_requests", "job_notes"):
        assert [found[0] for found in await execute(postgres_settings, f"SELECT client_id FROM {table}")] == ["b"]
    assert await jobs.read_state(old.name) == old.state
    assert await jobs.read_definition(old.name, 1) == old.definition
