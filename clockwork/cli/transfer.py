"""`clockwork admin export` and `import`: pending schedules and recurring jobs as JSON Lines, from one store to any other.

    {"clockworkExport": 1, "exportedAt": …, "delivering": false, "pauses": {"clients": [], "topics": []}}
    {"clientId": …, "scheduleKey": …, …, "origin": {"position": …, "digest": …}}      one line for each schedule
    {"job": {"clientId": …, "jobId": …, …}, "origin": {"cursor": …, "digest": …}}    one line for each job
    {"end": {"schedules": 2, "jobs": 1, "delivering": false}}

A schedule is a create of the API, and what that create alone would not bring back (`schema.transfer`). The first and the
last line are there so that nothing is lost or delivered twice without a word:

- **`delivering`**: a shard had an owner, or an item that could not be read, while the export ran. Its schedules may have
  been delivered there since, so an import of them may deliver them again. A shard is released only once everything that was
  delivered from it is recorded, so a cluster without owners delivers nothing, and shows as pending only what was not
  delivered. An import wants the word `--from-running` for anything else.
- **`pauses`**: what is held back there would be delivered at once by a cluster that does not know the pause.
- **`end`**: without it, or with another number, lines are missing: an export that was interrupted, a pipe that broke.

An import may be interrupted and repeated (`requests.imports`), also by two at once.
"""

import json
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import IO, Annotated, Any, Final, Literal, TypeVar

import click
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console
from rich.progress import Progress, TextColumn

from clockwork.cli.connection import Connection, ServiceCommand, connected, pages
from clockwork.cli.load import FileRefused, Row, end_with, load_file
from clockwork.cli.values import Time
from clockwork.client import Result
from clockwork.client.aio import read_document
from clockwork.client.transport import Transport
from clockwork.errors import InvalidInput
from clockwork.schema.json import parse
from clockwork.schema.operations import PausesDocument, ShardsDocument
from clockwork.schema.transfer import EXPORTED_FIELDS, ExportedJobsDocument, PendingDocument, PendingScheduleDocument

FORMAT: Final = 1
_PAGE_ITEMS: Final = "500"
_LINE: Final = ConfigDict(strict=True, extra="forbid", frozen=True, validate_by_name=True)
_Line = TypeVar("_Line", bound=BaseModel)


class PausedNames(BaseModel):
    """Names of paused clients and topics, where the export comes from."""

    model_config = _LINE

    clients: list[str]
    topics: list[str]

    def words(self) -> str:
        """The names as arguments of `clockwork admin pause`."""
        return ", ".join([f"client {name}" for name in self.clients] + [f"topic {name}" for name in self.topics])

    def without(self, others: PausesDocument) -> "PausedNames":
        """The names that are not paused by the others."""
        clients, topics = {each.name for each in others.clients}, {each.name for each in others.topics}
        return PausedNames(
            clients=[name for name in self.clients if name not in clients],
            topics=[name for name in self.topics if name not in topics],
        )


class FirstLine(BaseModel):
    """The first line of an export."""

    model_config = _LINE

    format: Annotated[Literal[1], Field(alias="clockworkExport")] = FORMAT
    exported_at_ms: Annotated[int, Field(alias="exportedAt")]
    """Before the first schedule was read, by the clock of a node: an operator's may be wrong."""
    delivering: bool
    pauses: PausedNames


class Totals(BaseModel):
    """The content of the last line: what is known only when all was read."""

    model_config = _LINE

    schedules: int
    jobs: int = 0
    delivering: bool
    """True if a shard had an owner, or could not be read, at the beginning, at the end, or in between."""


class LastLine(BaseModel):
    """The last line of an export."""

    model_config = _LINE

    end: Totals


# --- export


@click.command(
    "export",
    cls=ServiceCommand,
    epilog="\b\nExamples:\n"
    "  clockwork admin export pending.jsonl\n"
    "  clockwork admin export --client shop - | gzip > s.gz\n"
    "  clockwork admin export - | clockwork --url http://new:8080 admin import -",
)
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--client", "client_id", help="Only this client's schedules.")
@click.option("--due-from", type=Time(), help="Only schedules due at this time or later.")
@click.option("--due-to", type=Time(), help="Only schedules due before this time.")
@connected
def export_command(
    connection: Connection, file: Path, client_id: str | None, due_from: int | None, due_to: int | None
) -> None:
    """Write all pending schedules and jobs to FILE, for `import`; - is standard output.

    Each schedule is written as it was at one moment; one that is created, moved or ended meanwhile may be missing. To move
    a cluster, stop its callers and its workers first. With --due-from the file has no jobs. The API key needs the rights
    `admin` and `read`. A regular FILE gets its name at the end.
    """
    to_stdout = str(file) == "-"
    # A pipe or a device is written to as it is; a file appears under its name when it is complete.
    part = file if file.exists() and not file.is_file() else file.with_name(f"{file.name}.part")
    query = {"clientId": client_id, "dueFrom": due_from, "dueTo": due_to}
    given = {name: str(value) for name, value in query.items() if value is not None}

    async def export(transport: Transport) -> ExportCounts:
        with ExitStack() as stack:
            # UTF-8, whatever the terminal's encoding: this is the file's content.
            out: IO[bytes] = sys.stdout.buffer if to_stdout else stack.enter_context(part.open("wb"))
            bar = stack.enter_context(_progress_bar())
            task = bar.add_task("schedules", total=None)
            exported = ExportCounts()
            async for line in _lines(transport, given, exported):
                out.write(line)
                bar.update(task, completed=exported.schedules)
            out.flush()
            return exported

    exported = connection.run(export)
    if not to_stdout and part != file:
        part.replace(file)
    jobs = f" and {exported.jobs} jobs" if exported.jobs else ""
    click.echo(f"{exported.schedules}{jobs} exported", err=True)
    if exported.delivering:
        click.echo(
            "clockwork: the cluster delivers: schedules in the export may have been delivered. To move it, stop its workers "
            "in an orderly way and export again",
            err=True,
        )
    if exported.left_out():
        raise click.ClickException(exported.left_out())


