"""Makes the tables by migrations and, once in the cluster's life, its shards; checks the server, the tables and the rights
at every start.

**Migrations** are the files `migrations/NNN_*.sql`, forward only. Each is applied in a transaction of its own, under a lock
of the schema (an advisory lock of the transaction, so a node that dies in the middle leaves nothing), and is noted with its
digest in the table `migrations`. A change of the tables takes two releases: the first adds the new columns, which
may be null, and works with both; the second takes the old ones away.

**A shard's item (its row of `shards`) must never be made twice**: a floor that is lost and starts again at zero would let a
cancel answer `cancelled` for a schedule that an owner has read already. So they are made once, in the transaction that makes
the row in `cluster`. From then on a missing one is an error, for a person to judge.
"""

import hashlib
import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import asyncpg

from clockwork.errors import CannotStart, StoreUnavailable, TransactionConflict
from clockwork.ports.findings import Findings
from clockwork.settings.model import PostgresSettings
from clockwork.stores.postgres import codec
from clockwork.stores.postgres.client import (
    CallLimits,
    Session,
    TlsFiles,
    connect,
    session_settings,
    transaction,
)
from clockwork.stores.postgres.errors import CALL_ERRORS, error_of_call

VERSION_MIN: Final = 150_000
"""As `server_version_num`."""
LOCK_WAIT_S: Final = 60
"""Time for another node to end its migration."""
SNAPSHOT_AGE_S_MAX: Final = 600
NAMED_MAX: Final = 10
PER_SESSION: Final = ("client_min_messages", "default_transaction_isolation", "enable_bitmapscan", "jit")
"""Settings of every session: one that the server does not show was dropped by a pooler."""
_ALL: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
RIGHTS: Final[Mapping[str, Sequence[str]]] = {
    "migrations": ("SELECT",),
    "cluster": ("SELECT",),
    "shards": ("SELECT", "UPDATE"),
    "nodes": _ALL,
    "pointers": _ALL,
    "rows": _ALL,
    "outcomes": _ALL,
    "command_notes": _ALL,
    "pauses": ("SELECT", "INSERT", "UPDATE"),
    "jobs": _ALL,
    "job_definitions": _ALL,
    "job_log": _ALL,
    "job_completions": _ALL,
    "job_requests": _ALL,
    "job_notes": _ALL,
    "calendars": _ALL,
    "calendar_jobs": _ALL,
    "seen": _ALL,
    "clients": ("SELECT", "INSERT", "UPDATE"),
}
"""The rights of a node in each table; `infra/postgres/rights.sql` grants it. To lock a row takes UPDATE."""
_FILE: Final = re.compile(r"(\d{3})_\w+\.sql", re.ASCII)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Migration:
    """One file of statements."""

    version: int
    name: str
    text: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def known_migrations() -> Sequence[Migration]:
    """The migrations of this version of Clockwork, in order."""
    folder = files("clockwork.stores.postgres") / "migrations"
    found = [
        Migration(version=int(match[1]), name=each.name, text=each.read_text(encoding="utf-8"))
        for each in folder.iterdir()
        if (match := _FILE.fullmatch(each.name))
    ]
    return sorted(found, key=lambda migration: migration.version)


def lock_number(name: str) -> int:
    """The number of the advisory lock with this name: a schema (migrations), or `<schema>/retention`."""
    return int.from_bytes(hashlib.sha256(f"clockwork/{name}".encode()).digest()[:8], "big", signed=True)


