"""Forecasts, as JSON."""

from typing import Annotated

from pydantic import BaseModel, Field

from clockwork.schema.validation import DOCUMENT


class BucketDocument(BaseModel):
    """Rows that are due within a bucket of time."""

    model_config = DOCUMENT

    at_ms: Annotated[int, Field(alias="at")]
    """Its beginning, in epoch milliseconds."""
    count: int
    exact: bool
    """False: estimated."""


class ShardCountDocument(BaseModel):
    """Rows of one shard."""

    model_config = DOCUMENT

    shard: int
    count: int


class TopicCountDocument(BaseModel):
    """Rows for one topic."""

    model_config = DOCUMENT

    topic: str
    count: int


class ClientCountDocument(BaseModel):
    """Rows of one client."""

    model_config = DOCUMENT

    client_id: str
    count: int


class MostDeliveredDocument(BaseModel):
    """The minute with the most deliveries, of all processes together, among those in the node's memory."""

    model_config = DOCUMENT

    count: int
    at_ms: Annotated[int, Field(alias="at")]
    """Its begin, in epoch milliseconds."""
    since_ms: Annotated[int, Field(alias="since")]
    """The begin of the oldest minute in memory."""


class ForecastDocument(BaseModel):
    """Pending rows by their due times: a number for each bucket of a window."""

    model_config = DOCUMENT

    from_ms: Annotated[int, Field(alias="from")]
    to_ms: Annotated[int, Field(alias="to")]
    bucket_ms: int
    as_of_ms: Annotated[int, Field(alias="asOf")]
    """In epoch milliseconds, by the node's clock."""
    exact: bool
    """True: every bucket is exact."""
    exact_to_ms: Annotated[int, Field(alias="exactTo")]
    """The time up to which they are."""
    overdue: int | None = None
    """Rows that are due already; absent: not known, or the window does not begin at the present."""
    most_delivered: MostDeliveredDocument | None = None
    """A measure of what the cluster can do; absent: no delivery is known, or a client was asked for."""
    buckets: list[BucketDocument]
    by_shard: list[ShardCountDocument]
    """The largest, like the next two; shares of the rows that were read, scaled, where not all is exact."""
    by_topic: list[TopicCountDocument]
    by_client: list[ClientCountDocument]
    other_topics: int
    """Rows for all other topics."""
    other_clients: int
    looked_at: int
    """Rows that were read."""
    read_units: float
    """Read units that they have cost, when they were read."""
