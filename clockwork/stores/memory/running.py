"""The store in memory as a store to run a node with: its calls are measured, its time is the node's own, and what has
expired is dropped, as DynamoDB's TTL does it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from typing import Final, Protocol, TypeVar

from clockwork.clock import Clock
from clockwork.errors import ClockworkError, ConditionFailed
from clockwork.ports.findings import Findings
from clockwork.ports.store import ObserveServerTime, Stores
from clockwork.ports.telemetry import StoreResult, Telemetry
from clockwork.stores.memory.jobs import JobTables, MemoryJobStore
from clockwork.stores.memory.registry import MemoryRegistry
from clockwork.stores.memory.store import MemoryPauses, MemoryScheduleSearch, MemoryScheduleStore

EXPIRY_INTERVAL_S: Final = 60.0
"""Between two walks through everything that may have expired: DynamoDB's TTL is slower."""
KEYS_PER_TURN: Final = 5_000
"""Looked at in one turn of the event loop, in some milliseconds."""

_T = TypeVar("_T")
_E = TypeVar("_E", bound="_Expiring")


class RunningMemoryStore(MemoryScheduleStore):
    """`ScheduleStore` for one node in one process.

    It has no task of its own: a node pings its store every few seconds, and that is when the expired is dropped.
    """

    def __init__(self, *, shards: int, clock: Clock, observe: ObserveServerTime, telemetry: Telemetry) -> None:
        super().__init__(shards=shards)
        self._clock = clock
        self._observe = observe
        self._telemetry = telemetry
        self._expired_at_s = 0.0
        self.job_tables = JobTables()

    async def _serve(self, operation: str, effect: Callable[[], _T]) -> _T:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        result: StoreResult = "ok"
        try:
            return effect()
        except ClockworkError as error:
            result = "condition_failed" if isinstance(error, ConditionFailed) else "error"
            raise
        finally:
            seconds = loop.time() - started_s
            self._telemetry.store_call(store="memory", operation=operation, result=result, seconds=seconds)

    async def ping(self) -> None:
        """See `ScheduleStore`. The store's time is this node's, so the clock counts as compared."""
        await super().ping()
        now_ms = self._clock.now_ms()
        self._observe(sent_ms=now_ms, received_ms=now_ms, server_ms=now_ms, resolution_ms=1)
        now_s = asyncio.get_running_loop().time()
        if now_s - self._expired_at_s >= EXPIRY_INTERVAL_S:
            self._expired_at_s = now_s
            await self.drop_expired(now_ms // 1_000)

    async def drop_expired(self, now_s: int) -> None:
        """Drops outcomes, notes and pointers whose `expires_at_s` has passed. A pointer stays while its row does: a row
        whose client or topic is paused may outlive the date."""
        await _drop(self.outcomes, now_s)
        await _drop(self.notes, now_s)
        async for name in _in_turns(self.pointers):
            pointer = self.pointers.get(name)
            if pointer is None or pointer.expires_at_s > now_s:
                continue
            if (pointer.shard, pointer.position) not in self.rows:
                del self.pointers[name]
        # The state of a job that is over goes with its definitions, by the audit.
        await _drop(self.job_tables.log, now_s)
        await _drop(self.job_tables.completions, now_s)
        await _drop(self.job_tables.requests, now_s)
        await _drop(self.job_tables.notes, now_s)


def new_memory_stores(
    *, shards: int, lists: bool, clock: Clock, observe: ObserveServerTime, telemetry: Telemetry
) -> Stores:
    """An empty store of this process. It needs no closing."""
    store = RunningMemoryStore(shards=shards, clock=clock, observe=observe, telemetry=telemetry)
    return Stores(
        schedules=store,
        search=MemoryScheduleSearch(store),
        jobs=MemoryJobStore(store, store.job_tables),
        lists=lists,
        pauses=MemoryPauses(),
        registry=MemoryRegistry(),
        init=_nothing_to_make,
        check=_check,
    )


async def _nothing_to_make() -> None:
    """The shards are there from the start."""


async def _check() -> Findings:
    return Findings(
        warnings=(
            "CLOCKWORK_STORE=memory: schedules are kept in this process and end with it, and no second node can share "
            "them; for trying out",
        )
    )


class _Expiring(Protocol):
    @property
    def expires_at_s(self) -> int: ...


async def _drop(table: "dict[_T, _E]", now_s: int) -> None:
    """Drops the items that have expired."""
    async for key in _in_turns(table):
        item = table.get(key)
        if item is not None and item.expires_at_s <= now_s:
            del table[key]


async def _in_turns(keys: Collection[_T]) -> AsyncIterator[_T]:
    """These keys as they are now, with turns of the event loop for others in between: some may be gone by then."""
    for count, key in enumerate(list(keys), start=1):
        if count % KEYS_PER_TURN == 0:
            await asyncio.sleep(0)
        yield key
