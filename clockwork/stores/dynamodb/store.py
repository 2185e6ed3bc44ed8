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
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Final, Self

from clockwork.clock import Clock
from clockwork.concurrency import gather_bounded
from clockwork.domain.command_notes import CommandNote, NoteChange
from clockwork.domain.ownership import IncarnationId, NodeState, ShardClaim, ShardState
from clockwork.domain.position import Position
from clockwork.domain.schedule import BrokenRow, ClientId, Outcome, Pointer, RequestId, Retry, Row, RowName, ScheduleKey
from clockwork.domain.sharding import ShardId
from clockwork.errors import (
    Fenced,
    ShardsContested,
    StoreThrottled,
    Unreadable,
)
from clockwork.ports.store import CLAIMS_MAX, End, KeyState, ObserveServerTime, Page
from clockwork.ports.telemetry import Telemetry
from clockwork.settings.model import DynamoSettings
from clockwork.stores.dynamodb import codec, transactions
from clockwork.stores.dynamodb.attributes import Attribute, Item, number
from clockwork.stores.dynamodb.batching import (
    READS_PER_CALL,
    BatchedReads,
    BatchedWrites,
    GroupCommit,
    Transaction,
    insert_once,
    read_all,
    retry_on_conflict,
    transact,
    write_once,
)
from clockwork.stores.dynamodb.client import CallLimits, DynamoClient
from clockwork.stores.dynamodb.errors import Cancelled, Refused
from clockwork.stores.dynamodb.row_pages import read_page, readable_rows

CONTENTS_PER_READ: Final = 20
"""Rows and outcomes in one batched read: each may hold its schedule's content, up to 256 KiB."""

SHARDS_AT_ONCE: Final = 4 * READS_PER_CALL
"""Shards asked for at a time: as many as are on their way in batches."""

HOLDS_AT_ONCE: Final = 32
"""Concurrent holds. A batch of cancels sends a thousand at one moment, and deliveries must not queue behind them for a
connection. More than this made DynamoDB Local no faster. (Nor did batches of PartiQL updates.)"""

log = logging.getLogger(__name__)


