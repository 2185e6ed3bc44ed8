"""A recurring job as it is stored: its definitions, its state, its log, and the change that is one transaction.

    definition  the job as its client describes it; each version is written once and never changed
    state       the version that holds, the status, and the rows that are armed; each write raises its revision by one
    log         an entry for each run that ended, for each stretch of fire times that were skipped, for each completion

While a row is armed the state names it. The state is the only item that decides: each change of a job is one transaction on
condition of the state's revision (`JobTransaction`), and a revision is never used again (docs/jobs.md, protocol). `steps`
computes the changes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Final, NamedTuple

from clockwork.domain.command_notes import NoteChange
from clockwork.domain.jobs.calendar import CalendarDigests
from clockwork.domain.jobs.next_occurrence import Misfire, OverlapPolicy
from clockwork.domain.position import Position, due_ms_of
from clockwork.domain.retry import RetryPolicy
from clockwork.domain.run import JobId, RunData, RunId, RunKind, RunOfRow
from clockwork.domain.schedule import (
    ClientId,
    DataForm,
    DeliveryContent,
    Failure,
    Receipt,
    RequestId,
    Row,
    RowName,
    ScheduleKey,
)
from clockwork.domain.sharding import ShardId
from clockwork.domain.triggers.trigger import FixedDelay, NamedExclusion, Trigger

MANUAL_RUNS_MAX: Final = 10
"""Runs by hand that may be pending at once: they are named in the state, which stays below 1 KB."""
VERSIONS_KEPT: Final = 100
"""Newest definitions of a job that are kept."""


class JobName(NamedTuple):
    """The name of a job. Jobs are a namespace apart from the keys of schedules."""

    client_id: ClientId
    job_id: JobId

    def __str__(self) -> str:
        """Unique in the cluster: a client id has no "/". The jitter of a job is a hash of it."""
        return f"{self.client_id}/{self.job_id}"


# --- definitions


class RetryOn(StrEnum):
    """The end of a run after which it is tried again."""

    TIMEOUT = "timeout"
    FAILURE = "failure"


@dataclass(frozen=True, kw_only=True, slots=True)
class CompletionPolicy:
    """The report that a job asks of its consumer at the end of each run, its time limit, and what follows a failure."""

    timeout_ms: int
    """Counted from the delivery."""
    retry: RetryPolicy | None = None
    retry_on: frozenset[RetryOn] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class JobContent(DeliveryContent):
    """The fields of a job that its client gives."""

    job_id: JobId
    trigger: Trigger | None
    """None: it is run by hand only (`durable`)."""
    misfire: Misfire = field(default_factory=Misfire)
    overlap: OverlapPolicy | None = None
    """None: runs may overlap (`allow`)."""
    completion: CompletionPolicy | None = None
    pause_after_failures: int = 0
    """Failed runs in a row after which the job is paused. 0: never."""
    durable: bool = False
    """True: it stays when its trigger is over."""
    interpolate: bool = False
    payload_schema: bytes | None = None
    """JSON Schema of its data, as compact JSON."""
    description: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    """Sorted by name."""
    priority: int | None = None
    """A header of its records, and nothing else."""

    @property
    def name(self) -> JobName:
        return JobName(self.client_id, self.job_id)

    @property
    def exclusive(self) -> bool:
        """True if no run is armed while another is open: the next one follows its completion, or its time-out."""
        by_delay = self.trigger is not None and isinstance(self.trigger.rule, FixedDelay)
        return self.completion is not None and (self.overlap is not None or by_delay)

    def fields(self) -> dict[str, Any]:
        """The fields by name: arguments of `Job`, and of `dataclasses.replace` of one."""
        return {name: getattr(self, name) for name in _CONTENT_FIELDS}


_CONTENT_FIELDS: Final = tuple(each.name for each in fields(JobContent))


@dataclass(frozen=True, kw_only=True, slots=True)
class NewJob(JobContent):
    """A create after validation and defaults."""

    created_at_ms: int
    """The time at which the request was parsed: the job's creation, and with it the default anchor of a rate."""
    digest: str
    """Equal for, and only for, the same request again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunNow:
    """A request for a run by hand."""

    request_id: str
    task_data: bytes | None
    """None: the job's own."""
    data_form: DataForm = DataForm.JSON
    """The form of the given data."""
    digest: str
    """Equal for, and only for, the same request again."""
    check: Callable[[JobContent], None] | None = field(default=None, compare=False)
    """The rules that the job has for its data. Raises: InvalidInput. None: there is nothing to be checked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BackfillRequest:
    """A request for runs of past fire times."""

    request_id: str
    from_ms: int
    to_ms: int
    """Inclusive, like `from_ms`."""
    runs_max: int
    digest: str
    """Equal for, and only for, the same request again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job(JobContent):
    """One version of a job's definition. Written once, never changed."""

    version: int
    created_at_ms: int
    """Creation of the job, not of the version: with it a version of a job that was made anew, after its state had expired,
    is told from the one of the same number before."""
    changed_at_ms: int
    """Acceptance of this version."""
    changed_by: str | None = None
    """The principal whose request it was. None: callers need no key."""


