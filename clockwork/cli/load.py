"""`clockwork schedule load`: creates many schedules from a file, any number of times.

A create is idempotent, so a load may be interrupted and repeated: a schedule that was accepted is accepted again as the same
schedule. To spare a second run sending everything, a progress file beside the file holds how many rows are settled. It is
valid only for the same rows sent with the same meaning: it names the service and every option that changes what a row
becomes, and it has a digest of the file up to the last settled row. It is removed when the load is complete.

A row that cannot be read is rejected with its number, and the rows after it are loaded all the same. The service judges the
rest, so a row is read as strictly as the service reads a request: what it would refuse there is not silently changed here.
"""

import csv
import hashlib
import io
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, getincrementaldecoder
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

import click
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from clockwork.cli.connection import Connection, ServiceCommand, connected
from clockwork.cli.exit_codes import CONFLICT, REFUSED
from clockwork.cli.render import one_line
from clockwork.cli.values import strict_json
from clockwork.client import CallFailed, Conflict, Result, TooMany, Unavailable
from clockwork.schema.schedule import DeliveryForm, ScheduleForm

ROWS_AT_ONCE: Final = 1_000
"""Rows that are settled together, and then recorded in the progress file."""
CELL_CHARS_MAX: Final = 2**31 - 1
"""No limit in effect. A payload may be larger than Python's default of 131,072; and behind a cell that is too long,
reading would go on in its middle and take its lines for rows. The service refuses what is too large."""
NUMBER_DIGITS_MAX: Final = 18
_DELIVERY: Final = tuple(
    str(each.alias) for name, each in DeliveryForm.model_fields.items() if name not in {"headers", "retry"}
)
_COLUMNS: Final = (
    *(str(each.alias) for name, each in ScheduleForm.model_fields.items() if name != "delivery"),
    *_DELIVERY,
)
_NUMBERS: Final = ("scheduleTime", "deadline")
_HEADER: Final = "header."


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the file: the schedule in it, or the reason why it cannot be read."""

    number: int
    """From 1, without empty lines and CSV's first line; in an export the number of its line."""
    content: dict[str, Any] | bytes | None
    """The schedule, or its JSON as it stands in the file; None: it cannot be read."""
    problem: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowFormat:
    """The options that turn a row into a schedule."""

    is_csv: bool
    client_id: str | None
    """For rows without one."""
    topic: str | None
    """For rows without one."""
    json_data: bool
    """CSV's `taskData` is JSON, not text."""


class FileRefused(ValueError):
    """The file as a whole cannot be read: it is no text in UTF-8, or the first line of CSV is wrong."""


# --- rows

ParseRows = Callable[[Iterator[str]], Iterator[Row]]
"""Reads rows from the lines of a file. Raises: FileRefused."""


class Rows:
    """The rows of an open file, and a digest of all lines that were read so far."""

    def __init__(self, file: io.BufferedReader, parse: ParseRows) -> None:
        """Raises: FileRefused."""
        check_is_text(file.peek())
        # Bytes that are not UTF-8 come as surrogates, which no UTF-8 gives, so that they are found in their row.
        self._lines = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        self._digest = hashlib.sha256()
        self._rows = parse(self._read_lines())

    def __iter__(self) -> Iterator[Row]:
        """Raises: FileRefused."""
        return self._rows

    def close(self) -> None:
        self._lines.close()

    def digest(self) -> str:
        """SHA-256 of the file up to the end of the last row that was read, in hex."""
        return self._digest.hexdigest()

    def _read_lines(self) -> Iterator[str]:
        for line in self._lines:
            self._digest.update(line.encode("utf-8", "surrogateescape"))
            yield line


def check_is_text(head: bytes) -> None:
    """Tells a file that is no UTF-8 text from one with a few wrong bytes, by some kilobytes of its beginning.

    Raises: FileRefused.
    """
    lines = head.split(b"\n")
    # The last one may go on behind the head.
    complete = [line for line in lines[:-1] or lines if line.strip()]
    is_binary = head.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) or b"\0" in lines[0]
    if is_binary or (complete and not any(_is_utf8(line) for line in complete)):
        raise FileRefused("is not UTF-8 text")


