"""The rights of `infra/postgres/rights.sql`: enough for a node, and no more; and what is to be run after a restore."""

import re
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import asyncpg
import pytest
from pydantic import SecretStr

from clockwork.clock import SKEW_MS_MAX, ClockGuard, SystemClock
from clockwork.domain.ownership import IncarnationId, ShardClaim
from clockwork.domain.pauses import NOTHING_PAUSED
from clockwork.domain.schedule import EndState, RequestId
from clockwork.domain.sharding import ShardId
from clockwork.ports.store import Stores
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import FRONTIER_LEAD_MS_MAX, PostgresSettings
from clockwork.stores.postgres.opening import open_postgres
from clockwork.stores.postgres.schema import RIGHTS
from tests.support.builders import end, outcome, pointer, row, schedule

FOLDER: Final = Path(__file__).parents[2] / "infra" / "postgres"
SHARDS: Final = 4
SHARD: Final = ShardId(1)
AFTER_INIT: Final = "-- 2. After `init`."


@dataclass(frozen=True, kw_only=True, slots=True)
class Roles:
    """A schema of its own, and the settings of the two roles that have rights in it."""

    schema: str
    init: PostgresSettings
    node: PostgresSettings
    administrator: str
    """URL of one who may do everything."""

    def text(self, file: str) -> str:
        """The statements of a file, for this schema and its roles."""
        text = (FOLDER / file).read_text(encoding="utf-8")
        text = re.sub(r"\bclockwork_(init|node)\b", rf"{self.schema}_\1", text)
        return re.sub(r"\bclockwork\b(?=[.;]| AUTH| TO)", self.schema, text)


@asynccontextmanager
async def connected(url: str, user: str | None = None) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    connection = await asyncpg.connect(url, user=user)
    try:
        yield connection
    finally:
        await connection.close()


def opened(settings: PostgresSettings) -> AbstractAsyncContextManager[Stores]:
    clock = SystemClock()
    return open_postgres(
        settings, shards=SHARDS, clock=clock, observe=ClockGuard(clock).observe, telemetry=NoTelemetry()
    )


@pytest.fixture
async def roles(postgres_url: str) -> Roles:
    """Made as the file says: its first part, `init`, its second part."""
    schema = f"rights_{uuid.uuid4().hex[:8]}"
    init = PostgresSettings(url=SecretStr(postgres_url), user=f"{schema}_init", schema=schema)
    made = Roles(schema=schema, init=init, node=replace(init, user=f"{schema}_node"), administrator=postgres_url)
    before, _, after = made.text("rights.sql").partition(AFTER_INIT)
    async with connected(postgres_url) as administrator:
        await administrator.execute(before)
        async with opened(init) as stores:
            await stores.init()
        await administrator.execute(after)
    return made


async def test_a_node_with_the_least_rights_passes_the_check_and_does_its_work(roles: Roles) -> None:
    async with opened(roles.node) as stores:
        found = await stores.check()
        assert found.problems == ()
        await _a_life(stores)


async def _a_life(stores: Stores) -> None:
    """One of each kind of write."""
    store, incarnation = stores.schedules, IncarnationId("0123456789abcdef.1")
    first, second = (
        row(schedule(schedule_key=key, due_ms=SystemClock().now_ms() + 60_000), shard=SHARD) for key in ("a", "b")
    )
    await store.start_incarnation(incarnation, node="n")
    await store.take_shards([ShardClaim(shard=SHARD, epoch=0, floor_ms=0)], taker=incarnation)
    await store.raise_frontier(incarnation, frontier_ms=5, hints={0: 7})
    for each in (first, second):
        await store.create(each, pointer(each), replaces=None)
    assert len((await store.read_page(SHARD, after=None, rows_max=10)).rows) == 2
    await store.hold(first.name, RequestId("r"))
    await store.cancel(first.name, outcome(first, EndState.CANCELLED), hold=RequestId("r"))
    await store.finish(SHARD, [end(second)])
    await store.release_shard(SHARD, epoch=1, owner=incarnation, floor_ms=5)
    await store.fence(incarnation, at_ms=9)
    await store.delete_node(incarnation)
    await stores.pauses.write_pauses(replace(NOTHING_PAUSED, version=1))
    await stores.pauses.write_pauses(replace(NOTHING_PAUSED, version=2))


async def test_each_right_that_is_missing_is_named(roles: Roles) -> None:
    # In one schema, because to make one takes longer than to check it.
    user = f"{roles.schema}_node"
    async with connected(roles.administrator) as administrator, opened(roles.node) as stores:
        for name, right in [(table, right) for table in RIGHTS for right in RIGHTS[table]]:
            table = f"{roles.schema}.{name}"
            await administrator.execute(f"REVOKE {right} ON {table} FROM {user}")
            told = "; ".join((await stores.check()).problems)
            await administrator.execute(f"GRANT {right} ON {table} TO {user}")

            if name == "migrations":
                assert "the user may not read it" in told
            else:
                assert told == f"the user may not do what a node does: GRANT {right} on {table}"
        assert (await stores.check()).problems == ()


async def test_a_node_has_no_more_rights_than_it_needs(roles: Roles) -> None:
    # A node that could delete the row of a shard could make a cancel untrue.
    async with connected(roles.administrator) as administrator:
        found = await administrator.fetch(
            "SELECT table_name, privilege_type FROM information_schema.role_table_grants "
            "WHERE grantee = $1 AND table_schema = $2",
            f"{roles.schema}_node",
            roles.schema,
        )
    granted: dict[str, set[str]] = defaultdict(set)
    for table, right in found:
        granted[table].add(right)
    assert granted == {table: set(rights) for table, rights in RIGHTS.items()}
    async with connected(roles.administrator, f"{roles.schema}_node") as node:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await node.execute(f"CREATE TABLE {roles.schema}.more (a int)")


async def test_after_a_restore_shards_have_no_owner_a_floor_ahead_of_now_and_epochs_never_given_out(
    roles: Roles,
) -> None:
    incarnation, before_ms = IncarnationId("0123456789abcdef.2"), SystemClock().now_ms()
    async with opened(roles.node) as stores:
        await stores.schedules.start_incarnation(incarnation, node="n")
        await stores.schedules.take_shards([ShardClaim(shard=SHARD, epoch=0, floor_ms=3)], taker=incarnation)

        async with connected(roles.administrator) as administrator:
            await administrator.execute(roles.text("after_restore.sql"))

        state = await stores.schedules.read_shard(SHARD)
        assert state.owner is None
        assert state.epoch == 1_001
        # As far ahead as a frontier may lead, with the clock of a node ahead by all that is trusted.
        assert state.floor_ms >= before_ms + FRONTIER_LEAD_MS_MAX + SKEW_MS_MAX
        # The next owner takes it as any shard that was released.
        await stores.schedules.take_shards(
            [ShardClaim(shard=SHARD, epoch=state.epoch, floor_ms=state.floor_ms)], taker=incarnation
        )
