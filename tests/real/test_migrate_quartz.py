"""`python -m infra.migrate quartz`: from Quartz's own tables in a PostgreSQL, over a file, to jobs of a running service."""

import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from clockwork.client import AsyncClient
from infra.local import LocalServices
from infra.local.jars import QUARTZ, ensure_jars
from tests.support import builders, quartz
from tests.support.commands import CommandExit, run_module
from tests.unit.client_stub import FAST, run_command
from tests.unit.cron_times import ms
from tests.unit.service import open_service

SCHEMA = "org/quartz/impl/jdbcjobstore/tables_postgres.sql"
DECEMBER_MS = ms("2026-12-01T00:00")
"""Quartz's times `later` begin here."""


@pytest.fixture
async def database(services: LocalServices, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a database with Quartz's tables, and what Quartz stored in them."""
    await services.start_postgres()
    await ensure_jars([QUARTZ], tmp_path / "jars.log", None)
    (jar,) = QUARTZ.folder.glob("quartz-*.jar")
    with zipfile.ZipFile(jar) as archive:
        schema = archive.read(SCHEMA).decode()
    name = f"quartz_{uuid4().hex[:8]}"
    server = await asyncpg.connect(services.postgres_url)
    await server.execute(f"CREATE DATABASE {name}")
    url = f"{services.postgres_url.rpartition('/')[0]}/{name}"
    connection = await asyncpg.connect(url)
    await connection.execute(schema)
    for table in quartz.WRITTEN["tables"]:
        for row in quartz.rows(table):
            values = ", ".join(f"${number}" for number in range(1, len(row) + 1))
            await connection.execute(f"INSERT INTO qrtz_{table} ({', '.join(row)}) VALUES ({values})", *row.values())
    await connection.close()
    yield url
    await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await server.close()


async def convert(database: str, *more: str) -> CommandExit:
    where = ("--client", "shop", "--topic", builders.TOPIC, "--zone", quartz.ZONE)
    return await run_module("infra.migrate", "quartz", database, *where, *more)


async def test_jobs_in_quartz_s_tables_run_on_at_the_times_at_which_quartz_would_run_them(
    database: str, tmp_path: Path
) -> None:
    made = tmp_path / "jobs.toml"
    ended = await convert(database, "--scheduler", "shop", "--output", str(made))
    assert (ended.code, ended.stdout) == (3, "")
    said = ended.stderr.splitlines()
    assert said[-1] == "migrate: 22 converted, 1 held, 5 left out"
    assert "migrate: trigger once: left out: SIMPLE every 0 ms: fires once: create a schedule: clockwork create" in said

    async with open_service() as service:
        service.engine.clock.set_ms(DECEMBER_MS - 1)
        result = await run_command(service.url, "job", "apply", str(made), timeout_ms=30_000)
        assert result.exit_code == 0, result.output
        async with AsyncClient(service.url, retries=FAST, clock=service.engine.clock) as client:
            jobs = {job.job_id: job async for job in client.list_jobs("shop")}
            assert len(jobs) == 23
            for name, times in quartz.FIRE_TIMES.items():
                if name in jobs and name != "paused" and times["later"] and name not in quartz.SKIPS_MONTHS:
                    job = await client.get_job("shop", name, next_times=len(times["later"]))
                    assert [each.at_ms for each in job.next_times or ()] == times["later"], name
            paused, by_hand = jobs["paused"], jobs["by-hand"]
            assert [each.next_run for each in (paused, by_hand)] == [None, None]


async def test_one_of_several_schedulers_has_to_be_named_and_tables_have_to_be_quartz_s(database: str) -> None:
    ended = await convert(database)
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr == "migrate: stopped: there are jobs of 2 schedulers: choose one by --scheduler: plain, shop\n"

    ended = await convert(database, "--prefix", "public.other_")
    assert ended.code == 2
    assert "are these Quartz's tables? (--prefix)" in ended.stderr

    ended = await convert(database, "--scheduler", "plain", "--prefix", "public.QRTZ_")
    assert ended.code == 0, ended.stderr
    assert 'data = { note = "café: 5 %", region = "eu = west" }' in ended.stdout
