"""Commands whose node dies, is not answered, or is not alone with them, in the middle of one."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from clockwork.commands import worker as command_work
from clockwork.domain.retry import BackoffPolicy
from clockwork.domain.rights import ANYONE, EVERYTHING, Principal, names_of
from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.errors import CommandAlreadyProcessed, NewerFormat, StoreUnavailable, Unreadable
from clockwork.requests.results import Cancelled, Created, Status
from clockwork.stores.memory.store import ItemKey, Write
from tests.unit.command_desk import KEY, Desk, unanswered

NAME = (ClientId("shop"), ScheduleKey("order-1"))
NOTHING = Principal(name="p", clients=EVERYTHING, topics=EVERYTHING, rights=frozenset())


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_work, "RETRY", BackoffPolicy(initial_ms=1, max_ms=2))
    monkeypatch.setattr(command_work, "APPLIED_S", 0.001)


def losing(desk: Desk, name: str) -> None:
    """The store does the next one, says nothing, and is asked for the same once more by the library."""
    real = getattr(desk.engine.store, name)

    async def twice(*given: object, **named: object) -> None:
        setattr(desk.engine.store, name, real)
        await real(*given, **named)
        await real(*given, **named)

    setattr(desk.engine.store, name, twice)


# --- who is told


@pytest.mark.parametrize("noted", [0, 1])
async def test_an_answer_never_goes_where_the_principal_may_not_write_also_when_it_is_read_again(noted: int) -> None:
    desk = Desk()
    desk.principal = replace(ANYONE, topics=names_of(["replies"]))
    desk.cancel(replyTo="other")
    await desk.settle()
    desk.log.committed[0], desk.log.noted[0] = 0, noted
    await desk.settle()
    assert desk.engine.kafka.read_committed("other") == []


async def test_who_may_not_ask_is_not_shown_what_is_there_when_the_command_is_read_again() -> None:
    desk = Desk()
    await desk.engine.create(desk.over_http("SECRET"))
    desk.principal = replace(ANYONE, clients=names_of(["other-client"]))
    desk.cancel()
    await desk.settle()
    desk.read_again()
    await desk.settle()
    assert desk.statuses() == [403, 403]
    assert b"SECRET" not in json.dumps([document for _, document, _ in desk.replies()]).encode()


# --- what cannot be read


@pytest.mark.parametrize("lost", [False, True])
async def test_a_key_that_cannot_be_read_stops_nobody_however_often_it_is_met(lost: bool) -> None:
    desk = Desk()

    async def unreadable(*_: Any) -> Any:
        raise Unreadable("pointer: garbage")

    setattr(desk.engine.store, "read_pointer", unreadable)  # noqa: B010
    if lost:
        losing(desk, "note_command")
    desk.cancel()
    await desk.settle()
    desk.read_again()
    await desk.settle()
    assert len(desk.dead()) == 1
    assert desk.statuses() == [503, 503]


async def test_what_only_a_newer_node_can_read_waits_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    desk.create()
    await desk.settle()
    met = asyncio.Event()

    async def newer(*_: Any) -> Any:
        met.set()
        raise NewerFormat("written by a newer version")

    with monkeypatch.context() as older:
        older.setattr(desk.engine.store, "read_outcome", newer)
        desk.read_again()
        async with desk.running():
            await met.wait()
    assert (desk.dead(), desk.statuses()) == ([], [201])
    await desk.settle()
    assert desk.statuses() == [201, 200]


# --- dead letters


async def test_a_dead_letter_comes_once_although_its_note_has_to_wait() -> None:
    desk = Desk()
    desk.principal = NOTHING
    real, failures = desk.engine.store.read_command_note, iter([False] + [True] * 6)

    async def away(*names: Any) -> Any:
        if next(failures, False):
            raise StoreUnavailable("away")
        return await real(*names)

    setattr(desk.engine.store, "read_command_note", away)  # noqa: B010
    desk.create()
    await desk.settle()
    assert (len(desk.dead()), desk.statuses()) == (1, [403])


async def test_what_became_a_dead_letter_is_not_carried_out_because_it_is_allowed_by_now() -> None:
    desk = Desk()
    desk.principal = NOTHING
    real = desk.engine.store.note_command

    async def away(*_: Any) -> None:
        setattr(desk.engine.store, "note_command", real)  # noqa: B010
        desk.principal = ANYONE
        raise StoreUnavailable("away")

    setattr(desk.engine.store, "note_command", away)  # noqa: B010
    desk.create()
    await desk.settle()
    assert (len(desk.dead()), await desk.now()) == (1, None)


async def test_what_another_node_has_carried_out_does_not_become_a_dead_letter() -> None:
    # This one was frozen with rights of yesterday.
    desk = Desk()
    place = desk.create()
    await desk.engine.create(desk.over_http(1), command=desk.engine.dedup(*NAME, place))
    desk.principal = NOTHING
    await desk.settle()
    assert desk.dead() == []


# --- lost answers


@pytest.mark.parametrize(
    ("ask", "status"),
    [(lambda desk: desk.create("B"), 409), (lambda desk: desk.move(10, ifVersion=7), 412)],
    ids=["a create", "a change"],
)
@pytest.mark.parametrize("lose", [losing, unanswered])
async def test_a_note_whose_answer_was_lost_leaves_the_command_s_answer_as_it_was(
    ask: Callable[[Desk], object], status: int, lose: Callable[[Desk, str], None]
) -> None:
    desk = Desk()
    await desk.engine.create(desk.over_http("A"))
    lose(desk, "note_command")
    ask(desk)
    await desk.settle()
    assert desk.statuses() == [status]


async def test_a_cancel_whose_answer_was_lost_is_answered_as_its_own() -> None:
    desk = Desk()
    await desk.engine.create(desk.over_http("A"))
    unanswered(desk, "cancel")
    desk.cancel()
    await desk.settle()
    ((status, document, headers),) = desk.replies()
    assert (status, document["schedule"]["status"]) == (200, "cancelled")
    assert "clockwork-repeated" not in headers


# --- several at once


async def test_a_cancel_by_command_does_not_take_another_s_of_the_same_moment_for_its_own() -> None:
    # Both write the same outcome, and only one of them a note. Without it, who is frozen with this command goes on later.
    desk = Desk()
    await desk.engine.create(desk.over_http("A"))
    store = desk.engine.store
    real = store.read_command_note

    async def then_cancelled_over_http(*names: Any) -> Any:
        setattr(store, "read_command_note", real)  # noqa: B010
        assert isinstance(await desk.engine.cancel(*NAME), Cancelled)
        return await real(*names)

    setattr(store, "read_command_note", then_cancelled_over_http)  # noqa: B010
    place = desk.cancel()
    await desk.settle()
    assert desk.statuses() == [200]
    assert isinstance(await desk.engine.create(desk.over_http("B")), Created)
    with pytest.raises(CommandAlreadyProcessed):
        await desk.engine.cancel(*NAME, command=desk.engine.dedup(*NAME, place))
    view = await desk.now()
    assert view is not None
    assert view.status is Status.PENDING


async def test_a_note_that_is_seen_before_the_rest_of_its_transaction_is_no_404(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk()
    store = desk.engine.store
    monkeypatch.setattr(command_work, "APPLIED_S", 0.2)

    def item_by_item(writes: Mapping[ItemKey, Write]) -> None:
        writes[("note", *NAME)]()
        rest = {place: write for place, write in writes.items() if place[0] != "note"}
        asyncio.get_running_loop().call_later(0.01, lambda: [write() for write in rest.values()])

    monkeypatch.setattr(store, "_apply", item_by_item)
    place = desk.create()
    await desk.engine.create(desk.over_http(1), command=desk.engine.dedup(*NAME, place))
    await desk.settle()
    assert desk.statuses() == [200]


async def test_a_client_s_commands_in_two_kafka_partitions_have_their_effect_once_each() -> None:
    # Its producers place its key differently; no order between them is kept, but what was answered stays answered.
    desk = Desk(kafka_partitions=2)
    place = desk.cancel()
    await desk.settle()
    assert desk.statuses() == [404]
    desk.put(json.dumps({"command": "cancel", "schedule": KEY}).encode(), kafka_partition=1)
    await desk.settle()
    assert isinstance(await desk.engine.create(desk.over_http("B")), Created)
    with pytest.raises(CommandAlreadyProcessed):
        await desk.engine.cancel(*NAME, command=desk.engine.dedup(*NAME, place))
