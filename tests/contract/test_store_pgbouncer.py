"""PostgreSQL behind PgBouncer in transaction mode, beyond the contracts: `make pgbouncer`."""

import asyncio
from typing import TYPE_CHECKING

from clockwork.domain.schedule import EndState, RequestId
from clockwork.errors import StoreUnavailable
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import PostgresSettings
from clockwork.stores.postgres.client import session_settings
from clockwork.stores.postgres.maintenance import Maintenance
from clockwork.stores.postgres.schema import PostgresSchema
from clockwork.stores.postgres.store import PostgresScheduleStore
from tests.contract.store_fixtures import POSTGRES_LIMITS, SHARDS, execute, new_schema
from tests.support.builders import SHARD, end, outcome, pointer, row, schedule
from tests.support.waiting import until

if TYPE_CHECKING:
    from infra.local import LocalServices


async def test_tables_are_made_and_checked_through_it(
    pooled_settings: PostgresSettings, postgres_settings: PostgresSettings
) -> None:
    assert pooled_settings.url is not None
    settings = new_schema(pooled_settings.url.get_secret_value())
    schema = PostgresSchema(settings, None, shards=SHARDS)
    try:
        await asyncio.gather(*(schema.init() for _ in range(4)))
        found = await schema.check()
    finally:
        await execute(postgres_settings, f'DROP SCHEMA "{settings.schema}" CASCADE')

    assert found.problems == ()
    assert found.warnings == ()


async def test_a_session_has_the_settings_that_it_asked_for(pooled_store: PostgresScheduleStore) -> None:
    asked = session_settings(POSTGRES_LIMITS)
    names = [name for name in asked if name not in {"statement_timeout", "lock_timeout"}]  # the tests' are longer
    found = await pooled_store.client.read(
        "settings", "SELECT name, setting FROM pg_settings WHERE name = ANY($1::text[])", names
    )

    assert {record[0]: record[1] for record in found} == {name: asked[name] for name in names}


async def test_statements_of_many_callers_share_a_few_connections_of_the_server(
    pooled_store: PostgresScheduleStore,
) -> None:
    async def live() -> None:
        created = row(schedule(task_data=bytes(10_000)))
        await pooled_store.create(created, pointer(created), replaces=None)
        await pooled_store.hold(created.name, RequestId("r"))
        await pooled_store.cancel(created.name, outcome(created, EndState.CANCELLED), hold=RequestId("r"))

    await asyncio.gather(*(live() for _ in range(200)))

    assert (await pooled_store.read_page(SHARD, after=None, rows_max=10)).rows == ()


async def test_what_has_expired_is_removed_through_it(
    pooled_store: PostgresScheduleStore, pooled_settings: PostgresSettings, postgres_settings: PostgresSettings
) -> None:
    expired = row()
    await pooled_store.create(expired, pointer(expired), replaces=None)
    await pooled_store.finish(SHARD, [end(expired, outcome(expired, expires_at_s=1))])

    await Maintenance(pooled_settings, None, NoTelemetry()).once()

    assert await execute(postgres_settings, "SELECT 1 FROM outcomes") == []


async def test_the_store_goes_on_by_itself_after_a_kill_of_the_server_behind_it(
    services: "LocalServices", pooled_store: PostgresScheduleStore
) -> None:
    kept = row()
    await pooled_store.create(kept, pointer(kept), replaces=None)

    await services.kill_postgres()
    await services.start_postgres()

    async def read() -> bool:
        try:
            return await pooled_store.read_row(kept.name) == kept
        except StoreUnavailable:
            return False

    await until(read, "the row to be read again")
