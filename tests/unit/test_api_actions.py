"""Work by hand is recorded with its person, scope, number, answers and reason: in activity and in the log."""

import logging
from typing import Any

import aiohttp
import pytest

from clockwork.domain.rights import Principal, Right, names_of
from clockwork.domain.sharding import ShardId
from clockwork.observability.activity import RecordingTelemetry
from clockwork.operations.activity import ActivityTail
from tests.support import builders
from tests.support.engine import Engine
from tests.unit.service import Service, gate_of, open_service

EVERYTHING = names_of(["*"])
KEYS = {
    "ana": Principal(name="ana", clients=EVERYTHING, topics=EVERYTHING, rights=frozenset(Right)),
    "eve": Principal(name="eve", clients=names_of(["eve"]), topics=EVERYTHING, rights=frozenset(Right)),
}
OPERATOR = Principal(name="op", clients=names_of(["shop"]), topics=EVERYTHING, rights=frozenset({Right.OPERATE}))
REASON = "broker move 🚚 till noon"


async def seeded() -> Engine:
    """An engine with a pending schedule, a failed and an ended one, of two clients."""
    engine = Engine(telemetry=RecordingTelemetry())
    async with open_service(engine) as service:
        await service.seed("shop", "bank")
    engine.tail = ActivityTail(engine.activity, engine.clock)
    return engine


async def sent(service: Service, method: str, path: str, body: Any = None, *, key: str = "ana") -> tuple[int, Any]:
    """The answer to a request, each a millisecond after the other: events are in the order of their times."""
    service.engine.clock.advance_ms(1)
    async with (
        aiohttp.ClientSession(service.url, headers={"Authorization": f"Bearer {key}"}) as session,
        session.request(method, path, json=body) as answer,
    ):
        return answer.status, await answer.json()


async def actions(service: Service) -> list[dict[str, Any]]:
    """The records, without times."""
    await service.recorded()
    kinds = "paused,resumed,fenced,job_paused,batch_cancelled,batch_fired,batch_retried,batch_discarded"
    _, document = await sent(service, "GET", f"/events?kind={kinds}")
    return [{name: value for name, value in each.items() if name != "at"} for each in document["events"]]


