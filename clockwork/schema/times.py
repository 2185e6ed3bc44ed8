"""Points in time as clients write them: epoch milliseconds, or RFC 3339 with an offset."""

import re
from datetime import UTC, datetime
from typing import Final

from clockwork.schema.json import InvalidValue

SECONDS_LIKE_MAX: Final = 100_000_000_000
"""Up to this a number is taken for seconds: as milliseconds it is a time before March 1973, which is no schedule."""
_RFC_3339: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt](\d{2}:\d{2}):(\d{2})(?:\.(\d+))?(?:[Zz]|([+-])(\d{2}):(\d{2}))", re.ASCII
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FORM: Final = "should be epoch milliseconds or an RFC 3339 time with an offset, such as 2030-01-31T12:00:00Z"


def due_ms_of_input(value: object) -> int:
    """Epoch milliseconds of a `scheduleTime`; 0 is at once.

    Raises: ValueError, with a message for the client.
    """
    at_ms = time_ms_of_input(value)
    if not isinstance(value, str) and 0 < at_ms <= SECONDS_LIKE_MAX:
        raise ValueError("looks like seconds; milliseconds are meant (0 is at once)")
    return at_ms


def time_ms_of_input(value: object) -> int:
    """Epoch milliseconds of any time; a longer fraction is cut to the millisecond, the unit of the service.

    Raises: ValueError, with a message for the client.
    """
    match value:
        case None:
            raise ValueError("is required, and null counts as absent")
        case InvalidValue(message):
            raise ValueError(message)
        case str():
            at_ms = _parsed_ms(value)
        case bool():
            raise ValueError(_FORM)
        case int():
            at_ms = value
        # 1.0 is an integer as well (JSON Schema 2020-12, 6.1.1).
        case float() if value.is_integer():
            at_ms = int(value)
        case _:
            raise ValueError(_FORM)
    if at_ms < 0:
        raise ValueError("should not be before 1970-01-01T00:00:00Z")
    return at_ms


def _parsed_ms(text: str) -> int:
    match = _RFC_3339.fullmatch(text)
    if match is None:
        raise ValueError(_FORM)
    date, minute, second, fraction, sign, offset_hours, offset_minutes = match.groups()
    if second == "60":
        raise ValueError("leap seconds have no epoch time; use the second before or after")
    offset_min = int(offset_hours or 0) * 60 + int(offset_minutes or 0)
    if int(offset_hours or 0) > 23 or int(offset_minutes or 0) > 59:
        raise ValueError(_FORM)
    try:
        local = datetime.fromisoformat(f"{date}T{minute}:{second}+00:00")
    except ValueError as error:
        raise ValueError(f"is no time of the calendar: {error}") from error
    # Not through datetime's own offset: near its first and last day it overflows.
    since = local - _EPOCH
    seconds = since.days * 86_400 + since.seconds - (-offset_min if sign == "-" else offset_min) * 60
    digits = (fraction or "").ljust(3, "0")
    return seconds * 1_000 + int(digits[:3])
