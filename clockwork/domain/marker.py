"""The marker: the record that each delivering Kafka transaction writes about itself.

It names the positions of its own batch *and* of every earlier one whose row is not deleted yet: if it named only its
own, a crash after the next commit would let the earlier rows be fired again (docs/protocol.md: x-forget-tidy). Each
entry has how the row ended and the receipt of its record, so that the outcome written after a take-over equals the
one that the dead owner would have written.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from clockwork.domain.position import Position, position_of, text_of
from clockwork.domain.schedule import Failure, Receipt
from clockwork.errors import NewerFormat, Unreadable

FORMAT: Final = 1
KEY: Final = b"marker"
"""One key: the topic is compacted, and only the last marker of a shard matters."""
ENTRIES_MAX: Final = 2_500
"""Rows that await cleanup, batch included. At about 110 bytes each a marker stays below 300 KB, well under Kafka's
default limit of 1 MB a record."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MarkerEntry:
    """One entry: this position was delivered, or failed with a dead letter, or was dropped."""

    position: Position
    at_ms: int
    """Time of the end: the record's timestamp, if there is one."""
    receipt: Receipt | None
    """None: dropped."""
    failure: Failure | None = None
    """None: delivered."""


def encode(entries: Iterable[MarkerEntry]) -> bytes:
    """The marker's value."""
    listed = [_entry(e) for e in entries]
    if len(listed) > ENTRIES_MAX:
        raise ValueError(f"a marker of {len(listed)} entries; its owner must wait for cleanup")
    return json.dumps({"v": FORMAT, "ended": listed}, separators=(",", ":")).encode()


def decode(value: bytes) -> tuple[MarkerEntry, ...]:
    """Reads a marker's value.

    Raises: NewerFormat, Unreadable. The shard must not be worked then: its delivered rows are not known.
    """
    try:
        document = json.loads(value)
        version = _int(document["v"])
        if version > FORMAT:
            raise NewerFormat(f"marker of format {version}")
        if version < 1 or not isinstance(document["ended"], list):
            raise Unreadable(f"marker of format {version}")
        return tuple(_ended(entry) for entry in document["ended"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unreadable(f"marker: {error!r}") from error


def _entry(ended: MarkerEntry) -> list[Any]:
    receipt = ended.receipt
    where = [None, None] if receipt is None else [receipt.kafka_partition, receipt.offset]
    entry: list[Any] = [text_of(ended.position), *where, ended.at_ms]
    if ended.failure is not None:
        entry += [ended.failure.reason, ended.failure.attempts]
    return entry


def _ended(entry: object) -> MarkerEntry:
    if not isinstance(entry, list) or len(entry) not in (4, 6):
        raise Unreadable("marker: an entry has 4 or 6 fields")
    position, kafka_partition, offset, at_ms, *failed = entry
    receipt = None
    if kafka_partition is not None or offset is not None:
        receipt = Receipt(kafka_partition=_int(kafka_partition), offset=_int(offset), at_ms=_int(at_ms))
    failure = Failure(reason=str(failed[0]), attempts=_int(failed[1])) if failed else None
    if receipt is None and failure is None:
        raise Unreadable("marker: an entry without a record and without a reason")
    return MarkerEntry(position=position_of(position), at_ms=_int(at_ms), receipt=receipt, failure=failure)


def _int(value: object) -> int:
    """Checks for a whole number: `True` and `1.9` would pass through `int()`."""
    if type(value) is not int:
        raise Unreadable(f"marker: {value!r:.64} is not a whole number")
    return value
