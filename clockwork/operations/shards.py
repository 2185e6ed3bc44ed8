"""The shards, as an operator looks at them: who owns each, how far it is, and a way to make its owner begin anew.

`fence` raises a shard's epoch, with nobody behind it: the third step of a take-over without the others. Its owner's next
frontier write is refused, so it forgets all that it knew of the shard and goes through take-over, as after any fence; the
wake-up makes it look at once. That is safe at any moment, because it is what a new owner leaves behind that dies just
after that step: the producer of the old one is not fenced by it, so whatever it has begun to send is committed and named
in its marker or not at all; rows up to the stored frontier are still not to be cancelled; and nobody marks a row in the
name of the new epoch, so no cancel can believe a wait that the old owner does not keep. (A take-over that raised the epoch
before its init would do exactly that, which is why its own order is another one.)

It does not move the shard to another node: which node owns it is what the consumer group says, and the same one takes it
again. To move a shard, stop its node.
"""

import random
from dataclasses import dataclass
from typing import Final, Protocol

from clockwork.clock import Clock
from clockwork.concurrency import gather_bounded
from clockwork.domain.ownership import ShardState
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import NewlyDue
from clockwork.errors import ConditionFailed, StoreUnavailable, Unreadable
from clockwork.ports.store import ScheduleStore
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.waker import Waker
from clockwork.settings.model import IntakeSettings

SHARDS_AT_ONCE: Final = 16
"""Of those that are looked at: two small reads each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardView:
    """One shard, as just read; its parts at different moments."""

    shard: ShardId
    state: ShardState | None
    """None: its item cannot be read."""
    oldest_due_ms: int | None
    """Of the row at the lowest position, which may be delivered and not yet tidied up; None: there is no row."""
    lag_ms: int
    """How long that one is due; 0 if it is not."""
    problem: str | None = None


class Surveys(Protocol):
    """What the edge asks."""

    @property
    def count(self) -> int:
        """How many shards there are."""
        ...

    async def shards(self) -> tuple[ShardView, ...]:
        """All of them. Raises: Unavailable."""
        ...

    async def fence(self, shard: ShardId) -> ShardView:
        """Makes its owner begin anew. Raises: Unavailable (it may have been done), Unreadable."""
        ...


class ShardAdmin:
    """Implements `Surveys`."""

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
        return self._settings.shards

    async def shards(self) -> tuple[ShardView, ...]:
        patience = RequestDeadline(self._settings.request_timeout_ms, self._rng)
        async with patience.kept():
            return tuple(await gather_bounded(self._view, map(ShardId, range(self.count)), at_once=SHARDS_AT_ONCE))

    async def fence(self, shard: ShardId) -> ShardView:
        by = f"operator/{self._rng.getrandbits(64):016x}"
        patience = RequestDeadline(self._settings.request_timeout_ms, self._rng)
        async with patience.kept():
            before = await self._store.read_shard(shard)
            while True:
                try:
                    await self._store.raise_epoch(shard, expected=before.epoch, owner=by)
                    break
                except ConditionFailed:
                    # Somebody has just taken it over, which is all that was wanted; or an earlier try of ours was applied.
                    break
                except StoreUnavailable as error:
                    await patience.pause(f"the shard could not be fenced in time: {error}")
            self._waker.wake(shard, NewlyDue(self._clock.now_ms()))
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
