"""Creates, cancels and reads, on the twins."""

import asyncio
from dataclasses import replace

import pytest

from clockwork.domain.destination import Topic
from clockwork.domain.rights import ANYONE
from clockwork.domain.schedule import ClientId, DataForm, Guarantee, NewSchedule, OrderingKey, Pointer, ScheduleKey
from clockwork.domain.sharding import shard_of
from clockwork.domain.wakeup import NewlyDue, Wanted
from clockwork.errors import InvalidInput
from clockwork.requests.pending_quota import PendingLimit
from clockwork.requests.results import AlreadyCreated, Cancelled, Created, KeyTaken, NotFound, Reason, Refused, Status
from clockwork.requests.service import RequestService
from tests.support import builders
from tests.support.builders import DUE_MS, row, schedule
from tests.support.engine import SHARD, SHARDS, Engine
from tests.unit.counting import FakeCount, counting

KEY = ScheduleKey("a")


def new(key: str = "a", *, digest: str = "d1", due_ms: int = DUE_MS) -> NewSchedule:
    return NewSchedule(
        client_id=builders.CLIENT,
        schedule_key=ScheduleKey(key),
        ordering_key=OrderingKey(key),
        due_ms=due_ms,
        topic=builders.TOPIC,
        guarantee=Guarantee.EXACTLY_ONCE,
        task_data=b"{}",
        data_form=DataForm.JSON,
        headers=(),
        traceparent=None,
        digest=digest,
    )


async def test_the_same_create_again_is_the_same_schedule() -> None:
    engine = Engine()
    first = await engine.create(new())
    again = await engine.create(new())
    assert isinstance(first, Created)
    assert isinstance(again, AlreadyCreated)
    assert again.view.position == first.view.position


async def test_another_create_under_a_pending_key_is_refused_with_what_is_there() -> None:
    engine = Engine()
    first = await engine.create(new())
    other = await engine.create(new(digest="d2"))
    assert isinstance(first, Created)
    assert isinstance(other, KeyTaken)
    assert other.view.position == first.view.position


async def test_a_key_is_free_again_after_its_schedule_has_ended_and_its_version_goes_on() -> None:
    engine = Engine()
    await engine.create(new())
    assert isinstance(await engine.cancel(builders.CLIENT, KEY), Cancelled)
    reused = await engine.create(new(digest="d2"))
    assert isinstance(reused, Created)
    assert reused.view.version == 2


async def test_a_late_repeat_of_a_cancelled_create_brings_nothing_back() -> None:
    engine = Engine()
    await engine.create(new())
    await engine.cancel(builders.CLIENT, KEY)
    again = await engine.create(new())
    assert isinstance(again, AlreadyCreated)
    assert again.view.status is Status.CANCELLED


async def test_a_repeat_is_recognised_though_its_topic_is_gone_and_the_clock_is_not_trusted() -> None:
    engine = Engine()
    await engine.create(new())
    engine.kafka.delete_topic(builders.TOPIC)
    engine.trust.is_trusted = False
    assert isinstance(await engine.create(new()), AlreadyCreated)


async def test_another_create_under_a_pending_key_is_told_first_that_its_topic_is_missing() -> None:
    engine = Engine()
    await engine.create(new())
    engine.kafka.delete_topic(builders.TOPIC)
    with pytest.raises(InvalidInput):
        await engine.create(new(digest="d2"))


async def test_a_repeat_is_recognised_while_its_schedule_is_being_moved() -> None:
    # The pointer is read, then a change moves what it points to: that nothing stands there says nothing about the topic.
    engine = Engine()
    await engine.create(new())
    engine.kafka.delete_topic(builders.TOPIC)
    read_pointer = engine.store.read_pointer

    async def moved_meanwhile(client_id: ClientId, key: ScheduleKey) -> Pointer | None:
        pointer = await read_pointer(client_id, key)
        setattr(engine.store, "read_pointer", read_pointer)  # noqa: B010  # a method, which types do not let us assign
        await engine.change(client_id, key, lambda s: replace(s, due_ms=s.due_ms + 1))
        return pointer

    setattr(engine.store, "read_pointer", moved_meanwhile)  # noqa: B010

    again = await engine.create(new())

    assert isinstance(again, AlreadyCreated)
    assert again.view.version == 2


async def test_what_is_due_before_the_next_scan_wakes_its_shard_and_what_is_later_does_not() -> None:
    engine = Engine()
    now_ms = engine.clock.now_ms()
    await engine.create(new("soon", due_ms=now_ms + 100))
    await engine.create(new("late", due_ms=now_ms + 3_600_000))
    assert [wakeup for _, wakeup in engine.woken] == [NewlyDue(now_ms + 100)]


async def test_a_repeat_of_a_pending_create_wakes_its_shard_again() -> None:
    # The node that accepted it may have died before it sent the wake-up, as it did before it sent the answer.
    engine = Engine()
    now_ms = engine.clock.now_ms()
    for due_ms, repeats in ((now_ms + 100, 2), (now_ms + 3_600_000, 0)):
        key, accepted = f"due in {due_ms - now_ms}", engine.woken.copy()
        for _ in range(2):
            await engine.create(new(key, due_ms=due_ms))
        assert engine.woken[len(accepted) :] == [(shard_of(OrderingKey(key), SHARDS), NewlyDue(due_ms))] * repeats
    await engine.cancel(builders.CLIENT, ScheduleKey("due in 100"))
    woken = engine.woken.copy()
    assert isinstance(await engine.create(new("due in 100", due_ms=now_ms + 100)), AlreadyCreated)
    assert engine.woken == woken, "it has ended"


