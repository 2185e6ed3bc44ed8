"""Recorded activity: what an event costs its process and the brokers, and whether deliveries are later for it.

The cost in CPU is that of the seam: the same deliveries told to metrics alone, and to metrics with a recorder that makes its
batches, as many at a time as a tick has at 2,000 a second. Lateness is measured in pairs of rounds, events off and
on, of two nodes.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

from clockwork.domain.activity import Event
from clockwork.domain.schedule import Receipt, Row
from clockwork.observability.activity import (
    KEPT_PER_TICK_MAX,
    ActivityRecorder,
    RecordingTelemetry,
    decode_events,
    encode_events,
)
from clockwork.ports.activity import Stream
from tests.benchmarks.figures import Finding, Goal, quantile
from tests.benchmarks.lateness import late_ms, round_of
from tests.benchmarks.world import Bench, started
from tests.support import builders
from tests.support.clocks import ManualClock

BATCH: Final = KEPT_PER_TICK_MAX // 2
"""Deliveries between two ticks, few enough that each is kept."""
BATCHES: Final = 100
RATE: Final = 100
SCENARIO: Final = "events"


class Sent:
    """An `ActivityLog` that takes all, and counts its bytes."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.values: list[bytes] = []

    async def send(self, stream: Stream, kafka_partition: int, value: bytes) -> None:
        if stream == "events":
            self.size_bytes += len(value)
            self.values.append(value)

    async def tail(self, on_records: object, *, minutes_from_ms: int) -> None:
        raise AssertionError("not in this measurement")

    async def read(self, stream: Stream, **_: object) -> Sequence[object]:
        raise AssertionError("not in this measurement")


async def measured(bench: Bench) -> None:
    """All of it."""
    rng = random.Random(7)
    # Keys as clients make them: nothing in them repeats.
    rows = [
        builders.row(
            builders.schedule(
                client_id=f"client-{n % 20}",
                schedule_key=f"order-{rng.getrandbits(64):016x}",
                delivery_id=f"{rng.getrandbits(128):032x}",
            )
        )
        for n in range(BATCH)
    ]
    deliveries = [
        (row, builders.receipt(10**8 + rng.randrange(10**6), kafka_partition=n % 12, at_ms=row.due_ms + n % 50))
        for n, row in enumerate(rows)
    ]
    plain: list[float] = []
    recorded: list[float] = []
    sizes: list[float] = []
    reading: list[float] = []
    for _ in range(bench.rounds):
        plain.append(await _seam_us(deliveries, None))
        sent = Sent()
        recorded.append(await _seam_us(deliveries, sent))
        sizes.append(sent.size_bytes / (BATCH * BATCHES))
        reading.append(_us_each(lambda sent=sent: [decode_events(value) for value in sent.values], BATCH * BATCHES))  # type: ignore[misc]  # mypy cannot infer a default's type
    more = [max(0.0, with_events - without) for with_events, without in zip(recorded, plain, strict=True)]
    events = [Event("delivered", builders.DUE_MS + n) for n in range(KEPT_PER_TICK_MAX)]
    largest_ms = [_us_each(lambda: encode_events(events), 1) / 1_000 for _ in range(bench.rounds)]

    def add(what: str, unit: str, values: Sequence[float], goal: Goal | None = None) -> None:
        bench.report.add(Finding(scenario=SCENARIO, what=what, unit=unit, rounds=values, goal=goal))

    add("CPU of a delivery's event, batches included", "µs", more, Goal(bound=10.0))
    add("CPU of a delivery's metrics alone", "µs", plain)
    add("bytes of a delivery's event", "bytes", sizes, Goal(bound=100.0))
    add("CPU of an event that is looked at", "µs", reading)
    add("event loop: a batch of a tick", "ms", largest_ms, Goal(bound=10.0))
    await _lateness(bench)


async def _seam_us(deliveries: Sequence[tuple[Row, Receipt]], sent: Sent | None) -> float:
    """CPU of one delivery told to the telemetry."""
    telemetry = RecordingTelemetry()
    recorder = None
    if sent is not None:
        recorder = telemetry.recorder = ActivityRecorder(sent, ManualClock(builders.DUE_MS), telemetry)  # type: ignore[arg-type]  # only `send` is asked
    begin_s = time.process_time()
    for _ in range(BATCHES):
        for row, receipt in deliveries:
            telemetry.delivered(row.schedule.guarantee, row, receipt, late_seconds=0.01, catch_up=False)
        if recorder is not None:
            async with asyncio.TaskGroup() as group:
                recorder.flush(group)
    return (time.process_time() - begin_s) * 1e6 / (len(deliveries) * BATCHES)


def _us_each(work: Callable[[], object], count: int) -> float:
    begin_s = time.process_time()
    work()
    return (time.process_time() - begin_s) * 1e6 / count


async def _lateness(bench: Bench) -> None:
    """Lateness at a steady rate, with and without events: two nodes, each with a cluster of its own, in turns."""
    p99: dict[str, list[float]] = {"off": [], "on": []}
    p50: dict[str, list[float]] = {"off": [], "on": []}
    seen: dict[str, int] = {}
    async with AsyncExitStack() as stack:
        contenders = {}
        for switch in p50:
            cluster = await stack.enter_async_context(bench.cluster())
            topic = await cluster.topic(kafka_partitions=8)
            contenders[switch] = (cluster, await started(cluster, CLOCKWORK_EVENTS=switch), topic, RATE, "exactly_once")
        for switch, contender in contenders.items():
            seen[switch] = len(await round_of(*contender, "warm", seen_before=0))
        for n in range(bench.rounds):
            # Either is the first of a pair in turn.
            for switch, contender in sorted(contenders.items(), reverse=n % 2 == 1):
                arrivals = await round_of(*contender, f"r{n}", seen_before=seen[switch])
                seen[switch] += len(arrivals)
                late = [late_ms(arrival) for arrival in arrivals]
                p50[switch].append(quantile(late, 0.5))
                p99[switch].append(quantile(late, 0.99))
    for name, values in (("p50", p50), ("p99", p99)):
        bench.report.add(
            Finding(
                scenario=SCENARIO,
                what=f"lateness with events, {RATE}/s, {name}",
                unit="ms",
                rounds=values["on"],
                yardstick=values["off"],
            )
        )
