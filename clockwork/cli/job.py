"""`clockwork job …`: a command for each call of the API, and `apply` for a file of jobs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import update_wrapper
from itertools import islice
from typing import IO, Any, Final, Literal, TypeVar, cast
from uuid import uuid4

import click

from clockwork.cli import EXIT_CODES
from clockwork.cli.apply import apply_command
from clockwork.cli.connection import Connection, ServiceGroup, connected
from clockwork.cli.job_render import (
    print_job,
    print_jobs,
    print_log,
    print_run,
    print_times,
    print_versions,
    run_words,
)
from clockwork.cli.render import json_option, print_json, printable
from clockwork.cli.trigger_options import NAMES, trigger_of, trigger_options
from clockwork.cli.values import (
    INTEGER_MAX,
    ITEMS_MAX,
    Duration,
    Time,
    content_of,
    content_options,
    json_object,
    ms_of,
    named_values,
    payload_of,
    payload_options,
    strict_json,
    with_options,
)
from clockwork.client import Client, Completion, Misfire, Unavailable
from clockwork.client.jobs import JobStatus, NewJobFields, RunStatus
from clockwork.schema.job import JobDocument

PAGE_ITEMS_MAX: Final = 1_000
TIMES_MAX: Final = 100

_Command = TypeVar("_Command", bound=Callable[..., Any])
_if_version = click.option(
    "--if-version", type=click.IntRange(1, INTEGER_MAX), help="Only if the job still has this version."
)
_limit = click.option("--limit", type=click.IntRange(1, ITEMS_MAX), help="Print at most this many.")
_request_id = click.option(
    "--request-id", help="The same id again is the same request. By default each command is another one."
)
_POLICY_OPTIONS: Final = (
    click.option(
        "--misfire",
        type=click.Choice(["skip", "fire_once", "fire_all"]),
        help="What to do about fire times that were missed. By default the last one is caught up.",
    ),
    click.option("--grace", type=Duration(), help="Of --misfire: lateness that still counts as on time."),
    click.option("--max-catch-up", type=click.IntRange(1, INTEGER_MAX), help="Of --misfire fire_all: most runs."),
    click.option("--window", type=Duration(), help="Of --misfire fire_all: nothing older than this is caught up."),
    click.option("--overlap", type=click.Choice(["allow", "skip", "wait"]), help="May runs overlap? By default allow."),
    click.option("--timeout", type=Duration(), help="Consumers are to complete a run within this time."),
    click.option("--attempts", type=click.IntRange(1, INTEGER_MAX), help="Of --timeout: attempts of a run, in all."),
    click.option(
        "--pause-after-failures", type=click.IntRange(0, INTEGER_MAX), help="Failed runs in a row. By default never."
    ),
    click.option("--durable", is_flag=True, help="It stays when its trigger is over, or without one."),
    click.option("--description", help="For people."),
    click.option("--label", multiple=True, metavar="NAME=VALUE", help="For people and filters; repeatable."),
    click.option("--priority", type=click.IntRange(1, INTEGER_MAX), help="A header of the records."),
    click.option(
        "--interpolate", is_flag=True, help="Put values of each run into the payload, such as ${scheduledAt}."
    ),
    click.option("--payload-schema", type=click.File("rb"), help="File with the JSON Schema of the payload."),
)


def _job(command: _Command) -> _Command:
    return click.argument("client_id")(click.argument("job_id")(command))


def _changes_job(change: Callable[..., JobDocument]) -> Callable[..., None]:
    """The command for a call that changes a job: it prints the job that the call returns."""

    def command(connection: Connection, /, json_: bool, **given: Any) -> None:
        with connection.client() as client:
            changed = change(client, **given)
        print_job(changed, json_=json_)

    update_wrapper(command, change)  # its name, its help, its options
    return _job(_if_version(json_option(connected(command))))


def _policy_options(command: _Command) -> _Command:
    return with_options(_POLICY_OPTIONS, command)


@click.group(cls=ServiceGroup, epilog=EXIT_CODES)
def job() -> None:
    """Create, show and change recurring jobs."""


# --- a job


@job.command(
    epilog="\b\nExamples:\n"
    "  clockwork job create shop report --topic reports --cron '0 9 * * MON-FRI' --zone Europe/Berlin --text go\n"
    "  clockwork job create shop poll --topic polls --every 30s --data '{\"url\":1}' --misfire skip\n\n"
    "The same command again is the same job."
)
@_job
@click.option("--topic", required=True, help="Kafka topic to deliver to.")
@click.option("--cron", help="A cron expression.")
@trigger_options
@content_options
@_policy_options
@json_option
@connected
def create(
    connection: Connection,
    /,
    client_id: str,
    job_id: str,
    topic: str,
    cron: str | None,
    misfire: str | None,
    grace: timedelta | None,
    max_catch_up: int | None,
    window: timedelta | None,
    overlap: str | None,
    timeout: timedelta | None,
    attempts: int | None,
    pause_after_failures: int | None,
    durable: bool,
    description: str | None,
    label: tuple[str, ...],
    priority: int | None,
    interpolate: bool,
    payload_schema: IO[bytes] | None,
    json_: bool,
    **options: Any,
) -> None:
    """Create a job. Without a trigger it needs --durable, and is run by hand."""
    trigger = trigger_of(cron=cron, **{name: options.pop(name) for name in NAMES})
    content = content_of(**options)
    if trigger is None and not durable:
        raise click.UsageError("--cron, --every, --after, --trigger or --durable is required")
    if "data" not in content:
        raise click.UsageError("--data, --text or --data-file is required")
    fields = {
        "trigger": trigger,
        "misfire": _misfire(misfire, grace, max_catch_up, window),
        "overlap": overlap,
        "completion": _completion(timeout, attempts),
        "pause_after_failures": pause_after_failures,
        "durable": durable or None,
        "description": description,
        "labels": named_values("--label", label),
        "priority": priority,
        "interpolate": interpolate or None,
        "payload_schema": None if payload_schema is None else json_object("--payload-schema", payload_schema.read()),
    }
    given = {name: value for name, value in fields.items() if value is not None}
    with connection.client() as client:
        created = client.create_job(client_id, job_id, **cast("NewJobFields", {"topic": topic, **content, **given}))
    print_job(created, json_=json_)


def _completion(timeout: timedelta | None, attempts: int | None) -> Completion | None:
    """Raises: click.UsageError."""
    timeout_ms = ms_of(timeout)
    if timeout_ms is None:
        if attempts is not None:
            raise click.UsageError("--attempts has an effect only with --timeout")
        return None
    return Completion(timeout_ms=timeout_ms, attempts=attempts)


def _misfire(
    policy: str | None, grace: timedelta | None, max_catch_up: int | None, window: timedelta | None
) -> Misfire | None:
    """Raises: click.UsageError."""
    others = {"--grace": grace, "--max-catch-up": max_catch_up, "--window": window}
    if policy is None:
        without = [name for name, value in others.items() if value is not None]
        if without:
            raise click.UsageError(f"{without[0]} has an effect only with --misfire")
        return None
    return Misfire(
        policy=cast('Literal["skip", "fire_once", "fire_all"]', policy),
        grace_ms=ms_of(grace),
        max_catch_up=max_catch_up,
        window_ms=ms_of(window),
    )


@job.command("list", epilog="\b\nExample:\n  clockwork job list shop --label team=web --json | jq .nextRun")
@click.argument("client_id")
@click.option("--status", type=click.Choice(["active", "paused", "ended", "deleted"]))
@click.option("--topic", help="Only jobs for this topic.")
@click.option("--label", metavar="NAME=VALUE", help="Only jobs with this label.")
@click.option("--deleted", is_flag=True, help="The deleted jobs that are kept, and no others.")
@_limit
@json_option
@connected
def list_(
    connection: Connection,
    client_id: str,
    status: str | None,
    topic: str | None,
    label: str | None,
    deleted: bool,
    limit: int | None,
    json_: bool,
) -> None:
    """List a client's jobs."""
    labels = named_values("--label", () if label is None else (label,)) or {}
    with connection.client() as client:
        found = client.list_jobs(
            client_id,
            status=cast("JobStatus | None", status),
            topic=topic,
            label=next(iter(labels.items()), None),
            deleted=deleted,
            page_size=min(limit or PAGE_ITEMS_MAX, PAGE_ITEMS_MAX),
        )
        print_jobs(islice(found, limit), json_=json_)


