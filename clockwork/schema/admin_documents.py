"""What the calls under /admin answer, as models; see `documents`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from clockwork.schema.documents import Absent, ScheduleDocument

_ANSWER = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True)


class PausedDocument(BaseModel):
    """One client or topic that is paused."""

    model_config = _ANSWER

    name: str
    since_ms: Annotated[int, Field(alias="since")]
    """In epoch milliseconds."""


class PausesDocument(BaseModel):
    """Everything that is paused."""

    model_config = _ANSWER

    clients: list[PausedDocument]
    topics: list[PausedDocument]


class DeadLetterDocument(BaseModel):
    """What was given up, why, and where it lies. What its headers do not tell is absent."""

    model_config = _ANSWER

    dead_letter_topic: str
    """Where it lies: the cluster's topic, or one of a client's own."""
    partition: int
    """Its Kafka partition there."""
    offset: int
    at_ms: Annotated[int, Field(alias="at")]
    """When it was given up, in epoch milliseconds."""
    open: bool
    """Its schedule is still failed with this very delivery, and it was not discarded."""
    discarded_at_ms: Annotated[int | Absent, Field(alias="discardedAt")] = None
    """Since when it needs nothing any more, in epoch milliseconds; absent: it was not discarded, or its schedule is not
    failed with this very delivery any more."""
    client_id: str | Absent = None
    schedule_key: str | Absent = None
    schedule_time_ms: Annotated[int | Absent, Field(alias="scheduleTime")] = None
    """When it was due, in epoch milliseconds."""
    delivery_id: str | Absent = None
    topic: str | Absent = None
    """Where it should have gone."""
    reason: str | Absent = None
    attempts: int | Absent = None
    status: Literal["pending", "delivered", "cancelled", "failed"] | Absent = None
    """Of what stands under its key now; absent: nothing is known of it any more."""
    version: int | Absent = None
    """Of the same; the condition (`If-Match`) of a retry."""
    ordering_key: str | Absent = None
    """This, and what follows, only for keys with the right `read` for the client."""
    headers: dict[str, str] | Absent = None
    value: str | Absent = None
    value_encoding: Literal["text", "base64"] | Absent = None


class DeadLettersDocument(BaseModel):
    """A page of dead letters."""

    model_config = _ANSWER

    dead_letters: list[DeadLetterDocument]
    """Those of one Kafka partition in the order of their offsets."""
    cursor: str | None
    """Asks for the next page; null when all that was there has been read."""


class DiscardedDocument(BaseModel):
    """A dead letter that is open no longer."""

    model_config = _ANSWER

    client_id: str
    schedule_key: str
    delivery_id: str
    discarded_at_ms: Annotated[int, Field(alias="discardedAt")]
    """In epoch milliseconds; of the first time."""


class ShardDocument(BaseModel):
    """One shard; its parts as they were at different moments."""

    model_config = _ANSWER

    shard: int
    epoch: int | Absent = None
    """How often it was taken over."""
    owner: str | Absent = None
    """Names the last take-over: host, process and a random part; empty before the first."""
    frontier_ms: Annotated[int | Absent, Field(alias="frontier")] = None
    """Up to here its owner may have read what is due, in epoch milliseconds."""
    oldest_due_ms: Annotated[int | Absent, Field(alias="oldestDue")] = None
    """When the first of its rows is due; absent: it has none."""
    lag_ms: int
    """How long that is past; a row that is delivered and being tidied up counts, too."""
    problem: str | Absent = None
    """Why its item cannot be read."""


class ShardsDocument(BaseModel):
    """All shards, in the order of their numbers."""

    model_config = _ANSWER

    shards: list[ShardDocument]


class PendingDocument(BaseModel):
    """A page of pending schedules."""

    model_config = _ANSWER

    schedules: list[ScheduleDocument]
    """Those of clients that the key covers."""
    unreadable: int
    """Rows among those looked at that this version cannot read."""
    cursor: str | None
    """Asks for the next page; null at the end."""
