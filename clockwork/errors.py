"""The error tree, split by what the code that catches an error should do.

ClockworkError
├── Unavailable            back off and try again; the request itself may be right
│   ├── StoreUnavailable   the store gave no usable answer (`outcome_unknown`: a write may have happened)
│   │   └── StoreThrottled it asked for fewer requests
│   ├── BrokerUnavailable  Kafka gave no usable answer, or a topic of Clockwork's own is refused
│   └── ClockUntrusted     this node's clock is too far from the store's, or was not compared lately
├── Contested              another writer was faster: read again, then decide
│   ├── ConditionFailed    a condition of the write did not hold
│   │   └── ShardsContested some shards of a take-over have another epoch meanwhile: named
│   └── TransactionConflict the item is part of a transaction that is being applied
├── CommandAlreadyProcessed this command, or a later one of its key, was processed before: do nothing
├── DeliveryRefused        a batch was not delivered: named records or destinations are the cause
├── DeliveryAborted        a transaction broke off before its commit, for no cause that is known: init, send again
├── DeliveryUnknown        a commit was asked for and has no answer that counts: init, then read the marker
├── Fenced                 this incarnation is over: stop, write nothing more, start the next one
├── Unreadable             stored bytes that this version cannot read: never guess what they mean
│   └── NewerFormat        written by a newer version: leave them alone
├── InvalidInput           the caller must change the request; names every wrong field
├── Unauthenticated        the caller has no valid key or token
├── Forbidden              the caller may not do this; names every field that its key does not cover
├── TooManyRequests        over a limit: nothing was done, the same request may be sent later
│   ├── TooManyPending     over the pending limit: when there will be room is unknown, do not wait
│   └── TooManyJobs        over the limit of jobs: likewise
├── JobsOff                this cluster keeps no recurring jobs
├── EventsOff              this cluster records no events and no minutes
├── SearchOff              this cluster keeps no index to list schedules from
└── CannotStart            the process must not start: each line of the message says what to change
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class ClockworkError(Exception):
    """Base of the errors of this module. The first line of a class's docstring is its default message."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])


class Unavailable(ClockworkError):
    """A service that is needed does not answer; the same request may work later."""


class StoreUnavailable(Unavailable):
    """The store gave no usable answer."""

    def __init__(self, message: str | None = None, *, outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown
        """True if a write was sent: it may have been applied, or may still be."""


class StoreThrottled(StoreUnavailable):
    """The store asks for fewer requests. The write was not applied, unless `outcome_unknown` is set."""


class BrokerUnavailable(Unavailable):
    """Kafka gave no usable answer, or a topic of Clockwork's own is refused."""


class ClockUntrusted(Unavailable):
    """This node's clock differs too much from the store's, or has not been compared lately."""


class Contested(ClockworkError):
    """Another writer was faster."""


class ConditionFailed(Contested):
    """A condition of the write did not hold."""


class ShardsContested(ConditionFailed):
    """Some shards of a take-over have another epoch meanwhile."""

    def __init__(self, shards: Sequence[int]) -> None:
        super().__init__(f"shards {', '.join(map(str, shards))} have another epoch meanwhile")
        self.shards = frozenset(shards)


class TransactionConflict(Contested):
    """The item is part of a transaction that is being applied."""


class CommandAlreadyProcessed(ClockworkError):
    """This command, or a later one under its key, was processed before."""


class RefusalCause(StrEnum):
    """The cause of a refusal: decides which rows wait, and whether an attempt is counted."""

    RECORD = "record"
    """The content of the record (too large, invalid): counts an attempt of its row, unless it is a dead letter."""
    DESTINATION = "destination"
    """The destination is missing or forbidden: all of its rows wait, no attempt is counted."""
    TRANSIENT = "transient"
    """A leader is unavailable, too few replicas, a time-out: all rows of the destination wait, no attempt is counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """One reason why a batch was not delivered."""

    cause: RefusalCause
    reason: str
    """Short stable code: `record_too_large`, `record_invalid`, `topic_missing`, `topic_forbidden`, …"""
    destination: str
    """The refused topic: a destination, a dead-letter topic, or the topic of the markers."""
    index: int | None = None
    """Index of the refused record in the batch: given if the cause is RECORD, never otherwise."""


class DeliveryRefused(ClockworkError):
    """A batch was not delivered: named records or topics are the cause."""

    def __init__(self, refusals: Sequence[Refusal], *, begun: bool) -> None:
        super().__init__("; ".join(f"{r.destination}: {r.reason}" for r in refusals))
        self.refusals = tuple(refusals)
        self.begun = begun
        """True if a transaction was begun: its slot must be initialised before the next one."""


class DeliveryAborted(ClockworkError):
    """A transaction broke off before its commit was asked for, and no record or topic is known to be the cause."""

    def __init__(self, message: str | None = None, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out
        """True if time ran out: the next batch should be smaller."""


class DeliveryUnknown(ClockworkError):
    """The commit of a transaction was asked for, and there is no answer to it that can be believed."""


class Fenced(ClockworkError):
    """This incarnation was fenced."""


class Unreadable(ClockworkError):
    """These stored bytes cannot be read."""


class NewerFormat(Unreadable):
    """These stored bytes were written by a newer version of Clockwork."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field of a request: where it is and what to do."""

    field: str
    message: str


QUOTED_CHARS_MAX: Final = 100
"""Characters of a client's own text that an error repeats."""


def shortened(text: str) -> str:
    """The text, cut to `QUOTED_CHARS_MAX` characters and marked with an ellipsis."""
    return text if len(text) <= QUOTED_CHARS_MAX else f"{text[:QUOTED_CHARS_MAX]}…"


class InvalidInput(ClockworkError):
    """The request cannot be accepted as it is."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("; ".join(f"{e.field}: {e.message}" for e in errors))
        self.errors = tuple(errors)


class Unauthenticated(ClockworkError):
    """The caller has no key or token that is valid here."""


class Forbidden(ClockworkError):
    """The caller may not do this."""

    def __init__(self, message: str | None = None, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.errors = tuple(errors)


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitState:
    """One limit of a client, as it stands after a request."""

    name: str
    quota: int
    window_s: int | None = None
    """None: no time window."""
    unit: str | None = None
    """None: requests."""
    left: int | None = None
    """None: not known."""
    reset_s: int | None = None
    """Seconds until the quota is full, or until the next count."""


class TooManyRequests(ClockworkError):
    """More requests than are allowed in this time."""

    def __init__(self, message: str, *, retry_after_s: int, limits: Sequence[LimitState] = ()) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.limits = tuple(limits)


class TooManyPending(TooManyRequests):
    """A client has as many pending schedules as it may have."""


class TooManyJobs(TooManyRequests):
    """A client has as many jobs as it may have."""


class JobsOff(ClockworkError):
    """This cluster keeps no recurring jobs."""


class EventsOff(ClockworkError):
    """This cluster records no events and no minutes."""


class SearchOff(ClockworkError):
    """This cluster keeps no index to list schedules from."""


class CannotStart(ClockworkError):
    """The process must not start: a setting, a resource or a package is wrong or missing."""
