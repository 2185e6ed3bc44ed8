"""An incarnation, as the process that runs it knows it: its item in the store, and the frontier that all its shards share.

    raise_frontier   one write for all shards: from then on rows up to it may be read for firing (docs/design.md, 5.2)
    claim_slot       before a slot's first init: its id is among those that a taker initialises
    recheck          R2: after every init of an own id. An init undoes the init of a taker; the flag, which the taker sets
                     before its init, is then what stops this incarnation (docs/protocol.md: x-no-recheck, x-fence-late)

The three raise `Fenced` once the item is fenced or absent, if they ask the store: the incarnation is over.
"""

import asyncio

from clockwork.clock import Clock, ClockTrust
from clockwork.domain.ownership import IncarnationId
from clockwork.errors import ClockUntrusted, Fenced
from clockwork.ports.store import ScheduleStore


class RunningIncarnation:
    """This process's present incarnation."""

    def __init__(
        self,
        incarnation: IncarnationId,
        store: ScheduleStore,
        clock: Clock,
        trust: ClockTrust,
        *,
        node: str,
        frontier_lead_ms: int,
    ) -> None:
        self.id = incarnation
        self.frontier_ms = 0
        """The stored frontier. Only this incarnation raises it."""
        self.frontier_sent_ms = 0
        """The highest frontier that was ever sent: it may be stored although no answer said so."""
        self.slots = 0
        """The number of slots that were ever claimed."""
        self.hints: dict[int, int] = {}
        """By slot, the offset of the last marker whose commit is known; stored with the next frontier."""
        self._store = store
        self._clock = clock
        self._trust = trust
        self._node = node
        self._lead_ms = frontier_lead_ms
        self._raising = asyncio.Lock()
        self._claiming = asyncio.Lock()

    async def start(self) -> None:
        """Puts its item, before anything else of it. Raises: ConditionFailed (the id is taken), StoreUnavailable."""
        await self._store.start_incarnation(self.id, node=self._node)

    async def cover_now(self) -> None:
        """Stores a frontier at or past now, if there is none; one lead ahead, so that a busy incarnation writes a few times
        a second.

        Raises: Fenced, ClockUntrusted, StoreUnavailable.
        """
        if self.frontier_ms < self._clock.now_ms():
            await self.raise_frontier()

    async def raise_frontier(self) -> None:
        """Stores a frontier one lead ahead of now, if it is not there yet. Shards that ask at the same time share the write.

        Raises: Fenced, ClockUntrusted, StoreUnavailable.
        """
        wanted_ms = self._clock.now_ms() + self._lead_ms
        async with self._raising:
            if self.frontier_ms >= wanted_ms:
                return
            if not self._trust.trusted():
                raise ClockUntrusted
            wanted_ms = self._clock.now_ms() + self._lead_ms
            self.frontier_sent_ms = max(self.frontier_sent_ms, wanted_ms)
            self.frontier_ms = await self._store.raise_frontier(self.id, frontier_ms=wanted_ms, hints=dict(self.hints))

    async def claim_slot(self, slot: int) -> None:
        """Stores that this slot's id will be initialised, for its takers. Raises: Fenced, StoreUnavailable."""
        async with self._claiming:
            if slot >= self.slots:
                await self._store.raise_slots(self.id, slots=slot + 1)
                self.slots = slot + 1

    async def recheck(self) -> None:
        """R2. Raises: Fenced, StoreUnavailable, Unreadable."""
        state = (await self._store.read_nodes([self.id])).get(self.id)
        if state is None or state.fenced_at_ms is not None:
            raise Fenced(f"incarnation {self.id} was fenced")

    async def end(self) -> None:
        """Fences the own item: the end of an orderly stop. Raises: StoreUnavailable, Unreadable."""
        await self._store.fence(self.id, at_ms=self._clock.now_ms())
