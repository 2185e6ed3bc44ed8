"""What DynamoDB, the network and the client library say, in the words of `clockwork.errors`.

The one question behind all of it: may the write have been applied, or be applied later? It may whenever a request was
sent and no answer came, or an answer of the kind 5xx. A refusal that answers a *repeat* does not take that back: the
first copy may still be under way. A failed condition does, because every condition here, once it has failed, fails for
ever (a version, an epoch, a hold that is written once), except where it failed *because* of the first copy; the store
recognises that by the item that comes back with the failure.
"""

from typing import Any, Final

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, HTTPClientError
from botocore.exceptions import ConnectionError as LibraryConnectionError
from botocore.parsers import ResponseParserError

from clockwork.adapters.dynamo_fields import Item
from clockwork.errors import (
    ClockworkError,
    ConditionFailed,
    StoreThrottled,
    StoreUnavailable,
    TransactionConflict,
)

LIBRARY_ERRORS: Final = (ClientError, BotoCoreError, ResponseParserError, aiohttp.ClientError, OSError)
"""All that a call may raise; `TimeoutError` is an `OSError`."""

THROTTLING_CODES: Final = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "RequestLimitExceeded",
        "ThrottlingError",
        "ProvisionedThroughputExceeded",
    }
)
"""The last two are those of single actions in a cancelled transaction."""
IN_PROGRESS_CODE: Final = "TransactionInProgressException"
"""A copy of this very transaction is being applied."""

MESSAGE_CHARS_MAX: Final = 300
"""Of what others say, in our messages."""


class Refused(ConditionFailed):
    """A condition did not hold.

    `items` are what stood there instead, one for each write of the request; None: nothing stood there, it was not the
    one refused, or it was not asked for.
    """

    def __init__(self, items: tuple[Item | None, ...], message: str | None = None) -> None:
        super().__init__(message)
        self.items = items


class Rejected(StoreUnavailable):
    """DynamoDB will not do this as things are: a table is missing, access is denied, the request is malformed."""

    def __init__(self, message: str, *, code: str, outcome_unknown: bool = False) -> None:
        super().__init__(message, outcome_unknown=outcome_unknown)
        self.code = code


def code_of(answer: dict[str, Any]) -> str:
    """The error code in a parsed answer; empty if it is none."""
    return str(answer.get("Error", {}).get("Code", ""))


def never_sent(error: BaseException) -> bool:
    """True if no connection came about, so that the other side has not seen the request.

    `EndpointConnectionError` alone says nothing: aiobotocore also makes it of a connection that was reset later.
    """
    if isinstance(error, ConnectTimeoutError | aiohttp.ClientConnectorError):
        return True
    return isinstance(getattr(error, "kwargs", {}).get("error"), aiohttp.ClientConnectorError)


def translate(error: BaseException, *, write: bool, answer_lost: bool) -> ClockworkError:
    """Our error for the library's. `answer_lost`: an earlier copy of this request was sent and not answered."""
    if isinstance(error, ClientError):
        return _of_answer(error, write=write, answer_lost=answer_lost)
    # Any other error of the library is its own refusal, before anything is sent: no credentials, a malformed endpoint.
    sent = isinstance(
        error, HTTPClientError | LibraryConnectionError | ResponseParserError | aiohttp.ClientError | OSError
    )
    unknown = write and (answer_lost or (sent and not never_sent(error)))
    return StoreUnavailable(f"no answer from DynamoDB: {str(error)[:MESSAGE_CHARS_MAX]}", outcome_unknown=unknown)


def _of_answer(error: ClientError, *, write: bool, answer_lost: bool) -> ClockworkError:
    answer: dict[str, Any] = dict(error.response)
    code = code_of(answer)
    message = f"DynamoDB answered {code}"
    unknown = write and answer_lost
    if code == "ConditionalCheckFailedException":
        return Refused((answer.get("Item"),), message)
    if code == "TransactionCanceledException":
        return _of_cancellation(answer.get("CancellationReasons", []), unknown=unknown)
    if code == "TransactionConflictException":
        return _conflict(message, unknown=unknown)
    if code == IN_PROGRESS_CODE:
        # Not a conflict with somebody else, of which nothing is written: an earlier copy of ours is being applied.
        return StoreUnavailable(message, outcome_unknown=True)
    if code in THROTTLING_CODES:
        return StoreThrottled(message, outcome_unknown=unknown)
    if answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
        return StoreUnavailable(message, outcome_unknown=write)
    detail = str(answer.get("Error", {}).get("Message", ""))[:MESSAGE_CHARS_MAX]
    return Rejected(f"{message}: {detail}", code=code, outcome_unknown=unknown)


def _of_cancellation(reasons: list[dict[str, Any]], *, unknown: bool) -> ClockworkError:
    """A failed condition is the answer whatever else happened: without the conflict it would have failed as well."""
    codes = [str(reason.get("Code", "None")) for reason in reasons]
    message = f"DynamoDB cancelled the transaction: {', '.join(codes)}"
    if "ConditionalCheckFailed" in codes:
        return Refused(tuple(reason.get("Item") for reason in reasons), message)
    if "TransactionConflict" in codes:
        return _conflict(message, unknown=unknown)
    if THROTTLING_CODES.intersection(codes):
        return StoreThrottled(message, outcome_unknown=unknown)
    return Rejected(message, code="TransactionCanceledException", outcome_unknown=unknown)


def _conflict(message: str, *, unknown: bool) -> ClockworkError:
    if unknown:
        return StoreUnavailable(f"{message}, maybe with our own first request", outcome_unknown=True)
    return TransactionConflict(message)
