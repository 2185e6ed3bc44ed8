"""Findings of a search as answers show them. Their models are in `search`."""

from typing import Any

from clockwork.requests.search import SearchResult
from clockwork.schema.render import render_schedule
from clockwork.schema.schedule import SUMMARY


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
