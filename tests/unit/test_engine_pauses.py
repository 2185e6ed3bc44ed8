"""A paused client or topic waits in place and in order; no row of it ends, and no other waits."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from clockwork.domain.pauses import NOTHING_PAUSED, PAUSED_MAX, PauseKind, Pauses
from clockwork.domain.schedule import EndState, Guarantee, OnLate
from clockwork.domain.wakeup import Wanted
from clockwork.errors import InvalidInput, NewerFormat, StoreUnavailable, Unavailable, Unreadable
from clockwork.firing.lease import ShardLease
from clockwork.firing.pause_watch import PauseWatch
from clockwork.firing.shard_pass import PREFIX_ROWS_MIN
from clockwork.observability.metrics import PrometheusTelemetry
from clockwork.operations.pauses import PauseAdmin
from clockwork.requests.results import Cancelled, Changed
from clockwork.settings.model import IntakeSettings
from clockwork.stores.dynamodb.attributes import number
from clockwork.stores.dynamodb.pauses import FORMAT, pauses_of
from clockwork.stores.memory.store import MemoryPauses
from tests.support import builders
from tests.support.builders import DUE_MS, row, schedule
from tests.support.clocks import ManualClock
from tests.support.engine import Engine
from tests.support.virtual_time import in_virtual_time
from tests.support.waiting import until

CLIENT, TOPIC = PauseKind.CLIENT, PauseKind.TOPIC


class Paused(Engine):
    """An engine that looks at what is paused when the test says so."""

    async def pause(self, kind: PauseKind, name: str) -> None:
        await self.pauser.pause(kind, name, by="ana")
        await self.pause_watch.begin()

    async def resume(self, kind: PauseKind, name: str) -> None:
        await self.pauser.resume(kind, name)
        await self.pause_watch.begin()

    async def passes(self, lease: ShardLease) -> None:
        """As many as the loop would make now."""
        while (await self.one_pass(lease)).more_now:
            await lease.cleanup.finish()
        await lease.cleanup.finish()


@pytest.mark.parametrize("guarantee", list(Guarantee))
@pytest.mark.parametrize(("kind", "name"), [(CLIENT, "shop"), (TOPIC, builders.TOPIC)])
async def test_what_is_paused_waits_in_order_and_goes_on_when_it_is_resumed(
    kind: PauseKind, name: str, guarantee: Guarantee
) -> None:
    engine = Paused()
    engine.kafka.create_topic("other")
    shop = [
        row(schedule(client_id="shop", schedule_key=f"k{n}", ordering_key="lane", guarantee=guarantee))
        for n in range(3)
    ]
    await engine.put(*shop, row(schedule(client_id="bank", schedule_key="free", topic="other")))
    lease = await engine.own()
    await engine.pause(kind, name)
    engine.at_due()
    await engine.passes(lease)
    assert (engine.arrived(), engine.arrived("other")) == ([], ["free"])
    assert all(there.retry is None for there in engine.store.rows.values()), "no attempt is counted"  # type: ignore[union-attr]

    await engine.resume(kind, name)
    await engine.passes(lease)
    assert engine.arrived() == ["k0", "k1", "k2"]


async def test_what_stands_behind_a_paused_clients_row_in_its_lane_waits_and_other_lanes_do_not() -> None:
    # Order within a lane is promised to all who use it.
    engine = Paused()
    await engine.put(
        row(schedule(client_id="shop", schedule_key="first", ordering_key="lane")),
        row(schedule(client_id="bank", schedule_key="second", ordering_key="lane")),
        row(schedule(client_id="bank", schedule_key="beside", ordering_key="elsewhere")),
    )
    lease = await engine.own()
    await engine.pause(CLIENT, "shop")
    engine.at_due()
    await engine.passes(lease)
    assert engine.arrived() == ["beside"]
    await engine.resume(CLIENT, "shop")
    await engine.passes(lease)
    assert engine.arrived() == ["beside", "first", "second"]


@pytest.mark.parametrize("on_late", list(OnLate))
async def test_a_deadline_that_passes_during_a_pause_is_looked_at_when_it_ends(on_late: OnLate) -> None:
    engine = Paused()
    late = row(schedule(schedule_key="late", deadline_ms=1_000, on_late=on_late))
    await engine.put(late)
    lease = await engine.own()
    await engine.pause(TOPIC, builders.TOPIC)
    engine.at_due(60_000)
    await engine.passes(lease)
    assert engine.store.outcomes == {}

    await engine.resume(TOPIC, builders.TOPIC)
    await engine.passes(lease)
    (outcome,) = engine.store.outcomes.values()
    assert outcome.state is (EndState.DELIVERED if on_late is OnLate.DELIVER else EndState.FAILED)
    assert len(engine.arrived(engine.kafka.dead_letters_topic)) == (on_late is OnLate.DEAD_LETTER)


async def test_a_row_that_cannot_be_read_is_no_dead_letter_while_its_topic_is_paused() -> None:
    engine = Paused()
    lane = row().schedule.lane
    engine.store.put_by_hand(builders.broken_row(lane=lane))
    engine.store.put_by_hand(builders.broken_row(client_id="shop"))
    lease = await engine.own()
    await engine.pauser.pause(CLIENT, "shop", by="ana")
    await engine.pause(TOPIC, builders.TOPIC)
    engine.at_due()
    await engine.passes(lease)
    assert engine.kafka.read_committed(engine.kafka.dead_letters_topic) == []
    await engine.resume(TOPIC, builders.TOPIC)
    await engine.passes(lease)
    assert len(engine.kafka.read_committed(engine.kafka.dead_letters_topic)) == 1


async def test_a_long_prefix_of_paused_rows_is_not_read_at_each_pass_and_is_read_at_once_after_a_resume() -> None:
    engine = Paused()
    await engine.put(*(row(schedule(schedule_key=f"k{n}", ordering_key="lane")) for n in range(PREFIX_ROWS_MIN + 1)))
    lease = await engine.own()
    await engine.pause(TOPIC, builders.TOPIC)
    engine.at_due(10_000)
    await engine.passes(lease)
    assert lease.blocked_prefix is not None
    # The hint that a change of the pauses sends to each shard's loop.
    lease.open_prefix(0)
    await engine.resume(TOPIC, builders.TOPIC)
    await engine.passes(lease)
    assert len(engine.arrived()) == PREFIX_ROWS_MIN + 1


@asynccontextmanager
async def answering(engine: Paused, lease: ShardLease) -> AsyncIterator[None]:
    """The shard's loop, as far as those who hold a row need it."""

    async def answer() -> None:
        while True:
            await engine.was_woken.wait()
            engine.was_woken.clear()
            for _, wakeup in engine.woken:
                if isinstance(wakeup, Wanted):
                    await engine.shard_pass(lease).answer_wanted(lease, wakeup.position)
            engine.woken.clear()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(answer())
        yield
        task.cancel()


