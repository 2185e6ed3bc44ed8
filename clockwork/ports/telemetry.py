"""Telemetry: metrics, and the activity that people look at (`domain.activity`). What happens is told once, here."""

from collections.abc import Callable
from typing import Literal, Protocol

from clockwork.domain.activity import Action, ScheduleChange
from clockwork.domain.jobs.job import CompletionResult, SkipReason
from clockwork.domain.schedule import BrokenRow, Failure, Guarantee, Receipt, Row
from clockwork.domain.sharding import ShardId
from clockwork.ports.activity import Stream

RequestResult = Literal["created", "repeated", "cancelled", "rescheduled", "rejected"]
"""`rescheduled`: changed in any way, made due now, or armed again; `repeated`: nothing was to be done any more."""
DeliveryResult = Literal["delivered", "retried", "failed"]
"""`retried`: a topic refused the attempt, and another follows."""
LetterPlace = Literal["cluster", "client", "turned_away"]
"""`cluster`: the cluster's topic; `client`: the client's own topic; `turned_away`: the
cluster's topic, because the client's own refused the letter."""
AuthResult = Literal["accepted", "missing", "refused", "forbidden"]
CommandName = Literal[
    "create",
    "cancel",
    "reschedule",
    "createJob",
    "updateJob",
    "deleteJob",
    "pauseJob",
    "resumeJob",
    "runJob",
    "completeRun",
    "failRun",
    "heartbeatRun",
    "unknown",
]
CommandResult = Literal["done", "refused", "over", "dead_letter", "reply_dropped"]
Limit = Literal[
    "creates", "create_bytes", "pending", "jobs", "topic_deliveries", "connections", "slow_requests", "read_units"
]
ReadCall = Literal[
    "list",
    "get",
    "why",
    "upcoming",
    "forecast",
    "search",
    "shards",
    "nodes",
    "clients",
    "pauses",
    "dead_letters",
    "recorded_forecast",
]
"""Calls whose reads are counted in read units (`ports.read_units`). `recorded_forecast`: no call, but the forecast
that a process makes of its shards each minute."""
CountResult = Literal["counted", "failed"]
Malformed = Literal["row", "wakeup", "newer_row", "marker", "newer_marker", "job"]
JobRunResult = Literal["delivered", "failed"]
RearmedFor = Literal["not_armed", "time_zones", "calendar"]
"""`not_armed`: nothing was armed for an active job; `time_zones`: by other rules of time zones its time is another one;
`calendar`: one of its named calendars has changed."""
TransactionResult = Literal["committed", "refused", "aborted", "unknown", "fenced"]
"""`refused`: a record or a topic was the cause, before the commit was asked for; `aborted`: the same without a known
cause; `unknown`: the commit was asked for, and no answer to it can be believed; `fenced`: the id has a newer producer."""
HandOver = Literal["released", "fenced"]
"""`released`: the shard had no owner any more (or never one); `fenced`: its owner was fenced for it."""
ReleaseResult = Literal["released", "given_up"]
"""`given_up`: not tidy within the drain time-out, so the next owner fences this incarnation."""
IncarnationEnd = Literal["stopped", "fenced", "gave_up", "defect"]
"""`stopped`: an orderly stop; `gave_up`: a slot could not be healed within the drain time-out."""
StoreResult = Literal[
    "ok", "cancelled", "condition_failed", "conflict", "throttled", "rejected", "unavailable", "error"
]


