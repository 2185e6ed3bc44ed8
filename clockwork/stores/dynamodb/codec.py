"""Between Clockwork's values and DynamoDB's items. Pure; every name and type of a stored attribute is here.

    schedules            partitionId S, scheduleTime N   a pending schedule (`Row`)
    scheduleKeys         clientKey S, position N         at "0" the pointer, at "-1" the note of commands,
                                                         else the outcome at that position
    partitionExecutions  partitionId S                   a shard's state; "cluster": the shard count

Every item bears `v`, the format that it was written in. A change of the format takes two releases: first all nodes read
both, then they write the new one. What is newer than this code is never guessed at.

Numbers travel as text, so nothing is ever a float. A row may have been damaged or written by hand, and one such row
must not stop its shard: reading a row never raises. Pointers, outcomes and shards raise `Unreadable`: whoever asked for
one cannot go on without it.
"""

from typing import Final

from clockwork.domain.command_notes import CommandNote, offsets_of_text
from clockwork.domain.destination import Topic
from clockwork.domain.names import KEY_BYTES_MAX, is_client_id
from clockwork.domain.ownership import ShardState
from clockwork.domain.position import POINTER_POSITION, Position, due_ms_of, position_of, text_of
from clockwork.domain.schedule import (
    BrokenRow,
    ClientId,
    EndState,
    Failure,
    Lane,
    OrderingKey,
    Outcome,
    Pointer,
    Receipt,
    RequestId,
    Retry,
    Row,
    Schedule,
    ScheduleKey,
)
from clockwork.domain.sharding import ShardId
from clockwork.errors import NewerFormat, Unreadable
from clockwork.stores.dynamodb import attributes as fields
from clockwork.stores.dynamodb.attributes import Attribute, Item, number
from clockwork.stores.dynamodb.content import content_item, fits_an_outcome, schedule_of
from clockwork.stores.dynamodb.index import LISTED_UNDER, bucket_of, list_key

FORMAT: Final = 1
CLUSTER: Final = "cluster"
"""The `partitionId` of the item that holds the shard count."""
NOTE_POSITION: Final = "-1"
"""Below all outcomes and the pointer, so that no query for those meets it."""
RAW_BYTES_MAX: Final = 768 * 1024
"""Of a broken row's JSON, so that its dead letter stays below Kafka's default limit of 1 MB a record. An item has at
most 400 KB, but as base64 or as escapes it may become several times that."""


# --- keys


def row_key(shard: ShardId, position: Position) -> Item:
    """The primary key of a row."""
    return {"partitionId": {"S": str(shard)}, "scheduleTime": {"N": text_of(position)}}


def pointer_key(client_id: ClientId, schedule_key: ScheduleKey) -> Item:
    """The primary key of a pointer. A client id has no "/", so no two pairs collide."""
    return {"clientKey": {"S": f"{client_id}/{schedule_key}"}, "position": {"N": POINTER_POSITION}}


def outcome_key(client_id: ClientId, schedule_key: ScheduleKey, position: Position) -> Item:
    """The primary key of an outcome."""
    if position <= 0:
        raise ValueError("an outcome at position 0 would overwrite the pointer")
    return {"clientKey": {"S": f"{client_id}/{schedule_key}"}, "position": {"N": text_of(position)}}


def note_key(client_id: ClientId, schedule_key: ScheduleKey) -> Item:
    """The primary key of what a key remembers of commands."""
    return {"clientKey": {"S": f"{client_id}/{schedule_key}"}, "position": {"N": NOTE_POSITION}}


def shard_key(shard: ShardId) -> Item:
    """The primary key of a shard's state."""
    return {"partitionId": {"S": str(shard)}}


# --- rows


def row_item(row: Row) -> Item:
    """A row as it is stored."""
    _check_due(row.schedule, row.position)
    item = (
        row_key(row.shard, row.position)
        | _name_item(row.schedule.client_id, row.schedule.schedule_key)
        | content_item(row.schedule)
        | {"v": number(FORMAT)}
    )
    if row.hold is not None:
        item["hold"] = {"S": row.hold}
    if row.retry is not None:
        item["retry"] = retry_attribute(row.retry)
    return item


def position_of_row(item: Item) -> Position | None:
    """Where a stored row stands. None: at a place where Clockwork never puts one, and which it cannot name exactly."""
    try:
        position = position_of(fields.value_of(item, "scheduleTime", "N"))
    except Unreadable:
        return None
    return position if position > 0 else None


