"""`java -cp … WriteJobs URL | python -m tests.support.quartz.record URL`: writes `written.json` anew.

By hand, after a change of WriteJobs.java: with a JDK, the jars of Quartz and of PostgreSQL's driver from Maven, and an empty
database in which Quartz's `tables_postgres.sql` (in its jar) has run:

    javac -cp 'jars/*' -d classes tests/support/quartz/WriteJobs.java
    java -cp 'jars/*:classes' WriteJobs 'jdbc:postgresql://127.0.0.1:5432/quartz?user=postgres' |
        python -m tests.support.quartz.record postgresql://postgres@127.0.0.1:5432/quartz
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Final

import asyncpg

TABLES: Final = (
    "job_details",
    "triggers",
    "cron_triggers",
    "simple_triggers",
    "simprop_triggers",
    "calendars",
    "blob_triggers",
)


async def main(url: str, fire_times: dict[str, Any]) -> None:
    """Reads the tables, and writes them with the times of each trigger."""
    connection = await asyncpg.connect(url)
    tables = {}
    for table in TABLES:
        found = await connection.fetch(f"SELECT * FROM qrtz_{table} ORDER BY 1, 2, 3")
        rows = [{name: _plain(value) for name, value in row.items() if value is not None} for row in found]
        tables[table] = ",\n".join(json.dumps(row) for row in rows)
    await connection.close()
    parts = ",\n".join(f'"{table}": [\n{rows}\n]' for table, rows in tables.items())
    times = ",\n".join(f'"{name}": {json.dumps(each, separators=(",", ":"))}' for name, each in fire_times.items())
    text = f'{{"tables": {{\n{parts}\n}},\n"fire_times": {{\n{times}\n}}}}\n'
    Path(__file__).with_name("written.json").write_text(text, encoding="utf-8")


def _plain(value: Any) -> Any:
    match value:
        case bytes():
            return {"hex": value.hex()}
        case bool() | int() | str():
            return value
        case _:
            return int(value)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Writes written.json anew; standard input: the output of WriteJobs.")
    parser.add_argument("url", help="the database in which WriteJobs has written")
    asyncio.run(main(parser.parse_args().url, json.load(sys.stdin)))
