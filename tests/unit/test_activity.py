"""Recording of activity, its records, and the latest of it in memory."""

import asyncio
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import pytest

from clockwork.domain.activity import (
    COUNTS,
    DELIVERED,
    FORECAST_MINUTES,
    FORECAST_NAMES,
    LATENESS_BOUNDS_MS,
    OTHER_TOPICS,
    RATES,
    TOPICS_SHOWN,
    WAITS_RECORDED,
    Action,
    Event,
    MinuteCounts,
    ScheduleChange,
    ShardsForecast,
    TopicRateLimit,
    TopicWait,
    largest_topics,
    lateness_bucket_index,
)
from clockwork.domain.destination import Topic
from clockwork.domain.schedule import ClientId, Failure, ScheduleKey
from clockwork.domain.sharding import ShardId
from clockwork.errors import BrokerUnavailable, TooManyRequests
from clockwork.observability.activity import (
    FLUSHED_MAX,
    KEPT_PER_TICK_MAX,
    WAITING_MAX,
    ActivityRecorder,
    RecordingTelemetry,
    count_events,
    decode_events,
    decode_minute,
    encode_events,
    encode_minute,
)
from clockwork.operations.activity import (
    ADDED_PER_TURN,
    EVENTS_KEPT,
    FORECASTS_KEPT,
    LIVE_MS,
    READS_AT_ONCE,
    READS_WAITING_MAX,
    ActivityTail,
    Cursor,
)
from clockwork.ports.activity import ActivityRecord, Stream
from tests.support import builders
from tests.support.clocks import ManualClock

NOW_MS = builders.DUE_MS


class Log:
    """An `ActivityLog` that keeps what is sent, as records."""

    def __init__(self, clock: ManualClock) -> None:
        self.records: list[ActivityRecord] = []
        self.down = False
        self.reads = 0
        self._clock = clock

    async def send(self, stream: Stream, kafka_partition: int, value: bytes) -> None:
        if self.down:
            raise BrokerUnavailable("down")
        offset = sum(each.stream == stream and each.kafka_partition == kafka_partition for each in self.records)
        self.records.append(
            ActivityRecord(
                stream=stream,
                kafka_partition=kafka_partition,
                offset=offset,
                at_ms=self._clock.now_ms(),
                value=value,
            )
        )

    async def tail(self, on_records: Any, *, minutes_from_ms: int) -> None:
        raise AssertionError("not in this test")

    async def read(
        self, stream: Stream, *, from_ms: int, to_ms: int | None = None, records_max: int
    ) -> Sequence[ActivityRecord]:
        self.reads += 1
        found = [
            each
            for each in self.records
            if each.stream == stream and each.at_ms >= from_ms and (to_ms is None or each.at_ms < to_ms)
        ]
        return found[:records_max]

    def events(self) -> list[Event]:
        return [event for each in self.records if each.stream == "events" for event in decode_events(each.value)]


