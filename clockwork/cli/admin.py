"""`clockwork admin …`: commands for operators. The key needs the right `admin`, for pauses and dead letters `operate`."""

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import click

from clockwork.cli import EXIT_CODES
from clockwork.cli.connection import Connection, ServiceGroup, connected
from clockwork.cli.dead_letters import dead_letters
from clockwork.cli.render import cell, in_words, instant, json_option, print_json, printable
from clockwork.cli.table import Table, print_table
from clockwork.cli.transfer import export_command, import_command
from clockwork.schema.nodes import NodesDocument
from clockwork.schema.operations import FencedDocument, PausesDocument, ShardDocument, ShardsDocument

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group(cls=ServiceGroup, epilog=EXIT_CODES)
def admin() -> None:
    """Operate the service: nodes, shards, pauses, dead letters, moves to another store."""


# --- pauses


@admin.command(epilog="\b\nExample:\n  clockwork admin pauses")
@json_option
@connected
def pauses(connection: Connection, json_: bool) -> None:
    """Show which clients and topics are paused, since when, by whom and why."""
    _print_pauses(connection.call(PausesDocument, "GET", "/admin/pauses"), json_=json_)


_reason_option = click.option("--reason", help="The reason, for people: in the log and in the activity.")


def _body(reason: str | None) -> dict[str, str] | None:
    return None if reason is None else {"reason": reason}


def _client_or_topic(command: _Command) -> _Command:
    command = click.argument("name")(command)
    return click.argument("kind", type=click.Choice(["client", "topic"]))(command)


@admin.command(
    epilog="\b\nExamples:\n  clockwork admin pause topic orderTopic --reason 'broker move till noon'\n"
    "  clockwork admin pause client shop"
)
@_client_or_topic
@_reason_option
@json_option
@connected
def pause(connection: Connection, kind: str, name: str, reason: str | None, json_: bool) -> None:
    """Stop delivery for a client or a topic, on all nodes within seconds. What is due waits in its order."""
    _print_pauses(connection.call(PausesDocument, "PUT", _pause_path(kind, name), _body(reason)), json_=json_)


@admin.command(epilog="\b\nExample:\n  clockwork admin resume topic orderTopic")
@_client_or_topic
@json_option
@connected
def resume(connection: Connection, kind: str, name: str, json_: bool) -> None:
    """Resume delivery for a client or a topic."""
    _print_pauses(connection.call(PausesDocument, "DELETE", _pause_path(kind, name)), json_=json_)


def _pause_path(kind: str, name: str) -> str:
    return f"/admin/pauses/{kind}s/{quote(name, safe='')}"


def _print_pauses(found: PausesDocument, *, json_: bool) -> None:
    if json_:
        print_json(found)
        return
    table = Table("paused", "name", "since", "by", "reason", prose=("reason",), least=("by",))
    for kind, paused in (("client", found.clients), ("topic", found.topics)):
        for each in paused:
            table.add_row(kind, cell(each.name), instant(each.since_ms), cell(each.by), cell(each.reason))
    print_table(table)


# --- nodes and shards


@admin.command(epilog="\b\nExample:\n  clockwork admin nodes --json | jq '.nodes[] | select(.gone)'")
@json_option
@connected
def nodes(connection: Connection, json_: bool) -> None:
    """Show every process as it last told of itself, and settings in which they differ."""
    found = connection.call(NodesDocument, "GET", "/admin/nodes")
    if json_:
        print_json(found)
    else:
        _print_nodes(found)


def _print_nodes(found: NodesDocument) -> None:
    columns = ("process", "node", "role", "version", "since", "seen", "shards", "created/s", "delivered/s", "lag")
    least = ("since", "version", "lag", "created/s", "role", "delivered/s")
    table = Table(*columns, "trouble", prose=("trouble",), least=least)
    for each in found.nodes:
        troubles = [
            *(["gone"] if each.gone else []),
            *(["not in the group"] if each.member is False else []),
            *([f"Kafka: {each.kafka}"] if each.kafka is not None else []),
            *([f"store: {each.store}"] if each.store is not None else []),
        ]
        table.add_row(
            cell(each.process),
            cell(each.node),
            cell(each.role),
            cell(each.version),
            instant(each.since_ms),
            f"{in_words(max(0, found.as_of_ms - each.seen_at_ms) // 1_000 * 1_000)} ago",
            f"{each.shards} of {each.assigned}",
            f"{each.created_per_second:.1f}",
            f"{each.delivered_per_second:.1f}",
            f"{each.loop_lag_ms} ms",
            cell("; ".join(troubles)),
        )
    print_table(table)
    for difference in found.differences:
        groups = " | ".join(", ".join(group) for group in difference.processes)
        click.echo(f"{printable(difference.setting)} differs: {printable(groups)}")
    if found.members_without_node:
        click.echo(f"in the group, not reported: {printable(', '.join(found.members_without_node))}")
    if found.members_unknown is not None:
        click.echo(f"the group could not be asked: {printable(found.members_unknown)}")


@admin.command(epilog="\b\nExample:\n  clockwork admin shards --json | jq '.shards[] | select(.lagMs > 60000)'")
@json_option
@connected
def shards(connection: Connection, json_: bool) -> None:
    """Show every shard: its owner, epoch, floor and frontier, its oldest due schedule and its lag."""
    found = connection.call(ShardsDocument, "GET", "/admin/shards")
    if json_:
        print_json(found)
    else:
        _print_shards(found.shards)


@admin.command(epilog="\b\nExample:\n  clockwork admin fence 12")
@click.argument("shard", type=click.IntRange(min=0))
@_reason_option
@json_option
@connected
def fence(connection: Connection, shard: int, reason: str | None, json_: bool) -> None:
    """Fence the owner of SHARD: it stops, and all its shards are taken over from it.

    For an owner that seems stuck. Nothing is lost or sent twice. It does not move the shards: the consumer group assigns
    them, and mostly the same node takes them again. To move them, stop that node.
    """
    fenced = connection.call(FencedDocument, "POST", f"/admin/shards/{shard}/fence", _body(reason))
    if json_:
        print_json(fenced)
    else:
        numbers = ", ".join(map(str, fenced.shards))
        click.echo(
            f"{printable(fenced.incarnation)} on {printable(fenced.node)} is fenced: shards {numbers} change hands"
        )


def _print_shards(found: list[ShardDocument]) -> None:
    table = Table(
        *("shard", "owner", "node", "epoch", "floor", "frontier", "oldest due", "lag"),
        prose=("owner",),
        least=("floor", "epoch", "frontier", "node"),
    )
    for each in found:
        owner = each.owner or "none"
        table.add_row(
            str(each.shard),
            cell(each.problem or (owner if each.fenced_at_ms is None else f"{owner} (fenced)")),
            cell(each.node),
            "" if each.epoch is None else str(each.epoch),
            instant(each.floor_ms) if each.floor_ms else "",
            instant(each.frontier_ms) if each.frontier_ms else "",
            "" if each.oldest_due_ms is None else instant(each.oldest_due_ms),
            _lag_text(each),
        )
    print_table(table)


def _lag_text(shard: ShardDocument) -> str:
    if not shard.lag_ms:
        return ""
    return f"{in_words(shard.lag_ms)}{' (paused)' if shard.oldest_paused else ''}"


for _command in (dead_letters, export_command, import_command):
    admin.add_command(_command)
