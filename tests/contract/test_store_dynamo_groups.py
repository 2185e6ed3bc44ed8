"""Callers of one moment share a request to DynamoDB, and none of them notices."""

import asyncio
from dataclasses import replace
from typing import Any, Final

import pytest

from clockwork.domain.position import text_of
from clockwork.domain.schedule import EndState, Failure, Outcome, RequestId, Row
from clockwork.domain.sharding import ShardId
from clockwork.errors import ConditionFailed, StoreThrottled, StoreUnavailable, TransactionConflict
from clockwork.stores.dynamodb import codec
from clockwork.stores.dynamodb.errors import Rejected
from clockwork.stores.dynamodb.store import DynamoScheduleStore
from tests.contract.store_fixtures import SHARDS, Faults
from tests.support.builders import DUE_MS, end, outcome, pointer, row, schedule

pytestmark = pytest.mark.real

TRANSACTION: Final = "TransactWriteItems"
BATCH: Final = "BatchWriteItem"
HOLD: Final = RequestId("mine")
MANY: Final = 100
TOO_LARGE: Final = b"x" * 500_000
"""For one item of DynamoDB."""


async def _create_all(store: DynamoScheduleStore, rows: list[Row]) -> list[BaseException | None]:
    """At the same moment; what each caller is told."""
    creates = (store.create(one, pointer(one), replaces=None) for one in rows)
    return await asyncio.gather(*creates, return_exceptions=True)


async def _stored(store: DynamoScheduleStore, rows: list[Row]) -> list[bool]:
    return [await store.read_row(one.name) == one for one in rows]


def _too_large() -> Outcome:
    return outcome(row(), EndState.FAILED, failure=Failure(reason=TOO_LARGE.decode(), attempts=1))


# --- creates


