"""The statements about recurring jobs. The rules of `stores.postgres.statements` hold here, too; a change locks the rows
that it takes before the state of its job, and nothing locks a row after a state. Pure.

The rows of a job are inserted in the statement that writes its state, and a commit is seen at one moment, so no reader sees
the one without the other. The conditions are the same as on a store where one can.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from clockwork.stores.postgres.codec import NOTE, ROW, Columns
from clockwork.stores.postgres.job_codec import ASKED, CALENDAR_COLUMNS, COMPLETED, DEFINITION, LOG, NAME, STATE_COLUMNS
from clockwork.stores.postgres.sql import cast, listed, names, noted, parameters, unnest

CHANGED: Final[Columns] = (*STATE_COLUMNS, ("before_rev", "bigint"))
TAKEN: Final[Columns] = (("shard", "int"), ("position", "numeric"), ("hold", "text"))
RESOLVED: Final[Columns] = (("name", "text"), ("digest", "text"))
NAMING: Final[Columns] = (("name", "text"),)


class _Part(NamedTuple):
    """Records that a statement puts: arrays of columns, from one parameter on."""

    columns: Columns
    first: int

    @property
    def after(self) -> int:
        """The number of the first parameter behind it."""
        return self.first + len(self.columns)

    @property
    def records(self) -> str:
        """A query for the records."""
        return f"SELECT {cast(self.columns)} FROM {unnest(self.columns, self.first)}"


def _parts(first: int, *columns: Columns) -> Sequence[_Part]:
    parts: list[_Part] = []
    for each in columns:
        parts.append(_Part(each, parts[-1].after if parts else first))
    return parts


class JobStatements:
    """The statements on the tables of one schema. `change` begins with the values of `STATE_COLUMNS` and the revision that
    was read, `change_many` with arrays of them."""

    def __init__(self, schema: str) -> None:
        s = f'"{schema}"'
        job, entry = listed(STATE_COLUMNS, "j"), listed(LOG, "e")
        refuse = f"{s}.refuse()"
        of_job = "{0}.client_id = $1::text AND {0}.job_id = $2::bytea"

        # --- reads of single items, for several callers at once: the number of the caller's key, and the columns

        def shared(columns: Columns, table: str, *key: tuple[str, str]) -> str:
            wires = ", ".join(
                f"${number}::{'text' if kind == 'numeric' else kind}[]" for number, (_, kind) in enumerate(key, 1)
            )
            same = " AND ".join(
                f"t.{name} = w.{name}::numeric" if kind == "numeric" else f"t.{name} = w.{name}" for name, kind in key
            )
            return (
                f"SELECT w.n::int, q.* FROM unnest({wires}) WITH ORDINALITY AS w({names(key)}, n) "
                f"CROSS JOIN LATERAL (SELECT {listed(columns, 't')} FROM {s}.{table} t WHERE {same} LIMIT 1) q"
            )

        self.read_states = shared(STATE_COLUMNS, "jobs", *NAME)
        self.read_definitions = shared(DEFINITION, "job_definitions", *NAME, ("version", "bigint"))
        self.read_log_entries = shared(LOG, "job_log", *NAME, ("position", "numeric"))
        self.read_completions = shared(COMPLETED, "job_completions", *NAME, ("position", "numeric"))
        self.read_requests = shared(ASKED, "job_requests", *NAME, ("request_id", "bytea"))
        self.read_notes = shared(NOTE, "job_notes", *NAME)

        # --- reads of one job

        self.read_versions = (
            f"SELECT {listed(DEFINITION, 'd')} FROM {s}.job_definitions d WHERE {of_job.format('d')} "
            f"AND d.version < $3::bigint ORDER BY d.version DESC LIMIT $4::int"
        )
        at = "AND {0}.position BETWEEN $3::text::numeric AND $4::text::numeric"
        self.read_log = (
            f"SELECT {entry} FROM {s}.job_log e WHERE {of_job.format('e')} {at.format('e')} "
            f"ORDER BY e.position DESC LIMIT $5::int"
        )
        self.read_completions_between = (
            f"SELECT {listed(COMPLETED, 'c')} FROM {s}.job_completions c WHERE {of_job.format('c')} {at.format('c')}"
        )

        # --- changes

        rev = len(STATE_COLUMNS) + 1
        # With `spread`, which does not change: the parameters are those of an INSERT. No index is written for it.
        sets = ", ".join(f"{name} = ${n}::{kind}" for n, (name, kind) in enumerate(STATE_COLUMNS, 1) if n > len(NAME))

        def put(part: _Part, table: str, conflict: str = "") -> str:
            """Puts records if the state was written."""
            return (
                f"INSERT INTO {s}.{table} ({names(part.columns)}) "
                f"SELECT {names(part.columns, 'u')} FROM ({part.records}) u, moved {conflict} RETURNING 1"
            )

        over_log = self._over(LOG, "client_id, job_id, position")
        over_definition = self._over(DEFINITION, "client_id, job_id, version")
        moved = (
            f"moved AS (UPDATE {s}.jobs j SET {sets} WHERE {of_job.format('j')} "
            f"AND EXISTS (SELECT 1 FROM stands) RETURNING 1)"
        )

        # Several at once, no two of one job, sorted by name, on condition of their states alone. Nothing is done and nothing
        # returned for one whose state is at another revision, or is there (NULL: none should be). What stands is locked
        # first: without it the INSERT would make a state where none is.
        want, rows, defined, log = _parts(1, CHANGED, ROW, DEFINITION, LOG)
        by_name, columns = "ORDER BY client_id, job_id", names(STATE_COLUMNS)
        in_stands = "({0}.client_id, {0}.job_id) IN (SELECT s.client_id, s.job_id FROM stands s)"
        overwrite = ", ".join(f"{name} = excluded.{name}" for name, _ in STATE_COLUMNS[len(NAME) :] if name != "spread")

        def put_of_moved(part: _Part, table: str, conflict: str = "", *, job_id: str = "job_id") -> str:
            """Puts the records of those whose state was written."""
            return (
                f"INSERT INTO {s}.{table} ({names(part.columns)}) SELECT {names(part.columns, 'u')} FROM ({part.records}) u "
                f"WHERE (u.client_id, u.{job_id}) IN (SELECT m.client_id, m.job_id FROM moved m) {conflict}"
            )

        self.change_many = (
            f"WITH want AS MATERIALIZED ({want.records}), "
            f"stands AS MATERIALIZED (SELECT w.client_id, w.job_id FROM (SELECT * FROM want {by_name}) w "
            f"CROSS JOIN LATERAL (SELECT 1 FROM {s}.jobs j WHERE j.client_id = w.client_id AND j.job_id = w.job_id "
            f"AND j.rev = w.before_rev LIMIT 1 FOR UPDATE) q), "
            f"moved AS (INSERT INTO {s}.jobs ({columns}) SELECT {columns} FROM want w "
            f"WHERE w.before_rev IS NULL OR {in_stands.format('w')} {by_name} "
            f"ON CONFLICT (client_id, job_id) DO UPDATE SET {overwrite} WHERE {in_stands.format('excluded')} "
            f"RETURNING client_id, job_id), "
            f"put AS ({put_of_moved(rows, 'rows', job_id='schedule_key')}), "
            f"defined AS ({put_of_moved(defined, 'job_definitions', over_definition)}), "
            f"logged AS ({put_of_moved(log, 'job_log', over_log)}) "
            f"SELECT m.client_id, m.job_id FROM moved m"
        )

        rows, log, taken, defined, completed, asked, resolved, naming, no_more = _parts(
            rev + 1, ROW, LOG, TAKEN, DEFINITION, COMPLETED, ASKED, RESOLVED, NAMING, NAMING
        )
        absent = no_more.after
        shards, positions = f"${taken.first}::int[]", f"${taken.first + 1}::text[]::numeric[]"
        takes = (
            f"taken AS MATERIALIZED (SELECT t.shard, t.position FROM ({taken.records} ORDER BY shard, position) t "
            f"CROSS JOIN LATERAL (SELECT 1 FROM {s}.rows r WHERE r.shard = t.shard AND r.position = t.position "
            f"AND r.hold = t.hold LIMIT 1 FOR UPDATE) q)"
        )
        all_taken = f"(SELECT count(*) FROM taken) = cardinality({shards})"
        written = {
            False: (
                f"moved AS (INSERT INTO {s}.jobs ({names(STATE_COLUMNS)}) SELECT {parameters(STATE_COLUMNS, 1)} "
                f"WHERE ${rev}::bigint IS NULL AND {all_taken} ON CONFLICT DO NOTHING RETURNING 1)"
            ),
            True: (
                f"stands AS MATERIALIZED (SELECT 1 FROM {s}.jobs j WHERE {of_job.format('j')} "
                f"AND j.rev = ${rev}::bigint AND {all_taken} FOR UPDATE), {moved}"
            ),
        }
        parts = (
            # Both columns as constants, so that the rows are looked up by the primary key, whatever the plan.
            f"gone AS (DELETE FROM {s}.rows r WHERE r.shard = ANY({shards}) AND r.position = ANY({positions}) "
            f"AND EXISTS (SELECT 1 FROM taken t WHERE t.shard = r.shard AND t.position = r.position) "
            f"AND EXISTS (SELECT 1 FROM moved) RETURNING 1), "
            f"put AS ({put(rows, 'rows')}), "
            f"defined AS ({put(defined, 'job_definitions', over_definition)}), "
            f"logged AS ({put(log, 'job_log', over_log)}), "
            f"completed AS ({put(completed, 'job_completions')}), "
            f"asked AS ({put(asked, 'job_requests')}), "
            # Locked, so that a change of the calendar is made before this, or finds what this has noted.
            f"resolved AS MATERIALIZED (SELECT 1 FROM ({resolved.records}) u CROSS JOIN LATERAL (SELECT 1 FROM "
            f"{s}.calendars c WHERE c.client_id = $1::text AND c.name = u.name AND c.digest = u.digest LIMIT 1 "
            f"FOR SHARE) q), "
            f"naming AS (INSERT INTO {s}.calendar_jobs (client_id, name, job_id) "
            f"SELECT $1::text, u.name, $2::bytea FROM ({naming.records}) u, moved ON CONFLICT DO NOTHING RETURNING 1), "
            f"no_more AS (DELETE FROM {s}.calendar_jobs n WHERE {of_job.format('n')} "
            f"AND n.name = ANY(${no_more.first}::text[]) AND EXISTS (SELECT 1 FROM moved) RETURNING 1)"
        )
        done = (
            f"(SELECT count(*) FROM moved) = 1 AND (SELECT count(*) FROM gone) = cardinality({shards}) "
            f"AND (SELECT count(*) FROM resolved) = cardinality(${resolved.first}::text[]) "
            f"AND NOT EXISTS (SELECT 1 FROM {s}.rows r WHERE r.shard = ${absent}::int "
            f"AND r.position = ${absent + 1}::text::numeric)"
        )
        key = "SELECT $1::text AS client_id, $2::bytea AS job_id"
        self.change: dict[tuple[bool, bool | None], str] = {
            (replacing, None): (
                f"WITH {takes}, {written[replacing]}, {parts} SELECT CASE WHEN {done} THEN 1 ELSE {refuse} END"
            )
            for replacing in (False, True)
        } | {
            (replacing, note_stands): (
                f"WITH {takes}, {written[replacing]}, {parts}, "
                f"{noted(f'{s}.job_notes', 'job_id', absent + 2, note_stands=note_stands, key=key)} "
                f"SELECT CASE WHEN {done} AND (SELECT count(*) FROM noted) = 1 THEN 1 ELSE {refuse} END"
            )
            for replacing in (False, True)
            for note_stands in (False, True)
        }
        done_run = _Part(COMPLETED, 1)
        completes = (
            f"completed AS (INSERT INTO {s}.job_completions ({names(COMPLETED)}) "
            f"SELECT {names(COMPLETED, 'u')} FROM ({done_run.records}) u ON CONFLICT DO NOTHING RETURNING 1)"
        )
        of_run = f"SELECT u.client_id, u.job_id FROM ({done_run.records}) u"
        completed_once = "(SELECT count(*) FROM completed) = 1"
        self.put_completion: dict[bool | None, str] = {
            None: f"WITH {completes} SELECT CASE WHEN {completed_once} THEN 1 ELSE {refuse} END"
        } | {
            note_stands: (
                f"WITH {completes}, "
                f"{noted(f'{s}.job_notes', 'job_id', done_run.after, note_stands=note_stands, key=of_run)} "
                f"SELECT CASE WHEN {completed_once} AND (SELECT count(*) FROM noted) = 1 THEN 1 ELSE {refuse} END"
            )
            for note_stands in (False, True)
        }
        self.prove_completion = (
            f"SELECT {listed(COMPLETED, 'c')} FROM {s}.job_completions c WHERE {of_job.format('c')} "
            f"AND c.position = $3::text::numeric FOR SHARE"
        )
        self.prove_state = f"SELECT {job} FROM {s}.jobs j WHERE {of_job.format('j')} FOR SHARE"
        self.forget = (
            f"WITH stands AS MATERIALIZED (SELECT 1 FROM {s}.jobs j WHERE {of_job.format('j')} AND j.rev = $3::bigint "
            f"FOR UPDATE), "
            f"defined AS (DELETE FROM {s}.job_definitions d WHERE {of_job.format('d')} AND EXISTS (SELECT 1 FROM stands)), "
            f"no_more AS (DELETE FROM {s}.calendar_jobs n WHERE {of_job.format('n')} AND n.name = ANY($4::text[]) "
            f"AND EXISTS (SELECT 1 FROM stands)) "
            f"DELETE FROM {s}.jobs j WHERE {of_job.format('j')} AND EXISTS (SELECT 1 FROM stands) RETURNING 1"
        )
        self.prune_versions = (
            f"DELETE FROM {s}.job_definitions d WHERE {of_job.format('d')} AND d.version < $3::bigint "
            f"AND d.created_at_ms <= $4::bigint"
        )

        # --- the log, sorted by the caller; notes

        ends = _Part(LOG, 1)
        self.put_run_deliveries = {
            keep_existing: (
                f"INSERT INTO {s}.job_log ({names(LOG)}) SELECT {names(LOG, 'u')} FROM ({ends.records}) u "
                f"ORDER BY u.client_id, u.job_id, u.position "
                f"{'ON CONFLICT DO NOTHING' if keep_existing else over_log}"
            )
            for keep_existing in (False, True)
        }
        alone = "SELECT $5::text AS client_id, $6::bytea AS job_id"
        self.note_command = {
            note_stands: (
                f"WITH {noted(f'{s}.job_notes', 'job_id', 1, note_stands=note_stands, key=alone)} SELECT 1 FROM noted"
            )
            for note_stands in (False, True)
        }
        self.prove_note = f"SELECT m.by FROM {s}.job_notes m WHERE {of_job.format('m')} FOR SHARE"

        # --- calendars

        calendar = listed(CALENDAR_COLUMNS, "c")
        of_calendar = "{0}.client_id = $1::text AND {0}.name = $2::text"
        last = len(CALENDAR_COLUMNS) + 1
        kept = ", ".join(
            f"{name} = ${n}::{kind}"
            for n, (name, kind) in enumerate(CALENDAR_COLUMNS, 1)
            if name not in ("client_id", "name")
        )
        self.read_calendars = shared(CALENDAR_COLUMNS, "calendars", ("client_id", "text"), ("name", "text"))
        self.put_calendar = {
            False: (
                f"INSERT INTO {s}.calendars ({names(CALENDAR_COLUMNS)}) VALUES ({parameters(CALENDAR_COLUMNS, 1)}) "
                f"ON CONFLICT DO NOTHING RETURNING 1"
            ),
            True: (
                f"UPDATE {s}.calendars c SET {kept} WHERE {of_calendar.format('c')} AND c.by = ${last}::text RETURNING 1"
            ),
        }
        self.delete_calendar = (
            f"DELETE FROM {s}.calendars c WHERE {of_calendar.format('c')} AND c.by = $3::text RETURNING 1"
        )
        self.prove_calendar = f"SELECT {calendar} FROM {s}.calendars c WHERE {of_calendar.format('c')} FOR SHARE"
        self.list_calendars = (
            f"SELECT {calendar} FROM {s}.calendars c WHERE c.client_id = $1::text AND c.name > $2::text "
            f"ORDER BY c.name LIMIT $3::int"
        )
        self.list_jobs_of_calendar = (
            f"SELECT n.client_id, n.job_id FROM {s}.calendar_jobs n WHERE {of_calendar.format('n')} "
            f"AND n.job_id > $3::bytea ORDER BY n.job_id LIMIT $4::int"
        )

        # --- many jobs

        self.list_jobs = (
            f"SELECT j.client_id, j.job_id FROM {s}.jobs j WHERE j.client_id = $1::text AND j.job_id > $2::bytea "
            f"ORDER BY j.job_id LIMIT $3::int"
        )
        self.count_jobs = (
            f"SELECT count(*)::int FROM (SELECT 1 FROM {s}.jobs j WHERE j.client_id = $1::text "
            f"ORDER BY j.job_id LIMIT $2::int) q"
        )
        self.scan_jobs = (
            f"SELECT j.client_id, j.job_id FROM {s}.jobs j "
            f"WHERE (j.spread, j.client_id, j.job_id) > ($1::bigint, $2::text, $3::bytea) AND j.spread <= $4::bigint "
            f"ORDER BY j.spread, j.client_id, j.job_id LIMIT $5::int"
        )

    @staticmethod
    def _over(columns: Columns, key: str) -> str:
        """The clause that replaces a record with this key."""
        of_key = set(key.split(", "))
        sets = ", ".join(f"{name} = excluded.{name}" for name, _ in columns if name not in of_key)
        return f"ON CONFLICT ({key}) DO UPDATE SET {sets}"
