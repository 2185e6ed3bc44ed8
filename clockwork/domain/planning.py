"""From the rows of a page to what may be fired, in order, and what each waiting row holds back.

A lane is the schedules with one topic and one ordering key. Rows come in position order. A row that must wait (its
`retry.at` lies ahead, its topic is missing, its transaction is not applied yet) blocks its lane: what stands behind it
in the same lane waits too, and nothing else does (docs/protocol.md: x-lane, x-move-order).

A held row that would be fired is fired only after its hold was taken off. A held row that only waits is to be
*stamped*: told, by `retry = {at, epoch of this owner}`, until when it certainly waits, so that a cancel may have it. It
is then not fired before that time, even if its lane becomes free earlier. A row of `at_least_once` is never stamped:
past its due time a zombie may have sent it, so no cancel of it may be granted any more (x-alo-retry-cancel).
"""

from collections.abc import Callable, Container, Mapping, Set
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from clockwork.domain.dead_letters import DeadLetterTopics
from clockwork.domain.destination import Topic
from clockwork.domain.pauses import NOTHING_PAUSED, Pauses
from clockwork.domain.position import Position
from clockwork.domain.retry import RetryPolicy
from clockwork.domain.schedule import EXPIRED, BrokenRow, Failure, Guarantee, Lane, OnLate, Retry, Row

RETRY_SLACK_MS: Final = 30_000
"""How much farther ahead than the longest back-off a `retry` may lie: other waits that rows are stamped with, clock skew."""

PAUSE_LOOK_MS: Final = 5_000
"""When a paused lane is looked at again, if nothing was resumed before."""


class Action(StrEnum):
    """What is to be done with a row that fires."""

    DELIVER = "deliver"
    DEAD_LETTER = "dead_letter"
    DROP = "drop"
    """Nothing is sent: only the marker says that it ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedDelivery:
    """One row that fires in this pass."""

    row: Row | BrokenRow
    action: Action
    failure: Failure | None = None
    """For a dead letter, or what is dropped: why."""

    @property
    def lane(self) -> Lane | None:
        return self.row.schedule.lane if isinstance(self.row, Row) else self.row.lane

    @property
    def held(self) -> bool:
        """Whether a hold is to be taken off first. A row that cannot be read may bear one: a cancel that set it before
        the row was due would else delete the row and answer `cancelled` beside the dead letter."""
        return isinstance(self.row, BrokenRow) or self.row.hold is not None

    @property
    def guarantee(self) -> Guarantee:
        """Broken rows, and those whose deadline has passed, end like exactly_once ones: inside the transaction."""
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
    """A topic that takes nothing at present."""

    until_ms: int
    """When it is probed next."""
    reason: str
    given_up: bool = False
    """Its wait is over: its rows become dead letters, without attempts of their own."""
    paced: bool = False
    """It is well, and gets as many records as it may: it goes on with those at the lowest positions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLimits:
    """How much one pass may take into memory and into one transaction."""

    records_max: int
    bytes_max: int


def _unpaced(_: Topic) -> DestinationWait | None:
    return None


