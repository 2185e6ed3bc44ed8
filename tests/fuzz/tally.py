"""A tally of the examples, and the settings of hypothesis for them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

_T = TypeVar("_T")


@dataclass
class Tally:
    """Counts by campaign and what became of each example."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, campaign: str, became: str) -> None:
        self.counts[campaign, became] += 1

    def of(self, campaign: str) -> dict[str, int]:
        return {became: count for (name, became), count in sorted(self.counts.items()) if name == campaign}

    def text(self) -> str:
        """A table for people."""
        campaigns = sorted({name for name, _ in self.counts})
        lines = []
        for name in campaigns:
            found = self.of(name)
            lines.append(f"{name}: {sum(found.values()):,} examples")
            lines += [f"    {count:>9,}  {became}" for became, count in sorted(found.items(), key=lambda one: -one[1])]
        return "\n".join(lines)


def try_each(examples: st.SearchStrategy[_T], check: Callable[[_T], None], *, count: int, seeded: int) -> None:
    """Runs `check` on so many examples; what fails is made as small as possible and raised."""

    @seed(seeded)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(examples)
    def each(example: Any) -> None:
        check(example)

    each()


def sample(examples: st.SearchStrategy[_T], *, count: int, seeded: int) -> list[_T]:
    """So many examples, for a campaign that tries them all at once."""
    found: list[_T] = []
    try_each(examples, found.append, count=count, seeded=seeded)
    return found[:count]