def _is_utf8(line: bytes) -> bool:
    try:
        # The head may end in the middle of a character.
        getincrementaldecoder("utf-8")().decode(line, final=False)
    except UnicodeDecodeError:
        return False
    return True


def json_rows(lines: Iterator[str], row_format: RowFormat) -> Iterator[Row]:
    """JSON Lines: one schedule in each line, as the HTTP API takes it."""
    for number, line in enumerate((each for each in lines if each.strip()), 1):
        try:
            document = strict_json(line.encode("utf-8", "surrogateescape"))
            if not isinstance(document, dict):
                raise ValueError("should be a JSON object")
        except ValueError as error:
            yield Row(number, None, str(error))
        else:
            yield Row(number, _with_defaults(document, row_format))


def csv_rows(lines: Iterator[str], row_format: RowFormat) -> Iterator[Row]:
    """CSV with columns named as the API's fields: those of the delivery beside the others, headers as `header.NAME`.

    Raises: FileRefused.
    """
    csv.field_size_limit(CELL_CHARS_MAX)
    names: list[str] | None = None
    number = 0
    for text in _csv_texts(lines):
        if names is None:
            names = _column_names(text)
            continue
        number += 1
        try:
            cells = _cells(text)
            if len(cells) != len(names):
                raise ValueError("has another number of columns than the first line")
            document = _of_columns(dict(zip(names, cells, strict=True)), json_data=row_format.json_data)
        except ValueError as error:
            yield Row(number, None, str(error))
        else:
            yield Row(number, _with_defaults(document, row_format))


def _csv_texts(lines: Iterator[str]) -> Iterator[list[str]]:
    """Cuts CSV into rows, each as its lines. Lenient, so that a wrong row ends where it would end if it were right."""
    pending: list[str] = []

    def remembered() -> Iterator[str]:
        for line in lines:
            pending.append(line)
            yield line

    for cells in csv.reader(remembered()):
        text = pending.copy()
        pending.clear()
        if cells:
            yield text


def _cells(text: list[str]) -> list[str]:
    """Reads one row strictly. Raises: ValueError."""
    try:
        "".join(text).encode()
        (cells,) = csv.reader(text, strict=True)
    except UnicodeEncodeError as error:
        raise ValueError("is not UTF-8") from error
    except csv.Error as error:
        raise ValueError(f"is not CSV: {error}") from error
    return cells


def _column_names(text: list[str]) -> list[str]:
    try:
        names = _cells(text)
    except ValueError as error:
        raise FileRefused(f"first line: {error}") from error
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise FileRefused(f"first line: has the column {twice[0]!r} twice")
    return names


def _of_columns(columns: dict[str, str], *, json_data: bool) -> dict[str, Any]:
    """Raises: ValueError, naming the column."""
    document: dict[str, Any] = {}
    delivery: dict[str, Any] = {}
    for name, value in columns.items():
        if name == "taskData":
            document[name] = _column(name, strict_json, value.encode()) if json_data else value
        elif value == "":
            continue
        elif name.startswith(_HEADER):
            delivery.setdefault("headers", {})[name.removeprefix(_HEADER)] = value
        else:
            is_number = name in _NUMBERS and value.isascii() and value.isdigit()
            of_row = delivery if name in _DELIVERY else document
            of_row[name] = _column(name, _integer, value) if is_number else value
    return document | ({"delivery": delivery} if delivery else {})


