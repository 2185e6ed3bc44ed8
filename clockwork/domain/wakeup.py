"""Wake-ups: hints to a shard's owner to make a pass before its next scan.

A wake-up never names a row to fire. Losing one costs lateness of one scan interval; believing a
false one costs one read.
"""

import json
from dataclasses import dataclass

from clockwork.domain.position import Position, position_of, text_of
from clockwork.errors import Unreadable


@dataclass(frozen=True, slots=True)
class NewlyDue:
    """A new row is due at this time."""

    due_ms: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request holds the waiting row at this position and waits for an answer."""

    position: Position


WakeUp = NewlyDue | Wanted


def encode(wakeup: WakeUp) -> bytes:
    """The value of a record on the ownership topic."""
    match wakeup:
        case NewlyDue(due_ms):
            return json.dumps({"due": due_ms}).encode()
        case Wanted(position):
            return json.dumps({"position": text_of(position)}).encode()


def decode(value: bytes | None) -> WakeUp:
    """Reads such a record.

    Raises: Unreadable.
    """
    try:
        document = json.loads(value or b"")
        if "position" in document:
            return Wanted(position_of(document["position"]))
        due = document["due"]
        if not isinstance(due, int) or isinstance(due, bool):
            raise Unreadable(f"wake-up: due is {type(due).__name__}")
        return NewlyDue(due)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unreadable(f"wake-up: {error!r}") from error
