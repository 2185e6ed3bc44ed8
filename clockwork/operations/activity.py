"""Activity for people: the latest events, and counts by the minute, from memory.

Every accepting node follows both streams, so a page gets the same from any node, within a second or two. Events are kept
as they came, packed, and unpacked when they are first asked for: a node that is not asked spends nothing on them. The oldest
records go once `EVENTS_KEPT` are exceeded; what is older is read from Kafka on demand.

A cursor says for each Kafka partition up to where its reader has seen its events, so any node takes it. The pages of one
cursor go on in the order of time, as far as a Kafka partition has it: a record that comes late comes late.
"""

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from clockwork.clock import Clock
from clockwork.concurrency import Turns
from clockwork.domain.activity import (
    COUNTS,
    DELIVERED,
    MINUTE_MS,
    Event,
    MinuteCounts,
    ShardsForecast,
    TopicRateLimit,
    TopicWait,
    add_counts,
    longest_waits,
)
from clockwork.domain.destination import Topic
from clockwork.observability.activity import count_events, decode_events, decode_minute
from clockwork.ports.activity import ActivityLog, ActivityRecord

log = logging.getLogger(__name__)

EVENTS_KEPT: Final = 10_000
MINUTES_KEPT_MS: Final = 25 * 3_600 * 1_000
MINUTES_BACK_MS: Final = 8 * 24 * 3_600 * 1_000
"""Time for which minutes are kept in Kafka (`kafka.topics`)."""
FORECASTS_KEPT: Final = 3
"""Minutes whose recorded forecasts are kept."""
FORECAST_MS_MAX: Final = 150_000
"""Age beyond which a recorded forecast is not shown."""
READ_RECORDS_MAX: Final = 1_000
"""Records of events that are read on demand for one page."""
READ_MINUTES_MAX: Final = 100_000
"""Records of minutes of eight days and eight processes."""
LOOKED_AT_PER_TURN: Final = 2_000
"""Events that are looked at in one turn of the event loop, in about a millisecond."""
ADDED_PER_TURN: Final = 250
"""Counts of a topic in a minute that are added in one turn, in about a millisecond: a day of 20 topics has 30,000."""
UNPACKED_PER_TURN: Final = 20
"""Records of minutes that are unpacked in one turn."""

TOLD_MS: Final = 10_000
"""Time after the end of a minute within which its records have come."""
LIVE_MS: Final = 60_000
"""A reader who is at most so far behind follows what happens now: what it missed is told, not read from Kafka."""
OF_DELIVERY_MAX: Final = 10
"""Events of one delivery that are of interest: any of them names its schedule."""
READS_AT_ONCE: Final = 2
"""Readings on demand of one node at the same time: each has connections and buffers of its own."""
READS_WAITING_MAX: Final = 8
"""Readings that wait for their turn; each takes up to some seconds."""
READ_AGAIN_S: Final = 5
"""Time after which a reader whose reading may not even wait should come again."""

Place = tuple[int, int]
"""An offset, and the number of an event within its record: everything before it was seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cursor:
    """The place up to which a reader has seen events."""

    places: Mapping[int, Place]
    """By Kafka partition."""
    at_ms: int
    """Up to this time; only for the Kafka partitions that are not named."""


class _Batch:
    """One record of events."""

    __slots__ = ("_events", "at_ms", "count", "offset", "value")

    def __init__(self, record: ActivityRecord) -> None:
        self.offset = record.offset
        self.at_ms = record.at_ms
        self.value = record.value
        self.count = min(count_events(record.value), EVENTS_KEPT)
        self._events: Sequence[Event] | None = None

    @property
    def events(self) -> Sequence[Event]:
        if self._events is None:
            try:
                self._events = decode_events(self.value)
            except ValueError as error:
                # Nothing depends on it. Any program that may write to the topic can write anything.
                log.warning(
                    "A record of activity cannot be read",
                    extra={"event": "activity.unreadable", "once_per": "events", "error": str(error)},
                )
                self._events = ()
            self.value = b""
        return self._events


@dataclass(frozen=True, kw_only=True, slots=True)
class EventPage:
    """Some events, oldest first."""

    events: Sequence[Event]
    cursor: Cursor
    more: bool
    """True if there is more behind them at once."""
    missed: bool
    """True if events between the cursor and these are no longer kept."""
    kept_from_ms: int | None
    """Time of the oldest event in memory; None: there is none."""


@dataclass(kw_only=True, slots=True)
class Step:
    """Counts of some minutes, all covered topics together."""

    counts: list[int] = field(default_factory=lambda: [0] * COUNTS)
    processes: int = 0
    loop_lag_ms: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class MinutePage:
    """Counts by step, and by topic over all steps."""

    steps: Mapping[int, Step]
    """By the begin of the step, in epoch milliseconds; those without anything are left out."""
    topics: Mapping[Topic, list[int]]
    waits: Mapping[Topic, TopicWait]
    """The topics that waited at the end of the latest minute, whatever times were asked for; the longest first."""
    rate_limits: Mapping[Topic, TopicRateLimit]
    """By topic with a limit: that of the latest minute asked for in which it was delivered to or held back, as far as it was
    among its process's largest."""
    kept_from_ms: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class BusiestMinute:
    """The minute with the most deliveries: so many the cluster is known to manage."""

    at_ms: int
    """Its begin."""
    delivered: int
    since_ms: int
    """The begin of the oldest minute that was looked at."""


