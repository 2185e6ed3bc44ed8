"""Conversion between Clockwork's values and DynamoDB's items. Pure; every name and type of a stored attribute is here.

    schedules            partitionId S, scheduleTime N   a pending schedule (`Row`)
    scheduleKeys         clientKey S, position N         at "0" the pointer, at "-1" the note of commands,
                                                         else the outcome at that position
    partitionExecutions  partitionId S                   a shard's state; "node/…": an incarnation's; "cluster": the
                                                         shard count
    jobs                 jobKey S, item S                a job: `job_codec`

Every item bears `v`, the format that it was written in; those of shards, incarnations and the cluster, and rows of jobs,
have a format of their own. A change of the format takes two releases: first all nodes read both, then they write the new
one. The meaning of an item that is newer than this code is never guessed.

Numbers travel as text, so nothing is ever a float. A row may have been damaged or written by hand, and one such row
must not stop its shard: reading a row never raises. Reading a pointer, an outcome or a shard raises `Unreadable`: its
caller cannot go on without it.

# The index of lists

The index `byClient` of `scheduleKeys` indexes the pointers, and nothing else. There is one per key, it names the present
schedule, and it is written when a schedule is created or moved. So a list is one of present states by itself (outcomes, old
ones under a key that is used again included, have no `listedUnder` and are not in it), and firing, cancelling and cleanup
write nothing more than without it: the index costs one write unit per create (two for a key that is used again, and for a
move: the old entry goes), against six that a schedule costs without it. A status is not in the index, because the end of a
schedule does not touch its pointer; it is read, strongly, from rows and outcomes.

Rejected: an index of the rows (it would be written again at each end, and knows nothing of ended schedules); one of rows
and outcomes (three writes a schedule, two entries for a schedule under cleanup, one more to tell which of a key's outcomes
is its present state); a status kept in the pointer (one more conditional write for each delivery, in the path that every
delivery waits for).

Its keys: `listedUnder` is client and bucket, `current` the position, so each bucket is in the order of due times. Buckets,
because DynamoDB takes 1,000 write units a second under one partition key, and an index that cannot follow holds up the
writes to its table: one busy client would be held at 1,000 creates a second. With eight it is 8,000, for eight Queries a
page instead of one. All attributes are projected: a pointer has some 300 bytes, below the 1 KB of a write unit.
"""

import zlib
from collections.abc import Mapping
from typing import Final

