"""Checks of stored values, the same for every store: before they are written, and when they are read. A stored value may be
damaged, put by hand, or written by a newer version.

Reading raises `Unreadable`. Its message names the value as its store does (`name`), and never quotes it.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from clockwork.domain.destination import Topic
from clockwork.domain.names import KEY_BYTES_MAX, is_client_id, is_topic
from clockwork.domain.position import Position, due_ms_of, text_of
from clockwork.domain.schedule import ClientId, Outcome, Schedule, ScheduleKey
from clockwork.errors import NewerFormat, Unreadable

log = logging.getLogger(__name__)

ATTEMPTS_MAX: Final = 2**31 - 1
"""Far beyond the largest number of attempts of a retry policy."""
RAW_BYTES_MAX: Final = 768 * 1024
"""Largest JSON of a broken row, so that its dead letter stays below Kafka's default limit of 1 MB a record. Base64 and
escapes make the JSON several times as large as the row."""

_Stored = TypeVar("_Stored")
_Read = TypeVar("_Read")


def check_due(schedule: Schedule, position: Position) -> None:
    """Raises: ValueError (the schedule is not due at its position)."""
    if schedule.due_ms != due_ms_of(position):
        raise ValueError(f"due at {schedule.due_ms}, but standing at {text_of(position)}")


def check_outcome(outcome: Outcome) -> None:
    """Raises: ValueError (its schedule has another key, or is not due at its position)."""
    if (schedule := outcome.schedule) is None:
        return
    check_due(schedule, outcome.position)
    if (schedule.client_id, schedule.schedule_key) != (outcome.client_id, outcome.schedule_key):
        raise ValueError("an outcome with another key's schedule")


def check_format(written_in: int, *, oldest: int, newest: int) -> None:
    """Checks that this version reads the format. Raises: NewerFormat, Unreadable (an older one)."""
    if written_in > newest:
        raise NewerFormat(f"format {written_in} is newer than {newest}, which this version reads")
    if written_in < oldest:
        raise Unreadable(f"format {written_in}")


def client_id_of(stored: str, name: str) -> ClientId:
    """Reads a client id."""
    if not is_client_id(stored):
        raise Unreadable(f"{name}: not a legal one")
    return ClientId(stored)


def schedule_key_of(stored: str, name: str) -> ScheduleKey:
    """Reads a key. The outcome of a schedule with a longer one could not be stored: DynamoDB limits primary keys."""
    if len(stored.encode()) > KEY_BYTES_MAX:
        raise Unreadable(f"{name}: too long")
    return ScheduleKey(stored)


def topic_of(stored: str, name: str) -> Topic:
    """Reads a topic. Kafka cannot be asked for any other name (its protocol ends at 32,767 bytes), and to fail on one row's
    topic in the middle of a batch would be to fail again at every try."""
    if not is_topic(stored):
        raise Unreadable(f"{name}: not a legal one")
    return Topic(stored)


def attempts_of(stored: int, name: str) -> int:
    """Reads a number of attempts. A marker has no room for any other (`domain.marker`), and to fail there would stop the
    shard."""
    if not 0 <= stored <= ATTEMPTS_MAX:
        raise Unreadable(f"{name}: out of range")
    return stored


def readable_or_none(read: Callable[[_Stored], _Read], stored: _Stored) -> _Read | None:
    """The value; None if it is unreadable."""
    try:
        return read(stored)
    except Unreadable:
        return None


def readable(read: Callable[[_Stored], _Read], stored: Iterable[_Stored]) -> list[_Read]:
    """Reads the values of a list and leaves out the unreadable ones: one damaged item must not hide a thousand sound ones. A
    request for that item alone is answered with its error."""
    found: list[_Read] = []
    for each in stored:
        try:
            found.append(read(each))
        except Unreadable as error:
            # The key is not logged: a `scheduleKey` may name a person. `GET` of it says what is wrong with it.
            extra = {"event": "store.left_out_of_list", "error": str(error), "once_per": str(error)}
            log.warning("An item that cannot be read is left out of a list", extra=extra)
    return found
