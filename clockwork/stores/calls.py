"""Calls to a store over the network: the error that no repeat will mend, the wait before a repeat, the result for metrics,
and the reading of lists with damaged items. Shared by the stores.
"""

import logging
import random
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from clockwork.errors import (
    ClockworkError,
    ConditionFailed,
    StoreThrottled,
    StoreUnavailable,
    TransactionConflict,
    Unreadable,
)
from clockwork.ports.telemetry import StoreResult

log = logging.getLogger(__name__)

REPEAT_WAIT_S: Final = 0.05
"""Longest wait before the first repeat; doubled for each further one, and jittered, so that nodes do not repeat in step."""
REPEAT_WAIT_S_MAX: Final = 1.0

_Item = TypeVar("_Item")
_Read = TypeVar("_Read")


class Rejected(StoreUnavailable):
    """The store will not do this as things are: a table is missing, access is denied, the request is malformed."""


def result_of(error: ClockworkError) -> StoreResult:
    """The metric's label for a failed call."""
    match error:
        case ConditionFailed():
            return "condition_failed"
        case TransactionConflict():
            return "conflict"
        case StoreThrottled():
            return "throttled"
        case Rejected():
            return "rejected"
        case StoreUnavailable():
            return "unavailable"
        case _:
            return "error"


def backoff_s(attempt: int) -> float:
    """The wait after this attempt (the first is 1), jittered."""
    longest: float = min(REPEAT_WAIT_S * 2 ** (attempt - 1), REPEAT_WAIT_S_MAX)
    return longest * random.uniform(0.5, 1)


def readable(read: Callable[[_Item], _Read], items: Iterable[_Item]) -> list[_Read]:
    """Reads items, leaving out the unreadable ones: one damaged item must not hide a thousand sound ones, and a request for
    that one alone is answered with its error."""
    found: list[_Read] = []
    for item in items:
        try:
            found.append(read(item))
        except Unreadable as error:
            # The key is not logged: a `scheduleKey` may name a person. `GET` of it says what is wrong with it.
            extra = {"event": "store.left_out_of_list", "error": str(error), "once_per": str(error)}
            log.warning("An item that cannot be read is left out of a list", extra=extra)
    return found
