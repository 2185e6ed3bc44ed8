"""The log of a job: its runs, and the stretches of fire times that were skipped, newest first.

An entry is put when a delivery has ended; before that a run is known by the state, which names the armed rows. Both may be
true for a moment, and then the entry counts. The log is in the order of due times: an entry's position is that of its row.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from clockwork.domain.jobs.job import (
    ArmedRow,
    CompletionResult,
    Job,
    JobName,
    JobState,
    OpenRun,
    RunCompletion,
    RunDelivery,
    SkippedTimes,
)
from clockwork.domain.position import LAST, Position, first_at
from clockwork.domain.run import RunId
from clockwork.domain.triggers.trigger import JITTER_MS_MAX
from clockwork.requests.context import RequestContext
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.jobs import job_state
from clockwork.requests.jobs.job_state import StoredJob
from clockwork.requests.jobs.results import JobNotFound, RunsPage, RunStatus, RunView, VersionsPage

READS_MAX: Final = 20
"""Reads of the log for one page: a filter that leaves most entries out gives short pages, and a cursor to go on with."""
ENTRIES_PER_READ: Final = 500
LAST_RUN_ENTRIES: Final = 10
"""Entries in which the last run is looked for: those above it are skipped stretches, of which a run has at most one."""

OPEN_RUN_ENTRIES: Final = 100
"""Entries in which the open runs of a job are looked for whose runs may overlap."""
_MAY_BE_RETRIED: Final = frozenset({RunStatus.FAILED, RunStatus.TIMED_OUT})
_BY_COMPLETION: Final[Mapping[CompletionResult, RunStatus]] = {
    CompletionResult.COMPLETED: RunStatus.COMPLETED,
    CompletionResult.FAILED: RunStatus.FAILED,
    CompletionResult.TIMED_OUT: RunStatus.TIMED_OUT,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LogQuery:
    """The wanted entries; None: any."""

    from_ms: int | None = None
    """Due at this time or later."""
    to_ms: int | None = None
    """Due before this time."""
    status: RunStatus | None = None

    @property
    def oldest_position(self) -> Position:
        return first_at(self.from_ms or 0)

    @property
    def newest_position(self) -> Position:
        return LAST if self.to_ms is None else Position(first_at(self.to_ms) - 1)

    def wants(self, run: RunView) -> bool:
        return (
            self.status is None or run.status is self.status
        ) and self.oldest_position <= run.position <= self.newest_position


async def log_page(
    context: RequestContext,
    name: JobName,
    query: LogQuery,
    deadline: RequestDeadline,
    *,
    newest_position: Position | None,
    limit: int,
) -> RunsPage | JobNotFound:
    """The runs at `newest_position` and below it (None: from the newest), at most `limit`; fewer, even none, does not
    mean that there are no more. Raises: Unavailable, Unreadable."""
    stored = await job_state.read_job(context, name, deadline)
    if stored is None:
        return JobNotFound()
    armed = [_armed_view(each) for each in stored.state.pending_runs()]
    top = query.newest_position if newest_position is None else min(newest_position, query.newest_position)
    found: list[RunView] = []
    next_from: Position | None = top
    for _ in range(READS_MAX):
        if next_from is None or next_from < query.oldest_position:
            next_from = None
            break
        # One more than is shown, which says where the next page begins.
        page = await context.jobs.read_log(
            name,
            first=query.oldest_position,
            last=next_from,
            entries_max=ENTRIES_PER_READ if query.status else limit + 1,
        )
        views = [_view(context, stored.state, each, page.completions.get(each.position)) for each in page.entries]
        bottom = page.next_from if page.next_from is not None else Position(query.oldest_position - 1)
        views += [each for each in armed if bottom < each.position <= next_from]
        found += [each for each in _newest_first(views) if query.wants(each)]
        next_from = page.next_from
        if len(found) > limit or deadline.spent_s > context.settings.request_timeout_ms / 2_000:
            break
    if len(found) > limit:
        next_from = found[limit].position
    return RunsPage(runs=await _with_topics(context, name, found[:limit]), next_from=next_from)


async def find_run(
    context: RequestContext, name: JobName, run_id: RunId, deadline: RequestDeadline
) -> RunView | JobNotFound | None:
    """The run with this id, at its latest attempt; None: there is none, or its entry has expired.

    The id has the fire time. The run's row was due then or later: with jitter up to a day, and of a catch-up, a backfill or
    a retry at any time after. So the log is read from the places where the run most probably is to the others.

    Raises: Unavailable, Unreadable.
    """
    stored = await job_state.read_job(context, name, deadline)
    if stored is None:
        return JobNotFound()
    state = stored.state
    if state.open_run is not None and state.open_run.run_id == run_id:
        return await view_of_open(context, state, state.open_run)
    for armed in state.pending_runs():
        if armed.run_id == run_id:
            ended = await run_at(context, state, armed.position)
            return ended if ended is not None else _armed_view(armed)
    found = await _search(context, stored, run_id, deadline, spans=_spans(stored, run_id))
    if (
        found is not None
        and found.delivery is not None
        and found.status in _MAY_BE_RETRIED
        and found.delivery.failure is None
    ):
        later = (Position(found.position + 1), LAST)
        found = await _search(context, stored, run_id, deadline, spans=[later]) or found
    if found is None:
        return None
    (shown,) = await _with_topics(context, name, [found])
    return shown


async def find_attempt(
    context: RequestContext, stored: StoredJob, run_id: RunId, attempt: int, deadline: RequestDeadline
) -> RunView | None:
    """One attempt of a run whose delivery has ended; None: there is none, or its entry has expired.

    Raises: Unavailable, Unreadable.
    """
    spans = _spans(stored, run_id)
    if attempt > 1 and spans:
        # It was due later, and is asked about soon after that.
        spans = [(spans[0][0], LAST)]
    return await _search(context, stored, run_id, deadline, spans=spans, attempt=attempt)


async def _search(
    context: RequestContext,
    stored: StoredJob,
    run_id: RunId,
    deadline: RequestDeadline,
    *,
    spans: Sequence[tuple[Position, Position]],
    attempt: int | None = None,
) -> RunView | None:
    """The latest entry of a run, or of one attempt of it, in the first of the spans that has one."""
    state = stored.state
    for first, end in spans:
        last: Position | None = end
        while last is not None:
            page = await context.jobs.read_log(state.name, first=first, last=last, entries_max=ENTRIES_PER_READ)
            for each in page.entries:
                if isinstance(each, RunDelivery) and each.run_id == run_id and attempt in (None, each.attempt):
                    return _view(context, state, each, page.completions.get(each.position))
            last = page.next_from
            if last is not None and deadline.spent_s > context.settings.request_timeout_ms / 2_000:
                await deadline.pause("the log is too long to find this run in time")
    return None


async def has_failed(context: RequestContext, name: JobName, run_id: RunId, *, due_ms: int, attempt: int) -> bool:
    """True if the log has this attempt of a run, whose row was due at that time, as one that could not be delivered.

    Raises: Unavailable.
    """
    last: Position | None = Position(first_at(due_ms + 1) - 1)
    while last is not None:
        page = await context.jobs.read_log(name, first=first_at(due_ms), last=last, entries_max=ENTRIES_PER_READ)
        for each in page.entries:
            if isinstance(each, RunDelivery) and each.run_id == run_id and each.attempt == attempt:
                return each.failure is not None
        last = page.next_from
    return False


def _time_of(run_id: RunId) -> int | None:
    digits = run_id[1:].partition("-")[0]
    known = run_id[:1] in ("s", "m", "b") and digits.isascii() and digits.isdigit() and len(digits) <= 14
    return int(digits) if known else None


def _spans(stored: StoredJob, run_id: RunId) -> list[tuple[Position, Position]]:
    """Stretches of the log in which a run is looked for, one after the other; none: this is no id of a run."""
    at_ms, trigger = _time_of(run_id), stored.job.trigger
    if at_ms is None:
        return []
    due_ms = at_ms if trigger is None else trigger.due_ms(at_ms, str(stored.state.name))
    stretches: list[tuple[int, int | None]] = [
        (at_ms, at_ms + 1),
        *([(due_ms, due_ms + 1)] if due_ms != at_ms else []),
        (at_ms + 1, at_ms + JITTER_MS_MAX + 1),
        (at_ms + JITTER_MS_MAX + 1, None),
    ]
    return [
        (first_at(first_ms), LAST if end_ms is None else Position(first_at(end_ms) - 1))
        for first_ms, end_ms in stretches
    ]


def closed_run(context: RequestContext, state: JobState, run: RunView, completion: RunCompletion) -> RunView:
    """A run whose delivery has ended, with its completion."""
    assert run.delivery is not None, "its delivery has ended"
    return replace(_view(context, state, run.delivery, completion), topic=run.topic)


async def run_at(context: RequestContext, state: JobState, position: Position) -> RunView | None:
    """The run whose row stands, or stood, at this position; None: its entry has expired, or it was taken away."""
    end = await context.jobs.read_run_delivery(state.name, position)
    if end is not None:
        completion = await context.jobs.read_completion(state.name, position) if end.timeout_ms is not None else None
        (shown,) = await _with_topics(context, state.name, [_view(context, state, end, completion)])
        return shown
    return next((_armed_view(each) for each in state.pending() if each.position == position), None)


async def view_of_open(context: RequestContext, state: JobState, run: OpenRun) -> RunView:
    """The open run of a job. Heartbeats may keep one open for longer than its entry is kept: then by the state alone."""
    view = await run_at(context, state, run.position)
    if view is not None and view.delivery is not None:
        return view
    end = RunDelivery(
        client_id=state.client_id,
        job_id=state.job_id,
        position=run.position,
        run_id=run.run_id,
        kind=run.kind,
        attempt=run.attempt,
        version=state.version,
        scheduled_at_ms=run.scheduled_at_ms,
        at_ms=run.delivered_at_ms,
        timeout_ms=run.until_ms - run.delivered_at_ms,
        expires_at_s=0,
    )
    return _view(context, state, end, await context.jobs.read_completion(state.name, run.position))


async def last_run(context: RequestContext, state: JobState) -> RunView | None:
    """The newest run whose delivery has ended: delivered or failed; it may still be running. None: the log has none."""
    page = await context.jobs.read_log(state.name, first=Position(0), last=LAST, entries_max=LAST_RUN_ENTRIES)
    for each in page.entries:
        if isinstance(each, RunDelivery):
            view = _view(context, state, each, page.completions.get(each.position))
            (shown,) = await _with_topics(context, state.name, [view])
            return shown
    return None


async def open_runs(context: RequestContext, state: JobState, job: Job) -> tuple[RunView, ...]:
    """The runs that are delivered and not completed. Of a job whose runs may overlap only those among the newest entries of
    the log, as long as their time is not over."""
    if state.open_run is not None:
        return (await view_of_open(context, state, state.open_run),)
    if job.completion is None or job.exclusive:
        return ()
    page = await context.jobs.read_log(state.name, first=Position(0), last=LAST, entries_max=OPEN_RUN_ENTRIES)
    views = [_view(context, state, each, page.completions.get(each.position)) for each in page.entries]
    return await _with_topics(context, state.name, [each for each in views if each.status is RunStatus.RUNNING])


async def versions_page(
    context: RequestContext, name: JobName, deadline: RequestDeadline, *, below: int | None, limit: int
) -> VersionsPage | JobNotFound:
    """The definitions of a job below a version (None: all), the newest first. Raises: Unavailable, Unreadable."""
    stored = await job_state.read_job(context, name, deadline)
    if stored is None:
        return JobNotFound()
    # Not above the state's: those of a job of this name that was forgotten may still be there.
    below = stored.state.version + 1 if below is None else min(below, stored.state.version + 1)
    versions = await context.jobs.read_versions(name, below=below, versions_max=limit + 1)
    more = len(versions) > limit
    return VersionsPage(versions=versions[:limit], next_below=versions[limit - 1].version if more else None)


# --- views


def _armed_view(armed: ArmedRow) -> RunView:
    return RunView(status=RunStatus.ARMED, position=armed.position, armed=armed)


def _view(
    context: RequestContext, state: JobState, entry: RunDelivery | SkippedTimes, completion: RunCompletion | None
) -> RunView:
    if isinstance(entry, SkippedTimes):
        return RunView(status=RunStatus.SKIPPED, position=entry.position, skipped=entry)
    return RunView(
        status=_status(entry, completion, state, context.clock.now_ms()),
        position=entry.position,
        delivery=entry,
        completion=completion,
    )


def _status(end: RunDelivery, completion: RunCompletion | None, state: JobState, now_ms: int) -> RunStatus:
    if end.failure is not None:
        return RunStatus.FAILED
    if completion is not None:
        return _BY_COMPLETION[completion.result]
    if end.timeout_ms is None:
        return RunStatus.DELIVERED
    is_open = state.open_run is not None and state.open_run.position == end.position
    return RunStatus.RUNNING if is_open or now_ms < end.at_ms + end.timeout_ms else RunStatus.TIMED_OUT


def _newest_first(views: Sequence[RunView]) -> Iterable[RunView]:
    """In falling order of positions, one for each: an entry counts before the state."""
    of_position: dict[Position, RunView] = {}
    for each in views:
        known = of_position.get(each.position)
        if known is None or known.armed is not None:
            of_position[each.position] = each
    return [of_position[position] for position in sorted(of_position, reverse=True)]


async def _with_topics(context: RequestContext, name: JobName, views: Sequence[RunView]) -> tuple[RunView, ...]:
    """The views with the topics of the definitions that they were delivered by, as far as those are kept."""
    topics: dict[int, str | None] = {}
    for version in {
        each.delivery.version for each in views if each.delivery is not None and each.delivery.receipt is not None
    }:
        job = await context.jobs.read_definition(name, version)
        topics[version] = None if job is None else job.topic
    return tuple(
        replace(each, topic=topics.get(each.delivery.version)) if each.delivery is not None else each for each in views
    )
