"""Requests of the client: new schedules, changes and filters, times in the ways people write them, batches."""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NotRequired, TypedDict

from clockwork.client.errors import InvalidRequest
from clockwork.clock import Clock
from clockwork.domain.names import BATCH_ITEMS_MAX as BATCH_ITEMS_MAX

When = int | datetime | timedelta
"""Epoch milliseconds, an aware datetime, or a time from now."""
Guarantee = Literal["exactly_once", "at_least_once"]
OnLate = Literal["deliver", "drop", "dead_letter"]
Status = Literal["pending", "delivered", "cancelled", "failed"]

BATCH_BYTES_MAX: Final = 8 * 1024 * 1024
"""Half of a service's own limit, unless it is configured otherwise."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """Attempts and waits for a record that its topic refuses for its content. None leaves a value to the service."""

    attempts: int | None = None
    initial_ms: int | None = None
    max_ms: int | None = None
    factor: float | None = None
    jitter: float | None = None
    """Share of a wait that may be left off at random."""

    def document(self) -> dict[str, Any]:
        names = {"attempts": self.attempts, "initialMs": self.initial_ms, "maxMs": self.max_ms}
        return given(names | {"factor": self.factor, "jitter": self.jitter})


@dataclass(frozen=True, kw_only=True, slots=True)
class NewDelivery:
    """Topic and policies of a delivery. None leaves a value to the service, or unchanged."""

    topic: str | None = None
    guarantee: Guarantee | None = None
    headers: Mapping[str, str] | None = None
    deadline_ms: int | None = None
    on_late: OnLate | None = None
    retry: RetryPolicy | None = None

    def document(self) -> dict[str, Any]:
        return given(
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
    """Headers of the record."""
    deadline_ms: int | None = None
    """Milliseconds after `at` from which the schedule is late. None: never."""
    on_late: OnLate | None = None
    """Action for a late schedule; by default it is delivered all the same."""
    retry: RetryPolicy | None = None
    """By default the cluster's."""

    def document(self, clock: Clock) -> dict[str, Any]:
        """The body of the request. Raises: ValueError, TypeError, OverflowError."""
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


class NewScheduleFields(TypedDict):
    """Arguments of `create`: the fields of `NewSchedule` besides its key."""

    at: When
    topic: str
    data: Any
    ordering_key: NotRequired[str | None]
    guarantee: NotRequired[Guarantee | None]
    headers: NotRequired[Mapping[str, str] | None]
    deadline_ms: NotRequired[int | None]
    on_late: NotRequired[OnLate | None]
    retry: NotRequired[RetryPolicy | None]


class Changes(TypedDict, total=False):
    """Arguments of `reschedule`. An argument that is left out, or None, changes nothing; but `data` may be None."""

    at: When | None
    topic: str | None
    data: Any
    ordering_key: str | None
    guarantee: Guarantee | None
    headers: Mapping[str, str] | None
    """They replace all headers."""
    deadline_ms: int | None
    on_late: OnLate | None
    retry: RetryPolicy | None


def change_document(
    clock: Clock, *, at: When | None = None, ordering_key: str | None = None, **changes: Any
) -> dict[str, Any]:
    """The body of a reschedule. `changes`: the others of `Changes`. Raises: ValueError, OverflowError."""
    data = changed_data_fields(changes.pop("data")) if "data" in changes else {}
    fields = {
        "scheduleTime": None if at is None else epoch_ms(at, clock),
        "orderingKey": ordering_key,
        "delivery": NewDelivery(**changes).document() or None,
    }
    return given(fields) | data


class ListFilters(TypedDict, total=False):
    """Arguments of `list`. A filter that is left out, or None, matches all."""

    status: Status | None
    topic: str | None
    ordering_key: str | None
    due_from: When | None
    due_to: When | None
    """Excluded."""
    page_size: int
    """Schedules of one answer; by default 100."""


