"""Every statement has its index, as PostgreSQL plans it with a session's settings, on tables of which it knows nothing."""

import re
from collections.abc import Iterator
from typing import Final

import pytest

from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import PostgresSettings
from clockwork.stores.postgres.client import CallLimits, connect, session_settings
from clockwork.stores.postgres.job_statements import JobStatements
from clockwork.stores.postgres.maintenance import Maintenance
from clockwork.stores.postgres.schema import PostgresSchema
from clockwork.stores.postgres.statements import Statements
from tests.contract.store_fixtures import SHARDS, new_schema

READ_WHOLE: Final = {
    "list_nodes": {"nodes"},
    "read_pauses": {"pauses"},
    "expired_pointers": {"pointers"},  # once a day
}
"""Tables that a statement reads from end to end, on purpose."""
WHOLE: Final = re.compile(r"(?:Seq Scan|Index (?:Only )?Scan (?:Backward )?using \w+) on (\w+)\b(?! .*\n +Index Cond:)")


def statements(schema: str) -> Iterator[tuple[str, str]]:
    maintenance = Maintenance(PostgresSettings(schema=schema), None, NoTelemetry())
    for owner in (Statements(schema), JobStatements(schema), maintenance):
        for name, found in vars(owner).items():
            for text in found.values() if isinstance(found, dict) else [found]:
                if isinstance(text, str) and " FROM " in text and f'"{schema}"' in text:
                    yield name, text


NAMES: Final = sorted({name for name, _ in statements("clockwork")})


@pytest.fixture(scope="module")
async def untouched(postgres_url: str) -> PostgresSettings:
    """A schema in which nothing has ever happened: of tables that were emptied the server has figures."""
    settings = new_schema(postgres_url)
    await PostgresSchema(settings, None, shards=SHARDS).init()
    return settings


@pytest.mark.parametrize("name", NAMES)
async def test_a_statement_finds_its_rows_by_an_index(untouched: PostgresSettings, name: str) -> None:
    session = session_settings(CallLimits())
    connection = await connect(untouched, None, timeout_s=10, session=session)
    try:
        for number, (each, text) in enumerate(statements(untouched.schema)):
            if each == name:
                nulls = ", ".join(["NULL"] * len(set(re.findall(r"\$\d+", text))))
                await connection.execute(f"PREPARE s{number} AS {text}")
                explain = f"EXPLAIN EXECUTE s{number}" + (f"({nulls})" if nulls else "")
                plan = "\n".join(record[0] for record in await connection.fetch(explain))
                assert set(WHOLE.findall(plan)) == READ_WHOLE.get(name, set()), plan
                of_rows = re.findall(r" on rows\b.*\n +Index Cond: (.*)", plan)
                assert all("position" in condition for condition in of_rows), f"a whole shard is read: {plan}"
                of_dates = re.findall(r"Index Cond: (.*expires_at_s >= .*)", plan)
                assert all("expires_at_s <=" in condition for condition in of_dates), f"all that lives is read: {plan}"
    finally:
        connection.terminate()
