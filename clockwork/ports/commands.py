"""The commands topic, as a consumer group reads it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from clockwork.domain.command_notes import CommandOffset


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandRecord:
    """A record of the commands topic, unparsed."""

    place: CommandOffset
    key: bytes | None
    value: bytes
    """Empty for a record without a value."""
    headers: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandBatch:
    """Some commands of one Kafka partition, in their order."""

    records: tuple[CommandRecord, ...]
    over: int
    """Number of records at the beginning whose effects were recorded before a crash; their replies may be missing."""


RecordEffects = Callable[[], Awaitable[None]]
"""Records durably that a batch has had all its effects: the next reader of these commands finds them counted in `over`."""
ProcessBatch = Callable[[CommandBatch, RecordEffects], Awaitable[None]]
"""Processes a batch; once it returns, the batch is not handed over again. It may be cancelled at any point."""


class CommandLog(Protocol):
    """The commands topic, read as a member of a consumer group: committed records only, each at least once."""

    async def run(self, work: ProcessBatch) -> None:
        """Hands the commands of this member's Kafka partitions to `work` until cancelled: batches of one Kafka partition one
        after the other, Kafka partitions side by side. A batch that was not finished is handed over again, to this member
        or another, or to both if this one notices its revocation late. While Kafka is away it waits, and it rejoins by
        itself."""
        ...
