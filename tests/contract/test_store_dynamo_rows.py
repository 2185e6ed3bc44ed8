"""`DynamoScheduleStore` on rows that Clockwork did not write, or not this version of it."""

import json
from typing import Any, Final

import pytest

from clockwork.domain.position import Position, position_of, text_of
from clockwork.domain.schedule import BrokenRow, EndState, Outcome, RequestId, Row
from clockwork.domain.sharding import ShardId
from clockwork.errors import NewerFormat, Unreadable
from clockwork.stores.dynamodb import codec
from clockwork.stores.dynamodb.store import DynamoScheduleStore
from tests.support.builders import DUE_MS, gone, outcome, pointer, row, row_name, schedule

pytestmark = pytest.mark.real

SHARD: Final = ShardId(1)


async def _put(store: DynamoScheduleStore, item: dict[str, Any], *, table: str | None = None) -> None:
    name = table if table is not None else store.client.settings.schedules_table
    await store.client.call("put_item", TableName=name, Item=item)


async def _write_by_hand(store: DynamoScheduleStore, **attributes: Any) -> Position:
    """A row with these attributes changed; None takes one away."""
    good = row(shard=SHARD)
    item = {name: value for name, value in (codec.row_item(good) | attributes).items() if value is not None}
    await _put(store, item)
    return good.position


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"topic": None}, "topic: missing"),
        ({"topic": {"N": "7"}}, "topic: not of type S"),
        ({"taskData": {"S": "text"}}, "taskData: not of type B"),
        ({"headers": {"M": {"h": {"N": "1"}}}}, "h: not of type S"),
        ({"guarantee": {"S": "perhaps"}}, "guarantee: unknown value"),
        ({"createdAt": {"N": "1.5"}}, "createdAt: not an integer"),
        ({"createdAt": {"N": "1E+40"}}, "createdAt: not an integer"),
        ({"retry": {"M": {"at": {"N": "1"}}}}, "epoch: missing"),
        ({"hold": {"NULL": True}}, "hold: not of type S"),
        ({"clientId": {"S": "a/b"}}, "clientId: not a legal one"),
        ({"v": None}, "v: missing"),
        ({"v": {"S": "1"}}, "v: not of type N"),
    ],
)
async def test_a_damaged_row_is_shown_as_broken_with_all_that_can_be_read(
    dynamo_store: DynamoScheduleStore, attributes: dict[str, Any], reason: str
) -> None:
    at = await _write_by_hand(dynamo_store, **attributes)

    (found,) = (await dynamo_store.read_page(SHARD, after=None, rows_max=10)).rows

    assert isinstance(found, BrokenRow)
    assert (found.position, found.shard, found.newer_format) == (at, SHARD, False)
    assert found.reason == reason
    assert (found.lane is None) == ("topic" in attributes)
    assert (found.client_id is None) == ("clientId" in attributes)
    assert found.schedule_key is not None
    assert json.loads(found.raw)["partitionId"] == {"S": "1"}
    assert await dynamo_store.read_row(row_name(at, shard=SHARD)) == found
    assert await dynamo_store.read_rows(SHARD, [at]) == {at: found}


async def test_a_broken_row_among_good_ones_holds_up_none_and_can_be_deleted(dynamo_store: DynamoScheduleStore) -> None:
    before = row(shard=SHARD)
    await dynamo_store.create(before, pointer(before), replaces=None)
    at = await _write_by_hand(dynamo_store, topic=None)
    behind = row(shard=SHARD)
    await dynamo_store.create(behind, pointer(behind), replaces=None)

    page = await dynamo_store.read_page(SHARD, after=None, rows_max=10)
    await dynamo_store.finish(SHARD, [gone(each) for each in page.rows if each.position == at])

    assert [type(r) for r in page.rows] == [Row, BrokenRow, Row]
    assert (await dynamo_store.read_page(SHARD, after=None, rows_max=10)).rows == (before, behind)


