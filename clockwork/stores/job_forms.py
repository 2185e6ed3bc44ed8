"""The stored forms of recurring jobs, the same in every store. What is in the key of an item (client, job, version,
position, request) is not in its form.
"""

from collections.abc import Sequence
from typing import Any, Final

from clockwork.domain.jobs.calendar import Calendar
from clockwork.domain.jobs.job import (
    ArmedRow,
    Backfill,
    CompletionPolicy,
    CompletionResult,
    Job,
    JobState,
    JobStatus,
    OpenRun,
    RetryOn,
    RunCompletion,
    RunCounts,
    RunDelivery,
    RunRequest,
    SkippedTimes,
    SkipReason,
)
from clockwork.domain.jobs.next_occurrence import CATCH_UP_MAX, Misfire, MisfirePolicy, OverlapPolicy
from clockwork.domain.retry import BackoffPolicy, RetryPolicy
from clockwork.domain.run import Chain, RunData, RunKind, RunOfRow
from clockwork.domain.schedule import DataForm, Failure, Guarantee, OnLate, Receipt
from clockwork.domain.triggers.cron import Days, Dialect
from clockwork.domain.triggers.dst import GapRule, OverlapRule
from clockwork.domain.triggers.exclusions import Exclusion, OnExcluded, exclusion
from clockwork.domain.triggers.trigger import (
    AnyOf,
    Cron,
    FixedDelay,
    FixedRate,
    Jitter,
    JitterPer,
    NamedExclusion,
    Recurrence,
    Trigger,
    cron,
    rrule,
)
from clockwork.stores.forms import (
    BYTES,
    FLAG,
    INTEGER,
    PAIRS,
    POSITION,
    TEXT,
    UTF8,
    Form,
    Member,
    inner,
    sequence,
    tagged,
    word,
    word_set,
)

FORMAT: Final = 1
"""The format of all items of jobs but their rows: `domain.run.ROW_FORMAT`."""
TASK_DATA: Final = "taskData"
CREATED_AT: Final = "createdAt"

# --- triggers

_EXCLUDED: Final = tuple(Member(name, name, sequence(TEXT), ()) for name in ("dates", "annual", "weekdays", "cron"))
_ENTRIES: Final = Form[Exclusion](Exclusion, *_EXCLUDED, given=("calendar", "named"), make=exclusion)
_EXCLUSION: Final = Form[Exclusion](
    Exclusion, *_EXCLUDED, Member("calendar", "calendar", TEXT, None), given=("named",), make=exclusion
)
_NAMED: Final = Form[NamedExclusion](
    NamedExclusion,
    Member("name", "name", TEXT),
    Member("exclusion", "exclusion", inner(_ENTRIES)),
)
_ZONED: Final = (
    Member("time_zone", "timeZone", TEXT),
    Member("gap", "gap", word(GapRule), None),
    Member("overlap", "overlap", word(OverlapRule), None),
    Member("exclude", "exclude", inner(_EXCLUSION), None),
    Member("on_excluded", "onExcluded", word(OnExcluded), OnExcluded.SKIP),
)
_CRON: Final = Form[Cron](
    Cron,
    Member("expression", "expression", TEXT),
    Member("dialect", "dialect", word(Dialect), None),
    Member("days", "days", word(Days), None),
    *_ZONED,
    make=cron,
)
_RECURRENCE: Final = Form[Recurrence](
    Recurrence,
    Member("rule", "rule", TEXT),
    Member("start_ms", "start", INTEGER),
    *_ZONED,
    make=rrule,
)
_FIXED_RATE: Final = Form[FixedRate](
    FixedRate,
    Member("every_ms", "every", INTEGER),
    Member("anchor_ms", "anchor", INTEGER),
)
_FIXED_DELAY: Final = Form[FixedDelay](FixedDelay, Member("delay_ms", "delay", INTEGER))
_ANY_OF: Final = Form[AnyOf](
    AnyOf,
    Member("of", "of", sequence(tagged({"cron": (Cron, _CRON), "fixed_rate": (FixedRate, _FIXED_RATE)}))),
)
_JITTER: Final = Form[Jitter](
    Jitter,
    Member("most_ms", "most", INTEGER),
    Member("per", "per", word(JitterPer)),
)


def _trigger(*, calendars: Sequence[NamedExclusion], **fields: Any) -> Trigger:
    return Trigger(**fields).resolved({each.name: each.exclusion for each in calendars})


