"""Token buckets: a number of tokens a second on average, and no more than `burst` at once.

A bucket is one number: when it will be full again. That makes it cheap to keep one for each client, and a full bucket
equals a new one, so it may be dropped. Times are integer nanoseconds of any clock that never steps back: after the
stated wait the tokens are there, without an epsilon.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

NS: Final = 1_000_000_000
SWEEP_MIN: Final = 1_000
"""Buckets kept before the full ones are dropped."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """A refill rate and a burst."""

    per_second: int
    burst: int
    """The capacity: the most that may be taken at once."""

    def __post_init__(self) -> None:
        if self.per_second < 1 or self.burst < 1:
            raise ValueError("a rate has at least one a second and a burst of at least one")


@dataclass(kw_only=True, slots=True)
class Bucket:
    """The tokens of one key."""

    rate: Rate
    _full_at_ns: int = 0

    def wait_ns(self, cost: int, now_ns: int) -> int:
        """Time until `cost` tokens are there; 0: now. A cost beyond the burst waits for the burst only, and leaves a
        debt."""
        needed = min(cost, self.rate.burst)
        return max(0, self._full_at_ns - now_ns - self._time_of(self.rate.burst - needed))

    def take(self, cost: int, now_ns: int) -> None:
        """Takes tokens. Only if `wait_ns` is 0."""
        self._full_at_ns = max(self._full_at_ns, now_ns) - (-cost * NS // self.rate.per_second)

    def give_back(self, cost: int) -> None:
        """Returns tokens that were taken and are not to count."""
        self._full_at_ns += -cost * NS // self.rate.per_second

    def left(self, now_ns: int) -> int:
        """The tokens that may be taken now."""
        return max(0, self.rate.burst + (-self.until_full_ns(now_ns) * self.rate.per_second // NS))

    def until_full_ns(self, now_ns: int) -> int:
        """Time until the bucket is full; 0: it is."""
        return max(0, self._full_at_ns - now_ns)

    def _time_of(self, amount: int) -> int:
        return amount * NS // self.rate.per_second


_Key = TypeVar("_Key", bound=Hashable)


class Buckets(Generic[_Key]):
    """One bucket for each key, made at its first use. Full ones are dropped, so that their number is bounded by the
    number of keys that took tokens within the time that a bucket needs to fill."""

    def __init__(self, rate_of: Callable[[_Key], Rate]) -> None:
        self._rate_of = rate_of
        self._buckets: dict[_Key, Bucket] = {}
        self._sweep_at = SWEEP_MIN

    def __len__(self) -> int:
        return len(self._buckets)

    def of(self, key: _Key, now_ns: int) -> Bucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._sweep_at:
                self._buckets = {k: b for k, b in self._buckets.items() if b.until_full_ns(now_ns)}
                self._sweep_at = max(SWEEP_MIN, 2 * len(self._buckets))
            bucket = self._buckets[key] = Bucket(rate=self._rate_of(key))
        return bucket
