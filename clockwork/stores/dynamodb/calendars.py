"""`CalendarStore` on DynamoDB: items of the table `jobs`, beside those of jobs. The keys are in `job_codec`."""

from collections.abc import Sequence
from typing import Any

from clockwork.domain.jobs.calendar import Calendar, CalendarName
from clockwork.domain.jobs.job import JobName
from clockwork.domain.run import JobId
from clockwork.domain.schedule import ClientId
from clockwork.errors import Unreadable
from clockwork.ports.jobs import NamePage
from clockwork.stores.checks import readable
from clockwork.stores.dynamodb import job_codec
from clockwork.stores.dynamodb.attributes import Item
from clockwork.stores.dynamodb.batching import BatchedReads, retry_on_conflict
from clockwork.stores.dynamodb.client import DynamoClient
from clockwork.stores.dynamodb.errors import Refused


class DynamoCalendars:
    """See `CalendarStore`."""

    def __init__(self, client: DynamoClient) -> None:
        self._client = client
        self._table = client.settings.jobs_table
        self._items = BatchedReads(client, self._table)

    async def read_calendar(self, key: CalendarName) -> Calendar | None:
        """See `CalendarStore`."""
        item = await self._items.get(job_codec.calendar_key(key))
        return job_codec.calendar_of(item, key.client_id) if item else None

    async def put_calendar(self, calendar: Calendar, *, before: Calendar | None) -> None:
        """See `CalendarStore`."""
        condition: Item = {"ConditionExpression": "attribute_not_exists(jobKey)"}
        if before is not None:
            condition = _is(before)
        try:
            await retry_on_conflict(
                self._client,
                "put_item",
                TableName=self._table,
                Item=job_codec.calendar_item(calendar),
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **condition,
            )
        except Refused as refused:
            if not _is_there(refused.items[0], calendar):
                raise

    async def delete_calendar(self, calendar: Calendar) -> None:
        """See `CalendarStore`."""
        condition = _is(calendar)
        condition["ConditionExpression"] += " OR attribute_not_exists(jobKey)"
        await retry_on_conflict(
            self._client, "delete_item", TableName=self._table, Key=job_codec.calendar_key(calendar.key), **condition
        )

    async def list_calendars(self, client_id: ClientId, *, after: str | None, calendars_max: int) -> Sequence[Calendar]:
        """See `CalendarStore`."""
        start = job_codec.calendar_key(CalendarName(client_id, after)) if after is not None else None
        items: list[Item] = []
        while len(items) < calendars_max:
            # One answer has no more than 1 MB.
            answer = await self._query_calendars(
                client_id, job_codec.CALENDARS, start, items_max=calendars_max - len(items)
            )
            items += answer["Items"]
            start = answer.get("LastEvaluatedKey")
            if not start:
                break
        return readable(lambda item: job_codec.calendar_of(item, client_id), items)

    async def list_jobs_of_calendar(self, key: CalendarName, *, after: JobId | None, jobs_max: int) -> NamePage:
        """See `CalendarStore`."""
        start = job_codec.calendar_note_key(key.name, JobName(key.client_id, after)) if after is not None else None
        prefix = job_codec.calendar_notes(key.name)
        answer = await self._query_calendars(key.client_id, prefix, start, items_max=jobs_max)
        names = readable(lambda item: job_codec.job_of_note(item, key), answer["Items"])
        last = answer.get("LastEvaluatedKey")
        return NamePage(names=tuple(names), next_after=job_codec.job_of_note(last, key) if last else None)

    async def _query_calendars(
        self, client_id: ClientId, prefix: str, start: Item | None, *, items_max: int
    ) -> dict[str, Any]:
        """Reads items whose sort keys begin so, behind a place."""
        more: dict[str, Any] = {"ExclusiveStartKey": start} if start else {}
        return await self._client.call(
            "query",
            TableName=self._table,
            KeyConditionExpression="#key = :key AND begins_with(#item, :prefix)",
            ExpressionAttributeNames={"#key": "jobKey", "#item": "item"},
            ExpressionAttributeValues={":key": {"S": job_codec.calendars_of(client_id)}, ":prefix": {"S": prefix}},
            ConsistentRead=True,
            Limit=items_max,
            **more,
        )


def _is(calendar: Calendar) -> Item:
    """The condition that this calendar is there, as it was read."""
    return {
        "ConditionExpression": "#by = :by",
        "ExpressionAttributeNames": {"#by": "by"},
        "ExpressionAttributeValues": {":by": {"S": calendar.write_id}},
    }


def _is_there(item: Item | None, calendar: Calendar) -> bool:
    if item is None:
        return False
    try:
        return job_codec.calendar_of(item, calendar.client_id) == calendar
    except Unreadable:
        return False
