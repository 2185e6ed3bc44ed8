"""The sort key: exact, ordered by due time and then by acceptance, the same through every spelling of its number."""

from decimal import Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clockwork.domain.position import (
    POINTER_POSITION,
    Position,
    accepted_ms_of,
    due_ms_of,
    new_position,
    position_of,
    text_of,
)
from clockwork.errors import Unreadable

DUE_MS = 1_700_000_000_123
ACCEPTED_US = 1_699_999_000_000_456

due_times = st.integers(0, 10**14 - 1)
acceptances = st.integers(1, 10**16 - 1)
randoms = st.integers(0, 10**8 - 1)
positions = st.builds(
    lambda due_ms, accepted_us, random: new_position(due_ms=due_ms, accepted_us=accepted_us, random=random),
    due_times,
    acceptances,
    randoms,
)


def test_a_position_is_written_as_the_due_time_and_24_more_digits() -> None:
    position = new_position(due_ms=DUE_MS, accepted_us=ACCEPTED_US, random=42)

    assert text_of(position) == "1700000000123.169999900000045600000042"


@given(due_times, acceptances, randoms)
def test_every_part_of_a_position_is_found_again(due_ms: int, accepted_us: int, random: int) -> None:
    position = new_position(due_ms=due_ms, accepted_us=accepted_us, random=random)

    assert due_ms_of(position) == due_ms
    assert accepted_ms_of(position) == accepted_us // 1_000


@given(st.tuples(due_times, acceptances, randoms), st.tuples(due_times, acceptances, randoms))
def test_positions_are_ordered_by_due_time_then_acceptance(a: tuple[int, int, int], b: tuple[int, int, int]) -> None:
    first, second = (new_position(due_ms=p[0], accepted_us=p[1], random=p[2]) for p in (a, b))

    assert (first < second) == (a < b)


@given(positions)
def test_a_position_survives_its_text_and_every_other_spelling(position: Position) -> None:
    text = text_of(position)

    assert position_of(text) == position
    # DynamoDB drops zeros at the end, and number libraries write an exponent where they like it better.
    assert position_of(text.rstrip("0").rstrip(".")) == position
    assert position_of(str(Decimal(text))) == position
    assert position_of(str(Decimal(text).normalize(Context(prec=38)))) == position


@given(positions)
def test_a_stored_position_keeps_within_the_38_digits_of_dynamodb(position: Position) -> None:
    assert len(Decimal(text_of(position)).normalize(Context(prec=100)).as_tuple().digits) <= 38


@given(positions, positions)
def test_the_numbers_dynamodb_compares_are_ordered_as_the_positions(a: Position, b: Position) -> None:
    assert (Decimal(text_of(a)) < Decimal(text_of(b))) == (a < b)


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("0", 0),
        ("0.0", 0),
        ("100", 100 * 10**24),
        ("1E+2", 100 * 10**24),
        ("1.5E-9", 15 * 10**14),
        ("1E-24", 1),
        ("0001.50", 15 * 10**23),
    ],
)
def test_each_decimal_spelling_is_the_same_number(text: str, units: int) -> None:
    assert position_of(text) == units


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1\n",
        "-1",
        "+1",
        ".5",
        "1.",
        "1.2.3",
        "0x10",
        "NaN",
        "Infinity",
        "1_000",
        "١٢",
        "1E+14",
        "1E+125",
        "1E-25",
        "100000000000000",
        "1.0000000000000000000000001",
        "1" * 50,
    ],
)
def test_text_that_is_no_position_is_unreadable_not_guessed(text: str) -> None:
    with pytest.raises(Unreadable):
        position_of(text)


@pytest.mark.parametrize(
    ("due_ms", "accepted_us", "random"),
    [(-1, 1, 0), (10**14, 1, 0), (0, 0, 0), (0, 10**16, 0), (0, 1, -1), (0, 1, 10**8)],
)
def test_a_part_out_of_range_never_becomes_a_position(due_ms: int, accepted_us: int, random: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        new_position(due_ms=due_ms, accepted_us=accepted_us, random=random)


def test_no_schedule_can_stand_where_the_pointer_stands() -> None:
    lowest = new_position(due_ms=0, accepted_us=1, random=0)

    assert lowest > position_of(POINTER_POSITION)
