"""Back-off between attempts, and the number of attempts."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class BackoffPolicy:
    """Exponential: `initial_ms`, growing by `factor_percent` each time, up to `max_ms`."""

    initial_ms: int
    max_ms: int
    factor_percent: int = 200
    """200: it doubles."""

    def wait_ms(self, attempt: int, *, jitter: float = 1.0) -> int:
        """The wait after the `attempt`-th failure (from 1); `jitter` in (0, 1] scales it ("equal jitter": the caller
        passes 0.5…1, so that nodes that failed together do not come back together; AWS Architecture Blog, 2015)."""
        steps = min(max(attempt, 1) - 1, 40)
        longest_ms = self.initial_ms * self.factor_percent**steps // 100**steps
        return max(1, int(min(longest_ms, self.max_ms) * jitter))


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """Retry of a record that is refused for its content."""

    attempts_max: int
    backoff: BackoffPolicy
    jitter_percent: int = 0
    """By how much a wait may be shorter than the back-off gives."""

    def exhausted(self, attempts: int) -> bool:
        """True if a row with that many refused attempts becomes a dead letter."""
        return attempts >= self.attempts_max

    def next_at_ms(self, *, attempts: int, now_ms: int, chance: float = 0.0) -> int:
        """The time of the next attempt of a row whose `attempts`-th attempt was refused now; `chance` is drawn from
        [0, 1)."""
        return now_ms + self.backoff.wait_ms(attempts, jitter=1 - chance * self.jitter_percent / 100)
