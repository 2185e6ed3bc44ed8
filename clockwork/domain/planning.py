"""Planning of one pass: which rows of a page fire, in order, and what each waiting row blocks.

A lane is the schedules with one destination and one ordering key. Rows come in position order. A row that must wait
(its `retry.at` lies ahead, its destination is missing, its transaction is not applied yet) blocks its lane: the rows
behind it in the same lane wait too, and no other row does (docs/protocol.md: x-lane, x-move-order). So does a row that an
earlier pass has handed to delivery, until it has landed (docs/protocol.md: x-lanes-out, x-lanes-order).

A held row that would fire fires only after its hold was dropped. A held row that only waits gets a *retry mark*:
`retry = {at, epoch of this owner}` announces until when it certainly waits, so that a cancel may have it. It does not
fire before that time, even if its lane becomes free earlier. A row of `at_least_once` gets no retry mark: past its
due time a zombie may have sent it, so no cancel of it may be granted any more (docs/protocol.md: x-alo-retry-cancel).
A row that waits for rows in flight gets none here either: that is over in milliseconds, and the mark would hold it back
for a second. If it is not over, its cancel asks for the row by itself (`ShardPass.answer_wanted`).

Rows in flight are bounded for each destination, so that one that answers nothing cannot use up the shard's room:

    healthy   up to `TOPIC_ROWS_MAX`; then the pass ends and waits: reading on behind a long backlog that is being delivered
              would cost a read of all of it for each batch
    slow      rows of it are in flight and none has landed for a second, or it is probed after a refusal: `PROBE_ROWS_MAX`
              rows; the others wait, and the pass reads on past them
"""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Set
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from clockwork.domain.dead_letters import DeadLetterTopics
from clockwork.domain.destination import Destination
from clockwork.domain.marker import ENTRIES_MAX
from clockwork.domain.pauses import NOTHING_PAUSED, Pauses
from clockwork.domain.position import Position
from clockwork.domain.retry import RetryPolicy
from clockwork.domain.schedule import EXPIRED, TIMED_OUT, BrokenRow, Failure, Guarantee, Lane, OnLate, Retry, Row

RETRY_SLACK_MS: Final = 30_000
"""Time that a stored `retry` may lie beyond the longest back-off: retry marks also announce other waits, and clocks
differ."""

PAUSE_CHECK_MS: Final = 5_000
"""Delay after which a paused lane is planned again if nothing was resumed before."""

ROOM_ROWS: Final = ENTRIES_MAX // 2
"""Rows of one shard in flight or awaiting cleanup. All shards share the markers of two slots: one shard may fill half of
one, then its own passes wait, and no other shard does."""
TOPIC_ROWS_MAX: Final = ROOM_ROWS // 2
"""Rows of one destination in flight, of one shard: room for two full batches, and as much is left for the others."""
SHARE_FREE_ROWS: Final = TOPIC_ROWS_MAX // 2
"""A healthy destination that has used up its share gets its next pass when no more than these rows are in flight. Each
pass reads the rows in flight once more, so a pass for each landing of a few rows would cost more than the
deliveries."""
PROBE_ROWS_MAX: Final = 50
"""The same for a slow destination: as many as a quick transaction takes."""
SLOW_AFTER_MS: Final = 1_000
"""A destination is slow if it has rows in flight and none of them has landed for longer. It is also the time for the
sends of a quick transaction."""

