"""Pauses: an operator holds back the delivery of whole clients or topics for a while.

A pause holds rows back in place and in order, as a topic in back-off does: rows behind a paused row in its lane wait
too, also another client's, because the order within a lane is promised to all of them. No row ends while it is
paused: no attempt is counted, and a deadline that passes meanwhile is checked when delivery goes on.

A pause is no part of the protocol: no schedule's end is decided by it, so one node may know of it a little earlier than
another.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from clockwork.domain.schedule import BrokenRow, Row

PAUSED_MAX: Final = 200
"""Paused clients and topics together: they are one stored item, which every node reads every few seconds. With the longest
names and reasons it has some 360 KB, and DynamoDB takes 400 KB."""


class PauseKind(StrEnum):
    """The kind of name that is paused."""

    CLIENT = "client"
    TOPIC = "topic"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pause:
    """The pause of one client or topic."""

    since_ms: int
    """In epoch milliseconds."""
    by: str
    """Name of the principal that paused it, or that gave the reason, if that came later."""
    reason: str | None = None
    """The reason, for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pauses:
    """The paused clients and topics by name."""

    version: int = 0
    """Number of changes so far."""
    clients: Mapping[str, Pause] = field(default_factory=dict)
    topics: Mapping[str, Pause] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.clients) + len(self.topics)

    def applies_to(self, row: Row | BrokenRow) -> bool:
        """True if this row is not to fire."""
        if isinstance(row, Row):
            return row.schedule.client_id in self.clients or row.schedule.topic in self.topics
        return row.client_id in self.clients or (row.lane is not None and row.lane[0] in self.topics)

    def of(self, kind: PauseKind, name: str) -> Pause | None:
        """The pause of this name; None: it is not paused."""
        return self._of(kind).get(name)

    def with_pause(self, kind: PauseKind, name: str, pause: Pause) -> "Pauses":
        """A copy with this pause: the next version."""
        return self._next(kind, {**self._of(kind), name: pause})

    def without_pause(self, kind: PauseKind, name: str) -> "Pauses":
        """A copy without the pause of this name: the next version."""
        return self._next(kind, {each: pause for each, pause in self._of(kind).items() if each != name})

    def _of(self, kind: PauseKind) -> Mapping[str, Pause]:
        return self.clients if kind is PauseKind.CLIENT else self.topics

    def _next(self, kind: PauseKind, names: Mapping[str, Pause]) -> "Pauses":
        changed = replace(self, version=self.version + 1)
        return replace(changed, clients=names) if kind is PauseKind.CLIENT else replace(changed, topics=names)


NOTHING_PAUSED: Final = Pauses()
