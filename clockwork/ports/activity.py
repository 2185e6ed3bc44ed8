"""The two topics of activity: events and minutes (`domain.activity`). Best effort, without any promise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

EVENTS_KAFKA_PARTITIONS: Final = 8
"""Kafka partitions of the events; a client's are in one of them."""
Stream = Literal["events", "minutes"]
STREAMS: Final[tuple[Stream, ...]] = ("events", "minutes")


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivityRecord:
    """One record of a stream, as it was sent."""

    stream: Stream
    kafka_partition: int
    offset: int
    at_ms: int
    """The record's timestamp: when its process sent it."""
    value: bytes


class ActivityLog(Protocol):
    """The streams as any process writes them, and as an accepting node reads them."""

    async def send(self, stream: Stream, kafka_partition: int, value: bytes) -> None:
        """Appends one record, and returns once it is acknowledged. Raises: BrokerUnavailable, DeliveryRefused (the stream is
        missing, forbidden, or takes no record of this size)."""
        ...

    async def tail(self, on_records: Callable[[Sequence[ActivityRecord]], None], *, minutes_from_ms: int) -> None:
        """Reads on until cancelled: the latest events of each Kafka partition and all that come, and the minutes sent since
        a time. Each record once, in order within its Kafka partition; goes on by itself after trouble, and never raises for
        it."""
        ...

    async def read(
        self, stream: Stream, *, from_ms: int, to_ms: int | None = None, records_max: int
    ) -> Sequence[ActivityRecord]:
        """The first records of a stream that were sent at `from_ms` or later, before `to_ms` if given, at most about
        `records_max`; by time. Raises: BrokerUnavailable."""
        ...
