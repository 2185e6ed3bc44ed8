"""`DynamoScheduleStore` when answers get lost, come twice, or say "slow down"; the client's own repeats are run."""

import uuid
from dataclasses import replace
from typing import Any, Final

import pytest

from clockwork.clock import SystemClock
from clockwork.domain.ownership import IncarnationId, ShardClaim, ShardState
from clockwork.domain.schedule import EndState, RequestId, Row
from clockwork.domain.sharding import ShardId
from clockwork.errors import (
    ConditionFailed,
    Fenced,
    ShardsContested,
    StoreThrottled,
    StoreUnavailable,
    TransactionConflict,
)
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import DynamoSettings
from clockwork.stores.dynamodb.client import Transport
from clockwork.stores.dynamodb.errors import Rejected
from clockwork.stores.dynamodb.store import DynamoScheduleStore
from infra.local.ports import free_port
from tests.contract.store_fixtures import Faults, observe_nothing, store_on
from tests.support.builders import end, gone, outcome, pointer, row

pytestmark = pytest.mark.real

MINE: Final = RequestId("mine")
SHARD: Final = ShardId(1)
OTHER: Final = ShardId(2)
CLAIM: Final = ShardClaim(shard=SHARD, epoch=0, floor_ms=5)
OTHER_CLAIM: Final = replace(CLAIM, shard=OTHER)
TRANSACTION: Final = "TransactWriteItems"


async def _created(store: DynamoScheduleStore) -> Row:
    created = row()
    await store.create(created, pointer(created), replaces=None)
    return created


# --- an answer gets lost, and the client repeats the request


