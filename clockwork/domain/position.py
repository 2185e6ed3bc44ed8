"""Positions: the place of a schedule in its shard, and so its order of delivery.

A position is written `<due ms>.<16 digits: acceptance time in µs><8 random digits>`: 37 significant digits of the
38 that a DynamoDB number keeps (AWS, "Naming rules and data types": up to 38 digits of precision). In memory it is
that number times 10^24, an `int`: exact, ordered, hashable, and cheap to compare. A float would keep 17 digits and
make two positions one; a `Decimal` would be exact too, but rounds silently under a changed context.

DynamoDB returns numbers without leading and trailing zeros, so text is normalised here and nowhere else.
"""

import re
from typing import Final, NewType

from clockwork.errors import Unreadable

Position = NewType("Position", int)
"""A position as an integer: the decimal number that is stored, times 10^24."""

POINTER_POSITION: Final = "0"
"""Sort key of the pointer in `scheduleKeys`; no schedule has this position, because acceptance is never at 0 µs."""

FRACTION_DIGITS: Final = 24
RANDOM_DIGITS: Final = 8
_SCALE: Final = 10**FRACTION_DIGITS
_RANDOM_SCALE: Final = 10**RANDOM_DIGITS
_ACCEPTED_US_END: Final = 10 ** (FRACTION_DIGITS - RANDOM_DIGITS)
_DUE_MS_END: Final = 10**14
LAST: Final = Position(_DUE_MS_END * _SCALE - 1)
"""An upper bound of all positions."""
_TEXT: Final = re.compile(r"([0-9]{1,38})(?:\.([0-9]{1,38}))?(?:E([+-]?[0-9]{1,3}))?", re.ASCII)


def new_position(*, due_ms: int, accepted_us: int, random: int) -> Position:
    """The position of a schedule due at `due_ms` and accepted at `accepted_us`; `random` is in [0, 10^8)."""
    if not (0 <= due_ms < _DUE_MS_END and 0 < accepted_us < _ACCEPTED_US_END and 0 <= random < _RANDOM_SCALE):
        raise ValueError(f"out of range: {due_ms=} {accepted_us=} {random=}")
    return Position((due_ms * _SCALE) + accepted_us * _RANDOM_SCALE + random)


def due_ms_of(position: Position) -> int:
    """Due time of the schedule at this position, in epoch milliseconds."""
    return position // _SCALE


def accepted_ms_of(position: Position) -> int:
    """Acceptance time of the schedule at this position (by the clock of its API node), in epoch milliseconds."""
    return position % _SCALE // _RANDOM_SCALE // 1_000


def first_at(due_ms: int) -> Position:
    """A lower bound of the positions due at `due_ms`, above every one that is due earlier; at most the end of time."""
    return Position(min(due_ms, _DUE_MS_END - 1) * _SCALE)


def acceptance_of(position: Position) -> int:
    """Sort key by acceptance, as far as the clocks of the API nodes agree."""
    return position % _SCALE


def text_of(position: Position) -> str:
    """The stored decimal text, always with all 24 digits of the fraction."""
    due_ms, fraction = divmod(position, _SCALE)
    return f"{due_ms}.{fraction:024d}"


def position_of(text: str) -> Position:
    """Reads a stored position: with or without its trailing zeros, and with an exponent too, in which number
    libraries write very small and very round numbers (`1.5E-9`, `1E+2`).

    Raises: Unreadable.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise Unreadable(f"not a position: {text[:64]!r}")
    whole, fraction, exponent = match.groups(default="")
    digits = (whole + fraction).rstrip("0")
    zeros = FRACTION_DIGITS + int(exponent or "0") + len(whole) - len(digits)
    position = int(digits or "0") * 10 ** max(zeros, 0)
    if (digits and zeros < 0) or position >= _DUE_MS_END * _SCALE:
        raise Unreadable(f"not a position: {text[:64]!r}")
    return Position(position)
