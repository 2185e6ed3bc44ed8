"""Dead letters as JSON: naming one, and the answers about them."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from clockwork.schema.job import JobKeyForm
from clockwork.schema.schedule import KafkaOffset, KeyForm, StatusName
from clockwork.schema.validation import DOCUMENT


class LetterForm(KeyForm):
    """The name of one dead letter."""

    delivery_id: Annotated[str, Field(min_length=1)]
    """The delivery that was given up, as the letter has it."""


class RunLetterForm(JobKeyForm):
    """The name and the place of one dead letter of a run of a recurring job, as the letter has them."""

    delivery_id: Annotated[str, Field(min_length=1)]
    dead_letter_topic: Annotated[str, Field(min_length=1)]
    """One of the topics of dead letters."""
    partition: Annotated[int, Field(ge=0, le=2**31 - 1)]
    offset: Annotated[KafkaOffset, Field(ge=0, le=10**18 - 1)]


class DeadLetterDocument(BaseModel):
    """A record that was given up: why, and its place. A field that its headers do not have is absent."""

    model_config = DOCUMENT

    dead_letter_topic: str
    """The topic that it is in: the cluster's, or one of a client's own."""
    partition: int
    """Its Kafka partition there."""
    offset: KafkaOffset
    at_ms: Annotated[int, Field(alias="at")]
    """Time of giving up, in epoch milliseconds."""
    open: bool
    """True if its schedule is still failed with this very delivery, and the letter was not discarded; of a run of a job, if
    the run is in its log as failed and was not retried."""
    discarded_at_ms: Annotated[int | None, Field(alias="discardedAt")] = None
    """Time of its discard, in epoch milliseconds. Absent: it was not discarded, or its schedule is no longer failed with
    this very delivery."""
    client_id: str | None = None
    schedule_key: str | None = None
    schedule_time_ms: Annotated[int | None, Field(alias="scheduleTime")] = None
    """Due time, in epoch milliseconds."""
    delivery_id: str | None = None
    job_id: str | None = None
    """Given, like the next one, if it is of a run of a recurring job; `scheduleKey` is the same then."""
    run_id: str | None = None
    topic: str | None = None
    """The topic that it was meant for."""
    reason: str | None = None
    attempts: int | None = None
    last_refusal: str | None = None
    """The reason of the last refusal; absent: no attempt was refused for the record's content."""
    status: StatusName | None = None
    """Status of the schedule that has its key now; absent: there is none any more."""
    version: int | None = None
    """Version of the same; the condition (`If-Match`) of a retry."""
    ordering_key: str | None = None
    """Like the fields below, only for keys with the right `read` for the client."""
    headers: dict[str, str | None] | None = None
    """null for the value of each, where the key is redacted."""
    value: str | None = None
    value_encoding: Literal["text", "base64"] | None = None
    redacted: Literal[True] | None = None
    """There if the key may not see the content."""


class DeadLettersDocument(BaseModel):
    """A page of dead letters."""

    model_config = DOCUMENT

    dead_letters: list[DeadLetterDocument]
    """Letters of one Kafka partition are in the order of their offsets."""
    cursor: str | None
    """Asks for the next page; null once all have been read."""


class DiscardedDocument(BaseModel):
    """A dead letter that was discarded."""

    model_config = DOCUMENT

    client_id: str
    schedule_key: str
    delivery_id: str
    discarded_at_ms: Annotated[int, Field(alias="discardedAt")]
    """Time of the first discard, in epoch milliseconds."""
