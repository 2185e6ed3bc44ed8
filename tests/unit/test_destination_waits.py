"""Destinations in back-off or over their rate limit: they wait as a whole, in place and in order, and no other waits."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from clockwork.domain.activity import TopicRateLimit, TopicWait
from clockwork.domain.destination import Topic
from clockwork.domain.schedule import Guarantee, RequestId, Retry
from clockwork.errors import BrokerUnavailable, RefusalCause, Unavailable
from clockwork.firing.destination_waits import (
    FORGET_MS,
    ROUNDS_PER_SECOND,
    SINCE_KEPT_MS,
    SINCE_MAX,
    TOLD_MAX,
    DestinationRateLimits,
    DestinationWaits,
    rate_limits,
)
from clockwork.firing.lease import ShardLease
from clockwork.firing.shard_pass import PREFIX_ROWS_MIN
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import PaceSettings
from tests.support import builders
from tests.support.builders import DUE_MS, row, schedule
from tests.support.engine import Engine

TOPIC = Topic("orders")
NOW_MS = 1_700_000_000_000
OLD_MS = 10_000
"""Age from which a waiting row may lie in a blocked prefix."""


# --- back-off


MISSING, AWAY = RefusalCause.DESTINATION, RefusalCause.TRANSIENT


class Metadata:
    """Kafka, as far as it tells which topics are missing."""

    def __init__(self, answer: bool | Unavailable = True) -> None:
        self.answer = answer
        self.asked = 0
        self.before_answer: Callable[[], Awaitable[None]] | None = None

    async def topic_missing(self, topic: Topic) -> bool:
        self.asked += 1
        if self.before_answer is not None:
            await self.before_answer()
        if isinstance(self.answer, Unavailable):
            raise self.answer
        return self.answer


def a_missing_topic(metadata: Metadata | None = None) -> DestinationWaits:
    """Back-offs of a node; without `metadata`, its Kafka says that every topic is missing."""
    return DestinationWaits(topic_wait_ms=60_000, topic_missing=(metadata or Metadata()).topic_missing)


async def refuse(waits: DestinationWaits, after_ms: int, cause: RefusalCause = MISSING) -> bool:
    """Tells of a refusal as the settlement does. Returns true if the topic is given up then."""
    now_ms = NOW_MS + after_ms
    waits.refused(TOPIC, cause, "reason", now_ms=now_ms)
    await waits.confirm_given_up(TOPIC)
    return waits.at(now_ms)[TOPIC].given_up


def test_refusals_at_the_same_time_count_as_one_probe() -> None:
    waits = a_missing_topic()
    first = waits.refused(TOPIC, RefusalCause.DESTINATION, "topic_missing", now_ms=NOW_MS)
    assert waits.refused(TOPIC, RefusalCause.DESTINATION, "topic_missing", now_ms=NOW_MS + 1) == first


def test_a_topic_is_probed_again_after_its_back_off_and_forgotten_when_it_takes_records() -> None:
    waits = a_missing_topic()
    wait = waits.refused(TOPIC, RefusalCause.DESTINATION, "topic_missing", now_ms=NOW_MS)
    assert TOPIC in waits.at(wait.until_ms - 1)
    assert TOPIC not in waits.at(wait.until_ms)
    waits.succeeded(TOPIC)
    again = waits.refused(TOPIC, RefusalCause.DESTINATION, "topic_missing", now_ms=NOW_MS + 100_000)
    assert again.until_ms - NOW_MS - 100_000 == wait.until_ms - NOW_MS


def test_a_topic_that_takes_no_records_waits_since_its_first_refusal_for_the_latest_reason() -> None:
    waits = a_missing_topic()
    first = waits.refused(TOPIC, RefusalCause.DESTINATION, "topic_missing", now_ms=NOW_MS)
    again = waits.refused(TOPIC, RefusalCause.TRANSIENT, "leader_away", now_ms=first.until_ms)
    # Its back-off is over, and nothing was sent since: it still waits, for a minute.
    assert waits.refusing_topics(again.until_ms) == {TOPIC: TopicWait(NOW_MS, "leader_away")}
    assert waits.refusing_topics(again.until_ms + FORGET_MS) == {}
    waits.succeeded(TOPIC)
    assert waits.refusing_topics(again.until_ms) == {}


def test_since_when_a_topic_takes_no_records_outlives_a_time_without_sends() -> None:
    # Its rows were paused, or cancelled: that is no sign that it takes records.
    waits = a_missing_topic()
    first = waits.refused(TOPIC, RefusalCause.DESTINATION, "topic_missing", now_ms=NOW_MS)
    resumed_ms = first.until_ms + FORGET_MS
    assert waits.at(resumed_ms) == {}
    again = waits.refused(TOPIC, RefusalCause.DESTINATION, "topic_missing", now_ms=resumed_ms)
    assert waits.refusing_topics(resumed_ms) == {TOPIC: TopicWait(NOW_MS, "topic_missing")}
    # Its back-off begins anew all the same, and so does the time after which it is given up.
    assert again.until_ms - resumed_ms == first.until_ms - NOW_MS
    assert not again.given_up
    assert waits.at(again.until_ms + SINCE_KEPT_MS) == {}
    # Longer ago than that, it may have taken records from another node.
    later_ms = again.until_ms + SINCE_KEPT_MS
    waits.refused(TOPIC, RefusalCause.DESTINATION, "topic_missing", now_ms=later_ms)
    assert waits.refusing_topics(later_ms) == {TOPIC: TopicWait(later_ms, "topic_missing")}


def test_a_record_that_was_taken_ends_the_time_since_when_none_was() -> None:
    waits = a_missing_topic()
    first = waits.refused(TOPIC, RefusalCause.DESTINATION, "topic_missing", now_ms=NOW_MS)
    later_ms = first.until_ms + FORGET_MS
    assert waits.at(later_ms) == {}
    waits.succeeded(TOPIC)
    waits.refused(TOPIC, RefusalCause.DESTINATION, "topic_missing", now_ms=later_ms)
    assert waits.refusing_topics(later_ms) == {TOPIC: TopicWait(later_ms, "topic_missing")}


def test_the_destinations_that_have_begun_anew_are_bounded() -> None:
    waits = a_missing_topic()
    for number in range(SINCE_MAX + 1):
        waits.refused(Topic(f"t{number}"), RefusalCause.DESTINATION, "topic_missing", now_ms=NOW_MS)
    later_ms = NOW_MS + 2 * FORGET_MS
    waits.at(later_ms)
    for name in ("t0", f"t{SINCE_MAX}"):
        waits.refused(Topic(name), RefusalCause.DESTINATION, "topic_missing", now_ms=later_ms)
    since_ms = {topic: wait.since_ms for topic, wait in waits.refusing_topics(later_ms).items()}
    assert since_ms == {"t0": later_ms, f"t{SINCE_MAX}": NOW_MS}


def test_a_destination_whose_broker_or_settings_take_nothing_is_probed_every_two_seconds_however_long_that_lasts() -> (
    None
):
    # Else a setting that is put right would go unnoticed for as long as the back-off has grown.
    waits, now_ms = a_missing_topic(), NOW_MS
    for _ in range(50):
        wait = waits.refused(TOPIC, RefusalCause.TRANSIENT, "not_enough_replicas", now_ms=now_ms)
        assert now_ms < wait.until_ms <= now_ms + 2_000
        assert TOPIC not in waits.at(wait.until_ms)
        now_ms = wait.until_ms


# --- giving up


async def test_a_topic_is_given_up_once_it_has_been_missing_for_its_time() -> None:
    metadata = Metadata()
    waits = a_missing_topic(metadata)
    assert [await refuse(waits, after_ms) for after_ms in (0, 30_000, 59_999)] == [False] * 3
    assert metadata.asked == 0, "a look that nothing depends on"
    assert await refuse(waits, 90_000)


async def test_a_topic_that_is_only_away_is_never_given_up() -> None:
    waits = a_missing_topic()
    assert not any([await refuse(waits, after_ms, AWAY) for after_ms in range(0, 600_000, 5_000)])


@pytest.mark.parametrize("sign", ["away", "away during the back-off", "taken"])
async def test_a_sign_of_life_ends_the_time_for_which_a_topic_has_been_missing(sign: str) -> None:
    # Found by review: an outage of a quarter of an hour, before and after it a refusal by a broker that did not know the
    # topic yet, and all rows of the topic failed.
    waits = a_missing_topic()
    await refuse(waits, 0)
    await refuse(waits, 30_000)
    if sign == "taken":
        waits.succeeded(TOPIC)
    else:
        await refuse(waits, 30_001 if "during" in sign else 45_000, AWAY)
    assert not await refuse(waits, 75_000)
    assert not await refuse(waits, 134_999)
    assert await refuse(waits, 150_000)


async def test_a_topic_that_is_there_by_fresh_metadata_is_not_given_up() -> None:
    # The refusals came from a broker, or a cache, that had not heard of it.
    metadata = Metadata(answer=False)
    waits = a_missing_topic(metadata)
    assert [await refuse(waits, after_ms) for after_ms in (0, 60_000, 90_000)] == [False] * 3
    assert metadata.asked == 1, "it was seen alive, so its time begins anew"
    metadata.answer = True
    assert await refuse(waits, 150_000)


async def test_no_topic_is_given_up_while_nothing_answers_the_last_look() -> None:
    metadata = Metadata(answer=BrokerUnavailable())
    waits = a_missing_topic(metadata)
    assert [await refuse(waits, after_ms) for after_ms in (0, 60_000, 90_000)] == [False] * 3
    metadata.answer = True
    assert await refuse(waits, 120_000)


async def test_each_back_off_of_a_given_up_topic_begins_with_a_look_of_its_own() -> None:
    metadata = Metadata()
    waits = a_missing_topic(metadata)
    assert [await refuse(waits, after_ms) for after_ms in (0, 60_000, 90_000)] == [False, True, True]
    assert metadata.asked == 2
    metadata.answer = False
    assert not await refuse(waits, 120_000)


async def test_a_topic_that_takes_a_record_during_the_last_look_is_not_given_up() -> None:
    metadata = Metadata()
    waits = a_missing_topic(metadata)

    async def taken() -> None:
        waits.succeeded(TOPIC)

    await refuse(waits, 0)
    metadata.before_answer = taken
    waits.refused(TOPIC, MISSING, "reason", now_ms=NOW_MS + 60_000)
    await waits.confirm_given_up(TOPIC)
    assert waits.at(NOW_MS + 60_000) == {}


async def test_a_topic_that_proves_to_be_only_away_during_the_last_look_is_not_given_up() -> None:
    metadata = Metadata()
    waits = a_missing_topic(metadata)

    async def away() -> None:
        waits.refused(TOPIC, AWAY, "reason", now_ms=NOW_MS + 60_001)

    await refuse(waits, 0)
    metadata.before_answer = away
    assert not await refuse(waits, 60_000)


async def test_many_lanes_that_are_refused_at_once_cost_one_look() -> None:
    metadata = Metadata()
    waits = a_missing_topic(metadata)
    gate = asyncio.Event()

    async def all_have_asked() -> None:
        await gate.wait()

    metadata.before_answer = all_have_asked
    await refuse(waits, 0)
    async with asyncio.TaskGroup() as lanes:
        for _ in range(100):
            lanes.create_task(refuse(waits, 60_000))
        await asyncio.sleep(0)
        gate.set()
    assert metadata.asked == 1
    assert waits.at(NOW_MS + 60_000)[TOPIC].given_up


async def test_refused_dead_letters_do_not_give_their_topic_up() -> None:
    waits = a_missing_topic()
    for after_ms in (0, 60_000):
        waits.refused(TOPIC, MISSING, "topic_missing", now_ms=NOW_MS + after_ms, only_dead_letters=True)
        await waits.confirm_given_up(TOPIC)
    assert not waits.at(NOW_MS + 60_000)[TOPIC].given_up


def test_a_topic_is_probed_from_the_end_of_its_back_off_until_it_takes_a_record() -> None:
    waits = a_missing_topic()
    wait = waits.refused(TOPIC, MISSING, "topic_missing", now_ms=NOW_MS)
    assert waits.probed(wait.until_ms - 1) == frozenset()
    assert waits.probed(wait.until_ms) == {TOPIC}
    waits.succeeded(TOPIC)
    assert waits.probed(wait.until_ms) == frozenset()


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


def test_the_limits_of_topics_are_told_with_the_waits_since_the_last_time() -> None:
    limits = limited(2, free=0)
    waits = DestinationWaits(topic_wait_ms=1, topic_missing=Metadata().topic_missing, limits=limits)
    for _ in range(2):  # one wait of this topic, however many of its deliveries are held back by it
        while limits.take(TOPIC, NOW_MS) is None:
            pass
    told = {TOPIC: TopicRateLimit(2, 1), Topic("mail"): TopicRateLimit(2, 0)}
    assert waits.take_counts([Topic("free"), Topic("mail")]) == told
    assert waits.take_counts([TOPIC]) == {TOPIC: TopicRateLimit(2, 0)}
    assert waits.take_counts([]) == {}


def test_waits_that_none_asks_for_are_counted_for_a_bounded_number_of_topics() -> None:
    limits = limited(1)
    for number in range(TOLD_MAX + 1):
        while limits.take(Topic(f"t{number}"), NOW_MS) is None:
            pass
    assert len(limits.take_counts([])) == TOLD_MAX


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
    assert sorted(engine.arrived()) == ["k0", "k1", "k2", "k3"]
    assert engine.arrived("other") == ["free"]
    for late_ms in range(250, 2_000, 250):
        await engine.passes_at(lease, late_ms)
    for lane in range(2):
        assert [key for key in engine.arrived() if int(key[1:]) % 2 == lane] == [f"k{n}" for n in range(lane, 10, 2)]


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
    await engine.passes_at(lease, OLD_MS)
    assert lease.blocked_prefix is not None
    assert lease.blocked_prefix.destinations.keys() == {builders.TOPIC}
    assert (await engine.one_pass(lease)).waits_until_ms == DUE_MS + OLD_MS + 250
    engine.store.calls.clear()
    for late_ms in range(OLD_MS + 250, OLD_MS + 4_001, 250):
        await engine.passes_at(lease, late_ms)
    assert set(engine.arrived()) == {f"k{n}" for n in range(40 + 4 * 40)}
    # Two passes for each quarter of a second: one fetches what may be sent, one reads behind the blocked prefix.
    assert engine.store.calls["read_page"] <= 2 * 16 + 2
    await engine.put(row(schedule(schedule_key="behind", topic="other", due_ms=DUE_MS + OLD_MS + 1)))
    await engine.passes_at(lease, OLD_MS + 4_001)
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
