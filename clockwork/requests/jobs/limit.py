"""The number of jobs that one client may have: a soft limit.

Jobs are counted in the index of lists, deleted ones that are kept included; the index may lag by some seconds. A process
counts again after `RECOUNT_S`, or when its estimate, the last count and the creates that it has accepted since, has reached
the limit, and it has accepted none for `LAG_S`: a count right behind a burst of creates would not know of them, and let as
many more pass. A count counts for all creates that wait for it. So creates may pass that several processes accept between
two counts, and no others. Rejected: a counter of each client, which would be one hot item, and a write more for each create
and delete.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakValueDictionary

from clockwork.domain.schedule import ClientId
from clockwork.errors import CommandAlreadyProcessed, InvalidInput, LimitState, TooManyJobs
from clockwork.requests.context import RequestContext

RECOUNT_S: Final = 30.0
LAG_S: Final = 5.0
"""Time within which the index shows a job that was made: as lists promise."""
RETRY_AFTER_S: Final = 60
"""A guess: the time at which there will be room is unknown."""
CLIENTS_MAX: Final = 10_000
"""Clients that are remembered; the one that was not seen for longest is forgotten, and counted again."""


@dataclass(slots=True)
class _Count:
    jobs: int
    counted_at_s: float
    added_at_s: float
    """The last create that was accepted here."""
    under_way: int = 0
    """Creates that have room and have not ended."""


@dataclass(slots=True)
class JobRoom:
    """Room for one job, taken until its create has ended."""

    used: bool = True
    """Also after an error that does not rule it out: the next count knows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobsLimit:
    """Decides before a job is created."""

    context: RequestContext
    _counts: "OrderedDict[ClientId, _Count]" = field(default_factory=OrderedDict)
    _counting: "WeakValueDictionary[ClientId, asyncio.Lock]" = field(default_factory=WeakValueDictionary)

    @asynccontextmanager
    async def room(self, client_id: ClientId) -> AsyncIterator[JobRoom]:
        """Takes room for one more job, and gives it back if it was not used.

        Raises: TooManyJobs, having taken nothing; Unavailable.
        """
        jobs_max = self.context.settings.client_jobs_max
        if not jobs_max:
            yield JobRoom()
            return
        count = await self._counted(client_id, jobs_max)
        # No await from here to the line that adds: of a thousand creates that waited no more pass than there is room for.
        self._counts.move_to_end(client_id)
        while len(self._counts) > CLIENTS_MAX:
            self._counts.popitem(last=False)
        if count.jobs + count.under_way >= jobs_max:
            raise TooManyJobs(
                f"Client {client_id} has {jobs_max} jobs, as many as it may have. Nothing was stored.",
                retry_after_s=RETRY_AFTER_S,
                limits=[LimitState(name="jobs", quota=jobs_max, left=0)],
            )
        count.under_way += 1
        room = JobRoom()
        try:
            yield room
        except (InvalidInput, CommandAlreadyProcessed):
            room.used = False
            raise
        finally:
            count.under_way -= 1
            if room.used:
                count.jobs += 1
                count.added_at_s = asyncio.get_running_loop().time()

    async def _counted(self, client_id: ClientId, jobs_max: int) -> _Count:
        """The count, made anew if that is worth it."""
        async with self._counting.setdefault(client_id, asyncio.Lock()):
            now_s = asyncio.get_running_loop().time()
            count = self._counts.get(client_id)
            if count is None:
                jobs = await self.context.jobs.count_jobs(client_id, at_most=jobs_max)
                count = _Count(jobs, now_s, added_at_s=now_s - LAG_S)
            elif (
                count.jobs >= jobs_max or now_s - count.counted_at_s > RECOUNT_S
            ) and now_s - count.added_at_s >= LAG_S:
                jobs = await self.context.jobs.count_jobs(client_id, at_most=jobs_max)
                # Creates that have ended meanwhile may be among those that were counted, or not.
                count.jobs = jobs if count.added_at_s < now_s else max(jobs, count.jobs)
                count.counted_at_s = now_s
            self._counts[client_id] = count  # it may have been forgotten meanwhile
            return count
