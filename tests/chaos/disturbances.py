"""The plan, carried out: each disturbance heals what it has broken."""

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

from tests.chaos.plan import BURST_MS, Disturbance, Kind
from tests.chaos.world import NodeSeat, Skew, World
from tests.support.client import NO_ANSWER
from tests.support.nodes import now_ms

LATE_S_MAX: Final = 8.0
"""Delay by others before it after which a disturbance is left out: else a slow machine's nodes would never be well."""
SETTLES_MS: Final = 15_000
"""After a disturbance: sessions end, shards move, and what was on its way is sent again once its time limit is over."""
HALF_DONE_S: Final = 0.3
"""Time in which all that does not need the frozen service is done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kill:
    """A node that was killed, and what it was working on."""

    at_ms: int
    shards: frozenset[int]


@dataclass(kw_only=True, slots=True)
class DisturbanceLog:
    """The disturbances that were really done."""

    done: Counter[Kind] = field(default_factory=Counter)
    left_out: int = 0
    """Disturbances whose turn came too late."""
    kills: list[Kill] = field(default_factory=list)
    unrest: list[tuple[int, int]] = field(default_factory=list)
    """From when to when something was broken, or settling after it."""
    log: list[str] = field(default_factory=list)


async def carry_out(world: World, plan: Sequence[Disturbance], disturbance_log: DisturbanceLog) -> None:
    """Returns when the last disturbance is over. Those of one node, or of one service, wait for each other."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    async with asyncio.TaskGroup() as group:
        for disturbance in plan:
            at_s = began_s + disturbance.at_s
            await asyncio.sleep(max(0.0, at_s - loop.time()))
            group.create_task(
                _one(world, disturbance, disturbance_log, before_s=at_s + LATE_S_MAX), name=str(disturbance.kind)
            )


async def _one(world: World, what: Disturbance, disturbance_log: DisturbanceLog, *, before_s: float) -> None:
    seat = world.seats[what.node]
    async with AsyncExitStack() as stack:
        for lock in _locks(world, seat, what.kind):
            await stack.enter_async_context(lock)
        if asyncio.get_running_loop().time() > before_s:
            disturbance_log.left_out += 1
            return
        # ScheduleHistory before the burst: the answer could take longer than the burst.
        shards = await shards_of(seat) if what.kind in (Kind.KILL, Kind.CUT_OFF_STORE) else frozenset()
        if what.after_burst_ms is not None:
            await asyncio.sleep((BURST_MS - now_ms() % BURST_MS + what.after_burst_ms) / 1_000)
        disturbance_log.done[what.kind] += 1
        from_ms = now_ms()
        disturbance_log.log.append(f"{from_ms} {what}")
        await _break(world, seat, what, disturbance_log, shards)
        disturbance_log.unrest.append((from_ms, now_ms() + SETTLES_MS))
        disturbance_log.log.append(f"{now_ms()}        over: {what.kind}")


def _locks(world: World, seat: NodeSeat, kind: Kind) -> tuple[asyncio.Lock, ...]:
    """The locks that it takes; a node's before a service's, so that no two wait for each other."""
    match kind:
        case Kind.BROKER_KILL | Kind.BROKER_PAUSE:
            return (world.broker,)
        case Kind.STORE_PAUSE:
            return (world.store,)
        case Kind.CUT_OFF_BROKER:
            return (seat.lock, world.broker)
        case Kind.CUT_OFF_STORE:
            return (seat.lock, world.store)
        case _:
            return (seat.lock,)


async def _break(
    world: World, seat: NodeSeat, what: Disturbance, disturbance_log: DisturbanceLog, shards: frozenset[int]
) -> None:
    services = world.services
    match what.kind:
        case Kind.KILL:
            await kill(world, seat, disturbance_log, shards=shards)
            await asyncio.sleep(what.for_s)
            await world.start(seat)
        case Kind.RESTART:
            await world.stop(seat)
            await asyncio.sleep(what.for_s)
            await world.start(seat)
        case Kind.ZOMBIE | Kind.STUTTER:
            if seat.node is not None:
                seat.node.process.pause()
                await asyncio.sleep(what.for_s)
                seat.node.process.resume()
        case Kind.CUT_OFF_STORE:
            services.pause_store(world.cluster.store)
            await asyncio.sleep(HALF_DONE_S)
            await kill(world, seat, disturbance_log, shards=shards)
            services.resume_store(world.cluster.store)
            await asyncio.sleep(what.for_s)
            await world.start(seat)
        case Kind.CUT_OFF_BROKER:
            if seat.node is not None:
                services.pause_kafka()
                await asyncio.sleep(HALF_DONE_S)
                seat.node.process.pause()
                services.resume_kafka()
                await asyncio.sleep(what.for_s)
                seat.node.process.resume()
        case Kind.CLOCK_NEAR | Kind.CLOCK_FAR:
            await _wrong_clock(world, seat, what)
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


async def kill(
    world: World, seat: NodeSeat, disturbance_log: DisturbanceLog, *, shards: frozenset[int] | None = None
) -> None:
    """kill -9, with a note of the shards that its node works, or worked when it was asked."""
    if shards is None:
        shards = await shards_of(seat)
    await world.kill(seat)
    disturbance_log.kills.append(Kill(at_ms=now_ms(), shards=shards))


async def _wrong_clock(world: World, seat: NodeSeat, what: Disturbance) -> None:
    await world.stop(seat)
    skew = await world.start_skewed(seat, offset_ms=what.offset_ms, jump_after_s=what.jump_after_s)
    await asyncio.sleep(what.for_s)
    skew.fired = await _fired(skew)
    await world.stop(seat)
    skew.to_ms = now_ms()
    await world.start(seat)


async def shards_of(seat: NodeSeat) -> frozenset[int]:
    """The shards that the node there works; none if it does not say."""
    if seat.node is None:
        return frozenset()
    try:
        async with asyncio.timeout(1.0):
            return await seat.node.shards()
    except NO_ANSWER:
        return frozenset()  # it has hardly begun


async def _fired(skew: Skew) -> bool:
    try:
        metrics = await skew.node.client.metrics()
    except NO_ANSWER:
        return False  # it cannot be known; what it delivered too early is seen in the records
    return re.search(r'^clockwork_deliveries_total\{.*result="delivered"\} [1-9]', metrics, re.M) is not None