class PostgresSchema:
    """Makes the tables of one schema, and checks them: `Stores.init` and `Stores.check`."""

    def __init__(self, settings: PostgresSettings, tls: TlsFiles | None, *, shards: int) -> None:
        self._settings = settings
        self._tls = tls
        self._shards = shards
        self._name = settings.schema
        self._quoted = f'"{settings.schema}"'

    async def init(self, migrations: Sequence[Migration] | None = None) -> None:
        """Makes the schema, applies the missing migrations and makes, once, the cluster's shards. Any number of nodes may,
        and again.

        Raises: StoreUnavailable, CannotStart.
        """
        wanted = migrations if migrations is not None else known_migrations()
        async with self._connection(write=True) as connection:
            while await self._migrate_next(connection, wanted):
                pass
            await self._make_cluster(connection)

    async def check(self, migrations: Sequence[Migration] | None = None) -> Findings:
        """Finds out whether this node may work on this database. Raises: StoreUnavailable."""
        wanted = migrations if migrations is not None else known_migrations()
        async with self._connection(write=False) as connection:
            problems, warnings = await self._server_findings(connection)
            # The content of the tables can be read only if the tables and the rights are there.
            for check in (self._migration_problems, self._problems_of_rights, self._problems_of_cluster):
                problems += [] if problems else await check(connection, wanted)
        return Findings(problems=tuple(problems), warnings=tuple(warnings))

    @asynccontextmanager
    async def _connection(self, *, write: bool) -> AsyncIterator[Session]:
        limit_s = CallLimits().connect_timeout_s
        connection = await connect(self._settings, self._tls, timeout_s=limit_s, session=_session())
        try:
            yield connection
        except CALL_ERRORS as error:
            failure = error_of_call(error, write=write, answer_lost=False)
            if isinstance(failure, TransactionConflict):
                # Another node's migration takes long, or a session has left its own open: this node waits on.
                raise StoreUnavailable(f"the tables are locked: {failure}") from error
            raise failure from error
        finally:
            # The connection is dropped, not closed: where this task was cancelled while the server waits for a standby,
            # an orderly close would wait for the server's answer.
            connection.terminate()

    # --- migrations

    async def _migrate_next(self, connection: Session, wanted: Sequence[Migration]) -> bool:
        """Applies the first migration that is missing. False: none is. Raises: CannotStart."""
        async with transaction(connection, _session()):
            await connection.execute("SELECT pg_advisory_xact_lock($1)", lock_number(self._name))
            if await connection.fetchval("SELECT to_regnamespace($1)", self._quoted) is None:
                await connection.execute(f"CREATE SCHEMA {self._quoted}")
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS {self._quoted}.migrations "
                "(version int PRIMARY KEY, digest text NOT NULL, applied timestamptz NOT NULL DEFAULT now())"
            )
            applied = await self._applied(connection)
            if problems := _differences(self._name, applied, wanted, missing_too=False):
                raise CannotStart("\n".join(problems))
            migration = next((each for each in wanted if each.version not in applied), None)
            if migration is None:
                return False
            await connection.execute(f"SET LOCAL search_path TO {self._quoted}")
            await connection.execute(migration.text)
            await connection.execute(
                f"INSERT INTO {self._quoted}.migrations (version, digest) VALUES ($1, $2)",
                migration.version,
                migration.digest,
            )
        log.info("The tables were migrated", extra={"event": "postgres.migrated", "version": migration.name})
        return True

    async def _applied(self, connection: Session) -> dict[int, str]:
        found = await connection.fetch(f"SELECT version, digest FROM {self._quoted}.migrations")
        return {record[0]: record[1] for record in found}

    async def _migration_problems(self, connection: Session, wanted: Sequence[Migration]) -> list[str]:
        try:
            applied = await self._applied(connection)
        except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
            return [f"schema {self._name} has no tables: run `python -m clockwork init`"]
        except asyncpg.InsufficientPrivilegeError:
            return [f"schema {self._name}: the user may not read it: GRANT USAGE on it, and SELECT on its tables"]
        return _differences(self._name, applied, wanted, missing_too=True)

    # --- the cluster

    async def _make_cluster(self, connection: Session) -> None:
        s = self._quoted
        async with transaction(connection, _session()):
            await connection.execute("SELECT pg_advisory_xact_lock($1)", lock_number(self._name))
            stored = await connection.fetchrow(f"SELECT format, shards FROM {s}.cluster")
            if stored is None:
                if await connection.fetchval(
                    f"SELECT EXISTS (SELECT 1 FROM {s}.shards) OR EXISTS (SELECT 1 FROM {s}.rows)"
                ):
                    raise CannotStart(
                        f"schema {self._name}: the table cluster is empty, but the tables have been used: rows were lost, "
                        "and with them, maybe, floors; restore them, or start with an empty schema"
                    )
                await connection.execute(
                    f"INSERT INTO {s}.shards (shard, epoch, owner, floor_ms, format) "
                    "SELECT n, 0, NULL, 0, $2 FROM generate_series(0, $1::int - 1) AS n",
                    self._shards,
                    codec.FORMAT,
                )
                await connection.execute(
                    f"INSERT INTO {s}.cluster (format, shards) VALUES ($1, $2)", codec.FORMAT, self._shards
                )
        if problems := await self._problems_of_cluster(connection, ()):
            raise CannotStart("\n".join(problems))

    async def _problems_of_cluster(self, connection: Session, _wanted: Sequence[Migration]) -> list[str]:
        s = self._quoted
        stored = await connection.fetchrow(f"SELECT format, shards FROM {s}.cluster")
        if stored is None:
            return [f"schema {self._name} has no cluster in it: run `python -m clockwork init` once"]
        if stored[0] != codec.FORMAT:
            return [f"schema {self._name} has format {stored[0]}, and this version of Clockwork has {codec.FORMAT}"]
        if stored[1] != self._shards:
            return [
                f"the cluster has {stored[1]} shards, and CLOCKWORK_SHARDS is {self._shards}: set it to {stored[1]}"
            ]
        found = await connection.fetch(
            f"SELECT n FROM generate_series(0, $1::int - 1) AS n "
            f"WHERE NOT EXISTS (SELECT 1 FROM {s}.shards WHERE shard = n)",
            self._shards,
        )
        missing = [str(record[0]) for record in found]
        if not missing:
            return []
        named = ", ".join(missing[:NAMED_MAX]) + (", …" if len(missing) > NAMED_MAX else "")
        return [
            f"schema {self._name}: the items of {len(missing)} shards are lost ({named}) in {self._name}.shards; they are "
            "never made anew, because cancels would then be answered wrongly: restore them"
        ]

    # --- the server, and the rights on it

    async def _server_findings(self, connection: Session) -> tuple[list[str], list[str]]:
        names = (
            "server_version_num",
            "server_version",
            "fsync",
            "full_page_writes",
            "synchronous_commit",
            "synchronous_standby_names",
            "server_encoding",
            "autovacuum",
            "transaction_read_only",
            *PER_SESSION,
        )
        listed = ", ".join(f"current_setting('{name}') AS {name}" for name in names)
        found = await connection.fetchrow(
            f"SELECT {listed}, pg_is_in_recovery() AS standby, "
            "(SELECT count(*) FROM pg_stat_replication) AS replicas, "
            "(SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::bigint "
            "FROM pg_stat_activity WHERE backend_xmin IS NOT NULL) AS snapshot_s"
        )
        assert found is not None
        server = dict(found)
        return server_problems(server), server_warnings(server)

    async def _problems_of_rights(self, connection: Session, _wanted: Sequence[Migration]) -> list[str]:
        found = await connection.fetch(
            "SELECT t, p FROM unnest($1::text[], $2::text[]) AS needed (t, p) "
            "WHERE NOT has_table_privilege($3 || '.' || t, p)",
            [table for table, rights in RIGHTS.items() for _ in rights],
            [right for rights in RIGHTS.values() for right in rights],
            self._quoted,
        )
        denied = [f"{record[1]} on {self._name}.{record[0]}" for record in found]
        if not await connection.fetchval(f"SELECT has_function_privilege('{self._quoted}.refuse()', 'EXECUTE')"):
            denied.append(f"EXECUTE on function {self._name}.refuse()")
        return [f"the user may not do what a node does: GRANT {', '.join(denied)}"] if denied else []


