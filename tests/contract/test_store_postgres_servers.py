"""Servers in trouble, and calls to them: a full disk, no connection left, no writes taken, a standby, another encoding, and
one that is frozen before one that is not."""

import asyncio
import socket
import tempfile
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import asyncpg
import pytest
from pydantic import SecretStr

from clockwork.domain.schedule import EndState, RequestId, Retry, Row
from clockwork.errors import StoreThrottled, StoreUnavailable, TransactionConflict
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import PostgresSettings
from clockwork.stores.postgres import schema as postgres_schema
from clockwork.stores.postgres.client import KEEPALIVE_S, UNACKNOWLEDGED_MS, connect
from clockwork.stores.postgres.schema import PostgresSchema, lock_number
from clockwork.stores.postgres.store import PostgresScheduleStore
from infra.local.postgres import Postgres
from tests.contract.postgres_connections import limited_role, with_url
from tests.contract.store_fixtures import (
    POSTGRES_LIMITS,
    SHARDS,
    execute,
    locked,
    new_incarnation,
    postgres_store_on,
)
from tests.support.builders import DUE_MS, SHARD, outcome, pointer, row
from tests.support.waiting import until

RETRY: Final = Retry(at_ms=DUE_MS + 1_000, epoch=7, attempts=2)
MINE: Final = RequestId("mine")
ALONE: Final = replace(POSTGRES_LIMITS, attempts_max=1)


@asynccontextmanager
async def raised(settings: PostgresSettings, statement: str) -> AsyncIterator[None]:
    """Every write to a row does this first."""
    await execute(
        settings,
        f"CREATE FUNCTION disturb() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {statement}; RETURN NEW; END $$",
        "CREATE TRIGGER disturb BEFORE INSERT OR UPDATE ON rows FOR EACH ROW EXECUTE FUNCTION disturb()",
    )
    try:
        yield
    finally:
        await execute(settings, "DROP FUNCTION disturb CASCADE")


async def stored(store: PostgresScheduleStore) -> Row:
    created = row()
    await store.create(created, pointer(created), replaces=None)
    return created


# --- no room, no connection, a deadlock


async def test_on_a_full_disk_nothing_is_written_and_it_is_said_until_there_is_room(
    postgres_settings: PostgresSettings, postgres_store: PostgresScheduleStore
) -> None:
    rows = [row() for _ in range(5)]
    full = "RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'"
    async with raised(postgres_settings, full):
        told = await asyncio.gather(
            *(postgres_store.create(each, pointer(each), replaces=None) for each in rows), return_exceptions=True
        )
        for error in told:
            assert isinstance(error, StoreThrottled)
            assert not error.outcome_unknown

    await asyncio.gather(*(postgres_store.create(each, pointer(each), replaces=None) for each in rows))


async def test_where_no_connection_is_left_nothing_was_sent_and_the_next_try_finds_one(
    postgres_settings: PostgresSettings,
) -> None:
    async with limited_role(postgres_settings) as settings, postgres_store_on(settings, limits=ALONE) as store:
        await execute(postgres_settings, f"ALTER ROLE {settings.user} CONNECTION LIMIT 0")
        created = row()
        with pytest.raises(StoreThrottled) as caught:
            await store.create(created, pointer(created), replaces=None)
        assert not caught.value.outcome_unknown
        assert store.client.connections() == (0, 0)

        await execute(postgres_settings, f"ALTER ROLE {settings.user} CONNECTION LIMIT 5")
        await store.create(created, pointer(created), replaces=None)


async def test_a_deadlock_with_another_session_is_a_conflict_and_wrote_nothing(
    postgres_settings: PostgresSettings, postgres_store: PostgresScheduleStore
) -> None:
    old = await stored(postgres_store)
    await postgres_store.hold(old.name, MINE)
    new = row(replace(old.schedule, due_ms=DUE_MS + 1, version=2))
    superseded = replace(outcome(old, EndState.SUPERSEDED), moved_to=new.position)

    async def conflicts() -> bool:
        try:
            await postgres_store.reschedule(
                old.name, superseded, hold=MINE, row=new, pointer=pointer(new), replaces=pointer(old)
            )
        except TransactionConflict:
            return True
        return False

    # The store's session is the one that looks for deadlocks.
    session = {"search_path": postgres_settings.schema, "deadlock_timeout": "1h"}
    other = await connect(postgres_settings, None, timeout_s=10, session=session)
    try:
        await other.execute("BEGIN; UPDATE pointers SET digest = 'z'")
        async with asyncio.TaskGroup() as group:
            change = group.create_task(conflicts())
            await until_waiting_for_lock(postgres_settings)
            await other.execute("UPDATE rows SET hold = 'x'")
            assert await change
        await other.execute("ROLLBACK")
    finally:
        other.terminate()

    assert await postgres_store.read_row(old.name) == replace(old, hold=MINE)
    assert await postgres_store.read_row(new.name) is None
    assert await postgres_store.read_pointer(old.schedule.client_id, old.schedule.schedule_key) == pointer(old)


