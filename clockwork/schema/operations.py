"""Answers of the operators' calls and of the node's own pages: pauses, shards, pending schedules, liveness, readiness."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from clockwork.domain.pauses import Pause, PauseKind
from clockwork.domain.rights import Principal, sees_events
from clockwork.schema.validation import DOCUMENT


class PausedDocument(BaseModel):
    """A client or topic that is paused."""

    model_config = DOCUMENT

    name: str
    since_ms: Annotated[int, Field(alias="since")]
    """In epoch milliseconds."""
    by: str | None = None
    """Name of the key or person that paused it, or gave the reason; absent: the caller is another, and may not
    see its events."""
    reason: str | None = None
    """The reason that was given."""


class PausesDocument(BaseModel):
    """All paused clients and topics."""

    model_config = DOCUMENT

    clients: list[PausedDocument]
    topics: list[PausedDocument]


class ShardDocument(BaseModel):
    """A shard; its parts were read at different moments."""

    model_config = DOCUMENT

    shard: int
    epoch: int | None = None
    """Number of take-overs."""
    owner: str | None = None
    """The incarnation that owns it: one run of a process's engine. Absent: it has no owner now."""
    floor_ms: Annotated[int | None, Field(alias="floor")] = None
    """Time up to which earlier owners may have read due schedules, in epoch milliseconds."""
    frontier_ms: Annotated[int | None, Field(alias="frontier")] = None
    """The same of its owner, in all its shards."""
    fenced_at_ms: Annotated[int | None, Field(alias="fencedAt")] = None
    """Time at which its owner was fenced, in epoch milliseconds; absent: it is not, and fires."""
    node: str | None = None
    """Host and process number of its owner."""
    oldest_due_ms: Annotated[int | None, Field(alias="oldestDue")] = None
    """Due time of its first row; absent: it has none."""
    lag_ms: int
    """Time since then; a row that was delivered counts until it is cleaned up."""
    oldest_paused: Annotated[Literal[True] | None, Field(alias="oldestPaused")] = None
    """True: its first row is due and held back by a pause, so its lag is no fault of its owner's. The rows behind it are not
    looked at."""
    oldest_topic: str | None = None
    """The topic of its first row; absent: it has none, or the row cannot be read."""
    problem: str | None = None
    """Reason why its item cannot be read."""


class ShardsDocument(BaseModel):
    """All shards, in the order of their numbers."""

    model_config = DOCUMENT

    shards: list[ShardDocument]


class FencedDocument(BaseModel):
    """An incarnation that was fenced: its shards change hands."""

    model_config = DOCUMENT

    incarnation: str
    node: str
    """Its host and process number."""
    fenced_at_ms: Annotated[int, Field(alias="fencedAt")]
    """In epoch milliseconds; earlier than this request if it was fenced before."""
    frontier_ms: Annotated[int, Field(alias="frontier")]
    """Time up to which it may have read due schedules, in epoch milliseconds; final."""
    shards: list[int]
    """All shards that it owned."""


class ReadyDocument(BaseModel):
    """The node can do what its role does."""

    model_config = DOCUMENT

    status: Literal["ready"]
    reasons: list[str]
    """Empty."""
    details: dict[str, Any]
    """State of the services that it depends on."""


class AliveDocument(BaseModel):
    """The node needs no restart."""

    model_config = DOCUMENT

    status: Literal["alive"]


def render_pause(kind: PauseKind, name: str, pause: Pause, principal: Principal) -> dict[str, Any]:
    """A pause, for this reader: a `PausedDocument`."""
    document: dict[str, Any] = {"name": name, "since": pause.since_ms}
    is_client = kind is PauseKind.CLIENT
    own = pause.by == principal.name
    if own or sees_events(principal, client_id=name if is_client else None, topic=None if is_client else name):
        document["by"] = pause.by
    return document if pause.reason is None else document | {"reason": pause.reason}
