"""Stored forms that are declared once, for writing and for reading: a table of members for each class of values.

A form is a dictionary of texts, whole numbers, truth values, bytes, lists and dictionaries, which each store spells in its
own way. The names of its members are what is stored; an attribute can be renamed without touching them. A member at its
default is left out. Reading raises `Unreadable` and nothing else, for any stored value; its message names the member, never
its value.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Final, Generic, TypeAlias, TypeVar

from clockwork.domain.position import position_of, text_of
from clockwork.errors import InvalidInput, Unreadable

T = TypeVar("T")

Stored: TypeAlias = dict[str, Any]
"""A form: its values are `str`, `int`, `bool`, `bytes`, lists of them, and forms."""

REQUIRED: Final = object()
"""The default of a member that is never left out."""
INTEGER_BITS: Final = 63
"""Whole numbers have at most so many, and a sign: what a `bigint` holds."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of values: how it is written, and read. `read` is given the name of the member for its error."""

    write: Callable[[Any], Any]
    read: Callable[[Any, str], Any]


def _itself(value: Any) -> Any:
    return value


def _read_integer(stored: Any, name: str) -> int:
    if not isinstance(stored, int) or isinstance(stored, bool) or stored.bit_length() > INTEGER_BITS:
        raise Unreadable(f"{name}: not an integer")
    return stored


def _read_text(stored: Any, name: str) -> str:
    if not isinstance(stored, str):
        raise Unreadable(f"{name}: not a text")
    try:
        stored.encode()
    except UnicodeEncodeError as error:
        raise Unreadable(f"{name}: not UTF-8") from error
    return stored


def _read_flag(stored: Any, name: str) -> bool:
    if not isinstance(stored, bool):
        raise Unreadable(f"{name}: not a truth value")
    return stored


def _read_bytes(stored: Any, name: str) -> bytes:
    if not isinstance(stored, bytes):
        raise Unreadable(f"{name}: not bytes")
    return stored


def _read_position(stored: Any, name: str) -> int:
    position = position_of(_read_text(stored, name))
    if position <= 0:
        raise Unreadable(f"{name}: not a position")
    return position


def _read_pairs(stored: Any, name: str) -> tuple[tuple[str, str], ...]:
    inner = _mapping(stored, name)
    return tuple((_read_text(key, name), _read_text(inner[key], name)) for key in sorted(inner))


def _mapping(stored: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(stored, Mapping):
        raise Unreadable(f"{name}: not a form")
    return stored


def _sequence(stored: Any, name: str) -> Sequence[Any]:
    if not isinstance(stored, list):
        raise Unreadable(f"{name}: not a list")
    return stored


INTEGER: Final = Kind(_itself, _read_integer)
TEXT: Final = Kind(_itself, _read_text)
FLAG: Final = Kind(_itself, _read_flag)
BYTES: Final = Kind(_itself, _read_bytes)
UTF8: Final = Kind(bytes.decode, lambda stored, name: _read_text(stored, name).encode())
"""Bytes that are UTF-8, as text."""
POSITION: Final = Kind(text_of, _read_position)
PAIRS: Final = Kind(dict, _read_pairs)
"""Pairs of texts with different first parts, sorted by them."""


def word(words: type[StrEnum]) -> Kind:
    """One of a closed set of words."""

    def read(stored: Any, name: str) -> StrEnum:
        try:
            return words(_read_text(stored, name))
        except ValueError as error:
            raise Unreadable(f"{name}: unknown value") from error

    return Kind(str, read)


def sequence(of: Kind) -> Kind:
    """A tuple."""
    return Kind(
        lambda values: [of.write(each) for each in values],
        lambda stored, name: tuple(of.read(each, name) for each in _sequence(stored, name)),
    )


def by_name(of: Kind) -> Kind:
    """A mapping of texts to values of one kind."""

    def read(stored: Any, name: str) -> Mapping[str, Any]:
        found = _mapping(stored, name)
        return {_read_text(key, name): of.read(found[key], name) for key in found}

    return Kind(lambda values: {key: of.write(value) for key, value in values.items()}, read)


def word_set(words: type[StrEnum]) -> Kind:
    """A frozen set of words."""
    of = word(words)
    return Kind(
        lambda values: sorted(of.write(each) for each in values),
        lambda stored, name: frozenset(of.read(each, name) for each in _sequence(stored, name)),
    )


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a form."""

    attribute: str
    """Its name in the class."""
    stored: str
    kind: Kind
    default: Any = REQUIRED
    """The value of a member that is left out."""


class Form(Generic[T]):
    """The form of one class of values."""

    def __init__(
        self,
        of: type[Any],
        *members: Member,
        given: Sequence[str] = (),
        parts: Sequence[str] = (),
        make: Callable[..., T] | None = None,
    ) -> None:
        """`given`: attributes that are stored elsewhere, and given when it is read. `parts`: members that are no attributes
        of its class, but computed of them, for `make`. `make`: what makes a value of its attributes, and finds those by
        itself that are not compared; None: the class. An attribute without a member is refused here, when the program
        starts."""
        declared = ({each.attribute for each in members} | set(given)) - set(parts)
        wanted = {each.name for each in fields(of) if each.init and (make is None or each.compare)}
        if declared != wanted:
            raise TypeError(f"the form of {of.__name__} differs from it in {', '.join(sorted(declared ^ wanted))}")
        self._make: Callable[..., T] = make if make is not None else of
        self._members = members

    def write(self, value: T) -> Stored:
        """A value as it is stored."""
        form: Stored = {}
        for member in self._members:
            attribute = getattr(value, member.attribute)
            if member.default is REQUIRED or attribute != member.default:
                form[member.stored] = member.kind.write(attribute)
        return form

    def read(self, stored: Mapping[str, Any], **given: Any) -> T:
        """Reads a form; what it has besides is not looked at. Raises: Unreadable."""
        attributes = given
        for member in self._members:
            if member.stored in stored:
                attributes[member.attribute] = member.kind.read(stored[member.stored], member.stored)
            elif member.default is REQUIRED:
                raise Unreadable(f"{member.stored}: missing")
            else:
                attributes[member.attribute] = member.default
        try:
            return self._make(**attributes)
        except InvalidInput as error:
            raise Unreadable(f"{error.errors[0].field}: not a legal one") from error


def inner(form: Form[Any]) -> Kind:
    """A form within a form."""
    return Kind(form.write, lambda stored, name: form.read(_mapping(stored, name)))


def tagged(forms: Mapping[str, tuple[type[Any], Form[Any]]]) -> Kind:
    """A value of one of several classes, each with its form, told by the member `type`."""
    tags = {of: (tag, form) for tag, (of, form) in forms.items()}

    def write(value: Any) -> Stored:
        tag, form = tags[type(value)]
        return {"type": tag, **form.write(value)}

    def read(stored: Any, name: str) -> Any:
        form = _mapping(stored, name)
        tag = _read_text(form.get("type"), f"{name}.type")
        if tag not in forms:
            raise Unreadable(f"{name}.type: unknown value")
        return forms[tag][1].read(form)

    return Kind(write, read)