PREFIX_LANES_MAX: Final = 10_000
"""Lanes that a blocked prefix remembers, some two megabytes for each shard."""


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
    def is_watchdog(self) -> bool:
        """True for the time-out of an open run of a job: nothing is sent for it, and no metric counts it."""
        return isinstance(self.row, Row) and self.row.is_watchdog

    @property
    def guarantee(self) -> Guarantee:
        """Unreadable rows, watchdogs, and rows whose deadline has passed, end like exactly_once rows: inside the
        transaction."""
        if not isinstance(self.row, Row) or (self.failure is not None and self.failure.reason in (EXPIRED, TIMED_OUT)):
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
    lanes: dict[Lane, int]
    """The blocked lanes of these rows, and until when each waits. This and the next two are shared between passes: each
    adds its own, none copies them."""
    destinations: dict[Destination, int] = field(default_factory=dict)
    """Destinations of these rows that wait as a whole, and until when as far as it was known: one entry for any number of
    lanes. While one of them does not wait any more, passes read from the start; see `Planner.waits_as_a_whole`."""
    awaits: set[Lane] = field(default_factory=set)
    """The other lanes of these rows, which have rows in flight. Once one of them has none, the rows are read again."""
    until_ms: int
    """The time from which the rows are read again, because the first wait of a lane ends or a scan is due."""
    read_since_ms: int
    """Time at which a pass began to read this prefix, at its lowest position."""
    rows: int
    oldest_due_ms: int | None

    def blocked_until_ms(self, lane: Lane) -> int | None:
        """Time until which the lane waits, as far as it was known; None if rows of it behind this prefix may fire."""
        until_ms = self.lanes.get(lane)
        return until_ms if until_ms is not None else self.destinations.get(lane[0])

    @property
    def entries(self) -> int:
        return len(self.lanes) + len(self.destinations) + len(self.awaits)


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

    `bound_ms` is the earlier of the begin of the pass and the stored frontier: no row that is due later fires.
    `left_out` are the rows that were delivered and not yet deleted, or in flight, when the pass began, and
    `lanes_in_flight` the lanes of the latter.
    """

    bound_ms: int
    epoch: int
    left_out: Set[Position]
    destination_waits: Mapping[Destination, DestinationWait]
    dead_letter_topics: DeadLetterTopics
    """While the topic of a row's dead letter is in back-off, the row waits, and blocks only its lane."""
    retry: RetryPolicy
    limits: BatchLimits
    lanes_in_flight: Set[Lane] = frozenset()
    rows_in_flight: Mapping[Destination, int] = field(default_factory=dict)
    """By destination, as of the begin of the pass."""
    slow: Set[Destination] = frozenset()
    """Destinations of which few rows may be in flight at once."""
    prefix_due_ms_max: int | None = None
    """The blocked prefix ends before a row that is due later than this; None: it may reach up to the bound."""
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
    awaits_landing: bool = False
    """Rows wait for rows in flight."""
    awaits_share: Destination | None = None
    """The pass ended at this destination, which has as many rows in flight as it may have."""
    lanes_awaiting: set[Lane] = field(default_factory=set)
    """Lanes of rows that wait until rows in flight have landed, of their lane or of their destination."""
    skipped: BlockedPrefix | None = None
    """The blocked prefix behind which the pass began."""
    next_due_ms: int | None = None
    """Due time of the first row beyond the bound."""
    waits_until_ms: int | None = None
    """The earliest time at which a blocked lane may go on, rate limits apart."""
    rate_limited_until_ms: int | None = None
    """The earliest time at which a destination over its rate limit goes on."""
    due_rows: int = 0
    """Rows seen that are due and not delivered. Watchdogs aside: nothing is sent for these, so nothing of theirs is late."""
    oldest_due_ms: int | None = None
    newer_format_rows: int = 0
    blocked: dict[Lane, int] = field(default_factory=dict)
    """The blocked lanes, and until when as far as it is known; those of the skipped prefix are not in it."""
    prefix_last: Position | None = None
    """The last row of the blocked prefix; see `_extend_prefix`."""
    prefix_rows: int = 0
    prefix_lanes: dict[Lane, int] = field(default_factory=dict)
    """This and the next two: what this pass adds to the skipped prefix."""
    prefix_destinations: dict[Destination, int] = field(default_factory=dict)
    prefix_awaits: set[Lane] = field(default_factory=set)
    prefix_until_ms: int | None = None
    """The first end of a wait of a lane of the prefix."""
    _prefix_ended: bool = False
    _planned: Counter[Destination] = field(default_factory=Counter)
    _guarantees: dict[Lane, Guarantee] = field(default_factory=dict)
    _bytes: int = 0

    def waits_as_a_whole(self, destination: Destination) -> bool:
        """True if no row of the destination can be delivered in this pass, whatever its lane."""
        wait = self.destination_waits.get(destination)
        return (
            (wait is not None and not wait.given_up)
            or destination in self.paused.topics
            or self.rows_in_flight.get(destination, 0) >= self._rows_max(destination)
        )

    def skip(self, prefix: BlockedPrefix) -> None:
        """Begins behind the blocked prefix that an earlier pass read: its lanes wait. Only if all of its destinations wait
        as a whole, and all lanes that it awaits are in flight."""
        self.skipped = prefix
        self.waits_until_ms = self.prefix_until_ms = prefix.until_ms
        in_flight = {lane[0] for lane in self.lanes_in_flight}
        for destination in prefix.destinations:
            # Also of one that is in back-off: a row of it that lands may end the back-off.
            self.awaits_landing |= destination in in_flight
            wait = self.destination_waits.get(destination)
            if wait is not None and wait.rate_limited:
                self.rate_limited_until_ms = earlier(self.rate_limited_until_ms, wait.until_ms)
            elif wait is not None:
                self.waits_until_ms = earlier(self.waits_until_ms, wait.until_ms)
        self.awaits_landing |= bool(prefix.awaits)
        self.prefix_last = prefix.last
        self.due_rows = self.prefix_rows = prefix.rows
        self.oldest_due_ms = prefix.oldest_due_ms

    def add(self, row: Row | BrokenRow) -> bool:
        """Plans one row. False: add no more, the rest of the shard is not for this pass."""
        if row.due_ms > self.bound_ms:
            self.next_due_ms = row.due_ms
            return False
        if row.position in self.left_out:
            self._extend_prefix(row, left_out=True)
            return True
        if self._is_full(row):
            self.full = True
            return False
        if not (isinstance(row, Row) and row.is_watchdog):
            self.due_rows += 1
            if self.oldest_due_ms is None:
                self.oldest_due_ms = row.due_ms
        goes_on = self._add_broken(row) if isinstance(row, BrokenRow) else self._add_readable(row)
        self._extend_prefix(row)
        return goes_on

    def block(self, lane: Lane, until_ms: int) -> None:
        """Rows behind this point in the lane wait until then."""
        self.blocked[lane] = max(self.blocked.get(lane, 0), until_ms)
        self.waits_until_ms = earlier(self.waits_until_ms, until_ms)

    def blocked_until_ms(self, lane: Lane) -> int | None:
        """Time until which the lane waits, as far as it is known; None if it is not blocked."""
        until_ms = self.blocked.get(lane)
        if until_ms is None and self.skipped is not None:
            return self.skipped.blocked_until_ms(lane)
        return until_ms

    # --- one row; the answer is False if the pass ends with it

    def _add_readable(self, row: Row) -> bool:
        if row.is_watchdog:
            # Nothing is sent, so nothing can be in its way: no lane, no topic, no pause, nor does it stand in the way.
            failure = Failure(reason=TIMED_OUT, attempts=0)
            return self._fire(PlannedDelivery(row=row, action=Action.DROP, failure=failure))
        lane = row.schedule.lane
        if self._awaits_landing(lane):
            return True
        blocked_until_ms = self.blocked_until_ms(lane)
        if blocked_until_ms is not None:
            self._mark(row, blocked_until_ms)
            return True
        until_ms = self._own_wait_until_ms(row)
        if until_ms > self.bound_ms:
            self._wait(row, until_ms)
            return True
        if self.paused.applies_to(row):
            # Before anything that could end the row: its deadline is checked when delivery goes on.
            self._wait(row, self.bound_ms + PAUSE_CHECK_MS)
            return True
        destination = lane[0]
        wait = self.destination_waits.get(destination)
        planned = self._planned_end(row, wait)
        if planned.failure is None and wait is not None:
            self._wait_for_destination(row, wait)
            return True
        if self._guarantees.setdefault(lane, planned.guarantee) != planned.guarantee:
            # A lane with both guarantees sends one kind at a time: the transaction and the plain producer would race.
            self.block(lane, self.bound_ms)
            return True
        if planned.action is Action.DEAD_LETTER:
            dead_letter_wait = self._dead_letter_wait(row)
            if dead_letter_wait is not None:
                self._wait(row, dead_letter_wait.until_ms)
                return True
        return self._deliver(planned, row) if planned.action is Action.DELIVER else self._fire(planned)

    def _deliver(self, planned: PlannedDelivery, row: Row) -> bool:
        """Fires a row to its destination, if that takes one more now."""
        destination = row.schedule.lane[0]
        slow = destination in self.slow
        if self.rows_in_flight.get(destination, 0) + self._planned[destination] >= self._rows_max(destination):
            self.lanes_awaiting.add(row.schedule.lane)
            if not slow:
                self.awaits_share = destination
                # If nothing lands until then it is slow, and the next pass reads on past its rows.
                self.waits_until_ms = earlier(self.waits_until_ms, self.bound_ms + SLOW_AFTER_MS)
                return False
            self.awaits_landing = True
            if self._planned[destination]:
                # The next pass knows that the destination has its rows, and reads on past the others.
                self.full = True
            return not self.full
        rate_limit = self.take_token(destination)
        if rate_limit is not None:
            # The destination has all the rows that it may have. The next pass knows of its wait and reads on past its
            # rows.
            self._wait_for_destination(row, rate_limit)
            self.full = True
            return False
        self._planned[destination] += 1
        return self._fire(planned)

    def _add_broken(self, row: BrokenRow) -> bool:
        lane = row.lane
        if row.newer_format:
            self.newer_format_rows += 1
            if lane is not None:
                # The end of this wait is not known, so the lane is not planned again before the next scan.
                self.blocked[lane] = max(self.blocked.get(lane, 0), self.bound_ms)
            return True
        if lane is not None:
            if self._awaits_landing(lane) or self.blocked_until_ms(lane) is not None:
                return True
            if self._guarantees.setdefault(lane, Guarantee.EXACTLY_ONCE) != Guarantee.EXACTLY_ONCE:
                self.block(lane, self.bound_ms)
                return True
        if self.paused.applies_to(row):
            if lane is not None:
                self.block(lane, self.bound_ms + PAUSE_CHECK_MS)
            return True
        dead_letter_wait = self._dead_letter_wait(row)
        if dead_letter_wait is not None:
            if lane is not None:
                self.block(lane, dead_letter_wait.until_ms)
            return True
        failure = Failure(reason="unreadable", attempts=0)
        return self._fire(PlannedDelivery(row=row, action=Action.DEAD_LETTER, failure=failure))

    def _planned_end(self, row: Row, wait: DestinationWait | None) -> PlannedDelivery:
        """The end that the row has now unless its destination blocks it."""
        schedule = row.schedule
        attempts = row.retry.attempts if row.retry is not None else 0
        last_refusal = row.retry.last_refusal if row.retry is not None else None
        late = schedule.deadline_ms is not None and self.bound_ms > row.due_ms + schedule.deadline_ms
        if late and schedule.on_late is not OnLate.DELIVER:
            action = Action.DROP if schedule.on_late is OnLate.DROP else Action.DEAD_LETTER
            reason = EXPIRED
        elif wait is not None and wait.given_up:
            action, reason = Action.DEAD_LETTER, wait.reason
        elif (schedule.retry or self.retry).exhausted(attempts):
            action, reason = Action.DEAD_LETTER, "attempts_exhausted"
        else:
            return PlannedDelivery(row=row, action=Action.DELIVER)
        failure = Failure(reason=reason, attempts=attempts, last_refusal=last_refusal)
        return PlannedDelivery(row=row, action=action, failure=failure)

    def _fire(self, planned: PlannedDelivery) -> bool:
        self.deliveries.append(planned)
        self._bytes += planned.size_bytes
        return True

    # --- waits

    def _awaits_landing(self, lane: Lane) -> bool:
        """True if the row waits, with all behind it in its lane, for rows in flight."""
        if lane not in self.lanes_in_flight and lane not in self.lanes_awaiting:
            return False
        self.lanes_awaiting.add(lane)
        self.awaits_landing = True
        return True

    def _rows_max(self, destination: Destination) -> int:
        return PROBE_ROWS_MAX if destination in self.slow else TOPIC_ROWS_MAX

    def _wait(self, row: Row, until_ms: int) -> None:
        self.block(row.schedule.lane, until_ms)
        self._mark(row, until_ms)

    def _wait_for_destination(self, row: Row, wait: DestinationWait) -> None:
        if not wait.rate_limited:
            self._wait(row, wait.until_ms)
            return
        lane = row.schedule.lane
        self.blocked[lane] = max(self.blocked.get(lane, 0), wait.until_ms)
        self.rate_limited_until_ms = earlier(self.rate_limited_until_ms, wait.until_ms)
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
        return retry_applies(row, retry, epoch=self.epoch, now_ms=self.bound_ms, policy=self.retry)

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

    def _extend_prefix(self, row: Row | BrokenRow, *, left_out: bool = False) -> None:
        """The blocked prefix is the run of waiting (or delivered) rows at the lowest positions. It ends before the
        first row that fires, and before one that is due later than `prefix_due_ms_max`."""
        if self._prefix_ended:
            return
        lane = lane_of(row)
        if (
            self.deliveries
            or (self.prefix_due_ms_max is not None and row.due_ms > self.prefix_due_ms_max)
            # A row in flight may have to be read again, and nothing would tell when.
            or (left_out and lane is None)
            or not self._remember_wait(lane, left_out=left_out)
        ):
            self._prefix_ended = True
            return
        self.prefix_last = row.position
        self.prefix_rows += not left_out

    def _remember_wait(self, lane: Lane | None, *, left_out: bool) -> bool:
        """Adds the reason for which a row waits to the prefix. False if there is no room for it."""
        if lane is None:
            return True
        before = self.skipped
        if lane in self.lanes_in_flight:
            if before is not None and (lane[0] in before.destinations or lane in before.awaits):
                return True
            if not self.waits_as_a_whole(lane[0]):
                self.prefix_awaits.add(lane)
                return self._prefix_has_room()
        elif left_out:
            return True  # delivered
        elif lane in self.lanes_awaiting and not self.waits_as_a_whole(lane[0]):
            return False  # it waits for rows of other lanes, and nothing would tell when they land
        until_ms = self.blocked_until_ms(lane) or self.bound_ms
        if self.waits_as_a_whole(lane[0]):
            if before is None or lane[0] not in before.destinations:
                self.prefix_destinations[lane[0]] = until_ms
        elif lane in self.blocked:
            self.prefix_lanes[lane] = until_ms
            if until_ms > self.bound_ms:
                self.prefix_until_ms = earlier(self.prefix_until_ms, until_ms)
        return self._prefix_has_room()

    def _prefix_has_room(self) -> bool:
        entries = len(self.prefix_lanes) + len(self.prefix_destinations) + len(self.prefix_awaits)
        return entries + (self.skipped.entries if self.skipped is not None else 0) <= PREFIX_LANES_MAX

    def _is_full(self, row: Row | BrokenRow) -> bool:
        return len(self.deliveries) >= self.limits.records_max or (
            bool(self.deliveries) and self._bytes + _size_bytes(row) > self.limits.bytes_max
        )


