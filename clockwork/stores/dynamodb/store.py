"""`ScheduleStore` on DynamoDB.

Three rules hold for every line here (docs/design.md, 3 and 4):
- every read is strongly consistent;
- every `UpdateItem` has `attribute_exists`, or a condition that implies it: an update would bring a deleted item back
  (except the note of commands, which its first update creates);
- a failed condition is believed only after a look at the item that came back with it: the cause may be an earlier copy of
  the same request, whose answer was lost.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Final, Self

from clockwork.clock import Clock
from clockwork.domain.command_notes import CommandNote, NoteChange
from clockwork.domain.ownership import ShardState
from clockwork.domain.position import Position, position_of, text_of
from clockwork.domain.schedule import BrokenRow, ClientId, Outcome, Pointer, RequestId, Retry, Row, RowName, ScheduleKey
from clockwork.domain.sharding import ShardId
from clockwork.errors import Fenced, StoreThrottled, TransactionConflict, Unreadable
from clockwork.ports.store import End, ObserveServerTime, OutcomePlace, Page
from clockwork.ports.telemetry import Telemetry
from clockwork.settings.model import DynamoSettings
from clockwork.stores.dynamodb import codec, transactions
from clockwork.stores.dynamodb.attributes import Item, number
from clockwork.stores.dynamodb.batching import (
    BatchedReads,
    BatchedWrites,
    GroupCommit,
    Transaction,
    insert_all,
    read_all,
    write_all,
)
from clockwork.stores.dynamodb.client import CallLimits, DynamoClient, backoff_s
from clockwork.stores.dynamodb.errors import Refused

YIELD_EVERY_ROWS: Final = 100
"""Rows of a page after which others get a turn: heartbeats share the event loop, and a full page takes 7 ms."""
CONFLICT_ATTEMPTS_MAX: Final = 6
"""Attempts of writes on which no decision depends: a transaction in their way is over within milliseconds."""

CONTENTS_PER_READ: Final = 20
"""Rows and outcomes in one batched read: each may hold its schedule's content, up to 256 KiB."""

HOLDS_AT_ONCE: Final = 32
"""Concurrent holds. A batch of cancels sends a thousand at one moment, and deliveries must not queue behind them for a
connection. More than this made DynamoDB Local no faster. (Nor did batches of PartiQL updates.)"""

log = logging.getLogger(__name__)


