"""Schedules on a terminal and for programs."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clockwork.client import PastSchedule, Schedule

_STYLES: Final = {"pending": "cyan", "delivered": "green", "failed": "red", "cancelled": "yellow", "superseded": "dim"}


def as_json(schedule: Schedule | PastSchedule) -> str:
    """As the API answers it, in one line."""
    return json.dumps(schedule.model_dump(mode="json", by_alias=True, exclude_unset=True), ensure_ascii=False)


def instant(at_ms: int) -> str:
    """RFC 3339 in UTC; the number itself where the calendar ends."""
    try:
        return datetime.fromtimestamp(at_ms / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return str(at_ms)


def plain(text: str) -> str:
    """Keys and data come from others: what could steer a terminal is escaped."""
    return text if text.isprintable() else json.dumps(text)


def ending(schedule: Schedule | PastSchedule) -> str:
    """Where and how late, or why not."""
    if schedule.delivered is not None:
        receipt = schedule.delivered
        return f"{receipt.lateness_ms} ms late, Kafka partition {receipt.partition} offset {receipt.offset}"
    if schedule.failed is not None:
        return f"{schedule.failed.reason}, {schedule.failed.attempts} attempts"
    return ""


def one(schedule: Schedule, *, json_: bool) -> None:
    if json_:
        click.echo(as_json(schedule))
        return
    lines = [
        ("schedule", f"{schedule.client_id} {plain(schedule.schedule_key)}"),
        ("status", f"{schedule.status} {ending(schedule)}".strip()),
        ("due", f"{instant(schedule.schedule_time_ms)} ({schedule.schedule_time_ms})"),
        ("topic", _topic(schedule)),
        ("ordering key", plain(schedule.ordering_key or "")),
        ("data", plain(json.dumps(schedule.task_data, ensure_ascii=False))),
        ("version", f"{schedule.version}, shard {schedule.shard}"),
    ]
    for name, value in lines:
        click.echo(f"{name:<13} {value}")


def many(schedules: Iterable[Schedule | PastSchedule], *, json_: bool) -> None:
    if json_:
        for each in schedules:
            click.echo(as_json(each))
    else:
        Console(soft_wrap=True).print(table(schedules))


def table(schedules: Iterable[Schedule | PastSchedule], title: str | None = None) -> Table:
    shown = Table(title=title, title_justify="left")
    for name in ("key", "due", "status", "topic", "ordering key", "end"):
        shown.add_column(name, overflow="fold")
    for each in schedules:
        shown.add_row(
            escape(plain(each.schedule_key)),
            instant(each.schedule_time_ms),
            f"[{_STYLES.get(each.status, '')}]{each.status}[/]",
            _topic(each),
            escape(plain(each.ordering_key or "")),
            ending(each),
        )
    return shown


def _topic(schedule: Schedule | PastSchedule) -> str:
    return schedule.delivery.topic if schedule.delivery is not None else ""
