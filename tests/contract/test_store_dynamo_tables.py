"""Tables: made once, never repaired by guessing, checked at every start."""

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from clockwork.domain.ownership import IncarnationId, ShardClaim, ShardState
from clockwork.domain.sharding import ShardId
from clockwork.errors import CannotStart
from clockwork.settings.model import DynamoSettings
from clockwork.stores.dynamodb.client import DynamoClient, Transport
from clockwork.stores.dynamodb.codec import cluster_item, row_item, shard_key
from clockwork.stores.dynamodb.schema import check_tables, create_tables, init_cluster
from clockwork.stores.dynamodb.store import DynamoScheduleStore
from tests.contract.store_fixtures import SHARDS, client_on, new_tables, store_on
from tests.support.builders import row

if TYPE_CHECKING:
    from infra.local import LocalServices

pytestmark = pytest.mark.real

OWNER = IncarnationId("a.1")
CLUSTER = {"partitionId": {"S": "cluster"}}


@pytest.fixture
def client(services: "LocalServices", transport: Transport) -> DynamoClient:
    """A client of a DynamoDB without our tables."""
    return client_on(transport, new_tables(services.dynamodb_endpoint))


def _other(client: DynamoClient, settings: DynamoSettings) -> DynamoClient:
    """A client with other settings, on the same DynamoDB."""
    return client_on(client.transport, settings)


async def _put(client: DynamoClient, item: dict[str, Any]) -> None:
    await client.call("put_item", TableName=client.settings.executions_table, Item=item)


async def _delete(client: DynamoClient, key: dict[str, Any]) -> None:
    await client.call("delete_item", TableName=client.settings.executions_table, Key=key)


async def _problems(client: DynamoClient, shards: int = SHARDS) -> list[str]:
    return list((await check_tables(client, shards=shards)).problems)


async def _made(client: DynamoClient) -> None:
    await create_tables(client)
    await init_cluster(client, shards=SHARDS)


async def _take(store: DynamoScheduleStore) -> None:
    await store.start_incarnation(OWNER, node="host:1")
    await store.take_shards([ShardClaim(shard=ShardId(1), epoch=0, floor_ms=5)], taker=OWNER)


async def test_what_was_made_passes_the_check(client: DynamoClient) -> None:
    await _made(client)

    assert await _problems(client) == []


async def test_making_again_changes_nothing(client: DynamoClient) -> None:
    await _made(client)
    store = store_on(client.transport, client.settings)
    await _take(store)

    await _made(client)

    assert await store.read_shard(ShardId(1)) == ShardState(epoch=1, owner=OWNER, floor_ms=5)
    assert await _problems(client) == []


async def test_several_nodes_may_make_them_at_once(client: DynamoClient) -> None:
    await asyncio.gather(*(_made(client) for _ in range(4)))

    assert await _problems(client) == []


async def test_two_nodes_that_disagree_on_the_shard_count_do_not_both_start(client: DynamoClient) -> None:
    await create_tables(client)

    results = await asyncio.gather(
        init_cluster(client, shards=4), init_cluster(client, shards=6), return_exceptions=True
    )

    refused = [r for r in results if isinstance(r, CannotStart)]
    assert len(refused) == 1
    assert "CLOCKWORK_SHARDS" in str(refused[0])


async def test_an_init_that_was_interrupted_is_finished_by_the_next(client: DynamoClient) -> None:
    # A crash between the shards' items and the cluster's: the cluster does not exist yet.
    await _made(client)
    await _delete(client, CLUSTER)
    await _delete(client, shard_key(ShardId(2)))
    assert "cluster" in (await _problems(client))[0]

    await init_cluster(client, shards=SHARDS)

    assert await _problems(client) == []


async def test_a_lost_shard_item_is_an_error_and_is_not_made_again(client: DynamoClient) -> None:
    await _made(client)
    await _delete(client, shard_key(ShardId(2)))

    with pytest.raises(CannotStart, match="1 shards are lost"):
        await init_cluster(client, shards=SHARDS)

    (problem,) = await _problems(client)
    assert "(2)" in problem


@pytest.mark.parametrize("used_by", ["an owner", "a client"])
async def test_a_lost_cluster_item_of_tables_in_use_is_an_error_and_is_not_made_again(
    client: DynamoClient, used_by: str
) -> None:
    await _made(client)
    if used_by == "an owner":
        await _take(store_on(client.transport, client.settings))
    else:
        await client.call("put_item", TableName=client.settings.schedules_table, Item=row_item(row()))
    await _delete(client, CLUSTER)

    with pytest.raises(CannotStart, match="items were lost"):
        await init_cluster(client, shards=SHARDS)


