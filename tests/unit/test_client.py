"""The client: what it sends, what it makes of answers, and when it asks again."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from http import HTTPStatus
from typing import Any

import pytest

from clockwork import client as c
from clockwork.client.aio import AsyncClient
from clockwork.client.schedules import batches, epoch_ms
from clockwork.errors import FieldError
from clockwork.http.openapi_parts import CANCELLED, DELIVERED, FAILED, PAST, PENDING
from clockwork.schema import problems
from tests.unit.api_edge import DUE_MS, NOW_MS, StillClock, open_edge
from tests.unit.client_stub import DROP, FAST, Asked, Stub, open_stub, results

MINUTE = timedelta(minutes=1)


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with open_stub() as opened:
        yield opened


@pytest.fixture
async def client(stub: Stub) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(stub.url, retries=FAST, clock=StillClock(), api_key="secret-key") as opened:
        yield opened


async def _create(client: AsyncClient, **more: Any) -> c.Schedule:
    given: dict[str, Any] = {"at": MINUTE, "topic": "orders", "data": {"a": 1}}
    return await client.create("shop", "order-1", **given | more)


def conflict(reason: str, schedule: dict[str, Any]) -> problems.Problem:
    return problems.conflict(reason, "no", schedule)


# --- with the real HTTP edge


async def test_create_get_and_cancel_work_against_the_service_itself() -> None:
    async with open_edge() as edge, AsyncClient(f"http://127.0.0.1:{edge.server.port}", clock=StillClock()) as client:
        retry = c.RetryPolicy(attempts=3, jitter=0.5)
        more: dict[str, Any] = {"deadline_ms": 9, "on_late": "drop", "retry": retry, "headers": {"a": "b"}}
        more |= {"guarantee": "at_least_once", "ordering_key": "o"}
        created = await _create(client, **more)
        assert (created.schedule_time_ms, created.task_data, created.status) == (DUE_MS, {"a": 1}, "pending")
        assert created.delivery is not None
        assert (created.delivery.guarantee, created.delivery.headers) == ("at_least_once", {"a": "b"})
        assert (created.delivery.deadline_ms, created.delivery.on_late) == (9, "drop")
        assert created.delivery.retry is not None
        assert (created.delivery.retry.attempts, created.delivery.retry.jitter) == (3, 0.5)
        assert await _create(client, **more) == created
        with pytest.raises(c.KeyTaken) as taken:
            await _create(client, data={"a": 2})
        assert taken.value.schedule == created
        assert await client.get("shop", "order-1") == created
        assert await client.cancel("shop", "order-1") == created.model_copy(update={"status": "cancelled"})
        with pytest.raises(c.NotFound):
            await client.get("shop", "none")
        with pytest.raises(c.InvalidSchedule) as invalid:
            await _create(client, topic="__x", at=-1)
        assert {each.field for each in invalid.value.errors} == {"scheduleTime", "delivery.topic"}


@pytest.mark.parametrize("key", ["a/b", "ü %2f", "..", ".", "?#", "{x}", "a b+c", "\x00", "😀"])
async def test_every_key_arrives_as_it_is(key: str) -> None:
    async with open_edge() as edge, AsyncClient(f"http://127.0.0.1:{edge.server.port}", clock=StillClock()) as client:
        await client.create("shop", key, at=DUE_MS, topic="orders", data=b"\xff")
        assert (await client.get("shop", key)).schedule_key == key


# --- what is sent


@pytest.mark.parametrize(
    ("at", "ms"),
    [
        (5, 5),
        (timedelta(seconds=1.5), NOW_MS + 1_500),
        (timedelta(microseconds=1), NOW_MS + 1),
        (timedelta(milliseconds=-3), NOW_MS - 3),
        (datetime(1970, 1, 1, 0, 0, 1, 1, tzinfo=UTC), 1_001),
        (datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), 0),
    ],
)
def test_times_are_taken_as_people_write_them_and_never_made_earlier(at: c.When, ms: int) -> None:
    assert epoch_ms(at, StillClock()) == ms


def test_a_datetime_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        epoch_ms(datetime(2030, 1, 1), StillClock())  # noqa: DTZ001


async def test_each_call_is_sent_as_the_api_wants_it(client: AsyncClient, stub: Stub) -> None:
    await client.reschedule("shop", "k", at=MINUTE, headers={}, data=None, if_version=3)
    await client.reschedule("shop", "k", topic="t", data=b"x")
    await client.fire("shop", "k")
    await client.retry("shop", "k", at=7)
    assert [(each.method, each.path, each.body) for each in stub.asked] == [
        ("PUT", "/schedule/shop/k", {"scheduleTime": DUE_MS, "delivery": {"headers": {}}, "taskData": None}),
        ("PUT", "/schedule/shop/k", {"delivery": {"topic": "t"}, "taskData": "eA==", "taskDataEncoding": "base64"}),
        ("POST", "/schedule/shop/k/fire", None),
        ("POST", "/schedule/shop/k/retry", {"scheduleTime": 7}),
    ]
    assert stub.asked[0].headers["If-Match"] == '"3"'
    assert all(each.headers["Authorization"] == "Bearer secret-key" for each in stub.asked)
    assert "secret-key" not in repr(client) + repr(vars(client))


async def test_lists_follow_their_cursor_to_the_end(client: AsyncClient, stub: Stub) -> None:
    pages = [{"schedules": [PENDING, DELIVERED], "cursor": "x y"}, {"schedules": [FAILED], "cursor": None}]
    stub.will(*((200, page) for page in pages))
    found = [each.status async for each in client.list("shop", status="pending", due_from=5, due_to=MINUTE)]
    assert found == ["pending", "delivered", "failed"]
    assert stub.lines == [
        f"GET /schedules?clientId=shop&status=pending&dueFrom=5&dueTo={DUE_MS}&limit=100",
        f"GET /schedules?clientId=shop&status=pending&dueFrom=5&dueTo={DUE_MS}&limit=100&cursor=x+y",
    ]
    stub.will((200, {"schedules": [{**PAST, "status": "superseded"}], "cursor": None}))
    assert [each.status async for each in client.history("shop", "k")] == ["superseded"]


# --- what answers become


@pytest.mark.parametrize(
    ("problem", "error"),
    [
        (conflict("pending", PENDING), c.KeyTaken),
        (conflict("delivered", DELIVERED), c.AlreadyDelivered),
        (conflict("failed", FAILED), c.AlreadyFailed),
        (conflict("cancelled", CANCELLED), c.AlreadyCancelled),
        (conflict("in_flight", PENDING), c.InFlight),
        (conflict("news", PENDING), c.Conflict),
        (conflict("delivered", {"status": "news"}), c.AlreadyDelivered),
        (problems.invalid_input([FieldError("a", "b")]), c.InvalidSchedule),
        (problems.too_large("x"), c.InvalidSchedule),
        (problems.schedule_not_found(), c.NotFound),
        (problems.of_http(HTTPStatus.NOT_FOUND), c.NotSupported),
        (problems.of_http(HTTPStatus.NOT_IMPLEMENTED), c.NotSupported),
        (problems.of_http(HTTPStatus.UNAUTHORIZED), c.Unauthorized),
        (problems.of_http(HTTPStatus.FORBIDDEN), c.Forbidden),
        (problems.version_differs(1, PENDING), c.VersionMismatch),
    ],
)
async def test_a_final_answer_is_its_own_error_and_is_not_asked_for_again(
    client: AsyncClient, stub: Stub, problem: problems.Problem, error: type[c.CallFailed]
) -> None:
    stub.will(problem)
    with pytest.raises(c.CallFailed) as raised:
        await client.cancel("shop", "k")
    assert type(raised.value) is error
    assert raised.value.status == problem.status
    assert len(stub.asked) == 1


async def test_an_answer_of_somebody_else_is_an_unknown_outcome(client: AsyncClient, stub: Stub) -> None:
    stub.will((200, {"hello": "I am a proxy"}))
    with pytest.raises(c.Unavailable, match="clientId"):
        await client.get("shop", "k")


# --- when it asks again

TOO_MANY = problems.Problem(status=HTTPStatus(429), kind="x", title="x", detail="x")


@pytest.mark.parametrize("trouble", [problems.unavailable("down", retry_after_s=0), DROP, TOO_MANY, (502, None)])
async def test_what_got_no_answer_is_sent_again_as_the_very_same_request(
    client: AsyncClient, stub: Stub, trouble: Any
) -> None:
    stub.will(trouble, trouble, (201, PENDING))
    assert (await _create(client)).status == "pending"
    assert len(stub.asked) == 3
    assert stub.asked[0].body == stub.asked[1].body == stub.asked[2].body


async def test_trying_is_bounded_and_ends_with_the_outcome_unknown(client: AsyncClient, stub: Stub) -> None:
    stub.will(problems.unavailable("down", retry_after_s=0))
    with pytest.raises(c.Unavailable, match="down"):
        await _create(client)
    assert len(stub.asked) == FAST.attempts_max


async def test_a_service_that_asks_for_more_patience_than_there_is_ends_the_call_at_once(
    client: AsyncClient, stub: Stub
) -> None:
    stub.will(problems.unavailable("down", retry_after_s=3_600))
    with pytest.raises(c.Unavailable):
        await _create(client)
    assert len(stub.asked) == 1


def test_waits_double_up_to_their_bound_and_yield_to_retry_after() -> None:
    retries, rng = c.Retries(initial_ms=100, wait_ms_max=1_000), random.Random(7)
    for attempt, most in ((1, 100), (2, 200), (4, 800), (5, 1_000), (60, 1_000)):
        assert most / 2 <= retries.wait_ms(attempt, None, rng) <= most
    assert retries.wait_ms(1, 2, rng) == 2_000


async def test_nothing_listening_is_an_unknown_outcome_too() -> None:
    async with AsyncClient("http://127.0.0.1:9", retries=FAST) as client:
        with pytest.raises(c.Unavailable, match="No answer"):
            await client.get("shop", "k")


# --- many at once


def _new(number: int) -> c.NewSchedule:
    return c.NewSchedule(client_id="shop", schedule_key=f"k{number}", at=5, topic="t", data=number)


async def test_many_are_sent_in_batches_and_told_in_order(client: AsyncClient, stub: Stub) -> None:
    stub.will(results)
    found = [each async for each in client.create_many(map(_new, range(25)), batch_items_max=10)]
    assert [len(each.body["schedules"]) for each in stub.asked] == [10, 10, 5]
    assert [each.index for each in found] == list(range(25))
    assert [each.schedule.schedule_key for each in found if each.schedule] == [f"k{i}" for i in range(25)]


async def test_an_item_fails_alone_and_only_the_unsettled_are_sent_again(client: AsyncClient, stub: Stub) -> None:
    def first(asked: Asked) -> tuple[int, Any]:
        status, document = results(asked)
        document["results"][1] = conflict("pending", PENDING).document()
        document["results"][2] = problems.unavailable("down").document()
        return status, document

    stub.will(first, results)
    found = [each async for each in client.create_many(map(_new, range(4)))]
    assert [type(each.error) for each in found] == [type(None), c.KeyTaken, type(None), type(None)]
    assert [each["scheduleKey"] for each in stub.asked[1].body["schedules"]] == ["k2"]


async def test_a_batch_whose_answer_does_not_fit_settles_nothing(client: AsyncClient, stub: Stub) -> None:
    stub.will((200, {"results": []}))
    with pytest.raises(c.Unavailable):
        _ = [each async for each in client.cancel_many([("shop", "a")])]


def test_batches_are_bounded_by_bytes_as_well() -> None:
    sizes = [len(each) for each in batches(["x" * 10] * 7, items_max=100, bytes_max=26)]
    assert sizes == [2, 2, 2, 1]
    assert [len(each) for each in batches(["x" * 99, "y"], items_max=100, bytes_max=26)] == [1, 1]


async def test_many_tasks_may_share_one_client(client: AsyncClient, stub: Stub) -> None:
    found = await asyncio.gather(*(client.get("shop", f"k{i}") for i in range(50)))
    assert len(found) == len(stub.asked) == 50


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://x", "", "http://"])
def test_an_address_that_is_none_is_refused_by_name(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        AsyncClient(url)


async def test_a_client_that_is_not_open_says_so() -> None:
    with pytest.raises(RuntimeError, match="not open"):
        await AsyncClient("http://127.0.0.1:9").get("a", "b")
