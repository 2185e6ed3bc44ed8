"""One pass over one shard, on the twins."""

from dataclasses import replace

import pytest

from clockwork.domain.planning import PROBE_ROWS_MAX
from clockwork.domain.run import Chain, RunKind, RunOfRow, scheduled_run
from clockwork.domain.schedule import EndState, Failure, Guarantee, Receipt, RequestId, Retry, Row
from clockwork.errors import ClockUntrusted, Fenced, Refusal, RefusalCause
from clockwork.ports.telemetry import NoTelemetry
from tests.support import builders
from tests.support.builders import DUE_MS, row, schedule
from tests.support.engine import Engine

OLD_MS = 10_000
"""Age from which a waiting row may lie in a blocked prefix: the scan interval and five seconds."""
WRITES = ("raise_frontier", "drop_hold", "set_retry", "finish")


async def test_a_row_is_not_fired_a_millisecond_early_and_is_fired_on_time() -> None:
    engine = Engine()
    await engine.put(row(schedule(schedule_key="a")))
    lease = await engine.own()
    engine.at_due(late_ms=-1)
    before = await engine.one_pass(lease)
    assert (before.fired, before.next_due_ms, engine.arrived()) == (0, DUE_MS, [])
    engine.at_due()
    assert (await engine.one_pass(lease)).fired == 1
    assert engine.arrived() == ["a"]


async def test_a_due_row_costs_one_read_and_one_transaction_if_the_frontier_was_written_ahead() -> None:
    engine = Engine()
    await engine.put(row(), row(schedule(due_ms=DUE_MS + 1_000)))
    lease = await engine.own()
    engine.at_due()
    await engine.one_pass(lease)
    await lease.cleanup.finish()
    engine.at_due(late_ms=900)
    await lease.incarnation.raise_frontier()
    engine.store.calls.clear()
    engine.at_due(late_ms=1_000)
    await engine.one_pass(lease)
    assert dict(engine.store.calls) == {"read_page": 1}


async def test_the_scan_of_an_idle_shard_writes_nothing() -> None:
    engine = Engine()
    await engine.put(row(schedule(due_ms=DUE_MS + 3_600_000)))
    lease = await engine.own()
    engine.store.calls.clear()
    engine.at_due()
    assert await engine.shard_pass(lease).first_due_ms(lease) == DUE_MS + 3_600_000
    assert not any(engine.store.calls[name] for name in WRITES)


async def test_the_frontier_is_stored_before_the_rows_are_read() -> None:
    engine = Engine()
    await engine.put(row())
    lease = await engine.own()
    engine.at_due()
    await engine.one_pass(lease)
    frontier_ms = engine.store.nodes[lease.incarnation.id].frontier_ms
    assert frontier_ms == DUE_MS + engine.settings.frontier_lead_ms


async def test_nothing_is_fired_with_a_clock_that_is_not_trusted() -> None:
    engine = Engine()
    await engine.put(row())
    lease = await engine.own()
    engine.at_due()
    engine.trust.is_trusted = False
    with pytest.raises(ClockUntrusted):
        await engine.one_pass(lease)
    assert engine.arrived() == []
    assert engine.store.nodes[lease.incarnation.id].frontier_ms == 0


async def test_a_delivered_row_is_left_out_of_later_passes_until_it_is_deleted() -> None:
    engine = Engine()
    await engine.put(row(schedule(schedule_key="a")))
    lease = await engine.own()
    engine.at_due()
    await engine.one_pass(lease)
    assert (await engine.one_pass(lease)).fired == 0
    await lease.cleanup.finish()
    assert (await engine.one_pass(lease)).fired == 0
    assert engine.arrived() == ["a"]


async def test_the_outcome_says_where_the_record_is_and_the_row_is_gone() -> None:
    engine = Engine()
    fired = row(schedule(schedule_key="a"))
    await engine.put(fired)
    lease = await engine.own()
    engine.at_due(late_ms=3)
    await engine.one_pass(lease)
    await lease.cleanup.finish()
    outcome = await engine.store.read_outcome(builders.CLIENT, fired.schedule.schedule_key, fired.position)
    assert outcome is not None
    assert outcome.receipt is not None
    assert (outcome.state, outcome.receipt.offset, outcome.at_ms) == (EndState.DELIVERED, 0, DUE_MS + 3)
    assert await engine.store.read_row(fired.name) is None


async def test_a_new_owner_fires_nothing_that_the_marker_names() -> None:
    # The old owner dies between its commit and its cleanup.
    engine = Engine()
    await engine.put(row(schedule(schedule_key="a")), row(schedule(schedule_key="b")))
    old = await engine.own()
    engine.at_due()
    await engine.one_pass(old)
    new = await engine.own()
    assert (await engine.one_pass(new)).fired == 0
    assert sorted(engine.arrived()) == ["a", "b"]
    assert (engine.store.rows, len(engine.store.outcomes)) == ({}, 2)


