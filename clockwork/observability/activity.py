"""Recording of activity: the events of this process, gathered and sent in batches, and its counts of each minute.

Metrics and events come through one seam, `Telemetry`: what is counted there is recorded here. The hot path appends a tuple
and raises a count; everything else is done by `ActivityRecorder.run`, some times a second, for all events since:

    events     by client to one of 8 Kafka partitions; a batch is one record: the number of its events and a compressed JSON
               array of arrays, in which the places of an event are those of `domain.activity.Event`
    minutes    one record a minute: the counts by topic, the largest topics apart; the forecast of the process's shards.
               About 1 KB, some 20 KB if all names are as long as they may be

Kept small on purpose. Above `KEPT_PER_TICK_MAX` creates and deliveries a tick, only each second, then each fourth … is
kept, and says how many it stands for; what failed, and what operators did, is kept always. Minutes are counted in full. A
batch that Kafka does not take is counted and forgotten.

Rejected: one record an event (its headers alone would be 70 bytes on the disk of each broker), and one a delivery in the
transaction of the delivery itself: a look at what happened must not slow down what happens.
"""

import asyncio
import contextlib
import logging
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from clockwork.clock import Clock
from clockwork.domain.activity import (
    COUNTS,
    DELIVERED,
    FORECAST_MINUTES,
    MINUTE_MS,
    OTHER_TOPICS,
    RATE_OF_KIND,
    Action,
    Event,
    MinuteCounts,
    ScheduleChange,
    ShardsForecast,
    TopicRateLimit,
    TopicWait,
    largest_topics,
    lateness_bucket_index,
    longest_waits,
)
from clockwork.domain.destination import Topic
from clockwork.domain.run import JobId
from clockwork.domain.schedule import BrokenRow, ClientId, Failure, Guarantee, Receipt, Row
from clockwork.errors import BrokerUnavailable, DeliveryRefused
from clockwork.observability.known_clients import ClientRecorder
from clockwork.observability.metrics import PrometheusTelemetry
from clockwork.ports.activity import EVENTS_KAFKA_PARTITIONS, ActivityLog, Stream
from clockwork.ports.telemetry import RequestResult
from clockwork.settings.model import SHARDS_MAX

log = logging.getLogger(__name__)

TICK_S: Final = 0.25
"""Interval of batches: what a page shows is that much older, and the batches of a busy process stay small enough to be made
in a millisecond of the event loop."""
KEPT_PER_TICK_MAX: Final = 500
"""Creates and deliveries of one tick that are kept as they are: 2,000 a second."""
WAITING_MAX: Final = 20_000
"""Events that may wait for a tick; more are counted as lost."""
FLUSHED_MAX: Final = 2_000
"""Events of one tick, made into batches in some milliseconds of the event loop; more wait for the next."""
SENDING_MAX: Final = 64
"""Records that may be on their way; more are not even tried."""
FAILED_S: Final = 10.0
"""Time for which nothing of a stream is tried after a failure: each try asks Kafka anew about a topic that is missing."""
LAST_S: Final = 1.0
"""Time for the last batches of a process that stops."""
DECODED_BYTES_MAX: Final = 16 * 1024 * 1024
"""Size of a record when it is unpacked: any program that may write to the topics can write anything."""
TOPICS_MAX: Final = 1_000
"""Topics that are counted apart within a minute: their names come from clients."""
_COMPRESSION: Final = 1
"""zlib's fastest: events are alike, and its best gains little more."""
_MINUTES_COMPRESSION: Final = 9
"""Its best: one record a minute."""
_COUNT_BYTES: Final = 4


