"""Reads rows of the first Clockwork's `schedules` table as the creates that its clients sent.

Attributes there, and their use here:

    attribute       type  here
    clientId        S     clientId
    scheduleKey     S     scheduleKey
    orderingKey     S     orderingKey; absent or empty: left out, so that the scheduleKey stands in
    taskData        S     taskData, a string: the record's value is its UTF-8 bytes, as it was
    delivery.topic  M/S   delivery.topic
    scheduleTime    N     scheduleTime, epoch ms: the sort key. Of two at one time in one partition the first Clockwork had
                          put the later one up to ten seconds later, and that is the time that is known
    status          S     PENDING and EXECUTING are imported; EXECUTED and CANCELLED are left out; absent: PENDING
    partitionId     S     nothing: the number of a Kafka partition of its own topic
    executionTime, enqueTime, version   nothing
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final

Item = Mapping[str, Any]
"""An item in DynamoDB's own JSON."""

TEXTS: Final[tuple[tuple[str, str], ...]] = (
    ("clientId", "clientId"),
    ("scheduleKey", "scheduleKey"),
    ("orderingKey", "orderingKey"),
    ("taskData", "taskData"),
)
"""Attributes that are copied as they are: their name, our name."""
MAY_BE_EMPTY: Final = frozenset({"taskData"})
OPTIONAL: Final = frozenset({"orderingKey"})
OPEN: Final = frozenset({"PENDING", "EXECUTING"})
ENDED: Final = frozenset({"EXECUTED", "CANCELLED"})

DIGITS_MAX: Final = 18
_INTEGER: Final = re.compile(r"[0-9]{1,18}", re.ASCII)


class LeftOut(StrEnum):
    """Reasons for which a row is not imported."""

    ENDED = "ended already"
    NOT_YET_OURS = "due before --due-from: the first Clockwork's"


@dataclass(frozen=True, kw_only=True, slots=True)
class Read:
    """One row: its create, or the reason why it is left out, or a problem."""

    name: str
    """Its key in the table, for people."""
    document: dict[str, Any] | None = None
    left_out: LeftOut | None = None
    problem: str = ""


def read(item: Item, *, due_from_ms: int, guarantee: str | None) -> Read:
    """Reads a row of the first Clockwork. Never raises."""
    name = f"{_described(item, 'partitionId', 'S')}/{_described(item, 'scheduleTime', 'N')}"
    try:
        if _text(item, "status", default="PENDING") in ENDED:
            return Read(name=name, left_out=LeftOut.ENDED)
        document = _document(item)
    except ValueError as error:
        return Read(name=name, problem=str(error))
    if document["scheduleTime"] < due_from_ms:
        return Read(name=name, left_out=LeftOut.NOT_YET_OURS)
    if guarantee is not None:
        document["delivery"]["guarantee"] = guarantee
    return Read(name=name, document=document)


def _document(item: Item) -> dict[str, Any]:
    """Raises: ValueError, naming the attribute."""
    status = _text(item, "status", default="PENDING")
    if status not in OPEN:
        raise ValueError(f"status: {status!r:.40} is none that the first Clockwork wrote")
    document: dict[str, Any] = {}
    for theirs, ours in TEXTS:
        text = _text(item, theirs, default="" if theirs in OPTIONAL | MAY_BE_EMPTY else None)
        if text or theirs in MAY_BE_EMPTY:
            document[ours] = text
    delivery = item.get("delivery")
    inner = delivery.get("M") if isinstance(delivery, dict) else None
    if not isinstance(inner, dict):
        raise ValueError("delivery: is no map")
    document["scheduleTime"] = _milliseconds(item)
    document["delivery"] = {"topic": _text(inner, "topic")}
    return document


def _text(item: Item, name: str, *, default: str | None = None) -> str:
    """Raises: ValueError."""
    attribute = item.get(name)
    if attribute is None or (isinstance(attribute, dict) and attribute.get("NULL") is True):
        if default is None:
            raise ValueError(f"{name}: is missing")
        return default
    text = attribute.get("S") if isinstance(attribute, dict) else None
    if not isinstance(text, str):
        raise ValueError(f"{name}: is no text")
    return text


def _milliseconds(item: Item) -> int:
    """Numbers may be spelled with an exponent. Raises: ValueError."""
    attribute = item.get("scheduleTime")
    text = attribute.get("N") if isinstance(attribute, dict) else None
    try:
        number = Decimal(text) if isinstance(text, str) else None
    except InvalidOperation:
        number = None
    # An exponent may make a number that is never computed to its end.
    is_small = number is not None and number.is_finite() and number.adjusted() <= DIGITS_MAX
    if number is None or not is_small or number != int(number) or not _INTEGER.fullmatch(str(int(number))):
        raise ValueError("scheduleTime: is no time in milliseconds")
    return int(number)


def _described(item: Item, name: str, kind: str) -> str:
    attribute = item.get(name)
    value = attribute.get(kind, "?") if isinstance(attribute, dict) else "?"
    return str(value)[:40]
