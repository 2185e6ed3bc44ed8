"""Health of a node: does the store answer, is the clock trusted, was it set back, how late is the event loop?"""

import asyncio
import logging
from typing import Final

from clockwork.clock import ClockGuard, HeldTimeWatch
from clockwork.errors import Unavailable
from clockwork.ports.store import ScheduleStore
from clockwork.ports.telemetry import Telemetry

log = logging.getLogger(__name__)

PING_INTERVAL_S: Final = 5.0
"""Well below the age at which the last clock comparison is too old, so that a few lost answers do no harm."""
PING_AGAIN_S: Final = 1.0
FIRST_COMPARISON_S: Final = 10.0
"""Time in which a node that has just started may compare its clock for the first time. Until then an unknown clock is the
usual beginning; the node neither fires nor accepts all the same."""
HELD_TIME_INTERVAL_S: Final = 1.0
LAG_INTERVAL_S: Final = 0.25


class HealthWatch:
    """Pings the store and measures the event loop until cancelled; readiness is decided from the results."""

    def __init__(self, store: ScheduleStore, guard: ClockGuard, held_time: HeldTimeWatch, telemetry: Telemetry) -> None:
        self._store = store
        self._guard = guard
        self._held_time = held_time
        self._telemetry = telemetry
        self._store_error: str | None = "not asked yet"
        self._away = False
        """The log has said that the store is away."""
        self._trust_told: tuple[bool, int] | None = None
        """Trust in the clock, and the level, of the last line of the log."""
        self._set_back = False

    @property
    def store_error(self) -> str | None:
        """Why the store counts as away; None if it answered last."""
        return self._store_error

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ping(), name="watch-store")
            group.create_task(self._watch_held_time(), name="watch-held-time")
            group.create_task(self._loop_lag(), name="watch-loop")

    async def _ping(self) -> None:
        began_s = asyncio.get_running_loop().time()
        while True:
            try:
                await self._store.ping()
            except Unavailable as error:
                if not self._away:
                    log.warning("The store is away", extra={"event": "store.away", "error": str(error)})
                self._store_error, self._away = str(error), True
            else:
                if self._away:
                    log.info("The store answers", extra={"event": "store.back"})
                self._store_error, self._away = None, False
            self._report_clock(running_s=asyncio.get_running_loop().time() - began_s)
            await asyncio.sleep(PING_INTERVAL_S if self._store_error is None else PING_AGAIN_S)

    def _report_clock(self, *, running_s: float) -> None:
        skew_ms, trusted = self._guard.skew_ms, self._guard.trusted()
        if skew_ms is not None:
            self._telemetry.clock_skew(skew_ms / 1_000)
        starting = skew_ms is None and running_s < FIRST_COMPARISON_S
        told = trusted, logging.INFO if trusted or starting else logging.ERROR
        if told != self._trust_told:
            message = "Clock trust changed; an untrusted clock fires and accepts nothing"
            log.log(told[1], message, extra={"event": "clock.trust", "trusted": trusted, "skew_ms": skew_ms})
            self._trust_told = told

    async def _watch_held_time(self) -> None:
        # A task apart from the pings: a ping that waits for a store which is away must not leave a gap in the measured
        # lead.
        while True:
            ahead_ms = self._held_time.ahead_ms()
            self._telemetry.clock_held_ahead(ahead_ms / 1_000)
            set_back = not self._held_time.trusted()
            if set_back != self._set_back:
                level = logging.ERROR if set_back else logging.INFO
                message = "The machine's clock was set back, or has caught up again; until then the node is not ready"
                log.log(
                    level, message, extra={"event": "clock.set_back", "trusted": not set_back, "ahead_ms": ahead_ms}
                )
                self._set_back = set_back
            await asyncio.sleep(HELD_TIME_INTERVAL_S)

    async def _loop_lag(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + LAG_INTERVAL_S
            await asyncio.sleep(LAG_INTERVAL_S)
            self._telemetry.loop_lag(max(0.0, loop.time() - due_s))
