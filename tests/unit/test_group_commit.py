"""The group commit: shards share transactions, and one bad topic, record or answer holds up its own lanes only."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from clockwork.domain import marker
from clockwork.domain.destination import Topic
from clockwork.domain.planning import Action, PlannedDelivery
from clockwork.domain.record import SCHEDULE_KEY, OutRecord
from clockwork.domain.schedule import Failure, Row
from clockwork.domain.sharding import ShardId
from clockwork.errors import BrokerUnavailable, Fenced, Refusal, RefusalCause
from clockwork.firing.group_commit import PACED_FROM, QUICK_ROWS_MAX, Pace
from clockwork.firing.lease import ShardLease
from clockwork.kafka.memory.broker import Step
from tests.support import builders
from tests.support.clocks import LoopClock
from tests.support.engine import Engine
from tests.support.virtual_time import in_virtual_time

OTHER_SHARD = ShardId(4)


class World:
    """An engine in virtual time, and leases of one incarnation to which rows are handed over by hand."""

    def __init__(self, engine: Engine, lease: ShardLease) -> None:
        self.engine = engine
        self.lease = lease
        self.work = engine.works[lease.incarnation.id]
        self.commits = 0

    def other_lease(self) -> ShardLease:
        """A lease of another shard, of the same incarnation."""
        state = self.engine.store.shard_states[OTHER_SHARD]
        return self.work.new_lease(OTHER_SHARD, state)

    async def hand_over(self, *rows: Row, lease: ShardLease | None = None) -> None:
        """Stores rows and hands them over, as a pass would."""
        await self.engine.put(*rows)
        self.enqueue(*rows, lease=lease)

    def enqueue(self, *rows: Row, lease: ShardLease | None = None) -> None:
        planned = [PlannedDelivery(row=row, action=Action.DELIVER) for row in rows]
        self.work.group_commit.enqueue(lease or self.lease, planned)

    async def landed(self, lease: ShardLease | None = None) -> None:
        await self.engine.landed(lease or self.lease)

    def arrived(self, topic: str = builders.TOPIC) -> list[str]:
        return self.engine.arrived(topic)

    async def until(self, condition: Callable[[], object]) -> None:
        """Lets virtual time pass until the condition holds."""
        ends_s = self.now_s() + 60.0
        while not condition():
            assert self.now_s() < ends_s, "it does not come true"
            await asyncio.sleep(0.001)

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def markers(self) -> list[set[str]]:
        """The schedules that each committed marker names, by the random part of their positions' text."""
        records = self.engine.kafka.read_committed(self.engine.kafka.deliveries_topic)
        found = [marker.decode(record.value) for record in records if record.value is not None]
        return [{str(entry.position) for entry in entries} for entries in found]


@asynccontextmanager
async def world(**settings: Any) -> AsyncIterator[World]:
    engine = Engine(clock=LoopClock(builders.DUE_MS + 1_000), **settings)
    lease = await engine.own()
    found = World(engine, lease)

    async def count(step: Step, _: str, done: bool) -> None:
        if step is Step.COMMIT and done:
            found.commits += 1

    engine.kafka.on_step = count
    try:
        yield found
    finally:
        await engine.stop()


def keyed(*keys: str, lane: str | None = None, topic: str = builders.TOPIC, shard: int = builders.SHARD) -> list[Row]:
    return [
        builders.row(builders.schedule(schedule_key=key, ordering_key=lane, topic=topic), shard=shard) for key in keys
    ]


@in_virtual_time
async def test_rows_of_several_shards_share_one_transaction() -> None:
    async with world() as it:
        other = it.other_lease()
        await it.engine.put(*keyed("b", shard=OTHER_SHARD))
        rows, others = keyed("a"), keyed("c", shard=OTHER_SHARD)
        await it.engine.put(*rows, *others)
        it.enqueue(*rows)
        it.enqueue(*others, lease=other)
        await it.landed()
        await it.landed(other)
        assert it.arrived() == ["a", "c"]
        assert it.commits == 1
        assert rows[0].position in it.lease.cleanup
        assert others[0].position in other.cleanup


@in_virtual_time
async def test_every_marker_names_the_rows_of_its_slot_that_are_not_deleted_yet() -> None:
    async with world() as it:
        first, second, third = keyed("a", "b", "c")
        await it.hand_over(first)
        await it.landed()
        await it.hand_over(second)
        await it.landed()
        await it.lease.cleanup.finish()
        await it.hand_over(third)
        await it.landed()
        assert it.markers() == [
            {str(first.position)},
            {str(first.position), str(second.position)},
            {str(third.position)},
        ]


