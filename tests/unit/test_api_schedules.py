"""POST, GET and DELETE of a schedule."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from clockwork.domain.schedule import EndState, Failure, Receipt
from clockwork.errors import StoreThrottled, TransactionConflict, Unreadable
from tests.support import builders
from tests.support.clocks import ManualClock
from tests.support.engine import Engine
from tests.unit.api_edge import DUE_MS, NOW_MS, Edge, a_request, open_edge

ONE = "/schedule/shop/order-1"


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with open_edge() as opened:
        yield opened


def fail_all(engine: Engine, error: Exception) -> None:
    """Reads of pointers and creates raise."""

    async def fail(*_: object, **__: object) -> None:
        raise error

    engine.store.read_pointer = fail  # type: ignore[method-assign]
    engine.store.create = fail  # type: ignore[method-assign]


async def test_a_create_answers_the_whole_schedule_its_version_and_its_place(edge: Edge) -> None:
    answer = await edge.post(a_request())
    assert answer.status == 201
    assert answer.headers["ETag"] == '"1"'
    assert answer.headers["Location"] == "/schedule/shop/order-1"
    assert "Server" not in answer.headers
    shard, delivery_id = answer.json.pop("shard"), answer.json.pop("deliveryId")
    assert shard == (await edge.row()).shard
    assert len(delivery_id) == 32
    assert answer.json == {
        "clientId": "shop",
        "scheduleKey": "order-1",
        "scheduleTime": DUE_MS,
        "orderingKey": "order-1",
        "taskData": {"order": 1},
        "taskDataEncoding": "json",
        "delivery": {"topic": "orders", "guarantee": "exactly_once", "headers": {}},
        "status": "pending",
        "version": 1,
        "createdAt": NOW_MS,
    }


async def test_the_same_create_again_is_200_and_another_one_is_a_conflict_that_shows_what_is_there(edge: Edge) -> None:
    first = await edge.post(a_request())
    again = await edge.post(a_request())
    other = await edge.post(a_request(taskData="other"))
    assert (again.status, again.json) == (200, first.json)
    assert other.status == 409
    assert other.json["reason"] == "pending"
    assert other.json["schedule"] == first.json


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (None, b"null"),
        (False, b"false"),
        ("plain Grüße", "plain Grüße".encode()),
        ("", b""),
        ({"b": [1, 2.5, None], "a": "ü"}, '{"b":[1,2.5,null],"a":"ü"}'.encode()),
        (18_446_744_073_709_551_615, b"18446744073709551615"),
    ],
)
async def test_task_data_is_stored_as_the_record_will_have_it_and_answered_as_it_was_given(
    edge: Edge, given: Any, stored: bytes
) -> None:
    answer = await edge.post(a_request(taskData=given))
    assert answer.status == 201
    assert (await edge.stored()).task_data == stored
    assert answer.json["taskData"] == given
    assert (await edge.ask("GET", "/schedule/shop/order-1")).json == answer.json


async def test_base64_is_stored_as_its_bytes_and_answered_as_base64(edge: Edge) -> None:
    given = base64.b64encode(bytes(range(256))).decode()
    answer = await edge.post(a_request(taskData=given, taskDataEncoding="base64"))
    assert answer.status == 201
    assert (await edge.stored()).task_data == bytes(range(256))
    assert (answer.json["taskData"], answer.json["taskDataEncoding"]) == (given, "base64")


async def test_optional_fields_that_are_null_count_as_absent(edge: Edge) -> None:
    first = await edge.post(a_request())
    again = await edge.post(
        a_request(
            orderingKey=None, taskDataEncoding=None, delivery={"topic": "orders", "guarantee": None, "headers": None}
        )
    )
    assert (again.status, again.json) == (200, first.json)


KEYS = ["a/b", "a%2Fb", "%FF", "ä ö", "{x}", "a?b#c", "..", ".", "+", "a;b=c", "\x00", "\U0001f600", "k" * 512]


@pytest.mark.parametrize("key", KEYS)
async def test_any_key_is_found_and_cancelled_under_its_percent_encoding(edge: Edge, key: str) -> None:
    assert (await edge.post(a_request(scheduleKey=key))).status == 201
    # Dots as well: clients resolve "." and ".." in paths by themselves.
    path = f"/schedule/shop/{quote(key, safe='').replace('.', '%2E')}"
    found = await edge.ask("GET", path)
    assert (found.status, found.json["scheduleKey"]) == (200, key)
    assert (await edge.ask("DELETE", path)).status == 200
    named = await edge.ask("DELETE", "/schedule", json={"clientId": "shop", "scheduleKey": key})
    assert named.status == 200


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/schedule/shop/%FF", "scheduleKey"),
        ("/schedule/shop/%ED%A0%80", "scheduleKey"),
        ("/schedule/shop/%C0%AF", "scheduleKey"),
        ("/schedule/shop/a%2", "scheduleKey"),
        ("/schedule/shop/a%zz", "scheduleKey"),
        (f"/schedule/shop/{'k' * 513}", "scheduleKey"),
        ("/schedule/sh%20op/k", "clientId"),
        ("/schedule/%80/k", "clientId"),
        ("/schedule/%E4%B8%AD/k", "clientId"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_path_that_can_name_no_schedule_is_bad_input(edge: Edge, method: str, path: str, field: str) -> None:
    answer = await edge.ask(method, path)
    assert (answer.status, answer.fields) == (400, [field])


async def test_what_was_never_accepted_is_404(edge: Edge) -> None:
    assert (await edge.ask("GET", "/schedule/shop/none")).status == 404
    assert (await edge.ask("DELETE", "/schedule/shop/none")).status == 404
    named = await edge.ask("DELETE", "/schedule", json={"clientId": "shop", "scheduleKey": "none"})
    assert named.status == 404


async def test_a_delete_with_a_wrong_body_names_every_wrong_field(edge: Edge) -> None:
    answer = await edge.ask("DELETE", "/schedule", json={"clientId": "", "key": "x"})
    assert answer.status == 400
    assert sorted(answer.fields) == ["clientId", "key", "scheduleKey"]
    assert (await edge.ask("DELETE", "/schedule")).fields == ["body"]


@pytest.mark.parametrize("state", [EndState.DELIVERED, EndState.FAILED])
async def test_a_cancel_of_an_ended_schedule_says_how_it_ended(edge: Edge, state: EndState) -> None:
    await edge.post(a_request())
    await edge.ends(state)
    answer = await edge.ask("DELETE", ONE)
    assert (answer.status, answer.json["reason"]) == (409, state.value)
    assert answer.json["schedule"]["status"] == state.value


async def test_a_cancel_of_a_schedule_in_flight_says_so(edge: Edge) -> None:
    await edge.post(a_request())
    await edge.in_flight()
    answer = await edge.ask("DELETE", ONE)
    assert (answer.status, answer.json["reason"]) == (409, "in_flight")
    assert answer.json["schedule"]["status"] == "pending"


async def test_a_delivered_schedule_says_where_when_and_how_late(edge: Edge) -> None:
    await edge.post(a_request())
    receipt = Receipt(kafka_partition=3, offset=2**40, at_ms=DUE_MS + 25)
    await edge.ends(EndState.DELIVERED, where=receipt, at_ms=DUE_MS + 25)
    answer = await edge.ask("GET", ONE)
    assert answer.json["status"] == "delivered"
    assert answer.json["delivered"] == {
        "topic": "orders",
        "partition": 3,
        "offset": 2**40,
        "at": DUE_MS + 25,
        "latenessMs": 25,
    }


async def test_a_failed_schedule_says_why_and_one_that_could_not_be_read_still_has_a_state(edge: Edge) -> None:
    await edge.post(a_request())
    row = await edge.row()
    failure = Failure(reason="unreadable", attempts=0)
    outcome = builders.outcome(row, EndState.FAILED, failure=failure, at_ms=DUE_MS + 25, expires_at_s=2**40)
    await edge.engine.store.finish(row.shard, [builders.end(row, replace(outcome, schedule=None))])
    answer = await edge.ask("GET", ONE)
    assert answer.status == 200
    assert answer.json["failed"] == {"reason": "unreadable", "at": DUE_MS + 25, "attempts": 0}
    assert answer.json["scheduleTime"] == DUE_MS


async def test_a_missing_topic_is_bad_input(edge: Edge) -> None:
    answer = await edge.post(a_request(delivery={"topic": "nowhere"}))
    assert (answer.status, answer.fields) == (400, ["delivery.topic"])


@pytest.mark.parametrize("error", [StoreThrottled("host-7 is slow"), Unreadable("item x"), TransactionConflict()])
async def test_what_cannot_be_settled_now_is_503_with_retry_after_and_names_no_internals(error: Exception) -> None:
    engine = Engine(clock=ManualClock(NOW_MS), request_timeout_ms=100)
    fail_all(engine, error)
    async with open_edge(engine) as edge:
        for method, path in (("GET", "/schedule/a/b"), ("DELETE", "/schedule/a/b")):
            answer = await edge.ask(method, path)
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
            assert b"host-7" not in answer.body
        assert (await edge.post(a_request())).status == 503


async def test_an_error_nobody_foresaw_is_500_without_details_and_logged_with_them(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    fail_all(edge.engine, KeyError("the secret of the house"))
    answer = await edge.post(a_request())
    assert answer.status == 500
    assert b"secret" not in answer.body
    logged = [r for r in caplog.records if getattr(r, "event", "") == "request.failed"]
    assert len(logged) == 1
    assert vars(logged[0])["error_id"] == answer.json["errorId"]
    assert logged[0].exc_info is not None


@pytest.mark.parametrize(
    ("traceparent", "kept"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", False),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", False),
        ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", False),
        ("nonsense", False),
        ("", False),
    ],
)
async def test_a_well_formed_traceparent_is_kept_and_any_other_ignored(
    edge: Edge, traceparent: str, kept: bool
) -> None:
    answer = await edge.post(a_request(), headers={"traceparent": traceparent})
    assert answer.status == 201
    assert (await edge.stored()).traceparent == (traceparent if kept else None)


async def test_the_callers_own_traceparent_header_stands_alone(edge: Edge) -> None:
    ours = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    delivery = {"topic": "orders", "headers": {"Traceparent": "theirs"}}
    await edge.post(a_request(delivery=delivery), headers={"traceparent": ours})
    assert (await edge.stored()).traceparent is None
    assert (await edge.stored()).headers == (("Traceparent", "theirs"),)


async def test_requests_are_counted_by_route_and_schedules_by_what_became_of_them(edge: Edge) -> None:
    await edge.post(a_request())
    await edge.post(a_request())
    await edge.post(a_request(taskData="other"))
    await edge.post({})
    await edge.post_bytes(b"{", content_type="text/plain")
    await edge.ask("DELETE", "/schedule/shop/order-1")
    await edge.ask("GET", "/schedule/shop/none")
    await edge.ask("GET", "/no/such/path")
    text = (await edge.ask("GET", "/metrics")).body.decode()
    one = "/schedule/{clientId}/{scheduleKey}"
    for line in (
        'clockwork_schedules_total{result="created"} 1.0',
        'clockwork_schedules_total{result="repeated"} 1.0',
        'clockwork_schedules_total{result="rejected"} 3.0',
        'clockwork_schedules_total{result="cancelled"} 1.0',
        'clockwork_requests_total{route="POST /schedule",status="201"} 1.0',
        f'clockwork_requests_total{{route="GET {one}",status="404"}} 1.0',
        'clockwork_requests_total{route="unmatched",status="404"} 1.0',
        f'clockwork_request_seconds_count{{route="DELETE {one}",status="200"}} 1.0',
    ):
        assert line in text.splitlines(), line


async def test_many_requests_side_by_side_are_each_answered(edge: Edge) -> None:
    answers = await asyncio.gather(*(edge.post(a_request(scheduleKey=f"k{i}")) for i in range(50)))
    assert {a.status for a in answers} == {201}
    assert json.loads(answers[7].body)["scheduleKey"] == "k7"
