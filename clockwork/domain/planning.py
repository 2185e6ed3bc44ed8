"""Planning of one pass: which rows of a page fire, in order, and what each waiting row blocks.

A lane is the schedules with one destination and one ordering key. Rows come in position order. A row that must wait
(its `retry.at` lies ahead, its destination is missing, its transaction is not applied yet) blocks its lane: the rows
behind it in the same lane wait too, and no other row does (docs/protocol.md: x-lane, x-move-order).

A held row that would fire fires only after its hold was dropped. A held row that only waits gets a *retry mark*:
`retry = {at, epoch of this owner}` announces until when it certainly waits, so that a cancel may have it. It does not
fire before that time, even if its lane becomes free earlier. A row of `at_least_once` gets no retry mark: past its
due time a zombie may have sent it, so no cancel of it may be granted any more (docs/protocol.md: x-alo-retry-cancel).
"""

from collections.abc import Callable, Container, Mapping, Set
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from clockwork.domain.dead_letters import DeadLetterTopics
from clockwork.domain.destination import Destination
from clockwork.domain.pauses import NOTHING_PAUSED, Pauses
from clockwork.domain.position import Position
from clockwork.domain.retry import RetryPolicy
from clockwork.domain.schedule import EXPIRED, BrokenRow, Failure, Guarantee, Lane, OnLate, Retry, Row

RETRY_SLACK_MS: Final = 30_000
"""Time that a stored `retry` may lie beyond the longest back-off: retry marks also announce other waits, and clocks
differ."""

PAUSE_CHECK_MS: Final = 5_000
"""Delay after which a paused lane is planned again if nothing was resumed before."""