@in_virtual_time
async def test_a_topic_that_does_not_answer_holds_up_the_others_for_one_second_once() -> None:
    async with world() as it:
        it.engine.kafka.create_topic("silent")
        it.engine.kafka.answers_after_s["silent"] = math.inf
        healthy, silent = keyed("a"), keyed("s", topic="silent")
        await it.engine.put(*healthy, *silent)
        began_s = it.now_s()
        it.enqueue(*silent)
        it.enqueue(*healthy)
        await it.until(it.arrived)
        assert 1.0 <= it.now_s() - began_s < 1.5
        for number in range(5):
            began_s = it.now_s()
            rows = keyed(f"b{number}")
            await it.hand_over(*rows)
            await it.until(lambda key=f"b{number}": key in it.arrived())  # type: ignore[misc]
            assert it.now_s() - began_s < 0.1, "the silent topic goes by the other slot now"
        await it.landed()
        assert silent[0].position not in it.lease.cleanup
        assert it.engine.destination_waits.in_backoff(Topic("silent"), it.engine.clock.now_ms())


@in_virtual_time
async def test_a_suspect_topic_comes_back_to_the_quick_slot_when_it_answers_in_time() -> None:
    async with world() as it:
        it.engine.kafka.create_topic("slow")
        it.engine.kafka.answers_after_s["slow"] = 2.0
        await it.hand_over(*keyed("s", topic="slow"))
        await it.landed()
        assert it.arrived("slow") == ["s"], "with more time it is delivered"
        it.engine.kafka.answers_after_s.clear()
        await it.hand_over(*keyed("t", topic="slow"))
        await it.landed()
        commits = it.commits
        rows, slow = keyed("a"), keyed("u", topic="slow")
        await it.engine.put(*rows, *slow)
        it.enqueue(*rows, *slow)
        await it.landed()
        assert it.arrived("slow") == ["s", "t", "u"]
        assert it.commits == commits + 1, "one transaction for both topics"


@in_virtual_time
async def test_a_refused_record_waits_with_its_lane_and_the_others_are_delivered() -> None:
    async with world() as it:
        it.engine.kafka.refuse = lambda record: (
            Refusal(cause=RefusalCause.RECORD, reason="record_invalid", destination=record.topic)
            if key_of(record) == "bad"
            else None
        )
        before, bad, behind = keyed("before", "bad", "behind", lane="lane")
        other = keyed("other")
        await it.engine.put(before, bad, behind, *other)
        it.enqueue(before, bad, behind, *other)
        await it.landed()
        assert sorted(it.arrived()) == ["before", "other"]
        stored = it.engine.store.rows[bad.shard, bad.position]
        assert isinstance(stored, Row)
        assert stored.retry is not None
        assert stored.retry.attempts == 1
        assert stored.retry.epoch == it.lease.epoch, "the epoch is not raised"
        assert it.lease.announced_not_before_ms[bad.position] == stored.retry.at_ms
        assert it.engine.kafka.inits[f"clockwork-{it.lease.incarnation.id}-0"] == 2, "R1 after the refusal"


@in_virtual_time
async def test_a_refused_row_stays_in_flight_until_its_retry_is_written() -> None:
    async with world() as it:
        it.engine.kafka.refuse = lambda record: Refusal(
            cause=RefusalCause.RECORD, reason="record_invalid", destination=record.topic
        )
        written = asyncio.Event()
        set_retry = it.engine.store.set_retry

        async def late(*args: object, **named: object) -> bool:
            await written.wait()
            return await set_retry(*args, **named)  # type: ignore[arg-type]

        it.engine.store.set_retry = late  # type: ignore[method-assign]
        (row,) = keyed("bad")
        await it.hand_over(row)
        other = keyed("good")
        it.engine.kafka.refuse = lambda _: (
            None
            if it.commits or row.position not in it.lease.in_flight
            else Refusal(cause=RefusalCause.RECORD, reason="record_invalid", destination=builders.TOPIC)
        )
        await asyncio.sleep(1.0)
        it.engine.kafka.refuse = lambda _: None
        await it.hand_over(*other)
        await asyncio.sleep(1.0)
        assert it.arrived() == ["good"], "the slot does not wait for the write"
        assert row.position in it.lease.in_flight
        written.set()
        await it.landed()
        assert row.position not in it.lease.cleanup