# --- state


class JobStatus(StrEnum):
    """The status of a job."""

    ACTIVE = "active"
    PAUSED = "paused"
    ENDED = "ended"
    """Its trigger is over, and it is not durable."""
    DELETED = "deleted"
    """Kept for the retention, and may be restored until then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmedRow:
    """The row of a run, or a watchdog, as the state names it."""

    shard: ShardId
    position: Position
    kind: RunKind
    run_id: RunId
    attempt: int
    scheduled_at_ms: int
    cursor_ms: int
    version: int
    """Version of the definition that the row's content was taken from. See `RunOfRow` for this and the fields around it."""
    data: RunData = RunData.JOB

    @property
    def due_ms(self) -> int:
        return due_ms_of(self.position)


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenRun:
    """A run that was delivered and is to be completed, and that keeps the next one from being armed."""

    run_id: RunId
    kind: RunKind
    attempt: int
    scheduled_at_ms: int
    position: Position
    """Position of its row, and so of its entry in the log."""
    delivered_at_ms: int
    until_ms: int
    """Its time-out; the watchdog, which is the armed row, is due then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Backfill:
    """Runs of past fire times, one after the other: a chain of its own."""

    request_digits: str
    """See `run.backfill_run`."""
    armed: ArmedRow
    to_ms: int
    """Inclusive."""
    left: int
    """Runs that may follow the armed one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCounts:
    """Counters of a job, over all versions."""

    delivered: int = 0
    failed: int = 0
    skipped: int = 0
    """Fire times, so none that a calendar excludes; see `SkippedTimes.count`."""
    of_trigger: int = 0
    """Runs of fire times, however they ended, for `Trigger.runs_max`; those by hand, of backfills, and attempts after the
    first are not counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobState:
    """The state of a job. It stays below 1 KB stored: every run writes it."""

    client_id: ClientId
    job_id: JobId
    rev: int
    """Raised by each write. The first one is the time of acceptance in µs, so that a job which is made anew after its state
    has expired never meets a revision of before."""
    version: int
    status: JobStatus
    digest: str
    """Digest of the create; kept by changes, so that a late repeat of the create is recognised."""
    created_at_ms: int
    updated_at_ms: int
    """Time of the last request that changed it; runs are no changes."""
    write_id: RequestId
    """Id of the request, or of the step of an owner, that wrote it: a writer whose answer was lost recognises its own."""
    armed: ArmedRow | None = None
    """The row of the main chain."""
    cursor_ms: int = 0
    """The fire time up to which all are decided, fired or skipped; that of the armed row is not."""
    open_run: OpenRun | None = None
    side_rows: tuple[ArmedRow, ...] = ()
    """Rows beside the main chain, followed by nothing: runs by hand of a job whose runs may overlap, and rows in flight of a
    deleted job of this name."""
    backfill: Backfill | None = None
    failures: int = 0
    """Runs of the main chain that failed in a row."""
    counts: RunCounts = field(default_factory=RunCounts)
    tz_release: str = ""
    """Release of the rules of time zones that the armed row was computed by, like "2026f"."""
    calendars: CalendarDigests = ()
    """The named calendars that the definition was resolved with: the audit tells by them that one has changed since."""
    pause_reason: str | None = None
    """Text of the last pause."""
    paused_since_ms: int | None = None
    """Kept while deleted: a restore makes the job paused, or active, as it was."""
    expires_at_s: int | None = None
    """End of the retention of a deleted or ended job, in epoch seconds; from then on its readers take it for absent. Set
    if, and only if, it is one of these."""

    @property
    def name(self) -> JobName:
        return JobName(self.client_id, self.job_id)

    def pending(self) -> Iterator[ArmedRow]:
        """All rows that it names."""
        if self.armed is not None:
            yield self.armed
        yield from self.side_rows
        if self.backfill is not None:
            yield self.backfill.armed

    def pending_runs(self) -> Iterator[ArmedRow]:
        """The rows that it names, but for a watchdog, which sends nothing."""
        return (each for each in self.pending() if each.kind is not RunKind.WATCHDOG)

    def has_row_at(self, position: Position) -> bool:
        """True if it names the row at this position."""
        return any(each.position == position for each in self.pending())

    def row_name(self, armed: ArmedRow) -> RowName:
        """The name of one of its rows."""
        return RowName(
            shard=armed.shard,
            position=armed.position,
            client_id=self.client_id,
            schedule_key=ScheduleKey(self.job_id),
        )


# --- log


class SkipReason(StrEnum):
    """The reason for which fire times were skipped."""

    MISFIRE = "misfire"
    OVERLAP = "overlap"
    EXCLUDED = "excluded"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDelivery:
    """The log's entry of one attempt, at the position of its row: how its delivery ended. The run itself may go on at its
    consumer. Everything in the entry comes from the row and its marker entry, so that every owner writes the same."""

    client_id: ClientId
    job_id: JobId
    position: Position
    run_id: RunId
    kind: RunKind
    attempt: int
    version: int
    scheduled_at_ms: int
    at_ms: int
    receipt: Receipt | None = None
    """Receipt of the record, or of the dead letter."""
    failure: Failure | None = None
    """None: delivered."""
    timeout_ms: int | None = None
    """Time within which it was to be completed. None: no completion was asked for."""
    expires_at_s: int

    @property
    def name(self) -> JobName:
        return JobName(self.client_id, self.job_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class SkippedTimes:
    """The log's entry of a stretch of times at which the job did not run: fire times that were skipped, or times that a
    calendar excludes."""

    client_id: ClientId
    job_id: JobId
    position: Position
    """Its place in the log: due at its last fire time, and used by nothing else."""
    reason: SkipReason
    first_ms: int
    last_ms: int
    count: int
    """From `trigger.COUNT_EXACT_MAX` on at least that."""
    at_ms: int
    """Time of the decision."""
    expires_at_s: int

    @property
    def name(self) -> JobName:
        return JobName(self.client_id, self.job_id)


class CompletionResult(StrEnum):
    """The result of an attempt whose consumer is asked for its completion."""

    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCompletion:
    """The recorded result of an attempt: its consumer's report, or the time-out. It has the position of its row, and is an
    item beside its `RunDelivery`, because an owner that was paused may write that one again."""

    client_id: ClientId
    job_id: JobId
    position: Position
    run_id: RunId
    attempt: int
    result: CompletionResult
    finished_at_ms: int
    started_at_ms: int | None = None
    """As the consumer said."""
    document: bytes | None = None
    """The result or the error, as compact JSON."""
    expires_at_s: int

    @property
    def name(self) -> JobName:
        return JobName(self.client_id, self.job_id)


LogEntry = RunDelivery | SkippedTimes | RunCompletion


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRequest:
    """The item by which a request for runs is recognised when it comes again."""

    client_id: ClientId
    job_id: JobId
    request_id: str
    """As its client gave it."""
    run_id: RunId
    """Id of the first run."""
    position: Position
    """Position of the first run's row."""
    digest: str = ""
    """Equal for, and only for, the same request again."""
    expires_at_s: int

    @property
    def name(self) -> JobName:
        return JobName(self.client_id, self.job_id)


