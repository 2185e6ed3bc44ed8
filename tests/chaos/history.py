"""What was asked and what was answered, with the times of both. The workload writes it, the checker reads it."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tests.support.client import Answered

Fate = Literal["usual", "refused", "far"]
"""`refused`: its topic will refuse the record, so it must become a dead letter. `far`: due long after the run."""
Place = tuple[str, int, int]
"""Topic, Kafka partition, offset."""

FINAL: Final = frozenset({"delivered", "cancelled", "failed"})
ABSENT: Final = "absent"
"""The state that a 404 tells."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """One answer about a schedule's state."""

    sent_ms: int
    received_ms: int
    call: str
    node: str
    """The URL of the node that answered."""
    status: int
    state: str
    place: Place | None


@dataclass(kw_only=True, slots=True)
class Asked:
    """One schedule that some client wanted, and all that was ever said about it."""

    schedule_key: str
    topic: str
    ordering_key: str
    due_ms: int
    guarantee: str
    fate: Fate
    shard: int
    first_sent_ms: int
    accepted_ms: int | None = None
    """When the first `201` or `200` to its create was here: a little after it was sent, which is the safe side. None:
    no client was ever told that it is accepted."""
    seen: list[Seen] = field(default_factory=list)

    @property
    def final(self) -> Seen | None:
        """The first answer with a final state."""
        return next((seen for seen in self.seen if seen.state in FINAL), None)

    @property
    def ended(self) -> bool:
        """A client knows for good what became of it; or nobody was promised anything, and it does not exist."""
        return self.final is not None or (
            self.accepted_ms is None and bool(self.seen) and self.seen[-1].state == ABSENT
        )


@dataclass(kw_only=True, slots=True)
class History:
    """All of one run."""

    asked: dict[str, Asked] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    """How often each call was answered how; `-`: not at all."""
    improper: list[str] = field(default_factory=list)
    """Answers that the interface does not allow for such a request."""

    def note(self, asked: Asked, call: str, node: str, answered: Answered, *, sent_ms: int, received_ms: int) -> None:
        """Takes one answer that was not a 503."""
        if (call, answered.status) not in _PROPER:
            self.improper.append(f"{call} of {asked.schedule_key} at {node}: {answered.status} {answered.body}")
            return
        body: dict[str, Any] = answered.body["schedule"] if answered.status == 409 else answered.body
        state = ABSENT if answered.status == 404 else str(body["status"])
        delivered = body.get("delivered")
        asked.seen.append(
            Seen(
                sent_ms=sent_ms,
                received_ms=received_ms,
                call=call,
                node=node,
                status=answered.status,
                state=state,
                place=(delivered["topic"], delivered["partition"], delivered["offset"]) if delivered else None,
            )
        )
        if call == "create" and asked.accepted_ms is None:
            asked.accepted_ms = received_ms


_PROPER: Final = frozenset(
    {("create", 201), ("create", 200), ("get", 200), ("get", 404), ("cancel", 200), ("cancel", 409), ("cancel", 404)}
)
