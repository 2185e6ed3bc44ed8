"""Shards for operators: the owner and the lag of each, and `fence`, which ends an owner that seems stuck.

`fence` sets the flag of the incarnation that owns a shard: the first step of a take-over (T2a in docs/design.md, 5)
without the others. It is safe at any moment, because it equals a taker that dies just after that step. From then on the
incarnation's frontier stands still. Its next frontier write is refused, as is its next check after an init (R2), and it
gives up. Its process begins the next incarnation, which takes the shards over; or the process does to which the consumer
group assigns them by then. A transaction that the fenced incarnation has begun is committed and named in its marker, or
not at all, and the take-over finds out which. Rows up to its stored frontier cannot be cancelled, before or after.

The fence is the incarnation's, so *all* its shards change hands, not the named one alone. Each of them pauses for the time
of a take-over. The same call again fences the next owner.

It moves no shard to another node: the consumer group assigns them. To move the shards of a node, stop that node.
"""

import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from clockwork.clock import Clock
from clockwork.concurrency import gather_bounded
from clockwork.domain.destination import Topic
from clockwork.domain.ownership import IncarnationId, NodeState, ShardState
from clockwork.domain.pauses import NOTHING_PAUSED, Pauses
from clockwork.domain.schedule import BrokenRow, Row
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import NewlyDue
from clockwork.errors import StoreUnavailable, Unreadable
from clockwork.ports.operations import PauseStore
from clockwork.ports.ownership import Waker
from clockwork.ports.store import ScheduleSearch, ScheduleStore
from clockwork.requests.deadline import RequestDeadline
from clockwork.settings.model import IntakeSettings

log = logging.getLogger(__name__)

READS_AT_ONCE_MIN: Final = 2
SHARDS_A_READER: Final = 64
"""The list of shards reads side by side no more than it needs to end within some hundred milliseconds. Sixteen reads at once
made deliveries of that moment later: p99 beside 20 open overviews was 1.4 times that without them (DynamoDB Local, 64
shards), with two reads at once 1.0 times (`make bench SCENARIO=overviews`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardView:
    """One shard, its parts read at different moments."""

    shard: ShardId
    state: ShardState | None
    """None: its item is lost or cannot be read."""
    owner: NodeState | None
    """The item of the incarnation that owns it. None: it has no owner, or that one's item is lost or cannot be read."""
    oldest_due_ms: int | None
    """Due time of the row at the lowest position, which may await cleanup; None: there is no row."""
    lag_ms: int
    """Time since then; 0 if it is not due."""
    oldest_paused: bool = False
    """True: that row is due and held back by a pause, so its lag is no fault of the owner's. The rows behind it are not
    looked at."""
    topic: Topic | None = None
    """The topic of that row; None: there is no such row, or it cannot be read."""
    problem: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FencedOwner:
    """An incarnation that is fenced, and the shards that it owned."""

    owner: NodeState
    shards: tuple[ShardId, ...]
    """All shards whose items named it, just before or just after: they change hands."""


@dataclass(frozen=True, slots=True)
class NoOwner:
    """The shard has no owner, so nothing was fenced."""

    shard: ShardId


class _FirstRow(NamedTuple):
    """The row at a shard's lowest position, and its age."""

    row: Row | BrokenRow | None
    lag_ms: int


