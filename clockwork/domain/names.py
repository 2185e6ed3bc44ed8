"""Names of clients and keys of schedules: one rule, for requests and for stored items."""

import re
from typing import Final

CLIENT_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
KEY_BYTES_MAX: Final = 512
"""Length of a `scheduleKey` or `orderingKey` in UTF-8."""


def is_client_id(text: str) -> bool:
    """True for a legal `clientId`."""
    return CLIENT_ID.fullmatch(text) is not None


def is_key(text: str) -> bool:
    """True for a legal `scheduleKey` or `orderingKey`."""
    return 1 <= len(text.encode()) <= KEY_BYTES_MAX
