"""The outcomes of every schedule that stood under a key, until retention ends.

The store sorts outcomes by position, that is by due time, which says nothing about which was accepted first: a schedule for
next year may have been cancelled before one for tomorrow was accepted. So all their positions are read (one Query with
small answers), put into the order of acceptance, and only then is a page of outcomes read.
"""

from dataclasses import dataclass
from typing import Final

from clockwork.domain.position import Position, acceptance_of
from clockwork.domain.schedule import ClientId, Outcome, ScheduleKey
from clockwork.requests import state
from clockwork.requests.context import RequestContext
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.results import NotFound

CHUNK_OUTCOMES: Final = 50
"""Outcomes of one batch read: at most 13 MB."""
PAGE_BYTES_MAX: Final = 8 * 1024 * 1024
"""Content of one page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryPage:
    """Some outcomes under a key, the schedule accepted last first."""

    outcomes: tuple[Outcome, ...]
    next_after: Position | None
    """Go on after this position; None: there are no more."""


async def history_page(
    context: RequestContext,
    client_id: ClientId,
    schedule_key: ScheduleKey,
    deadline: RequestDeadline,
    *,
    after: Position | None,
    limit: int,
) -> HistoryPage | NotFound:
    """The outcomes after `after`, at most `limit`. Raises: Unavailable, Unreadable."""
    newest_first = sorted(await context.search.read_ended(client_id, schedule_key), key=acceptance_of, reverse=True)
    behind = [p for p in newest_first if after is None or acceptance_of(p) < acceptance_of(after)]
    page = await _page(context, client_id, schedule_key, behind, limit)
    if not page.outcomes and after is None:
        view = await state.read_state(context, client_id, schedule_key, deadline)
        if view is None:
            return NotFound()
        if view.outcome is not None:
            # It ended since, or its row is known only now to have been unreadable.
            return HistoryPage(outcomes=(view.outcome,), next_after=None)
    return page


async def _page(
    context: RequestContext, client_id: ClientId, schedule_key: ScheduleKey, positions: list[Position], limit: int
) -> HistoryPage:
    found: list[Outcome] = []
    found_bytes = 0
    for start in range(0, len(positions), CHUNK_OUTCOMES):
        keys = [(client_id, schedule_key, p) for p in positions[start : start + CHUNK_OUTCOMES]]
        outcomes = await context.search.read_outcomes(keys)
        for key in keys:
            outcome = outcomes.get(key)
            if outcome is None or outcome.expires_at_s * 1_000 <= context.clock.now_ms():
                continue
            found.append(outcome)
            found_bytes += outcome.schedule.size_bytes if outcome.schedule is not None else 0
            if len(found) == limit or found_bytes >= PAGE_BYTES_MAX:
                last = outcome.position == positions[-1]
                return HistoryPage(outcomes=tuple(found), next_after=None if last else outcome.position)
    return HistoryPage(outcomes=tuple(found), next_after=None)