def told(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The lines of the log about actions, by their fields."""
    names = ("action", "principal", "client", "topic", "shard", "number", "answers", "reason_given")
    records = [vars(each) for each in caplog.records if getattr(each, "event", "") == "operator.action"]
    return [{name: each[name] for name in names if each[name] is not None} for each in records]


async def test_a_pause_and_a_fence_are_recorded_with_the_reason_that_was_given(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    engine = await seeded()
    topic = f"/admin/pauses/topics/{builders.TOPIC}"
    async with open_service(engine, gate=gate_of(KEYS)) as service:
        assert (await sent(service, "PUT", "/admin/pauses/clients/shop"))[0] == 200
        assert (await sent(service, "PUT", topic, {"reason": REASON}))[0] == 200
        assert (await sent(service, "DELETE", topic))[0] == 200
        status, fenced = await sent(service, "POST", "/admin/shards/3/fence", {"reason": REASON})
        assert status == 200
        recorded = await actions(service)

    by = {"by": "ana"}
    assert recorded == [
        {"kind": "paused", "clientId": "shop", **by},
        {"kind": "paused", "topic": builders.TOPIC, "reason": REASON, **by},
        {"kind": "resumed", "topic": builders.TOPIC, **by},
        {"kind": "fenced", "shard": ShardId(3), "count": len(fenced["shards"]), "reason": REASON, **by},
    ]
    assert told(caplog) == [
        {"action": "paused", "client": "shop", "principal": "ana"},
        {"action": "paused", "topic": builders.TOPIC, "reason_given": REASON, "principal": "ana"},
        {"action": "resumed", "topic": builders.TOPIC, "principal": "ana"},
        {
            "action": "fenced",
            "shard": ShardId(3),
            "number": len(fenced["shards"]),
            "reason_given": REASON,
            "principal": "ana",
        },
    ]


@pytest.mark.parametrize(
    ("rights", "clients", "topics", "of_client", "of_topic"),
    [
        ({Right.READ}, "shop", "*", True, True),
        ({Right.READ, Right.ADMIN}, "other", "other", False, True),
        ({Right.OPERATE}, "*", "*", False, False),
        ({Right.ADMIN}, "*", "*", False, False),
    ],
)
async def test_a_pause_tells_its_reason_to_all_who_see_it_and_its_person_to_those_who_may_see_its_event(
    rights: set[Right], clients: str, topics: str, of_client: bool, of_topic: bool
) -> None:
    reader = Principal(name="reader", clients=names_of([clients]), topics=names_of([topics]), rights=frozenset(rights))
    async with open_service(await seeded(), gate=gate_of({**KEYS, "reader": reader})) as service:
        for path in ("clients/shop", f"topics/{builders.TOPIC}"):
            assert (await sent(service, "PUT", f"/admin/pauses/{path}", {"reason": REASON}))[0] == 200
        since_ms = service.engine.clock.now_ms()
        _, shown = await sent(service, "GET", "/admin/pauses", key="reader")

    assert shown == {
        "clients": [{"name": "shop", "since": since_ms - 1, "reason": REASON} | ({"by": "ana"} if of_client else {})],
        "topics": [{"name": builders.TOPIC, "since": since_ms, "reason": REASON} | ({"by": "ana"} if of_topic else {})],
    }


async def test_one_who_paused_is_named_to_oneself() -> None:
    async with open_service(await seeded(), gate=gate_of({**KEYS, "op": OPERATOR})) as service:
        _, shown = await sent(service, "PUT", "/admin/pauses/clients/shop", key="op")

    assert [each["by"] for each in shown["clients"]] == ["op"]


@pytest.mark.parametrize("reason", ["", "a\nb", "\x7f", "r" * 1_025])
async def test_a_reason_of_a_pause_is_bounded_and_has_no_control_characters(reason: str) -> None:
    engine = await seeded()
    async with open_service(engine, gate=gate_of(KEYS)) as service:
        status, document = await sent(service, "PUT", "/admin/pauses/clients/shop", {"reason": reason})

    assert (status, document["errors"][0]["field"]) == (400, "reason")
    assert engine.pauses.stored.version == 0


async def test_a_batch_is_recorded_as_a_whole_with_its_number_and_its_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    engine = await seeded()

    def of(client: str, *keys: str) -> list[dict[str, str]]:
        return [{"clientId": client, "scheduleKey": key} for key in keys]

    async with open_service(engine, gate=gate_of(KEYS)) as service:
        _, document = await sent(service, "GET", "/admin/dead-letters")
        letters = [
            {name: each[name] for name in ("clientId", "scheduleKey", "deliveryId")} for each in document["deadLetters"]
        ]
        fired = {"schedules": of("shop", "a", "done", "unknown"), "reason": REASON}
        await sent(service, "POST", "/schedules/fire", fired)
        await sent(service, "POST", "/schedules/cancel", {"schedules": of("bank", "a") + of("shop", "done")})
        await sent(service, "POST", "/schedules/retry", {"schedules": [*of("shop", "done"), {"x": 1}]})
        await sent(service, "POST", "/admin/dead-letters/discard", {"deadLetters": letters, "reason": REASON})
        await sent(service, "POST", "/admin/dead-letters/retry", {"deadLetters": letters[:1], "reason": REASON})
        await sent(service, "POST", "/schedules/fire", {"schedules": []})
        recorded = await actions(service)

    by = {"by": "ana"}
    answers = {"done": 1, "delivered": 1, "schedule-not-found": 1}
    assert recorded[0] == {
        "kind": "batch_fired",
        "clientId": "shop",
        "count": 3,
        "answers": answers,
        "reason": REASON,
        **by,
    }
    cancelled, retried, discarded, again = recorded[1:]
    assert cancelled == {"kind": "batch_cancelled", "count": 2, "answers": {"done": 1, "delivered": 1}, **by}
    assert retried == {"kind": "batch_retried", "count": 2, "answers": {"delivered": 1, "invalid-input": 1}, **by}
    assert discarded == {"kind": "batch_discarded", "count": 2, "answers": {"done": 2}, "reason": REASON, **by}
    assert again["clientId"] == letters[0]["clientId"]
    assert [each["action"] for each in told(caplog)] == [each["kind"] for each in recorded]
    assert told(caplog)[0]["answers"] == "done=1 delivered=1 schedule-not-found=1"


async def test_a_batch_of_which_all_is_refused_says_nothing_in_the_activity_of_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    body = {"schedules": [{"clientId": "bank", "scheduleKey": "a"}, {"x": 1}], "reason": "call 555-0100"}
    async with open_service(await seeded(), gate=gate_of(KEYS)) as service:
        for path in ("cancel", "fire", "retry"):
            status, document = await sent(service, "POST", f"/schedules/{path}", body, key="eve")
            assert (status, [each["status"] for each in document["results"]]) == (200, [403, 400])
        assert await actions(service) == []
    assert told(caplog) == []


async def test_the_note_of_a_jobs_pause_is_the_reason_of_its_event() -> None:
    engine = await seeded()
    job = {
        "clientId": "shop",
        "jobId": "report",
        "trigger": {"type": "fixed_rate", "everyMs": 60_000},
        "taskData": None,
        "delivery": {"topic": builders.TOPIC},
    }
    async with open_service(engine, gate=gate_of(KEYS)) as service:
        assert (await sent(service, "POST", "/jobs", job))[0] == 201
        assert (await sent(service, "POST", "/jobs/shop/report/pause", {"note": REASON}))[0] == 200
        recorded = await actions(service)

    assert recorded == [{"kind": "job_paused", "clientId": "shop", "jobId": "report", "by": "ana", "reason": REASON}]


@pytest.mark.parametrize("reason", ["", "x" * 1_025, "é" * 513, "two\nlines", "\x85", 7])
@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("PUT", "/admin/pauses/clients/shop", {}),
        ("POST", "/admin/shards/3/fence", {}),
        ("POST", "/schedules/cancel", {"schedules": []}),
        ("POST", "/admin/dead-letters/discard", {"deadLetters": []}),
    ],
)
async def test_a_reason_is_a_short_text_of_one_line_or_nothing_is_done(
    method: str, path: str, more: dict[str, Any], reason: Any
) -> None:
    engine = Engine(telemetry=RecordingTelemetry())
    async with open_service(engine) as service:
        status, document = await sent(service, method, path, {**more, "reason": reason})

        assert (status, [each["field"] for each in document["errors"]]) == (400, ["reason"])
        assert await actions(service) == []
        assert len(await engine.pauses.read_pauses()) == 0