def _session() -> dict[str, str]:
    """A migration has no time limit; for another's lock it waits up to `LOCK_WAIT_S`."""
    limits = CallLimits(statement_timeout_ms=0, lock_timeout_ms=LOCK_WAIT_S * 1_000)
    return session_settings(limits) | {"enable_seqscan": "on", "plan_cache_mode": "auto"}


def server_problems(found: Mapping[str, Any]) -> list[str]:
    """The reasons why a node must not work on a server with these settings."""
    problems: list[str] = []
    if int(found["server_version_num"]) < VERSION_MIN:
        problems.append(f"PostgreSQL {found['server_version']} is too old: 15 or later is needed")
    if found["standby"]:
        problems.append(
            "the PostgreSQL server is a standby: name the primary, or all servers with target_session_attrs=read-write"
        )
    if found["fsync"] == "off":
        problems.append("PostgreSQL has fsync=off: a power cut would lose what was accepted; turn it on")
    if found["synchronous_commit"] == "off":
        problems.append("PostgreSQL has synchronous_commit=off: a crash would lose what was accepted; set it to on")
    if found["synchronous_commit"] == "local" and found["synchronous_standby_names"]:
        problems.append(
            "PostgreSQL has synchronous_commit=local: a failover would lose what was accepted; set it to on"
        )
    if found["transaction_read_only"] == "on" and not found["standby"]:
        problems.append("PostgreSQL takes no writes from this user: default_transaction_read_only is on; turn it off")
    if found["client_min_messages"] == "error":
        problems.append(
            "PostgreSQL sends no warnings, though the session asks for them, so a pooler keeps its settings back: "
            "ALTER ROLE … SET client_min_messages = warning. Without the warning, a wait for a standby that is cancelled "
            "looks like a commit"
        )
    if found["server_encoding"] != "UTF8":
        problems.append(f"the database is encoded in {found['server_encoding']}: one in UTF8 is needed")
    return problems