from clockwork.domain.command_notes import CommandNote, offsets_of_text
from clockwork.domain.destination import Topic
from clockwork.domain.ownership import IncarnationId, NodeState, ShardState
from clockwork.domain.position import POINTER_POSITION, Position, due_ms_of, position_of, text_of
from clockwork.domain.retry import BackoffPolicy, RetryPolicy
from clockwork.domain.run import ROW_FORMAT, RunOfRow
from clockwork.domain.schedule import (
    BrokenRow,
    ClientId,
    DataForm,
    EndState,
    Failure,
    Guarantee,
    Lane,
    OnLate,
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
from clockwork.stores import checks
from clockwork.stores.dynamodb import attributes as fields
from clockwork.stores.dynamodb.attributes import Attribute, Item, number
from clockwork.stores.job_forms import RUN_OF_ROW

FORMAT: Final = 1
EXECUTIONS_FORMAT: Final = 2
"""The format of the items of shards, incarnations and the cluster. In 1 a shard had a frontier of its own."""
CLUSTER: Final = "cluster"
"""The `partitionId` of the item that holds the shard count."""
NODE: Final = "node/"
"""The `partitionId` of an incarnation's item begins with it."""
NOTE_POSITION: Final = "-1"
"""Below all outcomes and the pointer, so that no query for those meets it."""

INDEX: Final = "byClient"
LISTED_UNDER: Final = "listedUnder"
"""The attribute of a pointer that is the DynamoDB partition key of the index. It is written without an index too, so that
an index which is made later has everything in it."""
INDEX_KEY: Final = ((LISTED_UNDER, "S"), ("current", "N"))
JOB_INDEX_KEY: Final = ((LISTED_UNDER, "S"), ("jobId", "S"))
"""The key of the index of that name of `jobs`. A client has one bucket: its jobs are not made by thousands a second."""
LIST_BUCKETS: Final = 8
"""Buckets of one client. Stored with every pointer, so the number can only be changed by reading both for a while."""
OUTCOME_CONTENT_BYTES_MAX: Final = 384 * 1024
"""Largest content of a schedule that its outcome holds. An item of DynamoDB has at most 400 KB, and an outcome holds more
than a row. No accepted schedule comes near it (256 KiB); a row that was put by hand may, and an outcome that DynamoDB
refuses for its size would block the cleanup of its shard, and with it the shard, for ever."""

_HEADER_OVERHEAD_BYTES: Final = 4


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
    """The primary key of the note of commands of a key."""
    return {"clientKey": {"S": f"{client_id}/{schedule_key}"}, "position": {"N": NOTE_POSITION}}


def shard_key(shard: ShardId) -> Item:
    """The primary key of a shard's state."""
    return {"partitionId": {"S": str(shard)}}


def node_key(incarnation: IncarnationId) -> Item:
    """The primary key of an incarnation's state."""
    return {"partitionId": {"S": f"{NODE}{incarnation}"}}


PrimaryKey = tuple[str, Position | str | None]
"""The primary key of an item of one table, as a value."""
JOB_KEY: Final = ("jobKey", "item")
ROW_KEY: Final = ("partitionId", "scheduleTime")
KEY_KEY: Final = ("clientKey", "position")
EXECUTION_KEY: Final = ("partitionId", None)
"""The attributes of the primary keys of the four tables. Any other attribute of an item may be anything."""


def primary_key(names: tuple[str, str | None], item: Item) -> PrimaryKey:
    """The primary key in an item, or of one: equal for, and only for, the same item. DynamoDB answers a number in a spelling
    of its own."""
    hash_name, sort_name = names
    partition: str = item[hash_name]["S"]
    if sort_name is None:
        return partition, None
    if "S" in item[sort_name]:
        return partition, item[sort_name]["S"]
    sort_text: str = item[sort_name]["N"]
    try:
        return partition, position_of(sort_text)
    except Unreadable:
        # The note of commands, or a row that was put by hand.
        return partition, sort_text


def bucket_of(schedule_key: ScheduleKey) -> int:
    """The number of the bucket of its client that a key is in."""
    return zlib.crc32(schedule_key.encode()) % LIST_BUCKETS


def list_key(client_id: ClientId, bucket: int) -> Attribute:
    """The DynamoDB partition key of one bucket of a client. A client id has no "/"."""
    return {"S": f"{client_id}/{bucket}"}


# --- the content of a schedule, the same in a row and in its outcome


def content_item(schedule: Schedule) -> Item:
    """The content of a schedule as attributes, without key and due time: those are in the item's key."""
    headers = {name: {"S": value} for name, value in schedule.headers}
    if len(headers) != len(schedule.headers):
        raise ValueError("two headers of one name")
    item: Item = {
        "orderingKey": {"S": schedule.ordering_key},
        "taskData": fields.of_bytes(schedule.task_data),
        "taskDataForm": {"S": schedule.data_form.value},
        "topic": {"S": schedule.topic},
        "guarantee": {"S": schedule.guarantee.value},
        "headers": {"M": headers},
        "createdAt": number(schedule.created_at_ms),
        "version": number(schedule.version),
        "deliveryId": {"S": schedule.delivery_id},
    }
    if schedule.traceparent is not None:
        item["traceparent"] = {"S": schedule.traceparent}
    if schedule.deadline_ms is not None:
        item["deadline"] = number(schedule.deadline_ms)
    if schedule.on_late is not OnLate.DELIVER:
        item["onLate"] = {"S": schedule.on_late.value}
    if schedule.retry is not None:
        item["retryPolicy"] = _policy_attribute(schedule.retry)
    return item


def schedule_of(item: Item, client_id: ClientId, schedule_key: ScheduleKey, due_ms: int) -> Schedule:
    """Reads the content of a schedule. Raises: Unreadable."""
    headers = fields.mapping(item, "headers")
    return Schedule(
        client_id=client_id,
        schedule_key=schedule_key,
        ordering_key=OrderingKey(fields.text(item, "orderingKey")),
        due_ms=due_ms,
        topic=checks.topic_of(fields.text(item, "topic"), "topic"),
        guarantee=fields.word(item, "guarantee", Guarantee),
        task_data=fields.binary(item, "taskData"),
        data_form=fields.word(item, "taskDataForm", DataForm),
        headers=tuple(
            (fields.utf8(name, "headers"), fields.text(headers, name, empty=True)) for name in sorted(headers)
        ),
        traceparent=fields.text(item, "traceparent", empty=True) if "traceparent" in item else None,
        deadline_ms=fields.integer(item, "deadline") if "deadline" in item else None,
        on_late=fields.word(item, "onLate", OnLate) if "onLate" in item else OnLate.DELIVER,
        retry=_policy_of(item),
        created_at_ms=fields.integer(item, "createdAt"),
        version=fields.integer(item, "version"),
        delivery_id=fields.text(item, "deliveryId"),
    )


def fits_an_outcome(schedule: Schedule) -> bool:
    """True if the outcome of a schedule may hold its content. Depends on nothing else, so that every writer writes the same
    outcome."""
    texts = (schedule.ordering_key, schedule.topic, schedule.delivery_id, schedule.traceparent or "")
    size_bytes = len(schedule.task_data) + sum(len(text.encode()) for text in texts)
    size_bytes += sum(len(n.encode()) + len(v.encode()) + _HEADER_OVERHEAD_BYTES for n, v in schedule.headers)
    return size_bytes <= OUTCOME_CONTENT_BYTES_MAX


# --- rows


def row_item(row: Row) -> Item:
    """A row as it is stored."""
    checks.check_due(row.schedule, row.position)
    item = (
        row_key(row.shard, row.position)
        | _name_item(row.schedule.client_id, row.schedule.schedule_key)
        | content_item(row.schedule)
        | {"v": number(FORMAT if row.run is None else ROW_FORMAT)}
    )
    if row.run is not None:
        item["job"] = {"M": fields.attributes_of(RUN_OF_ROW.write(row.run))}
    if row.hold is not None:
        item["hold"] = {"S": row.hold}
    if row.retry is not None:
        item["retry"] = retry_attribute(row.retry)
    return item


def position_of_row(item: Item) -> Position | None:
    """The position of a stored row. None: it stands where Clockwork never puts one, at a number that it cannot name
    exactly."""
    try:
        position = position_of(fields.value_of(item, "scheduleTime", "N"))
    except Unreadable:
        return None
    return position if position > 0 else None


def row_of(item: Item, *, shard: ShardId, position: Position) -> Row | BrokenRow:
    """Reads a row with any content. Never raises."""
    try:
        check_format(item, newest=ROW_FORMAT)
        return Row(
            shard=shard,
            position=position,
            schedule=schedule_of(item, _client_id_of(item), _schedule_key_of(item), due_ms_of(position)),
            hold=RequestId(fields.text(item, "hold")) if "hold" in item else None,
            retry=retry_of(item),
            run=_job_of(item),
        )
    except Unreadable as error:
        return BrokenRow(
            shard=shard,
            position=position,
            reason=str(error),
            raw=_raw(item, shard, position),
            newer_format=isinstance(error, NewerFormat),
            lane=checks.readable_or_none(_lane_of, item),
            client_id=checks.readable_or_none(_client_id_of, item),
            schedule_key=checks.readable_or_none(_schedule_key_of, item),
            of_job="job" in item or item.get("v") == number(ROW_FORMAT),
            run=checks.readable_or_none(_job_of, item),
        )


def _job_of(item: Item) -> RunOfRow | None:
    """The attribute `job` of a row. Raises: Unreadable, also for a row that has none and the format of those that have: it
    would be taken for a schedule."""
    if ("job" in item) != (item.get("v") == number(ROW_FORMAT)):
        raise Unreadable("job: missing, or in a row of another format")
    return RUN_OF_ROW.read(fields.values_of(fields.mapping(item, "job"))) if "job" in item else None


def retry_attribute(retry: Retry) -> Attribute:
    """The attribute `retry` of a row."""
    members = {"at": number(retry.at_ms), "epoch": number(retry.epoch), "attempts": number(retry.attempts)}
    return {"M": members | _refusal_item(retry.last_refusal)}


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
        attempts=_attempts_of(inner),
        last_refusal=_refusal_of(inner),
    )


