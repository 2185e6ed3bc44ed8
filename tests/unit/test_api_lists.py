"""GET /schedules and histories at the edge: parameters, cursors, and what is answered."""

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from clockwork.domain.schedule import EndState
from clockwork.errors import StoreUnavailable
from tests.support import builders
from tests.unit.api_edge import DUE_MS, Answer, Edge, a_request, open_edge


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    async with open_edge() as opened:
        yield opened


async def listed(edge: Edge, query: str) -> Answer:
    return await edge.ask("GET", f"/schedules?{query}")


def keys(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.json
    return [each["scheduleKey"] for each in answer.json["schedules"]]


async def test_a_list_answers_each_schedule_as_a_get_of_it_does(edge: Edge) -> None:
    created = await edge.post(a_request(taskData={"ä": [1, None]}))
    await edge.post(a_request(clientId="other"))

    answer = await listed(edge, "clientId=shop")

    assert answer.json == {"schedules": [created.json], "cursor": None, "lookedAt": 1}


async def test_every_filter_of_a_list_counts(edge: Edge) -> None:
    edge.engine.kafka.create_topic("mails")
    wanted = {"orderingKey": "a/b cä", "scheduleTime": DUE_MS}
    await edge.post(a_request(scheduleKey="it", **wanted))
    await edge.post(a_request(scheduleKey="topic", **wanted, delivery={"topic": "mails"}))
    await edge.post(a_request(scheduleKey="lane", scheduleTime=DUE_MS))
    await edge.post(a_request(scheduleKey="early", **wanted | {"scheduleTime": DUE_MS - 1}))
    await edge.post(a_request(scheduleKey="late", **wanted | {"scheduleTime": DUE_MS + 1}))
    await edge.post(a_request(scheduleKey="gone", **wanted))
    await edge.ask("DELETE", "/schedule/shop/gone")
    due_from = datetime.fromtimestamp(DUE_MS // 1_000, UTC).isoformat().replace("+00:00", "Z")

    filters = f"status=pending&topic=orders&orderingKey=a%2Fb+c%C3%A4&dueFrom={due_from}&dueTo={DUE_MS + 1}"

    assert keys(await listed(edge, f"clientId=shop&{filters}&limit=7")) == ["it"]


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("", ["clientId"]),
        ("clientId=", ["clientId"]),
        ("clientId=a/b", ["clientId"]),
        ("clientId=a&clientId=a", ["clientId"]),
        ("clientId=a&status=superseded", ["status"]),
        ("clientId=a&status=PENDING", ["status"]),
        ("clientId=a&status=pending&status=failed", ["status"]),
        ("clientId=a&topic=a%20b", ["topic"]),
        ("clientId=a&orderingKey=", ["orderingKey"]),
        ("clientId=a&dueFrom=soon&dueTo=-1", ["dueFrom", "dueTo"]),
        ("clientId=a&dueFrom=1.5", ["dueFrom"]),
        ("clientId=a&fields=all&order=up&taskData=json", ["fields", "order", "taskData"]),
        ("clientId=a&limit=0", ["limit"]),
        ("clientId=a&limit=1001", ["limit"]),
        ("clientId=a&limit=%D9%A1", ["limit"]),
        ("clientId=a&limit=", ["limit"]),
        ("clientId=a&cursor=", ["cursor"]),
        ("clientId=a&cursor=nonsense", ["cursor"]),
        ("clientId=a&offset=1&client=b", ["offset", "client"]),
        ("offset=1&limit=x", ["clientId", "limit", "offset"]),
        ("clientId=%zz", ["query"]),
        ("clientId=%ff", ["query"]),
        ("&".join(f"p{n}=1" for n in range(101)), ["query"]),
    ],
)
async def test_each_wrong_parameter_is_named(edge: Edge, query: str, fields: list[str]) -> None:
    answer = await listed(edge, query)

    assert (answer.status, sorted(answer.fields)) == (400, sorted(fields))


async def test_a_summary_has_everything_but_the_content(edge: Edge) -> None:
    delivery = {"topic": builders.TOPIC, "headers": {"a": "b"}}
    created = (await edge.post(a_request(delivery=delivery))).json

    answer = await listed(edge, "clientId=shop&fields=summary")

    del created["taskData"], created["taskDataEncoding"], created["delivery"]["headers"]
    assert answer.json["schedules"] == [created]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"taskData": {"n": 2**63 - 1, "m": -1.50}}, '{"n":9223372036854775807,"m":-1.5}'),
        ({"taskData": "ä\u0000"}, '"ä\\u0000"'),
        ({"taskData": None}, "null"),
        ({"taskData": "aGVsbG8=", "taskDataEncoding": "base64"}, '"aGVsbG8="'),
    ],
)
async def test_the_payload_may_be_asked_for_as_its_text(edge: Edge, given: dict[str, Any], text: str) -> None:
    # JavaScript's numbers are doubles.
    await edge.post(a_request(**given))

    (in_list,) = (await listed(edge, "clientId=shop&taskData=text")).json["schedules"]
    alone = (await edge.ask("GET", "/schedule/shop/order-1?taskData=text")).json

    assert in_list["taskData"] == alone["taskData"] == text


async def test_a_history_may_be_of_summaries(edge: Edge) -> None:
    await edge.post(a_request())
    await edge.ask("DELETE", "/schedule/shop/order-1")

    for query, has_data in (("fields=summary", False), ("taskData=text", True)):
        (past,) = (await edge.ask("GET", f"/schedule/shop/order-1/history?{query}")).json["schedules"]
        assert (past.get("taskData") == '{"order":1}') == has_data


