"""After the faults: everything is healed, and what is due must end within a bounded time and leave nothing behind."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

from tests.chaos.history import Asked, History
from tests.chaos.workload import Workload
from tests.chaos.world import SHARDS, World
from tests.support.nodes import now_ms
from tests.support.reader import Arrived, read_all
from tests.support.tables import Item, Tables, tables_of
from tests.support.waiting import until

ENDS_WITHIN_S: Final = 45.0
"""From the moment when all is healed and asked for. Some are due ten seconds later; a transaction that a killed node left
open lasts ten seconds at most."""
ASKED_WITHIN_S: Final = 30.0
READS_PER_S: Final = 50
"""A slow machine's; only so that asking comes to an end."""
TIDY_S: Final = 10.0
AT_ONCE: Final = 16


@dataclass(kw_only=True, slots=True)
class Remains:
    """What is there at the very end."""

    records: Sequence[Arrived] = ()
    dead_letters: Sequence[Arrived] = ()
    outcomes: dict[str, list[str]] = field(default_factory=dict)
    """Per schedule key, the states of its outcomes as they are stored."""
    rows: list[str] = field(default_factory=list)
    """Schedule keys of rows that should not be there any more."""
    unended: list[str] = field(default_factory=list)
    """Schedules that did not end in time."""
    ended_after_ms: int = 0
    """How long after the healing the last schedule had ended, and its row was gone."""


async def settle(world: World, workload: Workload, history: History) -> Remains:
    """Asks for every schedule until it has ended; cancels those of a far time, and reads what is left."""
    remains = Remains()
    healed_ms = now_ms()
    everything = list(history.asked.values())
    far = [asked for asked in everything if asked.fate == "far"]
    async with tables_of(world.cluster) as tables:
        spared = {asked.schedule_key for asked in far}
        remains.unended = await _rows_left(tables, spared, within_s=ENDS_WITHIN_S)
        remains.ended_after_ms = now_ms() - healed_ms
        try:
            async with asyncio.timeout(ASKED_WITHIN_S + len(everything) / READS_PER_S):
                await _until_answered_finally(workload, [asked for asked in everything if asked.fate != "far"])
                await _each(far, workload.read)
                pending = [asked for asked in far if asked.seen and asked.seen[-1].state == "pending"]
                await _each(pending, workload.cancel)
        except TimeoutError:
            remains.unended += [f"{asked.schedule_key}: no final answer" for asked in everything if not asked.ended]
        remains.rows = await _rows_left(tables, set(), within_s=TIDY_S)
        remains.outcomes = _outcomes(await tables.keys())
    for slot in world.slots:
        await world.stop(slot)
    remains.records = await read_all(world.services.kafka_brokers, *world.topics)
    remains.dead_letters = await read_all(world.services.kafka_brokers, world.cluster.dead_letters)
    return remains


async def _until_answered_finally(workload: Workload, asked: Sequence[Asked]) -> None:
    # Each of them once, also those whose end was answered before: the answer must still be the same.
    await _each(asked, workload.read)
    while left := [one for one in asked if not one.ended]:
        await asyncio.sleep(0.2)
        await _each(left, workload.read)


async def _each(asked: Sequence[Asked], ask: Callable[[Asked], Awaitable[bool]]) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(schedule: Asked) -> None:
        async with gate:
            await ask(schedule)

    async with asyncio.TaskGroup() as group:
        for schedule in asked:
            group.create_task(one(schedule), name=schedule.schedule_key)


async def _rows_left(tables: Tables, spared: AbstractSet[str], *, within_s: float) -> list[str]:
    """A row is there for as long as its schedule has not ended. Those that are still there then."""
    left: list[str] = []

    async def none() -> bool:
        left[:] = [
            f"{key} in shard {shard}, {sorted(item)}"
            for shard in range(SHARDS)
            for item in await tables.rows(shard)
            if (key := item.get("scheduleKey", {}).get("S")) not in spared
        ]
        return not left

    try:
        await until(none, "no row is left", within_s=within_s)
    except AssertionError:
        return left
    return []


def _outcomes(items: Sequence[Item]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in items:
        if "state" in item:
            found.setdefault(item["scheduleKey"]["S"], []).append(item["state"]["S"])
    return found
