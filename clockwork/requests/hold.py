"""Hold, look, decide: the steps by which a request ends a pending row, at any distance from its due time, without a clock.

    1 pointer   strongly consistent read: shard and position
    2 hold      from now on an owner that reads the row sees that a request wants it, and takes the hold off before it fires
    3 look      frontier < due time: no owner has read the row for firing without seeing step 2. After step 2, never before
    4 decide    one transaction, on condition that the hold is still there. Only this answers `cancelled` or `200`

`cancel`, `reschedule` and the changes of jobs (`jobs.take`) take these steps in this order and differ in the transaction of
step 4. This module has steps 2 and 3, and the rule for a step that fails.

The frontier of step 3 is the greater of the shard's floor (up to there earlier owners may have read) and the frontier of its
owner's incarnation; each alone would lie (docs/protocol.md: x-look-floor). The shard's item says which incarnation that is,
and only when it is read after the hold (x-look-before). One round trip is mostly enough: the item of the owner that this
node saw last is read beside it. That is a guess, and counts only if the shard's item names the same incarnation
(x-look-remembered, s-look-checked). A change of owner between the two reads is harmless: an owner that comes after the
shard's item was read queries after the hold.

A hold decides nothing: a node that dies after step 2 has changed nothing. Every try takes a new request id and repeats
step 3, because a delayed copy of an older hold could otherwise put back what the owner has taken off, and step 4 would
believe it. A check of the frontier *inside* the transaction would not do: it is decided first and applied item by item,
and a Query in between still sees the row (docs/protocol.md: x-check, x-far, x-hold-after, x-set-resched).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from clockwork.domain.ownership import IncarnationId, NodeState, ShardState
from clockwork.domain.position import due_ms_of
from clockwork.domain.schedule import BrokenRow, Guarantee, Outcome, Pointer, RequestId, Row, RowName
from clockwork.domain.sharding import ShardId
from clockwork.domain.wakeup import Wanted
from clockwork.errors import ConditionFailed, Contested, Unavailable
from clockwork.requests import state
from clockwork.requests.context import RequestContext
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.state import Unseen

TRIES_MAX: Final = 3
"""Holds of one request that may be taken off by the owner before the answer is `in_flight`."""
LONG_DUE_MS: Final = 1_000
"""A row that is due for longer than this waits for its lane, so its owner is asked to answer the hold."""
WAITING_ROW_MS: Final = 2_000
"""Time for the owner of a waiting row to answer."""


class TooLate(Contested):
    """Step 3: an owner may be firing the row."""


@dataclass(frozen=True, slots=True)
class Held:
    """A row after step 3, ready for step 4."""

    row: Row | BrokenRow
    by: RequestId


async def hold_and_look(context: RequestContext, name: RowName) -> Held:
    """Steps 2 and 3, with a request id that was never used.

    Raises: ConditionFailed (the row is gone), TransactionConflict, TooLate, Unavailable, Unreadable.
    """
    by = RequestId(f"{context.rng.getrandbits(128):032x}")
    row = await context.store.hold(name, by)
    shard, owner = await _shard_and_owner(context, name.shard)
    frontier_ms = shard.floor_ms if owner is None else max(shard.floor_ms, owner.frontier_ms)
    if frontier_ms >= _free_until_ms(row, epoch=shard.epoch):
        raise TooLate
    return Held(row, by)


class HoldAttempts:
    """The tries of one request at the row of one position."""

    def __init__(self, context: RequestContext, pointer: Pointer, deadline: RequestDeadline) -> None:
        self._context = context
        self._pointer = pointer
        self._deadline = deadline
        self._lost_holds = 0
        self._owner_asked_until_s: float | None = None

    async def hold_and_look(self) -> Held:
        """Steps 2 and 3. Raises: as `hold_and_look` of the module."""
        return await hold_and_look(self._context, self._pointer.row_name)

    async def end_row(self, decide: Callable[[Held], Awaitable[Outcome]]) -> Outcome | Row | BrokenRow | Unseen:
        """Tries the steps until the schedule at this position has an outcome, by this request or another writer, or is in
        flight. Returns: the outcome; the row, if in flight; `Unseen`, if there is neither.

        `decide`: step 4. Raises: as step 4, but for Contested, after which the steps are tried again; Unavailable.
        """
        while True:
            try:
                return await decide(await self.hold_and_look())
            except Contested as failed:
                end = await self._end_or_back_off(failed)
                if end is not None:
                    return end

    async def _end_or_back_off(self, failed: Contested) -> Outcome | Row | BrokenRow | Unseen | None:
        """The result of `end_row` after a step that failed; or None, after a back-off, if the steps are to be tried again.
        A row is returned where nothing can be promised (`in_flight`).

        Raises: StoreUnavailable, Unavailable (the deadline has passed).
        """
        found = await state.row_or_end(self._context, self._pointer)
        if not isinstance(found, Row | BrokenRow) or self._in_flight(failed):
            return found
        await self._deadline.pause(state.BEING_CHANGED)
        return None

    def _in_flight(self, failed: Contested) -> bool:
        if isinstance(failed, ConditionFailed):
            self._lost_holds += 1
            return self._lost_holds >= TRIES_MAX
        if isinstance(failed, TooLate):
            spent_s = self._deadline.spent_s
            self._owner_asked_until_s = self._owner_asked_until_s or spent_s + WAITING_ROW_MS / 1_000
            if not self._lane_waits() or spent_s >= self._owner_asked_until_s:
                return True
            self._context.waker.wake(self._pointer.shard, Wanted(self._pointer.position))
        return False

    def _lane_waits(self) -> bool:
        return self._context.clock.now_ms() - due_ms_of(self._pointer.position) > LONG_DUE_MS


async def _shard_and_owner(context: RequestContext, shard: ShardId) -> tuple[ShardState, NodeState | None]:
    """Reads the shard's item, and the item of the incarnation that it names; None: the shard has no owner.

    Raises: StoreUnavailable, Unavailable (the owner has no item), Unreadable.
    """
    without_item: IncarnationId | None = None
    while True:
        guess = context.last_owners.get(shard)
        found, node = await context.store.read_shard_and_node(shard, guess)
        owner = found.owner
        if owner is None:
            return found, None
        context.last_owners[shard] = owner
        if owner != guess:
            node = (await context.store.read_nodes([owner])).get(owner)
        if node is not None:
            return found, node
        if owner == without_item:
            # An owner's item is never deleted: this is a fault, and no zero (docs/protocol.md: x-absent-zero, x-ttl).
            raise Unavailable(f"the owner of shard {shard}, incarnation {owner}, has no item")
        # It may have lost the shard, and been swept, between the two reads.
        without_item = owner


def _free_until_ms(row: Row | BrokenRow, *, epoch: int) -> int:
    """The time up to which the row is free: as long as the frontier is below it, the row cannot have been read for
    firing since it was held.

    A `retry` is believed only from the present owner (x-retry-noepoch, x-any-epoch), and never for at_least_once, where a
    zombie may have sent the row already (x-alo-retry-cancel).
    """
    if (
        isinstance(row, Row)
        and row.retry is not None
        and row.retry.epoch == epoch
        and row.schedule.guarantee is Guarantee.EXACTLY_ONCE
    ):
        return row.retry.at_ms
    # Also for a row that cannot be read: the due time is never later than any `retry.at`.
    return row.due_ms
