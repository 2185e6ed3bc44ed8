"""PUT, fire and retry of a schedule; conditions on its version in every method."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from unittest import mock
from urllib.parse import quote

import hypothesis
import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import strategies as st
from multidict import CIMultiDict

from clockwork.domain.rights import Principal, Right, names_of
from clockwork.domain.schedule import ClientId, EndState, ScheduleKey
from clockwork.errors import InvalidInput
from clockwork.http.schedules import condition_of
from clockwork.requests.results import Created
from clockwork.schema.change import read_put
from clockwork.schema.schedule import document_of, read_schedule
from tests.support.clocks import ManualClock
from tests.support.engine import Engine
from tests.unit.api_edge import DUE_MS, NOW_MS, Answer, Edge, a_request, open_edge
from tests.unit.service import Keys

ONE = "/schedule/shop/order-1"
GIVEN = {
    "orderingKey": "customer-7",
    "taskData": {"n": [1, 2.5, -0.0, 1e300, "ü"]},
    "delivery": {"topic": "orders", "guarantee": "at_least_once", "headers": {"a": "1", "b": "2"}},
}


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with open_edge() as opened:
        yield opened


async def put(edge: Edge, document: Any, **given: Any) -> Answer:
    return await edge.ask("PUT", ONE, json=document, **given)


async def test_what_a_put_omits_stays_and_its_answer_bears_the_next_version(edge: Edge) -> None:
    created = await edge.post(a_request(**GIVEN))
    answer = await put(edge, {"scheduleTime": DUE_MS + 1_000})
    assert (answer.status, answer.headers["ETag"]) == (200, '"2"')
    # Another due time is another delivery.
    assert answer.json.pop("deliveryId") != created.json.pop("deliveryId")
    assert answer.json == created.json | {"scheduleTime": DUE_MS + 1_000, "version": 2}


async def test_delivery_is_merged_field_by_field_and_its_headers_are_replaced_as_a_whole(edge: Edge) -> None:
    edge.engine.kafka.create_topic("mails")
    await edge.post(a_request(**GIVEN))
    answer = await put(edge, {"delivery": {"headers": {"c": "3"}}})
    assert answer.json["delivery"] == {"topic": "orders", "guarantee": "at_least_once", "headers": {"c": "3"}}
    answer = await put(edge, {"delivery": {"topic": "mails"}})
    assert answer.json["delivery"] == {"topic": "mails", "guarantee": "at_least_once", "headers": {"c": "3"}}


async def test_what_is_said_about_lateness_and_refusals_is_merged_too_and_stays_if_it_is_left_out(edge: Edge) -> None:
    retry = {"attempts": 3, "initialMs": 200, "maxMs": 400, "factor": 1.5, "jitter": 0.25}
    said = {"deadline": 1_000, "onLate": "drop", "retry": retry}
    await edge.post(a_request(delivery={"topic": "orders", **said}))
    moved = (await put(edge, {"scheduleTime": DUE_MS + 1_000})).json["delivery"]
    assert {name: moved[name] for name in said} == said
    later = await put(edge, {"delivery": {"deadline": 2_000, "retry": {"attempts": 5}}})
    assert (later.status, later.json["delivery"]["deadline"], later.json["delivery"]["onLate"]) == (200, 2_000, "drop")
    # A policy is one field: what a new one does not say is as at create, not as it was.
    assert later.json["delivery"]["retry"] == {
        "attempts": 5,
        "initialMs": 1_000,
        "maxMs": 60_000,
        "factor": 2.0,
        "jitter": 0.0,
    }
    kept = await put(edge, {"delivery": {"onLate": "dead_letter"}})
    assert (kept.json["delivery"]["deadline"], kept.json["delivery"]["onLate"]) == (2_000, "dead_letter")


async def test_a_policy_of_null_is_removed(edge: Edge) -> None:
    policies = {"deadline": 1_000, "onLate": "drop", "retry": {"attempts": 3}}
    await edge.post(a_request(delivery={"topic": "orders", **policies}))
    without = await put(edge, {"delivery": {"onLate": None, "retry": None}})
    assert without.json["delivery"] == {
        "topic": "orders",
        "guarantee": "exactly_once",
        "headers": {},
        "deadline": 1_000,
        "onLate": "deliver",
    }
    none = await put(edge, {"delivery": {"deadline": None}})
    assert none.json["delivery"] == {"topic": "orders", "guarantee": "exactly_once", "headers": {}}
    again = await put(edge, {"delivery": {"deadline": None, "onLate": None, "retry": None}})
    assert (again.status, again.json["version"]) == (200, none.json["version"])


async def test_a_deadline_that_another_policy_needs_is_not_removed_alone(edge: Edge) -> None:
    await edge.post(a_request(delivery={"topic": "orders", "deadline": 1_000, "onLate": "drop"}))
    answer = await put(edge, {"delivery": {"deadline": None}})
    assert (answer.status, answer.fields) == (400, ["delivery.deadline"])


async def test_what_is_to_be_dropped_when_late_needs_a_deadline_wherever_it_comes_from(edge: Edge) -> None:
    await edge.post(a_request())
    without = await put(edge, {"delivery": {"onLate": "drop"}})
    assert (without.status, without.fields) == (400, ["delivery.deadline"])
    assert (await put(edge, {"delivery": {"deadline": 1}})).status == 200
    assert (await put(edge, {"delivery": {"onLate": "drop"}})).status == 200
    wrong = await put(edge, {"delivery": {"deadline": -1, "onLate": "later", "retry": {"attempts": 0}}})
    assert sorted(wrong.fields) == ["delivery.deadline", "delivery.onLate", "delivery.retry.attempts"]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"clientId": "shop", "scheduleKey": "order-1"},
        {"scheduleTime": None, "orderingKey": None, "taskDataEncoding": None, "delivery": None},
        {"delivery": {"topic": None, "guarantee": None, "headers": None}},
        {"taskData": {"n": [1, 2.5, -0.0, 1e300, "ü"]}},
        {"scheduleTime": DUE_MS, "delivery": {"headers": {"b": "2", "a": "1"}}},
    ],
)
async def test_a_put_that_changes_nothing_is_200_with_the_same_version(edge: Edge, document: Any) -> None:
    created = await edge.post(a_request(**GIVEN))
    answer = await put(edge, document)
    assert (answer.status, answer.json) == (200, created.json)


async def test_task_data_of_null_is_a_value(edge: Edge) -> None:
    await edge.post(a_request(**GIVEN))
    assert (await put(edge, {"taskData": None})).json["taskData"] is None


async def test_task_data_and_its_encoding_are_judged_together_with_what_is_there(edge: Edge) -> None:
    await edge.post(a_request(taskData="AP/+"))
    answer = await put(edge, {"taskDataEncoding": "base64"})
    assert (answer.json["taskData"], answer.json["taskDataEncoding"]) == ("AP/+", "base64")
    wrong = await put(edge, {"taskData": {"order": 1}})
    assert (wrong.status, wrong.fields) == (400, ["taskData"])


async def test_every_wrong_field_of_a_put_is_named_at_once_whatever_is_stored(edge: Edge) -> None:
    document = {
        "clientId": "other",
        "scheduleKey": 7,
        "scheduleTime": "tomorrow",
        "orderingKey": "",
        "status": "pending",
        "unknown": None,
        "taskDataEncoding": "base64",
        "taskData": "?",
        "delivery": {"topic": "clockwork-shards", "headers": {"clockwork-x": "1"}, "more": 1},
    }
    answer = await put(edge, document)
    assert answer.status == 400
    assert sorted(answer.fields) == [
        "clientId",
        "delivery.headers.clockwork-x",
        "delivery.more",
        "delivery.topic",
        "orderingKey",
        "scheduleKey",
        "scheduleTime",
        "status",
        "taskData",
        "unknown",
    ]


@pytest.mark.parametrize(("document", "field"), [([], "body"), (None, "body"), ({"delivery": "orders"}, "delivery")])
async def test_a_put_that_is_no_object_is_refused(edge: Edge, document: Any, field: str) -> None:
    answer = await put(edge, document)
    assert (answer.status, answer.fields) == (400, [field])


async def test_a_put_without_a_body_or_of_an_unknown_schedule_says_so(edge: Edge) -> None:
    assert (await edge.ask("PUT", ONE)).fields == ["body"]
    assert (await put(edge, {"scheduleTime": DUE_MS})).status == 404


async def test_the_size_is_that_of_data_and_headers_together_though_a_put_names_only_one(edge: Edge) -> None:
    await edge.post(a_request(taskData="x" * 262_000))
    answer = await put(edge, {"delivery": {"headers": {"a": "y" * 1_000}}})
    assert (answer.status, answer.fields) == (413, ["taskData"])
    assert (await put(edge, {"taskData": "x" * 262_145})).status == 413


CONDITIONAL = [
    ("GET", ONE, {}),
    ("PUT", ONE, {"json": {"taskData": 2}}),
    ("POST", f"{ONE}/fire", {}),
    ("POST", f"{ONE}/retry", {}),
    ("DELETE", ONE, {}),
    ("DELETE", "/schedule", {"json": {"clientId": "shop", "scheduleKey": "order-1"}}),
]


async def ready_for(edge: Edge, path: str) -> None:
    """A schedule of version 1 that the call acts on."""
    await edge.post(a_request())
    if path.endswith("/retry"):
        await edge.ends(EndState.FAILED)


@pytest.mark.parametrize(("method", "path", "given"), CONDITIONAL)
@pytest.mark.parametrize(
    ("header", "holds"),
    [
        ('"1"', True),
        ('"3", "1"', True),
        ("*", True),
        ('"3"', False),
        (' ,, "3" ,\t"1",', True),
        ('W/"3","1"', True),
        ('W/"1"', False),
        ('"01"', False),
        ('"0"', False),
        ('"+1"', False),
        ('"*"', False),
        ('""', False),
        ('"1,"', False),
        ('"٣"', False),
        ('"three"', False),
        (f'"{"9" * 400}"', False),
    ],
)
async def test_if_match_names_the_versions_that_may_be_acted_on(
    edge: Edge, method: str, path: str, given: Any, header: str, holds: bool
) -> None:
    await ready_for(edge, path)
    before = await edge.ask("GET", ONE)
    answer = await edge.ask(method, path, headers={"If-Match": header}, **given)
    assert answer.status == (200 if holds else 412)
    if not holds:
        assert answer.json["schedule"] == before.json
        assert answer.headers["ETag"] == '"1"'
        assert (await edge.ask("GET", ONE)).json == before.json


@pytest.mark.parametrize(("method", "path", "given"), CONDITIONAL)
@pytest.mark.parametrize(
    ("header", "holds"),
    [("*", False), ('"1"', False), ('W/"1"', False), ('"3", "1"', False), (',"1" ,', False)]
    + [(header, True) for header in ('"3"', '"one"', '"01"', 'W/"01"', '"*"', '""')],
)
async def test_if_none_match_names_the_versions_that_may_not_be_acted_on(
    edge: Edge, method: str, path: str, given: Any, header: str, holds: bool
) -> None:
    await ready_for(edge, path)
    before = await edge.ask("GET", ONE)
    answer = await edge.ask(method, path, headers={"If-None-Match": header}, **given)
    assert answer.status == (200 if holds else 304 if method == "GET" else 412)
    if not holds:
        assert answer.headers["ETag"] == '"1"'
        assert (await edge.ask("GET", ONE)).json == before.json
    if answer.status == 304:
        assert answer.body == b""


@pytest.mark.parametrize("state", [EndState.DELIVERED, EndState.FAILED])
async def test_a_conditional_cancel_of_an_ended_schedule_is_refused_for_its_end(edge: Edge, state: EndState) -> None:
    await edge.post(a_request())
    await edge.ends(state)
    answer = await edge.ask("DELETE", ONE, headers={"If-Match": '"9"'})
    assert (answer.status, answer.json["reason"]) == (409, state.value)


async def test_the_same_conditional_cancel_again_is_answered_as_the_first(edge: Edge) -> None:
    await edge.post(a_request())
    headers = {"If-Match": '"1"'}
    first = await edge.ask("DELETE", ONE, headers=headers)
    again = await edge.ask("DELETE", ONE, headers=headers)
    assert (first.status, again.status, again.json) == (200, 200, first.json)
    assert (await edge.ask("DELETE", "/schedule/shop/none", headers=headers)).status == 404


MALFORMED = [
    "",
    ",",
    "3",
    "**",
    "*,",
    "*, *",
    '*, "7"',
    '"7", *',
    '"7", 1',
    '"1", rubbish',
    'rubbish, "1"',
    '"1" "7"',
    '"1""7"',
    '"1',
    '1"',
    '"1"; q=1',
    '"a b"',
    '"a\\"b"',
    'w/"1"',
    'W/ "1"',
    "W/1",
    "'1'",
    '"1"\u00a0',
]


@pytest.mark.parametrize(("method", "path", "given"), CONDITIONAL)
@pytest.mark.parametrize("name", ["If-Match", "If-None-Match"])
async def test_a_condition_that_cannot_be_read_as_a_whole_is_bad_input_and_nothing_is_done(
    edge: Edge, method: str, path: str, given: Any, name: str
) -> None:
    await ready_for(edge, path)
    before = await edge.ask("GET", ONE)
    for header in MALFORMED:
        answer = await edge.ask(method, path, headers={name: header}, **given)
        assert (answer.status, answer.fields) == (400, [name]), header
    assert (await edge.ask("GET", ONE)).json == before.json


@pytest.mark.parametrize(("method", "path", "given"), CONDITIONAL)
@pytest.mark.parametrize(
    ("lines", "status"),
    [(['"3"', '"1"'], 200), (['"3"', "", 'W/"1"'], 412), (['"1"', "*"], 400), (["*", "*"], 400), (['"1"', "1"], 400)],
)
async def test_several_lines_of_a_condition_are_one_list(
    edge: Edge, method: str, path: str, given: Any, lines: list[str], status: int
) -> None:
    await ready_for(edge, path)
    answer = await edge.ask(method, path, headers=[("If-Match", line) for line in lines], **given)
    assert answer.status == status
    if status == 400:
        assert answer.fields == ["If-Match"]


def elements_of(text: str) -> list[str] | None:
    """The elements of a list of entity tags, read one character at a time; None: it is none."""
    elements, element, quoted = [], "", False
    for c in text:
        quoted ^= c == '"'
        if c == "," and not quoted:
            elements.append(element.strip(" \t"))
            element = ""
        else:
            element += c
    elements = [each for each in [*elements, element.strip(" \t")] if each]

    def is_tag(each: str) -> bool:
        opaque = each.removeprefix("W/")
        inner = opaque[1:-1]
        return len(opaque) >= 2 and opaque[0] == opaque[-1] == '"' and all(c > " " and c not in '"\x7f' for c in inner)

    return elements if elements and all(map(is_tag, elements)) else None


@hypothesis.example(lines=['"7", *'])
@hypothesis.example(lines=['"1", rubbish'])
@hypothesis.given(
    lines=st.lists(
        st.lists(
            st.sampled_from(['"1"', '"2"', '"01"', "W/", '"', ",", " ", "\t", "*", "1", "a", "\x7f", "ü", "\udcff"])
        ).map("".join)
        | st.text(st.characters(exclude_characters="\r\n\0")),
        min_size=1,
        max_size=3,
    )
)
def test_any_condition_is_either_read_as_a_whole_or_bad_input(lines: list[str]) -> None:
    whole = ", ".join(lines)
    tags = elements_of(whole)
    is_any = whole.strip(" \t") == "*"
    for name, matching in (("If-Match", ('"1"',)), ("If-None-Match", ('"1"', 'W/"1"'))):
        # `make_mocked_request` cannot encode the lone surrogates as which bytes that are not UTF-8 come.
        request = mock.Mock(headers=CIMultiDict((name, line) for line in lines))
        if tags is None and not is_any:
            with pytest.raises(InvalidInput) as raised:
                condition_of(request)
            assert [each.field for each in raised.value.errors] == [name]
        else:
            named = is_any or any(tag in matching for tag in tags or ())
            assert condition_of(request).holds(1) == (named if name == "If-Match" else not named)


def test_a_long_malformed_condition_is_refused_without_trying_every_way_to_read_it() -> None:
    for long in ('"1",' * 4_000, '"1"' + " ," * 8_000, "," * 16_000, '"' + "1" * 16_000):
        with pytest.raises(InvalidInput):
            condition_of(make_mocked_request("GET", ONE, CIMultiDict({"If-Match": f"{long}x"})))


WITHOUT_THE_RIGHT = {
    "other right": Principal(
        name="p", clients=names_of(["*"]), topics=names_of(["*"]), rights=frozenset({Right.ADMIN})
    ),
    "other client": Principal(name="p", clients=names_of(["bank"]), topics=names_of(["*"]), rights=frozenset(Right)),
}


@pytest.mark.parametrize("key", WITHOUT_THE_RIGHT)
@pytest.mark.parametrize(("method", "path"), [each[:2] for each in CONDITIONAL if each[1] != "/schedule"])
async def test_a_key_without_the_right_is_refused_before_the_rest_of_the_request_is_read(
    key: str, method: str, path: str
) -> None:
    authorization = {"Authorization": f"Bearer {key}"}
    async with open_edge(authenticator=Keys(WITHOUT_THE_RIGHT)) as edge:
        answer = await edge.ask(method, path, headers={**authorization, "If-Match": "rubbish"})
        assert answer.status == 403
        if method in {"PUT", "POST"}:
            for body, media_type in (
                (b"{", "application/json"),
                (b'{"x": 1}', "application/json"),
                (b"x", "text/plain"),
            ):
                headers = {**authorization, "Content-Type": media_type}
                assert (await edge.ask(method, path, data=body, headers=headers)).status == 403
            # Only the head is sent: the answer does not wait for the body.
            reader, writer = await asyncio.open_connection("127.0.0.1", edge.server.port)
            head = (
                f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n"
            )
            writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 2000000\r\n\r\n".encode())
            async with asyncio.timeout(5):
                assert (await reader.readline()).split()[1] == b"403"
                writer.write(b" " * 2_000_000)
                await reader.read()
            writer.close()
            await writer.wait_closed()


@pytest.mark.parametrize("state", [EndState.DELIVERED, EndState.FAILED, EndState.CANCELLED])
async def test_a_change_of_an_ended_schedule_says_how_it_ended(edge: Edge, state: EndState) -> None:
    await edge.post(a_request())
    await edge.ends(state)
    calls = [("PUT", ONE), ("POST", f"{ONE}/fire")] + [("POST", f"{ONE}/retry")] * (state is not EndState.FAILED)
    for method, path in calls:
        answer = await edge.ask(method, path, json={})
        assert (answer.status, answer.json["reason"]) == (409, state.value)
        assert answer.json["schedule"]["scheduleKey"] == "order-1"


async def test_a_change_in_flight_and_a_retry_of_what_has_not_failed_say_so(edge: Edge) -> None:
    await edge.post(a_request())
    await edge.in_flight()
    for method, path in (("PUT", ONE), ("POST", f"{ONE}/fire")):
        answer = await edge.ask(method, path, **({"json": {"taskData": 2}} if method == "PUT" else {}))
        assert (answer.status, answer.json["reason"]) == (409, "in_flight")
    retried = await edge.ask("POST", f"{ONE}/retry")
    assert (retried.status, retried.json["reason"]) == (409, "pending")
    assert "only what failed" in retried.json["detail"]


async def test_fire_and_retry_need_no_body_and_take_no_other_than_theirs(edge: Edge) -> None:
    await edge.post(a_request())
    fired = await edge.ask("POST", f"{ONE}/fire")
    assert (fired.status, fired.json["scheduleTime"]) == (200, NOW_MS)
    assert (await edge.ask("POST", f"{ONE}/fire", json={"at": 1})).fields == ["body"]
    for document, due_ms in ((None, NOW_MS), ({"scheduleTime": DUE_MS}, DUE_MS), ({"scheduleTime": None}, NOW_MS)):
        await edge.ends(EndState.FAILED)
        given = {} if document is None else {"json": document}
        retried = await edge.ask("POST", f"{ONE}/retry", **given)
        assert (retried.status, retried.json["scheduleTime"]) == (200, due_ms)
    wrong = await edge.ask("POST", f"{ONE}/retry", json={"scheduleTime": -1, "topic": "x"})
    assert (wrong.status, sorted(wrong.fields)) == (400, ["scheduleTime", "topic"])
    assert (await edge.ask("POST", f"{ONE}/retry", json=[])).fields == ["body"]


async def test_any_key_is_changed_and_fired_under_its_percent_encoding(edge: Edge) -> None:
    for key in ("a/b", "fire", "{x}", "%2F", "ä ö"):
        await edge.post(a_request(scheduleKey=key))
        path = f"/schedule/shop/{quote(key, safe='')}"
        assert (await edge.ask("PUT", path, json={"taskData": 1})).json["scheduleKey"] == key
        assert (await edge.ask("POST", f"{path}/fire")).json["scheduleKey"] == key
    assert (await edge.ask("POST", "/schedule/shop/%FF/fire")).fields == ["scheduleKey"]


async def test_changes_are_counted_and_labelled_by_their_route(edge: Edge) -> None:
    await edge.post(a_request())
    await put(edge, {"taskData": "new"})
    await put(edge, {"taskData": "new"})
    await edge.ask("POST", f"{ONE}/fire")
    text = (await edge.ask("GET", "/metrics")).body.decode()
    for line in (
        'clockwork_schedules_total{result="rescheduled"} 2.0',
        'clockwork_schedules_total{result="repeated"} 1.0',
        'clockwork_requests_total{route="PUT /schedule/{clientId}/{scheduleKey}",status="200"} 2.0',
        'clockwork_requests_total{route="POST /schedule/{clientId}/{scheduleKey}/fire",status="200"} 1.0',
    ):
        assert line in text.splitlines(), line


async def test_a_traceparent_of_the_create_stays_unless_the_caller_sends_his_own(edge: Edge) -> None:
    ours = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await edge.post(a_request(), headers={"traceparent": ours})
    await put(edge, {"taskData": "new"})
    assert (await edge.stored()).traceparent == ours
    await put(edge, {"delivery": {"headers": {"TraceParent": "theirs"}}})
    assert (await edge.stored()).traceparent is None


async def test_a_change_of_nothing_makes_the_very_same_schedule_of_any_data() -> None:
    for data, encoding in (("AA==", "base64"), ("text", "json"), ({"b": 1e16, "a": [None, 0.1]}, "json"), (7, "json")):
        delivery = {"topic": "orders", "deadline": 5, "onLate": "drop", "retry": {"factor": 1.15, "jitter": 0.07}}
        document = a_request(taskData=data, taskDataEncoding=encoding, delivery=delivery)
        new = read_schedule(document, cluster="c", now_ms=NOW_MS, traceparent=None)
        created = await Engine(clock=ManualClock(NOW_MS)).create(new)
        assert isinstance(created, Created)
        schedule = created.view.schedule
        assert schedule is not None
        for body in ({}, document_of(schedule)):
            change = read_put(
                body, client_id=ClientId("shop"), schedule_key=ScheduleKey("order-1"), cluster="c", now_ms=NOW_MS
            )
            assert change(schedule) == schedule