_TRIGGER: Final = Form[Trigger](
    Trigger,
    Member(
        "rule",
        "rule",
        tagged(
            {
                "cron": (Cron, _CRON),
                "rrule": (Recurrence, _RECURRENCE),
                "fixed_rate": (FixedRate, _FIXED_RATE),
                "fixed_delay": (FixedDelay, _FIXED_DELAY),
                "any": (AnyOf, _ANY_OF),
            }
        ),
    ),
    Member("start_ms", "start", INTEGER, None),
    Member("end_ms", "end", INTEGER, None),
    Member("runs_max", "maxRuns", INTEGER, None),
    Member("jitter", "jitter", inner(_JITTER), None),
    # Once, and not in each member of a union that names them.
    Member("calendars", "calendars", sequence(inner(_NAMED)), ()),
    parts=("calendars",),
    make=_trigger,
)
_MISFIRE: Final = Form[Misfire](
    Misfire,
    Member("policy", "policy", word(MisfirePolicy)),
    Member("grace_ms", "grace", INTEGER, None),
    Member("catch_up_max", "maxCatchUp", INTEGER, CATCH_UP_MAX),
    Member("window_ms", "window", INTEGER, None),
)

# --- named calendars

CALENDAR: Final = Form[Calendar](
    Calendar,
    Member("version", "version", INTEGER),
    Member("exclusion", "exclusion", inner(_ENTRIES)),
    Member("description", "description", TEXT, None),
    Member("created_at_ms", CREATED_AT, INTEGER),
    Member("updated_at_ms", "updatedAt", INTEGER),
    Member("changed_by", "changedBy", TEXT, None),
    Member("write_id", "by", TEXT),
    given=("client_id", "name"),
)

# --- definitions

_BACKOFF: Final = Form[BackoffPolicy](
    BackoffPolicy,
    Member("initial_ms", "initial", INTEGER),
    Member("max_ms", "max", INTEGER),
    Member("factor_percent", "factorPercent", INTEGER),
)
_RETRY: Final = Form[RetryPolicy](
    RetryPolicy,
    Member("attempts_max", "attempts", INTEGER),
    Member("backoff", "backoff", inner(_BACKOFF)),
    Member("jitter_percent", "jitterPercent", INTEGER, 0),
)
_COMPLETION: Final = Form[CompletionPolicy](
    CompletionPolicy,
    Member("timeout_ms", "timeout", INTEGER),
    Member("retry", "retry", inner(_RETRY), None),
    Member("retry_on", "retryOn", word_set(RetryOn), frozenset()),
)
JOB: Final = Form[Job](
    Job,
    Member("created_at_ms", CREATED_AT, INTEGER),
    Member("changed_at_ms", "changedAt", INTEGER),
    Member("changed_by", "changedBy", TEXT, None),
    Member("trigger", "trigger", inner(_TRIGGER), None),
    Member("misfire", "misfire", inner(_MISFIRE)),
    Member("overlap", "overlap", word(OverlapPolicy), None),
    Member("completion", "completion", inner(_COMPLETION), None),
    Member("pause_after_failures", "pauseAfterFailures", INTEGER, 0),
    Member("durable", "durable", FLAG, False),
    Member("interpolate", "interpolate", FLAG, False),
    Member("payload_schema", "payloadSchema", UTF8, None),
    Member("description", "description", TEXT, None),
    Member("labels", "labels", PAIRS, ()),
    Member("priority", "priority", INTEGER, None),
    Member("ordering_key", "orderingKey", TEXT),
    Member("topic", "topic", TEXT),
    Member("guarantee", "guarantee", word(Guarantee)),
    Member("task_data", TASK_DATA, BYTES),
    Member("data_form", "taskDataForm", word(DataForm)),
    Member("headers", "headers", PAIRS, ()),
    Member("traceparent", "traceparent", TEXT, None),
    Member("deadline_ms", "deadline", INTEGER, None),
    Member("on_late", "onLate", word(OnLate), OnLate.DELIVER),
    Member("retry", "retryPolicy", inner(_RETRY), None),
    given=("client_id", "job_id", "version"),
)

# --- states, and rows

