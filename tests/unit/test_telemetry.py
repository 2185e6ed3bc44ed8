"""Metrics under the names that dashboards rely on, and log lines that tell what happened and nothing secret."""

import asyncio
import inspect
import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from clockwork.domain.activity import Action
from clockwork.domain.jobs.job import CompletionResult, SkipReason
from clockwork.domain.schedule import Failure, Guarantee
from clockwork.domain.sharding import ShardId
from clockwork.observability.logs import OncePerCause, configure_logging
from clockwork.observability.metrics import PrometheusTelemetry
from clockwork.ports.telemetry import NoTelemetry, Telemetry
from tests.support import builders

# What users see: a change here breaks their dashboards.
METRICS = {
    "clockwork_requests_total": ("counter", {"route", "status"}),
    "clockwork_request_seconds": ("histogram", {"route", "status"}),
    "clockwork_schedules_total": ("counter", {"result"}),
    "clockwork_deliveries_total": ("counter", {"guarantee", "result"}),
    "clockwork_dead_letters_total": ("counter", {"where"}),
    "clockwork_lateness_seconds": ("histogram", {"guarantee"}),
    "clockwork_due": ("gauge", {"shard"}),
    "clockwork_oldest_due_seconds": ("gauge", {"shard"}),
    "clockwork_shards_owned": ("gauge", set[str]()),
    "clockwork_rebalances_total": ("counter", set[str]()),
    "clockwork_fenced_total": ("counter", set[str]()),
    "clockwork_takeover_seconds": ("histogram", set[str]()),
    "clockwork_batch_records": ("histogram", set[str]()),
    "clockwork_kafka_commit_seconds": ("histogram", set[str]()),
    "clockwork_shards_assigned": ("gauge", set[str]()),
    "clockwork_incarnation_ends_total": ("counter", {"cause"}),
    "clockwork_owners_fenced_total": ("counter", set[str]()),
    "clockwork_takeovers_total": ("counter", {"hand_over"}),
    "clockwork_release_seconds": ("histogram", {"result"}),
    "clockwork_transactions_total": ("counter", {"slot", "result"}),
    "clockwork_slot_heal_seconds": ("histogram", {"slot"}),
    "clockwork_pace_wait_seconds": ("histogram", set[str]()),
    "clockwork_delivery_queue_rows": ("gauge", set[str]()),
    "clockwork_delivery_queue_oldest_seconds": ("gauge", set[str]()),
    "clockwork_store_seconds": ("histogram", {"store", "operation", "result"}),
    "clockwork_store_connections": ("gauge", set[str]()),
    "clockwork_store_connections_in_use": ("gauge", set[str]()),
    "clockwork_store_pool_wait_seconds": ("histogram", set[str]()),
    "clockwork_store_oldest_snapshot_seconds": ("gauge", set[str]()),
    "clockwork_store_table_bytes": ("gauge", {"table"}),
    "clockwork_store_dead_rows": ("gauge", {"table"}),
    "clockwork_clock_skew_seconds": ("gauge", set[str]()),
    "clockwork_clock_held_ahead_seconds": ("gauge", set[str]()),
    "clockwork_loop_lag_seconds": ("histogram", set[str]()),
    "clockwork_malformed_total": ("counter", {"what"}),
    "clockwork_auth_total": ("counter", {"result"}),
    "clockwork_auth_keys": ("gauge", set[str]()),
    "clockwork_auth_keys_current": ("gauge", set[str]()),
    "clockwork_limited_total": ("counter", {"limit"}),
    "clockwork_ui_read_units_total": ("counter", {"call"}),
    "clockwork_pending_counts_total": ("counter", {"result"}),
    "clockwork_http_connections": ("gauge", set[str]()),
    "clockwork_paused": ("gauge", {"what"}),
    "clockwork_job_runs_total": ("counter", {"result"}),
    "clockwork_job_skipped_total": ("counter", {"reason"}),
    "clockwork_job_completions_total": ("counter", {"result"}),
    "clockwork_job_run_seconds": ("histogram", {"result"}),
    "clockwork_job_repaired_total": ("counter", set[str]()),
    "clockwork_job_rearmed_total": ("counter", {"reason"}),
    "clockwork_job_audit_age_seconds": ("gauge", set[str]()),
    "clockwork_job_audit_interval_seconds": ("gauge", set[str]()),
    "clockwork_job_runs_overdue": ("gauge", set[str]()),
    "clockwork_job_catch_up_lateness_seconds": ("histogram", set[str]()),
    "clockwork_commands_total": ("counter", {"command", "result"}),
    "clockwork_commands_lag": ("gauge", {"partition"}),
    "clockwork_activity_total": ("counter", {"stream", "result"}),
    "clockwork_activity_bytes_total": ("counter", {"stream"}),
}


