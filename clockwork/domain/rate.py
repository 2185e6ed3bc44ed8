"""Token buckets: so many a second on average, and no more than `burst` at once.

A bucket is one number: when it will be full again. That makes it cheap to keep one for each client, and a bucket that is
full says nothing that a new one does not, so it may be forgotten. Times are nanoseconds of any clock that never steps
back, as integers: what is waited for as told is there, without an epsilon.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

NS: Final = 1_000_000_000
SWEEP_MIN: Final = 1_000
"""Buckets kept before the full ones are looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """How much may be taken."""

    per_second: int
    burst: int
    """The most that may be taken at once, and what is there after a rest."""

    def __post_init__(self) -> None:
        if self.per_second < 1 or self.burst < 1:
            raise ValueError("a rate has at least one a second and a burst of at least one")


@dataclass(kw_only=True, slots=True)
class Bucket:
    """What one of many has left of its rate."""

    rate: Rate
    _full_at_ns: int = 0

    def wait_ns(self, cost: int, now_ns: int) -> int:
        """How long until `cost` is there; 0: now. A cost beyond the burst counts as the burst: it passes, and is paid
        for afterwards."""
        needed = min(cost, self.rate.burst)
        return max(0, self._full_at_ns - now_ns - self._time_of(self.rate.burst - needed))

    def take(self, cost: int, now_ns: int) -> None:
        """Only when `wait_ns` says 0."""
        self._full_at_ns = max(self._full_at_ns, now_ns) - (-cost * NS // self.rate.per_second)

    def give_back(self, cost: int) -> None:
        """What was taken and is not to count."""
        self._full_at_ns += -cost * NS // self.rate.per_second

    def left(self, now_ns: int) -> int:
        """What may be taken now."""
        return max(0, self.rate.burst + (-self.until_full_ns(now_ns) * self.rate.per_second // NS))

    def until_full_ns(self, now_ns: int) -> int:
        """How long until all of the burst is there; 0: it is."""
        return max(0, self._full_at_ns - now_ns)

    def _time_of(self, amount: int) -> int:
        return amount * NS // self.rate.per_second


_Key = TypeVar("_Key", bound=Hashable)


class Buckets(Generic[_Key]):
    """One bucket for each key, made at its first use. Full ones are forgotten, so that their number is bounded by how many
    keys took something within the time that a bucket needs to fill."""

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
