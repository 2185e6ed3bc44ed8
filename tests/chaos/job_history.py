"""Recurring jobs in the history: the jobs as their clients want them, each request about one and its answer, each report of
a consumer and its answer.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tests.chaos.history import BY_COMMAND, Command, shown_data
from tests.support.client import Answered

OpKind = Literal["create", "put", "pause", "resume", "delete", "restore", "run", "backfill"]
ReportKind = Literal["complete", "fail", "heartbeat"]

LINGERS_MS: Final = 60_000
"""A request without an answer may be carried out for so long: its node may be frozen, and have it in its socket."""
FOLLOWS_MS: Final = 10 * LINGERS_MS
"""A job that no put has reached follows by the audit, once its shard has an owner."""
RESTARTS: Final = frozenset({"create", "resume", "restore"})
"""After these a job goes on with its first fire time to come: nothing of before is caught up."""


@dataclass(frozen=True, slots=True)
class Every:
    """Fire times by arithmetic: the multiples of a period, each so much later. Every trigger of the load is one of these,
    or a fixed delay, so that what should have fired is known without asking the service's own triggers."""

    period_ms: int
    phase_ms: int = 0

    def has(self, at_ms: int) -> bool:
        return at_ms % self.period_ms == self.phase_ms % self.period_ms

    def between(self, first_ms: int, last_ms: int) -> range:
        """Those from one time to another, both included."""
        first_ms += (self.phase_ms - first_ms) % self.period_ms
        return range(first_ms, last_ms + 1, self.period_ms)


def every_of(trigger: Mapping[str, Any]) -> Every | None:
    """The fire times of a trigger of the load; None: a fixed delay has none."""
    match trigger["type"]:
        case "cron":
            # `0/3 * * * * ?`: seconds are all that it restricts.
            return Every(int(trigger["expression"].split()[0].removeprefix("0/")) * 1_000)
        case "rrule":
            return Every(60_000, int(trigger["rule"].rpartition("=")[2]) * 1_000)
        case "fixed_rate":
            return Every(trigger["everyMs"], trigger["anchor"] % trigger["everyMs"])
        case _:
            return None


@dataclass(frozen=True, slots=True)
class Try:
    """One time that a request was sent: between these two times it was carried out, if at all."""

    sent_ms: int
    until_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class JobAnswer:
    """One answer about a job."""

    sent_ms: int
    received_ms: int
    node: str
    status: int
    state: str = ""
    """Status of the job, or of the run that was asked for. Empty if the answer has neither."""
    version: int = 0
    data: str | None = None
    every: Every | None = None
    in_flight: frozenset[tuple[str, int]] = frozenset()
    """Run ids and attempts."""
    run_id: str = ""
    """For a run by hand, or the first one of a backfill."""
    reason: str | None = None
    until_ms: int = 0
    """For a heartbeat."""


@dataclass(kw_only=True, slots=True)
class JobOp:
    """One request about a job."""

    kind: OpKind
    data: str | None = None
    """The data of a create or a PUT; of a run, its own."""
    new_trigger: bool = False
    paired: bool = False
    """Sent at the same moment as another one of its kind."""
    request_id: str = ""
    from_ms: int = 0
    to_ms: int = 0
    runs_max: int = 0
    """These of a backfill."""
    tries: list[Try] = field(default_factory=list)
    command: Command | None = None
    """None: over HTTP."""
    answer: JobAnswer | None = None

    @property
    def restarts(self) -> bool:
        """It makes the job go on with its first fire time to come."""
        return self.kind in RESTARTS or self.new_trigger

    @property
    def accepted(self) -> bool:
        return self.answer is not None and self.answer.status < 300

    def windows(self) -> Iterator[Try]:
        """The times between which it may have been carried out."""
        if self.command is None:
            yield from self.tries
        elif self.command.fate in ("committed", "unknown"):
            answer = self.answer
            until_ms = answer.received_ms if answer is not None else self.command.sent_ms + 10 * LINGERS_MS
            yield Try(self.command.sent_ms, until_ms)


@dataclass(kw_only=True, slots=True)
class Report:
    """One report of a consumer about an attempt of a run."""

    kind: ReportKind
    run_id: str
    attempt: int
    may_retry: bool = True
    sent: bool = False
    """Over HTTP, at least once."""
    command: Command | None = None
    answer: JobAnswer | None = None

    @property
    def may_count(self) -> bool:
        """It may have been carried out."""
        return self.sent or (self.command is not None and self.command.fate in ("committed", "unknown"))


