"""Activity: what happened to schedules, and how much of it a minute, for people who look. Pure.

An *event* is one thing that happened: a schedule was created, a record was delivered, a topic was paused. *Minutes* are
counts of a minute by topic. Neither carries a payload, and neither is a promise: both are best effort, and what was accepted
or delivered is known by its schedule alone.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import add
from typing import Final, Literal, NamedTuple, get_args

from clockwork.domain.destination import Topic
from clockwork.domain.run import JobId, RunId
from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.domain.sharding import ShardId

ChangeKind = Literal["created", "moved", "fired", "cancelled", "retried"]
"""Kinds of what a request did to one schedule. `moved`: changed, be it its due time or anything else; `fired`: made due now
(that it was sent is `delivered`); `retried`: armed again after it had failed."""
EndKind = Literal["delivered", "refused", "failed", "dropped"]
"""`refused`: an attempt that the topic refused, and that is made again; `failed`: ended with a dead letter; `dropped`: ended
without any record, because it was late."""
JobKind = Literal[
    "job_created",
    "job_changed",
    "job_paused",
    "job_resumed",
    "job_deleted",
    "job_restored",
    "job_run",
    "job_backfilled",
]
"""Kinds of what was asked of a recurring job; `job_run`: a run by hand."""
OneKind = Literal["discarded", "paused", "resumed", "fenced"]
"""Kinds of what was done to a dead letter, a client, a topic, or a shard's owner."""
BatchKind = Literal["batch_cancelled", "batch_fired", "batch_retried", "batch_discarded"]
"""Kinds of what was done to many schedules or dead letters in one request; each of them has its own event besides."""
ActionKind = OneKind | BatchKind | JobKind
EventKind = ChangeKind | EndKind | ActionKind
KINDS: Final[tuple[str, ...]] = tuple(
    name for kinds in (ChangeKind, EndKind, OneKind, BatchKind, JobKind) for name in get_args(kinds)
)

LATENESS_BOUNDS_MS: Final = (1, 2, 5, 10, 50, 100, 500, 1_000, 10_000, 60_000, 600_000, 3_600_000)
"""Upper bounds of the buckets of lateness; one more holds what is later."""
RATES: Final = ("created", "cancelled", "moved", "delivered", "retried", "failed")
"""The counts of a minute before its buckets of lateness, in their order. Two have the name of a kind of event and count
others (`RATE_OF_KIND`): `moved` also those that were fired and retried, `retried` the attempts that a topic refused."""
DELIVERED: Final = RATES.index("delivered")
COUNTS: Final = len(RATES) + len(LATENESS_BOUNDS_MS) + 1
MINUTE_MS: Final = 60_000
TOPICS_SHOWN: Final = 20
"""Topics that are counted apart, the largest; the rest are counted together."""
OTHER_TOPICS: Final = Topic("")
"""Stands for the rest: no topic has an empty name."""
WAITS_RECORDED: Final = 20
"""Topics that wait, in the record of a minute; those that wait longest."""
FORECAST_MINUTES: Final = 63
"""Buckets of a recorded forecast: an hour, and the age that it may have when it is shown."""
FORECAST_NAMES: Final = 10
"""Topics, and clients, of a recorded forecast, the largest: names are most of its bytes."""


class Event(NamedTuple):
    """One event. A tuple, because thousands are made a second: it is written as a JSON array in this order. None: there is
    no such thing."""

    kind: EventKind
    at_ms: int
    client_id: ClientId | None = None
    schedule_key: ScheduleKey | None = None
    shard: ShardId | None = None
    topic: Topic | None = None
    result: str | None = None
    """The reason of a refusal or failure: a short stable code."""
    lateness_ms: int | None = None
    kafka_partition: int | None = None
    offset: int | None = None
    """Place of the record, or of the dead letter."""
    attempts: int | None = None
    by: str | None = None
    """Name of the principal that asked for it."""
    job_id: JobId | None = None
    run_id: RunId | None = None
    delivery_id: str | None = None
    """Given for a delivery, a refusal or a failure: consumers know a record by it. Others do without: it is random, and
    makes up half of an event's bytes."""
    number: int | None = None
    """The number of things that an action was about."""
    answers: Mapping[str, int] | None = None
    """The number of things by the answer that they got: `done`, or the reason why not."""
    reason: str | None = None
    """The reason that its person gave."""
    last_refusal: str | None = None
    """The reason of the last refusal before a failure: a short stable code."""
    stands_for: int = 1
    """The number of events that it stands for, about: above a rate only each n-th of its kind is kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleChange:
    """The effect of a request on one schedule."""

    kind: ChangeKind
    client_id: ClientId
    schedule_key: ScheduleKey
    shard: ShardId | None
    topic: Topic | None
    """None where the content could not be read."""
    by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """A deed of a person or program to something as a whole, or to many at once. Without any payload."""

    kind: ActionKind
    by: str
    """Name of the principal."""
    client_id: ClientId | None = None
    schedule_key: ScheduleKey | None = None
    job_id: JobId | None = None
    topic: Topic | None = None
    shard: ShardId | None = None
    number: int | None = None
    """See `Event`, like the next two."""
    answers: Mapping[str, int] | None = None
    reason: str | None = None


RATE_OF_KIND: Final[dict[str, int]] = {
    "created": 0,
    "cancelled": 1,
    "moved": 2,
    "fired": 2,
    "retried": 2,
    "delivered": DELIVERED,
    "refused": 4,
    "failed": 5,
    "dropped": 5,
}
"""The place among `RATES` in which an event counts; other kinds do not."""


def lateness_bucket_index(lateness_ms: int) -> int:
    """The place of the bucket among a minute's counts."""
    return len(RATES) + bisect_left(LATENESS_BOUNDS_MS, lateness_ms)


