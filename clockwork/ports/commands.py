"""The commands topic, as a consumer group reads it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from clockwork.domain.command import CommandPlace


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandRecord:
    """A record of the commands topic, as it came."""

    place: CommandPlace
    key: bytes | None
    value: bytes
    """Empty for a record without a value."""
    headers: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandBatch:
    """Some commands of one Kafka partition, in their order."""

    records: tuple[CommandRecord, ...]
    over: int
    """The number of commands at the beginning that have had their effects, as was noted before a crash; their answers may
    still be due."""


NoteEffects = Callable[[], Awaitable[None]]
"""Notes durably that all effects of a batch are over: if its commands are given again, they are counted in `over`."""
WorkOff = Callable[[CommandBatch, NoteEffects], Awaitable[None]]
"""Works off a batch; when it returns, the batch is never given again. It may be cancelled at any point."""


class CommandLog(Protocol):
    """The commands topic, read as a member of its group: committed records only, each at least once."""

    async def run(self, work: WorkOff) -> None:
        """Hands over the commands of every Kafka partition that is this member's, one batch after the other, Kafka
        partitions side by side, until cancelled. A batch that was not worked off is given again, to this member or
        another; to both, if this one is slow to notice. Waits and comes back by itself while Kafka is away."""
        ...
