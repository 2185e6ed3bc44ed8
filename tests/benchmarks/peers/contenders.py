"""Who runs: Clockwork, and the peers by their drivers, all behind one form."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from tests.benchmarks.peers.driver import Driver
from tests.benchmarks.raw_http import post, send_all
from tests.benchmarks.world import SLOW_S, ByHand, cpu_s, started, until_empty
from tests.support.nodes import Cluster, ClusterNode, now_ms
from tests.support.waiting import until

PAYLOAD: Final = {"note": "x" * 200}
SPREAD_STEP: Final = 7_919
"""A prime: the due times of a batch lie all over the spread, and are the same for all."""

CLOCKWORK: Final = "Clockwork"
DB_SCHEDULER_SETTINGS: Final = {"threads": 100, "poll-ms": 100, "lower": 1.0, "upper": 4.0}
"""Lock-and-fetch with the fractions that its manual names for throughput, and the threads that drained quickest here (20,
50 and 100 were tried, with three pairs of fractions); ten polls a second, as lateness is half of the time between them."""
RIVER_SETTINGS: Final = {"workers": 1_000, "cooldown-ms": 2, "poll-ms": 20}
"""The intervals of River's own benchmark; half its workers drain as quickly here as all of them."""
RIVER_DEFAULTS: Final = {"workers": 100}
"""The workers have no default; its manual's examples take a hundred."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """Schedules to be created."""

    prefix: str
    topic: str
    count: int
    batch: int
    callers: int
    """Calls at once, at most; Clockwork's are not bounded at a pace."""
    per_second: int = 0
    """The pace; 0: as fast as it goes."""
    due_ms: int = 0
    """Due time of all; 0: by the two below, from the time of their batch."""
    ahead_ms: int = 0
    spread_ms: int = 0

    def __post_init__(self) -> None:
        if self.count % self.batch:
            raise ValueError(f"{self.count} are no whole batches of {self.batch}")

    def values(self) -> Mapping[str, object]:
        """As a driver is told."""
        return {
            "prefix": self.prefix,
            "topic": self.topic,
            "count": self.count,
            "batch": self.batch,
            "callers": self.callers,
            "per-second": self.per_second,
            "due-ms": self.due_ms,
            "ahead-ms": self.ahead_ms,
            "spread-ms": self.spread_ms,
        }

    def due_of(self, number: int, at_ms: int) -> int:
        """Due time of the one of this number, if its batch is created now."""
        return self.due_ms or at_ms + self.ahead_ms + number * SPREAD_STEP % (self.spread_ms + 1)


class Contender(Protocol):
    """One that keeps schedules in PostgreSQL and sends them to Kafka."""

    @property
    def name(self) -> str: ...

    async def start(self) -> None:
        """Begins to work what is due."""

    async def stop(self) -> None: ...

    async def create(self, load: Load) -> float:
        """Returns when all are stored: how many seconds it took."""

    async def until_cleaned_up(self, count: int) -> None:
        """Returns when this many more ends than at the start are stored; Clockwork: when it has no rows."""

    async def cpu_s(self) -> float:
        """CPU time of its own processes so far."""


class Clockwork:
    """A node with the settings that production has by default, called over HTTP."""

    name: Final = CLOCKWORK

    def __init__(self, cluster: Cluster, client: ByHand) -> None:
        self._cluster = cluster
        self._client = client
        self._node: ClusterNode | None = None

    async def start(self) -> None:
        self._node = await started(self._cluster)

    async def stop(self) -> None:
        await self._running().process.stop()

    async def create(self, load: Load) -> float:
        url = self._running().client.url
        firsts = range(0, load.count, load.batch)
        if not load.per_second:
            requests = [self._request(load, first) for first in firsts]
            start_s = time.perf_counter()
            await send_all(url, requests, clients=load.callers, schedules=load.batch)
            return time.perf_counter() - start_s
        start_s = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for first in firsts:
                await asyncio.sleep(max(0.0, start_s + first / load.per_second - time.perf_counter()))
                sent = send_all(url, [self._request(load, first)], clients=1, schedules=load.batch)
                group.create_task(sent, name=f"create-{first}")
        return time.perf_counter() - start_s

    async def until_cleaned_up(self, count: int) -> None:
        # Nothing else is in its tables.
        await until_empty(self._client)

    async def cpu_s(self) -> float:
        return await cpu_s(self._running())

    def _request(self, load: Load, first: int) -> bytes:
        at_ms = now_ms()
        bodies: list[dict[str, Any]] = [
            self._cluster.body(load.topic, f"{load.prefix}-{n}", due_ms=load.due_of(n, at_ms), data=PAYLOAD)
            for n in range(first, first + load.batch)
        ]
        url = self._running().client.url
        return post(url, "/schedule", bodies[0]) if load.batch == 1 else post(url, "/schedules", {"schedules": bodies})

    def _running(self) -> ClusterNode:
        assert self._node is not None
        return self._node


class DrivenPeer:
    """A peer by its driver, with these settings."""

    def __init__(self, name: str, driver: Driver, settings: Mapping[str, object]) -> None:
        self.name: Final = name
        self._driver = driver
        self._settings = settings
        self._completed_before = 0

    async def start(self) -> None:
        self._completed_before = await self._completed()
        await self._driver.ask("start", self._settings)

    async def stop(self) -> None:
        await self._driver.ask("stop")

    async def create(self, load: Load) -> float:
        return float(await self._driver.ask("create", load.values()))

    async def until_cleaned_up(self, count: int) -> None:
        async def look() -> bool:
            return await self._completed() - self._completed_before >= count

        await until(look, f"{count} completed by {self.name}", within_s=SLOW_S)

    async def cpu_s(self) -> float:
        return self._driver.cpu_s()

    async def _completed(self) -> int:
        return int(await self._driver.ask("completed"))
