"""What the HTTP API answers, as models: `openapi.json` is generated from them, and the client reads answers with them.

The service writes its answers without them (`schemas.answer`): they are its own values, and checking them again would
cost every request. That both agree is what tests/unit/test_openapi.py checks. Fields that these models do not know are
passed over, so that an older client can read a newer service.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.json_schema import SkipJsonSchema

Absent = SkipJsonSchema[None]
"""In a model's field: the member may be left out, but is never `null`."""

_ANSWER = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True)


class RetryDocument(BaseModel):
    """When a record is tried again that its topic refuses for what it is."""

    model_config = _ANSWER

    attempts: int
    initial_ms: int
    max_ms: int
    factor: float
    jitter: float
    """By how much a wait may be shorter, as a share."""


class DeliveryDocument(BaseModel):
    """Where a schedule goes, how surely, and what if it cannot go there in time."""

    model_config = _ANSWER

    topic: str
    guarantee: Literal["exactly_once", "at_least_once"]
    headers: dict[str, str]
    """The caller's own headers."""
    deadline_ms: Annotated[int | Absent, Field(alias="deadline")] = None
    """Milliseconds after `scheduleTime`; absent: never late."""
    on_late: Literal["deliver", "drop", "dead_letter"] | Absent = None
    retry: RetryDocument | Absent = None
    """Absent: the cluster's."""


class DeliveredDocument(BaseModel):
    """Where and when a record was delivered."""

    model_config = _ANSWER

    topic: str | None
    """null only where the stored content could not be read."""
    partition: int
    """The Kafka partition."""
    offset: int
    at_ms: Annotated[int, Field(alias="at")]
    """The record's timestamp, in epoch milliseconds."""
    lateness_ms: int
    """`at` less `scheduleTime`."""


class FailedDocument(BaseModel):
    """Why a schedule was given up; its dead letter tells the same."""

    model_config = _ANSWER

    reason: str
    """A short stable code, such as `topic_missing` or `record_too_large`."""
    at_ms: Annotated[int, Field(alias="at")]
    """In epoch milliseconds."""
    attempts: int


class _ContentDocument(BaseModel):
    """What a schedule is, whatever became of it. The content is absent only where what is stored could not be read."""

    model_config = _ANSWER

    client_id: str
    schedule_key: str
    schedule_time_ms: Annotated[int, Field(alias="scheduleTime")]
    """When it is due, in epoch milliseconds."""
    ordering_key: str | Absent = None
    task_data: Any = None
    """As it was given: any JSON value, or base64 text."""
    task_data_encoding: Literal["json", "base64"] | Absent = None
    delivery: DeliveryDocument | Absent = None
    created_at_ms: Annotated[int | Absent, Field(alias="createdAt")] = None
    """In epoch milliseconds."""
    delivery_id: str | Absent = None
    """One for each due time that was set; the record's header `clockwork-delivery-id`."""
    delivered: DeliveredDocument | Absent = None
    """Once it is delivered."""
    failed: FailedDocument | Absent = None
    """Once it failed."""


class ScheduleDocument(_ContentDocument):
    """A schedule and its state."""

    status: Literal["pending", "delivered", "cancelled", "failed"]
    version: int
    """Counts the changes under this key; also the `ETag`, in quotes."""
    shard: int


class PastDocument(_ContentDocument):
    """One schedule of a key's history: how it ended, or that a change moved it away from here."""

    status: Literal["delivered", "cancelled", "failed", "superseded"]
    ended_at_ms: Annotated[int, Field(alias="endedAt")]
    """In epoch milliseconds."""
    version: int | Absent = None


class FieldErrorDocument(BaseModel):
    """One wrong field of a request."""

    model_config = _ANSWER

    field: str
    """Where it is, such as `delivery.topic`; `body` for the body as a whole."""
    message: str
    """What to do about it."""


class ProblemDocument(BaseModel):
    """What went wrong (RFC 9457)."""

    model_config = _ANSWER

    type: str
    """A stable name of the kind of problem, for programs."""
    title: str
    """The same for every problem of the kind."""
    status: int
    """The HTTP status."""
    detail: str
    """What is wrong this time."""


class InvalidDocument(ProblemDocument):
    """Every wrong field at once."""

    errors: list[FieldErrorDocument] | Absent = None
    """Absent if what was sent is no HTTP that could be read."""


class ConflictDocument(ProblemDocument):
    """The schedule's state does not allow it."""

    reason: Literal["pending", "delivered", "failed", "cancelled", "in_flight"]
    """The state, or `in_flight`: too close to its time to say; ask again."""
    schedule: ScheduleDocument


class StaleDocument(ProblemDocument):
    """The schedule has another version."""

    schedule: ScheduleDocument
    """As it is now."""


class InternalDocument(ProblemDocument):
    """A mistake of the service's own; the outcome is unknown, and the same request again settles it."""

    error_id: str | Absent = None
    """What the service's log tells more under."""


class UnreadyDocument(ProblemDocument):
    """Why the node cannot do what its role does."""

    reasons: list[str] | Absent = None
    """Absent if there was no place for the connection."""
    details: dict[str, Any] | Absent = None


class ReadyDocument(BaseModel):
    """The node can do what its role does."""

    model_config = _ANSWER

    status: Literal["ready"]
    reasons: list[str]
    """Empty."""
    details: dict[str, Any]
    """More about what it depends on."""


class AliveDocument(BaseModel):
    """The node's event loop turns."""

    model_config = _ANSWER

    status: Literal["alive"]


class ItemDocument(BaseModel):
    """What became of one item of a batch."""

    model_config = _ANSWER

    status: int
    """What the single call would have answered."""
    schedule: ScheduleDocument


class BatchDocument(BaseModel):
    """One result for each item, in the order given; a problem document for those that failed."""

    model_config = _ANSWER

    results: list[ItemDocument | ConflictDocument | InvalidDocument]


class PageDocument(BaseModel):
    """A page of schedules."""

    model_config = _ANSWER

    schedules: list[ScheduleDocument]
    cursor: str | None
    """Asks for the next page; null at the end."""


class HistoryDocument(BaseModel):
    """A page of what stood under one key, newest first."""

    model_config = _ANSWER

    schedules: list[PastDocument]
    cursor: str | None
    """Asks for the next page; null at the end."""
