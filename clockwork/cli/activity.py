"""`clockwork events`, `minutes` and `clients`: what happens, how much of it, and for whom."""

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from datetime import timedelta
from typing import Final

import click

from clockwork.cli import EXIT_CODES
from clockwork.cli.connection import Connection, ServiceCommand, connected
from clockwork.cli.render import cell, instant, json_option, print_json, printable
from clockwork.cli.table import Table, print_table
from clockwork.cli.values import Duration, Time
from clockwork.client import Event, Minutes
from clockwork.domain.activity import KINDS, MINUTE_MS

_MS: Final = timedelta(milliseconds=1)
_DAY: Final = timedelta(days=1)


@click.command(
    "events",
    cls=ServiceCommand,
    epilog="\b\nExamples:\n  clockwork events --client shop\n  clockwork events --last 1h --kind failed --kind refused\n"
    "  clockwork events --follow --json | jq 'select(.latenessMs > 1000)'\n\n" + EXIT_CODES,
)
@click.option("--from", "since", type=Time(), help="From this time on, up to a day back; by default the latest ones.")
@click.option("--last", type=Duration(at_most=_DAY), help="Of so much time, such as 1h.")
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, help="Only this kind. May be repeated.")
@click.option("--client", "client_id", help="Only of this client.")
@click.option("--key", "schedule_key", help="Only of this schedule, or of this job.")
@click.option("--topic", help="Only of this topic.")
@click.option("--result", help="Only with this result, such as record_too_large.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@json_option
@connected
def events_command(
    connection: Connection,
    since: int | None,
    last: timedelta | None,
    kinds: Sequence[str],
    client_id: str | None,
    schedule_key: str | None,
    topic: str | None,
    result: str | None,
    follow: bool,
    json_: bool,
) -> None:
    """Show what happened lately, of all clients that the API key covers, oldest first. Best effort: some may be missing.

    Without --from and --last the latest 100.
    """
    if since is not None and last is not None:
        raise click.UsageError("--from and --last exclude each other")
    # Ctrl-C is the way to stop following, no failure.
    with suppress(KeyboardInterrupt) if follow else nullcontext(), connection.client() as client:
        table = Table(
            *("at", "what", "of", "topic", "late", "how", "by"), prose=("how",), least=("by", "topic", "late")
        )
        found = client.events(
            since=since if last is None else -last,
            kinds=kinds,
            client_id=client_id,
            schedule_key=schedule_key,
            topic=topic,
            result=result,
            follow=follow,
        )
        for event in found:
            if json_:
                print_json(event)
            elif follow:
                # A table would be printed at its end only.
                click.echo("  ".join(printable(each) for each in _columns(event) if each))
            else:
                table.add_row(*map(cell, _columns(event)))
        if not json_ and not follow:
            print_table(table)


def _columns(event: Event) -> tuple[str, ...]:
    sampled = "" if event.sampled is None else f" (about {event.sampled})"
    late = "" if event.lateness_ms is None else f"{event.lateness_ms} ms"
    return (
        instant(event.at_ms),
        f"{event.kind}{sampled}",
        _subject(event),
        event.topic or "",
        late,
        _manner(event),
        event.by or "",
    )


def _subject(event: Event) -> str:
    if event.job_id is not None:
        run = "" if event.run_id is None else f" run {event.run_id}"
        return f"{event.client_id} job {event.job_id}{run}"
    if event.schedule_key is not None:
        return f"{event.client_id} {event.schedule_key}"
    if event.client_id is not None:
        return f"client {event.client_id}"
    return "" if event.shard is None else f"shard {event.shard}"


def _manner(event: Event) -> str:
    place = None if event.kafka_partition is None else f"at {event.kafka_partition} {event.offset}"
    attempts = f"{event.attempts} attempts" if event.attempts is not None and event.attempts > 1 else None
    answers = None if event.answers is None else ", ".join(f"{n} {name}" for name, n in event.answers.items())
    count = f"{event.count} in all" if event.count is not None and event.answers is None else None
    result = event.result if event.last_refusal is None else f"{event.result} ({event.last_refusal})"
    return "; ".join(each for each in (result, attempts, place, answers, count, event.reason) if each)


@click.command(
    "minutes",
    cls=ServiceCommand,
    epilog="\b\nExamples:\n  clockwork minutes\n  clockwork minutes --for 24h --step 1h --topic orderTopic\n"
    "  clockwork minutes --json | jq '[.minutes[].delivered] | add'\n\n" + EXIT_CODES,
)
@click.option("--to", "until", type=Time(), help="End; by default now.")
@click.option("--for", "length", type=Duration(at_most=8 * _DAY), default="1h", show_default=True, help="Length.")
@click.option("--step", type=Duration(at_most=8 * _DAY), default="1m", show_default=True, help="Whole minutes.")
@click.option("--topic", help="Only of this topic.")
@json_option
@connected
def minutes_command(
    connection: Connection,
    until: int | None,
    length: timedelta,
    step: timedelta,
    topic: str | None,
    json_: bool,
) -> None:
    """Show how much was created and delivered, and how late, by the minute, for the topics that the API key covers."""
    since = -length if until is None else until - length // _MS
    with connection.client() as client:
        found = client.minutes(since=since, until=until, step_ms=step // _MS, topic=topic)
    if json_:
        print_json(found)
    else:
        _print_minutes(found)


def _print_minutes(found: Minutes) -> None:
    columns = ("created", "cancelled", "moved", "delivered", "retried", "failed")
    least = ("moved", "retried", "cancelled")
    table = Table("from", *columns, "99 % within", least=least)
    for each in found.minutes:
        counts = (getattr(each, name) for name in columns)
        table.add_row(instant(each.at_ms), *map(str, counts), _within(each.lateness, found.lateness_bounds_ms))
    print_table(table)
    by_topic = Table("topic", *columns, "99 % within", least=least)
    for topic in found.topics:
        counts = (getattr(topic, name) for name in columns)
        by_topic.add_row(cell(topic.topic), *map(str, counts), _within(topic.lateness, found.lateness_bounds_ms))
    if found.topics:
        print_table(by_topic)
    if found.kept_from_ms is None or found.kept_from_ms > found.from_ms + MINUTE_MS:
        click.echo("This node has not told of all of this time: minutes are best effort.")


def _within(lateness: Sequence[int], bounds_ms: Sequence[int]) -> str:
    """The bound within which 99 of 100 deliveries were."""
    total, seen = sum(lateness), 0
    if total == 0:
        return ""
    for count, bound_ms in zip(lateness, bounds_ms, strict=False):
        seen += count
        if seen * 100 >= total * 99:
            return f"{bound_ms} ms"
    return f"over {bounds_ms[-1]} ms"


@click.command("clients", cls=ServiceCommand, epilog="\b\nExample:\n  clockwork clients\n\n" + EXIT_CODES)
@json_option
@connected
def clients_command(connection: Connection, json_: bool) -> None:
    """Show the clients that have created something, of those that the API key covers. Up to a minute old."""
    with connection.client() as client:
        found = client.clients()
    if json_:
        print_json(found)
        return
    table = Table("client", "first create", "last create")
    for each in found.clients:
        table.add_row(cell(each.client_id), each.first_day, each.last_day)
    print_table(table)
    if not found.complete:
        click.echo("There are more.")
