"""Questions about activity, as they are sent."""

from collections.abc import Sequence
from typing import TypedDict

from clockwork.client.schedules import When, epoch_ms, given
from clockwork.clock import Clock


class EventFilters(TypedDict, total=False):
    """Arguments of `events`. A filter that is left out, or None, matches all."""

    since: When | None
    """By default the latest events, as many as a page has."""
    kinds: Sequence[str] | None
    client_id: str | None
    schedule_key: str | None
    """A schedule's key, or a job's id."""
    topic: str | None
    result: str | None
    page_size: int
    """Events of one answer, at most 1,000; by default 100."""


def events_query(
    clock: Clock,
    *,
    since: When | None = None,
    kinds: Sequence[str] | None = None,
    client_id: str | None = None,
    schedule_key: str | None = None,
    topic: str | None = None,
    result: str | None = None,
    page_size: int = 100,
) -> dict[str, str]:
    """The query of the first events. Raises: ValueError, OverflowError."""
    query = {
        "from": None if since is None else str(epoch_ms(since, clock)),
        "kind": ",".join(kinds) if kinds else None,
        "clientId": client_id,
        "scheduleKey": schedule_key,
        "topic": topic,
        "result": result,
        "limit": str(page_size),
    }
    return given(query)


class MinutesWindow(TypedDict, total=False):
    """Arguments of `minutes`."""

    since: When | None
    """By default an hour before the end."""
    until: When | None
    """Excluded; by default up to the present minute."""
    step_ms: int | None
    """A multiple of 60,000; by default a minute."""
    topic: str | None


def minutes_query(
    clock: Clock,
    *,
    since: When | None = None,
    until: When | None = None,
    step_ms: int | None = None,
    topic: str | None = None,
) -> dict[str, str]:
    """The query of counts by the minute. Raises: ValueError, OverflowError."""
    query = {
        "from": None if since is None else str(epoch_ms(since, clock)),
        "to": None if until is None else str(epoch_ms(until, clock)),
        "stepMs": None if step_ms is None else str(step_ms),
        "topic": topic,
    }
    return given(query)