def say_everything(telemetry: Telemetry) -> None:
    telemetry.request(route="POST /schedule", status=201, seconds=0.01)
    telemetry.schedule("created")
    telemetry.deliveries(Guarantee.EXACTLY_ONCE, 3)
    telemetry.refused(builders.row(), "record_too_large", 1)
    telemetry.failed(Guarantee.EXACTLY_ONCE, builders.row(), Failure(reason="record_too_large", attempts=1), None)
    telemetry.action(Action(kind="fenced", by="ana", shard=ShardId(3)))
    telemetry.activity_sent("events", 10, 800)
    telemetry.activity_lost("minutes", 1)
    telemetry.dead_letter("cluster")
    delivered = (Guarantee.AT_LEAST_ONCE, builders.row(), builders.receipt())
    telemetry.delivered(*delivered, late_seconds=0.004, catch_up=False)
    telemetry.due(ShardId(3), rows=5, oldest_seconds=1.5)
    telemetry.shards_owned(2)
    telemetry.rebalance()
    telemetry.shards_assigned(3)
    telemetry.incarnation_ended("fenced")
    telemetry.owner_fenced()
    telemetry.taken_over("fenced", seconds=0.2, shards=2)
    telemetry.released("released", seconds=0.1)
    telemetry.transaction(slot=0, result="committed", rows=3, seconds=0.005)
    telemetry.transaction(slot=1, result="unknown", rows=40, seconds=6.0)
    telemetry.slot_healed(1, seconds=0.3)
    telemetry.pace_wait(0.012)
    telemetry.watch_delivery_queue(lambda: (7, 1.5))
    telemetry.store_call(store="dynamodb", operation="Query", result="ok", seconds=0.003)
    telemetry.watch_store_pool(lambda: (8, 5))
    telemetry.store_pool_wait(0.02)
    telemetry.store_oldest_snapshot(90.0)
    telemetry.store_table("rows", size_bytes=8192, dead_rows=7)
    telemetry.clock_skew(-0.5)
    telemetry.clock_held_ahead(2.5)
    telemetry.loop_lag(0.001)
    telemetry.malformed("row")
    telemetry.auth("refused")
    telemetry.auth_keys(2, current=True)
    telemetry.limited("creates")
    telemetry.metered_read("upcoming", units=12.5)
    telemetry.pending_count("counted")
    telemetry.connections(3)
    telemetry.paused(clients=1, topics=2)
    telemetry.job_run("delivered")
    telemetry.job_skipped(SkipReason.MISFIRE, 7)
    telemetry.job_completion(CompletionResult.COMPLETED, seconds=3.5)
    telemetry.job_repaired()
    telemetry.job_rearmed("not_armed")
    telemetry.watch_job_audit(lambda: 90.0, interval_seconds=3_600.0)
    telemetry.job_runs_overdue(2)
    telemetry.delivered(*delivered, late_seconds=7_200.0, catch_up=True)
    telemetry.command("create", "done")
    telemetry.commands_lag(3, 17)


def families(telemetry: PrometheusTelemetry) -> dict[str, Any]:
    text = telemetry.exposition()[0].decode()
    # The parser calls a counter by its name without "_total".
    found = {f.name: f for f in text_string_to_metric_families(text)}
    return {f"{name}_total" if f.type == "counter" else name: f for name, f in found.items()}


def sample(telemetry: PrometheusTelemetry, name: str, **labels: str) -> float | None:
    for family in families(telemetry).values():
        for each in family.samples:
            if each.name == name and each.labels == labels:
                return float(each.value)
    return None


def test_names_types_and_labels_are_those_that_users_rely_on_and_no_others() -> None:
    telemetry = PrometheusTelemetry()
    say_everything(telemetry)
    ours = {name: f for name, f in families(telemetry).items() if name.startswith("clockwork")}
    assert ours.keys() == METRICS.keys()
    for name, (kind, labels) in METRICS.items():
        assert ours[name].type == kind, name
        assert {label for s in ours[name].samples for label in s.labels} - {"le"} == labels, name
        assert not any(s.name.endswith("_created") for s in ours[name].samples)


