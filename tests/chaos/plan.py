"""The disturbances of a run and their times: drawn from the seed, before anything is started.

The kinds come in shuffled rounds, the frequent ones several times a round, at times that are spread over the run with
jitter. So a short run has met every kind, and disturbances still overlap: a broker dies while a node is frozen.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

NODES: Final = 3
WARM_UP_S: Final = 2.0
EVERY_S: Final = 4.0
"""Mean time from one disturbance to the next."""
BACK_S: Final = 4.0
"""About what a node needs to be at work again; until then another one is broken, since this one has little to lose."""
BURST_MS: Final = 4_000
"""Many schedules are due at the multiples of this (see workload), so that it is known when nodes have their hands full."""
SKEW_ALLOWED_MS: Final = 2_000
"""A clock that is wrong by less keeps working (see clockwork.clock)."""
SKEW_SEEN_MS: Final = 3_000
"""A clock that is wrong by more is certainly noticed: the comparison is with whole seconds."""


class Kind(StrEnum):
    """The kind of a disturbance."""

    KILL = "node killed"
    RESTART = "node stopped and started"
    ZOMBIE = "node frozen past its session"
    STUTTER = "node frozen shortly"
    CLOCK_NEAR = "node with a clock within the bound"
    CLOCK_FAR = "node with a clock beyond the bound"
    CUT_OFF_STORE = "node killed while the store is frozen"
    CUT_OFF_BROKER = "node frozen past its session while the broker is"
    BROKER_KILL = "broker killed"
    BROKER_PAUSE = "broker frozen"
    STORE_PAUSE = "store frozen"


ROUND: Final = (
    *(Kind.KILL, Kind.KILL, Kind.RESTART, Kind.ZOMBIE),
    *(Kind.CUT_OFF_STORE, Kind.CUT_OFF_BROKER, Kind.STUTTER, Kind.CLOCK_NEAR, Kind.CLOCK_FAR),
    *(Kind.BROKER_KILL, Kind.BROKER_PAUSE, Kind.STORE_PAUSE),
)
"""One of each, and more of those that move shards."""

CUT_OFF: Final = (Kind.CUT_OFF_STORE, Kind.CUT_OFF_BROKER)
"""First the service stands still, so that what the node had begun is left half done, and then the node is struck. A kill
alone hardly ever falls between a commit and the tidy-up, which takes a few milliseconds."""
SUDDEN: Final = (*CUT_OFF, Kind.KILL, Kind.ZOMBIE, Kind.BROKER_KILL, Kind.STORE_PAUSE)
"""Those that may strike in the middle of a burst; the former always do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Disturbance:
    """One thing that goes wrong."""

    at_s: float
    """After the begin of the run."""
    kind: Kind
    node: int
    """Which; of no meaning for the services."""
    for_s: float
    """Time for which it lasts: down, frozen, or with a wrong clock."""
    offset_ms: int = 0
    """For a wrong clock: its lead on the true time; negative: behind."""
    jump_after_s: float | None = None
    """The clock is right at first, and jumps so long after the start of its node."""
    after_burst_ms: int | None = None
    """It waits for the next burst, and strikes so long after it: with records under way, commits unanswered, rows not yet
    tidied up."""

    @property
    def of_node(self) -> bool:
        """It breaks one node, not a service."""
        return self.kind not in (Kind.BROKER_KILL, Kind.BROKER_PAUSE, Kind.STORE_PAUSE)

    def __str__(self) -> str:
        where = f" {self.node}" if self.of_node else ""
        clock = f", {self.offset_ms:+d} ms" if self.offset_ms else ""
        jump = f" after {self.jump_after_s:.1f} s" if self.jump_after_s is not None else ""
        burst = f", {self.after_burst_ms} ms after a burst" if self.after_burst_ms is not None else ""
        return f"{self.at_s:6.1f} s {self.kind}{where} for {self.for_s:.1f} s{clock}{jump}{burst}"


def draw_plan(seed: int, *, seconds: float, session_timeout_ms: int) -> tuple[Disturbance, ...]:
    """The disturbances of a run, in the order of their times. Equal arguments give equal plans."""
    rng = random.Random(f"chaos plan {seed}")
    kinds = _rounds(rng)
    count = max(1, round((seconds - WARM_UP_S) / EVERY_S))
    every_s = max(0.0, seconds - WARM_UP_S) / count
    back_at_s = [0.0] * NODES
    plan = []
    for number in range(count):
        at_s = WARM_UP_S + (number + rng.random()) * every_s
        free = [node for node in range(NODES) if back_at_s[node] <= at_s]
        node = rng.choice(free) if free else back_at_s.index(min(back_at_s))
        drawn = _draw(rng, next(kinds), at_s=at_s, node=node, session_s=session_timeout_ms / 1_000)
        if drawn.of_node:
            back_at_s[node] = at_s + drawn.for_s + BACK_S
        plan.append(drawn)
    return tuple(plan)


def _rounds(rng: random.Random) -> Iterator[Kind]:
    while True:
        kinds = list(ROUND)
        rng.shuffle(kinds)
        yield from kinds


def _draw(rng: random.Random, kind: Kind, *, at_s: float, node: int, session_s: float) -> Disturbance:
    offset_ms = 0
    jump_after_s = None
    match kind:
        case Kind.KILL | Kind.RESTART | Kind.CUT_OFF_STORE:
            for_s = rng.choice([0.0, rng.uniform(0.0, 1.0), rng.uniform(1.0, 2.5 * session_s)])
        case Kind.ZOMBIE | Kind.CUT_OFF_BROKER:
            for_s = rng.uniform(1.3, 2.8) * session_s
        case Kind.STUTTER:
            for_s = rng.uniform(0.1, 0.8) * session_s
        case Kind.CLOCK_NEAR | Kind.CLOCK_FAR:
            for_s = rng.uniform(6.0, 12.0)
            offset_ms = _near_ms(rng) if kind is Kind.CLOCK_NEAR else _far_ms(rng)
            jump_after_s = rng.choice([None, rng.uniform(3.0, 5.0)])
        case Kind.BROKER_KILL:
            for_s = rng.uniform(0.0, 3.0)
        case Kind.BROKER_PAUSE | Kind.STORE_PAUSE:
            for_s = rng.choice([rng.uniform(0.2, 2.0), rng.uniform(2.0, 6.0)])
    return Disturbance(
        at_s=at_s,
        kind=kind,
        node=node,
        for_s=for_s,
        offset_ms=offset_ms,
        jump_after_s=jump_after_s,
        after_burst_ms=_after_burst_ms(rng, kind),
    )


def _after_burst_ms(rng: random.Random, kind: Kind) -> int | None:
    strikes = kind in CUT_OFF or (kind in SUDDEN and rng.random() < 0.5)
    return rng.randint(10, 200) if strikes else None


def _near_ms(rng: random.Random) -> int:
    return rng.choice([-1, 1]) * rng.randint(300, SKEW_ALLOWED_MS - 200)


def _far_ms(rng: random.Random) -> int:
    return rng.choice([-1, 1]) * rng.choice([rng.randint(SKEW_SEEN_MS + 500, 20_000), 3_600_000])
