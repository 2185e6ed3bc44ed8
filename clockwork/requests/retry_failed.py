"""Re-arm: a failed schedule is given another chance, by a create under its own key.

The content is that of the failed outcome; the due time is new, and so are position, delivery id and version. The pointer
is taken over on condition of the very version whose outcome was read, as every used key is: two requests of one moment
cannot both win, and a late copy of one finds another version. The dead letter stays where it is. What is said about
lateness stays too, and counts from the new due time: what failed as `expired` has its whole deadline again.

The digest stays that of the first create, so that a late repeat of *that* brings nothing up. The pointer says that what
stands there was armed again: the same request, repeated because its answer was lost, is answered `200` with what is
pending. Once it has failed a second time a repeat cannot be told from a new wish; whoever cares sends `If-Match`.
"""

import random
from dataclasses import dataclass, replace

from clockwork.clock import Clock, ClockTrust
from clockwork.domain.schedule import ClientId, Pointer, Row, Schedule, ScheduleKey
from clockwork.errors import ClockUntrusted, Contested, StoreUnavailable
from clockwork.ports.delivery import Publisher
from clockwork.ports.store import ScheduleStore
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.placing import Placing, topic_missing
from clockwork.requests.results import (
    Changed,
    IfVersion,
    NotFound,
    Refused,
    ScheduleView,
    Status,
    Unchanged,
    VersionDiffers,
)
from clockwork.requests.state import Reading, pending_view, refused
from clockwork.requests.waker import Waker
from clockwork.settings.model import IntakeSettings

Answer = Changed | Unchanged | VersionDiffers | NotFound | Refused


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wish:
    """What one request wants."""

    due_ms: int
    any_due: bool
    """No due time was asked for: now, whenever that is."""
    if_version: IfVersion | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Arming:
    """The same for every try, so that it is made once."""

    old: Pointer
    new: Pointer
    row: Row


class Rearmer:
    """Gives failed schedules another chance. Implements `answers.Rearms`."""

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

    async def rearm(
        self,
        client_id: ClientId,
        schedule_key: ScheduleKey,
        *,
        due_ms: int | None = None,
        if_version: IfVersion | None = None,
    ) -> Answer:
        """Makes what failed under the key pending again.

        Raises: InvalidInput (its topic does not exist), Unavailable: it may have been done; the same request again
        settles it.
        """
        wish = _Wish(
            due_ms=self._clock.now_ms() if due_ms is None else due_ms, any_due=due_ms is None, if_version=if_version
        )
        patience = RequestDeadline(self._settings.request_timeout_ms, self._rng)
        async with patience.kept():
            return await self._rearm(client_id, schedule_key, wish, patience)

    async def _rearm(
        self, client_id: ClientId, schedule_key: ScheduleKey, wish: _Wish, patience: RequestDeadline
    ) -> Answer:
        arming: _Arming | None = None
        while True:
            try:
                pointer = await self._store.read_pointer(client_id, schedule_key)
                if pointer is None or await self._reading.forgotten(pointer):
                    return NotFound()
                if arming is not None and await self._was_done(arming, pointer):
                    return self._armed(arming)
                view = await self._reading.view_at(pointer)
                if view is not None:
                    step = await self._prepare(pointer, view, wish, arming)
                    if not isinstance(step, _Arming):
                        return step
                    arming = step
                    await self._store.create(arming.row, arming.new, replaces_version=arming.old.version)
                    return self._armed(arming)
                why = "the schedule is being changed by another request"
            except (Contested, StoreUnavailable) as error:
                # Whatever was applied meanwhile, the next round reads.
                why = f"the schedule could not be armed in time: {error}"
            await patience.pause(why)

    async def _was_done(self, arming: _Arming, pointer: Pointer) -> bool:
        """Whether a try whose answer was lost is what stands there, or stood there since. To arm once more what has failed
        twice meanwhile would be to arm it twice with one request."""
        if pointer.position in (arming.old.position, arming.new.position):
            return pointer.position == arming.new.position
        return await self._reading.outcome_at(arming.new) is not None

    async def _prepare(
        self, pointer: Pointer, view: ScheduleView, wish: _Wish, arming: _Arming | None
    ) -> _Arming | Unchanged | VersionDiffers | Refused:
        schedule = view.schedule
        if view.status is Status.PENDING and schedule is not None and pointer.rearmed:
            armed_by = wish.if_version is None or bool({pointer.version, pointer.version - 1} & wish.if_version)
            if armed_by and (wish.any_due or schedule.due_ms == wish.due_ms):
                return Unchanged(view)
        if view.status is not Status.FAILED or schedule is None:
            return refused(view)
        if wish.if_version is not None and pointer.version not in wish.if_version:
            return VersionDiffers(view)
        if not self._trust.trusted():
            raise ClockUntrusted
        if arming is not None and arming.old.position == pointer.position:
            return arming
        if not await self._publisher.topic_exists(schedule.topic):
            raise topic_missing(schedule.topic)
        return self._arming(pointer, schedule, due_ms=wish.due_ms)

    def _arming(self, pointer: Pointer, failed: Schedule, *, due_ms: int) -> _Arming:
        row = self._placing.row(
            replace(failed, due_ms=due_ms, version=pointer.version + 1, delivery_id=self._placing.delivery_id())
        )
        new = replace(
            pointer,
            shard=row.shard,
            position=row.position,
            version=row.schedule.version,
            expires_at_s=self._placing.pointer_expires_at_s(row),
            rearmed=True,
            discarded_at_ms=None,
        )
        return _Arming(old=pointer, new=new, row=row)

    def _armed(self, arming: _Arming) -> Changed:
        self._placing.announce(arming.row)
        return Changed(pending_view(arming.new, arming.row))