async def test_a_broken_row_can_be_held_and_cancelled(dynamo_store: DynamoScheduleStore) -> None:
    at = await _write_by_hand(dynamo_store, taskData=None, retry={"S": "soon"})
    broken = await dynamo_store.read_row(row_name(at, shard=SHARD))
    assert isinstance(broken, BrokenRow)
    assert broken.client_id is not None
    assert broken.schedule_key is not None
    cancelled = Outcome(
        client_id=broken.client_id,
        schedule_key=broken.schedule_key,
        position=at,
        state=EndState.CANCELLED,
        at_ms=DUE_MS,
        schedule=None,
        expires_at_s=2_000_000_000,
    )

    held = await dynamo_store.hold(broken.name, RequestId("mine"))
    assert held == await dynamo_store.read_row(row_name(at, shard=SHARD))
    await dynamo_store.cancel(broken.name, cancelled, hold=RequestId("mine"))

    assert await dynamo_store.read_row(row_name(at, shard=SHARD)) is None
    assert await dynamo_store.read_outcome(broken.client_id, broken.schedule_key, at) == cancelled


async def test_a_row_of_a_newer_format_is_told_apart_and_keeps_its_lane(dynamo_store: DynamoScheduleStore) -> None:
    await _write_by_hand(dynamo_store, v={"N": "3"}, taskData=None, somethingNew={"BOOL": True})

    (found,) = (await dynamo_store.read_page(SHARD, after=None, rows_max=10)).rows

    assert isinstance(found, BrokenRow)
    assert found.newer_format
    assert found.lane is not None


async def test_an_attribute_that_this_version_does_not_know_is_no_damage(dynamo_store: DynamoScheduleStore) -> None:
    at = await _write_by_hand(dynamo_store, note={"S": "from an operator"})

    assert isinstance(await dynamo_store.read_row(row_name(at, shard=SHARD)), Row)


@pytest.mark.parametrize("rows_max", [1, 2, 10])
async def test_rows_that_stand_where_no_position_is_are_passed_over(
    dynamo_store: DynamoScheduleStore, rows_max: int
) -> None:
    # More digits of fraction than a position has, below zero, at zero (the pointer's place), past the last due time.
    for text in (
        "1700000000000.1234567890123456789012345",
        "1700000000000.1234567890123456789012346",
        "-5",
        "0",
        "1E+20",
    ):
        item = codec.row_item(row(shard=SHARD)) | {"scheduleTime": {"N": text}}
        await _put(dynamo_store, item)
    good = row(schedule(due_ms=1_800_000_000_000), shard=SHARD)
    await dynamo_store.create(good, pointer(good), replaces=None)

    found: list[Row | BrokenRow] = []
    after: Position | None = None
    for _ in range(10):
        page = await dynamo_store.read_page(SHARD, after=after, rows_max=rows_max)
        found += page.rows
        after = page.next_after
        if after is None:
            break

    assert found == [good]
    assert after is None


async def test_a_row_with_another_fraction_than_ours_is_shown_where_it_stands(
    dynamo_store: DynamoScheduleStore,
) -> None:
    at = position_of("1700000000000.5")
    await _put(dynamo_store, codec.row_item(row(shard=SHARD)) | {"scheduleTime": {"N": "1700000000000.5"}})

    (found,) = (await dynamo_store.read_page(SHARD, after=None, rows_max=10)).rows
    await dynamo_store.finish(SHARD, [gone(found)])

    assert found.position == at
    assert text_of(at).startswith("1700000000000.5")
    assert (await dynamo_store.read_page(SHARD, after=None, rows_max=10)).rows == ()


async def test_a_damaged_pointer_outcome_or_shard_is_an_error(dynamo_store: DynamoScheduleStore) -> None:
    settings = dynamo_store.client.settings
    of = row(shard=SHARD)
    names = of.schedule.client_id, of.schedule.schedule_key
    await _put(dynamo_store, codec.pointer_item(pointer(of)) | {"version": {"S": "1"}}, table=settings.keys_table)
    await _put(dynamo_store, codec.outcome_item(outcome(of)) | {"v": {"N": "2"}}, table=settings.keys_table)
    await _put(dynamo_store, codec.shard_key(SHARD) | {"v": {"N": "2"}}, table=settings.executions_table)

    with pytest.raises(Unreadable, match="version"):
        await dynamo_store.read_pointer(*names)
    with pytest.raises(NewerFormat):
        await dynamo_store.read_outcome(*names, of.position)
    with pytest.raises(Unreadable, match="epoch"):
        await dynamo_store.read_shard(SHARD)
