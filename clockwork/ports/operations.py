"""Stores and logs that operators' calls need: pauses and dead letters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from clockwork.domain.dead_letters import DeadLetter
from clockwork.domain.destination import Topic
from clockwork.domain.pauses import Pauses


class PauseStore(Protocol):
    """The paused clients and topics: one item."""

    async def read_pauses(self) -> Pauses:
        """The present pauses; empty if none was ever stored. Raises: Unreadable."""
        ...

    async def write_pauses(self, pauses: Pauses) -> None:
        """Replaces the previous version.

        Raises: ConditionFailed if another version is stored, which may be an earlier copy of this very write.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetterPage:
    """Some dead letters, in the order of offsets within each Kafka partition."""

    letters: tuple[DeadLetter, ...]
    next_from: Mapping[int, int] | None
    """Next offset by Kafka partition, for at most 100 of them; None: all letters that were there have been read."""


class DeadLetterLog(Protocol):
    """The dead-letter topics as a `read_committed` consumer sees them. A missing topic has no letters; a topic that may
    not be read raises BrokerUnavailable."""

    async def read_letters(self, topic: Topic, start: Mapping[int, int], *, letters_max: int) -> DeadLetterPage:
        """A page of at most `letters_max` letters of a topic, from the offsets in `start` (by Kafka partition). Partitions
        missing from `start`: below the smallest key, already read; otherwise read from their beginning. A page before the
        last may be short or empty. Raises: BrokerUnavailable."""
        ...

    async def read_letter(self, topic: Topic, kafka_partition: int, offset: int) -> DeadLetter | None:
        """The letter at this offset; None if there is none. Raises: BrokerUnavailable."""
        ...