async def until_waiting_for_lock(settings: PostgresSettings) -> None:
    found = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'clockwork'"

    async def look() -> list[object]:
        return await execute(settings, found)

    await until(look, "a session to wait for a lock")


# --- what stands cannot be read: the write is unknown


@pytest.mark.parametrize("others", [0, 10], ids=["alone", "in a group"])
async def test_a_create_that_cannot_see_by_whom_its_key_is_used_is_unknown_and_no_other_is(
    postgres_settings: PostgresSettings, postgres_store: PostgresScheduleStore, others: int
) -> None:
    there = await stored(postgres_store)
    again, rows = row(there.schedule, shard=SHARD - 1), [row() for _ in range(others)]
    async with (
        postgres_store_on(postgres_settings, limits=replace(ALONE, lock_timeout_ms=300)) as store,
        locked(postgres_settings, "SELECT 1 FROM pointers FOR UPDATE"),
    ):
        told = await asyncio.gather(
            *(store.create(each, pointer(each), replaces=None) for each in (again, *rows)), return_exceptions=True
        )

    assert isinstance(told[0], StoreUnavailable)
    assert told[0].outcome_unknown
    assert told[1:] == [None] * others


async def test_a_frontier_that_is_there_already_is_unavailable_while_its_item_is_locked(
    postgres_settings: PostgresSettings, postgres_store: PostgresScheduleStore
) -> None:
    # A conflict would be taken for a defect, and the incarnation would end.
    me = new_incarnation()
    await postgres_store.start_incarnation(me, node="n")
    await postgres_store.raise_frontier(me, frontier_ms=9, hints={})
    async with postgres_store_on(postgres_settings, limits=replace(ALONE, lock_timeout_ms=300)) as store:
        async with locked(postgres_settings, "UPDATE nodes SET node = 'another'"):
            with pytest.raises(StoreUnavailable):
                await store.raise_frontier(me, frontier_ms=5, hints={})

        assert await store.raise_frontier(me, frontier_ms=5, hints={}) == 9


