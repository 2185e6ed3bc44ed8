"""`clockwork admin …`: for those who run the service. The key needs the right `admin`."""

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clockwork.cli import shown
from clockwork.cli.admin_asks import as_json, asked, json_option
from clockwork.cli.admin_backup import export_command, import_command
from clockwork.cli.admin_letters import dead_letters
from clockwork.cli.admin_shards import fence, shards
from clockwork.cli.connection import Connection, connected
from clockwork.cli.outcomes import HELP
from clockwork.schema.admin_documents import PausesDocument

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group(epilog=HELP)
def admin() -> None:
    """Look after the service: shards, pauses, dead letters, backups."""


@admin.command(epilog="\b\nExample:\n  clockwork admin pauses")
@json_option
@connected
def pauses(connection: Connection, json_: bool) -> None:
    """Show which clients and topics are paused."""
    _show_pauses(asked(connection, PausesDocument, "GET", "/admin/pauses"), json_=json_)


def _paused(command: _Command) -> _Command:
    command = click.argument("name")(command)
    return click.argument("kind", type=click.Choice(["client", "topic"]))(command)


@admin.command(epilog="\b\nExamples:\n  clockwork admin pause topic orderTopic\n  clockwork admin pause client shop")
@_paused
@json_option
@connected
def pause(connection: Connection, kind: str, name: str, json_: bool) -> None:
    """Hold back, in place and in order, what is due for a client or a topic; within seconds, on all nodes."""
    _show_pauses(asked(connection, PausesDocument, "PUT", _path(kind, name)), json_=json_)


@admin.command(epilog="\b\nExample:\n  clockwork admin resume topic orderTopic")
@_paused
@json_option
@connected
def resume(connection: Connection, kind: str, name: str, json_: bool) -> None:
    """Let delivery go on."""
    _show_pauses(asked(connection, PausesDocument, "DELETE", _path(kind, name)), json_=json_)


def _path(kind: str, name: str) -> str:
    return f"/admin/pauses/{kind}s/{quote(name, safe='')}"


def _show_pauses(found: PausesDocument, *, json_: bool) -> None:
    if json_:
        click.echo(as_json(found))
        return
    table = Table()
    for name in ("paused", "name", "since"):
        table.add_column(name, overflow="fold")
    for kind, things in (("client", found.clients), ("topic", found.topics)):
        for thing in things:
            table.add_row(kind, escape(shown.plain(thing.name)), shown.instant(thing.since_ms))
    Console(soft_wrap=True).print(table)


for _command in (shards, fence, dead_letters, export_command, import_command):
    admin.add_command(_command)
