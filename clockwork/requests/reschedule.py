"""Reschedule: the ending of `hold` in which the row goes and another one comes, with a new position, in one transaction.

    Delete row p IF hold = r  +  Put outcome `superseded` of p  +  Put row p'  +  Put pointer (p', version + 1) IF version

The row never moves and its position is never used again: what an owner has read at p it must not find at p'. The new row
may belong to another shard, because the ordering key may have changed; it is accepted at this moment, as a create is, so
the clock must be trusted. "Fire now" is a reschedule to now. The digest stays that of the create: a late repeat of the
create is still recognised, and brings nothing back.

**A lost answer, within one request.** The transaction was sent and nobody knows. The next round does not guess: the
outcome of p says where its schedule stands since (`moved_to`). If that is the position of our own row, it was us, and
the answer is `200`, whatever happened to the schedule after that; if it is another one, ours can never be applied any
more, and the change is made to what stands there now. So one request changes a schedule at most once.

**A lost answer, seen by the client.** The same request again settles it, because it says what should be, not what to do:

    it is so already                  `200` with what is there; nothing is written, the version stays
    somebody changed it since         it is applied to what is there now, as if it came for the first time
    it has ended meanwhile            `409`, which shows how; the time and the version tell whether it ended as changed
    with `If-Match` of version v      `200` if the present version is v + 1 and all is as it was asked for: the change
                                      was made, and by all evidence by this request (RFC 9110, 13.1.1 allows it); any
                                      other version is `412`
"""

import random
from dataclasses import dataclass, replace

from clockwork.clock import Clock, ClockTrust
from clockwork.domain.position import due_ms_of
from clockwork.domain.schedule import (
    BrokenRow,
    ClientId,
    EndState,
    Outcome,
    Pointer,
    RequestId,
    Row,
    Schedule,
    ScheduleKey,
    outcome_expiry_s,
)
from clockwork.errors import ClockUntrusted, StoreUnavailable, Unreadable
from clockwork.ports.delivery import Publisher
from clockwork.ports.store import ScheduleStore
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.dedup import CommandDedup
from clockwork.requests.hold import Holding
from clockwork.requests.placing import Placing, topic_missing
from clockwork.requests.results import (
    Change,
    Changed,
    IfVersion,
    NotFound,
    Reason,
    Refused,
    Unchanged,
    VersionDiffers,
)
from clockwork.requests.state import Reading, ended_view, pending_view, refused
from clockwork.requests.waker import Waker
from clockwork.settings.model import IntakeSettings

Answer = Changed | Unchanged | VersionDiffers | NotFound | Refused


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wish:
    """What one request wants."""

    change: Change
    if_version: IfVersion | None
    turn: CommandDedup | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Move:
    """From one position to another; the same for every try, so that it is made once."""

    old: Pointer
    new: Pointer
    row: Row


