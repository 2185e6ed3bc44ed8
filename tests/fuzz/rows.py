"""Rows as no release wrote them, read by a real codec and fired by the engine in memory; here DynamoDB's items,
and those of PostgreSQL in `postgres_rows`.

Beside each of them stand two sound rows: one in a lane of its own, and one that is behind the bad one in its lane.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import strategies as st

from clockwork.domain.record import DEAD_REASON
from clockwork.domain.schedule import BrokenRow, Lane, Row
from clockwork.stores.dynamodb import attributes as fields
from clockwork.stores.dynamodb import codec
from tests.fuzz.tally import Tally
from tests.support import builders
from tests.support.builders import DUE_MS
from tests.support.engine import Engine

CAMPAIGN: Final = "rows"
NAMES: Final = (
    "v",
    "clientId",
    "scheduleKey",
    "orderingKey",
    "taskData",
    "taskDataForm",
    "topic",
    "guarantee",
    "headers",
    "createdAt",
    "version",
    "deliveryId",
    "traceparent",
    "deadline",
    "onLate",
    "retryPolicy",
    "hold",
    "retry",
    "of next year",
)
NUMBERS: Final = st.sampled_from(
    [
        "0",
        "1",
        "2",
        "99",
        "-1",
        "1.5",
        "1E5",
        "1E-5",
        "9" * 19,
        "9" * 38,
        "-" + "9" * 19,
        "1E125",
        str(DUE_MS),
        "1" * 14,
    ]
)
TEXTS: Final = st.one_of(
    st.sampled_from(
        ["", "a", "json", "base64", "exactly_once", "at_least_once", "deliver", "drop", "dead_letter", "orders"]
    ),
    st.sampled_from(["..", "a/b", "a b", "ü", "\x00", "clockwork-deliveries", "nowhere"]),
    st.builds(lambda char, count: char * count, st.sampled_from('t"'), st.sampled_from([300, 3_000, 40_000])),
    st.text(st.characters(codec="utf-8"), max_size=20),
)
_LEAVES: Final[st.SearchStrategy[Any]] = st.one_of(
    TEXTS.map(lambda t: {"S": t}),
    NUMBERS.map(lambda n: {"N": n}),
    st.sampled_from(
        [{"B": "/w=="}, {"B": ""}, {"NULL": True}, {"BOOL": False}, {"SS": ["a"]}, {"NS": ["1"]}, {"L": []}]
    ),
)
_RETRIES: Final = st.fixed_dictionaries({}, optional=dict.fromkeys(("at", "epoch", "attempts", "x"), _LEAVES)).map(
    lambda inner: {"M": inner}
)
_POLICIES: Final = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("attempts", "initial", "max", "factorPercent", "jitterPercent"), _LEAVES)
).map(lambda inner: {"M": inner})
ATTRIBUTES: Final = st.recursive(
    _LEAVES | _RETRIES | _POLICIES,
    lambda inner: (
        st.lists(inner, max_size=2).map(lambda items: {"L": items})
        | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3).map(lambda items: {"M": items})
    ),
    max_leaves=4,
)
POSITIONS: Final = st.sampled_from(
    [
        "0",
        "-5",
        "1.5",
        "1E-100",
        "1E125",
        "12345E-40",
        "1",
        f"{DUE_MS}",
        f"{DUE_MS}.5",
        f"{DUE_MS}.{'1' * 25}",
        "9" * 38,
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """The change of an item that was sound."""

    without: frozenset[str] = frozenset()
    changed: tuple[tuple[str, Any], ...] = ()
    padded_bytes: int = 0
    """Of `taskData`: an item has at most 400 KB."""

    def done_to(self, item: dict[str, Any]) -> dict[str, Any]:
        item = {name: value for name, value in item.items() if name not in self.without} | dict(self.changed)
        if self.padded_bytes:
            item["taskData"] = fields.of_bytes(b"x" * self.padded_bytes)
        return item


def _numbers(*names: str) -> st.SearchStrategy[tuple[str, Any]]:
    return st.tuples(st.sampled_from(names), NUMBERS.map(lambda n: {"N": n}))


_ODD_TIMES: Final = st.sampled_from([0, 1, DUE_MS, DUE_MS + 30_000, DUE_MS + 10**9, 10**18]).map(
    lambda n: {"N": str(n)}
)
_OF_THE_RIGHT_TYPE: Final[st.SearchStrategy[tuple[str, Any]]] = st.one_of(
    _numbers("deadline", "createdAt", "version", "v"),
    st.tuples(
        st.sampled_from(
            ["topic", "guarantee", "onLate", "hold", "orderingKey", "deliveryId", "traceparent", "taskDataForm"]
        ),
        TEXTS.map(lambda text: {"S": text}),
    ),
    st.tuples(
        st.just("retry"),
        st.fixed_dictionaries({"at": _ODD_TIMES, "epoch": _ODD_TIMES, "attempts": _ODD_TIMES}).map(lambda m: {"M": m}),
    ),
    st.tuples(
        st.just("retryPolicy"),
        st.fixed_dictionaries(
            dict.fromkeys(("attempts", "initial", "max", "factorPercent", "jitterPercent"), _ODD_TIMES)
        ).map(lambda m: {"M": m}),
    ),
    st.tuples(
        st.just("headers"), st.dictionaries(TEXTS, TEXTS.map(lambda t: {"S": t}), max_size=3).map(lambda m: {"M": m})
    ),
)
_WHOLE: Final = st.sampled_from(
    [
        (("v", {"N": "2"}),),
        (("v", {"N": "2"}), ("guarantee", {"S": "a word of next year"})),
        (("topic", {"S": "nowhere"}),),
        (("guarantee", {"S": "at_least_once"}),),
        (("deadline", {"N": "0"}), ("onLate", {"S": "drop"})),
        (("deadline", {"N": "0"}), ("onLate", {"S": "dead_letter"}), ("guarantee", {"S": "at_least_once"})),
    ]
)
"""Sound in themselves."""
_PADDED_BYTES: Final = st.sampled_from([0] * 19 + [380_000])
DAMAGES: Final = st.one_of(
    st.builds(
        Damage,
        without=st.frozensets(st.sampled_from(NAMES), max_size=2),
        changed=st.lists(st.tuples(st.sampled_from(NAMES), ATTRIBUTES), max_size=3).map(tuple),
        padded_bytes=_PADDED_BYTES,
    ),
    st.builds(Damage, changed=_WHOLE, padded_bytes=_PADDED_BYTES),
    st.builds(
        Damage, changed=st.lists(_OF_THE_RIGHT_TYPE, min_size=1, max_size=3).map(tuple), padded_bytes=_PADDED_BYTES
    ),
)


def dynamo_row(sound: Row, damage: Damage, at: str | None) -> Row | BrokenRow | None:
    """The damaged row as DynamoDB's codec reads it; None: at no position at all."""
    item = damage.done_to(codec.row_item(sound))
    position = codec.position_of_row(item if at is None else item | {"scheduleTime": {"N": at}})
    return None if position is None else codec.row_of(item, shard=builders.SHARD, position=position)


