"""The whole error tree, split by what the one who catches it should do.

ClockworkError
├── Unavailable            back off and try again; nothing is known to be wrong with the request
│   ├── StoreUnavailable   the store did not answer, or not in time (`outcome_unknown`: a write may have happened)
│   │   └── StoreThrottled it answered "slow down": the write did not happen
│   ├── BrokerUnavailable  Kafka did not answer, or not in time
│   └── ClockUntrusted     our clock is too far from the store's, or was not compared lately
├── Contested              somebody else wrote first: read again, then decide
│   ├── ConditionFailed    a condition of the write did not hold
│   └── TransactionConflict the item is part of a transaction that is being applied
├── CommandAlreadyProcessed            a command that is read again: it had its effect, or a later one has; do nothing
├── DeliveryRefused        a batch was aborted: named records or topics are the cause
├── DeliveryUnknown        nobody knows whether a batch was committed: forget all, take over again
├── Fenced                 another owner has the shard: stop, write nothing more
├── Unreadable             stored bytes that this version cannot read: never guess what they mean
│   └── NewerFormat        written by a newer version: leave them alone
├── InvalidInput           the caller must change the request; names every wrong field
├── Unauthenticated        nobody knows who asks: no key, or one that is not valid
├── Forbidden              who asks may not do this; names every field that their key does not cover
├── TooManyRequests        over a limit: the same request is welcome later, and nothing was done
│   └── TooManyPending     nobody knows when there will be room: do not wait for it
└── CannotStart           the process must not run like this: one line says what to change
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class ClockworkError(Exception):
    """Base of everything that Clockwork raises on purpose. The docstring is the default message."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])


class Unavailable(ClockworkError):
    """Something that is needed does not answer; the same request may work later."""


class StoreUnavailable(Unavailable):
    """The store did not answer in time."""

    def __init__(self, message: str | None = None, *, outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown
        """True if a write was sent and may have been, or may still be, applied."""


class StoreThrottled(StoreUnavailable):
    """The store asks for fewer requests; the write did not happen."""


class BrokerUnavailable(Unavailable):
    """Kafka did not answer in time."""


class ClockUntrusted(Unavailable):
    """This node's clock differs too much from the store's, or has not been compared lately."""


class Contested(ClockworkError):
    """Another writer was faster."""


class ConditionFailed(Contested):
    """A condition of the write did not hold."""


class TransactionConflict(Contested):
    """The item is part of a transaction that is being applied."""


class CommandAlreadyProcessed(ClockworkError):
    """This command had its effect before, or a later one of its client has."""


class RefusalCause(StrEnum):
    """Why a record could not be sent: decides who waits, and whether it costs an attempt."""

    RECORD = "record"
    """The record itself is refused (too large, invalid): costs it an attempt."""
    DESTINATION = "destination"
    """The topic is missing or forbidden: all of its rows wait, none pays."""
    TRANSIENT = "transient"
    """A leader is away, too few replicas, a time-out: back off, nobody pays."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """One reason why a batch was not delivered."""

    cause: RefusalCause
    reason: str
    """Short stable code: `record_too_large`, `record_invalid`, `topic_missing`, `topic_forbidden`, …"""
    destination: str
    index: int | None = None
    """Which record of the batch: always there when it is the RECORD's fault, never otherwise."""


class DeliveryRefused(ClockworkError):
    """A batch was not delivered; if it was begun, the next init of its shard makes sure that it never will be."""

    def __init__(self, refusals: Sequence[Refusal], *, begun: bool) -> None:
        super().__init__("; ".join(f"{r.destination}: {r.reason}" for r in refusals))
        self.refusals = tuple(refusals)
        self.begun = begun
        """True if the producer must be built anew before the next batch."""


class DeliveryUnknown(ClockworkError):
    """Nobody knows whether the batch was committed."""

    def __init__(self, message: str | None = None, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out
        """True if time ran out before the commit was asked for: the next batch should be smaller."""


class Fenced(ClockworkError):
    """Another owner has this shard."""


class Unreadable(ClockworkError):
    """These stored bytes cannot be read."""


class NewerFormat(Unreadable):
    """These stored bytes were written by a newer version of Clockwork."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field of a request: where it is and what to do."""

    field: str
    message: str


class InvalidInput(ClockworkError):
    """The request cannot be accepted as it is."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("; ".join(f"{e.field}: {e.message}" for e in errors))
        self.errors = tuple(errors)


class Unauthenticated(ClockworkError):
    """No key, or none that is valid here."""


class Forbidden(ClockworkError):
    """Who asks may not do this."""

    def __init__(self, message: str | None = None, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.errors = tuple(errors)


class TooManyRequests(ClockworkError):
    """More than is allowed in this time."""

    def __init__(self, message: str, *, retry_after_s: int, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})
        """More about the limit, for the answer."""


class TooManyPending(TooManyRequests):
    """A client has as many pending schedules as it may have."""


class CannotStart(ClockworkError):
    """The node must not start with these settings or these tables."""