async def test_creates_of_one_moment_are_stored_by_a_few_transactions(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    rows = [row() for _ in range(MANY)]

    assert await _create_all(dynamo_store, rows) == [None] * MANY

    assert all(await _stored(dynamo_store, rows))
    assert faults.sent[TRANSACTION] == 2  # two actions each, and a hundred are the most


async def test_a_taken_key_fails_alone(dynamo_store: DynamoScheduleStore) -> None:
    taken = [row() for _ in range(5)]
    assert await _create_all(dynamo_store, taken) == [None] * 5
    again = [row(replace(one.schedule, delivery_id="another")) for one in taken]
    fresh = [row() for _ in range(MANY)]

    told = await _create_all(dynamo_store, [*fresh[:50], *again, *fresh[50:]])

    assert all(isinstance(one, ConditionFailed) for one in told[50:55])
    assert told[:50] + told[55:] == [None] * MANY
    assert all(await _stored(dynamo_store, fresh))
    assert not any(await _stored(dynamo_store, again))


async def test_of_many_creates_of_one_key_at_once_one_wins(dynamo_store: DynamoScheduleStore) -> None:
    wanted = schedule()
    rivals = [row(replace(wanted, delivery_id=str(n))) for n in range(30)]
    others = [row() for _ in range(30)]

    told = await _create_all(dynamo_store, [one for pair in zip(rivals, others, strict=True) for one in pair])

    lost = [one for one in told[::2] if one is not None]
    assert len(lost) == 29
    assert all(isinstance(one, ConditionFailed | TransactionConflict) for one in lost)
    assert told[1::2] == [None] * 30
    assert sum(await _stored(dynamo_store, rivals)) == 1
    assert all(await _stored(dynamo_store, others))


async def test_a_member_that_is_too_large_fails_alone(dynamo_store: DynamoScheduleStore) -> None:
    rows = [row() for _ in range(30)]
    large = row(schedule(task_data=TOO_LARGE))

    told = await _create_all(dynamo_store, [*rows[:20], large, *rows[20:]])

    assert isinstance(told[20], Rejected)
    assert told[:20] + told[21:] == [None] * 30
    assert all(await _stored(dynamo_store, rows))


async def test_a_group_whose_answer_was_lost_is_repeated_and_stored_once(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    rows = [row() for _ in range(MANY)]
    faults.lose_answer(TRANSACTION, times=2)

    assert await _create_all(dynamo_store, rows) == [None] * MANY

    assert all(await _stored(dynamo_store, rows))


async def test_the_same_creates_again_are_the_same_creates_in_any_company(dynamo_store: DynamoScheduleStore) -> None:
    rows = [row() for _ in range(40)]
    assert await _create_all(dynamo_store, rows) == [None] * 40
    fresh = [row() for _ in range(40)]

    mixed = [one for pair in zip(rows, fresh, strict=True) for one in pair]
    assert await _create_all(dynamo_store, mixed) == [None] * 80

    assert all(await _stored(dynamo_store, mixed))


THROTTLED: Final = "ThrottlingError"
CONFLICT: Final = "TransactionConflict"
TOO_LARGE_CODE: Final = "ItemCollectionSizeLimitExceeded"


@pytest.mark.parametrize(
    ("code", "told_as"), [(THROTTLED, StoreThrottled), (CONFLICT, TransactionConflict), (TOO_LARGE_CODE, Rejected)]
)
async def test_a_member_that_stands_in_the_way_of_its_group_fails_alone(
    dynamo_store: DynamoScheduleStore, faults: Faults, code: str, told_as: type[Exception]
) -> None:
    rows = [row() for _ in range(40)]
    faults.throttle(_key(rows[7]), _key(rows[8]), code=code)

    told = await _create_all(dynamo_store, rows)

    assert [type(one) for one in told[7:9]] == [told_as, told_as]
    assert told[:7] + told[9:] == [None] * 38
    assert sum(await _stored(dynamo_store, rows)) == 38
    # The group, the rest of it at once; and each of the two alone, if it may help.
    assert faults.sent[TRANSACTION] == (2 if told_as is Rejected else 4)


@pytest.mark.parametrize("code", [THROTTLED, CONFLICT])
async def test_a_member_that_stood_in_the_way_for_a_moment_succeeds_alone(
    dynamo_store: DynamoScheduleStore, faults: Faults, code: str
) -> None:
    rows = [row() for _ in range(40)]
    reasons = [{"Code": code}, *({"Code": "None"} for _ in range(79))]
    faults.answer(TRANSACTION, "TransactionCanceledException", CancellationReasons=reasons)

    assert await _create_all(dynamo_store, rows) == [None] * 40

    assert faults.sent[TRANSACTION] == 3
    assert all(await _stored(dynamo_store, rows))


async def test_no_member_waits_for_one_that_goes_alone(dynamo_store: DynamoScheduleStore, faults: Faults) -> None:
    rows = [row() for _ in range(40)]
    faults.throttle(_key(rows[0]))
    healed = asyncio.Event()
    faults.pass_on(TRANSACTION, times=2)
    faults.hang(TRANSACTION, until=healed)
    async with asyncio.TaskGroup() as tasks:
        slow = tasks.create_task(dynamo_store.create(rows[0], pointer(rows[0]), replaces=None), name="slow")
        others = [
            tasks.create_task(dynamo_store.create(one, pointer(one), replaces=None), name="create") for one in rows[1:]
        ]
        await asyncio.wait(others)
        assert not slow.done()
        faults.heal()
        healed.set()

    assert all(await _stored(dynamo_store, rows))


async def test_a_throttled_member_is_repeated_alone_also_when_its_caller_asks_again(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    hot, *rows = [row() for _ in range(41)]
    faults.throttle(_key(hot))
    told = await _create_all(dynamo_store, [hot, *rows[:20]])
    assert isinstance(told[0], StoreThrottled)
    faults.bodies.clear()

    told = await _create_all(dynamo_store, [hot, *rows[20:]])

    assert isinstance(told[0], StoreThrottled)
    assert told[1:] == [None] * 20
    assert sorted(len(body["TransactItems"]) for _, body in faults.bodies) == [2, 40]
    # Once it went well it goes with the others again.
    faults.heal()
    await dynamo_store.create(hot, pointer(hot), replaces=None)
    faults.bodies.clear()
    await _create_all(dynamo_store, [hot, *rows[:5]])
    assert len(faults.bodies[0][1]["TransactItems"]) == 12


async def test_a_group_that_is_refused_without_naming_a_member_is_tried_one_by_one(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    rows = [row() for _ in range(10)]
    faults.answer(TRANSACTION, "TransactionCanceledException")

    assert await _create_all(dynamo_store, rows) == [None] * 10

    assert faults.sent[TRANSACTION] == 11


def _key(of: Row) -> str:
    """The text that tells the items of its key from those of others."""
    return f"{of.schedule.client_id}/{of.schedule.schedule_key}"


async def test_a_group_without_an_answer_is_unknown_to_each_of_its_members(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    rows = [row() for _ in range(MANY)]
    faults.lose_request(TRANSACTION, times=1_000)

    told = await _create_all(dynamo_store, rows)

    assert all(isinstance(one, StoreUnavailable) and one.outcome_unknown for one in told)


async def test_a_request_that_is_cancelled_cancels_no_other(dynamo_store: DynamoScheduleStore) -> None:
    rows = [row() for _ in range(MANY)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(dynamo_store.create(one, pointer(one), replaces=None)) for one in rows]
        await asyncio.sleep(0)  # all have asked
        for task in tasks[:5]:  # the first of them carries the others
            task.cancel()

    assert all(await _stored(dynamo_store, rows[5:]))


async def test_those_whose_carrier_gave_up_go_together_again(dynamo_store: DynamoScheduleStore, faults: Faults) -> None:
    # Carriers give up when the store is slow: one transaction for each of their members would make it slower.
    rows = [row() for _ in range(MANY)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(dynamo_store.create(one, pointer(one), replaces=None)) for one in rows]
        await asyncio.sleep(0)  # all have asked
        tasks[0].cancel()  # it carries half of the others

    assert sum(await _stored(dynamo_store, rows)) == MANY - 1
    assert faults.sent[TRANSACTION] <= 4


# --- outcomes and deletes


async def test_the_cleanups_of_one_moment_share_their_calls(dynamo_store: DynamoScheduleStore, faults: Faults) -> None:
    rows = [row(shard=ShardId(n % SHARDS)) for n in range(40)]
    assert await _create_all(dynamo_store, rows) == [None] * 40

    await asyncio.gather(*(dynamo_store.finish(one.shard, [end(one)]) for one in rows))

    assert faults.sent[BATCH] == 4
    assert not any(await _stored(dynamo_store, rows))
    for one in rows:
        name = one.schedule.client_id, one.schedule.schedule_key
        assert await dynamo_store.read_outcome(*name, one.position) == outcome(one)


async def test_an_outcome_that_is_too_large_fails_alone(dynamo_store: DynamoScheduleStore) -> None:
    rows = [row() for _ in range(10)]
    ends = [end(one, _too_large() if one is rows[3] else None) for one in rows]

    told = await asyncio.gather(*(dynamo_store.finish(one.row.shard, [one]) for one in ends), return_exceptions=True)

    assert isinstance(told[3], Rejected)
    assert told[:3] + told[4:] == [None] * 9


async def test_a_cleanup_that_is_cancelled_cancels_no_other(dynamo_store: DynamoScheduleStore) -> None:
    rows = [row() for _ in range(10)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(dynamo_store.finish(one.shard, [end(one)])) for one in rows]
        await asyncio.sleep(0)
        tasks[0].cancel()

    for one in rows[1:]:
        name = one.schedule.client_id, one.schedule.schedule_key
        assert await dynamo_store.read_outcome(*name, one.position) == outcome(one)


async def test_rows_of_four_hundred_kilobytes_get_their_outcomes_and_go(dynamo_store: DynamoScheduleStore) -> None:
    # Put by hand. An outcome with all of such a row would be refused for its size, with all that is tidied up beside it.
    delivered, cancelled = (row(schedule(task_data=b"x" * 408_000), hold="r") for _ in range(2))
    for large in (delivered, cancelled):
        await dynamo_store.client.call(
            "put_item", TableName=dynamo_store.client.settings.schedules_table, Item=codec.row_item(large)
        )

    await dynamo_store.finish(delivered.shard, [end(row()), end(delivered)])
    await dynamo_store.cancel(cancelled.name, outcome(cancelled, EndState.CANCELLED), hold=RequestId("r"))

    for large, ended in ((delivered, outcome(delivered)), (cancelled, outcome(cancelled, EndState.CANCELLED))):
        name = large.schedule.client_id, large.schedule.schedule_key
        assert await dynamo_store.read_outcome(*name, large.position) == replace(ended, schedule=None)
        assert await dynamo_store.read_row(large.name) is None


@pytest.mark.parametrize("hot", ["an outcome", "a first outcome", "a row"])
async def test_a_cleanup_that_is_throttled_holds_up_no_other(
    dynamo_store: DynamoScheduleStore, faults: Faults, hot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clockwork.stores.dynamodb.batching.backoff_s", lambda attempt: 0.0)
    rows = [row(shard=ShardId(n % SHARDS)) for n in range(20)]
    assert await _create_all(dynamo_store, rows) == [None] * 20
    faults.throttle(text_of(rows[3].position) if hot == "a row" else _key(rows[3]))
    operation = "BatchExecuteStatement" if hot == "a first outcome" else BATCH
    faults.bodies.clear()

    told = await asyncio.gather(
        *(dynamo_store.finish(one.shard, [end(one, keep_existing=hot == "a first outcome")]) for one in rows),
        return_exceptions=True,
    )

    assert isinstance(told[3], StoreThrottled)
    assert told[:3] + told[4:] == [None] * 19
    # It is repeated alone: no group comes back with it, and no other is sent twice.
    named = [body for name, body in faults.bodies if name == operation and faults.is_throttled(body)]
    assert [_size(body) for body in named] == [20] + [1] * (len(named) - 1)
    assert len(named) > 2
    faults.heal()
    assert await _stored(dynamo_store, rows) == [n == 3 for n in range(20)]


async def test_of_one_cleanup_what_is_not_throttled_is_done(
    dynamo_store: DynamoScheduleStore, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clockwork.stores.dynamodb.batching.backoff_s", lambda attempt: 0.0)
    rows = [row() for _ in range(60)]
    assert await _create_all(dynamo_store, rows) == [None] * 60
    faults.throttle(_key(rows[7]), _key(rows[31]))
    ends = [end(one, keep_existing=n % 2 == 0) for n, one in enumerate(rows)]

    with pytest.raises(StoreThrottled):
        await dynamo_store.finish(rows[0].shard, ends)

    assert await _stored(dynamo_store, rows) == [n in (7, 31) for n in range(60)]
    faults.heal()
    await dynamo_store.finish(rows[0].shard, ends)
    assert not any(await _stored(dynamo_store, rows))


async def test_a_cleanup_without_an_answer_fails_and_no_other_call_does(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    # Two calls of one group: the outcomes of the first come without an answer, those of the second do.
    rows = [row() for _ in range(50)]
    assert await _create_all(dynamo_store, rows) == [None] * 50
    faults.lose_request(BATCH)
    faults.pass_on(BATCH)
    faults.lose_request(BATCH, times=2)

    told = await asyncio.gather(*(dynamo_store.finish(one.shard, [end(one)]) for one in rows), return_exceptions=True)

    failed = [one for one in told if one is not None]
    assert len(failed) == 25
    assert all(isinstance(one, StoreUnavailable) and one.outcome_unknown for one in failed)


def _size(body: dict[str, Any]) -> int:
    parts = body.get("Statements") or next(iter(body["RequestItems"].values()))
    return len(parts)


# --- cancels


async def _held(store: DynamoScheduleStore, rows: list[Row]) -> None:
    assert await _create_all(store, rows) == [None] * len(rows)
    await asyncio.gather(*(store.hold(one.name, HOLD) for one in rows))


async def _cancel_all(store: DynamoScheduleStore, rows: list[Row], hold: RequestId) -> list[BaseException | None]:
    cancels = (store.cancel(one.name, outcome(one, EndState.CANCELLED), hold=hold) for one in rows)
    return await asyncio.gather(*cancels, return_exceptions=True)


async def test_cancels_of_one_moment_share_a_few_transactions(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    rows = [row() for _ in range(MANY)]
    await _held(dynamo_store, rows)
    sent_before = faults.sent[TRANSACTION]

    assert await _cancel_all(dynamo_store, rows, HOLD) == [None] * MANY

    assert faults.sent[TRANSACTION] - sent_before <= 2
    assert not any(await _stored(dynamo_store, rows))
    for one in rows:
        found = await dynamo_store.read_outcome(one.schedule.client_id, one.schedule.schedule_key, one.position)
        assert found == outcome(one, EndState.CANCELLED)


async def test_a_cancel_whose_hold_was_taken_off_fails_alone(dynamo_store: DynamoScheduleStore) -> None:
    rows = [row() for _ in range(40)]
    await _held(dynamo_store, rows)
    taken = rows[10:13]
    for one in taken:
        assert await dynamo_store.drop_hold(one.name)

    told = await _cancel_all(dynamo_store, rows, HOLD)

    assert all(isinstance(one, ConditionFailed) for one in told[10:13])
    assert told[:10] + told[13:] == [None] * 37
    assert await _stored(dynamo_store, rows) == [one in taken for one in rows]


async def test_cancels_whose_answer_was_lost_are_recognised_when_they_come_again(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    rows = [row() for _ in range(40)]
    await _held(dynamo_store, rows)
    faults.lose_answer(TRANSACTION, times=1_000)
    told = await _cancel_all(dynamo_store, rows, HOLD)
    assert all(isinstance(one, StoreUnavailable) and one.outcome_unknown for one in told)
    faults.heal()

    assert await _cancel_all(dynamo_store, rows, HOLD) == [None] * 40


async def test_creates_and_cancels_may_share_a_transaction(dynamo_store: DynamoScheduleStore) -> None:
    old = [row() for _ in range(30)]
    await _held(dynamo_store, old)
    new = [row() for _ in range(30)]

    told, made = await asyncio.gather(_cancel_all(dynamo_store, old, HOLD), _create_all(dynamo_store, new))

    assert told + made == [None] * 60
    assert await _stored(dynamo_store, [*old, *new]) == [False] * 30 + [True] * 30


# --- outcomes of which the first one stands


async def test_first_outcomes_of_one_moment_share_their_calls_and_stand(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    rows = [row() for _ in range(40)]
    first = [end(one, keep_existing=True) for one in rows]
    later = [end(one, outcome(one, at_ms=DUE_MS + 6), keep_existing=True) for one in rows]

    await asyncio.gather(*(dynamo_store.finish(one.row.shard, [one]) for one in first[:30]))
    await asyncio.gather(*(dynamo_store.finish(one.row.shard, [one]) for one in [*later[:30], *first[30:]]))

    assert faults.sent["BatchExecuteStatement"] == 4
    for one in map(outcome, rows):
        assert await dynamo_store.read_outcome(one.client_id, one.schedule_key, one.position) == one


async def test_an_insert_that_is_throttled_is_sent_again_and_the_others_are_not(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    faults.answer_ok("BatchExecuteStatement", '{"Responses": [{}, {"Error": {"Code": "ThrottlingError"}}]}')
    rows = [row(), row()]
    first, second = map(outcome, rows)

    await asyncio.gather(*(dynamo_store.finish(one.shard, [end(one, keep_existing=True)]) for one in rows))

    assert await dynamo_store.read_outcome(first.client_id, first.schedule_key, first.position) is None  # made up
    assert await dynamo_store.read_outcome(second.client_id, second.schedule_key, second.position) == second


async def test_an_insert_that_is_refused_fails_alone(dynamo_store: DynamoScheduleStore) -> None:
    of = row()
    ends = [end(of, keep_existing=True), end(of, _too_large(), keep_existing=True)]

    told = await asyncio.gather(*(dynamo_store.finish(of.shard, [one]) for one in ends), return_exceptions=True)

    assert told[0] is None
    assert isinstance(told[1], Rejected)
