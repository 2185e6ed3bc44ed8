"""`clockwork admin export` and `import`: pending schedules as JSON lines, as the API takes them.

What an import makes are new schedules by idempotent creates, not copies of what is stored:

- it may be broken off and begun again, and so may be run twice: the same line is the same schedule (its digest is that of
  the line's content), and what it became meanwhile stays as it is;
- into the cluster that it came from, a schedule that stands unchanged since its create is `there already`, and so is one
  that ended since (it is not brought back, until its retention ends); one that a PUT has changed is rejected, because
  another create stands under its key;
- `deliveryId`, `version`, `createdAt` and places in lanes are the new cluster's own: lanes are kept in the order of due
  times, and two of one due time in the order of the file. A consumer that takes records of both clusters cannot tell by
  `clockwork-delivery-id` that they are one schedule; by client, key and time it can.
- `traceparent` is not in it: it belongs to the request that created the schedule.
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

from clockwork.cli.admin_asks import pages
from clockwork.cli.bulk import load_command
from clockwork.cli.connection import Connection, connected
from clockwork.client.transport import Transport
from clockwork.schema.admin_documents import PendingDocument
from clockwork.schema.documents import PageDocument, ScheduleDocument

_FIELDS: Final = {
    "client_id",
    "schedule_key",
    "schedule_time_ms",
    "ordering_key",
    "task_data",
    "task_data_encoding",
    "delivery",
}
"""Of a create."""
_PAGE_ITEMS: Final = "500"


@click.command(
    "export",
    epilog="\b\nExamples:\n  clockwork admin export pending.jsonl\n  clockwork admin export --client shop - | gzip > s.gz",
)
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--client", "client_id", help="Only this client's, from its list (which may lag by 5 s).")
@connected
def export_command(connection: Connection, file: Path, client_id: str | None) -> None:
    """Write all pending schedules to FILE, one a line, as `import` and the API take them; - is standard output.

    Each is as it was at its own moment. What is created, moved or ends meanwhile may be in it or not: for a whole that
    hangs together, stop what writes. The key needs the right `read` for the clients (of all others' nothing is written),
    and `admin` unless --client is given. FILE is there only when the export is complete.
    """
    to_stdout = str(file) == "-"
    part = file.with_name(f"{file.name}.part")

    async def exported(http: Transport) -> tuple[int, int]:
        with ExitStack() as stack:
            out: IO[str] = sys.stdout if to_stdout else stack.enter_context(part.open("w", encoding="utf-8"))
            bar = stack.enter_context(_progress())
            task = bar.add_task("schedules", total=None)
            written = unreadable = 0
            async for schedules, left_out in _pending(http, client_id):
                unreadable += left_out
                for schedule in schedules:
                    out.write(line_of(schedule) + "\n")
                written += len(schedules)
                bar.update(task, completed=written)
            return written, unreadable

    written, unreadable = connection.run(exported)
    if not to_stdout:
        part.replace(file)
    click.echo(f"{written} exported", err=True)
    if unreadable:
        raise click.ClickException(f"{unreadable} rows cannot be read by this version and are left out")


def line_of(schedule: ScheduleDocument) -> str:
    """The create that would make it."""
    document: dict[str, Any] = schedule.model_dump(mode="json", by_alias=True, exclude_unset=True, include=_FIELDS)
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


async def _pending(http: Transport, client_id: str | None) -> AsyncIterator[tuple[list[ScheduleDocument], int]]:
    """Pages of them, and how many cannot be read."""
    if client_id is None:
        async for page in pages(http, PendingDocument, "/admin/schedules", {"limit": _PAGE_ITEMS}):
            yield page.schedules, page.unreadable
        return
    query = {"clientId": client_id, "status": "pending", "limit": _PAGE_ITEMS}
    async for found in pages(http, PageDocument, "/schedules", query):
        yield found.schedules, 0


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), TextColumn("{task.completed}"))
    return Progress(*columns, console=console, disable=not console.is_terminal)


@click.command("import", epilog="\b\nExample:\n  clockwork --url http://other:8080 admin import pending.jsonl")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--rejected", type=click.File("w", encoding="utf-8"), help="Where rejected rows go; else standard error.")
@click.option("--from-start", is_flag=True, help="Send everything, whatever an earlier import has settled.")
@click.pass_context
def import_command(ctx: click.Context, file: Path, rejected: IO[str] | None, from_start: bool) -> None:
    """Create the schedules that `export` has written: the same as `clockwork schedule load`.

    It may be broken off and begun again: it goes on where it was, and what was created is created no second time. The
    deliveryId is new. The key needs the right `create` for the clients and topics.
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