class World:
    """A process that records, and its log."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOW_MS)
        self.log = Log(self.clock)
        self.telemetry = RecordingTelemetry()
        self.recorder = self.telemetry.recorder = ActivityRecorder(self.log, self.clock, self.telemetry)

    async def flush(self) -> None:
        async with asyncio.TaskGroup() as group:
            self.recorder.flush(group)

    def deliver(self, row: Any = None, *, late_ms: int = 5, catch_up: bool = False) -> None:
        row = row or builders.row()
        receipt = builders.receipt(at_ms=row.due_ms + late_ms)
        self.telemetry.delivered(row.schedule.guarantee, row, receipt, late_seconds=late_ms / 1_000, catch_up=catch_up)

    def counter(self, stream: str, result: str) -> float:
        name = "clockwork_activity_total"
        found = self.telemetry._registry.get_sample_value(name, {"stream": stream, "result": result})
        assert found is not None
        return found


def a_change(kind: Any = "created", **more: Any) -> ScheduleChange:
    fields: dict[str, Any] = {
        "client_id": builders.CLIENT,
        "schedule_key": ScheduleKey("a"),
        "shard": builders.SHARD,
        "topic": builders.TOPIC,
        "by": "ana",
    }
    return ScheduleChange(kind=kind, **(fields | more))


def an_event(at_ms: int, client_id: str = "shop", **more: Any) -> Event:
    return Event("delivered", at_ms, ClientId(client_id), ScheduleKey("a"), **more)


# --- recording


async def test_what_is_told_to_the_metrics_becomes_an_event_with_its_place_and_its_person() -> None:
    world = World()
    row = builders.row(builders.schedule(schedule_key="a"))

    world.telemetry.schedule("created", a_change())
    world.telemetry.refused(row, "record_too_large", 1)
    world.deliver(row)
    world.telemetry.failed(
        row.schedule.guarantee, row, Failure(reason="expired", attempts=1, last_refusal="record_too_large"), None
    )
    world.telemetry.action(Action(kind="paused", by="ana", topic=builders.TOPIC, reason="broker move"))
    await world.flush()

    by_kind = {event.kind: event for event in world.log.events()}
    where = (builders.CLIENT, ScheduleKey("a"), builders.SHARD, builders.TOPIC)
    delivery = row.schedule.delivery_id
    assert by_kind["created"] == Event("created", NOW_MS, *where, by="ana")
    assert by_kind["refused"] == Event("refused", NOW_MS, *where, "record_too_large", attempts=1, delivery_id=delivery)
    assert by_kind["delivered"] == Event("delivered", row.due_ms + 5, *where, None, 5, 0, 7, 1, delivery_id=delivery)
    assert by_kind["dropped"] == Event(
        "dropped", NOW_MS, *where, "expired", attempts=1, delivery_id=delivery, last_refusal="record_too_large"
    )
    assert by_kind["paused"] == Event("paused", NOW_MS, topic=builders.TOPIC, by="ana", reason="broker move")
    assert world.counter("events", "sent") == 5


async def test_an_unreadable_row_is_an_event_of_what_is_known_of_it() -> None:
    world = World()
    row = builders.broken_row()

    world.telemetry.failed(
        builders.schedule().guarantee, row, Failure(reason="unreadable", attempts=0), builders.receipt()
    )
    await world.flush()

    (event,) = world.log.events()
    assert (event.kind, event.shard, event.result, event.offset) == ("failed", row.shard, "unreadable", 7)


async def test_the_events_of_a_client_are_in_one_kafka_partition_in_order() -> None:
    world = World()
    for n in range(20):
        world.telemetry.schedule("created", a_change(client_id=f"client-{n % 5}", schedule_key=f"k{n}"))
    await world.flush()
    world.telemetry.schedule("cancelled", a_change("cancelled", client_id="client-3", schedule_key="k20"))
    await world.flush()

    of_client = {
        each.kafka_partition: [
            e.schedule_key
            for r in world.log.records
            if r.kafka_partition == each.kafka_partition
            for e in decode_events(r.value)
            if e.client_id == "client-3"
        ]
        for each in world.log.records
    }
    assert [keys for keys in of_client.values() if keys] == [["k3", "k8", "k13", "k18", "k20"]]


async def test_many_deliveries_are_sampled_and_what_failed_is_kept() -> None:
    world = World()
    row = builders.row()
    for n in range(20 * KEPT_PER_TICK_MAX):
        world.deliver(row)
        if n % 1_000 == 0:
            world.telemetry.refused(row, "record_invalid", 1)
    for _ in range(2):
        await world.flush()

    events = world.log.events()
    delivered = [event for event in events if event.kind == "delivered"]
    assert sum(event.kind == "refused" for event in events) == 10
    assert len(delivered) < 6 * KEPT_PER_TICK_MAX
    # Those that are kept stand for all, but for what came behind the last.
    stood_for = sum(event.stands_for for event in delivered)
    assert 0 <= 20 * KEPT_PER_TICK_MAX - stood_for <= max(event.stands_for for event in delivered)
    # The rate falls, and each one is kept again.
    for _ in range(10):
        await world.flush()
    world.deliver(row)
    await world.flush()
    assert world.log.events()[-1].stands_for == 1


async def test_what_kafka_does_not_take_is_counted_and_never_raised() -> None:
    world = World()
    world.log.down = True
    world.telemetry.schedule("created", a_change())
    await world.flush()
    assert (world.counter("events", "lost"), world.counter("events", "sent")) == (1, 0)

    # For ten seconds nothing more is tried.
    world.log.down = False
    world.telemetry.schedule("created", a_change())
    await world.flush()
    assert (world.counter("events", "lost"), world.log.records) == (2, [])

    row = builders.row()
    for _ in range(WAITING_MAX + 3):
        world.telemetry.refused(row, "record_invalid", 1)
    assert world.counter("events", "lost") == 5


async def test_a_storm_of_failures_is_sent_in_steps() -> None:
    world = World()
    row = builders.row()
    for _ in range(FLUSHED_MAX + 1):
        world.telemetry.refused(row, "record_invalid", 1)
    await world.flush()
    assert len(world.log.events()) == FLUSHED_MAX
    await world.flush()
    assert len(world.log.events()) == FLUSHED_MAX + 1


async def test_a_process_that_stops_sends_what_is_left_and_its_minute() -> None:
    world = World()
    world.deliver()
    task = asyncio.get_running_loop().create_task(world.recorder.run())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert [each.stream for each in world.log.records] == ["events", "minutes"]


async def test_a_minute_is_sent_once_when_it_is_over_with_exact_counts() -> None:
    world = World()
    world.clock.set_ms(NOW_MS // 60_000 * 60_000 + 30_000)
    await world.flush()  # the minute of the start is over with the first tick of the next
    world.log.records.clear()
    for _ in range(3 * KEPT_PER_TICK_MAX):
        world.deliver(late_ms=7)
    world.deliver(late_ms=90_000, catch_up=True)
    world.telemetry.schedule("created", a_change())
    world.telemetry.schedule("rescheduled", a_change("fired"))
    world.telemetry.loop_lag(0.25)
    await world.flush()
    assert not [each for each in world.log.records if each.stream == "minutes"]

    world.clock.advance_ms(30_000)
    await world.flush()
    await world.flush()

    ((at_ms, minute),) = [decode_minute(each.value) for each in world.log.records if each.stream == "minutes"]
    counts = minute.topics[builders.TOPIC]
    assert at_ms == world.clock.now_ms() - 60_000
    assert dict(zip(RATES, counts, strict=False)) == {
        "created": 1,
        "cancelled": 0,
        "moved": 1,
        "delivered": 3 * KEPT_PER_TICK_MAX + 1,
        "retried": 0,
        "failed": 0,
    }
    assert counts[lateness_bucket_index(7)] == 3 * KEPT_PER_TICK_MAX
    assert sum(counts[len(RATES) :]) == 3 * KEPT_PER_TICK_MAX  # caught up is not late
    assert minute.loop_lag_ms == 250


# --- records


def test_lateness_counts_up_to_each_bound_and_beyond() -> None:
    first = len(RATES)
    assert [lateness_bucket_index(each) - first for each in (-3, 0, 1, 2, 3, 3_600_000, 3_600_001)] == [
        0,
        0,
        0,
        1,
        2,
        11,
        12,
    ]
    assert lateness_bucket_index(2**40) == COUNTS - 1
    assert len(LATENESS_BOUNDS_MS) == 12


def test_a_batch_is_small_and_comes_back_as_it_was() -> None:
    events = [
        Event(
            "delivered",
            NOW_MS + n,
            ClientId("shop"),
            ScheduleKey(f"order-{n * 7919}"),
            ShardId(n % 64),
            Topic("orderTopic"),
            None,
            n % 50,
            n % 12,
            10**9 + n,
            1,
        )
        for n in range(500)
    ]
    value = encode_events(events)
    assert decode_events(value) == events
    assert count_events(value) == 500
    assert len(value) <= 100 * len(events)


@pytest.mark.parametrize("value", [b"", b"\0\0\0\1", b"\0\0\0\1x", encode_events([])[:-2], b"\0\0\0\1" + b"x" * 99])
def test_what_is_no_batch_is_refused_as_one(value: bytes) -> None:
    with pytest.raises(ValueError):
        decode_events(value)
    with pytest.raises(ValueError):
        decode_minute(value)


def test_the_topics_that_waited_longest_come_back_with_their_minute() -> None:
    waits = {Topic(f"topic-{n}"): TopicWait(NOW_MS + 100 - n, "topic_missing") for n in range(WAITS_RECORDED + 5)}
    _, read = decode_minute(encode_minute(NOW_MS, MinuteCounts(waits=waits)))
    assert read.waits == dict(reversed(list(waits.items())[5:]))
    row = orjson.loads(zlib.decompress(encode_minute(NOW_MS, MinuteCounts(waits=waits))))
    wrong_ones: list[object] = [[], {"a": 5}, {"a": [5]}, {"a": ["5", "x"]}, {"a": [5, "x", 1]}]
    for wrong in wrong_ones:
        with pytest.raises(ValueError):
            decode_minute(zlib.compress(orjson.dumps([*row[:4], wrong, row[5]])))


def test_the_rate_limits_of_the_largest_topics_come_back_with_their_minute() -> None:
    names = [Topic(f"topic-{n}") for n in range(TOPICS_SHOWN + 1)]
    minute = MinuteCounts(rate_limits={name: TopicRateLimit(50, 3) for name in names})
    for number, name in enumerate(names):
        minute.of(name)[DELIVERED] = 100 - number
    value = encode_minute(NOW_MS, minute)
    assert decode_minute(value)[1].rate_limits == {name: TopicRateLimit(50, 3) for name in names[:-1]}
    row = orjson.loads(zlib.decompress(value))
    wrong_ones: list[object] = [[], {"a": 5}, {"a": [5]}, {"a": [5, "x"]}, {"a": [5, True]}, {"a": [5, 1, 1]}]
    for wrong in wrong_ones:
        with pytest.raises(ValueError):
            decode_minute(zlib.compress(orjson.dumps([*row[:5], wrong])))


async def test_a_minute_asks_for_the_rate_limits_of_the_topics_that_were_delivered_to() -> None:
    # A process that only accepts counts creates for a topic, and its settings say nothing of how fast others deliver to it.
    world = World()
    asked: list[list[Topic]] = []

    def limits(delivered_to: Iterable[Topic]) -> dict[Topic, TopicRateLimit]:
        asked.append(list(delivered_to))
        return {topic: TopicRateLimit(5, 0) for topic in asked[-1]}

    world.recorder.take_rate_limits = limits
    world.deliver()
    world.telemetry.schedule("created", a_change(topic=Topic("accepted-alone")))
    world.clock.advance_ms(60_000)
    await world.flush()

    (minute,) = [decode_minute(each.value)[1] for each in world.log.records if each.stream == "minutes"]
    assert asked == [[builders.TOPIC]]
    assert minute.rate_limits == {builders.TOPIC: TopicRateLimit(5, 0)}
    assert minute.topics.keys() == {builders.TOPIC, "accepted-alone"}


def a_forecast(shards: range, as_of_ms: int = NOW_MS, **more: Any) -> ShardsForecast:
    fields: dict[str, Any] = {
        "as_of_ms": as_of_ms,
        "from_ms": as_of_ms // 60_000 * 60_000,
        "shards": {ShardId(number): 100 + number * 7919 % 100 for number in shards},
        "overdue": 3,
        "exact": 2,
        "counts": [100 + number * 7919 % 100 for number in range(FORECAST_MINUTES)],
        "topics": {f"topic-{number}": 1_000 - number for number in range(FORECAST_NAMES)},
        "clients": {f"client-{number}": 1_000 - number for number in range(FORECAST_NAMES)},
        "looked_at": 400,
        "units": 87.5,
    }
    return ShardsForecast(**(fields | more))


@pytest.mark.parametrize("more", [{}, {"overdue": None}, {"topics": {}, "clients": {}, "units": 0.0}])
def test_a_forecast_comes_back_from_its_record_as_it_was(more: dict[str, Any]) -> None:
    minute = MinuteCounts(forecast=a_forecast(range(3), **more))
    assert decode_minute(encode_minute(NOW_MS, minute))[1].forecast == minute.forecast


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, "x"),
        (2, "x"),
        (3, None),
        (4, [1]),
        (5, [-1, 2]),
        (6, [0]),
        (6, ["x"] * FORECAST_MINUTES),
        (7, []),
        (8, {"a": 1.5}),
    ],
)
def test_what_is_no_forecast_is_refused_with_its_minute(place: int, value: Any) -> None:
    row = orjson.loads(zlib.decompress(encode_minute(NOW_MS, MinuteCounts(forecast=a_forecast(range(2))))))
    row[3][place] = value
    with pytest.raises(ValueError, match="forecast"):
        decode_minute(zlib.compress(orjson.dumps(row)))


def test_the_record_of_a_usual_minute_is_about_a_kilobyte() -> None:
    minute = MinuteCounts(forecast=a_forecast(range(64)))
    for number in range(10):
        counts = minute.of(Topic(f"topic-{number}"))
        counts[0], counts[DELIVERED] = 1_000 + number * 37, 990 + number * 41
        counts[lateness_bucket_index(20)], counts[lateness_bucket_index(70)] = 900 + number * 41, 90
    assert len(encode_minute(NOW_MS, minute)) <= 1_024


def test_the_largest_topics_are_told_apart_and_the_rest_together() -> None:
    minute = MinuteCounts()
    for n in range(TOPICS_SHOWN + 5):
        minute.of(Topic(f"t{n}"))[3] = n
    at_ms, read = decode_minute(encode_minute(NOW_MS, minute))
    assert at_ms == NOW_MS
    assert len(read.topics) == TOPICS_SHOWN + 1
    assert read.topics[OTHER_TOPICS][3] == sum(range(5))
    # What was the rest in a record stays the rest, however large it is.
    again = largest_topics([*read.topics.items(), (OTHER_TOPICS, [10**6] * COUNTS)])
    assert OTHER_TOPICS in again
    assert len(again) == TOPICS_SHOWN + 1


# --- the latest, in memory


class Reader:
    """A tail that is told records by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOW_MS)
        self.log = Log(self.clock)
        self.tail = ActivityTail(self.log, self.clock)

    async def tell(self, *events: Event, number: int = 0) -> None:
        """One record; all its events are older."""
        await self.log.send("events", number, encode_events(events))
        self.tail.take(self.log.records[-1:])

    async def page(self, **more: Any) -> Any:
        arguments = {"cursor": None, "from_ms": None, "limit": 100} | more
        return await self.tail.events(arguments.pop("shows", lambda event: True), **arguments)