CALENDAR: Final = "hours"
"""The calendar that some jobs name."""


@dataclass(kw_only=True, slots=True)
class CalendarPut:
    """One change of the calendar."""

    closed: bool
    """It excludes every fire time of the run."""
    sent_ms: int
    answered_ms: int | None = None
    """By the answer in `behind`. None: there was none."""
    behind: frozenset[str] = frozenset()
    more_behind: bool = False

    def reached(self, job_id: str) -> bool:
        """The answer says that no run of this job comes any more that it excludes."""
        return self.answered_ms is not None and not self.more_behind and job_id not in self.behind


@dataclass(kw_only=True, slots=True)
class JobHistory:
    """A job that some client wanted, and all that was ever said about it."""

    job_id: str
    client_id: str
    topic: str
    ordering_key: str
    guarantee: str
    body: dict[str, Any]
    """The body of its create; a later one has other data."""
    operated: bool
    """It is paused, deleted, made again, given other triggers. Of all others each fire time must be accounted for."""
    by_command: bool
    refused: bool
    """Its topic refuses its records: each run must be a dead letter."""
    ops: list[JobOp] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    states: list[JobAnswer] = field(default_factory=list)
    """Every answer that shows the job."""
    calendar_puts: list[CalendarPut] = field(default_factory=list)
    """Puts of the calendar that it names, oldest first."""

    @property
    def every(self) -> Every | None:
        """The fire times that its create asked for."""
        return every_of(self.body["trigger"])

    @property
    def delay_ms(self) -> int | None:
        delay_ms: int | None = self.body["trigger"].get("delayMs")
        return delay_ms

    @property
    def completion(self) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = self.body.get("completion")
        return found

    @property
    def exclusive(self) -> bool:
        """No run of it may be delivered while another is open."""
        return self.completion is not None and (self.body.get("overlap") is not None or self.delay_ms is not None)

    @property
    def attempts(self) -> int:
        retry = (self.completion or {}).get("retry") or {}
        attempts: int = retry.get("attempts", 1)
        return attempts

    def retried(self, result: str) -> bool:
        """An attempt with this end in the log is followed by another one, if there is one left."""
        on = (self.completion or {}).get("retryOn") or ["timeout", "failure"]
        return {"timed_out": "timeout", "failed": "failure"}.get(result) in on

    @property
    def names_calendar(self) -> bool:
        return "exclude" in self.body["trigger"]

    def calendar_changes(self) -> Iterator[Try]:
        """Times at which the job may have followed its calendar: from each put on until it, or a later one, had reached it.
        Each is like a PUT of the trigger that makes it go on with the first fire time to come."""
        for number, put in enumerate(self.calendar_puts):
            reached = (each.answered_ms for each in self.calendar_puts[number:] if each.reached(self.job_id))
            yield Try(put.sent_ms, next(filter(None, reached), put.sent_ms + FOLLOWS_MS))

    def of(self, *kinds: OpKind) -> list[JobOp]:
        return [op for op in self.ops if op.kind in kinds]

    @property
    def accepted_ms(self) -> int | None:
        """The earliest time at which a client knew that it is accepted."""
        return min((op.answer.received_ms for op in self.of("create") if op.accepted and op.answer), default=None)

    @property
    def one_trigger(self) -> bool:
        return not any(op.new_trigger for op in self.ops)

    @property
    def made_once(self) -> bool:
        return len(self.of("create")) <= 1

    def contents(self) -> dict[int, set[tuple[str | None, Every | None]]]:
        """By version, data and fire times as they were answered."""
        found: dict[int, set[tuple[str | None, Every | None]]] = {}
        for seen in self.states:
            found.setdefault(seen.version, set()).add((seen.data, seen.every))
        return found


