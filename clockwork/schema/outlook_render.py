"""The next schedules, and forecasts, as answers show them. Their models are in `outlook`."""

from typing import Any, Final

from clockwork.operations.activity import BusiestMinute
from clockwork.operations.forecast import Forecast
from clockwork.requests.search import SearchResult
from clockwork.requests.upcoming import UpcomingItem
from clockwork.schema.render import render_schedule
from clockwork.schema.schedule import Detail

SUMMARY: Final = Detail(summary=True)
NAMED_MAX: Final = 20
"""Names that a forecast is split by; the rest is one sum."""


def render_upcoming(item: UpcomingItem) -> dict[str, Any]:
    """One pending row: an `UpcomingScheduleDocument`."""
    document = render_schedule(item.view, SUMMARY)
    return document if item.job is None else document | {"jobId": item.view.schedule_key, "runId": item.job.run_id}


def render_forecast(found: Forecast, busiest: BusiestMinute | None) -> dict[str, Any]:
    """A forecast: a `ForecastDocument`. `busiest`: what to compare it with."""
    shards, topics, clients = (
        each.most_common(NAMED_MAX) for each in (found.by_shard, found.by_topic, found.by_client)
    )
    document: dict[str, Any] = {
        "from": found.query.from_ms,
        "to": found.query.to_ms,
        "bucketMs": found.query.bucket_ms,
        "asOf": found.as_of_ms,
        "exact": all(bucket.exact for bucket in found.buckets),
        "exactTo": found.exact_to_ms,
        "buckets": [{"at": each.at_ms, "count": each.count, "exact": each.exact} for each in found.buckets],
        "byShard": [{"shard": shard, "count": count} for shard, count in shards],
        "byTopic": [{"topic": topic, "count": count} for topic, count in topics],
        "byClient": [{"clientId": client_id, "count": count} for client_id, count in clients],
        "otherTopics": found.by_topic.total() - sum(count for _, count in topics) + found.unnamed_topics,
        "otherClients": found.by_client.total() - sum(count for _, count in clients) + found.unnamed_clients,
        "lookedAt": found.looked_at,
        "readUnits": round(found.units, 2),
    }
    if busiest is not None:
        document["mostDelivered"] = {"count": busiest.delivered, "at": busiest.at_ms, "since": busiest.since_ms}
    return document if found.overdue is None else document | {"overdue": found.overdue}


def render_found(text: str, found: SearchResult) -> dict[str, Any]:
    """The findings of a search: a `FoundDocument`."""
    document: dict[str, Any] = {
        "q": text,
        "results": [render_schedule(view, SUMMARY) for view in found.views],
        "runs": [{"clientId": name.client_id, "jobId": name.job_id, "runId": run_id} for name, run_id in found.runs],
        "clientsLookedAt": found.clients_looked_at,
        "complete": found.complete,
    }
    return document if found.clients_as_of_ms is None else document | {"clientsAsOf": found.clients_as_of_ms}
