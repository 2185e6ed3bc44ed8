"""Clocks that are wrong, and the world's own, which is right."""

from typing import Final

from tests.simulation.virtual_loop import Reactor

EPOCH_MS: Final = 1_700_000_000_000
"""The world's time when a run begins."""


class TrueTime:
    """The world's time; the store puts it, cut to whole seconds, on its answers."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor

    def now_ms(self) -> float:
        return EPOCH_MS + self._reactor.now_s * 1_000

    def date_ms(self) -> int:
        return int(self.now_ms() // 1_000) * 1_000


class NodeClock:
    """One node's wall clock: off by some milliseconds, drifting, sometimes jumping. Like the real one it never shows
    less than it has shown before. `monotonic_s` only drifts."""

    def __init__(self, reactor: Reactor, *, offset_ms: float, drift: float) -> None:
        self._reactor = reactor
        self._drift = drift
        self._offset_ms = offset_ms
        self._last_us = 0

    def now_us(self) -> int:
        elapsed_ms = self._reactor.now_s * 1_000 * (1 + self._drift)
        self._last_us = max(self._last_us, int((EPOCH_MS + self._offset_ms + elapsed_ms) * 1_000))
        return self._last_us

    def now_ms(self) -> int:
        return self.now_us() // 1_000

    def monotonic_s(self) -> float:
        return self._reactor.now_s * (1 + self._drift)

    def jump(self, by_ms: float) -> None:
        self._offset_ms += by_ms

    def ahead_ms(self) -> float:
        """Its lead on the world's time."""
        return self.now_us() / 1_000 - (EPOCH_MS + self._reactor.now_s * 1_000)

    def of_new_process(self) -> "NodeClock":
        return NodeClock(self._reactor, offset_ms=self._offset_ms, drift=self._drift)

    def set_right(self) -> None:
        """An operator mends it. What it has shown, it goes on showing until time has caught up."""
        self._offset_ms = 0.0
