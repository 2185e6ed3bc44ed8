"""Accepting a schedule: one transaction puts the pointer and the row, or neither.

`201` only after that transaction; a repeat of the same create is recognised by its digest, which stays with the pointer
through every reschedule and after the end. A key whose schedule has ended is taken over: on condition of the very pointer
whose outcome was read, strongly, so that two takers cannot both win.
"""

import random

from clockwork.clock import Clock, ClockTrust
from clockwork.domain.schedule import ClientId, Pointer, Row, Schedule, ScheduleKey
from clockwork.errors import (
    ClockUntrusted,
    ConditionFailed,
    InvalidInput,
    StoreUnavailable,
    TransactionConflict,
    Unavailable,
)
from clockwork.ports.delivery import Publisher
from clockwork.ports.store import ScheduleStore
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.dedup import CommandDedup
from clockwork.requests.placing import Placing, topic_missing
from clockwork.requests.results import Created, KeyTaken, NewSchedule, Repeated, ScheduleView, Status
from clockwork.requests.state import Reading, pending_view
from clockwork.requests.waker import Waker
from clockwork.settings.model import IntakeSettings


class Intake:
    """Takes schedules and finds them again. Implements `answers.Accepts`."""

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
        self._placing = Placing(waker, clock, rng, settings)

    async def find(self, client_id: ClientId, schedule_key: ScheduleKey) -> ScheduleView | None:
        """The present state of a key. Raises: Unavailable."""
        patience = self._patience()
        async with patience.kept():
            return await self._reading.view(client_id, schedule_key, patience)

    async def create(self, new: NewSchedule, *, turn: CommandDedup | None = None) -> Created | Repeated | KeyTaken:
        """Accepts a schedule.

        Raises: InvalidInput (its topic does not exist), Unavailable (it may have been accepted: the same request again
        settles it), CommandAlreadyProcessed.
        """
        patience = self._patience()
        async with patience.kept():
            return await self._create(new, patience, turn)

    async def known(self, new: NewSchedule, *, turn: CommandDedup | None = None) -> Repeated | KeyTaken | None:
        """See `Accepts`."""
        patience = self._patience()
        async with patience.kept():
            return await self._known(new, patience, turn)

    async def _create(
        self, new: NewSchedule, patience: RequestDeadline, turn: CommandDedup | None
    ) -> Created | Repeated | KeyTaken:
        try:
            await self._check_topic(new)
            self._check_clock()
        except (InvalidInput, Unavailable):
            # What was accepted before stays accepted, whatever has become of its topic, of Kafka, or of our clock.
            known = await self._known(new, patience, turn)
            if not isinstance(known, Repeated):
                raise
            return known
        if turn is not None:
            await turn.look()
        row = self._row(new, version=1)
        replaces: int | None = None
        while True:
            pointer = self._pointer(new, row)
            note = turn.change(expires_at_s=pointer.expires_at_s) if turn is not None else None
            try:
                await self._store.create(row, pointer, replaces_version=replaces, note=note)
            except ConditionFailed:
                found = await self._who_is_there(new, row, patience, turn)
                if not isinstance(found, Pointer | None):
                    return found
                if turn is not None:
                    await turn.look()
                self._check_clock()
                replaces = found.version if found is not None else None
                row = self._row(new, version=(replaces or 0) + 1)
            except (TransactionConflict, StoreUnavailable) as error:
                # The same row again, at the same position: if the first try was applied after all, this is that create.
                await patience.pause(f"the schedule could not be stored in time: {error}")
                self._check_clock()
            else:
                return self._accepted(pending_view(pointer, row), row, turn)

    def _accepted(self, view: ScheduleView, row: Row, turn: CommandDedup | None) -> Created:
        if turn is not None:
            turn.had_effect = True
        self._placing.announce(row)
        return Created(view)

    async def _who_is_there(
        self, new: NewSchedule, mine: Row | None, patience: RequestDeadline, turn: CommandDedup | None
    ) -> Created | Repeated | KeyTaken | Pointer | None:
        """A pointer was under the key: the answer; or what may be taken over, None if it has gone meanwhile."""
        while True:
            pointer = await self._store.read_pointer(new.client_id, new.schedule_key)
            if pointer is None or await self._reading.forgotten(pointer):
                return pointer
            view = await self._reading.view_at(pointer)
            if view is not None:
                if mine is not None and pointer.position == mine.position:
                    return self._accepted(view, mine, turn)  # our own, written by a try whose answer was lost
                if pointer.digest == new.digest:
                    return Repeated(view)
                return KeyTaken(view) if view.status is Status.PENDING else pointer
            await patience.pause("the key is being changed by another request")

    async def _known(
        self, new: NewSchedule, patience: RequestDeadline, turn: CommandDedup | None
    ) -> Repeated | KeyTaken | None:
        if turn is not None:
            await turn.look()
        found = await self._who_is_there(new, None, patience, turn)
        return found if isinstance(found, Repeated | KeyTaken) else None

    async def _check_topic(self, new: NewSchedule) -> None:
        if not await self._publisher.topic_exists(new.topic):
            raise topic_missing(new.topic)

    def _check_clock(self) -> None:
        if not self._trust.trusted():
            raise ClockUntrusted

    def _row(self, new: NewSchedule, *, version: int) -> Row:
        return self._placing.row(
            Schedule(
                client_id=new.client_id,
                schedule_key=new.schedule_key,
                ordering_key=new.ordering_key,
                due_ms=new.due_ms,
                topic=new.topic,
                guarantee=new.guarantee,
                task_data=new.task_data,
                data_form=new.data_form,
                headers=new.headers,
                traceparent=new.traceparent,
                deadline_ms=new.deadline_ms,
                on_late=new.on_late,
                retry=new.retry,
                created_at_ms=self._clock.now_ms(),
                version=version,
                delivery_id=self._placing.delivery_id(),
            )
        )

    def _pointer(self, new: NewSchedule, row: Row) -> Pointer:
        return Pointer(
            client_id=new.client_id,
            schedule_key=new.schedule_key,
            shard=row.shard,
            position=row.position,
            digest=new.digest,
            version=row.schedule.version,
            expires_at_s=self._placing.pointer_expires_at_s(row),
        )

    def _patience(self) -> RequestDeadline:
        return RequestDeadline(self._settings.request_timeout_ms, self._rng)
