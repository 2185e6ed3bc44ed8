"""Errors to exit codes and one line on standard error. The codes are told in clockwork.cli."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

from clockwork.client import (
    CallFailed,
    Conflict,
    Forbidden,
    InFlight,
    NotFound,
    Refused,
    TooMany,
    Unauthorized,
    Unavailable,
    VersionMismatch,
)

REFUSED: Final = 3
NOT_FOUND: Final = 4
CONFLICT: Final = 5
UNKNOWN: Final = 9
# The first that fits: a class stands before its base.
_CODES: Final[tuple[tuple[type[CallFailed], int], ...]] = (
    (NotFound, NOT_FOUND),
    (Conflict, CONFLICT),
    (VersionMismatch, CONFLICT),
    (InFlight, 6),
    (Unauthorized, 7),
    (Forbidden, 7),
    (TooMany, 8),
    (Unavailable, UNKNOWN),
    (Refused, REFUSED),
)
HELP: Final = (
    "\b\nExit codes: 0 done, 2 wrong command line, 3 refused, 4 no such schedule, 5 its state does not allow it,\n"
    "6 in flight, 7 API key, 8 over a quota, 9 outcome unknown (the same command again settles it)."
)


def code_of(error: CallFailed) -> int:
    return next((code for kind, code in _CODES if isinstance(error, kind)), 1)


def line_of(error: CallFailed) -> str:
    state = error.schedule
    if state is None or state.delivered is None:
        return str(error)
    receipt = state.delivered
    return f"{error} {receipt.topic}, Kafka partition {receipt.partition}, offset {receipt.offset}"


@contextmanager
def told() -> Iterator[None]:
    """Ends the command with the code of whatever call fails inside."""
    try:
        yield
    except CallFailed as error:
        click.echo(f"clockwork: {line_of(error)}", err=True)
        raise click.exceptions.Exit(code_of(error)) from error
    except UnicodeEncodeError as error:
        raise click.UsageError("the arguments should be UTF-8") from error
