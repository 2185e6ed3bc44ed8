"""A forecast as answers show it. Its models are in `forecast`."""

from typing import Any, Final

from clockwork.operations.activity import BusiestMinute
from clockwork.operations.forecast import Forecast

NAMED_MAX: Final = 20
"""Names that a forecast is split by; the rest is one sum."""


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
