"""Rows on PostgreSQL that are damaged, newer, or made of anything that a client may send; pages, and what expires."""

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Final

import pytest

from clockwork.domain.position import text_of
from clockwork.domain.retry import BackoffPolicy, RetryPolicy
from clockwork.domain.schedule import BrokenRow, EndState, OnLate, RequestId, Row
from clockwork.domain.sharding import ShardId
from clockwork.errors import NewerFormat, Unreadable
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import PostgresSettings
from clockwork.stores.postgres.maintenance import Maintenance
from clockwork.stores.postgres.search import PostgresScheduleSearch
from clockwork.stores.postgres.store import PostgresScheduleStore
from tests.contract.store_fixtures import execute, locked
from tests.support.builders import DUE_MS, SHARD, end, outcome, pointer, row, schedule
from tests.support.waiting import until

DAMAGES: Final = {
    "client_id": "'no/client'",
    "schedule_key": "'\\xff'::bytea",
    "ordering_key": "'\\xff'::bytea",
    "topic": "'..'",
    "guarantee": "'twice'",
    "data_form": "'xml'",
    "headers": "'[1]'::bytea",
    "retry_policy": '\'{"attempts": "x"}\'::bytea',
    "on_late": "'sometime'",
    "delivery_id": "''",
    "retry_at_ms": "7",
    "format": "0",
}


async def stored(store: PostgresScheduleStore, wanted: Row | None = None) -> Row:
    created = wanted if wanted is not None else row()
    await store.create(created, pointer(created), replaces=None)
    return created


async def test_anything_that_a_client_may_send_is_read_back_whole(postgres_store: PostgresScheduleStore) -> None:
    strange = schedule(
        schedule_key="k\x00\u2028'\"\\",
        ordering_key="\x00",
        headers=(("\x00", "\x00"), ("h", "")),
        task_data=bytes(range(256)),
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        deadline_ms=5,
        on_late=OnLate.DEAD_LETTER,
        delivery_id="d",  # Clockwork's own
    )
    policy = RetryPolicy(
        attempts_max=3, backoff=BackoffPolicy(initial_ms=1, max_ms=2, factor_percent=150), jitter_percent=7
    )
    created = await stored(postgres_store, row(replace(strange, retry=policy)))

    assert await postgres_store.read_row(created.name) == created
    assert (await postgres_store.read_page(SHARD, after=None, rows_max=5)).rows == (created,)
    key = created.schedule.client_id, created.schedule.schedule_key
    assert await postgres_store.read_pointer(*key) == pointer(created)
    await postgres_store.finish(SHARD, [end(created)])
    assert await postgres_store.read_outcome(*key, created.position) == outcome(created)


@pytest.mark.parametrize("column", DAMAGES)
async def test_a_damaged_row_is_a_broken_row_and_hides_no_other(
    postgres_store: PostgresScheduleStore, postgres_settings: PostgresSettings, column: str
) -> None:
    sound, damaged, last = [await stored(postgres_store) for _ in range(3)]
    await execute(
        postgres_settings, f"UPDATE rows SET {column} = {DAMAGES[column]} WHERE position = {text_of(damaged.position)}"
    )

    page = await postgres_store.read_page(SHARD, after=None, rows_max=10)

    first, broken, third = page.rows
    assert (first, third) == (sound, last)
    assert isinstance(broken, BrokenRow)
    assert broken == await postgres_store.read_row(damaged.name)
    assert (broken.shard, broken.position, broken.newer_format) == (SHARD, damaged.position, False)
    assert broken.reason.startswith({"retry_policy": "attempts", "retry_at_ms": "retry"}.get(column, column))
    assert (broken.client_id is None) is (column == "client_id")
    assert (broken.schedule_key is None) is (column == "schedule_key")
    assert (broken.lane is None) is (column == "ordering_key")
    assert b'"shard":3' in broken.raw
    # It can be held, cancelled and finished as any other.
    assert isinstance(await postgres_store.hold(damaged.name, MINE), BrokenRow)
    assert await postgres_store.drop_hold(damaged.name)
    ended = replace(outcome(damaged, EndState.FAILED), schedule=None)
    await postgres_store.finish(SHARD, [replace(end(damaged, ended), row=broken)])
    assert await postgres_store.read_row(damaged.name) is None
    key = damaged.schedule.client_id, damaged.schedule.schedule_key
    assert await postgres_store.read_outcome(*key, damaged.position) == ended


MINE: Final = RequestId("mine")