async def check(read: Callable[[Row], Row | BrokenRow | None], tally: Tally, campaign: str = CAMPAIGN) -> None:
    """Plants a row, as `read` damages it and a store's codec reads it, and fires the shard. Raises: AssertionError if
    anything sound is lost, or what is not sound is gone without a trace."""
    engine = Engine(retry_attempts=2)
    bad = read(builders.row(builders.schedule(schedule_key="bad", ordering_key="lane")))
    behind = builders.row(builders.schedule(schedule_key="behind", ordering_key="lane"))
    beside = builders.row(builders.schedule(schedule_key="beside"))
    await engine.put(behind, beside)
    if bad is not None:
        engine.store.put_by_hand(bad)
    engine.at_due(late_ms=1)
    lease = await engine.own()
    for _ in range(4):
        await engine.one_pass(lease)
        await lease.cleanup.finish()
    became = "left out: where no position is" if bad is None else await _became(engine, bad)
    arrived = engine.arrived()
    assert arrived.count("beside") == 1, f"what is beside {bad} was not delivered: {became}"
    held_back = became.startswith("waits") and bad is not None and _lane_of(bad) == behind.schedule.lane
    assert held_back or arrived.count("behind") == 1, f"what is behind {bad} was not delivered: {became}"
    tally.add(campaign, became)


async def _became(engine: Engine, bad: Row | BrokenRow) -> str:
    there = await engine.store.read_row(bad.name)
    if there is None:
        letters = [dict(one.headers) for one in engine.kafka.read_committed(engine.settings.dead_letter_topic)]
        outcomes = [one for one in engine.store.outcomes.values() if one.position == bad.position]
        assert letters or outcomes, f"gone without a trace: {bad}"
        if letters:
            return f"dead letter: {letters[0][DEAD_REASON].decode()}"
        return outcomes[0].state + (f": {outcomes[0].failure.reason}" if outcomes[0].failure else "")
    if isinstance(there, BrokenRow):
        assert there.newer_format, f"a row that cannot be read stands where it stood: {there.reason}"
        return "waits: of a newer format"
    if not engine.kafka.has_topic(there.schedule.topic):
        return "waits: its topic is missing"
    assert there.retry is not None, f"a sound row stands where it stood: {there}"
    return "waits: its retry lies ahead"


def _lane_of(row: Row | BrokenRow) -> Lane | None:
    return row.lane if isinstance(row, BrokenRow) else row.schedule.lane