async def some(edge: Edge) -> None:
    """Three schedules of one client."""
    for key in "abc":
        await edge.post(a_request(scheduleKey=key))


async def test_a_cursor_goes_on_behind_its_page_with_any_limit(edge: Edge) -> None:
    await some(edge)
    first = await listed(edge, "clientId=shop&dueFrom=1000&limit=1")

    # The same query in other words.
    cursor = first.json["cursor"]
    again = await listed(edge, f"dueFrom=1970-01-01T00:00:01Z&clientId=shop&limit=3&cursor={cursor}")

    assert (keys(first), keys(again)) == (["a"], ["b", "c"])


async def test_the_latest_come_first_if_asked_for(edge: Edge) -> None:
    await some(edge)
    first = await listed(edge, "clientId=shop&order=desc&limit=1")

    again = await listed(edge, f"clientId=shop&order=desc&fields=summary&cursor={first.json['cursor']}")

    assert (keys(first), keys(again)) == (["c"], ["b", "a"])
    assert (await listed(edge, f"clientId=shop&cursor={first.json['cursor']}")).fields == ["cursor"]


@pytest.mark.parametrize("other", ["clientId=b", "clientId=shop&status=pending", "clientId=shop&dueTo=1"])
async def test_a_cursor_of_another_query_is_refused(edge: Edge, other: str) -> None:
    await some(edge)
    cursor = (await listed(edge, "clientId=shop&limit=1")).json["cursor"]

    answer = await listed(edge, f"{other}&cursor={cursor}")

    assert (answer.status, answer.fields) == (400, ["cursor"])


async def test_a_cursor_that_was_tampered_with_is_refused(edge: Edge) -> None:
    await some(edge)
    cursor = (await listed(edge, "clientId=shop&limit=1")).json["cursor"]
    sealed = base64.urlsafe_b64decode(cursor)
    for wrong in (sealed[:-1], sealed + b"\0", sealed[:8] + b"\xff" * 16, b"\0" + sealed[1:]):
        text = base64.urlsafe_b64encode(wrong).decode().replace("=", "%3D")
        answer = await listed(edge, f"clientId=shop&cursor={text}")
        assert (answer.status, answer.fields) == (400, ["cursor"])


async def test_a_store_that_does_not_answer_is_a_503(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(*_: object, **__: object) -> None:
        raise StoreUnavailable("no answer")

    monkeypatch.setattr(edge.engine.context.search, "list_pointers", silent)

    answer = await listed(edge, "clientId=a")
    assert answer.status == 503
    # A read has no outcome to settle.
    assert "settles" not in answer.json["detail"]


async def test_without_an_index_a_list_is_a_501_that_names_the_setting() -> None:
    async with open_edge(lists=False) as edge:
        answer = await listed(edge, "clientId=a")

        assert answer.status == 501
        assert "CLOCKWORK_SEARCH" in answer.json["detail"]
        assert (await edge.post(a_request())).status == 201
        assert (await edge.ask("GET", "/schedule/shop/order-1/history")).status == 200


async def test_a_history_tells_of_every_end_the_last_accepted_first(edge: Edge) -> None:
    for version, state in enumerate(EndState, start=1):
        row = builders.row(builders.schedule(schedule_key="a/b", version=version))
        edge.engine.store.pointers[row.schedule.client_id, row.schedule.schedule_key] = builders.pointer(row)
        to = builders.position(builders.DUE_MS + 60_000) if state is EndState.SUPERSEDED else None
        outcome = replace(builders.outcome(row, state), moved_to=to)
        await edge.engine.store.finish(row.shard, [builders.end(row, outcome)])

    answer = await edge.ask("GET", f"/schedule/{builders.CLIENT}/a%2Fb/history?limit=4")

    by_status = {each["status"]: each for each in answer.json["schedules"]}
    assert list(by_status) == [state.value for state in reversed(EndState)]
    assert by_status["delivered"]["delivered"] == {
        "topic": builders.TOPIC,
        "partition": 0,
        "offset": 7,
        "at": builders.DUE_MS + 5,
        "latenessMs": 5,
    }
    assert by_status["failed"]["failed"] == {"reason": "record_too_large", "at": builders.DUE_MS + 5, "attempts": 8}
    assert by_status["cancelled"]["version"] == 2
    moved = by_status["superseded"]
    assert (moved["scheduleTime"], moved["endedAt"]) == (builders.DUE_MS, builders.DUE_MS + 5)
    assert "createdAt" in moved
    assert moved["movedTo"] == builders.DUE_MS + 60_000
    assert [status for status, each in by_status.items() if "movedTo" in each] == ["superseded"]

    page = await edge.ask("GET", f"/schedule/{builders.CLIENT}/a%2Fb/history?limit=1")
    cursor = page.json["cursor"]
    same = await edge.ask("GET", f"/schedule/{builders.CLIENT}/a%2Fb/history?cursor={cursor}")
    other = await edge.ask("GET", f"/schedule/{builders.CLIENT}/b/history?cursor={cursor}")
    assert [each["status"] for each in same.json["schedules"]] == list(by_status)[1:]
    assert (other.status, other.fields) == (400, ["cursor"])


async def test_a_history_of_an_unknown_key_is_a_404_and_a_wrong_parameter_a_400(edge: Edge) -> None:
    assert (await edge.ask("GET", "/schedule/a/b/history")).status == 404
    assert (await edge.ask("GET", "/schedule/a/b/history?status=failed")).fields == ["status"]
    assert (await edge.ask("GET", "/schedule/a%20/b/history")).fields == ["clientId"]
