"""`DynamoScheduleStore` when answers get lost, come twice, or say "slow down"; the client's own repeats are run."""

import uuid
from dataclasses import replace
from typing import Any, Final

import pytest

from clockwork.clock import SystemClock
from clockwork.domain.ownership import ShardState
from clockwork.domain.schedule import EndState, RequestId, Row
from clockwork.domain.sharding import ShardId
from clockwork.errors import ConditionFailed, Fenced, StoreThrottled, StoreUnavailable, TransactionConflict
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import DynamoSettings
from clockwork.stores.dynamodb.client import Transport
from clockwork.stores.dynamodb.errors import Rejected
from clockwork.stores.dynamodb.store import DynamoScheduleStore
from infra.local.ports import free_port
from tests.contract.store_fixtures import Faults, observe_nothing, store_on
from tests.support.builders import end, outcome, pointer, row

pytestmark = pytest.mark.real

MINE: Final = RequestId("mine")
SHARD: Final = ShardId(1)
TRANSACTION: Final = "TransactWriteItems"


async def _created(store: DynamoScheduleStore) -> Row:
    created = row()
    await store.create(created, pointer(created), replaces_version=None)
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
        replaces_version=1,
    )
    await dynamo_store.hold(new.name, MINE)
    faults.lose_answer(TRANSACTION)

    await dynamo_store.cancel(new.name, outcome(new, EndState.CANCELLED), hold=MINE)

    assert await dynamo_store.read_row(new.name) is None


async def test_a_take_over_whose_answer_was_lost_is_recognised_by_its_owner(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    faults.lose_answer("UpdateItem")

    assert await dynamo_store.raise_epoch(SHARD, expected=0, owner="a") == ShardState(epoch=1, owner="a", frontier_ms=0)
    assert faults.sent["UpdateItem"] == 2


async def test_a_frontier_whose_answer_was_lost_is_recognised_by_the_stored_one(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    await dynamo_store.raise_epoch(SHARD, expected=0, owner="a")
    faults.lose_answer("UpdateItem")

    assert await dynamo_store.raise_frontier(SHARD, epoch=1, frontier_ms=500) == 500


async def test_a_frontier_whose_answer_was_lost_while_another_took_over_is_fenced(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    await dynamo_store.raise_epoch(SHARD, expected=0, owner="a")
    await dynamo_store.raise_epoch(SHARD, expected=1, owner="b")
    faults.lose_answer("UpdateItem")

    with pytest.raises(Fenced):
        await dynamo_store.raise_frontier(SHARD, epoch=1, frontier_ms=500)


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
        await dynamo_store.create(created, pointer(created), replaces_version=None)

    assert caught.value.outcome_unknown
    assert faults.sent[TRANSACTION] == 3
    await dynamo_store.create(created, pointer(created), replaces_version=None)  # the same again settles it


@pytest.mark.parametrize(
    "code", ["ThrottlingException", "ProvisionedThroughputExceededException", "RequestLimitExceeded"]
)
async def test_a_throttled_create_did_not_happen(dynamo_store: DynamoScheduleStore, faults: Faults, code: str) -> None:
    faults.answer(TRANSACTION, code, times=3)
    created = row()

    with pytest.raises(StoreThrottled) as caught:
        await dynamo_store.create(created, pointer(created), replaces_version=None)

    assert not caught.value.outcome_unknown
    assert await dynamo_store.read_row(created.name) is None


async def test_a_throttled_repeat_does_not_take_back_that_the_first_copy_may_be_done(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    faults.lose_answer(TRANSACTION)
    faults.answer(TRANSACTION, "ThrottlingException", times=2)
    created = row()

    with pytest.raises(StoreThrottled) as caught:
        await dynamo_store.create(created, pointer(created), replaces_version=None)

    assert caught.value.outcome_unknown
    assert await dynamo_store.read_row(created.name) == created


async def test_a_repeat_that_conflicts_may_conflict_with_its_own_first_copy(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    faults.lose_answer(TRANSACTION)
    faults.answer(TRANSACTION, "TransactionCanceledException", CancellationReasons=_reasons("TransactionConflict"))
    created = row()

    with pytest.raises(StoreUnavailable) as caught:
        await dynamo_store.create(created, pointer(created), replaces_version=None)

    assert caught.value.outcome_unknown


async def test_a_transaction_that_is_in_progress_is_our_own_and_its_outcome_unknown(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    faults.answer(TRANSACTION, "TransactionInProgressException", times=3)
    created = row()

    with pytest.raises(StoreUnavailable) as caught:
        await dynamo_store.create(created, pointer(created), replaces_version=None)

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
        await dynamo_store.create(created, pointer(created), replaces_version=None)

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
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    created = await _created(dynamo_store)
    ended = outcome(created)
    faults.answer("UpdateItem", "TransactionConflictException", times=2)
    assert await dynamo_store.discard(pointer(created), at_ms=5) == 5
    faults.answer("UpdateItem", "TransactionConflictException", times=2)
    for _ in range(2):
        faults.answer_ok("BatchExecuteStatement", '{"Responses": [{"Error": {"Code": "TransactionConflict"}}]}')
    faults.answer("BatchWriteItem", "TransactionConflictException", times=2)

    await dynamo_store.push_pointer_expiry(created, expires_at_s=3_000_000_000)
    await dynamo_store.finish(created.shard, [end(created, ended, first_stands=True)])

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
            await store.create(created, pointer(created), replaces_version=None)

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
            await dynamo_store.create(created, pointer(created), replaces_version=None)
        await dynamo_store.hold(created.name, MINE)

    for _ in range(2):
        await dynamo_store.cancel(lone.name, cancelled, hold=MINE)
        await dynamo_store.reschedule(
            old.name, superseded, hold=MINE, row=new, pointer=pointer(new), replaces_version=1
        )

    assert await dynamo_store.read_row(new.name) == new
    with pytest.raises(ConditionFailed):  # another cancel of the same row is not that one
        await dynamo_store.cancel(lone.name, replace(cancelled, at_ms=cancelled.at_ms + 1), hold=MINE)
