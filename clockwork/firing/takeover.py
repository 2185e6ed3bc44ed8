"""Becoming the owner of one shard.

The order of the steps is the proof (docs/protocol.md: x-meta-before-init, x-stale-meta, x-forget-tidy):

    1 read the epoch          so that a late node does not fence the right one
    2 init the producer       fences the old owner and settles its transaction, one way or the other
    3 epoch + 1, if still 1   from here on the old owner's frontier writes and `retry` marks count for nothing
    4 read the marker         only now can no other one be committed
    5 its rows that exist     are delivered: left out of every pass, named in every marker, tidied up
"""

import asyncio
import random
from dataclasses import dataclass

from clockwork.domain.destination import Topic
from clockwork.domain.ownership import ShardState
from clockwork.domain.position import Position
from clockwork.domain.schedule import Lane
from clockwork.domain.sharding import ShardId
from clockwork.errors import ConditionFailed, Fenced
from clockwork.firing.cleanup import Cleanup, Completed
from clockwork.ports.delivery import Publisher, ShardPublisher
from clockwork.ports.store import ScheduleStore
from clockwork.ports.telemetry import Telemetry


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockedPrefix:
    """Rows at the lowest positions that are known to wait, so that they are not read at every pass."""

    last: Position
    """The next pass reads on after it."""
    lanes: dict[Lane, int]
    """Their lanes, and until when each waits."""
    until_ms: int
    """From here on they are read again: the first of the waits ends, or a scan is due."""
    walk_began_ms: int
    """When the reading of this front began, at its lowest position."""
    rows: int
    oldest_due_ms: int | None
    paced: frozenset[Topic] = frozenset()
    """Topics among them that wait for their pace only."""


@dataclass(kw_only=True, slots=True)
class ShardLease:
    """What one owner knows between a take-over and the next: forgotten as a whole when anything is in doubt."""

    shard: ShardId
    epoch: int
    publisher: ShardPublisher
    frontier_ms: int
    """As stored; other owners may have raised it further, nobody lowers it."""
    cleanup: Cleanup
    announced_not_before_ms: dict[Position, int]
    """Until when this owner has said that a row waits: remembered *before* the `retry` is sent, and kept to whatever
    becomes of it. A write whose answer was lost, or an older copy of it, may be applied long after the next passes: if
    the row had been fired meanwhile, a cancel would believe the late `retry` and answer `cancelled` for a delivered row.
    (Found by review and by simulation, outside the model; the same reason for which every hold has an id of its own.)
    """
    blocked_prefix: BlockedPrefix | None = None
    waiting_lanes: dict[Lane, int]
    """The lanes that waited in the last pass, and until when."""
    turned_away: dict[Position, int]
    """Dead letters that their client's topic refused for what they are, and until when they go to the cluster's without
    being asked of it again. Else, while the cluster's topic waits, each pass would offer them once more, and none would
    leave them to a cancel."""
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
            ended = await publisher.read_marker()
            rows = await self._store.read_rows(shard, [entry.position for entry in ended])
        except BaseException:
            await publisher.close()
            raise
        cleanup = Cleanup(self._store, shard, retention_ms=self._retention_ms, rng=self._rng)
        cleanup.add(Completed(row=rows[entry.position], ended=entry) for entry in ended if entry.position in rows)
        self._telemetry.takeover(loop.time() - started_s)
        return ShardLease(
            shard=shard,
            epoch=state.epoch,
            publisher=publisher,
            frontier_ms=state.frontier_ms,
            cleanup=cleanup,
            announced_not_before_ms={},
            waiting_lanes={},
            turned_away={},
        )

    async def renew(self, lease: ShardLease) -> None:
        """A new producer for the same tenure, and a new epoch with it: see the package's essay.

        Raises: Fenced, Unavailable (the tenure is over in both cases).
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
