"""Faults between the store and PostgreSQL: lost answers, callers that leave, locks, standbys that are away, a kill."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from clockwork.clock import SystemClock
from clockwork.domain.pauses import NOTHING_PAUSED, PauseKind
from clockwork.domain.position import text_of
from clockwork.domain.schedule import EndState, RequestId, Row
from clockwork.errors import ConditionFailed, StoreThrottled, StoreUnavailable, TransactionConflict
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import PostgresSettings
from clockwork.stores.calls import Rejected
from clockwork.stores.postgres.client import connect
from clockwork.stores.postgres.opening import open_postgres
from clockwork.stores.postgres.pauses import PostgresPauses
from clockwork.stores.postgres.store import PostgresScheduleStore
from tests.contract.postgres_connections import store_through, with_url
from tests.contract.postgres_writes import MINE, RETRY, WRITES, make_scene
from tests.contract.store_fixtures import (
    POSTGRES_LIMITS,
    SHARDS,
    execute,
    locked,
    new_incarnation,
    observe_nothing,
    postgres_store_on,
)
from tests.support.builders import SHARD, outcome, pause, pointer, row, schedule
from tests.support.proxy import Proxy
from tests.support.waiting import until

if TYPE_CHECKING:
    from infra.local import LocalServices

HASTY: Final = replace(POSTGRES_LIMITS, answer_timeout_s=0.5, attempts_max=1)


class LossyProxy(Proxy):
    """Loses the n-th answer from now on, and its connection with it."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.loses_in = 0

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(1024 * 1024):
            if self.loses_in:
                self.loses_in -= 1
                if self.loses_in == 0:
                    self.lost += 1
                    return
            writer.write(chunk)
            await writer.drain()


@pytest.fixture
async def proxy(postgres_url: str) -> AsyncIterator[LossyProxy]:
    proxy = LossyProxy(postgres_url)
    await proxy.open()
    yield proxy
    await proxy.close()


@pytest.fixture
async def lossy_store(proxy: LossyProxy, postgres_settings: PostgresSettings) -> AsyncIterator[PostgresScheduleStore]:
    """A store with one connection, through the proxy."""
    async with store_through(proxy, postgres_settings) as store:
        yield store


@pytest.mark.parametrize("nth", [1, 2], ids=["of its preparation", "of its execution"])
@pytest.mark.parametrize("write", WRITES)
async def test_a_write_whose_answer_is_lost_is_done_once_and_reported_as_done(
    postgres_store: PostgresScheduleStore,
    lossy_store: PostgresScheduleStore,
    proxy: LossyProxy,
    write: str,
    nth: int,
) -> None:
    act, look = WRITES[write]
    scene = await make_scene(postgres_store)
    before = await look(scene)

    proxy.loses_in = nth
    await act(lossy_store, scene)

    assert proxy.lost == 1
    done = await look(scene)
    assert done != before
    # Also of several copies later it is the same write.
    if write not in ("put_unreadable_outcome", "delete_node"):
        await act(lossy_store, scene)
        assert await look(scene) == done


async def test_a_hold_whose_answer_is_lost_is_unknown_and_never_sent_again(
    postgres_store: PostgresScheduleStore, lossy_store: PostgresScheduleStore, proxy: LossyProxy
) -> None:
    scene = await make_scene(postgres_store)
    proxy.loses_in = 2

    with pytest.raises(StoreUnavailable) as caught:
        await lossy_store.hold(scene.old.name, RequestId("another"))

    assert caught.value.outcome_unknown
    await postgres_store.drop_hold(scene.old.name)
    await lossy_store.read_shard(SHARD)
    there = await postgres_store.read_row(scene.old.name)
    assert isinstance(there, Row)
    assert there.hold is None


async def test_pauses_whose_answer_is_lost_are_written(
    postgres_store: PostgresScheduleStore, lossy_store: PostgresScheduleStore, proxy: LossyProxy
) -> None:
    wanted = NOTHING_PAUSED.with_pause(PauseKind.TOPIC, "orders", pause())
    proxy.loses_in = 2

    with pytest.raises(ConditionFailed):  # by its own first copy, as the port allows
        await PostgresPauses(lossy_store.client, lossy_store.statements).write_pauses(wanted)

    assert await PostgresPauses(postgres_store.client, postgres_store.statements).read_pauses() == wanted


