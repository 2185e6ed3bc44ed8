"""A steady load on a cluster whose nodes come and go: creates and cancels that are repeated until they are answered."""

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from clockwork.domain.schedule import OrderingKey
from clockwork.domain.sharding import shard_of
from tests.support.client import NO_ANSWER, Answered, Client
from tests.support.nodes import Cluster, now_ms
from tests.support.promises import Ledger

GIVE_UP_S: Final = 60.0
AGAIN_S: Final = 0.05
WORKERS: Final = 4
"""Creates under way at once."""


class Load:
    """Creates schedules of some ordering keys, due soon, and cancels some of them; what is answered goes to the ledger.

    A request without an answer, or answered `503`, is sent again, to another node if there is one: exactly what the
    interface asks of its clients.
    """

    def __init__(
        self,
        cluster: Cluster,
        topics: Sequence[str],
        *,
        prefix: str = "load",
        seed: int = 1,
        per_second: float = 40.0,
        lanes_per_shard: int = 3,
        ahead_ms: tuple[int, int] = (100, 1_200),
        cancel_share: float = 0.1,
        guarantees: Sequence[str] = ("exactly_once",),
    ) -> None:
        self.ledger = Ledger()
        self.shards = frozenset(range(int(cluster.settings["CLOCKWORK_SHARDS"])))
        """Each gets some of the ordering keys."""
        self.clients: list[Client] = []
        """The nodes that are asked; may be changed at any time."""
        self._cluster = cluster
        self._topics = topics
        self._prefix = prefix
        self._rng = random.Random(seed)
        self._pause_s = WORKERS / per_second
        self.ordering_keys = self._in_every_shard(lanes_per_shard)
        self._ahead_ms = ahead_ms
        self._cancel_share = cancel_share
        self._guarantees = guarantees
        self._count = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Works until told to stop; then finishes what it has begun."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work(stop, group), name="load")

    async def _work(self, stop: asyncio.Event, group: asyncio.TaskGroup) -> None:
        while not stop.is_set():
            body = self._next_body()
            await self.create(body)
            if self._rng.random() < self._cancel_share:
                group.create_task(self.cancel_near_due(body), name="cancel")
            await asyncio.sleep(self._pause_s)

    def _next_body(self) -> dict[str, Any]:
        self._count += 1
        return self._cluster.body(
            self._rng.choice(self._topics),
            f"{self._prefix}-{self._count}",
            in_ms=self._rng.randint(*self._ahead_ms),
            ordering_key=self._rng.choice(self.ordering_keys),
            guarantee=self._rng.choice(self._guarantees),
        )

    def _in_every_shard(self, each: int) -> list[str]:
        """Ordering keys, so many in each shard."""
        found: dict[int, list[str]] = {shard: [] for shard in self.shards}
        for number in itertools.count():
            key = f"{self._prefix}-lane-{number}"
            keys = found[shard_of(OrderingKey(key), len(self.shards))]
            if len(keys) < each:
                keys.append(key)
            if all(len(keys) == each for keys in found.values()):
                return [key for keys in found.values() for key in keys]
        raise AssertionError("unreachable")

    async def create(self, body: dict[str, Any]) -> None:
        """One schedule, accepted for certain."""
        sent_at_ms = now_ms()
        answered = await self._until_answered(lambda client: client.create(body))
        assert answered.status in (200, 201), answered
        self.ledger.accepted(body, answered, sent_at_ms=sent_at_ms, accepted_at_ms=now_ms())

    async def cancel_near_due(self, body: dict[str, Any], *, offset_ms: int | None = None) -> Answered:
        """A cancel around the due time; whatever is answered must be true."""
        if offset_ms is None:
            offset_ms = self._rng.randint(-400, 50)
        await asyncio.sleep(max(0, body["scheduleTime"] + offset_ms - now_ms()) / 1_000)
        return await self.cancel(body["scheduleKey"])

    async def cancel(self, schedule_key: str) -> Answered:
        answered = await self._until_answered(lambda client: client.cancel(self._cluster.name, schedule_key))
        assert answered.status in (200, 409), answered
        self.ledger.answered(schedule_key, answered)
        return answered

    async def ask_all(self, *, at_most: int = 60) -> None:
        """`GET` of some of the schedules: their states must be final by now, and true."""
        keys = self._rng.sample(sorted(self.ledger.promises), min(at_most, len(self.ledger.promises)))
        for key in keys:
            self.ledger.answered(key, await self.get(key))

    async def get(self, schedule_key: str) -> Answered:
        return await self._until_answered(lambda client: client.get(self._cluster.name, schedule_key))

    async def _until_answered(self, ask: Callable[[Client], Any]) -> Answered:
        async with asyncio.timeout(GIVE_UP_S):
            while True:
                try:
                    answered: Answered = await ask(self._rng.choice(self.clients).impatient)
                except NO_ANSWER:
                    await asyncio.sleep(AGAIN_S)
                    continue
                if answered.status != 503:
                    return answered
                await asyncio.sleep(AGAIN_S)