def lowest_positions(deliveries: Iterable[PlannedDelivery]) -> dict[Lane, Position]:
    """The lowest position in each lane; rows without a readable lane have none."""
    lowest: dict[Lane, Position] = {}
    for each in deliveries:
        if each.lane is not None:
            lowest[each.lane] = min(each.row.position, lowest.get(each.lane, each.row.position))
    return lowest


def without_lanes(
    deliveries: Iterable[PlannedDelivery], lowest: Mapping[Lane, Position], *, rows: Container[Position] = ()
) -> list[PlannedDelivery]:
    """The deliveries without those that stand, in one of these lanes, at or behind the position given for it. `rows`:
    positions of single rows to leave out, of those that have no readable lane and so no rows behind them.

    One look at each delivery, however many were refused: a topic that is given up refuses thousands at once.
    """

    def stays(each: PlannedDelivery) -> bool:
        if each.lane is None:
            return each.row.position not in rows
        first = lowest.get(each.lane)
        return first is None or each.row.position < first

    return [each for each in deliveries if stays(each)]


def retry_applies(row: Row, retry: Retry, *, epoch: int, now_ms: int, policy: RetryPolicy) -> bool:
    """True if the stored retry mark makes the row wait. A mark of the present owner always does, since a cancel may
    believe it. A mark of an earlier owner does not if it lies farther ahead than any wait: that owner's clock was
    wrong, and the row would wait for as long. `policy`: the cluster's."""
    if retry.at_ms <= now_ms:
        return False
    longest_ms = max(policy.backoff.max_ms, row.schedule.retry.backoff.max_ms if row.schedule.retry else 0)
    return retry.epoch == epoch or retry.at_ms <= now_ms + longest_ms + RETRY_SLACK_MS


