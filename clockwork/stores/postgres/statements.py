"""The statements of the store. Each is a transaction (READ COMMITTED, prepared); `finish` is run many times in one. No
client round trip lies inside a transaction. Pure.

Rules for every line here:

- **What a condition is about is locked first**: a first CTE with `FOR UPDATE` that the others read from. The statement's
  snapshot is older than its locks; a locked row is judged by its newest version, and so is a row that is updated or deleted.
- **All or nothing**: where several parts must be done, the last SELECT calls `refuse()`; else missing rows tell.
- Conditions on a key are written as constants of the statement, or as a LATERAL subquery with a LIMIT, which the planner
  cannot turn into another join: each is one look-up in the primary key, whatever the statistics were when the plan was made.
- Several keys are locked in one order (sorted by the caller), so no two statements wait for each other. The order within a
  key is: row, pointer, outcome, note.
- A read that proves an earlier write of ours locks what it reads (`FOR SHARE`): such a transaction is committed with a
  record in the log, so its answer, too, waits for the synchronous standby.
"""

from typing import Final

from clockwork.stores.postgres.codec import CONTENT, END, NODE, NOTE, OUTCOME, POINTER, ROW, SHARD, Columns
from clockwork.stores.postgres.sql import cast, listed, names, noted, parameters, unnest, wire

PAGE_BYTES_MAX: Final = 1024 * 1024
"""A page ends with the row that makes it larger than this."""
ROW_OVERHEAD_BYTES: Final = 512
"""Size of a row without its `task_data` and headers, as counted for a page."""

_CREATED: Final[Columns] = (
    *ROW,
    ("pointer_version", "bigint"),
    ("digest", "text"),
    ("expires_at_s", "bigint"),
    ("rearmed", "boolean"),
    ("discarded_at_ms", "bigint"),
    ("replaces_version", "bigint"),
    ("replaces_position", "numeric"),
)
_ENDED: Final[Columns] = (*END, ("with_content", "boolean"), ("only_if_absent", "boolean"))


