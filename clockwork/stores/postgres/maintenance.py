"""Retention, and the figures of the tables: every minute, over a connection of its own.

An outcome or note goes when its date has passed (server's clock); with an outcome goes its pointer, whatever the pointer's
date, unless a row stands at that position: no pointer goes before its row (docs/design.md, 3), however long that waits. The
pointer's own date lies 60 days later for the sake of a store that deletes by dates alone; here the row is looked for. The
versions of the key then begin anew, so no key is replaced on its version alone. Readers treat the expired as absent, so
nothing depends on when this is done. One node does it at a time.

A search begins at the date to which the last one got. The entries before it are of deleted rows: they stay in the index
until it is vacuumed, and would all be read again every minute. A process's first search, and one a day, is whole (from date
0): it finds what was locked for longer, and the rest that a process left behind that ended, and the pointers whose row was
deleted without an outcome, because not even its key could be read. Those go by their own date, without an index by it: that
would cost every create a write.

Of a job, runs, completions and requests go by their dates, like notes. Its state and its definitions are the audit's.
"""

import asyncio
import itertools
import logging
from collections.abc import Sequence
from typing import Final

from asyncpg import Record

from clockwork.errors import Contested, Unavailable
from clockwork.ports.telemetry import Telemetry
from clockwork.settings.model import PostgresSettings
from clockwork.stores.postgres.client import (
    CallLimits,
    Session,
    TlsFiles,
    connect,
    session_settings,
    transaction,
)
from clockwork.stores.postgres.errors import CALL_ERRORS, error_of_call
from clockwork.stores.postgres.schema import lock_number

INTERVAL_S: Final = 60.0
WHOLE_SEARCH_EVERY: Final = 24 * 60
"""One search in so many is whole (from date 0)."""
OVERLAP_S: Final = 600
"""Overlap of a search with the last one, for items that were locked then."""
CHUNK_ROWS: Final = 1_000
"""Rows that are deleted in one transaction, which bounds the time of their locks. The deletes themselves wait for no
lock (`SKIP LOCKED`)."""
LIMITS: Final = CallLimits(statement_timeout_ms=30_000)
EXPIRING: Final = {
    "command_notes": "notes",
    "job_log": "runs",
    "job_completions": "completions",
    "job_requests": "requests",
    "job_notes": "notes",
}
"""Tables whose rows go by their date alone, and what is counted when they do."""
MEASURED: Final = ("shards", "nodes", "pointers", "rows", "outcomes", "jobs", "job_definitions", *EXPIRING)

log = logging.getLogger(__name__)


