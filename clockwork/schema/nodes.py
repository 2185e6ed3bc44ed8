"""Answers about the processes of a cluster."""

from typing import Annotated

from pydantic import BaseModel, Field

from clockwork.schema.validation import DOCUMENT


class NodeDocument(BaseModel):
    """A process, as it last told of itself."""

    model_config = DOCUMENT

    process: str
    """Its id, drawn anew at each start."""
    node: str
    """Host and process number."""
    role: str
    """The work of its node: `all`, `api` or `worker`."""
    version: str
    """Its version of Clockwork."""
    since_ms: Annotated[int, Field(alias="since")]
    """Time of its start, in epoch milliseconds."""
    seen_at_ms: Annotated[int, Field(alias="seenAt")]
    """Time of this report, in epoch milliseconds."""
    gone: bool
    """True: it has been silent for 30 seconds."""
    accepts: bool
    fires: bool
    shards: int
    """Shards that it owns."""
    assigned: int
    """Shards that the consumer group assigns to it."""
    created_per_second: Annotated[float, Field(alias="createdPerSecond")]
    delivered_per_second: Annotated[float, Field(alias="deliveredPerSecond")]
    loop_lag_ms: Annotated[int, Field(alias="loopLagMs")]
    """The longest delay of its event loop since the report before."""
    clock_skew_ms: Annotated[int | None, Field(alias="clockSkewMs")] = None
    """Its clock less the store's, as far as certain; absent: not compared yet."""
    kafka: str | None
    """The reason why Kafka does not answer it; null: it does."""
    store: str | None
    """The same of the store."""
    member: bool | None = None
    """True if it is in the consumer group; absent: Kafka was not there to ask, or it fires nothing."""


class DifferenceDocument(BaseModel):
    """A setting in which living processes of one version differ. Its values are not shown."""

    model_config = DOCUMENT

    setting: str
    processes: list[list[str]]
    """Groups of processes that have it alike, the largest first."""


class NodesDocument(BaseModel):
    """The processes of the cluster, by node."""

    model_config = DOCUMENT

    as_of_ms: Annotated[int, Field(alias="asOf")]
    """In epoch milliseconds."""
    nodes: list[NodeDocument]
    differences: list[DifferenceDocument]
    members_without_node: Annotated[list[str], Field(alias="membersWithoutNode")]
    """Members of the consumer group that have not reported: cut off from the store, or of another version."""
    members_unknown: Annotated[str | None, Field(alias="membersUnknown")] = None
    """The reason why the group could not be asked."""
