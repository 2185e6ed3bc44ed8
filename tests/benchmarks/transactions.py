"""Our transactions (adapters/kafka_transaction) beside AIOKafkaProducer's, in the same run, alternating.

Why this is measured: the hot path is the one place where we ask the broker ourselves instead of letting the library's
producer do it. Each transaction sends the records of a batch, awaits them, sends a marker, awaits it, and commits.

    .venv/bin/python -m tests.benchmarks.transactions
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from aiokafka import AIOKafkaProducer

from clockwork.adapters.kafka_client import KafkaSettings
from clockwork.adapters.kafka_publisher import KafkaPublisher
from clockwork.adapters.kafka_topics import create_internal_topics, create_topics
from clockwork.clock import SystemClock
from clockwork.domain.record import OutRecord
from clockwork.domain.sharding import ShardId
from clockwork.ports import ShardPublisher
from infra.local import LocalServices

TOPIC: Final = "bench"
SIZES: Final = (1, 20, 100, 500)
ROUNDS: Final = 5
TRANSACTIONS: Final = 20
HEADERS: Final = tuple((f"clockwork-header-{n}", b"x" * 30) for n in range(4))


def records(count: int) -> list[OutRecord]:
    return [
        OutRecord(
            topic=TOPIC, key=f"key-{n}".encode(), value=b"x" * 200, headers=HEADERS, timestamp_ms=1_700_000_000_000
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


async def ours_once(publisher: ShardPublisher, batch: list[OutRecord]) -> None:
    await publisher.deliver(batch, lambda _: b"marker")


async def timed_ms(work: Callable[[], Awaitable[object]], pause_s: float) -> float:
    took_s = 0.0
    for _ in range(TRANSACTIONS):
        start_s = time.perf_counter()
        await work()
        took_s += time.perf_counter() - start_s
        await asyncio.sleep(pause_s)
    return took_s / TRANSACTIONS * 1_000


async def main() -> None:
    async with LocalServices() as services:
        settings = KafkaSettings(brokers=services.kafka_brokers, cluster="bench", shards=2, consumer_group="bench")
        await create_internal_topics(settings)
        await create_topics(settings, [TOPIC], kafka_partitions=4)
        producer = AIOKafkaProducer(
            bootstrap_servers=services.kafka_brokers, transactional_id="bench-library", acks="all", linger_ms=0
        )
        await producer.start()
        try:
            async with KafkaPublisher(settings, SystemClock()) as publisher:
                ours = await publisher.open_shard(ShardId(1))
                for pause_s, name in ((0.0, "back to back"), (0.05, "with a pause")):
                    for size in SIZES:
                        batch = records(size)
                        figures: dict[str, list[float]] = {"ours": [], "library": []}
                        for _ in range(ROUNDS):
                            figures["ours"].append(await timed_ms(partial(ours_once, ours, batch), pause_s))
                            theirs = partial(library, producer, settings.deliveries_topic, batch)
                            figures["library"].append(await timed_ms(theirs, pause_s))
                        medians = {who: statistics.median(ms) for who, ms in figures.items()}
                        ratio = medians["library"] / medians["ours"]
                        times = f"ours {medians['ours']:6.1f} ms  library {medians['library']:6.1f} ms"
                        print(f"{name}, {size:>3} records: {times}  ratio {ratio:.2f}", flush=True)
        finally:
            await producer.stop()


if __name__ == "__main__":
    asyncio.run(main())
