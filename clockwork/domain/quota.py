"""What is left of a limit whose use can be counted, but not at every request: what was counted last, and what was added
here since.

A count is worth its price when a stated part of what it left is used up: far below the limit hardly ever, near it often.
And it is paced by its price: so many counted, so long no other. Between two counts others may add as well, and what was
counted or added may end; so this is an estimate, and whoever limits by it has a soft limit. Only a count can say that the
limit is reached (`full`); the estimate (`seems_full`) says no more than that it is time for one.

    unknown ──── count ────► known ──── a part of what was left is added ────► known, to be counted anew
       └── count fails ──► unknown, nobody waits for the next count ── count ──► known

Times are nanoseconds of any clock that never steps back.
"""

from dataclasses import dataclass
from typing import Final

from clockwork.domain.rate import NS

PART: Final = 4
"""A new count once a quarter of what the last one left is used up. With up to four that add at the same time, all of them
notice before the limit; and the counts on the way to 99 % of it are sixteen."""
AGAIN_S: Final = 0.5
"""At most so often while there is room."""
COUNT_EVERY_S: Final = 5
"""At most so often at the limit, and where counts fail: asking more often makes no room."""
COUNTED_PER_S: Final = 10_000
"""What a count may cost: after one that found a million, the next may begin after 100 s."""


@dataclass(kw_only=True, slots=True)
class Quota:
    """Of one who is limited."""

    limit: int
    counted: int | None = None
    """By the last count; at most the limit. None: not known."""
    added: int = 0
    """Since that count began: what came while it went on may be in both."""
    under_way: int = 0
    """Of what was added: not stored yet, for all that is known, so that a count may miss it."""
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
        """The last count said so."""
        return self.counted == self.limit

    @property
    def seems_full(self) -> bool:
        """As far as is known; what is not known is not full."""
        return self.left == 0

    @property
    def in_doubt(self) -> bool:
        """Whether a count is worth waiting for."""
        return self.seems_full or (self.counted is None and not self.failing)

    def wants_count(self, now_ns: int) -> bool:
        """Whether somebody should count now."""
        if now_ns < self._quiet_until_ns:
            return False
        return self.counted is None or self.added * PART >= self.limit - self.counted

    def quiet_ns(self, now_ns: int) -> int:
        """How long there will be no count; 0: one may begin."""
        return max(0, self._quiet_until_ns - now_ns)

    def add(self) -> None:
        self.added += 1
        self.under_way += 1

    def ends(self, *, pending: bool) -> None:
        """What was added has been stored, so that a count finds it that begins from now on; or has come to nothing."""
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
        """Nothing is known any more: what is not known to be full is let through."""
        self.counted = None
        self.failing = True
        self._quiet_until_ns = now_ns + COUNT_EVERY_S * NS
