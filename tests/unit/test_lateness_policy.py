"""Schedules that could not be delivered before their deadline, and those with a retry policy of their own."""

from dataclasses import replace
from typing import Any

import pytest

from clockwork.domain.destination import Topic
from clockwork.domain.planning import Action, DestinationWait
from clockwork.domain.retry import BackoffPolicy, RetryPolicy
from clockwork.domain.schedule import EXPIRED, EndState, Guarantee, OnLate, Outcome, Row
from clockwork.errors import Refusal, RefusalCause
from clockwork.stores.dynamodb import codec
from tests.support import builders
from tests.support.builders import DUE_MS, row, schedule
from tests.support.engine import Engine
from tests.support.plans import BOUND_MS, fired, lane_row, plan, planner, refused

EAGER = RetryPolicy(attempts_max=2, backoff=BackoffPolicy(initial_ms=100, max_ms=100))


def late(of: Row, on_late: OnLate = OnLate.DROP, *, deadline_ms: int = BOUND_MS - DUE_MS - 1) -> Row:
    return replace(of, schedule=replace(of.schedule, deadline_ms=deadline_ms, on_late=on_late))


# --- what is planned


def test_what_is_late_by_a_millisecond_is_dropped_and_what_is_just_in_time_is_delivered() -> None:
    too_late, in_time = late(lane_row("a")), late(lane_row("b"), deadline_ms=BOUND_MS - DUE_MS)

    planned = plan([too_late, in_time])

    assert [firing.action for firing in planned.deliveries] == [Action.DROP, Action.DELIVER]


def test_by_default_what_is_late_is_delivered_all_the_same() -> None:
    planned = plan([late(lane_row("a"), OnLate.DELIVER)])

    assert [firing.action for firing in planned.deliveries] == [Action.DELIVER]


def test_a_late_row_needs_no_topic_to_be_dropped() -> None:
    wait = DestinationWait(until_ms=BOUND_MS + 500, reason="topic_missing")

    planned = plan([late(lane_row("a", topic="gone"))], planner(destination_waits={Topic("gone"): wait}))

    assert [firing.action for firing in planned.deliveries] == [Action.DROP]


def test_a_late_row_that_was_said_to_wait_is_not_ended_before() -> None:
    assert fired(plan([late(lane_row("a", retry=refused(BOUND_MS + 1)))])) == []


def test_a_late_row_behind_a_waiting_one_of_its_lane_waits_with_it() -> None:
    assert fired(plan([lane_row("a", retry=refused()), late(lane_row("a"))])) == []


def test_a_late_row_of_at_least_once_ends_inside_a_transaction_and_not_beside_sends_of_its_lane() -> None:
    plain = lane_row("a", guarantee=Guarantee.AT_LEAST_ONCE)
    dropped = late(lane_row("a", guarantee=Guarantee.AT_LEAST_ONCE))

    assert fired(plan([plain, dropped])) == [plain]
    alone = plan([dropped, plain])
    assert fired(alone) == [dropped]
    assert alone.deliveries[0].guarantee is Guarantee.EXACTLY_ONCE


def test_a_policy_of_its_own_decides_how_often_a_record_is_tried() -> None:
    patient = lane_row("a", retry=refused(BOUND_MS - 1, attempts=2))
    eager = replace(patient, schedule=replace(patient.schedule, retry=EAGER))

    assert plan([patient]).deliveries[0].action is Action.DELIVER
    assert plan([eager]).deliveries[0].action is Action.DEAD_LETTER


def test_a_long_wait_of_its_own_policy_applies_whichever_owner_wrote_it() -> None:
    far = refused(BOUND_MS + 3_600_000, epoch=1)
    slow = RetryPolicy(attempts_max=8, backoff=BackoffPolicy(initial_ms=3_600_000, max_ms=3_600_000))
    waiting = lane_row("a", retry=far)

    assert fired(plan([waiting])) == [waiting]  # a clock an hour ahead wrote it
    assert fired(plan([replace(waiting, schedule=replace(waiting.schedule, retry=slow))])) == []


@pytest.mark.parametrize(
    ("factor_percent", "waits"), [(100, [100, 100, 100]), (150, [100, 150, 225]), (200, [100, 200, 400])]
)
def test_waits_grow_by_the_factor_up_to_their_bound(factor_percent: int, waits: list[int]) -> None:
    policy = RetryPolicy(
        attempts_max=9,
        backoff=BackoffPolicy(initial_ms=100, max_ms=400, factor_percent=factor_percent),
        jitter_percent=50,
    )

    assert [policy.next_at_ms(attempts=n, now_ms=0) for n in (1, 2, 3)] == waits
    assert policy.next_at_ms(attempts=40, now_ms=0) == (100 if factor_percent == 100 else 400)
    assert policy.next_at_ms(attempts=1, now_ms=0, random_share=0.5) == 75


