"""Reschedules and fire-now, on the twins; the race of each is told where it is played."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from clockwork.domain.destination import Topic
from clockwork.domain.schedule import EndState, OrderingKey, Schedule, ScheduleKey
from clockwork.domain.sharding import shard_of
from clockwork.domain.wakeup import NewlyDue
from clockwork.errors import ClockUntrusted, InvalidInput, StoreUnavailable
from clockwork.requests.results import (
    AlreadyCreated,
    Cancelled,
    Changed,
    Created,
    NotFound,
    Reason,
    Refused,
    Status,
    Unchanged,
    VersionCondition,
    VersionDiffers,
)
from tests.support import builders
from tests.support.builders import CLIENT, DUE_MS, row, schedule
from tests.support.engine import SHARDS, Engine
from tests.unit.test_requests_cancel import new

KEY = ScheduleKey("a")
LATER_MS = DUE_MS + 3_600_000


def to(**fields: Any) -> Callable[[Schedule], Schedule]:
    return lambda present: replace(present, **fields)


async def created(engine: Engine) -> Schedule:
    answer = await engine.create(new())
    assert isinstance(answer, Created)
    assert answer.view.schedule is not None
    return answer.view.schedule


async def put(engine: Engine, **fields: Any) -> Any:
    return await engine.change(CLIENT, KEY, to(**fields))


def lose_answer(engine: Engine, method: str, *, applied: bool = True) -> None:
    """The next such request is carried out, or is not; it has no answer."""
    real = getattr(engine.store, method)

    async def once(*given: Any, **named: Any) -> None:
        setattr(engine.store, method, real)
        if applied:
            await real(*given, **named)
        raise StoreUnavailable("no answer", outcome_unknown=True)

    setattr(engine.store, method, once)


async def test_a_put_moves_the_schedule_and_get_shows_it_where_it_stands_now() -> None:
    engine = Engine()
    before = await created(engine)
    answer = await put(engine, due_ms=LATER_MS, task_data=b"[]")
    assert isinstance(answer, Changed)
    assert await engine.find(CLIENT, KEY) == answer.view
    assert answer.view.version == 2
    after = answer.view.schedule
    assert after == replace(
        before, due_ms=LATER_MS, task_data=b"[]", version=2, delivery_id=after.delivery_id if after else ""
    )
    assert after is not None
    assert after.delivery_id != before.delivery_id, "one for each due time that was set"
    assert len(engine.store.rows) == 1


async def test_a_put_that_does_not_move_the_due_time_keeps_the_delivery_id() -> None:
    engine = Engine()
    before = await created(engine)
    answer = await put(engine, task_data=b"[]")
    assert isinstance(answer, Changed)
    assert answer.view.schedule == replace(before, task_data=b"[]", version=2)


async def test_a_put_that_changes_nothing_writes_nothing() -> None:
    engine = Engine()
    await created(engine)
    rows = dict(engine.store.rows)
    answer = await put(engine, due_ms=DUE_MS)
    assert isinstance(answer, Unchanged)
    assert engine.store.rows == rows


async def test_another_ordering_key_moves_the_schedule_to_its_shard_whose_owner_is_woken() -> None:
    engine = Engine()
    await created(engine)
    engine.at_due(late_ms=-1_000)
    other = OrderingKey("elsewhere")
    answer = await put(engine, ordering_key=other)
    assert isinstance(answer, Changed)
    shard = shard_of(other, SHARDS)
    assert shard != shard_of(OrderingKey("a"), SHARDS)
    assert answer.view.shard == shard
    assert engine.woken[-1] == (shard, NewlyDue(DUE_MS))
    assert [place[0] for place in engine.store.rows] == [shard]


async def test_a_late_repeat_of_the_create_finds_the_moved_schedule_and_brings_nothing_back() -> None:
    engine = Engine()
    await created(engine)
    moved = await put(engine, due_ms=LATER_MS)
    again = await engine.create(new())
    assert isinstance(again, AlreadyCreated)
    assert again.view == moved.view


async def test_a_moved_schedule_is_delivered_once_at_its_new_time_only() -> None:
    engine = Engine()
    wanted = row(schedule(schedule_key="a", ordering_key="a"), shard=shard_of(OrderingKey("a"), SHARDS))
    await engine.put(wanted)
    await put(engine, due_ms=DUE_MS + 5_000)
    lease = await engine.own(wanted.shard)
    engine.at_due(late_ms=4_999)
    assert (await engine.one_pass(lease)).fired == 0
    engine.at_due(late_ms=5_000)
    assert (await engine.one_pass(lease)).fired == 1
    assert engine.arrived() == ["a"]


async def test_a_cancel_and_a_put_after_a_put_find_it_where_it_stands_now() -> None:
    engine = Engine()
    await created(engine)
    await put(engine, due_ms=LATER_MS)
    second = await put(engine, due_ms=LATER_MS + 1)
    assert second.view.version == 3
    cancelled = await engine.cancel(CLIENT, KEY)
    assert isinstance(cancelled, Cancelled)
    assert cancelled.view.position == second.view.position
    assert not engine.store.rows


@pytest.mark.parametrize("late_ms", [-200, 0])
async def test_a_put_after_the_frontier_has_passed_promises_nothing(late_ms: int) -> None:
    engine = Engine()
    await engine.put(row(schedule(schedule_key="a")))
    lease = await engine.own()
    engine.at_due(late_ms=late_ms)
    await lease.incarnation.raise_frontier()
    answer = await put(engine, due_ms=LATER_MS)
    assert isinstance(answer, Refused)
    assert (answer.reason, answer.view.status) == (Reason.IN_FLIGHT, Status.PENDING)


async def test_what_has_ended_or_never_was_cannot_be_changed() -> None:
    engine = Engine()
    assert isinstance(await put(engine, due_ms=LATER_MS), NotFound)
    await created(engine)
    await engine.cancel(CLIENT, KEY)
    answer = await put(engine, due_ms=LATER_MS)
    assert isinstance(answer, Refused)
    assert (answer.reason, answer.view.status) == (Reason.CANCELLED, Status.CANCELLED)


async def test_a_delivered_schedule_says_so_to_a_put_and_to_a_fire() -> None:
    engine = Engine()
    await engine.put(row(schedule(schedule_key="a")))
    lease = await engine.own()
    engine.at_due()
    await engine.one_pass(lease)
    await lease.cleanup.finish()
    for answer in (await put(engine, due_ms=LATER_MS), await engine.fire(CLIENT, KEY)):
        assert isinstance(answer, Refused)
        assert answer.reason is Reason.DELIVERED


async def test_a_version_that_is_not_there_any_more_is_not_changed() -> None:
    engine = Engine()
    await created(engine)
    first = await engine.change(CLIENT, KEY, to(due_ms=LATER_MS), condition=VersionCondition(any_of=frozenset({1})))
    assert isinstance(first, Changed)
    stale = await engine.change(CLIENT, KEY, to(task_data=b"[]"), condition=VersionCondition(any_of=frozenset({1})))
    assert isinstance(stale, VersionDiffers)
    assert stale.view == first.view


async def test_the_same_put_again_with_the_version_that_it_changed_is_recognised() -> None:
    # Its first answer was lost on the way to the client. One change later it is not believed any more.
    engine = Engine()
    await created(engine)
    change, one = to(due_ms=LATER_MS), VersionCondition(any_of=frozenset({1}))
    first = await engine.change(CLIENT, KEY, change, condition=one)
    again = await engine.change(CLIENT, KEY, change, condition=one)
    assert isinstance(first, Changed)
    assert isinstance(again, Unchanged)
    assert again.view == first.view
    await put(engine, task_data=b"[]")
    assert isinstance(await engine.change(CLIENT, KEY, change, condition=one), VersionDiffers)


@pytest.mark.parametrize("applied", [True, False])
async def test_a_reschedule_whose_answer_is_lost_is_made_once(applied: bool) -> None:
    engine = Engine()
    await created(engine)
    lose_answer(engine, "reschedule", applied=applied)
    answer = await put(engine, due_ms=LATER_MS)
    assert isinstance(answer, Changed)
    assert answer.view.version == 2
    assert await engine.find(CLIENT, KEY) == answer.view
    assert len(engine.store.rows) == 1


async def test_a_reschedule_whose_answer_is_lost_is_not_made_again_over_the_next_one() -> None:
    # Ours was applied, without an answer; before we look, another request changes it. To apply ours again would undo that.
    engine = Engine()
    await created(engine)
    real = engine.store.reschedule

    async def applied_and_overtaken(*given: Any, **named: Any) -> None:
        engine.store.reschedule = real  # type: ignore[method-assign]
        await real(*given, **named)
        theirs = await put(engine, due_ms=LATER_MS + 1)
        assert isinstance(theirs, Changed)
        raise StoreUnavailable("no answer", outcome_unknown=True)

    engine.store.reschedule = applied_and_overtaken  # type: ignore[method-assign]
    ours = await put(engine, due_ms=LATER_MS)
    assert isinstance(ours, Changed)
    assert ours.view.version == 2
    now = await engine.find(CLIENT, KEY)
    assert now is not None
    assert (now.version, now.schedule and now.schedule.due_ms) == (3, LATER_MS + 1)


async def test_a_request_overtaken_by_another_changes_what_stands_there_now() -> None:
    # The other way round: ours was not applied, and never can be.
    engine = Engine()
    await created(engine)
    real = engine.store.reschedule

    async def overtaken(*given: Any, **named: Any) -> None:
        engine.store.reschedule = real  # type: ignore[method-assign]
        assert isinstance(await put(engine, due_ms=LATER_MS + 1), Changed)
        raise StoreUnavailable("no answer", outcome_unknown=True)

    engine.store.reschedule = overtaken  # type: ignore[method-assign]
    ours = await put(engine, task_data=b"[]")
    assert isinstance(ours, Changed)
    assert ours.view.version == 3
    assert ours.view.schedule is not None
    assert (ours.view.schedule.due_ms, ours.view.schedule.task_data) == (LATER_MS + 1, b"[]")


async def test_a_put_never_goes_on_with_the_next_schedule_of_its_key() -> None:
    # Not applied; meanwhile the schedule was cancelled and the key used again: the answer is that end.
    engine = Engine()
    await created(engine)
    real = engine.store.reschedule

    async def ended_and_reused(*given: Any, **named: Any) -> None:
        engine.store.reschedule = real  # type: ignore[method-assign]
        assert isinstance(await engine.cancel(CLIENT, KEY), Cancelled)
        assert isinstance(await engine.create(new(digest="d2")), Created)
        raise StoreUnavailable("no answer", outcome_unknown=True)

    engine.store.reschedule = ended_and_reused  # type: ignore[method-assign]
    answer = await put(engine, due_ms=LATER_MS)
    assert isinstance(answer, Refused)
    assert answer.reason is Reason.CANCELLED


async def test_a_new_topic_must_exist_and_an_old_one_is_not_asked_for() -> None:
    engine = Engine()
    await created(engine)
    engine.kafka.delete_topic(builders.TOPIC)
    with pytest.raises(InvalidInput):
        await put(engine, topic=Topic("nowhere"))
    assert isinstance(await put(engine, due_ms=LATER_MS), Changed)


async def test_no_row_is_placed_by_a_clock_that_is_not_trusted() -> None:
    engine = Engine()
    await created(engine)
    engine.trust.is_trusted = False
    with pytest.raises(ClockUntrusted):
        await put(engine, due_ms=LATER_MS)
    assert isinstance(await put(engine, due_ms=DUE_MS), Unchanged)


async def test_many_puts_at_once_are_made_one_after_the_other() -> None:
    engine = Engine()
    await created(engine)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(put(engine, due_ms=LATER_MS + n)) for n in range(20)]
    changed = [task.result() for task in tasks if isinstance(task.result(), Changed)]
    assert sorted(answer.view.version for answer in changed) == list(range(2, len(changed) + 2))
    ends = [outcome.state for outcome in engine.store.outcomes.values()]
    assert ends == [EndState.SUPERSEDED] * len(changed)


async def test_a_fired_schedule_is_due_now_and_delivered_by_the_next_pass() -> None:
    engine = Engine()
    shard = shard_of(OrderingKey("a"), SHARDS)
    await engine.put(row(schedule(schedule_key="a", ordering_key="a", due_ms=LATER_MS), shard=shard))
    engine.at_due()
    answer = await engine.fire(CLIENT, KEY)
    assert isinstance(answer, Changed)
    assert answer.view.schedule is not None
    assert answer.view.schedule.due_ms == DUE_MS
    assert engine.woken == [(shard, NewlyDue(DUE_MS))]
    lease = await engine.own(shard)
    assert (await engine.one_pass(lease)).fired == 1
    again = await engine.fire(CLIENT, KEY)
    assert isinstance(again, Unchanged | Refused)


async def test_firing_what_is_due_already_changes_nothing() -> None:
    engine = Engine()
    await created(engine)
    engine.at_due(late_ms=500)
    assert isinstance(await engine.fire(CLIENT, KEY), Unchanged)
