"""Our transactions (clockwork/kafka/transactional.py) beside AIOKafkaProducer's, in the same run, alternating.

Why this is measured: the hot path is the one place where we ask the broker ourselves instead of letting the library's
producer do it. Each transaction sends the records of a batch, awaits them, sends a marker, awaits it, and commits.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from aiokafka import AIOKafkaProducer

from clockwork.clock import SystemClock
from clockwork.domain.ownership import IncarnationId
from clockwork.domain.record import OutRecord
from clockwork.kafka.publisher import KafkaPublisher
from clockwork.kafka.topics import create_internal_topics
from clockwork.ports.delivery import SlotName, SlotProducer
from tests.benchmarks.figures import Finding
from tests.benchmarks.world import Bench, kafka_context

SIZES: Final = (1, 20, 100, 500)
TRANSACTIONS: Final = 20
SENDS_MS: Final = 6_000
HEADERS: Final = tuple((f"clockwork-header-{n}", b"x" * 30) for n in range(4))


def records(topic: str, count: int) -> list[OutRecord]:
    return [
        OutRecord(
            topic=topic, key=f"key-{n}".encode(), value=b"x" * 200, headers=HEADERS, timestamp_ms=1_700_000_000_000
        )
        for n in range(count)
    ]


async def library(producer: AIOKafkaProducer, deliveries_topic: str, batch: list[OutRecord]) -> None:
    await producer.begin_transaction()
    sent = [
        await producer.send(r.topic, r.value, key=r.key, headers=list(r.headers), timestamp_ms=r.timestamp_ms)
        for r in batch
    ]
    await asyncio.gather(*sent)
    await producer.send_and_wait(deliveries_topic, b"marker", key=b"marker", partition=0)
    await producer.commit_transaction()


async def ours_once(slot: SlotProducer, batch: list[OutRecord]) -> None:
    await slot.deliver(batch, lambda _: b"marker", sends_ms=SENDS_MS)


async def timed_ms(work: Callable[[], Awaitable[object]], pause_s: float) -> float:
    took_s = 0.0
    for _ in range(TRANSACTIONS):
        start_s = time.perf_counter()
        await work()
        took_s += time.perf_counter() - start_s
        await asyncio.sleep(pause_s)
    return took_s / TRANSACTIONS * 1_000


async def beside_the_library(bench: Bench) -> None:
    async with bench.cluster() as cluster:
        kafka = kafka_context(cluster)
        await create_internal_topics(kafka)
        topic = await cluster.topic(kafka_partitions=4)
        producer = AIOKafkaProducer(
            bootstrap_servers=kafka.settings.brokers[0],
            transactional_id=f"{cluster.name}-library",
            acks="all",
            linger_ms=0,
        )
        await producer.start()
        try:
            async with KafkaPublisher(kafka, SystemClock()) as publisher:
                ours = publisher.open_slot(SlotName(IncarnationId("bench.1"), 0))
                await ours.init()
                for pause_s, name in ((0.0, "back to back"), (0.05, "with a pause")):
                    for size in SIZES:
                        batch = records(topic, size)
                        theirs = partial(library, producer, kafka.settings.deliveries_topic, batch)
                        rounds = [
                            (await timed_ms(partial(ours_once, ours, batch), pause_s), await timed_ms(theirs, pause_s))
                            for _ in range(bench.rounds)
                        ]
                        what = f"transaction of {size} records, {name}"
                        mine, other = zip(*rounds, strict=True)
                        bench.report.add(
                            Finding(scenario="transactions", what=what, unit="ms", rounds=mine, yardstick=other)
                        )
        finally:
            await producer.stop()
