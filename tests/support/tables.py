"""A store by hand, beside the service: to damage what is stored, and to look at it."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

import asyncpg
from pydantic import SecretStr

from clockwork.clock import ClockGuard, SystemClock
from clockwork.domain.position import text_of
from clockwork.domain.schedule import BrokenRow, Row
from clockwork.domain.sharding import ShardId, shard_of
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import DynamoSettings
from clockwork.stores.dynamodb import codec
from clockwork.stores.dynamodb.client import CallLimits, DynamoClient
from clockwork.stores.dynamodb.errors import Rejected
from clockwork.stores.postgres import codec as postgres_codec
from tests.support import builders
from tests.support.nodes import Cluster

Item = dict[str, Any]


def valid_row(cluster: Cluster, topic: str, schedule_key: str, *, due_ms: int, ordering_key: str) -> Row:
    """A row as the service would write it."""
    wanted = builders.schedule(
        client_id=cluster.name, schedule_key=schedule_key, ordering_key=ordering_key, due_ms=due_ms, topic=topic
    )
    return builders.row(wanted, shard=shard_of(wanted.ordering_key, int(cluster.settings["CLOCKWORK_SHARDS"])))


class RowsByHand(Protocol):
    """The rows of a cluster, in whatever store."""

    async def put(self, row: Row, damage: Any) -> Row | BrokenRow | None:
        """Puts a row that is damaged as this store's can be (`fuzz.rows`, `fuzz.postgres_rows`), and returns it as its codec
        reads it. None: the store itself refuses it."""
        ...

    async def rows(self, shard: ShardId) -> list[Row | BrokenRow]:
        """Rows at legal positions."""
        ...

    async def delete(self, row: Row | BrokenRow) -> None: ...


@asynccontextmanager
async def rows_by_hand_of(cluster: Cluster) -> AsyncIterator[RowsByHand]:
    """For the length of a block."""
    if cluster.store == "postgresql":
        schema = {"search_path": cluster.settings["CLOCKWORK_POSTGRES_SCHEMA"]}
        connection = await asyncpg.connect(cluster.services.postgres_url, server_settings=schema)
        try:
            yield _InPostgres(connection)
        finally:
            await connection.close()
        return
    async with tables_of(cluster) as tables:
        yield _InDynamo(tables)


class _InDynamo:
    def __init__(self, tables: "Tables") -> None:
        self._tables = tables

    async def put(self, row: Row, damage: Any) -> Row | BrokenRow | None:
        item = damage.done_to(codec.row_item(row))
        try:
            await self._tables.put_row(item)
        except Rejected:
            return None
        return codec.row_of(item, shard=row.shard, position=row.position)

    async def rows(self, shard: ShardId) -> list[Row | BrokenRow]:
        found = [(item, codec.position_of_row(item)) for item in await self._tables.rows(shard)]
        return [codec.row_of(item, shard=shard, position=at) for item, at in found if at is not None]

    async def delete(self, row: Row | BrokenRow) -> None:
        place = codec.row_key(row.shard, row.position)
        await self._tables.delete_row(place)


class _InPostgres:
    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def put(self, row: Row, damage: Any) -> Row | BrokenRow | None:
        values = damage.done_to(postgres_codec.row_values(row))
        columns = postgres_codec.ROW
        given = ", ".join(
            f"${n}::text::numeric" if kind == "numeric" else f"${n}::{kind}" for n, (_, kind) in enumerate(columns, 1)
        )
        names = ", ".join(name for name, _ in columns)
        try:
            await self._connection.execute(f"INSERT INTO rows ({names}) VALUES ({given})", *values)
        except asyncpg.PostgresError:
            return None
        return postgres_codec.row_of(values)

    async def rows(self, shard: ShardId) -> list[Row | BrokenRow]:
        names = ", ".join(f"{name}::text" if kind == "numeric" else name for name, kind in postgres_codec.ROW)
        found = await self._connection.fetch(f"SELECT {names} FROM rows WHERE shard = $1 ORDER BY rows.position", shard)
        return [postgres_codec.row_of(tuple(record)) for record in found]

    async def delete(self, row: Row | BrokenRow) -> None:
        await self._connection.execute(
            "DELETE FROM rows WHERE shard = $1 AND position = $2::text::numeric", row.shard, text_of(row.position)
        )


class Tables:
    """The tables of a cluster, as DynamoDB's own JSON has them."""

    def __init__(self, client: DynamoClient, cluster: Cluster) -> None:
        self._client = client
        self._cluster = cluster
        self._rows = cluster.settings["SCHEDULE_DB"]
        self._keys = cluster.settings["SCHEDULE_KEY_DB"]

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
