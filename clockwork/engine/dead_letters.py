"""Dead letters, and which of them still ask for something.

They lie in the cluster's topic, and in those of clients that have one of their own; a page is of one of them, and the next
one follows where it ends. A topic only grows (until its retention ends), so what has become of a letter is not in it: it is
in the schedule's own state. A letter is *open* while its schedule is still failed with the very delivery that the letter is
of. Then it may be armed again, with the version that is shown here as the condition: a letter that is retried twice, by two
people or by one who lost an answer, is armed once.

There is no way to discard a letter. Nothing could be done to the record, and nothing needs to be done to the schedule:
`failed` is its end, and both are forgotten when their retention ends. A mark "seen" would be one more stored thing that
nothing ever decides by.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from clockwork.domain.dead_letter import DeadLetter
from clockwork.domain.dead_letter_topics import DeadLetterTopics
from clockwork.domain.schedule import Topic
from clockwork.engine.answers import Accepts, ScheduleView, Status
from clockwork.engine.together import together
from clockwork.ports_admin import DeadLetterLog

STATES_AT_ONCE: Final = 16
"""Of letters whose schedules are read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LetterView:
    """A letter, and what stands under its key now."""

    letter: DeadLetter
    lies_in: Topic
    present: ScheduleView | None
    """None: nothing is known of it any more, or the letter does not name it."""

    @property
    def open(self) -> bool:
        """Whether its schedule may be armed again because of it."""
        schedule = self.present.schedule if self.present is not None else None
        return (
            self.present is not None
            and self.present.status is Status.FAILED
            and schedule is not None
            and schedule.delivery_id == self.letter.delivery_id
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LettersFrom:
    """Where a page begins."""

    topic: Topic
    places: Mapping[int, int] = field(default_factory=dict)
    """Offset by Kafka partition; where none is given, the first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LetterViews:
    """A page of them."""

    views: tuple[LetterView, ...]
    next_from: LettersFrom | None


class ShowsLetters(Protocol):
    """What the edge asks."""

    @property
    def topics(self) -> tuple[Topic, ...]:
        """Those that have dead letters, the cluster's first. No other may be asked for."""
        ...

    async def page(self, start: LettersFrom, *, letters_max: int) -> LetterViews:
        """Letters from there on, and where to go on, in the same topic or in the next; None when all that was there has been
        read. Raises: Unavailable."""
        ...

    async def one(self, topic: Topic, kafka_partition: int, offset: int) -> LetterView | None:
        """The letter at this place. Raises: Unavailable."""
        ...


class DeadLetters:
    """Implements `ShowsLetters`."""

    def __init__(self, log: DeadLetterLog, schedules: Accepts, topics: DeadLetterTopics) -> None:
        self._log = log
        self._schedules = schedules
        self.topics = topics.every()

    async def page(self, start: LettersFrom, *, letters_max: int) -> LetterViews:
        page = await self._log.read_letters(start.topic, start.places, letters_max=letters_max)
        views = await together(partial(self._view, start.topic), page.letters, at_once=STATES_AT_ONCE)
        return LetterViews(views=tuple(views), next_from=self._next(start.topic, page.next_from))

    async def one(self, topic: Topic, kafka_partition: int, offset: int) -> LetterView | None:
        letter = await self._log.read_letter(topic, kafka_partition, offset)
        return None if letter is None else await self._view(topic, letter)

    def _next(self, topic: Topic, places: Mapping[int, int] | None) -> LettersFrom | None:
        if places is not None:
            return LettersFrom(topic=topic, places=places)
        later = self.topics[self.topics.index(topic) + 1 :]
        return LettersFrom(topic=later[0]) if later else None

    async def _view(self, lies_in: Topic, letter: DeadLetter) -> LetterView:
        view = partial(LetterView, letter=letter, lies_in=lies_in)
        if letter.client_id is None or letter.schedule_key is None:
            return view(present=None)
        return view(present=await self._schedules.find(letter.client_id, letter.schedule_key))
