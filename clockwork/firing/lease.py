"""The lease of a shard: what an incarnation remembers of a shard that it owns, from the take-over to the release.

A row that a pass has planned is *in flight* from the moment that it is handed to delivery until its end is decided and it
awaits cleanup, or until it is known not to have been sent and, if it was refused, its retry mark is written. There is no
moment in between at which it is neither (docs/protocol.md: x-lanes-out, x-lanes-order, x-lanes-refused).
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field

from clockwork.domain.destination import Destination
from clockwork.domain.planning import SHARE_FREE_ROWS, BlockedPrefix
from clockwork.domain.position import Position, due_ms_of
from clockwork.domain.schedule import Lane
from clockwork.domain.sharding import ShardId
from clockwork.firing.cleanup import Cleanup
from clockwork.firing.incarnation import RunningIncarnation


@dataclass(frozen=True, slots=True)
class TopicInFlight:
    """The rows of one destination that are in flight."""

    rows: int
    last_progress_s: float
    """The later of two loop times: when the oldest of these rows was handed to delivery, and when a row of the
    destination last landed. The age of the oldest row alone would not do: in a long queue that moves, every row is
    old."""


class RowsInFlight:
    """The rows of one lease that are in flight, each with its lane (None: it has no readable one)."""

    def __init__(self) -> None:
        self.on_landing: Callable[[], None] = lambda: None
        """Called when rows have left flight and a pass may be due because of it. The shard's loop sets it."""
        self.awaited = False
        """True if the last pass found rows that wait for these, or could not take more rows because of them."""
        self.awaited_share: Destination | None = None
        """The destination at which the last pass ended, because its share of these rows was used up."""
        self.size_bytes = 0
        """Content of the rows, which is kept in memory."""
        self._rows: dict[Position, tuple[Lane | None, int]] = {}
        """By position, the lane and the bytes of content."""
        self._rows_of: Counter[Lane] = Counter()
        self._since_s: dict[Destination, dict[Position, float]] = {}
        """By destination, the time at which each of its rows was handed over, in that order."""
        self._landed_s: dict[Destination, float] = {}
        """By destination that has rows in flight, the time at which one of them last landed."""

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, position: Position) -> bool:
        return position in self._rows

    def add(self, position: Position, lane: Lane | None, size_bytes: int) -> None:
        """Records that the row was handed to delivery."""
        self._rows[position] = (lane, size_bytes)
        self.size_bytes += size_bytes
        if lane is not None:
            self._rows_of[lane] += 1
            self._since_s.setdefault(lane[0], {})[position] = asyncio.get_running_loop().time()

    def remove(self, positions: Iterable[Position], *, unsent: bool = False) -> None:
        """Takes the rows out of flight. They were added to the cleanup before this call; or, if `unsent`, they are to
        be read again."""
        now_s = asyncio.get_running_loop().time()
        for position in positions:
            lane, size_bytes = self._rows.pop(position, (None, 0))
            self.size_bytes -= size_bytes
            if lane is None:
                continue
            self._rows_of[lane] -= 1
            if not self._rows_of[lane]:
                del self._rows_of[lane]
            of_topic = self._since_s[lane[0]]
            del of_topic[position]
            if not unsent:
                self._landed_s[lane[0]] = now_s
            if not of_topic:
                del self._since_s[lane[0]]
                self._landed_s.pop(lane[0], None)
        if unsent or self.awaited or self.share_is_free:
            self.on_landing()

    @property
    def share_is_free(self) -> bool:
        """True if the destination whose share was used up may have a good part of it again."""
        destination = self.awaited_share
        return destination is not None and len(self._since_s.get(destination, ())) <= SHARE_FREE_ROWS

    def blocks(self, lane: Lane) -> bool:
        """True if rows of the lane are in flight now."""
        return lane in self._rows_of

    def positions(self) -> frozenset[Position]:
        """Positions of the rows in flight. Take the copy *before* the query is sent, as with `Cleanup.positions`."""
        return frozenset(self._rows)

    def lanes(self) -> Set[Lane]:
        """The lanes that have rows in flight; a copy, to be taken before the query is sent."""
        return frozenset(self._rows_of)

    def topics(self) -> Mapping[Destination, TopicInFlight]:
        """The destinations of these rows; a copy, to be taken before the query is sent."""
        return {
            destination: TopicInFlight(
                len(since_s), max(next(iter(since_s.values())), self._landed_s.get(destination, 0.0))
            )
            for destination, since_s in self._since_s.items()
        }


@dataclass(kw_only=True, slots=True)
class ShardLease:
    """One incarnation's ownership of one shard at one epoch, and the memory that belongs to it. Not a lease in time: nothing
    of it expires or is renewed; it ends by release, or with the incarnation."""

    shard: ShardId
    epoch: int
    floor_ms: int
    """As stored at the take-over."""
    incarnation: RunningIncarnation
    cleanup: Cleanup
    in_flight: RowsInFlight = field(default_factory=RowsInFlight)
    announced_not_before_ms: dict[Position, int] = field(default_factory=dict)
    """Time until which this owner has announced that a row waits. Remembered *before* the retry mark is sent, and kept to
    whatever becomes of that write: a write whose answer was lost, or an older copy of it, may be applied long after
    the next passes. If the row had fired meanwhile, a cancel would believe the late mark and answer `cancelled` for a
    delivered row. Never lowered, for the same reason (docs/protocol.md: x-no-promise)."""
    blocked_prefix: BlockedPrefix | None = None
    """Set by the passes, dropped by `open_prefix`."""
    woken_due_ms: int | None = None
    """The lowest time that a wake-up named since the present or last pass began to read."""
    blocked_lanes: dict[Lane, int] = field(default_factory=dict)
    """The lanes that waited in the last pass behind the blocked prefix, and until when."""
    fallback_until_ms: dict[Position, int] = field(default_factory=dict)
    """Rows whose dead letters their client's topic refused for their content, and until when these go to the
    cluster's topic without being offered again. Otherwise, while the cluster's topic is in back-off, every pass would
    offer them once more, and a cancel would never find them waiting."""
    pointer_pushed_ms: dict[Position, int] = field(default_factory=dict)
    """Waiting rows whose pointers were given a later expiry, and when."""
    backlog: bool = False
    """The last pass ended at a limit: read large pages."""

    def open_prefix(self, due_ms: int) -> None:
        """Drops the blocked prefix if it reaches this time, because a wake-up says that a row due then is new. The row
        may stand within the prefix, which no pass reads, while the next row of its lane stands behind it.

        Called by `ShardLoop.tell` itself, not between passes: a pass that waits for its gate would begin behind the prefix.
        A pass that has begun notices by `woken_due_ms`: it hands nothing over that it read behind a prefix which reaches
        this time, and remembers no prefix that does.
        """
        if self.woken_due_ms is None or due_ms < self.woken_due_ms:
            self.woken_due_ms = due_ms
        if self.blocked_prefix is not None and due_ms <= due_ms_of(self.blocked_prefix.last):
            self.blocked_prefix = None

    @property
    def frontier_ms(self) -> int:
        """The frontier of the incarnation, as stored."""
        return self.incarnation.frontier_ms

    @property
    def idle(self) -> bool:
        """True if nothing of the shard is in flight and everything is cleaned up: it may be released."""
        return not self.in_flight and not len(self.cleanup)
