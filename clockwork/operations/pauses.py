"""Pausing the delivery of a client or a topic: how it is said, and how every node hears of it.

It is said by one small item, changed on condition of the version that was read; the same wish again changes nothing, so a
lost answer is settled by asking again. Every node that delivers reads the item at its start, before it fires anything, and
then every `LOOK_S`. What cannot be read leaves things as they were last known: a pause must not end because the store is
away for a moment, nor begin.

So a pause is in force within some seconds, a pass that is under way then included; it is no fence, and a node whose
requests to the store hang may go on with what it knew. Nothing else depends on it: a row that is fired although its topic
has just been paused is delivered like any other, once and in order.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final, Protocol

from clockwork.clock import Clock
from clockwork.domain.pauses import NOTHING_PAUSED, PAUSED_MAX, PauseKind, Pauses
from clockwork.errors import Contested, FieldError, InvalidInput, StoreUnavailable, Unavailable, Unreadable
from clockwork.ports.operations import PauseStore
from clockwork.ports.telemetry import Telemetry
from clockwork.requests.deadline import RequestDeadline
from clockwork.settings.model import IntakeSettings

log = logging.getLogger(__name__)

LOOK_S: Final = 2.0
"""Between two looks of a node: "within seconds" for the operator, half a read unit a second for DynamoDB."""


class Pausing(Protocol):
    """What the edge asks."""

    async def show(self) -> Pauses:
        """Everything that is paused. Raises: Unavailable, Unreadable."""
        ...

    async def pause(self, kind: PauseKind, name: str) -> Pauses:
        """Raises: InvalidInput (too many are paused), Unavailable (it may have been done), Unreadable."""
        ...

    async def resume(self, kind: PauseKind, name: str) -> Pauses:
        """Raises: Unavailable (it may have been done), Unreadable."""
        ...


class PauseAdmin:
    """Says what is paused. Implements `Pausing`."""

    def __init__(self, store: PauseStore, clock: Clock, rng: random.Random, settings: IntakeSettings) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self._settings = settings

    async def show(self) -> Pauses:
        return await self._change(lambda there: there)

    async def pause(self, kind: PauseKind, name: str) -> Pauses:
        def wanted(there: Pauses) -> Pauses:
            if there.has(kind, name):
                return there
            if len(there) >= PAUSED_MAX:
                raise InvalidInput([FieldError(kind.value, f"not more than {PAUSED_MAX} can be paused at a time")])
            return there.paused(kind, name, at_ms=self._clock.now_ms())

        return await self._change(wanted)

    async def resume(self, kind: PauseKind, name: str) -> Pauses:
        return await self._change(lambda there: there.resumed(kind, name) if there.has(kind, name) else there)

    async def _change(self, wanted: Callable[[Pauses], Pauses]) -> Pauses:
        patience = RequestDeadline(self._settings.request_timeout_ms, self._rng)
        async with patience.kept():
            while True:
                try:
                    there = await self._store.read_pauses()
                    pauses = wanted(there)
                    if pauses is not there:
                        await self._store.write_pauses(pauses)
                    return pauses
                except (Contested, StoreUnavailable) as error:
                    # Somebody else's change, or an earlier copy of this one: the next round reads which.
                    why = f"the pauses could not be changed in time: {error}"
                await patience.pause(why)


class PauseWatch:
    """What one node knows of the pauses."""

    def __init__(
        self, store: PauseStore, telemetry: Telemetry, on_change: Callable[[], None], *, look_s: float = LOOK_S
    ) -> None:
        """`on_change` is called after each change, so that what was held back is looked at now."""
        self._store = store
        self._telemetry = telemetry
        self._on_change = on_change
        self._look_s = look_s
        self._known: Pauses | None = None

    def current(self) -> Pauses:
        """As last read."""
        return NOTHING_PAUSED if self._known is None else self._known

    async def begin(self) -> None:
        """The first look: before it nothing may be fired. Raises: Unavailable."""
        try:
            self._take(await self._store.read_pauses())
        except Unreadable as error:
            raise Unavailable(f"what is paused cannot be read: {error}") from error

    async def run(self) -> None:
        """Looks again and again, until cancelled. Only after `begin`."""
        while True:
            await asyncio.sleep(self._look_s)
            try:
                pauses = await self._store.read_pauses()
            except (Unavailable, Unreadable) as error:
                extra = {"event": "pauses.unknown", "error": str(error), "once_per": "pauses"}
                log.warning("What is paused cannot be read: as last known", extra=extra)
            else:
                self._take(pauses)

    def _take(self, pauses: Pauses) -> None:
        before, self._known = self._known, pauses
        self._telemetry.paused(clients=len(pauses.clients), topics=len(pauses.topics))
        if before == pauses or (before is None and not len(pauses)):
            return
        said = {"event": "pauses.changed", "clients": sorted(pauses.clients), "topics": sorted(pauses.topics)}
        log.info("Pauses", extra=said)
        self._on_change()
