"""The transactions of `ScheduleStore`, and its updates of a key: their actions, conditions and tokens. Pure.

Besides the conditions that the protocol asks for, no final item is ever overwritten: a new row and the outcome of a cancel
or a reschedule are put only where nothing is stored. The stored item comes back with a failed condition (`ALL_OLD`) where it
is small and tells our own earlier copy from another writer's; never for a row, which may have hundreds of kilobytes.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

from clockwork.domain.command_notes import NoteChange, text_of_offsets
from clockwork.domain.ownership import IncarnationId, ShardClaim
from clockwork.domain.position import Position, position_of, text_of
from clockwork.domain.schedule import ClientId, Outcome, Pointer, RequestId, Row, RowName, ScheduleKey
from clockwork.errors import Unreadable
from clockwork.settings.model import DynamoSettings
from clockwork.stores.dynamodb import attributes as fields
from clockwork.stores.dynamodb import codec
from clockwork.stores.dynamodb.attributes import Item

CREATE_POINTER: Final = 0
"""Index of the pointer's Put in a create."""
_CANCEL_OUTCOME: Final = 1
_CANCEL_NOTE: Final = 2
"""Indexes of the outcome's Put, and of the note's Update by command, in a cancel."""
RESCHEDULE_POINTER: Final = 3
"""Index of the pointer's Put in a reschedule."""


def token_of(*parts: object) -> str:
    """The `ClientRequestToken` of a transaction, 32 characters: the same request again gets the same one, and DynamoDB
    then answers as it did the first time, for ten minutes."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def create_actions(
    settings: DynamoSettings,
    row: Row,
    pointer: Pointer,
    replaces: Pointer | None,
    note: NoteChange | None = None,
) -> list[Item]:
    """Put the pointer, put the row; by command also move the note."""
    actions = [_put_pointer(settings, pointer, replaces), put_row(settings, row)]
    return actions + _notes(settings, pointer.client_id, pointer.schedule_key, note)


def create_token(row: Row, pointer: Pointer, replaces: Pointer | None, note: NoteChange | None = None) -> str:
    """The token of a create. A position is never used twice; the other parts may change between two attempts."""
    before = (replaces.version, replaces.position) if replaces is not None else None
    changing = (pointer.digest, pointer.version, pointer.expires_at_s, before, note)
    return token_of("create", row.shard, row.position, *changing)


def cancel_actions(
    settings: DynamoSettings, name: RowName, outcome: Outcome, hold: RequestId, note: NoteChange | None
) -> list[Item]:
    """Delete the row, put its outcome; by command also move the note."""
    actions = [delete_held(settings, name, hold), _put_outcome(settings, outcome)]
    return actions + _notes(settings, outcome.client_id, outcome.schedule_key, note)


def reschedule_actions(
    settings: DynamoSettings,
    name: RowName,
    outcome: Outcome,
    hold: RequestId,
    row: Row,
    pointer: Pointer,
    replaces: Pointer,
    note: NoteChange | None,
) -> list[Item]:
    """Delete the row, put its outcome, put the new row, put the pointer; by command also move the note."""
    actions = [
        delete_held(settings, name, hold),
        _put_outcome(settings, outcome),
        put_row(settings, row),
        _put_pointer(settings, pointer, replaces),
    ]
    return actions + _notes(settings, outcome.client_id, outcome.schedule_key, note)


def key_state_reads(settings: DynamoSettings, pointer: Pointer) -> list[Item]:
    """The reads of a key's state: pointer, outcome at its position, and the row there, by its key alone."""
    key_name = (pointer.client_id, pointer.schedule_key)
    row = {"Key": codec.row_key(pointer.shard, pointer.position), "ProjectionExpression": "partitionId"}
    return [
        {"Get": {"TableName": settings.keys_table, "Key": codec.pointer_key(*key_name)}},
        {"Get": {"TableName": settings.keys_table, "Key": codec.outcome_key(*key_name, pointer.position)}},
        {"Get": {"TableName": settings.schedules_table, **row}},
    ]


def unreadable_actions(settings: DynamoSettings, pointer: Pointer, outcome: Outcome) -> list[Item]:
    """Put the outcome; check the pointer, and that there is no row."""
    return [
        _put_outcome(settings, outcome),
        {
            "ConditionCheck": {
                "TableName": settings.keys_table,
                "Key": codec.pointer_key(pointer.client_id, pointer.schedule_key),
                **_stands(pointer),
            }
        },
        no_row(settings, pointer.row_name),
    ]


