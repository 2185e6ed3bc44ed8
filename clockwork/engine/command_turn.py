"""One command's turn at its key: it has its one effect, or it is noted that it had none (`domain.command`)."""

from collections.abc import Callable

from clockwork.clock import Clock
from clockwork.domain.command import CommandNote, CommandPlace, NoteChange
from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.errors import CommandOver, ConditionFailed, Unreadable
from clockwork.ports import ScheduleStore


class CommandTurn:
    """For one try of a command. Whoever carries it out looks at the note before each transaction, and hands over its
    `change` with it; whoever answers it asks `had_effect`, and closes it if it had none."""

    def __init__(
        self,
        store: ScheduleStore,
        clock: Clock,
        client_id: ClientId,
        schedule_key: ScheduleKey,
        place: CommandPlace,
        *,
        retention_ms: int,
    ) -> None:
        self._store = store
        self._clock = clock
        self._name = (client_id, schedule_key)
        self._place = place
        self._retention_ms = retention_ms
        self._note: CommandNote | None = None
        self.had_effect = False
        """False also where nobody knows; to close it finds out."""

    async def look(self) -> None:
        """Reads the note. Raises: CommandOver, StoreUnavailable, Unreadable."""
        self._note = await self._store.read_command_note(*self._name)
        if self._note is not None and self._place.is_over(self._note.place):
            raise CommandOver

    def change(self, *, expires_at_s: int) -> NoteChange:
        """What moves the note from where it was last seen to this command, and keeps it at least until then."""
        before = self._note
        place = before.place if before is not None else None
        kept_until_s = max(expires_at_s, before.expires_at_s if before is not None else 0)
        return NoteChange(before=place, after=CommandNote(place=self._place.after(place), expires_at_s=kept_until_s))

    async def close(self) -> bool:
        """Notes that the command is over without an effect, after which it can have none. False: it was over before, so
        maybe it did have one, by somebody who read it as well.

        Raises: StoreUnavailable.
        """
        while True:
            try:
                await self.look()
                kept_until_s = (self._clock.now_ms() + self._retention_ms) // 1_000
                await self._store.note_command(*self._name, self.change(expires_at_s=kept_until_s))
            except ConditionFailed:
                continue  # another command under this key came first
            except CommandOver:
                return False
            except Unreadable:
                return True  # then nobody can carry out any command here
            else:
                return True


TurnOf = Callable[[ClientId, ScheduleKey, CommandPlace], CommandTurn]
"""Makes the turn of a command at its key."""
