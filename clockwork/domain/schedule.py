"""A schedule, its stored forms, and its possible ends.

                    create 201
                        │
                        ▼            PUT, fire: a new row, the old position ends as `superseded`
    ┌──────────────── pending ◄──────────────┐ ◄────────┐
    │                   │  └─────────────────┘          │ retry: a new row under the same key
    │ DELETE, granted   │ its owner's transaction commits
    ▼                   ▼                      ▼        │
 cancelled          delivered               failed ─────┘  (dead letter, in the same transaction)

Who is authoritative: while a row exists without an outcome, the schedule is pending. The outcome, once written, is
final. Its end is decided by the owner of its shard (Kafka's commit) or by a request (the transaction that deletes the
row on condition of its hold): docs/design.md, sections 4 and 5.
"""

from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Final, NewType

from clockwork.domain.destination import Destination, Topic
from clockwork.domain.position import Position, due_ms_of
from clockwork.domain.retry import RetryPolicy
from clockwork.domain.run import RunOfRow
from clockwork.domain.sharding import ShardId

ClientId = NewType("ClientId", str)
ScheduleKey = NewType("ScheduleKey", str)
OrderingKey = NewType("OrderingKey", str)
RequestId = NewType("RequestId", str)
"""Id of one attempt of one cancel or reschedule; written into `hold`."""

EXPIRED = "expired"
"""The reason of a failure: the deadline had passed."""
TIMED_OUT = "timed_out"
"""The reason of the end of a watchdog: a run was not completed in time."""
UNREADABLE = "unreadable"
"""The reason of a failure: the stored row could not be read."""

Lane = tuple[Destination, OrderingKey]
"""The schedules with one destination and one ordering key; order is kept within a lane."""


class Guarantee(StrEnum):
    """The delivery semantics of a schedule."""

    EXACTLY_ONCE = "exactly_once"
    AT_LEAST_ONCE = "at_least_once"


class DataForm(StrEnum):
    """The form of `taskData` in the request, which answers repeat."""

    JSON = "json"
    """Any JSON value but a string; stored as compact JSON."""
    TEXT = "text"
    """A JSON string; stored as its UTF-8 bytes."""
    BASE64 = "base64"
    """Bytes, given as base64."""


class OnLate(StrEnum):
    """The end of a schedule whose deadline has passed before it could be delivered."""

    DELIVER = "deliver"
    """It is delivered late."""
    DROP = "drop"
    """It ends as `failed`, without a record. Under at_least_once a record may still come, by a send whose answer was
    lost or by a zombie, out of its lane's order."""
    DEAD_LETTER = "dead_letter"
    """It ends as `failed`, with a dead letter. Under at_least_once its record may have come before, by an owner that
    died before it wrote the outcome."""


class EndState(StrEnum):
    """The end of the schedule at one position."""

    DELIVERED = "delivered"
    CANCELLED = "cancelled"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    """Not an end of the schedule: it has another position now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryContent:
    """The fields of a schedule, and of each occurrence of a recurring job, that say what is delivered, where and how. A
    field declared here, or in a class that adds to it, is carried from a create or a change to what is stored without being
    named again (`fields`)."""

    client_id: ClientId
    ordering_key: OrderingKey
    topic: Topic
    guarantee: Guarantee
    task_data: bytes
    """The record's value, exactly."""
    data_form: DataForm
    headers: tuple[tuple[str, str], ...] = ()
    """The caller's own headers, sorted by name."""
    traceparent: str | None = None
    deadline_ms: int | None = None
    """Time after the due time from which it is late. None: never."""
    on_late: OnLate = OnLate.DELIVER
    retry: RetryPolicy | None = None
    """Retry policy if its record is refused for its content. None: the cluster's."""

    def delivery_fields(self) -> dict[str, Any]:
        """The fields of this class by name: arguments of the classes that add to it."""
        return {name: getattr(self, name) for name in _DELIVERY_FIELDS}


_DELIVERY_FIELDS: Final = tuple(each.name for each in fields(DeliveryContent))


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleContent(DeliveryContent):
    """The fields of a schedule that its client gives."""

    schedule_key: ScheduleKey
    due_ms: int
    """`scheduleTime`, in epoch milliseconds; may lie in the past: due at once."""

    def fields(self) -> dict[str, Any]:
        """The fields by name: arguments of `Schedule`, and of `dataclasses.replace` of one."""
        return {name: getattr(self, name) for name in _CONTENT_FIELDS}


_CONTENT_FIELDS: Final = tuple(each.name for each in fields(ScheduleContent))