def _refusal_item(last_refusal: str | None) -> Item:
    return {} if last_refusal is None else {"lastRefusal": {"S": last_refusal}}


def _refusal_of(item: Item) -> str | None:
    return fields.text(item, "lastRefusal") if "lastRefusal" in item else None


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
    check_format(item)
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
    """Reads the note of commands of a key.

    Raises: Unreadable, NewerFormat.
    """
    check_format(item)
    try:
        places = offsets_of_text(fields.text(item, "command"))
    except ValueError as error:
        raise Unreadable("command: not the places of commands") from error
    return CommandNote(offsets=places, by=fields.text(item, "by"), expires_at_s=fields.integer(item, "expiresAt"))


def outcome_item(outcome: Outcome) -> Item:
    """An outcome as it is stored, with the whole content of its schedule, so that a later request can be answered;
    without, if the item would be too large."""
    checks.check_outcome(outcome)
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
    if (schedule := outcome.schedule) is not None and fits_an_outcome(schedule):
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
        ended = {"reason": {"S": failure.reason}, "attempts": number(failure.attempts)}
        item["failure"] = {"M": ended | _refusal_item(failure.last_refusal)}
    if outcome.moved_to is not None:
        item["movedTo"] = {"N": text_of(outcome.moved_to)}
    return item