RUN_OF_ROW: Final = Form[RunOfRow](
    RunOfRow,
    Member("rev", "rev", INTEGER),
    Member("version", "version", INTEGER),
    Member("kind", "kind", word(RunKind)),
    Member("chain", "chain", word(Chain)),
    Member("scheduled_at_ms", "scheduledAt", INTEGER),
    Member("cursor_ms", "cursor", INTEGER),
    Member("run_id", "runId", TEXT),
    Member("attempt", "attempt", INTEGER, 1),
    Member("data", "data", word(RunData), RunData.JOB),
    Member("previous_at_ms", "previousAt", INTEGER, None),
    Member("timeout_ms", "timeout", INTEGER, None),
    Member("priority", "priority", INTEGER, None),
)
_ARMED: Final = Form[ArmedRow](
    ArmedRow,
    Member("shard", "shard", INTEGER),
    Member("position", "position", POSITION),
    Member("kind", "kind", word(RunKind)),
    Member("run_id", "runId", TEXT),
    Member("attempt", "attempt", INTEGER, 1),
    Member("scheduled_at_ms", "scheduledAt", INTEGER),
    Member("cursor_ms", "cursor", INTEGER),
    Member("version", "version", INTEGER),
    Member("data", "data", word(RunData), RunData.JOB),
)
_OPEN: Final = Form[OpenRun](
    OpenRun,
    Member("run_id", "runId", TEXT),
    Member("kind", "kind", word(RunKind)),
    Member("attempt", "attempt", INTEGER, 1),
    Member("scheduled_at_ms", "scheduledAt", INTEGER),
    Member("position", "position", POSITION),
    Member("delivered_at_ms", "deliveredAt", INTEGER),
    Member("until_ms", "until", INTEGER),
)
_BACKFILL: Final = Form[Backfill](
    Backfill,
    Member("request_digits", "request", TEXT),
    Member("armed", "armed", inner(_ARMED)),
    Member("to_ms", "to", INTEGER),
    Member("left", "left", INTEGER),
)
_COUNTS: Final = Form[RunCounts](
    RunCounts,
    Member("delivered", "delivered", INTEGER, 0),
    Member("failed", "failed", INTEGER, 0),
    Member("skipped", "skipped", INTEGER, 0),
    Member("of_trigger", "ofTrigger", INTEGER, 0),
)
STATE: Final = Form[JobState](
    JobState,
    Member("version", "version", INTEGER),
    Member("status", "status", word(JobStatus)),
    Member("digest", "digest", TEXT),
    Member("created_at_ms", "createdAt", INTEGER),
    Member("updated_at_ms", "updatedAt", INTEGER),
    Member("write_id", "by", TEXT),
    Member("armed", "armed", inner(_ARMED), None),
    Member("cursor_ms", "cursor", INTEGER, 0),
    Member("open_run", "open", inner(_OPEN), None),
    Member("side_rows", "single", sequence(inner(_ARMED)), ()),
    Member("backfill", "backfill", inner(_BACKFILL), None),
    Member("failures", "failures", INTEGER, 0),
    Member("counts", "counts", inner(_COUNTS), RunCounts()),
    Member("tz_release", "tz", TEXT, ""),
    Member("calendars", "calendars", PAIRS, ()),
    Member("pause_reason", "note", TEXT, None),
    Member("paused_since_ms", "pausedSince", INTEGER, None),
    # No TTL looks at this name: it would delete the state before the definitions, which nothing would find any more. The
    # audit deletes both at once (`JobStore.forget`).
    Member("expires_at_s", "keptUntil", INTEGER, None),
    given=("client_id", "job_id", "rev"),
)

# --- the log, and requests. Their expiry is a member of the items themselves.

_RECEIPT: Final = Form[Receipt](
    Receipt,
    Member("kafka_partition", "partition", INTEGER),
    Member("offset", "offset", INTEGER),
    Member("at_ms", "at", INTEGER),
)
_FAILURE: Final = Form[Failure](
    Failure,
    Member("reason", "reason", TEXT),
    Member("attempts", "attempts", INTEGER),
    Member("last_refusal", "lastRefusal", TEXT, None),
)
_KEY: Final = ("client_id", "job_id", "position", "expires_at_s")
RUN_DELIVERY: Final = Form[RunDelivery](
    RunDelivery,
    Member("run_id", "runId", TEXT),
    Member("kind", "kind", word(RunKind)),
    Member("attempt", "attempt", INTEGER, 1),
    Member("version", "version", INTEGER),
    Member("scheduled_at_ms", "scheduledAt", INTEGER),
    Member("at_ms", "at", INTEGER),
    Member("receipt", "placed", inner(_RECEIPT), None),
    Member("failure", "failure", inner(_FAILURE), None),
    Member("timeout_ms", "timeout", INTEGER, None),
    given=_KEY,
)
SKIPPED: Final = Form[SkippedTimes](
    SkippedTimes,
    Member("reason", "reason", word(SkipReason)),
    Member("first_ms", "first", INTEGER),
    Member("last_ms", "last", INTEGER),
    Member("count", "count", INTEGER),
    Member("at_ms", "at", INTEGER),
    given=_KEY,
)
COMPLETION: Final = Form[RunCompletion](
    RunCompletion,
    Member("run_id", "runId", TEXT),
    Member("attempt", "attempt", INTEGER, 1),
    Member("result", "result", word(CompletionResult)),
    Member("finished_at_ms", "finishedAt", INTEGER),
    Member("started_at_ms", "startedAt", INTEGER, None),
    Member("document", "document", UTF8, None),
    given=_KEY,
)
REQUEST: Final = Form[RunRequest](
    RunRequest,
    Member("run_id", "runId", TEXT),
    Member("position", "position", POSITION),
    Member("digest", "digest", TEXT, ""),
    given=("client_id", "job_id", "request_id", "expires_at_s"),
)
