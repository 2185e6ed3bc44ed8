"""Output of the commands about jobs: fields and tables for people, JSON for programs."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import click

from clockwork.cli.render import cell, instant, print_json, printable, status_cell
from clockwork.cli.table import Table, print_table
from clockwork.client import FireTime, Job, JobVersion, Run
from clockwork.schema.trigger import TriggerDocument

_STYLES: Final = {
    "active": "green",
    "paused": "yellow",
    "ended": "dim",
    "deleted": "dim",
    "armed": "cyan",
    "delivered": "green",
    "running": "cyan",
    "completed": "green",
    "failed": "red",
    "timed_out": "red",
    "skipped": "yellow",
}
_UNITS: Final = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))


def span(span_ms: int) -> str:
    """A span as options take it, such as `1h30m`."""
    parts = []
    for unit, unit_ms in _UNITS:
        count, span_ms = divmod(span_ms, unit_ms)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def trigger_words(trigger: TriggerDocument | None) -> str:
    """A trigger in words, without its rules for clock changes."""
    if trigger is None:
        return "by hand"
    bounds = (
        ("from", None if trigger.start_ms is None else instant(trigger.start_ms)),
        ("until", None if trigger.end_ms is None else instant(trigger.end_ms)),
        ("runs at most", trigger.max_runs),
        ("jitter at most", None if trigger.jitter_ms is None else span(trigger.jitter_ms)),
    )
    return ", ".join([_rule_words(trigger), *(f"{name} {value}" for name, value in bounds if value is not None)])


def _rule_words(trigger: TriggerDocument) -> str:
    by_the_clock = trigger.expression or trigger.rule
    if by_the_clock is not None:
        excluded = "" if trigger.exclude is None else ", but for excluded days and hours"
        return printable(f"{by_the_clock} ({trigger.time_zone}{excluded})")
    if trigger.every_ms is not None:
        return f"every {span(trigger.every_ms)}"
    if trigger.delay_ms is not None:
        return f"{span(trigger.delay_ms)} after the last run"
    if trigger.of is not None:
        return " or ".join(_rule_words(each) for each in trigger.of)
    return printable(trigger.type)


def run_words(run: Run) -> str:
    """A run, or what was skipped, in one line."""
    if run.run_id is None:
        return f"skipped {_skipped_words(run)}"
    due = "" if run.due_at_ms is None else f", due {instant(run.due_at_ms)}"
    end = run_end(run)
    return f"{printable(run.run_id)} {run.status}{due}{f', {end}' if end else ''}"


def run_end(run: Run) -> str:
    """The lateness and place of a run's record, or the reason of its failure."""
    if run.delivered is not None:
        delivered = run.delivered
        return f"{delivered.lateness_ms} ms late, Kafka partition {delivered.partition} offset {delivered.offset}"
    return printable(run.reason or "")


def _skipped_words(run: Run) -> str:
    times = {instant(each) for each in (run.first_ms, run.last_ms) if each is not None}
    return printable(f"{run.count} ({run.reason}): {' to '.join(sorted(times))}")


def print_job(job: Job, *, json_: bool) -> None:
    """Prints the main fields of a job, one a line, or its JSON."""
    if json_:
        print_json(job)
        return
    since = "" if job.paused_since_ms is None else f" since {instant(job.paused_since_ms)}"
    note = "" if job.note is None else f": {job.note}"
    counts = job.counts
    lines: list[tuple[str, str]] = [
        ("job", f"{printable(job.client_id)} {printable(job.job_id)}"),
        ("status", printable(f"{job.status}{since}{note}")),
        ("trigger", trigger_words(job.trigger)),
        ("topic", printable(job.delivery.topic)),
        ("ordering key", printable(job.ordering_key or "")),
        ("data", printable(json.dumps(job.task_data, ensure_ascii=False))),
        ("version", str(job.version)),
        ("runs", f"{counts.delivered} delivered, {counts.failed} failed; {counts.skipped} fire times skipped"),
    ]
    if job.description is not None:
        lines.insert(1, ("description", printable(job.description)))
    if job.labels:
        lines.append(("labels", printable(", ".join(f"{name}={value}" for name, value in job.labels.items()))))
    if job.last_run is not None:
        lines.append(("last run", run_words(job.last_run)))
    lines += [("open run", run_words(each)) for each in job.open_runs or ()]
    if job.next_run is not None:
        following = job.next_run
        lines.append(("next run", f"{printable(following.run_id)} due {instant(following.due_at_ms)}"))
        # Without a list of next times this is the only one.
        if job.next_times is None:
            lines.append(("", _noted(following.local, following.note)))
    lines += [
        ("next times" if index == 0 else "", _time_words(each)) for index, each in enumerate(job.next_times or ())
    ]
    lines += [("in flight", f"{run_words(each)}: may still be delivered as before") for each in job.in_flight or ()]
    for name, value in lines:
        click.echo(f"{name:<13} {value}".rstrip())


