"""`clockwork schedule load`: many schedules from a file, any number of times.

A create is idempotent, so a load may be broken off and begun again: what was accepted is accepted again as the same
schedule. So that a second run need not send everything, the number of rows that are settled is kept beside the file and
taken out when the load is complete. It counts only for a file of the same size and the same service.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from clockwork.client import Client, Result, TooMany, Unavailable

ROWS_AT_ONCE: Final = 1_000
"""Settled together, and then noted."""
_DELIVERY: Final = ("topic", "guarantee", "deadline", "onLate")
_NUMBERS: Final = ("scheduleTime", "deadline")
_HEADER: Final = "header."


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the file: the schedule in it, or what is wrong with it."""

    number: int
    """From 1."""
    document: dict[str, Any] | None
    problem: str = ""


class Note(BaseModel):
    """How far an earlier load of the same file came."""

    model_config = ConfigDict(frozen=True)

    url: str
    file_bytes: int
    rows_settled: int


@dataclass(kw_only=True)
class Sums:
    """What became of the rows."""

    created: int = 0
    repeated: int = 0
    rejected: int = 0
    skipped: int = 0
    """Settled by an earlier load."""
    conflict: bool = False
    """Whether one of the rejected met another schedule under its key."""


class Progress:
    """The note beside the file."""

    def __init__(self, file: Path, url: str) -> None:
        self._path = file.with_name(f"{file.name}.clockwork-progress")
        self._url = url
        self._file_bytes = file.stat().st_size

    def rows_settled(self) -> int:
        try:
            note = Note.model_validate_json(self._path.read_bytes())
        except (FileNotFoundError, ValidationError):
            # Without a note, or with a damaged one, everything is sent again, which is safe.
            return 0
        return note.rows_settled if (note.url, note.file_bytes) == (self._url, self._file_bytes) else 0

    def settled(self, rows: int) -> None:
        note = Note(url=self._url, file_bytes=self._file_bytes, rows_settled=rows)
        new = self._path.with_name(f"{self._path.name}.new")
        new.write_text(note.model_dump_json(), encoding="utf-8")
        new.replace(self._path)

    def complete(self) -> None:
        self._path.unlink(missing_ok=True)


def json_rows(lines: Iterable[str], defaults: dict[str, Any]) -> Iterator[Row]:
    """One schedule in each line, as the HTTP API takes it."""
    for number, line in enumerate((each for each in lines if each.strip()), 1):
        try:
            document = json.loads(line)
        except ValueError as error:
            yield Row(number, None, f"is not JSON: {error}")
            continue
        if isinstance(document, dict):
            yield Row(number, _with_defaults(document, defaults))
        else:
            yield Row(number, None, "should be a JSON object")


def csv_rows(file: IO[str], defaults: dict[str, Any], *, json_data: bool) -> Iterator[Row]:
    """Columns named as the API's fields; those of the delivery stand beside the others, headers as `header.NAME`."""
    for number, columns in enumerate(csv.DictReader(file, strict=True), 1):
        if None in columns or None in columns.values():
            yield Row(number, None, "has another number of columns than the first line")
            continue
        try:
            yield Row(number, _with_defaults(_of_columns(columns, json_data=json_data), defaults))
        except ValueError as error:
            yield Row(number, None, f"taskData: is not JSON: {error}")


def _of_columns(columns: dict[str, str], *, json_data: bool) -> dict[str, Any]:
    document: dict[str, Any] = {}
    delivery: dict[str, Any] = {}
    for name, value in columns.items():
        if name == "taskData":
            document[name] = json.loads(value) if json_data else value
        elif value == "":
            continue
        elif name.startswith(_HEADER):
            delivery.setdefault("headers", {})[name.removeprefix(_HEADER)] = value
        else:
            number = name in _NUMBERS and value.isascii() and value.isdigit()
            (delivery if name in _DELIVERY else document)[name] = int(value) if number else value
    return document | ({"delivery": delivery} if delivery else {})


def _with_defaults(document: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """`defaults`: `clientId` and `topic`, for rows that do not say."""
    filled = dict(document)
    if defaults.get("clientId") is not None:
        filled.setdefault("clientId", defaults["clientId"])
    delivery = filled.get("delivery", {})
    if defaults.get("topic") is not None and isinstance(delivery, dict):
        filled["delivery"] = {"topic": defaults["topic"]} | delivery
    return filled


def load(client: Client, rows: Iterable[Row], progress: Progress, *, skip: int) -> Iterator[tuple[Row, Result | None]]:
    """Each row and its result, None if it was not sent. What is settled is noted whenever so many rows are.

    Raises: CallFailed: no answer, for all or for one row; what was noted before is settled.
    """
    remaining = iter(rows)
    settled = sum(1 for _ in islice(remaining, skip))
    while chunk := list(islice(remaining, ROWS_AT_ONCE)):
        sent = [row for row in chunk if row.document is not None]
        results = client.create_many(row.document for row in sent if row.document is not None)
        found = dict(zip((row.number for row in sent), results, strict=True))
        unsettled = [each.error for each in found.values() if isinstance(each.error, Unavailable | TooMany)]
        if unsettled:
            raise unsettled[0]
        for row in chunk:
            yield row, found.get(row.number)
        settled += len(chunk)
        progress.settled(settled)