def times(page: Any) -> list[int]:
    return [event.at_ms - NOW_MS for event in page.events]


async def test_without_a_cursor_the_latest_come_and_then_what_comes_behind_them() -> None:
    reader = Reader()
    await reader.tell(*(an_event(NOW_MS + n) for n in range(0, 10, 2)))
    await reader.tell(*(an_event(NOW_MS + n) for n in range(1, 10, 2)), number=5)
    page = await reader.page(limit=4)
    assert (times(page), page.more) == ([6, 7, 8, 9], False)

    again = await reader.page(cursor=page.cursor)
    assert times(again) == []
    await reader.tell(an_event(NOW_MS + 20), number=7)
    await reader.tell(an_event(NOW_MS + 15), an_event(NOW_MS + 25))
    assert times(await reader.page(cursor=again.cursor)) == [15, 20, 25]


async def test_pages_of_a_cursor_miss_nothing_and_repeat_nothing_whatever_the_filter() -> None:
    reader = Reader()
    for n in range(30):
        await reader.tell(*(an_event(NOW_MS + 100 * n + m, f"c{m % 3}") for m in range(7)), number=n % 4)
    seen: list[Event] = []
    cursor = Cursor(places={}, at_ms=0)
    while True:
        page = await reader.page(cursor=cursor, limit=10, shows=lambda event: event.client_id == "c1")
        seen += page.events
        cursor = page.cursor
        if not page.more:
            break
    assert [event.at_ms - NOW_MS for event in seen] == [100 * n + m for n in range(30) for m in (1, 4)]


