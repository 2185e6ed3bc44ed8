"""A job's payload schema: JSON Schema 2020-12 for its `taskData`, checked itself and applied when a job is written.

The schema is a client's, and its check holds the interpreter for as long as it runs. So all of it is bounded beforehand:

    what a schema could do                       bound
    be large, or deeply nested                   `SCHEMA_BYTES_MAX`, `SCHEMA_LEVELS_MAX`, `PARTS_MAX`
    fetch other documents                        `$ref` leads to a place within the schema; nothing is retrieved
    refer to itself for ever                     refused, unless each round goes into a member of the payload
    double its work with each reference          `WORK_MAX`: references are followed, and each part counted as often as
                                                 it is applied on the way to one member
    have patterns that take exponential time     a regex engine of linear time; look-around and back references are refused
    have patterns that compile to gigabytes      the largest of `_PATTERN_SIZES`

`format` is an annotation, as 2020-12 has it by default: `pattern` says what a text must look like.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from jsonschema_rs import Draft202012Validator, ReferencingError, RegexOptions, ValidationError, ValidationErrorKind

from clockwork.errors import FieldError, InvalidInput, shortened
from clockwork.schema import json as json_body

SCHEMA_BYTES_MAX: Final = 16 * 1024
SCHEMA_LEVELS_MAX: Final = 64
PARTS_MAX: Final = 1_000
"""Schemas within a schema, itself included. The work of each is computed for every level of a payload."""
IN_PLACE_MAX: Final = 32
"""Schemas that apply to one value, each for the sake of the one before it: a chain of `$ref`, `allOf` and their like. The
library follows it on the stack, at every level of a payload."""
WORK_MAX: Final = 30_000_000
"""Work of one check: bytes of the payload times parts of the schema that apply to one of its members. A part takes some 6 ns
for each, so this is a fifth of a second for a schema that was made to be slow; an ordinary one needs a thousandth of it."""
_PATTERN_SIZES: Final = (10_000, 30_000, 100_000, 300_000)
"""Bytes of a compiled pattern, as the library counts: ordinary ones have less than the first. `^.{1,200}$` needs the last,
since `.` is any character of Unicode."""
_SIZE_OF_ONE_WORK: Final = 80
"""Bytes of a compiled pattern that count as one part: the slowest patterns that were found take 7 µs a byte with 100,000."""
_UNEVALUATED_WORK: Final = 3
"""`unevaluatedProperties` and `unevaluatedItems` make the library apply what is beside them again, 2.6 times in all."""
NAMED_MAX: Final = 20_000
"""Values times parts up to which all errors are collected; 10 µs each, if each were one. Beyond that none is named."""
ERRORS_MAX: Final = 20
"""Errors that one check reports."""

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def _patterns_up_to(size: int) -> RegexOptions:
    return RegexOptions(size_limit=size, dfa_size_limit=2 * size)


_PATTERNS: Final = _patterns_up_to(_PATTERN_SIZES[-1])

_REFUSED: Final = {
    "$dynamicRef": "is not taken; write $ref",
    "$dynamicAnchor": "is not taken; write $anchor",
    "$recursiveRef": "is of another draft; write $ref",
    "dependencies": "is of another draft; write dependentSchemas or dependentRequired",
}
_IN_PLACE: Final = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
"""Keywords whose schemas apply to the value itself. `$ref` is one more."""
_COMPARED: Final = ("enum", "const", "required", "dependentRequired")
"""Keywords whose values are compared one by one."""


@dataclass(kw_only=True, slots=True)
class _Part:
    """One schema within a schema; the lists have places in the list of all parts."""

    path: str
    document: dict[str, Any]
    comparisons: int
    pattern_work: int
    unevaluated: bool
    in_place: list[int] = field(default_factory=list)
    one_of_names: list[int] = field(default_factory=list)
    """One of these applies to each property."""
    every_name: list[int] = field(default_factory=list)
    """Each of these may apply to each property."""
    one_of_items: list[int] = field(default_factory=list)
    every_item: list[int] = field(default_factory=list)
    """Likewise for the items of an array."""


class PayloadSchema:
    """A schema that was read and may be applied."""

    def __init__(self, document: dict[str, Any], text: bytes, parts: Sequence[_Part], order: Sequence[int]) -> None:
        self.document = document
        self.text = text
        """The document as compact JSON."""
        self._parts = parts
        self._order = order
        """Places of all parts, each behind those that apply in its place."""
        self._validator = Draft202012Validator(document, offline=True, pattern_options=_PATTERNS, mask="value")

    def check(self, payload: Any, *, path: str = "taskData") -> None:
        """Refuses a payload that does not match.

        Raises: InvalidInput, naming each wrong member by its path below `path`, or `payloadSchema`: this payload is too
        large for it.
        """
        levels = _levels(payload)
        size_bytes = len(json_body.compact(payload))
        if self._applied(levels, patterns=True) * size_bytes > WORK_MAX:
            message = (
                f"takes too much work with {path} of {size_bytes} bytes, nested {levels} deep: it has too many parts"
            )
            raise _wrong("payloadSchema", f"{message}, patterns or references")
        if self._validator.is_valid(payload):
            return
        if self._applied(levels, patterns=False) * _values(payload) > NAMED_MAX:
            raise _wrong(path, "does not match payloadSchema, and is too large for its wrong members to be named")
        raise InvalidInput(_errors(self._validator, payload, path))

    def _applied(self, levels: int, *, patterns: bool) -> int:
        """The number of parts that apply on the way from a payload to any of its members, at most; each as often as it
        does. Counted from the innermost level outwards. `patterns`: what they count for is included."""
        inner = [0] * len(self._parts)
        outer = inner
        for _ in range(levels + 1):
            outer = [0] * len(self._parts)
            for index in self._order:
                part = self._parts[index]
                in_place = sum(outer[each] for each in part.in_place)
                names = _most(inner, part.one_of_names) + sum(inner[each] for each in part.every_name)
                items = _most(inner, part.one_of_items) + sum(inner[each] for each in part.every_item)
                own = 1 + part.comparisons + (part.pattern_work if patterns else 0)
                work = own + in_place * (_UNEVALUATED_WORK if part.unevaluated else 1) + max(names, items)
                outer[index] = min(work, WORK_MAX + 1)
            if outer == inner:
                break
            inner = outer
        return outer[0]


def read_payload_schema(document: Any, *, path: str = "payloadSchema") -> PayloadSchema:
    """A payload schema. Raises: InvalidInput, naming every wrong place below `path`."""
    if isinstance(document, json_body.InvalidValue):
        raise _wrong(path, document.message)
    if not isinstance(document, dict):
        raise _wrong(path, "should be an object")
    if json_body.deeper_than(document, SCHEMA_LEVELS_MAX):
        raise _wrong(path, f"should be nested at most {SCHEMA_LEVELS_MAX} deep")
    try:
        text = json_body.compact(document)
    except ValueError as error:
        raise _wrong(path, str(error)) from error
    if len(text) > SCHEMA_BYTES_MAX:
        raise _wrong(path, f"has {len(text)} bytes; at most {SCHEMA_BYTES_MAX} are taken")
    if document.get("$schema", _DIALECT) not in (_DIALECT, f"{_DIALECT}#"):
        raise _wrong(f"{path}.$schema", f"should be {_DIALECT}, or absent")
    if not _METASCHEMA.is_valid(document):
        raise InvalidInput(_errors(_METASCHEMA, document, path))
    parts, order = _Parser(document, path).parts()
    try:
        return PayloadSchema(document, text, parts, order)
    except (ValidationError, ReferencingError) as error:
        raise _wrong(path, f"cannot be applied: {shortened(error.message)}") from error


class _Parser:
    """The parser of one schema: finds its parts, and what applies in the place of what."""

    def __init__(self, document: dict[str, Any], path: str) -> None:
        self._document = document
        self._path = path
        self._parts: list[_Part] = []
        self._places: dict[int, int] = {}
        """By the identity of a schema's object."""
        self._anchors: dict[str, int] = {}
        self._errors: list[FieldError] = []

    def parts(self) -> tuple[list[_Part], list[int]]:
        """All parts, and their places in the order in which their work can be computed. Raises: InvalidInput."""
        self._add(self._document, self._path)
        for part in self._parts:
            self._refer(part)
        if self._errors:
            raise InvalidInput(self._errors[:ERRORS_MAX])
        return self._parts, self._in_order()

    def _add(self, schema: Any, path: str) -> list[int]:
        """The place of a schema in a list; none for true and false. Those within it are added too."""
        if not isinstance(schema, dict):
            return []
        if len(self._parts) == PARTS_MAX:
            raise _wrong(self._path, f"should have at most {PARTS_MAX} schemas within it")
        index = len(self._parts)
        part = _Part(
            path=path,
            document=schema,
            comparisons=len(schema) + sum(_values(schema[name]) for name in _COMPARED if name in schema),
            pattern_work=self._pattern_work(schema, path),
            unevaluated="unevaluatedProperties" in schema or "unevaluatedItems" in schema,
        )
        self._parts.append(part)
        self._places[id(schema)] = index
        for name, message in _REFUSED.items():
            if name in schema:
                self._errors.append(FieldError(shortened(f"{path}.{name}"), message))
        for name in ("$id", "$schema"):
            if name in schema and index:
                self._errors.append(FieldError(shortened(f"{path}.{name}"), "should be at the top only"))
        if "$anchor" in schema:
            self._anchors[schema["$anchor"]] = index
        self._within(schema, "$defs", path)
        self._within(schema, "definitions", path)
        part.in_place = [each for name in _IN_PLACE for each in self._within(schema, name, path)]
        part.one_of_names = self._within(schema, "properties", path) + self._within(
            schema, "additionalProperties", path
        )
        part.every_name = [
            each
            for name in ("patternProperties", "propertyNames", "unevaluatedProperties")
            for each in self._within(schema, name, path)
        ]
        part.one_of_items = self._within(schema, "prefixItems", path) + self._within(schema, "items", path)
        part.every_item = self._within(schema, "contains", path) + self._within(schema, "unevaluatedItems", path)
        return [index]

    def _pattern_work(self, schema: dict[str, Any], path: str) -> int:
        patterns = [("pattern", schema["pattern"])] if "pattern" in schema else []
        patterns += [(f"patternProperties.{each}", each) for each in schema.get("patternProperties", ())]
        total = 0
        for place, pattern in patterns:
            if (work := _pattern_work(pattern)) is None:
                self._errors.append(FieldError(shortened(f"{path}.{place}"), _NO_PATTERN))
            total += work or 0
        return total

    def _within(self, schema: dict[str, Any], name: str, path: str) -> list[int]:
        """The places of the schemas under one keyword: one, a list of them, or one under each name."""
        value = schema.get(name)
        path = f"{path}.{name}"
        if isinstance(value, list):
            return [index for number, each in enumerate(value) for index in self._add(each, f"{path}.{number}")]
        if isinstance(value, dict) and name in _BY_NAME:
            return [index for key, each in value.items() for index in self._add(each, f"{path}.{key}")]
        return self._add(value, path)

    def _refer(self, part: _Part) -> None:
        if (reference := part.document.get("$ref")) is None:
            return
        if not reference.startswith("#"):
            message = "should begin with #: a payload schema refers to places within itself only"
        elif isinstance(target := self._target(unquote(reference[1:])), bool):
            return
        elif target is None:
            message = f"{shortened(reference)} leads to no schema; write it below $defs"
        else:
            part.in_place.append(target)
            return
        self._errors.append(FieldError(shortened(f"{part.path}.$ref"), message))

    def _target(self, fragment: str) -> int | bool | None:
        """The place of the schema that a reference leads to; a boolean if it is one."""
        if fragment and not fragment.startswith("/"):
            return self._anchors.get(fragment)
        place: Any = self._document
        for step in fragment.split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(place, dict):
                place = place.get(key)
            elif isinstance(place, list):
                # A number as text is compared, for one of thousands of digits is none.
                place = dict(zip(map(str, range(len(place))), place, strict=True)).get(key)
            else:
                return None
        return place if isinstance(place, bool) else self._places.get(id(place))

    def _in_order(self) -> list[int]:
        """The places of all parts, each behind those that apply in its place. Raises: InvalidInput: there is no such order,
        or a chain is too long."""
        order: list[int] = []
        ready = [False] * len(self._parts)
        for first in range(len(self._parts)):
            chain = [] if ready[first] else [(first, iter(self._parts[first].in_place))]
            entered = {first}
            while chain:
                index, waiting = chain[-1]
                following = next((each for each in waiting if not ready[each]), None)
                if following is None:
                    ready[index] = True
                    order.append(index)
                    entered.discard(index)
                    chain.pop()
                elif following in entered:
                    raise _wrong(shortened(self._parts[index].path), "applies itself again to the same value, for ever")
                else:
                    entered.add(following)
                    chain.append((following, iter(self._parts[following].in_place)))
        heights = [0] * len(self._parts)
        for index in order:
            heights[index] = 1 + max((heights[each] for each in self._parts[index].in_place), default=0)
            if heights[index] > IN_PLACE_MAX:
                message = (
                    f"should have at most {IN_PLACE_MAX} schemas, each in the place of the one before ($ref, allOf, …)"
                )
                raise _wrong(shortened(self._parts[index].path), message)
        return order