# --- completions as they are asked for


@dataclass(frozen=True, kw_only=True, slots=True)
class CompletionReport:
    """A consumer's report that a run has ended."""

    attempt: int
    succeeded: bool
    started_at_ms: int | None = None
    document: bytes | None = None
    """The result or the error, as compact JSON."""
    may_retry: bool = True
    """False: no other attempt is to be made, whatever the job's policy."""

    @property
    def result(self) -> CompletionResult:
        return CompletionResult.COMPLETED if self.succeeded else CompletionResult.FAILED


@dataclass(frozen=True, kw_only=True, slots=True)
class Heartbeat:
    """A consumer's report that a run goes on."""

    attempt: int
    extend_ms: int
    """The time-out is to be no nearer than this."""


# --- changes


@dataclass(frozen=True, kw_only=True, slots=True)
class TakenRow:
    """A row that a request takes, after hold and look."""

    name: RowName
    hold: RequestId
    """The change is made only if the row still bears it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobTransaction:
    """One change of a job, which is one transaction. Its conditions: the state is at `before_rev`, each taken row bears
    its hold, the row named by `absent` is not there, the request is not noted yet, the named calendars are as they were
    read, and so is the note of commands."""

    before_rev: int | None
    """None: there is no state."""
    state: JobState
    """The state from then on; its revision is higher."""
    definition: Job | None = None
    """A new version, to be put."""
    rows: tuple[Row, ...] = ()
    """To be put; each bears the revision of the new state."""
    taken: tuple[TakenRow, ...] = ()
    """To be deleted."""
    absent: RowName | None = None
    entries: tuple[LogEntry, ...] = ()
    """To be put; a `RunCompletion` only if none is there."""
    request: RunRequest | None = None
    """To be put, if none is there."""
    command: NoteChange | None = None
    calendars: CalendarDigests = ()
    """Named calendars that must still have the content which the definition was resolved with."""
    references_put: tuple[str, ...] = ()
    """Calendars that the job names from now on: a reference to it is put beside each, before the transaction is made. It may
    stay there though that fails: see `domain.jobs.calendar`."""
    references_deleted: tuple[str, ...] = ()
    """Calendars that it names no more: its references are to be deleted."""

    @property
    def name(self) -> JobName:
        return self.state.name


def armed_row(row: Row) -> ArmedRow:
    """The row as the state names it."""
    run = run_of_row(row)
    return ArmedRow(
        shard=row.shard,
        position=row.position,
        kind=run.kind,
        run_id=run.run_id,
        attempt=run.attempt,
        scheduled_at_ms=run.scheduled_at_ms,
        cursor_ms=run.cursor_ms,
        version=run.version,
        data=run.data,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedJob:
    """A job of another store, and what its create alone would not bring back."""

    new: NewJob
    """With the creation and the digest that it has there."""
    version: int
    updated_at_ms: int
    cursor_ms: int
    """Up to here all fire times were decided there."""
    counts: RunCounts
    failures: int
    paused_since_ms: int | None
    """None: it is active."""
    pause_reason: str | None
    calendars: tuple[NamedExclusion, ...] = ()
    """The named calendars that it uses there."""


def run_of_row(row: Row) -> RunOfRow:
    """The run of a row that has one: which occurrence of which job it is."""
    assert row.run is not None, "a row of a job"
    return row.run


def job_name_of(row: Row) -> JobName:
    """The name of the job whose occurrence a row is."""
    return JobName(row.schedule.client_id, JobId(row.schedule.schedule_key))
