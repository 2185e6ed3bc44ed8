"""Cancel and reschedule: hold, look, decide; at any distance from the due time, and without asking any clock.

    1 pointer   strong read: shard and position
    2 hold      from now on an owner that reads the row sees that somebody wants it, and takes the hold off before it fires
    3 look      frontier < due time: no owner has read the row for firing without seeing step 2. After step 2, never before
    4 decide    one transaction, on condition that the hold is still there. Only this answers `cancelled` or `rescheduled`

A hold decides nothing: whoever dies after step 2 has changed nothing. Every try takes a new request id and repeats step
3, because a delayed copy of an older hold could otherwise put back what the owner has taken off, and step 4 would
believe it. A check of the frontier *inside* the transaction would not do: it is decided first and applied item by item,
and a Query in between still sees the row (protocol-model: x-check, x-far, x-hold-after, x-set-resched).
"""

import random
from enum import Enum, auto
from typing import Final

from clockwork.clock import Clock
from clockwork.config import IntakeSettings
from clockwork.domain.position import due_ms_of
from clockwork.domain.schedule import (
    BrokenRow,
    ClientId,
    EndState,
    Guarantee,
    Outcome,
    Pointer,
    RequestId,
    Retry,
    Row,
    ScheduleKey,
)
from clockwork.domain.wakeup import Wanted
from clockwork.engine.answers import Cancelled, NotFound, Reason, Refused, ScheduleView, Status
from clockwork.engine.patience import Patience
from clockwork.engine.reading import Reading, ended_view, pending_view
from clockwork.engine.tidy import outcome_expiry_s
from clockwork.engine.waker import Waker
from clockwork.errors import ConditionFailed, StoreUnavailable, TransactionConflict
from clockwork.ports import ScheduleStore

TRIES_MAX: Final = 3
"""How often a lost hold is taken again before the answer is `in_flight`."""
LONG_DUE_MS: Final = 1_000
"""Due for longer than this and still a row: its lane waits, so its owner is asked."""
WAITING_ROW_MS: Final = 2_000
"""For how long the owner of a waiting row is given time to answer."""


class _Verdict(Enum):
    """What one try of the steps 2 to 4 came to, if it did not decide."""

    LOST = auto()
    """The hold was taken off, or the row is gone: somebody else wrote it."""
    TOO_LATE = auto()
    """An owner may be firing it."""
    CONFLICT = auto()
    """The row is in another transaction: nothing is decided yet."""