async def test_a_paused_schedule_can_be_cancelled_and_moved_and_is_then_never_delivered_as_it_stood() -> None:
    engine = Paused()
    await engine.put(*(row(schedule(schedule_key=key, ordering_key="lane")) for key in ("gone", "moved", "stays")))
    lease = await engine.own()
    await engine.pause(TOPIC, builders.TOPIC)
    engine.at_due(5_000)
    await engine.passes(lease)
    async with answering(engine, lease):
        of = {there.schedule.schedule_key: there.schedule for there in engine.store.rows.values()}  # type: ignore[union-attr]
        gone, moved = of["gone"], of["moved"]
        later_ms = engine.clock.now_ms() + 10_000
        assert isinstance(await engine.cancel(gone.client_id, gone.schedule_key), Cancelled)
        changed = await engine.change(
            moved.client_id, moved.schedule_key, lambda schedule: replace(schedule, due_ms=later_ms)
        )
        assert isinstance(changed, Changed)
    await engine.resume(TOPIC, builders.TOPIC)
    engine.at_due(10_000)
    await engine.passes(lease)
    assert engine.arrived() == ["stays"]
    assert [there.due_ms for there in engine.store.rows.values()] == [later_ms]


@in_virtual_time
async def test_a_paused_schedule_of_at_least_once_cannot_be_cancelled_once_it_is_due() -> None:
    # A zombie may have sent it: the pause changes nothing about that.
    engine = Paused(request_timeout_ms=500)
    due = row(schedule(guarantee=Guarantee.AT_LEAST_ONCE))
    await engine.put(due)
    lease = await engine.own()
    await engine.pause(TOPIC, builders.TOPIC)
    engine.at_due(5_000)
    await engine.passes(lease)
    # Here the requests' deadline is shorter than the two seconds after which the answer would be `in_flight`.
    with pytest.raises(Unavailable):
        await engine.cancel(due.schedule.client_id, due.schedule.schedule_key)
    assert list(engine.store.rows) == [(due.shard, due.position)]
    await engine.stop()


