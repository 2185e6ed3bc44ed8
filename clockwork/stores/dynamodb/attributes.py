"""Single attributes of a DynamoDB item: `{"S": "text"}`, `{"N": "1"}`, `{"B": "base64"}`, `{"M": {…}}`.

Reading raises `Unreadable` and nothing else, for any stored value. Its message names the attribute, never its value.
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, TypeVar

import orjson

from clockwork.errors import Unreadable
from clockwork.stores.forms import Stored

Attribute = dict[str, Any]
"""A value with its type."""
Item = dict[str, Any]
"""Attributes by name."""

_INTEGER: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_Word = TypeVar("_Word", bound=StrEnum)


def number(value: int) -> Attribute:
    """An integer as an attribute."""
    return {"N": str(int(value))}


def value_of(item: Mapping[str, Any], name: str, kind: str) -> Any:
    """The value of an attribute, if it has this type."""
    attribute = item.get(name)
    if attribute is None:
        raise Unreadable(f"{name}: missing")
    if not isinstance(attribute, dict) or kind not in attribute:
        raise Unreadable(f"{name}: not of type {kind}")
    value = attribute[kind]
    if kind in ("S", "N") and not isinstance(value, str):
        raise Unreadable(f"{name}: not of type {kind}")
    return value


def text(item: Mapping[str, Any], name: str, *, empty: bool = False) -> str:
    """Reads a text; an empty one only if `empty`."""
    found = utf8(value_of(item, name, "S"), name)
    if not found and not empty:
        raise Unreadable(f"{name}: empty")
    return found


def utf8(chars: str, name: str) -> str:
    """Returns the text if it can be encoded. JSON can spell half a surrogate pair; such a text could not be sent on."""
    try:
        chars.encode()
    except UnicodeEncodeError as error:
        raise Unreadable(f"{name}: not UTF-8") from error
    return chars


def integer(item: Mapping[str, Any], name: str) -> int:
    """Reads an integer of at most 19 digits; DynamoDB itself would also store fractions and exponents."""
    digits = value_of(item, name, "N")
    if _INTEGER.fullmatch(digits) is None:
        raise Unreadable(f"{name}: not an integer")
    return int(digits)


def binary(item: Mapping[str, Any], name: str) -> bytes:
    """Reads bytes, which travel as base64."""
    value = value_of(item, name, "B")
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError) as error:
        raise Unreadable(f"{name}: not of type B") from error


def of_bytes(value: bytes) -> Attribute:
    """Bytes as an attribute."""
    return {"B": base64.b64encode(value).decode()}


def mapping(item: Mapping[str, Any], name: str) -> Item:
    """Reads the attributes inside an attribute."""
    value = value_of(item, name, "M")
    if not isinstance(value, dict):
        raise Unreadable(f"{name}: not of type M")
    return value


def attributes_of(form: Stored) -> Item:
    """A form (`stores.forms`) as attributes."""
    return {name: _attribute(value) for name, value in form.items()}


def _attribute(value: Any) -> Attribute:
    match value:
        case str():
            return {"S": value}
        case bool():
            return {"BOOL": value}
        case int():
            return number(value)
        case bytes():
            return of_bytes(value)
        case list():
            return {"L": [_attribute(each) for each in value]}
        case _:
            return {"M": attributes_of(value)}


def values_of(item: Mapping[str, Any]) -> Stored:
    """The form that these attributes spell. Raises: Unreadable."""
    return {name: _value(item, name) for name in item}


def _value(item: Mapping[str, Any], name: str) -> Any:
    match item[name]:
        case {"S": str()}:
            return text(item, name, empty=True)
        case {"N": str()}:
            return integer(item, name)
        case {"BOOL": bool(value)}:
            return value
        case {"B": _}:
            return binary(item, name)
        case {"L": list(values)}:
            return [_value({name: each}, name) for each in values]
        case {"M": dict(inner)}:
            return values_of(inner)
        case _:
            raise Unreadable(f"{name}: of a type that none has")


def word(item: Mapping[str, Any], name: str, words: type[_Word]) -> _Word:
    """Reads a text that is one of a closed set."""
    found = text(item, name)
    try:
        return words(found)
    except ValueError as error:
        raise Unreadable(f"{name}: unknown value") from error


def as_json(item: Item) -> bytes:
    """Spells any item as JSON, as it came."""
    # Not ensure_ascii: it would make three bytes of each byte of Cyrillic. Half surrogates become JSON escapes.
    spelled = json.dumps(item, ensure_ascii=False, separators=(",", ":"))
    return spelled.encode(errors="backslashreplace")


def size_bytes(part: Item | Sequence[Item]) -> int:
    """The size of a part of a request. To spell it out is several times cheaper than to add it up."""
    return len(orjson.dumps(part))