async def test_where_no_connection_can_be_made_nothing_was_written_and_it_is_said(
    lossy_store: PostgresScheduleStore, proxy: LossyProxy
) -> None:
    await proxy.close()

    with pytest.raises(StoreUnavailable) as caught:
        await lossy_store.create(created := row(), pointer(created), replaces=None)

    assert not caught.value.outcome_unknown
    await proxy.open()
    await lossy_store.create(created, pointer(created), replaces=None)


async def in_use(store: PostgresScheduleStore, connections: int) -> None:
    """Waits until so many connections carry a statement."""

    async def look() -> bool:
        return store.client.connections()[1] == connections

    await until(look, f"{connections} connections in use")


async def test_a_lock_in_the_way_is_a_conflict_of_its_own_member_and_of_no_other(
    postgres_settings: PostgresSettings,
) -> None:
    limits = replace(POSTGRES_LIMITS, lock_timeout_ms=300)
    old, others = row(), [row() for _ in range(10)]
    async with postgres_store_on(postgres_settings, limits=limits) as store:
        await store.create(old, pointer(old), replaces=None)
        await store.create(others[0], pointer(others[0]), replaces=None)
        over = [row(replace(each.schedule, version=2)) for each in (old, others[0])]
        async with locked(
            postgres_settings, f"UPDATE pointers SET digest = digest WHERE position = {text_of(old.position)}"
        ):
            told = await asyncio.gather(
                *(
                    store.create(to, pointer(to), replaces=pointer(was))
                    for to, was in zip(over, (old, others[0]), strict=True)
                ),
                *(store.create(each, pointer(each), replaces=None) for each in others[1:]),
                return_exceptions=True,
            )
            assert isinstance(told[0], TransactionConflict)
            assert told[1:] == [None] * 10
            with pytest.raises(StoreThrottled):  # its condition is all in it
                await store.discard(pointer(old), at_ms=1)


async def test_a_caller_who_leaves_is_not_answered_and_the_statement_goes_on(
    postgres_settings: PostgresSettings, postgres_store: PostgresScheduleStore
) -> None:
    created = row()
    await postgres_store.create(created, pointer(created), replaces=None)
    async with postgres_store_on(postgres_settings, limits=HASTY) as store:
        async with locked(
            postgres_settings, f"UPDATE rows SET hold = 'x' WHERE position = {text_of(created.position)}"
        ):
            with pytest.raises(StoreUnavailable) as caught:
                await store.set_retry(created.name, RETRY, drop_hold=True)
            assert caught.value.outcome_unknown
            async with asyncio.TaskGroup() as group:
                leaving = group.create_task(store.drop_hold(created.name))
                await in_use(store, 2)
                leaving.cancel()
            assert store.client.connections()[1] == 2, "a statement was cancelled"
        await in_use(store, 0)

    assert await postgres_store.read_row(created.name) == replace(created, retry=RETRY)


async def test_a_call_that_no_connection_was_free_for_is_known_not_to_be_sent(
    postgres_settings: PostgresSettings, postgres_store: PostgresScheduleStore
) -> None:
    created, other = row(), row()
    await postgres_store.create(created, pointer(created), replaces=None)
    await postgres_store.create(other, pointer(other), replaces=None)
    async with postgres_store_on(replace(postgres_settings, pool=1), limits=HASTY) as store:
        async with locked(
            postgres_settings, f"UPDATE rows SET hold = 'x' WHERE position = {text_of(created.position)}"
        ):
            with pytest.raises(StoreUnavailable):
                await store.drop_hold(created.name)
            with pytest.raises(StoreUnavailable) as caught:
                await store.set_retry(other.name, RETRY, drop_hold=False)
            assert not caught.value.outcome_unknown
        await in_use(store, 0)

    assert await postgres_store.read_row(other.name) == other


