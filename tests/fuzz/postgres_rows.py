"""Rows of PostgreSQL as no release wrote them: each column may hold whatever its type and the table allow.

What the table refuses (a null, a position that is none) cannot be there, so it is no example; what PostgreSQL refuses of the
rest, such as U+0000 in a text, is told by it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import strategies as st

from clockwork.domain.schedule import BrokenRow, Row
from clockwork.stores.postgres import codec
from tests.fuzz.rows import TEXTS
from tests.support.builders import DUE_MS

CAMPAIGN: Final = "rows of PostgreSQL"
COLUMNS: Final[Mapping[str, str]] = dict(codec.ROW)
"""Their types."""
PLACE: Final = ("shard", "position")
NULLABLE: Final = frozenset(
    {
        "hold",
        "retry_at_ms",
        "retry_epoch",
        "retry_attempts",
        "retry_refusal",
        "headers",
        "traceparent",
        "deadline_ms",
        "on_late",
        "retry_policy",
    }
)
_INTEGERS: Final = [0, 1, 2, 99, -1, DUE_MS, DUE_MS + 30_000, DUE_MS + 10**9]
_JSON: Final = st.sampled_from(
    [b"", b"{", b"[]", b"1", b"null", b'{"a":1}', b'{"a":"b"}', b'{"attempts":"x"}', b'{"a":"\\ud800"}', b"[" * 2_000]
)
_POLICIES: Final = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("attempts", "initial", "max", "factorPercent", "jitterPercent"), st.sampled_from(_INTEGERS)
    ),
).map(lambda policy: repr(policy).replace("'", '"').encode())
_VALUES: Final[Mapping[str, st.SearchStrategy[Any]]] = {
    "text": TEXTS,
    "bytea": st.one_of(TEXTS.map(str.encode), st.sampled_from([b"\xff", b"\xed\xa0\x80", b"\x00"]), _JSON, _POLICIES),
    "int": st.sampled_from([0, 1, 2, 99, -1, 2**31 - 1, -(2**31)]),
    "bigint": st.sampled_from([*_INTEGERS, 2**63 - 1, -(2**63)]),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """The change of a row that was sound."""

    changed: tuple[tuple[str, Any], ...]

    def done_to(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """The values of `codec.ROW`, with the changed ones."""
        changed = dict(self.changed)
        return tuple(changed.get(name, value) for name, value in zip(COLUMNS, values, strict=True))

    def row(self, sound: Row) -> Row | BrokenRow:
        """The damaged row, as PostgreSQL's codec reads it."""
        return codec.row_of(self.done_to(codec.row_values(sound)))


def _change_of(name: str) -> st.SearchStrategy[tuple[str, Any]]:
    values = _VALUES[COLUMNS[name]]
    return st.tuples(st.just(name), values | st.none() if name in NULLABLE else values)


_WHOLE: Final = st.sampled_from(
    [
        (("format", 2),),
        (("format", 2), ("guarantee", "a word of next year")),
        (("topic", "nowhere"),),
        (("guarantee", "at_least_once"),),
        (("deadline_ms", 0), ("on_late", "drop")),
        (("deadline_ms", 0), ("on_late", "dead_letter"), ("guarantee", "at_least_once")),
        (("retry_at_ms", DUE_MS + 30_000), ("retry_epoch", 1), ("retry_attempts", 1)),
        (("task_data", b"x" * 900_000),),
        (("ordering_key", b'"' * 900_000), ("guarantee", "twice")),
        (("topic", "t" * 390_000),),
    ]
)
"""Sound in themselves, or larger than any that the service writes."""
DAMAGES: Final = st.builds(
    Damage,
    changed=_WHOLE
    | st.lists(st.one_of([_change_of(name) for name in COLUMNS if name not in PLACE]), min_size=1, max_size=3).map(
        tuple
    ),
)