class Telemetry(Protocol):
    """Metrics. No method does I/O, waits, or raises; labels come from small closed sets."""

    def request(self, *, route: str, status: int, seconds: float) -> None: ...
    def schedule(self, result: RequestResult, change: ScheduleChange | None = None) -> None:
        """Counts a request about a schedule. `change`: what it did; None if it changed nothing."""

    def delivered(
        self, guarantee: Guarantee, row: Row, receipt: Receipt, *, late_seconds: float, catch_up: bool
    ) -> None:
        """Lateness of one delivery, which `deliveries` counts. `catch_up`: its fire time was missed and is caught up; it was
        late before it was armed, and is no figure of this node's work."""

    def deliveries(self, guarantee: Guarantee, count: int) -> None: ...
    def refused(self, row: Row, reason: str, attempts: int) -> None:
        """Counts an attempt that the topic refused for the record's content; it is made again."""

    def failed(self, guarantee: Guarantee, row: Row | BrokenRow, failure: Failure, receipt: Receipt | None) -> None:
        """Counts a schedule that ended as failed. `receipt`: of its dead letter; None: it has none."""

    def action(self, action: Action) -> None:
        """Notes what was done to a dead letter, a job, many schedules, or to a client, a topic or a shard as a whole."""

    def activity_sent(self, stream: Stream, count: int, size_bytes: int) -> None:
        """Counts events or minutes that Kafka has taken, and their bytes."""

    def activity_lost(self, stream: Stream, count: int) -> None:
        """Counts events or minutes that were not recorded."""

    def dead_letter(self, where: LetterPlace) -> None: ...
    def due(self, shard: ShardId, *, rows: int, oldest_seconds: float) -> None: ...
    def shard_released(self, shard: ShardId) -> None:
        """Removes the gauges of a shard that another node now owns."""

    def shards_owned(self, count: int) -> None: ...
    def shards_assigned(self, count: int) -> None:
        """Number of shards that the consumer group assigns to this process, owned or not yet."""

    def rebalance(self) -> None: ...
    def incarnation_ended(self, end: IncarnationEnd) -> None:
        """Counts the end of an incarnation of this process."""

    def owner_fenced(self) -> None:
        """Counts an incarnation of any process that this one fenced, in order to take its shards."""

    def taken_over(self, hand_over: HandOver, *, seconds: float, shards: int = 1) -> None:
        """Counts shards that were taken over together, and how long that took, from the assignment to the ownership."""

    def released(self, result: ReleaseResult, *, seconds: float) -> None:
        """Counts the release of one shard, and how long it took, from the assignment without it."""

    def transaction(self, *, slot: int, result: TransactionResult, rows: int, seconds: float) -> None:
        """One Kafka transaction that was begun, with its number of rows and its time from begin to commit. `slot`: the
        role, 0 quick, 1 bulk."""

    def slot_healed(self, slot: int, *, seconds: float) -> None:
        """Counts each healing of a slot, the init before its first use included, and the time of R1 and R2."""

    def pace_wait(self, seconds: float) -> None:
        """Counts a wait before a transaction begins: for the pace, or (0) for the quick role to begin first."""

    def watch_delivery_queue(self, read: Callable[[], tuple[int, float]]) -> None:
        """Sets the function that tells, at each reading of the metrics, how many rows wait for a transaction and since how
        many seconds the longest of them does (0 without one). The last one set counts. A gauge that is only written when
        the queue moves would stand still with it."""

    def store_call(self, *, store: str, operation: str, result: StoreResult, seconds: float) -> None:
        """One request to a store of this kind (`dynamodb`, …), under the operation's name there, its repeats included."""

    def watch_store_pool(self, read: Callable[[], tuple[int, int]]) -> None:
        """Sets the function that tells, at each reading of the metrics, how many connections to the store are open, and how
        many of them are in use. The last one set counts."""

    def store_pool_wait(self, seconds: float) -> None:
        """Counts a call that had to wait for a connection to the store."""

    def store_oldest_snapshot(self, seconds: float) -> None:
        """Age of the oldest snapshot that a session holds in the store: deleted rows stay for as long."""

    def store_table(self, table: str, *, size_bytes: int, dead_rows: int) -> None:
        """Size of a table of the store with its indexes, and its deleted rows that were not removed yet."""

    def clock_skew(self, seconds: float) -> None: ...
    def clock_held_ahead(self, seconds: float) -> None:
        """Lead of held time over the machine's clock: above zero after that was set back."""

    def loop_lag(self, seconds: float) -> None: ...
    def malformed(self, what: Malformed) -> None: ...
    def auth(self, result: AuthResult) -> None: ...
    def auth_keys(self, count: int, *, current: bool) -> None:
        """Number of API keys in force; `current`: they are those of the keys file as it is now."""

    def limited(self, limit: Limit) -> None:
        """Counts a request or delivery that was refused or held back by this limit."""

    def metered_read(self, call: ReadCall, *, units: float) -> None:
        """Counts the read units that one call has used."""

    def pending_count(self, result: CountResult) -> None:
        """Counts a count of a client's pending schedules, or its failure."""

    def connections(self, count: int) -> None: ...
    def command(self, command: CommandName, result: CommandResult) -> None: ...
    def commands_lag(self, kafka_partition: int, records: int | None) -> None:
        """Commands not yet processed in an assigned Kafka partition; None: the partition is no longer assigned."""

    def paused(self, *, clients: int, topics: int) -> None:
        """Number of paused clients and topics, as known to this node."""

    def job_run(self, result: JobRunResult) -> None:
        """Counts a run of a job that has ended, once what follows it is armed."""

    def job_skipped(self, reason: SkipReason, count: int) -> None:
        """Counts fire times that were skipped; of the reason `excluded`, times that a calendar excludes, which are no fire
        times."""

    def job_completion(self, result: CompletionResult, *, seconds: float) -> None:
        """Counts the end of a run that was to be completed; `seconds`: from its start, or its delivery."""

    def job_repaired(self) -> None:
        """Counts a job whose row was not there."""

    def job_rearmed(self, reason: RearmedFor) -> None: ...
    def watch_job_audit(self, read: Callable[[], float], *, interval_seconds: float) -> None:
        """Sets the function that tells, at each reading of the metrics, how many seconds ago the segment was audited whose
        audit lies farthest back, of the shards that are owned; and the interval of the audits. The last ones set count."""

    def job_runs_overdue(self, count: int) -> None:
        """Number of runs that are open though their time-out is long over, as the last audits of the owned shards saw."""