@dataclass(frozen=True, kw_only=True, slots=True)
class NewSchedule(ScheduleContent):
    """A create after validation and defaults; version, position and delivery id are given when it is accepted."""

    digest: str
    """Equal for, and only for, the same request again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedSchedule:
    """A pending schedule of another store: it keeps its position, and everything that its acceptance there has given it."""

    new: NewSchedule
    """Its content, and the digest of its create there."""
    position: Position
    created_at_ms: int
    version: int
    delivery_id: str
    rearmed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule(ScheduleContent):
    """A schedule as it was accepted. Written once, never changed."""

    created_at_ms: int
    version: int
    """Number of changes under the key, over all schedules that ever had it."""
    delivery_id: str
    """Idempotency key for consumers: one for each due time that was set, the same in every attempt."""

    @property
    def lane(self) -> Lane:
        return (self.topic, self.ordering_key)

    @property
    def size_bytes(self) -> int:
        """Size in memory and in a record: data, headers, and a flat sum for the rest."""
        size_bytes = len(self.task_data) + 512
        for name, value in self.headers:
            size_bytes += len(name.encode()) + len(value.encode())
        return size_bytes


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
    """The retry mark of a row that is due and waits."""

    at_ms: int
    """The row does not fire before this time."""
    epoch: int
    """Epoch of the owner that wrote it; a cancel believes only the present owner's."""
    attempts: int
    """Number of attempts that were refused for the record's content."""
    last_refusal: str | None = None
    """The reason of the latest of these: a short stable code. For people; nothing is decided by it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A pending schedule as it is stored, at its position."""

    shard: ShardId
    position: Position
    schedule: Schedule
    hold: RequestId | None = None
    retry: Retry | None = None
    run: RunOfRow | None = None
    """The occurrence that it is; None for a one-shot schedule, which has a pointer and an outcome under its key."""

    @property
    def of_job(self) -> bool:
        """True for an occurrence of a recurring job: its end is noted in the log of the job, never under a key."""
        return self.run is not None

    @property
    def is_watchdog(self) -> bool:
        """True for the time-out of an open run of a job: nothing is sent for it."""
        return self.run is not None and self.run.is_watchdog

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
    """Written by a newer version: left as it is, its lane waits."""
    lane: Lane | None = None
    """None if destination or ordering key cannot be read."""
    client_id: ClientId | None = None
    schedule_key: ScheduleKey | None = None
    of_job: bool = False
    """True if it is an occurrence of a recurring job: its key is a job's, and must not be taken for a schedule's."""
    run: RunOfRow | None = None
    """None also if this part cannot be read."""

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
    """The pointer from a key to its present or last schedule."""

    client_id: ClientId
    schedule_key: ScheduleKey
    shard: ShardId
    position: Position
    digest: str
    """Digest of the create; kept by a reschedule, so that a late repeat of the create is recognised."""
    version: int
    expires_at_s: int
    """TTL, in epoch seconds (the unit DynamoDB's TTL wants)."""
    rearmed: bool = False
    """True if the schedule had failed and was retried; kept by a reschedule. A repeat of the retry is recognised by
    it."""
    discarded_at_ms: int | None = None
    """Time of the first discard of its dead letter (`operations.dead_letters`). None: not discarded."""

    @property
    def row_name(self) -> RowName:
        """The name of the row that it points to, if that is still there."""
        return RowName(
            shard=self.shard, position=self.position, client_id=self.client_id, schedule_key=self.schedule_key
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """Acknowledgement of a record by the broker."""

    kafka_partition: int
    offset: int
    at_ms: int
    """The record's timestamp."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """The reason of a schedule that was not delivered."""

    reason: str
    """Short stable code, as in `Refusal.reason`; `EXPIRED`, `unreadable`, `attempts_exhausted`."""
    attempts: int
    last_refusal: str | None = None
    """The reason of the last of these attempts; None: no attempt was refused for the record's content, or, in a marker,
    it is not said (`with_last_refusal`)."""


def with_last_refusal(failure: Failure | None, row: Row | BrokenRow) -> Failure | None:
    """The failure of a row by its marker, with the last refusal of its record.

    The row has that, and a marker does not: the row is there until its end is written, and people alone read it. So the
    marker stays as small as it is. A late copy of an earlier retry mark may name an earlier refusal; the attempts, which
    are the marker's, stay right.
    """
    if failure is None or not isinstance(row, Row) or row.retry is None:
        return failure
    return replace(failure, last_refusal=row.retry.last_refusal)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The end of the schedule at a position; final once written."""

    client_id: ClientId
    schedule_key: ScheduleKey
    position: Position
    state: EndState
    at_ms: int
    schedule: Schedule | None
    """Content of the row; None only if the row could not be read, and for `superseded`."""
    receipt: Receipt | None = None
    """Receipt of the record, or of the dead letter; None if there is none (dropped, cancelled, superseded)."""
    failure: Failure | None = None
    moved_to: Position | None = None
    """The new position if superseded. A request whose answer was lost recognises its own change by it."""
    expires_at_s: int


def outcome_expiry_s(*, due_ms: int, end_ms: int, retention_ms: int) -> int:
    """Expiry of an outcome: the later of due time and end, plus the retention; epoch seconds."""
    return (max(due_ms, end_ms) + retention_ms) // 1_000


POINTER_MARGIN_MS: Final = 60 * 86_400_000
"""Time for which a pointer outlives the retention: a pass that reads a row which has waited for 20 days sets the date anew,
so a pointer is lost before its row only where no pass came by for 40 days."""


POINTER_PUSH_AFTER_MS: Final = 20 * 86_400_000
"""A row that is due for longer has its pointer's expiry set anew, and again after as long."""


def pointer_expiry_s(*, due_ms: int, at_ms: int, retention_ms: int) -> int:
    """Expiry of a pointer that is written at `at_ms`: the later of that and the due time, plus retention and margin; epoch
    seconds. The date decides nothing by itself: a key is free only by what stands at the pointer's position."""
    return (max(due_ms, at_ms) + retention_ms + POINTER_MARGIN_MS) // 1_000
