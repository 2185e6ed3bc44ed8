"""`clockwork admin export` and `import`: pending schedules as JSON Lines, one create of the API in each line.

An import sends idempotent creates; it does not copy stored rows:

- An import may be interrupted and repeated: a repeated line finds the schedule that it created, and does not change its
  state.
- Into the cluster that it came from: a schedule unchanged since its create is reported as `there already`, and so is one
  that has ended since (it is created again only after its retention). One that a PUT has changed is rejected, because
  another create is stored under its key.
- `deliveryId`, `version`, `createdAt` and the order among equal due times are the new cluster's own: due times are kept,
  and schedules with equal due times keep the order of the file. A consumer of both clusters cannot tell by
  `clockwork-delivery-id` that two records are one schedule; by client, key and time it can.
- The `traceparent` of the request is left out: it belongs to the request that created the schedule.
"""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final

import click
from rich.console import Console
from rich.progress import Progress, TextColumn

from clockwork.cli.connection import Connection, ServiceCommand, connected, pages
from clockwork.cli.load import load_command
from clockwork.client.transport import Transport
from clockwork.schema.operations import PendingDocument
from clockwork.schema.schedule import PageDocument, ScheduleDocument, ScheduleForm

_PAGE_ITEMS: Final = "500"


@click.command(
    "export",
    cls=ServiceCommand,
    epilog="\b\nExamples:\n  clockwork admin export pending.jsonl\n  clockwork admin export --client shop - | gzip > s.gz",
)
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--client", "client_id", help="Only this client's schedules, from its list (which may lag by 5 s).")
@connected
def export_command(connection: Connection, file: Path, client_id: str | None) -> None:
    """Write all pending schedules to FILE, in the form that `import` and the API accept; - is standard output.

    Each schedule is written as it was at one moment; one that is created, moved or ended meanwhile may be missing. For a
    consistent export, stop the writers. The API key needs the right `read` for the clients (other clients' schedules are
    left out), and `admin` unless --client is given. A regular FILE gets its name at the end.
    """
    to_stdout = str(file) == "-"
    # A pipe or a device is written to as it is; a file appears under its name when it is complete.
    part = file if file.exists() and not file.is_file() else file.with_name(f"{file.name}.part")

    async def export(transport: Transport) -> tuple[int, int]:
        with ExitStack() as stack:
            # UTF-8, whatever the terminal's encoding: this is the file's content.
            out: IO[bytes] = sys.stdout.buffer if to_stdout else stack.enter_context(part.open("wb"))
            bar = stack.enter_context(_progress_bar())
            task = bar.add_task("schedules", total=None)
            written = unreadable = 0
            async for schedules, unreadable_in_page in _pending(transport, client_id):
                unreadable += unreadable_in_page
                for schedule in schedules:
                    out.write(export_line(schedule))
                written += len(schedules)
                bar.update(task, completed=written)
            out.flush()
            return written, unreadable

    written, unreadable = connection.run(export)
    if not to_stdout and part != file:
        part.replace(file)
    click.echo(f"{written} exported", err=True)
    if unreadable:
        raise click.ClickException(f"{unreadable} rows cannot be read by this version and are left out")


def export_line(schedule: ScheduleDocument) -> bytes:
    """The create that makes the same schedule again: one line of JSON in UTF-8."""
    document: dict[str, Any] = schedule.model_dump(
        mode="json", by_alias=True, exclude_unset=True, include=set(ScheduleForm.model_fields)
    )
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


async def _pending(transport: Transport, client_id: str | None) -> AsyncIterator[tuple[list[ScheduleDocument], int]]:
    """Reads pages of schedules, each with the number of rows in it that this version cannot read."""
    if client_id is None:
        async for page in pages(transport, PendingDocument, "/admin/schedules", {"limit": _PAGE_ITEMS}):
            yield page.schedules, page.unreadable
        return
    query = {"clientId": client_id, "status": "pending", "limit": _PAGE_ITEMS}
    async for found in pages(transport, PageDocument, "/schedules", query):
        yield found.schedules, 0


def _progress_bar() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), TextColumn("{task.completed}"))
    return Progress(*columns, console=console, disable=not console.is_terminal)


@click.command(
    "import",
    cls=ServiceCommand,
    epilog="\b\nExample:\n  clockwork --url http://other:8080 admin import pending.jsonl",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--rejected",
    type=click.File("w", encoding="utf-8", errors="backslashreplace"),
    help="File for rejected rows; by default standard error.",
)
@click.option("--from-start", is_flag=True, help="Send all rows, also those that an earlier import has settled.")
@click.pass_context
def import_command(ctx: click.Context, file: Path, rejected: IO[str] | None, from_start: bool) -> None:
    """Create the schedules that `export` has written: the same as `clockwork schedule load --format jsonl`.

    An import that was interrupted continues where it stopped, and no schedule is created twice. Each gets a new
    deliveryId. The key needs the right `create` for the clients and topics.
    """
    ctx.invoke(
        load_command,
        file=file,
        format_="jsonl",
        client_id=None,
        topic=None,
        json_data=False,
        rejected=rejected,
        from_start=from_start,
    )