async def test_a_statement_over_its_own_time_limit_has_written_nothing(
    postgres_settings: PostgresSettings, postgres_store: PostgresScheduleStore
) -> None:
    created = row()
    await postgres_store.create(created, pointer(created), replaces=None)
    limits = replace(POSTGRES_LIMITS, statement_timeout_ms=200, attempts_max=1)
    async with (
        postgres_store_on(postgres_settings, limits=limits) as store,
        locked(postgres_settings, f"UPDATE rows SET hold = 'x' WHERE position = {text_of(created.position)}"),
    ):
        with pytest.raises(StoreUnavailable) as caught:
            await store.set_retry(created.name, RETRY, drop_hold=False)
        assert not caught.value.outcome_unknown

    assert await postgres_store.read_row(created.name) == created


async def test_what_the_database_will_not_take_fails_alone(postgres_store: PostgresScheduleStore) -> None:
    # A header's JSON may hold anything, a trace parent is text, which U+0000 is no part of.
    bad = row(schedule(traceparent="00-\x00"))
    good = [row() for _ in range(10)]

    told = await asyncio.gather(
        *(postgres_store.create(each, pointer(each), replaces=None) for each in (*good[:5], bad, *good[5:])),
        return_exceptions=True,
    )

    assert isinstance(told.pop(5), Rejected)
    assert told == [None] * 10


# --- a standby that is named and absent


CANCEL_WAITS = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@asynccontextmanager
async def standby_is_away(settings: PostgresSettings) -> AsyncIterator[None]:
    """Commits wait for a standby that does not exist."""
    await execute(settings, "ALTER SYSTEM SET synchronous_standby_names = 'absent'", "SELECT pg_reload_conf()")
    try:
        # The server's processes read the setting one by one: until its checkpointer has, no commit waits.
        await until(partial(commit_waits, settings), "commits wait for the standby")
        yield
    finally:
        await execute(settings, "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")


