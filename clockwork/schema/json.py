"""JSON text to a value and back, strictly: a text that two readers might understand differently is refused.

The standard library's `json` takes duplicate names (the last one wins), NaN, numbers of any length (their conversion costs
quadratic time), and lone surrogates, which no UTF-8 can carry to Kafka. Floats are read as IEEE 754 doubles, as RFC 8259 (6)
advises all senders to expect.

A text that is no JSON is refused as a whole. A part that is JSON but cannot be used becomes an `InvalidValue` in its place,
so that the error names the field, and one item of a batch does not cost the others. No other code has to look for it: an
`InvalidValue` is neither text nor number, array nor object, so the check of its field fails, and it cannot be written.
"""

import asyncio
import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar

from clockwork.errors import FieldError, InvalidInput, shortened

INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**64 - 1
"""The limits of consumers in other languages, signed and unsigned; some of them would round a larger number."""
_INTEGER_CHARS_MAX: Final = 20
"""Checked before the text is converted."""
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
"""The only spelling of a surrogate, in a pair or alone: decoded UTF-8 has none."""
_LEVELS_MAX: Final = 200
"""Levels that are kept of a text that is nested more deeply than the interpreter can read."""
_BRACKET_OR_STRING: Final = re.compile(r'[\[\]{}]|"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_DEEP_PART: Final = "9" * 99
"""Stands for a part that is nested too deeply; no reader takes it as a number."""
ON_LOOP_BYTES_MAX: Final = 32 * 1024
"""A body up to this size is parsed on the event loop: 20 ms at worst, 1 ms usually."""

_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class InvalidValue:
    """A value that is JSON, and that not all readers would understand alike."""

    message: str
    """For the client, about the field that is or holds it."""


async def read_json(body: bytes, read: Callable[[Any], _Read]) -> _Read:
    """The result of `read` for the body's JSON value. Large bodies are parsed in a thread: two megabytes of "[1,1,…" take a
    second, in which the event loop would send no heartbeat.

    Raises: InvalidInput, and as `read` does.
    """
    if len(body) <= ON_LOOP_BYTES_MAX:
        return read(parse(body))
    return await asyncio.to_thread(lambda: read(parse(body)))


def parse(body: bytes) -> Any:
    """The value of a JSON text, with an `InvalidValue` in the place of each part that cannot be used.

    Raises: InvalidInput, with the field `body`: it is no JSON.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(f"is not UTF-8 at byte {error.start}") from error
    if text.startswith("\ufeff"):
        raise _refused("begins with a byte order mark; send plain UTF-8")
    try:
        try:
            value = _DECODER.decode(text)
        except RecursionError:
            value = _DECODER.decode(_without_deep_parts(text))
    except json.JSONDecodeError as error:
        raise _refused(f"is not JSON: {error.msg} at line {error.lineno} column {error.colno}") from error
    except RecursionError as error:
        raise _refused("is nested too deeply") from error
    return _without_lone_surrogates(value) if _SURROGATE.search(text) else value


def compact(value: Any) -> bytes:
    """The shortest JSON text of a value, names in the order given. Raises: ValueError: it holds an `InvalidValue`."""
    return _COMPACT.encode(value).encode()


def canonical(value: Any) -> bytes:
    """The JSON text that all spellings of a value share: compact, names sorted."""
    return _CANONICAL.encode(value).encode()


def deeper_than(value: Any, levels_max: int) -> bool:
    """True if arrays and objects are nested more than `levels_max` deep; a scalar is 0 deep."""
    level = [value]
    for _ in range(levels_max):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return False
    return any(isinstance(each, list | dict) for each in level)


def whole(value: object) -> object:
    """An integer for a number without a fraction, such as 1.0 (JSON Schema 2020-12, 6.1.1); else the value itself."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _refused(message: str) -> InvalidInput:
    return InvalidInput([FieldError("body", message)])


# --- as the decoder calls them


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                document[name] = InvalidValue(f"has the name {shortened(name)!r} twice in one object")
            seen.add(name)
    return document


def _constant(text: str) -> NoReturn:
    raise _refused(f"is not JSON: {text} is no JSON number")


def _integer(text: str) -> int | InvalidValue:
    if len(text) > _INTEGER_CHARS_MAX or not INTEGER_MIN <= (number := int(text)) <= INTEGER_MAX:
        return InvalidValue("is nested too deeply" if text == _DEEP_PART else "has an integer beyond 64 bits")
    return number


def _float(text: str) -> float | InvalidValue:
    number = float(text)
    return InvalidValue("has a number beyond the range of a double") if math.isinf(number) else number


# --- parts that the decoder cannot see


def _without_deep_parts(text: str) -> str:
    """The text with `_DEEP_PART` in the place of each array and object below `_LEVELS_MAX` levels."""
    kept: list[str] = []
    end = level = begin = 0
    for match in _BRACKET_OR_STRING.finditer(text):
        if match.group() in {"[", "{"}:
            level += 1
            if level == _LEVELS_MAX:
                begin = match.start()
        elif match.group() in {"]", "}"}:
            if level == _LEVELS_MAX:
                kept += text[end:begin], _DEEP_PART
                end = match.end()
            level -= 1
    return "".join([*kept, text[end:]])


def _without_lone_surrogates(value: Any) -> Any:
    """The value with an `InvalidValue` for each text with a lone surrogate. A name with one is escaped."""
    whole_value = [value]
    waiting: list[Any] = [whole_value]
    while waiting:
        outer = waiting.pop()
        for key, inner in list(outer.items() if isinstance(outer, dict) else enumerate(outer)):
            if isinstance(key, str) and _has_lone_surrogate(key):
                del outer[key]
                outer[key.encode(errors="backslashreplace").decode()] = _LONE_SURROGATE
            elif isinstance(inner, str) and _has_lone_surrogate(inner):
                outer[key] = _LONE_SURROGATE
            elif isinstance(inner, dict | list):
                waiting.append(inner)
    return whole_value[0]


def _has_lone_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _no_json(value: object) -> NoReturn:
    if isinstance(value, InvalidValue):
        raise ValueError(value.message)
    raise TypeError(f"{type(value).__name__} is no JSON")


_LONE_SURROGATE: Final = InvalidValue(r"has a lone surrogate (\ud800 to \udfff), which is no character")
# Made once: a create parses one text and writes three.
_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_float
)
_COMPACT: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_no_json)
_CANONICAL: Final = json.JSONEncoder(
    separators=(",", ":"), ensure_ascii=False, allow_nan=False, sort_keys=True, default=_no_json
)