@job.command(epilog="\b\nExample:\n  clockwork job show shop report --next 10")
@_job
@click.option(
    "--next",
    "next_times",
    type=click.IntRange(0, TIMES_MAX),
    default=5,
    show_default=True,
    help="So many next fire times.",
)
@json_option
@connected
def show(connection: Connection, client_id: str, job_id: str, next_times: int, json_: bool) -> None:
    """Show a job: its state, its last run, and its next fire times in its own time zone."""
    with connection.client() as client:
        found = client.get_job(client_id, job_id, next_times=next_times)
    print_job(found, json_=json_)


@job.command(
    epilog="\b\nExamples:\n"
    "  clockwork job preview '30 2 * * *' --zone Europe/Berlin --from 2030-03-30T00:00:00Z\n"
    "  clockwork job preview --every 90m --anchor 2030-01-01T00:00:00Z --count 3"
)
@click.argument("expression", required=False)
@trigger_options
@click.option("--from", "since", type=Time(), help="No fire time before this. By default now.")
@click.option("--count", type=click.IntRange(1, TIMES_MAX), default=10, show_default=True)
@click.option("--job", nargs=2, metavar="CLIENT_ID JOB_ID", help="Shows jitter as this job has it; it need not exist.")
@click.option("--client", "client_id", metavar="CLIENT_ID", help="The client whose calendar is named.")
@json_option
@connected
def preview(
    connection: Connection,
    /,
    expression: str | None,
    since: int | None,
    count: int,
    job: tuple[str, str] | None,
    client_id: str | None,
    json_: bool,
    **options: Any,
) -> None:
    """Show the next fire times of a cron EXPRESSION, or of another trigger. Nothing is stored."""
    trigger = trigger_of(cron=expression, **options)
    if trigger is None:
        raise click.UsageError("an EXPRESSION, --every, --after or --trigger is required")
    with connection.client() as client:
        times = client.preview(trigger, since=since, count=count, job=job, client_id=client_id)
    print_times(times, json_=json_)


