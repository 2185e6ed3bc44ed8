"""What the engine is asked by its callers, and what it answers: the vocabulary of the edge, without HTTP in it.

`turn`: the request came as a command, whose turn this is (`requests.dedup`)."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from clockwork.domain.destination import Topic
from clockwork.domain.position import Position
from clockwork.domain.retry import RetryPolicy
from clockwork.domain.schedule import ClientId, DataForm, Guarantee, OnLate, OrderingKey, Outcome, Schedule, ScheduleKey
from clockwork.domain.sharding import ShardId
from clockwork.requests.dedup import CommandDedup


class Status(StrEnum):
    """The state of a schedule, as a client sees it."""

    PENDING = "pending"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a request conflicts with what is there; the first four are the schedule's state."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"
    IN_FLIGHT = "in_flight"
    """Too close to its time to call: nothing is promised, ask again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewSchedule:
    """A create after validation and defaults; ids, version and times of our own come later."""

    client_id: ClientId
    schedule_key: ScheduleKey
    ordering_key: OrderingKey
    due_ms: int
    """Epoch milliseconds; may lie in the past: due at once."""
    topic: Topic
    guarantee: Guarantee
    task_data: bytes
    data_form: DataForm
    headers: tuple[tuple[str, str], ...]
    """Sorted by name."""
    traceparent: str | None
    deadline_ms: int | None = None
    on_late: OnLate = OnLate.DELIVER
    retry: RetryPolicy | None = None
    digest: str
    """Equal for, and only for, the same request again."""


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
    """Its dead letter needs nothing any more; see `operations.dead_letters`."""


@dataclass(frozen=True, slots=True)
class Created:
    """The schedule is durable."""

    view: ScheduleView


@dataclass(frozen=True, slots=True)
class Repeated:
    """The same request was accepted before; this is what became of it."""

    view: ScheduleView


@dataclass(frozen=True, slots=True)
class KeyTaken:
    """Another schedule is pending under this key."""

    view: ScheduleView


@dataclass(frozen=True, slots=True)
class Cancelled:
    """It will never be delivered; cancelled now or before."""

    view: ScheduleView


@dataclass(frozen=True, slots=True)
class Changed:
    """It stands as it was asked for, in the place of what stood there before."""

    view: ScheduleView


@dataclass(frozen=True, slots=True)
class Unchanged:
    """It is as it was asked for already, maybe by the same request before: nothing was written."""

    view: ScheduleView


@dataclass(frozen=True, slots=True)
class VersionDiffers:
    """It has another version than the request wants to change."""

    view: ScheduleView


@dataclass(frozen=True, slots=True)
class NotFound:
    """Nothing was ever accepted under this key, or it is forgotten by now."""


@dataclass(frozen=True, slots=True)
class Refused:
    """It cannot be cancelled (or changed), and why."""

    reason: Reason
    view: ScheduleView


Change = Callable[[Schedule], Schedule]
"""From a pending schedule to what it should be; its key, version and ids stay. Pure, so that it can be asked again after
somebody else has changed the schedule. Raises: InvalidInput."""

IfVersion = frozenset[int]
"""The versions of which one must be there still; a request without such a wish has None instead."""


class Accepts(Protocol):
    """Takes schedules and finds them again."""

    async def create(self, new: NewSchedule, *, turn: CommandDedup | None = None) -> Created | Repeated | KeyTaken:
        """Raises: InvalidInput (no such topic), Unavailable (it may have been accepted), CommandAlreadyProcessed."""
        ...

    async def known(self, new: NewSchedule, *, turn: CommandDedup | None = None) -> Repeated | KeyTaken | None:
        """What `create` answers where it makes nothing new; None: it would. Raises: Unavailable, CommandAlreadyProcessed."""
        ...

    async def find(self, client_id: ClientId, schedule_key: ScheduleKey) -> ScheduleView | None:
        """Raises: Unavailable."""
        ...


class Cancels(Protocol):
    """Cancels pending schedules."""

    async def cancel(
        self, client_id: ClientId, schedule_key: ScheduleKey, *, turn: CommandDedup | None = None
    ) -> Cancelled | NotFound | Refused:
        """Raises: Unavailable (it may have been cancelled), CommandAlreadyProcessed."""
        ...


class Reschedules(Protocol):
    """Changes pending schedules."""

    async def change(
        self,
        client_id: ClientId,
        schedule_key: ScheduleKey,
        change: Change,
        *,
        if_version: IfVersion | None = None,
        turn: CommandDedup | None = None,
    ) -> Changed | Unchanged | VersionDiffers | NotFound | Refused:
        """Raises: InvalidInput (by `change`, or the new topic does not exist), Unavailable (it may have been changed),
        CommandAlreadyProcessed."""
        ...

    async def fire(
        self, client_id: ClientId, schedule_key: ScheduleKey, *, if_version: IfVersion | None = None
    ) -> Changed | Unchanged | VersionDiffers | NotFound | Refused:
        """Makes it due now. Raises: Unavailable (it may have been done)."""
        ...


class Rearms(Protocol):
    """Gives failed schedules another chance."""

    async def rearm(
        self,
        client_id: ClientId,
        schedule_key: ScheduleKey,
        *,
        due_ms: int | None = None,
        if_version: IfVersion | None = None,
    ) -> Changed | Unchanged | VersionDiffers | NotFound | Refused:
        """Makes a failed one pending again, due at `due_ms` or now. Raises: InvalidInput (its topic does not exist),
        Unavailable (it may have been done)."""
        ...
