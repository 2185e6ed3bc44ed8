"""`ScheduleSearch` on DynamoDB: the index `byClient` (see `stores.dynamodb.codec`), and batches of strong reads."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from clockwork.concurrency import gather_bounded
from clockwork.domain.position import LAST, Position, position_of, text_of
from clockwork.domain.schedule import BrokenRow, ClientId, Outcome, Pointer, Row, ScheduleKey
from clockwork.domain.sharding import ShardId
from clockwork.ports.store import KeyName, OutcomeKey, Page, PointerPage, RowKey
from clockwork.stores.checks import readable
from clockwork.stores.dynamodb import codec
from clockwork.stores.dynamodb.attributes import Item, value_of
from clockwork.stores.dynamodb.batching import read_all
from clockwork.stores.dynamodb.client import DynamoClient
from clockwork.stores.dynamodb.codec import INDEX, LIST_BUCKETS, LISTED_UNDER, list_key
from clockwork.stores.dynamodb.row_pages import read_page

QUERIES_AT_ONCE: Final = LIST_BUCKETS
SHARE_FACTOR: Final = 1.25
"""Number of entries read from each bucket, as a multiple of its even share of the page. Keys are spread almost evenly
over the buckets; entries of a bucket that lie behind the end of another one are read again for the next page."""

_Read = TypeVar("_Read")

log = logging.getLogger(__name__)


class DynamoScheduleSearch:
    """See `ScheduleSearch`. Raises, from any method: StoreUnavailable and below."""

    def __init__(self, client: DynamoClient) -> None:
        self._client = client
        self._settings = client.settings

    async def list_pointers(
        self, client_id: ClientId, *, first: Position, last: Position, pointers_max: int, descending: bool = False
    ) -> PointerPage:
        """See `ScheduleSearch`."""
        if first > last:
            return PointerPage(pointers=(), next_from=None)
        limit = int(pointers_max / LIST_BUCKETS * SHARE_FACTOR) + 4
        read = partial(self._bucket, client_id, first=first, last=last, limit=limit, forward=not descending)
        answers = await gather_bounded(read, range(LIST_BUCKETS), at_once=QUERIES_AT_ONCE)
        # A bucket is known up to the last entry that was read of it, or to its end.
        known_to = [_position(a["LastEvaluatedKey"], "current") for a in answers if a.get("LastEvaluatedKey")]
        found = readable(codec.pointer_of, (item for answer in answers for item in answer["Items"]))
        pointers = sorted(found, key=lambda p: p.position, reverse=descending)
        if not known_to:
            return PointerPage(pointers=tuple(pointers), next_from=None)
        horizon = max(known_to) if descending else min(known_to)
        known = tuple(p for p in pointers if (p.position >= horizon if descending else p.position <= horizon))
        next_from = Position(horizon - 1 if descending else horizon + 1)
        return PointerPage(pointers=known, next_from=next_from if first <= next_from <= last else None)

    async def count_pointers(self, client_id: ClientId, *, first: Position, at_most: int) -> int:
        """See `ScheduleSearch`. Costs as much as reading the pointers, some thirty for a read unit; they are not sent."""
        found = 0
        going_on: dict[int, Item] = {bucket: {} for bucket in range(LIST_BUCKETS)}
        while going_on and found < at_most:
            limit = (at_most - found) // len(going_on) + 1
            read = partial(self._counted, client_id, first=first, limit=limit, going_on=going_on)
            buckets = list(going_on)
            answers = dict(zip(buckets, await gather_bounded(read, buckets, at_once=QUERIES_AT_ONCE), strict=True))
            found += sum(answer["Count"] for answer in answers.values())
            going_on = {b: a["LastEvaluatedKey"] for b, a in answers.items() if a.get("LastEvaluatedKey")}
        return min(found, at_most)

    async def read_pointers(self, names: Sequence[KeyName]) -> Mapping[KeyName, Pointer]:
        """See `ScheduleSearch`."""
        items = await self._all(self._settings.keys_table, [codec.pointer_key(*name) for name in dict.fromkeys(names)])
        return {(p.client_id, p.schedule_key): p for p in readable(codec.pointer_of, items)}

    async def peek_pointers(self, names: Sequence[KeyName]) -> Mapping[KeyName, Pointer]:
        """See `ScheduleSearch`. Half a unit each."""
        keys = [codec.pointer_key(*name) for name in dict.fromkeys(names)]
        items = await read_all(self._client, self._settings.keys_table, keys, consistent=False)
        return {(p.client_id, p.schedule_key): p for p in readable(codec.pointer_of, items)}

    async def peek_rows(self, shard: ShardId, *, after: Position | None, rows_max: int) -> Page:
        """See `ScheduleSearch`."""
        return await read_page(self._client, shard, after=after, rows_max=rows_max, consistent=False)

    async def read_rows_at(self, keys: Sequence[RowKey]) -> Mapping[RowKey, Row | BrokenRow]:
        """See `ScheduleSearch`."""
        items = await self._all(
            self._settings.schedules_table, [codec.row_key(*place) for place in dict.fromkeys(keys)]
        )
        return {(row.shard, row.position): row for row in readable(_row_of, items)}

    async def read_outcomes(self, keys: Sequence[OutcomeKey]) -> Mapping[OutcomeKey, Outcome]:
        """See `ScheduleSearch`."""
        items = await self._all(self._settings.keys_table, [codec.outcome_key(*place) for place in dict.fromkeys(keys)])
        return {(o.client_id, o.schedule_key, o.position): o for o in readable(codec.outcome_of, items)}

    async def read_ended(self, client_id: ClientId, schedule_key: ScheduleKey) -> Sequence[Position]:
        """See `ScheduleSearch`."""
        pointer = codec.pointer_key(client_id, schedule_key)
        found: list[Position] = []
        more: Item = {}
        while True:
            answer = await self._client.call(
                "query",
                TableName=self._settings.keys_table,
                KeyConditionExpression="#key = :key AND #position > :pointer",
                ExpressionAttributeNames={"#key": "clientKey", "#position": "position"},
                ExpressionAttributeValues={":key": pointer["clientKey"], ":pointer": pointer["position"]},
                ProjectionExpression="#position",
                ConsistentRead=True,
                **more,
            )
            found += readable(partial(_position, name="position"), answer["Items"])
            if not answer.get("LastEvaluatedKey"):
                return found
            more = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    async def _bucket(
        self, client_id: ClientId, bucket: int, *, first: Position, last: Position, limit: int, forward: bool
    ) -> dict[str, Any]:
        return await self._query(client_id, bucket, first, last, Limit=limit, ScanIndexForward=forward)

    async def _counted(
        self, client_id: ClientId, bucket: int, *, first: Position, limit: int, going_on: Mapping[int, Item]
    ) -> dict[str, Any]:
        more = {"ExclusiveStartKey": going_on[bucket]} if going_on[bucket] else {}
        return await self._query(client_id, bucket, first, LAST, Limit=limit, Select="COUNT", **more)

    async def _query(
        self, client_id: ClientId, bucket: int, first: Position, last: Position, **more: Any
    ) -> dict[str, Any]:
        return await self._client.call(
            "query",
            TableName=self._settings.keys_table,
            IndexName=INDEX,
            KeyConditionExpression="#listed = :listed AND #current BETWEEN :first AND :last",
            ExpressionAttributeNames={"#listed": LISTED_UNDER, "#current": "current"},
            ExpressionAttributeValues={
                ":listed": list_key(client_id, bucket),
                ":first": {"N": text_of(first)},
                ":last": {"N": text_of(last)},
            },
            **more,
        )

    async def _all(self, table: str, keys: Sequence[Item]) -> list[Item]:
        return await read_all(self._client, table, keys)


def _position(item: Item, name: str) -> Position:
    return position_of(value_of(item, name, "N"))


def _row_of(item: Item) -> Row | BrokenRow:
    position = _position(item, "scheduleTime")
    return codec.row_of(item, shard=ShardId(int(value_of(item, "partitionId", "S"))), position=position)
