"""The transactions of `ScheduleStore`: their actions, their conditions, and their tokens. Pure.

Besides the conditions that the protocol asks for, nothing that is final is ever overwritten: a new row and the outcome
of a cancel or a reschedule are put only where nothing stands. What comes back with a failed condition (`ALL_OLD`) is
asked for where it is small and tells our own earlier copy from somebody else's write; never for a row, which may have
hundreds of kilobytes.
"""

import hashlib
from typing import Final

from clockwork.adapters import dynamo_codec as codec
from clockwork.adapters import dynamo_fields as fields
from clockwork.adapters.dynamo_fields import Item
from clockwork.adapters.dynamo_wire import DynamoClientSettings
from clockwork.domain.command import CommandPlace
from clockwork.domain.position import Position, position_of, text_of
from clockwork.domain.schedule import Outcome, Pointer, RequestId, Row
from clockwork.domain.sharding import ShardId
from clockwork.errors import Unreadable

CREATE_POINTER: Final = 0
"""Index of the pointer's Put in a create."""
CANCEL_OUTCOME: Final = 1
"""Index of the outcome's Put in a cancel."""
RESCHEDULE_POINTER: Final = 3
"""Index of the pointer's Put in a reschedule."""


def token_of(*parts: object) -> str:
    """The `ClientRequestToken` of a transaction, 32 characters: the same request again gets the same one, and DynamoDB
    then answers as it did the first time, for ten minutes."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def create_actions(
    settings: DynamoClientSettings, row: Row, pointer: Pointer, replaces_version: int | None
) -> list[Item]:
    """Put the pointer, put the row."""
    return [_put_pointer(settings, pointer, replaces_version), _put_row(settings, row)]


def create_token(row: Row, pointer: Pointer, replaces_version: int | None) -> str:
    """A position is never used twice; the rest is what a caller might change between two tries."""
    return token_of(
        "create", row.shard, row.position, pointer.digest, pointer.version, pointer.expires_at_s, replaces_version
    )


def cancel_actions(
    settings: DynamoClientSettings, shard: ShardId, outcome: Outcome, hold: RequestId, command: CommandPlace | None
) -> list[Item]:
    """Delete the row, put its outcome; of a command also its place."""
    actions = [_delete_held(settings, shard, outcome.position, hold), _put_outcome(settings, outcome)]
    return [*actions, _note_command(settings, outcome, command)] if command is not None else actions


def reschedule_actions(
    settings: DynamoClientSettings,
    shard: ShardId,
    outcome: Outcome,
    hold: RequestId,
    row: Row,
    pointer: Pointer,
    replaces_version: int,
) -> list[Item]:
    """Delete the row, put its outcome, put the new row, put the pointer."""
    return [
        _delete_held(settings, shard, outcome.position, hold),
        _put_outcome(settings, outcome),
        _put_row(settings, row),
        _put_pointer(settings, pointer, replaces_version),
    ]


def points_at(item: Item | None, position: Position) -> bool:
    """Whether this pointer, which came back with a failure, is the one that our own transaction put."""
    if item is None:
        return False
    try:
        return position_of(fields.value_of(item, "current", "N")) == position
    except Unreadable:
        # A pointer that cannot be read is not the one that we wrote; whoever reads it next says so.
        return False


def is_outcome(item: Item | None, outcome: Outcome) -> bool:
    """Whether this outcome, which came back with a failure, is the one that we wanted to put, in every field."""
    if item is None:
        return False
    try:
        # As it is stored: what is too large for an outcome is left out of it.
        return codec.outcome_of(item) == codec.outcome_of(codec.outcome_item(outcome))
    except Unreadable:
        return False


def _put_row(settings: DynamoClientSettings, row: Row) -> Item:
    return {
        "Put": {
            "TableName": settings.schedules_table,
            "Item": codec.row_item(row),
            "ConditionExpression": "attribute_not_exists(partitionId)",
        }
    }


def _put_pointer(settings: DynamoClientSettings, pointer: Pointer, replaces_version: int | None) -> Item:
    put: Item = {
        "TableName": settings.keys_table,
        "Item": codec.pointer_item(pointer),
        "ConditionExpression": "attribute_not_exists(clientKey)",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    if replaces_version is not None:
        put |= {
            "ConditionExpression": "#version = :version",
            "ExpressionAttributeNames": {"#version": "version"},
            "ExpressionAttributeValues": {":version": fields.number(replaces_version)},
        }
    return {"Put": put}


def _note_command(settings: DynamoClientSettings, outcome: Outcome, command: CommandPlace) -> Item:
    return {
        "Update": {
            "TableName": settings.keys_table,
            "Key": codec.pointer_key(outcome.client_id, outcome.schedule_key),
            "UpdateExpression": "SET #command = :command",
            # Implies that the pointer exists.
            "ConditionExpression": "#current = :current",
            "ExpressionAttributeNames": {"#command": "command", "#current": "current"},
            "ExpressionAttributeValues": {
                ":command": {"S": str(command)},
                ":current": {"N": text_of(outcome.position)},
            },
        }
    }


def _put_outcome(settings: DynamoClientSettings, outcome: Outcome) -> Item:
    return {
        "Put": {
            "TableName": settings.keys_table,
            "Item": codec.outcome_item(outcome),
            "ConditionExpression": "attribute_not_exists(clientKey)",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
    }


def _delete_held(settings: DynamoClientSettings, shard: ShardId, position: Position, hold: RequestId) -> Item:
    return {
        "Delete": {
            "TableName": settings.schedules_table,
            "Key": codec.row_key(shard, position),
            "ConditionExpression": "#hold = :hold",
            "ExpressionAttributeNames": {"#hold": "hold"},
            "ExpressionAttributeValues": {":hold": {"S": hold}},
        }
    }
