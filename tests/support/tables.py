"""DynamoDB by hand, beside the service: to damage what is stored, and to look at it."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pydantic import SecretStr

from clockwork.clock import ClockGuard, SystemClock
from clockwork.domain.schedule import Row
from clockwork.domain.sharding import shard_of
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import DynamoSettings
from clockwork.stores.dynamodb import codec
from clockwork.stores.dynamodb.client import CallLimits, DynamoClient
from tests.support import builders
from tests.support.nodes import Cluster

Item = dict[str, Any]


class Tables:
    """The tables of a cluster, as DynamoDB's own JSON has them."""

    def __init__(self, client: DynamoClient, cluster: Cluster) -> None:
        self._client = client
        self._cluster = cluster
        self._rows = cluster.settings["SCHEDULE_DB"]
        self._keys = cluster.settings["SCHEDULE_KEY_DB"]

    def valid_row(self, topic: str, schedule_key: str, *, due_ms: int, ordering_key: str) -> Row:
        """A row as the service would write it."""
        wanted = builders.schedule(
            client_id=self._cluster.name,
            schedule_key=schedule_key,
            ordering_key=ordering_key,
            due_ms=due_ms,
            topic=topic,
        )
        return builders.row(
            wanted, shard=shard_of(wanted.ordering_key, int(self._cluster.settings["CLOCKWORK_SHARDS"]))
        )

    async def plant(self, row: Row, damage: Callable[[Item], Item]) -> Item:
        """Puts what a create puts, with its row damaged: without a race against the row's own due time. Returns the
        item of the row."""
        item = damage(codec.row_item(row))
        await self._client.call("put_item", TableName=self._keys, Item=codec.pointer_item(builders.pointer(row)))
        await self.put_row(item)
        return item

    async def row(self, shard: int, schedule_key: str) -> Item:
        """The row of a pending schedule."""
        for item in await self.rows(shard):
            if item.get("scheduleKey") == {"S": schedule_key}:
                return item
        raise AssertionError(f"no row of {schedule_key} in shard {shard}")

    async def rows(self, shard: int) -> list[Item]:
        answer = await self._client.call(
            "query",
            TableName=self._rows,
            ConsistentRead=True,
            KeyConditionExpression="partitionId = :shard",
            ExpressionAttributeValues={":shard": {"S": str(shard)}},
        )
        items: list[Item] = answer["Items"]
        return items

    async def keys(self) -> list[Item]:
        """Every pointer and every outcome."""
        found: list[Item] = []
        more: Item = {}
        while True:
            answer = await self._client.call("scan", TableName=self._keys, ConsistentRead=True, **more)
            found += answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return found
            more = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    async def put_row(self, item: Mapping[str, Any]) -> None:
        await self._client.call("put_item", TableName=self._rows, Item=dict(item))

    async def delete_row(self, item: Mapping[str, Any]) -> None:
        await self._client.call(
            "delete_item", TableName=self._rows, Key={n: item[n] for n in ("partitionId", "scheduleTime")}
        )

    async def delete_shard(self, shard: int) -> None:
        """Loses the shard's item."""
        table = self._cluster.settings["PARTITION_EXEC_DB"]
        await self._client.call("delete_item", TableName=table, Key={"partitionId": {"S": str(shard)}})


@asynccontextmanager
async def tables_of(cluster: Cluster) -> AsyncIterator[Tables]:
    """For the length of a block."""
    clock = SystemClock()
    settings = DynamoSettings(
        region="us-east-1",
        endpoint=cluster.services.dynamodb_endpoint,
        access_key="local",
        secret_key=SecretStr("local"),
    )
    limits = CallLimits(read_timeout_s=60)  # whole tables are read here
    async with DynamoClient(settings, clock, ClockGuard(clock).observe, NoTelemetry(), limits=limits) as client:
        yield Tables(client, cluster)
