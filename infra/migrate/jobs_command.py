"""`python -m infra.migrate crontab | quartz …`: writes the file of `clockwork job apply`, and reports what has no equal.

Nothing is sent to a service, and nothing changed where the jobs come from. The file goes to stdout, or to `--output`, which
must not be there; the report to stderr: a line for each entry that is not here as it was there, with reason and remedy.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from clockwork.cli.jobs_file import JobsFileRefused
from clockwork.clock import SystemClock
from clockwork.errors import CannotStart, Unavailable
from clockwork.schema.completion import TIMEOUT_MS_MAX, TIMEOUT_MS_MIN
from infra.migrate import crontab, quartz
from infra.migrate.jobs_toml import Entry, Target, check_target, checked, is_complete, jobs_file, report
from infra.migrate.quartz_tables import read_tables
from infra.migrate.reports import report as say

STDIN: Final = "-"


def add_parsers(sources: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands and their options."""
    of_crontab = sources.add_parser(
        "crontab",
        help="crontabs: writes the file of `clockwork job apply`",
        description="Writes the jobs of crontabs as the file of `clockwork job apply`, and reports what has no equal.",
    )
    of_crontab.add_argument("files", nargs="+", metavar="FILE", help="a crontab; - for stdin: crontab -l | … crontab -")
    of_crontab.add_argument("--system", action="store_true", help="a field names the user: /etc/crontab, /etc/cron.d")
    _common(of_crontab, run=run_crontab, name="crontab", zone="UTC", zone_help="of the machine (default: UTC)")
    of_quartz = sources.add_parser(
        "quartz",
        help="Quartz's tables: writes the file of `clockwork job apply`",
        description="Reads Quartz's tables from a PostgreSQL, and writes the file of `clockwork job apply`. The password"
        " comes from PGPASSWORD or ~/.pgpass.",
    )
    of_quartz.add_argument("database", metavar="URL", help="postgresql://user@host:port/database")
    of_quartz.add_argument("--scheduler", metavar="NAME", help="SCHED_NAME, if the tables have several")
    of_quartz.add_argument(
        "--prefix", default="QRTZ_", help="of the tables, a schema before it if needed (default: QRTZ_)"
    )
    of_quartz.add_argument(
        "--timeout-ms",
        type=_timeout_ms,
        metavar="MS",
        help="time-out of runs that must not overlap: the consumer has to report that they end",
    )
    _common(
        of_quartz,
        run=run_quartz,
        name="quartz",
        zone=None,
        zone_help="of Quartz's virtual machines: where it names none",
    )


def _common(parser: argparse.ArgumentParser, *, run: object, name: str, zone: str | None, zone_help: str) -> None:
    parser.set_defaults(run=run)
    parser.add_argument("--client", required=True, metavar="ID", help="clientId of the jobs")
    parser.add_argument("--topic", required=True, help="topic of their records")
    parser.add_argument("--zone", default=zone, required=zone is None, help=f"time zone {zone_help}")
    parser.add_argument("--name", default=name, help=f"of the file, a label of its jobs (default: {name})")
    parser.add_argument("--output", type=Path, metavar="FILE", help="a new file; default: stdout")


def run_crontab(chosen: argparse.Namespace) -> int:
    """Converts crontabs; returns the exit code."""
    entries: list[Entry] = []
    try:
        for file in chosen.files:
            content = sys.stdin.buffer.read() if file == STDIN else Path(file).read_bytes()
            entries += crontab.entries_of_crontab(
                content.decode(),
                file="stdin" if file == STDIN else file,
                time_zone=chosen.zone,
                has_users=chosen.system,
            )
    except UnicodeDecodeError as error:
        return _stopped(f"{file} is not UTF-8 at byte {error.start}")
    except OSError as error:
        return _stopped(f"{file}: {error.strerror or error}")
    except ValueError as error:
        return _stopped(f"--zone {chosen.zone} {error}")
    return _write(entries, chosen, comments=crontab.COMMENTS)


def run_quartz(chosen: argparse.Namespace) -> int:
    """Converts the tables of a scheduler; returns the exit code."""
    try:
        tables = asyncio.run(read_tables(chosen.database, prefix=chosen.prefix, scheduler=chosen.scheduler))
    except (CannotStart, Unavailable, ValueError) as error:
        return _stopped(str(error))
    try:
        entries = quartz.entries_of_quartz(tables, time_zone=chosen.zone, timeout_ms=chosen.timeout_ms)
    except ValueError as error:
        return _stopped(f"--zone {chosen.zone} {error}")
    return _write(entries, chosen, comments=quartz.COMMENTS)


def _write(entries: Sequence[Entry], chosen: argparse.Namespace, *, comments: Sequence[str]) -> int:
    target = Target(name=chosen.name, client_id=chosen.client, topic=chosen.topic)
    now_ms = SystemClock().now_ms()
    try:
        check_target(target, now_ms=now_ms)
    except JobsFileRefused as refused:
        return _stopped("--name, --client or --topic: " + "; ".join(refused.problems))
    found = checked(entries, target, now_ms=now_ms)
    text = jobs_file(found, target, comments=comments)
    try:
        if chosen.output is None:
            sys.stdout.write(text)
        else:
            # One that is there may have been worked on.
            with chosen.output.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        return _stopped(f"{chosen.output}: {error.strerror or error}")
    for line in report(found):
        say(line)
    return 0 if is_complete(found) else 3


def _timeout_ms(text: str) -> int:
    """Raises: argparse.ArgumentTypeError."""
    if text.isascii() and text.isdigit() and TIMEOUT_MS_MIN <= int(text[:12]) <= TIMEOUT_MS_MAX:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text[:40]!r} should be {TIMEOUT_MS_MIN:,} to {TIMEOUT_MS_MAX:,} milliseconds")


def _stopped(why: str) -> int:
    say(f"stopped: {why}")
    return 2