def list_query(
    client_id: str | None,
    clock: Clock,
    *,
    status: Status | None = None,
    topic: str | None = None,
    ordering_key: str | None = None,
    due_from: When | None = None,
    due_to: When | None = None,
    page_size: int = 100,
) -> dict[str, str]:
    """The query of a list; without `client_id` that of one over all clients. Raises: ValueError, OverflowError."""
    query = {
        "clientId": client_id,
        "status": status,
        "topic": topic,
        "orderingKey": ordering_key,
        "dueFrom": None if due_from is None else str(epoch_ms(due_from, clock)),
        "dueTo": None if due_to is None else str(epoch_ms(due_to, clock)),
        "limit": str(page_size),
    }
    return given(query)


class UpcomingFilters(TypedDict, total=False):
    """Arguments of `upcoming`. A filter that is left out, or None, matches all."""

    client_id: str | None
    topic: str | None
    due_from: When | None
    due_to: When | None
    """Excluded."""
    page_size: int
    """Schedules of one answer, at most 200; by default 100."""


def upcoming_query(
    clock: Clock,
    *,
    client_id: str | None = None,
    topic: str | None = None,
    due_from: When | None = None,
    due_to: When | None = None,
    page_size: int = 100,
) -> dict[str, str]:
    """The query of a list of what is due next. Raises: ValueError, OverflowError."""
    return list_query(client_id, clock, topic=topic, due_from=due_from, due_to=due_to, page_size=page_size)


class ForecastWindow(TypedDict, total=False):
    """Arguments of `forecast`."""

    since: When | None
    """By default now."""
    until: When | None
    """Excluded; by default an hour later."""
    bucket_ms: int | None
    """By default a minute."""
    client_id: str | None
    topic: str | None


def forecast_query(
    clock: Clock,
    *,
    since: When | None = None,
    until: When | None = None,
    bucket_ms: int | None = None,
    client_id: str | None = None,
    topic: str | None = None,
) -> dict[str, str]:
    """The query of a forecast. Raises: ValueError, OverflowError."""
    query = {
        "from": None if since is None else str(epoch_ms(since, clock)),
        "to": None if until is None else str(epoch_ms(until, clock)),
        "bucketMs": None if bucket_ms is None else str(bucket_ms),
        "clientId": client_id,
        "topic": topic,
    }
    return given(query)


def given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def data_fields(data: Any) -> dict[str, Any]:
    """A payload, and its encoding if it is not the default."""
    if isinstance(data, bytes):
        return {"taskData": base64.b64encode(data).decode(), "taskDataEncoding": "base64"}
    return {"taskData": data}


def changed_data_fields(data: Any) -> dict[str, Any]:
    """A payload in a change, with its encoding in any case: one that is not named stays, and a text would be read as
    base64."""
    return {"taskDataEncoding": "json", **data_fields(data)}


def epoch_ms(when: When, clock: Clock) -> int:
    """A time in epoch milliseconds. Part of a millisecond counts as a whole one: nothing is ever early.

    Raises: ValueError: a datetime without a time zone; OverflowError: a duration beyond what can be computed with.
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
    """JSON in UTF-8. Raises: ValueError: there is no JSON for the document."""
    try:
        return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, RecursionError) as error:
        raise ValueError(f"there is no JSON for it: {error}") from error


def encoded_item(item: NewSchedule | Mapping[str, Any], clock: Clock) -> bytes | InvalidRequest:
    """One item of a batch; the item's error if it cannot be sent, so that it does not stop the others."""
    try:
        return encoded(item.document(clock) if isinstance(item, NewSchedule) else item)
    except (ValueError, TypeError, OverflowError) as error:
        return InvalidRequest(f"The item cannot be sent: {error}")


def batches(
    items: Iterable[bytes | InvalidRequest], *, items_max: int, bytes_max: int
) -> Iterator[list[bytes | InvalidRequest]]:
    """Groups of so many items and bytes, in order; an item that is larger by itself goes alone."""
    batch: list[bytes | InvalidRequest] = []
    size_bytes = 0
    for item in items:
        item_bytes = len(item) if isinstance(item, bytes) else 0
        if batch and (len(batch) >= items_max or size_bytes + item_bytes > bytes_max):
            yield batch
            batch, size_bytes = [], 0
        batch.append(item)
        size_bytes += item_bytes + 1
    if batch:
        yield batch