@pytest.mark.parametrize("carried_out", [True, False])
def test_a_commit_without_an_answer_is_settled_in_place(carried_out: bool) -> None:
    @in_virtual_time
    async def run() -> None:
        async with world() as it:
            lost = 1

            async def lose(step: Step, _: str, done: bool) -> None:
                nonlocal lost
                if step is Step.COMMIT and done is carried_out and lost:
                    lost -= 1
                    raise BrokerUnavailable("no answer")

            it.engine.kafka.on_step = lose
            await it.hand_over(*keyed("a", "b"))
            await it.landed()
            assert it.arrived() == ["a", "b"]
            assert len(it.lease.cleanup) == 2

    run()


@in_virtual_time
async def test_only_the_rows_of_a_transaction_in_doubt_wait_for_it() -> None:
    async with world() as it:
        in_doubt, answered = asyncio.Event(), asyncio.Event()

        async def lose(step: Step, who: str, done: bool) -> None:
            if step is Step.COMMIT and not done and who.endswith("-0") and not in_doubt.is_set():
                in_doubt.set()
                raise BrokerUnavailable("no answer")
            if step is Step.READ_MARKERS:
                await answered.wait()

        it.engine.kafka.on_step = lose
        await it.hand_over(*keyed("a"))
        await in_doubt.wait()
        await it.hand_over(*keyed("b"))
        await it.until(it.arrived)
        assert it.arrived() == ["b"], "by the other slot"
        answered.set()
        await it.landed()
        assert sorted(it.arrived()) == ["a", "b"]


@in_virtual_time
async def test_a_fenced_incarnation_sends_nothing_after_its_own_init() -> None:
    async with world() as it:
        refused = False

        def refuse_once(record: OutRecord) -> Refusal | None:
            nonlocal refused
            if refused:
                return None
            refused = True
            return Refusal(cause=RefusalCause.RECORD, reason="record_invalid", destination=record.topic)

        it.engine.kafka.refuse = refuse_once
        rows = keyed("bad", "good")
        await it.engine.put(*rows)
        await it.engine.store.fence(it.lease.incarnation.id, at_ms=1)
        it.enqueue(*rows)
        with pytest.raises(Fenced):
            await it.landed()
        assert it.arrived() == []


@in_virtual_time
async def test_the_first_use_of_a_slot_is_checked_too() -> None:
    async with world() as it:
        await it.engine.store.fence(it.lease.incarnation.id, at_ms=1)
        await it.hand_over(*keyed("a"))
        with pytest.raises(Fenced):
            await it.landed()
        assert it.arrived() == []
        assert not it.engine.kafka.inits, "no slot was claimed, so its id is not initialised"


@in_virtual_time
async def test_a_slot_is_healed_before_it_goes_on_after_a_commit_that_was_asked_for_twice() -> None:
    async with world() as it:
        it.engine.kafka.unanswered_commits = 1
        await it.hand_over(*keyed("a"))
        await it.landed()
        await it.hand_over(*keyed("b"))
        await it.landed()
        assert it.arrived() == ["a", "b"]
        assert it.engine.kafka.inits[f"clockwork-{it.lease.incarnation.id}-0"] == 2


@in_virtual_time
async def test_a_lane_has_rows_in_one_slot_only() -> None:
    async with world() as it:
        rows = keyed(*(f"{number:03}" for number in range(QUICK_ROWS_MAX + 30)), lane="lane")
        await it.engine.put(*rows)
        it.enqueue(*rows)
        await it.landed()
        assert it.arrived() == [f"{number:03}" for number in range(QUICK_ROWS_MAX + 30)]


@in_virtual_time
async def test_a_missing_topic_goes_back_to_the_passes_and_nothing_else_waits() -> None:
    async with world() as it:
        rows = keyed("a"), keyed("m", "n", topic="missing")
        await it.engine.put(*rows[0], *rows[1])
        it.enqueue(*rows[1])
        it.enqueue(*rows[0])
        await it.landed()
        assert it.arrived() == ["a"]
        assert it.engine.destination_waits.in_backoff(Topic("missing"), it.engine.clock.now_ms())


