"""`ActivityLog`, on the broker in memory and on Kafka."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from clockwork.clock import SystemClock
from clockwork.errors import BrokerUnavailable, DeliveryRefused
from clockwork.kafka.activity import LATEST_RECORDS, KafkaActivity
from clockwork.kafka.client import KafkaContext
from clockwork.kafka.memory.activity import MemoryActivity
from clockwork.kafka.memory.broker import MemoryKafka
from clockwork.kafka.publisher import KafkaPublisher
from clockwork.kafka.topics import create_internal_topics
from clockwork.ports.activity import ActivityLog, ActivityRecord
from clockwork.settings.model import KafkaSettings
from infra.local import LocalServices
from tests.support.clocks import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(SystemClock().now_ms())  # Kafka deletes what is old


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.real)])
def services_or_none(request: pytest.FixtureRequest) -> LocalServices | None:
    return None if request.param == "memory" else request.getfixturevalue("services")


@pytest.fixture
async def activity(services_or_none: LocalServices | None, clock: ManualClock) -> AsyncIterator[ActivityLog]:
    if services_or_none is None:
        yield MemoryActivity(MemoryKafka(cluster="twin", shards=2), clock)
        return
    kafka = a_context(services_or_none)
    await create_internal_topics(kafka)
    async with KafkaPublisher(kafka, clock) as publisher:
        yield KafkaActivity(kafka, publisher)


def a_context(services: LocalServices) -> KafkaContext:
    return KafkaContext(
        settings=KafkaSettings(brokers=(services.kafka_brokers,), cluster=f"c{uuid4().hex[:8]}", shards=2)
    )


class Reader:
    """Follows until the block ends."""

    def __init__(self, activity: ActivityLog, *, minutes_from_ms: int = 0) -> None:
        self.records: list[ActivityRecord] = []
        self._came = asyncio.Event()
        self._activity = activity
        self._minutes_from_ms = minutes_from_ms
        self._stack = contextlib.AsyncExitStack()

    def _take(self, records: Sequence[ActivityRecord]) -> None:
        self.records += records
        self._came.set()

    async def __aenter__(self) -> "Reader":
        group = await self._stack.enter_async_context(asyncio.TaskGroup())
        self._task = group.create_task(self._activity.tail(self._take, minutes_from_ms=self._minutes_from_ms))
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._task.cancel()
        await self._stack.aclose()

    async def until(self, *values: bytes) -> None:
        async with asyncio.timeout(60):
            while not set(values) <= {each.value for each in self.records}:
                self._came.clear()
                await self._came.wait()


async def test_what_was_sent_and_what_comes_is_read_once_and_in_order(activity: ActivityLog) -> None:
    await activity.send("events", 3, b"a")
    async with Reader(activity) as reader:
        await reader.until(b"a")
        for value in (b"b", b"c"):
            await activity.send("events", 3, value)
        await activity.send("minutes", 0, b"m")
        await reader.until(b"c", b"m")
    events = [each for each in reader.records if each.stream == "events"]
    assert [(each.kafka_partition, each.offset, each.value) for each in events] == [
        (3, 0, b"a"),
        (3, 1, b"b"),
        (3, 2, b"c"),
    ]
    assert [each.value for each in reader.records if each.stream == "minutes"] == [b"m"]


async def test_minutes_are_read_from_a_time_on(activity: ActivityLog, clock: ManualClock) -> None:
    await activity.send("minutes", 0, b"old")
    clock.advance_ms(1)
    since_ms = clock.now_ms()
    await activity.send("minutes", 0, b"new")
    async with Reader(activity, minutes_from_ms=since_ms) as reader:
        await reader.until(b"new")
    assert [each.value for each in reader.records] == [b"new"]
    assert [each.value for each in await activity.read("minutes", from_ms=since_ms, records_max=10)] == [b"new"]
    assert [each.value for each in await activity.read("minutes", from_ms=0, to_ms=since_ms, records_max=10)] == [
        b"old"
    ]
    assert len(await activity.read("minutes", from_ms=0, records_max=1)) == 1
    assert await activity.read("events", from_ms=0, records_max=1) == []


@pytest.mark.real
async def test_following_begins_near_the_end_of_many_events(services: LocalServices) -> None:
    kafka = a_context(services)
    await create_internal_topics(kafka)
    async with KafkaPublisher(kafka, SystemClock()) as publisher:
        activity = KafkaActivity(kafka, publisher)
        sent = [f"{n}".encode() for n in range(LATEST_RECORDS + 20)]
        await asyncio.gather(*(activity.send("events", 1, value) for value in sent))
        async with Reader(activity) as reader:
            await activity.send("events", 1, b"last")
            await reader.until(b"last")
        assert len(reader.records) in (LATEST_RECORDS, LATEST_RECORDS + 1)


@pytest.mark.real
async def test_topics_that_are_missing_refuse_and_are_found_once_they_are_made(services: LocalServices) -> None:
    kafka = a_context(services)
    without = replace(kafka, settings=replace(kafka.settings, activity=False))
    await create_internal_topics(without)
    async with KafkaPublisher(kafka, SystemClock()) as publisher:
        activity = KafkaActivity(kafka, publisher)
        with pytest.raises(DeliveryRefused, match="topic_missing"):
            await activity.send("events", 0, b"a")
        with pytest.raises(BrokerUnavailable, match="clockwork init"):
            await activity.read("events", from_ms=0, records_max=1)
        async with Reader(activity) as reader:
            await create_internal_topics(kafka)
            async with asyncio.timeout(60):
                while True:
                    try:
                        await activity.send("events", 0, b"b")
                    except DeliveryRefused:
                        await asyncio.sleep(0.1)  # its absence is believed for a second
                    else:
                        break
            await reader.until(b"b")