async def test_a_cursor_of_another_node_that_is_ahead_is_kept() -> None:
    # Its own memory gets there a moment later; nothing is shown twice then.
    behind, ahead = Reader(), Reader()
    for reader in (behind, ahead):
        await reader.tell(an_event(NOW_MS))
    await ahead.tell(an_event(NOW_MS + 1))
    cursor = (await ahead.page()).cursor
    page = await behind.page(cursor=cursor)
    await behind.tell(an_event(NOW_MS + 1))
    assert times(await behind.page(cursor=page.cursor)) == []


async def test_memory_is_bounded_and_a_reader_who_is_behind_is_told_so() -> None:
    reader = Reader()
    await reader.tell(an_event(NOW_MS))
    cursor = (await reader.page()).cursor
    for n in range(4):
        await reader.tell(*[an_event(NOW_MS + 10 + n)] * (EVENTS_KEPT // 3))
    page = await reader.page(cursor=cursor, limit=2)
    assert (page.missed, page.more, reader.log.reads) == (True, True, 0)
    assert times(page) == [11, 11]
    assert not (await reader.page(cursor=page.cursor, limit=2)).missed


async def test_a_time_that_has_left_memory_is_read_from_kafka_page_by_page() -> None:
    reader = Reader()
    for n in range(4):
        reader.clock.set_ms(NOW_MS + 1_000 * n + 500)
        await reader.tell(*[an_event(NOW_MS + 1_000 * n)] * (EVENTS_KEPT // 3), number=n % 2)
    reader.clock.advance_ms(LIVE_MS + 10_000)
    page = await reader.page(from_ms=NOW_MS, limit=EVENTS_KEPT // 3 + 1)
    assert sorted(set(times(page))) == [0, 1_000]
    page = await reader.page(cursor=page.cursor, limit=EVENTS_KEPT)
    assert (len(page.events), sorted(set(times(page)))) == (EVENTS_KEPT // 3 * 3 - 1, [1_000, 2_000, 3_000])
    assert (page.more, page.missed) == (False, False)
    await reader.tell(an_event(reader.clock.now_ms()))
    assert len((await reader.page(cursor=page.cursor)).events) == 1


async def test_readings_of_old_times_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each opens connections to Kafka and takes seconds.
    reader, go = Reader(), asyncio.Event()

    async def read(*_: Any, **__: Any) -> Sequence[ActivityRecord]:
        await go.wait()
        return ()

    monkeypatch.setattr(reader.log, "read", read)
    async with asyncio.TaskGroup() as group:
        for _ in range(READS_AT_ONCE + READS_WAITING_MAX):
            group.create_task(reader.page(from_ms=1), name="read")
        await asyncio.sleep(0)
        with pytest.raises(TooManyRequests):
            await reader.page(from_ms=1)
        with pytest.raises(TooManyRequests):
            await reader.tail.minutes(lambda _: True, from_ms=0, to_ms=1, step_ms=60_000, topic=None)
        go.set()


async def test_a_time_that_is_in_memory_is_not_asked_for() -> None:
    reader = Reader()
    await reader.tell(*(an_event(NOW_MS - 10 + n) for n in range(10)))
    assert times(await reader.page(from_ms=NOW_MS - 3)) == [-3, -2, -1]
    reader.clock.advance_ms(5)
    await reader.tell(an_event(NOW_MS + 5))
    reader.clock.advance_ms(2 * LIVE_MS)
    assert times(await reader.page(from_ms=NOW_MS + 1)) == [5]
    assert reader.log.reads == 0


async def test_a_record_that_is_none_of_ours_is_skipped() -> None:
    reader = Reader()
    await reader.log.send("events", 0, b"\0\0\0\7nonsense")
    for at_ms, counts in ((NOW_MS, [0] * COUNTS), (2**62, [0] * COUNTS), (0, [0] * (COUNTS + 1)), (0, "x")):
        value = zlib.compress(orjson.dumps([at_ms, 0, {"a": counts}]))
        await reader.log.send("minutes", 0, value)
    await reader.log.send("minutes", 0, b"nonsense")
    await reader.log.send("events", 0, b"\0\0\0\1" + zlib.compress(b'[["delivered", null]]'))
    reader.tail.take(reader.log.records)
    await reader.tell(an_event(NOW_MS))
    assert times(await reader.page()) == [0]
    assert reader.tail.kept_from_ms is not None
    found = await reader.tail.minutes(lambda _: True, from_ms=0, to_ms=2**62, step_ms=60_000, topic=None)
    assert found.steps == {}


# --- minutes


async def test_minutes_of_all_processes_are_added_by_step_and_topic() -> None:
    reader = Reader()
    begin_ms = NOW_MS // 60_000 * 60_000 - 600_000
    for n in range(4):
        for _process in range(2):
            minute = MinuteCounts(loop_lag_ms=n)
            minute.of(Topic("a"))[3] = 1
            minute.of(Topic("b"))[3] = 10
            await reader.log.send("minutes", 0, encode_minute(begin_ms + 60_000 * n, minute))
    reader.tail.take(reader.log.records)

    async def page(**more: Any) -> Any:
        arguments = {"from_ms": begin_ms, "to_ms": NOW_MS, "step_ms": 120_000, "topic": None} | more
        return await reader.tail.minutes(arguments.pop("covers", lambda topic: True), **arguments)

    found = await page()
    assert {at_ms - begin_ms: step.counts[3] for at_ms, step in found.steps.items()} == {0: 44, 120_000: 44}
    assert {topic: counts[3] for topic, counts in found.topics.items()} == {"a": 8, "b": 80}
    assert [(step.processes, step.loop_lag_ms) for step in found.steps.values()] == [(2, 1), (2, 3)]
    assert found.kept_from_ms == begin_ms
    covered = await page(covers=lambda topic: topic == "a")
    assert [step.counts[3] for step in covered.steps.values()] == [4, 4]
    assert list(covered.topics) == ["a"]
    assert [step.counts[3] for step in (await page(topic=Topic("b"))).steps.values()] == [40, 40]
    assert reader.log.reads == 0


async def test_days_back_are_read_from_kafka() -> None:
    reader = Reader()
    day_ms = 86_400_000
    minute = MinuteCounts()
    minute.of(Topic("a"))[0] = 3
    reader.clock.set_ms(NOW_MS - 2 * day_ms)
    await reader.log.send("minutes", 0, encode_minute(reader.clock.now_ms() // 60_000 * 60_000 - 60_000, minute))
    reader.clock.set_ms(NOW_MS)
    found = await reader.tail.minutes(
        lambda topic: True, from_ms=NOW_MS - 3 * day_ms, to_ms=NOW_MS, step_ms=6 * 3_600_000, topic=None
    )
    assert [step.counts[0] for step in found.steps.values()] == [3]


async def test_a_day_of_minutes_is_added_in_many_turns_of_the_event_loop_and_minutes_may_come_meanwhile() -> None:
    # Else heartbeats and deliveries of the process wait for every page that shows a day.
    reader = Reader()
    begin_ms = NOW_MS // 60_000 * 60_000 - 1_440 * 60_000

    def tell(at_ms: int) -> None:
        minute = MinuteCounts(topics={Topic(f"topic-{number}"): [1] * COUNTS for number in range(TOPICS_SHOWN)})
        value = encode_minute(at_ms, minute)
        reader.tail.take(
            [ActivityRecord(stream="minutes", kafka_partition=0, offset=0, at_ms=at_ms + 60_000, value=value)]
        )

    for number in range(1_439):
        tell(begin_ms + 60_000 * number)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1
            if turns == 1:
                tell(begin_ms + 60_000 * 1_439)

    async with asyncio.TaskGroup() as group:
        other = group.create_task(count_turns(), name="other work")
        found = await reader.tail.minutes(
            lambda topic: True, from_ms=begin_ms, to_ms=NOW_MS, step_ms=60_000, topic=None
        )
        other.cancel()
    assert len(found.steps) == 1_439
    assert found.topics[Topic("topic-0")][0] == 1_439
    assert turns >= 1_439 * TOPICS_SHOWN // (ADDED_PER_TURN + TOPICS_SHOWN)


# --- recorded forecasts


def taken(*minutes: tuple[int, range | None]) -> ActivityTail:
    """A tail that has taken the records of processes: for each its age in minutes, and its shards; None: no forecast."""
    clock = ManualClock(NOW_MS)
    tail = ActivityTail(Log(clock), clock)
    for offset, (age_minutes, shards) in enumerate(minutes):
        as_of_ms = NOW_MS - age_minutes * 60_000
        minute = MinuteCounts(forecast=None if shards is None else a_forecast(shards, as_of_ms))
        value = encode_minute(as_of_ms // 60_000 * 60_000, minute)
        tail.take([ActivityRecord(stream="minutes", kafka_partition=0, offset=offset, at_ms=as_of_ms, value=value)])
    return tail


@pytest.mark.parametrize(
    ("minutes", "age"),
    [
        ([], None),
        ([(1, range(8))], 1),
        ([(1, range(3)), (1, range(3, 8))], 1),
        ([(2, range(8)), (1, range(8))], 1),
        # A process is missing, has not made its own, or its shards changed hands within the minute.
        ([(1, range(3))], None),
        ([(1, range(8)), (1, None)], 1),
        ([(2, range(8)), (1, range(3))], 2),
        ([(2, range(8)), (1, range(8)), (1, range(2))], 2),
        ([(1, range(9))], None),
        ([(3, range(8))], None),
    ],
)
def test_the_latest_minute_whose_forecasts_are_of_each_shard_once_is_shown(
    minutes: list[tuple[int, range | None]], age: int | None
) -> None:
    found = taken(*minutes).recorded_forecasts(shards=8)

    assert (None if found is None else {(NOW_MS - each.as_of_ms) // 60_000 for each in found}) == (age and {age})


def test_forecasts_of_minutes_long_past_are_forgotten() -> None:
    tail = taken(*((age, range(8)) for age in range(60, 0, -1)))

    assert len(tail._forecasts) == FORECASTS_KEPT
    assert not any(minute.forecast for minute in tail._minutes.values())
