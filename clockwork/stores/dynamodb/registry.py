"""`Registry` on DynamoDB: items of the table `jobs`, under two keys that no job has, since no client has an empty name:

    jobKey S     item S
    /seen        <process>     a report
    /clients     <client>      a client's days

There, and not among the shards, a look costs what it reads: a table with one key could only be scanned whole, by the look
and by each sweep of incarnations, with all clients that ever were.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from clockwork.domain.ownership import ProcessId
from clockwork.domain.registry import KnownClient, ProcessReport
from clockwork.domain.schedule import ClientId
from clockwork.ports.registry import ClientPage
from clockwork.stores.checks import readable
from clockwork.stores.dynamodb import attributes as fields
from clockwork.stores.dynamodb.attributes import Item, number
from clockwork.stores.dynamodb.client import DynamoClient
from clockwork.stores.dynamodb.errors import Refused
from clockwork.stores.registry_forms import report_of, report_text

_SEEN: Final = "/seen"
_CLIENTS: Final = "/clients"


class DynamoRegistry:
    """See `Registry`."""

    def __init__(self, client: DynamoClient) -> None:
        self._client = client
        self._table = client.settings.jobs_table

    async def put_report(self, report: ProcessReport) -> None:
        """See `Registry`."""
        item = _key(_SEEN, report.process) | {"seenAt": number(report.seen_at_ms), "body": {"S": report_text(report)}}
        await self._client.call("put_item", TableName=self._table, Item=item)

    async def list_reports(self) -> Sequence[ProcessReport]:
        """See `Registry`."""
        return readable(_report_of, [item async for item in self._items(_SEEN)])

    async def delete_report(self, process: ProcessId, *, seen_at_ms: int) -> None:
        """See `Registry`."""
        try:
            await self._client.call(
                "delete_item",
                TableName=self._table,
                Key=_key(_SEEN, process),
                ConditionExpression="seenAt = :at",
                ExpressionAttributeValues={":at": number(seen_at_ms)},
            )
        except Refused:
            return  # it lives, or another process was first

    async def put_client(self, client_id: ClientId, *, day: int) -> None:
        """See `Registry`."""
        try:
            await self._client.call(
                "update_item",
                TableName=self._table,
                Key=_key(_CLIENTS, client_id),
                UpdateExpression="SET firstDay = if_not_exists(firstDay, :day), lastDay = :day",
                ConditionExpression="attribute_not_exists(lastDay) OR lastDay < :day",
                ExpressionAttributeValues={":day": number(day)},
            )
        except Refused:
            return  # another process has noted it today

    async def list_clients(self, *, clients_max: int) -> ClientPage:
        """See `Registry`."""
        items: list[Item] = []
        async for item in self._items(_CLIENTS):
            if len(items) == clients_max:
                return ClientPage(clients=tuple(readable(_client_of, items)), complete=False)
            items.append(item)
        return ClientPage(clients=tuple(readable(_client_of, items)), complete=True)

    async def _items(self, key: str) -> AsyncIterator[Item]:
        """The items under one key, in order."""
        more: dict[str, Any] = {}
        while True:
            answer = await self._client.call(
                "query",
                TableName=self._table,
                KeyConditionExpression="jobKey = :key",
                ExpressionAttributeValues={":key": {"S": key}},
                **more,
            )
            for item in answer["Items"]:
                yield item
            if not answer.get("LastEvaluatedKey"):
                return
            more = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}


def _key(key: str, item: str) -> Item:
    return {"jobKey": {"S": key}, "item": {"S": item}}


def _report_of(item: Item) -> ProcessReport:
    return report_of(fields.text(item, "item"), fields.integer(item, "seenAt"), fields.text(item, "body"))


def _client_of(item: Item) -> KnownClient:
    return KnownClient(
        client_id=ClientId(fields.text(item, "item")),
        first_day=fields.integer(item, "firstDay"),
        last_day=fields.integer(item, "lastDay"),
    )
