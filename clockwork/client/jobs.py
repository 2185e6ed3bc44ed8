"""Requests of the client about recurring jobs: triggers, fields of a job, filters.

A trigger is a value: `Cron("0 9 * * MON-FRI", zone="Europe/Berlin")`, `Every(seconds=30)`, `After(minutes=5)`, an `RRule`,
or several expressions and rates in an `AnyOf`. The service judges it; the names of fields in its errors are those of the
HTTP API.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Final, Literal, Required, TypedDict
from urllib.parse import quote

from clockwork.client.schedules import (
    Guarantee,
    OnLate,
    RetryPolicy,
    When,
    changed_data_fields,
    data_fields,
    epoch_ms,
    given,
)
from clockwork.clock import Clock

JobStatus = Literal["active", "paused", "ended", "deleted"]
RunStatus = Literal["armed", "delivered", "running", "completed", "failed", "timed_out", "skipped"]
_MS: Final = timedelta(milliseconds=1)

# --- triggers


@dataclass(frozen=True, kw_only=True)
class _Bounds:
    """Bounds and jitter of a trigger."""

    start: When | None = None
    """Inclusive."""
    end: When | None = None
    """Exclusive."""
    max_runs: int | None = None
    """Runs in all, skipped ones aside."""
    jitter: timedelta | None = None
    """Greatest delay of a delivery behind its fire time."""
    jitter_per: Literal["job", "run"] | None = None
    """By default one delay for all runs of the job."""

    def _bounds(self, clock: Clock) -> dict[str, Any]:
        return given(
            {
                "start": _time(self.start, clock),
                "end": _time(self.end, clock),
                "maxRuns": self.max_runs,
                "jitterMs": None if self.jitter is None else whole_ms(self.jitter),
                "jitterPer": self.jitter_per,
            }
        )


@dataclass(frozen=True, kw_only=True)
class _Span(_Bounds):
    """A span of time by its parts, which are added up."""

    weeks: float = 0
    days: float = 0
    hours: float = 0
    minutes: float = 0
    seconds: float = 0
    milliseconds: float = 0

    def _span_ms(self) -> int:
        return whole_ms(
            timedelta(
                weeks=self.weeks,
                days=self.days,
                hours=self.hours,
                minutes=self.minutes,
                seconds=self.seconds,
                milliseconds=self.milliseconds,
            )
        )


@dataclass(frozen=True, kw_only=True)
class Exclude:
    """Days, and hours of days, at which a job does not run, by the clock of its trigger's zone."""

    dates: Sequence[date | str] = ()
    annual: Sequence[str] = ()
    """Month and day, such as `12-25`: each year."""
    weekdays: Sequence[Literal["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]] = ()
    cron: Sequence[str] = ()
    """Expressions of five fields: each minute that one of them names."""
    calendar: str | None = None
    """Name of a calendar of the client's."""

    def document(self) -> dict[str, Any]:
        """The exclusion as the HTTP API takes it."""
        days = {"annual": self.annual, "weekdays": self.weekdays, "cron": self.cron}
        lists = {"dates": [str(each) for each in self.dates], **{name: list(each) for name, each in days.items()}}
        return given({**{name: each or None for name, each in lists.items()}, "calendar": self.calendar})


@dataclass(frozen=True, kw_only=True)
class _Zoned(_Bounds):
    """Fire times by the clock of a time zone."""

    zone: str | None = None
    """Name in the IANA database; by default UTC."""
    gap: Literal["next", "shift", "skip"] | None = None
    """Rule for wall-clock times that do not exist, where clocks are put forward."""
    overlap: Literal["first", "second", "both"] | None = None
    """Rule for wall-clock times that exist twice, where clocks are put back."""
    exclude: Exclude | None = None
    on_excluded: Literal["skip", "next", "previous"] | None = None
    """By default times on an excluded day do not fire; else they do on the next or previous day that is not excluded."""

    def _zoned(self, clock: Clock) -> dict[str, Any]:
        dst = given({"gap": self.gap, "overlap": self.overlap})
        exclude = None if self.exclude is None else self.exclude.document()
        names = {"timeZone": self.zone, "dst": dst or None, "exclude": exclude, "onExcluded": self.on_excluded}
        return {**given(names), **self._bounds(clock)}


@dataclass(frozen=True, kw_only=True)
class Cron(_Zoned):
    """Fire times by a cron expression."""

    expression: str = field(kw_only=False)
    dialect: Literal["unix", "quartz", "spring", "aws"] | None = None
    """By default `unix` for five fields; needed for more, if the weekday has a digit."""
    days: Literal["or", "and"] | None = None
    """Days that either day field names, or both; counts only if both are restricted."""

    def document(self, clock: Clock) -> dict[str, Any]:
        """The trigger as the HTTP API takes it."""
        own = given({"dialect": self.dialect, "days": self.days})
        return {"type": "cron", "expression": self.expression, **own, **self._zoned(clock)}


@dataclass(frozen=True, kw_only=True)
class RRule(_Zoned):
    """Fire times by a recurrence rule of RFC 5545, such as `FREQ=WEEKLY;INTERVAL=2;BYDAY=WE`, from `start` on."""

    rule: str = field(kw_only=False)

    def document(self, clock: Clock) -> dict[str, Any]:
        """The trigger as the HTTP API takes it."""
        return {"type": "rrule", "rule": self.rule, **self._zoned(clock)}


@dataclass(frozen=True, kw_only=True)
class Every(_Span):
    """Fire times at one distance from each other, without drift."""

    anchor: When | None = None
    """A fire time, from which all others follow. By default `start`, else the job's creation."""

    def document(self, clock: Clock) -> dict[str, Any]:
        """The trigger as the HTTP API takes it. Raises: ValueError, OverflowError."""
        anchor = given({"anchor": _time(self.anchor, clock)})
        return {"type": "fixed_rate", "everyMs": self._span_ms(), **anchor, **self._bounds(clock)}


@dataclass(frozen=True, kw_only=True)
class After(_Span):
    """A fire time so long after the end of the last run; the first at `start`, else at once."""

    def document(self, clock: Clock) -> dict[str, Any]:
        """The trigger as the HTTP API takes it. Raises: ValueError, OverflowError."""
        return {"type": "fixed_delay", "delayMs": self._span_ms(), **self._bounds(clock)}


@dataclass(frozen=True, kw_only=True)
class AnyOf(_Bounds):
    """The fire times of several triggers, which have no bounds of their own; equal times count once."""

    of: Sequence[Cron | Every] = field(kw_only=False)

    def document(self, clock: Clock) -> dict[str, Any]:
        """The trigger as the HTTP API takes it. Raises: ValueError, OverflowError."""
        return {"type": "any", "of": [each.document(clock) for each in self.of], **self._bounds(clock)}


Trigger = Cron | RRule | Every | After | AnyOf | Mapping[str, Any]
"""A mapping is sent as it is: a trigger as the HTTP API takes it."""


def trigger_document(trigger: Trigger, clock: Clock) -> dict[str, Any]:
    """The trigger as the HTTP API takes it. Raises: ValueError, OverflowError."""
    return dict(trigger) if isinstance(trigger, Mapping) else trigger.document(clock)


def whole_ms(span: timedelta) -> int:
    """A span in milliseconds. Raises: ValueError: it has a part of one, so that fire times would drift."""
    if span % _MS:
        raise ValueError(f"{span}: should be whole milliseconds")
    return span // _MS


def _time(when: When | None, clock: Clock) -> int | None:
    return None if when is None else epoch_ms(when, clock)


# --- a job


@dataclass(frozen=True, kw_only=True, slots=True)
class Misfire:
    """Treatment of fire times that were missed. None leaves a value to the service."""

    policy: Literal["skip", "fire_once", "fire_all"]
    grace_ms: int | None = None
    """Lateness up to which an occurrence counts as on time."""
    max_catch_up: int | None = None
    """Most occurrences that are caught up, the latest ones; for `fire_all`."""
    window_ms: int | None = None
    """Fire times older than this are not caught up; for `fire_all`."""

    def document(self) -> dict[str, Any]:
        names = {"graceMs": self.grace_ms, "maxCatchUp": self.max_catch_up, "windowMs": self.window_ms}
        return {"policy": self.policy, **given(names)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """The completion that a job asks of its consumer. None leaves a value to the service."""

    timeout_ms: int
    """Counted from the delivery of a run."""
    attempts: int | None = None
    """Attempts of a run, the first one included, which need `overlap` or a fixed delay. By default one."""
    initial_ms: int | None = None
    max_ms: int | None = None
    factor: float | None = None
    """Waits between attempts, as those of a `RetryPolicy`. They need `attempts`."""
    retry_on: Sequence[Literal["timeout", "failure"]] | None = None
    """By default both."""

    def document(self) -> dict[str, Any]:
        """The field as the HTTP API takes it."""
        waits = {"initialMs": self.initial_ms, "maxMs": self.max_ms, "factor": self.factor}
        retry = given({"attempts": self.attempts, **waits})
        on = None if self.retry_on is None else list(self.retry_on)
        return {"timeoutMs": self.timeout_ms, **given({"retry": retry or None, "retryOn": on})}


class _JobFields(TypedDict, total=False):
    trigger: Trigger | None
    """Required in a new job, unless it is durable."""
    ordering_key: str | None
    """By default the job's id."""
    guarantee: Guarantee | None
    headers: Mapping[str, str] | None
    deadline_ms: int | None
    """Milliseconds after its due time from which an occurrence is late."""
    on_late: OnLate | None
    retry: RetryPolicy | None
    misfire: Misfire | None
    """By default the last fire time that was missed is caught up."""
    overlap: Literal["allow", "skip", "wait"] | None
    completion: Completion | None
    """By default a run has ended with its delivery."""
    pause_after_failures: int | None
    """Failed runs in a row after which the job is paused; by default never."""
    durable: bool | None
    """True: it stays when its trigger is over, or has none."""
    description: str | None
    labels: Mapping[str, str] | None
    priority: int | None
    """A header of the job's records, from 1 to 10."""
    interpolate: bool | None
    """True: in string values of `data`, `${scheduledAt}`, `${runId}` and others are put in for each run."""
    payload_schema: Mapping[str, Any] | None
    """JSON Schema of `data`."""


class NewJobFields(_JobFields, total=False):
    """Arguments of `create_job`. An argument that is left out, or None, has its default; but `data` may be None."""

    topic: Required[str]
    data: Required[Any]
    """`bytes` are the record's value as they are; a text is its UTF-8 bytes; anything else is sent as compact JSON."""


class JobChanges(_JobFields, total=False):
    """Arguments of `put_job`. One that is left out changes nothing. None removes what a job need not have, such as its
    trigger, description or deadline; of fields that every job has it changes nothing; but `data` may be None. `trigger`,
    `misfire`, `completion`, `retry`, `headers` and `labels` are replaced as a whole."""

    topic: str | None
    data: Any


class JobFilters(TypedDict, total=False):
    """Arguments of `list_jobs`. A filter that is left out, or None, matches all but deleted jobs."""

    status: JobStatus | None
    topic: str | None
    label: tuple[str, str] | None
    """Name and value."""
    deleted: bool
    """True: the deleted jobs that are kept, and no others."""
    page_size: int
    """Jobs of one answer; by default 100."""


class LogFilters(TypedDict, total=False):
    """Arguments of `logs`. A filter that is left out, or None, matches all."""

    due_from: When | None
    due_to: When | None
    """Excluded."""
    status: RunStatus | None
    page_size: int
    """Runs of one answer; by default 100."""


def _as_it_is(value: Any) -> Any:
    return value


_FIELDS: Final[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "ordering_key": ("orderingKey", _as_it_is),
    "misfire": ("misfire", Misfire.document),
    "overlap": ("overlap", _as_it_is),
    "completion": ("completion", Completion.document),
    "pause_after_failures": ("pauseAfterFailures", _as_it_is),
    "durable": ("durable", _as_it_is),
    "description": ("description", _as_it_is),
    "labels": ("labels", dict),
    "priority": ("priority", _as_it_is),
    "interpolate": ("interpolate", _as_it_is),
    "payload_schema": ("payloadSchema", dict),
}
_DELIVERY: Final[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "topic": ("topic", _as_it_is),
    "guarantee": ("guarantee", _as_it_is),
    "headers": ("headers", dict),
    "deadline_ms": ("deadline", _as_it_is),
    "on_late": ("onLate", _as_it_is),
    "retry": ("retry", RetryPolicy.document),
}


def new_job_document(client_id: str, job_id: str, fields: Mapping[str, Any], clock: Clock) -> dict[str, Any]:
    """The body of a create. `fields`: `NewJobFields`. Raises: ValueError, OverflowError, TypeError."""
    document = _document(fields, clock) | data_fields(fields["data"])
    return {"clientId": client_id, "jobId": job_id, **document}


def job_change_document(changes: Mapping[str, Any], clock: Clock) -> dict[str, Any]:
    """The body of a `PUT`. `changes`: `JobChanges`. Raises: ValueError, OverflowError, TypeError."""
    return _document(changes, clock) | (changed_data_fields(changes["data"]) if "data" in changes else {})


def _document(fields: Mapping[str, Any], clock: Clock) -> dict[str, Any]:
    unknown = fields.keys() - _FIELDS.keys() - _DELIVERY.keys() - {"trigger", "data"}
    if unknown:
        raise TypeError(f"no field of a job: {', '.join(sorted(unknown))}")
    document = _named(_FIELDS, fields)
    if "trigger" in fields:
        trigger = fields["trigger"]
        document["trigger"] = None if trigger is None else trigger_document(trigger, clock)
    delivery = _named(_DELIVERY, fields)
    return document | ({"delivery": delivery} if delivery else {})


def _named(names: Mapping[str, tuple[str, Callable[[Any], Any]]], fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        alias: None if fields[name] is None else write(fields[name])
        for name, (alias, write) in names.items()
        if name in fields
    }


# --- paths and queries


def path_of_job(client_id: str, job_id: str) -> str:
    """The path of one job. Raises: ValueError: a name with a lone surrogate."""
    return f"/jobs/{quote(client_id, safe='')}/{quote(job_id, safe='')}"


def path_of_calendar(client_id: str, name: str) -> str:
    """The path of one calendar. Raises: ValueError: a name with a lone surrogate."""
    return f"/calendars/{quote(client_id, safe='')}/{quote(name, safe='')}"


def jobs_query(
    client_id: str,
    *,
    status: JobStatus | None = None,
    topic: str | None = None,
    label: tuple[str, str] | None = None,
    deleted: bool = False,
    page_size: int = 100,
) -> dict[str, str]:
    """The query of a list of jobs."""
    return given(
        {
            "clientId": client_id,
            "status": status,
            "topic": topic,
            "label": None if label is None else ":".join(label),
            "deleted": "true" if deleted else None,
            "limit": str(page_size),
        }
    )


def logs_query(
    clock: Clock,
    *,
    due_from: When | None = None,
    due_to: When | None = None,
    status: RunStatus | None = None,
    page_size: int = 100,
) -> dict[str, str]:
    """The query of a job's log. Raises: ValueError, OverflowError."""
    return given(
        {
            "from": None if due_from is None else str(epoch_ms(due_from, clock)),
            "to": None if due_to is None else str(epoch_ms(due_to, clock)),
            "status": status,
            "limit": str(page_size),
        }
    )
