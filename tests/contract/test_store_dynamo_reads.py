"""Reads of one moment share a call, and none waits for another's item or fails with it."""

import asyncio
from typing import Final

import orjson
import pytest

from clockwork.domain.ownership import IncarnationId
from clockwork.domain.schedule import Pointer, Row
from clockwork.domain.sharding import ShardId
from clockwork.errors import StoreThrottled
from clockwork.stores.dynamodb import codec
from clockwork.stores.dynamodb.batching import READS_AT_ONCE, BatchedReads
from clockwork.stores.dynamodb.errors import Rejected
from clockwork.stores.dynamodb.search import DynamoScheduleSearch
from clockwork.stores.dynamodb.store import DynamoScheduleStore
from tests.contract.store_fixtures import SHARDS, Faults
from tests.support.builders import pointer, row

pytestmark = pytest.mark.real

MANY: Final = 100


async def _created(store: DynamoScheduleStore, count: int) -> list[Row]:
    rows = [row() for _ in range(count)]
    await asyncio.gather(*(store.create(one, pointer(one), replaces=None) for one in rows))
    return rows


async def _pointer(store: DynamoScheduleStore, of: Row) -> Pointer | None:
    return await store.read_pointer(of.schedule.client_id, of.schedule.schedule_key)


async def test_reads_of_one_moment_share_a_few_calls_and_each_gets_its_own(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    rows = await _created(dynamo_store, MANY)
    unheard_of = row()

    found = await asyncio.gather(*(_pointer(dynamo_store, one) for one in [*rows, *rows, unheard_of]))

    assert found == [pointer(one) for one in [*rows, *rows]] + [None]
    assert faults.sent["GetItem"] + faults.sent["BatchGetItem"] <= READS_AT_ONCE + 4


async def test_reads_go_on_when_the_one_that_carries_them_is_given_up(dynamo_store: DynamoScheduleStore) -> None:
    rows = await _created(dynamo_store, READS_AT_ONCE + 10)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_pointer(dynamo_store, one), name="read") for one in rows]
        await asyncio.sleep(0)
        for task in tasks[: READS_AT_ONCE + 1]:  # the last of them carries the others
            task.cancel()

    assert all(task.cancelled() for task in tasks[: READS_AT_ONCE + 1])
    left = slice(READS_AT_ONCE + 1, None)
    assert [task.result() for task in tasks[left]] == [pointer(one) for one in rows[left]]


async def test_a_read_sees_what_was_written_before_it_was_asked_for(dynamo_store: DynamoScheduleStore) -> None:
    wanted = row()
    async with asyncio.TaskGroup() as group:
        # Others of the same kind are under way, one of which began before the write.
        for one in [*(row() for _ in range(READS_AT_ONCE * 2)), wanted]:
            group.create_task(_pointer(dynamo_store, one), name="read")
        await dynamo_store.create(wanted, pointer(wanted), replaces=None)

        assert await _pointer(dynamo_store, wanted) == pointer(wanted)


