"""What is sent: a schedule to create, its time in the ways people write times, and how many go into one request."""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from clockwork.clock import Clock

When = int | datetime | timedelta
"""Epoch milliseconds, an aware datetime, or a time from now."""
Guarantee = Literal["exactly_once", "at_least_once"]
OnLate = Literal["deliver", "drop", "dead_letter"]

BATCH_ITEMS_MAX: Final = 1_000
"""What one request may hold."""
BATCH_BYTES_MAX: Final = 8 * 1024 * 1024
"""Half of what a service takes unless it is told otherwise."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """When a record is tried again that its topic refuses for what it is; what is None is left to the service."""

    attempts: int | None = None
    initial_ms: int | None = None
    max_ms: int | None = None
    factor: float | None = None
    jitter: float | None = None
    """By how much a wait may be shorter, as a share."""

    def document(self) -> dict[str, Any]:
        names = {"attempts": self.attempts, "initialMs": self.initial_ms, "maxMs": self.max_ms}
        return _said(names | {"factor": self.factor, "jitter": self.jitter})


@dataclass(frozen=True, kw_only=True, slots=True)
class NewDelivery:
    """How a schedule is to be delivered; what is None is left to the service, or as it is."""

    topic: str | None = None
    guarantee: Guarantee | None = None
    headers: Mapping[str, str] | None = None
    deadline_ms: int | None = None
    on_late: OnLate | None = None
    retry: RetryPolicy | None = None

    def document(self) -> dict[str, Any]:
        return _said(
            {
                "topic": self.topic,
                "guarantee": self.guarantee,
                "headers": None if self.headers is None else dict(self.headers),
                "deadline": self.deadline_ms,
                "onLate": self.on_late,
                "retry": None if self.retry is None else self.retry.document(),
            }
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class NewSchedule:
    """A schedule to create."""

    client_id: str
    schedule_key: str
    at: When
    """A time from now is fixed when the call begins, so that its retries are the same request."""
    topic: str
    data: Any
    """`bytes` are the record's value as they are; a text is its UTF-8 bytes; anything else is sent as compact JSON."""
    ordering_key: str | None = None
    """By default the schedule key."""
    guarantee: Guarantee | None = None
    """By default `exactly_once`."""
    headers: Mapping[str, str] | None = None
    """Of the record."""
    deadline_ms: int | None = None
    """How long after `at` it is late. None: never."""
    on_late: OnLate | None = None
    """What becomes of it then; by default it is delivered all the same."""
    retry: RetryPolicy | None = None
    """By default the cluster's."""

    def document(self, clock: Clock) -> dict[str, Any]:
        """As it is sent. Raises: ValueError."""
        delivery = NewDelivery(
            topic=self.topic,
            guarantee=self.guarantee,
            headers=self.headers,
            deadline_ms=self.deadline_ms,
            on_late=self.on_late,
            retry=self.retry,
        )
        document = {
            "clientId": self.client_id,
            "scheduleKey": self.schedule_key,
            "scheduleTime": epoch_ms(self.at, clock),
            "delivery": delivery.document(),
            **data_fields(self.data),
        }
        return document if self.ordering_key is None else document | {"orderingKey": self.ordering_key}


def _said(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def data_fields(data: Any) -> dict[str, Any]:
    if isinstance(data, bytes):
        return {"taskData": base64.b64encode(data).decode(), "taskDataEncoding": "base64"}
    return {"taskData": data}


def epoch_ms(when: When, clock: Clock) -> int:
    """Part of a millisecond counts as a whole one: nothing is ever early.

    Raises: ValueError: a datetime without a time zone.
    """
    match when:
        case timedelta():
            return clock.now_ms() - (-when // _MS)
        case datetime():
            if when.utcoffset() is None:
                raise ValueError("at: a datetime needs a time zone, such as datetime.now(UTC)")
            return -(-(when - _EPOCH) // _MS)
        case _:
            return when


def encoded(document: Any) -> bytes:
    """JSON in UTF-8. Raises: ValueError, TypeError: there is no JSON for it."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def batches(documents: Iterable[Any], *, items_max: int, bytes_max: int) -> Iterator[list[bytes]]:
    """The documents as JSON, in groups of so many items and bytes; one that is larger by itself goes alone."""
    batch: list[bytes] = []
    size_bytes = 0
    for document in documents:
        item = encoded(document)
        if batch and (len(batch) >= items_max or size_bytes + len(item) > bytes_max):
            yield batch
            batch, size_bytes = [], 0
        batch.append(item)
        size_bytes += len(item) + 1
    if batch:
        yield batch
