"""Output of the commands: tables and lines for people, JSON for programs."""

import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import click
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clockwork.client import PastSchedule, Schedule, Why

json_option = click.option("--json", "json_", is_flag=True, help="Print JSON as the API answers it, one object a line.")

_STYLES: Final = {"pending": "cyan", "delivered": "green", "failed": "red", "cancelled": "yellow", "superseded": "dim"}


def json_line(document: BaseModel) -> str:
    """The API's JSON of a document, in one line, in the encoding of standard output."""
    return dump_json(document.model_dump(mode="json", by_alias=True, exclude_unset=True), sys.stdout.encoding)


def dump_json(document: Any, encoding: str) -> str:
    """JSON in one line. All characters beyond ASCII are escaped if the encoding lacks any of them."""
    text = json.dumps(document, ensure_ascii=False)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(document)
    return text


def print_json(document: BaseModel) -> None:
    click.echo(json_line(document))


def instant(at_ms: int) -> str:
    """A time in RFC 3339 and UTC; outside the years 1 to 9999, the number of milliseconds."""
    try:
        return datetime.fromtimestamp(at_ms / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return str(at_ms)


def printable(text: str) -> str:
    """A text from the service; as a JSON string if it has unprintable characters, which could steer a terminal."""
    return text if text.isprintable() else json.dumps(text)


def one_line(text: str) -> str:
    """A message in one line: white space collapsed, unprintable characters escaped."""
    words = " ".join(text.split())
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in words)


def cell(text: str | None) -> str:
    """A text from the service as the cell of a table, markup escaped; empty for None."""
    return escape(printable(text or ""))


def new_table(*columns: str, title: str | None = None) -> Table:
    """An empty table whose long cells are folded, never cut."""
    table = Table(title=None if title is None else cell(title), title_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def print_table(table: Table) -> None:
    Console(soft_wrap=True).print(table)


def end_of_why(found: Why) -> str:
    """The status of a schedule that has ended, and what `end_of` says; empty for one that is pending."""
    return "" if found.ended_at_ms is None else f"{found.status} {end_of(found)}".strip()


def end_of(schedule: Schedule | PastSchedule | Why) -> str:
    """The lateness and place of a delivery, or the reason of a failure; empty for schedules with neither."""
    if schedule.delivered is not None:
        delivered = schedule.delivered
        return f"{delivered.lateness_ms} ms late, Kafka partition {delivered.partition} offset {delivered.offset}"
    if schedule.failed is not None:
        return printable(f"{schedule.failed.reason}, {schedule.failed.attempts} attempts")
    return ""


def print_schedule(schedule: Schedule, *, json_: bool) -> None:
    """Prints the main fields of a schedule, one a line, or its JSON."""
    if json_:
        print_json(schedule)
        return
    lines = [
        ("schedule", f"{printable(schedule.client_id)} {printable(schedule.schedule_key)}"),
        ("status", f"{schedule.status} {end_of(schedule)}".strip()),
        ("due", f"{instant(schedule.schedule_time_ms)} ({schedule.schedule_time_ms})"),
        ("topic", printable(_topic(schedule))),
        ("ordering key", printable(schedule.ordering_key or "")),
        ("data", printable(json.dumps(schedule.task_data, ensure_ascii=False))),
        ("version", f"{schedule.version}, shard {schedule.shard}"),
    ]
    for name, value in lines:
        click.echo(f"{name:<13} {value}")


def print_schedules(schedules: Iterable[Schedule | PastSchedule], *, json_: bool) -> None:
    """Prints a table of all, or one line of JSON for each as it is read."""
    if json_:
        for each in schedules:
            print_json(each)
    else:
        print_table(schedule_table(schedules))


def schedule_table(schedules: Iterable[Schedule | PastSchedule], title: str | None = None) -> Table:
    """A table of schedules, a row for each."""
    table = new_table("key", "due", "status", "topic", "ordering key", "end", title=title)
    for each in schedules:
        table.add_row(
            cell(each.schedule_key),
            instant(each.schedule_time_ms),
            f"[{_STYLES[each.status]}]{each.status}[/]" if each.status in _STYLES else cell(each.status),
            cell(_topic(each)),
            cell(each.ordering_key),
            escape(end_of(each)),
        )
    return table


def _topic(schedule: Schedule | PastSchedule) -> str:
    return schedule.delivery.topic if schedule.delivery is not None else ""