class ActivityRecorder:
    """The activity of one process. `run` must be running for anything to be sent."""

    def __init__(self, activity: ActivityLog, clock: Clock, telemetry: "RecordingTelemetry") -> None:
        self._activity = activity
        self._clock = clock
        self._telemetry = telemetry
        self._events: list[Event] = []
        self._seen = self._kept = 0
        """Creates and deliveries of this tick; and those kept since each one kept stands for as many as now."""
        self._stands_for = 1
        self.refusing_topics: Callable[[int], Mapping[Topic, TopicWait]] = lambda now_ms: {}
        """The topics that refuse records at a time, as this process sees it; none where it does not deliver."""
        self.take_rate_limits: Callable[[Iterable[Topic]], Mapping[Topic, TopicRateLimit]] = lambda delivered_to: {}
        """Takes the rate limits of these topics, and of those held back since the last call, with the waits since then."""
        self._minute = MinuteCounts()
        self._minute_ms = clock.now_ms() // MINUTE_MS * MINUTE_MS
        self._sending = 0
        self._failed_until_s: dict[Stream, float] = {}
        """Loop time before which nothing is tried, by stream."""

    # --- the hot path

    def change(self, change: ScheduleChange) -> None:
        """Records what a request did to a schedule."""
        if change.topic is not None:
            self._count(change.topic, RATE_OF_KIND.get(change.kind))
        stands_for = self._keep() if change.kind == "created" else 1
        if not stands_for:
            return
        self._add(
            Event(
                change.kind,
                self._clock.now_ms(),
                change.client_id,
                change.schedule_key,
                change.shard,
                change.topic,
                by=change.by,
                stands_for=stands_for,
            )
        )

    def delivered(self, row: Row, receipt: Receipt, lateness_ms: int, *, counts_as_late: bool) -> None:
        """Records a delivery."""
        schedule, job = row.schedule, row.run
        counts = self._counts(schedule.topic)
        counts[DELIVERED] += 1
        if counts_as_late:
            counts[lateness_bucket_index(lateness_ms)] += 1
        stands_for = self._keep()
        if not stands_for:
            return
        self._add(
            Event(
                "delivered",
                receipt.at_ms,
                schedule.client_id,
                None if job is not None else schedule.schedule_key,
                row.shard,
                schedule.topic,
                None,
                lateness_ms,
                receipt.kafka_partition,
                receipt.offset,
                row.retry.attempts + 1 if row.retry is not None else 1,
                None,
                None if job is None else JobId(schedule.schedule_key),
                None if job is None else job.run_id,
                schedule.delivery_id,
                None,
                None,
                None,
                None,
                stands_for,
            )
        )

    def refused(self, row: Row, reason: str, attempts: int) -> None:
        """Records an attempt that failed, and that is followed by another."""
        self._count(row.schedule.topic, RATE_OF_KIND["refused"])
        self._add(self._of_row(row, "refused", result=reason, attempts=attempts))

    def failed(self, row: Row | BrokenRow, failure: Failure, receipt: Receipt | None) -> None:
        """Records a schedule that ended without delivery; `receipt`: of its dead letter."""
        if isinstance(row, Row):
            self._count(row.schedule.topic, RATE_OF_KIND["failed"])
        place = {} if receipt is None else {"kafka_partition": receipt.kafka_partition, "offset": receipt.offset}
        kind = "dropped" if receipt is None else "failed"
        told = {"result": failure.reason, "attempts": failure.attempts, "last_refusal": failure.last_refusal}
        self._add(self._of_row(row, kind, **told, **place))

    def action(self, action: Action) -> None:
        """Records what was done by hand."""
        self._add(
            Event(
                action.kind,
                self._clock.now_ms(),
                action.client_id,
                action.schedule_key,
                action.shard,
                action.topic,
                by=action.by,
                job_id=action.job_id,
                number=action.number,
                answers=action.answers,
                reason=action.reason,
            )
        )

    def loop_lag(self, seconds: float) -> None:
        """Notes a delay of the event loop."""
        self._minute.loop_lag_ms = max(self._minute.loop_lag_ms, round(seconds * 1_000))

    def forecast(self, found: ShardsForecast) -> None:
        """Notes the forecast of this process's shards, for the record of the present minute."""
        self._minute.forecast = found

    def _of_row(self, row: Row | BrokenRow, kind: Any, **more: Any) -> Event:
        name, topic, delivery_id = row.name, None, None
        if isinstance(row, Row):
            topic, delivery_id = row.schedule.topic, row.schedule.delivery_id
        elif row.lane is not None:
            topic = row.lane[0]
        run_id = None if row.run is None else row.run.run_id
        job_id = JobId(name.schedule_key) if row.of_job and name.schedule_key is not None else None
        return Event(
            kind,
            self._clock.now_ms(),
            name.client_id,
            None if row.of_job else name.schedule_key,
            row.shard,
            topic,
            job_id=job_id,
            run_id=run_id,
            delivery_id=delivery_id,
            **more,
        )

    def _keep(self) -> int:
        """The number that this create or delivery stands for; 0: it is left out."""
        self._seen += 1
        stands_for = self._stands_for
        if self._seen % stands_for:
            return 0
        self._kept += 1
        if self._kept >= KEPT_PER_TICK_MAX:
            self._kept = self._seen = 0
            self._stands_for *= 2
        return stands_for

    def _add(self, event: Event) -> None:
        if len(self._events) < WAITING_MAX:
            self._events.append(event)
        else:
            self._telemetry.activity_lost("events", 1)

    def _counts(self, topic: Topic) -> list[int]:
        topics = self._minute.topics
        return self._minute.of(topic if topic in topics or len(topics) < TOPICS_MAX else OTHER_TOPICS)

    def _count(self, topic: Topic, place: int | None) -> None:
        if place is not None:
            self._counts(topic)[place] += 1

    # --- batches

    async def run(self) -> None:
        """Sends what was recorded, until cancelled; then the rest, within `LAST_S`."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await asyncio.sleep(TICK_S)
                    self.flush(group)
        finally:
            # Best effort, as ever: what Kafka does not take now is lost.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_S), asyncio.TaskGroup() as group:
                    self.flush(group, last=True)

    def flush(self, group: asyncio.TaskGroup, *, last: bool = False) -> None:
        """Begins to send what was recorded so far, and the minute if it is over, or is the last."""
        events = self._events[:FLUSHED_MAX]
        del self._events[:FLUSHED_MAX]
        # Half as many are thinned out in the next tick, if these were few enough.
        if self._kept < KEPT_PER_TICK_MAX // 2:
            self._stands_for = max(1, self._stands_for // 2)
        self._seen = self._kept = 0
        batches: dict[int, list[Event]] = {}
        for event in events:
            batches.setdefault(kafka_partition_of(event.client_id), []).append(event)
        for number, batch in batches.items():
            self._send(group, "events", number, encode_events(batch), len(batch))
        minute_ms = self._clock.now_ms() // MINUTE_MS * MINUTE_MS
        if minute_ms > self._minute_ms or last:
            over, over_ms = self._minute, self._minute_ms
            self._minute, self._minute_ms = MinuteCounts(), minute_ms
            over.waits = dict(self.refusing_topics(self._clock.now_ms()))
            delivered_to = [topic for topic, counts in over.topics.items() if counts[DELIVERED]]
            over.rate_limits = dict(self.take_rate_limits(delivered_to))
            self._send(group, "minutes", 0, encode_minute(over_ms, over), 1)

    def _send(self, group: asyncio.TaskGroup, stream: Stream, number: int, value: bytes, count: int) -> None:
        waits = self._failed_until_s.get(stream, 0.0) > asyncio.get_running_loop().time()
        if waits or self._sending >= SENDING_MAX:
            self._telemetry.activity_lost(stream, count)
            return
        self._sending += 1
        group.create_task(self._sent(stream, number, value, count), name=f"send {stream}")

    async def _sent(self, stream: Stream, number: int, value: bytes, count: int) -> None:
        try:
            await self._activity.send(stream, number, value)
        except (BrokerUnavailable, DeliveryRefused) as error:
            self._failed_until_s[stream] = asyncio.get_running_loop().time() + FAILED_S
            self._telemetry.activity_lost(stream, count)
            log.warning(
                "Activity is not recorded; deliveries are not affected",
                extra={"event": "activity.lost", "once_per": stream, "stream": stream, "error": str(error)},
            )
        else:
            self._telemetry.activity_sent(stream, count, len(value))
        finally:
            self._sending -= 1


@dataclass(slots=True)
class ProcessFigures:
    """Figures of a process since its last report (`domain.registry`)."""

    created: int = 0
    delivered: int = 0
    loop_lag_s: float = 0.0


class RecordingTelemetry(PrometheusTelemetry):
    """Metrics of a process whose activity is recorded as well, and which reports of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.recorder: ActivityRecorder | None = None
        """None: no events and no minutes."""
        self.clients: ClientRecorder | None = None
        """None: clients are not noted."""
        self._figures = ProcessFigures()

    def take_figures(self) -> ProcessFigures:
        """The figures since the last call."""
        figures, self._figures = self._figures, ProcessFigures()
        return figures

    def schedule(self, result: RequestResult, change: ScheduleChange | None = None) -> None:
        super().schedule(result, change)
        if change is None:
            return
        if change.kind == "created":
            self._figures.created += 1
            if self.clients is not None:
                self.clients.created(change.client_id)
        if self.recorder is not None:
            self.recorder.change(change)

    def deliveries(self, guarantee: Guarantee, count: int) -> None:
        super().deliveries(guarantee, count)
        self._figures.delivered += count

    def delivered(
        self, guarantee: Guarantee, row: Row, receipt: Receipt, *, late_seconds: float, catch_up: bool
    ) -> None:
        super().delivered(guarantee, row, receipt, late_seconds=late_seconds, catch_up=catch_up)
        if self.recorder is not None:
            self.recorder.delivered(row, receipt, receipt.at_ms - row.due_ms, counts_as_late=not catch_up)

    def refused(self, row: Row, reason: str, attempts: int) -> None:
        super().refused(row, reason, attempts)
        if self.recorder is not None:
            self.recorder.refused(row, reason, attempts)

    def failed(self, guarantee: Guarantee, row: Row | BrokenRow, failure: Failure, receipt: Receipt | None) -> None:
        super().failed(guarantee, row, failure, receipt)
        if self.recorder is not None:
            self.recorder.failed(row, failure, receipt)

    def action(self, action: Action) -> None:
        if self.recorder is not None:
            self.recorder.action(action)

    def loop_lag(self, seconds: float) -> None:
        super().loop_lag(seconds)
        self._figures.loop_lag_s = max(self._figures.loop_lag_s, seconds)
        if self.recorder is not None:
            self.recorder.loop_lag(seconds)


