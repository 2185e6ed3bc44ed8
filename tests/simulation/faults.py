"""The faults of a run, all of them drawn from the seed.

Swarm testing (Groce and others, 2012): a run does not have a little of everything, but some kinds of fault and not the
others, because kinds hide each other: where every second node is dead nothing gets far enough to go wrong subtly.
"""

import random
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

CALM_SHARE: Final = 0.06
"""Runs without any fault: what they find is wrong in plain daylight."""


class FaultKind(StrEnum):
    """Something that is done to a node, or to a service."""

    KILL = "kill"
    FREEZE = "freeze"
    CUT_STORE = "cut_store"
    CUT_KAFKA = "cut_kafka"
    CUT_BOTH = "cut_both"
    CUT_GROUP = "cut_group"
    """Only the group's coordinator cannot be reached: the node loses its shards and works on."""
    JUMP = "jump"
    STOP = "stop"
    STORE_DOWN = "store_down"
    STORE_SLOW = "store_slow"
    STORE_THROTTLES = "store_throttles"
    KAFKA_DOWN = "kafka_down"
    KAFKA_SLOW = "kafka_slow"
    TOPIC_MISSING = "topic_missing"
    TOPIC_AWAY = "topic_away"
    DEAD_LETTERS_AWAY = "dead_letters_away"
    REBALANCE = "rebalance"
    DEPOSE = "depose"
    """A broker loses its leaderships, and does not know."""
    HOT_SHARD = "hot_shard"
    """DynamoDB throttles the rows of one shard."""
    FENCE = "fence"
    """An operator fences the incarnation that owns a shard."""
    PAUSE_TOPIC = "pause_topic"
    """An operator pauses a topic."""


NODE_FAULTS: Final = (
    FaultKind.KILL,
    FaultKind.FREEZE,
    FaultKind.CUT_STORE,
    FaultKind.CUT_KAFKA,
    FaultKind.CUT_BOTH,
    FaultKind.CUT_GROUP,
    FaultKind.JUMP,
    FaultKind.STOP,
)

