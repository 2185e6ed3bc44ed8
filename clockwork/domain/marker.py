"""The marker: the record that each delivering Kafka transaction writes about itself.

It names the rows of its own transaction *and* those of every earlier one of its slot that were not deleted yet when it was
sent: if it named only its own, a crash after the next commit would let the earlier rows be fired again
(docs/protocol.md: x-forget-tidy). Each entry has how the row ended and the receipt of its record, so that the outcome
written after a take-over equals the one that the dead owner would have written.

One key per slot, `<incarnation>/<slot>`: two slots send at once, and under one key the later marker, made before the
other slot's rows were delivered, would hide them (docs/protocol.md: x-marker-per-inc). The Kafka partition follows from the
key by Kafka's own rule.

The form is binary, 39 bytes for a delivered row, as each transaction writes up to `ENTRIES_MAX` of them:

    header   "CM", format (1 byte), CRC-32 of all that follows (4), number of entries (4)
    entry    flags (1: it has a record, 2: it has a failure; at least one), shard (2), position (16), time of the end (8)
             record    Kafka partition (4), offset (8)
             failure   attempts (4), length of the reason (1), reason in UTF-8

Kafka's own checksum ends at its client, so the marker has one of its own: to take damaged bytes for other rows would
delete rows that were never delivered.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from clockwork.domain.ownership import IncarnationId
from clockwork.domain.position import LAST, Position
from clockwork.domain.schedule import Failure, Receipt
from clockwork.domain.sharding import ShardId
from clockwork.errors import NewerFormat, Unreadable

FORMAT: Final = 1
ENTRIES_MAX: Final = 2_500
"""Rows of one slot that await cleanup, the transaction's own included. A marker of as many failed rows stays below
200 KB, well under Kafka's default limit of 1 MB a record."""

_MAGIC: Final = b"CM"
_HEADER: Final = struct.Struct(">2sBII")
_CHECKED_FROM: Final = 7
"""The checksum covers everything behind itself."""
_ENTRY: Final = struct.Struct(">BHQQq")
_RECORD: Final = struct.Struct(">iq")
_DELIVERED: Final = struct.Struct(">BHQQqiq")
"""An entry and its record in one: nearly all entries are that."""
_FAILURE: Final = struct.Struct(">IB")
_HAS_RECORD: Final = 1
_HAS_FAILURE: Final = 2
_LOW_BITS: Final = 64
_LOW_MASK: Final = 2**_LOW_BITS - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class MarkerEntry:
    """One entry: this position was delivered, or failed with a dead letter, or was dropped."""

    shard: ShardId
    position: Position
    at_ms: int
    """Time of the end: the record's timestamp, if there is one."""
    receipt: Receipt | None
    """None: dropped."""
    failure: Failure | None = None
    """None: delivered."""


def marker_key(incarnation: IncarnationId, slot: int) -> bytes:
    """The key of the markers of one slot."""
    return f"{incarnation}/{slot}".encode()


def barrier_key(reader: IncarnationId) -> bytes:
    """The key of the barriers by which an incarnation reads markers; no slot has it, as slots are numbered."""
    return f"{reader}/barrier".encode()


def encode(entries: Iterable[MarkerEntry]) -> bytes:
    """The marker's value. Raises: ValueError (too many entries, or one that no marker can hold)."""
    packed = [_packed(entry) for entry in entries]
    if len(packed) > ENTRIES_MAX:
        raise ValueError(f"a marker of {len(packed)} entries; its owner must wait for cleanup")
    body = b"".join((len(packed).to_bytes(4, "big"), *packed))
    return b"".join((_MAGIC, bytes((FORMAT,)), crc32(body).to_bytes(4, "big"), body))


def decode(value: bytes) -> tuple[MarkerEntry, ...]:
    """Reads a marker's value.

    Raises: NewerFormat, Unreadable. The shards of the marker's incarnation must not be taken then: its delivered rows are
    not known.
    """
    if len(value) < len(_MAGIC) + 1 or not value.startswith(_MAGIC):
        raise Unreadable(f"no marker: {value[:16]!r}")
    version = value[len(_MAGIC)]
    if version > FORMAT:
        raise NewerFormat(f"marker of format {version}")
    try:
        _magic, _version, checksum, count = _HEADER.unpack_from(value)
        if version < FORMAT or crc32(memoryview(value)[_CHECKED_FROM:]) != checksum:
            raise Unreadable(f"marker of format {version}: damaged")
        return _unpacked(value, count)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise Unreadable(f"marker: {error!r}") from error


def _packed(entry: MarkerEntry) -> bytes:
    position, receipt, failure = entry.position, entry.receipt, entry.failure
    high, low = position >> _LOW_BITS, position & _LOW_MASK
    try:
        if failure is None and receipt is not None:
            where = receipt.kafka_partition, receipt.offset
            return _DELIVERED.pack(_HAS_RECORD, entry.shard, high, low, entry.at_ms, *where)
        if failure is None:
            raise ValueError("a marker's entry has neither a record nor a reason")
        reason = failure.reason.encode()
        flags = _HAS_FAILURE if receipt is None else _HAS_FAILURE | _HAS_RECORD
        return b"".join(
            (
                _ENTRY.pack(flags, entry.shard, high, low, entry.at_ms),
                b"" if receipt is None else _RECORD.pack(receipt.kafka_partition, receipt.offset),
                _FAILURE.pack(failure.attempts, len(reason)),
                reason,
            )
        )
    except struct.error as error:
        raise ValueError(f"no marker can hold {entry!r}: {error}") from error


def _unpacked(value: bytes, count: int) -> tuple[MarkerEntry, ...]:
    entries: list[MarkerEntry] = []
    at = _HEADER.size
    for _ in range(count):
        flags, shard, high, low, at_ms = _ENTRY.unpack_from(value, at)
        at += _ENTRY.size
        position = Position(high << _LOW_BITS | low)
        if not 0 < flags <= _HAS_RECORD | _HAS_FAILURE or position > LAST:
            raise Unreadable("marker: an entry that no version of it has")
        receipt, failure = None, None
        if flags & _HAS_RECORD:
            kafka_partition, offset = _RECORD.unpack_from(value, at)
            at += _RECORD.size
            receipt = Receipt(kafka_partition=kafka_partition, offset=offset, at_ms=at_ms)
        if flags & _HAS_FAILURE:
            attempts, length = _FAILURE.unpack_from(value, at)
            at += _FAILURE.size
            failure = Failure(reason=value[at : at + length].decode(), attempts=attempts)
            at += length
        entries.append(
            MarkerEntry(shard=ShardId(shard), position=position, at_ms=at_ms, receipt=receipt, failure=failure)
        )
    if at != len(value):
        raise Unreadable("marker: more or fewer bytes than its entries have")
    return tuple(entries)
