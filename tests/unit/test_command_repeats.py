"""Commands that are read again: they do nothing, once they had their effect."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from clockwork.domain.rights import EVERYTHING, Principal
from clockwork.domain.schedule import ClientId, Schedule, ScheduleKey
from clockwork.domain.wakeup import NewlyDue
from clockwork.errors import CommandAlreadyProcessed
from clockwork.requests.pending_quota import PendingLimit
from clockwork.requests.results import Cancelled, Changed, Created, KeyTaken, Status
from tests.support import builders
from tests.unit.command_desk import REPLIES, Desk, unanswered
from tests.unit.counting import FakeCount, count_again_after, counting

NAME = (ClientId("shop"), ScheduleKey("order-1"))


async def test_the_same_commands_twice_are_carried_out_once() -> None:
    desk = Desk()
    desk.create()
    await desk.settle()
    before = desk.engine.store.pointers.copy()
    desk.read_again()
    await desk.settle()
    assert desk.engine.store.pointers == before
    assert desk.statuses() == [201, 200]


@pytest.mark.parametrize("more", [{}, {"replyTo": None}], ids=["with a reply", "without a reply"])
async def test_a_command_read_again_wakes_the_shard_of_what_it_left_pending(more: dict[str, Any]) -> None:
    # The node that carried it out may have died before it sent the wake-up.
    desk = Desk()
    desk.create(**more)
    await desk.settle()
    view = await desk.now()
    assert view is not None
    assert view.schedule is not None
    desk.engine.clock.set_ms(view.schedule.due_ms - 100)
    desk.read_again()
    await desk.settle()
    assert desk.engine.woken == [(view.shard, NewlyDue(view.schedule.due_ms))]

    desk.cancel(**more)
    await desk.settle()
    desk.engine.woken.clear()
    desk.read_again()
    await desk.settle()
    assert desk.engine.woken == [], "nothing is pending"


async def test_a_note_is_kept_for_the_retention_after_the_due_time_that_its_command_set() -> None:
    # Not as long as the pointer beside it, which outlives the retention by two months.
    desk = Desk()
    desk.create()
    await desk.settle()
    view = await desk.now()
    assert view is not None
    assert view.schedule is not None
    kept_until_s = (view.schedule.due_ms + desk.engine.context.settings.retention_ms) // 1_000
    assert desk.engine.store.notes[NAME].expires_at_s == kept_until_s

    desk.move(600)
    await desk.settle()
    desk.cancel()
    await desk.settle()
    assert desk.engine.store.notes[NAME].expires_at_s == kept_until_s + 9 * 3_600, "never shortened"


async def test_a_create_read_again_does_not_bring_back_what_a_later_one_stands_in_place_of() -> None:
    # 1 create A, 2 cancel, 3 create B, 4 cancel; read again, 1 would find an ended B and take the key over.
    desk = Desk()
    steps: tuple[Callable[[], object], ...] = (
        lambda: desk.create("A"),
        desk.cancel,
        lambda: desk.create("B"),
        desk.cancel,
    )
    for step in steps:
        step()
        await desk.settle()
    desk.read_again()
    await desk.settle()
    view = await desk.now()
    assert view is not None
    assert (view.status, view.version) == (Status.CANCELLED, 2)
    assert (desk.metric("create", "over"), desk.metric("cancel", "over")) == (2, 2)


@pytest.mark.parametrize("command", ["updateJob", "pauseJob", "deleteJob"])
async def test_a_command_about_a_job_that_is_read_again_names_the_run_that_it_came_too_late_for(command: str) -> None:
    desk = Desk()
    states = desk.engine.store.shard_states
    job = {"clientId": "shop", "jobId": "nightly"}
    every = {"trigger": {"type": "fixed_rate", "everyMs": 60_000}, "taskData": 1, "delivery": {"topic": builders.TOPIC}}
    desk.ask("createJob", job={**job, **every})
    await desk.settle()
    for shard in states:
        states[shard] = replace(states[shard], floor_ms=desk.engine.clock.now_ms() + 3_600_000)
    place = desk.ask(command, job={**job, "taskData": 2} if command == "updateJob" else job)
    await desk.settle()
    desk.read_again(place.offset)
    await desk.settle()

    first, again = (document["job"]["inFlight"] for _, document, _ in desk.replies()[1:])
    assert [run["version"] for run in first] == [1]
    assert again == first


async def test_at_the_limit_of_what_may_be_pending_a_command_that_is_over_is_no_dead_letter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # All of them had their effect before a crash, and there is room for nothing more when they are read again.
    count_again_after(monkeypatch, 0.0)
    count = FakeCount()
    async with counting(PendingLimit(pending_max=2, count=count)) as pending:
        desk = Desk(pending=pending)
        steps: tuple[Callable[[], object], ...] = (lambda: desk.create("A"), desk.cancel, lambda: desk.create("B"))
        for step in steps:
            step()
            await desk.settle()
        count.found = 2
        desk.read_again()
        await desk.settle()
    assert desk.dead() == []
    assert (desk.metric("create", "over"), desk.metric("cancel", "over")) == (2, 1)
    assert await desk.data() == b"B"


async def test_a_cancel_read_again_does_not_cancel_what_was_created_after_it_by_command() -> None:
    desk = Desk()
    steps: tuple[Callable[[], object], ...] = (lambda: desk.create("A"), desk.cancel, lambda: desk.create("B"))
    for step in steps:
        step()
        await desk.settle()
    desk.read_again(begin=1)
    await desk.settle()
    view = await desk.now()
    assert view is not None
    assert view.status is Status.PENDING
    assert await desk.data() == b"B"


async def test_a_cancel_read_again_does_not_cancel_what_was_created_after_it_over_http() -> None:
    # The create over HTTP takes over a pointer that the cancel wrote its place into, and keeps it.
    desk = Desk()
    desk.create("A")
    desk.cancel()
    await desk.settle()
    assert isinstance(await desk.engine.create(desk.over_http("B")), Created)
    desk.read_again(begin=1)
    await desk.settle()
    view = await desk.now()
    assert view is not None
    assert view.status is Status.PENDING


async def test_a_reschedule_read_again_does_not_move_back_what_somebody_moved_since() -> None:
    desk = Desk()
    desk.create()
    desk.move(10)
    await desk.settle()
    desk.move(20)
    await desk.settle()
    desk.read_again(begin=1)
    desk.log.append(None, b"")  # so that there is something to commit behind them
    await desk.settle()
    view = await desk.now()
    assert view is not None
    assert view.schedule is not None
    assert (view.schedule.due_ms, view.version) == (desk.engine.clock.now_ms() + 20 * 60_000, 3)


async def test_a_zombie_that_read_the_pointer_before_loses_to_what_stands_there_now() -> None:
    # A paused node has read a create and finds, when it goes on, that another node has carried out all that follows.
    desk = Desk()
    first = desk.create("A")
    steps: tuple[Callable[[], object], ...] = (desk.cancel, lambda: desk.create("B"), desk.cancel)
    for step in steps:
        step()
    await desk.settle()
    await desk.engine.create(desk.over_http("C"))
    dedup = desk.engine.dedup(*NAME, first)
    with pytest.raises(CommandAlreadyProcessed):
        await desk.engine.create(desk.over_http("A"), command=dedup)
    with pytest.raises(CommandAlreadyProcessed):
        await desk.engine.cancel(*NAME, command=dedup)
    with pytest.raises(CommandAlreadyProcessed):
        await desk.engine.change(*NAME, _an_hour_later, command=dedup)
    assert not dedup.had_effect
    assert await desk.data() == b"C"


async def test_a_command_whose_answer_was_lost_is_still_answered_as_its_own() -> None:
    # The store did it and said nothing: the next round must not take its own mark for another writer's.
    desk = Desk()
    place = desk.create()
    await desk.settle()
    later = replace(place, offset=1)
    unanswered(desk, "reschedule")
    dedup = desk.engine.dedup(*NAME, later)
    moved = await desk.engine.change(*NAME, _an_hour_later, command=dedup)
    assert isinstance(moved, Changed)
    assert dedup.had_effect
    last = replace(place, offset=2)
    unanswered(desk, "cancel")
    assert isinstance(await desk.engine.cancel(*NAME, command=desk.engine.dedup(*NAME, last)), Cancelled)


async def test_a_command_without_an_effect_never_has_one_later() -> None:
    desk = Desk()
    desk.cancel(replyTo=None)
    await desk.settle()
    assert await desk.now() is None
    await desk.engine.create(desk.over_http("B"))
    desk.read_again()
    await desk.settle()
    view = await desk.now()
    assert view is not None
    assert view.status is Status.PENDING
    assert (desk.metric("cancel", "refused"), desk.metric("cancel", "over")) == (1, 1)


@pytest.mark.parametrize("frozen_at", ["read_pointer", "hold", "read_shard_and_node", "read_command_note", "cancel"])
async def test_a_node_that_was_frozen_at_any_step_does_not_cancel_what_another_one_has_answered_with_404(
    monkeypatch: pytest.MonkeyPatch, frozen_at: str
) -> None:
    # The other one looked before the schedule was created, and this one after that.
    desk = Desk()
    await desk.engine.create(desk.over_http("B"))
    store, place = desk.engine.store, desk.cancel()
    real = getattr(store, frozen_at)

    async def meanwhile(*given: object, **named: object) -> object:
        monkeypatch.undo()
        assert await desk.engine.dedup(*NAME, place).record_processed()
        found: object = await real(*given, **named)
        return found

    monkeypatch.setattr(store, frozen_at, meanwhile)
    with pytest.raises(CommandAlreadyProcessed):
        await desk.engine.cancel(*NAME, command=desk.engine.dedup(*NAME, place))
    view = await desk.now()
    assert view is not None
    assert view.status is Status.PENDING


async def test_a_node_that_finds_nothing_to_do_says_what_another_one_has_done_with_the_same_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It looked before the schedule was created; the other one found it, and cancelled it.
    desk = Desk()
    place = desk.cancel()
    real = desk.engine.store.read_pointer

    async def then_created_and_cancelled(*names: Any) -> Any:
        monkeypatch.undo()
        found = await real(*names)
        await desk.engine.create(desk.over_http("B"))
        await desk.engine.cancel(*NAME, command=desk.engine.dedup(*NAME, place))
        return found

    monkeypatch.setattr(desk.engine.store, "read_pointer", then_created_and_cancelled)
    await desk.settle()
    ((status, document, headers),) = desk.replies()
    assert (status, document["schedule"]["status"], headers["clockwork-repeated"]) == (200, "cancelled", b"true")


async def test_a_dead_letter_is_sent_before_its_command_is_noted_to_be_over(monkeypatch: pytest.MonkeyPatch) -> None:
    # The other way round, a crash in between would lose it.
    desk = Desk()
    nobody = Principal(name="p", clients=EVERYTHING, topics=EVERYTHING, rights=frozenset())
    desk.principal = nobody
    noting = asyncio.Event()

    async def crash(*_: object) -> None:
        noting.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as crashing:
        crashing.setattr(desk.engine.store, "note_command", crash)
        desk.create()
        async with desk.running():
            await noting.wait()
    assert len(desk.dead()) == 1
    await desk.settle()
    assert len(desk.dead()) == 2
    assert desk.statuses() == [403]


async def test_what_was_answered_is_not_carried_out_again_even_if_it_had_no_effect() -> None:
    # The client was told 404, and creates because of it. The crash comes between the answer and the commit.
    desk = Desk()
    desk.cancel()
    await desk.settle()
    assert desk.statuses() == [404]
    await desk.engine.create(desk.over_http("B"))
    desk.log.committed[0] = 0
    assert desk.log.noted[0] == 1, "noted before the answer was sent"
    await desk.settle()
    view = await desk.now()
    assert view is not None
    assert view.status is Status.PENDING
    status, document, headers = desk.replies()[-1]
    assert (status, document["schedule"]["status"], headers["clockwork-repeated"]) == (200, "pending", b"true")


async def test_no_answer_is_sent_before_it_is_noted_that_the_effects_are_over() -> None:
    desk = Desk()
    desk.log.away = True
    desk.create()
    async with desk.running():
        while await desk.now() is None:  # noqa: ASYNC110 - the effect comes first
            await asyncio.sleep(0)
        assert not desk.engine.kafka.read_committed(REPLIES)
        desk.log.away = False
        await desk.log.until_worked_off()
    assert desk.statuses() == [201]


async def test_over_http_nothing_is_ever_over() -> None:
    desk = Desk()
    desk.create("A")
    await desk.settle()
    assert isinstance(await desk.engine.create(desk.over_http("B")), KeyTaken)
    assert isinstance(await desk.engine.cancel(*NAME), Cancelled)


def _an_hour_later(schedule: Schedule) -> Schedule:
    return replace(schedule, due_ms=schedule.due_ms + 3_600_000)