class DynamoScheduleStore:
    """The three tables on DynamoDB; see `ScheduleStore` for what each method promises. `async with` opens and closes it.

    Raises, from any method: StoreUnavailable and below; `Rejected` for what no retry will mend (a missing table, no
    permission).
    """

    def __init__(
        self,
        settings: DynamoSettings,
        clock: Clock,
        observe: ObserveServerTime,
        telemetry: Telemetry,
        *,
        limits: CallLimits | None = None,
    ) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self.client = DynamoClient(settings, clock, observe, telemetry, limits=limits)
        # A connection of its own, and one attempt: under load a request waits for a connection, so its answer would say
        # little about the time; and readiness should not wait for repeats.
        alone = replace(limits or CallLimits(), connections_max=1, attempts_max=1)
        self.pinger = DynamoClient(settings, clock, observe, telemetry, limits=alone)
        self._group_commit = GroupCommit(self.client)
        self._holds = asyncio.Semaphore(HOLDS_AT_ONCE)
        self._rows = BatchedReads(self.client, settings.schedules_table, name=_row_name, items_max=CONTENTS_PER_READ)
        self._pointers = BatchedReads(self.client, settings.keys_table, name=_client_key)
        self._notes = BatchedReads(self.client, settings.keys_table, name=_client_key)
        self._ends = BatchedReads(self.client, settings.keys_table, name=_outcome_name, items_max=CONTENTS_PER_READ)
        self._shards = BatchedReads(self.client, settings.executions_table, name=_shard_name)
        self._outcomes = BatchedWrites(partial(write_all, self.client, settings.keys_table))
        self._first_outcomes = BatchedWrites(partial(insert_all, self.client, settings.keys_table))
        self._deletes = BatchedWrites(partial(write_all, self.client, settings.schedules_table))
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.client)
            await stack.enter_async_context(self.pinger)
            self._opened = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opened.aclose()

    async def ping(self) -> None:
        key = {"partitionId": {"S": codec.CLUSTER}}
        await self.pinger.call("get_item", TableName=self._settings.executions_table, Key=key, ConsistentRead=True)

    # --- keys

    async def read_pointer(self, client_id: ClientId, schedule_key: ScheduleKey) -> Pointer | None:
        item = await self._pointers.get(codec.pointer_key(client_id, schedule_key))
        return codec.pointer_of(item) if item else None

    async def read_outcome(self, client_id: ClientId, schedule_key: ScheduleKey, position: Position) -> Outcome | None:
        item = await self._ends.get(codec.outcome_key(client_id, schedule_key, position))
        return codec.outcome_of(item) if item else None

    async def create(
        self, row: Row, pointer: Pointer, *, replaces_version: int | None, note: NoteChange | None = None
    ) -> None:
        create = Transaction(
            key=(pointer.client_id, pointer.schedule_key),
            actions=transactions.create_actions(self._settings, row, pointer, replaces_version, note),
            token=transactions.create_token(row, pointer, replaces_version, note),
            # Pointer and row are put by one transaction: if the pointer stands at this position, both were, by us.
            is_ours=lambda refused: transactions.points_at(refused.items[transactions.CREATE_POINTER], row.position),
        )
        await self._group_commit.commit(create)

    async def read_command_note(self, client_id: ClientId, schedule_key: ScheduleKey) -> CommandNote | None:
        item = await self._notes.get(codec.note_key(client_id, schedule_key))
        return codec.note_of(item) if item else None

    async def note_command(self, client_id: ClientId, schedule_key: ScheduleKey, note: NoteChange) -> None:
        update = transactions.note_update(self._settings, client_id, schedule_key, note)
        try:
            await self._retry_on_conflict("update_item", **update)
        except Refused as refused:
            if not transactions.is_note(refused.items[0], note):
                raise

    async def discard(self, pointer: Pointer, *, at_ms: int) -> int:
        update = transactions.discard_update(self._settings, pointer, at_ms)
        answer = await self._retry_on_conflict("update_item", ReturnValues="UPDATED_NEW", **update)
        return int(answer["Attributes"]["discardedAt"]["N"])

    async def push_pointer_expiry(self, pointer_of: Row, *, expires_at_s: int) -> None:
        schedule = pointer_of.schedule
        try:
            await self._retry_on_conflict(
                "update_item",
                TableName=self._settings.keys_table,
                Key=codec.pointer_key(schedule.client_id, schedule.schedule_key),
                UpdateExpression="SET #expires = :expires",
                # Implies that the pointer exists.
                ConditionExpression="#current = :current AND #expires < :expires",
                ExpressionAttributeNames={"#expires": "expiresAt", "#current": "current"},
                ExpressionAttributeValues={
                    ":expires": number(expires_at_s),
                    ":current": {"N": text_of(pointer_of.position)},
                },
            )
        except Refused:
            # It points to another position, or lives long enough: in both cases nothing is to be done.
            return

    # --- rows, as a cancel or reschedule sees them

    async def read_row(self, name: RowName) -> Row | BrokenRow | None:
        item = await self._rows.get(codec.row_key(name.shard, name.position))
        return codec.row_of(item, shard=name.shard, position=name.position) if item else None

    async def hold(self, name: RowName, request: RequestId) -> Row | BrokenRow:
        async with self._holds:
            answer = await self._update_row(
                name,
                "SET #hold = :hold",
                once=True,
                ReturnValues="ALL_NEW",
                ExpressionAttributeNames={"#hold": "hold"},
                ExpressionAttributeValues={":hold": {"S": request}},
            )
        return codec.row_of(answer["Attributes"], shard=name.shard, position=name.position)

    async def cancel(self, name: RowName, outcome: Outcome, *, hold: RequestId, note: NoteChange | None = None) -> None:
        cancel = Transaction(
            key=(outcome.client_id, outcome.schedule_key),
            actions=transactions.cancel_actions(self._settings, name, outcome, hold, note),
            token=transactions.token_of("cancel", name.shard, name.position, hold, outcome.at_ms, note),
            is_ours=lambda refused: transactions.is_cancel(refused.items, outcome, note),
        )
        await self._group_commit.commit(cancel)

    async def reschedule(
        self,
        name: RowName,
        outcome: Outcome,
        *,
        hold: RequestId,
        row: Row,
        pointer: Pointer,
        replaces_version: int,
        note: NoteChange | None = None,
    ) -> None:
        change = Transaction(
            key=(outcome.client_id, outcome.schedule_key),
            actions=transactions.reschedule_actions(
                self._settings, name, outcome, hold, row, pointer, replaces_version, note
            ),
            token=transactions.token_of("reschedule", name.shard, name.position, hold, row.position, note),
            is_ours=lambda refused: transactions.points_at(
                refused.items[transactions.RESCHEDULE_POINTER], row.position
            ),
        )
        await self._group_commit.commit(change)

    # --- a shard, as its owner sees it

    async def read_shard(self, shard: ShardId) -> ShardState:
        return _state_of(shard, await self._shards.get(codec.shard_key(shard)))

    async def raise_epoch(self, shard: ShardId, *, expected: int, owner: str) -> ShardState:
        try:
            answer = await self.client.call(
                "update_item",
                TableName=self._settings.executions_table,
                Key=codec.shard_key(shard),
                UpdateExpression="SET #epoch = :next, #owner = :owner",
                # Implies that the item exists.
                ConditionExpression="#epoch = :expected",
                ExpressionAttributeNames={"#epoch": "epoch", "#owner": "owner"},
                ExpressionAttributeValues={
                    ":expected": number(expected),
                    ":next": number(expected + 1),
                    ":owner": {"S": owner},
                },
                ReturnValues="ALL_NEW",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except Refused as refused:
            stored = _state_of(shard, refused.items[0])
            if (stored.epoch, stored.owner) != (expected + 1, owner):
                raise
            return stored
        return _state_of(shard, answer["Attributes"])

    async def raise_frontier(self, shard: ShardId, *, epoch: int, frontier_ms: int) -> int:
        try:
            await self.client.call(
                "update_item",
                TableName=self._settings.executions_table,
                Key=codec.shard_key(shard),
                UpdateExpression="SET #frontier = :frontier",
                # Implies that the item exists.
                ConditionExpression="#epoch = :epoch AND #frontier < :frontier",
                ExpressionAttributeNames={"#epoch": "epoch", "#frontier": "frontier"},
                ExpressionAttributeValues={":epoch": number(epoch), ":frontier": number(frontier_ms)},
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except Refused as refused:
            stored = _state_of(shard, refused.items[0])
            if stored.epoch != epoch:
                raise Fenced(f"shard {shard} has epoch {stored.epoch}, not {epoch}") from refused
            return stored.frontier_ms
        return frontier_ms

    async def read_page(self, shard: ShardId, *, after: Position | None, rows_max: int) -> Page:
        rows: list[Row | BrokenRow] = []
        parameters: dict[str, Any] = {}
        while True:
            answer = await self.client.call(
                "query",
                TableName=self._settings.schedules_table,
                KeyConditionExpression="partitionId = :shard AND scheduleTime > :after",
                ExpressionAttributeValues={
                    ":shard": {"S": str(shard)},
                    ":after": {"N": "0" if after is None else text_of(after)},
                },
                ConsistentRead=True,
                Limit=rows_max,
                **parameters,
            )
            rows += await self._readable(shard, answer["Items"])
            last: Item | None = answer.get("LastEvaluatedKey")
            next_after = codec.position_of_row(last) if last else None
            if last is None or next_after is not None:
                return Page(rows=tuple(rows), next_after=next_after)
            # Ends at a row that has no position to go on from: read on past it.
            parameters = {"ExclusiveStartKey": last}

    async def drop_hold(self, name: RowName) -> bool:
        return await self._update_row_if_there(name, "REMOVE #hold", ExpressionAttributeNames={"#hold": "hold"})

    async def set_retry(self, name: RowName, retry: Retry, *, drop_hold: bool) -> bool:
        return await self._update_row_if_there(
            name,
            "SET #retry = :retry REMOVE #hold" if drop_hold else "SET #retry = :retry",
            ExpressionAttributeNames={"#retry": "retry"} | ({"#hold": "hold"} if drop_hold else {}),
            ExpressionAttributeValues={":retry": codec.retry_attribute(retry)},
        )

    async def read_rows(self, shard: ShardId, positions: Sequence[Position]) -> Mapping[Position, Row | BrokenRow]:
        keys = [codec.row_key(shard, position) for position in dict.fromkeys(positions)]
        items = await read_all(self.client, self._settings.schedules_table, keys)
        return {row.position: row for row in await self._readable(shard, items)}

    async def finish(self, shard: ShardId, ends: Sequence[End]) -> None:
        # The order is the contract: a row that is gone without an outcome would be a schedule that cannot be explained.
        if overwriting := _outcome_items(end for end in ends if not end.first_stands):
            await self._outcomes.write({name: {"PutRequest": {"Item": item}} for name, item in overwriting.items()})
        if first_stands := _outcome_items(end for end in ends if end.first_stands):
            await self._first_outcomes.write(first_stands)
        positions = [end.row.position for end in ends]
        await self._deletes.write({(shard, p): {"DeleteRequest": {"Key": codec.row_key(shard, p)}} for p in positions})

    # --- parts

    async def _update_row(self, name: RowName, update: str, *, once: bool = False, **parameters: Any) -> dict[str, Any]:
        """Updates a row on condition that it exists; every update of a row goes through here."""
        return await self.client.call(
            "update_item",
            once=once,
            TableName=self._settings.schedules_table,
            Key=codec.row_key(name.shard, name.position),
            UpdateExpression=update,
            ConditionExpression="attribute_exists(partitionId)",
            **parameters,
        )

    async def _update_row_if_there(self, name: RowName, update: str, **parameters: Any) -> bool:
        try:
            await self._update_row(name, update, **parameters)
        except Refused:
            # Gone for good: no row is ever put at this position again.
            return False
        return True

    async def _retry_on_conflict(self, operation: str, **parameters: Any) -> Any:
        """Does a write of one item, waiting while a transaction is in its way; returns its answer."""
        attempt = 1
        while True:
            try:
                return await self.client.call(operation, **parameters)
            except TransactionConflict as conflict:
                if attempt == CONFLICT_ATTEMPTS_MAX:
                    raise StoreThrottled("a transaction stood in the way for too long") from conflict
            await asyncio.sleep(backoff_s(attempt))
            attempt += 1

    async def _readable(self, shard: ShardId, items: Sequence[Item]) -> list[Row | BrokenRow]:
        rows: list[Row | BrokenRow] = []
        for nth, item in enumerate(items, start=1):
            if nth % YIELD_EVERY_ROWS == 0:
                await asyncio.sleep(0)
            position = codec.position_of_row(item)
            if position is None:
                # Written by hand. It has no position that a marker or a delete could name, so firing it would never end;
                # it belongs to no client, and does no harm where it is.
                self._telemetry.malformed("row")
                at = item.get("scheduleTime", {}).get("N")
                log.warning(
                    "A row stands where no position is",
                    extra={"event": "dynamodb.row_without_position", "shard": shard, "at": at, "once_per": at},
                )
                continue
            rows.append(codec.row_of(item, shard=shard, position=position))
        return rows


def _outcome_items(ends: Iterable[End]) -> dict[OutcomePlace, Item]:
    outcomes = [end.outcome for end in ends if end.outcome is not None]
    return {(o.client_id, o.schedule_key, o.position): codec.outcome_item(o) for o in outcomes}


def _client_key(item: Item) -> str:
    name: str = item["clientKey"]["S"]
    return name


def _row_name(item: Item) -> tuple[str, Position]:
    # DynamoDB answers a number in a spelling of its own.
    return item["partitionId"]["S"], position_of(item["scheduleTime"]["N"])


def _outcome_name(item: Item) -> tuple[str, Position]:
    return item["clientKey"]["S"], position_of(item["position"]["N"])


def _shard_name(item: Item) -> str:
    name: str = item["partitionId"]["S"]
    return name


def _state_of(shard: ShardId, item: Item | None) -> ShardState:
    if not item:
        raise Unreadable(f"shard {shard} has no item: its frontier is not known")
    return codec.shard_state_of(item)
