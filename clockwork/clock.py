"""Wall time, and the clock trust. Waiting uses the event loop's own time; the two are never mixed.

Due times mean nothing if a node's clock is wrong, and a frontier written by a clock that is an hour ahead could never
be lowered again. So every node compares its clock with the server time in the store's answers. If the two differ by
more than `SKEW_MS_MAX`, or were not compared for `CHECK_AGE_MS_MAX`, the node neither fires nor accepts.

Held time never steps back. A machine whose clock was ahead, and is put right, leaves it ahead until the machine's clock has
caught up, an hour if need be. Meanwhile the comparison fails and the node does nothing; a restart drops the held time, so
`HeldTimeWatch` asks for one. Requests are signed by the machine's clock as it is (`system_ms`): DynamoDB refuses signatures
that are far off, and an answer that only refuses would hide what is wrong.
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


HELD_AHEAD_MS_MAX: Final = 2_000
"""Lead of held time over the machine's clock at which a node is ready; as `SKEW_MS_MAX`, since the machine's clock is mostly
the one that was put right."""
HELD_AHEAD_MS_LIVE: Final = 300_000
"""Lead at which a node is still live: waiting for the machine's clock would take at least this long, a restart takes
seconds."""
HELD_AHEAD_FOR_MS_LIVE: Final = 300_000
"""Time for which a node is live with a lead beyond `HELD_AHEAD_MS_MAX`, however small it is: the lead of a clock that is set
back again and again never ends."""


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
        self._last_us = max(self._last_us, self._machine_us())
        return self._last_us

    def now_ms(self) -> int:
        return self.now_us() // 1_000

    def ahead_ms(self) -> int:
        """Lead over the machine's clock; more than 0 only after that was set back."""
        return max(0, self._last_us - self._machine_us()) // 1_000

    def _machine_us(self) -> int:
        return time.time_ns() // 1_000


def system_ms() -> int:
    """The machine's wall time, which may step back, in epoch milliseconds: for signatures alone."""
    return time.time_ns() // 1_000_000


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


class HeldTimeWatch:
    """Judges how far held time is ahead of the machine's clock, which was set back then.

    The lead is measured by each call of a method; the time for which it lasts counts from the first call that found it. So
    something must call at least every few seconds (`node.health`).
    """

    def __init__(self, ahead_ms: Callable[[], int], monotonic_s: Callable[[], float] = time.monotonic) -> None:
        """`ahead_ms`: the clock's, as `SystemClock` has it."""
        self._ahead_ms = ahead_ms
        self._monotonic_s = monotonic_s
        self._since_s: float | None = None

    def ahead_ms(self) -> int:
        """The lead now; 0 or a little while all is well."""
        ahead_ms = self._ahead_ms()
        if ahead_ms <= HELD_AHEAD_MS_MAX:
            self._since_s = None
        elif self._since_s is None:
            self._since_s = self._monotonic_s()
        return ahead_ms

    def trusted(self) -> bool:
        """False: the lead is too large for the node to be ready."""
        return self.ahead_ms() <= HELD_AHEAD_MS_MAX

    def needs_restart(self) -> bool:
        """True: the lead is too large, or has lasted too long, to be waited for."""
        if self.ahead_ms() > HELD_AHEAD_MS_LIVE:
            return True
        if self._since_s is None:
            return False
        return (self._monotonic_s() - self._since_s) * 1_000 > HELD_AHEAD_FOR_MS_LIVE