@in_virtual_time
async def test_a_leaderless_topic_holds_up_nothing() -> None:
    async with world() as it:
        it.engine.kafka.create_topic("away")
        it.engine.kafka.leaderless.add(("away", 0))
        rows = [*keyed("x", topic="away"), *keyed("a")]
        await it.engine.put(*rows)
        began_s = it.now_s()
        it.enqueue(*rows)
        await it.landed()
        assert it.arrived() == ["a"]
        assert it.now_s() - began_s < 0.5


@in_virtual_time
async def test_a_backlog_goes_by_both_slots_and_keeps_the_order_of_each_lane() -> None:
    async with world() as it:
        rows = [row for number in range(600) for row in keyed(f"{number:04}", lane=f"lane-{number % 40}")]
        await it.engine.put(*rows)
        it.enqueue(*rows)
        await it.landed()
        arrived = it.arrived()
        assert sorted(arrived) == [f"{number:04}" for number in range(600)]
        for lane in range(40):
            of_lane = [key for key in arrived if int(key) % 40 == lane]
            assert of_lane == sorted(of_lane)
        assert it.engine.kafka.inits.keys() == {
            f"clockwork-{it.lease.incarnation.id}-0",
            f"clockwork-{it.lease.incarnation.id}-1",
        }


@in_virtual_time
async def test_a_dropped_row_ends_by_the_marker_alone() -> None:
    async with world() as it:
        (row,) = keyed("late")
        await it.engine.put(row)
        failure = Failure(reason="expired", attempts=0)
        it.work.group_commit.enqueue(it.lease, [PlannedDelivery(row=row, action=Action.DROP, failure=failure)])
        await it.landed()
        assert it.arrived() == []
        assert it.markers() == [{str(row.position)}]
        (other,) = keyed("other")
        await it.hand_over(other)
        await it.landed()
        assert it.markers()[-1] == {str(row.position), str(other.position)}, "until it is deleted"
        await it.lease.cleanup.finish()
        outcome = it.engine.store.outcomes[row.schedule.client_id, row.schedule.schedule_key, row.position]
        assert outcome.failure == failure


@in_virtual_time
async def test_a_slot_that_cannot_be_healed_ends_the_incarnation_after_the_drain_time_out() -> None:
    async with world() as it:

        async def no_coordinator(step: Step, _: str, done: bool) -> None:
            if step is Step.INIT and not done:
                raise BrokerUnavailable("no coordinator")

        it.engine.kafka.on_step = no_coordinator
        await it.hand_over(*keyed("a"))
        began_s = it.now_s()
        with pytest.raises(BrokerUnavailable):
            await it.landed()
        assert it.now_s() - began_s >= it.engine.firing.drain_timeout_ms / 1_000


def test_begins_keep_their_distance_only_once_there_are_many() -> None:
    pace = Pace(20)
    for number in range(PACED_FROM):
        assert pace.wait_s(number * 0.01) == 0
        pace.begin(number * 0.01)
    last_s = (PACED_FROM - 1) * 0.01
    assert pace.wait_s(last_s) == pytest.approx(0.02)
    assert pace.wait_s(last_s + 0.03) == 0
    assert pace.wait_s(last_s + 2) == 0


def test_a_pace_of_zero_is_none() -> None:
    pace = Pace(0)
    for _ in range(2 * PACED_FROM):
        assert pace.wait_s(1.0) == 0
        pace.begin(1.0)


def key_of(record: OutRecord) -> str:
    return dict(record.headers).get(SCHEDULE_KEY, b"").decode()


@in_virtual_time
async def test_a_slot_that_does_not_heal_is_replaced_and_only_its_own_rows_and_topic_wait() -> None:
    async with world() as it:
        it.engine.kafka.create_topic("frozen")
        it.engine.kafka.answers_after_s["frozen"] = math.inf
        frozen = True
        healed = asyncio.Event()

        async def concurrent(step: Step, who: str, done: bool) -> None:
            # The coordinator aborts at once, and answers when every Kafka partition of the transaction knows of it.
            if step is Step.INIT and done and who.endswith("-0") and frozen and it.engine.kafka.inits[who] > 1:
                await healed.wait()

        it.engine.kafka.on_step = concurrent
        stuck = keyed("f", "g", topic="frozen")
        together = keyed("a")
        await it.engine.put(*stuck, *together)
        it.enqueue(stuck[0], *together)
        await asyncio.sleep(3.0)
        it.enqueue(stuck[1])
        for number in range(20):
            rows = keyed(f"b{number}")
            await it.hand_over(*rows)
            began_s = it.now_s()
            await it.until(lambda key=f"b{number}": key in it.arrived())  # type: ignore[misc]
            assert it.now_s() - began_s < 0.1
        assert "a" not in it.arrived(), "it was in the transaction that is not settled yet"
        inits = it.engine.kafka.inits
        assert f"clockwork-{it.lease.incarnation.id}-2" in inits
        assert f"clockwork-{it.lease.incarnation.id}-3" not in inits, "the frozen topic is not tried meanwhile"
        it.engine.kafka.answers_after_s.clear()
        frozen = False
        healed.set()
        await it.landed()
        assert it.arrived("frozen") == ["f", "g"]
        assert it.arrived().count("a") == 1