async def test_a_create_whose_answer_was_lost_is_repeated_and_succeeds(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    faults.lose_answer(TRANSACTION)

    created = await _created(dynamo_store)

    assert faults.sent[TRANSACTION] == 2
    assert await dynamo_store.read_row(created.name) == created


async def test_a_cancel_and_a_reschedule_whose_answers_were_lost_succeed(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    moved = await _created(dynamo_store)
    new = row(replace(moved.schedule, version=2), shard=SHARD)
    await dynamo_store.hold(moved.name, MINE)
    faults.lose_answer(TRANSACTION)
    await dynamo_store.reschedule(
        moved.name,
        outcome(moved, EndState.SUPERSEDED),
        hold=MINE,
        row=new,
        pointer=pointer(new),
        replaces=pointer(moved),
    )
    await dynamo_store.hold(new.name, MINE)
    faults.lose_answer(TRANSACTION)

    await dynamo_store.cancel(new.name, outcome(new, EndState.CANCELLED), hold=MINE)

    assert await dynamo_store.read_row(new.name) is None


async def test_a_take_over_whose_answer_was_lost_is_known_as_done(
    dynamo_store: DynamoScheduleStore, faults: Faults, a: IncarnationId
) -> None:
    await dynamo_store.start_incarnation(a, node="host:1")
    faults.lose_answer(TRANSACTION)

    await dynamo_store.take_shards([CLAIM, OTHER_CLAIM], taker=a)

    assert faults.sent[TRANSACTION] == 2
    taken = ShardState(epoch=1, owner=a, floor_ms=5)
    assert await dynamo_store.read_shards([SHARD, OTHER]) == {SHARD: taken, OTHER: taken}


async def test_a_take_over_is_known_as_done_also_when_its_token_is_forgotten(
    dynamo_store: DynamoScheduleStore, monkeypatch: pytest.MonkeyPatch, a: IncarnationId
) -> None:
    # DynamoDB remembers a token for ten minutes; here no two requests bear the same one.
    monkeypatch.setattr("clockwork.stores.dynamodb.transactions.token_of", lambda *_: uuid.uuid4().hex)
    await dynamo_store.start_incarnation(a, node="host:1")
    await dynamo_store.take_shards([CLAIM, OTHER_CLAIM], taker=a)

    await dynamo_store.take_shards([CLAIM, OTHER_CLAIM], taker=a)
    await dynamo_store.fence(a, at_ms=1)
    await dynamo_store.take_shards([CLAIM, OTHER_CLAIM], taker=a)

    assert (await dynamo_store.read_shard(SHARD)).epoch == 1
    with pytest.raises(Fenced):
        await dynamo_store.take_shards([replace(CLAIM, epoch=1)], taker=a)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_start_whose_answer_was_lost_is_known_as_done(
    dynamo_store: DynamoScheduleStore, faults: Faults, times: int, a: IncarnationId
) -> None:
    faults.lose_answer("PutItem", times=times)
    if times == 3:
        with pytest.raises(StoreUnavailable) as caught:
            await dynamo_store.start_incarnation(a, node="host:1")
        assert caught.value.outcome_unknown

    await dynamo_store.start_incarnation(a, node="host:1")

    assert a in await dynamo_store.read_nodes([a])


async def test_a_release_whose_answer_was_lost_is_known_as_done(
    dynamo_store: DynamoScheduleStore, faults: Faults, a: IncarnationId
) -> None:
    await dynamo_store.start_incarnation(a, node="host:1")
    await dynamo_store.take_shards([CLAIM], taker=a)
    faults.lose_answer("UpdateItem")

    await dynamo_store.release_shard(SHARD, epoch=1, owner=a, floor_ms=9)

    assert faults.sent["UpdateItem"] == 2
    assert await dynamo_store.read_shard(SHARD) == ShardState(epoch=1, owner=None, floor_ms=9)


async def test_a_frontier_whose_answer_was_lost_is_recognised_by_the_stored_one(
    dynamo_store: DynamoScheduleStore, faults: Faults, a: IncarnationId
) -> None:
    await dynamo_store.start_incarnation(a, node="host:1")
    faults.lose_answer("UpdateItem")

    assert await dynamo_store.raise_frontier(a, frontier_ms=500, hints={0: 3}) == 500
    assert faults.sent["UpdateItem"] == 2


async def test_a_frontier_whose_answer_was_lost_while_its_owner_was_fenced_is_fenced(
    dynamo_store: DynamoScheduleStore, faults: Faults, a: IncarnationId
) -> None:
    await dynamo_store.start_incarnation(a, node="host:1")
    await dynamo_store.fence(a, at_ms=1)
    faults.lose_answer("UpdateItem")

    with pytest.raises(Fenced):
        await dynamo_store.raise_frontier(a, frontier_ms=500, hints={})


async def test_an_outcome_of_an_unreadable_row_whose_answer_was_lost_is_known_as_put(
    dynamo_store: DynamoScheduleStore, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clockwork.stores.dynamodb.transactions.token_of", lambda *_: uuid.uuid4().hex)
    lost = await _created(dynamo_store)
    await dynamo_store.finish(lost.shard, [gone(lost)])
    failed = replace(outcome(lost, EndState.FAILED), schedule=None)
    faults.lose_answer(TRANSACTION, times=3)
    with pytest.raises(StoreUnavailable):
        await dynamo_store.put_unreadable_outcome(pointer(lost), failed)

    await dynamo_store.put_unreadable_outcome(pointer(lost), failed)

    with pytest.raises(ConditionFailed):  # another one is not that one
        await dynamo_store.put_unreadable_outcome(pointer(lost), replace(failed, at_ms=failed.at_ms + 1))


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (("TransactionConflict", "None", "None"), TransactionConflict),
        (("None", "TransactionConflict", "None"), TransactionConflict),
        (("None", "None", "ThrottlingError"), StoreThrottled),
        (("ConditionalCheckFailed", "None", "TransactionConflict"), Fenced),
        (("ConditionalCheckFailed", "ConditionalCheckFailed", "None"), Fenced),
        (("None", "ConditionalCheckFailed", "TransactionConflict"), ShardsContested),
    ],
)
async def test_a_take_over_is_told_why_it_was_refused(
    dynamo_store: DynamoScheduleStore,
    faults: Faults,
    codes: tuple[str, ...],
    expected: type[Exception],
    a: IncarnationId,
) -> None:
    faults.answer(TRANSACTION, "TransactionCanceledException", CancellationReasons=_reasons(*codes))

    with pytest.raises(expected) as caught:
        await dynamo_store.take_shards([CLAIM, OTHER_CLAIM], taker=a)

    if isinstance(caught.value, ShardsContested):
        assert caught.value.shards == {SHARD}


async def test_a_key_in_the_middle_of_a_transaction_has_no_state_yet(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    created = await _created(dynamo_store)
    codes = _reasons("None", "TransactionConflict", "None")
    faults.answer("TransactGetItems", "TransactionCanceledException", CancellationReasons=codes)
    with pytest.raises(TransactionConflict):
        await dynamo_store.read_key_state(pointer(created))

    assert (await dynamo_store.read_key_state(pointer(created))).row_there


async def test_reads_are_repeated_when_their_answers_get_lost(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    created = await _created(dynamo_store)
    faults.lose_answer("GetItem")
    faults.answer("GetItem", "InternalServerError", status=500)
    faults.lose_request("Query")

    assert await dynamo_store.read_row(created.name) == created
    assert (await dynamo_store.read_page(created.shard, after=None, rows_max=1)).rows == (created,)
    assert faults.sent["GetItem"] == 3


# --- a hold is sent once


@pytest.mark.parametrize("happened", ["done", "not done", "5xx"])
async def test_a_hold_is_never_repeated_and_its_outcome_is_unknown(
    dynamo_store: DynamoScheduleStore, faults: Faults, happened: str
) -> None:
    created = await _created(dynamo_store)
    match happened:
        case "done":
            faults.lose_answer("UpdateItem")
        case "not done":
            faults.lose_request("UpdateItem")
        case _:
            faults.answer("UpdateItem", "InternalServerError", status=500)

    with pytest.raises(StoreUnavailable) as caught:
        await dynamo_store.hold(created.name, MINE)

    assert caught.value.outcome_unknown
    assert faults.sent["UpdateItem"] == 1
    found = await dynamo_store.read_row(created.name)
    assert found == (replace(created, hold=MINE) if happened == "done" else created)


async def test_a_throttled_hold_was_not_done_and_is_not_repeated(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    created = await _created(dynamo_store)
    faults.answer("UpdateItem", "ProvisionedThroughputExceededException")

    with pytest.raises(StoreThrottled) as caught:
        await dynamo_store.hold(created.name, MINE)

    assert not caught.value.outcome_unknown
    assert faults.sent["UpdateItem"] == 1


# --- told apart: not done, and perhaps done


async def test_a_create_that_no_copy_of_was_answered_may_have_happened(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    faults.lose_answer(TRANSACTION, times=3)
    created = row()

    with pytest.raises(StoreUnavailable) as caught:
        await dynamo_store.create(created, pointer(created), replaces=None)

    assert caught.value.outcome_unknown
    assert faults.sent[TRANSACTION] == 3
    await dynamo_store.create(created, pointer(created), replaces=None)  # the same again settles it


@pytest.mark.parametrize(
    "code", ["ThrottlingException", "ProvisionedThroughputExceededException", "RequestLimitExceeded"]
)
async def test_a_throttled_create_did_not_happen(dynamo_store: DynamoScheduleStore, faults: Faults, code: str) -> None:
    faults.answer(TRANSACTION, code, times=3)
    created = row()

    with pytest.raises(StoreThrottled) as caught:
        await dynamo_store.create(created, pointer(created), replaces=None)

    assert not caught.value.outcome_unknown
    assert await dynamo_store.read_row(created.name) is None


async def test_a_throttled_repeat_does_not_take_back_that_the_first_copy_may_be_done(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    faults.lose_answer(TRANSACTION)
    faults.answer(TRANSACTION, "ThrottlingException", times=2)
    created = row()

    with pytest.raises(StoreThrottled) as caught:
        await dynamo_store.create(created, pointer(created), replaces=None)

    assert caught.value.outcome_unknown
    assert await dynamo_store.read_row(created.name) == created


async def test_a_repeat_that_conflicts_may_conflict_with_its_own_first_copy(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    faults.lose_answer(TRANSACTION)
    faults.answer(TRANSACTION, "TransactionCanceledException", CancellationReasons=_reasons("TransactionConflict"))
    created = row()

    with pytest.raises(StoreUnavailable) as caught:
        await dynamo_store.create(created, pointer(created), replaces=None)

    assert caught.value.outcome_unknown


async def test_a_transaction_that_is_in_progress_is_our_own_and_its_outcome_unknown(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    faults.answer(TRANSACTION, "TransactionInProgressException", times=3)
    created = row()

    with pytest.raises(StoreUnavailable) as caught:
        await dynamo_store.create(created, pointer(created), replaces=None)

    assert caught.value.outcome_unknown


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (("TransactionConflict", "None"), TransactionConflict),
        (("None", "ThrottlingError"), StoreThrottled),
        (("ProvisionedThroughputExceeded", "TransactionConflict"), TransactionConflict),
        (("TransactionConflict", "ConditionalCheckFailed"), ConditionFailed),
        (("ThrottlingError", "ConditionalCheckFailed"), ConditionFailed),
        (("ItemCollectionSizeLimitExceeded", "None"), Rejected),
    ],
)
async def test_a_cancelled_transaction_is_what_its_gravest_reason_says(
    dynamo_store: DynamoScheduleStore, faults: Faults, codes: tuple[str, str], expected: type[Exception]
) -> None:
    faults.answer(TRANSACTION, "TransactionCanceledException", CancellationReasons=_reasons(*codes))
    created = row()

    with pytest.raises(expected) as caught:
        await dynamo_store.create(created, pointer(created), replaces=None)

    assert not getattr(caught.value, "outcome_unknown", False)
    assert faults.sent[TRANSACTION] == 1


def _reasons(*codes: str) -> list[dict[str, Any]]:
    return [{"Code": code} for code in codes]


async def test_a_conflict_of_one_item_is_told_to_who_decides_by_it(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    created = await _created(dynamo_store)
    faults.answer("UpdateItem", "TransactionConflictException", times=2)

    with pytest.raises(TransactionConflict):
        await dynamo_store.hold(created.name, MINE)
    with pytest.raises(TransactionConflict):
        await dynamo_store.drop_hold(created.name)


async def test_writes_that_decide_nothing_wait_for_a_transaction_in_their_way(
    dynamo_store: DynamoScheduleStore, faults: Faults, a: IncarnationId
) -> None:
    created = await _created(dynamo_store)
    ended = outcome(created)
    faults.answer("UpdateItem", "TransactionConflictException", times=2)
    assert await dynamo_store.discard(pointer(created), at_ms=5) == 5
    # The transaction that takes shards checks the taker's item, which its own frontier and slots are written to.
    await dynamo_store.start_incarnation(a, node="host:1")
    faults.answer("UpdateItem", "TransactionConflictException", times=2)
    assert await dynamo_store.raise_frontier(a, frontier_ms=5, hints={}) == 5
    faults.answer("UpdateItem", "TransactionConflictException", times=2)
    await dynamo_store.raise_slots(a, slots=1)
    faults.answer("UpdateItem", "TransactionConflictException", times=2)
    assert (await dynamo_store.fence(a, at_ms=7)).fenced_at_ms == 7
    faults.answer("DeleteItem", "TransactionConflictException", times=2)
    await dynamo_store.delete_node(a)
    faults.answer("UpdateItem", "TransactionConflictException", times=2)
    for _ in range(2):
        faults.answer_ok("BatchExecuteStatement", '{"Responses": [{"Error": {"Code": "TransactionConflict"}}]}')
    faults.answer("BatchWriteItem", "TransactionConflictException", times=2)

    await dynamo_store.push_pointer_expiry(created.name, expires_at_s=3_000_000_000)
    await dynamo_store.finish(created.shard, [end(created, ended, keep_existing=True)])

    pushed = await dynamo_store.read_pointer(created.schedule.client_id, created.schedule.schedule_key)
    assert pushed == replace(pointer(created, expires_at_s=3_000_000_000), discarded_at_ms=5)
    assert await dynamo_store.read_outcome(ended.client_id, ended.schedule_key, ended.position) == ended
    assert await dynamo_store.read_row(created.name) is None


async def test_a_missing_table_is_said_by_name(dynamo_settings: DynamoSettings, transport: Transport) -> None:
    elsewhere = replace(dynamo_settings, schedules_table="nothing-here")
    with pytest.raises(Rejected, match="ResourceNotFoundException"):
        await store_on(transport, elsewhere).read_page(SHARD, after=None, rows_max=1)


async def test_a_store_that_is_not_there_is_unavailable_and_nothing_was_written(
    dynamo_settings: DynamoSettings,
) -> None:
    nowhere = replace(dynamo_settings, endpoint=f"http://127.0.0.1:{free_port()}")
    created = row()
    async with DynamoScheduleStore(nowhere, SystemClock(), observe_nothing, NoTelemetry()) as store:
        with pytest.raises(StoreUnavailable) as caught:
            await store.create(created, pointer(created), replaces=None)

    assert not caught.value.outcome_unknown


# --- the clock


async def test_the_clock_is_compared_with_answers_and_not_with_repeated_ones(
    dynamo_settings: DynamoSettings, transport: Transport
) -> None:
    seen: list[tuple[int, int, int]] = []

    def observe(*, sent_ms: int, received_ms: int, server_ms: int, resolution_ms: int) -> None:
        assert resolution_ms == 1_000
        seen.append((sent_ms, received_ms, server_ms))

    store = store_on(transport, dynamo_settings, observe)
    faults = Faults(store.client)
    await store.ping()
    faults.lose_request("GetItem")
    await store.read_row(row().name)
    with pytest.raises(ConditionFailed):  # an error is an answer as well
        await store.hold(row().name, MINE)

    assert len(seen) == 2
    for sent_ms, received_ms, server_ms in seen:
        assert sent_ms - 2_000 <= server_ms <= received_ms + 1_000
        assert server_ms % 1_000 == 0


async def test_a_repeat_is_recognised_also_when_its_token_is_forgotten(
    dynamo_store: DynamoScheduleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # DynamoDB remembers a token for ten minutes; here no two requests bear the same one.
    monkeypatch.setattr("clockwork.stores.dynamodb.transactions.token_of", lambda *_: uuid.uuid4().hex)
    old, lone = row(), row()
    new = row(replace(old.schedule, version=2), shard=SHARD)
    superseded, cancelled = outcome(old, EndState.SUPERSEDED), outcome(lone, EndState.CANCELLED)
    for created in (old, lone):
        for _ in range(2):
            await dynamo_store.create(created, pointer(created), replaces=None)
        await dynamo_store.hold(created.name, MINE)

    for _ in range(2):
        await dynamo_store.cancel(lone.name, cancelled, hold=MINE)
        await dynamo_store.reschedule(
            old.name, superseded, hold=MINE, row=new, pointer=pointer(new), replaces=pointer(old)
        )

    assert await dynamo_store.read_row(new.name) == new
    with pytest.raises(ConditionFailed):  # another cancel of the same row is not that one
        await dynamo_store.cancel(lone.name, replace(cancelled, at_ms=cancelled.at_ms + 1), hold=MINE)
