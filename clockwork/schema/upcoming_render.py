"""The next schedules as answers show them. Their models are in `upcoming`."""

from typing import Any

from clockwork.requests.upcoming import UpcomingItem
from clockwork.schema.render import render_schedule
from clockwork.schema.schedule import SUMMARY


def render_upcoming(item: UpcomingItem) -> dict[str, Any]:
    """One pending row: an `UpcomingScheduleDocument`."""
    document = render_schedule(item.view, SUMMARY)
    return document if item.job is None else document | {"jobId": item.view.schedule_key, "runId": item.job.run_id}
