"""Helpers for consumers: a record's headers as a value, and a memory of the deliveries that were seen.

A schedule with `exactly_once` is seen once by a consumer that reads with `isolation.level=read_committed`: it needs no
`Duplicates`. One with `at_least_once` may be sent again when its node crashes or its shard changes hands, shortly after
the first time and with the same delivery id, so remembering the last ids of each Kafka partition is enough. The memory
ends with the process: an effect that must happen once across its own crashes is recorded with the effect.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from clockwork.domain import record

IDS_MAX: Final = 100_000
"""Delivery ids that are remembered: some 15 MB."""


class NotADelivery(ValueError):
    """The record does not come from Clockwork, or one of its headers is damaged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetter:
    """The reason for which a record is in the dead-letter topic."""

    topic: str
    """The topic that it was meant for; empty if that could not be read."""
    reason: str
    attempts: int
    last_refusal: str | None = None
    """The reason of the last refusal; None: no attempt was refused for the record's content."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """The headers of a record, read."""

    client_id: str
    schedule_key: str
    schedule_time_ms: int
    """The due time, in epoch milliseconds."""
    delivery_id: str
    """The same in every attempt to deliver it."""
    traceparent: str | None
    headers: tuple[tuple[str, bytes], ...]
    """The caller's own headers, in order."""
    dead_letter: DeadLetter | None
    """None on every topic but the dead-letter topic."""

    def lateness_ms(self, timestamp_ms: int) -> int:
        """The lateness of a record with this timestamp, in milliseconds."""
        return timestamp_ms - self.schedule_time_ms


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRun:
    """The run of a recurring job that a record belongs to."""

    client_id: str
    job_id: str
    job_version: int
    """Version of the definition that it was delivered by."""
    run_id: str
    """The same in every attempt: by it a consumer tells that it has done a run before."""
    kind: str
    """`scheduled`, `catch_up`, `manual`, `backfill` or `retry`."""
    attempt: int
    """From 1."""
    scheduled_at_ms: int
    """The fire time, in epoch milliseconds; of a run by hand the time at which it was asked for."""
    previous_at_ms: int | None
    """The fire time before, in epoch milliseconds; None if there is none."""
    until_ms: int | None
    """The time by which the run is to be completed, in epoch milliseconds; None if no completion is asked for."""
    priority: int | None


def delivery_of(headers: Iterable[tuple[str, bytes | None]] | None) -> Delivery:
    """Reads a record's headers, in the form in which aiokafka and confluent-kafka give them.

    Raises: NotADelivery.
    """
    given = [(name, value or b"") for name, value in headers or ()]
    ours = _ours(given)
    traceparent = next((value for name, value in given if name == record.TRACEPARENT), None)
    return Delivery(
        client_id=_text(ours, record.CLIENT_ID),
        schedule_key=_text(ours, record.SCHEDULE_KEY),
        schedule_time_ms=_number(ours, record.SCHEDULE_TIME),
        delivery_id=_text(ours, record.DELIVERY_ID),
        traceparent=None if traceparent is None else traceparent.decode("utf-8", "replace"),
        headers=tuple((name, value) for name, value in given if name not in ours),
        dead_letter=_dead_letter(ours) if record.DEAD_REASON in ours else None,
    )


def run_of(headers: Iterable[tuple[str, bytes | None]] | None) -> JobRun:
    """Reads the run that a record belongs to, as `delivery_of` reads its delivery.

    Raises: NotADelivery; also for the record of a schedule, which belongs to no job.
    """
    ours = _ours((name, value or b"") for name, value in headers or ())
    return JobRun(
        client_id=_text(ours, record.CLIENT_ID),
        job_id=_text(ours, record.JOB_ID),
        job_version=_number(ours, record.JOB_VERSION),
        run_id=_text(ours, record.RUN_ID),
        kind=_text(ours, record.RUN_KIND),
        attempt=_number(ours, record.RUN_ATTEMPT),
        scheduled_at_ms=_number(ours, record.SCHEDULED_AT),
        previous_at_ms=_number_or_none(ours, record.PREVIOUS_AT),
        until_ms=_number_or_none(ours, record.RUN_UNTIL),
        priority=_number_or_none(ours, record.PRIORITY),
    )


def _ours(given: Iterable[tuple[str, bytes]]) -> dict[str, bytes]:
    ours: dict[str, bytes] = {}
    for name, value in given:
        if name.lower().startswith(record.RESERVED_PREFIX):
            ours.setdefault(name, value)
    return ours


def _dead_letter(ours: dict[str, bytes]) -> DeadLetter:
    return DeadLetter(
        topic=_text(ours, record.DEAD_TOPIC),
        reason=_text(ours, record.DEAD_REASON),
        attempts=_number(ours, record.DEAD_ATTEMPTS),
        last_refusal=_text(ours, record.DEAD_REFUSAL) if record.DEAD_REFUSAL in ours else None,
    )


def _text(headers: dict[str, bytes], name: str) -> str:
    try:
        return headers[name].decode()
    except KeyError:
        raise NotADelivery(f"{name}: is missing") from None
    except UnicodeDecodeError as error:
        raise NotADelivery(f"{name}: is not UTF-8") from error


def _number(headers: dict[str, bytes], name: str) -> int:
    text = _text(headers, name)
    if not (text.isascii() and text.removeprefix("-").isdigit()):
        raise NotADelivery(f"{name}: is not a number")
    return int(text)


def _number_or_none(headers: dict[str, bytes], name: str) -> int | None:
    return _number(headers, name) if name in headers else None


class Duplicates:
    """A memory of the last delivery ids."""

    def __init__(self, *, ids_max: int = IDS_MAX) -> None:
        if ids_max < 1:
            raise ValueError("ids_max: should be at least 1")
        self._ids_max = ids_max
        self._ids: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ids)

    def seen(self, delivery: Delivery) -> bool:
        """True if this delivery was asked for before; remembers it."""
        if delivery.delivery_id in self._ids:
            self._ids.move_to_end(delivery.delivery_id)
            return True
        self._ids[delivery.delivery_id] = None
        if len(self._ids) > self._ids_max:
            self._ids.popitem(last=False)
        return False

    def forget(self, delivery: Delivery) -> None:
        """Makes a delivery new again, because its processing failed."""
        self._ids.pop(delivery.delivery_id, None)