class ExportCounts:
    """The numbers of one export."""

    def __init__(self) -> None:
        self.schedules = 0
        self.jobs = 0
        self.left_behind = 0
        self.unreadable = 0
        self.uncovered = 0
        self.delivering = False

    def left_out(self) -> str:
        """A line about what is not in the file; empty: everything is."""
        parts = []
        if self.unreadable:
            parts.append(f"{self.unreadable} rows or jobs cannot be read by this version")
        if self.uncovered:
            parts.append(f"{self.uncovered} schedules or jobs are of clients that the key does not cover")
        if self.left_behind:
            parts.append(f"{self.left_behind} runs by hand, of backfills, retries or open ones have not ended")
        return " and ".join(parts) + " and are left out" if parts else ""


async def _lines(transport: Transport, query: dict[str, str], exported: ExportCounts) -> AsyncIterator[bytes]:
    """All lines of an export. Raises: CallFailed."""
    before = await _epochs(transport)
    exported.delivering = before is None
    paused = read_document(PausesDocument, await transport.request("GET", "/admin/pauses"))
    client_id = query.get("clientId")
    pauses = PausedNames(
        clients=[each.name for each in paused.clients if client_id in (None, each.name)],
        topics=[each.name for each in paused.topics],
    )
    began = False
    async for page in pages(transport, PendingDocument, "/admin/schedules", {"limit": _PAGE_ITEMS, **query}):
        if not began:
            yield _line(FirstLine(exported_at_ms=page.at_ms, delivering=exported.delivering, pauses=pauses))
            began = True
        exported.unreadable += page.unreadable
        exported.uncovered += page.uncovered
        exported.schedules += len(page.schedules)
        yield b"".join(map(export_line, page.schedules))
    of_client = {"clientId": client_id} if client_id is not None else {}
    # Due times choose among schedules. Of a move in parts, jobs go with the first: their next runs may be soon.
    if "dueFrom" not in query:
        async for jobs in pages(transport, ExportedJobsDocument, "/admin/jobs", {"limit": _PAGE_ITEMS, **of_client}):
            exported.unreadable += jobs.unreadable
            exported.uncovered += jobs.uncovered
            exported.left_behind += jobs.left_behind
            exported.jobs += len(jobs.jobs)
            yield b"".join(_line(each, exclude_unset=True) for each in jobs.jobs)
    exported.delivering = exported.delivering or await _epochs(transport) != before
    yield _line(LastLine(end=Totals(schedules=exported.schedules, jobs=exported.jobs, delivering=exported.delivering)))


async def _epochs(transport: Transport) -> list[int | None] | None:
    """The epochs of all shards; None if any of them has an owner, or cannot be read. If they are equal at two moments,
    no shard has had an owner in between."""
    answer = await transport.request("GET", "/admin/shards", headers={"Cache-Control": "no-cache"})
    found = read_document(ShardsDocument, answer).shards
    if any(each.owner is not None or each.problem is not None for each in found):
        return None
    return [each.epoch for each in found]


def export_line(schedule: PendingScheduleDocument) -> bytes:
    """One line of an export."""
    return _line(schedule, include=set(EXPORTED_FIELDS), exclude_unset=True)


def _line(model: BaseModel, **options: Any) -> bytes:
    document = model.model_dump(mode="json", by_alias=True, **options)
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _progress_bar() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), TextColumn("{task.completed}"))
    return Progress(*columns, console=console, disable=not console.is_terminal)


# --- import


