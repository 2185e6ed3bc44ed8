"""One command's turn at its key: it has its one effect, or it is noted that it had none (`domain.command_notes`)."""

import asyncio
import random
from collections.abc import Callable
from typing import Final

from clockwork.clock import Clock
from clockwork.domain.command_notes import CommandNote, CommandOffset, NoteChange, note_change
from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.errors import CommandAlreadyProcessed, ConditionFailed, NewerFormat, Unreadable
from clockwork.ports.store import ScheduleStore

PAUSE_S_MAX: Final = 0.05
"""Before a note that another command has moved is read again."""


class CommandDedup:
    """For one command on one node. Whoever carries it out looks at the note before each transaction, and hands over its
    `change` with it; whoever answers it asks `had_effect`, and closes it if it had none."""

    def __init__(
        self,
        store: ScheduleStore,
        clock: Clock,
        rng: random.Random,
        retention_ms: int,
        client_id: ClientId,
        schedule_key: ScheduleKey,
        place: CommandOffset,
    ) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self._retention_ms = retention_ms
        self._name = (client_id, schedule_key)
        self._place = place
        self._note: CommandNote | None = None
        id_ = f"{rng.getrandbits(64):016x}"
        self._by_effect = f"{id_}+"
        self._by_close = f"{id_}-"
        self.had_effect = False
        """Known for certain. Where an answer was lost it may be False and not so; `recognise` and `close` find out."""

    async def look(self) -> None:
        """Reads the note. Raises: CommandAlreadyProcessed, StoreUnavailable, Unreadable."""
        self._note = await self._store.read_command_note(*self._name)
        if self._note is not None and self._note.covers(self._place):
            raise CommandAlreadyProcessed

    def change(self, *, expires_at_s: int) -> NoteChange:
        """What goes with its effect: the note moves from where it was last seen, and is kept at least until then."""
        return note_change(self._note, self._place, by=self._by_effect, expires_at_s=expires_at_s)

    async def recognise(self) -> None:
        """Whether what is found done was done by this turn, in a transaction whose answer was lost.

        Raises: StoreUnavailable, Unreadable.
        """
        note = await self._store.read_command_note(*self._name)
        self.had_effect = note is not None and note.by == self._by_effect

    async def close(self) -> bool:
        """Notes that the command is over without an effect, after which it can have none. False: it was over before, so
        maybe it did have one, by somebody who read it as well, or by a try of this turn that nobody heard of.

        Raises: StoreUnavailable, NewerFormat: to be tried again; what was tried before is known again.
        """
        while True:
            try:
                await self.look()
                # Broker's time beside ours: a clock that is days behind must not make the note short-lived.
                kept_until_ms = max(self._clock.now_ms(), self._place.at_ms) + self._retention_ms
                kept_until_s = kept_until_ms // 1_000
                move = note_change(self._note, self._place, by=self._by_close, expires_at_s=kept_until_s)
                await self._store.note_command(*self._name, move)
            except ConditionFailed:
                await asyncio.sleep(self._rng.uniform(0, PAUSE_S_MAX))
            except CommandAlreadyProcessed:
                return self._note is not None and self._note.by == self._by_close
            except NewerFormat:
                raise  # newer nodes can read it, and carry the command out
            except Unreadable:
                return True  # then nobody can carry out any command here
            else:
                return True


TurnOf = Callable[[ClientId, ScheduleKey, CommandOffset], CommandDedup]
"""Makes the turn of a command at its key."""