STORE_FAULTS: Final = (
    FaultKind.CUT_STORE,
    FaultKind.CUT_BOTH,
    FaultKind.STORE_DOWN,
    FaultKind.STORE_SLOW,
    FaultKind.STORE_THROTTLES,
    FaultKind.HOT_SHARD,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One thing that goes wrong at a time, and for how long."""

    at_s: float
    kind: FaultKind
    node: int
    for_s: float
    amount: float
    """Jump: by how many milliseconds. Topic: which."""


@dataclass(kw_only=True, slots=True)
class StepFault:
    """A fault at a step instead of at a time: the `nth` request of this kind, before it is sent or after it was done."""

    operation: str
    nth: int
    kind: FaultKind
    for_s: float
    after: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultSpots:
    """Steps at which nodes hesitate or die: faults that come with steps, and mostly with certain ones."""

    operations: tuple[str, ...] = ()
    share: float = 0.0
    """Share of those steps."""
    elsewhere: float = 0.0
    """Share of all other steps."""
    kinds: tuple[tuple[FaultKind, float, float], ...] = ()
    """Faults that come then, and for how long (from, to)."""


HICCUP: Final = (FaultKind.FREEZE, 0.002, 0.3)
"""Shorter than a session: no shard is taken over."""
PAUSE: Final = (FaultKind.FREEZE, 1.0, 4.0)
"""Longer: its shards are taken over, and the node wakes up as a zombie."""
STALL: Final = (FaultKind.FREEZE, 0.05, 0.6)
LONG_STALL: Final = (FaultKind.FREEZE, 0.2, 2.0)
"""Sometimes shorter than a session, sometimes longer."""
CRASH: Final = (FaultKind.KILL, 0.1, 0.6)
CUT_OFF: Final = (FaultKind.CUT_GROUP, 0.5, 4.0)
"""A zombie that does not sleep."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreFaults:
    """Of DynamoDB; shares of requests."""

    latency_s: float = 0.003
    throttled: float = 0.0
    throttled_operations: tuple[str, ...] = ()
    """Six in ten of these are throttled."""
    request_lost: float = 0.0
    answer_lost: float = 0.0
    late: float = 0.0
    """Carried out after the client was answered that the outcome is unknown."""
    duplicated: float = 0.0
    """Carried out once more later, though the first was answered (never a `hold`)."""
    slow_apply: float = 0.05
    """Transactions that take their time between two items."""
    slow_apply_s: float = 0.05
    slow_query: float = 0.05
    timeout_s: float = 0.8


CALM_STORE: Final = StoreFaults(latency_s=0.002, slow_apply=0.0, slow_query=0.0, timeout_s=0.15)
"""Faults in histories written by hand."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KafkaFaults:
    """Of Kafka; shares of requests."""

    latency_s: float = 0.002
    request_lost: float = 0.0
    answer_lost: float = 0.0
    late: float = 0.0
    stalled: float = 0.0
    """Produce requests without an answer until the sends' deadline."""
    settle_s: float = 0.004
    """From the decision to commit until the last Kafka partition shows it."""
    wakeup_lost: float = 0.02
    wakeup_doubled: float = 0.02
    preflight: float = 0.5
    """Share of deliveries that begin with fresh metadata."""
    commit_unanswered: float = 0.0
    """Commits whose request or answer is lost."""
    foreign_every_s: float = 0.0
    """Between two transactions of another producer in the markers' topic; 0: there are none."""
    group_lags: float = 0.0
    """Answers about the group that are behind by a rebalance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Everything that is drawn before a run."""

    nodes: int
    shards: int
    faults_end_s: float
    """Faults and new schedules end here; the healed phase begins."""
    schedules: int
    lead_ms: int
    scan_interval_ms: int
    batch_records_max: int
    session_s: float
    clock_offset_ms: float
    """At most, to either side."""
    store: StoreFaults = field(default_factory=StoreFaults)
    kafka: KafkaFaults = field(default_factory=KafkaFaults)
    faults: tuple[Fault, ...] = ()
    step_faults: tuple[StepFault, ...] = ()
    spots: FaultSpots = field(default_factory=FaultSpots)
    at_least_once: float = 0.0
    refused: float = 0.0
    """Share of schedules whose records their topic refuses, at first or always."""
    cancels: float = 0.4
    reuse: float = 0.3
    retry_initial_ms: int = 300
    lanes: int = 4
    past: float = 0.1
    """Share of schedules that are due already when they are created."""
    past_s_max: float = 0.8
    """The most that their time lies in the past."""
    crowded: float = 0.5
    """The share of due times that crowd together."""
    changes: float = 0.0
    """Share of schedules that are changed, fired, or armed again."""
    deadlines: float = 0.0
    """Share of schedules that are dropped, or become dead letters, or neither, when they are late."""
    commanded: int = 0
    """Schedules that are created by command; if there are none, no node reads commands."""
    pace_ms: int = 0
    quick_rows: int = 50
    """Most rows of a quick transaction; with more of them both slots are busy."""
    quick_wait_ms: int = 250
    """The other slot takes few rows, too, if the first one has waited for longer."""
    page_rows: int = 0
    """Rows of the largest page; 0: as the engine has it."""
    prefix_rows: int = 1
    """A blocked prefix of fewer rows is read again at each pass."""
    retention_ms: int = 7 * 86_400_000
    pointer_margin_ms: int | None = None
    """Time for which a pointer outlives its retention, and of which passes wait a third before they push it; None: as the
    engine has it, which no run reaches."""
    wakeups_certain: bool = False
    """Each wake-up arrives within 100 ms: so no schedule is overtaken because its time lies far back."""
    jobs: int = 0
    """Recurring jobs; without any, no node audits."""
    calendars: bool = False
    """Some of the jobs go by a named calendar, which changes while they fire."""
    job_losses: bool = False
    """Rows of jobs are deleted by hand."""
    audit_confirm_s: float = 1.0
    """Between the two looks of an audit."""
    own_letters: bool = False
    """The client has a topic of its own for dead letters, which refuses what its other topics refuse."""


OPERATIONS: Final = (
    "create",
    "hold",
    "cancel",
    "reschedule",
    "start_incarnation",
    "raise_slots",
    "read_nodes",
    "read_shards",
    "fence",
    "take_shards",
    "release_shard",
    "raise_frontier",
    "read_shard_and_node",
    "read_page",
    "drop_hold",
    "set_retry",
    "put_outcomes",
    "put_outcomes_if_absent",
    "delete_rows",
    "read_rows",
    "confirm_assignment",
    "init",
    "read_markers",
    "begin",
    "produce",
    "produce_marker",
    "refused",
    "commit",
    "send",
)


def draw_profile(rng: random.Random) -> Profile:
    """A profile of any kind."""
    calm = rng.random() < CALM_SHARE
    faults_end_s = rng.choice([4.0, 6.0, 9.0])
    nodes = rng.choice([2, 2, 3, 3, 4])
    kinds = rng.sample(list(FaultKind), k=0 if calm else rng.randint(1, 6))
    stormy = not calm and rng.random() < 0.6
    return Profile(
        nodes=nodes,
        shards=rng.choice([1, 2, 2, 3]),
        faults_end_s=faults_end_s,
        schedules=rng.choice([8, 14, 20, 28]),
        lead_ms=rng.choice([20, 100, 250, 250, 600]),
        scan_interval_ms=rng.choice([300, 1_000, 2_000]),
        batch_records_max=rng.choice([1, 2, 5, 50]),
        session_s=rng.choice([1.0, 2.0]),
        clock_offset_ms=0.0 if rng.random() < 0.4 else rng.choice([20.0, 200.0, 900.0, 1_500.0]),
        store=_store_faults(rng, stormy=stormy),
        kafka=_kafka_faults(rng, stormy=stormy),
        faults=_faults(rng, kinds, nodes=nodes, end_s=faults_end_s),
        step_faults=() if calm else _step_faults(rng, kinds),
        spots=FaultSpots() if calm else _spots(rng),
        at_least_once=rng.choice([0.0, 0.0, 0.3, 0.6]),
        refused=rng.choice([0.0, 0.0, 0.15, 0.3]),
        cancels=rng.choice([0.2, 0.5, 0.9]),
        reuse=rng.choice([0.0, 0.3, 0.7]),
        retry_initial_ms=rng.choice([300, 300, 1_500]),
        lanes=rng.choice([1, 2, 4, 8]),
        past=rng.choice([0.05, 0.3]),
        crowded=rng.random(),
        pace_ms=rng.choice([0, 10]),
        quick_rows=rng.choice([1, 2, 2, 50]),
        page_rows=rng.choice([0, 0, 1, 2]),
        prefix_rows=rng.choice([1, 1, 3]),
    )


def _rate(rng: random.Random, *, stormy: bool, at_most: float) -> float:
    return rng.uniform(0, at_most) if stormy and rng.random() < 0.5 else 0.0


def _store_faults(rng: random.Random, *, stormy: bool) -> StoreFaults:
    return StoreFaults(
        latency_s=rng.choice([0.002, 0.004, 0.015]),
        throttled=_rate(rng, stormy=stormy, at_most=0.2),
        request_lost=_rate(rng, stormy=stormy, at_most=0.05),
        answer_lost=_rate(rng, stormy=stormy, at_most=0.08),
        late=_rate(rng, stormy=stormy, at_most=0.08),
        duplicated=_rate(rng, stormy=stormy, at_most=0.1),
        slow_apply=rng.choice([0.0, 0.1, 0.5]),
        slow_apply_s=rng.choice([0.01, 0.1, 0.5]),
        slow_query=rng.choice([0.0, 0.1, 0.4]),
        timeout_s=rng.choice([0.3, 0.8]),
    )


def _kafka_faults(rng: random.Random, *, stormy: bool) -> KafkaFaults:
    return KafkaFaults(
        latency_s=rng.choice([0.001, 0.003, 0.02]),
        request_lost=_rate(rng, stormy=stormy, at_most=0.04),
        answer_lost=_rate(rng, stormy=stormy, at_most=0.08),
        late=_rate(rng, stormy=stormy, at_most=0.05),
        stalled=_rate(rng, stormy=stormy, at_most=0.05),
        commit_unanswered=_rate(rng, stormy=stormy, at_most=0.4),
        settle_s=rng.choice([0.002, 0.01, 0.2]),
        wakeup_lost=rng.choice([0.0, 0.1, 0.9]),
        wakeup_doubled=rng.choice([0.0, 0.2]),
        foreign_every_s=rng.choice([0.0, 0.0, 0.5, 2.0]),
        group_lags=rng.choice([0.0, 0.0, 0.2, 0.6]),
    )


def _faults(rng: random.Random, kinds: list[FaultKind], *, nodes: int, end_s: float) -> tuple[Fault, ...]:
    if not kinds:
        return ()
    found = []
    for _ in range(rng.randint(1, 8)):
        kind = rng.choice(kinds)
        amount = rng.choice([-1.0, 1.0]) * rng.choice([50.0, 700.0, 1_900.0, 5_000.0, 3_600_000.0])
        found.append(
            Fault(
                at_s=rng.uniform(0.2, end_s),
                kind=kind,
                node=rng.randrange(nodes),
                for_s=rng.choice([0.05, 0.4, 1.2, 3.0]) * rng.uniform(0.5, 1.5),
                amount=amount,
            )
        )
    return tuple(sorted(found, key=lambda fault: fault.at_s))


def _spots(rng: random.Random) -> FaultSpots:
    if rng.random() < 0.25:
        return FaultSpots()
    acts = rng.choice(
        [
            (HICCUP,),
            (PAUSE,),
            (HICCUP, PAUSE),
            (HICCUP, CUT_OFF),
            (CUT_OFF, PAUSE),
            ((FaultKind.KILL, 0.1, 1.0), HICCUP),
        ]
    )
    return FaultSpots(
        operations=tuple(rng.sample(OPERATIONS, k=rng.choice([1, 2, 4]))),
        share=rng.choice([0.03, 0.1, 0.4]),
        elsewhere=rng.choice([0.0, 0.001, 0.01]),
        kinds=acts,
    )


def _step_faults(rng: random.Random, kinds: list[FaultKind]) -> tuple[StepFault, ...]:
    of_nodes = [kind for kind in kinds if kind in NODE_FAULTS and kind is not FaultKind.JUMP] or [FaultKind.FREEZE]
    return tuple(
        StepFault(
            operation=rng.choice(OPERATIONS),
            nth=rng.randint(1, 12),
            kind=rng.choice(of_nodes),
            for_s=rng.choice([0.05, 0.5, 2.5, 4.0]) * rng.uniform(0.5, 1.5),
            after=rng.random() < 0.5,
        )
        for _ in range(rng.choice([0, 1, 1, 2, 4]))
    )
