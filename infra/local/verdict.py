"""Verdict on a demo: the schedules that were asked for, the records that arrived, and the promises kept or broken."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from rich.table import Table


@dataclass(kw_only=True, slots=True)
class Planned:
    """One schedule of the demo."""

    ordering_key: str
    due_ms: int
    accepted_at_ms: int | None = None
    arrived_at_ms: list[int] = field(default_factory=list)
    cancel_answer: str | None = None


@dataclass(kw_only=True, slots=True)
class Verdict:
    """Collects the facts of one run."""

    planned: dict[str, Planned] = field(default_factory=dict)
    arrivals: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Schedule keys in the order of their arrival, by ordering key."""
    killed_at_ms: int | None = None
    all_answered: bool = False
    everything_settled: asyncio.Event = field(default_factory=asyncio.Event)

    def plan(self, key: str, ordering_key: str, due_ms: int) -> None:
        self.planned[key] = Planned(ordering_key=ordering_key, due_ms=due_ms)

    def accepted(self, key: str, at_ms: int) -> None:
        self.planned[key].accepted_at_ms = at_ms

    def answered(self, key: str, said: str) -> None:
        self.planned[key].cancel_answer = said

    def arrived(self, key: str, at_ms: int, value: Any) -> None:
        if value != {"order": key}:
            raise AssertionError(f"the record of {key} bears {value}")
        self.planned[key].arrived_at_ms.append(at_ms)
        self.arrivals[self.planned[key].ordering_key].append(key)

    def settled(self) -> int:
        """Number of schedules that have arrived, or never will."""
        return sum(1 for p in self.planned.values() if p.arrived_at_ms or p.cancel_answer == "cancelled")

    def check_settled(self) -> None:
        if self.all_answered and self.settled() == len(self.planned):
            self.everything_settled.set()

    @property
    def lost(self) -> int:
        return len(self.planned) - self.settled()

    @property
    def duplicates(self) -> int:
        return sum(max(0, len(p.arrived_at_ms) - 1) for p in self.planned.values())

    @property
    def early(self) -> int:
        return sum(1 for p in self.planned.values() for at_ms in p.arrived_at_ms if at_ms < p.due_ms)

    @property
    def out_of_order(self) -> int:
        """Number of pairs of one ordering key that arrived in the wrong order, though the later one was accepted in time."""
        wrong = 0
        for keys in self.arrivals.values():
            for earlier, later in pairwise(keys):
                first, second = self.planned[earlier], self.planned[later]
                in_time = second.accepted_at_ms is not None and second.accepted_at_ms < first.due_ms
                wrong += first.due_ms > second.due_ms and in_time
        return wrong

    @property
    def false_cancels(self) -> int:
        """Number of schedules answered `cancelled` and delivered all the same, or `delivered` and never seen."""
        return sum(
            (p.cancel_answer == "cancelled") == bool(p.arrived_at_ms)
            for p in self.planned.values()
            if p.cancel_answer in ("cancelled", "delivered")
        )

    def lateness_ms(self) -> list[int]:
        return sorted(p.arrived_at_ms[0] - p.due_ms for p in self.planned.values() if p.arrived_at_ms)

    @property
    def holds(self) -> bool:
        return not (self.lost or self.duplicates or self.early or self.out_of_order or self.false_cancels)


def percentile(values: list[int], share: float) -> int:
    """The value at this share of sorted values, by the nearest rank; 0 of none."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0


def verdict_table(verdict: Verdict) -> Table:
    """The facts as a table for people."""
    planned = list(verdict.planned.values())
    answers = [p.cancel_answer for p in planned if p.cancel_answer]
    lateness_ms = verdict.lateness_ms()
    table = Table(title="Promises, kept?" if not verdict.holds else "Promises kept", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_row("scheduled", str(len(planned)))
    table.add_row("delivered", str(sum(1 for p in planned if p.arrived_at_ms)))
    table.add_row("cancelled, as answered", str(answers.count("cancelled")))
    table.add_row(
        "cancel refused: delivered / in flight", f"{answers.count('delivered')} / {answers.count('in_flight')}"
    )
    table.add_row("false answers", str(verdict.false_cancels))
    table.add_row("lost", str(verdict.lost))
    table.add_row("duplicates", str(verdict.duplicates))
    table.add_row("early", str(verdict.early))
    table.add_row("out of order", str(verdict.out_of_order))
    figures = " / ".join(str(percentile(lateness_ms, share)) for share in (0.5, 0.99, 1.0))
    table.add_row("lateness p50 / p99 / max, ms", figures)
    if verdict.killed_at_ms is not None:
        before = sorted(
            p.arrived_at_ms[0] - p.due_ms
            for p in planned
            if p.arrived_at_ms and p.arrived_at_ms[0] < verdict.killed_at_ms
        )
        figures = " / ".join(str(percentile(before, share)) for share in (0.5, 0.99, 1.0))
        table.add_row("the same before the node was killed", figures)
    return table
