"""Wake-ups on their way to a shard's owner: told directly if it is in this process, else a record on the ownership topic.

A wake-up never delays an answer and never fails a request: it is queued, sent in the background, and dropped when the queue
is full or Kafka is away. The owner's next scan of the shard finds what the wake-up would have said.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import WakeUp
from clockwork.errors import ClockworkError
from clockwork.ports.ownership import ShardOwnership

log = logging.getLogger(__name__)

QUEUED_MAX: Final = 10_000
SENDERS: Final = 8
"""Records being sent at the same time."""


class WakeupSender:
    """See `ports.ownership.Waker`. `run` must be running for wake-ups that leave the process."""

    def __init__(self, ownership: ShardOwnership, tell_here: Callable[[ShardId, WakeUp], bool]) -> None:
        """`tell_here` tells an owner in this process; False: there is none."""
        self._ownership = ownership
        self._tell_here = tell_here
        self._queue: asyncio.Queue[tuple[ShardId, WakeUp]] = asyncio.Queue(QUEUED_MAX)

    def wake(self, shard: ShardId, wakeup: WakeUp) -> None:
        if self._tell_here(shard, wakeup):
            return
        try:
            self._queue.put_nowait((shard, wakeup))
        except asyncio.QueueFull:
            # Kafka is slow or away; the owner's next scan makes up for it.
            log.debug("Wake-up dropped", extra={"event": "wakeup.dropped", "shard": shard})

    async def run(self) -> None:
        """Sends the queued wake-ups, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for n in range(SENDERS):
                group.create_task(self._send_all(), name=f"wake-ups-{n}")

    async def _send_all(self) -> None:
        while True:
            shard, wakeup = await self._queue.get()
            try:
                await self._ownership.wake(shard, wakeup)
            except ClockworkError as error:
                # A lost wake-up is harmless, for the same reason.
                log.debug("Wake-up lost", extra={"event": "wakeup.lost", "shard": shard, "error": str(error)})
