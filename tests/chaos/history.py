"""Requests and answers, with the times of both. The workload writes them, the checker reads them."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tests.support.client import Answered
from tests.support.reader import Arrived

Fate = Literal["usual", "refused", "far"]
"""`refused`: its topic will refuse the record, so it must become a dead letter. `far`: due long after the run."""
Place = tuple[str, int, int]
"""Topic, Kafka partition, offset."""
CommandKind = Literal["create", "cancel", "reschedule", "poison"]
JobCommandKind = Literal["createJob", "updateJob", "pauseJob", "resumeJob", "deleteJob", "runJob"]
RunCommandKind = Literal["completeRun", "failRun", "heartbeatRun"]
CommandFate = Literal["unsent", "committed", "aborted", "unknown"]
"""The fate of the producer's transaction; `unknown`: the producer was not told."""

FINAL: Final = frozenset({"delivered", "cancelled", "failed"})
ABSENT: Final = "absent"
"""The state that a 404 tells."""
EXPIRED: Final = "expired"
"""Why it failed, if it was late."""
DATA_SHOWN: Final = 48
"""So much of `taskData` is kept: those of the workload differ before that."""
BY_COMMAND: Final = "commands"
"""Stands for the node's URL where the answer came as a record."""
CORRELATION_ID: Final = "clockwork-correlation-id"


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """The members of a version that a client may change, and that its record must show."""

    due_ms: int
    data: str
    ordering_key: str
    delivery_id: str = ""


@dataclass(kw_only=True, slots=True)
class WantedChange:
    """A change that some client wants. None: as it is."""

    kind: Literal["put", "fire", "retry", "reschedule"]
    due_ms: int | None = None
    """None of a fire and a retry: now, whenever that is."""
    data: str | None = None
    ordering_key: str | None = None
    if_version: int | None = None
    tries_ms: list[int] = field(default_factory=list)
    """Times at which it was sent: every try may change the schedule once. None of a command that was aborted."""

    @property
    def now(self) -> bool:
        """Its due time is the time at which it is carried out."""
        return self.kind in ("fire", "retry") and self.due_ms is None

    def met_by(self, content: Content) -> bool:
        """Everything is as it was asked for."""
        asked = ((self.due_ms, content.due_ms), (self.data, content.data), (self.ordering_key, content.ordering_key))
        return all(wanted is None or wanted == there for wanted, there in asked)


@dataclass(frozen=True, kw_only=True, slots=True)
class StateAnswer:
    """One answer about a schedule's state."""

    sent_ms: int
    received_ms: int
    call: str
    node: str
    """The URL of the node that answered."""
    status: int
    state: str
    place: Place | None
    version: int = 1
    """0: it is absent."""
    content: Content | None = None
    """None: it is absent."""
    reason: str | None = None
    """The reason of a 409."""
    failed_because: str | None = None
    failed_at_ms: int = 0
    """By the clock of the node that wrote it down."""
    wish: WantedChange | None = None
    """The change that this is the answer to; None: to a create, a cancel, a read."""


@dataclass(kw_only=True, slots=True)
class Command:
    """A record of the commands topic."""

    number: int
    """Its correlation id, and a header of its own."""
    kind: CommandKind | JobCommandKind | RunCommandKind
    schedule_key: str
    """Or the id of the job that it is about."""
    wish: WantedChange | None = None
    takes: Callable[[Mapping[str, Any], int, bool], str | None] | None = None
    """For one about a job: takes its answer, the answer's time, and whether it tells of the present state only, since the
    command had been carried out before. Returns what is improper about it."""
    wants_reply: bool = True
    sent_ms: int = 0
    fate: CommandFate = "unsent"
    statuses: list[int] = field(default_factory=list)
    """Statuses of its answers."""
    answered_ms: int | None = None
    """Time at which the first of them was there."""

    @property
    def answer_due(self) -> bool:
        """There must be one."""
        return self.fate == "committed" and self.wants_reply


@dataclass(kw_only=True, slots=True)
class ScheduleHistory:
    """One schedule that some client wanted, and all that was ever said about it."""

    schedule_key: str
    topic: str
    ordering_key: str
    due_ms: int
    guarantee: str
    fate: Fate
    shard: int
    first_sent_ms: int
    client_id: str = ""
    data: str = ""
    deadline_ms: int | None = None
    on_late: str = "deliver"
    created_by: Command | None = None
    """None: over HTTP."""
    accepted_ms: int | None = None
    """Time at which the first `201` or `200` to its create was here: a little after it was sent, the safe side. None:
    no client was ever told that it is accepted."""
    commands: list[Command] = field(default_factory=list)
    cancels: int = 0
    """Those over HTTP."""
    wishes: list[WantedChange] = field(default_factory=list)
    seen: list[StateAnswer] = field(default_factory=list)

    @property
    def version(self) -> int:
        """The latest that was ever seen."""
        return max((seen.version for seen in self.seen), default=0)

    @property
    def final(self) -> StateAnswer | None:
        """The first answer with a final state of the latest version: what has failed may have been armed again."""
        version = self.version
        return next((seen for seen in self.seen if seen.state in FINAL and seen.version == version), None)

    @property
    def ended(self) -> bool:
        """True if a client knows its end for good; or if no client was promised anything, and it does not exist."""
        nothing_promised = self.accepted_ms is None and not (self.created_by and self.created_by.fate == "committed")
        return self.final is not None or (nothing_promised and bool(self.seen) and self.seen[-1].state == ABSENT)

    @property
    def due_last_ms(self) -> int:
        """The due time of what ended, or of the create."""
        final = self.final
        return final.content.due_ms if final is not None and final.content is not None else self.due_ms

    @property
    def lane(self) -> str:
        """The ordering key of what ended, or of the create."""
        final = self.final
        return final.content.ordering_key if final is not None and final.content is not None else self.ordering_key

    def known_ms(self, version: int) -> int | None:
        """The latest time at which a client knew that this version, or a later one, stands."""
        times = [seen.received_ms for seen in self.seen if seen.version >= version > 0]
        if version == 1 and self.accepted_ms is not None:
            times.append(self.accepted_ms)
        return min(times, default=None)

    def not_before_ms(self, version: int) -> int:
        """This version cannot be older."""
        if version <= 1:
            return self.first_sent_ms
        before = [seen.sent_ms for seen in self.seen if 0 < seen.version < version]
        return max([self.first_sent_ms, min((t for w in self.wishes for t in w.tries_ms), default=0), *before])


