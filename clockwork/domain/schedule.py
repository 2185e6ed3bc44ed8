"""A schedule, its stored forms, and how it may end.

                    create 201
                        │
                        ▼            PUT, fire: a new row, the old position ends as `superseded`
    ┌──────────────── pending ◄──────────────┐ ◄────────┐
    │                   │  └─────────────────┘          │ retry: a new row under the same key
    │ DELETE, granted   │ its owner's transaction commits
    ▼                   ▼                      ▼        │
 cancelled          delivered               failed ─────┘  (dead letter, in the same transaction)

Who is authoritative: while a row exists without an outcome, the schedule is pending. The outcome, once written, is
final. Which of the three ends it gets is decided by the owner of its shard (Kafka's commit) or by the API (the
transaction that deletes the row on condition of its hold): docs/design.md, sections 4 and 5.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

from clockwork.domain.destination import Destination, Topic
from clockwork.domain.position import Position, due_ms_of
from clockwork.domain.retry import RetryPolicy
from clockwork.domain.sharding import ShardId

ClientId = NewType("ClientId", str)
ScheduleKey = NewType("ScheduleKey", str)
OrderingKey = NewType("OrderingKey", str)
RequestId = NewType("RequestId", str)
"""Names one attempt of one cancel or reschedule; written into `hold`."""

EXPIRED = "expired"
"""The reason of a failure: the deadline had passed."""

Lane = tuple[Destination, OrderingKey]
"""The schedules with one destination and one ordering key; order is kept within a lane."""


class Guarantee(StrEnum):
    """How often a consumer sees a schedule."""

    EXACTLY_ONCE = "exactly_once"
    AT_LEAST_ONCE = "at_least_once"


class DataForm(StrEnum):
    """How `taskData` was given, so that it is answered the same way."""

    JSON = "json"
    """Any JSON value but a string; stored as compact JSON."""
    TEXT = "text"
    """A JSON string; stored as its UTF-8 bytes."""
    BASE64 = "base64"
    """Bytes, given as base64."""


class OnLate(StrEnum):
    """What becomes of a schedule whose deadline has passed before it could be delivered."""

    DELIVER = "deliver"
    """It is delivered all the same."""
    DROP = "drop"
    """It ends as `failed`, without any record; of at_least_once one may come all the same, of a send whose answer was lost
    or by a zombie, out of its lane's order."""
    DEAD_LETTER = "dead_letter"
    """It ends as `failed`, with a dead letter; of at_least_once the record may have come before, of an owner that died
    before it could write that down."""


class EndState(StrEnum):
    """How the schedule at one position ended."""

    DELIVERED = "delivered"
    CANCELLED = "cancelled"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    """Not an end of the schedule: it stands at another position now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """What a client asked for. Written once, never changed."""

    client_id: ClientId
    schedule_key: ScheduleKey
    ordering_key: OrderingKey
    due_ms: int
    """`scheduleTime`, in epoch milliseconds."""
    topic: Topic
    guarantee: Guarantee
    task_data: bytes
    """The record's value, exactly."""
    data_form: DataForm
    headers: tuple[tuple[str, str], ...] = ()
    """The caller's own headers, sorted by name."""
    traceparent: str | None = None
    deadline_ms: int | None = None
    """How long after its due time it is late. None: never."""
    on_late: OnLate = OnLate.DELIVER
    retry: RetryPolicy | None = None
    """For when its record is refused for what it is. None: the cluster's."""
    created_at_ms: int
    version: int
    """Counts the changes under one key, over all schedules that ever stood there."""
    delivery_id: str
    """One for each due time that was set; the same in every attempt to deliver."""

    @property
    def destination(self) -> Destination:
        return self.topic

    @property
    def lane(self) -> Lane:
        return (self.topic, self.ordering_key)

    @property
    def size_bytes(self) -> int:
        """What it weighs in memory and in a record: data, headers, and a flat sum for the rest."""
        return len(self.task_data) + sum(len(k.encode()) + len(v.encode()) for k, v in self.headers) + 512


