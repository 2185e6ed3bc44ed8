"""Dead letters, and which of them still ask for something.

The topic only grows (until its retention ends), so what has become of a letter is not in it: it is in the schedule's own
state. A letter is *open* while its schedule is still failed with the very delivery that the letter is of. Then it may be
armed again, with the version that is shown here as the condition: a letter that is retried twice, by two people or by one
who lost an answer, is armed once.

There is no way to discard a letter. Nothing could be done to the record, and nothing needs to be done to the schedule:
`failed` is its end, and both are forgotten when their retention ends. A mark "seen" would be one more stored thing that
nothing ever decides by.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from clockwork.domain.dead_letter import DeadLetter
from clockwork.engine.answers import Accepts, ScheduleView, Status
from clockwork.engine.together import together
from clockwork.ports import DeadLetterLog

STATES_AT_ONCE: Final = 16
"""Of letters whose schedules are read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LetterView:
    """A letter, and what stands under its key now."""

    letter: DeadLetter
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
class LetterViews:
    """A page of them."""

    views: tuple[LetterView, ...]
    next_from: Mapping[int, int] | None


class ShowsLetters(Protocol):
    """What the edge asks."""

    async def page(self, start: Mapping[int, int], *, letters_max: int) -> LetterViews:
        """Letters from there on, and where to go on; None when all that was there has been read. Raises: Unavailable."""
        ...

    async def one(self, kafka_partition: int, offset: int) -> LetterView | None:
        """The letter at this place. Raises: Unavailable."""
        ...


class DeadLetters:
    """Implements `ShowsLetters`."""

    def __init__(self, log: DeadLetterLog, schedules: Accepts) -> None:
        self._log = log
        self._schedules = schedules

    async def page(self, start: Mapping[int, int], *, letters_max: int) -> LetterViews:
        page = await self._log.read_letters(start, letters_max=letters_max)
        views = await together(self._view, page.letters, at_once=STATES_AT_ONCE)
        return LetterViews(views=tuple(views), next_from=page.next_from)

    async def one(self, kafka_partition: int, offset: int) -> LetterView | None:
        letter = await self._log.read_letter(kafka_partition, offset)
        return None if letter is None else await self._view(letter)

    async def _view(self, letter: DeadLetter) -> LetterView:
        view = partial(LetterView, letter=letter)
        if letter.client_id is None or letter.schedule_key is None:
            return view(present=None)
        return view(present=await self._schedules.find(letter.client_id, letter.schedule_key))