@dataclass(kw_only=True, slots=True)
class Planner:
    """Fed the rows of one pass in position order; says what fires.

    `bound_ms` is the time at which the pass began, and the frontier stood at or past it: nothing due later fires.
    `left_out` are the rows delivered and not yet deleted, as remembered when the pass began.
    """

    bound_ms: int
    epoch: int
    left_out: Set[Position]
    destination_waits: Mapping[Topic, DestinationWait]
    letters: DeadLetterTopics
    """While the one that a dead letter goes to takes nothing, its row waits, and holds back its lane only."""
    retry: RetryPolicy
    limits: BatchLimits
    announced_not_before_ms: Mapping[Position, int] = field(default_factory=dict)
    """Until when this owner has said that rows wait, whether or not it was stored."""
    turned_away: Container[Position] = frozenset()
    """Rows whose dead letters their client's topic does not take, whatever it takes else."""
    paused: Pauses = NOTHING_PAUSED
    pace: Callable[[Topic], DestinationWait | None] = _unpaced
    """Counts one delivery to a topic; or says that it waits for its pace."""
    deliveries: list[PlannedDelivery] = field(default_factory=list)
    retry_marks: list[RetryMark] = field(default_factory=list)
    full: bool = False
    """Stopped at a limit: there may be more to fire right now."""
    next_due_ms: int | None = None
    """Due time of the first row beyond the bound."""
    waits_until_ms: int | None = None
    """The earliest time at which a waiting lane may go on, if it waits for more than its topic's pace."""
    paced_until_ms: int | None = None
    """The earliest time at which a topic over its pace goes on."""
    due_rows: int = 0
    """Rows seen that are due and not delivered."""
    oldest_due_ms: int | None = None
    newer_format_rows: int = 0
    blocked: dict[Lane, int] = field(default_factory=dict)
    """The lanes that wait, and until when as far as it is known."""
    front_last: Position | None = None
    """The last of the front: see `_follow_front`."""
    front_rows: int = 0
    front_lanes: dict[Lane, int] = field(default_factory=dict)
    _front_ended: bool = False
    _kinds: dict[Lane, Guarantee] = field(default_factory=dict)
    _bytes: int = 0

    def take(self, row: Row | BrokenRow) -> bool:
        """Plans one row. False: feed no more, the rest of the shard is not for this pass."""
        if row.due_ms > self.bound_ms:
            self.next_due_ms = row.due_ms
            return False
        if row.position in self.left_out:
            if not self._front_ended:
                self.front_last = row.position
            return True
        if self._is_full(row):
            self.full = True
            return False
        self.due_rows += 1
        if self.oldest_due_ms is None:
            self.oldest_due_ms = row.due_ms
        if isinstance(row, BrokenRow):
            self._take_broken(row)
        else:
            self._take_row(row)
        self._follow_front(row)
        return not self.full

    def resume(
        self, lanes: Mapping[Lane, int], *, until_ms: int, rows: int = 0, oldest_due_ms: int | None = None
    ) -> None:
        """Begins behind a front of `rows` waiting rows that an earlier pass read: their lanes wait, at least one of them
        not longer than `until_ms`."""
        self.blocked.update(lanes)
        self.front_lanes.update(lanes)
        self.waits_until_ms = until_ms
        self.due_rows = self.front_rows = rows
        self.oldest_due_ms = oldest_due_ms

    def _wait_for_topic(self, row: Row, wait: DestinationWait) -> None:
        lane = row.schedule.lane
        if wait.paced:
            self.blocked[lane] = max(self.blocked.get(lane, 0), wait.until_ms)
            self.paced_until_ms = min(wait.until_ms, self.paced_until_ms or wait.until_ms)
        else:
            self.wait(lane, wait.until_ms)
        self._stamp(row, wait.until_ms)

    def wait(self, lane: Lane, until_ms: int) -> None:
        """What stands behind this point in the lane waits until then."""
        self.blocked[lane] = max(self.blocked.get(lane, 0), until_ms)
        self.waits_until_ms = until_ms if self.waits_until_ms is None else min(self.waits_until_ms, until_ms)

    def _follow_front(self, row: Row | BrokenRow) -> None:
        """The front is the run of waiting (or delivered) rows at the lowest positions. It ends before the first row
        that fires."""
        if self._front_ended or self.deliveries:
            self._front_ended = True
            return
        self.front_last = row.position
        self.front_rows += 1
        lane = row.schedule.lane if isinstance(row, Row) else row.lane
        if lane is not None and lane in self.blocked:
            self.front_lanes[lane] = self.blocked[lane]

    def _is_full(self, row: Row | BrokenRow) -> bool:
        return len(self.deliveries) >= self.limits.records_max or (
            bool(self.deliveries) and self._bytes + _size_bytes(row) > self.limits.bytes_max
        )

    def _take_broken(self, row: BrokenRow) -> None:
        if row.newer_format:
            self.newer_format_rows += 1
            if row.lane is not None:
                # Nobody knows for how long; it is no reason to look again before the next scan.
                self.blocked[row.lane] = max(self.blocked.get(row.lane, 0), self.bound_ms)
            return
        if row.lane is not None and row.lane in self.blocked:
            return
        if row.lane is not None and self._kinds.setdefault(row.lane, Guarantee.EXACTLY_ONCE) != Guarantee.EXACTLY_ONCE:
            self.wait(row.lane, self.bound_ms)
            return
        if self.paused.hold(row):
            if row.lane is not None:
                self.wait(row.lane, self.bound_ms + PAUSE_LOOK_MS)
            return
        letters_wait = self._letters_wait(row)
        if letters_wait is not None:
            if row.lane is not None:
                self.wait(row.lane, letters_wait.until_ms)
            return
        self._fire(
            PlannedDelivery(row=row, action=Action.DEAD_LETTER, failure=Failure(reason="unreadable", attempts=0))
        )

    def _take_row(self, row: Row) -> None:
        lane = row.schedule.lane
        if lane in self.blocked:
            self._stamp(row, self.blocked[lane])
            return
        until_ms = self._waits_itself_until_ms(row)
        if until_ms > self.bound_ms:
            self.wait(lane, until_ms)
            self._stamp(row, until_ms)
            return
        if self.paused.hold(row):
            # Before anything that could end it: a deadline is looked at when delivery goes on.
            self.wait(lane, self.bound_ms + PAUSE_LOOK_MS)
            self._stamp(row, self.bound_ms + PAUSE_LOOK_MS)
            return
        wait = self.destination_waits.get(row.schedule.topic)
        firing = self._ending(row, wait)
        if firing.failure is None and wait is not None:
            self._wait_for_topic(row, wait)
            return
        if self._kinds.setdefault(lane, firing.guarantee) != firing.guarantee:
            # A lane with both guarantees sends one kind at a time: the transaction and the plain
            # producer would otherwise race each other.
            self.wait(lane, self.bound_ms)
            return
        letters_wait = self._letters_wait(row) if firing.action is Action.DEAD_LETTER else None
        if letters_wait is not None:
            self.wait(lane, letters_wait.until_ms)
            self._stamp(row, letters_wait.until_ms)
            return
        over_its_pace = self.pace(row.schedule.topic) if firing.action is Action.DELIVER else None
        if over_its_pace is None:
            self._fire(firing)
            return
        # What it may have is planned. The next pass knows of its wait, and passes its rows by on the way to others.
        self._wait_for_topic(row, over_its_pace)
        self.full = True

    def _letters_wait(self, row: Row | BrokenRow) -> DestinationWait | None:
        """Why a dead letter of this row waits; None: it does not."""
        away = row.position in self.turned_away
        topic = self.letters.topic_for(row, lambda own: not away and self._refusing(own) is None)
        return self._refusing(topic)

    def _refusing(self, topic: Topic) -> DestinationWait | None:
        """Its wait, if it is more than its pace, which dead letters do not count for."""
        wait = self.destination_waits.get(topic)
        return None if wait is None or wait.paced else wait

    def _ending(self, row: Row, wait: DestinationWait | None) -> PlannedDelivery:
        """How the row would end now, if nothing but its topic can hold it back."""
        schedule = row.schedule
        attempts = row.retry.attempts if row.retry is not None else 0
        late = schedule.deadline_ms is not None and self.bound_ms > row.due_ms + schedule.deadline_ms
        if late and schedule.on_late is not OnLate.DELIVER:
            action = Action.DROP if schedule.on_late is OnLate.DROP else Action.DEAD_LETTER
            return PlannedDelivery(row=row, action=action, failure=Failure(reason=EXPIRED, attempts=attempts))
        if wait is not None and wait.given_up:
            return PlannedDelivery(
                row=row, action=Action.DEAD_LETTER, failure=Failure(reason=wait.reason, attempts=attempts)
            )
        if (schedule.retry or self.retry).exhausted(attempts):
            failure = Failure(reason="attempts_exhausted", attempts=attempts)
            return PlannedDelivery(row=row, action=Action.DEAD_LETTER, failure=failure)
        return PlannedDelivery(row=row, action=Action.DELIVER)

    def _waits_itself_until_ms(self, row: Row) -> int:
        """0: it does not."""
        stored_ms = row.retry.at_ms if row.retry is not None and self._retry_applies(row, row.retry) else 0
        return max(stored_ms, self.announced_not_before_ms.get(row.position, 0))

    def _retry_applies(self, row: Row, retry: Retry) -> bool:
        """Whether it holds the row back. One of our own always does: a cancel may believe it. One of an earlier owner not
        if it lies farther ahead than any wait: its clock was wrong, and the row would wait for as long."""
        if retry.at_ms <= self.bound_ms:
            return False
        longest_ms = max(self.retry.backoff.max_ms, row.schedule.retry.backoff.max_ms if row.schedule.retry else 0)
        return retry.epoch == self.epoch or retry.at_ms <= self.bound_ms + longest_ms + RETRY_SLACK_MS

    def _fire(self, firing: PlannedDelivery) -> None:
        self.deliveries.append(firing)
        self._bytes += firing.size_bytes

    def _stamp(self, row: Row, until_ms: int) -> None:
        if row.hold is None or row.schedule.guarantee is not Guarantee.EXACTLY_ONCE:
            return
        if row.retry is not None and self._retry_applies(row, row.retry):
            if row.retry.epoch == self.epoch:
                # Stamped by this owner already: a cancel can believe it. Another stamp would only take the hold of a
                # cancel that is about to decide.
                return
            # Its own back-off may be longer than what it stands behind.
            until_ms = max(until_ms, row.retry.at_ms)
        self.retry_marks.append(RetryMark(row=row, until_ms=until_ms))


def without_lane(deliveries: list[PlannedDelivery], lane: Lane | None, *, after: Position) -> list[PlannedDelivery]:
    """The batch without those that stand behind a refused row in its lane, and without the row itself. Rows without a
    readable lane (`lane` is None) stand behind nobody."""
    return [
        f
        for f in deliveries
        if f.row.position < after or (f.row.position != after and (lane is None or f.lane != lane))
    ]


def _size_bytes(row: Row | BrokenRow) -> int:
    return row.schedule.size_bytes if isinstance(row, Row) else len(row.raw) + 512