@in_virtual_time
async def test_a_replaced_slots_commit_without_an_answer_is_settled_beside_the_next_transactions() -> None:
    async with world() as it:
        lost, readable = False, asyncio.Event()

        async def lose(step: Step, who: str, done: bool) -> None:
            nonlocal lost
            if step is Step.COMMIT and done and not lost:
                lost = True
                raise BrokerUnavailable("no answer")
            if step is Step.READ_MARKERS and not done:
                await readable.wait()

        it.engine.kafka.on_step = lose
        first = keyed("a", lane="lane")
        await it.hand_over(*first)
        await asyncio.sleep(5.0)
        await it.hand_over(*keyed("b", lane="lane"))
        await it.hand_over(*keyed("c"))
        await it.until(lambda: "c" in it.arrived())
        assert "b" not in it.arrived(), "its lane has a row in doubt"
        readable.set()
        await it.landed()
        assert it.arrived() == ["a", "c", "b"]
        await it.lease.cleanup.finish()
        assert not it.engine.store.rows


@pytest.mark.parametrize(
    ("rows", "answers_after_s"),
    [
        pytest.param(1, 0.005, id="the quick slot is back before the pace lets anything begin"),
        pytest.param(300, 0.015, id="a backlog of bulk"),
    ],
)
@in_virtual_time
async def test_a_topic_that_was_slow_once_is_tried_again_however_busy_the_slots_are(
    rows: int, answers_after_s: float
) -> None:
    async with world() as it:
        await make_suspect(it, "once-slow")
        it.engine.kafka.answers_after_s[builders.TOPIC] = answers_after_s
        load = asyncio.get_running_loop().create_task(keep_busy(it, rows=rows), name="load")
        await it.until(lambda: it.commits > 2 * PACED_FROM)
        await it.hand_over(*keyed("again", topic="once-slow"))
        began = it.commits
        await it.until(lambda: "again" in it.arrived("once-slow") or it.commits > began + PACED_FROM)
        load.cancel()
        assert "again" in it.arrived("once-slow")


@in_virtual_time
async def test_a_slow_topic_with_a_backlog_leaves_turns_to_other_suspect_topics() -> None:
    async with world() as it:
        await make_suspect(it, "once-slow")
        it.engine.kafka.create_topic("slow")
        it.engine.kafka.answers_after_s["slow"] = 2.0
        slow = keyed(*(f"{number:03}" for number in range(200)), topic="slow")
        (again,) = keyed("again", topic="once-slow")
        await it.engine.put(*slow, again)

        async def backlog() -> None:
            for row in slow:
                it.enqueue(row)
                await asyncio.sleep(0.2)

        load = asyncio.get_running_loop().create_task(backlog(), name="load")
        await it.until(lambda: it.arrived("slow"))
        it.enqueue(again)
        await it.until(lambda: "again" in it.arrived("once-slow"))
        assert not load.done()
        load.cancel()


async def make_suspect(it: World, topic: str) -> None:
    """The topic has answered late once, and would answer in time now."""
    it.engine.kafka.create_topic(topic)
    it.engine.kafka.answers_after_s[topic] = 2.0
    await it.hand_over(*keyed("slow", topic=topic))
    await it.landed()
    del it.engine.kafka.answers_after_s[topic]


async def keep_busy(it: World, *, rows: int) -> None:
    """Hands rows over again and again, so many at a time."""
    for number in range(1_000_000):
        if len(it.lease.in_flight) < 2 * rows + 30:
            await it.hand_over(*keyed(*(f"{number}-{nth}" for nth in range(rows))))
        await it.lease.cleanup.finish()
        await asyncio.sleep(0.001)
