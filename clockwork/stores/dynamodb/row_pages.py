"""Rows of a shard, page by page: as their owner reads them, and as pages of the dashboard do, for half the cost."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

from clockwork.domain.position import Position, text_of
from clockwork.domain.schedule import BrokenRow, Row
from clockwork.domain.sharding import ShardId
from clockwork.ports.store import Page
from clockwork.stores.dynamodb import codec
from clockwork.stores.dynamodb.attributes import Item
from clockwork.stores.dynamodb.client import DynamoClient

YIELD_EVERY_ROWS: Final = 100
"""Rows of a page after which others get a turn: heartbeats share the event loop, and a full page takes 7 ms."""

log = logging.getLogger(__name__)


async def read_page(
    client: DynamoClient,
    shard: ShardId,
    *,
    after: Position | None,
    rows_max: int,
    due_ms_max: int | None = None,
    consistent: bool,
) -> Page:
    """Reads rows in position order after `after`; see `ScheduleStore.read_page`. Not `consistent`: it may lag."""
    rows: list[Row | BrokenRow] = []
    parameters: dict[str, Any] = {}
    while True:
        answer = await client.call(
            "query",
            TableName=client.settings.schedules_table,
            KeyConditionExpression="partitionId = :shard AND scheduleTime > :after",
            ExpressionAttributeValues={
                ":shard": {"S": str(shard)},
                ":after": {"N": "0" if after is None else text_of(after)},
            },
            ConsistentRead=consistent,
            Limit=rows_max,
            **parameters,
        )
        rows += await readable_rows(client, shard, answer["Items"], due_ms_max=due_ms_max)
        if rows and due_ms_max is not None and rows[-1].due_ms > due_ms_max:
            return Page(rows=tuple(rows), next_after=rows[-1].position)
        last: Item | None = answer.get("LastEvaluatedKey")
        next_after = codec.position_of_row(last) if last else None
        if last is None or next_after is not None:
            return Page(rows=tuple(rows), next_after=next_after)
        # Ends at a row that has no position to go on from: read on past it.
        parameters = {"ExclusiveStartKey": last}


async def readable_rows(
    client: DynamoClient, shard: ShardId, items: Sequence[Item], *, due_ms_max: int | None = None
) -> list[Row | BrokenRow]:
    """The rows in these items, in their order, up to the first that is due after `due_ms_max`; one that this version cannot
    read is a `BrokenRow`."""
    rows: list[Row | BrokenRow] = []
    for nth, item in enumerate(items, start=1):
        if nth % YIELD_EVERY_ROWS == 0:
            await asyncio.sleep(0)
        position = codec.position_of_row(item)
        if position is None:
            # Written by hand. It has no position that a marker or a delete could name, so firing it would never end;
            # it belongs to no client, and does no harm where it is.
            client.telemetry.malformed("row")
            at = item.get("scheduleTime", {}).get("N")
            log.warning(
                "A row stands where no position is",
                extra={"event": "dynamodb.row_without_position", "shard": shard, "at": at, "once_per": at},
            )
            continue
        rows.append(codec.row_of(item, shard=shard, position=position))
        if due_ms_max is not None and rows[-1].due_ms > due_ms_max:
            break
    return rows