async def test_what_a_newer_version_wrote_is_left_as_it_is(
    postgres_store: PostgresScheduleStore, postgres_settings: PostgresSettings
) -> None:
    created = await stored(postgres_store)
    key = created.schedule.client_id, created.schedule.schedule_key
    await postgres_store.finish(ShardId(0), [end(created)])
    await execute(
        postgres_settings,
        "UPDATE rows SET format = 3",
        "UPDATE pointers SET format = 2",
        "UPDATE outcomes SET format = 2",
    )

    found = await postgres_store.read_row(created.name)

    assert isinstance(found, BrokenRow)
    assert found.newer_format
    with pytest.raises(NewerFormat):
        await postgres_store.read_pointer(*key)
    with pytest.raises(NewerFormat):
        await postgres_store.read_outcome(*key, created.position)
    search = PostgresScheduleSearch(postgres_store)
    assert await search.read_pointers([key]) == {}


@pytest.mark.parametrize("position", ["0", "-1", "1e14", "'NaN'"])
async def test_the_tables_take_no_position_that_cannot_be_named(
    postgres_store: PostgresScheduleStore, postgres_settings: PostgresSettings, position: str
) -> None:
    await stored(postgres_store)

    with pytest.raises(Exception, match=r"check constraint|overflow"):
        await execute(postgres_settings, f"UPDATE rows SET position = {position}")


async def test_an_incarnation_that_cannot_be_read_hides_no_other(
    postgres_store: PostgresScheduleStore, postgres_settings: PostgresSettings
) -> None:
    for name in ("a.1", "b.1"):
        await postgres_store.start_incarnation(name, node="n")  # type: ignore[arg-type]
    await execute(postgres_settings, "UPDATE nodes SET hints = '{\"x\": 1}' WHERE incarnation = 'a.1'")

    assert [node.incarnation for node in await postgres_store.list_nodes()] == ["b.1"]
    with pytest.raises(Unreadable):
        await postgres_store.read_nodes(["a.1"])  # type: ignore[list-item]


async def test_pages_of_all_shards_at_once_are_shared_and_each_goes_on_where_it_ended(
    postgres_store: PostgresScheduleStore,
) -> None:
    rows = [row(schedule(task_data=bytes(100_000)), shard=number % 4) for number in range(100)]
    await asyncio.gather(*(stored(postgres_store, each) for each in rows))

    async def read_all(shard: int) -> list[Row | BrokenRow]:
        found: list[Row | BrokenRow] = []
        after = None
        while True:
            page = await postgres_store.read_page(shard, after=after, rows_max=1_000)  # type: ignore[arg-type]
            found += page.rows
            after = page.next_after
            if after is None:
                return found

    for shard, found in enumerate(await asyncio.gather(*map(read_all, range(4)))):
        assert found == sorted((each for each in rows if each.shard == shard), key=lambda each: each.position)


@pytest.mark.parametrize("large", ["data", "headers"])
async def test_a_page_of_the_largest_rows_ends_at_about_a_megabyte(
    postgres_store: PostgresScheduleStore, large: str
) -> None:
    text = "x" * 250 * 1024
    data, headers = (text.encode(), ()) if large == "data" else (b"", (("h", text),))
    rows = [row(schedule(task_data=data, headers=headers, due_ms=DUE_MS + number)) for number in range(8)]
    for each in rows:
        await stored(postgres_store, each)

    page = await postgres_store.read_page(SHARD, after=None, rows_max=1_000)

    assert list(page.rows) == rows[:5]
    assert page.next_after == rows[4].position


# --- retention


async def test_what_has_expired_goes_with_its_pointer_and_nothing_else(
    postgres_store: PostgresScheduleStore, postgres_settings: PostgresSettings
) -> None:
    pending, expired, kept, moved, lost = [await stored(postgres_store, row()) for _ in range(5)]
    await execute(postgres_settings, "UPDATE pointers SET expires_at_s = 1")  # by their date alone all would go
    past, future = 1_000, 9_000_000_000
    await postgres_store.finish(
        SHARD,
        [
            end(expired, outcome(expired, expires_at_s=past)),
            end(kept, outcome(kept, expires_at_s=future)),
            end(moved, outcome(moved, expires_at_s=past)),
            replace(end(lost), outcome=None),
        ],
    )
    again = row(replace(moved.schedule, version=2))
    await postgres_store.create(again, pointer(again, expires_at_s=1), replaces=pointer(moved))
    await execute(
        postgres_settings,
        "INSERT INTO command_notes VALUES ('a', 'x', '0.1.2', 'y', 1, 1), ('b', 'x', '0.1.2', 'y', 9000000000, 1)",
    )

    await Maintenance(postgres_settings, None, NoTelemetry()).once()

    async def pointed(of: Row) -> bool:
        return await postgres_store.read_pointer(of.schedule.client_id, of.schedule.schedule_key) is not None

    async def ended(of: Row) -> bool:
        schedule = of.schedule
        return await postgres_store.read_outcome(schedule.client_id, schedule.schedule_key, of.position) is not None

    assert [await pointed(each) for each in (pending, expired, kept, again, lost)] == [True, False, True, True, False]
    assert [await ended(each) for each in (expired, kept, moved)] == [False, True, False]
    assert await postgres_store.read_row(pending.name) == pending
    assert [found[0] for found in await execute(postgres_settings, "SELECT client_id FROM command_notes")] == ["b"]


