"""At most one effect for each command, by the note of its schedule key or job (`domain.command_notes`)."""

import asyncio
from dataclasses import dataclass
from typing import Final, Protocol

from clockwork.domain.command_notes import CommandNote, CommandOffset, NoteChange, note_change
from clockwork.domain.jobs.job import JobName
from clockwork.domain.schedule import ClientId, ScheduleKey, outcome_expiry_s
from clockwork.errors import CommandAlreadyProcessed, ConditionFailed, NewerFormat, Unreadable
from clockwork.requests.context import RequestContext

PAUSE_S_MAX: Final = 0.05
"""Longest pause before a note that another command has moved is read again."""


class Notes(Protocol):
    """The place of the note of one key or job."""

    async def read(self) -> CommandNote | None:
        """Raises: StoreUnavailable, Unreadable."""
        ...

    async def move(self, change: NoteChange) -> None:
        """Raises: ConditionFailed (another note is there), StoreUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class ScheduleNotes:
    """The note of a schedule key."""

    context: RequestContext
    client_id: ClientId
    schedule_key: ScheduleKey

    async def read(self) -> CommandNote | None:
        return await self.context.store.read_command_note(self.client_id, self.schedule_key)

    async def move(self, change: NoteChange) -> None:
        await self.context.store.note_command(self.client_id, self.schedule_key, change)


@dataclass(frozen=True, slots=True)
class JobCommandNotes:
    """The note of a job."""

    context: RequestContext
    name: JobName

    async def read(self) -> CommandNote | None:
        return await self.context.jobs.read_command_note(self.name)

    async def move(self, change: NoteChange) -> None:
        await self.context.jobs.note_command(self.name, change)


class CommandDedup:
    """The guard of one command on one node. The use case calls `check` before each transaction and writes `change` with it;
    the worker asks `had_effect` afterwards, and calls `record_processed` if there was none."""

    def __init__(self, context: RequestContext, notes: Notes, place: CommandOffset) -> None:
        self._context = context
        self._notes = notes
        self._place = place
        self._note: CommandNote | None = None
        id_ = f"{context.rng.getrandbits(64):016x}"
        self._by_effect = f"{id_}+"
        self._by_close = f"{id_}-"
        self.had_effect = False
        """True only if known for certain. After a lost answer it may be False although there was an effect;
        `recognise_effect` and `record_processed` find out."""

    async def check(self) -> None:
        """Reads the note. Raises: CommandAlreadyProcessed, StoreUnavailable, Unreadable."""
        self._note = await self._notes.read()
        if self._note is not None and self._note.covers(self._place):
            raise CommandAlreadyProcessed

    def change(self, *, due_ms: int) -> NoteChange:
        """The move of the note from where `check` read it to this command; part of the effect's transaction. `due_ms`: the
        due time of the schedule that the command sets or ends; 0 for a job."""
        return note_change(self._note, self._place, by=self._by_effect, expires_at_s=self._expiry_s(due_ms))

    async def recognise_effect(self) -> None:
        """Sets `had_effect` if the effect that was found is this command's own, by a transaction whose answer was lost.

        Raises: StoreUnavailable, Unreadable.
        """
        note = await self._notes.read()
        self.had_effect = note is not None and note.by == self._by_effect

    async def record_processed(self) -> bool:
        """Records the command as processed without an effect; after that it can have none. False: it was over before, so
        it may have had an effect, on another node or by a try of this one whose answer was lost.

        Raises: StoreUnavailable, NewerFormat: to be tried again; an earlier try is recognised.
        """
        while True:
            try:
                await self.check()
                move = note_change(self._note, self._place, by=self._by_close, expires_at_s=self._expiry_s())
                await self._notes.move(move)
            except ConditionFailed:
                await asyncio.sleep(self._context.rng.uniform(0, PAUSE_S_MAX))
            except CommandAlreadyProcessed:
                return self._note is not None and self._note.by == self._by_close
            except NewerFormat:
                raise  # newer nodes can read it, and carry the command out
            except Unreadable:
                return True  # no node can carry out any command of this key
            else:
                return True

    def _expiry_s(self, due_ms: int = 0) -> int:
        """Expiry of the note: retention after the later of this command and the due time."""
        # The broker's time counts as well: with a clock that is days behind the note would be short-lived.
        end_ms = max(self._context.clock.now_ms(), self._place.at_ms)
        return outcome_expiry_s(due_ms=due_ms, end_ms=end_ms, retention_ms=self._context.settings.retention_ms)
