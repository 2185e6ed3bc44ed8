"""Cleanup of completed rows, on the twin of the store."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any, Final

import pytest

from clockwork.clock import ClockGuard, SystemClock
from clockwork.domain.marker import MarkerEntry, decode, encode
from clockwork.domain.schedule import BrokenRow, Failure, Guarantee, Retry, Row
from clockwork.domain.sharding import ShardId
from clockwork.errors import NewerFormat, StoreThrottled, StoreUnavailable
from clockwork.firing.cleanup import CHUNK_ROWS, LAST_CLEANUP_S, TICK_S, Cleanup, Completed, finish_rows, outcome_of
from clockwork.ports.store import End, ScheduleStore
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import DynamoSettings
from clockwork.stores.dynamodb.store import DynamoScheduleStore
from clockwork.stores.memory.store import MemoryScheduleStore
from tests.support import builders
from tests.support.builders import SHARD, broken_row, row, schedule
from tests.support.jobs import no_jobs
from tests.support.virtual_time import in_virtual_time

RETENTION_MS: Final = 3_600_000


class Store(MemoryScheduleStore):
    """Fails the calls of `finish` that name a row of `throttled`; answers none while it is `down`."""

    def __init__(self) -> None:
        super().__init__(shards=8)
        self.throttled: set[Row | BrokenRow] = set()
        self.down = False
        self.calls: list[Sequence[Row | BrokenRow]] = []

    async def finish(self, shard: ShardId, ends: Sequence[End]) -> None:
        self.calls.append([end.row for end in ends])
        await asyncio.sleep(0.01)
        if self.down:
            raise StoreUnavailable
        if self.throttled.intersection(end.row for end in ends):
            raise StoreThrottled
        await super().finish(shard, ends)


class Done(list[Completed]):
    """What `on_done` was told."""

    def __call__(self, completed: Sequence[Completed]) -> None:
        self.extend(completed)


def cleanup_of(store: ScheduleStore, on_done: Done | None = None, *, shard: ShardId = SHARD) -> Cleanup:
    done = on_done if on_done is not None else Done()
    return Cleanup(store, no_jobs(), shard, retention_ms=RETENTION_MS, rng=random.Random(1), on_done=done)


def committed(of: Row | BrokenRow, *, slot: int | None = 0) -> Completed:
    entry = MarkerEntry(shard=of.shard, position=of.position, at_ms=of.due_ms + 5, receipt=builders.receipt())
    return Completed(row=of, entry=entry, slot=slot)


def acknowledged_row() -> Row:
    return row(schedule(guarantee=Guarantee.AT_LEAST_ONCE))


def stored(store: MemoryScheduleStore, *rows: Row | BrokenRow) -> None:
    for each in rows:
        store.put_by_hand(each)


@in_virtual_time
async def test_deleted_rows_are_reported_with_the_slot_whose_markers_name_them() -> None:
    store, done = Store(), Done()
    rows = [row() for _ in range(3)]
    stored(store, *rows)
    cleanup = cleanup_of(store, done)
    cleanup.add(committed(each, slot=number) for number, each in enumerate(rows))
    assert not done
    await cleanup.finish()
    assert [(one.row, one.slot) for one in done] == [(rows[0], 0), (rows[1], 1), (rows[2], 2)]
    assert not store.rows
    assert (len(cleanup), cleanup.size_bytes) == (0, 0)


@in_virtual_time
async def test_a_row_whose_writes_are_throttled_holds_up_no_other_row_of_its_shard() -> None:
    # One DynamoDB partition key that is throttled for minutes. As one chunk, all would wait for it, and be written again
    # and again; their entries would fill the markers.
    store = Store()
    rows = [row() for _ in range(2 * CHUNK_ROWS)]
    stored(store, *rows)
    store.throttled.add(rows[7])
    cleanup = cleanup_of(store)
    cleanup.add(map(committed, rows))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(cleanup.run(), name="cleanup")
        while len(cleanup) > 1:
            await cleanup.wait_until_progress()
        assert rows[7].position in cleanup
        assert sum(map(len, store.calls)) < 3 * len(rows), "the others are not written again and again"
        store.throttled.clear()
        await cleanup.wait_until_progress()
        running.cancel()
    assert not store.rows


@in_virtual_time
async def test_a_clean_hand_over_finishes_beside_the_running_cleanup_and_writes_no_row_twice() -> None:
    store, done = Store(), Done()
    rows = [row() for _ in range(CHUNK_ROWS + 30)]
    stored(store, *rows)
    cleanup = cleanup_of(store, done)
    cleanup.add(map(committed, rows))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(cleanup.run(), name="cleanup")
        await asyncio.sleep(0)
        await cleanup.finish()
        running.cancel()
    assert [one.row for one in done] == rows
    assert [each for call in store.calls for each in call] == rows


@in_virtual_time
async def test_at_the_end_of_an_incarnation_acknowledged_rows_are_cleaned_up_and_no_others() -> None:
    # No marker names them: forgotten, they would be sent again by the next owner.
    store = Store()
    by_marker, acknowledged = row(), acknowledged_row()
    stored(store, by_marker, acknowledged)
    cleanup = cleanup_of(store)
    cleanup.add([committed(by_marker, slot=1), committed(acknowledged, slot=None)])
    await cleanup.finish_acknowledged()
    assert list(store.rows.values()) == [by_marker]
    assert [outcome.position for outcome in store.outcomes.values()] == [acknowledged.position]


@in_virtual_time
async def test_at_the_end_of_an_incarnation_a_failed_write_is_repeated() -> None:
    store = Store()
    acknowledged = acknowledged_row()
    stored(store, acknowledged)
    cleanup = cleanup_of(store)
    cleanup.add([committed(acknowledged, slot=None)])
    store.down = True
    async with asyncio.TaskGroup() as tasks:
        ending = tasks.create_task(cleanup.finish_acknowledged(), name="ending")
        await asyncio.sleep(LAST_CLEANUP_S / 2)
        assert not ending.done()
        store.down = False
    assert not store.rows


@in_virtual_time
async def test_at_the_end_of_an_incarnation_a_store_that_is_away_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    acknowledged = acknowledged_row()
    stored(store, acknowledged)
    cleanup = cleanup_of(store)
    cleanup.add([committed(acknowledged, slot=None)])
    store.down = True
    started_s = asyncio.get_running_loop().time()
    await cleanup.finish_acknowledged()
    assert asyncio.get_running_loop().time() - started_s == pytest.approx(LAST_CLEANUP_S)
    (line,) = [vars(each) for each in caplog.records if each.msg == "Acknowledged rows are left to be sent again"]
    assert (line["event"], line["rows"]) == ("tidy.left", 1)


async def test_rows_of_a_former_owner_are_finished_whatever_their_number() -> None:
    store = Store()
    rows = [row() for _ in range(2 * CHUNK_ROWS + 1)]
    stored(store, *rows)
    await finish_rows(store, no_jobs(), SHARD, list(map(committed, rows)), retention_ms=RETENTION_MS)
    assert not store.rows
    assert len(store.outcomes) == len(rows)
    assert max(map(len, store.calls)) <= CHUNK_ROWS


async def test_a_former_owners_row_of_a_newer_format_is_left_alone_with_all_rows_of_its_shard() -> None:
    # This version cannot read the row in full: its outcome would be without content, or lack what the newer version
    # would have written besides.
    store = Store()
    newer, other = broken_row(newer_format=True, client_id="client-1", schedule_key="k"), row()
    stored(store, newer, other)
    with pytest.raises(NewerFormat):
        await finish_rows(store, no_jobs(), SHARD, [committed(other), committed(newer)], retention_ms=RETENTION_MS)
    assert list(store.rows.values()) == [newer, other]
    assert not store.outcomes


async def test_the_outcome_of_a_row_that_cannot_be_read_does_not_replace_one_with_content() -> None:
    store = Store()
    whole = row()
    full = outcome_of(committed(whole), retention_ms=RETENTION_MS)
    assert full is not None
    await store.finish(SHARD, [builders.end(whole, full)])
    content = whole.schedule
    damaged = broken_row(at=whole.position, client_id=content.client_id, schedule_key=content.schedule_key)
    stored(store, damaged)
    await finish_rows(store, no_jobs(), SHARD, [committed(damaged)], retention_ms=RETENTION_MS)
    assert list(store.outcomes.values()) == [full]
    assert not store.rows


@pytest.mark.parametrize("guarantee", list(Guarantee))
@in_virtual_time
async def test_rows_of_several_shards_share_the_calls_to_the_store(guarantee: Guarantee) -> None:
    # A pair of writes for each row was a quarter of the cost of a delivery.
    clock = SystemClock()
    store = DynamoScheduleStore(DynamoSettings(region="us-east-1"), clock, ClockGuard(clock).observe, NoTelemetry())
    calls: list[str] = []

    async def answer(operation: str, **request: Any) -> dict[str, Any]:
        calls.append(operation)
        await asyncio.sleep(0.01)
        return {"Responses": [{} for _ in request.get("Statements", ())]}

    vars(store.client)["call"] = answer
    async with asyncio.TaskGroup() as tasks:
        running = []
        cleanups = []
        for number in range(8):
            cleanup = cleanup_of(store, shard=ShardId(number))
            rows = [row(schedule(guarantee=guarantee), shard=number) for _ in range(2)]
            cleanup.add(committed(each, slot=None) for each in rows)
            cleanups.append(cleanup)
            running.append(tasks.create_task(cleanup.run(), name="cleanup"))
        await asyncio.sleep(2 * TICK_S)
        for each in running:
            each.cancel()
    assert [len(each) for each in cleanups] == [0] * 8
    outcomes = "batch_execute_statement" if guarantee is Guarantee.AT_LEAST_ONCE else "batch_write_item"
    assert calls == [outcomes, "batch_write_item"]


def test_the_outcome_after_a_take_over_names_the_last_refusal_which_only_the_row_has() -> None:
    refused = row(retry=Retry(at_ms=builders.DUE_MS, epoch=1, attempts=8, last_refusal="record_too_large"))
    failure = Failure(reason="attempts_exhausted", attempts=8, last_refusal="record_too_large")
    own = MarkerEntry(
        shard=refused.shard,
        position=refused.position,
        at_ms=builders.DUE_MS,
        receipt=builders.receipt(),
        failure=failure,
    )
    (read,) = decode(encode([own]))
    assert read.failure == Failure(reason="attempts_exhausted", attempts=8)

    ends = [
        outcome_of(Completed(row=refused, entry=entry, slot=None), retention_ms=RETENTION_MS) for entry in (own, read)
    ]

    assert [end.failure for end in ends if end is not None] == [failure, failure]