async def test_what_is_left_undone_is_read_alone_and_throttled_alone(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    # One shard's rows are throttled: the others of the same call are there already, and must not wait or fail with it.
    sound, throttled = await _created(dynamo_store, 2)
    table = dynamo_store.client.settings.schedules_table
    keys = [codec.row_key(throttled.shard, throttled.position)]
    answer = {"Responses": {table: [codec.row_item(sound)]}, "UnprocessedKeys": {table: {"Keys": keys}}}
    faults.answer_ok("BatchGetItem", orjson.dumps(answer).decode())
    faults.answer("GetItem", "ThrottlingException", times=1_000)

    reads = (dynamo_store.read_row(one.name) for one in (sound, throttled))
    told = await asyncio.gather(*reads, return_exceptions=True)

    assert told[0] == sound
    assert isinstance(told[1], StoreThrottled)
    faults.heal()
    assert await dynamo_store.read_row(throttled.name) == throttled


async def test_a_throttled_shard_is_left_out_and_the_others_are_there(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    everything = [ShardId(number) for number in range(SHARDS)]
    faults.throttle("2")

    found = await dynamo_store.read_shards(everything)

    assert set(found) == {0, 1, 3}
    faults.throttle("0", "1", "3")
    with pytest.raises(StoreThrottled):
        await dynamo_store.read_shards(everything)


async def test_a_shard_and_its_owner_are_read_by_one_call_also_beside_others(
    dynamo_store: DynamoScheduleStore, faults: Faults, a: IncarnationId
) -> None:
    await dynamo_store.start_incarnation(a, node="host:1")

    looks = await asyncio.gather(*(dynamo_store.read_shard_and_node(ShardId(n % SHARDS), a) for n in range(20)))

    assert all(node is not None and shard.epoch == 0 for shard, node in looks)
    assert faults.sent["BatchGetItem"] == 1
    assert "GetItem" not in faults.sent


async def test_a_look_whose_half_is_left_undone_is_whole(
    dynamo_store: DynamoScheduleStore, faults: Faults, a: IncarnationId
) -> None:
    await dynamo_store.start_incarnation(a, node="host:1")
    table = dynamo_store.client.settings.executions_table
    undone = {"Responses": {}, "UnprocessedKeys": {table: {"Keys": [codec.shard_key(ShardId(1)), codec.node_key(a)]}}}
    faults.answer_ok("BatchGetItem", orjson.dumps(undone).decode())

    shard, node = await dynamo_store.read_shard_and_node(ShardId(1), a)

    assert shard.epoch == 0
    assert node is not None


async def test_every_shared_read_is_strongly_consistent(
    dynamo_store: DynamoScheduleStore, faults: Faults, a: IncarnationId
) -> None:
    # One that is not could miss a pointer, an outcome or a row that was there before it was asked for, or show a frontier,
    # a floor or an owner of the past: a cancel would be answered wrongly.
    await dynamo_store.start_incarnation(a, node="host:1")
    created = await _created(dynamo_store, 3)
    search = DynamoScheduleSearch(dynamo_store.client)
    keys = [(one.schedule.client_id, one.schedule.schedule_key) for one in created]
    shards = [ShardId(number) for number in range(SHARDS)]

    for shared in (
        [dynamo_store.read_pointer(*key) for key in keys],
        [dynamo_store.read_command_note(*key) for key in keys],
        [dynamo_store.read_outcome(*key, one.position) for key, one in zip(keys, created, strict=True)],
        [dynamo_store.read_row(one.name) for one in created],
        [dynamo_store.read_shard(shard) for shard in shards],
        [dynamo_store.read_shards(shards), dynamo_store.read_nodes([a])],
        [dynamo_store.read_shard_and_node(shard, a) for shard in shards],
        [dynamo_store.read_rows(created[0].shard, [one.position for one in created])],
        [search.read_pointers(keys)],
        [search.read_rows_at([(one.shard, one.position) for one in created])],
        [search.read_outcomes([(*key, one.position) for key, one in zip(keys, created, strict=True)])],
    ):
        faults.bodies.clear()
        await asyncio.gather(*shared)
        assert faults.bodies
        for operation, body in faults.bodies:
            assert operation == "BatchGetItem"
            assert all(table["ConsistentRead"] is True for table in body["RequestItems"].values())


async def test_a_key_that_is_rejected_fails_alone(dynamo_store: DynamoScheduleStore) -> None:
    table = dynamo_store.client.settings.keys_table
    reads = BatchedReads(dynamo_store.client, table)
    (known,) = await _created(dynamo_store, 1)
    sound = codec.pointer_key(known.schedule.client_id, known.schedule.schedule_key)
    too_long = {**sound, "clientKey": {"S": "x" * 3_000}}

    told = await asyncio.gather(reads.get(sound), reads.get(too_long), return_exceptions=True)

    assert isinstance(told[0], dict)
    assert codec.pointer_of(told[0]) == pointer(known)
    assert isinstance(told[1], Rejected)
