"""Holds of several requests at one moment, by shared calls (design.md, 4, step 2).

A batch of a thousand cancels is a thousand holds. Alone each is an update of its own; those that come while
`CALLS_AT_ONCE` calls are under way go together, as PartiQL statements, each decided by itself. (A batch write cannot
update, and a transaction costs twice.) One hold alone waits for nobody.

A hold is never sent twice: a late copy would put back what an owner has taken off, and the request that wrote it would
believe it. What was refused, throttled or not answered is told to its request, which takes a new id for its next try.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from clockwork.adapters import dynamo_codec as codec
from clockwork.adapters.dynamo_client import DynamoClient
from clockwork.adapters.dynamo_errors import Refused, of_statement
from clockwork.adapters.dynamo_fields import Item
from clockwork.domain.position import Position
from clockwork.domain.schedule import RequestId
from clockwork.domain.sharding import ShardId
from clockwork.errors import ClockworkError, StoreUnavailable

CALLS_AT_ONCE: Final = 2
STATEMENTS_MAX: Final = 20
"""DynamoDB takes 25; each is answered with its row, of up to 400 KB."""

Place = tuple[ShardId, Position]


@dataclass(slots=True, eq=False)
class _Group:
    """Holds that go together; the first of them carries the others."""

    wanted: dict[Place, RequestId] = field(default_factory=dict)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    answers: dict[Place, Item | ClockworkError] = field(default_factory=dict)


class Holds:
    """Writes holds into rows."""

    def __init__(self, client: DynamoClient) -> None:
        self._client = client
        self._table = client.settings.schedules_table
        self._places = asyncio.Semaphore(CALLS_AT_ONCE)
        self._open: _Group | None = None

    async def take(self, shard: ShardId, position: Position, request: RequestId) -> Item:
        """The row's item, with the hold in it.

        Raises: Refused (there is no such row), TransactionConflict, StoreUnavailable (it may be held, or be so later).
        """
        place = (shard, position)
        group = self._open
        # Not two of one row: DynamoDB refuses a batch that names an item twice.
        if group is not None and len(group.wanted) < STATEMENTS_MAX and place not in group.wanted:
            group.wanted[place] = request
            await group.over.wait()
        else:
            group = self._open = _Group({place: request})
            await self._carry(group)
        answer = group.answers.get(place)
        if answer is None:
            # Who carried it was cancelled, maybe in the middle of it.
            raise StoreUnavailable("the hold's carrier was cancelled", outcome_unknown=True)
        if isinstance(answer, ClockworkError):
            raise answer
        return answer

    async def _carry(self, group: _Group) -> None:
        try:
            async with self._places:
                self._close(group)
                if len(group.wanted) == 1:
                    ((place, request),) = group.wanted.items()
                    group.answers[place] = await self._one(place, request)
                else:
                    group.answers |= await self._several(group.wanted)
        except ClockworkError as error:
            group.answers |= dict.fromkeys(group.wanted, error)
        finally:
            self._close(group)
            group.over.set()

    def _close(self, group: _Group) -> None:
        if self._open is group:
            self._open = None

    async def _one(self, place: Place, request: RequestId) -> Item:
        answer = await self._client.call(
            "update_item",
            once=True,
            TableName=self._table,
            Key=codec.row_key(*place),
            UpdateExpression="SET #hold = :hold",
            ConditionExpression="attribute_exists(partitionId)",
            ReturnValues="ALL_NEW",
            ExpressionAttributeNames={"#hold": "hold"},
            ExpressionAttributeValues={":hold": {"S": request}},
        )
        item: Item = answer["Attributes"]
        return item

    async def _several(self, wanted: dict[Place, RequestId]) -> dict[Place, Item | ClockworkError]:
        # A statement's UPDATE never makes an item: it is refused where there is none.
        text = (
            f'UPDATE "{self._table}" SET "hold" = ? WHERE "partitionId" = ? AND "scheduleTime" = ? RETURNING ALL NEW *'
        )
        statements = []
        for place, request in wanted.items():
            key = codec.row_key(*place)
            statements.append(
                {"Statement": text, "Parameters": [{"S": request}, key["partitionId"], key["scheduleTime"]]}
            )
        answer = await self._client.call("batch_execute_statement", once=True, Statements=statements)
        answers: dict[Place, Item | ClockworkError] = {}
        for place, response in zip(wanted, answer["Responses"], strict=True):
            error = response.get("Error")
            answers[place] = of_statement(error) if error else response.get("Item") or await self._read(place)
        return answers

    async def _read(self, place: Place) -> Item | ClockworkError:
        """After the hold, so as good as the item that comes with it. Amazon's pages promise `RETURNING` for a statement
        alone and do not say that a batch ignores it."""
        answer = await self._client.call(
            "get_item", TableName=self._table, Key=codec.row_key(*place), ConsistentRead=True
        )
        item: Item | None = answer.get("Item")
        return item or Refused((None,), "the row has ended since it was held", failed=(True,))