def take_actions(settings: DynamoSettings, claims: Sequence[ShardClaim], taker: IncarnationId) -> list[Item]:
    """Check the taker, then give it each shard."""
    check: Item = {
        "TableName": settings.executions_table,
        "Key": codec.node_key(taker),
        "ConditionExpression": "attribute_exists(partitionId) AND attribute_not_exists(#fenced)",
        "ExpressionAttributeNames": {"#fenced": "fenced"},
    }
    return [{"ConditionCheck": check}, *(_give(settings, claim, taker) for claim in claims)]


def _give(settings: DynamoSettings, claim: ShardClaim, taker: IncarnationId) -> Item:
    return {
        "Update": {
            "TableName": settings.executions_table,
            "Key": codec.shard_key(claim.shard),
            "UpdateExpression": "SET #epoch = :next, #owner = :taker, #floor = :floor",
            # Implies that the item exists.
            "ConditionExpression": "#epoch = :epoch",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            "ExpressionAttributeNames": {"#epoch": "epoch", "#owner": "owner", "#floor": "floor"},
            "ExpressionAttributeValues": {
                ":epoch": fields.number(claim.epoch),
                ":next": fields.number(claim.epoch + 1),
                ":taker": {"S": taker},
                ":floor": fields.number(claim.floor_ms),
            },
        }
    }


def is_taken(item: Item | None, claim: ShardClaim, taker: IncarnationId) -> bool:
    """True if this shard, which came back with a failure, was given to the taker by this very claim: only the taker itself
    writes its name, and an epoch is given once."""
    if item is None:
        return False
    try:
        state = codec.shard_state_of(item)
    except Unreadable:
        return False
    return (state.epoch, state.owner) == (claim.epoch + 1, taker)


def note_update(settings: DynamoSettings, client_id: ClientId, schedule_key: ScheduleKey, note: NoteChange) -> Item:
    """The update that moves a key's note, on condition that it is what was read."""
    return note_update_at(settings.keys_table, codec.note_key(client_id, schedule_key), note)


def note_update_at(table: str, key: Item, note: NoteChange) -> Item:
    """The same of the note with this primary key."""
    condition, before = "attribute_not_exists(#command)", {}
    if note.before:
        condition, before = "#command = :before", {":before": {"S": text_of_offsets(note.before)}}
    return {
        "TableName": table,
        "Key": key,
        "UpdateExpression": "SET #command = :after, #by = :by, #expires = :expires, #v = :v",
        "ConditionExpression": condition,
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        "ExpressionAttributeNames": {"#command": "command", "#by": "by", "#expires": "expiresAt", "#v": "v"},
        "ExpressionAttributeValues": {
            ":after": {"S": text_of_offsets(note.after.offsets)},
            ":by": {"S": note.after.by},
            ":expires": fields.number(note.after.expires_at_s),
            ":v": fields.number(codec.FORMAT),
            **before,
        },
    }


def discard_update(settings: DynamoSettings, pointer: Pointer, at_ms: int) -> Item:
    """The update that marks a failed schedule as discarded."""
    # Implies that the pointer exists.
    condition = _stands(pointer)
    return {
        **condition,
        "TableName": settings.keys_table,
        "Key": codec.pointer_key(pointer.client_id, pointer.schedule_key),
        "UpdateExpression": "SET #discarded = if_not_exists(#discarded, :at)",
        "ExpressionAttributeNames": condition["ExpressionAttributeNames"] | {"#discarded": "discardedAt"},
        "ExpressionAttributeValues": condition["ExpressionAttributeValues"] | {":at": fields.number(at_ms)},
    }


def expiry_update(settings: DynamoSettings, pointer_of: RowName, *, expires_at_s: int) -> Item:
    """The update that lets the pointer to a row live longer, on condition that it still points to the row's position; never
    shorter. The row's key is readable."""
    assert pointer_of.client_id is not None, "the key is readable"
    assert pointer_of.schedule_key is not None, "the key is readable"
    return {
        "TableName": settings.keys_table,
        "Key": codec.pointer_key(pointer_of.client_id, pointer_of.schedule_key),
        "UpdateExpression": "SET #expires = :expires",
        # Implies that the pointer exists.
        "ConditionExpression": "#current = :current AND #expires < :expires",
        "ExpressionAttributeNames": {"#expires": "expiresAt", "#current": "current"},
        "ExpressionAttributeValues": {
            ":expires": fields.number(expires_at_s),
            ":current": {"N": text_of(pointer_of.position)},
        },
    }


