"""Answers about the clients of a cluster."""

from typing import Annotated

from pydantic import BaseModel, Field

from clockwork.schema.validation import DOCUMENT


class ClientDocument(BaseModel):
    """A client that has created something."""

    model_config = DOCUMENT

    client_id: Annotated[str, Field(alias="clientId")]
    first_day: Annotated[str, Field(alias="firstDay", pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
    """Day (UTC) of the first create that was noted."""
    last_day: Annotated[str, Field(alias="lastDay", pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
    """Day (UTC) of the last one."""


class ClientsDocument(BaseModel):
    """The covered clients, by name."""

    model_config = DOCUMENT

    clients: list[ClientDocument]
    complete: bool
    """False: there are more than were looked at."""
    as_of_ms: Annotated[int, Field(alias="asOf")]
    """In epoch milliseconds."""
