"""`clockwork schedule upcoming`: the schedules to come, of all clients."""

from itertools import islice
from typing import Final

import click

from clockwork.cli.connection import Connection, ServiceCommand, connected
from clockwork.cli.render import cell, instant, json_option, print_json
from clockwork.cli.table import Table, print_table
from clockwork.cli.values import Time

UPCOMING_DEFAULT: Final = 20
UPCOMING_PAGE_MAX: Final = 200


@click.command(
    "upcoming",
    cls=ServiceCommand,
    epilog="\b\nExamples:\n  clockwork schedule upcoming\n"
    "  clockwork schedule upcoming --topic orderTopic --limit 100 --json",
)
@click.option("--client", "client_id", help="Only of this client, from now on.")
@click.option("--topic", help="Only for this topic.")
@click.option("--due-from", type=Time(), help="Only schedules due at this time or later.")
@click.option("--due-to", type=Time(), help="Only schedules due before this time.")
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=UPCOMING_DEFAULT,
    show_default=True,
    help="Print at most this many.",
)
@json_option
@connected
def upcoming_command(
    connection: Connection,
    client_id: str | None,
    topic: str | None,
    due_from: int | None,
    due_to: int | None,
    limit: int,
    json_: bool,
) -> None:
    """List what is due next, of all clients that the API key covers: what is overdue first. May lag by a moment."""
    with connection.client() as client:
        found = client.upcoming(
            client_id=client_id,
            topic=topic,
            due_from=due_from,
            due_to=due_to,
            page_size=min(limit, UPCOMING_PAGE_MAX),
        )
        table = Table(*("due", "client", "key", "topic", "ordering key", "run of job"), least=("ordering key", "topic"))
        for each in islice(found, limit):
            if json_:
                print_json(each)
                continue
            run = "" if each.job_id is None else f"{each.job_id} {each.run_id}"
            topic_ = each.delivery.topic if each.delivery is not None else ""
            names = (each.client_id, each.schedule_key, topic_, each.ordering_key, run)
            table.add_row(instant(each.schedule_time_ms), *map(cell, names))
    if not json_:
        print_table(table)
