"""Where a schedule goes to stand: its shard, its position, and the word to the shard's owner that it is there."""

import random

from clockwork.clock import Clock
from clockwork.domain.destination import Topic
from clockwork.domain.position import RANDOM_DIGITS, accepted_ms_of, new_position
from clockwork.domain.schedule import Row, Schedule
from clockwork.domain.sharding import shard_of
from clockwork.domain.wakeup import NewlyDue
from clockwork.errors import FieldError, InvalidInput
from clockwork.requests.waker import Waker
from clockwork.settings.model import IntakeSettings


class Placing:
    """Gives every row a position that was never used before."""

    def __init__(self, waker: Waker, clock: Clock, rng: random.Random, settings: IntakeSettings) -> None:
        self._waker = waker
        self._clock = clock
        self._rng = rng
        self._settings = settings
        self._last_accepted_us = 0

    def row(self, schedule: Schedule) -> Row:
        """The row of a schedule that is accepted now."""
        accepted_us = self._next_accepted_us()
        digits = self._rng.randrange(10**RANDOM_DIGITS)
        return Row(
            shard=shard_of(schedule.ordering_key, self._settings.shards),
            position=new_position(due_ms=schedule.due_ms, accepted_us=accepted_us, random=digits),
            schedule=schedule,
        )

    def delivery_id(self) -> str:
        """A new one."""
        return f"{self._rng.getrandbits(128):032x}"

    def pointer_expires_at_s(self, row: Row) -> int:
        """TTL of a pointer to this row: twice the retention after it is due, or was accepted."""
        latest_ms = max(row.due_ms, accepted_ms_of(row.position))
        return (latest_ms + 2 * self._settings.retention_ms) // 1_000

    def announce(self, row: Row) -> None:
        """Wakes the owner of the row's shard, unless its next scan comes early enough."""
        if row.due_ms <= self._clock.now_ms() + self._settings.scan_interval_ms:
            self._waker.wake(row.shard, NewlyDue(row.due_ms))

    def _next_accepted_us(self) -> int:
        """Microseconds that grow with every acceptance, so that positions are ordered by acceptance."""
        self._last_accepted_us = max(self._clock.now_us(), self._last_accepted_us + 1)
        return self._last_accepted_us


def topic_missing(topic: Topic) -> InvalidInput:
    """Why nothing is placed for a topic that is not there."""
    return InvalidInput([FieldError("delivery.topic", f"the topic {topic!r} does not exist; create it first")])
