"""Back-off between attempts, and the number of attempts."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class BackoffPolicy:
    """Exponential back-off: `initial_ms`, multiplied by `factor_percent`/100 after each failure, at most `max_ms`."""

    initial_ms: int
    max_ms: int
    factor_percent: int = 200
    """200: it doubles."""

    def wait_ms(self, failures: int, *, scale: float = 1.0) -> int:
        """The wait after this many failures (from 1), times `scale` in (0, 1]: a random scale keeps nodes that failed
        together from coming back together (0.5 to 1: "equal jitter", AWS Architecture Blog, 2015)."""
        steps = min(max(failures, 1) - 1, 40)
        longest_ms = self.initial_ms * self.factor_percent**steps // 100**steps
        return max(1, int(min(longest_ms, self.max_ms) * scale))


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """Retry of a record that is refused for its content."""

    attempts_max: int
    backoff: BackoffPolicy
    jitter_percent: int = 0
    """Share of the back-off by which a wait may be shorter."""

    def exhausted(self, attempts: int) -> bool:
        """True if a row with that many refused attempts becomes a dead letter."""
        return attempts >= self.attempts_max

    def next_at_ms(self, *, attempts: int, now_ms: int, random_share: float = 0.0) -> int:
        """The time of the next attempt of a row whose `attempts`-th attempt was refused now; `random_share` is drawn
        from [0, 1)."""
        return now_ms + self.backoff.wait_ms(attempts, scale=1 - random_share * self.jitter_percent / 100)
