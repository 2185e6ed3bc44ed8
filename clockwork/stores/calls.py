"""Calls to a store over the network: the error that no repeat will mend, the wait before a repeat, the result for metrics.
Shared by the stores.
"""

import random
from typing import Final

from clockwork.errors import (
    ClockworkError,
    ConditionFailed,
    StoreThrottled,
    StoreUnavailable,
    TransactionConflict,
)
from clockwork.ports.telemetry import StoreResult

REPEAT_WAIT_S: Final = 0.05
"""Longest wait before the first repeat; doubled for each further one, and jittered, so that nodes do not repeat in step."""
REPEAT_WAIT_S_MAX: Final = 1.0


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