class Action(StrEnum):
    """End that a row is to have."""

    DELIVER = "deliver"
    DEAD_LETTER = "dead_letter"
    DROP = "drop"
    """Nothing is sent: only the marker says that the row ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedDelivery:
    """One row that fires in this pass."""

    row: Row | BrokenRow
    action: Action
    failure: Failure | None = None
    """The reason for a dead letter or a drop; None for a delivery."""

    @property
    def lane(self) -> Lane | None:
        return lane_of(self.row)

    @property
    def held(self) -> bool:
        """True if a hold is to be dropped first. An unreadable row may bear one: a cancel that set it before the row
        was due would otherwise delete the row and answer `cancelled` beside the dead letter."""
        return isinstance(self.row, BrokenRow) or self.row.hold is not None

    @property
    def guarantee(self) -> Guarantee:
        """Unreadable rows, and rows whose deadline has passed, end like exactly_once rows: inside the transaction."""
        if not isinstance(self.row, Row) or (self.failure is not None and self.failure.reason == EXPIRED):
            return Guarantee.EXACTLY_ONCE
        return self.row.schedule.guarantee

    @property
    def size_bytes(self) -> int:
        return _size_bytes(self.row)


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryMark:
    """A held row that only waits, and until when."""

    row: Row
    until_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DestinationWait:
    """A destination that is not sent to at present."""

    until_ms: int
    """Time of the next probe, or of the next tokens."""
    reason: str
    given_up: bool = False
    """Its wait has ended: its rows become dead letters, without attempts of their own."""
    rate_limited: bool = False
    """It takes records and is at its rate limit; it goes on with the rows at the lowest positions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockedPrefix:
    """Rows at the lowest positions of a shard that are known to wait, so that passes do not read them again."""

    last: Position
    """The next pass reads on behind it."""
    lanes: Mapping[Lane, int]
    """The blocked lanes of these rows, and until when each waits."""
    until_ms: int
    """From here on the rows are read again: the first of the waits ends, or a scan is due."""
    read_since_ms: int
    """Time at which a pass began to read this prefix, at its lowest position."""
    rows: int
    oldest_due_ms: int | None
    rate_limited: frozenset[Destination] = frozenset()
    """Destinations of these rows that wait for their rate limit only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLimits:
    """Bounds of one pass: rows and bytes in memory and in one transaction."""

    records_max: int
    bytes_max: int


def _without_rate_limit(_: Destination) -> DestinationWait | None:
    return None


@dataclass(kw_only=True, slots=True)
class Planner:
    """Takes the rows of one pass in position order and plans which of them fire.

    `bound_ms` is the time at which the pass began, with the frontier at or past it: no row that is due later fires.
    `left_out` are the rows that were delivered and not yet deleted when the pass began.
    """

    bound_ms: int
    epoch: int
    left_out: Set[Position]
    destination_waits: Mapping[Destination, DestinationWait]
    dead_letter_topics: DeadLetterTopics
    """While the topic of a row's dead letter is in back-off, the row waits, and blocks only its lane."""
    retry: RetryPolicy
    limits: BatchLimits
    announced_not_before_ms: Mapping[Position, int] = field(default_factory=dict)
    """Times until which this owner has announced that rows wait, whether or not the retry mark was stored."""
    rejected_by_client_topic: Container[Position] = frozenset()
    """Rows whose dead letters their client's topic has refused, whatever else it takes."""
    paused: Pauses = NOTHING_PAUSED
    take_token: Callable[[Destination], DestinationWait | None] = _without_rate_limit
    """Takes the rate limit's token for one delivery; returns the wait of a destination that has none left."""
    deliveries: list[PlannedDelivery] = field(default_factory=list)
    retry_marks: list[RetryMark] = field(default_factory=list)
    full: bool = False
    """Stopped at a limit: there may be more to fire right now."""
    next_due_ms: int | None = None
    """Due time of the first row beyond the bound."""
    waits_until_ms: int | None = None
    """The earliest time at which a blocked lane may go on, rate limits apart."""
    rate_limited_until_ms: int | None = None
    """The earliest time at which a destination over its rate limit goes on."""
    due_rows: int = 0
    """Rows seen that are due and not delivered."""
    oldest_due_ms: int | None = None
    newer_format_rows: int = 0
    blocked: dict[Lane, int] = field(default_factory=dict)
    """The blocked lanes, and until when as far as it is known."""
    prefix_last: Position | None = None
    """The last row of the blocked prefix; see `_extend_prefix`."""
    prefix_rows: int = 0
    prefix_lanes: dict[Lane, int] = field(default_factory=dict)
    _prefix_ended: bool = False
    _guarantees: dict[Lane, Guarantee] = field(default_factory=dict)
    _bytes: int = 0

    def skip(self, prefix: BlockedPrefix) -> None:
        """Begins behind the blocked prefix that an earlier pass read: its lanes wait, at least one of them not longer
        than `prefix.until_ms`."""
        self.blocked.update(prefix.lanes)
        self.prefix_lanes.update(prefix.lanes)
        self.waits_until_ms = prefix.until_ms
        self.rate_limited_until_ms = min(
            (self.destination_waits[each].until_ms for each in prefix.rate_limited), default=None
        )
        self.due_rows = self.prefix_rows = prefix.rows
        self.oldest_due_ms = prefix.oldest_due_ms

    def add(self, row: Row | BrokenRow) -> bool:
        """Plans one row. False: add no more, the rest of the shard is not for this pass."""
        if row.due_ms > self.bound_ms:
            self.next_due_ms = row.due_ms
            return False
        if row.position in self.left_out:
            if not self._prefix_ended:
                self.prefix_last = row.position
            return True
        if self._is_full(row):
            self.full = True
            return False
        self.due_rows += 1
        if self.oldest_due_ms is None:
            self.oldest_due_ms = row.due_ms
        if isinstance(row, BrokenRow):
            self._add_broken(row)
        else:
            self._add_readable(row)
        self._extend_prefix(row)
        return not self.full

    def block(self, lane: Lane, until_ms: int) -> None:
        """Rows behind this point in the lane wait until then."""
        self.blocked[lane] = max(self.blocked.get(lane, 0), until_ms)
        self.waits_until_ms = until_ms if self.waits_until_ms is None else min(self.waits_until_ms, until_ms)

    # --- one row

    def _add_readable(self, row: Row) -> None:
        lane = row.schedule.lane
        if lane in self.blocked:
            self._mark(row, self.blocked[lane])
            return
        until_ms = self._own_wait_until_ms(row)
        if until_ms > self.bound_ms:
            self._wait(row, until_ms)
            return
        if self.paused.applies_to(row):
            # Before anything that could end the row: its deadline is checked when delivery goes on.
            self._wait(row, self.bound_ms + PAUSE_CHECK_MS)
            return
        destination = lane[0]
        wait = self.destination_waits.get(destination)
        planned = self._planned(row, wait)
        if planned.failure is None and wait is not None:
            self._wait_for_destination(row, wait)
            return
        if self._guarantees.setdefault(lane, planned.guarantee) != planned.guarantee:
            # A lane with both guarantees sends one kind at a time: the transaction and the plain producer would race.
            self.block(lane, self.bound_ms)
            return
        dead_letter_wait = self._dead_letter_wait(row) if planned.action is Action.DEAD_LETTER else None
        if dead_letter_wait is not None:
            self._wait(row, dead_letter_wait.until_ms)
            return
        rate_limit = self.take_token(destination) if planned.action is Action.DELIVER else None
        if rate_limit is None:
            self._fire(planned)
            return
        # All that the destination may have is planned. The next pass knows of its wait and passes its rows by.
        self._wait_for_destination(row, rate_limit)
        self.full = True

    def _add_broken(self, row: BrokenRow) -> None:
        lane = row.lane
        if row.newer_format:
            self.newer_format_rows += 1
            if lane is not None:
                # For an unknown time: no reason to plan it again before the next scan.
                self.blocked[lane] = max(self.blocked.get(lane, 0), self.bound_ms)
            return
        if lane is not None and lane in self.blocked:
            return
        if lane is not None and self._guarantees.setdefault(lane, Guarantee.EXACTLY_ONCE) != Guarantee.EXACTLY_ONCE:
            self.block(lane, self.bound_ms)
            return
        if self.paused.applies_to(row):
            if lane is not None:
                self.block(lane, self.bound_ms + PAUSE_CHECK_MS)
            return
        dead_letter_wait = self._dead_letter_wait(row)
        if dead_letter_wait is not None:
            if lane is not None:
                self.block(lane, dead_letter_wait.until_ms)
            return
        failure = Failure(reason="unreadable", attempts=0)
        self._fire(PlannedDelivery(row=row, action=Action.DEAD_LETTER, failure=failure))

    def _planned(self, row: Row, wait: DestinationWait | None) -> PlannedDelivery:
        """The end of the row now, if only its destination can block it."""
        schedule = row.schedule
        attempts = row.retry.attempts if row.retry is not None else 0
        late = schedule.deadline_ms is not None and self.bound_ms > row.due_ms + schedule.deadline_ms
        if late and schedule.on_late is not OnLate.DELIVER:
            action = Action.DROP if schedule.on_late is OnLate.DROP else Action.DEAD_LETTER
            return PlannedDelivery(row=row, action=action, failure=Failure(reason=EXPIRED, attempts=attempts))
        if wait is not None and wait.given_up:
            failure = Failure(reason=wait.reason, attempts=attempts)
            return PlannedDelivery(row=row, action=Action.DEAD_LETTER, failure=failure)
        if (schedule.retry or self.retry).exhausted(attempts):
            failure = Failure(reason="attempts_exhausted", attempts=attempts)
            return PlannedDelivery(row=row, action=Action.DEAD_LETTER, failure=failure)
        return PlannedDelivery(row=row, action=Action.DELIVER)

    def _fire(self, planned: PlannedDelivery) -> None:
        self.deliveries.append(planned)
        self._bytes += planned.size_bytes

    # --- waits

    def _wait(self, row: Row, until_ms: int) -> None:
        self.block(row.schedule.lane, until_ms)
        self._mark(row, until_ms)

    def _wait_for_destination(self, row: Row, wait: DestinationWait) -> None:
        if not wait.rate_limited:
            self._wait(row, wait.until_ms)
            return
        lane = row.schedule.lane
        self.blocked[lane] = max(self.blocked.get(lane, 0), wait.until_ms)
        self.rate_limited_until_ms = min(wait.until_ms, self.rate_limited_until_ms or wait.until_ms)
        self._mark(row, wait.until_ms)

    def _dead_letter_wait(self, row: Row | BrokenRow) -> DestinationWait | None:
        """The wait of the topic that the row's dead letter goes to; None if the dead letter can be sent."""
        rejected = row.position in self.rejected_by_client_topic
        topic = self.dead_letter_topics.topic_for(row, lambda own: not rejected and self._backoff_of(own) is None)
        return self._backoff_of(topic)

    def _backoff_of(self, destination: Destination) -> DestinationWait | None:
        """The destination's back-off, ignoring its rate limit: dead letters are not rate-limited."""
        wait = self.destination_waits.get(destination)
        return None if wait is None or wait.rate_limited else wait

    def _own_wait_until_ms(self, row: Row) -> int:
        """Time until which the row itself waits, by its stored retry mark or by the announced time; 0 if it does not."""
        stored_ms = row.retry.at_ms if row.retry is not None and self._retry_applies(row, row.retry) else 0
        return max(stored_ms, self.announced_not_before_ms.get(row.position, 0))

    def _retry_applies(self, row: Row, retry: Retry) -> bool:
        """True if the stored retry mark makes the row wait. This owner's own always does: a cancel may believe it. An
        earlier owner's does not if it lies farther ahead than any wait: its clock was wrong, and the row would wait
        for as long."""
        if retry.at_ms <= self.bound_ms:
            return False
        longest_ms = max(self.retry.backoff.max_ms, row.schedule.retry.backoff.max_ms if row.schedule.retry else 0)
        return retry.epoch == self.epoch or retry.at_ms <= self.bound_ms + longest_ms + RETRY_SLACK_MS

    def _mark(self, row: Row, until_ms: int) -> None:
        """Plans a retry mark for a held row that waits."""
        if row.hold is None or row.schedule.guarantee is not Guarantee.EXACTLY_ONCE:
            return
        if row.retry is not None and self._retry_applies(row, row.retry):
            if row.retry.epoch == self.epoch:
                # Marked by this owner already: a cancel can believe it. Another write would only drop the hold of a
                # cancel that is about to decide.
                return
            # The row's own back-off may be longer than that of its lane.
            until_ms = max(until_ms, row.retry.at_ms)
        self.retry_marks.append(RetryMark(row=row, until_ms=until_ms))

    # --- the pass

    def _extend_prefix(self, row: Row | BrokenRow) -> None:
        """The blocked prefix is the run of waiting (or delivered) rows at the lowest positions. It ends before the
        first row that fires."""
        if self._prefix_ended or self.deliveries:
            self._prefix_ended = True
            return
        self.prefix_last = row.position
        self.prefix_rows += 1
        lane = lane_of(row)
        if lane is not None and lane in self.blocked:
            self.prefix_lanes[lane] = self.blocked[lane]

    def _is_full(self, row: Row | BrokenRow) -> bool:
        return len(self.deliveries) >= self.limits.records_max or (
            bool(self.deliveries) and self._bytes + _size_bytes(row) > self.limits.bytes_max
        )


def without_lane(deliveries: list[PlannedDelivery], lane: Lane | None, *, after: Position) -> list[PlannedDelivery]:
    """The deliveries without the row at `after` and without the rows behind it in its lane. A row without a readable
    lane (`lane` is None) has no rows behind it."""
    return [
        each
        for each in deliveries
        if each.row.position < after or (each.row.position != after and (lane is None or each.lane != lane))
    ]


def lane_of(row: Row | BrokenRow) -> Lane | None:
    """The lane of a row; None if it cannot be read."""
    return row.schedule.lane if isinstance(row, Row) else row.lane


def _size_bytes(row: Row | BrokenRow) -> int:
    return row.schedule.size_bytes if isinstance(row, Row) else len(row.raw) + 512
