"""Commands are carried out as over HTTP, in the order of their client; none is skipped, and none holds up the others."""

import asyncio
import json
from typing import Any

import pytest

from clockwork.commands import worker as command_work
from clockwork.domain.quota import COUNT_EVERY_S
from clockwork.domain.rate import NS
from clockwork.domain.retry import BackoffPolicy
from clockwork.domain.rights import EVERYTHING, Principal, Right, names_of
from clockwork.domain.schedule import ClientId, ScheduleKey
from clockwork.errors import BrokerUnavailable, StoreUnavailable
from clockwork.kafka.memory.broker import Step
from clockwork.requests.listing import count_ahead
from clockwork.requests.pending_quota import PendingLimit
from clockwork.requests.rate_limits import CreateLimits
from clockwork.requests.results import Status
from clockwork.stores.memory.store import MemoryScheduleSearch
from tests.unit.api_edge import a_request
from tests.unit.command_desk import DEAD_LETTERS, KEY, REPLIES, Desk
from tests.unit.counting import FakeCount, count_again_after, counting, no_patience


async def test_a_create_a_change_and_a_cancel_are_answered_as_over_http() -> None:
    desk = Desk()
    desk.create()
    desk.move(30)
    desk.move(40, ifVersion=2)
    desk.move(50, ifVersion=2)
    desk.cancel()
    desk.cancel()
    desk.move(60)
    await desk.settle()
    assert desk.statuses() == [201, 200, 200, 412, 200, 200, 409]
    shown = [document for _, document, _ in desk.replies()]
    assert [s["schedule"]["status"] for s in shown] == ["pending"] * 4 + ["cancelled"] * 3
    assert [s["schedule"]["version"] for s in shown] == [1, 2, 3, 3, 3, 3, 3]
    assert shown[-1]["reason"] == "cancelled"
    headers = desk.replies()[0][2]
    assert (headers["clockwork-command"], headers["clockwork-correlation-id"]) == (b"create", b"create")
    assert not desk.dead()
    assert (desk.metric("cancel", "done"), desk.metric("reschedule", "refused")) == (2, 2)


async def test_without_reply_to_nothing_is_answered_and_nothing_noted() -> None:
    desk = Desk()
    desk.create(replyTo=None)
    desk.cancel(replyTo=None)
    await desk.settle()
    assert desk.replies() == []
    assert desk.log.noted == [0]
    view = await desk.now()
    assert view is not None
    assert view.status is Status.CANCELLED


async def test_a_traceparent_of_the_record_travels_on() -> None:
    desk = Desk()
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    body = json.dumps({"command": "create", "schedule": desk.body()}).encode()
    desk.put(body, headers=(("traceparent", trace),))
    await desk.settle()
    view = await desk.now()
    assert view is not None
    assert view.schedule is not None
    assert view.schedule.traceparent == trace.decode()


def command(**changes: Any) -> bytes:
    document = {"command": "create", "schedule": a_request(), **changes}
    return json.dumps({name: value for name, value in document.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("reason", "value"),
    [
        ("command_not_json", b""),
        ("command_not_json", b"{"),
        ("command_not_json", b"[]"),
        ("command_unknown", b'{"command":"create","command":"cancel"}'),
        ("command_unknown", command(command="fire")),
        ("command_unknown", command(command=...)),
        ("command_unknown", command(command=["create"])),
        ("command_invalid", command(schedule=...)),
        ("command_invalid", command(schedule=[])),
        ("command_invalid", command(schedule=a_request(scheduleTime=-1))),
        ("command_invalid", command(schedule=a_request(clientId="another"))),
        ("command_invalid", command(schedule=a_request(delivery={"topic": "missing"}))),
        ("command_invalid", command(schedule=a_request(delivery={"topic": "clockwork-commands"}))),
        ("command_invalid", command(more=1)),
        ("command_invalid", command(ifVersion=1)),
        ("command_invalid", command(command="reschedule", schedule=KEY, ifVersion=True)),
        ("command_invalid", command(command="cancel", schedule={**KEY, "scheduleTime": 1})),
        ("command_invalid", command(command="reschedule", schedule={**KEY, "scheduleTime": "soon"})),
        ("command_invalid", command(correlationId="a")),
        ("command_invalid", command(correlationId=1, replyTo="replies")),
        ("command_invalid", command(replyTo=1)),
        ("command_invalid", command(replyTo="clockwork-shards")),
        ("command_invalid", command(replyTo="__consumer_offsets")),
        ("command_too_large", command(schedule=a_request(taskData="x" * 300_000))),
        ("command_too_large", b'"' + b"x" * 2 * 1024 * 1024 + b'"'),
    ],
)
async def test_what_will_never_become_right_is_a_dead_letter_and_the_next_one_has_its_turn(
    reason: str, value: bytes
) -> None:
    desk = Desk()
    desk.engine.clock.set_ms(1_800_000_000_000)
    place = desk.put(value, headers=(("mine", b"1"), ("Clockwork-schedule-key", b"spoofed")))
    desk.create()
    await desk.settle()
    ((said, letter, headers),) = desk.dead()
    assert said == reason
    assert letter == value
    assert headers["clockwork-topic"] == b"clockwork-commands"
    assert headers["clockwork-source"] == f"0/{place.offset}".encode()
    assert headers["clockwork-detail"]
    assert headers["mine"] == b"1"
    assert "Clockwork-schedule-key" not in headers
    assert desk.statuses()[-1] == 201


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"schedule": a_request(scheduleTime=-1)}, 400),
        ({"command": "fire"}, 400),
        ({"schedule": a_request(taskData="x" * 300_000)}, 413),
    ],
)
async def test_who_asked_for_an_answer_gets_it_also_for_what_is_wrong(wrong: dict[str, Any], status: int) -> None:
    desk = Desk()
    desk.put(command(replyTo=REPLIES, correlationId="c", **wrong))
    await desk.settle()
    ((told, document, headers),) = desk.replies()
    assert (told, document["status"], headers["clockwork-correlation-id"]) == (status, status, b"c")
    assert len(desk.dead()) == 1


