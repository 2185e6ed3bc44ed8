"""`clockwork schedule load` and `watch`: the commands that take a while."""

import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import IO, Final

import click
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from clockwork.cli import shown
from clockwork.cli.connection import Connection, connected
from clockwork.cli.load import Progress as Note
from clockwork.cli.load import Row, Sums, csv_rows, json_rows, load
from clockwork.cli.outcomes import CONFLICT, REFUSED
from clockwork.cli.values import Duration
from clockwork.client import CallFailed, Client, Conflict, Result

_WATCHED_MAX: Final = 50
"""Of one client: more does not fit on a screen."""


@click.command(
    "load",
    epilog="\b\nExamples:\n"
    "  clockwork schedule load schedules.jsonl\n"
    "  clockwork schedule load orders.csv --client-id shop --topic orderTopic --rejected rejected.txt\n\n"
    "\b\nJSON lines hold schedules as the HTTP API takes them. The columns of CSV are clientId, scheduleKey,\n"
    "scheduleTime, orderingKey, taskData, taskDataEncoding, topic, guarantee, deadline, onLate, header.NAME.\n\n"
    "A load that was broken off goes on where it was, and may be begun again at any time: what was accepted is\n"
    "accepted again as the same schedule.",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--format", "format_", type=click.Choice(["jsonl", "csv"]), help="By default as the file's name ends.")
@click.option("--client-id", help="For rows without one.")
@click.option("--topic", help="For rows without one.")
@click.option("--json-data", is_flag=True, help="CSV: taskData is JSON, not text.")
@click.option("--rejected", type=click.File("w", encoding="utf-8"), help="Where rejected rows go; else standard error.")
@click.option("--from-start", is_flag=True, help="Send everything, whatever an earlier load has settled.")
@connected
def load_command(
    connection: Connection,
    file: Path,
    format_: str | None,
    client_id: str | None,
    topic: str | None,
    json_data: bool,
    rejected: IO[str] | None,
    from_start: bool,
) -> None:
    """Create the schedules of FILE: JSON lines or CSV."""
    note = Note(file, connection.url)
    skip = 0 if from_start else note.rows_settled()
    is_csv = (format_ or ("csv" if file.suffix.lower() == ".csv" else "jsonl")) == "csv"
    defaults = {"clientId": client_id, "topic": topic}
    sums = Sums(skipped=skip)
    with ExitStack() as stack:
        lines = stack.enter_context(file.open(encoding="utf-8", newline=""))
        rows = csv_rows(lines, defaults, json_data=json_data) if is_csv else json_rows(lines, defaults)
        client = stack.enter_context(connection.client())
        try:
            _load(client, rows, note, sums, rejected)
        except CallFailed:
            click.echo(f"{_summary(sums)}; the same command again goes on from there", err=True)
            raise
    click.echo(_summary(sums))
    # With rejected rows too: the next load looks at all rows again, and finds whether they are accepted by then.
    note.complete()
    if sums.rejected:
        raise click.exceptions.Exit(CONFLICT if sums.conflict else REFUSED)


def _load(client: Client, rows: Iterable[Row], note: Note, sums: Sums, rejected: IO[str] | None) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not Console(stderr=True).is_terminal) as bar:
        task = bar.add_task("schedules", total=None, completed=sums.skipped)
        for row, result in load(client, rows, note, skip=sums.skipped):
            _count(sums, row, result, rejected)
            bar.advance(task)


def _count(sums: Sums, row: Row, result: Result | None, rejected: IO[str] | None) -> None:
    if result is not None and result.error is None:
        sums.created += result.status == 201
        sums.repeated += result.status != 201
        return
    sums.rejected += 1
    problem = row.problem
    if result is not None and result.error is not None:
        problem = str(result.error)
        sums.conflict = sums.conflict or isinstance(result.error, Conflict)
    click.echo(f"row {row.number}: {problem}", file=rejected, err=rejected is None)


def _summary(sums: Sums) -> str:
    skipped = f", {sums.skipped} settled before" if sums.skipped else ""
    return f"{sums.created} created, {sums.repeated} there already, {sums.rejected} rejected{skipped}"


@click.command(
    "watch",
    epilog="\b\nExamples:\n  clockwork schedule watch shop order-1\n  clockwork schedule watch shop",
)
@click.argument("client_id")
@click.argument("schedule_key", required=False)
@click.option("--every", type=Duration(), default="1s", show_default=True)
@connected
def watch_command(connection: Connection, client_id: str, schedule_key: str | None, every: timedelta) -> None:
    """Follow a schedule until it ends, or a client's next ones until Ctrl-C.

    With a key, the exit code is 0 if it was delivered and 5 if it failed or was cancelled.
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
        due = shown.instant(found.schedule_time_ms)
        line = f"{found.status}  due {due}  version {found.version}  {shown.ending(found)}".rstrip()
        if line != last:
            click.echo(line)
            last = line
        if found.status != "pending":
            raise click.exceptions.Exit(0 if found.status == "delivered" else CONFLICT)
        time.sleep(every.total_seconds())


def _watch_client(client: Client, client_id: str, every: timedelta) -> None:
    # Ctrl-C is how one stops looking, no failure.
    with suppress(KeyboardInterrupt), Live(console=Console(), auto_refresh=False) as live:
        while True:
            found = list(islice(client.list(client_id, page_size=_WATCHED_MAX), _WATCHED_MAX))
            live.update(shown.table(found, title=f"{client_id}: {len(found)} schedules"), refresh=True)
            time.sleep(every.total_seconds())