async def test_a_migration_of_another_node_that_lasts_is_waited_for_again(
    postgres_settings: PostgresSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Unavailable: a node that starts tries again. A conflict would end it.
    monkeypatch.setattr(postgres_schema, "LOCK_WAIT_S", 1)
    init = PostgresSchema(postgres_settings, None, shards=SHARDS).init
    lock = f"SELECT pg_advisory_xact_lock({lock_number(postgres_settings.schema)})"
    async with locked(postgres_settings, lock):
        with pytest.raises(StoreUnavailable, match="locked"):
            await init()

    await init()


# --- warnings


async def test_a_warning_of_anything_else_than_the_standby_says_nothing_of_a_write(
    postgres_settings: PostgresSettings,
) -> None:
    # As of transaction ids that run out: it has the same code, and comes with every write for weeks.
    async with (
        raised(postgres_settings, "RAISE WARNING 'must be vacuumed within 39999999 transactions'"),
        postgres_store_on(postgres_settings, limits=ALONE) as store,
    ):
        created = await stored(store)
        assert await store.set_retry(created.name, RETRY, drop_hold=False)


# --- servers that take no writes


async def test_a_connection_whose_server_takes_no_writes_any_more_is_dropped_and_none_is_made_until_it_does(
    postgres_settings: PostgresSettings, postgres_store: PostgresScheduleStore
) -> None:
    created = await stored(postgres_store)

    async def read_only() -> bool:
        found = await execute(postgres_settings, "SHOW default_transaction_read_only")
        return bool(found[0][0] == "on")

    async def refusal() -> StoreUnavailable | None:
        try:
            await postgres_store.set_retry(created.name, RETRY, drop_hold=False)
        except StoreUnavailable as error:
            return error
        return None

    await execute(postgres_settings, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    try:
        await until(read_only, "the server to take no writes")
        refused = await until(refusal, "the session to take no writes")
        assert not refused.outcome_unknown
        assert postgres_store.client.connections()[0] == 0
        with pytest.raises(StoreUnavailable, match="takes no writes"):
            await postgres_store.read_row(created.name)
    finally:
        await execute(postgres_settings, "ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")

    async def written() -> bool:
        try:
            return await postgres_store.set_retry(created.name, RETRY, drop_hold=False)
        except StoreUnavailable:
            return False

    await until(written, "a write to be taken again")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that the server's own user may enter."""
    with tempfile.TemporaryDirectory(prefix="clockwork-standby-") as made:
        Path(made).chmod(0o711)
        (Path(made) / "postgres").mkdir()
        yield Path(made)


class Standby(Postgres):
    """A server in recovery that never hears from its primary."""

    async def prepare(self, port: int) -> list[str]:
        command = await super().prepare(port)
        (self.home / "data" / "standby.signal").touch()
        return command


@pytest.fixture(scope="module")
async def standby(folder: Path, postgres_url: str) -> AsyncIterator[Postgres]:
    """Runs beside the primary, of which it is no copy."""
    server = Standby(port=None, home=folder / "postgres", log_path=folder / "log", scratch=None)
    assert server.bundle is None or server.bundle.folder.exists(), f"{postgres_url} runs from it"
    await server.start()
    yield server
    await server.kill()


async def test_a_standby_is_refused_at_the_start_and_by_every_connection(
    standby: Postgres, postgres_settings: PostgresSettings
) -> None:
    settings = replace(postgres_settings, url=SecretStr(standby.url))

    (problem,) = (await PostgresSchema(settings, None, shards=SHARDS).check()).problems
    assert "standby" in problem
    async with postgres_store_on(settings, limits=ALONE) as store:
        with pytest.raises(StoreUnavailable, match="standby") as caught:
            await stored(store)
        assert not caught.value.outcome_unknown
        with pytest.raises(StoreUnavailable, match="standby"):
            await store.read_shard(SHARD)


@contextmanager
def frozen_server() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield f"127.0.0.1:{listening.getsockname()[1]}"


async def test_of_several_servers_the_one_that_takes_writes_is_found_behind_standbys_and_frozen_ones(
    standby: Postgres, postgres_settings: PostgresSettings
) -> None:
    with frozen_server() as frozen:
        hosts = f"{frozen},127.0.0.1:{standby.port},{{}}"
        settings = with_url(postgres_settings, hosts=hosts, options="target_session_attrs=read-write")
        limits = replace(POSTGRES_LIMITS, connect_timeout_s=1)
        async with postgres_store_on(settings, limits=limits) as store:
            await stored(store)


async def test_no_server_that_answers_is_unavailable_and_shows_no_password(postgres_settings: PostgresSettings) -> None:
    with frozen_server() as frozen:
        settings = replace(
            postgres_settings,
            url=SecretStr(f"postgresql://node:hush@{frozen},127.0.0.1:1/x"),
            password=SecretStr("hush-too"),
        )
        async with postgres_store_on(settings, limits=replace(ALONE, connect_timeout_s=0.3)) as store:
            with pytest.raises(StoreUnavailable) as caught:
                await store.read_shard(SHARD)

    assert "hush" not in "".join(traceback.format_exception(caught.value))
    assert isinstance(caught.value.__cause__, OSError), "the error has lost its cause"
    assert caught.value.__cause__.__cause__ is not caught.value, "or goes round in a circle"


async def test_a_database_of_another_encoding_is_refused(postgres_settings: PostgresSettings) -> None:
    name = postgres_settings.schema
    await execute(
        postgres_settings,
        f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
    )
    try:
        settings = with_url(postgres_settings, path=f"/{name}")
        (problem,) = (await PostgresSchema(settings, None, shards=SHARDS).check()).problems
    finally:
        await execute(postgres_settings, f"DROP DATABASE {name} WITH (FORCE)")

    assert "SQL_ASCII" in problem


# --- connections


@pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux has it; elsewhere the system's own times hold"
)
async def test_a_server_that_is_cut_off_is_given_up_by_tcp_with_and_without_something_on_its_way(
    postgres_settings: PostgresSettings,
) -> None:
    connection: asyncpg.Connection[asyncpg.Record] = await connect(
        postgres_settings, None, timeout_s=10, session={"search_path": postgres_settings.schema}
    )
    try:
        found = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
        assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == UNACKNOWLEDGED_MS
        assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == KEEPALIVE_S
    finally:
        connection.terminate()


class PoolWaits(NoTelemetry):
    """The waits for a free connection."""

    def __init__(self) -> None:
        self.waits_s: list[float] = []

    def store_pool_wait(self, seconds: float) -> None:
        self.waits_s.append(seconds)


async def test_a_wait_for_a_connection_that_was_in_vain_is_counted_too(
    postgres_settings: PostgresSettings, postgres_store: PostgresScheduleStore
) -> None:
    created, waits = await stored(postgres_store), PoolWaits()
    limits = replace(ALONE, answer_timeout_s=0.5)
    async with postgres_store_on(replace(postgres_settings, pool=1), limits=limits, telemetry=waits) as store:
        async with locked(postgres_settings, "UPDATE rows SET hold = 'x'"):
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    await store.drop_hold(created.name)
        assert len(waits.waits_s) == 1
