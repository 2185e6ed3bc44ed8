"""Sweep: the items and markers of incarnations that ended long ago are deleted, once an hour, by the owner of shard 0.

Safe by the check of the taker's own item in T3 (docs/protocol.md: x-sweep): an incarnation whose item was swept cannot
become an owner any more.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from clockwork.domain.sharding import ShardId
from clockwork.errors import ClockworkError, ConditionFailed
from clockwork.firing.context import FiringContext

log = logging.getLogger(__name__)

SWEEP_INTERVAL_S: Final = 3_600.0
FENCED_MS_MIN: Final = 86_400_000
"""A day: whatever was on its way when it was fenced has long arrived, and people may still want to look at it."""


async def sweep_hourly(context: FiringContext, *, shards: int, mine: Callable[[], bool]) -> None:
    """Sweeps once an hour if it is this process's turn (`mine`), until cancelled."""
    while True:
        await asyncio.sleep(SWEEP_INTERVAL_S * context.rng.uniform(0.9, 1.1))
        if not mine():
            continue
        try:
            await sweep(context, shards=shards)
        except ClockworkError as error:
            # The sweep is not urgent: the one of the next hour does it.
            log.warning("Sweep failed", extra={"event": "sweep.failed", "error": str(error)})


async def sweep(context: FiringContext, *, shards: int) -> int:
    """Deletes the incarnations that were fenced more than a day ago and own nothing. Returns how many. `shards`: the number
    of shards in the cluster.

    Raises: Unavailable.
    """
    store = context.store
    old_ms = context.clock.now_ms() - FENCED_MS_MIN
    nodes = [node for node in await store.list_nodes() if node.fenced_at_ms is not None and node.fenced_at_ms < old_ms]
    if not nodes:
        return 0
    # After the list, and every one of them: an item that cannot be read might name any owner.
    states = await store.read_shards([ShardId(number) for number in range(shards)])
    if len(states) < shards:
        log.warning("Sweep failed", extra={"event": "sweep.failed", "error": "a shard's item cannot be read"})
        return 0
    owners = {state.owner for state in states.values()}
    swept = 0
    for node in nodes:
        if node.incarnation in owners:
            continue
        await context.publisher.forget_markers(node.incarnation, slots=node.slots)
        try:
            await store.delete_node(node.incarnation)
        except ConditionFailed:
            continue
        swept += 1
    log.info("Incarnations swept", extra={"event": "sweep.done", "swept": swept})
    return swept
