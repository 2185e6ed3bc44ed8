"""The five dashboards: overview (is all well?), shards (which one is not?), jobs, API, and what Clockwork depends on."""

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
                title="Shards assigned and not taken over",
                text="Zero, but for a hand-over. Otherwise the log says why the take-over fails.",
                unit="short",
                queries=(
                    Query(
                        expr=f"clockwork_shards_assigned{{{JOB}}} - clockwork_shards_owned{{{JOB}}}",
                        legend="{{instance}}",
                    ),
                ),
                alarm_above=1,
            ),
            Panel(
                title="Rebalances and fences",
                text="A deployment makes rebalances. A fence means that a node died, was paused or cut off.",
                unit="ops",
                queries=(
                    Query(expr=f"sum(rate(clockwork_rebalances_total{{{JOB}}}{RATE}))", legend="rebalances"),
                    Query(expr=f"sum(rate(clockwork_owners_fenced_total{{{JOB}}}{RATE}))", legend="fenced"),
                ),
            ),
        ),
        (
            Panel(
                title="Hand-overs",
                text="Shards taken over: released by their owner before, or fenced.",
                unit="ops",
                queries=(_per_second("clockwork_takeovers_total", "hand_over"),),
            ),
            Panel(
                title="Take-over",
                text="From the assignment to the ownership; after a release the wait for it is part of it.",
                unit="s",
                queries=quantiles("clockwork_takeover_seconds"),
            ),
            Panel(
                title="Release",
                text="From the assignment without a shard to its release. given_up: the next owner has to fence.",
                unit="s",
                queries=quantiles("clockwork_release_seconds", by="result"),
            ),
        ),
        (
            Panel(
                title="Ends of incarnations",
                text="stopped: in order. fenced: another node took its shards. gave_up, defect: look into the log.",
                unit="ops",
                queries=(_per_second("clockwork_incarnation_ends_total", "cause"),),
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
            Panel(
                title="Read units of the dashboard",
                text="At the store, by call: at most CLOCKWORK_UI_READ_UNITS_PER_SECOND a process, on average.",
                unit="ops",
                queries=(_per_second("clockwork_ui_read_units_total", "call"),),
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
                title="PostgreSQL: connections in use",
                text="Of CLOCKWORK_POSTGRES_POOL a process. All in use for long: see the waits beside.",
                unit="short",
                queries=(Query(expr=f"clockwork_store_connections_in_use{{{JOB}}}", legend="{{instance}}"),),
            ),
            Panel(
                title="PostgreSQL: calls that wait",
                text="On average, at a time, for a free connection.",
                unit="short",
                queries=(_per_second("clockwork_store_pool_wait_seconds_sum", "instance"),),
                alarm_above=1,
            ),
            Panel(
                title="PostgreSQL: oldest snapshot",
                text="A backup or a forgotten session: dead rows stay for as long.",
                unit="s",
                queries=(Query(expr=f"max by (job) (clockwork_store_oldest_snapshot_seconds{{{JOB}}})"),),
                alarm_above=600,
            ),
            Panel(
                title="PostgreSQL: dead rows",
                text="Deleted and not yet vacuumed, by table, as last counted by the server.",
                unit="short",
                queries=(Query(expr=f"max by (table) (clockwork_store_dead_rows{{{JOB}}})", legend="{{table}}"),),
            ),
            Panel(
                title="PostgreSQL: size of the tables",
                text="With their indexes.",
                unit="bytes",
                queries=(Query(expr=f"max by (table) (clockwork_store_table_bytes{{{JOB}}})", legend="{{table}}"),),
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
                text="By role of the slot (0 quick, 1 bulk and suspect) and result. unknown: no answer that counts.",
                unit="ops",
                queries=(_per_second("clockwork_transactions_total", "slot, result"),),
            ),
            Panel(
                title="Rows in one Kafka transaction",
                text="Of all shards of a process together; grows with the load.",
                unit="short",
                queries=quantiles("clockwork_batch_records"),
            ),
        ),
        (
            Panel(
                title="Queue for transactions",
                text="Rows that could go and wait for a slot; not those that their lane or topic holds back.",
                unit="short",
                queries=(Query(expr=f"clockwork_delivery_queue_rows{{{JOB}}}", legend="{{instance}}"),),
            ),
            Panel(
                title="Queue: oldest row",
                text="How long the oldest of them waits.",
                unit="s",
                queries=(Query(expr=f"clockwork_delivery_queue_oldest_seconds{{{JOB}}}", legend="{{instance}}"),),
                alarm_above=15,
            ),
            Panel(
                title="Pace: put off by",
                text="Of those transactions that CLOCKWORK_TRANSACTION_PACE_MS put off.",
                unit="s",
                queries=quantiles("clockwork_pace_wait_seconds"),
            ),
            Panel(
                title="Slots: time to heal",
                text="After a refusal or a commit without an answer. The others go on; after 1 s it is replaced.",
                unit="s",
                queries=quantiles("clockwork_slot_heal_seconds", by="slot"),
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

JOBS: Final = Dashboard(
    uid="clockwork-jobs",
    title="Clockwork / Jobs",
    rows=(
        (
            Panel(
                title="Runs",
                text="Runs of recurring jobs that have ended: delivered, failed (a dead letter).",
                unit="ops",
                queries=(Query(expr=f"job:clockwork_job_runs:rate5m{{{JOB}}}", legend="{{result}}"),),
            ),
            Panel(
                title="Fire times skipped",
                text="misfire: missed, and not caught up. overlap: the run before was open. excluded: by a calendar.",
                unit="ops",
                queries=(_per_second("clockwork_job_skipped_total", "reason"),),
            ),
        ),
        (
            Panel(
                title="Completions",
                text="Ends of runs whose consumers are asked for them: completed, failed, timed_out.",
                unit="ops",
                queries=(_per_second("clockwork_job_completions_total", "result"),),
            ),
            Panel(
                title="Time of a run",
                text="From its start as its consumer says, else from its delivery, to its end.",
                unit="s",
                queries=quantiles("clockwork_job_run_seconds", by="result"),
            ),
        ),
        (
            Panel(
                title="Repaired, 24 h",
                text="Jobs whose next rows were lost, and are armed again. Any is worth a look.",
                unit="short",
                kind="stat",
                queries=(Query(expr=f"sum by (job) (increase(clockwork_job_repaired_total{{{JOB}}}[24h]))"),),
                alarm_above=1,
            ),
            Panel(
                title="Open past their time-outs",
                text="Runs that should have been closed by their watchdogs, as last audited.",
                unit="short",
                kind="stat",
                queries=(Query(expr=f"sum by (job) (clockwork_job_runs_overdue{{{JOB}}})"),),
                alarm_above=1,
            ),
            Panel(
                title="Oldest audit, in intervals",
                text="Of the shards of a node. More than three: see the runbook.",
                unit="short",
                queries=(
                    Query(
                        expr=f"clockwork_job_audit_age_seconds{{{JOB}}}"
                        f" / (clockwork_job_audit_interval_seconds{{{JOB}}} > 0)",
                        legend="{{instance}}",
                    ),
                ),
                alarm_above=3,
            ),
        ),
        (
            Panel(
                title="Armed anew by the audit",
                text="not_armed: nothing was armed. time_zones, calendar: by other rules the next time is another one.",
                unit="ops",
                queries=(_per_second("clockwork_job_rearmed_total", "reason"),),
            ),
            Panel(
                title="Lateness of what is caught up",
                text="Fire times that were missed. Not part of the lateness of deliveries.",
                unit="s",
                queries=quantiles("clockwork_job_catch_up_lateness_seconds"),
            ),
        ),
    ),
)

ALL: Final = (OVERVIEW, SHARDS, JOBS, API, DEPENDENCIES)
