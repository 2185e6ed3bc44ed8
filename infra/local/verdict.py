"""Verdict on a demo: the schedules that were asked for, the records that arrived, and the promises kept or broken."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, Literal

from rich.table import Table

Outcome = Literal["delivered", "cancelled", "failed", "refused", "waiting", "lost", "unknown"]
"""`waiting`: pending and overdue, but there. `refused`: never accepted."""


@dataclass(kw_only=True, slots=True)
class Planned:
    """One schedule of the demo."""

    ordering_key: str
    due_ms: int
    accepted_at_ms: int | None = None
    """Time at which the create was answered; None: it has no answer."""
    arrived_at_ms: list[int] = field(default_factory=list)
    cancel_asked: bool = False
    cancel_answer: str | None = None
    """Outcome that the answer to the cancel tells; None: there is no answer, or no cancel was sent."""
    found: str | None = None
    """Status in the last look-up that was answered, `absent` if there is no such schedule; None: there was none."""

    @property
    def unanswered(self) -> bool:
        """True if a request about it has no answer, so that it may have been carried out or not."""
        return self.accepted_at_ms is None or (self.cancel_asked and self.cancel_answer is None)

    @property
    def called_off(self) -> bool:
        """True if its cancel is known to be carried out: by its answer, or by a look-up."""
        return self.cancel_answer == "cancelled" or (self.cancel_asked and self.found == "cancelled")

    @property
    def outcome(self) -> Outcome:
        """The outcome as far as it is known. Only facts speak for `lost`: a request without an answer is none."""
        if self.arrived_at_ms:
            return "delivered"
        if self.called_off:
            return "cancelled"
        match self.found:
            case None:
                return "unknown"
            case "failed":
                return "failed"
            case "pending":
                return "waiting"
            case "absent" if self.accepted_at_ms is None:
                return "refused"
        # Its record was not seen though it is delivered; or it is gone, or cancelled, and no request asked for that.
        return "lost"


@dataclass(kw_only=True, slots=True)
class Verdict:
    """Collects the facts of one run."""

    planned: dict[str, Planned] = field(default_factory=dict)
    arrivals: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Schedule keys in the order of their arrival, by ordering key."""
    killed_at_ms: int | None = None
    all_sent: bool = False
    everything_settled: asyncio.Event = field(default_factory=asyncio.Event)

    def plan(self, key: str, ordering_key: str, due_ms: int) -> None:
        self.planned[key] = Planned(ordering_key=ordering_key, due_ms=due_ms)

    def accepted(self, key: str, at_ms: int) -> None:
        self.planned[key].accepted_at_ms = at_ms

    def cancelling(self, key: str) -> None:
        self.planned[key].cancel_asked = True

    def answered(self, key: str, said: str) -> None:
        self.planned[key].cancel_answer = said

    def found(self, key: str, status: str) -> None:
        self.planned[key].found = status

    def arrived(self, key: str, at_ms: int, value: Any) -> None:
        if value != {"order": key}:
            raise AssertionError(f"the record of {key} bears {value}")
        self.planned[key].arrived_at_ms.append(at_ms)
        self.arrivals[self.planned[key].ordering_key].append(key)

    def unsettled(self) -> list[str]:
        """Schedules that have neither arrived nor are known as cancelled."""
        return [key for key, p in self.planned.items() if p.outcome not in ("delivered", "cancelled")]

    def settled(self) -> int:
        """Number of schedules that have arrived, or never will."""
        return len(self.planned) - len(self.unsettled())

    def check_settled(self) -> None:
        if self.all_sent and not self.unsettled():
            self.everything_settled.set()

    def count(self, outcome: Outcome) -> int:
        return sum(p.outcome == outcome for p in self.planned.values())

    @property
    def lost(self) -> int:
        return self.count("lost")

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
        """Number of schedules called cancelled and delivered all the same, or answered `delivered` and never seen."""
        return sum(p.called_off if p.arrived_at_ms else p.cancel_answer == "delivered" for p in self.planned.values())

    def lateness_ms(self) -> list[int]:
        return sorted(p.arrived_at_ms[0] - p.due_ms for p in self.planned.values() if p.arrived_at_ms)

    @property
    def holds(self) -> bool:
        return not (self.lost or self.duplicates or self.early or self.out_of_order or self.false_cancels)


def percentile(values: list[int], share: float) -> int:
    """The value at this share of sorted values, by the nearest rank; 0 of none."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0


_UNSETTLED: Final[Mapping[Outcome, str]] = {
    "waiting": "overdue, and still waiting",
    "failed": "failed, now a dead letter",
    "refused": "never accepted: the create had no answer",
    "unknown": "unknown: no answer, nor to the look-up",
}
"""Outcomes that break no promise; a row each where there are any."""


def verdict_table(verdict: Verdict) -> Table:
    """The facts as a table for people."""
    planned = list(verdict.planned.values())
    answers = [p.cancel_answer for p in planned if p.cancel_answer]
    found = sum(p.outcome == "cancelled" and p.cancel_answer is None for p in planned)
    lateness_ms = verdict.lateness_ms()
    settled = "Promises kept" if not verdict.unsettled() else "No promise broken, not all is known"
    table = Table(title=settled if verdict.holds else "Promises, kept?", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_row("scheduled", str(len(planned)))
    table.add_row("delivered", str(sum(1 for p in planned if p.arrived_at_ms)))
    table.add_row("cancelled, as answered", str(answers.count("cancelled")))
    table.add_row(
        "cancel refused: delivered / in flight", f"{answers.count('delivered')} / {answers.count('in_flight')}"
    )
    table.add_row("cancelled, as looked up: no answer had come", str(found))
    table.add_row("false answers", str(verdict.false_cancels))
    table.add_row("lost", str(verdict.lost))
    for outcome, words in _UNSETTLED.items():
        if verdict.count(outcome):
            table.add_row(words, str(verdict.count(outcome)))
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
