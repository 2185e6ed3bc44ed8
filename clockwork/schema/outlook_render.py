"""The next schedules, and forecasts, as answers show them. Their models are in `outlook`."""

from typing import Any, Final

from clockwork.operations.forecast import Forecast
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


def render_forecast(found: Forecast) -> dict[str, Any]:
    """A forecast: a `ForecastDocument`."""
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
        "otherTopics": found.by_topic.total() - sum(count for _, count in topics),
        "otherClients": found.by_client.total() - sum(count for _, count in clients),
        "lookedAt": found.looked_at,
        "readUnits": round(found.units, 2),
    }
    return document if found.overdue is None else document | {"overdue": found.overdue}
