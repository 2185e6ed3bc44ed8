"""`clockwork schedule why`, `schedule upcoming` and `forecast`: why a schedule waits, and the schedules to come."""

from datetime import timedelta
from itertools import islice
from typing import Final

import click

from clockwork.cli import EXIT_CODES
from clockwork.cli.connection import Connection, ServiceCommand, connected
from clockwork.cli.render import cell, end_of_why, instant, json_option, new_table, print_json, print_table, printable
from clockwork.cli.values import Duration, Time
from clockwork.client import Forecast, Why
from clockwork.client.schedules import When

UPCOMING_DEFAULT: Final = 20
UPCOMING_PAGE_MAX: Final = 200
BAR_CHARS: Final = 40
_MS: Final = timedelta(milliseconds=1)


@click.command("why", cls=ServiceCommand, epilog="\b\nExample:\n  clockwork schedule why shop order-1")
@click.argument("client_id")
@click.argument("schedule_key")
@json_option
@connected
def why_command(connection: Connection, client_id: str, schedule_key: str, json_: bool) -> None:
    """Say why a schedule is not delivered yet, and what to do."""
    with connection.client() as client:
        found = client.why(client_id, schedule_key)
    if json_:
        print_json(found)
    else:
        _print_why(found)


def _print_why(found: Why) -> None:
    lines = [
        ("schedule", f"{printable(found.client_id)} {printable(found.schedule_key)}"),
        ("due", f"{instant(found.schedule_time_ms)} ({found.schedule_time_ms})"),
        ("reason", f"{found.reason} {_facts(found)}".strip()),
        ("", found.text),
        ("advice", found.advice),
        ("place", f"shard {found.shard}, version {found.version}"),
    ]
    for name, value in lines:
        click.echo(f"{name:<13} {value}")
    if not found.looked_at_all:
        click.echo(f"{'':<13} {found.looked_at} rows before it were looked at; there are more")


def _facts(found: Why) -> str:
    """The facts of the reason, in a few words."""
    if found.due_in_ms is not None:
        return f"in {timedelta(milliseconds=found.due_in_ms)}"
    if found.paused is not None:
        return f"{found.paused.kind} {printable(found.paused.name)}, since {instant(found.paused.since_ms)}"
    if found.lag_ms is not None:
        return f"by {found.lag_ms / 1_000:.1f} s"
    if found.destination is not None:
        probe = found.destination.next_probe_ms
        next_ = "" if probe is None else f", tried again at {instant(probe)}"
        return f"{printable(found.destination.topic)}: {printable(found.destination.reason)}{next_}"
    if found.retry is not None:
        return f"after {found.retry.attempts} attempts, at {instant(found.retry.next_at_ms)}"
    if found.behind is not None:
        name = found.behind.schedule_key or found.behind.job_id or "another client's"
        return f"{printable(name)}, due {instant(found.behind.schedule_time_ms)}"
    return end_of_why(found)


@click.command(
    "upcoming",
    cls=ServiceCommand,
    epilog="\b\nExamples:\n  clockwork schedule upcoming\n"
    "  clockwork schedule upcoming --topic orderTopic --limit 100 --json",
)
@click.option("--client", "client_id", help="Only of this client, from now on.")
@click.option("--topic", help="Only for this topic.")
@click.option("--due-from", type=Time(), help="Only schedules due at this time or later.")
@click.option("--due-to", type=Time(), help="Only schedules due before this time.")
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=UPCOMING_DEFAULT,
    show_default=True,
    help="Print at most this many.",
)
@json_option
@connected
def upcoming_command(
    connection: Connection,
    client_id: str | None,
    topic: str | None,
    due_from: int | None,
    due_to: int | None,
    limit: int,
    json_: bool,
) -> None:
    """List what is due next, of all clients that the API key covers: what is overdue first. May lag by a moment."""
    with connection.client() as client:
        found = client.upcoming(
            client_id=client_id,
            topic=topic,
            due_from=due_from,
            due_to=due_to,
            page_size=min(limit, UPCOMING_PAGE_MAX),
        )
        table = new_table("due", "client", "key", "topic", "ordering key", "run of job")
        for each in islice(found, limit):
            if json_:
                print_json(each)
                continue
            run = "" if each.job_id is None else f"{each.job_id} {each.run_id}"
            topic_ = each.delivery.topic if each.delivery is not None else ""
            names = (each.client_id, each.schedule_key, topic_, each.ordering_key, run)
            table.add_row(instant(each.schedule_time_ms), *map(cell, names))
    if not json_:
        print_table(table)


@click.command(
    "forecast",
    cls=ServiceCommand,
    epilog="\b\nExamples:\n  clockwork forecast\n  clockwork forecast --for 24h --bucket 1h --topic orderTopic\n"
    "  clockwork forecast --json | jq '[.buckets[].count] | max'\n\n" + EXIT_CODES,
)
@click.option("--from", "since", type=Time(), help="Beginning; by default now.")
@click.option("--for", "length", type=Duration(), default="1h", show_default=True, help="Length of the window.")
@click.option("--bucket", type=Duration(), default="1m", show_default=True, help="Width of a bucket.")
@click.option("--client", "client_id", help="Only of this client.")
@click.option("--topic", help="Only for this topic.")
@json_option
@connected
def forecast_command(
    connection: Connection,
    since: int | None,
    length: timedelta,
    bucket: timedelta,
    client_id: str | None,
    topic: str | None,
    json_: bool,
) -> None:
    """Show how many schedules are due when.

    Exact as far as the service reads, and estimated behind that (~). Of a recurring job the next run alone is counted.
    """
    until: When = length if since is None else since + length // _MS
    with connection.client() as client:
        found = client.forecast(since=since, until=until, bucket_ms=bucket // _MS, client_id=client_id, topic=topic)
    if json_:
        print_json(found)
    else:
        _print_forecast(found)


def _print_forecast(found: Forecast) -> None:
    most = max((each.count for each in found.buckets), default=0)
    table = new_table("from", "due", "")
    for each in found.buckets:
        if each.count:
            bar = "#" * max(1, round(each.count * BAR_CHARS / most))
            table.add_row(instant(each.at_ms), f"{'' if each.exact else '~'}{each.count}", bar)
    print_table(table)
    total = sum(each.count for each in found.buckets)
    overdue = "" if found.overdue is None else f"{found.overdue} overdue, "
    exact = "exact" if found.exact else f"exact up to {instant(found.exact_to_ms)}, estimated behind it"
    click.echo(f"{overdue}{total} due from {instant(found.from_ms)} to {instant(found.to_ms)}; {exact}")
