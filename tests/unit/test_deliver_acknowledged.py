"""Delivery of at_least_once rows: each lane by itself, on the twins."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import pytest

from clockwork.domain.destination import Topic
from clockwork.domain.ownership import IncarnationId
from clockwork.domain.planning import Action, PlannedDelivery
from clockwork.domain.record import SCHEDULE_KEY, OutRecord
from clockwork.domain.schedule import EndState, Guarantee, Retry, Row, RowName
from clockwork.errors import BrokerUnavailable, Refusal, RefusalCause, StoreUnavailable, TransactionConflict
from clockwork.firing.cleanup import Cleanup
from clockwork.firing.deliver_acknowledged import LAST_ANSWERS_S, SENDS_AT_ONCE, AcknowledgedDelivery
from clockwork.firing.destination_waits import DestinationWaits
from clockwork.firing.incarnation import RunningIncarnation
from clockwork.firing.lease import ShardLease
from clockwork.firing.settlement import Settlement
from clockwork.kafka.memory.broker import MemoryKafka, Step
from clockwork.kafka.memory.publisher import MemoryPublisher
from clockwork.ports.telemetry import NoTelemetry
from clockwork.settings.model import RunnerSettings
from clockwork.stores.memory.store import MemoryScheduleStore
from tests.support import builders
from tests.support.builders import DUE_MS, SHARD, TOPIC, row, schedule
from tests.support.clocks import LoopClock, TrustedClock
from tests.support.engine import Engine
from tests.support.jobs import no_jobs
from tests.support.virtual_time import in_virtual_time

SLOW: Final = Topic("slow")
EPOCH: Final = 7
A_WHILE_S: Final = 10.0


class Store(MemoryScheduleStore):
    """Raises `failures` before it writes retry marks, one after the other."""

    def __init__(self) -> None:
        super().__init__(shards=8)
        self.failures: list[Exception] = []
        self.before_retry: Callable[[], None] = lambda: None

    async def set_retry(self, name: RowName, retry: Retry, *, drop_hold: bool) -> bool:
        self.before_retry()
        if self.failures:
            raise self.failures.pop(0)
        return await super().set_retry(name, retry, drop_hold=drop_hold)


class Bench:
    """One lease, the delivery of its at_least_once rows, and a broker whose topics can be frozen."""

    def __init__(self) -> None:
        self.clock = LoopClock(DUE_MS)
        self.store = Store()
        self.kafka = MemoryKafka(cluster="clockwork", shards=8)
        for topic in (TOPIC, SLOW):
            self.kafka.create_topic(topic)
        self.kafka.on_step = self._step
        self.frozen: dict[str, asyncio.Event] = {}
        self.sent: list[str] = []
        """Topics of the sends that were begun, in order."""
        self.answers_away: set[str] = set()
        """Topics that take records and do not acknowledge them."""
        self.publisher = MemoryPublisher(self.kafka, self.clock)
        self.waits = DestinationWaits(topic_wait_ms=900_000, topic_missing=self.publisher.topic_missing)
        settings, rng = RunnerSettings(), random.Random(1)
        settlement = Settlement(self.store, self.waits, self.clock, NoTelemetry(), rng, settings)
        self.delivery = AcknowledgedDelivery(self.publisher, settlement)
        self.cleanup = Cleanup(
            self.store, no_jobs(), SHARD, retention_ms=settings.retention_ms, rng=rng, on_done=lambda done: None
        )
        incarnation = RunningIncarnation(
            IncarnationId("p.1"), self.store, self.clock, TrustedClock(), node="node", frontier_lead_ms=250
        )
        self.lease = ShardLease(shard=SHARD, epoch=EPOCH, floor_ms=0, incarnation=incarnation, cleanup=self.cleanup)
        self.landings = 0
        self.lease.in_flight.on_landing = self._landed

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.delivery.run(), name="acknowledged")
            try:
                yield task
            finally:
                task.cancel()

    def enqueue(self, *rows: Row) -> None:
        """Stores the rows and hands them over."""
        for each in rows:
            self.store.put_by_hand(each)
        self.delivery.enqueue(self.lease, [PlannedDelivery(row=each, action=Action.DELIVER) for each in rows])

    def arrived(self, topic: str = TOPIC) -> list[str]:
        return [dict(record.headers)[SCHEDULE_KEY].decode() for record in self.kafka.read_committed(topic)]

    def freeze(self, topic: str) -> asyncio.Event:
        """No send to the topic is answered until the event is set."""
        return self.frozen.setdefault(topic, asyncio.Event())

    def in_flight(self, of: Row) -> bool:
        return of.position in self.lease.in_flight

    def _landed(self) -> None:
        self.landings += 1

    async def _step(self, step: Step, who: str, done: bool) -> None:
        if step is not Step.SEND:
            return
        if not done:
            self.sent.append(who)
        elif who in self.answers_away:
            await asyncio.sleep(2)
            raise BrokerUnavailable("no acknowledgement")
        elif who in self.frozen:
            await self.frozen[who].wait()


def alo_row(lane: str, key: str | None = None, *, topic: str = TOPIC) -> Row:
    of = schedule(schedule_key=key, ordering_key=lane, topic=topic, guarantee=Guarantee.AT_LEAST_ONCE)
    return row(of)


def refuse(key: str, cause: RefusalCause = RefusalCause.RECORD) -> Callable[[OutRecord], Refusal | None]:
    """Refuses the record of one schedule."""

    def judge(record: OutRecord) -> Refusal | None:
        if dict(record.headers)[SCHEDULE_KEY].decode() != key:
            return None
        return Refusal(cause=cause, reason="no", destination=record.topic)

    return judge


# --- in order, and at once


@in_virtual_time
async def test_rows_handed_over_are_in_flight_at_once_and_in_cleanup_when_they_are_acknowledged() -> None:
    bench = Bench()
    one = alo_row("a", "one")
    answer = bench.freeze(TOPIC)
    async with bench.running():
        bench.enqueue(one)
        assert bench.in_flight(one)
        await asyncio.sleep(A_WHILE_S)
        assert bench.in_flight(one)
        assert one.position not in bench.cleanup
        answer.set()
        await asyncio.sleep(A_WHILE_S)
        assert not bench.in_flight(one)
        assert one.position in bench.cleanup
    await bench.cleanup.finish()
    outcome = await bench.store.read_outcome(one.schedule.client_id, one.schedule.schedule_key, one.position)
    assert outcome is not None
    assert (outcome.state, bench.arrived(), bench.landings) == (EndState.DELIVERED, ["one"], 0)


@in_virtual_time
async def test_within_a_lane_a_record_is_sent_only_after_the_one_before_it_was_acknowledged() -> None:
    bench = Bench()
    answer = bench.freeze(TOPIC)
    rows = [alo_row("a", f"a{number}") for number in range(3)]
    async with bench.running():
        bench.enqueue(*rows)
        await asyncio.sleep(A_WHILE_S)
        assert bench.arrived() == ["a0"]
        answer.set()
        await asyncio.sleep(A_WHILE_S)
    assert bench.arrived() == ["a0", "a1", "a2"]


@in_virtual_time
async def test_a_pass_that_hands_over_more_rows_does_not_wait_for_those_before() -> None:
    bench = Bench()
    bench.freeze(SLOW)
    async with bench.running():
        bench.enqueue(alo_row("a", topic=SLOW))
        await asyncio.sleep(A_WHILE_S)
        bench.enqueue(alo_row("b", "next"))
        await asyncio.sleep(A_WHILE_S)
        assert bench.arrived() == ["next"]


@pytest.mark.parametrize("first", list(Guarantee))
@in_virtual_time
async def test_in_a_lane_with_both_guarantees_one_kind_waits_for_the_other_from_pass_to_pass(first: Guarantee) -> None:
    # The transaction and the plain producer would race. The pass that finds the second row knows the first as in flight.
    (second,) = set(Guarantee) - {first}
    engine = Engine(clock=LoopClock(DUE_MS))
    answer, held = asyncio.Event(), Step.SEND if first is Guarantee.AT_LEAST_ONCE else Step.COMMIT

    async def hold(step: Step, _: str, done: bool) -> None:
        if step is held and not done:
            await answer.wait()

    engine.kafka.on_step = hold
    lease = await engine.own()
    shard_pass = engine.works[lease.incarnation.id].shard_pass
    rows = [
        row(schedule(schedule_key=key, ordering_key="lane", guarantee=of)) for key, of in (("a", first), ("b", second))
    ]
    await engine.put(rows[0])
    assert (await shard_pass.run(lease, records_max=100)).fired == 1
    await asyncio.sleep(0.5)
    await engine.put(rows[1])
    assert (await shard_pass.run(lease, records_max=100)).fired == 0
    answer.set()
    await engine.landed(lease)
    await engine.one_pass(lease)
    assert engine.arrived() == ["a", "b"]


# --- each lane fails alone


@in_virtual_time
async def test_a_topic_that_does_not_answer_holds_up_no_other_topic_however_many_lanes_it_has() -> None:
    bench = Bench()
    bench.freeze(SLOW)
    async with bench.running():
        bench.enqueue(
            *(alo_row(f"s{number}", topic=SLOW) for number in range(3 * SENDS_AT_ONCE)), alo_row("a", "other")
        )
        await asyncio.sleep(A_WHILE_S)
        assert bench.arrived() == ["other"]
        assert bench.sent.count(SLOW) == SENDS_AT_ONCE, "and its sends are bounded"


@in_virtual_time
async def test_when_a_topic_was_out_of_time_the_lanes_that_wait_for_it_are_not_sent_one_by_one() -> None:
    # Each would wait for its own time-out, and be in flight meanwhile.
    bench = Bench()
    bench.answers_away.add(SLOW)
    rows = [alo_row(f"s{number}", topic=SLOW) for number in range(3 * SENDS_AT_ONCE)]
    async with bench.running():
        bench.enqueue(*rows)
        await asyncio.sleep(2.05)
        assert bench.sent.count(SLOW) == SENDS_AT_ONCE
        assert not any(map(bench.in_flight, rows))
    assert bench.landings
    assert not len(bench.cleanup)
    assert all(each.retry is None for each in bench.store.rows.values() if isinstance(each, Row)), "no attempt"


@in_virtual_time
async def test_a_topic_whose_leader_is_away_waits_alone_and_no_row_pays() -> None:
    bench = Bench()
    away = alo_row("a", "away", topic=SLOW)
    bench.kafka.refuse = refuse("away", RefusalCause.TRANSIENT)
    async with bench.running():
        bench.enqueue(away, alo_row("b", "other"))
        await asyncio.sleep(0.01)
        assert bench.waits.in_backoff(SLOW, bench.clock.now_ms())
    assert bench.arrived() == ["other"]
    assert (bench.in_flight(away), bench.landings) == (False, 1)
    assert away in bench.store.rows.values(), "without a retry mark"


@in_virtual_time
async def test_a_lost_acknowledgement_cancels_no_other_send() -> None:
    # A record that the broker has taken would be sent again.
    bench = Bench()
    bench.answers_away.add(SLOW)
    answer = bench.freeze(TOPIC)
    async with bench.running():
        bench.enqueue(alo_row("a", topic=SLOW), alo_row("b", "other"))
        await asyncio.sleep(A_WHILE_S)
        answer.set()
        await asyncio.sleep(A_WHILE_S)
    assert (bench.arrived(), len(bench.cleanup), len(bench.lease.in_flight)) == (["other"], 1, 0)


@in_virtual_time
async def test_a_refused_record_stops_its_lane_and_no_other() -> None:
    bench = Bench()
    bench.kafka.refuse = refuse("a1")
    rows = [alo_row("a", f"a{number}") for number in range(4)]
    async with bench.running():
        bench.enqueue(*rows, alo_row("b", "other"))
        await asyncio.sleep(A_WHILE_S)
    assert sorted(bench.arrived()) == ["a0", "other"]
    assert len(bench.lease.in_flight) == 0
    assert bench.landings == 1, "the rest of the lane leaves flight together"
    marked = bench.store.rows[(SHARD, rows[1].position)]
    assert isinstance(marked, Row)
    assert marked.retry is not None
    assert (marked.retry.epoch, marked.retry.attempts) == (EPOCH, 1)
    assert bench.store.rows[(SHARD, rows[2].position)] == rows[2]


# --- retry marks


@pytest.mark.parametrize("failure", [StoreUnavailable(outcome_unknown=True), TransactionConflict()])
@in_virtual_time
async def test_a_refused_row_stays_in_flight_with_its_lane_until_its_retry_mark_is_answered(failure: Exception) -> None:
    # Read again before, it would be sent at once, and a cancel would believe the mark that is applied then.
    bench = Bench()
    bench.kafka.refuse = refuse("a0")
    rows = [alo_row("a", f"a{number}") for number in range(2)]
    bench.store.failures = [failure] * 3
    seen: list[tuple[bool, bool, bool]] = []

    def look() -> None:
        announced = rows[0].position in bench.lease.announced_not_before_ms
        seen.append((announced, bench.in_flight(rows[0]), bench.in_flight(rows[1])))

    bench.store.before_retry = look
    async with bench.running():
        bench.enqueue(*rows)
        await asyncio.sleep(A_WHILE_S)
    assert seen == [(True, True, True)] * 4
    assert not any(map(bench.in_flight, rows))
    marked = bench.store.rows[(SHARD, rows[0].position)]
    assert isinstance(marked, Row)
    assert marked.retry is not None
    assert marked.retry.at_ms == bench.lease.announced_not_before_ms[rows[0].position]


@in_virtual_time
async def test_a_refused_row_that_is_gone_needs_no_retry_mark() -> None:
    bench = Bench()
    bench.kafka.refuse = refuse("a0")
    gone = alo_row("a", "a0")
    answer = bench.freeze(TOPIC)
    async with bench.running():
        bench.enqueue(gone, alo_row("a", "a1"))
        await bench.store.finish(SHARD, [builders.gone(gone)])
        answer.set()
        await asyncio.sleep(A_WHILE_S)
    assert (len(bench.lease.in_flight), bench.landings, bench.store.rows.get((SHARD, gone.position))) == (0, 1, None)


@in_virtual_time
async def test_a_refusal_does_not_lower_the_time_that_was_announced_before() -> None:
    # A late copy of the earlier mark would be believed by a cancel after the row was fired by the lower one.
    bench = Bench()
    bench.kafka.refuse = refuse("a0")
    one = alo_row("a", "a0")
    later_ms = DUE_MS + 3_600_000
    bench.lease.announced_not_before_ms[one.position] = later_ms
    async with bench.running():
        bench.enqueue(one)
        await asyncio.sleep(A_WHILE_S)
    marked = bench.store.rows[(SHARD, one.position)]
    assert isinstance(marked, Row)
    assert marked.retry is not None
    assert (marked.retry.at_ms, bench.lease.announced_not_before_ms[one.position]) == (later_ms, later_ms)


# --- the end of an incarnation


@pytest.mark.parametrize("answered_after_s", [0.0, LAST_ANSWERS_S / 2])
@in_virtual_time
async def test_what_is_acknowledged_as_an_incarnation_ends_is_cleaned_up_and_not_sent_again(
    answered_after_s: float,
) -> None:
    # 0: the answer is there before the task that waits for it could be cancelled, and would be lost with it.
    bench = Bench()
    answer = bench.freeze(TOPIC)
    rows = [alo_row("a", "a0"), alo_row("b", "b0"), alo_row("b", "b1")]
    async with bench.running() as running:
        bench.enqueue(*rows)
        await asyncio.sleep(A_WHILE_S)
        running.cancel()
        if answered_after_s:
            asyncio.get_running_loop().call_later(answered_after_s, answer.set)
        else:
            answer.set()
        with suppress(asyncio.CancelledError):
            await running
        await bench.cleanup.finish_acknowledged()
    assert sorted(bench.arrived()) == ["a0", "b0"], "nothing more is sent"
    assert list(bench.store.rows.values()) == [rows[2]]


@in_virtual_time
async def test_a_send_without_an_answer_does_not_hold_up_the_end_of_its_incarnation() -> None:
    bench = Bench()
    bench.freeze(SLOW)
    async with bench.running() as running:
        bench.enqueue(alo_row("a", topic=SLOW), alo_row("b", "other"))
        await asyncio.sleep(A_WHILE_S)
        started_s = asyncio.get_running_loop().time()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert asyncio.get_running_loop().time() - started_s == pytest.approx(LAST_ANSWERS_S)
    assert len(bench.cleanup) == 1


@in_virtual_time
async def test_the_places_of_a_topic_are_forgotten_with_its_last_lane() -> None:
    bench = Bench()
    async with bench.running():
        bench.enqueue(alo_row("a"), alo_row("b", topic=SLOW))
        await asyncio.sleep(A_WHILE_S)
        assert not vars(bench.delivery)["_sends"]
