"""`DynamoScheduleStore` when DynamoDB leaves parts of a batch undone."""

import json

import pytest

from clockwork.domain.position import text_of
from clockwork.domain.schedule import EndState, Failure, Row
from clockwork.errors import StoreThrottled
from clockwork.stores.dynamodb.errors import Rejected
from clockwork.stores.dynamodb.store import DynamoScheduleStore
from tests.contract.store_fixtures import Faults
from tests.support.builders import end, gone, outcome, pointer, row, schedule

pytestmark = pytest.mark.real


async def _created(store: DynamoScheduleStore) -> Row:
    created = row()
    await store.create(created, pointer(created), replaces=None)
    return created


async def test_what_a_batch_leaves_undone_is_sent_again(dynamo_store: DynamoScheduleStore, faults: Faults) -> None:
    rows = [await _created(dynamo_store) for _ in range(3)]
    table = dynamo_store.client.settings.schedules_table
    undone = [
        {"DeleteRequest": {"Key": {"partitionId": {"S": str(r.shard)}, "scheduleTime": {"N": text_of(r.position)}}}}
        for r in rows[1:]
    ]
    faults.answer_ok("BatchWriteItem", json.dumps({"UnprocessedItems": {table: undone}}))
    await dynamo_store.finish(rows[0].shard, [gone(r) for r in rows])
    left = await dynamo_store.read_rows(rows[0].shard, [r.position for r in rows])
    # The first one was said to be done and was not: only what is left undone is sent again.
    assert list(left) == [rows[0].position]

    faults.answer("BatchWriteItem", "ProvisionedThroughputExceededException", times=4)
    await dynamo_store.finish(rows[0].shard, [end(r) for r in rows])
    for one in map(outcome, rows):
        assert await dynamo_store.read_outcome(one.client_id, one.schedule_key, one.position) == one


async def test_what_a_batch_read_leaves_unread_is_asked_for_again(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    rows = [await _created(dynamo_store) for _ in range(3)]
    table = dynamo_store.client.settings.schedules_table
    keys = [{"partitionId": {"S": str(r.shard)}, "scheduleTime": {"N": text_of(r.position)}} for r in rows]
    nothing_read = {"Responses": {}, "UnprocessedKeys": {table: {"Keys": keys, "ConsistentRead": True}}}
    faults.answer_ok("BatchGetItem", json.dumps(nothing_read))

    found = await dynamo_store.read_rows(rows[0].shard, [r.position for r in rows])

    assert found == {r.position: r for r in rows}


async def test_a_batch_that_is_never_done_is_throttled_in_the_end(
    dynamo_store: DynamoScheduleStore, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clockwork.stores.dynamodb.batching.backoff_s", lambda attempt: 0.0)
    faults.answer("BatchWriteItem", "ThrottlingException", times=1_000)
    rows = [row(schedule()) for _ in range(30)]

    with pytest.raises(StoreThrottled):
        await dynamo_store.finish(rows[0].shard, [end(each) for each in rows])


async def test_a_row_stays_as_long_as_its_outcome_cannot_be_put(
    dynamo_store: DynamoScheduleStore, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A row that is gone without an outcome would be a schedule that cannot be explained; so the delete comes last.
    monkeypatch.setattr("clockwork.stores.dynamodb.batching.backoff_s", lambda attempt: 0.0)
    refused, throttled = [await _created(dynamo_store) for _ in range(2)]
    too_large = outcome(refused, EndState.FAILED, failure=Failure(reason="x" * 500_000, attempts=1))
    ends = [end(throttled, keep_existing=True)]
    faults.answer("BatchExecuteStatement", "ThrottlingException", times=100)

    with pytest.raises(Rejected):
        await dynamo_store.finish(refused.shard, [end(refused, too_large)])
    with pytest.raises(StoreThrottled):
        await dynamo_store.finish(throttled.shard, ends)

    assert await dynamo_store.read_row(refused.name) == refused
    assert await dynamo_store.read_row(throttled.name) == throttled
    faults.heal()
    await dynamo_store.finish(throttled.shard, ends)
    assert await dynamo_store.read_row(throttled.name) is None
