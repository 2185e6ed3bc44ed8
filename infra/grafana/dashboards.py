"""The four dashboards: overview (is all well?), shards (which one is not?), API, and what Clockwork depends on."""

from typing import Final

from infra.grafana.panels import JOB, Dashboard, Panel, Query, quantiles

RATE: Final = "[$__rate_interval]"


def _per_second(metric: str, by: str, where: str = "") -> Query:
    shown = " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(","))
    return Query(expr=f"sum by ({by}) (rate({metric}{{{JOB}{where}}}{RATE}))", legend=shown)


LATENESS: Final = Panel(
    title="Lateness",
    text="Delivery time less due time. A client that sends times in the past shows here as well.",
    unit="s",
    queries=quantiles("clockwork_lateness_seconds", by="guarantee", of=(0.5, 0.99, 0.999)),
)
OLDEST: Final = Panel(
    title="Oldest due",
    text="How long the oldest row is due that is not delivered. Grows while its topic is missing or Kafka is away.",
    unit="s",
    queries=(Query(expr=f"max by (job) (clockwork_oldest_due_seconds{{{JOB}}})"),),
    alarm_above=60,
)

OVERVIEW: Final = Dashboard(
    uid="clockwork-overview",
    title="Clockwork / Overview",
    rows=(
        (
            Panel(
                title="Late deliveries, of 0.1 % allowed",
                text="Share of the last hour's deliveries that were more than 1 s late.",
                unit="percentunit",
                kind="stat",
                queries=(Query(expr=f"job:clockwork_late:ratio_rate1h{{{JOB}}}"),),
                alarm_above=0.001,
            ),
            Panel(
                title="Due now",
                text="Rows due and not yet delivered, as their owners last saw them.",
                unit="short",
                kind="stat",
                queries=(Query(expr=f"job:clockwork_due:sum{{{JOB}}}"),),
            ),
            Panel(
                title="Shards with an owner",
                text="Must be CLOCKWORK_SHARDS.",
                unit="short",
                kind="stat",
                queries=(Query(expr=f"job:clockwork_shards_owned:sum{{{JOB}}}"),),
            ),
            Panel(
                title="Dead letters, 24 h",
                text="Schedules that ended as failed.",
                unit="short",
                kind="stat",
                queries=(
                    Query(expr=f'sum by (job) (increase(clockwork_deliveries_total{{{JOB}, result="failed"}}[24h]))'),
                ),
                alarm_above=1,
            ),
        ),
        (
            LATENESS,
            Panel(
                title="Deliveries",
                text="Ends of attempts: delivered, retried (refused or held up), failed (a dead letter).",
                unit="ops",
                queries=(_per_second("clockwork_deliveries_total", "guarantee, result"),),
            ),
        ),
        (
            Panel(
                title="Schedules",
                text="What became of requests about schedules.",
                unit="ops",
                queries=(_per_second("clockwork_schedules_total", "result"),),
            ),
            OLDEST,
        ),
    ),
)