@job.command(epilog="\b\nExample:\n  clockwork job pause shop report --note 'until the new topic is there'")
@_changes_job
@click.option("--note", help="The reason, for people.")
def pause(client: Client, client_id: str, job_id: str, note: str | None, if_version: int | None) -> JobDocument:
    """Pause a job. Runs that may still be delivered are shown as in flight; no others are."""
    return client.pause_job(client_id, job_id, note=note, if_version=if_version)


@job.command(epilog="\b\nExample:\n  clockwork job resume shop report")
@_changes_job
def resume(client: Client, client_id: str, job_id: str, if_version: int | None) -> JobDocument:
    """Resume a paused job. What was missed is not caught up; `backfill` does that."""
    return client.resume_job(client_id, job_id, if_version=if_version)


@job.command(epilog="\b\nExample:\n  clockwork job delete shop report --if-version 3")
@_changes_job
def delete(client: Client, client_id: str, job_id: str, if_version: int | None) -> JobDocument:
    """Delete a job. It may be restored until its retention ends."""
    return client.delete_job(client_id, job_id, if_version=if_version)


@job.command(epilog="\b\nExample:\n  clockwork job restore shop report")
@_changes_job
def restore(client: Client, client_id: str, job_id: str, if_version: int | None) -> JobDocument:
    """Restore a deleted job as it was, active or paused."""
    return client.restore_job(client_id, job_id, if_version=if_version)


@job.command(epilog="\b\nExample:\n  clockwork job versions shop report")
@_job
@_limit
@json_option
@connected
def versions(connection: Connection, client_id: str, job_id: str, limit: int | None, json_: bool) -> None:
    """List the versions of a job's definition, newest first: when and by which key each was made."""
    with connection.client() as client:
        found = client.versions(client_id, job_id, page_size=min(limit or PAGE_ITEMS_MAX, PAGE_ITEMS_MAX))
        print_versions(islice(found, limit), json_=json_)


# --- runs


@job.command(epilog='\b\nExample:\n  clockwork job run shop report --data \'{"day":"2030-01-31"}\'')
@_job
@payload_options
@_request_id
@json_option
@connected
def run(
    connection: Connection,
    client_id: str,
    job_id: str,
    data: str | None,
    text: str | None,
    data_file: IO[bytes] | None,
    request_id: str | None,
    json_: bool,
) -> None:
    """Run a job now, also while it is paused; with a payload of its own, if one is given."""
    payload = payload_of(data=data, text=text, data_file=data_file)
    with connection.client() as client, _settled_by(request_id) as id_:
        started = client.run_job(client_id, job_id, request_id=id_, **payload)
    print_run(started, json_=json_)