def points_at(item: Item | None, position: Position) -> bool:
    """True if this pointer, which came back with a failure, is the one that our own transaction put."""
    if item is None:
        return False
    try:
        return position_of(fields.value_of(item, "current", "N")) == position
    except Unreadable:
        # A pointer that cannot be read is not the one that we wrote; its next reader reports it.
        return False


def is_cancel(items: Sequence[Item | None], outcome: Outcome, note: NoteChange | None) -> bool:
    """True if the items that came back with the failure of a cancel were put by that very cancel. By command the note must
    prove it too: the outcome equals that of another cancel of the same moment, which has moved no note."""
    if not is_outcome(items[_CANCEL_OUTCOME], outcome):
        return False
    return note is None or is_note(items[_CANCEL_NOTE], note)


def is_outcome(item: Item | None, outcome: Outcome) -> bool:
    """True if this outcome, which came back with a failure, is the one that we wanted to put, in every field."""
    if item is None:
        return False
    try:
        # As it is stored: content that is too large for an outcome is left out.
        return codec.outcome_of(item) == codec.outcome_of(codec.outcome_item(outcome))
    except Unreadable:
        return False


def is_note(item: Item | None, note: NoteChange) -> bool:
    """True if this note, which came back with a failure, is the one that we wanted to put."""
    return item is not None and item.get("by") == {"S": note.after.by}


def no_row(settings: DynamoSettings, name: RowName) -> Item:
    """The check that a row is not there."""
    return {
        "ConditionCheck": {
            "TableName": settings.schedules_table,
            "Key": codec.row_key(name.shard, name.position),
            "ConditionExpression": "attribute_not_exists(partitionId)",
        }
    }


def put_row(settings: DynamoSettings, row: Row) -> Item:
    """The put of a row where none is."""
    return {
        "Put": {
            "TableName": settings.schedules_table,
            "Item": codec.row_item(row),
            "ConditionExpression": "attribute_not_exists(partitionId)",
        }
    }


def _put_pointer(settings: DynamoSettings, pointer: Pointer, replaces: Pointer | None) -> Item:
    put: Item = {
        "TableName": settings.keys_table,
        "Item": codec.pointer_item(pointer),
        "ConditionExpression": "attribute_not_exists(clientKey)",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    if replaces is not None:
        put |= _stands(replaces)
    return {"Put": put}


def _stands(pointer: Pointer) -> Item:
    """The condition that a pointer is there as it was read. Version *and* position: versions restart when a pointer is
    deleted, positions never repeat (docs/design.md, 4: create)."""
    return {
        "ConditionExpression": "#current = :current AND #version = :version",
        "ExpressionAttributeNames": {"#current": "current", "#version": "version"},
        "ExpressionAttributeValues": {
            ":current": {"N": text_of(pointer.position)},
            ":version": fields.number(pointer.version),
        },
    }


def _notes(
    settings: DynamoSettings, client_id: ClientId, schedule_key: ScheduleKey, note: NoteChange | None
) -> list[Item]:
    return [{"Update": note_update(settings, client_id, schedule_key, note)}] if note is not None else []


def _put_outcome(settings: DynamoSettings, outcome: Outcome) -> Item:
    return {
        "Put": {
            "TableName": settings.keys_table,
            "Item": codec.outcome_item(outcome),
            "ConditionExpression": "attribute_not_exists(clientKey)",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
    }


def delete_held(settings: DynamoSettings, name: RowName, hold: RequestId) -> Item:
    """The delete of a row, on condition of its hold."""
    return {
        "Delete": {
            "TableName": settings.schedules_table,
            "Key": codec.row_key(name.shard, name.position),
            "ConditionExpression": "#hold = :hold",
            "ExpressionAttributeNames": {"#hold": "hold"},
            "ExpressionAttributeValues": {":hold": {"S": hold}},
        }
    }
