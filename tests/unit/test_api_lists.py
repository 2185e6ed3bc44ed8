"""GET /schedules and histories at the edge: parameters, cursors, and what is answered."""

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from clockwork.domain.destination import Topic
from clockwork.domain.position import Position
from clockwork.domain.schedule import ClientId, EndState, OrderingKey, Outcome, ScheduleKey
from clockwork.errors import StoreUnavailable
from clockwork.requests.history import HistoryPage
from clockwork.requests.listing import ListPage, ListQuery
from clockwork.requests.results import ScheduleView, Status
from tests.support import builders
from tests.unit.api_edge import Answer, Edge, a_request, open_edge


@dataclass
class FakePages:
    """Answers with what it is given, and remembers what it was asked."""

    views: tuple[ScheduleView, ...] = ()
    outcomes: tuple[Outcome, ...] | None = ()
    next_after: Position | None = None
    asked: list[Any] = field(default_factory=list)
    error: Exception | None = None

    async def page(self, query: ListQuery, *, after: Position | None, limit: int) -> ListPage:
        self.asked.append((query, after, limit))
        if self.error is not None:
            raise self.error
        return ListPage(views=self.views, next_after=self.next_after)


@dataclass
class FakeHistory:
    outcomes: tuple[Outcome, ...] | None = ()
    next_after: Position | None = None
    asked: list[Any] = field(default_factory=list)

    async def page(
        self, client_id: ClientId, schedule_key: ScheduleKey, *, after: Position | None, limit: int
    ) -> HistoryPage | None:
        self.asked.append((client_id, schedule_key, after, limit))
        return None if self.outcomes is None else HistoryPage(outcomes=self.outcomes, next_after=self.next_after)


@pytest.fixture
def pages() -> FakePages:
    return FakePages()


@pytest.fixture
def history() -> FakeHistory:
    return FakeHistory()


@pytest.fixture
async def edge(pages: FakePages, history: FakeHistory) -> AsyncIterator[Edge]:
    async with open_edge(lists=pages, history=history) as opened:
        yield opened


async def listed(edge: Edge, query: str) -> Answer:
    return await edge.ask("GET", f"/schedules?{query}")


async def test_a_list_answers_each_schedule_as_a_get_of_it_does(edge: Edge, pages: FakePages) -> None:
    created = await edge.post(a_request(taskData={"ä": [1, None]}))
    pages.views = tuple(edge.engine.views.values())

    answer = await listed(edge, "clientId=shop")

    assert answer.json == {"schedules": [created.json], "cursor": None}
    assert pages.asked == [(ListQuery(client_id=ClientId("shop")), None, 100)]


async def test_every_filter_reaches_the_engine(edge: Edge, pages: FakePages) -> None:
    filters = "status=pending&topic=orders&orderingKey=a%2Fb+c%C3%A4&dueFrom=1970-01-01T00:00:01Z&dueTo=5000"

    assert (await listed(edge, f"clientId=shop&{filters}&limit=7")).status == 200

    wanted = ListQuery(
        client_id=ClientId("shop"),
        status=Status.PENDING,
        topic=Topic("orders"),
        ordering_key=OrderingKey("a/b cä"),
        due_from_ms=1_000,
        due_to_ms=5_000,
    )
    assert pages.asked == [(wanted, None, 7)]


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
async def test_each_wrong_parameter_is_named(edge: Edge, pages: FakePages, query: str, fields: list[str]) -> None:
    answer = await listed(edge, query)

    assert (answer.status, sorted(answer.fields)) == (400, sorted(fields))
    assert pages.asked == []


async def test_a_cursor_goes_on_behind_its_page_with_any_limit(edge: Edge, pages: FakePages) -> None:
    pages.next_after = builders.position()
    cursor = (await listed(edge, "clientId=a&dueFrom=1000")).json["cursor"]

    # The same query in other words.
    again = await listed(edge, f"dueFrom=1970-01-01T00:00:01Z&clientId=a&limit=3&cursor={cursor}")

    assert again.status == 200
    assert [(after, limit) for _, after, limit in pages.asked] == [(None, 100), (pages.next_after, 3)]


