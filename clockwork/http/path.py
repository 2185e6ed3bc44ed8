"""What stands in a path besides a schedule's key."""

from collections.abc import Callable
from typing import TypeVar

from aiohttp import web

from clockwork.errors import FieldError, InvalidInput

_Value = TypeVar("_Value")


def in_path(request: web.Request, name: str, parse: Callable[[str], _Value]) -> _Value:
    """A part of the path. Raises: InvalidInput, naming it."""
    try:
        return parse(request.match_info[name])
    except ValueError as error:
        raise InvalidInput([FieldError(name, str(error))]) from error