# --- saying it


def a_pauser(store: MemoryPauses) -> PauseAdmin:
    return PauseAdmin(store, ManualClock(DUE_MS), random.Random(7), IntakeSettings(request_timeout_ms=60_000))


async def test_the_same_wish_again_changes_nothing_and_two_at_once_both_come_true() -> None:
    store = MemoryPauses()
    pauser = a_pauser(store)
    first = await pauser.pause(CLIENT, "shop", by="ana", reason="a move")
    assert first == Pauses(version=1, clients={"shop": builders.pause(DUE_MS, by="ana", reason="a move")})
    for reason in ("a move", None):
        assert await pauser.pause(CLIENT, "shop", by="eve", reason=reason) == first
    assert await pauser.resume(TOPIC, "orders") == first
    await asyncio.gather(*(pauser.pause(TOPIC, f"t{n}", by="ana") for n in range(5)))
    assert (store.stored.version, len(store.stored)) == (6, 6)
    await pauser.resume(CLIENT, "shop")
    assert await pauser.show() == store.stored
    assert not store.stored.clients


async def test_another_reason_replaces_the_one_before_and_the_pause_goes_on() -> None:
    clock = ManualClock(DUE_MS)
    pauser = PauseAdmin(MemoryPauses(), clock, random.Random(7), IntakeSettings(request_timeout_ms=60_000))
    await pauser.pause(CLIENT, "shop", by="ana")
    clock.advance_ms(60_000)

    changed = await pauser.pause(CLIENT, "shop", by="eve", reason="a move")

    assert changed == Pauses(version=2, clients={"shop": builders.pause(DUE_MS, by="eve", reason="a move")})


async def test_a_change_whose_answer_was_lost_is_not_made_twice() -> None:
    class Loses(MemoryPauses):
        async def write_pauses(self, pauses: Pauses) -> None:
            await super().write_pauses(pauses)
            raise StoreUnavailable(outcome_unknown=True)

    store = Loses()
    assert (await a_pauser(store).pause(CLIENT, "shop", by="ana")).version == 1


async def test_no_more_is_paused_than_the_item_may_hold() -> None:
    store = MemoryPauses()
    store.stored = Pauses(version=1, topics={f"t{n}": builders.pause() for n in range(PAUSED_MAX)})
    with pytest.raises(InvalidInput, match="topic: not more than"):
        await a_pauser(store).pause(TOPIC, "one-more", by="ana")
    assert await a_pauser(store).pause(TOPIC, "t0", by="ana") == store.stored


# --- hearing of it


class Failing(MemoryPauses):
    error: Exception | None = None
    reads = 0

    async def read_pauses(self) -> Pauses:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return await super().read_pauses()


@pytest.mark.parametrize("error", [StoreUnavailable(), NewerFormat("format 2"), Unreadable("x")])
async def test_what_cannot_be_read_stays_as_it_was_last_known_and_a_start_waits_for_it(error: Exception) -> None:
    store, changes, telemetry = Failing(), [0], PrometheusTelemetry()

    def changed() -> None:
        changes[0] += 1

    watch = PauseWatch(store, telemetry, changed, poll_s=0.0)
    store.error = error
    with pytest.raises(Unavailable):
        await watch.begin()
    store.error = None
    await a_pauser(store).pause(TOPIC, "orders", by="ana")
    await watch.begin()
    assert watch.current() == store.stored
    assert 'clockwork_paused{what="topic"} 1.0' in telemetry.exposition()[0].decode()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(watch.run())
        store.error, before = error, store.reads

        async def asked_again() -> bool:
            return store.reads > before + 3

        await until(asked_again, "several looks that fail")
        assert (watch.current(), changes) == (store.stored, [1])
        store.error, store.stored = None, NOTHING_PAUSED

        async def resumed() -> bool:
            return not len(watch.current())

        await until(resumed, "the end of the pause")
        task.cancel()
    assert changes == [2]


def test_an_item_of_a_newer_format_is_not_guessed_at() -> None:
    item = {"v": number(FORMAT + 1), "version": number(1), "clients": {"M": {}}, "topics": {"M": {}}}
    with pytest.raises(NewerFormat):
        pauses_of(item)
    with pytest.raises(Unreadable):
        pauses_of(item | {"v": number(FORMAT), "clients": {"M": {"shop": {"S": "now"}}}})