def add_counts(to: list[int], more: Sequence[int]) -> None:
    """Adds counts to others, place by place."""
    to[:] = map(add, to, more)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardsForecast:
    """The pending rows of a process's shards by their due times, as the record of a minute has them.

    A record has no name of its process: the shards say which records of a minute belong together.
    """

    as_of_ms: int
    from_ms: int
    """Begin of the first bucket, a whole minute. A row that is due before `as_of_ms` is in no bucket."""
    shards: Mapping[ShardId, int]
    """All shards of the process, with their rows in the buckets."""
    overdue: int | None
    """Rows that are due before `as_of_ms`; None: not known."""
    exact: int
    """The number of buckets, from the first on, that are exact; the others are estimated."""
    counts: Sequence[int]
    """By bucket, `FORECAST_MINUTES` of them."""
    topics: Mapping[str, int]
    """Rows of the `FORECAST_NAMES` largest, and under the empty name those of the rest. So with the next one."""
    clients: Mapping[str, int]
    looked_at: int
    units: float
    """Read units that it has cost."""


class TopicWait(NamedTuple):
    """A topic that takes no records at present, as the processes see it that send to it."""

    since_ms: int
    """Time of the first refusal."""
    reason: str
    """That of the latest: a short stable code."""


class TopicRateLimit(NamedTuple):
    """The rate limit of a topic within a minute, as told by the processes that delivered to it or held it back."""

    per_second: int
    """Deliveries a second, at most: of one process, or of those together that tell of it."""
    waits_begun: int
    """Times that the topic began to wait for its limit, not deliveries: it waits as a whole."""


@dataclass(kw_only=True, slots=True)
class MinuteCounts:
    """Counts of one minute: those of one process, or of all."""

    topics: dict[Topic, list[int]] = field(default_factory=dict)
    """`COUNTS` numbers by topic; `OTHER_TOPICS` for the rest."""
    processes: int = 1
    loop_lag_ms: int = 0
    """The longest delay of an event loop."""
    forecast: ShardsForecast | None = None
    """That of one process, made within the minute; never a sum."""
    waits: dict[Topic, TopicWait] = field(default_factory=dict)
    """The topics that waited at the end of the minute."""
    rate_limits: dict[Topic, TopicRateLimit] = field(default_factory=dict)
    """By topic, for those that have one and were delivered to or held back in the minute, as far as they were among their
    process's largest (`TOPICS_SHOWN`)."""

    def of(self, topic: Topic) -> list[int]:
        """The topic's counts, to be changed."""
        found = self.topics.get(topic)
        if found is None:
            found = self.topics[topic] = [0] * COUNTS
        return found

    def add(self, other: "MinuteCounts") -> None:
        """Adds those of another process in the same minute: those of another minute would add the limits up, too."""
        for topic, counts in other.topics.items():
            add_counts(self.of(topic), counts)
        self.waits = merged_waits(self.waits, other.waits)
        for topic, (per_second, waits_begun) in other.rate_limits.items():
            known = self.rate_limits.get(topic, TopicRateLimit(0, 0))
            self.rate_limits[topic] = TopicRateLimit(known.per_second + per_second, known.waits_begun + waits_begun)
        self.processes += other.processes
        self.loop_lag_ms = max(self.loop_lag_ms, other.loop_lag_ms)


def merged_waits(some: Mapping[Topic, TopicWait], more: Mapping[Topic, TopicWait]) -> dict[Topic, TopicWait]:
    """The waits of both; a topic that is in both waits since the earlier."""
    return {**some, **{topic: min(wait, some.get(topic, wait)) for topic, wait in more.items()}}


def longest_waits(waits: Mapping[Topic, TopicWait]) -> dict[Topic, TopicWait]:
    """The `WAITS_RECORDED` that began first, in that order."""
    return dict(sorted(waits.items(), key=lambda each: (each[1].since_ms, each[0]))[:WAITS_RECORDED])


def largest_topics(topics: Iterable[tuple[Topic, Sequence[int]]]) -> dict[Topic, list[int]]:
    """The `TOPICS_SHOWN` with the most, and the rest in one."""
    ranked = sorted(topics, key=lambda each: (each[0] == OTHER_TOPICS, -sum(each[1][: len(RATES)]), each[0]))
    kept: dict[Topic, list[int]] = {}
    for rank, (topic, counts) in enumerate(ranked):
        name = topic if rank < TOPICS_SHOWN else OTHER_TOPICS
        add_counts(kept.setdefault(name, [0] * COUNTS), counts)
    return kept
