"""Errors of PostgreSQL, of the network and of asyncpg tell whether a write may have been applied, and quote no data."""

import asyncpg
import pytest

from clockwork.errors import ClockworkError, StoreThrottled, StoreUnavailable, TransactionConflict
from clockwork.stores.calls import Rejected
from clockwork.stores.postgres.errors import Refused, error_of_call, error_of_connecting, wrote_nothing


def answered(code: str, *, severity: str = "ERROR", **more: str) -> asyncpg.PostgresError:
    """An error as the server sends it, in a language of its own."""
    fields = {"S": "FEHLER", "V": severity, "C": code, "M": "made up"} | more
    return asyncpg.PostgresError.new(fields)


UNDONE = {
    "40P01": TransactionConflict,  # deadlock
    "55P03": TransactionConflict,  # lock timeout
    "40001": TransactionConflict,
    "53100": StoreThrottled,  # disk full
    "53200": StoreThrottled,
    "53300": StoreThrottled,
    "57P03": StoreThrottled,
    "57014": StoreUnavailable,  # statement timeout
    "25006": StoreUnavailable,  # no writes
    "23505": Refused,
    "CW001": Refused,
    "42501": Rejected,  # no right
    "42P01": Rejected,  # no table
    "22021": Rejected,
    "XX001": Rejected,  # a damaged page
}


@pytest.mark.parametrize("code", UNDONE)
def test_a_statement_that_the_server_undid_has_written_nothing(code: str) -> None:
    error = error_of_call(answered(code), write=True, answer_lost=False)

    assert type(error) is UNDONE[code]
    assert not is_unknown(error)


@pytest.mark.parametrize("code", [code for code in UNDONE if UNDONE[code] is not Refused])
def test_that_a_second_copy_was_undone_says_nothing_of_the_first(code: str) -> None:
    assert is_unknown(error_of_call(answered(code), write=True, answer_lost=True))
    assert not is_unknown(error_of_call(answered(code), write=False, answer_lost=True))


@pytest.mark.parametrize(
    "error",
    [
        answered("57P01", severity="FATAL"),  # an administrator ended the session
        answered("57P02", severity="FATAL"),
        answered("53100", severity="PANIC"),  # no room for the log
        answered("25P03", severity="FATAL"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("got result for unknown protocol state"),
        ConnectionResetError(104, "reset"),
        TimeoutError(110, "timed out"),
    ],
    ids=repr,
)
def test_a_statement_whose_session_ended_may_have_been_applied(error: Exception) -> None:
    assert not wrote_nothing(error)
    assert is_unknown(error_of_call(error, write=True, answer_lost=False))
    assert not is_unknown(error_of_call(error, write=False, answer_lost=False))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (answered("57P03", severity="FATAL"), StoreThrottled),  # it is starting
        (answered("53300", severity="FATAL"), StoreThrottled),  # no connection is left
        (answered("57P01", severity="FATAL"), StoreUnavailable),
        (answered("28P01", severity="FATAL"), Rejected),  # password
        (answered("3D000", severity="FATAL"), Rejected),  # no such database
        (asyncpg.TargetServerAttributeNotMatched("none"), StoreUnavailable),
        (ConnectionRefusedError(111, "refused"), StoreUnavailable),
        (TimeoutError(), StoreUnavailable),
    ],
    ids=repr,
)
def test_where_no_connection_was_made_nothing_was_sent(error: Exception, kind: type[ClockworkError]) -> None:
    found = error_of_connecting(error)

    assert type(found) is kind
    assert not is_unknown(found)


def is_unknown(error: ClockworkError) -> bool:
    return isinstance(error, StoreUnavailable) and error.outcome_unknown


def test_no_error_quotes_a_key_a_row_or_an_argument() -> None:
    duplicate = answered("23505", D="Key (client_id, schedule_key)=(acme, hush) already exists.", H="hush")
    violated = answered("23514", D="Failing row contains (3, hush, …).")
    argument = asyncpg.DataError("invalid input for query argument $3: 'hush' (expected int)")
    assert wrote_nothing(argument)

    for error in (duplicate, violated, argument):
        assert "hush" not in str(error_of_call(error, write=True, answer_lost=False))
