"""Shards for operators: the owner and the lag of each, and `fence`, which makes an owner take its shard over again.

`fence` raises a shard's epoch without a new owner: the third step of a take-over without the others. The owner's next
frontier write is refused, so it discards its lease and goes through take-over, as after any fence; the wake-up makes
it do so at once. That is safe at any moment, because it equals a new owner that dies just after that step. The
producer of the old owner is not fenced by it, so a transaction that it has begun is committed and named in its
marker, or not at all. Rows up to the stored frontier still cannot be cancelled. And no owner writes retry marks in
the name of the new epoch, so no cancel can believe a wait that the old owner does not keep. (A take-over that raised
the epoch before its init would do exactly that, hence its own order.)

`fence` does not move the shard to another node: the consumer group assigns it, and the same node takes it again. To
move a shard, stop its node.
"""

import random
from dataclasses import dataclass
from typing import Final

from clockwork.clock import Clock
from clockwork.concurrency import gather_bounded
from clockwork.domain.ownership import ShardState
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import NewlyDue
from clockwork.errors import ConditionFailed, StoreUnavailable, Unreadable
from clockwork.ports.ownership import Waker
from clockwork.ports.store import ScheduleStore
from clockwork.requests.deadline import RequestDeadline
from clockwork.settings.model import IntakeSettings

SHARDS_AT_ONCE: Final = 16
"""Shards that are read side by side, two small reads each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardView:
    """One shard, its parts read at different moments."""

    shard: ShardId
    state: ShardState | None
    """None: its item cannot be read."""
    oldest_due_ms: int | None
    """Due time of the row at the lowest position, which may await cleanup; None: there is no row."""
    lag_ms: int
    """Time since then; 0 if it is not due."""
    problem: str | None = None


class ShardAdmin:
    """Shows shards, and fences them."""

    def __init__(
        self, store: ScheduleStore, waker: Waker, clock: Clock, rng: random.Random, settings: IntakeSettings
    ) -> None:
        self._store = store
        self._waker = waker
        self._clock = clock
        self._rng = rng
        self._settings = settings

    @property
    def count(self) -> int:
        """The number of shards."""
        return self._settings.shards

    async def shards(self) -> tuple[ShardView, ...]:
        """All shards. Raises: Unavailable."""
        patience = RequestDeadline(self._settings.request_timeout_ms, self._rng)
        async with patience.enforced():
            return tuple(await gather_bounded(self._view, map(ShardId, range(self.count)), at_once=SHARDS_AT_ONCE))

    async def fence(self, shard: ShardId) -> ShardView:
        """Makes the shard's owner begin anew. Raises: Unavailable (it may have been done), Unreadable."""
        by = f"operator/{self._rng.getrandbits(64):016x}"
        patience = RequestDeadline(self._settings.request_timeout_ms, self._rng)
        async with patience.enforced():
            stored = await self._store.read_shard(shard)
            while True:
                try:
                    stored = await self._store.raise_epoch(shard, expected=stored.epoch, owner=by)
                    break
                except ConditionFailed:
                    # A node has just taken it over, which is the purpose; or an earlier try of this call was applied.
                    break
                except StoreUnavailable as error:
                    await patience.pause(f"the shard could not be fenced in time: {error}")
            # Past the stored frontier: up to there its owner has nothing to write that could be refused.
            self._waker.wake(shard, NewlyDue(max(self._clock.now_ms(), stored.frontier_ms + 1)))
            return await self._view(shard)

    async def _view(self, shard: ShardId) -> ShardView:
        page = await self._store.read_page(shard, after=None, rows_max=1)
        oldest_ms = page.rows[0].due_ms if page.rows else None
        lag_ms = 0 if oldest_ms is None else max(0, self._clock.now_ms() - oldest_ms)
        state, problem = None, None
        try:
            state = await self._store.read_shard(shard)
        except Unreadable as error:
            problem = str(error)
        return ShardView(shard=shard, state=state, oldest_due_ms=oldest_ms, lag_ms=lag_ms, problem=problem)
