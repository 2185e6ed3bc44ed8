"""The explanation of a schedule as JSON: the reason, as a code, as sentences, and the facts."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from clockwork.schema.operations import PausedDocument
from clockwork.schema.schedule import DeliveredDocument, FailedDocument, StatusName
from clockwork.schema.validation import DOCUMENT


class HoldingPauseDocument(PausedDocument):
    """The pause that holds the schedule back."""

    kind: Literal["client", "topic"]


class WaitingDestinationDocument(BaseModel):
    """A topic whose deliveries wait: it refuses records, or is at its rate limit."""

    model_config = DOCUMENT

    topic: str
    reason: str
    """A short stable code, such as `topic_missing` or `over_its_pace`."""
    since_ms: Annotated[int | None, Field(alias="since")] = None
    """Time of the first refusal since its last record, in epoch milliseconds; absent: it is not known, or the topic takes
    records, at its rate limit."""
    next_probe_ms: Annotated[int | None, Field(alias="nextProbeAt")] = None
    """In epoch milliseconds; absent: the node that answers does not deliver to it, and does not know."""


class WaitingRetryDocument(BaseModel):
    """The next attempt of a record."""

    model_config = DOCUMENT

    attempts: int
    """Attempts that were refused for the record's content."""
    next_at_ms: Annotated[int, Field(alias="nextAt")]
    """In epoch milliseconds."""
    last_refusal: str | None = None
    """The reason of the latest of these: a short stable code, such as `record_too_large`. Absent: there was none, and a
    change of it is under way."""


class InTheWayDocument(BaseModel):
    """The first pending one of the same topic and ordering key. Its names are absent where the key does not cover it."""

    model_config = DOCUMENT

    schedule_time_ms: Annotated[int, Field(alias="scheduleTime")]
    client_id: str | None = None
    schedule_key: str | None = None
    job_id: str | None = None
    """Given, in place of the key, if it is a run of a recurring job."""
    run_id: str | None = None


class WhyDocument(BaseModel):
    """The reason for which a schedule is not delivered yet; facts of other reasons are absent."""

    model_config = DOCUMENT

    client_id: str
    schedule_key: str
    as_of_ms: Annotated[int, Field(alias="asOf")]
    """In epoch milliseconds, by the node's clock."""
    status: StatusName
    version: int
    shard: int
    schedule_time_ms: Annotated[int, Field(alias="scheduleTime")]
    topic: str | None = None
    """Absent where the stored content could not be read."""
    reason: Literal[
        "ended",
        "not_due",
        "paused",
        "shard_without_owner",
        "shard_behind",
        "destination_waits",
        "retry",
        "behind",
        "due_now",
        "unknown",
    ]
    """The first one that holds, in this order."""
    text: str
    """The reason as a sentence."""
    advice: str
    """Advice for the reader: the next step."""
    ended_at_ms: Annotated[int | None, Field(alias="endedAt")] = None
    delivered: DeliveredDocument | None = None
    failed: FailedDocument | None = None
    due_in_ms: int | None = None
    paused: HoldingPauseDocument | None = None
    """Given for the reason `paused`, and for `not_due`: it will wait for that."""
    lag_ms: int | None = None
    """Age of the first row of its shard."""
    destination: WaitingDestinationDocument | None = None
    retry: WaitingRetryDocument | None = None
    behind: InTheWayDocument | None = None
    looked_at: int
    """Rows at the front of its shard that were read for this answer."""
    looked_at_all: bool
    """False: there are more rows before it, which were not read."""
