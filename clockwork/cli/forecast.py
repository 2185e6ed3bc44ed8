"""`clockwork forecast`: how much is due when."""

from datetime import timedelta
from typing import Final

import click

from clockwork.cli import EXIT_CODES
from clockwork.cli.connection import Connection, ServiceCommand, connected
from clockwork.cli.render import instant, json_option, print_json
from clockwork.cli.table import GAP, Table, print_table, terminal_chars
from clockwork.cli.values import Duration, Time
from clockwork.client import Forecast
from clockwork.client.schedules import When

BAR_CHARS: Final = 40
"""Length of the longest bar where the output is no terminal; on one it takes what is left of the line."""
BAR_CHARS_MIN: Final = 5
_MS: Final = timedelta(milliseconds=1)


@click.command(
    "forecast",
    cls=ServiceCommand,
    epilog="\b\nExamples:\n  clockwork forecast\n  clockwork forecast --for 24h --bucket 1h --topic orderTopic\n"
    "  clockwork forecast --json | jq '[.buckets[].count] | max'\n\n" + EXIT_CODES,
)
@click.option("--from", "since", type=Time(), help="Beginning; by default now.")
@click.option("--for", "length", type=Duration(), default="1h", show_default=True, help="Length of the window.")
@click.option("--bucket", type=Duration(), default="1m", show_default=True, help="Width of a bucket.")
@click.option("--client", "client_id", help="Only of this client.")
@click.option("--topic", help="Only for this topic.")
@json_option
@connected
def forecast_command(
    connection: Connection,
    since: int | None,
    length: timedelta,
    bucket: timedelta,
    client_id: str | None,
    topic: str | None,
    json_: bool,
) -> None:
    """Show how many schedules are due when.

    Exact as far as the service reads, and estimated behind that (~). Of a recurring job the next run alone is counted.
    """
    until: When = length if since is None else since + length // _MS
    with connection.client() as client:
        found = client.forecast(since=since, until=until, bucket_ms=bucket // _MS, client_id=client_id, topic=topic)
    if json_:
        print_json(found)
    else:
        _print_forecast(found)


def _print_forecast(found: Forecast) -> None:
    print_table(forecast_table(found, terminal_chars()))
    total = sum(each.count for each in found.buckets)
    overdue = "" if found.overdue is None else f"{found.overdue} overdue, "
    exact = "exact" if found.exact else f"exact up to {instant(found.exact_to_ms)}, estimated behind it"
    click.echo(f"{overdue}{total} due from {instant(found.from_ms)} to {instant(found.to_ms)}; {exact}")


def forecast_table(found: Forecast, width: int | None) -> Table:
    """A row for each bucket that is not empty. `width`: of the terminal, in characters; None: the output goes elsewhere."""
    counts = [f"{'' if each.exact else '~'}{each.count}" for each in found.buckets]
    most = max((each.count for each in found.buckets), default=0)
    beside = len(f"{instant(found.from_ms)}{GAP}{GAP}") + max(map(len, ("due", *counts)))
    longest = BAR_CHARS if width is None else max(BAR_CHARS_MIN, width - beside)
    table = Table("from", "due", "")
    for each, count in zip(found.buckets, counts, strict=True):
        if each.count:
            table.add_row(instant(each.at_ms), count, "#" * max(1, round(each.count * longest / most)))
    return table