@dataclass(frozen=True, kw_only=True, slots=True)
class RowName:
    """The name of a row: its place, and its key. A store finds the row by the one or by the other."""

    shard: ShardId
    position: Position
    client_id: ClientId | None
    schedule_key: ScheduleKey | None
    """Both None for a row whose key cannot be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Why a row that is due is not fired yet."""

    at_ms: int
    """Not fired before this time."""
    epoch: int
    """Of the owner that wrote it; a cancel believes only the present owner's."""
    attempts: int
    """How often its record was refused for what it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A pending schedule as it is stored, at its position."""

    shard: ShardId
    position: Position
    schedule: Schedule
    hold: RequestId | None = None
    retry: Retry | None = None

    @property
    def due_ms(self) -> int:
        return due_ms_of(self.position)

    @property
    def name(self) -> RowName:
        return RowName(
            shard=self.shard,
            position=self.position,
            client_id=self.schedule.client_id,
            schedule_key=self.schedule.schedule_key,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class BrokenRow:
    """A row that this version cannot read."""

    shard: ShardId
    position: Position
    reason: str
    raw: bytes
    """The stored item as JSON, for the dead letter."""
    newer_format: bool
    """Written by a newer version: left alone, its lane waits."""
    lane: Lane | None = None
    """If topic and ordering key can be read."""
    client_id: ClientId | None = None
    schedule_key: ScheduleKey | None = None

    @property
    def due_ms(self) -> int:
        return due_ms_of(self.position)

    @property
    def name(self) -> RowName:
        key_is_read = self.client_id is not None and self.schedule_key is not None
        return RowName(
            shard=self.shard,
            position=self.position,
            client_id=self.client_id if key_is_read else None,
            schedule_key=self.schedule_key if key_is_read else None,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Pointer:
    """From a key to the schedule that stands under it now, or stood there last."""

    client_id: ClientId
    schedule_key: ScheduleKey
    shard: ShardId
    position: Position
    digest: str
    """Of the create; kept by a reschedule, so that a late repeat of the create is recognised."""
    version: int
    expires_at_s: int
    """TTL, in epoch seconds (the unit DynamoDB's TTL wants)."""
    rearmed: bool = False
    """What stands here had failed and was armed again; kept by a reschedule. A repeat of that request is known by it."""
    discarded_at_ms: int | None = None
    """When it was first said that what failed here needs nothing any more; `operations.dead_letters`. None: it was not."""

    @property
    def row_name(self) -> RowName:
        """The name of the row that it points to, if that is still there."""
        return RowName(
            shard=self.shard, position=self.position, client_id=self.client_id, schedule_key=self.schedule_key
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """Where a record is."""

    kafka_partition: int
    offset: int
    at_ms: int
    """The record's timestamp."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why a schedule was not delivered."""

    reason: str
    """Short stable code, as in `Refusal.reason`; `EXPIRED`, `unreadable`, `attempts_exhausted`."""
    attempts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How the schedule at a position ended; final once written."""

    client_id: ClientId
    schedule_key: ScheduleKey
    position: Position
    state: EndState
    at_ms: int
    schedule: Schedule | None
    """Its content; None only where the row could not be read, and for `superseded`."""
    receipt: Receipt | None = None
    """Delivered: where. Failed: where its dead letter is; None if it was dropped."""
    failure: Failure | None = None
    moved_to: Position | None = None
    """Superseded: where it stands since. Tells a request whose answer was lost whether it was that request's own doing."""
    expires_at_s: int


def outcome_expiry_s(*, due_ms: int, end_ms: int, retention_ms: int) -> int:
    """The later of due time and end, plus the retention; epoch seconds."""
    return (max(due_ms, end_ms) + retention_ms) // 1_000
