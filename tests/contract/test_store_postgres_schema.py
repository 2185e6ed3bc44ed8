"""Migrations, the cluster, and the checks at a start, on PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from clockwork.errors import CannotStart
from clockwork.settings.model import PostgresSettings
from clockwork.stores.postgres.schema import Migration, PostgresSchema, known_migrations, lock_number
from tests.contract.postgres_connections import limited_role
from tests.contract.store_fixtures import SHARDS, execute, new_schema
from tests.support.waiting import until

NEXT = Migration(version=900, name="900_next.sql", text="CREATE TABLE later (one int); INSERT INTO later VALUES (1);")


@pytest.fixture
async def settings(postgres_url: str) -> AsyncIterator[PostgresSettings]:
    """A schema that does not exist yet."""
    fresh = new_schema(postgres_url)
    yield fresh
    await execute(fresh, f'DROP SCHEMA IF EXISTS "{fresh.schema}" CASCADE')


def schema(settings: PostgresSettings, shards: int = SHARDS) -> PostgresSchema:
    return PostgresSchema(settings, None, shards=shards)


async def test_a_schema_is_made_once_and_then_left_alone(settings: PostgresSettings) -> None:
    await schema(settings).init()
    await execute(settings, "UPDATE shards SET floor_ms = 7")

    await schema(settings).init()

    assert (await schema(settings).check()).problems == ()
    assert [tuple(each) for each in await execute(settings, "SELECT shard, floor_ms FROM shards ORDER BY shard")] == [
        (number, 7) for number in range(SHARDS)
    ]


async def test_many_nodes_may_make_it_at_once(settings: PostgresSettings) -> None:
    await asyncio.gather(*(schema(settings).init() for _ in range(6)))

    assert (await schema(settings).check()).problems == ()
    assert len(await execute(settings, "SELECT 1 FROM migrations")) == len(known_migrations())


async def test_a_node_that_dies_in_the_middle_of_a_migration_leaves_nothing_of_it(settings: PostgresSettings) -> None:
    await schema(settings).init()
    slow = replace(NEXT, text=NEXT.text + "SELECT pg_sleep(1000);")
    wanted = [*known_migrations(), slow]

    async def sleeping() -> list[object]:
        return await execute(settings, "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'")

    async with asyncio.TaskGroup() as group:
        dying = group.create_task(schema(settings).init(wanted))
        await until(sleeping, "the migration to be under way")
        other = group.create_task(schema(settings).init([*known_migrations(), NEXT]))
        dying.cancel()
        await execute(settings, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        await other

    # An error in its place would be taken for a server that is away, and a node that is stopped would try again.
    assert dying.cancelled()
    assert len(await execute(settings, "SELECT 1 FROM later")) == 1
    assert (await schema(settings).check([*known_migrations(), NEXT])).problems == ()


async def test_a_migration_that_fails_is_not_noted(settings: PostgresSettings) -> None:
    await schema(settings).init()
    with pytest.raises(Exception, match="syntax error"):
        await schema(settings).init([*known_migrations(), replace(NEXT, text=NEXT.text + "nonsense")])

    await schema(settings).init([*known_migrations(), NEXT])

    assert len(await execute(settings, "SELECT 1 FROM later")) == 1


async def test_a_schema_of_another_version_is_refused(settings: PostgresSettings) -> None:
    (missing,) = (await schema(settings).check()).problems
    assert "python -m clockwork init" in missing
    await schema(settings).init()

    (older,) = (await schema(settings).check([*known_migrations(), NEXT])).problems
    assert "900_next.sql" in older
    await schema(settings).init([*known_migrations(), NEXT])
    (newer,) = (await schema(settings).check()).problems
    assert "newer" in newer
    with pytest.raises(CannotStart, match="newer"):
        await schema(settings).init()
    other = replace(NEXT, text="SELECT 1")
    with pytest.raises(CannotStart, match="another text"):
        await schema(settings).init([*known_migrations(), other])


async def test_another_shard_count_is_refused(settings: PostgresSettings) -> None:
    await schema(settings).init()

    (problem,) = (await schema(settings, SHARDS + 1).check()).problems
    assert "CLOCKWORK_SHARDS" in problem
    with pytest.raises(CannotStart, match="CLOCKWORK_SHARDS"):
        await schema(settings, SHARDS + 1).init()


async def test_a_lost_shard_or_cluster_is_refused_and_never_made_again(settings: PostgresSettings) -> None:
    await schema(settings).init()
    await execute(settings, "DELETE FROM shards WHERE shard = 2")

    (problem,) = (await schema(settings).check()).problems
    assert "(2)" in problem
    with pytest.raises(CannotStart, match="lost"):
        await schema(settings).init()
    await execute(settings, "DELETE FROM cluster")
    with pytest.raises(CannotStart, match="lost"):
        await schema(settings).init()
    assert len(await execute(settings, "SELECT 1 FROM shards")) == SHARDS - 1


async def test_each_right_that_is_missing_is_named(settings: PostgresSettings) -> None:
    await schema(settings).init()
    s = settings.schema
    async with limited_role(settings) as limited:
        await execute(settings, f"REVOKE DELETE ON {s}.rows FROM {limited.user}")
        (problem,) = (await schema(limited).check()).problems
        assert problem.endswith(f"DELETE on {s}.rows")
        await execute(settings, f"GRANT DELETE ON {s}.rows TO {limited.user}")
        assert (await schema(limited).check()).problems == ()
        await execute(settings, f"REVOKE USAGE ON SCHEMA {s} FROM {limited.user}")
        (problem,) = (await schema(limited).check()).problems
        assert "USAGE" in problem


async def test_a_server_that_would_lose_what_it_answered_is_refused(settings: PostgresSettings) -> None:
    await schema(settings).init()
    async with limited_role(settings) as limited:
        await execute(settings, f"ALTER ROLE {limited.user} SET synchronous_commit = off")
        (problem,) = (await schema(limited).check()).problems

    assert "synchronous_commit" in problem


async def test_a_snapshot_that_stays_open_and_no_autovacuum_are_warned_of(
    settings: PostgresSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await schema(settings).init()
    assert settings.url is not None
    monkeypatch.setattr("clockwork.stores.postgres.schema.SNAPSHOT_AGE_S_MAX", -1)
    connection = await asyncpg.connect(settings.url.get_secret_value())
    try:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        found = await schema(settings).check()
    finally:
        await connection.close()

    assert any("snapshot" in warning for warning in found.warnings)


def test_schemas_of_one_database_have_locks_of_their_own() -> None:
    assert lock_number("a") != lock_number("b")
    assert -(2**63) <= lock_number("a") < 2**63
