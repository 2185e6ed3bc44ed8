"""kill -9, again and again: how long until other nodes deliver the victim's schedules?

A kill comes only when the cluster has settled, under a steady load that has something due in every shard several times a
second; so what is measured is the silence of the victim's shards, to a few tenths of a second.
"""

import asyncio
import random
from typing import Final

from tests.chaos.disturbances import DisturbanceLog, kill
from tests.chaos.mix import STEADY
from tests.chaos.plan import Kind
from tests.chaos.workload import Workload
from tests.chaos.world import HEALED_S_MAX, World
from tests.support.waiting import until

PER_SECOND: Final = 60.0
MIX: Final = STEADY


async def kill_in_a_row(world: World, workload: Workload, disturbance_log: DisturbanceLog, *, kills: int) -> None:
    """So many kills, each of another node than the last."""
    stop = asyncio.Event()
    await world.heal()
    async with asyncio.TaskGroup() as group:
        group.create_task(workload.run(stop), name="workload")
        try:
            for number in range(kills):
                seat = world.seats[number % len(world.seats)]
                # Not in step with anything: heartbeats, scans, due times.
                await asyncio.sleep(random.uniform(0.5, 1.5))
                await kill(world, seat, disturbance_log)
                disturbance_log.done[Kind.KILL] += 1
                await _until_taken_over(world)
                await world.start(seat)
                await until(world.settled, "the killed node is back", within_s=HEALED_S_MAX)
        finally:
            stop.set()


async def _until_taken_over(world: World) -> None:
    """Returns when the others work all shards, so that the return of the victim is not in the measurement."""

    async def all_shards() -> bool:
        return await world.works_all()

    await until(all_shards, "the others work all shards", within_s=HEALED_S_MAX)
