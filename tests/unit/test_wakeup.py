"""Wake-ups: hints on a topic to which any program might write, so nothing in them may do harm."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clockwork.domain.position import position_of
from clockwork.domain.wakeup import NewlyDue, Wanted, decode, encode
from clockwork.errors import Unreadable
from tests.support.builders import position


def test_news_of_a_due_time_survive_the_topic() -> None:
    assert decode(encode(NewlyDue(1_700_000_000_000))) == NewlyDue(1_700_000_000_000)


def test_a_wanted_position_survives_the_topic_exactly() -> None:
    wanted = Wanted(position(random=1))

    assert decode(encode(wanted)) == wanted


def test_its_form_on_the_topic_stays_the_documented_one() -> None:
    # Nodes of two versions talk to each other during an upgrade.
    assert encode(NewlyDue(5)) == b'{"due": 5}'
    assert decode(b'{"position": "1700000000000.5", "later": "field"}') == Wanted(position_of("1700000000000.5"))


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"null",
        b"7",
        b'"position"',
        b'["position"]',
        b"{}",
        b'{"due": "5"}',
        b'{"due": 5.0}',
        b'{"due": true}',
        b'{"due": null}',
        b'{"position": 5}',
        b'{"position": "-5"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"due": ' + b"9" * 5_000 + b"}",
    ],
)
def test_anything_else_is_unreadable_and_nothing_worse(value: bytes | None) -> None:
    with pytest.raises(Unreadable):
        decode(value)


@given(st.binary(max_size=64))
def test_no_bytes_raise_any_other_error(value: bytes) -> None:
    with contextlib.suppress(Unreadable):
        decode(value)