class DynamoScheduleStore:
    """Three tables on DynamoDB; see `ScheduleStore` for what each method promises. `async with` opens and closes it.

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
        self.client = DynamoClient(settings, clock, observe, telemetry, limits=limits)
        # A connection of its own, and one attempt: under load a request waits for a connection, so its answer would say
        # little about the time; and readiness should not wait for repeats.
        alone = replace(limits or CallLimits(), connections_max=1, attempts_max=1)
        self.pinger = DynamoClient(settings, clock, observe, telemetry, limits=alone)
        self._group_commit = GroupCommit(self.client)
        self._holds = asyncio.Semaphore(HOLDS_AT_ONCE)
        self._rows = BatchedReads(self.client, settings.schedules_table, items_max=CONTENTS_PER_READ)
        self._pointers = BatchedReads(self.client, settings.keys_table)
        self._notes = BatchedReads(self.client, settings.keys_table)
        self._ends = BatchedReads(self.client, settings.keys_table, items_max=CONTENTS_PER_READ)
        self._executions = BatchedReads(self.client, settings.executions_table)
        self._outcomes = BatchedWrites(partial(write_once, self.client, settings.keys_table))
        self._first_outcomes = BatchedWrites(partial(insert_once, self.client, settings.keys_table))
        self._deletes = BatchedWrites(partial(write_once, self.client, settings.schedules_table))
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
        self, row: Row, pointer: Pointer, *, replaces: Pointer | None, note: NoteChange | None = None
    ) -> None:
        create = Transaction(
            key=(pointer.client_id, pointer.schedule_key),
            actions=transactions.create_actions(self._settings, row, pointer, replaces, note),
            token=transactions.create_token(row, pointer, replaces, note),
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

    async def push_pointer_expiry(self, pointer_of: RowName, *, expires_at_s: int) -> None:
        update = transactions.expiry_update(self._settings, pointer_of, expires_at_s=expires_at_s)
        try:
            await self._retry_on_conflict("update_item", **update)
        except Refused:
            # It points to another position, or lives long enough: in both cases nothing is to be done.
            return

    async def read_key_state(self, pointer: Pointer) -> KeyState:
        reads = transactions.key_state_reads(self._settings, pointer)
        answer = await transact(self.client, "transact_get_items", TransactItems=reads)
        found, outcome, row = (response.get("Item") for response in answer["Responses"])
        return KeyState(
            pointer=codec.pointer_of(found) if found else None,
            outcome=codec.outcome_of(outcome) if outcome else None,
            row_there=bool(row),
        )

    async def put_unreadable_outcome(self, pointer: Pointer, outcome: Outcome) -> None:
        try:
            await transact(
                self.client,
                "transact_write_items",
                TransactItems=transactions.unreadable_actions(self._settings, pointer, outcome),
                ClientRequestToken=transactions.token_of("unreadable", pointer.version, outcome),
            )
        except Refused as refused:
            if not transactions.is_outcome(refused.items[0], outcome):
                raise

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
        replaces: Pointer,
        note: NoteChange | None = None,
    ) -> None:
        change = Transaction(
            key=(outcome.client_id, outcome.schedule_key),
            actions=transactions.reschedule_actions(self._settings, name, outcome, hold, row, pointer, replaces, note),
            token=transactions.token_of("reschedule", name.shard, name.position, hold, row.position, note),
            is_ours=lambda refused: transactions.points_at(
                refused.items[transactions.RESCHEDULE_POINTER], row.position
            ),
        )
        await self._group_commit.commit(change)

    # --- incarnations, and the shards that they own

    async def start_incarnation(self, incarnation: IncarnationId, *, node: str) -> None:
        new = NodeState(incarnation=incarnation, frontier_ms=0, fenced_at_ms=None, slots=0, hints={}, node=node)
        try:
            await self.client.call(
                "put_item",
                TableName=self._settings.executions_table,
                Item=codec.node_item(new),
                ConditionExpression="attribute_not_exists(partitionId)",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except Refused as refused:
            if not refused.items[0] or codec.node_state_of(refused.items[0]) != new:
                raise

    async def read_nodes(self, incarnations: Sequence[IncarnationId]) -> Mapping[IncarnationId, NodeState]:
        async def read(incarnation: IncarnationId) -> NodeState | None:
            item = await self._executions.get(codec.node_key(incarnation))
            return codec.node_state_of(item) if item else None

        states = await gather_bounded(read, dict.fromkeys(incarnations), at_once=READS_PER_CALL)
        return {state.incarnation: state for state in states if state is not None}

    async def list_nodes(self) -> Sequence[NodeState]:
        found: list[NodeState] = []
        parameters: dict[str, Any] = {}
        while True:
            answer = await self.client.call(
                "scan",
                TableName=self._settings.executions_table,
                FilterExpression="begins_with(partitionId, :node)",
                ExpressionAttributeValues={":node": {"S": codec.NODE}},
                ConsistentRead=True,
                **parameters,
            )
            for item in answer["Items"]:
                try:
                    found.append(codec.node_state_of(item))
                except Unreadable as error:
                    _log_unreadable(str(item["partitionId"].get("S")), error)
            if not answer.get("LastEvaluatedKey"):
                return found
            parameters = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    async def raise_frontier(self, incarnation: IncarnationId, *, frontier_ms: int, hints: Mapping[int, int]) -> int:
        attributes = codec.hints_attributes(hints)
        sets = "".join(f", #hints.#h{slot} = :h{slot}" for slot in attributes)
        names = {"#hints": "hints"} | {f"#h{slot}": slot for slot in attributes} if hints else {}
        stored = await self._raise(
            incarnation,
            f"SET #raised = :raised{sets}",
            "frontier",
            frontier_ms,
            names=names,
            values={f":h{slot}": offset for slot, offset in attributes.items()},
        )
        return stored.frontier_ms if stored is not None else frontier_ms

    async def raise_slots(self, incarnation: IncarnationId, *, slots: int) -> None:
        await self._raise(incarnation, "SET #raised = :raised", "slots", slots, names={}, values={})

    async def fence(self, incarnation: IncarnationId, *, at_ms: int) -> NodeState:
        try:
            answer = await self._retry_on_conflict(
                "update_item",
                TableName=self._settings.executions_table,
                Key=codec.node_key(incarnation),
                UpdateExpression="SET #fenced = if_not_exists(#fenced, :at)",
                ConditionExpression="attribute_exists(partitionId)",
                ExpressionAttributeNames={"#fenced": "fenced"},
                ExpressionAttributeValues={":at": number(at_ms)},
                ReturnValues="ALL_NEW",
            )
        except Refused as refused:
            raise Unreadable(f"incarnation {incarnation} has no item: its frontier is not known") from refused
        return codec.node_state_of(answer["Attributes"])

    async def delete_node(self, incarnation: IncarnationId) -> None:
        await self._retry_on_conflict(
            "delete_item",
            TableName=self._settings.executions_table,
            Key=codec.node_key(incarnation),
            ConditionExpression="attribute_exists(#fenced) OR attribute_not_exists(partitionId)",
            ExpressionAttributeNames={"#fenced": "fenced"},
        )

    async def read_shard(self, shard: ShardId) -> ShardState:
        return _state_of(shard, await self._executions.get(codec.shard_key(shard)))

    async def read_shards(self, shards: Sequence[ShardId]) -> Mapping[ShardId, ShardState]:
        throttled: list[StoreThrottled] = []

        async def read(shard: ShardId) -> ShardState | None:
            try:
                return await self.read_shard(shard)
            except Unreadable as error:
                _log_unreadable(str(shard), error)
            except StoreThrottled as error:
                # Alone, after the others: it must not keep them from being taken.
                throttled.append(error)
                _log_unreadable(str(shard), error)
            return None

        wanted = list(dict.fromkeys(shards))
        states = await gather_bounded(read, wanted, at_once=SHARDS_AT_ONCE)
        if throttled and len(throttled) == len(wanted):
            raise throttled[0]
        return {shard: state for shard, state in zip(wanted, states, strict=True) if state is not None}

    async def read_shard_and_node(
        self, shard: ShardId, incarnation: IncarnationId | None
    ) -> tuple[ShardState, NodeState | None]:
        if incarnation is None:
            return await self.read_shard(shard), None
        keys = [codec.shard_key(shard), codec.node_key(incarnation)]
        shard_item, node_item = await self._executions.get_all(keys)
        return _state_of(shard, shard_item), codec.node_state_of(node_item) if node_item else None

    async def take_shards(self, claims: Sequence[ShardClaim], *, taker: IncarnationId) -> None:
        if not 0 < len(claims) <= CLAIMS_MAX:
            raise ValueError(f"{len(claims)} claims in one transaction")
        try:
            await self.client.call(
                "transact_write_items",
                TransactItems=transactions.take_actions(self._settings, claims, taker),
                ClientRequestToken=transactions.token_of("take", self._settings.executions_table, taker, *claims),
            )
        except Cancelled as cancelled:
            error = cancelled.error()
            if not isinstance(error, Refused):
                raise error from None
            if all(
                transactions.is_taken(item, claim, taker) for item, claim in zip(error.items[1:], claims, strict=True)
            ):
                return
            taker_failed, *claims_failed = error.failed
            if taker_failed:
                raise Fenced(f"incarnation {taker} is fenced or gone") from None
            failed = [claim.shard for claim, failed in zip(claims, claims_failed, strict=True) if failed]
            raise ShardsContested(failed) from None

    async def release_shard(self, shard: ShardId, *, epoch: int, owner: IncarnationId, floor_ms: int) -> None:
        try:
            await self._retry_on_conflict(
                "update_item",
                TableName=self._settings.executions_table,
                Key=codec.shard_key(shard),
                UpdateExpression="SET #floor = :floor REMOVE #owner",
                # Implies that the item exists.
                ConditionExpression="#epoch = :epoch AND #owner = :owner",
                ExpressionAttributeNames={"#floor": "floor", "#epoch": "epoch", "#owner": "owner"},
                ExpressionAttributeValues={
                    ":floor": number(floor_ms),
                    ":epoch": number(epoch),
                    ":owner": {"S": owner},
                },
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except Refused as refused:
            # Only its owner releases a shard, once at each epoch.
            if _state_of(shard, refused.items[0]) != ShardState(epoch=epoch, owner=None, floor_ms=floor_ms):
                raise

    # --- rows, as their owner sees them

    async def read_page(
        self, shard: ShardId, *, after: Position | None, rows_max: int, due_ms_max: int | None = None
    ) -> Page:
        return await read_page(
            self.client, shard, after=after, rows_max=rows_max, due_ms_max=due_ms_max, consistent=True
        )

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
        return {row.position: row for row in await readable_rows(self.client, shard, items)}

    async def finish(self, shard: ShardId, ends: Sequence[End]) -> None:
        # The order is the contract: a row that is gone without an outcome would be a schedule that cannot be explained.
        # So the rows whose outcomes stand are deleted, whatever became of the others: a key that is throttled waits alone.
        items = [(end, codec.outcome_item(end.outcome)) for end in ends if end.outcome is not None]
        names = {end.row.position: codec.primary_key(codec.KEY_KEY, item) for end, item in items}
        puts = {names[end.row.position]: item for end, item in items if not end.only_if_absent}
        inserts = {names[end.row.position]: item for end, item in items if end.only_if_absent}
        failures = await self._outcomes.write({name: {"PutRequest": {"Item": item}} for name, item in puts.items()})
        failures |= await self._first_outcomes.write(inserts)
        ended = [end.row.position for end in ends if names.get(end.row.position) not in failures]
        failures |= await self._deletes.write(
            {(str(shard), p): {"DeleteRequest": {"Key": codec.row_key(shard, p)}} for p in ended}
        )
        if failures:
            # A final refusal is raised rather than one that may be over at the next try.
            raise min(failures.values(), key=lambda error: isinstance(error, StoreThrottled))

    # --- parts

    async def _raise(
        self,
        incarnation: IncarnationId,
        update: str,
        attribute: str,
        value: int,
        *,
        names: Mapping[str, str],
        values: Mapping[str, Attribute],
    ) -> NodeState | None:
        """Raises an attribute of an incarnation's item. Returns the item if it stands that high already.

        A transaction that takes shards for this incarnation checks the item, so it may be in the way for a moment.

        Raises: Fenced.
        """
        try:
            await self._retry_on_conflict(
                "update_item",
                TableName=self._settings.executions_table,
                Key=codec.node_key(incarnation),
                UpdateExpression=update,
                ConditionExpression=(
                    "attribute_exists(partitionId) AND attribute_not_exists(#fenced) AND #raised < :raised"
                ),
                ExpressionAttributeNames={"#fenced": "fenced", "#raised": attribute, **names},
                ExpressionAttributeValues={":raised": number(value), **values},
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except Refused as refused:
            stored = codec.node_state_of(refused.items[0]) if refused.items[0] else None
            if stored is None or stored.fenced_at_ms is not None:
                raise Fenced(f"incarnation {incarnation} is {'fenced' if stored else 'gone'}") from refused
            return stored
        return None

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
            # The row is gone for good: no row is ever put at this position again.
            return False
        return True

    async def _retry_on_conflict(self, operation: str, **parameters: Any) -> Any:
        return await retry_on_conflict(self.client, operation, **parameters)


def _state_of(shard: ShardId, item: Item | None) -> ShardState:
    if not item:
        raise Unreadable(f"shard {shard} has no item: its floor is not known")
    return codec.shard_state_of(item)


def _log_unreadable(name: str, error: Exception) -> None:
    log.error(
        "The item of a shard or an incarnation cannot be read",
        extra={"event": "store.owner_unreadable", "item": name, "error": str(error), "once_per": f"{name}: {error}"},
    )
