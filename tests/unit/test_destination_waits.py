"""Destinations in back-off or over their rate limit: they wait as a whole, in place and in order, and no other waits."""

import random

import pytest

from clockwork.domain.destination import Topic
from clockwork.domain.schedule import Guarantee, RequestId, Retry
from clockwork.errors import RefusalCause
from clockwork.firing.destination_waits import ROUNDS_PER_SECOND, DestinationRateLimits, DestinationWaits, rate_limits
from clockwork.firing.shard_pass import PREFIX_ROWS_MIN
from clockwork.firing.takeover import ShardLease
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import PaceSettings
from tests.support import builders
from tests.support.builders import DUE_MS, row, schedule
from tests.support.engine import Engine

TOPIC = Topic("orders")
NOW_MS = 1_700_000_000_000


# --- back-off


def test_refusals_at_the_same_time_count_as_one_probe() -> None:
    waits = DestinationWaits(topic_wait_ms=60_000)
    first = waits.refused(TOPIC, RefusalCause.DESTINATION, "topic_missing", now_ms=NOW_MS)
    assert waits.refused(TOPIC, RefusalCause.DESTINATION, "topic_missing", now_ms=NOW_MS + 1) == first


def test_a_topic_is_probed_again_after_its_back_off_and_forgotten_when_it_takes_records() -> None:
    waits = DestinationWaits(topic_wait_ms=60_000)
    wait = waits.refused(TOPIC, RefusalCause.DESTINATION, "topic_missing", now_ms=NOW_MS)
    assert TOPIC in waits.at(wait.until_ms - 1)
    assert TOPIC not in waits.at(wait.until_ms)
    waits.succeeded(TOPIC)
    again = waits.refused(TOPIC, RefusalCause.DESTINATION, "topic_missing", now_ms=NOW_MS + 100_000)
    assert again.until_ms - NOW_MS - 100_000 == wait.until_ms - NOW_MS


def test_only_a_missing_or_forbidden_topic_is_ever_given_up() -> None:
    for cause, given_up in ((RefusalCause.DESTINATION, True), (RefusalCause.TRANSIENT, False)):
        waits = DestinationWaits(topic_wait_ms=60_000)
        waits.refused(TOPIC, cause, "reason", now_ms=NOW_MS)
        assert waits.refused(TOPIC, cause, "reason", now_ms=NOW_MS + 60_000).given_up is given_up


def test_a_destination_whose_broker_or_settings_take_nothing_is_probed_every_two_seconds_however_long_that_lasts() -> (
    None
):
    # Else a setting that is put right would go unnoticed for as long as the back-off has grown.
    waits, now_ms = DestinationWaits(topic_wait_ms=60_000), NOW_MS
    for _ in range(50):
        wait = waits.refused(TOPIC, RefusalCause.TRANSIENT, "not_enough_replicas", now_ms=now_ms)
        assert now_ms < wait.until_ms <= now_ms + 2_000
        assert TOPIC not in waits.at(wait.until_ms)
        now_ms = wait.until_ms


# --- rate limits


def limited(per_second: int = 0, **topics: int) -> DestinationRateLimits:
    return DestinationRateLimits(per_second, topics, NoTelemetry())