@pytest.mark.parametrize("other", ["clientId=b", "clientId=a&status=pending", "clientId=a&dueTo=1"])
async def test_a_cursor_of_another_query_is_refused(edge: Edge, pages: FakePages, other: str) -> None:
    pages.next_after = builders.position()
    cursor = (await listed(edge, "clientId=a")).json["cursor"]

    answer = await listed(edge, f"{other}&cursor={cursor}")

    assert (answer.status, answer.fields) == (400, ["cursor"])


async def test_a_cursor_that_was_tampered_with_is_refused(edge: Edge, pages: FakePages) -> None:
    pages.next_after = builders.position()
    cursor = (await listed(edge, "clientId=a")).json["cursor"]
    sealed = base64.urlsafe_b64decode(cursor)
    for wrong in (sealed[:-1], sealed + b"\0", sealed[:8] + b"\xff" * 16, b"\0" + sealed[1:]):
        text = base64.urlsafe_b64encode(wrong).decode().replace("=", "%3D")
        answer = await listed(edge, f"clientId=a&cursor={text}")
        assert (answer.status, answer.fields) == (400, ["cursor"])


async def test_a_store_that_does_not_answer_is_a_503(edge: Edge, pages: FakePages) -> None:
    pages.error = StoreUnavailable("no answer")

    assert (await listed(edge, "clientId=a")).status == 503


async def test_without_an_index_a_list_is_a_501_that_names_the_setting() -> None:
    async with open_edge() as edge:
        answer = await listed(edge, "clientId=a")

        assert answer.status == 501
        assert "CLOCKWORK_SEARCH" in answer.json["detail"]


async def test_a_history_tells_of_every_end(edge: Edge, history: FakeHistory) -> None:
    row = builders.row(builders.schedule(schedule_key="a", version=3))
    history.outcomes = tuple(builders.outcome(row, state) for state in EndState)
    history.next_after = row.position

    answer = await edge.ask("GET", f"/schedule/{builders.CLIENT}/a%2Fb/history?limit=4")

    by_status = {each["status"]: each for each in answer.json["schedules"]}
    assert list(by_status) == [state.value for state in EndState]
    assert by_status["delivered"]["delivered"] == {
        "topic": builders.TOPIC,
        "partition": 0,
        "offset": 7,
        "at": builders.DUE_MS + 5,
        "latenessMs": 5,
    }
    assert by_status["failed"]["failed"] == {"reason": "record_too_large", "at": builders.DUE_MS + 5, "attempts": 8}
    assert by_status["cancelled"]["version"] == 3
    moved = by_status["superseded"]
    assert (moved["scheduleTime"], moved["endedAt"]) == (builders.DUE_MS, builders.DUE_MS + 5)
    assert "createdAt" in moved
    assert history.asked == [(builders.CLIENT, "a/b", None, 4)]

    same = await edge.ask("GET", f"/schedule/{builders.CLIENT}/a%2Fb/history?cursor={answer.json['cursor']}")
    other = await edge.ask("GET", f"/schedule/{builders.CLIENT}/b/history?cursor={answer.json['cursor']}")
    assert same.status == 200
    assert history.asked[-1] == (builders.CLIENT, "a/b", row.position, 100)
    assert (other.status, other.fields) == (400, ["cursor"])


async def test_a_history_of_an_unknown_key_is_a_404_and_a_wrong_parameter_a_400(
    edge: Edge, history: FakeHistory
) -> None:
    history.outcomes = None

    assert (await edge.ask("GET", "/schedule/a/b/history")).status == 404
    assert (await edge.ask("GET", "/schedule/a/b/history?status=failed")).fields == ["status"]
    assert (await edge.ask("GET", "/schedule/a%20/b/history")).fields == ["clientId"]
