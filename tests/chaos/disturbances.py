"""The plan, carried out: each disturbance heals what it has broken."""

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

from tests.chaos.plan import BURST_MS, Disturbance, Kind
from tests.chaos.world import Skew, Slot, World
from tests.support.client import NO_ANSWER
from tests.support.nodes import now_ms

LATE_S_MAX: Final = 8.0
"""What comes later, because others before it took so long, is left out: else a slow machine's nodes would never be well."""
SETTLES_MS: Final = 15_000
"""After a disturbance: sessions end, shards move, and what was on its way is sent again once its time limit is over."""
HALF_DONE_S: Final = 0.3
"""Until whatever does not need the frozen service is done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kill:
    """A node that was killed, and what it was working on."""

    at_ms: int
    shards: frozenset[int]


@dataclass(kw_only=True, slots=True)
class Deeds:
    """What was really done."""

    done: Counter[Kind] = field(default_factory=Counter)
    left_out: int = 0
    """Disturbances whose turn came too late."""
    kills: list[Kill] = field(default_factory=list)
    unrest: list[tuple[int, int]] = field(default_factory=list)
    """From when to when something was broken, or settling after it."""
    log: list[str] = field(default_factory=list)


async def carry_out(world: World, plan: Sequence[Disturbance], deeds: Deeds) -> None:
    """Returns when the last disturbance is over. Those of one node, or of one service, wait for each other."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    async with asyncio.TaskGroup() as group:
        for disturbance in plan:
            at_s = began_s + disturbance.at_s
            await asyncio.sleep(max(0.0, at_s - loop.time()))
            group.create_task(_one(world, disturbance, deeds, before_s=at_s + LATE_S_MAX), name=str(disturbance.kind))


async def _one(world: World, what: Disturbance, deeds: Deeds, *, before_s: float) -> None:
    slot = world.slots[what.node]
    async with AsyncExitStack() as stack:
        for lock in _locks(world, slot, what.kind):
            await stack.enter_async_context(lock)
        if asyncio.get_running_loop().time() > before_s:
            deeds.left_out += 1
            return
        # Asked before the burst: the answer could take longer than the burst.
        shards = await shards_of(slot) if what.kind in (Kind.KILL, Kind.CUT_OFF_STORE) else frozenset()
        if what.after_burst_ms is not None:
            await asyncio.sleep((BURST_MS - now_ms() % BURST_MS + what.after_burst_ms) / 1_000)
        deeds.done[what.kind] += 1
        from_ms = now_ms()
        deeds.log.append(f"{from_ms} {what}")
        await _break(world, slot, what, deeds, shards)
        deeds.unrest.append((from_ms, now_ms() + SETTLES_MS))
        deeds.log.append(f"{now_ms()}        over: {what.kind}")


def _locks(world: World, slot: Slot, kind: Kind) -> tuple[asyncio.Lock, ...]:
    """What it takes for itself; a node before a service, so that no two wait for each other."""
    match kind:
        case Kind.BROKER_KILL | Kind.BROKER_PAUSE:
            return (world.broker,)
        case Kind.STORE_PAUSE:
            return (world.store,)
        case Kind.CUT_OFF_BROKER:
            return (slot.lock, world.broker)
        case Kind.CUT_OFF_STORE:
            return (slot.lock, world.store)
        case _:
            return (slot.lock,)


async def _break(world: World, slot: Slot, what: Disturbance, deeds: Deeds, shards: frozenset[int]) -> None:
    services = world.services
    match what.kind:
        case Kind.KILL:
            await kill(world, slot, deeds, shards=shards)
            await asyncio.sleep(what.for_s)
            await world.start(slot)
        case Kind.RESTART:
            await world.stop(slot)
            await asyncio.sleep(what.for_s)
            await world.start(slot)
        case Kind.ZOMBIE | Kind.STUTTER:
            if slot.node is not None:
                slot.node.process.pause()
                await asyncio.sleep(what.for_s)
                slot.node.process.resume()
        case Kind.CUT_OFF_STORE:
            services.pause_store(world.cluster.store)
            await asyncio.sleep(HALF_DONE_S)
            await kill(world, slot, deeds, shards=shards)
            services.resume_store(world.cluster.store)
            await asyncio.sleep(what.for_s)
            await world.start(slot)
        case Kind.CUT_OFF_BROKER:
            if slot.node is not None:
                services.pause_kafka()
                await asyncio.sleep(HALF_DONE_S)
                slot.node.process.pause()
                services.resume_kafka()
                await asyncio.sleep(what.for_s)
                slot.node.process.resume()
        case Kind.CLOCK_NEAR | Kind.CLOCK_FAR:
            await _wrong_clock(world, slot, what)
        case Kind.BROKER_KILL:
            await services.kill_kafka()
            await asyncio.sleep(what.for_s)
            await services.start_kafka()
        case Kind.BROKER_PAUSE:
            services.pause_kafka()
            await asyncio.sleep(what.for_s)
            services.resume_kafka()
        case Kind.STORE_PAUSE:
            services.pause_store(world.cluster.store)
            await asyncio.sleep(what.for_s)
            services.resume_store(world.cluster.store)


async def kill(world: World, slot: Slot, deeds: Deeds, *, shards: frozenset[int] | None = None) -> None:
    """kill -9, with a note of the shards that its node works, or worked when it was asked."""
    if shards is None:
        shards = await shards_of(slot)
    await world.kill(slot)
    deeds.kills.append(Kill(at_ms=now_ms(), shards=shards))


async def _wrong_clock(world: World, slot: Slot, what: Disturbance) -> None:
    await world.stop(slot)
    skew = await world.start_skewed(slot, offset_ms=what.offset_ms, jump_after_s=what.jump_after_s)
    await asyncio.sleep(what.for_s)
    skew.fired = await _fired(skew)
    await world.stop(slot)
    skew.to_ms = now_ms()
    await world.start(slot)


async def shards_of(slot: Slot) -> frozenset[int]:
    """The shards that the node there works; none if it does not say."""
    if slot.node is None:
        return frozenset()
    try:
        async with asyncio.timeout(1.0):
            return await slot.node.shards()
    except NO_ANSWER:
        return frozenset()  # it has hardly begun


async def _fired(skew: Skew) -> bool:
    try:
        metrics = await skew.node.client.metrics()
    except NO_ANSWER:
        return False  # nobody can say; what it delivered too early is seen in the records
    return re.search(r'^clockwork_deliveries_total\{.*result="delivered"\} [1-9]', metrics, re.M) is not None
