"""A named calendar that changes while jobs that name it fire: open, or closed for the hours of the run. One client puts it,
one put after the other.
"""

import asyncio
import random
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from tests.chaos.job_history import CALENDAR, CalendarPut
from tests.chaos.request_client import RequestClient, Told
from tests.support.nodes import now_ms

PAUSE_S: Final = (4.0, 12.0)
"""Between two puts."""
CLOSED: Final = 0.5
HOURS_CLOSED: Final = range(-1, 3)
"""From the hour of the run's beginning on: what is late by then, and what comes until its end."""
FAR: Final = date(2090, 1, 1)


class JobCalendar:
    """The calendar of one client. Each content is told from all others by a day far ahead."""

    def __init__(self, asking: RequestClient, client_id: str, *, seed: int) -> None:
        self.puts: list[CalendarPut] = []
        self._asking = asking
        self._client_id = client_id
        self._rng = random.Random(f"chaos calendar {seed}")
        self._hour = datetime.fromtimestamp(now_ms() / 1_000, UTC).hour

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Makes it, says that it is ready, changes it until told to stop, and leaves it open."""
        await self._put(closed=False)
        ready.set()
        while not stop.is_set():
            try:
                async with asyncio.timeout(self._rng.uniform(*PAUSE_S)):
                    await stop.wait()
            except TimeoutError:
                await self._put(closed=self._rng.random() < CLOSED)
        await self._put(closed=False)

    async def _put(self, *, closed: bool) -> None:
        """Each put names the version that it is to change: one that was held up in a frozen node is refused when it comes
        late, and undoes no put of after it. One that was carried out and not answered is sent again, and answers who is
        behind by then."""
        put = CalendarPut(closed=closed, sent_ms=now_ms())
        body = self._body(len(self.puts), closed=closed)
        self.puts.append(put)
        while True:
            version = await self._version()
            told = await self._ask(
                "calendar put", "PUT", json=body, headers={"If-Match": version} if version else {"If-None-Match": "*"}
            )
            if told is None:
                return
            if told.answered.status != 412:
                self._note(put, told)
                return

    def _note(self, put: CalendarPut, told: Told) -> None:
        status, document = told.answered.status, told.answered.body
        if status not in (200, 201):
            self._asking.note_improper(f"put of the calendar at {told.node}: {status} {document}")
            return
        put.answered_ms = told.received_ms
        put.behind = frozenset(document.get("behind", ()))
        put.more_behind = document.get("moreBehind", False)

    async def _version(self) -> str | None:
        told = await self._ask("calendar get", "GET")
        return told.answered.headers["ETag"] if told is not None and told.answered.status == 200 else None

    async def _ask(self, call: str, method: str, **more: Any) -> Told | None:
        return await self._asking.until_told(
            call, lambda client: client.calendar(method, self._client_id, CALENDAR, **more), about=CALENDAR
        )

    def _body(self, number: int, *, closed: bool) -> dict[str, Any]:
        hours = ",".join(str((self._hour + each) % 24) for each in HOURS_CLOSED)
        return {"dates": [str(FAR + timedelta(days=number))], "cron": [f"* {hours} * * *"] if closed else []}
