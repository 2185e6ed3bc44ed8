"""Take-over: the steps by which a node becomes the owner of one shard, and the lease that it then has.

The order of the steps is the proof (docs/protocol.md: x-meta-before-init, x-stale-meta, x-forget-tidy):

    1 read the epoch          so that a late node does not fence the rightful owner
    2 init the producer       fences the old owner and settles its transaction, one way or the other
    3 epoch + 1, if unchanged from here on the old owner's frontier writes and retry marks have no effect
    4 read the marker         only now no other marker can be committed
    5 its rows that exist     are delivered: left out of every pass, named in every marker, cleaned up
"""

import asyncio
import random
from dataclasses import dataclass

from clockwork.domain.ownership import ShardState
from clockwork.domain.planning import BlockedPrefix
from clockwork.domain.position import Position
from clockwork.domain.schedule import Lane
from clockwork.domain.sharding import ShardId
from clockwork.errors import ConditionFailed, Fenced
from clockwork.firing.cleanup import Cleanup, Completed
from clockwork.ports.delivery import Publisher, ShardPublisher
from clockwork.ports.store import ScheduleStore
from clockwork.ports.telemetry import Telemetry


@dataclass(kw_only=True, slots=True)
class ShardLease:
    """One owner's hold of one shard, from a take-over to the next, and the memory that belongs to it. Discarded as a
    whole when anything is in doubt."""

    shard: ShardId
    epoch: int
    publisher: ShardPublisher
    frontier_ms: int
    """As stored. Another owner may have raised it further; no owner lowers it."""
    cleanup: Cleanup
    announced_not_before_ms: dict[Position, int]
    """Time until which this owner has announced that a row waits. Remembered *before* the retry mark is sent, and kept to
    whatever becomes of that write: a write whose answer was lost, or an older copy of it, may be applied long after
    the next passes. If the row had fired meanwhile, a cancel would believe the late mark and answer `cancelled` for a
    delivered row. (Found by review and by simulation, outside the model; the same reason for which every hold has an
    id of its own.)
    """
    blocked_prefix: BlockedPrefix | None = None
    blocked_lanes: dict[Lane, int]
    """The lanes that waited in the last pass, and until when."""
    fallback_until_ms: dict[Position, int]
    """Rows whose dead letters their client's topic refused for their content, and until when these go to the
    cluster's topic without being offered again. Otherwise, while the cluster's topic is in back-off, every pass would
    offer them once more, and a cancel would never find them waiting."""
    backlog: bool = False
    """The last pass ended at a limit: read large pages."""

    async def close(self) -> None:
        await self.publisher.close()


class Takeover:
    """Makes this node the owner of a shard, or fails without harm."""

    def __init__(
        self,
        store: ScheduleStore,
        publisher: Publisher,
        telemetry: Telemetry,
        *,
        node: str,
        retention_ms: int,
        rng: random.Random,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._telemetry = telemetry
        self._node = node
        self._retention_ms = retention_ms
        self._rng = rng

    async def run(self, shard: ShardId) -> ShardLease:
        """Takes the shard over.

        Raises: Fenced (another node was faster), Unavailable, Unreadable (no shard item, or a marker that this version
        cannot read: the shard must not be worked).
        """
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        before = await self._store.read_shard(shard)
        publisher = await self._publisher.open_shard(shard)
        try:
            state = await self._raise_epoch(shard, expected=before.epoch)
            entries = await publisher.read_marker()
            rows = await self._store.read_rows(shard, [entry.position for entry in entries])
        except BaseException:
            await publisher.close()
            raise
        cleanup = Cleanup(self._store, shard, retention_ms=self._retention_ms, rng=self._rng)
        cleanup.add(Completed(row=rows[entry.position], entry=entry) for entry in entries if entry.position in rows)
        self._telemetry.takeover(loop.time() - started_s)
        return ShardLease(
            shard=shard,
            epoch=state.epoch,
            publisher=publisher,
            frontier_ms=state.frontier_ms,
            cleanup=cleanup,
            announced_not_before_ms={},
            blocked_lanes={},
            fallback_until_ms={},
        )

    async def renew(self, lease: ShardLease) -> None:
        """Gives the lease a new producer and a new epoch with it; the package's docstring says why both.

        Raises: Fenced, Unavailable (the lease has ended in both cases).
        """
        await lease.publisher.close()
        lease.publisher = await self._publisher.open_shard(lease.shard)
        state = await self._raise_epoch(lease.shard, expected=lease.epoch)
        lease.epoch = state.epoch

    async def _raise_epoch(self, shard: ShardId, *, expected: int) -> ShardState:
        owner = f"{self._node}/{self._rng.getrandbits(64):016x}"
        try:
            return await self._store.raise_epoch(shard, expected=expected, owner=owner)
        except ConditionFailed as error:
            raise Fenced(f"shard {shard}: another node took it over meanwhile") from error