# --- records


def kafka_partition_of(client_id: ClientId | None) -> int:
    """The Kafka partition of a client's events: the same in every process, so that they stay in order."""
    return 0 if client_id is None else zlib.crc32(client_id.encode()) % EVENTS_KAFKA_PARTITIONS


def encode_events(events: Sequence[Event]) -> bytes:
    """A batch as the value of a record: the number of its events stands before it, so that they can be counted unread."""
    rows = orjson.dumps([_trimmed(event) for event in events])
    return len(events).to_bytes(_COUNT_BYTES, "big") + zlib.compress(rows, _COMPRESSION)


def _trimmed(event: Event) -> tuple[Any, ...]:
    """The event without the defaults at its end."""
    if event.stands_for != 1:
        return tuple(event)
    end = len(event) - 1
    while event[end - 1] is None:
        end -= 1
    return event[:end]


def count_events(value: bytes) -> int:
    """The number of events of a batch."""
    return int.from_bytes(value[:_COUNT_BYTES], "big")


def decode_events(value: bytes) -> list[Event]:
    """The events of a batch. Raises: ValueError (it is none of ours)."""
    rows = _unpacked(value[_COUNT_BYTES:])
    if not (isinstance(rows, list) and all(map(_is_event, rows))):
        raise ValueError("no batch of events")
    return [Event(*row) for row in rows]


