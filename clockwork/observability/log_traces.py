"""Where an error came from, without what a client entrusted to us.

Some errors quote the value that they met: `KeyError: 'order-1'`, `invalid literal for int(): '…'`, pydantic's with the whole
input. Such a value may be a payload or a key, and a log is read by more people than either is meant for. So their messages
are left out; file, line and kind are what finds a defect anyway.
"""

import traceback
from collections.abc import Iterator
from typing import Final

QUOTING: Final = (ValueError, LookupError)
"""With all below them: UnicodeError, JSONDecodeError, KeyError, pydantic's ValidationError."""


def trace_text(error: BaseException | None) -> str:
    """As Python shows it, but for those messages."""
    return "\n".join(_lines(error)) if error is not None else ""


def _lines(error: BaseException, *, depth: int = 0) -> Iterator[str]:
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _lines(before, depth=depth)
        yield f"{'  ' * depth}… and from that or meanwhile:"
    yield f"{'  ' * depth}Traceback (most recent call last):"
    for frame in traceback.format_tb(error.__traceback__):
        yield from (f"{'  ' * depth}{line}" for line in frame.rstrip().splitlines())
    yield f"{'  ' * depth}{_named(error)}"
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _lines(each, depth=depth + 1)


def _named(error: BaseException) -> str:
    kind = type(error).__qualname__
    message = "[left out]" if isinstance(error, QUOTING) else str(error)
    return f"{kind}: {message}" if message else kind
