"""Questions and answers of the request service, without HTTP.

A request that writes has two results: the participle of its verb, if this request wrote it (`Created`, `Changed`,
`JobCreated`, `RunClosed`), and another one, if it was so already, maybe by the same request before, and nothing was written:
`Already` before that word (`AlreadyCreated`, `RunAlreadyClosed`), of a change `Unchanged`. A cancel and a delete have
one for both. `…Refused`: the state does not allow it; `…Declined`: the union of all results of a request that was
understood and not carried out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from clockwork.domain.position import Position
from clockwork.domain.schedule import ClientId, Outcome, Schedule, ScheduleKey
from clockwork.domain.sharding import ShardId
from clockwork.errors import LimitState


class Status(StrEnum):
    """The state of a schedule, as a client sees it."""

    PENDING = "pending"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a request conflicts with the stored schedule; the first four are its state."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"
    IN_FLIGHT = "in_flight"
    """Too close to its due time: it may be cancelled or delivered. Ask again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleView:
    """One schedule and its state, as last read."""

    client_id: ClientId
    schedule_key: ScheduleKey
    position: Position
    shard: ShardId
    schedule: Schedule | None
    """None where the stored content could not be read."""
    status: Status
    version: int
    outcome: Outcome | None
    """None while pending."""
    discarded_at_ms: int | None = None
    """Time at which its dead letter was discarded (`operations.dead_letters`); None: it was not."""


@dataclass(frozen=True, slots=True)
class Created:
    """The schedule is durable."""

    view: ScheduleView
    limits: tuple[LimitState, ...] = ()
    """The client's limits after this create."""


@dataclass(frozen=True, slots=True)
class AlreadyCreated:
    """The same request was accepted before; the view is the schedule's present state."""

    view: ScheduleView
    limits: tuple[LimitState, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyTaken:
    """Another schedule is pending under this key."""

    view: ScheduleView


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The schedule will never be delivered; cancelled now or before."""

    view: ScheduleView


@dataclass(frozen=True, slots=True)
class Changed:
    """The schedule is as the request wants it; it was written by this request."""

    view: ScheduleView


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The schedule was as the request wants it, maybe by the same request before: nothing was written."""

    view: ScheduleView


@dataclass(frozen=True, slots=True)
class VersionDiffers:
    """The request's version condition does not hold."""

    view: ScheduleView


@dataclass(frozen=True, slots=True)
class NotFound:
    """No schedule was ever accepted under this key, or its retention is over."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The schedule is in a state in which the request cannot be carried out."""

    reason: Reason
    view: ScheduleView


@dataclass(frozen=True, slots=True)
class ExportRefused:
    """An export as a whole cannot be imported."""

    reason: str
    """A sentence about its time, without its subject."""


CreateResult = Created | AlreadyCreated | KeyTaken
CancelResult = Cancelled | VersionDiffers | NotFound | Refused
ChangeResult = Changed | Unchanged | VersionDiffers | NotFound | Refused
Declined = KeyTaken | VersionDiffers | NotFound | Refused
"""Results of a request that was understood and could not be carried out."""

Change = Callable[[Schedule], Schedule]
"""A function from a pending schedule to the wanted one; key, version and ids stay. Pure, so that it can be applied
again after another request has changed the schedule. Raises: InvalidInput."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionCondition:
    """The versions that a request may act on (`If-Match`, `If-None-Match`, `ifVersion`)."""

    any_of: frozenset[int] | None = None
    """None: any version."""
    none_of: frozenset[int] | None = frozenset()
    """None: no version at all, so that no existing schedule is acted on (`If-None-Match: *`)."""

    def holds(self, version: int) -> bool:
        return (self.any_of is None or version in self.any_of) and not self.excludes(version)

    def excludes(self, version: int) -> bool:
        return self.none_of is None or version in self.none_of

    def held_before(self, version: int) -> bool:
        """True if the condition names versions, and names the one before: then the change from there to here may be this
        request's own."""
        return self.any_of is not None and self.holds(version - 1) and not self.excludes(version)


ANY_VERSION: Final = VersionCondition()