async def waiting_for_standby(settings: PostgresSettings) -> int:
    (found,) = await execute(settings, "SELECT count(*)::int FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    return int(found[0])


async def commit_waits(settings: PostgresSettings) -> bool:
    """Commits once; true if that had to wait for the standby."""
    waits = False
    async with asyncio.TaskGroup() as group:
        probe = group.create_task(execute(settings, "COMMENT ON TABLE rows IS 'probe'"))
        while not waits and not probe.done():
            waits = await waiting_for_standby(settings) > 0
        await execute(settings, CANCEL_WAITS)
    return waits


async def until_waiting(settings: PostgresSettings, sessions: int) -> None:
    async def look() -> bool:
        return await waiting_for_standby(settings) == sessions

    await until(look, f"{sessions} sessions that wait for the standby")


async def test_a_commit_that_waits_for_a_standby_is_unknown_unseen_and_not_cancelled(
    postgres_settings: PostgresSettings, postgres_store: PostgresScheduleStore
) -> None:
    created = row()
    async with postgres_store_on(postgres_settings, limits=HASTY) as store:
        await asyncio.gather(*(store.read_shard(SHARD) for _ in range(2)))
        async with standby_is_away(postgres_settings):
            with pytest.raises(StoreUnavailable) as caught:
                await store.create(created, pointer(created), replaces=None)
            assert caught.value.outcome_unknown
            await until_waiting(postgres_settings, 1)
            assert await execute(postgres_settings, "SELECT 1 FROM rows") == [], "a commit is seen that no standby has"
        await in_use(store, 0)

    assert await postgres_store.read_row(created.name) == created


@pytest.mark.parametrize("options", ["", "client_min_messages=error"], ids=["", "of a user who is sent no warnings"])
async def test_a_write_whose_wait_for_the_standby_was_cancelled_is_unknown_and_not_vouched_for(
    postgres_settings: PostgresSettings, options: str
) -> None:
    # The session answers `INSERT 0 1`, and a warning before it.
    created = row()
    limits = replace(POSTGRES_LIMITS, attempts_max=1)
    async with postgres_store_on(with_url(postgres_settings, options=options), limits=limits) as store:
        await store.read_shard(SHARD)  # connected
        async with asyncio.TaskGroup() as group:
            async with standby_is_away(postgres_settings):
                create = group.create_task(unknown(store.create(created, pointer(created), replaces=None)))
                await until_waiting(postgres_settings, 1)
                await execute(postgres_settings, CANCEL_WAITS)
                assert await create
                # All see the row now. But this store says nothing of it before the standby is back.
                assert len(await execute(postgres_settings, "SELECT 1 FROM rows")) == 1
                again = group.create_task(store.create(created, pointer(created), replaces=None))
                read = group.create_task(store.read_row(created.name))
                await until_waiting(postgres_settings, 2)
                assert not again.done()
                assert not read.done()
            await again
            assert await read == created


async def unknown(write: Awaitable[None]) -> bool:
    """True if it is not known whether a write was done; False if it was."""
    try:
        await write
    except StoreUnavailable as error:
        return error.outcome_unknown
    return False


async def test_a_statement_whose_task_is_cancelled_goes_on_at_the_server(
    postgres_settings: PostgresSettings,
) -> None:
    # As at the end of an event loop. asyncpg would ask the server to cancel it, and the wait for the standby with it.
    session = {"search_path": postgres_settings.schema}
    connection = await connect(postgres_settings, None, timeout_s=10, session=session)
    async with standby_is_away(postgres_settings):
        async with asyncio.TaskGroup() as group:
            write = group.create_task(connection.execute("UPDATE shards SET floor_ms = 9"))
            await until_waiting(postgres_settings, 1)
            write.cancel()
        assert (await stored_floor(postgres_settings)) == 0
        assert connection.is_closed()
        assert await waiting_for_standby(postgres_settings) == 1

    async def look() -> bool:
        return await stored_floor(postgres_settings) == 9

    await until(look, "the commit to be seen, once the standby has it")


async def stored_floor(settings: PostgresSettings) -> int:
    (found,) = await execute(settings, f"SELECT floor_ms FROM shards WHERE shard = {SHARD}")
    return int(found[0])


async def test_an_error_in_the_block_of_an_opened_store_comes_out_of_it_as_it_is(
    postgres_settings: PostgresSettings,
) -> None:
    async def use_and_fail() -> None:
        async with open_postgres(
            postgres_settings, shards=SHARDS, clock=SystemClock(), observe=observe_nothing, telemetry=NoTelemetry()
        ) as stores:
            await stores.schedules.ping()
            raise KeyError

    with pytest.raises(KeyError):
        await use_and_fail()


async def test_sessions_that_wait_for_a_standby_are_no_more_than_connections(
    postgres_settings: PostgresSettings,
) -> None:
    async with postgres_store_on(replace(postgres_settings, pool=3), limits=HASTY) as store:
        await store.read_shard(SHARD)
        async with standby_is_away(postgres_settings):
            for _ in range(3):
                told = await asyncio.gather(
                    *(store.create(each, pointer(each), replaces=None) for each in (row(), row(), row(), row())),
                    *(store.fence(new_incarnation(), at_ms=1) for _ in range(4)),
                    return_exceptions=True,
                )
                assert any(isinstance(one, StoreUnavailable) for one in told)
            assert await waiting_for_standby(postgres_settings) <= 3
        await in_use(store, 0)


# --- a power cut


async def test_every_answer_outlives_a_kill_of_the_server(
    services: "LocalServices", postgres_settings: PostgresSettings, postgres_store: PostgresScheduleStore
) -> None:
    created: list[Row] = []
    cancelled: list[Row] = []
    killed = asyncio.Event()

    async def ask() -> None:
        while not killed.is_set():
            wanted = row()
            try:
                await postgres_store.create(wanted, pointer(wanted), replaces=None)
            except StoreUnavailable:
                continue
            if len(created) > len(cancelled) * 2:
                try:
                    await postgres_store.hold(wanted.name, MINE)
                    await postgres_store.cancel(wanted.name, outcome(wanted, EndState.CANCELLED), hold=MINE)
                except StoreUnavailable:
                    continue  # it may be either
                cancelled.append(wanted)
            else:
                created.append(wanted)

    async def many() -> bool:
        return len(created) > 300

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(ask())
        await until(many, "three hundred answers")
        await services.kill_postgres()
        killed.set()

    await services.start_postgres()
    for each in (*created, *cancelled):
        key = each.schedule.client_id, each.schedule.schedule_key
        assert await postgres_store.read_pointer(*key) == pointer(each)
        is_cancelled = each in cancelled
        assert await postgres_store.read_row(each.name) == (None if is_cancelled else each)
        ended = outcome(each, EndState.CANCELLED) if is_cancelled else None
        assert await postgres_store.read_outcome(*key, each.position) == ended