def server_warnings(found: Mapping[str, Any]) -> list[str]:
    """The reasons why it works, and could be safer or faster."""
    warnings: list[str] = []
    if found["full_page_writes"] == "off":
        warnings.append(
            "PostgreSQL has full_page_writes=off: a power cut may damage tables, unless the disk writes pages whole"
        )
    if found["replicas"] and not found["synchronous_standby_names"]:
        warnings.append(
            "PostgreSQL has replicas and no synchronous_standby_names: a failover takes back what was accepted last; set "
            "'ANY 1 (…)', and let only a synchronous standby be promoted"
        )
    if found["synchronous_standby_names"] and not found["replicas"]:
        warnings.append(
            f"PostgreSQL has synchronous_standby_names = {found['synchronous_standby_names']}, and no standby is connected: "
            "every write waits until one is"
        )
    asked = session_settings(CallLimits())
    if kept_back := [name for name in PER_SESSION if found[name] != asked[name] and name != "client_min_messages"]:
        warnings.append(
            f"PostgreSQL's session does not have the settings that it was opened with ({', '.join(kept_back)}), so a pooler "
            "keeps them back: give them to the role by ALTER ROLE, as in docs/postgresql.md"
        )
    if found["autovacuum"] == "off":
        warnings.append("PostgreSQL has autovacuum=off: passes get slower with every delivered schedule; turn it on")
    if found["snapshot_s"] > SNAPSHOT_AGE_S_MAX:
        warnings.append(
            f"a session of PostgreSQL holds a snapshot for {found['snapshot_s']} s: deleted rows stay meanwhile, and passes "
            "get slower; end it, or read backups from a standby"
        )
    return warnings


def _differences(schema: str, applied: dict[int, str], wanted: Sequence[Migration], *, missing_too: bool) -> list[str]:
    known = {migration.version: migration for migration in wanted}
    newer = sorted(set(applied) - set(known))
    changed = [m.name for m in wanted if m.version in applied and applied[m.version] != m.digest]
    missing = [m.name for m in wanted if m.version not in applied]
    problems: list[str] = []
    if newer:
        numbers = ", ".join(map(str, newer))
        problems.append(f"schema {schema} is newer than this version of Clockwork: it has the migrations {numbers}")
    if changed:
        problems.append(
            f"schema {schema} was made by another text of {', '.join(changed)}, which no release of Clockwork has"
        )
    if missing and missing_too:
        problems.append(f"schema {schema} lacks the migrations {', '.join(missing)}: run `python -m clockwork init`")
    return problems