def test_values_arrive_where_they_belong() -> None:
    telemetry = PrometheusTelemetry()
    say_everything(telemetry)
    assert sample(telemetry, "clockwork_requests_total", route="POST /schedule", status="201") == 1
    assert sample(telemetry, "clockwork_deliveries_total", guarantee="exactly_once", result="delivered") == 3
    assert sample(telemetry, "clockwork_lateness_seconds_sum", guarantee="at_least_once") == 0.004
    assert sample(telemetry, "clockwork_due", shard="3") == 5
    assert sample(telemetry, "clockwork_oldest_due_seconds", shard="3") == 1.5
    assert sample(telemetry, "clockwork_batch_records_sum") == 3
    assert sample(telemetry, "clockwork_kafka_commit_seconds_sum") == 0.005
    assert sample(telemetry, "clockwork_transactions_total", slot="1", result="unknown") == 1
    assert sample(telemetry, "clockwork_fenced_total") == 1
    assert sample(telemetry, "clockwork_takeovers_total", hand_over="fenced") == 2
    assert sample(telemetry, "clockwork_takeover_seconds_count") == 2
    assert sample(telemetry, "clockwork_delivery_queue_rows") == 7
    assert sample(telemetry, "clockwork_clock_skew_seconds") == -0.5
    assert sample(telemetry, "clockwork_store_connections") == 8
    assert sample(telemetry, "clockwork_store_connections_in_use") == 5
    assert sample(telemetry, "clockwork_store_oldest_snapshot_seconds") == 90
    assert sample(telemetry, "clockwork_store_table_bytes", table="rows") == 8192
    assert sample(telemetry, "clockwork_store_dead_rows", table="rows") == 7


def test_the_delivery_queue_is_read_when_the_metrics_are_so_that_a_queue_that_stands_still_grows_older() -> None:
    telemetry = PrometheusTelemetry()
    waiting = [(1, 0.5), (1, 20.0)]
    telemetry.watch_delivery_queue(lambda: waiting[-1])
    assert sample(telemetry, "clockwork_delivery_queue_oldest_seconds") == 20.0
    waiting.append((1, 30.0))
    assert sample(telemetry, "clockwork_delivery_queue_oldest_seconds") == 30.0


def test_an_incarnation_that_gave_itself_up_is_not_counted_as_fenced() -> None:
    telemetry = PrometheusTelemetry()
    telemetry.incarnation_ended("gave_up")
    assert sample(telemetry, "clockwork_fenced_total") == 0
    assert sample(telemetry, "clockwork_incarnation_ends_total", cause="gave_up") == 1


def test_lateness_is_told_apart_from_a_millisecond_to_an_hour() -> None:
    telemetry = PrometheusTelemetry()
    buckets = [
        float(s.labels["le"])
        for s in families(telemetry)["clockwork_lateness_seconds"].samples
        if s.name.endswith("_bucket") and s.labels["guarantee"] == "exactly_once"
    ]
    assert (buckets[0], buckets[-2]) == (0.001, 3600.0)


def test_counters_with_a_closed_set_of_labels_are_there_before_anything_happens() -> None:
    telemetry = PrometheusTelemetry()
    for result in ("created", "repeated", "cancelled", "rescheduled", "rejected"):
        assert sample(telemetry, "clockwork_schedules_total", result=result) == 0
    for guarantee in Guarantee:
        for result in ("delivered", "retried", "failed"):
            assert sample(telemetry, "clockwork_deliveries_total", guarantee=guarantee.value, result=result) == 0


def test_a_released_shard_shows_nothing_any_more_and_may_be_released_twice() -> None:
    telemetry = PrometheusTelemetry()
    telemetry.due(ShardId(3), rows=5, oldest_seconds=1.5)
    telemetry.due(ShardId(4), rows=0, oldest_seconds=0)
    telemetry.shard_released(ShardId(3))
    telemetry.shard_released(ShardId(3))
    assert sample(telemetry, "clockwork_due", shard="3") is None
    assert sample(telemetry, "clockwork_oldest_due_seconds", shard="3") is None
    assert sample(telemetry, "clockwork_due", shard="4") == 0


def test_two_nodes_in_one_process_have_figures_of_their_own() -> None:
    one, two = PrometheusTelemetry(), PrometheusTelemetry()
    one.incarnation_ended("fenced")
    assert (sample(one, "clockwork_fenced_total"), sample(two, "clockwork_fenced_total")) == (1, 0)


def test_the_twin_takes_every_call_and_shows_nothing() -> None:
    twin = NoTelemetry()
    say_everything(twin)
    twin.shard_released(ShardId(3))
    assert twin.exposition()[0] == b""
    methods = [n for n, _ in inspect.getmembers(Telemetry, inspect.isfunction) if not n.startswith("_")]
    assert all(callable(getattr(twin, name)) for name in methods)


# --- logs


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield logging.getLogger("clockwork.test")
    root.handlers, root.level = handlers, level


def test_a_line_that_is_not_for_a_terminal_is_one_json_object(logger: logging.Logger) -> None:
    out = io.StringIO()
    configure_logging("auto", "info", stream=out)
    logger.info("Shard taken over", extra={"event": "shard.taken", "shard": 3, "why": "line\nbreak", "nothing": None})
    line = json.loads(out.getvalue())
    assert line.pop("at").endswith("Z")
    assert line == {
        "level": "info",
        "event": "shard.taken",
        "message": "Shard taken over",
        "logger": "clockwork.test",
        "shard": 3,
        "why": "line\nbreak",
        "nothing": None,
    }
    assert out.getvalue().count("\n") == 1