def _is_event(row: Any) -> bool:
    if not (isinstance(row, list) and 2 <= len(row) <= len(Event._fields)):
        return False
    return isinstance(row[0], str) and type(row[1]) is int


def encode_minute(at_ms: int, minute: MinuteCounts) -> bytes:
    """The counts of one minute of a process, `at_ms`: its begin."""
    topics = largest_topics(minute.topics.items())
    forecast = None if minute.forecast is None else _forecast_row(minute.forecast)
    waits = {topic: tuple(wait) for topic, wait in longest_waits(minute.waits).items()}
    rate_limits = {topic: tuple(limit) for topic, limit in minute.rate_limits.items() if topic in topics}
    row = [at_ms, minute.loop_lag_ms, topics, forecast, waits, rate_limits]
    return zlib.compress(orjson.dumps(row), _MINUTES_COMPRESSION)


def _forecast_row(found: ShardsForecast) -> list[Any]:
    sums = [list(found.shards), list(found.shards.values()), found.counts, found.topics, found.clients]
    return [found.as_of_ms, found.from_ms, found.overdue, found.exact, *sums, found.looked_at, round(found.units, 2)]


def decode_minute(value: bytes) -> tuple[int, MinuteCounts]:
    """The begin of a minute, and its counts. Raises: ValueError (it is none of ours)."""
    match _unpacked(value):
        case [int(at_ms), int(loop_lag_ms), dict(topics), forecast, dict(waits), dict(rate_limits)] if (
            all(map(_is_counts, topics.values()))
            and all(map(_is_wait, waits.values()))
            and all(map(_is_rate_limit, rate_limits.values()))
        ):
            return at_ms, MinuteCounts(
                topics=topics,
                loop_lag_ms=loop_lag_ms,
                forecast=None if forecast is None else _forecast_of(forecast),
                waits={topic: TopicWait(*wait) for topic, wait in waits.items()},
                rate_limits={topic: TopicRateLimit(*limit) for topic, limit in rate_limits.items()},
            )
    raise ValueError("no minute")


