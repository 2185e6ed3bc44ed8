"""The calls with many schedules: each item as if it had come alone."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from clockwork.domain.schedule import EndState, Failure, Row
from clockwork.errors import StoreUnavailable, Unreadable
from tests.support.clocks import ManualClock
from tests.support.engine import Engine
from tests.unit.api_edge import DUE_MS, NOW_MS, Answer, Edge, a_request, open_edge

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with open_edge() as opened:
        yield opened


async def create_all(edge: Edge, items: list[Any], **given: Any) -> Answer:
    return await edge.ask("POST", "/schedules", json={"schedules": items}, **given)


async def cancel_all(edge: Edge, items: list[Any]) -> Answer:
    return await edge.ask("POST", "/schedules/cancel", json={"schedules": items})


def statuses(answer: Answer) -> list[int]:
    assert answer.status == 200, answer.json
    return [result["status"] for result in answer.json["results"]]


def without_ids(document: dict[str, Any]) -> dict[str, Any]:
    """Two nodes give different delivery ids."""
    schedule = document.get("schedule", {})
    return {**document, "schedule": {name: value for name, value in schedule.items() if name != "deliveryId"}}


async def test_every_item_is_answered_as_it_would_be_alone_in_the_order_given(edge: Edge) -> None:
    items = [
        a_request(scheduleKey="new"),
        a_request(scheduleKey="taken"),
        a_request(scheduleKey="taken", taskData="other"),
        a_request(scheduleKey="new"),
        a_request(scheduleKey="", scheduleTime=-1),
        "no object",
        a_request(scheduleKey="large", taskData="x" * (256 * 1024 + 1)),
    ]
    async with open_edge() as twin:
        alone = [await twin.post(item) for item in items]

    answer = await create_all(edge, items)

    assert statuses(answer) == [201, 201, 409, 200, 400, 400, 413]
    for result, single in zip(answer.json["results"], alone, strict=True):
        expected = {"status": single.status, "schedule": single.json} if single.status < 300 else single.json
        assert without_ids(result) == without_ids(expected)


async def test_a_batch_of_a_thousand_is_taken_and_one_more_is_refused_as_a_whole(edge: Edge) -> None:
    thousand = [a_request(scheduleKey=f"k-{n}") for n in range(1_000)]

    assert statuses(await create_all(edge, thousand)) == [201] * 1_000
    refused = await create_all(edge, [*thousand, a_request(scheduleKey="one-more")])

    assert (refused.status, refused.fields) == (400, ["schedules"])
    assert len(edge.keys()) == 1_000


async def test_an_empty_batch_has_no_results(edge: Edge) -> None:
    assert statuses(await create_all(edge, [])) == []


@pytest.mark.parametrize(
    "path", ["/schedules", "/schedules/cancel", "/schedules/get", "/schedules/fire", "/schedules/retry"]
)
@pytest.mark.parametrize(
    ("envelope", "fields"),
    [
        ([], ["body"]),
        ({}, ["schedules"]),
        ({"schedules": None}, ["schedules"]),
        ({"schedules": {"0": {}}}, ["schedules"]),
        ({"schedules": [], "atomic": True}, ["atomic"]),
        ({"schedule": []}, ["schedules", "schedule"]),
    ],
)
async def test_a_wrong_envelope_refuses_the_whole(edge: Edge, path: str, envelope: Any, fields: list[str]) -> None:
    answer = await edge.ask("POST", path, json=envelope)

    assert (answer.status, answer.fields) == (400, fields)


async def test_items_may_each_be_cancelled_unknown_or_refused(edge: Edge) -> None:
    await create_all(edge, [a_request(scheduleKey="there", scheduleTime=DUE_MS + 1), a_request(scheduleKey="late")])
    await edge.in_flight("late")
    keys = [{"clientId": "shop", "scheduleKey": key} for key in ("there", "late", "unknown")]

    answer = await cancel_all(edge, [*keys, {"clientId": "shop"}])

    assert statuses(answer) == [200, 409, 404, 400]
    assert answer.json["results"][0]["schedule"]["scheduleKey"] == "there"
    assert answer.json["results"][1]["reason"] == "in_flight"
    assert answer.json["results"][3]["errors"][0]["field"] == "scheduleKey"


async def test_many_are_shown_as_each_alone_would_be_in_the_order_given(edge: Edge) -> None:
    odd = "../%2e\n"  # no path can carry it in a browser
    await create_all(edge, [a_request(scheduleKey=key) for key in ("pending", "gone", odd)])
    await cancel_all(edge, [{"clientId": "shop", "scheduleKey": "gone"}])
    keys = [{"clientId": "shop", "scheduleKey": key} for key in (odd, "unknown", "gone", "pending", odd)]

    answer = await edge.ask("POST", "/schedules/get?taskData=text", json={"schedules": [*keys, {"clientId": "shop"}]})

    assert statuses(answer) == [200, 404, 200, 200, 200, 400]
    shown = [result.get("schedule", {}) for result in answer.json["results"]]
    assert [each.get("status") for each in shown] == ["pending", None, "cancelled", "pending", "pending", None]
    assert shown[3] == (await edge.ask("GET", "/schedule/shop/pending?taskData=text")).json
    assert shown[0] == shown[4]


def named(*keys: str, **more: Any) -> dict[str, Any]:
    return {"schedules": [{"clientId": "shop", "scheduleKey": key, **more} for key in keys]}


async def test_many_are_made_due_now_each_on_its_own_condition(edge: Edge) -> None:
    await create_all(edge, [a_request(scheduleKey=key) for key in ("a", "b", "gone")])
    await cancel_all(edge, named("gone")["schedules"])

    answer = await edge.ask("POST", "/schedules/fire", json=named("a", "gone", "unknown", ""))
    stale = await edge.ask("POST", "/schedules/fire", json=named("b", ifVersion=7))

    assert statuses(answer) == [200, 409, 404, 400]
    fired, gone, *_ = answer.json["results"]
    assert (fired["schedule"]["scheduleTime"], fired["schedule"]["version"]) == (NOW_MS, 2)
    assert gone["reason"] == "cancelled"
    assert statuses(stale) == [412]
    assert (await edge.stored("b")).due_ms == DUE_MS
    assert statuses(await edge.ask("POST", "/schedules/fire", json=named("b", ifVersion=1))) == [200]


async def test_many_that_failed_are_armed_again_and_the_same_batch_again_arms_none_twice(edge: Edge) -> None:
    failure = Failure(reason="record_too_large", attempts=8)
    await create_all(edge, [a_request(scheduleKey=key) for key in ("a", "b", "pending")])
    for key in ("a", "b"):
        await edge.ends(EndState.FAILED, key, failure=failure)
    batch = named("a", "b", "pending", ifVersion=1, scheduleTime=DUE_MS + 5)

    first = await edge.ask("POST", "/schedules/retry", json=batch)
    again = await edge.ask("POST", "/schedules/retry", json=batch)

    assert statuses(first) == statuses(again) == [200, 200, 409]
    armed = [result["schedule"] for result in first.json["results"][:2]]
    assert [(each["status"], each["version"], each["scheduleTime"]) for each in armed] == [
        ("pending", 2, DUE_MS + 5)
    ] * 2
    assert [result["schedule"] for result in again.json["results"][:2]] == armed
    assert "only what failed" in first.json["results"][2]["detail"]


async def test_a_schedule_that_cannot_be_read_hides_no_other(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    await create_all(edge, [a_request(scheduleKey="a"), a_request(scheduleKey="b")])
    lost = await edge.row("b")
    search, store = edge.engine.context.search, edge.engine.store
    found = search.read_rows_at

    async def without(places: Any) -> Any:
        return {place: row for place, row in (await found(places)).items() if row != lost}

    async def unreadable(*_: object) -> None:
        raise Unreadable("damaged")

    monkeypatch.setattr(search, "read_rows_at", without)
    monkeypatch.setattr(store, "read_pointer", unreadable)
    keys = [{"clientId": "shop", "scheduleKey": key} for key in "ab"]

    assert statuses(await edge.ask("POST", "/schedules/get", json={"schedules": keys})) == [200, 503]


async def test_a_hundred_are_shown_and_no_more(edge: Edge) -> None:
    keys = [{"clientId": "shop", "scheduleKey": f"k-{n}"} for n in range(101)]

    assert statuses(await edge.ask("POST", "/schedules/get", json={"schedules": keys[:100]})) == [404] * 100
    assert (await edge.ask("POST", "/schedules/get", json={"schedules": keys})).fields == ["schedules"]


async def test_items_of_one_key_go_one_after_the_other_and_those_of_others_side_by_side(edge: Edge) -> None:
    # The race: two creates of one key at the same moment, of which the store would take either.
    both, inside = asyncio.Barrier(2), 0
    create = edge.engine.store.create

    async def meeting(row: Row, *given: Any, **named: Any) -> None:
        nonlocal inside
        if row.schedule.schedule_key != "same":
            await both.wait()  # would never end if they went one after the other
            return await create(row, *given, **named)
        inside += 1
        assert inside == 1
        await asyncio.sleep(0)
        inside -= 1
        return await create(row, *given, **named)

    edge.engine.store.create = meeting  # type: ignore[method-assign]
    same = [a_request(scheduleKey="same", taskData=n) for n in range(5)]

    answer = await create_all(edge, [a_request(scheduleKey="a"), *same, a_request(scheduleKey="b")])

    assert statuses(answer) == [201, 201, 409, 409, 409, 409, 201]
    assert answer.json["results"][1]["schedule"]["taskData"] == 0, "the first one given"


async def test_the_store_may_be_away_for_one_item_and_one_may_meet_a_defect() -> None:
    engine = Engine(clock=ManualClock(NOW_MS), request_timeout_ms=300)
    create = engine.store.create

    async def unlucky(row: Row, *given: Any, **named: Any) -> None:
        if row.schedule.schedule_key == "away":
            raise StoreUnavailable("at a host that is nobody's business")
        if row.schedule.schedule_key == "defect":
            raise ZeroDivisionError("made up")
        await create(row, *given, **named)

    engine.store.create = unlucky  # type: ignore[method-assign]
    async with open_edge(engine) as edge:
        answer = await create_all(edge, [a_request(scheduleKey=key) for key in ("away", "defect", "fine")])

        assert statuses(answer) == [503, 500, 201]
        assert b"nobody" not in answer.body


async def test_the_requests_traceparent_goes_with_every_item(edge: Edge) -> None:
    items = [a_request(scheduleKey="a"), a_request(scheduleKey="b")]

    await create_all(edge, items, headers={"traceparent": TRACEPARENT})

    assert [(await edge.stored(key)).traceparent for key in ("a", "b")] == [TRACEPARENT, TRACEPARENT]


async def test_items_are_counted_one_by_one(edge: Edge) -> None:
    items = [a_request(scheduleKey="a"), a_request(scheduleKey="a"), a_request(scheduleKey="b", scheduleTime="soon")]
    await create_all(edge, items)

    shown = edge.telemetry.exposition()[0].decode()

    for result in ("created", "repeated", "rejected"):
        assert f'clockwork_schedules_total{{result="{result}"}} 1.0' in shown