@dataclass(slots=True)
class ActivityTail:
    """The latest activity, in memory. `run` must be running for it to be up to date."""

    activity: ActivityLog
    clock: Clock
    _batches: dict[int, deque[_Batch]] = field(default_factory=dict)
    """By Kafka partition, in the order of offsets."""
    _arrived: deque[int] = field(default_factory=deque)
    """The Kafka partitions of all batches, in the order in which these came."""
    _events: int = 0
    _minutes: dict[int, MinuteCounts] = field(default_factory=dict)
    _forecasts: dict[int, list[ShardsForecast]] = field(default_factory=dict)
    """By the begin of the minute of their records; the latest minutes alone."""
    _reading: Turns = field(
        default_factory=lambda: Turns(
            "readings of older activity",
            at_once=READS_AT_ONCE,
            waiting_max=READS_WAITING_MAX,
            retry_after_s=READ_AGAIN_S,
        )
    )

    async def run(self) -> None:
        """Follows both streams until cancelled."""
        minutes_from_ms = self.clock.now_ms() - MINUTES_KEPT_MS
        await self.activity.tail(self.take, minutes_from_ms=minutes_from_ms)

    def take(self, records: Sequence[ActivityRecord]) -> None:
        """Takes over records of one Kafka partition."""
        for record in records:
            if record.stream == "events":
                self._take_events(record)
            else:
                _add_minute(self._minutes, record, self._forecasts)
                while len(self._forecasts) > FORECASTS_KEPT:
                    del self._forecasts[min(self._forecasts)]
        oldest_ms = self.clock.now_ms() - MINUTES_KEPT_MS
        while self._minutes and (first := next(iter(self._minutes))) < oldest_ms:
            del self._minutes[first]

    def _take_events(self, record: ActivityRecord) -> None:
        batch = _Batch(record)
        self._batches.setdefault(record.kafka_partition, deque()).append(batch)
        self._arrived.append(record.kafka_partition)
        self._events += batch.count
        while self._events > EVENTS_KEPT and len(self._arrived) > 1:
            self._events -= self._batches[self._arrived.popleft()].popleft().count

    # --- events

    @property
    def kept_from_ms(self) -> int | None:
        """Time of the oldest record in memory; None: there is none."""
        return min((batches[0].at_ms for batches in self._batches.values() if batches), default=None)

    async def events(
        self, shows: Callable[[Event], bool], *, cursor: Cursor | None, from_ms: int | None, limit: int
    ) -> EventPage:
        """The first `limit` events that `shows`, behind a cursor or from a time on; without either the latest.

        Raises: BrokerUnavailable (they are no longer in memory, and Kafka cannot be read), TooManyRequests (nor now).
        """
        now_ms, ends = self.clock.now_ms(), self._ends()
        if cursor is None and from_ms is None:
            events = await self._latest(shows, limit)
            return self._page(events, Cursor(places=ends, at_ms=now_ms), more=False, missed=False)
        if cursor is None:
            cursor = Cursor(places={}, at_ms=from_ms or 0)
        batches: Mapping[int, Sequence[_Batch]] = {number: list(each) for number, each in self._batches.items()}
        missed = cut = False
        if self._left_memory(cursor):
            if cursor.at_ms < now_ms - LIVE_MS:
                batches, cut = await self._read(cursor.at_ms)
            else:
                missed = bool(cursor.places)
        runs = [_forwards(number, each, cursor) for number, each in batches.items()]
        seen, found, more = dict(cursor.places), list[Event](), cut
        last_ms = cursor.at_ms
        merged = heapq.merge(*runs, key=lambda each: each[0].at_ms)
        for looked_at, (event, number, place) in enumerate(merged, start=1):
            if len(found) >= limit:
                more = True
                break
            seen[number], last_ms = place, event.at_ms
            if shows(event):
                found.append(event)
            if looked_at % LOOKED_AT_PER_TURN == 0:
                await asyncio.sleep(0)
        if not more:
            seen |= {number: max(end, seen.get(number, end)) for number, end in ends.items()}
            # The same cursor while nothing comes, so that polls find nothing changed. Its time has to move all the same: by
            # it a reader who follows is told apart from one who reads what is no longer in memory.
            if seen != cursor.places or cursor.at_ms < now_ms - LIVE_MS // 2:
                last_ms = now_ms
        return self._page(found, Cursor(places=seen, at_ms=last_ms), more=more, missed=missed)

    def _page(self, events: Sequence[Event], cursor: Cursor, *, more: bool, missed: bool) -> EventPage:
        return EventPage(events=events, cursor=cursor, more=more, missed=missed, kept_from_ms=self.kept_from_ms)

    async def of_delivery(self, delivery_id: str) -> Sequence[Event]:
        """The latest events of a delivery that are in memory, oldest first. One that was sampled away is not there."""
        return await self._latest(lambda event: event.delivery_id == delivery_id, OF_DELIVERY_MAX)

    async def _latest(self, shows: Callable[[Event], bool], limit: int) -> Sequence[Event]:
        runs = [_backwards(list(batches)) for batches in self._batches.values()]
        found: list[Event] = []
        for looked_at, event in enumerate(heapq.merge(*runs, key=lambda each: -each.at_ms), start=1):
            if shows(event):
                found.append(event)
                if len(found) >= limit:
                    break
            if looked_at % LOOKED_AT_PER_TURN == 0:
                await asyncio.sleep(0)
        return found[::-1]

    def _ends(self) -> dict[int, Place]:
        return {number: (batches[-1].offset + 1, 0) for number, batches in self._batches.items() if batches}

    def _left_memory(self, cursor: Cursor) -> bool:
        """True if events behind the cursor may have left memory."""
        kept_from_ms = self.kept_from_ms
        if not cursor.places:
            return kept_from_ms is None or cursor.at_ms < kept_from_ms
        return any(
            batches and number in cursor.places and cursor.places[number][0] < batches[0].offset
            for number, batches in self._batches.items()
        )

    async def _read(self, from_ms: int) -> tuple[Mapping[int, Sequence[_Batch]], bool]:
        """The batches from a time on, out of Kafka; and True if there are more. No event is younger than its record."""
        async with self._reading.one():
            records = await self.activity.read("events", from_ms=from_ms, records_max=READ_RECORDS_MAX)
        found: dict[int, list[_Batch]] = {}
        for record in records:
            found.setdefault(record.kafka_partition, []).append(_Batch(record))
        return found, len(records) >= READ_RECORDS_MAX

    # --- minutes

    async def minutes(
        self, covers: Callable[[Topic], bool], *, from_ms: int, to_ms: int, step_ms: int, topic: Topic | None
    ) -> MinutePage:
        """The counts of covered topics, or of one, from `from_ms` to before `to_ms`, by step.

        Raises: BrokerUnavailable (a time that is no longer in memory, and Kafka cannot be read), TooManyRequests (nor now).
        """
        kept_ms = self.clock.now_ms() - MINUTES_KEPT_MS
        minutes: Mapping[int, MinuteCounts] = self._minutes
        if from_ms < kept_ms - MINUTE_MS:
            async with self._reading.one():
                minutes = await self._read_minutes(from_ms, to_ms)
        steps: dict[int, Step] = {}
        topics: dict[Topic, list[int]] = {}
        rate_limits: dict[Topic, TopicRateLimit] = {}
        added = 0
        # The list is made at once: a minute that comes or goes between two turns must not end the loop.
        for at_ms, minute in sorted((at_ms, minute) for at_ms, minute in minutes.items() if from_ms <= at_ms < to_ms):
            step = steps.setdefault(from_ms + (at_ms - from_ms) // step_ms * step_ms, Step())
            for name, counts in minute.topics.items():
                if covers(name) and topic in (None, name):
                    add_counts(step.counts, counts)
                    add_counts(topics.setdefault(name, [0] * COUNTS), counts)
                    added += 1
            rate_limits |= {name: limit for name, limit in minute.rate_limits.items() if name in topics}
            step.processes = max(step.processes, minute.processes)
            step.loop_lag_ms = max(step.loop_lag_ms, minute.loop_lag_ms)
            if added >= ADDED_PER_TURN:
                added = 0
                await asyncio.sleep(0)
        waits = {name: wait for name, wait in self.refusing_topics().items() if covers(name) and topic in (None, name)}
        return MinutePage(
            steps=steps,
            topics=topics,
            waits=waits,
            rate_limits=rate_limits,
            kept_from_ms=next(iter(self._minutes), None),
        )

    def refusing_topics(self) -> Mapping[Topic, TopicWait]:
        """The topics that waited at the end of the latest minute that every process has had time to tell of."""
        latest_ms = (self.clock.now_ms() - TOLD_MS) // MINUTE_MS * MINUTE_MS - MINUTE_MS
        minute = self._minutes.get(latest_ms)
        return {} if minute is None else longest_waits(minute.waits)

    def recorded_forecasts(self, *, shards: int) -> Sequence[ShardsForecast] | None:
        """The latest forecasts of processes that together own each of so many shards once; None: there are none, as after
        a start, or in the minute in which shards change hands."""
        oldest_ms = self.clock.now_ms() - FORECAST_MS_MAX
        for at_ms in sorted(self._forecasts, reverse=True):
            found = self._forecasts[at_ms]
            owned = sorted(shard for each in found for shard in each.shards)
            if owned == list(range(shards)) and min(each.as_of_ms for each in found) >= oldest_ms:
                return found
        return None

    async def busiest_minute(self, covers: Callable[[Topic], bool], *, topic: Topic | None) -> BusiestMinute | None:
        """The minute in memory with the most deliveries for covered topics, or for one; None: there were none. A measure of
        the least that the cluster can do, since it says nothing of a load that it never had."""
        best_ms, most, looked_at = 0, 0, 0
        minutes = list(self._minutes.items())
        for at_ms, minute in minutes:
            looked_at += len(minute.topics)
            if looked_at >= LOOKED_AT_PER_TURN:
                looked_at = 0
                await asyncio.sleep(0)
            delivered = sum(
                counts[DELIVERED] for name, counts in minute.topics.items() if topic in (None, name) and covers(name)
            )
            if delivered > most:
                best_ms, most = at_ms, delivered
        return (
            BusiestMinute(at_ms=best_ms, delivered=most, since_ms=min(at_ms for at_ms, _ in minutes)) if most else None
        )

    async def _read_minutes(self, from_ms: int, to_ms: int) -> Mapping[int, MinuteCounts]:
        # A minute is sent after its end, and within a minute or it is lost.
        records = await self.activity.read(
            "minutes", from_ms=from_ms, to_ms=to_ms + 2 * MINUTE_MS, records_max=READ_MINUTES_MAX
        )
        found: dict[int, MinuteCounts] = {}
        for number, record in enumerate(records, start=1):
            _add_minute(found, record, {})
            if number % UNPACKED_PER_TURN == 0:
                await asyncio.sleep(0)
        return found


def _add_minute(
    minutes: dict[int, MinuteCounts], record: ActivityRecord, forecasts: dict[int, list[ShardsForecast]]
) -> None:
    """Adds the record to the counts and the forecasts of its minute."""
    try:
        at_ms, minute = decode_minute(record.value)
        if not 0 <= at_ms <= record.at_ms or at_ms % MINUTE_MS:
            raise ValueError("no minute that was over when it was sent")
    except ValueError as error:
        log.warning(
            "A record of activity cannot be read",
            extra={"event": "activity.unreadable", "once_per": "minutes", "error": str(error)},
        )
        return
    if minute.forecast is not None:
        forecasts.setdefault(at_ms, []).append(minute.forecast)
        minute.forecast = None
    if (known := minutes.get(at_ms)) is None:
        minutes[at_ms] = minute
    else:
        known.add(minute)


def _forwards(number: int, batches: Sequence[_Batch], cursor: Cursor) -> Iterator[tuple[Event, int, Place]]:
    """The events of a Kafka partition behind a cursor, each with the place behind it."""
    begin = cursor.places.get(number)
    from_ms = cursor.at_ms if begin is None else 0
    offset, nth = begin or (0, 0)
    for batch in batches:
        # A record's time is the one at which its last event was known: none of its events is younger.
        if batch.offset < offset or batch.at_ms < from_ms:
            continue
        skipped = nth if batch.offset == offset else 0
        for place, event in enumerate(batch.events[skipped:], start=skipped + 1):
            if event.at_ms >= from_ms:
                yield event, number, (batch.offset, place)


def _backwards(batches: Sequence[_Batch]) -> Iterator[Event]:
    """The events of a Kafka partition, the latest first."""
    for batch in reversed(batches):
        yield from reversed(batch.events)