class Rescheduler:
    """Changes pending schedules. Implements `answers.Reschedules`."""

    def __init__(
        self,
        store: ScheduleStore,
        publisher: Publisher,
        waker: Waker,
        clock: Clock,
        trust: ClockTrust,
        rng: random.Random,
        settings: IntakeSettings,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._clock = clock
        self._trust = trust
        self._rng = rng
        self._settings = settings
        self._reading = Reading(store, clock, retention_ms=settings.retention_ms)
        self._holding = Holding(store, self._reading, waker, clock, rng)
        self._placing = Placing(waker, clock, rng, settings)

    async def change(
        self,
        client_id: ClientId,
        schedule_key: ScheduleKey,
        change: Change,
        *,
        if_version: IfVersion | None = None,
        turn: CommandDedup | None = None,
    ) -> Answer:
        """Makes of the pending schedule what `change` makes of it.

        Raises: InvalidInput, CommandAlreadyProcessed, Unavailable (it may have been changed; the same request again settles
        it).
        """
        wish = _Wish(change=change, if_version=if_version, turn=turn)
        patience = RequestDeadline(self._settings.request_timeout_ms, self._rng)
        async with patience.kept():
            return await self._change(client_id, schedule_key, wish, patience)

    async def fire(
        self, client_id: ClientId, schedule_key: ScheduleKey, *, if_version: IfVersion | None = None
    ) -> Answer:
        """Makes the pending schedule due now; what is due already stays as it is.

        Raises: Unavailable: it may have been done; the same request again settles it.
        """
        now_ms = self._clock.now_ms()

        def due_now(schedule: Schedule) -> Schedule:
            return replace(schedule, due_ms=min(schedule.due_ms, now_ms))

        return await self.change(client_id, schedule_key, due_now, if_version=if_version)

    async def _change(
        self, client_id: ClientId, schedule_key: ScheduleKey, wish: _Wish, patience: RequestDeadline
    ) -> Answer:
        move: _Move | None = None
        while True:
            try:
                pointer = await self._store.read_pointer(client_id, schedule_key)
                if move is not None and (pointer is None or pointer.position != move.old.position):
                    # Since our last try, whose answer may have been lost.
                    answer = self._answer(move.old, move, await self._end_of(move.old, patience), wish)
                    if answer is not None:
                        return answer
                    move = None
                if pointer is None or await self._reading.forgotten(pointer):
                    return NotFound()
                present = await self._present(pointer, patience)
                if not isinstance(present, Outcome):
                    step = await self._prepare(pointer, present, wish, move)
                    if not isinstance(step, _Move):
                        return step
                    move = step
                    present = await self._settle(move, wish, patience)
                answer = self._answer(pointer, move, present, wish)
                if answer is not None:
                    return answer
                why = "the schedule is being changed by other requests"
            except StoreUnavailable as error:
                # Whatever was applied meanwhile, the next round reads.
                why = f"the schedule could not be changed in time: {error}"
            await patience.pause(why)

    async def _present(self, pointer: Pointer, patience: RequestDeadline) -> Row | BrokenRow | Outcome:
        """How the schedule at this position ended; its row, if it has not."""
        while True:
            # The row first, then the outcome: in the other order a row that ends in between would look lost.
            row = await self._store.read_row(pointer.shard, pointer.position)
            end = await self._reading.outcome_at(pointer)
            if end is not None:
                return end
            if row is not None:
                return row
            await patience.pause("the schedule is being changed by another request")

    async def _end_of(self, pointer: Pointer, patience: RequestDeadline) -> Outcome:
        """The outcome of a position that the key's pointer has left: there is one, as soon as it is applied."""
        while (end := await self._reading.outcome_at(pointer)) is None:
            await patience.pause("the schedule is being changed by another request")
        return end

    async def _prepare(
        self, pointer: Pointer, row: Row | BrokenRow, wish: _Wish, move: _Move | None
    ) -> _Move | Unchanged | VersionDiffers:
        """What is to be done with this row; or why nothing is."""
        if isinstance(row, BrokenRow):
            raise Unreadable(row.reason)
        wanted = wish.change(row.schedule)
        unchanged = wanted == row.schedule
        if wish.if_version is not None and pointer.version not in wish.if_version:
            # Seen as the work of this same request only if nobody else can have come in between.
            done_before = unchanged and pointer.version - 1 in wish.if_version
            if not done_before:
                return VersionDiffers(pending_view(pointer, row))
        if unchanged:
            return Unchanged(pending_view(pointer, row))
        if not self._trust.trusted():
            raise ClockUntrusted
        if move is not None:
            return move
        if wanted.topic != row.schedule.topic and not await self._publisher.topic_exists(wanted.topic):
            raise topic_missing(wanted.topic)
        return self._move(pointer, row.schedule, wanted)

    def _move(self, pointer: Pointer, present: Schedule, wanted: Schedule) -> _Move:
        moved_in_time = wanted.due_ms != present.due_ms
        row = self._placing.row(
            replace(
                wanted,
                version=pointer.version + 1,
                delivery_id=self._placing.delivery_id() if moved_in_time else present.delivery_id,
            )
        )
        new = replace(
            pointer,
            shard=row.shard,
            position=row.position,
            version=row.schedule.version,
            expires_at_s=self._placing.pointer_expires_at_s(row),
        )
        return _Move(old=pointer, new=new, row=row)

    async def _settle(self, move: _Move, wish: _Wish, patience: RequestDeadline) -> Row | BrokenRow | Outcome:
        async def decide(_: Row | BrokenRow, hold: RequestId) -> Outcome:
            outcome = self._superseded(move)
            if wish.turn is not None:
                await wish.turn.look()
            await self._store.reschedule(
                move.old.shard,
                outcome,
                hold=hold,
                row=move.row,
                pointer=move.new,
                replaces_version=move.old.version,
                note=wish.turn.change(expires_at_s=move.new.expires_at_s) if wish.turn is not None else None,
            )
            return outcome

        return await self._holding.settle(move.old, decide, patience)

    def _superseded(self, move: _Move) -> Outcome:
        now_ms = self._clock.now_ms()
        old = move.old
        return Outcome(
            client_id=old.client_id,
            schedule_key=old.schedule_key,
            position=old.position,
            state=EndState.SUPERSEDED,
            at_ms=now_ms,
            schedule=None,
            moved_to=move.new.position,
            expires_at_s=outcome_expiry_s(
                due_ms=due_ms_of(old.position), end_ms=now_ms, retention_ms=self._settings.retention_ms
            ),
        )

    def _answer(
        self, pointer: Pointer, move: _Move | None, present: Row | BrokenRow | Outcome, wish: _Wish
    ) -> Changed | Refused | None:
        """None: somebody else moved it, so it is to be looked for where it stands now."""
        if not isinstance(present, Outcome):
            return Refused(Reason.IN_FLIGHT, pending_view(pointer, present))
        if present.state is not EndState.SUPERSEDED:
            return refused(ended_view(pointer, present))
        if move is None or present.moved_to != move.new.position:
            return None
        if wish.turn is not None:
            wish.turn.had_effect = True
        self._placing.announce(move.row)
        return Changed(pending_view(move.new, move.row))
