"""Wall time, and the clock trust. Waiting uses the event loop's own time; the two are never mixed.

Due times mean nothing if a node's clock is wrong, and a frontier written by a clock that is an hour ahead could never
be lowered again. So every node compares its clock with the server time in the store's answers. If the two differ by
more than `SKEW_MS_MAX`, or were not compared for `CHECK_AGE_MS_MAX`, the node neither fires nor accepts.
"""

import time
from collections.abc import Callable
from typing import Final, Protocol

SKEW_MS_MAX: Final = 2_000
"""Largest difference at which a node fires and accepts."""
CHECK_AGE_MS_MAX: Final = 30_000
"""Largest age of the last comparison, on the monotonic clock."""
ANSWER_MS_MAX: Final = 1_000
"""Slower answers say too little about the time, and are not compared."""


class Clock(Protocol):
    """Held time: wall time of one node that never steps back."""

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        ...

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        ...


class SystemClock:
    """The machine's wall time, which stands still while the machine's own clock steps back."""

    def __init__(self) -> None:
        self._last_us = 0

    def now_us(self) -> int:
        self._last_us = max(self._last_us, time.time_ns() // 1_000)
        return self._last_us

    def now_ms(self) -> int:
        return self.now_us() // 1_000


class ClockTrust(Protocol):
    """Tells if this node's clock may be used for firing and accepting."""

    def trusted(self) -> bool: ...

    @property
    def skew_ms(self) -> int | None: ...


class ClockGuard:
    """Compares a node's clock with the store's, by the server time in its answers (DynamoDB: the `Date` header).

    The server time is cut to its resolution: the server's clock stood in [server, server + resolution) at some moment
    between sending and receiving. Between two comparisons the monotonic clock stands in for the server's: a wall clock
    that jumps is not trusted again before the next comparison has judged the jump.
    """

    def __init__(self, clock: Clock, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._monotonic_s = monotonic_s
        self._skew_ms: int | None = None
        self._checked_at_s = 0.0
        self._checked_wall_ms = 0

    def observe(self, *, sent_ms: int, received_ms: int, server_ms: int, resolution_ms: int) -> None:
        """Compares by one answer. The first three are epoch milliseconds: sent and received by this node's clock, and the
        time that the store stated, in steps of `resolution_ms`."""
        if not 0 <= received_ms - sent_ms <= ANSWER_MS_MAX:
            return
        if server_ms > received_ms:
            self._skew_ms = received_ms - server_ms
        elif server_ms < sent_ms - resolution_ms:
            self._skew_ms = sent_ms - resolution_ms - server_ms
        else:
            self._skew_ms = 0
        self._checked_at_s = self._monotonic_s()
        self._checked_wall_ms = self._clock.now_ms()

    @property
    def skew_ms(self) -> int | None:
        """This node's clock minus the store's, its certain part; None before the first comparison."""
        return self._skew_ms

    def trusted(self) -> bool:
        if self._skew_ms is None:
            return False
        age_ms = (self._monotonic_s() - self._checked_at_s) * 1_000
        if age_ms > CHECK_AGE_MS_MAX:
            return False
        jump_ms = self._clock.now_ms() - self._checked_wall_ms - age_ms
        return abs(self._skew_ms) <= SKEW_MS_MAX and abs(jump_ms) <= SKEW_MS_MAX