def row_of(item: Item, *, shard: ShardId, position: Position) -> Row | BrokenRow:
    """Reads a row, whatever is in it. Never raises."""
    try:
        _check_format(item)
        return Row(
            shard=shard,
            position=position,
            schedule=schedule_of(item, _client_id_of(item), _schedule_key_of(item), due_ms_of(position)),
            hold=RequestId(fields.text(item, "hold")) if "hold" in item else None,
            retry=retry_of(item),
        )
    except Unreadable as error:
        return BrokenRow(
            shard=shard,
            position=position,
            reason=str(error),
            raw=_raw(item, shard, position),
            newer_format=isinstance(error, NewerFormat),
            lane=_lane_of(item),
            client_id=_readable_client_id(item),
            schedule_key=_readable_schedule_key(item),
        )


def retry_attribute(retry: Retry) -> Attribute:
    """The attribute `retry` of a row."""
    return {"M": {"at": number(retry.at_ms), "epoch": number(retry.epoch), "attempts": number(retry.attempts)}}


def retry_of(item: Item) -> Retry | None:
    """The attribute `retry` of a row, if it has one.

    Raises: Unreadable.
    """
    if "retry" not in item:
        return None
    inner = fields.mapping(item, "retry")
    return Retry(
        at_ms=fields.integer(inner, "at"),
        epoch=fields.integer(inner, "epoch"),
        attempts=fields.integer(inner, "attempts"),
    )


# --- pointers and outcomes


def pointer_item(pointer: Pointer) -> Item:
    """A pointer as it is stored."""
    return (
        pointer_key(pointer.client_id, pointer.schedule_key)
        | _name_item(pointer.client_id, pointer.schedule_key)
        | {
            "v": number(FORMAT),
            "shard": number(pointer.shard),
            "current": {"N": text_of(pointer.position)},
            LISTED_UNDER: list_key(pointer.client_id, bucket_of(pointer.schedule_key)),
            "digest": {"S": pointer.digest},
            "version": number(pointer.version),
            "expiresAt": number(pointer.expires_at_s),
        }
        | ({"rearmed": number(1)} if pointer.rearmed else {})
        | ({"discardedAt": number(pointer.discarded_at_ms)} if pointer.discarded_at_ms is not None else {})
    )


def pointer_of(item: Item) -> Pointer:
    """Reads a pointer.

    Raises: Unreadable, NewerFormat.
    """
    _check_format(item)
    return Pointer(
        client_id=_client_id_of(item),
        schedule_key=_schedule_key_of(item),
        shard=ShardId(fields.integer(item, "shard")),
        position=position_of(fields.value_of(item, "current", "N")),
        digest=fields.text(item, "digest"),
        version=fields.integer(item, "version"),
        expires_at_s=fields.integer(item, "expiresAt"),
        rearmed="rearmed" in item,
        discarded_at_ms=fields.integer(item, "discardedAt") if "discardedAt" in item else None,
    )


def note_of(item: Item) -> CommandNote:
    """Reads what a key remembers of commands.

    Raises: Unreadable, NewerFormat.
    """
    _check_format(item)
    try:
        places = offsets_of_text(fields.text(item, "command"))
    except ValueError as error:
        raise Unreadable("command: not the places of commands") from error
    return CommandNote(offsets=places, by=fields.text(item, "by"), expires_at_s=fields.integer(item, "expiresAt"))


def outcome_item(outcome: Outcome) -> Item:
    """An outcome as it is stored, with the whole content of its schedule, so that it can be answered later; without, if
    it would be too large an item."""
    item = (
        outcome_key(outcome.client_id, outcome.schedule_key, outcome.position)
        | _name_item(outcome.client_id, outcome.schedule_key)
        | {
            "v": number(FORMAT),
            "state": {"S": outcome.state.value},
            "at": number(outcome.at_ms),
            "expiresAt": number(outcome.expires_at_s),
        }
    )
    if (schedule := outcome.schedule) is not None:
        _check_due(schedule, outcome.position)
        if (schedule.client_id, schedule.schedule_key) != (outcome.client_id, outcome.schedule_key):
            raise ValueError("an outcome with another key's schedule")
        if fits_an_outcome(schedule):
            item["schedule"] = {"M": content_item(schedule)}
    if (receipt := outcome.receipt) is not None:
        item["placed"] = {
            "M": {
                "partition": number(receipt.kafka_partition),
                "offset": number(receipt.offset),
                "at": number(receipt.at_ms),
            }
        }
    if (failure := outcome.failure) is not None:
        item["failure"] = {"M": {"reason": {"S": failure.reason}, "attempts": number(failure.attempts)}}
    if outcome.moved_to is not None:
        item["movedTo"] = {"N": text_of(outcome.moved_to)}
    return item


