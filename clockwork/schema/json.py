"""A request's bytes to a JSON value, strictly: whatever two readers might understand differently is refused.

`json` of the standard library by itself takes duplicate names (the last one wins), NaN, numbers of any length (their
conversion costs quadratic time), and lone surrogates, which no UTF-8 can carry to Kafka. Floats are read as IEEE 754
doubles, as RFC 8259 (6) advises all senders to expect.
"""

import asyncio
import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn, TypeVar

from clockwork.errors import FieldError, InvalidInput

INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**64 - 1
"""What consumers in other languages can hold, signed or unsigned; more would be rounded by some of them."""
_INTEGER_CHARS_MAX: Final = 20
"""Checked before the text is converted."""
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
"""The only way to write a surrogate, in a pair or alone: decoded UTF-8 has none."""
_QUOTED_CHARS_MAX: Final = 100
ON_LOOP_BYTES_MAX: Final = 32 * 1024
"""A body up to this size is parsed on the event loop: 20 ms at worst, 1 ms usually."""

_Read = TypeVar("_Read")


async def read_json(body: bytes, read: Callable[[Any], _Read]) -> _Read:
    """The result of `read` for the body's JSON value. Large bodies are parsed in a thread: two megabytes of "[1,1,…" take a
    second, in which the event loop would send no heartbeat.

    Raises: InvalidInput, and as `read` does.
    """
    if len(body) <= ON_LOOP_BYTES_MAX:
        return read(parse(body))
    return await asyncio.to_thread(lambda: read(parse(body)))


def parse(body: bytes) -> Any:
    """Reads one JSON value.

    Raises: InvalidInput, with the field `body`.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(f"is not UTF-8 at byte {error.start}") from error
    if text.startswith("\ufeff"):
        raise _refused("begins with a byte order mark; send plain UTF-8")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _refused(f"is not JSON: {error.msg} at line {error.lineno} column {error.colno}") from error
    except RecursionError as error:
        raise _refused("is nested too deeply") from error
    if _SURROGATE.search(text):
        _refuse_lone_surrogates(value)
    return value


def compact(value: Any) -> bytes:
    """The shortest JSON text of a value, names in the order given."""
    return _COMPACT.encode(value).encode()


def canonical(value: Any) -> bytes:
    """The same for every spelling of a value: compact, names sorted."""
    return _CANONICAL.encode(value).encode()


def deeper_than(value: Any, levels_max: int) -> bool:
    """Whether arrays and objects are nested more than `levels_max` deep; a scalar is 0 deep."""
    level = [value]
    for _ in range(levels_max):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return False
    return any(isinstance(each, list | dict) for each in level)


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _refused(message: str) -> InvalidInput:
    return InvalidInput([FieldError("body", message)])


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _refused(f"has the name {name[:_QUOTED_CHARS_MAX]!r} twice in one object")
            seen.add(name)
    return document


def _constant(text: str) -> NoReturn:
    raise _refused(f"is not JSON: {text} is no JSON number")


def _integer(text: str) -> int:
    if len(text) > _INTEGER_CHARS_MAX or not INTEGER_MIN <= (number := int(text)) <= INTEGER_MAX:
        raise _refused("has an integer beyond 64 bits; send it as a string")
    return number


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise _refused("has a number beyond the range of a double; send it as a string")
    return number


def _refuse_lone_surrogates(value: Any) -> None:
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            try:
                each.encode()
            except UnicodeEncodeError as error:
                raise _refused(r"has a lone surrogate (\ud800 to \udfff), which is no character") from error
        elif isinstance(each, dict):
            waiting.extend(each)
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)


# Made once: a create parses one text and writes three.
_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_float
)
_COMPACT: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_CANONICAL: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, sort_keys=True)
