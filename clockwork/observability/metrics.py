"""Metrics: `Telemetry` as Prometheus metrics.

Names, types and labels are what dashboards and alerts rely on. Each node has a registry of its own, so that two nodes in one
process (tests, simulation) do not share series. Series with a closed set of labels exist from the start, because an alert
on a rate sees nothing in a counter that is born at 1.
"""

from collections.abc import Callable
from functools import cache
from typing import Final, get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from clockwork.domain.activity import Action, ScheduleChange
from clockwork.domain.jobs.job import CompletionResult, SkipReason
from clockwork.domain.schedule import BrokenRow, Failure, Guarantee, Receipt, Row
from clockwork.domain.sharding import ShardId
from clockwork.ports.activity import STREAMS, Stream
from clockwork.ports.telemetry import (
    AuthResult,
    CommandName,
    CommandResult,
    CountResult,
    DeliveryResult,
    HandOver,
    IncarnationEnd,
    JobRunResult,
    LetterPlace,
    Limit,
    Malformed,
    ReadCall,
    RearmedFor,
    ReleaseResult,
    RequestResult,
    StoreResult,
    TransactionResult,
)

_FAST_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_RUN_S: Final = (0.1, 1, 10, 60, 300, 900, 3_600, 14_400, 86_400)
_LATENESS_S: Final = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
    *(60.0, 300.0, 900.0, 3_600.0),
)
_CATCH_UP_S: Final = (60.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0, 2_592_000.0)
_RECORDS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000)
_SLOTS: Final = (0, 1)
_PACE_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.1, 1.0)
_HAND_OVER_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LOOP_LAG_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class PrometheusTelemetry:
    """`Telemetry` as Prometheus metrics, in a registry of its own."""

    def __init__(self) -> None:
        # `…_created` series double the exposition and tell nothing beyond the time of the restart. The library's switch is
        # global.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...] = _FAST_S) -> Histogram:
            return Histogram(name, text, labels, registry=registry, buckets=buckets)

        # A series of a family is looked up for each schedule and each call; the library's own look-up takes a lock, and
        # makes the labels' text anew, which costs more than counting. Only families of which no series is removed.
        self._requests = cache(counter("clockwork_requests_total", "HTTP requests answered", "route", "status").labels)
        self._request_s = cache(
            histogram("clockwork_request_seconds", "Time to answer a request", "route", "status").labels
        )
        self._schedules = cache(
            counter(
                "clockwork_schedules_total",
                "Results of requests about schedules; rescheduled: changed, made due now, or armed again",
                "result",
            ).labels
        )
        self._deliveries = cache(
            counter(
                "clockwork_deliveries_total",
                "Results of delivery attempts; retried: refused by the topic, another attempt follows",
                "guarantee",
                "result",
            ).labels
        )
        self._dead_letters = counter(
            "clockwork_dead_letters_total", "Dead letters, by the topic that took them", "where"
        )
        self._lateness = cache(
            histogram(
                "clockwork_lateness_seconds", "Delivery time less due time", "guarantee", buckets=_LATENESS_S
            ).labels
        )
        self._catch_up = histogram(
            "clockwork_job_catch_up_lateness_seconds",
            "Delivery time less due time, of missed fire times that are caught up",
            buckets=_CATCH_UP_S,
        )
        self._activity = counter("clockwork_activity_total", "Events and minutes recorded, or lost", "stream", "result")
        self._activity_bytes = counter("clockwork_activity_bytes_total", "Bytes of recorded activity", "stream")
        self._due = gauge("clockwork_due", "Rows due and not yet delivered, as last seen", "shard")
        self._oldest = gauge("clockwork_oldest_due_seconds", "Time since the oldest of them was due", "shard")
        self._shards_owned = gauge("clockwork_shards_owned", "Shards that this node owns")
        self._rebalances = counter("clockwork_rebalances_total", "Rebalances seen")
        self._shards_assigned = gauge(
            "clockwork_shards_assigned", "Shards that the consumer group assigns to this node"
        )
        self._fenced = counter(
            "clockwork_fenced_total", "Incarnations of this node that ended because they were fenced"
        )
        self._ends = counter("clockwork_incarnation_ends_total", "Ends of incarnations of this node", "cause")
        self._owners_fenced = counter(
            "clockwork_owners_fenced_total", "Incarnations that this node fenced to take their shards"
        )
        self._takeover = histogram("clockwork_takeover_seconds", "Time to become the owner of a shard")
        self._takeovers = counter("clockwork_takeovers_total", "Shards taken over by this node", "hand_over")
        self._release = histogram(
            "clockwork_release_seconds", "Time to give up a shard", "result", buckets=_HAND_OVER_S
        )
        self._batch = histogram("clockwork_batch_records", "Rows in one committed Kafka transaction", buckets=_RECORDS)
        self._commit = histogram("clockwork_kafka_commit_seconds", "Time of one Kafka transaction, begin to commit")
        self._transactions = counter(
            "clockwork_transactions_total", "Kafka transactions of deliveries", "slot", "result"
        )
        self._heal = histogram(
            "clockwork_slot_heal_seconds",
            "Time to heal a slot after a refusal or an unknown commit",
            "slot",
            buckets=_HAND_OVER_S,
        )
        self._pace = histogram(
            "clockwork_pace_wait_seconds", "Time by which the pace put off a transaction", buckets=_PACE_S
        )
        self._queue: Callable[[], tuple[int, float]] = lambda: (0, 0.0)
        gauge("clockwork_delivery_queue_rows", "Rows that wait for a transaction").set_function(
            lambda: self._queue()[0]
        )
        gauge("clockwork_delivery_queue_oldest_seconds", "Time since the oldest of them was handed over").set_function(
            lambda: self._queue()[1]
        )
        self._store_call = cache(
            histogram("clockwork_store_seconds", "Time of one call to the store", "store", "operation", "result").labels
        )
        self._pool: Callable[[], tuple[int, int]] = lambda: (0, 0)
        gauge("clockwork_store_connections", "Open connections to the store").set_function(lambda: self._pool()[0])
        gauge("clockwork_store_connections_in_use", "Connections to the store that carry a request").set_function(
            lambda: self._pool()[1]
        )
        self._pool_wait = histogram(
            "clockwork_store_pool_wait_seconds", "Time for which a call waited for a connection"
        )
        self._snapshot = gauge(
            "clockwork_store_oldest_snapshot_seconds", "Age of the oldest snapshot held in the store, as last seen"
        )
        self._table_bytes = gauge(
            "clockwork_store_table_bytes", "Size of a table with its indexes, as last seen", "table"
        )
        self._dead_rows = gauge(
            "clockwork_store_dead_rows", "Deleted rows that the store has not removed yet, as last seen", "table"
        )
        self._skew = gauge("clockwork_clock_skew_seconds", "This node's clock less the store's, as far as certain")
        self._held_ahead = gauge(
            "clockwork_clock_held_ahead_seconds",
            "Lead of this node's time over the machine's clock, which was set back",
        )
        self._loop_lag = histogram("clockwork_loop_lag_seconds", "Delay of the event loop", buckets=_LOOP_LAG_S)
        self._malformed = counter("clockwork_malformed_total", "Stored rows or records that cannot be read", "what")
        self._auth = counter("clockwork_auth_total", "Results of checked keys and tokens", "result")
        self._auth_keys = gauge("clockwork_auth_keys", "API keys in force")
        self._auth_keys_current = gauge(
            "clockwork_auth_keys_current",
            "1 if the keys in force are those of the keys file, 0 while it cannot be read",
        )
        self._limited = counter(
            "clockwork_limited_total", "Requests and deliveries refused or held back by a limit", "limit"
        )
        self._read_units = counter(
            "clockwork_ui_read_units_total", "Read units that the dashboard's calls have used at the store", "call"
        )
        self._pending_counts = counter(
            "clockwork_pending_counts_total", "Counts of a client's pending schedules", "result"
        )
        self._connections = gauge("clockwork_http_connections", "Open HTTP connections")
        self._commands = counter("clockwork_commands_total", "Results of commands", "command", "result")
        self._commands_lag = gauge("clockwork_commands_lag", "Commands not yet processed, as last seen", "partition")
        self._paused = gauge("clockwork_paused", "Paused clients and topics, as known to this node", "what")
        self._job_runs = counter("clockwork_job_runs_total", "Runs of recurring jobs that have ended", "result")
        self._job_skipped = counter(
            "clockwork_job_skipped_total",
            "Fire times at which active jobs did not run, and times that calendars exclude, by reason",
            "reason",
        )
        self._job_completions = counter("clockwork_job_completions_total", "Runs that were to be completed", "result")
        self._job_run_s = histogram(
            "clockwork_job_run_seconds",
            "Time from the start of a run, or its delivery, to its completion or time-out",
            "result",
            buckets=_RUN_S,
        )
        self._job_repaired = counter("clockwork_job_repaired_total", "Jobs whose next row was not there")
        self._job_rearmed = counter("clockwork_job_rearmed_total", "Jobs that the audit armed anew", "reason")
        self._job_audit: Callable[[], float] = lambda: 0.0
        gauge("clockwork_job_audit_age_seconds", "Age of the oldest audit of the owned shards").set_function(
            lambda: self._job_audit()
        )
        self._job_audit_interval = gauge("clockwork_job_audit_interval_seconds", "Interval of the audits of jobs")
        self._job_runs_overdue = gauge(
            "clockwork_job_runs_overdue", "Runs open though their time-out is long over, as last audited"
        )
        self._create_closed_series()

    def _create_closed_series(self) -> None:
        for result in get_args(RequestResult):
            self._schedules(result)
        for guarantee in Guarantee:
            self._lateness(guarantee.value)
            for result in get_args(DeliveryResult):
                self._deliveries(guarantee.value, result)
        for stream in STREAMS:
            self._activity_bytes.labels(stream)
            for taken in ("sent", "lost"):
                self._activity.labels(stream, taken)
        for where in get_args(LetterPlace):
            self._dead_letters.labels(where)
        for end in get_args(IncarnationEnd):
            self._ends.labels(end)
        for hand_over in get_args(HandOver):
            self._takeovers.labels(hand_over)
        for release in get_args(ReleaseResult):
            self._release.labels(release)
        for slot in _SLOTS:
            self._heal.labels(str(slot))
            for transaction in get_args(TransactionResult):
                self._transactions.labels(str(slot), transaction)
        for what in get_args(Malformed):
            self._malformed.labels(what)
        for auth_result in get_args(AuthResult):
            self._auth.labels(auth_result)
        for limit in get_args(Limit):
            self._limited.labels(limit)
        for call in get_args(ReadCall):
            self._read_units.labels(call)
        for count_result in get_args(CountResult):
            self._pending_counts.labels(count_result)
        for run in get_args(JobRunResult):
            self._job_runs.labels(run)
        for skip_reason in SkipReason:
            self._job_skipped.labels(skip_reason.value)
        for completion_result in CompletionResult:
            self._job_completions.labels(completion_result.value)
            self._job_run_s.labels(completion_result.value)
        for rearmed_for in get_args(RearmedFor):
            self._job_rearmed.labels(rearmed_for)
        for command in get_args(CommandName):
            for command_result in get_args(CommandResult):
                self._commands.labels(command, command_result)

    def exposition(self) -> tuple[bytes, str]:
        """All metrics in Prometheus' text format, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def request(self, *, route: str, status: int, seconds: float) -> None:
        self._requests(route, str(status)).inc()
        self._request_s(route, str(status)).observe(seconds)

    def schedule(self, result: RequestResult, change: ScheduleChange | None = None) -> None:
        self._schedules(result).inc()

    def delivered(
        self, guarantee: Guarantee, row: Row, receipt: Receipt, *, late_seconds: float, catch_up: bool
    ) -> None:
        (self._catch_up if catch_up else self._lateness(guarantee.value)).observe(late_seconds)

    def deliveries(self, guarantee: Guarantee, count: int) -> None:
        self._deliveries(guarantee.value, "delivered").inc(count)

    def refused(self, row: Row, reason: str, attempts: int) -> None:
        self._deliveries(row.schedule.guarantee.value, "retried").inc()

    def failed(self, guarantee: Guarantee, row: Row | BrokenRow, failure: Failure, receipt: Receipt | None) -> None:
        self._deliveries(guarantee.value, "failed").inc()

    def action(self, action: Action) -> None:
        """No metric: names are no labels."""

    def activity_sent(self, stream: Stream, count: int, size_bytes: int) -> None:
        self._activity.labels(stream, "sent").inc(count)
        self._activity_bytes.labels(stream).inc(size_bytes)

    def activity_lost(self, stream: Stream, count: int) -> None:
        self._activity.labels(stream, "lost").inc(count)

    def dead_letter(self, where: LetterPlace) -> None:
        self._dead_letters.labels(where).inc()

    def due(self, shard: ShardId, *, rows: int, oldest_seconds: float) -> None:
        self._due.labels(str(shard)).set(rows)
        self._oldest.labels(str(shard)).set(oldest_seconds)

    def shard_released(self, shard: ShardId) -> None:
        for gauge in (self._due, self._oldest):
            # Created first, because removing an absent series raises in some versions of the library.
            gauge.labels(str(shard))
            gauge.remove(str(shard))

    def shards_owned(self, count: int) -> None:
        self._shards_owned.set(count)

    def shards_assigned(self, count: int) -> None:
        self._shards_assigned.set(count)

    def rebalance(self) -> None:
        self._rebalances.inc()

    def incarnation_ended(self, end: IncarnationEnd) -> None:
        self._ends.labels(end).inc()
        if end == "fenced":
            self._fenced.inc()

    def owner_fenced(self) -> None:
        self._owners_fenced.inc()

    def taken_over(self, hand_over: HandOver, *, seconds: float, shards: int = 1) -> None:
        self._takeovers.labels(hand_over).inc(shards)
        for _ in range(shards):
            self._takeover.observe(seconds)

    def released(self, result: ReleaseResult, *, seconds: float) -> None:
        self._release.labels(result).observe(seconds)

    def transaction(self, *, slot: int, result: TransactionResult, rows: int, seconds: float) -> None:
        self._transactions.labels(str(slot), result).inc()
        if result == "committed":
            self._batch.observe(rows)
            self._commit.observe(seconds)

    def slot_healed(self, slot: int, *, seconds: float) -> None:
        self._heal.labels(str(slot)).observe(seconds)

    def pace_wait(self, seconds: float) -> None:
        self._pace.observe(seconds)

    def watch_delivery_queue(self, read: Callable[[], tuple[int, float]]) -> None:
        self._queue = read

    def store_call(self, *, store: str, operation: str, result: StoreResult, seconds: float) -> None:
        self._store_call(store, operation, result).observe(seconds)

    def watch_store_pool(self, read: Callable[[], tuple[int, int]]) -> None:
        self._pool = read

    def store_pool_wait(self, seconds: float) -> None:
        self._pool_wait.observe(seconds)

    def store_oldest_snapshot(self, seconds: float) -> None:
        self._snapshot.set(seconds)

    def store_table(self, table: str, *, size_bytes: int, dead_rows: int) -> None:
        self._table_bytes.labels(table).set(size_bytes)
        self._dead_rows.labels(table).set(dead_rows)

    def clock_skew(self, seconds: float) -> None:
        self._skew.set(seconds)

    def clock_held_ahead(self, seconds: float) -> None:
        self._held_ahead.set(seconds)

    def loop_lag(self, seconds: float) -> None:
        self._loop_lag.observe(seconds)

    def malformed(self, what: Malformed) -> None:
        self._malformed.labels(what).inc()

    def auth(self, result: AuthResult) -> None:
        self._auth.labels(result).inc()

    def auth_keys(self, count: int, *, current: bool) -> None:
        self._auth_keys.set(count)
        self._auth_keys_current.set(current)

    def limited(self, limit: Limit) -> None:
        self._limited.labels(limit).inc()

    def metered_read(self, call: ReadCall, *, units: float) -> None:
        self._read_units.labels(call).inc(units)

    def pending_count(self, result: CountResult) -> None:
        self._pending_counts.labels(result).inc()

    def connections(self, count: int) -> None:
        self._connections.set(count)

    def command(self, command: CommandName, result: CommandResult) -> None:
        self._commands.labels(command, result).inc()

    def commands_lag(self, kafka_partition: int, records: int | None) -> None:
        self._commands_lag.labels(str(kafka_partition)).set(records or 0)
        if records is None:
            self._commands_lag.remove(str(kafka_partition))

    def paused(self, *, clients: int, topics: int) -> None:
        self._paused.labels("client").set(clients)
        self._paused.labels("topic").set(topics)

    def job_run(self, result: JobRunResult) -> None:
        self._job_runs.labels(result).inc()

    def job_skipped(self, reason: SkipReason, count: int) -> None:
        self._job_skipped.labels(reason.value).inc(count)

    def job_completion(self, result: CompletionResult, *, seconds: float) -> None:
        self._job_completions.labels(result.value).inc()
        self._job_run_s.labels(result.value).observe(max(seconds, 0.0))

    def job_repaired(self) -> None:
        self._job_repaired.inc()

    def job_rearmed(self, reason: RearmedFor) -> None:
        self._job_rearmed.labels(reason).inc()

    def watch_job_audit(self, read: Callable[[], float], *, interval_seconds: float) -> None:
        self._job_audit = read
        self._job_audit_interval.set(interval_seconds)

    def job_runs_overdue(self, count: int) -> None:
        self._job_runs_overdue.set(count)
