"""The next schedules, as JSON."""

from typing import Annotated

from pydantic import BaseModel, Field

from clockwork.schema.schedule import ScheduleDocument
from clockwork.schema.validation import DOCUMENT


class UpcomingScheduleDocument(ScheduleDocument):
    """A pending schedule, or the next run of a recurring job, without its payload and headers."""

    job_id: str | None = None
    """Given, like the next one, if it is a run of a job; `scheduleKey` is the same then, and is no key of a schedule."""
    run_id: str | None = None


class UpcomingDocument(BaseModel):
    """A page of pending schedules of all clients, the next one first."""

    model_config = DOCUMENT

    schedules: list[UpcomingScheduleDocument]
    cursor: str | None
    """Asks for the next page; null at the end."""
    as_of_ms: Annotated[int, Field(alias="asOf")]
    """In epoch milliseconds, by the node's clock."""
    looked_at: int
    """Rows that were read for this page: more than it has, if filters or the key leave many out."""
