"""Figures and log lines for the person who is paged.

Metrics: the names, types and labels that dashboards rely on, in a registry of their own, so that two nodes in one
process (tests, simulation) do not share them. Series with a closed set of labels exist from the start, because an
alert on a rate sees nothing in a counter that is born at 1.

Logs: the standard library's logging; a line is a constant message plus `extra={"event": "shard.taken", ...}`. What
must never be printed (secrets, what clients entrust to us) is left out here, by field name and by type, so that one
careless call elsewhere does not leak it.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO, get_args

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
from clockwork.observability.log_traces import trace_text
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
        # `…_created` series double the exposition and say nothing that a restart does not say. The switch is the
        # library's own and global.
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
        self._schedules = counter("clockwork_schedules_total", "What became of requests about schedules", "result")
        self._deliveries = counter("clockwork_deliveries_total", "Ends of attempts", "guarantee", "result")
        self._dead_letters = counter("clockwork_dead_letters_total", "Dead letters, and whose topic got them", "where")
        self._lateness = histogram(
            "clockwork_lateness_seconds", "Delivery time less due time", "guarantee", buckets=_LATENESS_S
        )
        self._due = gauge("clockwork_due", "Rows due and not yet delivered, as last seen", "shard")
        self._oldest = gauge("clockwork_oldest_due_seconds", "How long the oldest of them is due", "shard")
        self._shards_owned = gauge("clockwork_shards_owned", "Shards that this node owns")
        self._rebalances = counter("clockwork_rebalances_total", "Rebalances seen")
        self._fenced = counter("clockwork_fenced_total", "Runners stopped because another owner has their shard")
        self._takeover = histogram("clockwork_takeover_seconds", "Time to become the owner of a shard")
        self._batch = histogram("clockwork_batch_records", "Records in one Kafka transaction", buckets=_RECORDS)
        self._commit = histogram("clockwork_kafka_commit_seconds", "Time of one Kafka transaction, begin to commit")
        self._store_call = histogram(
            "clockwork_store_seconds", "Time of one call to the store", "store", "operation", "result"
        )
        self._skew = gauge("clockwork_clock_skew_seconds", "This node's clock less the store's, as far as certain")
        self._loop_lag = histogram("clockwork_loop_lag_seconds", "Delay of the event loop", buckets=_LOOP_LAG_S)
        self._malformed = counter("clockwork_malformed_total", "Stored rows or records that cannot be read", "what")
        self._auth = counter("clockwork_auth_total", "What keys and tokens came to", "result")
        self._auth_keys = gauge("clockwork_auth_keys", "API keys that count")
        self._auth_keys_current = gauge("clockwork_auth_keys_current", "0 while the keys' file cannot be read anew")
        self._limited = counter("clockwork_limited_total", "Refused or held back because of a limit", "limit")
        self._pending_counts = counter(
            "clockwork_pending_counts_total", "Counts of what a client has pending", "result"
        )
        self._connections = gauge("clockwork_http_connections", "Open HTTP connections")
        self._commands = counter("clockwork_commands_total", "What became of commands", "command", "result")
        self._commands_lag = gauge("clockwork_commands_lag", "Commands that wait, as last seen", "partition")
        self._paused = gauge("clockwork_paused", "Clients and topics that are paused, as this node knows it", "what")
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


# --- logs

_STANDARD_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_CONTROL_FIELDS: Final = frozenset({"event", "once_per"})
_UNSAID_WORDS: Final = ("secret", "password", "token", "authorization", "credential", "access_key", "api_key")
_UNSAID_FIELDS: Final = frozenset({"task_data", "taskdata", "payload", "body", "headers", "value", "raw"})
_VALUE_CHARS_MAX: Final = 500
_QUIET_CAUSES_MAX: Final = 1_000
"""Past this many causes at once the oldest are forgotten: one line too many, not memory without end."""

_LIBRARY_LEVELS: Final = {
    # What it calls errors is our everyday life (a coordinator that moves, a topic just made), ten lines a second during an
    # outage; what matters of it is said by our own lines, once.
    "aiokafka": logging.CRITICAL,
    "aiobotocore": logging.WARNING,
    "botocore": logging.WARNING,
    "urllib3": logging.WARNING,
    "asyncio": logging.WARNING,
    "aiohttp.access": logging.CRITICAL,
    "aiohttp": logging.WARNING,
    "opentelemetry": logging.WARNING,
}


def configure_logging(
    log_format: Literal["auto", "text", "json"], level: str, *, stream: TextIO | None = None
) -> logging.Handler:
    """Sends every log line to `stream` (default: standard error), once; may be called again. Returns the handler."""
    out = stream if stream is not None else sys.stderr
    as_text = log_format == "text" or (log_format == "auto" and out.isatty())
    handler = logging.StreamHandler(out)
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    handler.addFilter(OncePerCause())
    root = logging.getLogger()
    for old in [h for h in root.handlers if getattr(h, "clockwork", False)]:
        root.removeHandler(old)
    handler.clockwork = True  # type: ignore[attr-defined]
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name, library_level in _LIBRARY_LEVELS.items():
        logging.getLogger(name).setLevel(library_level)
    return handler


class OncePerCause(logging.Filter):
    """Lets a line with `extra={"once_per": cause}` through once a minute for each event and cause; the next one that
    passes tells how many were left out. Lines without it always pass, but for those of libraries, whose message is their
    cause: some of them report a broker that is away several times a second.
    """

    def __init__(self, interval_s: float = 60.0, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._interval_s = interval_s
        self._monotonic_s = monotonic_s
        self._quiet: dict[tuple[object, object], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        cause = getattr(record, "once_per", None)
        if cause is None and record.name.partition(".")[0] in _LIBRARY_LEVELS:
            cause = f"{record.name}: {record.msg}"
        if cause is None:
            return True
        key = (getattr(record, "event", record.msg), str(cause))
        now_s = self._monotonic_s()
        until_s, left_out = self._quiet.get(key, (0.0, 0))
        if now_s < until_s:
            self._quiet[key] = (until_s, left_out + 1)
            return False
        self._quiet.pop(key, None)
        while len(self._quiet) >= _QUIET_CAUSES_MAX:
            self._quiet.pop(next(iter(self._quiet)))
        self._quiet[key] = (now_s + self._interval_s, 0)
        if left_out:
            record.left_out = left_out
        return True


class _Formatter(logging.Formatter):
    def formatException(self, ei: Any) -> str:  # noqa: N802
        return trace_text(ei[1])


class JsonFormatter(_Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": _time_of(record),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", None) or "log",
            "message": _clipped(record.getMessage()),
            "logger": record.name,
        }
        for name, value in _fields_of(record):
            line.setdefault(name, value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(_Formatter):
    """For a person at a terminal: time, level, event, message, then the fields as `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        event = getattr(record, "event", None) or record.name
        words = [_time_of(record)[11:23], f"{record.levelname:7}", event, _one_line(record.getMessage())]
        words += [f"{name}={_one_line(value)}" for name, value in _fields_of(record)]
        text = " ".join(words)
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _time_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields_of(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    for name, value in vars(record).items():
        if name not in _STANDARD_FIELDS and name not in _CONTROL_FIELDS:
            yield name, "[left out]" if _unsaid(name) else _clipped(value)


def _unsaid(name: str) -> bool:
    lower = name.lower()
    return lower in _UNSAID_FIELDS or any(word in lower for word in _UNSAID_WORDS)


def _clipped(value: object) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    text = str(value)
    return text if len(text) <= _VALUE_CHARS_MAX else f"{text[:_VALUE_CHARS_MAX]}… [{len(text)} characters]"


def _one_line(value: object) -> str:
    """Values with blanks or control characters are quoted, so that no value can pretend to be another line."""
    text = str(_clipped(value))
    plain = text.isprintable() and text != ""
    return text if plain and "=" not in text and '"' not in text else json.dumps(text)
