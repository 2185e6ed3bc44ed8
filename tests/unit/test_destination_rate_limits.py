"""A topic that gets as many records as it may: it waits in place, in order, and nothing else does."""

import random

import pytest

from clockwork.domain.destination import Topic
from clockwork.domain.schedule import Guarantee, RequestId, Retry
from clockwork.firing.destination_waits import ROUNDS_PER_SECOND, DestinationRateLimits, rate_limits
from clockwork.firing.shard_pass import FRONT_ROWS_MIN
from clockwork.firing.takeover import ShardLease
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import PaceSettings
from tests.support import builders
from tests.support.builders import DUE_MS, row, schedule
from tests.support.engine import Engine

TOPIC = Topic("orders")
NOW_MS = 1_700_000_000_000


def paced(per_second: int = 0, **topics: int) -> DestinationRateLimits:
    return DestinationRateLimits(per_second, topics, NoTelemetry())


def test_a_topic_gets_its_second_at_once_and_then_waits_for_a_part_of_the_next() -> None:
    pace = paced(8)
    assert [pace.take(TOPIC, NOW_MS) for _ in range(8)] == [None] * 8
    wait = pace.take(TOPIC, NOW_MS)
    assert wait is not None
    assert (wait.until_ms, wait.paced, wait.given_up) == (NOW_MS + 1_000 // ROUNDS_PER_SECOND, True, False)
    assert pace.waits(wait.until_ms - 1) == {TOPIC: wait}
    assert pace.take(TOPIC, wait.until_ms - 1) == wait
    assert pace.waits(wait.until_ms) == {}
    assert [pace.take(TOPIC, wait.until_ms) is None for _ in range(3)] == [True, True, False]


def test_one_topics_pace_is_no_others_and_some_have_their_own_or_none() -> None:
    pace = rate_limits(PaceSettings(deliveries_per_second=1, topic_rates=("orders=2", "logs=0")), NoTelemetry())
    taken = {name: [pace.take(Topic(name), NOW_MS) is None for _ in range(3)] for name in ("orders", "logs", "mail")}
    assert taken == {"orders": [True, True, False], "logs": [True] * 3, "mail": [True, False, False]}


@pytest.mark.parametrize("per_second", [1, 3, 250, 4_001])
def test_over_some_seconds_a_topic_gets_its_pace_and_no_more(per_second: int) -> None:
    pace, now_ms, taken = paced(per_second), NOW_MS, 0
    while now_ms < NOW_MS + 5_000:
        while (wait := pace.take(TOPIC, now_ms)) is None:
            taken += 1
            assert taken <= per_second * 6
        now_ms = wait.until_ms
    assert 5 * per_second <= taken <= 6 * per_second


class Paced(Engine):
    """An engine whose topics have a pace, and a clock that a test moves."""

    def __init__(self, per_second: int, **topics: int) -> None:
        super().__init__(pace=paced(per_second, **topics))

    async def passes_at(self, lease: ShardLease, late_ms: int) -> None:
        """As many passes as the loop would make at this time."""
        self.at_due(late_ms)
        while (await self.one_pass(lease)).more_now:
            await lease.cleanup.finish()
        await lease.cleanup.finish()


async def test_planning_of_a_topic_over_its_pace_wait_in_order_and_other_topics_go_on() -> None:
    engine = Paced(0, **{builders.TOPIC: 4})
    engine.kafka.create_topic("other")
    rows = [row(schedule(schedule_key=f"k{n}", ordering_key=f"lane-{n % 2}")) for n in range(10)]
    await engine.put(*rows, row(schedule(schedule_key="free", topic="other")))
    lease = await engine.own()
    await engine.passes_at(lease, 0)
    assert engine.arrived() == ["k0", "k1", "k2", "k3"]
    assert engine.arrived("other") == ["free"]
    for late_ms in range(250, 2_000, 250):
        await engine.passes_at(lease, late_ms)
    assert engine.arrived() == [f"k{n}" for n in range(10)]


async def test_a_pass_says_when_a_topic_over_its_pace_goes_on() -> None:
    engine = Paced(1)
    await engine.put(*(row(schedule(schedule_key=f"k{n}")) for n in range(2)))
    lease = await engine.own()
    engine.at_due()
    first = await engine.one_pass(lease)
    assert (first.fired, first.more_now) == (1, True)
    second = await engine.one_pass(lease)
    assert (second.fired, second.more_now, second.waits_until_ms) == (0, False, DUE_MS + 1_000)


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_the_pace_all_arrive_once_and_in_the_order_of_their_lanes(seed: int) -> None:
    rng = random.Random(seed)
    engine = Paced(rng.randint(1, 40), **{"fast": 0})
    for topic in ("slow", "fast"):
        engine.kafka.create_topic(topic)
    lanes: dict[tuple[str, str], list[str]] = {}
    for n in range(rng.randint(FRONT_ROWS_MIN, 3 * FRONT_ROWS_MIN)):
        topic, lane, key = rng.choice(("slow", "slow", "fast")), f"lane-{rng.randrange(5)}", f"k{n}"
        kind = rng.choice(list(Guarantee))
        wanted = schedule(schedule_key=key, ordering_key=lane, topic=topic, guarantee=kind, due_ms=DUE_MS + n // 50)
        await engine.put(row(wanted))
        lanes.setdefault((topic, lane), []).append(key)
    lease, late_ms, sent = await engine.own(), 0, sum(len(keys) for keys in lanes.values())
    while len(engine.arrived("slow")) + len(engine.arrived("fast")) < sent:
        late_ms += rng.choice((1, 50, 250, 1_000))
        assert late_ms < 3_600_000
        await engine.passes_at(lease, late_ms)
    for (topic, _), keys in lanes.items():
        assert [key for key in engine.arrived(topic) if key in set(keys)] == keys


async def test_a_deep_backlog_of_a_slow_topic_is_not_read_at_each_pass_and_gets_its_whole_pace() -> None:
    engine = Paced(40)
    engine.kafka.create_topic("other")
    backlog = [row(schedule(schedule_key=f"k{n}", ordering_key=f"lane-{n % 7}")) for n in range(5_000)]
    await engine.put(*backlog)
    lease = await engine.own()
    await engine.passes_at(lease, 0)
    assert lease.blocked_prefix is not None
    assert lease.blocked_prefix.paced == {builders.TOPIC}
    assert (await engine.one_pass(lease)).waits_until_ms == DUE_MS + 250
    engine.store.calls.clear()
    for late_ms in range(250, 4_001, 250):
        await engine.passes_at(lease, late_ms)
    assert engine.arrived() == [f"k{n}" for n in range(40 + 4 * 40)]
    # Two passes for each quarter of a second: one fetches what may be sent, one looks behind the front.
    assert engine.store.calls["read_page"] <= 2 * 16 + 2
    await engine.put(row(schedule(schedule_key="behind", topic="other", due_ms=DUE_MS + 1)))
    await engine.passes_at(lease, 4_001)
    assert engine.arrived("other") == ["behind"]


async def test_a_held_row_that_waits_for_its_topics_pace_can_be_cancelled() -> None:
    engine = Paced(1)
    first, second = (row(schedule(schedule_key=f"k{n}")) for n in range(2))
    await engine.put(first, second)
    lease = await engine.own()
    engine.at_due()
    await engine.store.hold(second.name, RequestId("r"))
    await engine.one_pass(lease)
    stored = await engine.store.read_row(second.name)
    retry = getattr(stored, "retry", None)
    assert isinstance(retry, Retry)
    assert (retry.epoch, retry.attempts, getattr(stored, "hold", "?")) == (lease.epoch, 0, None)
    # What it was told holds, even if the topic could take it sooner.
    await engine.passes_at(lease, retry.at_ms - DUE_MS - 1)
    assert engine.arrived() == ["k0"]
    await engine.passes_at(lease, retry.at_ms - DUE_MS)
    assert engine.arrived() == ["k0", "k1"]


async def test_dead_letters_have_no_pace() -> None:
    engine = Paced(1)
    exhausted = Retry(at_ms=0, epoch=0, attempts=1_000)
    await engine.put(*(row(schedule(schedule_key=f"k{n}"), retry=exhausted) for n in range(3)))
    lease = await engine.own()
    await engine.passes_at(lease, 0)
    assert engine.arrived(engine.kafka.dead_letters_topic) == ["k0", "k1", "k2"]
