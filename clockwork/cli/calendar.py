"""`clockwork calendar …`: named calendars of recurring jobs."""

from collections.abc import Callable
from typing import IO, Any, TypeVar

import click

from clockwork.cli import EXIT_CODES
from clockwork.cli.connection import Connection, ServiceGroup, connected
from clockwork.cli.render import cell, instant, json_option, print_json, printable
from clockwork.cli.table import Table, print_table
from clockwork.cli.values import INTEGER_MAX, json_object
from clockwork.client import Calendar, Exclude

_Command = TypeVar("_Command", bound=Callable[..., Any])
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_if_version = click.option(
    "--if-version", type=click.IntRange(1, INTEGER_MAX), help="Only if the calendar still has this version."
)


def _calendar(command: _Command) -> _Command:
    return click.argument("client_id")(click.argument("name")(command))


@click.group(cls=ServiceGroup, epilog=EXIT_CODES)
def calendar() -> None:
    """Put, show and delete named calendars: days and hours at which jobs do not run."""


@calendar.command(
    epilog="\b\nExamples:\n"
    "  clockwork calendar put shop de --annual 01-01 --annual 12-25 --date 2030-04-19 --weekday SUN\n"
    "  clockwork calendar put shop de --file holidays.json"
)
@_calendar
@click.option("--date", "dates", multiple=True, metavar="YYYY-MM-DD", help="A day; repeatable, as all of these.")
@click.option("--annual", multiple=True, metavar="MM-DD", help="A day of each year.")
@click.option("--weekday", "weekdays", multiple=True, type=click.Choice(_WEEKDAYS, case_sensitive=False))
@click.option("--cron", multiple=True, help="Each minute that the expression names; '* * * * 5#3' is a whole day.")
@click.option("--file", "file", type=click.File("rb"), help="All of it, as the JSON that the HTTP API takes.")
@click.option("--description", help="For people.")
@_if_version
@json_option
@connected
def put(
    connection: Connection,
    /,
    client_id: str,
    name: str,
    dates: tuple[str, ...],
    annual: tuple[str, ...],
    weekdays: tuple[Any, ...],
    cron: tuple[str, ...],
    file: IO[bytes] | None,
    description: str | None,
    if_version: int | None,
    json_: bool,
) -> None:
    """Make or change a calendar, as a whole. The jobs that name it follow it."""
    entries = Exclude(dates=dates, annual=annual, weekdays=weekdays, cron=cron)
    if file is not None:
        if entries != Exclude():
            raise click.UsageError("--file excludes --date, --annual, --weekday and --cron")
        entries, described = _read(json_object("--file", file.read()))
        description = described if description is None else description
    with connection.client() as client:
        made = client.put_calendar(client_id, name, entries, description=description, if_version=if_version)
    _print_calendar(made, json_=json_)


def _read(document: dict[str, Any]) -> tuple[Exclude, str | None]:
    lists = ("dates", "annual", "weekdays", "cron")
    wrong = [name for name, value in document.items() if name not in (*lists, "description") or _is_wrong(name, value)]
    if wrong:
        raise click.UsageError(f"--file: {', '.join(sorted(wrong))}: should be a list of texts, or description a text")
    return Exclude(**{name: document.get(name, ()) for name in lists}), document.get("description")


def _is_wrong(name: str, value: Any) -> bool:
    if name == "description":
        return not isinstance(value, str)
    return not isinstance(value, list) or not all(isinstance(each, str) for each in value)


@calendar.command(epilog="\b\nExample:\n  clockwork calendar show shop de")
@_calendar
@json_option
@connected
def show(connection: Connection, client_id: str, name: str, json_: bool) -> None:
    """Show a calendar."""
    with connection.client() as client:
        found = client.get_calendar(client_id, name)
    _print_calendar(found, json_=json_)


@calendar.command("list", epilog="\b\nExample:\n  clockwork calendar list shop")
@click.argument("client_id")
@json_option
@connected
def list_(connection: Connection, client_id: str, json_: bool) -> None:
    """List the calendars of a client."""
    with connection.client() as client:
        found = client.list_calendars(client_id)
        if json_:
            for each in found:
                print_json(each)
            return
        table = Table(
            *("name", "version", "changed", "entries", "description"),
            prose=("description",),
            least=("entries", "changed"),
        )
        for each in found:
            size = len(each.dates) + len(each.annual) + len(each.weekdays) + len(each.cron)
            changed = instant(each.updated_at_ms)
            table.add_row(cell(each.name), str(each.version), changed, str(size), cell(each.description))
    print_table(table)


@calendar.command(epilog="\b\nExample:\n  clockwork calendar delete shop de")
@_calendar
@_if_version
@json_option
@connected
def delete(connection: Connection, client_id: str, name: str, if_version: int | None, json_: bool) -> None:
    """Delete a calendar that no job uses."""
    with connection.client() as client:
        gone = client.delete_calendar(client_id, name, if_version=if_version)
    _print_calendar(gone, json_=json_)


def _print_calendar(found: Calendar, *, json_: bool) -> None:
    if json_:
        print_json(found)
        return
    behind = ", ".join(found.behind or ()) + (" and others" if found.more_behind else "")
    lines = [
        ("calendar", f"{found.client_id} {found.name}"),
        ("description", found.description or ""),
        ("dates", " ".join(found.dates)),
        ("each year", " ".join(found.annual)),
        ("weekdays", " ".join(found.weekdays)),
        ("cron", "; ".join(found.cron)),
        ("version", f"{found.version}, {instant(found.updated_at_ms)}"),
        ("behind", behind.strip()),
    ]
    for name, value in lines:
        if value:
            click.echo(f"{name:<13} {printable(value)}")