class Maintenance:
    """Removes what has expired. `run` until cancelled."""

    def __init__(self, settings: PostgresSettings, tls: TlsFiles | None, telemetry: Telemetry) -> None:
        self._settings = settings
        self._tls = tls
        self._telemetry = telemetry
        self._since_s = 0
        """The date from which the next search begins: nothing older is left, except what was locked."""
        s = f'"{settings.schema}"'
        # `statement_timestamp` is stable within a statement, unlike `clock_timestamp`, so an index can be searched by
        # it.
        now = "extract(epoch FROM statement_timestamp())::bigint"
        expired = f"expires_at_s BETWEEN $2::bigint AND {now}"
        self._now = f"SELECT {now}"
        # A locked pointer is being taken over or read. A pointer that was changed meanwhile has another place (ctid)
        # and is not found. In both cases pointer and outcome stay for now, so none of these statements waits for
        # another transaction.
        self._lock = "SELECT pg_try_advisory_xact_lock($1)"
        key = "p.client_id = d.client_id AND p.schedule_key = d.schedule_key AND p.position = d.position"
        self.expired_outcomes = (
            f"WITH doomed AS MATERIALIZED "
            f"(SELECT o.ctid AS at, o.client_id, o.schedule_key, o.position FROM {s}.outcomes o "
            f"WHERE {expired} ORDER BY o.expires_at_s LIMIT $1 FOR UPDATE SKIP LOCKED), "
            f"pointers_to_delete AS MATERIALIZED (SELECT q.at FROM doomed d CROSS JOIN LATERAL "
            f"(SELECT p.ctid AS at FROM {s}.pointers p WHERE {key} "
            f"AND NOT EXISTS (SELECT 1 FROM {s}.rows r WHERE r.shard = p.shard AND r.position = p.position) "
            f"LIMIT 1 FOR UPDATE SKIP LOCKED) q), "
            f"pointers AS (DELETE FROM {s}.pointers "
            f"WHERE ctid = ANY (ARRAY(SELECT at FROM pointers_to_delete)) RETURNING 1), "
            f"outcomes AS (DELETE FROM {s}.outcomes WHERE ctid = ANY (ARRAY(SELECT d.at FROM doomed d "
            f"WHERE NOT EXISTS (SELECT 1 FROM {s}.pointers p WHERE {key} "
            f"AND p.ctid <> ALL (ARRAY(SELECT at FROM pointers_to_delete))))) RETURNING 1) "
            f"SELECT (SELECT count(*) FROM outcomes)::int, (SELECT count(*) FROM pointers)::int"
        )
        self.expired_by_date = {
            table: (
                f"WITH gone AS (DELETE FROM {s}.{table} "
                f"WHERE ctid = ANY (ARRAY(SELECT n.ctid FROM {s}.{table} n "
                f"WHERE {expired} ORDER BY n.expires_at_s LIMIT $1 FOR UPDATE SKIP LOCKED)) RETURNING 1) "
                f"SELECT count(*)::int FROM gone"
            )
            for table in EXPIRING
        }
        self.expired_pointers = (
            f"WITH gone AS (DELETE FROM {s}.pointers "
            f"WHERE ctid = ANY (ARRAY(SELECT p.ctid FROM {s}.pointers p WHERE {expired} "
            f"AND NOT EXISTS (SELECT 1 FROM {s}.rows r WHERE r.shard = p.shard AND r.position = p.position) "
            f"AND NOT EXISTS (SELECT 1 FROM {s}.outcomes o WHERE o.client_id = p.client_id "
            f"AND o.schedule_key = p.schedule_key AND o.position = p.position) "
            f"LIMIT $1 FOR UPDATE SKIP LOCKED)) RETURNING 1) "
            f"SELECT count(*)::int FROM gone"
        )
        self._figures = (
            "SELECT t, pg_total_relation_size(c.oid)::bigint, coalesce(pg_stat_get_dead_tuples(c.oid), 0)::bigint "
            "FROM unnest($1::text[]) AS t JOIN pg_class c ON c.oid = to_regclass($2 || '.' || t)"
        )
        self._snapshot = (
            "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8 FROM pg_stat_activity "
            "WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()"
        )

    async def run(self) -> None:
        """Removes what has expired every minute, until cancelled."""
        for number in itertools.count():
            await asyncio.sleep(INTERVAL_S)
            try:
                await self.once(whole=number % WHOLE_SEARCH_EVERY == 0)
            except (Unavailable, Contested) as error:
                # The search of the next minute makes up for it; other calls report that the store is away.
                extra = {"event": "postgres.retention_failed", "error": str(error), "once_per": str(error)}
                log.warning("Expired items stay for now", extra=extra)

    async def once(self, *, whole: bool = True) -> None:
        """Records the figures of the tables, and removes all that has expired unless another node is doing so. Raises:
        StoreUnavailable."""
        connection = await connect(self._settings, self._tls, timeout_s=LIMITS.connect_timeout_s, session=_session())
        try:
            await self._measure(connection)
            await self._remove(connection, whole=whole)
        except CALL_ERRORS as error:
            raise error_of_call(error, write=True, answer_lost=False) from error
        finally:
            connection.terminate()

    async def _remove(self, connection: Session, *, whole: bool) -> None:
        now_s: int = await connection.fetchval(self._now)
        since_s = 0 if whole else self._since_s
        done = dict.fromkeys(("outcomes", "pointers", *EXPIRING.values()), 0)
        searches: list[tuple[str, Sequence[str]]] = [(self.expired_outcomes, ("outcomes", "pointers"))]
        searches += [(self.expired_by_date[table], (counted,)) for table, counted in EXPIRING.items()]
        if whole:
            searches.append((self.expired_pointers, ("pointers",)))
        for sql, names in searches:
            while True:
                found = await self._chunk(connection, sql, since_s)
                if found is None:
                    return
                for name, count in zip(names, found, strict=True):
                    done[name] += count
                if not found[0]:
                    break
        self._since_s = now_s - OVERLAP_S
        if any(done.values()):
            log.debug(
                "Expired items were removed",
                extra={
                    "event": "postgres.retention",
                    "outcomes": done["outcomes"],
                    "pointers": done["pointers"],
                    "notes": done["notes"],
                    "runs": done["runs"],
                    "completions": done["completions"],
                    "requests": done["requests"],
                },
            )

    async def _chunk(self, connection: Session, sql: str, since_s: int) -> Record | None:
        """Removes a chunk of expired items; returns None, and removes nothing, while another node is removing."""
        # Without an index by date the pointers are read in the order of the table.
        scan = {"enable_seqscan": "on"} if sql == self.expired_pointers else {}
        async with transaction(connection, _session() | scan):
            if not await connection.fetchval(self._lock, lock_number(f"{self._settings.schema}/retention")):
                return None
            return await connection.fetchrow(sql, CHUNK_ROWS, since_s)

    async def _measure(self, connection: Session) -> None:
        schema = f'"{self._settings.schema}"'
        for table, size_bytes, dead_rows in await connection.fetch(self._figures, list(MEASURED), schema):
            self._telemetry.store_table(table, size_bytes=size_bytes, dead_rows=dead_rows)
        self._telemetry.store_oldest_snapshot(await connection.fetchval(self._snapshot))


def _session() -> dict[str, str]:
    return session_settings(LIMITS) | {"plan_cache_mode": "auto"}