# --- on the twins


async def _ended(engine: Engine, of: Row) -> Outcome:
    found = await engine.store.read_outcome(builders.CLIENT, of.schedule.schedule_key, of.position)
    assert found is not None
    return found


@pytest.mark.parametrize("guarantee", Guarantee)
async def test_a_dropped_schedule_fails_as_expired_and_nothing_arrives(guarantee: Guarantee) -> None:
    engine = Engine()
    dropped = late(row(schedule(schedule_key="late", guarantee=guarantee)), deadline_ms=1_000)
    await engine.put(dropped, row(schedule(schedule_key="other")))
    lease = await engine.own()
    engine.at_due(late_ms=1_001)
    await engine.one_pass(lease)
    await lease.cleanup.finish()

    outcome = await _ended(engine, dropped)
    assert outcome.state is EndState.FAILED
    assert outcome.failure is not None
    assert (outcome.failure.reason, outcome.receipt, outcome.at_ms) == (EXPIRED, None, DUE_MS + 1_001)
    assert engine.arrived() == ["other"]
    assert engine.arrived(engine.kafka.dead_letters_topic) == []
    assert await engine.store.read_row(dropped.name) is None


async def test_a_late_schedule_may_become_a_dead_letter() -> None:
    engine = Engine()
    dead = late(row(schedule(schedule_key="late")), OnLate.DEAD_LETTER, deadline_ms=1_000)
    await engine.put(dead)
    lease = await engine.own()
    engine.at_due(late_ms=1_001)
    await engine.one_pass(lease)
    await lease.cleanup.finish()

    assert engine.arrived() == []
    assert engine.arrived(engine.kafka.dead_letters_topic) == ["late"]
    assert (await _ended(engine, dead)).state is EndState.FAILED


@pytest.mark.parametrize("guarantee", Guarantee)
async def test_a_new_owner_does_not_deliver_what_the_marker_says_was_dropped(guarantee: Guarantee) -> None:
    # The old owner dies between its commit and its cleanup, and the new one's clock is behind.
    engine = Engine()
    dropped = late(row(schedule(schedule_key="late", guarantee=guarantee)), deadline_ms=1_000)
    await engine.put(dropped)
    old = await engine.own()
    engine.at_due(late_ms=1_001)
    await engine.one_pass(old)
    new = await engine.own()
    engine.at_due(late_ms=999)
    assert (await engine.one_pass(new)).fired == 0

    assert engine.arrived() == []
    assert (await _ended(engine, dropped)).at_ms == DUE_MS + 1_001


async def test_a_refused_record_beside_a_dropped_one_is_the_one_that_pays() -> None:
    engine = Engine()
    dropped = late(row(schedule(schedule_key="late")), deadline_ms=1_000)
    bad, good = row(schedule(schedule_key="bad", task_data=b"bad")), row(schedule(schedule_key="good"))
    await engine.put(dropped, bad, good)
    engine.kafka.refuse = lambda record: (
        Refusal(cause=RefusalCause.RECORD, reason="record_invalid", destination=record.topic)
        if record.value == b"bad"
        else None
    )
    lease = await engine.own()
    engine.at_due(late_ms=1_001)
    await engine.one_pass(lease)

    assert engine.arrived() == ["good"]
    stored = await engine.store.read_row(bad.name)
    assert isinstance(stored, Row)
    assert stored.retry is not None
    assert {dropped.position, good.position} <= lease.cleanup.positions()


async def test_a_refused_record_waits_as_its_own_policy_says() -> None:
    engine = Engine()
    bad = row(replace(schedule(schedule_key="bad", task_data=b"bad"), retry=EAGER))
    await engine.put(bad)
    engine.kafka.refuse = lambda record: (
        Refusal(cause=RefusalCause.RECORD, reason="record_invalid", destination=record.topic)
        if record.topic == builders.TOPIC
        else None
    )
    lease = await engine.own()
    for late_ms in (0, 100, 200):
        engine.at_due(late_ms)
        await engine.one_pass(lease)

    assert engine.arrived(engine.kafka.dead_letters_topic) == ["bad"]


def test_both_policies_survive_the_store() -> None:
    of: dict[str, Any] = {"deadline_ms": 5, "on_late": OnLate.DEAD_LETTER, "retry": replace(EAGER, jitter_percent=25)}
    stored = row(replace(schedule(), **of))

    assert codec.row_of(codec.row_item(stored), shard=stored.shard, position=stored.position) == stored