@dataclass(kw_only=True, slots=True)
class History:
    """All of one run."""

    asked: dict[str, ScheduleHistory] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)
    """In the order in which they were sent."""
    answers: Counter[str] = field(default_factory=Counter)
    """The number of answers by call and answer; `-`: not at all."""
    improper: list[str] = field(default_factory=list)
    """Answers that the interface does not allow for such a request."""

    def note(
        self,
        asked: ScheduleHistory,
        call: str,
        node: str,
        answered: Answered,
        *,
        sent_ms: int,
        received_ms: int,
        wish: WantedChange | None = None,
    ) -> None:
        """Takes one answer that was not a 503."""
        status = answered.status
        if status not in _PROPER[call] or (status == 412 and (wish is None or wish.if_version is None)):
            self.improper.append(f"{call} of {asked.schedule_key} at {node}: {status} {answered.body}")
            return
        asked.seen.append(_seen(call, node, status, answered.body, sent_ms=sent_ms, received_ms=received_ms, wish=wish))
        if call == "create" and asked.accepted_ms is None:
            asked.accepted_ms = received_ms

    def note_reply(self, record: Arrived) -> None:
        """Takes an answer to a command. It tells what was there between command and answer."""
        number = record.text(CORRELATION_ID)
        command = self.commands[int(number)] if number.isdecimal() and int(number) < len(self.commands) else None
        if command is None:
            self.improper.append(f"an answer to command {number!r}, which was never sent, at {record.place}")
            return
        document = json.loads(record.value)
        status = int(document["status"])
        command.statuses.append(status)
        command.answered_ms = command.answered_ms or record.timestamp_ms
        repeated = bool(record.text("clockwork-repeated"))
        self.answers[f"command {command.kind} {status}"] += 1
        if command.takes is not None:
            improper = command.takes(document, record.timestamp_ms, repeated)
            self.improper += [] if improper is None else [f"command: {improper}"]
        elif status not in _PROPER_BY_COMMAND[command.kind]:
            self.improper.append(f"command {command.kind} of {command.schedule_key}: {document}")
        elif command.kind != "poison":
            body = document["schedule"] if status < 300 else document
            asked = self.asked[command.schedule_key]
            times = {"sent_ms": command.sent_ms, "received_ms": record.timestamp_ms}
            # A repeated one tells of the state only, not of what was asked for.
            wish = command.wish if not repeated else None
            asked.seen.append(_seen(command.kind, BY_COMMAND, status, body, **times, wish=wish))
            if status < 300 and asked.accepted_ms is None and command is asked.created_by:
                asked.accepted_ms = record.timestamp_ms


def shown_data(data: Any) -> str:
    """The part of `taskData` that is kept; of a record's value it is the same."""
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    return text[:DATA_SHOWN]


def _seen(
    call: str, node: str, status: int, document: Any, *, sent_ms: int, received_ms: int, wish: WantedChange | None
) -> StateAnswer:
    body: dict[str, Any] = document["schedule"] if status in (409, 412) else document
    absent = status == 404
    delivered, failed = body.get("delivered"), body.get("failed")
    content = None
    if not absent:
        content = Content(
            due_ms=body["scheduleTime"],
            data=shown_data(body["taskData"]),
            ordering_key=body["orderingKey"],
            delivery_id=body["deliveryId"],
        )
    return StateAnswer(
        sent_ms=sent_ms,
        received_ms=received_ms,
        call=call,
        node=node,
        status=status,
        state=ABSENT if absent else str(body["status"]),
        place=(delivered["topic"], delivered["partition"], delivered["offset"]) if delivered else None,
        version=0 if absent else body["version"],
        content=content,
        reason=document.get("reason") if status == 409 else None,
        failed_because=failed["reason"] if failed else None,
        failed_at_ms=failed["at"] if failed else 0,
        wish=wish,
    )


_PROPER: Final = {
    "create": frozenset({200, 201}),
    "get": frozenset({200, 404}),
    "cancel": frozenset({200, 404, 409}),
    "put": frozenset({200, 404, 409, 412}),
    "fire": frozenset({200, 404, 409}),
    "retry": frozenset({200, 404, 409}),
}
_PROPER_BY_COMMAND: Final = {
    "create": frozenset({200, 201}),
    "cancel": frozenset({200, 404, 409}),
    "reschedule": frozenset({200, 404, 409}),
    "poison": frozenset({400}),
}