@pytest.mark.parametrize(
    ("clients", "topics", "rights", "replied"),
    [
        (["another"], ["*"], ["create"], [403]),
        (["shop"], ["replies"], ["create"], [403]),
        (["shop"], ["*"], ["cancel"], [403]),
        (["shop"], ["orders"], ["create"], []),
    ],
)
async def test_what_the_principal_may_not_do_is_a_dead_letter(
    clients: list[str], topics: list[str], rights: list[str], replied: list[int]
) -> None:
    # The last one may do it, but not write to where it wants the answer: then it is neither done nor answered.
    desk = Desk()
    desk.principal = Principal(
        name="producers",
        clients=names_of(clients),
        topics=names_of(topics),
        rights=frozenset(Right(right) for right in rights),
    )
    desk.create()
    await desk.settle()
    assert await desk.now() is None
    assert [reason for reason, _, _ in desk.dead()] == ["command_forbidden"]
    assert desk.statuses() == replied


async def test_commands_wait_while_nobody_bears_the_principal_s_name() -> None:
    # An operator's slip in the keys' file must not make dead letters of everything.
    desk = Desk()
    desk.principal = None
    desk.create()
    async with desk.running():
        for _ in range(50):
            await asyncio.sleep(0)
        assert desk.log.committed == [0]
        desk.principal = Principal(name="p", clients=EVERYTHING, topics=EVERYTHING, rights=frozenset(Right))
        await desk.log.until_worked_off()
    assert desk.statuses() == [201]


async def test_while_dynamodb_is_away_commands_wait_and_none_is_lost_or_out_of_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk()
    monkeypatch.setattr(command_work, "RETRY", BackoffPolicy(initial_ms=1, max_ms=2))
    store, failing = desk.engine.store, [True]
    real = store.read_pointer
    seen = asyncio.Event()

    async def read_pointer(*names: Any) -> Any:
        if failing[0]:
            seen.set()
            raise StoreUnavailable
        return await real(*names)

    monkeypatch.setattr(store, "read_pointer", read_pointer)
    desk.create("A")
    desk.cancel()
    desk.create("B")
    async with desk.running():
        await seen.wait()
        assert desk.log.committed == [0]
        failing[0] = False
        await desk.log.until_worked_off()
    assert desk.statuses() == [201, 200, 201]
    assert await desk.data() == b"B"


async def test_over_a_limit_a_command_waits_instead_of_being_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = [0]
    desk = Desk(limits=CreateLimits(creates_per_second=1, monotonic_ns=lambda: now_ns[0]))
    slept: list[float] = []
    sleep = asyncio.sleep

    async def pass_time(seconds: float) -> None:
        if seconds >= 1:
            slept.append(seconds)
            now_ns[0] += int(seconds * 1e9)
        await sleep(0)

    monkeypatch.setattr("clockwork.commands.worker.asyncio.sleep", pass_time)
    for number in range(3):
        desk.ask("create", schedule={**desk.body(), "scheduleKey": f"k{number}"})
    await desk.settle()
    assert desk.statuses() == [201, 201, 201]
    assert slept == [1, 1]