class ExportReader:
    """An export that is read: its rows are the lines with schedules, as they stand there."""

    def __init__(self, check: "Check") -> None:
        self._check = check
        self.first: FirstLine | None = None
        self.last: Totals | None = None
        self.lines = self.schedules = self.jobs = 0

    def rows(self, lines: Iterator[str]) -> Iterator[Row]:
        """The schedules' lines. Raises: FileRefused; click.UsageError: the export must not be imported like this."""
        self.first, self.last, self.lines, self.schedules, self.jobs = None, None, 0, 0, 0
        for self.lines, line in enumerate(lines, 1):
            if not line.strip():
                continue
            if self.first is None:
                self.first = self._read_first(line)
                self._check(self.first)
                continue
            if self.last is not None:
                raise FileRefused(
                    f"line {self.lines}: stands behind the last line of an export; import each export alone"
                )
            content = line.encode("utf-8", "surrogateescape")
            try:
                document = parse(content)
            except InvalidInput as error:
                document, problem = None, "; ".join(each.message for each in error.errors)
            else:
                problem = "" if isinstance(document, dict) else "should be a JSON object"
            if isinstance(document, dict) and document.keys() == {"end"}:
                self.last = _read(LastLine, document, self.lines).end
                continue
            if isinstance(document, dict) and "job" in document:
                self.jobs += 1
            else:
                self.schedules += 1
            yield Row(self.lines, None if problem else content.strip(), problem)
        if self.first is None:
            raise FileRefused("is empty")

    def missing(self) -> str:
        """A line about what the export lacks; empty: it is whole."""
        if self.last is None:
            return f"ends behind line {self.lines} without the last line of an export: the rest of the schedules is missing"
        if self.last.schedules != self.schedules:
            return f"has {self.schedules} schedules, and its last line says {self.last.schedules}"
        if self.last.jobs != self.jobs:
            return f"has {self.jobs} jobs, and its last line says {self.last.jobs}"
        return ""

    def _read_first(self, line: str) -> FirstLine:
        try:
            document = parse(line.encode("utf-8", "surrogateescape"))
        except InvalidInput:
            document = None
        if not isinstance(document, dict) or "clockworkExport" not in document:
            raise FileRefused(
                f"line {self.lines}: is not the first line of an export; `clockwork schedule load` creates plain schedules"
            )
        return _read(FirstLine, document, self.lines)


def _read(model: type[_Line], document: Any, line: int) -> _Line:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise FileRefused(f"line {line}: {wrong}") from error


def _is_job(line: bytes) -> bool:
    """True for the line of a job, as an export writes it."""
    return line.startswith(b'{"job":')


class Check:
    """The conditions for an import, which its first line shows."""

    def __init__(self, connection: Connection, *, from_running: bool, ignore_pauses: bool) -> None:
        self._connection = connection
        self._from_running = from_running
        self._ignore_pauses = ignore_pauses

    def __call__(self, first: FirstLine) -> None:
        """Raises: click.UsageError; CallFailed."""
        if first.delivering and not self._from_running:
            raise click.UsageError(
                "the cluster delivered while it was exported, so schedules may be delivered twice. Stop its workers in an "
                "orderly way and export again, or import with --from-running"
            )
        if self._ignore_pauses or first.pauses == PausedNames(clients=[], topics=[]):
            return
        here = self._connection.call(PausesDocument, "GET", "/admin/pauses")
        missing = first.pauses.without(here)
        if missing.words():
            raise click.UsageError(
                f"paused there and not here: {missing.words()}. Pause them here first (`clockwork admin pause`), or "
                "import with --ignore-pauses"
            )


@click.command(
    "import",
    cls=ServiceCommand,
    epilog="\b\nExample:\n  clockwork --url http://other:8080 admin import pending.jsonl",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option(
    "--rejected",
    type=click.File("w", encoding="utf-8", errors="backslashreplace"),
    help="File for rejected lines; by default standard error.",
)
@click.option("--from-start", is_flag=True, help="Send all lines, also those that an earlier import has settled.")
@click.option(
    "--from-running", is_flag=True, help="Import from a cluster that delivers: its schedules may be delivered twice."
)
@click.option("--ignore-pauses", is_flag=True, help="Import though what was paused there is not paused here.")
@connected
def import_command(
    connection: Connection,
    file: Path,
    rejected: IO[str] | None,
    from_start: bool,
    from_running: bool,
    ignore_pauses: bool,
) -> None:
    """Import the schedules and jobs that `export` has written; - is standard input.

    Each schedule keeps its place in its order, its version and its delivery id; the fire times of each job go on from where
    they were decided. An import that was interrupted continues where it
    stopped, and may be repeated: no schedule is imported twice. The API key needs the right `admin`, and `create` for
    the clients and topics.
    """
    if str(file) == "-":
        file = Path("/dev/stdin")
    export = ExportReader(Check(connection, from_running=from_running, ignore_pauses=ignore_pauses))
    with connection.client() as client:

        def send(contents: Iterable[Any]) -> Iterator[Result]:
            assert export.first is not None, "it is read before the first schedule"
            at_ms = export.first.exported_at_ms
            for of_jobs, lines in groupby(contents, key=_is_job):
                settled = (client.import_jobs if of_jobs else client.import_many)(lines, exported_at_ms=at_ms)
                yield from settled

        counts = load_file(
            file,
            export.rows,
            send,
            meaning={"url": connection.url, "import": True},
            noun="line",
            rejected=rejected,
            from_start=from_start,
        )
    if export.missing():
        raise click.ClickException(
            f"{file} {export.missing()}. Export again, and import that; what is here already stays"
        )
    if export.last is not None and export.last.delivering and not from_running:
        raise click.ClickException(
            "the cluster began to deliver while it was exported: schedules may be delivered twice. Stop one of the two, and "
            "compare"
        )
    end_with(counts)