class NoTelemetry:
    """The twin that forgets everything."""

    def exposition(self) -> tuple[bytes, str]:
        return b"", "text/plain; charset=utf-8"

    def request(self, *, route: str, status: int, seconds: float) -> None: ...
    def schedule(self, result: RequestResult, change: ScheduleChange | None = None) -> None: ...
    def delivered(
        self, guarantee: Guarantee, row: Row, receipt: Receipt, *, late_seconds: float, catch_up: bool
    ) -> None: ...
    def deliveries(self, guarantee: Guarantee, count: int) -> None: ...
    def refused(self, row: Row, reason: str, attempts: int) -> None: ...
    def failed(self, guarantee: Guarantee, row: Row | BrokenRow, failure: Failure, receipt: Receipt | None) -> None: ...
    def action(self, action: Action) -> None: ...
    def activity_sent(self, stream: Stream, count: int, size_bytes: int) -> None: ...
    def activity_lost(self, stream: Stream, count: int) -> None: ...
    def dead_letter(self, where: LetterPlace) -> None: ...
    def due(self, shard: ShardId, *, rows: int, oldest_seconds: float) -> None: ...
    def shard_released(self, shard: ShardId) -> None: ...
    def shards_owned(self, count: int) -> None: ...
    def shards_assigned(self, count: int) -> None: ...
    def rebalance(self) -> None: ...
    def incarnation_ended(self, end: IncarnationEnd) -> None: ...
    def owner_fenced(self) -> None: ...
    def taken_over(self, hand_over: HandOver, *, seconds: float, shards: int = 1) -> None: ...
    def released(self, result: ReleaseResult, *, seconds: float) -> None: ...
    def transaction(self, *, slot: int, result: TransactionResult, rows: int, seconds: float) -> None: ...
    def slot_healed(self, slot: int, *, seconds: float) -> None: ...
    def pace_wait(self, seconds: float) -> None: ...
    def watch_delivery_queue(self, read: Callable[[], tuple[int, float]]) -> None: ...
    def store_call(self, *, store: str, operation: str, result: StoreResult, seconds: float) -> None: ...
    def watch_store_pool(self, read: Callable[[], tuple[int, int]]) -> None: ...
    def store_pool_wait(self, seconds: float) -> None: ...
    def store_oldest_snapshot(self, seconds: float) -> None: ...
    def store_table(self, table: str, *, size_bytes: int, dead_rows: int) -> None: ...
    def clock_skew(self, seconds: float) -> None: ...
    def clock_held_ahead(self, seconds: float) -> None: ...
    def loop_lag(self, seconds: float) -> None: ...
    def malformed(self, what: Malformed) -> None: ...
    def auth(self, result: AuthResult) -> None: ...
    def auth_keys(self, count: int, *, current: bool) -> None: ...
    def limited(self, limit: Limit) -> None: ...
    def metered_read(self, call: ReadCall, *, units: float) -> None: ...
    def pending_count(self, result: CountResult) -> None: ...
    def connections(self, count: int) -> None: ...
    def command(self, command: CommandName, result: CommandResult) -> None: ...
    def commands_lag(self, kafka_partition: int, records: int | None) -> None: ...
    def paused(self, *, clients: int, topics: int) -> None: ...
    def job_run(self, result: JobRunResult) -> None: ...
    def job_skipped(self, reason: SkipReason, count: int) -> None: ...
    def job_completion(self, result: CompletionResult, *, seconds: float) -> None: ...
    def job_repaired(self) -> None: ...
    def job_rearmed(self, reason: RearmedFor) -> None: ...
    def watch_job_audit(self, read: Callable[[], float], *, interval_seconds: float) -> None: ...
    def job_runs_overdue(self, count: int) -> None: ...
