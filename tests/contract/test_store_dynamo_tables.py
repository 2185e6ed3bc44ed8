"""Tables: made once, never repaired by guessing, checked at every start."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from clockwork.clock import SystemClock
from clockwork.domain.ownership import ShardState
from clockwork.domain.sharding import ShardId
from clockwork.errors import CannotStart
from clockwork.ports.telemetry import NoTelemetry
from clockwork.stores.dynamodb.client import DynamoClient
from clockwork.stores.dynamodb.codec import cluster_item, row_item, shard_key
from clockwork.stores.dynamodb.schema import check_tables, create_tables, init_cluster
from clockwork.stores.dynamodb.store import DynamoScheduleStore
from clockwork.stores.dynamodb.wire import DynamoClientSettings
from tests.contract.store_fixtures import SHARDS, settings_for
from tests.support.builders import row

if TYPE_CHECKING:
    from infra.local import LocalServices

pytestmark = pytest.mark.real

CLUSTER = {"partitionId": {"S": "cluster"}}


@pytest.fixture
async def empty(services: "LocalServices") -> DynamoClientSettings:
    """A DynamoDB without our tables."""
    return settings_for(services.dynamodb_endpoint)


@pytest.fixture
async def client(empty: DynamoClientSettings) -> AsyncIterator[DynamoClient]:
    async with DynamoClient(empty, SystemClock(), _observe_nothing, NoTelemetry()) as opened:
        yield opened


def _observe_nothing(*, sent_ms: int, received_ms: int, date_ms: int) -> None:
    """These tests are not about the clock."""


async def _put(client: DynamoClient, item: dict[str, Any]) -> None:
    await client.call("put_item", TableName=client.settings.executions_table, Item=item)


async def _delete(client: DynamoClient, key: dict[str, Any]) -> None:
    await client.call("delete_item", TableName=client.settings.executions_table, Key=key)


async def _problems(settings: DynamoClientSettings, shards: int = SHARDS) -> list[str]:
    return list((await check_tables(settings, shards=shards)).problems)


async def _made(settings: DynamoClientSettings) -> None:
    await create_tables(settings)
    await init_cluster(settings, shards=SHARDS)


async def test_what_was_made_passes_the_check(empty: DynamoClientSettings) -> None:
    await _made(empty)

    assert await _problems(empty) == []


async def test_making_again_changes_nothing(empty: DynamoClientSettings) -> None:
    await _made(empty)
    async with DynamoScheduleStore(empty, SystemClock(), _observe_nothing, NoTelemetry()) as store:
        taken = await store.raise_epoch(ShardId(1), expected=0, owner="a")

        await _made(empty)

        assert await store.read_shard(ShardId(1)) == taken
    assert await _problems(empty) == []


async def test_several_nodes_may_make_them_at_once(empty: DynamoClientSettings) -> None:
    await asyncio.gather(*(_made(empty) for _ in range(4)))

    assert await _problems(empty) == []


async def test_two_nodes_that_disagree_on_the_shard_count_do_not_both_start(empty: DynamoClientSettings) -> None:
    await create_tables(empty)

    results = await asyncio.gather(init_cluster(empty, shards=4), init_cluster(empty, shards=6), return_exceptions=True)

    refused = [r for r in results if isinstance(r, CannotStart)]
    assert len(refused) == 1
    assert "CLOCKWORK_SHARDS" in str(refused[0])


async def test_an_init_that_was_interrupted_is_finished_by_the_next(
    empty: DynamoClientSettings, client: DynamoClient
) -> None:
    # A crash between the shards' items and the cluster's: the cluster does not exist yet.
    await _made(empty)
    await _delete(client, CLUSTER)
    await _delete(client, shard_key(ShardId(2)))
    assert "cluster" in (await _problems(empty))[0]

    await init_cluster(empty, shards=SHARDS)

    assert await _problems(empty) == []


async def test_a_lost_shard_item_is_an_error_and_is_not_made_again(
    empty: DynamoClientSettings, client: DynamoClient
) -> None:
    await _made(empty)
    await _delete(client, shard_key(ShardId(2)))

    with pytest.raises(CannotStart, match="1 shards are lost"):
        await init_cluster(empty, shards=SHARDS)

    (problem,) = await _problems(empty)
    assert "(2)" in problem


@pytest.mark.parametrize("used_by", ["an owner", "a client"])
async def test_a_lost_cluster_item_of_tables_in_use_is_an_error_and_is_not_made_again(
    empty: DynamoClientSettings, client: DynamoClient, used_by: str
) -> None:
    await _made(empty)
    if used_by == "an owner":
        async with DynamoScheduleStore(empty, SystemClock(), _observe_nothing, NoTelemetry()) as store:
            await store.raise_epoch(ShardId(1), expected=0, owner="a")
    else:
        await client.call("put_item", TableName=empty.schedules_table, Item=row_item(row()))
    await _delete(client, CLUSTER)

    with pytest.raises(CannotStart, match="items were lost"):
        await init_cluster(empty, shards=SHARDS)


async def test_every_missing_table_is_named(empty: DynamoClientSettings) -> None:
    problems = await _problems(empty)

    assert [p.split(" is missing")[0] for p in problems] == [
        f"table {name}" for name in (empty.schedules_table, empty.executions_table, empty.keys_table)
    ]


async def test_a_table_with_another_key_is_refused(empty: DynamoClientSettings) -> None:
    await _made(empty)
    # The rows' table under the name of the shards', and the keys' under that of the rows'.
    mixed_up = replace(empty, executions_table=empty.schedules_table, schedules_table=empty.keys_table)

    problems = await _problems(mixed_up)

    assert len(problems) == 2
    assert "clientKey S, position N, not partitionId S, scheduleTime N" in problems[0]


async def test_a_table_without_expiry_is_refused(empty: DynamoClientSettings, client: DynamoClient) -> None:
    await _made(empty)
    off = {"Enabled": False, "AttributeName": "expiresAt"}
    await client.call("update_time_to_live", TableName=empty.keys_table, TimeToLiveSpecification=off)

    (problem,) = await _problems(empty)

    assert "TTL is off" in problem


async def test_a_table_that_is_paid_for_by_capacity_is_a_warning(
    empty: DynamoClientSettings, client: DynamoClient
) -> None:
    await client.call(
        "create_table",
        TableName=empty.executions_table,
        ProvisionedThroughput={"ReadCapacityUnits": 5, "WriteCapacityUnits": 5},
        AttributeDefinitions=[{"AttributeName": "partitionId", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "partitionId", "KeyType": "HASH"}],
    )
    await _made(empty)

    found = await check_tables(empty, shards=SHARDS)

    assert found.problems == ()
    assert [line.split(" has ")[0] for line in found.warnings] == [f"table {empty.executions_table}"]


async def test_another_shard_count_is_refused_with_the_one_to_set(empty: DynamoClientSettings) -> None:
    await _made(empty)

    (problem,) = await _problems(empty, shards=SHARDS + 1)

    assert f"set it to {SHARDS}" in problem
    with pytest.raises(CannotStart, match="CLOCKWORK_SHARDS"):
        await init_cluster(empty, shards=SHARDS + 1)


async def test_items_of_a_newer_format_are_refused(empty: DynamoClientSettings, client: DynamoClient) -> None:
    await _made(empty)
    await _put(client, cluster_item(SHARDS) | {"v": {"N": "2"}})

    (problem,) = await _problems(empty)
    assert "format 2" in problem

    await _put(client, cluster_item(SHARDS))
    await _put(client, shard_key(ShardId(0)) | {"v": {"N": "3"}})
    (problem,) = await _problems(empty)
    assert "shard 0" in problem
    assert "format 3" in problem


async def test_more_shards_than_one_read_takes_are_made_and_checked(empty: DynamoClientSettings) -> None:
    await create_tables(empty)
    await init_cluster(empty, shards=130)

    assert await _problems(empty, shards=130) == []
    async with DynamoScheduleStore(empty, SystemClock(), _observe_nothing, NoTelemetry()) as store:
        assert await store.read_shard(ShardId(129)) == ShardState(epoch=0, owner="", frontier_ms=0)


async def test_a_missing_index_is_named_with_what_to_do_and_is_not_missed_where_search_is_off(
    empty: DynamoClientSettings,
) -> None:
    without = replace(empty, search=False)
    await _made(without)

    (problem,) = await _problems(empty)

    assert all(word in problem for word in (empty.keys_table, "byClient", "clockwork init", "CLOCKWORK_SEARCH=off"))
    assert await _problems(without) == []