def _time_words(time: FireTime) -> str:
    due = "" if time.due_at_ms is None else f"  due {instant(time.due_at_ms)}"
    return f"{_noted(time.local, time.note)}{due}"


def _noted(local: str, note: str | None) -> str:
    return printable(local if note is None else f"{local}  {note}")


def print_times(times: Sequence[FireTime], *, json_: bool) -> None:
    """Prints fire times in their trigger's time zone, one a line."""
    for each in times:
        if json_:
            print_json(each)
        else:
            click.echo(_time_words(each))


def print_run(run: Run, *, json_: bool) -> None:
    """Prints a run in one line, or its JSON."""
    if json_:
        print_json(run)
    else:
        click.echo(run_words(run))


def print_jobs(jobs: Iterable[Job], *, json_: bool) -> None:
    """Prints a table of all, or one line of JSON for each as it is read."""
    table = Table(
        *("job", "status", "trigger", "next run", "topic", "delivered", "failed", "skipped"),
        prose=("trigger",),
        least=("skipped", "delivered", "topic", "failed"),
    )

    def add(job: Job) -> None:
        counts = job.counts
        table.add_row(
            cell(job.job_id),
            status_cell(job.status, _STYLES),
            cell(trigger_words(job.trigger)),
            "" if job.next_run is None else cell(job.next_run.local),
            cell(job.delivery.topic),
            *(str(each) for each in (counts.delivered, counts.failed, counts.skipped)),
        )

    _print_all(jobs, table, add, json_=json_)


def print_log(runs: Iterable[Run], *, json_: bool) -> None:
    """Prints a table of runs and skipped stretches, or one line of JSON for each as it is read."""
    table = Table(
        *("run", "status", "kind", "scheduled", "version", "attempt", "end"),
        prose=("end",),
        least=("attempt", "version", "scheduled", "kind"),
    )

    def add(run: Run) -> None:
        if run.run_id is None:
            table.add_row("", status_cell(run.status, _STYLES), "", "", "", "", _skipped_words(run))
            return
        table.add_row(
            cell(run.run_id),
            status_cell(run.status, _STYLES),
            cell(run.kind),
            "" if run.scheduled_at_ms is None else instant(run.scheduled_at_ms),
            *("" if each is None else str(each) for each in (run.version, run.attempt)),
            run_end(run),
        )

    _print_all(runs, table, add, json_=json_)


def print_versions(versions: Iterable[JobVersion], *, json_: bool) -> None:
    """Prints a table of versions, or one line of JSON for each as it is read."""
    table = Table(
        *("version", "changed", "by", "trigger", "topic", "description"),
        prose=("trigger", "description"),
        least=("topic", "by"),
    )

    def add(version: JobVersion) -> None:
        table.add_row(
            str(version.version),
            instant(version.changed_at_ms),
            cell(version.changed_by),
            cell(trigger_words(version.trigger)),
            cell(version.delivery.topic),
            cell(version.description),
        )

    _print_all(versions, table, add, json_=json_)


def _print_all(found: Iterable[Any], table: Table, add: Callable[[Any], None], *, json_: bool) -> None:
    for each in found:
        if json_:
            print_json(each)
        else:
            add(each)
    if not json_:
        print_table(table)
