"""What the calls under /admin answer, as models; see `documents`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from clockwork.api.documents import Absent

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

    partition: int
    """The Kafka partition of the dead-letter topic."""
    offset: int
    at_ms: Annotated[int, Field(alias="at")]
    """When it was given up, in epoch milliseconds."""
    open: bool
    """Its schedule is still failed with this very delivery: it can be retried."""
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
