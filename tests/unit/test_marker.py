"""The marker: what a new owner learns about its predecessor's last transactions. Never a guess."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clockwork.domain.marker import ENTRIES_MAX, MarkerEntry, decode, encode
from clockwork.domain.position import Position
from clockwork.domain.schedule import Failure, Receipt
from clockwork.errors import NewerFormat, Unreadable
from tests.support.builders import position, receipt

DELIVERED = MarkerEntry(position=position(), at_ms=1_700_000_000_005, receipt=receipt(41, kafka_partition=2))
FAILED = MarkerEntry(
    position=position(),
    at_ms=1_700_000_000_005,
    receipt=receipt(42),
    failure=Failure(reason="record_too_large", attempts=8),
)

int_fields = st.integers(-1, 2**63 - 1)
failures = st.builds(Failure, reason=st.text(max_size=30), attempts=st.integers(0, 100))
positions = st.integers(0, 10**38 - 1).map(Position)
with_record = st.builds(
    lambda position, where, failure: MarkerEntry(position=position, at_ms=where.at_ms, receipt=where, failure=failure),
    positions,
    st.builds(Receipt, kafka_partition=int_fields, offset=int_fields, at_ms=int_fields),
    st.none() | failures,
)
dropped = st.builds(MarkerEntry, position=positions, at_ms=int_fields, receipt=st.none(), failure=failures)
entries = with_record | dropped


@given(st.lists(entries, max_size=20))
def test_a_marker_is_read_as_it_was_written(written: list[MarkerEntry]) -> None:
    assert decode(encode(written)) == tuple(written)


def test_an_empty_marker_says_that_all_is_tidied_up() -> None:
    assert decode(encode([])) == ()


def test_its_stored_form_stays_the_one_that_older_nodes_read() -> None:
    text = b'{"v":1,"ended":[["1700000000000.5",2,41,1700000000005],["5",0,42,6,"record_too_large",8]]}'

    delivered, failed = decode(text)

    assert delivered.receipt == Receipt(kafka_partition=2, offset=41, at_ms=1_700_000_000_005)
    assert delivered.failure is None
    assert failed.failure == Failure(reason="record_too_large", attempts=8)


def test_the_largest_marker_stays_far_below_the_limit_of_a_record() -> None:
    failure = Failure(reason="attempts_exhausted", attempts=100)
    where = Receipt(kafka_partition=9_999, offset=10**12, at_ms=10**13)

    value = encode(
        MarkerEntry(position=position(), at_ms=where.at_ms, receipt=where, failure=failure) for _ in range(ENTRIES_MAX)
    )

    assert len(value) < 300_000


def test_one_entry_too_many_is_an_error_of_the_runner() -> None:
    with pytest.raises(ValueError, match="cleanup"):
        encode([DELIVERED] * (ENTRIES_MAX + 1))


def test_a_marker_of_a_newer_format_is_told_apart_from_a_broken_one() -> None:
    with pytest.raises(NewerFormat):
        decode(b'{"v":2,"something":"else"}')


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"ended":[]}',
        b'{"v":1}',
        b'{"v":1,"ended":{}}',
        b'{"v":1,"ended":null}',
        b'{"v":1,"ended":"abcdef"}',
        b'{"v":1,"ended":["123456"]}',
        b'{"v":0,"ended":[]}',
        b'{"v":-1,"ended":[]}',
        b'{"v":true,"ended":[]}',
        b'{"v":"1","ended":[]}',
        b'{"v":1.0,"ended":[]}',
        b'{"v":NaN,"ended":[]}',
        b'{"v":null,"ended":[]}',
    ],
)
def test_a_value_that_is_no_marker_is_unreadable_and_never_an_empty_one(value: bytes) -> None:
    with pytest.raises(Unreadable) as raised:
        decode(value)

    assert not isinstance(raised.value, NewerFormat)


@pytest.mark.parametrize(
    "entry",
    [
        [],
        ["5", 0, 1],
        ["5", 0, 1, 2, "only a reason"],
        ["5", 0, 1, 2, "reason", 1, "more"],
        [5, 0, 1, 2],
        ["-5", 0, 1, 2],
        ["5", None, 1, 2],
        ["5", True, 1, 2],
        ["5", 0, "1", 2],
        ["5", 0, 1, 2.5],
        ["5", 0, 1, 2, "reason", None],
        None,
    ],
)
def test_one_unreadable_entry_makes_the_whole_marker_unreadable(entry: object) -> None:
    good = json.loads(encode([DELIVERED, FAILED]))
    good["ended"].insert(1, entry)

    with pytest.raises(Unreadable):
        decode(json.dumps(good).encode())


@given(st.binary(max_size=64))
def test_no_bytes_raise_any_other_error(value: bytes) -> None:
    with contextlib.suppress(Unreadable):
        decode(value)
