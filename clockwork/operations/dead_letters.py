"""Dead letters, and which of them still ask for something.

They lie in the cluster's topic, and in those of clients that have one of their own; a page is of one of them, and the next
one follows where it ends. A topic only grows (until its retention ends), so what has become of a letter is not in it: it is
in the schedule's own state. A letter is *open* while its schedule is still failed with the very delivery that the letter is
of. Then it may be armed again, with the version that is shown here as the condition: a letter that is retried twice, by two
people or by one who lost an answer, is armed once.

Or it may be *discarded* (`Discarder`): it needs nothing any more, and is open no longer. That is for the person who
goes through the open ones at night, and wants to find no others there the next time; nothing else depends on it.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from clockwork.clock import Clock
from clockwork.concurrency import gather_bounded
from clockwork.domain.dead_letters import DeadLetter, DeadLetterTopics
from clockwork.domain.destination import Topic
from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.errors import Contested, StoreUnavailable, Unreadable
from clockwork.ports.operations import DeadLetterLog
from clockwork.ports.store import ScheduleStore
from clockwork.requests.deadline import RequestDeadline
from clockwork.requests.results import Accepts, NotFound, ScheduleView, Status
from clockwork.requests.state import Reading
from clockwork.settings.model import IntakeSettings

STATES_AT_ONCE: Final = 16
"""Of letters whose schedules are read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetterView:
    """A letter, and what stands under its key now."""

    letter: DeadLetter
    lies_in: Topic
    present: ScheduleView | None
    """None: nothing is known of it any more, it cannot be read, or the letter does not name it."""

    @property
    def open(self) -> bool:
        """Whether it asks for something still: its schedule is failed with this delivery, and nobody has discarded it."""
        return self._is_last_word and self.discarded_at_ms is None

    @property
    def discarded_at_ms(self) -> int | None:
        """When it was discarded. None: it was not, or something else has become of its schedule since."""
        return self.present.discarded_at_ms if self._is_last_word and self.present is not None else None

    @property
    def _is_last_word(self) -> bool:
        return self.present is not None and failed_with(self.present, self.letter.delivery_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetterCursor:
    """Where a page begins."""

    topic: Topic
    offsets: Mapping[int, int] = field(default_factory=dict)
    """Offsets by Kafka partition, as `DeadLetterLog` names them. None: at the first letters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetterViewPage:
    """A page of them."""

    views: tuple[DeadLetterView, ...]
    next_from: DeadLetterCursor | None


class ShowsLetters(Protocol):
    """What the edge asks."""

    @property
    def topics(self) -> tuple[Topic, ...]:
        """Those that have dead letters, the cluster's first. No other may be asked for."""
        ...

    async def page(self, start: DeadLetterCursor, *, letters_max: int) -> DeadLetterViewPage:
        """Letters from there on, and where to go on, in the same topic or in the next; None when all that was there has been
        read. Raises: Unavailable."""
        ...

    async def one(self, topic: Topic, kafka_partition: int, offset: int) -> DeadLetterView | None:
        """The letter at this place. Raises: Unavailable."""
        ...


class DeadLetterAdmin:
    """Implements `ShowsLetters`."""

    def __init__(self, log: DeadLetterLog, schedules: Accepts, topics: DeadLetterTopics) -> None:
        self._log = log
        self._schedules = schedules
        self.topics = topics.every()

    async def page(self, start: DeadLetterCursor, *, letters_max: int) -> DeadLetterViewPage:
        page = await self._log.read_letters(start.topic, start.offsets, letters_max=letters_max)
        views = await gather_bounded(partial(self._view, start.topic), page.letters, at_once=STATES_AT_ONCE)
        return DeadLetterViewPage(views=tuple(views), next_from=self._next(start.topic, page.next_from))

    async def one(self, topic: Topic, kafka_partition: int, offset: int) -> DeadLetterView | None:
        letter = await self._log.read_letter(topic, kafka_partition, offset)
        return None if letter is None else await self._view(topic, letter)

    def _next(self, topic: Topic, offsets: Mapping[int, int] | None) -> DeadLetterCursor | None:
        if offsets is not None:
            return DeadLetterCursor(topic=topic, offsets=offsets)
        later = self.topics[self.topics.index(topic) + 1 :]
        return DeadLetterCursor(topic=later[0]) if later else None

    async def _view(self, lies_in: Topic, letter: DeadLetter) -> DeadLetterView:
        view = partial(DeadLetterView, letter=letter, lies_in=lies_in)
        if letter.client_id is None or letter.schedule_key is None:
            return view(present=None)
        try:
            return view(present=await self._schedules.find(letter.client_id, letter.schedule_key))
        except Unreadable:
            # What stands under this key cannot be acted on anyway; the other letters can.
            return view(present=None)


@dataclass(frozen=True, slots=True)
class Discarded:
    """Now, or before."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class NotOpen:
    """Something else stands under the key by now, as far as it can be read."""

    status: Status
    """`failed`: with another delivery."""
    readable: bool = True
    """False: its content is not, so that nobody can tell which delivery it is."""


class Discards(Protocol):
    """What the edge asks."""

    async def discard(
        self, client_id: ClientId, schedule_key: ScheduleKey, delivery_id: str
    ) -> Discarded | NotOpen | NotFound:
        """Notes that the schedule, failed with this delivery, needs nothing any more. Raises: Unavailable: it may have been
        done; the same request again settles it."""
        ...


class Discarder:
    """Implements `Discards`."""

    def __init__(self, store: ScheduleStore, clock: Clock, rng: random.Random, settings: IntakeSettings) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self._settings = settings
        self._reading = Reading(store, clock, retention_ms=settings.retention_ms)

    async def discard(
        self, client_id: ClientId, schedule_key: ScheduleKey, delivery_id: str
    ) -> Discarded | NotOpen | NotFound:
        """See `Discards`."""
        patience = RequestDeadline(self._settings.request_timeout_ms, self._rng)
        async with patience.kept():
            while True:
                try:
                    pointer = await self._store.read_pointer(client_id, schedule_key)
                    if pointer is None or await self._reading.forgotten(pointer):
                        return NotFound()
                    view = await self._reading.view_at(pointer)
                    if view is not None:
                        if not failed_with(view, delivery_id):
                            return NotOpen(view.status, readable=view.schedule is not None)
                        return Discarded(await self._store.discard(pointer, at_ms=self._clock.now_ms()))
                    why = "the schedule is being changed by another request"
                except (Contested, StoreUnavailable) as error:
                    # Whatever was applied meanwhile, the next round reads.
                    why = f"the dead letter could not be discarded in time: {error}"
                await patience.pause(why)


def failed_with(view: ScheduleView, delivery_id: str | None) -> bool:
    """Whether what stands there is failed with this very delivery."""
    schedule = view.schedule
    return view.status is Status.FAILED and schedule is not None and schedule.delivery_id == delivery_id
