"""Cancel: the ending of `hold` in which the row goes, and its outcome says `cancelled`."""

import random

from clockwork.clock import Clock
from clockwork.domain.schedule import (
    BrokenRow,
    ClientId,
    EndState,
    Outcome,
    Pointer,
    RequestId,
    Row,
    ScheduleKey,
    outcome_expiry_s,
)
from clockwork.errors import StoreUnavailable
from clockwork.ports.store import ScheduleStore
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.dedup import CommandDedup
from clockwork.requests.hold import Holding
from clockwork.requests.results import Cancelled, NotFound, Reason, Refused, Status
from clockwork.requests.state import Reading, ended_view, pending_view, refused
from clockwork.requests.waker import Waker
from clockwork.settings.model import IntakeSettings


class Canceller:
    """Cancels pending schedules. Implements `answers.Cancels`."""

    def __init__(
        self, store: ScheduleStore, waker: Waker, clock: Clock, rng: random.Random, settings: IntakeSettings
    ) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self._settings = settings
        self._reading = Reading(store, clock, retention_ms=settings.retention_ms)
        self._holding = Holding(store, self._reading, waker, clock, rng)

    async def cancel(
        self, client_id: ClientId, schedule_key: ScheduleKey, *, turn: CommandDedup | None = None
    ) -> Cancelled | NotFound | Refused:
        """Cancels what is pending under the key.

        Raises: Unavailable: it may have been cancelled; the same request again settles it. CommandAlreadyProcessed.
        """
        patience = RequestDeadline(self._settings.request_timeout_ms, self._rng)
        async with patience.kept():
            return await self._cancel(client_id, schedule_key, patience, turn)

    async def _cancel(
        self, client_id: ClientId, schedule_key: ScheduleKey, patience: RequestDeadline, turn: CommandDedup | None
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
                        return _answer(tried, ended)
                if pointer is None or await self._reading.forgotten(pointer):
                    return NotFound()
                tried = pointer
                end = await self._settle(pointer, patience, turn)
            except StoreUnavailable as error:
                # Whatever was applied meanwhile, the next round reads: its outcome is the answer.
                await patience.pause(f"the schedule could not be cancelled in time: {error}")
                continue
            if isinstance(end, Row | BrokenRow):
                return Refused(Reason.IN_FLIGHT, pending_view(pointer, end))
            if end.state is not EndState.SUPERSEDED:
                if turn is not None and not turn.had_effect:
                    await turn.recognise()
                return _answer(pointer, end)

    async def _settle(
        self, pointer: Pointer, patience: RequestDeadline, turn: CommandDedup | None
    ) -> Outcome | Row | BrokenRow:
        async def decide(row: Row | BrokenRow, hold: RequestId) -> Outcome:
            outcome = self._cancelled(pointer, row)
            if turn is not None:
                await turn.look()
            note = turn.change(expires_at_s=outcome.expires_at_s) if turn is not None else None
            await self._store.cancel(pointer.shard, outcome, hold=hold, note=note)
            if turn is not None:
                turn.had_effect = True
            return outcome

        return await self._holding.settle(pointer, decide, patience)

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


def _answer(pointer: Pointer, end: Outcome) -> Cancelled | Refused:
    view = ended_view(pointer, end)
    return Cancelled(view) if view.status is Status.CANCELLED else refused(view)
