"""What those who run the service need from outside, as contracts; see `ports`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from clockwork.domain.dead_letters import DeadLetter
from clockwork.domain.pauses import Pauses
from clockwork.domain.schedule import Topic


class PauseStore(Protocol):
    """The pauses, as one item of their own."""

    async def read_pauses(self) -> Pauses:
        """Reads the present pauses; nothing is paused where nothing is stored. Raises: Unreadable."""
        ...

    async def write_pauses(self, pauses: Pauses) -> None:
        """Replaces the version before. Raises: ConditionFailed: another version is stored, which may be an earlier copy
        of this very write."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class LetterPage:
    """Some dead letters; those of one Kafka partition in the order of their offsets."""

    letters: tuple[DeadLetter, ...]
    next_from: Mapping[int, int] | None
    """Where to go on, by Kafka partition, a hundred at most; None: all that was there when it was asked for was read."""


class DeadLetterLog(Protocol):
    """The topics of dead letters, as a `read_committed` reader sees them. One that is missing has no letters; one that may
    not be read raises BrokerUnavailable."""

    async def read_letters(self, topic: Topic, start: Mapping[int, int], *, letters_max: int) -> LetterPage:
        """Some letters of a topic, at most `letters_max`, from these offsets on by Kafka partition. Of those not named, the
        ones below the lowest that is have been read; all others are read from the first letter that is still there. A page
        may be short, or empty, before the end. Raises: BrokerUnavailable."""
        ...

    async def read_letter(self, topic: Topic, kafka_partition: int, offset: int) -> DeadLetter | None:
        """The letter at this place; None if there is none. Raises: BrokerUnavailable."""
        ...
