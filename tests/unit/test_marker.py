"""The marker: what a taker learns about the last transactions of a slot. Never a guess."""

import contextlib
import random
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clockwork.domain.marker import ENTRIES_MAX, FORMAT, MarkerEntry, barrier_key, decode, encode, marker_key
from clockwork.domain.ownership import IncarnationId
from clockwork.domain.position import LAST, Position, text_of
from clockwork.domain.schedule import Failure, Receipt
from clockwork.domain.sharding import ShardId
from clockwork.errors import NewerFormat, Unreadable
from clockwork.settings.model import SHARDS_MAX
from tests.support.builders import position, receipt

FAILED = MarkerEntry(
    shard=ShardId(7),
    position=position(),
    at_ms=1_700_000_000_005,
    receipt=receipt(42),
    failure=Failure(reason="record_too_large", attempts=8),
)

times = st.integers(0, 2**63 - 1)
shards = st.integers(0, SHARDS_MAX - 1).map(ShardId)
positions = st.integers(0, LAST).map(Position)
failures = st.builds(Failure, reason=st.text(max_size=60), attempts=st.integers(0, 2**32 - 1))
with_record = st.builds(
    lambda shard, position, where, failure: MarkerEntry(
        shard=shard, position=position, at_ms=where.at_ms, receipt=where, failure=failure
    ),
    shards,
    positions,
    st.builds(Receipt, kafka_partition=st.integers(0, 2**31 - 1), offset=st.integers(0, 2**63 - 1), at_ms=times),
    st.none() | failures,
)
dropped = st.builds(MarkerEntry, shard=shards, position=positions, at_ms=times, receipt=st.none(), failure=failures)
entries = with_record | dropped


def sealed(body: bytes, version: int = FORMAT) -> bytes:
    """A marker's value with this body, and a checksum that fits."""
    return b"CM" + bytes([version]) + crc32(body).to_bytes(4, "big") + body


@given(st.lists(entries, max_size=20))
def test_a_marker_is_read_as_it_was_written(written: list[MarkerEntry]) -> None:
    assert decode(encode(written)) == tuple(written)


def test_an_empty_marker_says_that_all_is_tidied_up() -> None:
    assert decode(encode([])) == ()


def test_its_stored_form_stays_the_one_that_older_nodes_read() -> None:
    # A position of 37 digits, 16 bytes of it; then a row with a dead letter, and a dropped one.
    value = bytes.fromhex(
        "434d" "01" "a4ccb9f0" "00000003"
        "01" "0007" "014768789fa207e7f84a69fa2c06804e" "0000018bcfe56805" "00000002" "0000000000000029"
        "03" "003f" "00000000000422ca8b0a00a425000000" "0000000000000006" "00000000" "000000000000002a"
        "00000008" "10" "7265636f72645f746f6f5f6c61726765"
        "02" "0000" "00000000000000000000000000000005" "0000000000000007" "00000000" "07" "65787069726564"
    )  # fmt: skip

    delivered, failed, dropped = decode(value)

    assert encode([delivered, failed, dropped]) == value
    assert (delivered.shard, text_of(delivered.position)) == (ShardId(7), "1700000000123.169999999999999912345678")
    assert delivered.receipt == Receipt(kafka_partition=2, offset=41, at_ms=1_700_000_000_005)
    assert delivered.failure is None
    assert failed.receipt == Receipt(kafka_partition=0, offset=42, at_ms=6)
    assert failed.failure == Failure(reason="record_too_large", attempts=8)
    assert dropped == MarkerEntry(
        shard=ShardId(0), position=Position(5), at_ms=7, receipt=None, failure=Failure(reason="expired", attempts=0)
    )


def test_the_largest_marker_stays_far_below_the_limit_of_a_record() -> None:
    failure = Failure(reason="attempts_exhausted", attempts=100)
    where = Receipt(kafka_partition=9_999, offset=10**12, at_ms=10**13)

    value = encode(
        MarkerEntry(shard=ShardId(9_999), position=position(), at_ms=where.at_ms, receipt=where, failure=failure)
        for _ in range(ENTRIES_MAX)
    )

    assert len(value) < 200_000


def test_one_entry_too_many_is_an_error_of_its_writer() -> None:
    with pytest.raises(ValueError, match="cleanup"):
        encode([FAILED] * (ENTRIES_MAX + 1))