def read_answer(
    status: int, document: Mapping[str, Any], *, node: str, sent_ms: int, received_ms: int
) -> tuple[JobAnswer, bool]:
    """An answer to any of the calls, and whether it shows the job."""
    job = _job_in(document)
    run = document.get("run") or (document if "runId" in document else {})
    until_ms = document.get("until", 0)
    found = JobAnswer(
        sent_ms=sent_ms,
        received_ms=received_ms,
        node=node,
        status=status,
        state=(job or run).get("status", ""),
        version=(job or {}).get("version", 0),
        data=shown_data(job["taskData"]) if job else None,
        every=every_of(job["trigger"]) if job and job.get("trigger") else None,
        in_flight=frozenset((run["runId"], run["attempt"]) for run in (job or {}).get("inFlight", ())),
        run_id=run.get("runId", ""),
        reason=document.get("reason") if status == 409 else None,
        until_ms=until_ms,
    )
    return found, job is not None


def _job_in(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    job: Mapping[str, Any] | None = document if "trigger" in document else document.get("job")
    return job


def note_op(
    asked: JobHistory, op: JobOp, answered: Answered, *, node: str, sent_ms: int, received_ms: int
) -> str | None:
    """Takes the answer to a request. Returns what is improper about it."""
    return _note_op(asked, op, answered.status, answered.body, node=node, sent_ms=sent_ms, received_ms=received_ms)


def note_reply(
    asked: JobHistory,
    of: JobOp | Report,
    command: Command,
    document: Mapping[str, Any],
    *,
    received_ms: int,
    repeated: bool,
) -> str | None:
    """Takes the reply to a command. Returns what is improper about it. `repeated`: it tells of the present state only; of a
    run, that of its latest attempt, which is nothing that is judged."""
    times = {"sent_ms": command.sent_ms, "received_ms": received_ms}
    status = int(document["status"])
    if isinstance(of, JobOp):
        return _note_op(asked, of, status, document, node=BY_COMMAND, **times)
    return None if repeated else note_report(asked, of, status, document, node=BY_COMMAND, **times)


def note_report(
    asked: JobHistory,
    report: Report,
    status: int,
    document: Mapping[str, Any],
    *,
    node: str,
    sent_ms: int,
    received_ms: int,
) -> str | None:
    """Takes the answer to a report. Returns what is improper about it."""
    if report.answer is None:
        report.answer, _ = read_answer(status, document, node=node, sent_ms=sent_ms, received_ms=received_ms)
    # Its record was read, so there is such a run.
    if status not in (200, 409) or document.get("reason") in ("not_delivered", "not_asked"):
        return f"{report.kind} of {asked.job_id} {report.run_id}/{report.attempt}: {status} {document}"
    return None


def _note_op(
    asked: JobHistory,
    op: JobOp,
    status: int,
    document: Mapping[str, Any],
    *,
    node: str,
    sent_ms: int,
    received_ms: int,
) -> str | None:
    answer, shows_job = read_answer(status, document, node=node, sent_ms=sent_ms, received_ms=received_ms)
    if op.answer is None or not op.accepted:
        op.answer = answer
    if shows_job:
        asked.states.append(answer)
    reasons = _REASONS[op.kind] if asked.operated else _REASONS[op.kind] & _OF_STEADY
    proper = status in _PROPER[op.kind] or (status == 409 and document.get("reason") in reasons)
    # Of a job whose create was sent by command, and aborted.
    unknown = status == 404 and asked.by_command
    return None if proper or unknown else f"{op.kind} of {asked.job_id} at {node}: {status} {document}"


_PROPER: Final[Mapping[OpKind, frozenset[int]]] = {
    "create": frozenset({200, 201}),
    "put": frozenset({200}),
    "pause": frozenset({200}),
    "resume": frozenset({200}),
    "delete": frozenset({200}),
    "restore": frozenset({200}),
    "run": frozenset({200, 201}),
    "backfill": frozenset({200, 202}),
}
_REASONS: Final[Mapping[OpKind, frozenset[str]]] = {
    # A restore that was late, and unanswered, may have come before it.
    "create": frozenset({"exists"}),
    "put": frozenset({"deleted"}),
    "pause": frozenset({"deleted", "ended"}),
    "resume": frozenset({"deleted", "ended"}),
    "delete": frozenset(),
    "restore": frozenset({"not_deleted"}),
    "run": frozenset({"deleted", "exists", "running", "too_many_runs"}),
    "backfill": frozenset({"deleted", "exists", "running", "no_fire_times"}),
}
"""Reasons that a conflict may have."""
_OF_STEADY: Final = frozenset({"running", "too_many_runs", "no_fire_times"})
"""Those for a job that is never paused or deleted, until the end."""
