"""What a client and its schedules may be called: one rule, for what is taken in and for what is read back."""

import re
from typing import Final

CLIENT_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
KEY_BYTES_MAX: Final = 512
"""Of a `scheduleKey` or `orderingKey`, in UTF-8."""


def is_client_id(text: str) -> bool:
    """Whether it is a legal `clientId`."""
    return CLIENT_ID.fullmatch(text) is not None


def is_key(text: str) -> bool:
    """Whether it is a legal `scheduleKey` or `orderingKey`."""
    return 1 <= len(text.encode()) <= KEY_BYTES_MAX