class ShardAdmin:
    """Shows shards, and fences their owners."""

    def __init__(
        self,
        store: ScheduleStore,
        search: ScheduleSearch,
        pauses: PauseStore,
        waker: Waker,
        clock: Clock,
        rng: random.Random,
        settings: IntakeSettings,
    ) -> None:
        self._store = store
        self._search = search
        self._pauses = pauses
        self._waker = waker
        self._clock = clock
        self._rng = rng
        self._settings = settings

    @property
    def count(self) -> int:
        """The number of shards."""
        return self._settings.shards

    @property
    def _reads_at_once(self) -> int:
        return max(READS_AT_ONCE_MIN, self.count // SHARDS_A_READER)

    async def shards(self) -> tuple[ShardView, ...]:
        """All shards. Raises: Unavailable."""
        deadline = RequestDeadline(self._settings.request_timeout_ms, self._rng)
        async with deadline.enforced():
            states = await self._states()
            incarnations = sorted({state.owner for state in states.values() if state.owner is not None})
            nodes = await gather_bounded(self._node, incarnations, at_once=self._reads_at_once)
            first_rows = await gather_bounded(self._first_row, self._all(), at_once=self._reads_at_once)
            # Only shards that are late need a reason: a cluster that keeps up has no pauses read for it.
            pauses = await self._present_pauses() if any(each.lag_ms for each in first_rows) else NOTHING_PAUSED
            view = partial(self._view, states, dict(zip(incarnations, nodes, strict=True)), pauses)
            return tuple(map(view, self._all(), first_rows))

    async def fence(self, shard: ShardId) -> FencedOwner | NoOwner:
        """Fences the incarnation that owns the shard. Raises: Unavailable (it may have been done), Unreadable."""
        deadline = RequestDeadline(self._settings.request_timeout_ms, self._rng)
        async with deadline.enforced():
            before = await self._states()
            state = before.get(shard)
            if state is None:
                raise Unreadable(f"the item of shard {shard} is lost or cannot be read")
            if state.owner is None:
                return NoOwner(shard)
            owner = await self._set_flag(state.owner, deadline)
            # The shards are read again: the incarnation may have taken shards until it was fenced, and others may have
            # taken some from it since.
            after = await self._states()
            shards = tuple(
                each
                for each in self._all()
                if any(each in states and states[each].owner == owner.incarnation for states in (before, after))
            )
            # The wake-up names a time past the stored frontier: up to there the incarnation writes no frontier that
            # could be refused.
            due_ms = max(self._clock.now_ms(), owner.frontier_ms + 1)
            for each in shards:
                self._waker.wake(each, NewlyDue(due_ms))
            extra = {"event": "incarnation.fenced_by_operator", "incarnation": owner.incarnation, "shards": len(shards)}
            log.warning("An operator fenced an incarnation", extra=extra)
            return FencedOwner(owner=owner, shards=shards)

    def _all(self) -> list[ShardId]:
        return [ShardId(number) for number in range(self.count)]

    async def _states(self) -> Mapping[ShardId, ShardState]:
        return await self._store.read_shards(self._all())

    async def _set_flag(self, incarnation: IncarnationId, deadline: RequestDeadline) -> NodeState:
        while True:
            try:
                return await self._store.fence(incarnation, at_ms=self._clock.now_ms())
            except StoreUnavailable as error:
                await deadline.pause(f"the owner could not be fenced in time: {error}")

    async def _node(self, incarnation: IncarnationId) -> NodeState | str:
        """The item of an owner, or the reason why there is none to show. Each is read alone, so that one that cannot be read
        does not hide the others."""
        try:
            node = (await self._store.read_nodes([incarnation])).get(incarnation)
        except Unreadable as error:
            return str(error)
        return f"its owner, incarnation {incarnation}, has no item" if node is None else node

    async def _first_row(self, shard: ShardId) -> "_FirstRow":
        page = await self._search.peek_rows(shard, after=None, rows_max=1)
        if not page.rows:
            return _FirstRow(None, 0)
        return _FirstRow(page.rows[0], max(0, self._clock.now_ms() - page.rows[0].due_ms))

    async def _present_pauses(self) -> Pauses:
        try:
            return await self._pauses.read_pauses()
        except Unreadable:
            return NOTHING_PAUSED  # the shards are shown all the same; a call about pauses says what is wrong

    def _view(
        self,
        states: Mapping[ShardId, ShardState],
        nodes: Mapping[IncarnationId, NodeState | str],
        pauses: Pauses,
        shard: ShardId,
        first_row: "_FirstRow",
    ) -> ShardView:
        row, lag_ms = first_row
        state = states.get(shard)
        node = nodes[state.owner] if state is not None and state.owner is not None else None
        problem = node if isinstance(node, str) else None
        if state is None:
            problem = "its item is lost or cannot be read: no node works on it"
        return ShardView(
            shard=shard,
            state=state,
            owner=node if isinstance(node, NodeState) else None,
            oldest_due_ms=None if row is None else row.due_ms,
            lag_ms=lag_ms,
            topic=_topic_of(row),
            oldest_paused=row is not None and lag_ms > 0 and pauses.applies_to(row),
            problem=problem,
        )


def _topic_of(row: Row | BrokenRow | None) -> Topic | None:
    if isinstance(row, Row):
        return row.schedule.topic
    return None if row is None or row.lane is None else Topic(row.lane[0])