_NO_PATTERN: Final = (
    "is no pattern that takes linear time: write it without look-around and back references, and with small numbers of "
    "repeats; for lengths there are minLength and maxLength"
)
_BY_NAME: Final = frozenset({"$defs", "definitions", "dependentSchemas", "properties", "patternProperties"})
"""Keywords with a schema under each name."""


def _errors(validator: Draft202012Validator, value: Any, path: str) -> list[FieldError]:
    # A schema that applies twice finds the same error twice.
    found: dict[FieldError, None] = {}
    for error in validator.iter_errors(value):
        found |= dict.fromkeys(_field_errors(error, path))
        if len(found) >= ERRORS_MAX:
            break
    return list(found)[:ERRORS_MAX]


def _field_errors(error: ValidationError, path: str) -> Iterator[FieldError]:
    kind = error.kind
    place = ".".join([path, *map(str, error.instance_path)])
    if isinstance(kind, ValidationErrorKind.Required):
        yield FieldError(shortened(f"{place}.{kind.property}"), "is required")
    elif isinstance(kind, ValidationErrorKind.AdditionalProperties | ValidationErrorKind.UnevaluatedProperties):
        for name in kind.unexpected[:ERRORS_MAX]:
            yield FieldError(shortened(f"{place}.{name}"), "is no member that payloadSchema knows")
    else:
        yield _error(error, path)


