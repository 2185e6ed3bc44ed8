"""Answers about activity: events, and counts by the minute."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field

from clockwork.domain.activity import LATENESS_BOUNDS_MS, RATES, Event, EventKind, TopicRateLimit
from clockwork.schema.validation import DOCUMENT


class EventDocument(BaseModel):
    """One event. A member is absent where there is no such thing."""

    model_config = DOCUMENT

    at_ms: Annotated[int, Field(alias="at")]
    """In epoch milliseconds."""
    kind: EventKind
    """`moved`: a request changed a schedule, its due time or anything else of it. `fired`: a request made it due now; that
    it was sent is `delivered`. `retried`: a request armed a failed one again. `refused`: a topic refused an attempt, and
    another follows."""
    client_id: Annotated[str | None, Field(alias="clientId")] = None
    schedule_key: Annotated[str | None, Field(alias="scheduleKey")] = None
    job_id: Annotated[str | None, Field(alias="jobId")] = None
    """For a run of a job, in place of the key."""
    run_id: Annotated[str | None, Field(alias="runId")] = None
    delivery_id: Annotated[str | None, Field(alias="deliveryId")] = None
    """Given for a delivery, a refusal or a failure."""
    shard: int | None = None
    topic: str | None = None
    result: str | None = None
    """The reason of a refusal or failure: a short stable code. No result of another kind of event."""
    last_refusal: Annotated[str | None, Field(alias="lastRefusal")] = None
    """The reason of the last refusal before a failure: a short stable code."""
    lateness_ms: Annotated[int | None, Field(alias="latenessMs")] = None
    """Delivery time less due time."""
    kafka_partition: Annotated[int | None, Field(alias="kafkaPartition")] = None
    """Place of its record, or of its dead letter."""
    offset: str | None = None
    """As text: it may be longer than JavaScript's numbers."""
    attempts: int | None = None
    by: str | None = None
    """Name of the key or person that asked for it."""
    count: int | None = None
    """The number of schedules, letters or shards that the action was about."""
    answers: dict[str, int] | None = None
    """Those of a batch by their answers: `done`, or the reason why not, such as `in_flight` or `schedule-not-found`."""
    reason: str | None = None
    """The reason that the caller gave."""
    sampled: int | None = None
    """The number of events that it stands for, about; absent: only itself."""


class EventsDocument(BaseModel):
    """Some events, oldest first."""

    model_config = DOCUMENT

    events: list[EventDocument]
    cursor: str
    """For what comes behind them; any node takes it."""
    more: bool
    """True: there is more behind them already."""
    missed: Literal[True] | None = None
    """Some events between the given cursor and these are no longer kept."""
    as_of_ms: Annotated[int, Field(alias="asOf")]
    """The node's time, in epoch milliseconds."""
    kept_from_ms: Annotated[int | None, Field(alias="keptFrom")] = None
    """Time of the oldest event in this node's memory; absent: it has none."""


class CountsDocument(BaseModel):
    """Numbers of what happened in some time."""

    model_config = DOCUMENT

    created: int
    cancelled: int
    moved: int
    """Schedules that a request changed, made due now, or armed again: events `moved`, `fired` and `retried`."""
    delivered: int
    retried: int
    """Attempts that a topic refused, and that are made again: events `refused`. Events `retried` count as `moved`."""
    failed: int
    """Schedules that failed, or were dropped because they were late."""
    lateness: Annotated[
        list[int], Field(min_length=len(LATENESS_BOUNDS_MS) + 1, max_length=len(LATENESS_BOUNDS_MS) + 1)
    ]
    """Deliveries by lateness: up to each of `latenessBoundsMs`, and beyond. Fire times that were caught up are left out."""


class RateLimitDocument(BaseModel):
    """The rate limit of a topic, of the latest minute asked for in which the topic was delivered to or held back, as far as
    it was among its process's largest."""

    model_config = DOCUMENT

    per_second: Annotated[int, Field(alias="perSecond")]
    """Deliveries a second, at most: the sum over the processes that tell of it, since each has the limit for itself."""
    waits: int
    """Times within that minute that the topic began to wait for its limit, not deliveries."""


class TopicCountsDocument(CountsDocument):
    """Those of one topic."""

    topic: str
    rate_limit: Annotated[RateLimitDocument | None, Field(alias="rateLimit")] = None
    """Absent: it has none, or no minute of the time asked for tells of it."""


class WaitingTopicDocument(BaseModel):
    """A topic that takes no records at present."""

    model_config = DOCUMENT

    topic: str
    since_ms: Annotated[int, Field(alias="since")]
    """Time of the first refusal since its last record, in epoch milliseconds."""
    reason: str
    """A short stable code: that of the latest refusal."""


class StepDocument(CountsDocument):
    """Those of one step."""

    at_ms: Annotated[int, Field(alias="at")]
    """Its begin, in epoch milliseconds."""
    processes: int | None = None
    """Processes that have told of it; absent for a key that does not cover every topic."""
    loop_lag_ms: Annotated[int | None, Field(alias="loopLagMs")] = None
    """The longest delay of an event loop; absent as above."""


class MinutesDocument(BaseModel):
    """Counts by step, and by topic over the whole time."""

    model_config = DOCUMENT

    from_ms: Annotated[int, Field(alias="from")]
    to_ms: Annotated[int, Field(alias="to")]
    step_ms: Annotated[int, Field(alias="stepMs")]
    as_of_ms: Annotated[int, Field(alias="asOf")]
    kept_from_ms: Annotated[int | None, Field(alias="keptFrom")] = None
    """The oldest minute in this node's memory; absent: it has none."""
    lateness_bounds_ms: Annotated[list[int], Field(alias="latenessBoundsMs")]
    minutes: list[StepDocument]
    """Steps in which something was told, oldest first."""
    topics: list[TopicCountsDocument]
    """The topics with the most, at most 20."""
    waiting: list[WaitingTopicDocument]
    """Topics that took no records at the end of the latest minute, whatever times were asked for; at most 20, the longest
    first."""
    other_topics: Annotated[CountsDocument | None, Field(alias="otherTopics")] = None
    """All others together; absent: there are none, or the key does not cover every topic."""


_MEMBERS: Final = (
    ("clientId", "client_id"),
    ("scheduleKey", "schedule_key"),
    ("jobId", "job_id"),
    ("runId", "run_id"),
    ("deliveryId", "delivery_id"),
    ("shard", "shard"),
    ("topic", "topic"),
    ("result", "result"),
    ("lastRefusal", "last_refusal"),
    ("latenessMs", "lateness_ms"),
    ("kafkaPartition", "kafka_partition"),
    ("attempts", "attempts"),
    ("by", "by"),
    ("count", "number"),
    ("answers", "answers"),
    ("reason", "reason"),
)


def render_event(event: Event) -> dict[str, Any]:
    """An event as a document."""
    document: dict[str, Any] = {"at": event.at_ms, "kind": event.kind}
    document |= {name: value for name, field in _MEMBERS if (value := getattr(event, field)) is not None}
    if event.offset is not None:
        document["offset"] = str(event.offset)
    if event.stands_for != 1:
        document["sampled"] = event.stands_for
    return document


def render_rate_limit(limit: TopicRateLimit | None) -> dict[str, Any]:
    """The rate limit of a topic, as a member of its document."""
    return {} if limit is None else {"rateLimit": {"perSecond": limit.per_second, "waits": limit.waits_begun}}


def render_counts(counts: Sequence[int]) -> dict[str, Any]:
    """Counts as a document."""
    return dict(zip(RATES, counts, strict=False)) | {"lateness": list(counts[len(RATES) :])}
