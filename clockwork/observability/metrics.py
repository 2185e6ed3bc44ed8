"""Metrics: `Telemetry` as Prometheus metrics.

Names, types and labels are what dashboards and alerts rely on. Each node has a registry of its own, so that two nodes in one
process (tests, simulation) do not share series. Series with a closed set of labels exist from the start, because an alert
on a rate sees nothing in a counter that is born at 1.
"""

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

from clockwork.domain.schedule import Guarantee
from clockwork.domain.sharding import ShardId
from clockwork.ports.telemetry import (
    AuthResult,
    CommandName,
    CommandResult,
    CountResult,
    DeliveryResult,
    LetterPlace,
    Limit,
    Malformed,
    RequestResult,
    StoreResult,
)

_FAST_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LATENESS_S: Final = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
    *(60.0, 300.0, 900.0, 3_600.0),
)
_RECORDS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000)
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

        self._requests = counter("clockwork_requests_total", "HTTP requests answered", "route", "status")
        self._request_s = histogram("clockwork_request_seconds", "Time to answer a request", "route", "status")
        self._schedules = counter("clockwork_schedules_total", "Results of requests about schedules", "result")
        self._deliveries = counter("clockwork_deliveries_total", "Results of delivery attempts", "guarantee", "result")
        self._dead_letters = counter(
            "clockwork_dead_letters_total", "Dead letters, by the topic that took them", "where"
        )
        self._lateness = histogram(
            "clockwork_lateness_seconds", "Delivery time less due time", "guarantee", buckets=_LATENESS_S
        )
        self._due = gauge("clockwork_due", "Rows due and not yet delivered, as last seen", "shard")
        self._oldest = gauge("clockwork_oldest_due_seconds", "Time since the oldest of them was due", "shard")
        self._shards_owned = gauge("clockwork_shards_owned", "Shards that this node owns")
        self._rebalances = counter("clockwork_rebalances_total", "Rebalances seen")
        self._fenced = counter("clockwork_fenced_total", "Shard loops stopped because another owner has their shard")
        self._takeover = histogram("clockwork_takeover_seconds", "Time to become the owner of a shard")
        self._batch = histogram("clockwork_batch_records", "Records in one Kafka transaction", buckets=_RECORDS)
        self._commit = histogram("clockwork_kafka_commit_seconds", "Time of one Kafka transaction, begin to commit")
        self._store_call = histogram(
            "clockwork_store_seconds", "Time of one call to the store", "store", "operation", "result"
        )
        self._skew = gauge("clockwork_clock_skew_seconds", "This node's clock less the store's, as far as certain")
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
        self._pending_counts = counter(
            "clockwork_pending_counts_total", "Counts of a client's pending schedules", "result"
        )
        self._connections = gauge("clockwork_http_connections", "Open HTTP connections")
        self._commands = counter("clockwork_commands_total", "Results of commands", "command", "result")
        self._commands_lag = gauge("clockwork_commands_lag", "Commands not yet processed, as last seen", "partition")
        self._paused = gauge("clockwork_paused", "Paused clients and topics, as known to this node", "what")
        self._create_closed_series()

    def _create_closed_series(self) -> None:
        for result in get_args(RequestResult):
            self._schedules.labels(result)
        for guarantee in Guarantee:
            self._lateness.labels(guarantee.value)
            for result in get_args(DeliveryResult):
                self._deliveries.labels(guarantee.value, result)
        for where in get_args(LetterPlace):
            self._dead_letters.labels(where)
        for what in get_args(Malformed):
            self._malformed.labels(what)
        for auth_result in get_args(AuthResult):
            self._auth.labels(auth_result)
        for limit in get_args(Limit):
            self._limited.labels(limit)
        for count_result in get_args(CountResult):
            self._pending_counts.labels(count_result)
        for command in get_args(CommandName):
            for command_result in get_args(CommandResult):
                self._commands.labels(command, command_result)

    def exposition(self) -> tuple[bytes, str]:
        """All metrics in Prometheus' text format, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def request(self, *, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._request_s.labels(route, str(status)).observe(seconds)

    def schedule(self, result: RequestResult) -> None:
        self._schedules.labels(result).inc()

    def delivery(self, guarantee: Guarantee, result: DeliveryResult, count: int = 1) -> None:
        self._deliveries.labels(guarantee.value, result).inc(count)

    def dead_letter(self, where: LetterPlace) -> None:
        self._dead_letters.labels(where).inc()

    def lateness(self, guarantee: Guarantee, seconds: float) -> None:
        self._lateness.labels(guarantee.value).observe(seconds)

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

    def rebalance(self) -> None:
        self._rebalances.inc()

    def fenced(self) -> None:
        self._fenced.inc()

    def takeover(self, seconds: float) -> None:
        self._takeover.observe(seconds)

    def batch(self, *, records: int, commit_seconds: float) -> None:
        self._batch.observe(records)
        self._commit.observe(commit_seconds)

    def store_call(self, *, store: str, operation: str, result: StoreResult, seconds: float) -> None:
        self._store_call.labels(store, operation, result).observe(seconds)

    def clock_skew(self, seconds: float) -> None:
        self._skew.set(seconds)

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
