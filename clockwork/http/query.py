"""The query of a list: its parameters, each known, well-formed and given once; and its cursors.

A cursor is the position at which the page before ended, with a digest of the query that it belongs to: with other filters it
would go on somewhere in another list, and the gap would not be seen.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

from aiohttp import hdrs, web

from clockwork.domain.names import KEY_BYTES_MAX
from clockwork.domain.position import LAST, Position
from clockwork.errors import FieldError, InvalidInput, shortened
from clockwork.http.routes import Parameter
from clockwork.schema import json as json_body
from clockwork.schema.schedule import CLIENT_ID_SCHEMA, TOPIC_SCHEMA, Detail, client_id_of, topic_of
from clockwork.schema.times import time_ms_of_input

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 1_000
PARAMETERS_MAX: Final = 100
"""Limit of the parameters of one query: a list of errors would not help with more."""
_DIGEST_BYTES: Final = 8
_POSITION_BYTES: Final = 16
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_LIMIT: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


def is_to_be_fresh(request: web.Request) -> bool:
    """True if the caller wants no answer that was made for others."""
    return "no-cache" in request.headers.get(hdrs.CACHE_CONTROL, "")


def read_query(request: web.Request, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """The given parameters, by name. Raises: InvalidInput, naming every wrong one."""
    # The query as it was sent: aiohttp's decoding leaves bytes that are not UTF-8 as they are.
    raw = request.raw_path.partition("?")[2].partition("#")[0]
    if _BAD_ESCAPE.search(raw):
        raise InvalidInput([FieldError("query", "has a % that is not followed by two hexadecimal digits")])
    try:
        pairs = parse_qsl(raw, keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX)
    except UnicodeDecodeError as error:
        raise InvalidInput([FieldError("query", "is not UTF-8 when its percent-encoding is undone")]) from error
    except ValueError as error:
        raise InvalidInput([FieldError("query", f"should have at most {PARAMETERS_MAX} parameters")]) from error
    known = {each.name: each.parse for each in parameters}
    errors: dict[str, str] = {each.name: "is required" for each in parameters if each.required}
    values: dict[str, Any] = {}
    names = [name for name, _ in pairs]
    for name, text in pairs:
        errors.pop(name, None)
        if name not in known:
            errors[shortened(name)] = "is no parameter of this request"
        elif names.count(name) > 1:
            errors[name] = "is given more than once"
        else:
            try:
                values[name] = known[name](text)
            except ValueError as error:
                errors[name] = str(error)
    if errors:
        raise InvalidInput([FieldError(name, message) for name, message in errors.items()])
    return values


def limit_of(text: str) -> int:
    """The value of `limit`. Raises: ValueError."""
    if _LIMIT.fullmatch(text) is None or not 1 <= int(text) <= LIMIT_MAX:
        raise ValueError(f"should be 1 to {LIMIT_MAX}")
    return int(text)


CURSOR: Final = Parameter(
    name="cursor",
    description="Cursor of the page before; only with the same other parameters.",
    schema={"type": "string"},
)
PAGING: Final = (
    Parameter(
        name="limit",
        description=f"Items of one page; by default {LIMIT_DEFAULT}.",
        schema={"type": "integer", "minimum": 1, "maximum": LIMIT_MAX},
        example=LIMIT_DEFAULT,
        parse=limit_of,
    ),
    CURSOR,
)


_INTEGER: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)


def time_of(text: str) -> int:
    """Epoch milliseconds of a time in a query. Raises: ValueError."""
    return time_ms_of_input(int(text) if _INTEGER.fullmatch(text) else text)


TIME: Final = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "format": "date-time"}]}
CLIENT: Final = Parameter(
    name="clientId", description="Only of this client.", schema=CLIENT_ID_SCHEMA, parse=client_id_of
)
TOPIC: Final = Parameter(name="topic", description="Only of this topic.", schema=TOPIC_SCHEMA, parse=topic_of)
DUE: Final = (
    Parameter(name="dueFrom", description="Due at this time or later.", schema=TIME, parse=time_of),
    Parameter(name="dueTo", description="Due before this time.", schema=TIME, parse=time_of),
)


def one_of(*names: str) -> Callable[[str], str]:
    """The parser of a parameter that takes one of these words."""

    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(f"should be {' or '.join(names)}")
        return text

    return parse


def _words(name: str, description: str, *words: str) -> Parameter:
    return Parameter(
        name=name, description=description, schema={"type": "string", "enum": list(words)}, parse=one_of(*words)
    )


DATA_AS: Final = _words(
    "taskData",
    "`text`: `taskData` is the JSON text of the payload, for readers whose numbers are doubles.",
    "text",
)
FIELDS: Final = _words("fields", "`summary`: without `taskData`, its encoding, and the headers.", "summary")
ORDER: Final = _words("order", "`desc`: the latest due time first; by default `asc`.", "asc", "desc")


def take_detail(given: dict[str, Any]) -> Detail:
    """The detail that a query asks for; its parameters are taken out of `given`, as no cursor depends on them."""
    return Detail(summary=given.pop("fields", None) is not None, data_as_text=given.pop("taskData", None) is not None)


def encode_cursor(position: Position | None, query: Mapping[str, Any]) -> str | None:
    """The cursor of the page behind a position, for this query; None at the end."""
    if position is None:
        return None
    return base64.urlsafe_b64encode(_digest(query) + position.to_bytes(_POSITION_BYTES, "big")).decode()


def decode_cursor(cursor: str | None, query: Mapping[str, Any]) -> Position | None:
    """The position behind which the page begins. Raises: InvalidInput, naming `cursor`."""
    decoded = _decoded(cursor, query)
    if decoded is None:
        return None
    position = int.from_bytes(decoded, "big")
    if len(decoded) != _POSITION_BYTES or position > LAST:
        raise _refused("is not one that was given out")
    return Position(position)


def encode_text_cursor(after: str | None, query: Mapping[str, Any]) -> str | None:
    """The cursor of the page behind a name, for this query; None at the end."""
    return None if after is None else base64.urlsafe_b64encode(_digest(query) + after.encode()).decode()


def decode_text_cursor(cursor: str | None, query: Mapping[str, Any]) -> str | None:
    """The name behind which the page begins. Raises: InvalidInput, naming `cursor`."""
    decoded = _decoded(cursor, query)
    if decoded is not None and len(decoded) > KEY_BYTES_MAX:
        raise _refused("is not one that was given out")  # no store would take it as a key
    try:
        return None if decoded is None else decoded.decode()
    except UnicodeDecodeError as error:
        raise _refused("is not one that was given out") from error


def _decoded(cursor: str | None, query: Mapping[str, Any]) -> bytes | None:
    """The part of a cursor behind its digest."""
    if cursor is None:
        return None
    try:
        decoded = base64.b64decode(cursor, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused("is not one that was given out") from error
    if len(decoded) <= _DIGEST_BYTES:
        raise _refused("is not one that was given out")
    if decoded[:_DIGEST_BYTES] != _digest(query):
        raise _refused("belongs to another query: only limit may change between two pages")
    return decoded[_DIGEST_BYTES:]


def _digest(query: Mapping[str, Any]) -> bytes:
    return hashlib.blake2b(json_body.canonical(dict(query)), digest_size=_DIGEST_BYTES).digest()


def _refused(message: str) -> InvalidInput:
    return InvalidInput([FieldError("cursor", message)])
