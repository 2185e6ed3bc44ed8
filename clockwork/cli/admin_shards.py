"""`clockwork admin shards` and `fence`."""

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clockwork.cli import shown
from clockwork.cli.admin_asks import as_json, asked, json_option
from clockwork.cli.connection import Connection, connected
from clockwork.schema.admin_documents import ShardDocument, ShardsDocument


@click.command(epilog="\b\nExample:\n  clockwork admin shards --json | jq '.shards[] | select(.lagMs > 60000)'")
@json_option
@connected
def shards(connection: Connection, json_: bool) -> None:
    """Show every shard: its owner, how far it is, and how late it is."""
    found = asked(connection, ShardsDocument, "GET", "/admin/shards")
    if json_:
        click.echo(as_json(found))
    else:
        _print(found.shards)


@click.command(epilog="\b\nExample:\n  clockwork admin fence 12")
@click.argument("shard", type=click.IntRange(min=0))
@json_option
@connected
def fence(connection: Connection, shard: int, json_: bool) -> None:
    """Make the owner of SHARD drop all that it knows of it and take it over anew.

    For an owner that seems stuck. Nothing is lost or sent twice. It does not move the shard: the consumer group says who
    owns it, and the same node takes it again. To move it, stop that node.
    """
    found = asked(connection, ShardDocument, "POST", f"/admin/shards/{shard}/fence")
    if json_:
        click.echo(as_json(found))
    else:
        _print([found])


def _print(found: list[ShardDocument]) -> None:
    table = Table()
    for name in ("shard", "owner", "epoch", "frontier", "oldest due", "lag"):
        table.add_column(name, overflow="fold")
    for each in found:
        table.add_row(
            str(each.shard),
            escape(shown.plain(each.owner or "")) or (each.problem or "nobody yet"),
            "" if each.epoch is None else str(each.epoch),
            shown.instant(each.frontier_ms) if each.frontier_ms else "",
            "" if each.oldest_due_ms is None else shown.instant(each.oldest_due_ms),
            f"{each.lag_ms / 1_000:.1f} s" if each.lag_ms else "",
        )
    Console(soft_wrap=True).print(table)
