"""Time that a test sets by hand, or lets pass on its event loop."""

import asyncio


class ManualClock:
    """A `clockwork.clock.Clock` that moves only when told. Unlike the real one it can be set back, to play a node
    whose clock is wrong."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_us = now_ms * 1_000

    def now_us(self) -> int:
        return self._now_us

    def now_ms(self) -> int:
        return self._now_us // 1_000

    def advance_ms(self, ms: int) -> None:
        """Lets time pass."""
        self._now_us += ms * 1_000

    def advance_us(self, us: int) -> None:
        """Lets very little time pass."""
        self._now_us += us

    def set_ms(self, now_ms: int) -> None:
        """Makes it that time, forwards or backwards."""
        self._now_us = now_ms * 1_000


class LoopClock(ManualClock):
    """A clock that moves with the running event loop's time, and so with virtual time. It begins when it is made."""

    def __init__(self, now_ms: int) -> None:
        super().__init__(now_ms)
        self._began_s = asyncio.get_running_loop().time()

    def now_us(self) -> int:
        return super().now_us() + int((asyncio.get_running_loop().time() - self._began_s) * 1e6)

    def now_ms(self) -> int:
        return self.now_us() // 1_000


class ManualMonotonic:
    """The other clock, in seconds; only ever forwards."""

    def __init__(self) -> None:
        self.now_s = 5_000.0

    def __call__(self) -> float:
        return self.now_s

    def advance_ms(self, ms: int) -> None:
        """Lets time pass."""
        self.now_s += ms / 1_000


class TrustedClock:
    """A `clockwork.clock.ClockTrust` that says what the test wants."""

    def __init__(self, *, trusted: bool = True, skew_ms: int | None = 0) -> None:
        self.is_trusted = trusted
        self.skew_ms = skew_ms

    def trusted(self) -> bool:
        return self.is_trusted
