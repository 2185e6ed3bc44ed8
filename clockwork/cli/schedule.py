"""`clockwork schedule …`: one command for each call of the API."""

from collections.abc import Callable
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar, cast

import click

from clockwork.cli import shown
from clockwork.cli.bulk import load_command, watch_command
from clockwork.cli.connection import Connection, connected
from clockwork.cli.content import content_of, content_options
from clockwork.cli.outcomes import HELP
from clockwork.cli.values import Duration, Time, when
from clockwork.client import When
from clockwork.client.aio import Status

_Command = TypeVar("_Command", bound=Callable[..., Any])
_json = click.option("--json", "json_", is_flag=True, help="One JSON object a line, as the API answers it.")
_if_version = click.option("--if-version", type=int, help="Only if this is still its version.")
_limit = click.option("--limit", type=click.IntRange(min=1), help="At most so many.")


def _key(command: _Command) -> _Command:
    return click.argument("client_id")(click.argument("schedule_key")(command))


def _time(command: _Command) -> _Command:
    command = click.option("--at", type=Time(), help="Epoch milliseconds, or RFC 3339 with an offset.")(command)
    return click.option("--in", "after", type=Duration(), help="From now, such as 15m, 1h30m or 2d.")(command)


@click.group(epilog=HELP)
def schedule() -> None:
    """Create, look at and change schedules."""


@schedule.command(
    epilog="\b\nExamples:\n"
    "  clockwork schedule create shop order-1 --topic orderTopic --in 15m --data '{\"expire\":1}'\n"
    "  clockwork schedule create shop order-2 --topic orderTopic --at 2030-01-31T09:00:00+01:00 --text wake-up\n\n"
    "With --at, the same command again is the same schedule; --in is another time on each run."
)
@_key
@click.option("--topic", required=True, help="The Kafka topic that it goes to.")
@_time
@content_options
@_json
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
        shown.one(client.create(client_id, schedule_key, at=due, topic=topic, **given), json_=json_)


@schedule.command(epilog="\b\nExample:\n  clockwork schedule get shop order-1 --json")
@_key
@_json
@connected
def get(connection: Connection, client_id: str, schedule_key: str, json_: bool) -> None:
    """Show a schedule and its state."""
    with connection.client() as client:
        shown.one(client.get(client_id, schedule_key), json_=json_)


@schedule.command(epilog="\b\nExample:\n  clockwork schedule cancel shop order-1 || echo too late")
@_key
@_json
@connected
def cancel(connection: Connection, client_id: str, schedule_key: str, json_: bool) -> None:
    """Cancel a schedule: after exit code 0 it is never delivered."""
    with connection.client() as client:
        shown.one(client.cancel(client_id, schedule_key), json_=json_)


@schedule.command(epilog="\b\nExample:\n  clockwork schedule reschedule shop order-1 --in 1h --if-version 3")
@_key
@click.option("--topic", help="The Kafka topic that it goes to.")
@_time
@content_options
@_if_version
@_json
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
    """Reschedule or change a pending one; what is not given stays."""
    given = content_of(**content)
    due = when(at, after)
    with connection.client() as client:
        changed = client.reschedule(client_id, schedule_key, at=due, topic=topic, if_version=if_version, **given)
        shown.one(changed, json_=json_)


@schedule.command(epilog="\b\nExample:\n  clockwork schedule fire shop order-1")
@_key
@_if_version
@_json
@connected
def fire(connection: Connection, client_id: str, schedule_key: str, if_version: int | None, json_: bool) -> None:
    """Deliver a pending one now."""
    with connection.client() as client:
        shown.one(client.fire(client_id, schedule_key, if_version=if_version), json_=json_)


@schedule.command(epilog="\b\nExample:\n  clockwork schedule retry shop order-1 --in 5m")
@_key
@_time
@_if_version
@_json
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
    """Re-arm a failed one, by default for now."""
    with connection.client() as client:
        armed = client.retry(client_id, schedule_key, at=when(at, after), if_version=if_version)
        shown.one(armed, json_=json_)


@schedule.command("list", epilog="\b\nExample:\n  clockwork schedule list shop --status failed --json | jq .failed")
@click.argument("client_id")
@click.option("--status", type=click.Choice(["pending", "delivered", "cancelled", "failed"]))
@click.option("--topic", help="Only for this topic.")
@click.option("--ordering-key", help="Only with this ordering key.")
@click.option("--due-from", type=Time(), help="Due then or later.")
@click.option("--due-to", type=Time(), help="Due before then.")
@_limit
@_json
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
    """List a client's schedules; may lag by 5 s."""
    with connection.client() as client:
        found = client.list(
            client_id,
            status=cast("Status | None", status),
            topic=topic,
            ordering_key=ordering_key,
            due_from=due_from,
            due_to=due_to,
            page_size=min(limit or 1_000, 1_000),
        )
        shown.many(islice(found, limit), json_=json_)


@schedule.command(epilog="\b\nExample:\n  clockwork schedule history shop order-1")
@_key
@_limit
@_json
@connected
def history(connection: Connection, client_id: str, schedule_key: str, limit: int | None, json_: bool) -> None:
    """Show what stood under a key and ended, newest first."""
    with connection.client() as client:
        found = client.history(client_id, schedule_key, page_size=min(limit or 1_000, 1_000))
        shown.many(islice(found, limit), json_=json_)


schedule.add_command(load_command)
schedule.add_command(watch_command)