async def test_only_one_node_removes_at_a_time(
    postgres_store: PostgresScheduleStore, postgres_settings: PostgresSettings
) -> None:
    rows = [await stored(postgres_store) for _ in range(3)]
    await postgres_store.finish(SHARD, [end(each, outcome(each, expires_at_s=1)) for each in rows])

    await asyncio.gather(*(Maintenance(postgres_settings, None, NoTelemetry()).once() for _ in range(4)))

    assert await execute(postgres_settings, "SELECT 1 FROM outcomes") == []


async def test_a_search_for_what_has_expired_begins_where_the_last_one_ended_and_a_whole_one_at_the_beginning(
    postgres_store: PostgresScheduleStore, postgres_settings: PostgresSettings
) -> None:
    maintenance = Maintenance(postgres_settings, None, NoTelemetry())
    (now_s,) = (await execute(postgres_settings, "SELECT extract(epoch FROM clock_timestamp())::bigint"))[0]
    await maintenance.once()
    long_ago, lately = await stored(postgres_store), await stored(postgres_store)
    await postgres_store.finish(
        SHARD,
        [
            end(long_ago, outcome(long_ago, expires_at_s=now_s - 3_600)),
            end(lately, outcome(lately, expires_at_s=now_s - 1)),
        ],
    )

    await maintenance.once(whole=False)

    left = "SELECT position FROM outcomes"
    assert [found[0] for found in await execute(postgres_settings, left)] == [Decimal(text_of(long_ago.position))]
    await maintenance.once()
    assert await execute(postgres_settings, left) == []


async def test_an_outcome_stays_as_long_as_its_pointer_cannot_go_with_it(
    postgres_store: PostgresScheduleStore, postgres_settings: PostgresSettings
) -> None:
    # Alone, the pointer would be looked for by its date, which has no index.
    expired = await stored(postgres_store)
    await postgres_store.finish(SHARD, [end(expired, outcome(expired, expires_at_s=1))])
    maintenance = Maintenance(postgres_settings, None, NoTelemetry())

    async with locked(postgres_settings, "SELECT 1 FROM pointers FOR SHARE"):
        await maintenance.once()
        assert len(await execute(postgres_settings, "SELECT 1 FROM outcomes")) == 1
    await maintenance.once()

    assert await execute(postgres_settings, "SELECT 1 FROM outcomes") == []
    assert await execute(postgres_settings, "SELECT 1 FROM pointers") == []


async def test_a_removal_that_is_cancelled_ends_as_cancelled(
    postgres_store: PostgresScheduleStore, postgres_settings: PostgresSettings
) -> None:
    # An error in its place would be logged, and the next round would begin: the node that is stopped would wait for ever.
    expired = await stored(postgres_store)
    await postgres_store.finish(SHARD, [end(expired, outcome(expired, expires_at_s=1))])
    asleep = "FROM pg_stat_activity WHERE wait_event = 'PgSleep'"

    async def sleeping() -> list[object]:
        return await execute(postgres_settings, f"SELECT 1 {asleep}")

    await execute(
        postgres_settings,
        "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1000); RETURN OLD; END $$",
        "CREATE TRIGGER linger BEFORE DELETE ON outcomes FOR EACH ROW EXECUTE FUNCTION linger()",
    )
    try:
        async with asyncio.TaskGroup() as group:
            removal = group.create_task(Maintenance(postgres_settings, None, NoTelemetry()).once())
            await until(sleeping, "the removal to be under way")
            removal.cancel()
        assert removal.cancelled()
    finally:
        await execute(postgres_settings, f"SELECT pg_terminate_backend(pid) {asleep}", "DROP FUNCTION linger CASCADE")