def _error(error: ValidationError, path: str) -> FieldError:
    place = shortened(".".join([path, *map(str, error.instance_path)]))
    return FieldError(place, shortened(error.message.removeprefix("value ")))


def _pattern_work(pattern: str) -> int | None:
    """The number of parts that a pattern counts for, by the least size that is enough for it. None: it is refused."""
    for size in _PATTERN_SIZES:
        with contextlib.suppress(ValidationError):
            Draft202012Validator({"pattern": pattern}, pattern_options=_patterns_up_to(size))
            return size // _SIZE_OF_ONE_WORK
    return None


def _wrong(path: str, message: str) -> InvalidInput:
    return InvalidInput([FieldError(path, message)])


def _most(work: Sequence[int], places: Sequence[int]) -> int:
    return max((work[each] for each in places), default=0)


def _values(value: Any) -> int:
    """The number of values within a value, itself included."""
    total, waiting = 0, [value]
    while waiting:
        each = waiting.pop()
        total += 1
        if isinstance(each, dict | list):
            waiting += each.values() if isinstance(each, dict) else each
    return total


def _levels(value: Any) -> int:
    """The depth of the arrays and objects of a value; a scalar is 0 deep."""
    levels, level = 0, [value]
    while level := [inner for each in level if isinstance(each, dict | list) for inner in _inside(each)]:
        levels += 1
    return levels


def _inside(value: dict[str, Any] | list[Any]) -> Sequence[Any]:
    return list(value.values()) if isinstance(value, dict) else value


_METASCHEMA: Final = Draft202012Validator({"$ref": _DIALECT}, offline=True, mask="value")
