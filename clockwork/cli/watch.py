"""`clockwork schedule watch`: follows schedules until they end."""

import time
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from typing import Final

import click
from rich.console import Console
from rich.live import Live

from clockwork.cli.connection import Connection, ServiceCommand, connected
from clockwork.cli.exit_codes import CONFLICT
from clockwork.cli.render import end_of, instant, schedule_table
from clockwork.cli.values import Duration
from clockwork.client import Client

EVERY_MAX: Final = timedelta(days=1)
_SCHEDULES_MAX: Final = 50
"""Schedules of one client that fit on a screen."""


@click.command(
    "watch",
    cls=ServiceCommand,
    epilog="\b\nExamples:\n  clockwork schedule watch shop order-1\n  clockwork schedule watch shop",
)
@click.argument("client_id")
@click.argument("schedule_key", required=False)
@click.option("--every", type=Duration(at_most=EVERY_MAX), default="1s", show_default=True, help="Time between looks.")
@connected
def watch_command(connection: Connection, client_id: str, schedule_key: str | None, every: timedelta) -> None:
    """Follow one schedule until it ends, or a client's schedules until Ctrl-C.

    With a key, the exit code is 0 if the schedule was delivered and 5 if it failed or was cancelled.
    """
    with connection.client() as client:
        if schedule_key is None:
            _watch_client(client, client_id, every)
        else:
            _watch_key(client, client_id, schedule_key, every)


def _watch_key(client: Client, client_id: str, schedule_key: str, every: timedelta) -> None:
    last = ""
    while True:
        found = client.get(client_id, schedule_key)
        due = instant(found.schedule_time_ms)
        line = f"{found.status}  due {due}  version {found.version}  {end_of(found)}".rstrip()
        if line != last:
            click.echo(line)
            last = line
        if found.status != "pending":
            raise click.exceptions.Exit(0 if found.status == "delivered" else CONFLICT)
        time.sleep(every.total_seconds())


def _watch_client(client: Client, client_id: str, every: timedelta) -> None:
    # Ctrl-C is the way to stop looking, no failure.
    with suppress(KeyboardInterrupt), Live(console=Console(), auto_refresh=False) as live:
        while True:
            found = list(islice(client.list(client_id, page_size=_SCHEDULES_MAX), _SCHEDULES_MAX))
            table = schedule_table(found, title=f"{client_id}: {len(found)} schedules")
            live.update(table.fitted(live.console.width), refresh=True)
            time.sleep(every.total_seconds())
