"""Output of the commands: values and lines for people, JSON for programs."""

import json
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import click
from pydantic import BaseModel
from rich.text import Text

from clockwork.cli import has_early_json
from clockwork.cli.table import Table, print_table
from clockwork.client import PastSchedule, Schedule, Why

json_option = click.option(
    "--json",
    "json_",
    is_flag=True,
    callback=lambda context, _param, given: given or has_early_json(context),
    help="Print JSON as the API answers it, one object a line.",
)

_UNITS: Final = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))
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
    """A text from the service as the cell of a table; empty for None."""
    return printable(text or "")


def status_cell(status: str, styles: Mapping[str, str]) -> Text:
    """A status as the cell of a table, in its colour."""
    return Text(printable(status), styles.get(status, ""))


def in_words(span_ms: int) -> str:
    """A span in its two largest units, such as `14 min 53 s`; below a minute to a tenth of a second."""
    if span_ms < 1_000:
        return f"{span_ms} ms" if span_ms else "0 s"
    if span_ms < 60_000:
        return f"{span_ms // 100 / 10:g} s"
    parts: list[tuple[int, str]] = []
    for unit, unit_ms in _UNITS:
        count, span_ms = divmod(span_ms, unit_ms)
        if count or parts:
            parts.append((count, unit))
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count)


def end_of_why(found: Why) -> str:
    """The status of a schedule that has ended, and what `end_of` says; empty for one that is pending."""
    return "" if found.ended_at_ms is None else f"{found.status} {end_of(found)}".strip()


def end_of(schedule: Schedule | PastSchedule | Why) -> str:
    """The lateness and place of a delivery, or the reason of a failure; empty for schedules with neither."""
    if schedule.delivered is not None:
        delivered = schedule.delivered
        return f"{delivered.lateness_ms} ms late, Kafka partition {delivered.partition} offset {delivered.offset}"
    if schedule.failed is not None:
        failed = schedule.failed
        refusal = "" if failed.last_refusal is None else f", the last refused for {failed.last_refusal}"
        return printable(f"{failed.reason}, {failed.attempts} attempts{refusal}")
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


def schedule_table(schedules: Iterable[Schedule | PastSchedule], title: str = "") -> Table:
    """A table of schedules, a row for each."""
    columns = ("key", "due", "status", "topic", "ordering key", "end")
    table = Table(*columns, prose=("end",), least=("ordering key", "topic"), title=printable(title))
    for each in schedules:
        table.add_row(
            cell(each.schedule_key),
            instant(each.schedule_time_ms),
            status_cell(each.status, _STYLES),
            cell(_topic(each)),
            cell(each.ordering_key),
            end_of(each),
        )
    return table


def _topic(schedule: Schedule | PastSchedule) -> str:
    return schedule.delivery.topic if schedule.delivery is not None else ""
