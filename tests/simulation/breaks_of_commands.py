"""Replacements of a rule by the mutations of commands, as `breaks` has them for the others."""

from typing import Any

from clockwork.domain.command_notes import NoteChange
from clockwork.ports.commands import CommandBatch, CommandRecord
from clockwork.ports.store import KeyName
from clockwork.requests.dedup import CommandDedup
from clockwork.stores.memory.store import ItemKey, Write
from tests.simulation.command_world import COMMANDS, RECORDS_MAX, CommandWorld, HostCommandLog
from tests.simulation.store_world import HostStore


async def commit_first(self: HostCommandLog, batch: CommandBatch, work: Any) -> int:
    """Read at most once."""
    number, end = batch.records[0].place.kafka_partition, batch.records[-1].place.offset + 1
    await self._commit(number, (end, 0))

    async def note() -> None: ...

    await work(batch, note)
    return end


async def note_and_go_on(self: HostCommandLog, number: int, begin: int, end: int) -> None:
    """Commits the offset before the answers are sent: an answer that is lost then is owed no more."""
    await self._commit(number, (end, 0))


def read_uncommitted(self: CommandWorld, number: int, offset: int) -> list[CommandRecord]:
    """Whatever stands there."""
    found = [e for e in self.kafka.logs[(COMMANDS, number)] if e.offset >= offset and e.record is not None]
    return [self.record(number, entry) for entry in found[:RECORDS_MAX]]


async def nothing_to_note(self: CommandDedup) -> bool:
    """Only effects are remembered."""
    return True


def move_whatever_was_read(self: HostStore, name: KeyName, note: NoteChange | None) -> dict[ItemKey, Write]:
    """The note moves without a condition."""
    there = self.notes.get(name)
    if note is not None:
        note = NoteChange(before=there.offsets if there is not None else (), after=note.after)
    return _move_note(self, name, note)


_move_note = HostStore._move_note