@pytest.mark.parametrize(
    "entry",
    [
        MarkerEntry(shard=ShardId(1), position=position(), at_ms=1, receipt=None),
        MarkerEntry(shard=ShardId(-1), position=position(), at_ms=1, receipt=receipt(1)),
        MarkerEntry(shard=ShardId(2**16), position=position(), at_ms=1, receipt=receipt(1)),
        MarkerEntry(shard=ShardId(1), position=Position(-1), at_ms=1, receipt=receipt(1)),
        MarkerEntry(shard=ShardId(1), position=Position(2**128), at_ms=1, receipt=receipt(1)),
        MarkerEntry(shard=ShardId(1), position=position(), at_ms=2**63, receipt=receipt(1)),
        MarkerEntry(shard=ShardId(1), position=position(), at_ms=1, receipt=receipt(2**63)),
        MarkerEntry(
            shard=ShardId(1), position=position(), at_ms=1, receipt=None, failure=Failure(reason="x" * 256, attempts=1)
        ),
        MarkerEntry(
            shard=ShardId(1), position=position(), at_ms=1, receipt=None, failure=Failure(reason="x", attempts=-1)
        ),
    ],
)
def test_an_entry_that_would_be_read_otherwise_is_not_written(entry: MarkerEntry) -> None:
    with pytest.raises(ValueError, match=r"(?i)entry"):
        encode([entry])


def test_a_marker_of_a_newer_format_is_told_apart_from_a_damaged_one() -> None:
    with pytest.raises(NewerFormat):
        decode(b"CM" + bytes([FORMAT + 1]) + b"something else")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"C",
        b"CM",
        b"CM\x01",
        b'{"v":1,"ended":[]}',
        b"XX" + encode([])[2:],
        sealed(bytes(4), version=0),
        sealed(b""),
        sealed(bytes(3)),
        sealed(bytes(5)),
        sealed((1).to_bytes(4, "big")),
        sealed((2**32 - 1).to_bytes(4, "big")),
    ],
)
def test_a_value_that_is_no_marker_is_unreadable_and_never_an_empty_one(value: bytes) -> None:
    with pytest.raises(Unreadable) as raised:
        decode(value)

    assert not isinstance(raised.value, NewerFormat)


@pytest.mark.parametrize(
    ("at", "changed"),
    [
        (0, b"\x00"),  # neither a record nor a failure
        (0, b"\x04"),
        (0, b"\x07"),
        (3, b"\xff"),  # a position beyond all of them
        (0, b"\x01"),  # its failure would be left over
        (0, b"\x02"),  # the length of the reason would be a part of the offset
        (43, b"\x11"),  # a reason longer than the value
        (43, b"\x0f"),
        (44, b"\xff"),  # no UTF-8
    ],
)
def test_a_wrong_entry_makes_the_whole_marker_unreadable_though_its_checksum_fits(at: int, changed: bytes) -> None:
    body = bytearray(encode([FAILED])[7:])
    body[4 + at : 5 + at] = changed

    with pytest.raises(Unreadable):
        decode(sealed(bytes(body)))


@given(st.lists(entries, max_size=5), st.randoms(use_true_random=False))
def test_a_damaged_byte_anywhere_is_noticed(written: list[MarkerEntry], rng: random.Random) -> None:
    value = bytearray(encode(written))
    value[rng.randrange(len(value))] ^= rng.randrange(1, 256)

    with pytest.raises(Unreadable):
        decode(bytes(value))


@given(st.lists(entries, max_size=5), st.data())
def test_a_value_that_is_cut_off_is_noticed(written: list[MarkerEntry], data: st.DataObject) -> None:
    value = encode(written)

    with pytest.raises(Unreadable):
        decode(value[: data.draw(st.integers(0, len(value) - 1))])


@given(st.binary(max_size=64))
def test_no_bytes_raise_any_other_error(body: bytes) -> None:
    with contextlib.suppress(Unreadable):
        decode(body)
    with contextlib.suppress(Unreadable):
        decode(sealed(body))


def test_each_slot_has_a_key_of_its_own_and_barriers_have_another() -> None:
    incarnation = IncarnationId("00ff00ff00ff00ff.3")
    assert [marker_key(incarnation, slot) for slot in (0, 1)] == [b"00ff00ff00ff00ff.3/0", b"00ff00ff00ff00ff.3/1"]
    assert barrier_key(incarnation) == b"00ff00ff00ff00ff.3/barrier"