def test_a_topic_gets_its_second_at_once_and_then_waits_for_a_part_of_the_next() -> None:
    limits = limited(8)
    assert [limits.take(TOPIC, NOW_MS) for _ in range(8)] == [None] * 8
    wait = limits.take(TOPIC, NOW_MS)
    assert wait is not None
    assert (wait.until_ms, wait.rate_limited, wait.given_up) == (NOW_MS + 1_000 // ROUNDS_PER_SECOND, True, False)
    assert limits.waits(wait.until_ms - 1) == {TOPIC: wait}
    assert limits.take(TOPIC, wait.until_ms - 1) == wait
    assert limits.waits(wait.until_ms) == {}
    assert [limits.take(TOPIC, wait.until_ms) is None for _ in range(3)] == [True, True, False]


def test_the_rate_of_one_topic_is_not_that_of_others_and_some_have_their_own_or_none() -> None:
    limits = rate_limits(PaceSettings(deliveries_per_second=1, topic_rates=("orders=2", "logs=0")), NoTelemetry())
    taken = {name: [limits.take(Topic(name), NOW_MS) is None for _ in range(3)] for name in ("orders", "logs", "mail")}
    assert taken == {"orders": [True, True, False], "logs": [True] * 3, "mail": [True, False, False]}


@pytest.mark.parametrize("per_second", [1, 3, 250, 4_001])
def test_over_some_seconds_a_topic_gets_its_rate_and_no_more(per_second: int) -> None:
    limits, now_ms, taken = limited(per_second), NOW_MS, 0
    while now_ms < NOW_MS + 5_000:
        while (wait := limits.take(TOPIC, now_ms)) is None:
            taken += 1
            assert taken <= per_second * 6
        now_ms = wait.until_ms
    assert 5 * per_second <= taken <= 6 * per_second


class LimitedEngine(Engine):
    """An engine whose topics have a rate limit, and a clock that a test moves."""

    def __init__(self, per_second: int, **topics: int) -> None:
        super().__init__(limits=limited(per_second, **topics))

    async def passes_at(self, lease: ShardLease, late_ms: int) -> None:
        """Makes as many passes as the shard loop would at this time."""
        self.at_due(late_ms)
        while (await self.one_pass(lease)).more_now:
            await lease.cleanup.finish()
        await lease.cleanup.finish()


async def test_lanes_of_a_topic_over_its_rate_limit_wait_in_order_and_other_topics_go_on() -> None:
    engine = LimitedEngine(0, **{builders.TOPIC: 4})
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


async def test_a_pass_says_when_a_topic_over_its_rate_limit_goes_on() -> None:
    engine = LimitedEngine(1)
    await engine.put(*(row(schedule(schedule_key=f"k{n}")) for n in range(2)))
    lease = await engine.own()
    engine.at_due()
    first = await engine.one_pass(lease)
    assert (first.fired, first.more_now) == (1, True)
    second = await engine.one_pass(lease)
    assert (second.fired, second.more_now, second.waits_until_ms) == (0, False, DUE_MS + 1_000)


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_the_rate_all_arrive_once_and_in_the_order_of_their_lanes(seed: int) -> None:
    rng = random.Random(seed)
    engine = LimitedEngine(rng.randint(1, 40), **{"fast": 0})
    for topic in ("slow", "fast"):
        engine.kafka.create_topic(topic)
    lanes: dict[tuple[str, str], list[str]] = {}
    for n in range(rng.randint(PREFIX_ROWS_MIN, 3 * PREFIX_ROWS_MIN)):
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


async def test_a_deep_backlog_of_a_slow_topic_is_not_read_at_each_pass_and_gets_its_whole_rate() -> None:
    engine = LimitedEngine(40)
    engine.kafka.create_topic("other")
    backlog = [row(schedule(schedule_key=f"k{n}", ordering_key=f"lane-{n % 7}")) for n in range(5_000)]
    await engine.put(*backlog)
    lease = await engine.own()
    await engine.passes_at(lease, 0)
    assert lease.blocked_prefix is not None
    assert lease.blocked_prefix.rate_limited == {builders.TOPIC}
    assert (await engine.one_pass(lease)).waits_until_ms == DUE_MS + 250
    engine.store.calls.clear()
    for late_ms in range(250, 4_001, 250):
        await engine.passes_at(lease, late_ms)
    assert engine.arrived() == [f"k{n}" for n in range(40 + 4 * 40)]
    # Two passes for each quarter of a second: one fetches what may be sent, one reads behind the blocked prefix.
    assert engine.store.calls["read_page"] <= 2 * 16 + 2
    await engine.put(row(schedule(schedule_key="behind", topic="other", due_ms=DUE_MS + 1)))
    await engine.passes_at(lease, 4_001)
    assert engine.arrived("other") == ["behind"]


async def test_a_held_row_that_waits_for_its_topics_rate_limit_can_be_cancelled() -> None:
    engine = LimitedEngine(1)
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
    # The announced time holds, even if the topic could take the record sooner.
    await engine.passes_at(lease, retry.at_ms - DUE_MS - 1)
    assert engine.arrived() == ["k0"]
    await engine.passes_at(lease, retry.at_ms - DUE_MS)
    assert engine.arrived() == ["k0", "k1"]


async def test_dead_letters_are_not_rate_limited() -> None:
    engine = LimitedEngine(1)
    exhausted = Retry(at_ms=0, epoch=0, attempts=1_000)
    await engine.put(*(row(schedule(schedule_key=f"k{n}"), retry=exhausted) for n in range(3)))
    lease = await engine.own()
    await engine.passes_at(lease, 0)
    assert engine.arrived(engine.kafka.dead_letters_topic) == ["k0", "k1", "k2"]