async def test_a_marker_names_the_rows_that_earlier_transactions_of_its_slot_left_to_cleanup() -> None:
    # x-forget-tidy: the next owner reads the last marker only.
    engine = Engine()
    await engine.put(row(schedule(schedule_key="a")))
    first = await engine.own()
    engine.at_due()
    await engine.one_pass(first)
    await engine.put(row(schedule(schedule_key="b")))
    await engine.one_pass(first)
    await engine.one_pass(await engine.own())
    assert sorted(engine.arrived()) == ["a", "b"]
    assert engine.store.rows == {}


async def test_an_owner_that_was_overtaken_is_fenced_at_its_next_frontier() -> None:
    engine = Engine()
    await engine.put(row())
    old = await engine.own()
    await engine.own()
    engine.at_due()
    with pytest.raises(Fenced):
        await engine.one_pass(old)
    assert engine.arrived() == []


async def test_a_held_row_fires_after_its_hold_was_dropped() -> None:
    engine = Engine()
    held = row(schedule(schedule_key="a"))
    await engine.put(held)
    await engine.store.hold(held.name, RequestId("r"))
    lease = await engine.own()
    engine.at_due()
    await engine.one_pass(lease)
    stored = await engine.store.read_row(held.name)
    assert stored is not None
    assert getattr(stored, "hold", None) is None
    assert engine.arrived() == ["a"]


async def test_a_refused_record_waits_and_holds_back_its_lane_only() -> None:
    engine = Engine(retry_initial_ms=1_000)
    first = row(schedule(schedule_key="bad", ordering_key="lane", task_data=b"bad"))
    behind = row(schedule(schedule_key="behind", ordering_key="lane"))
    other = row(schedule(schedule_key="other"))
    await engine.put(first, behind, other)
    engine.kafka.refuse = lambda record: (
        Refusal(cause=RefusalCause.RECORD, reason="record_invalid", destination=record.topic)
        if record.value == b"bad"
        else None
    )
    lease = await engine.own()
    engine.at_due()
    await engine.one_pass(lease)
    assert engine.arrived() == ["other"]
    stored = await engine.store.read_row(first.name)
    assert getattr(stored, "retry", None) == Retry(
        at_ms=DUE_MS + 1_000, epoch=lease.epoch, attempts=1, last_refusal="record_invalid"
    )
    engine.kafka.refuse = lambda record: None
    engine.at_due(late_ms=1_000)
    await engine.one_pass(lease)
    assert engine.arrived() == ["other", "bad", "behind"]


async def test_a_record_refused_too_often_becomes_a_dead_letter_and_its_lane_goes_on() -> None:
    engine = Engine(retry_attempts=2, retry_initial_ms=1_000)
    bad = row(schedule(schedule_key="bad", ordering_key="lane", task_data=b"bad"))
    behind = row(schedule(schedule_key="behind", ordering_key="lane"))
    await engine.put(bad, behind)
    engine.kafka.refuse = lambda record: (
        Refusal(cause=RefusalCause.RECORD, reason="record_invalid", destination=record.topic)
        if record.value == b"bad" and record.topic == builders.TOPIC
        else None
    )
    lease = await engine.own()
    for late_ms in (0, 5_000, 10_000):
        engine.at_due(late_ms)
        await engine.one_pass(lease)
    assert engine.arrived(engine.kafka.dead_letters_topic) == ["bad"]
    (letter,) = engine.kafka.read_committed(engine.kafka.dead_letters_topic)
    assert dict(letter.headers)["clockwork-last-refusal"] == b"record_invalid"
    assert engine.arrived() == ["behind"]
    await lease.cleanup.finish()
    outcome = await engine.store.read_outcome(builders.CLIENT, bad.schedule.schedule_key, bad.position)
    assert outcome is not None
    assert outcome.state is EndState.FAILED
    assert outcome.failure == Failure(reason="attempts_exhausted", attempts=2, last_refusal="record_invalid")


async def test_a_missing_topic_waits_as_a_whole_and_no_row_pays() -> None:
    engine = Engine()
    lost = row(schedule(schedule_key="lost", topic="gone"))
    await engine.put(lost, row(schedule(schedule_key="other")))
    lease = await engine.own()
    engine.at_due()
    await engine.one_pass(lease)
    assert engine.arrived() == ["other"]
    stored = await engine.store.read_row(lost.name)
    assert getattr(stored, "retry", "no row") is None
    engine.kafka.create_topic("gone")
    engine.at_due(late_ms=20_000)
    await engine.one_pass(lease)
    assert engine.arrived("gone") == ["lost"]