def outcome_of(item: Item) -> Outcome:
    """Reads an outcome.

    Raises: Unreadable, NewerFormat.
    """
    check_format(item)
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
        failure = Failure(
            reason=fields.text(inner, "reason"), attempts=_attempts_of(inner), last_refusal=_refusal_of(inner)
        )
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


# --- shards, incarnations, the cluster


def shard_item(shard: ShardId, state: ShardState) -> Item:
    """A shard's state as it is stored."""
    item = shard_key(shard) | {
        "v": number(EXECUTIONS_FORMAT),
        "epoch": number(state.epoch),
        "floor": number(state.floor_ms),
    }
    return item if state.owner is None else item | {"owner": {"S": state.owner}}


def shard_state_of(item: Item) -> ShardState:
    """Reads a shard's state.

    Raises: Unreadable, NewerFormat.
    """
    _check_executions_format(item)
    return ShardState(
        epoch=fields.integer(item, "epoch"),
        owner=IncarnationId(fields.text(item, "owner")) if "owner" in item else None,
        floor_ms=fields.integer(item, "floor"),
    )


def node_item(state: NodeState) -> Item:
    """An incarnation's state as it is stored."""
    item = node_key(state.incarnation) | {
        "v": number(EXECUTIONS_FORMAT),
        "frontier": number(state.frontier_ms),
        "slots": number(state.slots),
        # Also an empty one: an update can set an entry only of a map that is there.
        "hints": {"M": hints_attributes(state.hints)},
        "node": {"S": state.node},
    }
    return item if state.fenced_at_ms is None else item | {"fenced": number(state.fenced_at_ms)}


