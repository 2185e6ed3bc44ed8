"""`clockwork schedule …`: a command for each call of the API."""

from collections.abc import Callable
from datetime import timedelta
from itertools import islice
from typing import Any, Final, TypeVar, cast

import click

from clockwork.cli import EXIT_CODES
from clockwork.cli.connection import Connection, ServiceGroup, connected
from clockwork.cli.load import load_command
from clockwork.cli.render import json_option, print_schedule, print_schedules
from clockwork.cli.upcoming import upcoming_command
from clockwork.cli.values import INTEGER_MAX, ITEMS_MAX, Duration, Time, content_of, content_options, when
from clockwork.cli.watch import watch_command
from clockwork.cli.why import why_command
from clockwork.client import When
from clockwork.client.schedules import Status

PAGE_ITEMS_MAX: Final = 1_000

_Command = TypeVar("_Command", bound=Callable[..., Any])
_if_version = click.option(
    "--if-version", type=click.IntRange(1, INTEGER_MAX), help="Only if the schedule still has this version."
)
_limit = click.option("--limit", type=click.IntRange(1, ITEMS_MAX), help="Print at most this many.")


def _key(command: _Command) -> _Command:
    return click.argument("client_id")(click.argument("schedule_key")(command))


def _time(command: _Command) -> _Command:
    command = click.option("--at", type=Time(), help="Epoch milliseconds, or RFC 3339 with an offset.")(command)
    return click.option("--in", "after", type=Duration(), help="From now, such as 15m, 1h30m or 2d.")(command)


@click.group(cls=ServiceGroup, epilog=EXIT_CODES)
def schedule() -> None:
    """Create, show and change schedules."""


@schedule.command(
    epilog="\b\nExamples:\n"
    "  clockwork schedule create shop order-1 --topic orderTopic --in 15m --data '{\"expire\":1}'\n"
    "  clockwork schedule create shop order-2 --topic orderTopic --at 2030-01-31T09:00:00+01:00 --text wake-up\n\n"
    "With --at, the same command again is the same schedule; --in is another time on each run."
)
@_key
@click.option("--topic", required=True, help="Kafka topic to deliver to.")
@_time
@content_options
@json_option
@connected
def create(
    connection: Connection,
    /,
    client_id: str,
    schedule_key: str,
    topic: str,
    at: int | None,
    after: timedelta | None,
    json_: bool,
    **content: Any,
) -> None:
    """Create a schedule."""
    due = cast("When", when(at, after, required=True))
    given = content_of(**content)
    if "data" not in given:
        raise click.UsageError("--data, --text or --data-file is required")
    with connection.client() as client:
        created = client.create(client_id, schedule_key, at=due, topic=topic, **given)
    print_schedule(created, json_=json_)


@schedule.command(epilog="\b\nExample:\n  clockwork schedule get shop order-1 --json")
@_key
@json_option
@connected
def get(connection: Connection, client_id: str, schedule_key: str, json_: bool) -> None:
    """Show a schedule and its state."""
    with connection.client() as client:
        found = client.get(client_id, schedule_key)
    print_schedule(found, json_=json_)


@schedule.command(epilog="\b\nExample:\n  clockwork schedule cancel shop order-1 || echo too late")
@_key
@json_option
@connected
def cancel(connection: Connection, client_id: str, schedule_key: str, json_: bool) -> None:
    """Cancel a schedule. After exit code 0 it is never delivered."""
    with connection.client() as client:
        cancelled = client.cancel(client_id, schedule_key)
    print_schedule(cancelled, json_=json_)


@schedule.command(epilog="\b\nExample:\n  clockwork schedule reschedule shop order-1 --in 1h --if-version 3")
@_key
@click.option("--topic", help="Kafka topic to deliver to.")
@_time
@content_options
@_if_version
@json_option
@connected
def reschedule(
    connection: Connection,
    /,
    client_id: str,
    schedule_key: str,
    topic: str | None,
    at: int | None,
    after: timedelta | None,
    if_version: int | None,
    json_: bool,
    **content: Any,
) -> None:
    """Change a pending schedule: its time, topic, payload or policies. Options that are not given change nothing."""
    changes = content_of(**content)
    due = when(at, after)
    if due is not None:
        changes["at"] = due
    if topic is not None:
        changes["topic"] = topic
    with connection.client() as client:
        changed = client.reschedule(client_id, schedule_key, if_version=if_version, **changes)
    print_schedule(changed, json_=json_)


@schedule.command(epilog="\b\nExample:\n  clockwork schedule fire shop order-1")
@_key
@_if_version
@json_option
@connected
def fire(connection: Connection, client_id: str, schedule_key: str, if_version: int | None, json_: bool) -> None:
    """Deliver a pending schedule now."""
    with connection.client() as client:
        fired = client.fire(client_id, schedule_key, if_version=if_version)
    print_schedule(fired, json_=json_)


@schedule.command(epilog="\b\nExample:\n  clockwork schedule retry shop order-1 --in 5m")
@_key
@_time
@_if_version
@json_option
@connected
def retry(
    connection: Connection,
    client_id: str,
    schedule_key: str,
    at: int | None,
    after: timedelta | None,
    if_version: int | None,
    json_: bool,
) -> None:
    """Make a failed schedule pending again, by default for now."""
    due = when(at, after)
    with connection.client() as client:
        armed = client.retry(client_id, schedule_key, at=due, if_version=if_version)
    print_schedule(armed, json_=json_)


@schedule.command("list", epilog="\b\nExample:\n  clockwork schedule list shop --status failed --json | jq .failed")
@click.argument("client_id")
@click.option("--status", type=click.Choice(["pending", "delivered", "cancelled", "failed"]))
@click.option("--topic", help="Only schedules for this topic.")
@click.option("--ordering-key", help="Only schedules with this ordering key.")
@click.option("--due-from", type=Time(), help="Only schedules due at this time or later.")
@click.option("--due-to", type=Time(), help="Only schedules due before this time.")
@_limit
@json_option
@connected
def list_(
    connection: Connection,
    client_id: str,
    status: str | None,
    topic: str | None,
    ordering_key: str | None,
    due_from: int | None,
    due_to: int | None,
    limit: int | None,
    json_: bool,
) -> None:
    """List a client's schedules. The list may lag by 5 s."""
    with connection.client() as client:
        found = client.list(
            client_id,
            status=cast("Status | None", status),
            topic=topic,
            ordering_key=ordering_key,
            due_from=due_from,
            due_to=due_to,
            page_size=min(limit or PAGE_ITEMS_MAX, PAGE_ITEMS_MAX),
        )
        print_schedules(islice(found, limit), json_=json_)


@schedule.command(epilog="\b\nExample:\n  clockwork schedule history shop order-1")
@_key
@_limit
@json_option
@connected
def history(connection: Connection, client_id: str, schedule_key: str, limit: int | None, json_: bool) -> None:
    """Show the ended schedules of a key, newest first."""
    with connection.client() as client:
        found = client.history(client_id, schedule_key, page_size=min(limit or PAGE_ITEMS_MAX, PAGE_ITEMS_MAX))
        print_schedules(islice(found, limit), json_=json_)


schedule.add_command(load_command)
schedule.add_command(upcoming_command)
schedule.add_command(why_command)
schedule.add_command(watch_command)
