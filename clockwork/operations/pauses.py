"""Pauses: an operator stops the delivery of a client or a topic for a while, and resumes it.

The pauses are one small item, changed on condition of the version that was read. The same change again changes
nothing, so that a caller whose answer was lost asks again. Every node reads the item every few seconds
(`firing.pause_watch`).
"""

import random
from collections.abc import Callable
from dataclasses import replace

from clockwork.clock import Clock
from clockwork.domain.pauses import PAUSED_MAX, Pause, PauseKind, Pauses
from clockwork.errors import Contested, FieldError, InvalidInput, StoreUnavailable
from clockwork.ports.operations import PauseStore
from clockwork.requests.deadline import RequestDeadline
from clockwork.settings.model import IntakeSettings


class PauseAdmin:
    """Pauses and resumes clients and topics. Every method raises: Unavailable (a change may have been made), Unreadable."""

    def __init__(self, store: PauseStore, clock: Clock, rng: random.Random, settings: IntakeSettings) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self._settings = settings

    async def show(self) -> Pauses:
        """All pauses."""
        return await self._change(lambda there: there)

    async def pause(self, kind: PauseKind, name: str, *, by: str, reason: str | None = None) -> Pauses:
        """Pauses a client or a topic. Already paused: `since` stays, and another reason replaces reason and `by`. (Otherwise
        one would have to resume first, and that would deliver.)

        Raises: InvalidInput (too many are paused).
        """

        def wanted(there: Pauses) -> Pauses:
            known = there.of(kind, name)
            if known is not None:
                if reason in (None, known.reason):
                    return there
                return there.with_pause(kind, name, replace(known, by=by, reason=reason))
            if len(there) >= PAUSED_MAX:
                raise InvalidInput([FieldError(kind.value, f"not more than {PAUSED_MAX} can be paused at a time")])
            return there.with_pause(kind, name, Pause(since_ms=self._clock.now_ms(), by=by, reason=reason))

        return await self._change(wanted)

    async def resume(self, kind: PauseKind, name: str) -> Pauses:
        return await self._change(lambda there: there.without_pause(kind, name) if there.of(kind, name) else there)

    async def _change(self, wanted: Callable[[Pauses], Pauses]) -> Pauses:
        patience = RequestDeadline(self._settings.request_timeout_ms, self._rng)
        async with patience.enforced():
            while True:
                try:
                    there = await self._store.read_pauses()
                    pauses = wanted(there)
                    if pauses is not there:
                        await self._store.write_pauses(pauses)
                    return pauses
                except (Contested, StoreUnavailable) as error:
                    # Another caller's change, or an earlier copy of this one: the next round reads which.
                    why = f"the pauses could not be changed in time: {error}"
                await patience.pause(why)