async def test_a_topic_that_stays_missing_gives_its_rows_up_after_its_wait() -> None:
    engine = Engine(topic_wait_ms=60_000)
    await engine.put(row(schedule(schedule_key="lost", topic="gone")))
    lease = await engine.own()
    for late_ms in (0, 30_000, 61_000, 61_001):
        assert engine.arrived(engine.kafka.dead_letters_topic) == []
        engine.at_due(late_ms)
        await engine.one_pass(lease)
    assert engine.arrived(engine.kafka.dead_letters_topic) == ["lost"]


async def test_a_lane_with_both_guarantees_is_sent_in_order() -> None:
    engine = Engine()
    kinds = (Guarantee.EXACTLY_ONCE, Guarantee.AT_LEAST_ONCE, Guarantee.EXACTLY_ONCE)
    await engine.put(
        *(row(schedule(schedule_key=f"k{n}", ordering_key="lane", guarantee=kind)) for n, kind in enumerate(kinds))
    )
    lease = await engine.own()
    engine.at_due()
    for _ in kinds:
        await engine.one_pass(lease)
    assert engine.arrived() == ["k0", "k1", "k2"]


async def test_a_long_blocked_prefix_is_not_read_at_each_pass() -> None:
    engine = Engine()
    waiting = [row(schedule(topic="gone", ordering_key=f"lane-{n % 7}")) for n in range(600)]
    await engine.put(*waiting)
    lease = await engine.own()
    engine.at_due(OLD_MS)
    while (await engine.one_pass(lease)).more_now:
        pass
    assert lease.blocked_prefix is not None
    assert lease.blocked_prefix.last == waiting[-1].position
    await engine.put(row(schedule(schedule_key="new", due_ms=DUE_MS + OLD_MS + 1)))
    engine.at_due(OLD_MS + 1)
    engine.store.calls.clear()
    await engine.one_pass(lease)
    assert engine.arrived() == ["new"]
    assert engine.store.calls["read_page"] == 1


async def test_a_dead_topic_of_many_rows_is_probed_with_a_few_of_them_and_not_read_again() -> None:
    engine = Engine()
    await engine.put(*(row(schedule(topic="gone")) for _ in range(600)))
    lease = await engine.own()
    engine.at_due(OLD_MS)
    while (await engine.one_pass(lease)).more_now:
        pass
    prefix = lease.blocked_prefix
    assert prefix is not None
    engine.at_due(OLD_MS + 1_000)
    engine.store.calls.clear()
    probe = await engine.one_pass(lease)
    assert (probe.fired, probe.more_now) == (PROBE_ROWS_MAX, True)
    after = await engine.one_pass(lease)
    assert (after.fired, after.more_now) == (0, False)
    assert lease.blocked_prefix is not None
    assert lease.blocked_prefix.lanes is prefix.lanes
    assert engine.store.calls["read_page"] <= 3


async def test_the_rows_of_a_topic_that_is_there_again_arrive_in_the_order_of_their_lanes() -> None:
    engine = Engine()
    rows = [row(schedule(schedule_key=f"k{n}", topic="gone", ordering_key=f"lane-{n % 3}")) for n in range(600)]
    await engine.put(*rows)
    lease = await engine.own()
    engine.at_due(OLD_MS)
    while (await engine.one_pass(lease)).more_now:
        pass
    engine.kafka.create_topic("gone")
    engine.at_due(OLD_MS + 1_000)
    while (await engine.one_pass(lease)).more_now:
        await lease.cleanup.finish()
    for lane in range(3):
        arrived = [key for key in engine.arrived("gone") if int(key[1:]) % 3 == lane]
        assert arrived == [f"k{n}" for n in range(lane, 600, 3)]


class Lateness(NoTelemetry):
    """Keeps what is told about lateness, in seconds."""

    def __init__(self) -> None:
        self.of_deliveries: list[float] = []
        self.of_catch_up: list[float] = []

    def delivered(
        self, guarantee: Guarantee, row: Row, receipt: Receipt, *, late_seconds: float, catch_up: bool
    ) -> None:
        (self.of_catch_up if catch_up else self.of_deliveries).append(late_seconds)


async def test_a_fire_time_that_is_caught_up_is_no_late_delivery() -> None:
    # It was late before it was armed: an objective for lateness would count the outage twice.
    told = Lateness()
    engine = Engine(telemetry=told)
    for kind in (RunKind.SCHEDULED, RunKind.CATCH_UP):
        job = RunOfRow(
            rev=1,
            version=1,
            kind=kind,
            chain=Chain.MAIN,
            scheduled_at_ms=DUE_MS,
            cursor_ms=DUE_MS,
            run_id=scheduled_run(DUE_MS),
        )
        await engine.put(replace(row(schedule(schedule_key=kind.value)), run=job))
    lease = await engine.own()
    engine.at_due(late_ms=2_000)
    await engine.one_pass(lease)

    assert (told.of_deliveries, told.of_catch_up) == ([2.0], [2.0])
