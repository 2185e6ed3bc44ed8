"""Exit codes and messages of failed calls. `clockwork.cli` lists the codes."""

from typing import Final

from clockwork.cli.render import one_line
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

FAILED: Final = 1
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


def exit_code(error: CallFailed) -> int:
    """The code that a command ends with after this failure."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)


def failure_line(error: CallFailed) -> str:
    """The message of a failure in one line, with the record's place if the schedule was delivered."""
    state = error.schedule
    if state is None or state.delivered is None:
        return one_line(str(error))
    delivered = state.delivered
    return one_line(f"{error} {delivered.topic}, Kafka partition {delivered.partition}, offset {delivered.offset}")
