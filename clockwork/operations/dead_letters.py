"""Dead letters, and which of them still ask for something.

They lie in the cluster's topic, and in those of clients that have one of their own; a page is of one of them, and the next
one follows where it ends. A topic only grows (until its retention ends), so what has become of a letter is not in it: it is
in the schedule's own state. A letter is *open* while its schedule is still failed with the very delivery that the letter is
of. Then it may be armed again, with the version that is shown here as the condition: a letter that is retried twice, by two
people or by one who lost an answer, is armed once.

Or it may be *discarded* (`operations.discard`): it needs nothing any more, and is open no longer. That is for the person who
goes through the open ones at night, and wants to find no others there the next time; nothing else depends on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from clockwork.concurrency import gather_bounded
from clockwork.domain.dead_letter_topics import DeadLetterTopics
from clockwork.domain.dead_letters import DeadLetter
from clockwork.domain.schedule import Topic
from clockwork.errors import Unreadable
from clockwork.operations.discard import failed_with
from clockwork.ports.operations import DeadLetterLog
from clockwork.requests.results import ScheduleView
from clockwork.requests.service import RequestService

STATES_AT_ONCE: Final = 16
"""Of letters whose schedules are read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LetterView:
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
class LettersFrom:
    """Where a page begins."""

    topic: Topic
    places: Mapping[int, int] = field(default_factory=dict)
    """Offsets by Kafka partition, as `DeadLetterLog` names them. None: at the first letters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LetterViews:
    """A page of them."""

    views: tuple[LetterView, ...]
    next_from: LettersFrom | None


class DeadLetters:
    """The dead letters of all topics, each with the present state of its schedule."""

    def __init__(self, log: DeadLetterLog, requests: RequestService, topics: DeadLetterTopics) -> None:
        self._log = log
        self._requests = requests
        self.topics = topics.every()
        """The topics that have dead letters, the cluster's first. No other may be asked for."""

    async def page(self, start: LettersFrom, *, letters_max: int) -> LetterViews:
        """Letters from `start` on, and where to go on, in the same topic or in the next; None at the end of the last one.

        Raises: Unavailable.
        """
        page = await self._log.read_letters(start.topic, start.places, letters_max=letters_max)
        views = await gather_bounded(partial(self._view, start.topic), page.letters, at_once=STATES_AT_ONCE)
        return LetterViews(views=tuple(views), next_from=self._next(start.topic, page.next_from))

    async def one(self, topic: Topic, kafka_partition: int, offset: int) -> LetterView | None:
        """The letter at this place. Raises: Unavailable."""
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
        try:
            return view(present=await self._requests.state_of(letter.client_id, letter.schedule_key))
        except Unreadable:
            # What stands under this key cannot be acted on anyway; the other letters can.
            return view(present=None)