async def test_every_missing_table_is_named(client: DynamoClient) -> None:
    problems = await _problems(client)

    tables = client.settings
    assert [p.split(" is missing")[0] for p in problems] == [
        f"table {name}"
        for name in (tables.schedules_table, tables.executions_table, tables.keys_table, tables.jobs_table)
    ]


async def test_a_table_with_another_key_is_refused(client: DynamoClient) -> None:
    await _made(client)
    # The rows' table under the name of the shards', and the keys' under that of the rows'.
    settings = client.settings
    mixed_up = replace(settings, executions_table=settings.schedules_table, schedules_table=settings.keys_table)

    problems = await _problems(_other(client, mixed_up))

    assert len(problems) == 2
    assert "clientKey S, position N, not partitionId S, scheduleTime N" in problems[0]


async def test_a_table_without_expiry_is_refused(client: DynamoClient) -> None:
    await _made(client)
    off = {"Enabled": False, "AttributeName": "expiresAt"}
    await client.call("update_time_to_live", TableName=client.settings.keys_table, TimeToLiveSpecification=off)

    (problem,) = await _problems(client)

    assert "TTL is off" in problem


async def test_a_table_that_is_paid_for_by_capacity_is_a_warning(client: DynamoClient) -> None:
    await client.call(
        "create_table",
        TableName=client.settings.executions_table,
        ProvisionedThroughput={"ReadCapacityUnits": 5, "WriteCapacityUnits": 5},
        AttributeDefinitions=[{"AttributeName": "partitionId", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "partitionId", "KeyType": "HASH"}],
    )
    await _made(client)

    found = await check_tables(client, shards=SHARDS)

    assert found.problems == ()
    assert [line.split(" has ")[0] for line in found.warnings] == [f"table {client.settings.executions_table}"]


async def test_another_shard_count_is_refused_with_the_one_to_set(client: DynamoClient) -> None:
    await _made(client)

    (problem,) = await _problems(client, shards=SHARDS + 1)

    assert f"set it to {SHARDS}" in problem
    with pytest.raises(CannotStart, match="CLOCKWORK_SHARDS"):
        await init_cluster(client, shards=SHARDS + 1)


async def test_items_of_a_newer_format_are_refused(client: DynamoClient) -> None:
    await _made(client)
    await _put(client, cluster_item(SHARDS) | {"v": {"N": "3"}})

    (problem,) = await _problems(client)
    assert "format 3" in problem

    await _put(client, cluster_item(SHARDS))
    await _put(client, shard_key(ShardId(0)) | {"v": {"N": "3"}})
    (problem,) = await _problems(client)
    assert "shard 0" in problem
    assert "format 3" in problem


async def test_items_of_the_format_before_are_refused_with_what_to_do(client: DynamoClient) -> None:
    await _made(client)
    await _put(client, shard_key(ShardId(0)) | {"v": {"N": "1"}, "epoch": {"N": "4"}, "frontier": {"N": "9"}})
    (problem,) = await _problems(client)
    assert "shard 0: format 1" in problem

    await _put(client, cluster_item(SHARDS) | {"v": {"N": "1"}})
    (problem,) = await _problems(client)
    assert "infra.migrate" in problem
    with pytest.raises(CannotStart, match="infra"):
        await init_cluster(client, shards=SHARDS)


async def test_expiry_of_the_shards_table_is_refused(client: DynamoClient) -> None:
    # An expired item of an incarnation or a shard would count as one that has read nothing.
    await _made(client)
    on = {"Enabled": True, "AttributeName": "expiresAt"}
    await client.call("update_time_to_live", TableName=client.settings.executions_table, TimeToLiveSpecification=on)

    (problem,) = await _problems(client)

    assert client.settings.executions_table in problem
    assert "turn it off" in problem


async def test_more_shards_than_one_read_takes_are_made_and_checked(client: DynamoClient) -> None:
    await create_tables(client)
    await init_cluster(client, shards=130)

    assert await _problems(client, shards=130) == []
    store = store_on(client.transport, client.settings)
    assert await store.read_shard(ShardId(129)) == ShardState(epoch=0, owner=None, floor_ms=0)


async def test_a_missing_index_is_named_with_what_to_do_and_is_not_missed_where_search_is_off(
    client: DynamoClient,
) -> None:
    without = _other(client, replace(client.settings, search="off"))
    await _made(without)

    (problem,) = await _problems(client)

    assert all(
        word in problem for word in (client.settings.keys_table, "byClient", "clockwork init", "CLOCKWORK_SEARCH=off")
    )
    assert await _problems(without) == []
