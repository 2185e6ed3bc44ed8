"""Translates errors of DynamoDB, of the network and of the client library into `clockwork.errors`.

All of it answers one question: may the write have been applied, or be applied later? It may if a request was sent and no
response came, or a response 5xx. A refusal of a *repeat* does not settle it: the first copy may still be under way. A
failed condition does, because every condition here, once it has failed, fails for ever (a version, an epoch, a hold that
is written once), except where it failed *because* of the first copy; the store recognises that by the item that comes
back with the failure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from botocore.exceptions import BotoCoreError

from clockwork.errors import ClockworkError, ConditionFailed, StoreThrottled, StoreUnavailable, TransactionConflict
from clockwork.stores import calls
from clockwork.stores.dynamodb.attributes import Item


class MalformedResponse(Exception):
    """A response came that cannot be read."""


class NotConnected(OSError):
    """No connection was made: nothing was sent."""


NO_RESPONSE: Final = (aiohttp.ClientError, OSError, MalformedResponse, BotoCoreError)
"""Errors of the transport that are raised in place of a response; `TimeoutError` is an `OSError`."""

THROTTLING_CODES: Final = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "RequestLimitExceeded",
        "ThrottlingError",
        "ProvisionedThroughputExceeded",
    }
)
"""The last two are codes of single actions in a cancelled transaction."""
CONDITION_CODE: Final = "ConditionalCheckFailed"
"""The code of a single action whose condition failed."""
CANCELLED_CODE: Final = "TransactionCanceledException"
IN_PROGRESS_CODE: Final = "TransactionInProgressException"
"""A copy of this very transaction is being applied."""

MESSAGE_CHARS_MAX: Final = 300
"""The longest quotation of a foreign message in ours."""


class Refused(ConditionFailed):
    """A condition did not hold.

    `items` holds the stored item for each write of the request; None: nothing is stored, the write was not the one
    refused, or its item was not asked for. `failed` tells for each write whether its condition failed.
    """

    def __init__(self, items: tuple[Item | None, ...], message: str | None = None, *, failed: tuple[bool, ...]) -> None:
        super().__init__(message)
        self.items = items
        self.failed = failed


@dataclass(frozen=True, slots=True)
class Reason:
    """The part of one action in the cancellation of its transaction."""

    code: str
    """`None` for an action that stood in no one's way."""
    item: Item | None = None
    """The stored item, if the action's condition failed and it asked for it."""


class Cancelled(ClockworkError):
    """DynamoDB cancelled a transaction, for reasons that it gives action by action. Nothing was written, by this copy of the
    request."""

    def __init__(self, reasons: Sequence[Reason], *, answer_lost: bool) -> None:
        """`answer_lost`: an earlier copy of the request was sent and not answered."""
        super().__init__(f"DynamoDB cancelled the transaction: {', '.join(reason.code for reason in reasons)}")
        self.reasons = tuple(reasons)
        self._answer_lost = answer_lost

    def error(self) -> ClockworkError:
        """The error of the whole transaction: its gravest reason."""
        return self.error_of(self.reasons) or Rejected(
            str(self), code=CANCELLED_CODE, outcome_unknown=self._answer_lost
        )

    def error_of(self, reasons: Sequence[Reason]) -> ClockworkError | None:
        """The error of some of the actions; None: they are not named as a cause.

        A failed condition decides, beside any other reason: without the conflict it would have failed as well.
        """
        codes = {reason.code for reason in reasons} - {"None"}
        if not codes:
            return None
        if CONDITION_CODE in codes:
            items = tuple(reason.item for reason in reasons)
            return Refused(items, str(self), failed=tuple(reason.code == CONDITION_CODE for reason in reasons))
        if "TransactionConflict" in codes:
            return _conflict(str(self), unknown=self._answer_lost)
        if THROTTLING_CODES.intersection(codes):
            return StoreThrottled(str(self), outcome_unknown=self._answer_lost)
        return Rejected(str(self), code=CANCELLED_CODE, outcome_unknown=self._answer_lost)


class Rejected(calls.Rejected):
    """A rejection by DynamoDB, with its code."""

    def __init__(self, message: str, *, code: str, outcome_unknown: bool = False) -> None:
        super().__init__(message, outcome_unknown=outcome_unknown)
        self.code = code


def code_of(answer: dict[str, Any]) -> str:
    """The error code in an answer; empty if it has none."""
    return str(answer.get("__type", "")).rpartition("#")[2]


def was_not_sent(error: BaseException) -> bool:
    """True if no connection was made, or no request: the other side has not seen it."""
    return isinstance(
        error, NotConnected | aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | BotoCoreError
    )


def error_for_no_response(error: BaseException, *, unknown: bool) -> ClockworkError:
    """The error for a request without a response. `unknown`: the write, or an earlier copy of it, may have been
    done."""
    text = str(error) or type(error).__name__
    return StoreUnavailable(f"no answer from DynamoDB: {text[:MESSAGE_CHARS_MAX]}", outcome_unknown=unknown)


def error_for_response(status: int, answer: dict[str, Any], *, write: bool, answer_lost: bool) -> ClockworkError:
    """The error for an error response of DynamoDB. `answer_lost`: an earlier copy of this request was sent and not
    answered."""
    code = code_of(answer)
    message = f"DynamoDB answered {code or status}"
    unknown = write and answer_lost
    if code == "ConditionalCheckFailedException":
        return Refused((answer.get("Item"),), message, failed=(True,))
    if code == CANCELLED_CODE:
        reasons = answer.get("CancellationReasons", [])
        return Cancelled(
            [Reason(str(reason.get("Code", "None")), reason.get("Item")) for reason in reasons], answer_lost=unknown
        )
    if code == "TransactionConflictException":
        return _conflict(message, unknown=unknown)
    if code == IN_PROGRESS_CODE:
        # Not a conflict with another writer, after which nothing is written: an earlier copy of ours is being applied.
        return StoreUnavailable(message, outcome_unknown=True)
    if code in THROTTLING_CODES:
        return StoreThrottled(message, outcome_unknown=unknown)
    if status >= 500:
        return StoreUnavailable(message, outcome_unknown=write)
    detail = str(answer.get("message") or answer.get("Message", ""))[:MESSAGE_CHARS_MAX]
    return Rejected(f"{message}: {detail}", code=code, outcome_unknown=unknown)


def _conflict(message: str, *, unknown: bool) -> ClockworkError:
    if unknown:
        return StoreUnavailable(f"{message}, maybe with our own first request", outcome_unknown=True)
    return TransactionConflict(message)
