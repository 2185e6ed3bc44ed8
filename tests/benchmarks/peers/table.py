"""The figures of all contenders, and the table of them that people read."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.benchmarks.figures import Finding, Goal, spread
from tests.benchmarks.peers.contenders import CLOCKWORK
from tests.benchmarks.peers.driver import DB_SCHEDULER

RATIO_GOALS_BESIDE: Final = DB_SCHEDULER.name
"""Goals that are ratios are held against this one."""
AFTER_A_KILL: Final = (
    "`kill -9`: a schedule of Clockwork is seen once by `read_committed` consumers, and another node goes on after the "
    "session. db-scheduler and River are at-least-once: a job that was killed between the acknowledgement of its record and "
    "the storing of its end runs again, and its record is there twice; another process takes it up when its heartbeats have "
    "been missing for long (db-scheduler) or it counts as stuck (River). Order: Clockwork keeps it for each ordering key, "
    "the peers do not."
)


@dataclass(kw_only=True, slots=True)
class Measure:
    """One thing that is measured of every contender, round by round."""

    what: str
    unit: str
    goal: Goal | None = None
    detail: bool = False
    """True: not for the table."""
    rounds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By contender."""

    def findings(self) -> list[Finding]:
        """Clockwork's rounds, beside each other contender's; once, alone, if there is none or the goal is no ratio."""
        ours = self.rounds[CLOCKWORK]
        others = {name: rounds for name, rounds in self.rounds.items() if name != CLOCKWORK}
        found = [
            Finding(
                scenario="peers",
                what=f"{self.what}, beside {name}",
                unit=self.unit,
                rounds=ours,
                yardstick=theirs,
                goal=self.goal if self.goal is not None and self.goal.of_ratio and name == RATIO_GOALS_BESIDE else None,
            )
            for name, theirs in others.items()
        ]
        if not found or (self.goal is not None and not self.goal.of_ratio):
            goal = self.goal if self.goal is not None and not self.goal.of_ratio else None
            found.insert(0, Finding(scenario="peers", what=self.what, unit=self.unit, rounds=ours, goal=goal))
        return found


class Measures:
    """All that is measured, in the order of its first mention."""

    def __init__(self) -> None:
        self._measures: dict[str, Measure] = {}

    def add(
        self, name: str, what: str, unit: str, value: float, *, goal: Goal | None = None, detail: bool = False
    ) -> None:
        """A contender's figure of one more round."""
        measure = self._measures.setdefault(what, Measure(what=what, unit=unit, goal=goal, detail=detail))
        measure.rounds[name].append(value)

    def all(self) -> list[Measure]:
        return list(self._measures.values())


def table(measures: Sequence[Measure], on: str) -> str:
    """Markdown: a row a measure, a column a contender, ours beside each as a ratio. `on`: machine and date."""
    shown = [each for each in measures if not each.detail]
    names = list(dict.fromkeys(name for each in shown for name in each.rounds))
    head = ["", *names]
    rows = [[f"{each.what}, {each.unit}", *(cell_of(each.rounds, name) for name in names)] for each in shown]
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(
        [
            f"{on}. Median (from–to) of the rounds, which alternate. Behind a peer's figure: Clockwork's divided by it, "
            "median of the rounds (2.00 × = twice the peer's).",
            "",
            *lines,
            "",
            AFTER_A_KILL,
            "",
        ]
    )


def cell_of(rounds: Mapping[str, Sequence[float]], name: str) -> str:
    """A contender's figure; of a peer, with Clockwork's ratio to it."""
    theirs = rounds.get(name)
    if not theirs:
        return ""
    ours = rounds.get(CLOCKWORK, ())
    if name == CLOCKWORK or len(ours) != len(theirs) or not all(theirs):
        return spread(theirs)
    ratio = statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
    return f"{spread(theirs)} · {ratio:.2f} ×"
