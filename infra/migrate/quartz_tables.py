"""Reads Quartz's tables from a PostgreSQL: nothing is written, and nothing locked."""

import re
from typing import Any, Final

from clockwork.errors import CannotStart, Unavailable
from infra.migrate.quartz import Row, Tables

_PREFIX: Final = re.compile(r"([A-Za-z_]\w{0,59}\.)?[A-Za-z_]\w{0,39}", re.ASCII)
CONNECT_S_MAX: Final = 10.0
STATEMENT_S_MAX: Final = 60.0


async def read_tables(url: str, *, prefix: str = "QRTZ_", scheduler: str | None = None) -> Tables:
    """The rows of one scheduler; None: there is only one. All are of one moment.

    Raises: CannotStart (the tables are not there, or of several schedulers), Unavailable, ValueError (the prefix is none).
    """
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(
            f"--prefix {prefix!r} should be letters, digits and _, behind a schema and a dot if there is one"
        )
    try:
        import asyncpg
    except ImportError as error:
        raise CannotStart(
            "reading Quartz's tables needs the package asyncpg: pip install 'clockwork[postgresql]'"
        ) from error
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_S_MAX, command_timeout=STATEMENT_S_MAX)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await _read(connection, prefix, scheduler)
        finally:
            await connection.close(timeout=CONNECT_S_MAX)
    except asyncpg.UndefinedTableError as error:
        raise CannotStart(f"{error}: are these Quartz's tables? (--prefix)") from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise Unavailable(f"the database does not answer as it should: {type(error).__name__}: {error}") from error


async def _read(connection: Any, prefix: str, scheduler: str | None) -> Tables:
    async def rows(table: str, order: str = "") -> list[Row]:
        # The prefix was checked: names of tables cannot be parameters.
        statement = (
            f"SELECT * FROM {prefix}{table} WHERE SCHED_NAME = $1 ORDER BY {order or 'TRIGGER_GROUP, TRIGGER_NAME'}"
        )
        return [dict(each) for each in await connection.fetch(statement, scheduler)]

    if scheduler is None:
        found = await connection.fetch(f"SELECT DISTINCT SCHED_NAME FROM {prefix}JOB_DETAILS ORDER BY 1 LIMIT 20")
        names = [str(each[0]) for each in found]
        if len(names) != 1:
            raise CannotStart(
                f"there are jobs of {len(names)} schedulers: choose one by --scheduler: {', '.join(names)}"
            )
        (scheduler,) = names
    return Tables(
        job_details=await rows("JOB_DETAILS", "JOB_GROUP, JOB_NAME"),
        triggers=await rows("TRIGGERS"),
        cron_triggers=await rows("CRON_TRIGGERS"),
        simple_triggers=await rows("SIMPLE_TRIGGERS"),
        simprop_triggers=await rows("SIMPROP_TRIGGERS"),
        calendars=await rows("CALENDARS", "CALENDAR_NAME"),
    )