def announced_at_ms(row: Row, at_ms: int, *, epoch: int, announced_not_before_ms: Mapping[Position, int]) -> int:
    """The time that the owner of `epoch` announces for a row that is to wait until `at_ms`: never before the time that it
    announced last, whether or not that was stored, nor before a stored one of this epoch.

    A lowered time would make a cancel lie: a late copy of the earlier mark sets the later time again, the cancel believes
    it, and meanwhile the row has fired by the lower one (docs/design.md, 5.4).
    """
    stored_ms = row.retry.at_ms if row.retry is not None and row.retry.epoch == epoch else 0
    return max(at_ms, stored_ms, announced_not_before_ms.get(row.position, 0))


def earlier(one_ms: int | None, other_ms: int | None) -> int | None:
    """The earlier of two times, of which each may be unknown."""
    return min((ms for ms in (one_ms, other_ms) if ms is not None), default=None)


def lane_of(row: Row | BrokenRow) -> Lane | None:
    """The lane of a row. None if it cannot be read, and for a watchdog, which has none: nothing is sent for it."""
    if isinstance(row, BrokenRow):
        return row.lane
    return None if row.is_watchdog else row.schedule.lane


def _size_bytes(row: Row | BrokenRow) -> int:
    return row.schedule.size_bytes if isinstance(row, Row) else len(row.raw) + 512