class Canceller:
    """Cancels pending schedules. Implements `answers.Cancels`."""

    def __init__(
        self, store: ScheduleStore, waker: Waker, clock: Clock, rng: random.Random, settings: IntakeSettings
    ) -> None:
        self._store = store
        self._waker = waker
        self._clock = clock
        self._rng = rng
        self._settings = settings
        self._reading = Reading(store, clock, retention_ms=settings.retention_ms)

    async def cancel(self, client_id: ClientId, schedule_key: ScheduleKey) -> Cancelled | NotFound | Refused:
        """Cancels what is pending under the key.

        Raises: Unavailable: it may have been cancelled; the same request again settles it.
        """
        patience = Patience(self._settings.request_timeout_ms, self._rng)
        async with patience.kept():
            return await self._cancel(client_id, schedule_key, patience)

    async def _cancel(
        self, client_id: ClientId, schedule_key: ScheduleKey, patience: Patience
    ) -> Cancelled | NotFound | Refused:
        tried: Pointer | None = None
        while True:
            try:
                pointer = await self._store.read_pointer(client_id, schedule_key)
                if tried is not None and (pointer is None or pointer.position != tried.position):
                    # The key may have been used again after a try of ours whose answer was lost: that end is the answer.
                    # To go on would be to cancel two schedules with one request.
                    ended = await self._reading.outcome_at(tried)
                    if ended is not None and ended.state is not EndState.SUPERSEDED:
                        return _answer(ended_view(tried, ended))
                if pointer is None or await self._reading.forgotten(pointer):
                    return NotFound()
                tried = pointer
                view = await self._settle(pointer, patience)
            except StoreUnavailable as error:
                # Whatever was applied meanwhile, the next round reads: its outcome is the answer.
                await patience.pause(f"the schedule could not be cancelled in time: {error}")
                continue
            if view is not None:
                return _answer(view)

    async def _settle(self, pointer: Pointer, patience: Patience) -> ScheduleView | None:
        """Tries until the schedule at this position has an end, or nothing can be promised (a view that is still
        pending). None: it stands at another position now."""
        lost = 0
        asked_until_s: float | None = None
        row = await self._store.read_row(pointer.shard, pointer.position)
        while True:
            result = await self._hold_look_decide(pointer, row) if row is not None else _Verdict.LOST
            if isinstance(result, Outcome):
                return ended_view(pointer, result)
            # The row first, then the outcome: in the other order a row that ends in between would look lost.
            row = await self._store.read_row(pointer.shard, pointer.position)
            outcome = await self._reading.outcome_at(pointer)
            if outcome is not None:
                return None if outcome.state is EndState.SUPERSEDED else ended_view(pointer, outcome)
            if row is not None and result is _Verdict.LOST:
                lost += 1
                if lost >= TRIES_MAX:
                    return pending_view(pointer, row)
            if row is not None and result is _Verdict.TOO_LATE:
                asked_until_s = asked_until_s or patience.spent_s + WAITING_ROW_MS / 1_000
                if not self._lane_waits(pointer) or patience.spent_s >= asked_until_s:
                    return pending_view(pointer, row)
                self._waker.wake(pointer.shard, Wanted(pointer.position))
            # Neither row nor outcome: a transaction is being applied, item by item. Read again, never 404 (x-notfound).
            await patience.pause("the schedule is being changed by another request")

    async def _hold_look_decide(self, pointer: Pointer, row: Row | BrokenRow) -> Outcome | _Verdict:
        """Steps 2 to 4, once, with a request id of its own. `row` is only asked for what never changes in it."""
        hold = RequestId(f"{self._rng.getrandbits(128):032x}")
        try:
            retry = await self._store.hold(pointer.shard, pointer.position, hold)
            state = await self._store.read_shard(pointer.shard)
            if state.frontier_ms >= _free_until_ms(row, retry, epoch=state.epoch):
                return _Verdict.TOO_LATE
            outcome = self._cancelled(pointer, row)
            await self._store.cancel(pointer.shard, outcome, hold=hold)
        except ConditionFailed:
            return _Verdict.LOST
        except TransactionConflict:
            return _Verdict.CONFLICT
        return outcome

    def _lane_waits(self, pointer: Pointer) -> bool:
        return self._clock.now_ms() - due_ms_of(pointer.position) > LONG_DUE_MS

    def _cancelled(self, pointer: Pointer, row: Row | BrokenRow) -> Outcome:
        now_ms = self._clock.now_ms()
        return Outcome(
            client_id=pointer.client_id,
            schedule_key=pointer.schedule_key,
            position=pointer.position,
            state=EndState.CANCELLED,
            at_ms=now_ms,
            schedule=row.schedule if isinstance(row, Row) else None,
            expires_at_s=outcome_expiry_s(due_ms=row.due_ms, end_ms=now_ms, retention_ms=self._settings.retention_ms),
        )


def _free_until_ms(row: Row | BrokenRow, retry: Retry | None, *, epoch: int) -> int:
    """Before the frontier reaches this time, nobody can have read the row for firing.

    A `retry` is believed only from the present owner (x-retry-noepoch), and never for at_least_once, where a zombie may
    have sent the row already (x-alo-retry-cancel).
    """
    exactly_once = isinstance(row, Row) and row.schedule.guarantee is Guarantee.EXACTLY_ONCE
    if retry is not None and retry.epoch == epoch and exactly_once:
        return retry.at_ms
    return row.due_ms


def _answer(view: ScheduleView) -> Cancelled | Refused:
    match view.status:
        case Status.CANCELLED:
            return Cancelled(view)
        case Status.DELIVERED:
            return Refused(Reason.DELIVERED, view)
        case Status.FAILED:
            return Refused(Reason.FAILED, view)
        case Status.PENDING:
            return Refused(Reason.IN_FLIGHT, view)