async def test_over_what_may_be_pending_a_command_is_a_dead_letter_and_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # There may be room in ten years; until then the commands of others would wait behind it.
    count_again_after(monkeypatch, 0.0)

    async def count(client_id: ClientId, *, at_most: int) -> int:
        search = MemoryScheduleSearch(desk.engine.store)
        return await count_ahead(search, desk.engine.clock, client_id, at_most=at_most)

    async with counting(PendingLimit(pending_max=1, count=count)) as pending:
        desk = Desk(pending=pending)
        for client, key in (("shop", "a"), ("shop", "b"), ("other", "a"), ("shop", "a")):
            schedule = {**desk.body(), "clientId": client, "scheduleKey": key}
            document = {"command": "create", "schedule": schedule, "replyTo": REPLIES}
            desk.put(json.dumps(document).encode(), key=client.encode())
        await desk.settle()
    assert desk.statuses() == [201, 429, 201, 200]
    assert [reason for reason, _, _ in desk.dead()] == ["command_over_pending_max"]
    assert 'clockwork_limited_total{limit="pending"} 1.0' in desk.telemetry.exposition()[0].decode()


async def test_a_command_waits_for_a_count_that_goes_on_before_it_becomes_a_dead_letter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The last count said that there was no room; by now there is, as the next one will say.
    count, now_ns, waits = FakeCount(found=1), [0], asyncio.Event()
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        if seconds >= 1:
            waits.set()
            count.may_end.set()
        await real(0)

    async with counting(PendingLimit(pending_max=1, count=count, monotonic_ns=lambda: now_ns[0])) as pending:
        desk = Desk(pending=pending)
        desk.create("A")
        await desk.settle()
        now_ns[0] += COUNT_EVERY_S * NS
        count.found = 0
        count.may_end.clear()
        monkeypatch.setattr("clockwork.commands.worker.asyncio.sleep", sleep)
        with no_patience(monkeypatch):
            desk.create("B")
            await desk.settle()
    assert waits.is_set()
    assert desk.statuses() == [429, 201]
    assert len(desk.dead()) == 1


async def test_a_client_that_waits_holds_up_its_own_commands_and_not_those_of_others_in_the_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk()
    waiting = asyncio.Event()
    real = desk.engine.store.create

    async def create(row: Any, pointer: Any, **more: Any) -> None:
        if pointer.client_id == "shop":
            await waiting.wait()
        await real(row, pointer, **more)

    monkeypatch.setattr(desk.engine.store, "create", create)
    desk.create("A")
    other = json.dumps({"command": "create", "schedule": {**desk.body(), "clientId": "other"}}).encode()
    desk.put(other, key=b"other")
    async with desk.running():
        while await desk.engine.find(ClientId("other"), ScheduleKey("order-1")) is None:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert await desk.now() is None
        waiting.set()
        await desk.log.until_worked_off()
    assert await desk.data() == b"A"


async def test_a_reply_to_a_topic_that_is_missing_is_given_up_and_counted() -> None:
    desk = Desk()
    desk.create(replyTo="nowhere")
    await desk.settle()
    assert await desk.now() is not None
    assert (desk.metric("create", "reply_dropped"), desk.metric("create", "done")) == (1, 1)


async def test_what_is_too_large_for_the_dead_letters_is_told_with_where_it_stands() -> None:
    # A compressed record may be larger than its topic's limit. Kept back, it would hold up all commands behind it.
    desk = Desk()
    desk.engine.kafka.delete_topic(DEAD_LETTERS)
    desk.engine.kafka.create_topic(DEAD_LETTERS, record_bytes_max=1_000)
    desk.put(b"x" * 2_000, headers=(("mine", b"y" * 2_000),))
    await desk.settle()
    ((reason, value, headers),) = desk.dead()
    assert (reason, value, headers["clockwork-source"]) == ("command_not_json", b"", b"0/0")
    assert "mine" not in headers


async def test_answers_and_dead_letters_wait_while_kafka_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    monkeypatch.setattr(command_work, "RETRY", BackoffPolicy(initial_ms=1, max_ms=2))
    tried: set[str] = set()
    away = [True]

    async def on_step(step: Step, name: str, done: bool) -> None:
        if step is Step.SEND and away[0]:
            tried.add(name)
            raise BrokerUnavailable

    desk.engine.kafka.on_step = on_step
    desk.put(b"{")
    desk.create()
    async with desk.running():
        while not tried:  # noqa: ASYNC110 - the first try must have failed
            await asyncio.sleep(0)
        away[0] = False
        await desk.log.until_worked_off()
    assert tried == {DEAD_LETTERS}
    assert len(desk.dead()) == 1
    assert desk.statuses() == [201]


async def test_a_defect_of_ours_is_a_dead_letter_and_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk()

    async def broken(*_: Any) -> Any:
        raise KeyError("a defect")

    monkeypatch.setattr(desk.engine.store, "create", broken)
    desk.create()
    await desk.settle()
    assert [reason for reason, _, _ in desk.dead()] == ["command_failed"]
    assert desk.statuses() == [500]
    assert [record.message for record in caplog.records if record.exc_info] == ["A command failed"]
