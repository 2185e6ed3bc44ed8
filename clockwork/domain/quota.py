"""Quota: an estimate of what is left of a limit whose use can be counted, but not at every request.

The estimate is the last count and what was added on this node since. A new count pays off when a stated part of what
the last one left is used up: far below the limit hardly ever, near it often. The interval between counts grows with
their cost. Between two counts other nodes may add as well, and what was counted or added may end: a limit that is
enforced by this estimate is soft. Only a count decides that the limit is reached (`full`); the estimate
(`seems_full`) only asks for a recount.

    unknown ──── count ────► known ──── a part of what was left is added ────► known, to be recounted
       └── count fails ──► unknown, requests do not wait for the next count ── count ──► known

Times are nanoseconds of any clock that never steps back.
"""

from dataclasses import dataclass
from typing import Final

from clockwork.domain.rate import NS

PART: Final = 4
"""A recount once a quarter of what the last count left is used up. With up to four nodes that add at the same time,
each recounts before the limit; and there are sixteen counts on the way to 99 % of it."""
AGAIN_S: Final = 0.5
"""Shortest interval between counts while there is room."""
COUNT_EVERY_S: Final = 5
"""Shortest interval between counts at the limit, and while counts fail: more counts make no room."""
COUNTED_PER_S: Final = 10_000
"""Counted items per second of interval: after a count of a million, the next one begins after 100 s or later."""


@dataclass(kw_only=True, slots=True)
class Quota:
    """The quota of one client."""

    limit: int
    counted: int | None = None
    """Result of the last count, at most the limit; None: not known."""
    added: int = 0
    """Added since that count began; an item added while it ran may be in both."""
    under_way: int = 0
    """Additions that may not be stored yet, so that a count may miss them."""
    failing: bool = False
    """The last count failed."""
    _counting_from: int = 0
    _quiet_until_ns: int = 0

    @property
    def left(self) -> int | None:
        """None: not known."""
        return None if self.counted is None else max(0, self.limit - self.counted - self.added)

    @property
    def full(self) -> bool:
        """True if the last count found the limit reached."""
        return self.counted == self.limit

    @property
    def seems_full(self) -> bool:
        """True if the estimate is at the limit; an unknown use is not."""
        return self.left == 0

    @property
    def in_doubt(self) -> bool:
        """True if a request should wait for a recount."""
        return self.seems_full or (self.counted is None and not self.failing)

    def wants_count(self, now_ns: int) -> bool:
        """True if a count should begin now."""
        if now_ns < self._quiet_until_ns:
            return False
        return self.counted is None or self.added * PART >= self.limit - self.counted

    def quiet_ns(self, now_ns: int) -> int:
        """Time until a count may begin; 0: now."""
        return max(0, self._quiet_until_ns - now_ns)

    def add(self) -> None:
        self.added += 1
        self.under_way += 1

    def ends(self, *, pending: bool) -> None:
        """Ends one addition: it is stored, so that counts from now on find it, or it has failed (`pending` is
        False)."""
        self.under_way = max(0, self.under_way - 1)
        if not pending:
            self.added = max(0, self.added - 1)

    def count_begins(self) -> None:
        self._counting_from = self.added - self.under_way

    def count_ends(self, counted: int, now_ns: int) -> None:
        self.counted = min(counted, self.limit)
        self.added = max(0, self.added - self._counting_from)
        self.failing = False
        pause_s = max(COUNT_EVERY_S if self.full else AGAIN_S, counted / COUNTED_PER_S)
        self._quiet_until_ns = now_ns + int(pause_s * NS)

    def count_failed(self, now_ns: int) -> None:
        """The use is unknown from now on: requests are allowed."""
        self.counted = None
        self.failing = True
        self._quiet_until_ns = now_ns + COUNT_EVERY_S * NS
