"""Hold, look, decide: how a request ends a pending row, at any distance from its due time and without asking any clock.

A cancel and a reschedule are one story with two endings; the ending is the transaction of step 4.

    1 pointer   strong read: shard and position
    2 hold      from now on an owner that reads the row sees that somebody wants it, and takes the hold off before it fires
    3 look      frontier < due time: no owner has read the row for firing without seeing step 2. After step 2, never before
    4 decide    one transaction, on condition that the hold is still there. Only this answers `cancelled` or `200`

A hold decides nothing: whoever dies after step 2 has changed nothing. Every try takes a new request id and repeats step
3, because a delayed copy of an older hold could otherwise put back what the owner has taken off, and step 4 would
believe it. A check of the frontier *inside* the transaction would not do: it is decided first and applied item by item,
and a Query in between still sees the row (docs/protocol.md: x-check, x-far, x-hold-after, x-set-resched).
"""

import random
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import Final

from clockwork.clock import Clock
from clockwork.domain.position import due_ms_of
from clockwork.domain.schedule import BrokenRow, Guarantee, Outcome, Pointer, RequestId, Row
from clockwork.domain.wakeup import Wanted
from clockwork.errors import ConditionFailed, TransactionConflict
from clockwork.ports.store import ScheduleStore
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.state import Reading
from clockwork.requests.waker import Waker

TRIES_MAX: Final = 3
"""How often a lost hold is taken again before the answer is `in_flight`."""
LONG_DUE_MS: Final = 1_000
"""Due for longer than this and still a row: its lane waits, so its owner is asked."""
WAITING_ROW_MS: Final = 2_000
"""For how long the owner of a waiting row is given time to answer."""

Decide = Callable[[Row | BrokenRow, RequestId], Awaitable[Outcome]]
"""Step 4: one transaction that deletes the row on condition of this hold. Returns the outcome that it wrote. Raises:
ConditionFailed, TransactionConflict (nothing was written), StoreUnavailable."""


class _Verdict(Enum):
    """What one try of the steps 2 to 4 came to, if it did not decide."""

    LOST = auto()
    """The hold was taken off, or the row is gone: somebody else wrote it."""
    TOO_LATE = auto()
    """An owner may be firing it."""
    CONFLICT = auto()
    """The row is in another transaction: nothing is decided yet."""


class Holding:
    """Steps 2 to 4, for whatever a request wants."""

    def __init__(self, store: ScheduleStore, reading: Reading, waker: Waker, clock: Clock, rng: random.Random) -> None:
        self._store = store
        self._reading = reading
        self._waker = waker
        self._clock = clock
        self._rng = rng

    async def settle(self, pointer: Pointer, decide: Decide, patience: RequestDeadline) -> Outcome | Row | BrokenRow:
        """Tries until the schedule at this position has an outcome, by `decide` or by somebody else; or, where nothing
        can be promised (`in_flight`), returns its row.

        Raises: StoreUnavailable (`decide` may have happened), Unavailable (the patience is at its end).
        """
        lost = 0
        asked_until_s: float | None = None
        while True:
            result = await self._hold_look_decide(pointer, decide)
            if isinstance(result, Outcome):
                return result
            # The row first, then the outcome: in the other order a row that ends in between would look lost.
            row = await self._store.read_row(pointer.row_name)
            outcome = await self._reading.outcome_at(pointer)
            if outcome is not None:
                return outcome
            if row is not None and result is _Verdict.LOST:
                lost += 1
                if lost >= TRIES_MAX:
                    return row
            if row is not None and result is _Verdict.TOO_LATE:
                asked_until_s = asked_until_s or patience.spent_s + WAITING_ROW_MS / 1_000
                if not self._lane_waits(pointer) or patience.spent_s >= asked_until_s:
                    return row
                self._waker.wake(pointer.shard, Wanted(pointer.position))
            # Neither row nor outcome: a transaction is being applied, item by item. Read again, never 404 (x-notfound).
            await patience.pause("the schedule is being changed by another request")

    async def _hold_look_decide(self, pointer: Pointer, decide: Decide) -> Outcome | _Verdict:
        """Steps 2 to 4, once, with a request id of its own."""
        hold = RequestId(f"{self._rng.getrandbits(128):032x}")
        try:
            row = await self._store.hold(pointer.row_name, hold)
            state = await self._store.read_shard(pointer.shard)
            if state.frontier_ms >= _free_until_ms(row, epoch=state.epoch):
                return _Verdict.TOO_LATE
            return await decide(row, hold)
        except ConditionFailed:
            return _Verdict.LOST
        except TransactionConflict:
            return _Verdict.CONFLICT

    def _lane_waits(self, pointer: Pointer) -> bool:
        return self._clock.now_ms() - due_ms_of(pointer.position) > LONG_DUE_MS


def _free_until_ms(row: Row | BrokenRow, *, epoch: int) -> int:
    """Before the frontier reaches this time, nobody can have read this row, just held, for firing.

    A `retry` is believed only from the present owner (x-retry-noepoch), and never for at_least_once, where a zombie may
    have sent the row already (x-alo-retry-cancel).
    """
    if (
        isinstance(row, Row)
        and row.retry is not None
        and row.retry.epoch == epoch
        and row.schedule.guarantee is Guarantee.EXACTLY_ONCE
    ):
        return row.retry.at_ms
    # Of a row that cannot be read as well: the due time is never later than any `retry.at`.
    return row.due_ms
