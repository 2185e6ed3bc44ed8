"""Findings of a benchmark: figures of several rounds, beside those of a yardstick from the same rounds.

A ratio is taken round by round, ours and the yardstick's right after each other, and only then is the median taken: what
else the machine does, and how warm it is, falls on both. The spread is shown with it, because on a busy machine the
median alone says little.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """A bound of a figure, or of its ratio to the yardstick's."""

    bound: float
    at_least: bool = False
    of_ratio: bool = False

    def met_by(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}{' ×' if self.of_ratio else ''}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One figure."""

    scenario: str
    what: str
    unit: str
    rounds: Sequence[float]
    yardstick: Sequence[float] = ()
    """Figures of the same rounds; empty if there is none."""
    goal: Goal | None = None

    @property
    def value(self) -> float:
        return statistics.median(self.rounds)

    @property
    def ratios(self) -> list[float]:
        """Ours to the yardstick's, by size."""
        return sorted(ours / theirs for ours, theirs in zip(self.rounds, self.yardstick, strict=True) if theirs)

    @property
    def ratio(self) -> float | None:
        return statistics.median(self.ratios) if self.yardstick and self.ratios else None

    @property
    def met(self) -> bool | None:
        """None: there is no goal, or nothing to hold it against."""
        if self.goal is None:
            return None
        judged = self.ratio if self.goal.of_ratio else self.value
        return None if judged is None else self.goal.met_by(judged)

    def cells(self) -> list[str]:
        """As a row: scenario, what, ours, yardstick, ratio, goal, met."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f} × ({self.ratios[0]:.2f}–{self.ratios[-1]:.2f})"
        return [
            self.scenario,
            self.what,
            f"{spread(self.rounds)} {self.unit}",
            f"{spread(self.yardstick)} {self.unit}" if self.yardstick else "",
            ratio,
            str(self.goal) if self.goal else "",
            {None: "", True: "yes", False: "**no**"}[self.met],
        ]

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "scenario": self.scenario,
            "what": self.what,
            "unit": self.unit,
            "rounds": list(self.rounds),
            "median": self.value,
            "yardstick": list(self.yardstick),
            "ratio": self.ratio,
            "ratios": self.ratios if self.yardstick else [],
            "goal": str(self.goal) if self.goal else None,
            "met": self.met,
        }


def spread(values: Sequence[float]) -> str:
    """Median, and from where to where."""
    middle = short(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({short(min(values))}–{short(max(values))})"


def short(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def quantile(values: Sequence[float], share: float) -> float:
    """By the nearest rank; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")
