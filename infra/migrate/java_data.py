"""Values that Java serialized, as Python has them: enough of the stream protocol for what Quartz keeps in its tables.

Nothing is ever instantiated: an object is a record of its class's name, its fields, and what its class wrote besides.
"""

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

_T = TypeVar("_T")
_MAGIC: Final = b"\xac\xed\x00\x05"
_FIRST_HANDLE: Final = 0x7E0000
_SERIALIZABLE, _EXTERNALIZABLE = 0x02, 0x04
_WRITES_ITSELF, _IN_BLOCKS = 0x01, 0x08
_PRIMITIVES: Final = {
    ord("B"): ">b",
    ord("C"): ">H",
    ord("D"): ">d",
    ord("F"): ">f",
    ord("I"): ">i",
    ord("J"): ">q",
    ord("S"): ">h",
    ord("Z"): ">?",
}
_BOXED: Final = frozenset(
    f"java.lang.{each}" for each in ("Byte", "Short", "Integer", "Long", "Float", "Double", "Boolean")
)


class NotReadable(Exception):
    """The bytes are no stream of Java's, or have what Python has no equal for; the message says what."""


@dataclass(kw_only=True, slots=True)
class JavaObject:
    """An object."""

    class_names: Sequence[str]
    """Its class, then that one's superclass, and so on."""
    fields: dict[str, Any] = field(default_factory=dict)
    written: list[Any] = field(default_factory=list)
    """Bytes and objects that its classes wrote themselves, in the stream's order."""


@dataclass(kw_only=True, slots=True)
class _Class:
    name: str
    flags: int = 0
    fields: list[tuple[int, str]] = field(default_factory=list)
    above: "_Class | None" = None

    def line(self) -> "list[_Class]":
        """This class, then its superclasses."""
        return [self, *([] if self.above is None else self.above.line())]


_END: Final = object()


@contextmanager
def expected_form() -> Iterator[None]:
    """Takes whatever goes wrong within for bytes, or objects, of another form than was expected: a stream says itself of
    each part what it is, and any byte of it may be wrong. Raises: NotReadable."""
    try:
        yield
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise NotReadable("is a damaged object of Java") from error


def read(data: bytes) -> Any:
    """The first value of a stream. Raises: NotReadable."""
    if not data.startswith(_MAGIC):
        raise NotReadable("is no serialized object of Java")
    with expected_form():
        return _Stream(data).content()


def plain(value: Any) -> Any:
    """A value of Java as one of JSON: texts, numbers, truth, dates as epoch ms, lists and maps. Raises: NotReadable."""
    match value:
        case float() if not math.isfinite(value):
            raise NotReadable("has a number that JSON does not have")
        case None | str() | bool() | int() | float():
            return value
        case list():
            return [plain(each) for each in value]
        case JavaObject(class_names=[name, *_]) if name in _BOXED:
            return plain(value.fields["value"])
        case JavaObject(class_names=["java.util.HashMap" | "java.util.LinkedHashMap", *_]):
            return _map(value)
        case JavaObject(class_names=["java.util.ArrayList" | "java.util.LinkedList", *_]):
            return [plain(each) for each in value.written if not isinstance(each, bytes)]
        case JavaObject(class_names=["java.util.Date", *_]):
            return date_ms(value)
        case JavaObject():
            raise NotReadable(f"has an object of class {value.class_names[0]}")
        case _:
            raise NotReadable("has a value that JSON does not have")


def date_ms(value: JavaObject) -> int:
    """A `java.util.Date`. Raises: NotReadable."""
    match value.written:
        case [bytes() as block] if len(block) == 8:
            return int.from_bytes(block, "big", signed=True)
        case _:
            raise NotReadable("has a damaged date")


def _map(value: JavaObject) -> dict[str, Any]:
    # First its size, then keys and values.
    contents = [each for each in value.written if not isinstance(each, bytes)]
    found: dict[str, Any] = {}
    for key, each in zip(contents[::2], contents[1::2], strict=True):
        if not isinstance(key, str):
            raise NotReadable("has a map whose keys are no texts")
        found[key] = plain(each)
    return found


class _Stream:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = len(_MAGIC)
        self._handles: list[Any] = []
        self._readers: Mapping[int, Callable[[], Any]] = {
            0x70: lambda: None,
            0x71: self._reference,
            0x73: self._object,
            0x74: lambda: self._kept(self._text(self._number(">H"))),
            0x75: self._array,
            0x77: lambda: self._take(self._number(">B")),
            0x78: lambda: _END,
            0x7A: lambda: self._take(self._number(">I")),
            0x7C: lambda: self._kept(self._text(self._number(">Q"))),
            0x7E: self._constant,
        }

    def content(self) -> Any:
        """The next value, block of bytes, or `_END`."""
        tag = self._number(">B")
        if tag not in self._readers:
            raise NotReadable(f"has a part of a kind ({tag:#x}) that is not read here")
        return self._readers[tag]()

    def _take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise NotReadable("is cut off")
        self._at += size
        return self._data[self._at - size : self._at]

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _text(self, size: int) -> str:
        # Java writes U+0000 as two bytes, and characters beyond 16 bits as two surrogates of three bytes each.
        text = self._take(size).replace(b"\xc0\x80", b"\x00").decode("utf-8", "surrogatepass")
        return text.encode("utf-16", "surrogatepass").decode("utf-16")

    def _kept(self, value: _T) -> _T:
        self._handles.append(value)
        return value

    def _reference(self) -> Any:
        return self._handles[self._number(">I") - _FIRST_HANDLE]

    def _class(self) -> _Class | None:
        match self._number(">B"):
            case 0x70:
                return None
            case 0x71:
                found: _Class = self._reference()
                return found
            case 0x72:
                name = self._text(self._number(">H"))
                self._take(8)
                described = self._kept(_Class(name=name))
                described.flags = self._number(">B")
                for _ in range(self._number(">H")):
                    kind, named = self._number(">B"), self._text(self._number(">H"))
                    if kind not in _PRIMITIVES:
                        self.content()
                    described.fields.append((kind, named))
                self._rest()
                described.above = self._class()
                return described
            case tag:
                raise NotReadable(f"has a class of a kind ({tag:#x}) that is not read here")

    def _described(self) -> _Class:
        found = self._class()
        if found is None:
            raise NotReadable("has an object without a class")
        return found

    def _rest(self) -> list[Any]:
        found: list[Any] = []
        while (each := self.content()) is not _END:
            found.append(each)
        return found

    def _value(self, kind: int) -> Any:
        return self._number(_PRIMITIVES[kind]) if kind in _PRIMITIVES else self.content()

    def _object(self) -> JavaObject:
        line = self._described().line()
        found: JavaObject = self._kept(JavaObject(class_names=[each.name for each in line]))
        for each in reversed(line):
            if each.flags & _EXTERNALIZABLE and not each.flags & _IN_BLOCKS:
                raise NotReadable(f"has an object of class {each.name}, whose bytes only that class can read")
            if each.flags & _SERIALIZABLE:
                found.fields |= {name: self._value(kind) for kind, name in each.fields}
            if each.flags & (_WRITES_ITSELF | _EXTERNALIZABLE):
                found.written += self._rest()
        return found

    def _array(self) -> list[Any]:
        kind = ord(self._described().name[1])
        found: list[Any] = self._kept([])
        found.extend(self._value(kind) for _ in range(self._number(">i")))
        return found

    def _constant(self) -> str:
        self._class()
        self._handles.append(None)
        at = len(self._handles) - 1
        name: str = self.content()
        self._handles[at] = name
        return name