@job.command(
    epilog="\b\nExamples:\n"
    "  clockwork job complete shop report s1795248000000 --result '{\"rows\":7}'\n"
    "  clockwork job complete shop report s1795248000000 --failed --result '\"disk full\"' --no-retry"
)
@_job
@click.argument("run_id")
@click.option("--attempt", type=click.IntRange(1, INTEGER_MAX), default=1, show_default=True)
@click.option("--result", help="The result, or the error, as JSON of at most 4 KiB.")
@click.option("--failed", is_flag=True, help="It has failed.")
@click.option("--no-retry", is_flag=True, help="With --failed: no other attempt is made.")
@json_option
@connected
def complete(
    connection: Connection,
    client_id: str,
    job_id: str,
    run_id: str,
    attempt: int,
    result: str | None,
    failed: bool,
    no_retry: bool,
    json_: bool,
) -> None:
    """Say that a run has ended, in the place of its consumer."""
    if no_retry and not failed:
        raise click.UsageError("--no-retry has an effect only with --failed")
    try:
        value = None if result is None else strict_json(result.encode())
    except ValueError as error:
        raise click.UsageError(f"--result: {error}") from error
    with connection.client() as client:
        if failed:
            ended = client.fail_run(client_id, job_id, run_id, attempt=attempt, error=value, retry=not no_retry)
        else:
            ended = client.complete_run(client_id, job_id, run_id, attempt=attempt, result=value)
    print_run(ended, json_=json_)


@job.command(
    epilog="\b\nExample:\n"
    "  clockwork job backfill shop report --from 2030-01-01T00:00:00Z --to 2030-01-07T23:59:59Z --max-runs 7"
)
@_job
@click.option("--from", "since", type=Time(), required=True, help="The first fire time, or before it.")
@click.option("--to", "until", type=Time(), required=True, help="The last fire time, or after it; not after now.")
@click.option("--max-runs", type=click.IntRange(1, INTEGER_MAX), help="At most so many; by default 1,000.")
@_request_id
@json_option
@connected
def backfill(
    connection: Connection,
    client_id: str,
    job_id: str,
    since: int,
    until: int,
    max_runs: int | None,
    request_id: str | None,
    json_: bool,
) -> None:
    """Run a job's past fire times, one after the other, also while it is paused."""
    with connection.client() as client, _settled_by(request_id) as id_:
        started = client.backfill(client_id, job_id, since=since, until=until, max_runs=max_runs, request_id=id_)
    if json_:
        print_json(started)
    else:
        click.echo(f"backfill {printable(started.request_id)}: first {run_words(started.run)}")


@contextmanager
def _settled_by(request_id: str | None) -> Iterator[str]:
    """The id of a request. One that was made here is told when the outcome is unknown: the same command again would be
    another request."""
    id_ = request_id if request_id is not None else uuid4().hex
    try:
        yield id_
    except Unavailable:
        if request_id is None:
            click.echo(f"clockwork: the same command with --request-id {id_} settles it", err=True)
        raise


@job.command(epilog="\b\nExample:\n  clockwork job logs shop report --status failed --from 2030-01-01T00:00:00Z")
@_job
@click.option("--from", "due_from", type=Time(), help="Only runs due at this time or later.")
@click.option("--to", "due_to", type=Time(), help="Only runs due before this time.")
@click.option(
    "--status",
    type=click.Choice(["armed", "delivered", "running", "completed", "failed", "timed_out", "skipped"]),
)
@_limit
@json_option
@connected
def logs(
    connection: Connection,
    client_id: str,
    job_id: str,
    due_from: int | None,
    due_to: int | None,
    status: str | None,
    limit: int | None,
    json_: bool,
) -> None:
    """List the runs of a job, and what was skipped, newest first."""
    with connection.client() as client:
        found = client.logs(
            client_id,
            job_id,
            due_from=due_from,
            due_to=due_to,
            status=cast("RunStatus | None", status),
            page_size=min(limit or PAGE_ITEMS_MAX, PAGE_ITEMS_MAX),
        )
        print_log(islice(found, limit), json_=json_)


job.add_command(apply_command)