def _forecast_of(row: Any) -> ShardsForecast:
    """Raises: ValueError."""
    match row:
        case [
            int(as_of_ms),
            int(from_ms),
            int() | None as overdue,
            int(exact),
            list(shards),
            list(by_shard),
            list(counts),
            dict(topics),
            dict(clients),
            int(looked_at),
            int() | float() as units,
        ] if (
            len(counts) == FORECAST_MINUTES
            and len(shards) == len(by_shard) <= SHARDS_MAX
            and all(
                type(count) is int and count >= 0
                for counted in (shards, by_shard, counts, topics.values(), clients.values())
                for count in counted
            )
        ):
            return ShardsForecast(
                as_of_ms=as_of_ms,
                from_ms=from_ms,
                shards=dict(zip(shards, by_shard, strict=True)),
                overdue=overdue,
                exact=exact,
                counts=counts,
                topics=topics,
                clients=clients,
                looked_at=looked_at,
                units=units,
            )
    raise ValueError("no forecast")


def _is_wait(value: Any) -> bool:
    return isinstance(value, list) and [type(each) for each in value] == [int, str]


def _is_rate_limit(value: Any) -> bool:
    return isinstance(value, list) and [type(each) for each in value] == [int, int]


def _is_counts(value: Any) -> bool:
    return isinstance(value, list) and len(value) == COUNTS and all(type(count) is int for count in value)


def _unpacked(value: bytes) -> Any:
    """Raises: ValueError."""
    unpacking = zlib.decompressobj()
    try:
        text = unpacking.decompress(value, DECODED_BYTES_MAX)
    except zlib.error as error:
        raise ValueError(f"not compressed: {error}") from error
    if unpacking.unconsumed_tail or not unpacking.eof:
        raise ValueError("cut off, or too large")
    return orjson.loads(text)
