"""Translates errors of PostgreSQL, of the network and of asyncpg into `clockwork.errors`.

All of it answers one question: may the write have been applied, or be applied later? A call is a transaction. If the
server answers with an error of severity ERROR, the transaction is undone. If the answer is lost, or the server ends the
session (FATAL), the statement may have been committed, or may still be: the server goes on with a statement whose client is
gone. A call that was never sent wrote nothing.
"""

from typing import Final

import asyncpg

from clockwork.errors import ClockworkError, ConditionFailed, StoreThrottled, StoreUnavailable, TransactionConflict
from clockwork.stores.calls import Rejected

REFUSED_CODE: Final = "CW001"
"""Raised by `refuse()`, when a condition of a statement does not hold."""
DUPLICATE_CODE: Final = "23505"
CONFLICT_CODES: Final = frozenset({"40P01", "55P03", "40001"})
"""Deadlock, a lock that was waited for too long, and a serialization failure: another transaction stood in the way."""
CANCELLED_CODE: Final = "57014"
"""The statement's own time limit, or an operator."""
STARTING_CODE: Final = "57P03"
READ_ONLY_CODE: Final = "25006"
"""The server has become a standby, or was told to take no writes."""
MESSAGE_CHARS_MAX: Final = 300
"""The longest quotation of a foreign message in ours."""

CALL_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""All errors of a call to asyncpg, answered or not; `wrote_nothing` tells. `TimeoutError` is an `OSError`."""


class Refused(ConditionFailed):
    """A condition of the statement did not hold, or a row that it puts was there: nothing was written."""


def error_of_connecting(error: BaseException) -> ClockworkError:
    """The error for a connection that could not be made: nothing was sent."""
    text = f"no connection to PostgreSQL: {_text(error)}"
    if isinstance(error, asyncpg.PostgresError):
        code = code_of(error)
        if code.startswith("53") or code == STARTING_CODE:
            return StoreThrottled(text)
        if not code.startswith(("08", "57")):
            return Rejected(text)
    return StoreUnavailable(text)


def error_of_call(error: BaseException, *, write: bool, answer_lost: bool) -> ClockworkError:
    """The error for a statement that was sent. `answer_lost`: so was an earlier copy of it, without an answer."""
    if not wrote_nothing(error):
        return StoreUnavailable(f"no answer from PostgreSQL: {_text(error)}", outcome_unknown=write)
    assert isinstance(error, asyncpg.PostgresError)
    code, unknown = code_of(error), write and answer_lost
    text = f"PostgreSQL answered {code}: {_text(error)}"
    if code in (REFUSED_CODE, DUPLICATE_CODE):
        return Refused(text)
    if code in CONFLICT_CODES:
        if unknown:
            return StoreUnavailable(f"{text}, maybe for our own first request", outcome_unknown=True)
        return TransactionConflict(text)
    if code.startswith("53") or code == STARTING_CODE:
        return StoreThrottled(text, outcome_unknown=unknown)
    if code in (CANCELLED_CODE, READ_ONLY_CODE):
        return StoreUnavailable(text, outcome_unknown=unknown)
    return Rejected(text, outcome_unknown=unknown)


def wrote_nothing(error: BaseException) -> bool:
    """True if this copy wrote nothing: the server undid it (severity ERROR), or asyncpg never sent it."""
    if not isinstance(error, asyncpg.PostgresError) or code_of(error).startswith("08"):
        return False  # asyncpg raises an error of this class for a lost connection, too
    if isinstance(error, asyncpg.DataError):
        return True  # asyncpg raises it also for an argument that it cannot encode
    return _severity(error) == "ERROR"


def is_read_only(error: BaseException) -> bool:
    """True if the server takes no writes: another may, so this connection is of no use."""
    return isinstance(error, asyncpg.PostgresError) and code_of(error) == READ_ONLY_CODE


def code_of(error: asyncpg.PostgresError) -> str:
    """The SQLSTATE of an error."""
    return str(error.sqlstate or "")


def _text(error: BaseException) -> str:
    """The error in one line, without its details, which quote keys and rows, and without an argument that could not be
    encoded."""
    if isinstance(error, asyncpg.PostgresError):
        if isinstance(error, asyncpg.DataError) and _severity(error) is None:
            return "a value that no column of its type can hold"
        text = str(error.args[0]) if error.args else ""
    else:
        text = str(error)
    return (text or type(error).__name__)[:MESSAGE_CHARS_MAX]


def _severity(error: asyncpg.PostgresError) -> str | None:
    """None: the error is asyncpg's own."""
    return getattr(error, "severity_en", None) or getattr(error, "severity", None)
