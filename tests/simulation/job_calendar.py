"""A named calendar that changes while the jobs that name it fire: open, or closed for the hour of the run."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from clockwork.domain.jobs.calendar import NewCalendar
from clockwork.domain.rights import ANYONE
from clockwork.domain.triggers.exclusions import Exclusion, exclusion
from clockwork.requests.jobs.results import CalendarPut
from clockwork.requests.jobs.service import JobService
from tests.simulation.client_tasks import NoAnswer
from tests.simulation.clocks import EPOCH_MS
from tests.simulation.cluster import Cluster
from tests.simulation.workload import CLIENT

CALENDAR: Final = "calendar"
HOUR: Final = datetime.fromtimestamp(EPOCH_MS / 1_000, UTC).hour
FAR: Final = date(2090, 1, 1)

Ask = Callable[[str, Callable[[JobService], Awaitable[object]]], Awaitable[object]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Put:
    """A put that was answered."""

    number: int
    content: Exclusion
    answered_at_s: float
    answer: CalendarPut


class JobCalendar:
    """The client that changes it, one put after the other. Each content is told from all others by a day far ahead."""

    def __init__(self, rng: random.Random, cluster: Cluster, ask: Ask) -> None:
        self.puts: list[Put] = []
        self.number_of: dict[str, int] = {}
        """By the digest of each content that was ever sent, its number."""
        self._rng = rng
        self._cluster = cluster
        self._ask = ask

    async def run(self, over: asyncio.Event) -> None:
        """Changes it until the faults are over, and leaves it open."""
        await self._put(closed=False)
        while not over.is_set():
            try:
                async with asyncio.timeout(self._rng.choice([0.2, 1.0, 3.0]) * self._rng.uniform(0.5, 1.5)):
                    await over.wait()
            except TimeoutError:
                await self._put(closed=self._rng.random() < 0.5)
        await self._put(closed=False)

    async def _put(self, *, closed: bool) -> None:
        number = len(self.number_of)
        hours = [f"* {HOUR} * * *", f"* {(HOUR + 1) % 24} * * *"] if closed else []
        content = exclusion(dates=[str(FAR + timedelta(days=number))], cron=hours)
        self.number_of[content.digest] = number
        new = NewCalendar(name=CALENDAR, exclusion=content)
        trace = self._cluster.trace
        while True:
            trace.note("puts the calendar", number, "closed" if closed else "open")
            try:
                answer = await self._ask("put calendar", lambda jobs: jobs.put_calendar(ANYONE, CLIENT, new))
            except NoAnswer:
                await asyncio.sleep(self._rng.uniform(0.05, 0.3))
                continue
            assert isinstance(answer, CalendarPut), answer
            trace.note("answered of the calendar", number, answer.calendar.version, "behind", answer.behind)
            at_s = self._cluster.reactor.now_s
            self.puts.append(Put(number=number, content=content, answered_at_s=at_s, answer=answer))
            return