SHARDS: Final = Dashboard(
    uid="clockwork-shards",
    title="Clockwork / Shards",
    rows=(
        (
            Panel(
                title="Due, by shard",
                text="One shard far above the others: a hot ordering key, or a topic that refuses.",
                unit="short",
                queries=(Query(expr=f"topk(10, max by (shard) (clockwork_due{{{JOB}}}))", legend="shard {{shard}}"),),
            ),
            Panel(
                title="Oldest due, by shard",
                text="The ten that are furthest behind.",
                unit="s",
                queries=(
                    Query(
                        expr=f"topk(10, max by (shard) (clockwork_oldest_due_seconds{{{JOB}}}))",
                        legend="shard {{shard}}",
                    ),
                ),
                alarm_above=60,
            ),
        ),
        (
            Panel(
                title="Shards owned, by node",
                text="Even, but for a rebalance.",
                unit="short",
                queries=(Query(expr=f"clockwork_shards_owned{{{JOB}}}", legend="{{instance}}"),),
            ),
            Panel(
                title="Rebalances and fences",
                text="Each deployment makes a few. Without one: sessions time out, or nodes pause.",
                unit="ops",
                queries=(
                    Query(expr=f"sum(rate(clockwork_rebalances_total{{{JOB}}}{RATE}))", legend="rebalances"),
                    Query(expr=f"sum(rate(clockwork_fenced_total{{{JOB}}}{RATE}))", legend="fenced"),
                ),
            ),
            Panel(
                title="Take-over",
                text="From the assignment to the first pass: fence, epoch, marker.",
                unit="s",
                queries=quantiles("clockwork_takeover_seconds"),
            ),
        ),
        (
            Panel(
                title="Records in one Kafka transaction",
                text="Grows with the load: that is how a shard keeps up.",
                unit="short",
                queries=quantiles("clockwork_batch_records"),
            ),
            Panel(
                title="Data that cannot be read",
                text="Any is worth a look: rows of a newer version, or written by something else.",
                unit="ops",
                queries=(_per_second("clockwork_malformed_total", "what"),),
            ),
        ),
    ),
)

API: Final = Dashboard(
    uid="clockwork-api",
    title="Clockwork / API",
    rows=(
        (
            Panel(
                title="Requests",
                text="Answered, by route.",
                unit="ops",
                queries=(_per_second("clockwork_requests_total", "route"),),
            ),
            Panel(
                title="Answers that are no success",
                text="4xx are the clients', 5xx ours: 503 says that the store or Kafka did not answer in time.",
                unit="ops",
                queries=(_per_second("clockwork_requests_total", "route, status", ', status!~"2.."'),),
            ),
        ),
        (
            Panel(
                title="Time to answer",
                text="By route.",
                unit="s",
                queries=quantiles("clockwork_request_seconds", by="route"),
            ),
            Panel(
                title="Created, repeated, cancelled",
                text="Many repeats: clients time out and ask again.",
                unit="ops",
                queries=(_per_second("clockwork_schedules_total", "result"),),
            ),
        ),
    ),
)

DEPENDENCIES: Final = Dashboard(
    uid="clockwork-dependencies",
    title="Clockwork / Dependencies",
    rows=(
        (
            Panel(
                title="Store: time of a call",
                text="99th percentile of a call, its repeats included.",
                unit="s",
                queries=quantiles("clockwork_store_seconds", by="operation", of=(0.99,)),
            ),
            Panel(
                title="Store: calls that did not succeed",
                text="condition_failed and conflict are everyday life; throttled, rejected and unavailable are not.",
                unit="ops",
                queries=(_per_second("clockwork_store_seconds_count", "store, operation, result", ', result!="ok"'),),
            ),
        ),
        (
            Panel(
                title="Kafka: time of a transaction",
                text="From begin to commit.",
                unit="s",
                queries=quantiles("clockwork_kafka_commit_seconds"),
            ),
            Panel(
                title="Kafka: transactions",
                text="Committed.",
                unit="ops",
                queries=(Query(expr=f"sum(rate(clockwork_kafka_commit_seconds_count{{{JOB}}}{RATE}))", legend="all"),),
            ),
        ),
        (
            Panel(
                title="Clock, less the store's",
                text="As far as it is certain. Past 2 s a node neither fires nor accepts.",
                unit="s",
                queries=(Query(expr=f"clockwork_clock_skew_seconds{{{JOB}}}", legend="{{instance}}"),),
                alarm_above=1,
            ),
            Panel(
                title="Event loop lag",
                text="Heartbeats share the loop: seconds here end in lost shards.",
                unit="s",
                queries=quantiles("clockwork_loop_lag_seconds", by="instance", of=(0.99,)),
                alarm_above=0.5,
            ),
            Panel(
                title="Memory",
                text="Resident, by node.",
                unit="bytes",
                queries=(Query(expr=f"process_resident_memory_bytes{{{JOB}}}", legend="{{instance}}"),),
            ),
        ),
    ),
)

ALL: Final = (OVERVIEW, SHARDS, API, DEPENDENCIES)