async def test_a_repeat_in_a_batch_or_at_a_limit_wakes_its_shard_again() -> None:
    engine = Engine()
    now_ms = engine.clock.now_ms()
    items = [replace(new(f"k{n}", due_ms=now_ms + 100), ordering_key=OrderingKey("lane")) for n in range(3)]
    await engine.requests.create_batch(ANYONE, items)
    engine.woken.clear()
    repeated = await engine.requests.create_batch(ANYONE, items)
    assert [type(each) for each in repeated] == [AlreadyCreated] * 3
    wakeup = (shard_of(OrderingKey("lane"), SHARDS), NewlyDue(now_ms + 100))
    assert engine.woken == [wakeup] * 3

    engine.woken.clear()
    async with counting(PendingLimit(pending_max=1, count=FakeCount(found=9))) as pending:
        full = RequestService(context=engine.context, pending=pending)
        assert isinstance(await full.create(ANYONE, items[0]), AlreadyCreated)
    assert engine.woken == [wakeup]


async def test_a_cancel_right_after_the_create_finds_it() -> None:
    engine = Engine()
    await engine.create(new())
    assert isinstance(await engine.cancel(builders.CLIENT, KEY), Cancelled)
    view = await engine.find(builders.CLIENT, KEY)
    assert view is not None
    assert view.status is Status.CANCELLED
    assert isinstance(await engine.cancel(builders.CLIENT, KEY), Cancelled)


async def test_a_cancel_of_what_was_never_heard_of_says_so() -> None:
    assert isinstance(await Engine().cancel(builders.CLIENT, ScheduleKey("nobody")), NotFound)


async def test_a_cancel_after_the_frontier_has_passed_promises_nothing() -> None:
    engine = Engine()
    wanted = row(schedule(schedule_key="a"))
    await engine.put(wanted)
    lease = await engine.own()
    engine.at_due(late_ms=-100)
    await lease.incarnation.raise_frontier()
    answer = await engine.cancel(builders.CLIENT, KEY)
    assert isinstance(answer, Refused)
    assert (answer.reason, answer.view.status) == (Reason.IN_FLIGHT, Status.PENDING)


async def test_a_cancel_of_a_delivered_schedule_says_where_it_is() -> None:
    engine = Engine()
    await engine.put(row(schedule(schedule_key="a")))
    lease = await engine.own()
    engine.at_due()
    await engine.one_pass(lease)
    await lease.cleanup.finish()
    answer = await engine.cancel(builders.CLIENT, KEY)
    assert isinstance(answer, Refused)
    assert answer.reason is Reason.DELIVERED
    assert answer.view.outcome is not None
    assert answer.view.outcome.receipt is not None


async def test_a_waiting_row_is_cancelled_once_its_owner_has_said_until_when_it_waits() -> None:
    engine = Engine()
    lost = row(schedule(schedule_key="a", topic="gone"))
    await engine.put(lost)
    lease = await engine.own()
    engine.at_due()
    await engine.one_pass(lease)
    engine.at_due(late_ms=5_000)
    await engine.one_pass(lease)  # its topic is tried once more
    assert (await engine.one_pass(lease)).fired == 0
    async with asyncio.TaskGroup() as group:
        cancelling = group.create_task(engine.cancel(builders.CLIENT, KEY))
        await engine.was_woken.wait()
        await engine.works[lease.incarnation.id].shard_pass.answer_wanted(lease, lost.position)
    assert engine.woken == [(SHARD, Wanted(lost.position))]
    assert isinstance(cancelling.result(), Cancelled)


async def test_a_promise_about_a_waiting_row_is_kept_though_its_write_was_lost() -> None:
    # The write of the retry was not answered, and is applied late: a cancel would believe it, so the row must not have
    # been fired before the time it names.
    engine = Engine()
    wanted = row(schedule(schedule_key="a"))
    await engine.put(wanted)
    lease = await engine.own()
    engine.at_due()
    lease.announced_not_before_ms[wanted.position] = DUE_MS + 5_000
    assert (await engine.one_pass(lease)).fired == 0
    engine.at_due(late_ms=5_000)
    assert (await engine.one_pass(lease)).fired == 1


async def test_an_expired_key_whose_row_is_still_to_be_delivered_is_found() -> None:
    # Its owner was away for weeks.
    engine = Engine()
    wanted = row(schedule(schedule_key="a"))
    stale = replace(builders.pointer(wanted), expires_at_s=1)
    await engine.store.create(wanted, stale, replaces=None)
    engine.clock.advance_ms(100 * 86_400_000)
    view = await engine.find(ClientId(builders.CLIENT), KEY)
    assert view is not None
    assert view.status is Status.PENDING


async def test_a_key_of_which_only_the_pointer_is_left_is_forgotten_after_retention() -> None:
    engine = Engine()
    wanted = row(schedule(schedule_key="a", topic=Topic("orders")))
    await engine.put(wanted)
    await engine.store.finish(SHARD, [builders.gone(wanted)])
    engine.clock.advance_ms(100 * 86_400_000)
    assert await engine.find(builders.CLIENT, KEY) is None
    assert isinstance(await engine.create(new(digest="d9")), Created)
