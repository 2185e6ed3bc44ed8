"""`clockwork schedule why`: the reason why a schedule is not delivered yet."""

import click

from clockwork.cli.connection import Connection, ServiceCommand, connected
from clockwork.cli.render import end_of_why, in_words, instant, json_option, print_json, printable
from clockwork.client import Why
from clockwork.schema.why import HoldingPauseDocument


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
        paused = "" if found.paused is None else f"; {_pause(found.paused)}"
        return f"in {in_words(found.due_in_ms)}{paused}"
    if found.paused is not None:
        return _pause(found.paused)
    if found.lag_ms is not None:
        return f"by {in_words(found.lag_ms)}"
    if found.destination is not None:
        waiting = found.destination
        since = "" if waiting.since_ms is None else f", since {instant(waiting.since_ms)}"
        next_ = "" if waiting.next_probe_ms is None else f", tried again at {instant(waiting.next_probe_ms)}"
        return f"{printable(waiting.topic)}: {printable(waiting.reason)}{since}{next_}"
    if found.retry is not None:
        refusal = "" if found.retry.last_refusal is None else f" ({printable(found.retry.last_refusal)})"
        return f"after {found.retry.attempts} attempts{refusal}, at {instant(found.retry.next_at_ms)}"
    if found.behind is not None:
        name = found.behind.schedule_key or found.behind.job_id or "another client's"
        return f"{printable(name)}, due {instant(found.behind.schedule_time_ms)}"
    return end_of_why(found)


def _pause(pause: HoldingPauseDocument) -> str:
    by = "" if pause.by is None else f" by {printable(pause.by)}"
    reason = "" if pause.reason is None else f": {printable(pause.reason)}"
    return f"{pause.kind} {printable(pause.name)}, since {instant(pause.since_ms)}{by}{reason}"