def hints_attributes(hints: Mapping[int, int]) -> Item:
    """The entries of the attribute `hints`, by slot."""
    return {str(slot): number(offset) for slot, offset in hints.items()}


def node_state_of(item: Item) -> NodeState:
    """Reads an incarnation's state.

    Raises: Unreadable, NewerFormat.
    """
    _check_executions_format(item)
    name = fields.text(item, "partitionId")
    if not name.startswith(NODE):
        raise Unreadable("partitionId: not an incarnation's")
    hints = fields.mapping(item, "hints")
    if not all(slot.isdecimal() for slot in hints):
        raise Unreadable("hints: not of slots")
    return NodeState(
        incarnation=IncarnationId(name.removeprefix(NODE)),
        frontier_ms=fields.integer(item, "frontier"),
        fenced_at_ms=fields.integer(item, "fenced") if "fenced" in item else None,
        slots=fields.integer(item, "slots"),
        hints={int(slot): fields.integer(hints, slot) for slot in hints},
        node=fields.text(item, "node", empty=True),
    )


def cluster_item(shards: int) -> Item:
    """The item that holds the shard count."""
    return {"partitionId": {"S": CLUSTER}, "v": number(EXECUTIONS_FORMAT), "shards": number(shards)}


def shard_count_of(item: Item) -> int:
    """Reads the shard count.

    Raises: Unreadable, NewerFormat.
    """
    _check_executions_format(item)
    return fields.integer(item, "shards")


# --- parts


def _name_item(client_id: ClientId, schedule_key: ScheduleKey) -> Item:
    return {"clientId": {"S": client_id}, "scheduleKey": {"S": schedule_key}}


def check_format(item: Item, *, oldest: int = 1, newest: int = FORMAT) -> None:
    """Raises: NewerFormat, Unreadable (older, or none)."""
    checks.check_format(fields.integer(item, "v"), oldest=oldest, newest=newest)


def _check_executions_format(item: Item) -> None:
    """An item of the format before has no floor, and its frontier must not be taken for one while its owner may be alive:
    `python -m infra.migrate.upgrade` settles it."""
    check_format(item, oldest=EXECUTIONS_FORMAT, newest=EXECUTIONS_FORMAT)


def _client_id_of(item: Item) -> ClientId:
    return checks.client_id_of(fields.text(item, "clientId"), "clientId")


def _schedule_key_of(item: Item) -> ScheduleKey:
    return checks.schedule_key_of(fields.text(item, "scheduleKey"), "scheduleKey")


def _attempts_of(item: Item) -> int:
    return checks.attempts_of(fields.integer(item, "attempts"), "attempts")


def _lane_of(item: Item) -> Lane:
    return (Topic(fields.text(item, "topic")), OrderingKey(fields.text(item, "orderingKey")))


def _raw(item: Item, shard: ShardId, position: Position) -> bytes:
    raw = fields.as_json(item)
    if len(raw) > checks.RAW_BYTES_MAX:
        return fields.as_json(row_key(shard, position) | {"omitted_bytes": len(raw)})
    return raw


def _policy_attribute(policy: RetryPolicy) -> Attribute:
    return {
        "M": {
            "attempts": number(policy.attempts_max),
            "initial": number(policy.backoff.initial_ms),
            "max": number(policy.backoff.max_ms),
            "factorPercent": number(policy.backoff.factor_percent),
            "jitterPercent": number(policy.jitter_percent),
        }
    }


def _policy_of(item: Item) -> RetryPolicy | None:
    if "retryPolicy" not in item:
        return None
    inner = fields.mapping(item, "retryPolicy")
    return RetryPolicy(
        attempts_max=fields.integer(inner, "attempts"),
        backoff=BackoffPolicy(
            initial_ms=fields.integer(inner, "initial"),
            max_ms=fields.integer(inner, "max"),
            factor_percent=fields.integer(inner, "factorPercent"),
        ),
        jitter_percent=fields.integer(inner, "jitterPercent"),
    )
