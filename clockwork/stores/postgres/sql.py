"""Parts of statements: lists of columns, parameters, and the conditions that several statements share. Pure."""

from clockwork.stores.postgres.codec import FORMAT, Columns


def wire(kind: str) -> str:
    """The type of a parameter, and its conversion: decimals and JSON travel as text."""
    return f"text::{kind}" if kind in ("numeric", "jsonb") else kind


def listed(columns: Columns, table: str) -> str:
    """The columns of a table as they are read."""
    return ", ".join(
        f"{table}.{name}::text AS {name}" if kind in ("numeric", "jsonb") else f"{table}.{name}"
        for name, kind in columns
    )


def names(columns: Columns, table: str | None = None) -> str:
    """The columns' names."""
    return ", ".join(name if table is None else f"{table}.{name}" for name, _ in columns)


def parameters(columns: Columns, first: int) -> str:
    """A parameter for each column, numbered from `first` on."""
    return ", ".join(f"${first + number}::{wire(kind)}" for number, (_, kind) in enumerate(columns))


def unnest(columns: Columns, first: int = 1) -> str:
    """Arrays of columns as a table."""
    wires = ", ".join(
        f"${first + number}::{wire(kind).partition('::')[0]}[]" for number, (_, kind) in enumerate(columns)
    )
    return f"unnest({wires}) AS u({names(columns)})"


def cast(columns: Columns) -> str:
    """The columns of `unnest` with their own types."""
    return ", ".join(f"{name}::{kind} AS {name}" if kind == "numeric" else name for name, kind in columns)


def noted(table: str, key_column: str, first: int, *, note_stands: bool, key: str) -> str:
    """The CTE `noted`, which puts the first note of a key in this table, or moves the one that was read. `key`: a query for
    `client_id` and the other column of the key. Its parameters, from `first` on: places, by, expiry, places before."""
    places, by, expires, before = (f"${first + number}" for number in range(4))
    if note_stands:
        return (
            f"noted AS (UPDATE {table} m SET places = {places}::text, by = {by}::text, "
            f"expires_at_s = {expires}::bigint, format = {FORMAT} "
            f"WHERE m.client_id = (SELECT k.client_id FROM ({key}) k) "
            f"AND m.{key_column} = (SELECT k.{key_column} FROM ({key}) k) AND m.places = {before}::text RETURNING 1)"
        )
    return (
        f"noted AS (INSERT INTO {table} (client_id, {key_column}, places, by, expires_at_s, format) "
        f"SELECT k.client_id, k.{key_column}, {places}::text, {by}::text, {expires}::bigint, {FORMAT} FROM ({key}) k "
        f"WHERE {before}::text = '' ON CONFLICT DO NOTHING RETURNING 1)"
    )
