"""The broker's CPU for a transaction: per transaction, per Kafka partition touched, or per record.

A bare producer commits transactions of several shapes, one right after the other, in rounds that alternate between the
shapes; the broker's CPU time is what the kernel counts for its process, less what an idle broker uses in the same time.
A plane through the figures (least squares) gives the three prices. The same shapes outside of a transaction tell what of
it is the produce request's own.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from clockwork.domain.record import OutRecord
from clockwork.kafka.client import KafkaContext
from clockwork.kafka.send import TopicPartition
from clockwork.kafka.topics import create_topics
from tests.benchmarks.bare_kafka import BareProducer, Batches
from tests.benchmarks.cpu import KAFKA_MAIN, cpu_of_service_s
from tests.benchmarks.figures import Finding
from tests.benchmarks.world import Bench, kafka_context

TRANSACTIONS: Final = 400
WARM_UP: Final = 1_500
"""Transactions before the first round: Java compiles what is hot only after some time."""
IDLE_S: Final = 10.0
REST_S: Final = 0.004
"""Between two transactions of an id: right behind another one it would be told to wait, and ask again."""
KAFKA_PARTITIONS: Final = 64
VALUE: Final = b'{"note":"' + b"x" * 200 + b'"}'


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """One form of a transaction, or of a produce request outside of one."""

    kafka_partitions: int
    """That the records go to."""
    records: int
    marker: bool = True
    """A marker besides, in a Kafka partition of its own and a request of its own."""
    transaction: bool = True

    @property
    def touched(self) -> int:
        return self.kafka_partitions + (self.marker and self.transaction)

    def __str__(self) -> str:
        kind = "transaction" if self.transaction else "produce request"
        marker = " and a marker" if self.marker and self.transaction else ""
        return f"{kind}: {self.records} records in {self.kafka_partitions} Kafka partitions{marker}"


SHAPES: Final = (
    *(Shape(kafka_partitions=n, records=n) for n in (1, 2, 4, 8, 16, 32)),
    Shape(kafka_partitions=1, records=32),
    Shape(kafka_partitions=8, records=32),
    Shape(kafka_partitions=1, records=1, marker=False),
    *(Shape(kafka_partitions=n, records=n, transaction=False) for n in (1, 8, 32)),
)


async def of_a_transaction(bench: Bench) -> None:
    async with bench.cluster() as cluster:
        await measure(bench, kafka_context(cluster), prefix=cluster.name)


async def measure(bench: Bench, kafka: KafkaContext, *, prefix: str) -> None:
    records, markers = f"{prefix}-records", f"{prefix}-markers"
    await create_topics(kafka, [records, markers], kafka_partitions=KAFKA_PARTITIONS)
    inside = BareProducer(kafka, f"{prefix}-bare")
    outside = BareProducer(kafka, None)
    try:
        await inside.open()
        await outside.open()
        for n in range(bench.scaled(WARM_UP)):
            await inside.commit(_batches(records, SHAPES[n % 8], n), marker=_marker(markers, n))
        cost_ms: dict[Shape, list[float]] = defaultdict(list)
        for _ in range(bench.rounds):
            idle_share = await _idle_share()
            for shape in SHAPES:
                cost_ms[shape].append(await _cost_ms(bench, shape, inside, outside, records, markers, idle_share))
    finally:
        await inside.close()
        await outside.close()
    for shape, rounds in cost_ms.items():
        bench.report.add(Finding(scenario="broker-cpu", what=f"CPU of a {shape}", unit="ms", rounds=rounds))
    _report_prices(bench, cost_ms)


async def _idle_share() -> float:
    """Cores that the broker uses while nothing is asked."""
    before_s, start_s = cpu_of_service_s(KAFKA_MAIN), time.perf_counter()
    await asyncio.sleep(IDLE_S)
    return (cpu_of_service_s(KAFKA_MAIN) - before_s) / (time.perf_counter() - start_s)


async def _cost_ms(
    bench: Bench,
    shape: Shape,
    inside: BareProducer,
    outside: BareProducer,
    records: str,
    markers: str,
    idle_share: float,
) -> float:
    count = bench.scaled(TRANSACTIONS)
    before_s, start_s = cpu_of_service_s(KAFKA_MAIN), time.perf_counter()
    for n in range(count):
        batches = _batches(records, shape, n)
        if shape.transaction:
            await inside.commit(batches, marker=_marker(markers, n) if shape.marker else None)
        else:
            await outside.send(batches)
        await asyncio.sleep(REST_S)
    took_s = time.perf_counter() - start_s
    return (cpu_of_service_s(KAFKA_MAIN) - before_s - idle_share * took_s) / count * 1_000


def _report_prices(bench: Bench, cost_ms: dict[Shape, list[float]]) -> None:
    shapes = [shape for shape in cost_ms if shape.transaction]
    rounds = len(next(iter(cost_ms.values())))
    planes = [
        least_squares(
            [(1.0, float(shape.touched), float(shape.records)) for shape in shapes],
            [cost_ms[shape][n] for shape in shapes],
        )
        for n in range(rounds)
    ]
    for name, prices in zip(
        ("transaction", "Kafka partition touched", "record"), zip(*planes, strict=True), strict=True
    ):
        bench.report.add(Finding(scenario="broker-cpu", what=f"CPU for each {name}", unit="ms", rounds=prices))


def least_squares(rows: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """The factors of a linear form that lies closest to the values (normal equations, Gauss): enough for a few columns."""
    size = len(rows[0])
    matrix = [
        [sum(row[i] * row[j] for row in rows) for j in range(size)]
        + [sum(row[i] * value for row, value in zip(rows, values, strict=True))]
        for i in range(size)
    ]
    for i in range(size):
        pivot = max(range(i, size), key=lambda k: abs(matrix[k][i]))
        matrix[i], matrix[pivot] = matrix[pivot], matrix[i]
        for k in range(size):
            if k != i:
                factor = matrix[k][i] / matrix[i][i]
                matrix[k] = [a - factor * b for a, b in zip(matrix[k], matrix[i], strict=True)]
    return [matrix[i][size] / matrix[i][i] for i in range(size)]


def _batches(topic: str, shape: Shape, n: int) -> Batches:
    batches: dict[TopicPartition, list[OutRecord]] = defaultdict(list)
    for k in range(shape.records):
        where = (topic, (n * shape.kafka_partitions + k % shape.kafka_partitions) % KAFKA_PARTITIONS)
        batches[where].append(
            OutRecord(topic=topic, key=b"key", value=VALUE, headers=(), timestamp_ms=1_795_000_000_000)
        )
    return batches


def _marker(topic: str, n: int) -> Batches:
    record = OutRecord(topic=topic, key=b"slot", value=b"x" * 200, headers=(), timestamp_ms=1_795_000_000_000)
    return {(topic, n % KAFKA_PARTITIONS): [record]}
