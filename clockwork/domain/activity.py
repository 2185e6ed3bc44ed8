"""Activity: what happened to schedules, and how much of it a minute, for people who look. Pure.

An *event* is one thing that happened: a schedule was created, a record was delivered, a topic was paused. *Minutes* are
counts of a minute by topic. Neither carries a payload, and neither is a promise: both are best effort, and what was accepted
or delivered is known by its schedule alone.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, get_args

from clockwork.domain.destination import Topic
from clockwork.domain.run import JobId, RunId
from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.domain.sharding import ShardId

ChangeKind = Literal["created", "moved", "fired", "cancelled", "retried"]
"""Kinds of what a request did to one schedule."""
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
ActionKind = Literal["discarded", "paused", "resumed", "fenced"] | JobKind
"""Kinds of what was done to a dead letter, a client, a topic, a shard's owner, or a job."""
EventKind = ChangeKind | EndKind | ActionKind
KINDS: Final[tuple[str, ...]] = (
    *get_args(ChangeKind),
    *get_args(EndKind),
    *("discarded", "paused", "resumed", "fenced"),
    *get_args(JobKind),
)

LATENESS_BOUNDS_MS: Final = (1, 2, 5, 10, 50, 100, 500, 1_000, 10_000, 60_000, 600_000, 3_600_000)
"""Upper bounds of the buckets of lateness; one more holds what is later."""
RATES: Final = ("created", "cancelled", "moved", "delivered", "retried", "failed")
"""The counts of a minute before its buckets of lateness, in their order."""
COUNTS: Final = len(RATES) + len(LATENESS_BOUNDS_MS) + 1
MINUTE_MS: Final = 60_000
TOPICS_SHOWN: Final = 20
"""Topics that are counted apart, the largest; the rest are counted together."""
OTHER_TOPICS: Final = Topic("")
"""Stands for the rest: no topic has an empty name."""


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


RATE_OF_KIND: Final[dict[str, int]] = {
    "created": 0,
    "cancelled": 1,
    "moved": 2,
    "fired": 2,
    "retried": 2,
    "delivered": 3,
    "refused": 4,
    "failed": 5,
    "dropped": 5,
}
"""The place among `RATES` in which an event counts; other kinds do not."""


def lateness_place(lateness_ms: int) -> int:
    """The place of the bucket among a minute's counts."""
    return len(RATES) + bisect_left(LATENESS_BOUNDS_MS, lateness_ms)


def add_counts(to: list[int], more: Sequence[int]) -> None:
    """Adds counts to others, place by place."""
    for place, count in enumerate(more):
        to[place] += count


@dataclass(kw_only=True, slots=True)
class MinuteCounts:
    """Counts of one minute: those of one process, or of all."""

    topics: dict[Topic, list[int]] = field(default_factory=dict)
    """`COUNTS` numbers by topic; `OTHER_TOPICS` for the rest."""
    processes: int = 1
    loop_lag_ms: int = 0
    """The longest delay of an event loop."""

    def of(self, topic: Topic) -> list[int]:
        """The topic's counts, to be changed."""
        found = self.topics.get(topic)
        if found is None:
            found = self.topics[topic] = [0] * COUNTS
        return found

    def add(self, other: "MinuteCounts") -> None:
        """Adds those of another process, or of another minute."""
        for topic, counts in other.topics.items():
            add_counts(self.of(topic), counts)
        self.processes += other.processes
        self.loop_lag_ms = max(self.loop_lag_ms, other.loop_lag_ms)


def largest_topics(topics: Iterable[tuple[Topic, Sequence[int]]]) -> dict[Topic, list[int]]:
    """The `TOPICS_SHOWN` with the most, and the rest in one."""
    ranked = sorted(topics, key=lambda each: (each[0] == OTHER_TOPICS, -sum(each[1][: len(RATES)]), each[0]))
    kept: dict[Topic, list[int]] = {}
    for rank, (topic, counts) in enumerate(ranked):
        name = topic if rank < TOPICS_SHOWN else OTHER_TOPICS
        add_counts(kept.setdefault(name, [0] * COUNTS), counts)
    return kept