def _column(name: str, read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _integer(digits: str) -> int:
    if len(digits) > NUMBER_DIGITS_MAX:
        raise ValueError(f"should have at most {NUMBER_DIGITS_MAX} digits")
    return int(digits)


def _with_defaults(document: dict[str, Any], row_format: RowFormat) -> dict[str, Any]:
    """Fills in the client and the topic where the row has none; `null` counts as absent, as in the API."""
    filled = dict(document)
    if row_format.client_id is not None and filled.get("clientId") is None:
        filled["clientId"] = row_format.client_id
    delivery = {} if filled.get("delivery") is None else filled["delivery"]
    if row_format.topic is not None and isinstance(delivery, dict) and delivery.get("topic") is None:
        filled["delivery"] = delivery | {"topic": row_format.topic}
    return filled


# --- progress


class Counts(BaseModel):
    """Numbers of rows by outcome."""

    created: int = 0
    repeated: int = 0
    """Accepted before."""
    ended: int = 0
    """Part of the repeated ones: they are not pending any more."""
    rejected: int = 0
    conflict: bool = False
    """One of the rejected met another schedule under its key."""
    settled_before: int = 0
    """Rows that an earlier load has settled, and this one does not send."""

    def add(self, result: Result | None) -> None:
        """Counts one row; None: it could not be read."""
        if result is not None and result.error is None:
            self.created += result.status == 201
            self.repeated += result.status != 201
            self.ended += result.schedule is not None and result.schedule.status != "pending"
            return
        self.rejected += 1
        self.conflict = self.conflict or (result is not None and isinstance(result.error, Conflict))

    def line(self) -> str:
        """A summary for people."""
        before = f", {self.settled_before} settled before" if self.settled_before else ""
        ended = f" ({self.ended} of them ended)" if self.ended else ""
        return f"{self.created} created, {self.repeated} there already{ended}, {self.rejected} rejected{before}"


class Mark(BaseModel):
    """The progress of a load of the same rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    meaning: dict[str, str | bool | None]
    """The service, and the options that change what a row becomes."""
    rows_settled: int
    digest: str
    """SHA-256 of the file up to the last settled row, in hex."""
    rejected: int
    """Settled rows that were rejected: they count for the exit code of the load that completes this one."""
    conflict: bool


class ProgressFile:
    """The progress file beside the loaded file. Without one everything is sent again, which is safe."""

    def __init__(self, file: Path, meaning: dict[str, str | bool | None]) -> None:
        self._path = file.with_name(f"{file.name}.clockwork-progress")
        self._meaning = meaning
        # A pipe has no place beside it, and is gone when it was read; nor has standard input that comes from a file.
        self._is_kept = file.is_file() and Path("/dev") not in file.absolute().parents

    def read(self) -> Mark | None:
        """The mark of an earlier load with the same meaning."""
        if not self._is_kept:
            return None
        try:
            mark = Mark.model_validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return None
        return mark if mark.meaning == self._meaning else None

    def write(self, rows_settled: int, digest: str, counts: Counts) -> None:
        """Records that these rows are settled. If the file cannot be written, warns once and goes on."""
        if not self._is_kept:
            return
        mark = Mark(
            meaning=self._meaning,
            rows_settled=rows_settled,
            digest=digest,
            rejected=counts.rejected,
            conflict=counts.conflict,
        )
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            new.write_text(mark.model_dump_json(), encoding="utf-8")
            new.replace(self._path)
        except OSError as error:
            self._is_kept = False
            with suppress(OSError):
                new.unlink(missing_ok=True)
            click.echo(f"clockwork: progress is not kept, so a second run sends everything again: {error}", err=True)

    def remove(self) -> None:
        if self._is_kept:
            self._path.unlink(missing_ok=True)


# --- the command


@click.command(
    "load",
    cls=ServiceCommand,
    epilog="\b\nExamples:\n"
    "  clockwork schedule load schedules.jsonl\n"
    "  clockwork schedule load orders.csv --client-id shop --topic orderTopic --rejected rejected.txt\n\n"
    "JSON Lines hold schedules as the HTTP API takes them. The columns of CSV are "
    f"{', '.join(_COLUMNS)}, header.NAME.\n\n"
    "A load that was interrupted continues where it stopped, and may be repeated at any time: a schedule that was "
    "accepted is accepted again as the same schedule.",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--format", "format_", type=click.Choice(["jsonl", "csv"]), help="By default the end of the file's name.")
@click.option("--client-id", help="For rows without one.")
@click.option("--topic", help="For rows without one.")
@click.option("--json-data", is_flag=True, help="CSV: taskData is JSON, not text.")
@click.option(
    "--rejected",
    type=click.File("w", encoding="utf-8", errors="backslashreplace"),
    help="File for rejected rows; by default standard error.",
)
@click.option("--from-start", is_flag=True, help="Send all rows, also those that an earlier load has settled.")
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
    """Create the schedules of FILE: JSON Lines or CSV in UTF-8."""
    is_csv = (format_ or ("csv" if file.suffix.lower() == ".csv" else "jsonl")) == "csv"
    row_format = RowFormat(is_csv=is_csv, client_id=client_id, topic=topic, json_data=json_data)
    meaning: dict[str, str | bool | None] = {
        "url": connection.url, "csv": is_csv, "clientId": client_id, "topic": topic, "jsonData": json_data
    }  # fmt: skip
    parse = partial(csv_rows if is_csv else json_rows, row_format=row_format)
    with connection.client() as client:
        counts = load_file(
            file, parse, client.create_many, meaning=meaning, noun="row", rejected=rejected, from_start=from_start
        )
    end_with(counts)


def load_file(
    file: Path,
    parse: ParseRows,
    create: Callable[[Iterable[Any]], Iterable[Result]],
    *,
    meaning: dict[str, str | bool | None],
    noun: str,
    rejected: IO[str] | None,
    from_start: bool,
) -> Counts:
    """Sends all rows of a file that an earlier load with this meaning has not settled, and tells of each rejected one, named
    by the noun and its number.

    Raises: click.UsageError, about the file; CallFailed.
    """
    progress = ProgressFile(file, meaning)
    counts = Counts()
    with ExitStack() as stack:
        try:
            rows = _open_rows(stack, file, parse, None if from_start else progress.read(), counts)
            _load(create, rows, progress, counts, noun, rejected)
        except FileRefused as error:
            raise click.UsageError(f"{file}: {error}") from error
        except CallFailed:
            click.echo(f"{counts.line()}; the same command again continues from there", err=True)
            raise
    click.echo(counts.line())
    # With rejected rows too: the next load sends all rows again, and finds whether they are accepted by then.
    progress.remove()
    return counts


def end_with(counts: Counts) -> None:
    """Ends the command with its exit code."""
    if counts.rejected:
        raise click.exceptions.Exit(CONFLICT if counts.conflict else REFUSED)


def _open_rows(stack: ExitStack, file: Path, parse: ParseRows, mark: Mark | None, counts: Counts) -> Rows:
    """Opens the file behind the rows that the mark says are settled, if it still begins with them. Raises: FileRefused."""

    def opened() -> Rows:
        return stack.enter_context(closing(Rows(stack.enter_context(file.open("rb")), parse)))

    rows = opened()
    if mark is None:
        return rows
    skipped = sum(1 for _ in islice(rows, mark.rows_settled))
    if (skipped, rows.digest()) != (mark.rows_settled, mark.digest):
        return opened()
    counts.settled_before, counts.rejected, counts.conflict = skipped, mark.rejected, mark.conflict
    return rows


def _load(
    create: Callable[[Iterable[Any]], Iterable[Result]],
    rows: Rows,
    progress: ProgressFile,
    counts: Counts,
    noun: str,
    rejected: IO[str] | None,
) -> None:
    """Sends all rows, chunk by chunk. Raises: FileRefused; CallFailed, if any row has no answer: rows of earlier chunks are
    settled."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    settled = counts.settled_before
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("schedules", total=None, completed=settled)
        while chunk := list(islice(rows, ROWS_AT_ONCE)):
            for row, result in _send(create, chunk):
                counts.add(result)
                problem = row.problem if result is None else str(result.error) if result.error is not None else None
                if problem is not None:
                    click.echo(f"{noun} {row.number}: {one_line(problem)}", file=rejected, err=rejected is None)
                bar.advance(task)
            settled += len(chunk)
            progress.write(settled, rows.digest(), counts)


def _send(create: Callable[[Iterable[Any]], Iterable[Result]], chunk: list[Row]) -> Iterable[tuple[Row, Result | None]]:
    """Creates the schedules of these rows; None is the result of a row that cannot be read. Raises: CallFailed."""
    sent = [(row, row.content) for row in chunk if row.content is not None]
    results = create(content for _, content in sent)
    found = {row.number: result for (row, _), result in zip(sent, results, strict=True)}
    for result in found.values():
        if isinstance(result.error, Unavailable | TooMany):
            raise result.error
    return [(row, found.get(row.number)) for row in chunk]
