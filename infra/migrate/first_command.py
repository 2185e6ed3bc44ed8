"""`python -m infra.migrate first --table NAME --due-from TIME`: imports the pending schedules of the first Clockwork.

DynamoDB, with the first Clockwork's table, is where the settings say (AWS_REGION, DYNAMODB_ENDPOINT, …); schedules are
created over the HTTP API of a node of this Clockwork, in whatever store it keeps them. Exit codes: 0 all imported, 2
refused, or no answer (the same command continues where it stopped), 3 some rows were rejected.
"""

import argparse
import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from clockwork.client import AsyncClient, CallFailed
from clockwork.clock import ClockGuard, SystemClock
from clockwork.errors import CannotStart, Unavailable
from clockwork.ports.telemetry import NoTelemetry
from clockwork.schema.times import due_ms_of_input
from clockwork.settings.model import Settings
from clockwork.settings.sources import load_settings
from clockwork.stores.dynamodb.client import DynamoClient
from infra.migrate import first
from infra.migrate.reports import report
from infra.migrate.transfer import Counts, Job, Key, transfer

URL: Final = "CLOCKWORK_URL"
API_KEY: Final = "CLOCKWORK_API_KEY"
DIGITS_MAX: Final = 18
PAGE_ROWS: Final = 1_000
"""A batch of creates; DynamoDB ends a page at 1 MB anyway."""


class ScannedRows:
    """A table that is scanned. Implements `transfer.Rows`."""

    def __init__(self, client: DynamoClient, table: str) -> None:
        self._client = client
        self._table = table

    async def page(self, start: Key | None) -> tuple[Sequence[first.Item], Key | None]:
        more: dict[str, Any] = {} if start is None else {"ExclusiveStartKey": start}
        answer = await self._client.call("scan", TableName=self._table, ConsistentRead=True, Limit=PAGE_ROWS, **more)
        return answer["Items"], answer.get("LastEvaluatedKey")


def run(chosen: argparse.Namespace) -> int:
    """Runs one import; returns the exit code."""
    try:
        # These two are the client's; a node does not know them.
        settings = load_settings({name: value for name, value in os.environ.items() if name not in (URL, API_KEY)})
        job = Job(
            url=chosen.url,
            database=settings.dynamo.endpoint or settings.dynamo.region,
            table=chosen.table,
            due_from_ms=chosen.due_from,
            guarantee=chosen.guarantee,
            progress_file=chosen.progress or Path(f"{chosen.table}.clockwork-import"),
            dry_run=chosen.dry_run,
        )
        counts = asyncio.run(_import(job, settings))
    except (CannotStart, Unavailable, CallFailed, ValueError) as error:
        report(f"stopped: {error}")
        return 2
    report("dry run, nothing was created" if job.dry_run else "done")
    return 3 if counts.rejected else 0


async def _import(job: Job, settings: Settings) -> Counts:
    if settings.store.kind == "dynamodb" and job.table == settings.dynamo.schedules_table:
        raise CannotStart(
            f"--table {job.table} is SCHEDULE_DB: this Clockwork needs a table of its own (infra/migration.md), or another "
            "store (CLOCKWORK_STORE)"
        )
    clock = SystemClock()
    store = DynamoClient(settings.dynamo, clock, ClockGuard(clock).observe, NoTelemetry())
    api_key = os.environ.get(API_KEY, "").removeprefix("\ufeff").strip() or None
    async with store as client, AsyncClient(job.url, api_key=api_key) as service:
        return await transfer(job, ScannedRows(client, job.table), service, report)


def add_parser(sources: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its options."""
    parser = sources.add_parser(
        "first",
        help="pending schedules of the first Clockwork",
        description="Imports the pending schedules of the first Clockwork. May be repeated at any time.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("--table", required=True, help="the first Clockwork's schedules table")
    parser.add_argument(
        "--due-from",
        required=True,
        type=_time_ms,
        metavar="TIME",
        help="schedules due earlier stay the first Clockwork's; epoch ms, or RFC 3339 with an offset",
    )
    parser.add_argument(
        "--url", default=os.environ.get(URL) or "http://127.0.0.1:8080", help=f"address of a node; or {URL}"
    )
    parser.add_argument("--guarantee", choices=["exactly_once", "at_least_once"], help="default: exactly_once")
    parser.add_argument("--progress", type=Path, metavar="FILE", help="default: TABLE.clockwork-import, here")
    parser.add_argument("--dry-run", action="store_true", help="read and check only; create and save nothing")


def _time_ms(text: str) -> int:
    """Raises: argparse.ArgumentTypeError."""
    is_number = text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX
    try:
        return due_ms_of_input(int(text) if is_number else text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} {error}") from error
