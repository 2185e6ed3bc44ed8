"""Legal names of clients, keys and topics, and the size of a batch: one rule for requests, settings and stored rows."""

import re
from typing import Final

CLIENT_CHARS_MAX: Final = 128
CLIENT_ID: Final = re.compile(rf"[A-Za-z0-9._-]{{1,{CLIENT_CHARS_MAX}}}", re.ASCII)
KEY_BYTES_MAX: Final = 512
"""Bytes of UTF-8 in a `scheduleKey` or `orderingKey`."""
TOPIC_CHARS_MAX: Final = 249
"""Kafka's own limit."""
TOPIC: Final = re.compile(rf"[A-Za-z0-9._-]{{1,{TOPIC_CHARS_MAX}}}", re.ASCII)
BATCH_ITEMS_MAX: Final = 1_000
"""Most items of one request."""
LOOK_UP_ITEMS_MAX: Final = 100
"""Most schedules that are shown at once: each may have 256 KiB of content."""


def is_client_id(text: str) -> bool:
    """True for a legal `clientId`."""
    return CLIENT_ID.fullmatch(text) is not None


def is_key(text: str) -> bool:
    """True for a legal `scheduleKey` or `orderingKey`."""
    return 1 <= len(text.encode()) <= KEY_BYTES_MAX


def is_topic(text: str) -> bool:
    """True for a name that Kafka takes for a topic."""
    return TOPIC.fullmatch(text) is not None and text not in {".", ".."}
