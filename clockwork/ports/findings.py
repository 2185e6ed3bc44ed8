"""What the checks at a start found: what must be changed, and what had better be."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """One line each: what is wrong, with its name, and what to change."""

    problems: tuple[str, ...] = ()
    """A promise would be broken, or nothing would work: the node must not start."""
    warnings: tuple[str, ...] = ()
    """It works, and is as good as whoever chose it wants it to be."""


def merged(findings: Iterable[Findings]) -> Findings:
    """All of them, in their order."""
    listed = list(findings)
    return Findings(
        problems=tuple(line for each in listed for line in each.problems),
        warnings=tuple(line for each in listed for line in each.warnings),
    )
