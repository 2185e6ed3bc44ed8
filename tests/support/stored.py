"""A cluster's store by hand, whichever it is: what it holds at the end of a run."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import asyncpg

from tests.support.nodes import Cluster
from tests.support.tables import Tables, tables_of


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredRow:
    """A row that is there."""

    shard: int
    schedule_key: str | None
    """None of a row without a readable key."""
    attributes: tuple[str, ...]
    """Names of what is in it."""


class Stored(Protocol):
    """Rows and outcomes, read in full."""

    async def rows(self) -> list[StoredRow]: ...

    async def outcomes(self) -> dict[str, list[str]]:
        """The states of its outcomes, by schedule key."""
        ...


@asynccontextmanager
async def stored_of(cluster: Cluster) -> AsyncIterator[Stored]:
    """For the length of a block."""
    if cluster.store == "postgresql":
        connection = await asyncpg.connect(cluster.services.postgres_url)
        try:
            yield _InPostgres(connection, cluster.settings["CLOCKWORK_POSTGRES_SCHEMA"])
        finally:
            await connection.close()
        return
    async with tables_of(cluster) as tables:
        yield _InDynamo(tables, int(cluster.settings["CLOCKWORK_SHARDS"]))


class _InDynamo:
    def __init__(self, tables: Tables, shards: int) -> None:
        self._tables = tables
        self._shards = shards

    async def rows(self) -> list[StoredRow]:
        return [
            StoredRow(shard=shard, schedule_key=item.get("scheduleKey", {}).get("S"), attributes=tuple(sorted(item)))
            for shard in range(self._shards)
            for item in await self._tables.rows(shard)
        ]

    async def outcomes(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for item in await self._tables.keys():
            if "state" in item:
                found.setdefault(item["scheduleKey"]["S"], []).append(item["state"]["S"])
        return found


class _InPostgres:
    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]", schema: str) -> None:
        self._connection = connection
        self._schema = schema

    async def rows(self) -> list[StoredRow]:
        found = await self._connection.fetch(f'SELECT * FROM "{self._schema}".rows')
        return [
            StoredRow(
                shard=row["shard"],
                schedule_key=row["schedule_key"].decode(),
                attributes=tuple(sorted(name for name, value in row.items() if value is not None)),
            )
            for row in found
        ]

    async def outcomes(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for row in await self._connection.fetch(f'SELECT schedule_key, state FROM "{self._schema}".outcomes'):
            found.setdefault(row["schedule_key"].decode(), []).append(row["state"])
        return found