def test_a_line_for_a_terminal_is_text_with_its_fields(logger: logging.Logger) -> None:
    out = Screen()
    configure_logging("auto", "info", stream=out)
    logger.warning("Topic missing", extra={"event": "topic.missing", "topic": "orders", "why": 'a "b"\nERROR fake'})
    line = out.getvalue()
    assert " WARNING topic.missing Topic missing topic=orders " in line
    assert r'why="a \"b\"\nERROR fake"' in line
    assert line.count("\n") == 1


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_is_secret_or_a_clients_own_is_left_out(log_format: Any, logger: logging.Logger) -> None:
    out = io.StringIO()
    configure_logging(log_format, "debug", stream=out)
    secret = {"aws_secret_key": "hush", "Authorization": "hush", "task_data": "hush", "headers": {"a": "hush"}}
    logger.info("Odd", extra={"event": "odd", "blob": b"hush", "long": "x" * 5_000, **secret})
    text = out.getvalue()
    assert "hush" not in text
    assert "[4 bytes]" in text
    assert len(text) < 1_500


def test_an_error_brings_its_traceback(logger: logging.Logger) -> None:
    out = io.StringIO()
    configure_logging("json", "info", stream=out)
    try:
        raise RuntimeError("what went wrong")
    except RuntimeError:
        logger.exception("Failed", extra={"event": "failed"})
    assert "RuntimeError: what went wrong" in json.loads(out.getvalue())["exception"]


def test_configuring_again_does_not_double_the_lines(logger: logging.Logger) -> None:
    configure_logging("json", "info", stream=io.StringIO())
    out = io.StringIO()
    configure_logging("json", "warning", stream=out)
    logger.info("not this one")
    logger.warning("this one")
    assert out.getvalue().count("\n") == 1


def test_libraries_are_kept_quiet(logger: logging.Logger) -> None:
    out = io.StringIO()
    configure_logging("json", "debug", stream=out)
    logging.getLogger("aiokafka.consumer.group_coordinator").error("Heartbeat failed: it is rebalancing")
    logging.getLogger("botocore.hooks").info("Event")
    logging.getLogger("aiohttp.access").info("GET /")
    assert out.getvalue() == ""
    for node in range(100):
        logging.getLogger("aiobotocore").error("Unable to connect to node %s", node)
    assert out.getvalue().count("\n") == 1


async def test_a_lost_connection_that_no_caller_waits_for_is_told_without_alarm() -> None:
    out = io.StringIO()
    handler = configure_logging("json", "info", stream=out)
    try:
        for error in (ConnectionError("lost"), ValueError("defect")):
            asyncio.get_running_loop().default_exception_handler(
                {"message": "Future exception was never retrieved", "exception": error, "future": error}
            )
    finally:
        logging.getLogger().removeHandler(handler)
    lost, defect = map(json.loads, out.getvalue().splitlines())
    assert (lost["level"], lost.get("exception")) == ("info", None)
    assert (defect["level"], "ValueError" in defect["exception"]) == ("error", True)


def filtered(rule: OncePerCause) -> Callable[..., logging.LogRecord | None]:
    def through(event: str, cause: str | None) -> logging.LogRecord | None:
        record = logging.makeLogRecord({"name": "clockwork", "event": event} | ({"once_per": cause} if cause else {}))
        return record if rule.filter(record) else None

    return through


def test_a_line_about_one_cause_passes_once_a_minute_and_tells_what_was_left_out() -> None:
    now_s = [100.0]
    say = filtered(OncePerCause(60.0, lambda: now_s[0]))
    assert say("down", "kafka")
    assert not say("down", "kafka")
    now_s[0] += 59.9
    assert not say("down", "kafka")
    assert say("down", "dynamodb")
    assert say("up", "kafka")
    assert say("down", None)
    now_s[0] += 0.1
    record = say("down", "kafka")
    assert record is not None
    assert vars(record)["left_out"] == 2
    now_s[0] += 60.0
    record = say("down", "kafka")
    assert record is not None
    assert "left_out" not in vars(record)


def test_very_many_causes_do_not_fill_the_memory() -> None:
    rule = OncePerCause(60.0, lambda: 100.0)
    say = filtered(rule)
    assert all(say("down", f"cause-{i}") for i in range(3_000))
    assert len(rule._quiet) <= 1_000


def test_the_lag_of_commands_that_others_read_now_is_forgotten() -> None:
    telemetry = PrometheusTelemetry()
    telemetry.commands_lag(3, None)
    telemetry.commands_lag(3, 17)
    assert sample(telemetry, "clockwork_commands_lag", partition="3") == 17
    telemetry.commands_lag(3, None)
    assert sample(telemetry, "clockwork_commands_lag", partition="3") is None
