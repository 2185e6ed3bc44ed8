"""Holds of one moment share a call, and each is decided by itself."""

import asyncio
from collections.abc import Awaitable
from typing import Final

import orjson
import pytest

from clockwork.adapters.dynamo_errors import Refused
from clockwork.adapters.dynamo_holds import CALLS_AT_ONCE, STATEMENTS_MAX
from clockwork.adapters.dynamo_store import DynamoScheduleStore
from clockwork.domain.schedule import BrokenRow, RequestId, Row
from clockwork.errors import ConditionFailed, StoreThrottled, StoreUnavailable, TransactionConflict
from tests.contract.store_fixtures import Faults
from tests.support.builders import pointer, row

pytestmark = pytest.mark.real

STATEMENTS: Final = "BatchExecuteStatement"
MANY: Final = 60
Told = list[Row | BrokenRow | BaseException]


async def _rows(store: DynamoScheduleStore, count: int = MANY) -> list[Row]:
    rows = [row() for _ in range(count)]
    await asyncio.gather(*(store.create(one, pointer(one), replaces_version=None) for one in rows))
    return rows


def _id(number: int) -> RequestId:
    return RequestId(f"request-{number}")


async def _hold_all(store: DynamoScheduleStore, rows: list[Row]) -> Told:
    """At the same moment, each with an id of its own; what each caller is told."""
    holds = (store.hold(one.shard, one.position, _id(n)) for n, one in enumerate(rows))
    return await asyncio.gather(*holds, return_exceptions=True)


async def test_holds_of_one_moment_share_a_few_calls_and_each_sees_its_own_row(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    rows = await _rows(dynamo_store)

    told = await _hold_all(dynamo_store, rows)

    for n, (before, held) in enumerate(zip(rows, told, strict=True)):
        assert isinstance(held, Row)
        assert (held.schedule, held.hold) == (before.schedule, _id(n))
        assert await dynamo_store.read_row(before.shard, before.position) == held
    # As many as may be under way at once go alone; the others fill a few.
    assert faults.sent[STATEMENTS] == -(-(MANY - CALLS_AT_ONCE) // STATEMENTS_MAX)
    assert faults.sent["UpdateItem"] == CALLS_AT_ONCE


async def test_a_row_that_is_gone_is_not_brought_back_and_its_hold_fails_alone(
    dynamo_store: DynamoScheduleStore,
) -> None:
    rows = await _rows(dynamo_store)
    gone = rows[10::10]
    for one in gone:
        await dynamo_store.delete_rows(one.shard, [one.position])

    told = await _hold_all(dynamo_store, rows)

    assert [isinstance(one, ConditionFailed) for one in told] == [one in gone for one in rows]
    assert [await dynamo_store.read_row(one.shard, one.position) for one in gone] == [None] * len(gone)


async def test_of_two_holds_of_one_row_both_are_told_that_they_were_written(dynamo_store: DynamoScheduleStore) -> None:
    (row_,) = await _rows(dynamo_store, 1)

    told = await _hold_all(dynamo_store, [row_] * MANY)

    assert [one.hold if isinstance(one, Row) else one for one in told] == [_id(n) for n in range(MANY)]


async def test_a_hold_whose_answer_was_lost_is_never_sent_again(
    dynamo_store: DynamoScheduleStore, faults: Faults
) -> None:
    # A late copy would put back what an owner has taken off.
    rows = await _rows(dynamo_store)
    faults.lose_answer(STATEMENTS, times=100)

    told = await _hold_all(dynamo_store, rows)

    unknown = [one for one in told if isinstance(one, StoreUnavailable)]
    assert len(unknown) == MANY - CALLS_AT_ONCE
    assert all(one.outcome_unknown for one in unknown)
    assert faults.sent[STATEMENTS] == -(-(MANY - CALLS_AT_ONCE) // STATEMENTS_MAX)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("ConditionalCheckFailed", Refused),
        ("TransactionConflict", TransactionConflict),
        ("ThrottlingError", StoreThrottled),
        ("InternalServerError", StoreUnavailable),
        ("AccessDenied", StoreUnavailable),
    ],
)
async def test_what_is_said_of_one_statement_is_told_to_its_caller_alone(
    dynamo_store: DynamoScheduleStore, faults: Faults, code: str, error: type[BaseException]
) -> None:
    rows = await _rows(dynamo_store, CALLS_AT_ONCE + 2)
    failed, empty = {"Error": {"Code": code, "Message": "made up"}}, {"TableName": "t"}
    faults.answer_ok(STATEMENTS, orjson.dumps({"Responses": [failed, empty]}).decode())

    told = await _hold_all(dynamo_store, rows)

    assert isinstance(told[-2], error)
    # Without its row in the answer it is read.
    assert told[-1] == rows[-1]


async def test_a_caller_who_goes_away_takes_nobody_along(dynamo_store: DynamoScheduleStore) -> None:
    rows = await _rows(dynamo_store, CALLS_AT_ONCE + 10)
    async with asyncio.TaskGroup() as group:
        holds = [
            group.create_task(_told(dynamo_store.hold(one.shard, one.position, _id(n))), name=f"hold-{n}")
            for n, one in enumerate(rows)
        ]
        await asyncio.sleep(0)
        holds[CALLS_AT_ONCE].cancel()  # who carries the others

    told = [hold.result() for hold in holds if not hold.cancelled()]
    assert all(isinstance(one, Row) for one in told[:CALLS_AT_ONCE])
    assert len(told) == len(rows) - 1
    assert all(isinstance(one, StoreUnavailable) and one.outcome_unknown for one in told[CALLS_AT_ONCE:])


async def _told(hold: Awaitable[Row | BrokenRow]) -> Row | BrokenRow | StoreUnavailable:
    try:
        return await hold
    except StoreUnavailable as error:
        return error
