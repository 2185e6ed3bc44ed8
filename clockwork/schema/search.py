"""Findings of a search, as JSON."""

from typing import Annotated

from pydantic import BaseModel, Field

from clockwork.schema.schedule import ScheduleDocument
from clockwork.schema.validation import DOCUMENT


class FoundRunDocument(BaseModel):
    """A run of a recurring job that had the delivery."""

    model_config = DOCUMENT

    client_id: str
    job_id: str
    run_id: str


class FoundDocument(BaseModel):
    """The schedules that a search has found, without payloads and headers."""

    model_config = DOCUMENT

    q: str
    results: list[ScheduleDocument]
    """As they are now: one that was found by a delivery may have another `deliveryId` by now."""
    runs: list[FoundRunDocument]
    clients_looked_at: int
    clients_as_of_ms: Annotated[int | None, Field(alias="clientsAsOf")] = None
    """Time at which the clients were listed; absent: no list was needed. A client whose first create came later is not among
    them; name it, as `client/key`."""
    complete: bool
    """False: there are known clients in which the key was not looked for; name one, as `client/key`."""
