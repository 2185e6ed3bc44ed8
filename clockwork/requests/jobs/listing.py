"""The jobs of a client, page by page, in the order of their ids.

The index says which jobs there are, and may lag; the state of each is read strongly. A page ends at its limit, and also when
enough was read for one request: a filter that leaves most jobs out gives short pages, even empty ones, and a cursor to go
on with. Deleted jobs are shown only where they are asked for.
"""

from dataclasses import dataclass
from typing import Final

from clockwork.concurrency import gather_bounded
from clockwork.domain.destination import Topic
from clockwork.domain.jobs.job import JobName, JobState, JobStatus
from clockwork.domain.run import JobId
from clockwork.domain.schedule import ClientId
from clockwork.errors import Unreadable
from clockwork.requests.context import RequestContext
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.jobs import job_state
from clockwork.requests.jobs.results import JobsPage, JobView

NAMES_PER_QUERY: Final = 100
QUERIES_MAX: Final = 20
"""Queries of the index for one page."""
DEFINITIONS_AT_ONCE: Final = 8
PAGE_BYTES_MAX: Final = 8 * 1024 * 1024
"""Payloads of one page. A thousand jobs of 256 KiB would be a quarter of a gigabyte."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobQuery:
    """The wanted jobs; None: any."""

    client_id: ClientId
    status: JobStatus | None = None
    """None: any but deleted."""
    topic: Topic | None = None
    label: tuple[str, str] | None = None
    """Name and value."""

    def may_want(self, state: JobState) -> bool:
        """False if its state alone rules a job out."""
        if self.status is None:
            return state.status is not JobStatus.DELETED
        return state.status is self.status

    def wants(self, view: JobView) -> bool:
        """True if a job, as it was read, is one of the wanted."""
        if not self.may_want(view.state) or (self.topic is not None and view.job.topic != self.topic):
            return False
        return self.label is None or self.label in view.job.labels


async def list_page(
    context: RequestContext, query: JobQuery, deadline: RequestDeadline, *, after: JobId | None, limit: int
) -> JobsPage:
    """The jobs after `after`, at most `limit`; fewer, even none, does not mean that there are no more.

    Raises: Unavailable.
    """
    found: list[JobView] = []
    shown_bytes = 0
    for _ in range(QUERIES_MAX):
        page = await context.jobs.list_jobs(query.client_id, after=after, jobs_max=min(NAMES_PER_QUERY, limit + 1))
        views = await _views(context, page.names, query, deadline)
        for name, view in zip(page.names, views, strict=True):
            if view is not None and query.wants(view):
                if len(found) == limit or shown_bytes >= PAGE_BYTES_MAX:
                    return JobsPage(views=tuple(found), next_after=after)
                found.append(view)
                shown_bytes += len(view.job.task_data)
            after = name.job_id
        if page.next_after is None:
            return JobsPage(views=tuple(found), next_after=None)
        after = page.next_after.job_id
        if deadline.spent_s > context.settings.request_timeout_ms / 2_000:
            break
    return JobsPage(views=tuple(found), next_after=after)


async def _views(
    context: RequestContext, names: tuple[JobName, ...], query: JobQuery, deadline: RequestDeadline
) -> list[JobView | None]:
    """The present state of each; None: it is not there any more, cannot be read, or is certainly not wanted."""
    present = await context.jobs.read_states(names)

    async def view_of(name: JobName) -> JobView | None:
        state = present.get(name)
        if state is None or job_state.expired(context, state) or not query.may_want(state):
            return None
        try:
            job = await job_state.definition_of(context, state)
            if job is not None:
                return JobView(state=state, job=job)
            reading = await job_state.read_job(context, name, deadline)
        except Unreadable:
            # A read of this job alone answers so; here the error would hide all other jobs.
            return None
        return None if reading is None else reading.view

    return await gather_bounded(view_of, names, at_once=DEFINITIONS_AT_ONCE)