def outcome_of(item: Item) -> Outcome:
    """Reads an outcome.

    Raises: Unreadable, NewerFormat.
    """
    _check_format(item)
    position = position_of(fields.value_of(item, "position", "N"))
    client_id, schedule_key = _client_id_of(item), _schedule_key_of(item)
    schedule, receipt, failure = None, None, None
    if "schedule" in item:
        schedule = schedule_of(fields.mapping(item, "schedule"), client_id, schedule_key, due_ms_of(position))
    if "placed" in item:
        inner = fields.mapping(item, "placed")
        receipt = Receipt(
            kafka_partition=fields.integer(inner, "partition"),
            offset=fields.integer(inner, "offset"),
            at_ms=fields.integer(inner, "at"),
        )
    if "failure" in item:
        inner = fields.mapping(item, "failure")
        failure = Failure(reason=fields.text(inner, "reason"), attempts=fields.integer(inner, "attempts"))
    return Outcome(
        client_id=client_id,
        schedule_key=schedule_key,
        position=position,
        state=fields.word(item, "state", EndState),
        at_ms=fields.integer(item, "at"),
        schedule=schedule,
        receipt=receipt,
        failure=failure,
        moved_to=position_of(fields.value_of(item, "movedTo", "N")) if "movedTo" in item else None,
        expires_at_s=fields.integer(item, "expiresAt"),
    )


# --- shards


def shard_item(shard: ShardId, state: ShardState) -> Item:
    """A shard's state as it is stored."""
    return shard_key(shard) | {
        "v": number(FORMAT),
        "epoch": number(state.epoch),
        "owner": {"S": state.owner},
        "frontier": number(state.frontier_ms),
    }


def shard_state_of(item: Item) -> ShardState:
    """Reads a shard's state.

    Raises: Unreadable, NewerFormat.
    """
    _check_format(item)
    return ShardState(
        epoch=fields.integer(item, "epoch"),
        owner=fields.text(item, "owner", empty=True),
        frontier_ms=fields.integer(item, "frontier"),
    )


def cluster_item(shards: int) -> Item:
    """The item that holds the shard count."""
    return {"partitionId": {"S": CLUSTER}, "v": number(FORMAT), "shards": number(shards)}


def shard_count_of(item: Item) -> int:
    """Reads the shard count.

    Raises: Unreadable, NewerFormat.
    """
    _check_format(item)
    return fields.integer(item, "shards")


# --- parts


def _name_item(client_id: ClientId, schedule_key: ScheduleKey) -> Item:
    return {"clientId": {"S": client_id}, "scheduleKey": {"S": schedule_key}}


def _check_due(schedule: Schedule, position: Position) -> None:
    if schedule.due_ms != due_ms_of(position):
        raise ValueError(f"due at {schedule.due_ms}, but standing at {text_of(position)}")


def _check_format(item: Item) -> None:
    written_in = fields.integer(item, "v")
    if written_in > FORMAT:
        raise NewerFormat(f"format {written_in} is newer than {FORMAT}, which this version reads")
    if written_in < 1:
        raise Unreadable(f"format {written_in}")


def _client_id_of(item: Item) -> ClientId:
    client_id = fields.text(item, "clientId")
    if not is_client_id(client_id):
        raise Unreadable("clientId: not a legal one")
    return ClientId(client_id)


def _schedule_key_of(item: Item) -> ScheduleKey:
    schedule_key = fields.text(item, "scheduleKey")
    if len(schedule_key.encode()) > KEY_BYTES_MAX:
        # It would not fit into the key of `scheduleKeys`, and its outcome could not be put.
        raise Unreadable("scheduleKey: too long")
    return ScheduleKey(schedule_key)


def _readable_client_id(item: Item) -> ClientId | None:
    try:
        return _client_id_of(item)
    except Unreadable:
        return None


def _readable_schedule_key(item: Item) -> ScheduleKey | None:
    try:
        return _schedule_key_of(item)
    except Unreadable:
        return None


def _lane_of(item: Item) -> Lane | None:
    try:
        return (Topic(fields.text(item, "topic")), OrderingKey(fields.text(item, "orderingKey")))
    except Unreadable:
        return None


def _raw(item: Item, shard: ShardId, position: Position) -> bytes:
    raw = fields.as_json(item)
    if len(raw) > RAW_BYTES_MAX:
        return fields.as_json(row_key(shard, position) | {"omitted_bytes": len(raw)})
    return raw
