"""Findings of the checks at start: problems that stop the node, and warnings."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """Lines for an operator: each names what is wrong and says what to change."""

    problems: tuple[str, ...] = ()
    """Reasons not to start: a promise would be broken, or nothing would work."""
    warnings: tuple[str, ...] = ()
    """The node works; the lines say what is at risk."""


def merged(findings: Iterable[Findings]) -> Findings:
    """All findings, in their order."""
    listed = list(findings)
    return Findings(
        problems=tuple(line for each in listed for line in each.problems),
        warnings=tuple(line for each in listed for line in each.warnings),
    )