class Statements:
    """The statements on the tables of one schema."""

    def __init__(self, schema: str) -> None:
        s = self.schema = f'"{schema}"'
        row, pointer, outcome = listed(ROW, "r"), listed(POINTER, "p"), listed(OUTCOME, "o")
        self.refuse = f"{s}.refuse()"
        self.ping = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"

        # --- reads of single items, for several callers at once: the number of the caller's key, and the columns

        self.read_pointers = (
            f"SELECT w.n::int, q.* FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS w(client_id, schedule_key, n) "
            f"CROSS JOIN LATERAL (SELECT {pointer} FROM {s}.pointers p "
            f"WHERE p.client_id = w.client_id AND p.schedule_key = w.schedule_key LIMIT 1) q"
        )
        self.read_notes = (
            f"SELECT w.n::int, q.* FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS w(client_id, schedule_key, n) "
            f"CROSS JOIN LATERAL (SELECT {listed(NOTE, 'm')} FROM {s}.command_notes m "
            f"WHERE m.client_id = w.client_id AND m.schedule_key = w.schedule_key LIMIT 1) q"
        )
        self.read_outcomes = (
            f"SELECT w.n::int, q.* FROM unnest($1::text[], $2::bytea[], $3::text[]) "
            f"WITH ORDINALITY AS w(client_id, schedule_key, position, n) "
            f"CROSS JOIN LATERAL (SELECT {outcome} FROM {s}.outcomes o WHERE o.client_id = w.client_id "
            f"AND o.schedule_key = w.schedule_key AND o.position = w.position::numeric LIMIT 1) q"
        )
        self.read_rows = (
            f"SELECT w.n::int, q.* FROM unnest($1::int[], $2::text[]) WITH ORDINALITY AS w(shard, position, n) "
            f"CROSS JOIN LATERAL (SELECT {row} FROM {s}.rows r "
            f"WHERE r.shard = w.shard AND r.position = w.position::numeric LIMIT 1) q"
        )
        self.read_shards = (
            f"SELECT w.n::int, q.* FROM unnest($1::int[]) WITH ORDINALITY AS w(shard, n) "
            f"CROSS JOIN LATERAL (SELECT {listed(SHARD, 's')} FROM {s}.shards s WHERE s.shard = w.shard LIMIT 1) q"
        )
        self.read_shard_and_node = (
            f"SELECT {listed(SHARD, 's')}, {listed(NODE, 'i')} FROM {s}.shards s "
            f"LEFT JOIN {s}.nodes i ON i.incarnation = $2::text WHERE s.shard = $1::int"
        )
        self.read_nodes = f"SELECT {listed(NODE, 'i')} FROM {s}.nodes i WHERE i.incarnation = ANY($1::text[])"
        self.list_nodes = f"SELECT {listed(NODE, 'i')} FROM {s}.nodes i"

        # --- creates, several at once, no two of one key, sorted by key; returns the positions that were put

        want = f"want AS MATERIALIZED (SELECT {cast(_CREATED)} FROM {unnest(_CREATED)})"
        put_rows = f"INSERT INTO {s}.rows ({names(ROW)}) SELECT {names(ROW)} FROM want"
        new_pointer = names(POINTER).replace("version", "pointer_version")
        overwrite = ", ".join(f"{name} = excluded.{name}" for name, _ in POINTER[2:])
        ordered = "ORDER BY client_id, schedule_key"
        pointed_fresh = (
            f"pointed AS (INSERT INTO {s}.pointers ({names(POINTER)}) SELECT {new_pointer} FROM want {ordered} "
            f"ON CONFLICT (client_id, schedule_key) DO NOTHING RETURNING position)"
        )
        # The pointer that is replaced is locked first: without it the INSERT would make one where none stands.
        pointed_replacing = (
            f"stands AS MATERIALIZED (SELECT w.position FROM (SELECT * FROM want {ordered}) w CROSS JOIN LATERAL "
            f"(SELECT 1 FROM {s}.pointers p WHERE p.client_id = w.client_id AND p.schedule_key = w.schedule_key "
            f"AND p.version = w.replaces_version AND p.position = w.replaces_position LIMIT 1 FOR UPDATE) q), "
            f"pointed AS (INSERT INTO {s}.pointers AS p ({names(POINTER)}) SELECT {new_pointer} FROM want "
            f"WHERE position IN (SELECT position FROM stands) {ordered} "
            f"ON CONFLICT (client_id, schedule_key) DO UPDATE SET {overwrite} RETURNING p.position)"
        )
        found = "WHERE position IN (SELECT position FROM pointed) RETURNING position::text"
        self.create_fresh = f"WITH {want}, {pointed_fresh} {put_rows} {found}"
        self.create_replacing = f"WITH {want}, {pointed_replacing} {put_rows} {found}"
        # By command, one alone: the note is moved too, or nothing is done.
        after = len(_CREATED) + 1
        put_one = f"put AS ({put_rows} WHERE position IN (SELECT position FROM pointed) RETURNING 1)"
        note_key = "SELECT client_id, schedule_key FROM want"
        self.create_by_command = {
            (replacing, note_stands): (
                f"WITH {want}, {pointed_replacing if replacing else pointed_fresh}, {put_one}, "
                f"{self._noted(after, note_stands=note_stands, key=note_key)} {self._all_of('put', 'noted')}"
            )
            for replacing in (False, True)
            for note_stands in (False, True)
        }
        self.prove_pointers = (
            f"SELECT w.n::int, q.position "
            f"FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS w(client_id, schedule_key, n) "
            f"CROSS JOIN LATERAL (SELECT p.position::text FROM {s}.pointers p "
            f"WHERE p.client_id = w.client_id AND p.schedule_key = w.schedule_key LIMIT 1 FOR SHARE) q"
        )
        self.prove_note = (
            f"SELECT m.by FROM {s}.command_notes m "
            f"WHERE m.client_id = $1::text AND m.schedule_key = $2::bytea FOR SHARE"
        )
        self.prove_outcome = (
            f"SELECT {outcome} FROM {s}.outcomes o "
            f"WHERE o.client_id = $1::text AND o.schedule_key = $2::bytea AND o.position = $3::text::numeric FOR SHARE"
        )
        note_alone = "SELECT $5::text AS client_id, $6::bytea AS schedule_key"
        self.note_command = {
            note_stands: f"WITH {self._noted(1, note_stands=note_stands, key=note_alone)} SELECT 1 FROM noted"
            for note_stands in (False, True)
        }

        # --- single updates

        stands = (
            "p.client_id = $1::text AND p.schedule_key = $2::bytea "
            "AND p.version = $3::bigint AND p.position = $4::text::numeric"
        )
        self.discard = (
            f"UPDATE {s}.pointers p SET discarded_at_ms = coalesce(p.discarded_at_ms, $5::bigint) WHERE {stands} "
            f"RETURNING p.discarded_at_ms"
        )
        self.push_pointer_expiry = (
            f"UPDATE {s}.pointers p SET expires_at_s = $4::bigint WHERE p.client_id = $1::text "
            f"AND p.schedule_key = $2::bytea AND p.position = $3::text::numeric AND p.expires_at_s < $4::bigint"
        )
        at = "r.shard = $1::int AND r.position = $2::text::numeric"
        self.hold = f"UPDATE {s}.rows r SET hold = $3::text WHERE {at} RETURNING {row}"
        self.drop_hold = f"UPDATE {s}.rows r SET hold = NULL WHERE {at} RETURNING 1"
        self.set_retry = (
            f"UPDATE {s}.rows r SET retry_at_ms = $3::bigint, retry_epoch = $4::bigint, retry_attempts = $5::int, "
            f"retry_refusal = $6::text, hold = CASE WHEN $7::boolean THEN NULL ELSE r.hold END WHERE {at} RETURNING 1"
        )

        # --- a key at one moment, and its last resort

        self.read_key_state = (
            f"SELECT p.client_id IS NOT NULL, {pointer}, o.client_id IS NOT NULL, {outcome}, "
            f"EXISTS (SELECT 1 FROM {s}.rows r WHERE r.shard = w.shard AND r.position = w.position) "
            f"FROM (SELECT $1::text AS client_id, $2::bytea AS schedule_key, $3::int AS shard, "
            f"$4::text::numeric AS position) w "
            f"LEFT JOIN {s}.pointers p ON p.client_id = w.client_id AND p.schedule_key = w.schedule_key "
            f"LEFT JOIN {s}.outcomes o "
            f"ON o.client_id = w.client_id AND o.schedule_key = w.schedule_key AND o.position = w.position"
        )
        first = 6
        self.put_unreadable_outcome = (
            f"WITH stands AS MATERIALIZED (SELECT 1 FROM {s}.pointers p WHERE {stands} FOR SHARE), "
            f"put AS (INSERT INTO {s}.outcomes ({names(OUTCOME)}) SELECT {parameters(OUTCOME, first)} FROM stands "
            f"WHERE NOT EXISTS (SELECT 1 FROM {s}.rows r WHERE r.shard = $5::int AND r.position = $4::text::numeric) "
            f"ON CONFLICT DO NOTHING RETURNING 1) SELECT 1 FROM put"
        )

        # --- the ends of a held row

        held = f"held AS MATERIALIZED (SELECT 1 FROM {s}.rows r WHERE {at} AND r.hold = $3::text FOR UPDATE)"
        gone = f"gone AS (DELETE FROM {s}.rows r WHERE {at} AND EXISTS (SELECT 1 FROM held) RETURNING r.*)"
        first = 4
        content_flag = first + len(END)
        kept = ", ".join(f"CASE WHEN ${content_flag}::boolean THEN gone.{name} END" for name, _ in CONTENT)
        ended = (
            f"ended AS (INSERT INTO {s}.outcomes ({names(OUTCOME)}) "
            f"SELECT {parameters(END, first)}, {kept}, ${content_flag + 1}::int FROM gone RETURNING 1)"
        )
        after = content_flag + 2
        key = f"SELECT ${first}::text AS client_id, ${first + 1}::bytea AS schedule_key"
        self.cancel = {None: f"WITH {held}, {gone}, {ended} {self._all_of('ended')}"} | {
            note_stands: (
                f"WITH {held}, {gone}, {ended}, "
                f"{self._noted(after, note_stands=note_stands, key=key)} {self._all_of('ended', 'noted')}"
            )
            for note_stands in (False, True)
        }
        new_row, new_key = after, after + len(ROW)
        read = new_key + len(POINTER)
        after = read + 2
        sets = ", ".join(
            f"{name} = ${new_key + number}::{wire(kind)}" for number, (name, kind) in enumerate(POINTER) if number >= 2
        )
        repointed = (
            f"repointed AS (UPDATE {s}.pointers p SET {sets} WHERE p.client_id = ${new_key}::text "
            f"AND p.schedule_key = ${new_key + 1}::bytea AND p.version = ${read}::bigint "
            f"AND p.position = ${read + 1}::text::numeric AND EXISTS (SELECT 1 FROM held) RETURNING 1)"
        )
        put = (
            f"put AS (INSERT INTO {s}.rows ({names(ROW)}) "
            f"SELECT {parameters(ROW, new_row)} FROM gone, repointed RETURNING 1)"
        )
        self.reschedule = {
            None: f"WITH {held}, {repointed}, {gone}, {ended}, {put} {self._all_of('repointed', 'ended', 'put')}"
        } | {
            note_stands: (
                f"WITH {held}, {repointed}, {gone}, {ended}, {put}, "
                f"{self._noted(after, note_stands=note_stands, key=key)} "
                f"{self._all_of('repointed', 'ended', 'put', 'noted')}"
            )
            for note_stands in (False, True)
        }

        # --- incarnations and shards

        self.start_incarnation = (
            f"INSERT INTO {s}.nodes ({names(NODE)}) VALUES ({parameters(NODE, 1)}) ON CONFLICT DO NOTHING RETURNING 1"
        )
        self.prove_node = f"SELECT {listed(NODE, 'i')} FROM {s}.nodes i WHERE i.incarnation = $1::text FOR SHARE"
        own = "i.incarnation = $1::text AND i.fenced_at_ms IS NULL"
        self.raise_frontier = (
            f"UPDATE {s}.nodes i SET frontier_ms = $2::bigint, hints = i.hints || $3::text::jsonb "
            f"WHERE {own} AND i.frontier_ms < $2::bigint RETURNING 1"
        )
        self.raise_slots = f"UPDATE {s}.nodes i SET slots = $2::int WHERE {own} AND i.slots < $2::int RETURNING 1"
        self.fence = (
            f"UPDATE {s}.nodes i SET fenced_at_ms = coalesce(i.fenced_at_ms, $2::bigint) WHERE i.incarnation = $1::text "
            f"RETURNING {listed(NODE, 'i')}"
        )
        self.delete_node = (
            f"DELETE FROM {s}.nodes i WHERE i.incarnation = $1::text AND i.fenced_at_ms IS NOT NULL RETURNING 1"
        )
        # The taker's item is locked first, so that its fence comes wholly before or wholly after this statement.
        self.take_shards = (
            f"WITH taker AS MATERIALIZED (SELECT 1 FROM {s}.nodes i "
            f"WHERE i.incarnation = $1::text AND i.fenced_at_ms IS NULL FOR SHARE), "
            f"claims AS MATERIALIZED "
            f"(SELECT * FROM unnest($2::int[], $3::bigint[], $4::bigint[]) AS c(shard, epoch, floor_ms)), "
            f"there AS MATERIALIZED (SELECT s.shard FROM {s}.shards s WHERE s.shard = ANY($2::int[]) "
            f"AND EXISTS (SELECT 1 FROM taker) "
            f"AND s.epoch = (SELECT c.epoch FROM claims c WHERE c.shard = s.shard) ORDER BY s.shard FOR UPDATE), "
            f"given AS (UPDATE {s}.shards s SET epoch = c.epoch + 1, owner = $1::text, floor_ms = c.floor_ms FROM claims c "
            f"WHERE s.shard = c.shard AND s.shard = ANY($2::int[]) "
            f"AND (SELECT count(*) FROM there) = cardinality($2::int[]) RETURNING 1) "
            f"SELECT CASE WHEN (SELECT count(*) FROM given) = cardinality($2::int[]) THEN 1 ELSE {self.refuse} END"
        )
        self.prove_shards = (
            f"SELECT s.shard, {listed(SHARD, 's')} FROM {s}.shards s "
            f"WHERE s.shard = ANY($1::int[]) ORDER BY s.shard FOR SHARE"
        )
        self.release_shard = (
            f"UPDATE {s}.shards s SET owner = NULL, floor_ms = $4::bigint "
            f"WHERE s.shard = $1::int AND s.epoch = $2::bigint AND s.owner = $3::text RETURNING 1"
        )

        # --- pages and ends

        before = "ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING"
        # Cut at the size without reading what is behind: the size of a stored value is known without the value.
        self.read_pages = (
            f"SELECT w.n::int, {names(ROW, 'q')} FROM unnest($1::int[], $2::text[]) WITH ORDINALITY AS w(shard, after, n) "
            f"CROSS JOIN LATERAL (SELECT r.*, "
            f"sum(octet_length(r.task_data) + coalesce(octet_length(r.headers), 0) + {ROW_OVERHEAD_BYTES}) "
            f"OVER (ORDER BY r.position {before}) AS before FROM (SELECT {row}, r.position AS place FROM {s}.rows r "
            f"WHERE r.shard = w.shard AND r.position > w.after::numeric ORDER BY r.position LIMIT $3::int) r) q "
            f"WHERE q.before IS NULL OR q.before <= $4::bigint ORDER BY w.n, q.place"
        ).replace("OVER (ORDER BY r.position ", "OVER (ORDER BY r.place ")
        first = 2
        ends = f"e AS MATERIALIZED (SELECT {cast(_ENDED)} FROM {unnest(_ENDED, first)})"
        content = ", ".join(f"CASE WHEN e.with_content THEN gone.{name} END" for name, _ in CONTENT)
        replaced = ", ".join(f"{name} = excluded.{name}" for name, _ in OUTCOME[3:])
        or_stands = (
            f"ON CONFLICT (client_id, schedule_key, position) DO UPDATE SET {replaced} "
            f"WHERE NOT (SELECT e.only_if_absent FROM e WHERE e.position = excluded.position)"
        )
        last = first + len(_ENDED)
        # Between the lowest and the highest: a plan that was made for an almost empty table compares each row of the shard.
        self.finish = (
            f"WITH {ends}, gone AS (DELETE FROM {s}.rows r WHERE r.shard = $1::int "
            f"AND r.position BETWEEN (SELECT min(position) FROM e) AND (SELECT max(position) FROM e) "
            f"AND r.position = ANY(${first + 2}::text[]::numeric[]) RETURNING r.*), "
            f"ended AS (INSERT INTO {s}.outcomes ({names(OUTCOME)}) "
            f"SELECT {names(END, 'e')}, {content}, ${last}::int FROM gone JOIN e ON e.position = gone.position "
            f"WHERE e.state IS NOT NULL {or_stands}) SELECT gone.shard, gone.position::text FROM gone"
        )
        whole = (*OUTCOME, ("only_if_absent", "boolean"))
        self.put_outcomes = (
            f"WITH e AS MATERIALIZED (SELECT {cast(whole)} FROM {unnest(whole)}) "
            f"INSERT INTO {s}.outcomes ({names(OUTCOME)}) SELECT {names(OUTCOME)} FROM e "
            f"ORDER BY client_id, schedule_key, position {or_stands}"
        )

        # --- search

        self.list_pointers = {
            descending: (
                f"SELECT {pointer} FROM {s}.pointers p WHERE p.client_id = $1::text "
                f"AND p.position BETWEEN $2::text::numeric AND $3::text::numeric "
                f"ORDER BY p.position{' DESC' if descending else ''} LIMIT $4::int"
            )
            for descending in (False, True)
        }
        self.count_pointers = (
            f"SELECT count(*)::int FROM (SELECT 1 FROM {s}.pointers p WHERE p.client_id = $1::text "
            f"AND p.position >= $2::text::numeric ORDER BY p.position LIMIT $3::int) q"
        )
        self.read_ended = (
            f"SELECT o.position::text FROM {s}.outcomes o WHERE o.client_id = $1::text AND o.schedule_key = $2::bytea"
        )

        # --- pauses

        self.read_pauses = f"SELECT version, body, format FROM {s}.pauses"
        self.first_pauses = (
            f"INSERT INTO {s}.pauses (version, body, format) VALUES ($1::bigint, $2::bytea, $3::int) "
            f"ON CONFLICT DO NOTHING RETURNING 1"
        )
        self.next_pauses = (
            f"UPDATE {s}.pauses SET version = $1::bigint, body = $2::bytea, format = $3::int "
            f"WHERE one AND version = $1::bigint - 1 RETURNING 1"
        )

    def _noted(self, first: int, *, note_stands: bool, key: str) -> str:
        return noted(f"{self.schema}.command_notes", "schedule_key", first, note_stands=note_stands, key=key)

    def _all_of(self, *parts: str) -> str:
        """The last SELECT: each of these parts has written one row, or nothing is done."""
        done = " AND ".join(f"(SELECT count(*) FROM {part}) = 1" for part in parts)
        return f"SELECT CASE WHEN {done} THEN 1 ELSE {self.refuse} END"
